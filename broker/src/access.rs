//! Who may connect, publish and subscribe: the `[broker.access]` section, checked once.
//!
//! Rules are tried in order and the first match decides; what no rule matches is up to the default. What they decide is in
//! `access/judge.rs`, what is counted of it in `access/denials.rs`.

mod denials;
mod judge;
mod placeholders;

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use settings::Section as _;

pub use denials::Denied;
pub(crate) use denials::{By, Denials};
pub(crate) use judge::{Access, How, Scope, Who};

/// Whether a rule lets a client do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Open a session.
    Connect,
    /// Publish to a topic.
    Publish,
    /// Subscribe to a filter, and receive what matches it.
    Subscribe,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Publish, Self::Subscribe];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// What becomes of a publish that may not be, from a 3.x client, which cannot be told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusedPublish {
    /// It is acknowledged and goes nowhere.
    Drop,
    /// The connection is closed.
    Close,
}

settings::section! {
    /// The `[broker.access]` section.
    #[derive(Eq)]
    pub struct AccessConfig {
        /// What becomes of what no rule matches. Where it is not set, an action that some rule allows is denied otherwise, and
        /// an action without such a rule is allowed: so a list of what is allowed is the whole of it. The start says which
        /// holds.
        pub default: Option<Effect> = None, ["\"allow\" or \"deny\""];
        /// Rules in order; the first match decides. A rule has `effect` ("allow" or "deny"), `action` ("connect", "publish" or
        /// "subscribe"), `filter` (a topic filter, not for connect; `%c` stands for the client identifier, `%u` for the user,
        /// `%t` for the tenant, `${claim.NAME}` for a claim), whom it is about: `client` (default `*`), `user` (`*` is any user
        /// that is known), `tenant`, each a name or a prefix that ends in `*`, and `group`; perhaps `qos_max` (of an allow rule:
        /// publishes with more are not allowed by it, subscriptions are granted less), `retain` (of publishing: about messages
        /// that are to be retained, or are not), and a `name` for log and metrics. Denied filters hold for what is received: who
        /// subscribes to a wider filter gets all but what is denied.
        pub rules: Vec<Rule> = Vec::new(), ["list of rules"];
        /// What becomes of a publish that the rules refuse, or that goes to a topic of the broker's own (`$…`), when a client of
        /// 3.1 or 3.1.1 sent it, which cannot be told: `drop` acknowledges it, `close` closes the connection, and when
        /// the client is back its publishes wait, longer each time (limits.refused_pause_ms_max). 5.0 clients get reason 0x87.
        pub refused_publish_3x: RefusedPublish = RefusedPublish::Drop, ["\"drop\" or \"close\""];
    }
}

impl AccessConfig {
    pub(crate) fn validate(&self) -> Result<(), settings::Error> {
        self.check_keys()?;
        let mut names = BTreeSet::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let wrong = |error: settings::Error| error.below(&format!("rules[{at}]"));
            rule.validate().map_err(wrong)?;
            let is_taken = denials::NAMES_TAKEN.contains(&&*rule.name);
            if !rule.name.is_empty() && (is_taken || !names.insert(&rule.name)) {
                let allowed = "a name that nothing else has in metrics";
                return Err(wrong(settings::Error::text("name", &rule.name, allowed)));
            }
        }
        if self.default == Some(Effect::Deny) && !self.allows_any(Action::Connect) {
            let allowed = "a default of \"deny\" together with a rule that allows to connect, for without one nobody could: \
                           add { effect = \"allow\", action = \"connect\" }";
            return Err(settings::Error::text("default", "deny", allowed));
        }
        Ok(())
    }

    fn allows_any(&self, action: Action) -> bool {
        let allows = |rule: &Rule| rule.action == action && rule.effect == Effect::Allow;
        self.rules.iter().any(allows)
    }

    /// What becomes of an action that no rule matches.
    #[must_use]
    pub fn default_for(&self, action: Action) -> Effect {
        match self.default {
            Some(default) => default,
            None if self.allows_any(action) => Effect::Deny,
            None => Effect::Allow,
        }
    }

    /// Reads the section; who writes the rules where the section belongs is told where they go.
    pub(crate) fn deserialize_table<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = AccessConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the table [broker.access]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AccessConfig, A::Error> {
                AccessConfig::deserialize(MapAccessDeserializer::new(map))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<AccessConfig, A::Error> {
                Err(serde::de::Error::custom(
                    "this is a table; each rule is one [[broker.access.rules]], and what no rule matches is up to \
                     broker.access.default",
                ))
            }
        }

        from.deserialize_any(Table)
    }
}

/// One access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// What it is about.
    pub action: Action,
    /// A topic filter, perhaps with placeholders. Empty for connect.
    #[serde(default)]
    pub filter: String,
    /// A client identifier, or a prefix that ends in `*`.
    #[serde(default = "any_client")]
    pub client: String,
    /// A user, or a prefix that ends in `*`: clients that nobody knows are not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A tenant, or a prefix that ends in `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// A group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The highest quality of service that it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_max: Option<u8>,
    /// Whether it is about messages that are to be retained, or about the others; if nothing is said, about both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// What it is called in the log and in metrics; empty is its place in the list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

fn any_client() -> String {
    "*".to_owned()
}

impl Default for Rule {
    /// Nobody may connect: to be changed.
    fn default() -> Self {
        Self {
            effect: Effect::Deny,
            action: Action::Connect,
            filter: String::new(),
            client: any_client(),
            user: None,
            tenant: None,
            group: None,
            qos_max: None,
            retain: None,
            name: String::new(),
        }
    }
}

/// The longest name of a rule.
const NAME_CHARACTERS_MAX: usize = 64;

impl Rule {
    fn validate(&self) -> Result<(), settings::Error> {
        self.validate_whom()?;
        self.validate_how()?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.len() > NAME_CHARACTERS_MAX || !self.name.chars().all(is_name) {
            let allowed = "up to 64 characters of A-Z a-z 0-9 - _ .";
            return Err(settings::Error::text("name", &self.name, allowed));
        }
        let refused = |allowed: String| Err(settings::Error::text("filter", &self.filter, allowed));
        if self.action == Action::Connect {
            return if self.filter.is_empty() {
                Ok(())
            } else {
                refused("no filter where the action is \"connect\"".to_owned())
            };
        }
        if let Some(unknown) = placeholders::unknown(&self.filter, &placeholders::KNOWN) {
            let words = placeholders::WORDS;
            return refused(format!(
                "a topic filter with no placeholders but {words}; {unknown} is none"
            ));
        }
        if let Err(error) = topic::validate_filter(&placeholders::example(&self.filter)) {
            return refused(error.to_string());
        }
        Ok(())
    }

    fn validate_whom(&self) -> Result<(), settings::Error> {
        let all = [
            ("client", Some(&self.client), "a client identifier"),
            ("user", self.user.as_ref(), "a user's name"),
            ("tenant", self.tenant.as_ref(), "a tenant's name"),
        ];
        for (key, text, what) in all {
            let Some(text) = text else { continue };
            let prefix = text.strip_suffix('*').unwrap_or(text);
            let why = if text.is_empty() {
                "; for all write \"*\""
            } else if prefix.contains('*') {
                "; a * elsewhere than at the end has no meaning"
            } else if placeholders::unknown(text, &[]).is_some() {
                "; there are no placeholders here"
            } else {
                continue;
            };
            let allowed = format!("{what}, or a prefix that ends in *{why}");
            return Err(settings::Error::text(key, text, allowed));
        }
        if self.group.as_deref() == Some("") {
            return Err(settings::Error::text("group", "", "the name of a group"));
        }
        Ok(())
    }

    fn validate_how(&self) -> Result<(), settings::Error> {
        let is_bound = self.effect == Effect::Allow && self.action != Action::Connect;
        if let Some(max) = self.qos_max.filter(|max| *max > 2 || !is_bound) {
            let allowed = "0, 1 or 2, where the effect is \"allow\" and the action \"publish\" or \"subscribe\"";
            return Err(settings::Error::new("qos_max", max, allowed));
        }
        if let Some(retain) = self.retain.filter(|_| self.action != Action::Publish) {
            let allowed = "true or false, where the action is \"publish\"";
            return Err(settings::Error::new("retain", retain, allowed));
        }
        Ok(())
    }

    /// What it is called where the `at`th rule of the list is meant.
    fn label(&self, at: usize) -> String {
        if self.name.is_empty() {
            format!("rules[{at}]")
        } else {
            self.name.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(toml_like: &str) -> Result<AccessConfig, String> {
        let config: AccessConfig = serde_json::from_str(toml_like).map_err(|e| e.to_string())?;
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn one(rule: &str) -> Result<AccessConfig, String> {
        section(&format!("{{\"rules\":[{rule}]}}"))
    }

    #[test]
    fn what_looks_like_a_placeholder_and_is_none_is_refused_with_the_one_there_is() {
        for (filter, said) in [
            ("devices/%U/#", "%U is none"),
            ("%x", "%x is none"),
            ("a/${claim.}", "${claim.} is none"),
            ("a/${claim.a/b}", "${claim.a/b} is none"),
            ("a/${claim.x", "${claim.x is none"),
            ("devices/${clientid}/#", "${clientid} is none"),
            ("${username}", "${username} is none"),
        ] {
            let rule = format!(r#"{{"effect":"allow","action":"publish","filter":"{filter}"}}"#);
            let error = one(&rule).unwrap_err();
            assert!(
                error.contains(said) && error.contains("%c") && error.contains("rules[0].filter"),
                "{error}"
            );
        }
        for filter in [
            "devices/%c/#",
            "%c",
            "%t/%u/${claim.site}/+/#",
            "100%/x",
            "a/$b",
            "50%",
        ] {
            let rule = format!(r#"{{"effect":"deny","action":"publish","filter":"{filter}"}}"#);
            one(&rule).unwrap();
        }
    }

    #[test]
    fn a_client_is_an_identifier_or_a_prefix() {
        for client in ["", "a*b", "*x", "%c", "%u-*", "${clientid}"] {
            let rule = format!(r#"{{"effect":"deny","action":"connect","client":"{client}"}}"#);
            let error = one(&rule).unwrap_err();
            assert!(error.contains("rules[0].client"), "{client}: {error}");
        }
        for client in ["*", "a", "a-*"] {
            one(&format!(
                r#"{{"effect":"deny","action":"connect","client":"{client}"}}"#
            ))
            .unwrap();
        }
    }

    #[test]
    fn bounds_stand_where_they_mean_something() {
        for (rule, key) in [
            (
                r#"{"effect":"deny","action":"publish","filter":"a","qos_max":1}"#,
                "qos_max",
            ),
            (
                r#"{"effect":"allow","action":"connect","qos_max":1}"#,
                "qos_max",
            ),
            (
                r#"{"effect":"allow","action":"publish","filter":"a","qos_max":3}"#,
                "qos_max",
            ),
            (
                r#"{"effect":"deny","action":"subscribe","filter":"a","retain":true}"#,
                "retain",
            ),
            (
                r#"{"effect":"deny","action":"connect","group":""}"#,
                "group",
            ),
            (
                r#"{"effect":"deny","action":"connect","user":"a*b"}"#,
                "user",
            ),
            (
                r#"{"effect":"deny","action":"connect","tenant":"%t"}"#,
                "tenant",
            ),
        ] {
            let error = one(rule).unwrap_err();
            assert!(error.contains(&format!("rules[0].{key}")), "{error}");
        }
        for rule in [
            r#"{"effect":"allow","action":"subscribe","filter":"a","qos_max":1,"user":"*"}"#,
            r#"{"effect":"deny","action":"publish","filter":"a","retain":true,"group":"ops"}"#,
        ] {
            one(rule).unwrap();
        }
    }

    #[test]
    fn names_are_short_and_each_ones_own() {
        let rule = |name: &str| {
            format!(r#"{{"effect":"deny","action":"publish","filter":"a","name":"{name}"}}"#)
        };
        assert!(one(&rule("a b")).unwrap_err().contains("rules[0].name"));
        let twice = format!("{},{}", rule("x"), rule("x"));
        assert!(one(&twice).unwrap_err().contains("rules[1].name"));
        assert!(one(&rule("default")).unwrap_err().contains("rules[0].name"));
        let config = one(&format!("{},{}", rule("x"), rule(""))).unwrap();
        let labels: Vec<_> = config
            .rules
            .iter()
            .enumerate()
            .map(|(at, rule)| rule.label(at))
            .collect();
        assert_eq!(labels, ["x", "rules[1]"]);
    }

    #[test]
    fn a_list_of_what_is_allowed_denies_the_rest_of_that_action() {
        use Action::{Connect, Publish, Subscribe};
        let of = |config: &AccessConfig| Action::ALL.map(|action| config.default_for(action));
        use Effect::{Allow, Deny};
        assert_eq!(of(&AccessConfig::default()), [Allow; 3]);
        let config = one(r#"{"effect":"allow","action":"publish","filter":"a"}"#).unwrap();
        assert_eq!(of(&config), [Allow, Deny, Allow]);
        let config = one(r#"{"effect":"deny","action":"publish","filter":"a"}"#).unwrap();
        assert_eq!(of(&config), [Allow; 3]);
        let all = r#"{"default":"deny","rules":[{"effect":"allow","action":"connect"}]}"#;
        assert_eq!(of(&section(all).unwrap()), [Deny; 3]);
        let open =
            r#"{"default":"allow","rules":[{"effect":"allow","action":"publish","filter":"a"}]}"#;
        assert_eq!(of(&section(open).unwrap()), [Allow; 3]);
        assert_eq!(Action::ALL, [Connect, Publish, Subscribe]);
    }

    #[test]
    fn a_default_that_lets_nobody_in_is_refused() {
        let error = section(r#"{"default":"deny"}"#).unwrap_err();
        assert!(error.contains("nobody could"), "{error}");
    }
}
