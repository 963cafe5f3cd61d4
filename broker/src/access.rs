//! Who may connect, publish and subscribe: simple rules from the configuration, asked before anything is routed.
//!
//! Rules are tried in order and the first match decides; what no rule matches is allowed. A deny rule for
//! subscriptions matches every filter that *overlaps* its own, so that `#` does not lead around it; an allow rule
//! matches only filters that its own covers whole.

use serde::{Deserialize, Serialize};

/// Whether a rule lets a client do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Open a session.
    Connect,
    /// Publish to a topic.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
}

/// One access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// What it is about.
    pub action: Action,
    /// A topic filter; `%c` stands for the client identifier. Empty for connect.
    #[serde(default)]
    pub filter: String,
    /// A client identifier, or a prefix that ends in `*`.
    #[serde(default = "any_client")]
    pub client: String,
}

fn any_client() -> String {
    "*".to_owned()
}

impl Rule {
    pub(crate) fn validate(&self) -> Result<(), settings::Error> {
        if self.action == Action::Connect {
            if self.filter.is_empty() {
                return Ok(());
            }
            let allowed = "no filter where the action is \"connect\"";
            return Err(settings::Error::text("filter", &self.filter, allowed));
        }
        topic::validate_filter(&self.filter.replace("%c", "c"))
            .map_err(|error| settings::Error::text("filter", &self.filter, error.to_string()))
    }

    fn is_for(&self, client_id: &str) -> bool {
        match self.client.strip_suffix('*') {
            Some(prefix) => client_id.starts_with(prefix),
            None => self.client == client_id,
        }
    }

    /// The rule's filter for this client; `None` when the identifier would change the filter's levels or wildcards,
    /// so that a client named `+` or `a/#` gains nothing by its name.
    fn filter_for(&self, client_id: &str) -> Option<std::borrow::Cow<'_, str>> {
        if !self.filter.contains("%c") {
            return Some(self.filter.as_str().into());
        }
        if client_id.contains(['+', '#', '/']) {
            return None;
        }
        Some(self.filter.replace("%c", client_id).into())
    }
}

/// The rules of a node.
#[derive(Debug, Clone, Default)]
pub struct Access {
    rules: Vec<Rule>,
    publish: bool,
}

impl Access {
    /// Takes validated rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let publish = rules.iter().any(|rule| rule.action == Action::Publish);
        Self { rules, publish }
    }

    fn rules<'a>(&'a self, action: Action, client_id: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.action == action && rule.is_for(client_id))
    }

    /// Whether the client may open a session.
    #[must_use]
    pub fn may_connect(&self, client_id: &str) -> bool {
        self.rules(Action::Connect, client_id)
            .next()
            .is_none_or(|rule| rule.effect == Effect::Allow)
    }

    /// Whether the client may publish to `topic`.
    #[must_use]
    pub fn may_publish(&self, client_id: &str, topic: &str) -> bool {
        if !self.publish {
            return true;
        }
        for rule in self.rules(Action::Publish, client_id) {
            match rule.filter_for(client_id) {
                Some(filter) if topic::matches(&filter, topic) => {
                    return rule.effect == Effect::Allow;
                }
                _ => {}
            }
        }
        true
    }

    /// Whether the client may subscribe to `filter` (a shared subscription's inner filter).
    #[must_use]
    pub fn may_subscribe(&self, client_id: &str, filter: &str) -> bool {
        for rule in self.rules(Action::Subscribe, client_id) {
            let Some(of_rule) = rule.filter_for(client_id) else {
                continue;
            };
            let matches = match rule.effect {
                Effect::Allow => covers(&of_rule, filter),
                Effect::Deny => overlaps(&of_rule, filter),
            };
            if matches {
                return rule.effect == Effect::Allow;
            }
        }
        true
    }
}

/// Whether every topic that matches `inner` matches `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer_levels, mut inner_levels) = (outer.split('/'), inner.split('/'));
    if wild_at_root(outer) && inner.starts_with('$') {
        return false; // [MQTT-4.7.2-1]
    }
    loop {
        match (outer_levels.next(), inner_levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether some topic matches both filters.
fn overlaps(a: &str, b: &str) -> bool {
    if (wild_at_root(a) && b.starts_with('$')) || (wild_at_root(b) && a.starts_with('$')) {
        return false; // [MQTT-4.7.2-1]
    }
    let (mut a_levels, mut b_levels) = (a.split('/'), b.split('/'));
    loop {
        match (a_levels.next(), b_levels.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(x), Some(y)) if x == y => {}
            _ => return false,
        }
    }
}

fn wild_at_root(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect, action: Action, filter: &str, client: &str) -> Rule {
        Rule {
            effect,
            action,
            filter: filter.to_owned(),
            client: client.to_owned(),
        }
    }

    #[test]
    fn the_first_match_decides_and_no_match_allows() {
        let access = Access::new(vec![
            rule(Effect::Allow, Action::Publish, "devices/%c/#", "*"),
            rule(Effect::Deny, Action::Publish, "devices/#", "*"),
            rule(Effect::Deny, Action::Connect, "", "bad-*"),
        ]);
        assert!(access.may_publish("d1", "devices/d1/telemetry/t"));
        assert!(!access.may_publish("d2", "devices/d1/telemetry/t"));
        assert!(access.may_publish("d2", "rooms/1"));
        assert!(!access.may_connect("bad-1"));
        assert!(access.may_connect("good"));
    }

    #[test]
    fn a_wildcard_does_not_lead_around_a_denied_filter() {
        let access = Access::new(vec![rule(
            Effect::Deny,
            Action::Subscribe,
            "secret/+/x",
            "*",
        )]);
        for filter in ["#", "+/#", "secret/a/x", "secret/#", "+/+/+", "secret/+/x"] {
            assert!(!access.may_subscribe("c", filter), "{filter}");
        }
        for filter in ["secret/a/y", "public/#", "secret", "$SYS/#"] {
            assert!(access.may_subscribe("c", filter), "{filter}");
        }
    }

    #[test]
    fn an_allowed_filter_must_cover_the_whole_request() {
        let access = Access::new(vec![
            rule(Effect::Allow, Action::Subscribe, "users/%c/#", "*"),
            rule(Effect::Deny, Action::Subscribe, "#", "*"),
        ]);
        assert!(access.may_subscribe("ann", "users/ann/receipts"));
        assert!(access.may_subscribe("ann", "users/ann"));
        assert!(!access.may_subscribe("ann", "users/+/receipts"));
        assert!(!access.may_subscribe("+", "users/+/receipts"));
        assert!(!access.may_subscribe("ann", "users/bob/#"));
    }
}
