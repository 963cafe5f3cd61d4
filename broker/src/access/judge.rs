//! What the rules decide, asked before anything is routed.
//!
//! A deny rule holds for topics: who subscribes to more than it gets the rest, and what it denies is held back from each
//! delivery. A filter that a rule covers whole is refused, so that a client learns what it never gets. An allow rule lets a
//! filter through that it covers whole.

use std::borrow::Cow;

use super::{AccessConfig, Action, By, CLIENT_ID, Effect, RefusedPublish, Rule};

/// How far a subscription may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that matches it.
    All,
    /// What matches it and [`Access::may_receive`].
    Part,
}

impl Rule {
    fn is_for(&self, client_id: &str) -> bool {
        match self.client.strip_suffix('*') {
            Some(prefix) => client_id.starts_with(prefix),
            None => self.client == client_id,
        }
    }

    /// The rule's filter for this client; `None` when the identifier would change the filter's levels or wildcards,
    /// so that a client named `+` or `a/#` gains nothing by its name.
    fn filter_for(&self, client_id: &str) -> Option<Cow<'_, str>> {
        if !self.filter.contains(CLIENT_ID) {
            return Some(self.filter.as_str().into());
        }
        if client_id.contains(['+', '#', '/']) {
            return None;
        }
        Some(self.filter.replace(CLIENT_ID, client_id).into())
    }
}

/// The rules of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    rules: Vec<Rule>,
    defaults: [Effect; 3],
    /// Whether anything at all may be refused, by action: most nodes have no rules, and pay a look at this.
    judges: [bool; 3],
    pub(crate) refused_publish_3x: RefusedPublish,
}

impl Access {
    /// Takes a validated section.
    pub(crate) fn new(config: &AccessConfig) -> Self {
        let denies = |rule: &Rule, action| rule.action == action && rule.effect == Effect::Deny;
        let judges = Action::ALL.map(|action| {
            config.default_for(action) == Effect::Deny
                || config.rules.iter().any(|rule| denies(rule, action))
        });
        Self {
            rules: config.rules.clone(),
            defaults: Action::ALL.map(|action| config.default_for(action)),
            judges,
            refused_publish_3x: config.refused_publish_3x,
        }
    }

    fn rules<'a>(
        &'a self,
        action: Action,
        client_id: &'a str,
    ) -> impl Iterator<Item = (usize, &'a Rule)> {
        let of_action =
            move |(_, rule): &(usize, &Rule)| rule.action == action && rule.is_for(client_id);
        self.rules.iter().enumerate().filter(of_action)
    }

    /// What is decided where no rule matches.
    fn otherwise(&self, action: Action) -> Result<(), By> {
        match self.defaults[action as usize] {
            Effect::Allow => Ok(()),
            Effect::Deny => Err(By::Default(action)),
        }
    }

    /// Whether the client may open a session; if not, what says so.
    pub(crate) fn may_connect(&self, client_id: &str) -> Result<(), By> {
        match self.rules(Action::Connect, client_id).next() {
            Some((_, rule)) if rule.effect == Effect::Allow => Ok(()),
            Some((at, _)) => Err(By::Rule(at)),
            None => self.otherwise(Action::Connect),
        }
    }

    /// Whether the client may publish to `topic`; if not, what says so.
    pub(crate) fn may_publish(&self, client_id: &str, topic: &str) -> Result<(), By> {
        if topic.starts_with('$') {
            return Err(By::Reserved);
        }
        self.by_topic(Action::Publish, client_id, topic)
    }

    /// Whether the client may receive what is published to `topic`.
    pub(crate) fn may_receive(&self, client_id: &str, topic: &str) -> bool {
        self.by_topic(Action::Subscribe, client_id, topic).is_ok()
    }

    fn by_topic(&self, action: Action, client_id: &str, topic: &str) -> Result<(), By> {
        if !self.judges[action as usize] {
            return Ok(());
        }
        for (at, rule) in self.rules(action, client_id) {
            match rule.filter_for(client_id) {
                Some(filter) if topic::matches(&filter, topic) => {
                    return match rule.effect {
                        Effect::Allow => Ok(()),
                        Effect::Deny => Err(By::Rule(at)),
                    };
                }
                _ => {}
            }
        }
        self.otherwise(action)
    }

    /// How much of `filter` (a shared subscription's inner filter) the client may subscribe to; if nothing, what says so.
    pub(crate) fn may_subscribe(&self, client_id: &str, filter: &str) -> Result<Scope, By> {
        let mut scope = Scope::All;
        if !self.judges[Action::Subscribe as usize] {
            return Ok(scope);
        }
        for (at, rule) in self.rules(Action::Subscribe, client_id) {
            let Some(of_rule) = rule.filter_for(client_id) else {
                continue;
            };
            match rule.effect {
                Effect::Allow if covers(&of_rule, filter) => return Ok(scope),
                Effect::Deny if covers(&of_rule, filter) => return Err(By::Rule(at)),
                Effect::Deny if overlaps(&of_rule, filter) => scope = Scope::Part,
                _ => {}
            }
        }
        self.otherwise(Action::Subscribe).map(|()| scope)
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
            name: String::new(),
        }
    }

    fn access(default: Option<Effect>, rules: Vec<Rule>) -> Access {
        Access::new(&AccessConfig {
            default,
            rules,
            ..AccessConfig::default()
        })
    }

    const OPEN: Option<Effect> = Some(Effect::Allow);

    #[test]
    fn the_first_match_decides_and_then_the_default() {
        let rules = vec![
            rule(Effect::Allow, Action::Publish, "devices/%c/#", "*"),
            rule(Effect::Deny, Action::Publish, "devices/#", "*"),
            rule(Effect::Deny, Action::Connect, "", "bad-*"),
        ];
        let open = access(OPEN, rules.clone());
        assert_eq!(open.may_publish("d1", "devices/d1/telemetry/t"), Ok(()));
        let denied = open.may_publish("d2", "devices/d1/telemetry/t");
        assert_eq!(denied, Err(By::Rule(1)));
        assert_eq!(open.may_publish("d2", "rooms/1"), Ok(()));
        assert_eq!(open.may_connect("bad-1"), Err(By::Rule(2)));
        assert_eq!(open.may_connect("good"), Ok(()));
        // Something is allowed, so the rest is not; connecting, which no rule allows, goes on.
        let unset = access(None, rules);
        let denied = unset.may_publish("d2", "rooms/1");
        assert_eq!(denied, Err(By::Default(Action::Publish)));
        assert_eq!(unset.may_connect("good"), Ok(()));
        assert_eq!(unset.may_subscribe("d2", "#"), Ok(Scope::All));
    }

    #[test]
    fn a_wider_filter_than_the_denied_one_gets_the_rest() {
        let access = access(
            None,
            vec![rule(Effect::Deny, Action::Subscribe, "secret/+/x", "*")],
        );
        for filter in ["#", "+/#", "secret/#", "+/+/+"] {
            assert_eq!(
                access.may_subscribe("c", filter),
                Ok(Scope::Part),
                "{filter}"
            );
        }
        for filter in ["secret/a/x", "secret/+/x"] {
            assert_eq!(
                access.may_subscribe("c", filter),
                Err(By::Rule(0)),
                "{filter}"
            );
        }
        for filter in ["secret/a/y", "public/#", "secret", "$SYS/#"] {
            assert_eq!(
                access.may_subscribe("c", filter),
                Ok(Scope::All),
                "{filter}"
            );
        }
        assert!(!access.may_receive("c", "secret/a/x"));
        assert!(access.may_receive("c", "secret/a/y") && access.may_receive("c", "open"));
    }

    #[test]
    fn an_allowed_filter_must_cover_the_whole_request() {
        let rules = vec![
            rule(Effect::Allow, Action::Subscribe, "users/%c/#", "*"),
            rule(Effect::Deny, Action::Subscribe, "#", "*"),
        ];
        for access in [
            access(OPEN, rules.clone()),
            access(None, rules[..1].to_vec()),
        ] {
            let may = |client, filter| access.may_subscribe(client, filter).is_ok();
            assert!(may("ann", "users/ann/receipts"));
            assert!(may("ann", "users/ann"));
            assert!(!may("ann", "users/+/receipts"));
            assert!(!may("+", "users/+/receipts"));
            assert!(!may("ann", "users/bob/#"));
            assert!(!may("ann", "#"));
        }
    }

    /// A subscription that is not judged delivery by delivery has nothing in it that would be held back.
    #[test]
    fn what_was_granted_whole_is_never_held_back() {
        let levels = ["a", "b", "+"];
        let mut filters = vec!["#".to_owned()];
        for first in levels {
            filters.extend([first.to_owned(), format!("{first}/#")]);
            filters.extend(levels.map(|second| format!("{first}/{second}")));
        }
        let topics = ["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "c/c", "a/b/c"];
        for (first, second) in filters
            .iter()
            .flat_map(|a| filters.iter().map(move |b| (a, b)))
        {
            for (effects, default) in [
                ([Effect::Allow, Effect::Deny], None),
                ([Effect::Deny, Effect::Allow], None),
                ([Effect::Deny, Effect::Allow], OPEN),
                ([Effect::Allow, Effect::Deny], OPEN),
            ] {
                let access = access(
                    default,
                    vec![
                        rule(effects[0], Action::Subscribe, first, "*"),
                        rule(effects[1], Action::Subscribe, second, "*"),
                    ],
                );
                for filter in &filters {
                    let matching = topics.iter().filter(|topic| topic::matches(filter, topic));
                    let received: Vec<bool> = matching
                        .map(|topic| access.may_receive("c", topic))
                        .collect();
                    let said = format!("{effects:?} {first} {second}, {filter}");
                    if access.may_subscribe("c", filter) == Ok(Scope::All) {
                        assert!(received.iter().all(|may| *may), "{said}");
                    }
                }
            }
        }
    }
}
