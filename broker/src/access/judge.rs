//! What the rules decide, asked before anything is routed.
//!
//! A deny rule holds for topics: who subscribes to more than it gets the rest, and what it denies is held back from each
//! delivery. A filter that a rule covers whole is refused, so that a client learns what it never gets. An allow rule lets a
//! filter through that it covers whole.

use std::borrow::Cow;

use codec::Qos;
use identity::Principal;

use super::placeholders::{self, Value};
use super::{AccessConfig, Action, By, Effect, RefusedPublish, Rule};

/// How far a subscription may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that matches it.
    All,
    /// What matches it and [`Access::may_receive`].
    Part,
}

/// What a client may have of what it has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    /// The highest quality of service.
    pub(crate) qos: Qos,
}

/// Who wants something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) principal: Option<&'a Principal>,
}

/// How a message is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
}

/// Whether `text` is what a rule asks for: equal, or with the beginning that stands before a `*`.
fn fits(asked: &str, text: &str) -> bool {
    match asked.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => asked == text,
    }
}

impl Rule {
    fn is_for(&self, who: Who<'_>) -> bool {
        fits(&self.client, who.client_id)
            && self.user.as_deref().is_none_or(|user| {
                let principal = who.principal;
                principal.is_some_and(|principal| fits(user, &principal.user))
            })
            && self.tenant.as_deref().is_none_or(|tenant| {
                let own = who.principal.and_then(|it| it.tenant.as_deref());
                own.is_some_and(|own| fits(tenant, own))
            })
            && self.group.as_deref().is_none_or(|group| {
                let principal = who.principal;
                principal.is_some_and(|principal| principal.is_in(group))
            })
    }

    /// The rule's filter for this client; `None` where it is about nothing that there could be for it. A value that would
    /// change the filter's levels or wildcards never lets more through: an allow rule is then about nothing, a deny rule
    /// about all that there is from its place on.
    fn filter_for(&self, who: Who<'_>) -> Option<Cow<'_, str>> {
        match placeholders::fill(&self.filter, who) {
            Value::Filled(filter) => Some(filter),
            Value::Missing => None,
            Value::Unsafe(before) => match self.effect {
                Effect::Allow => None,
                Effect::Deny => Some(format!("{before}#").into()),
            },
        }
    }

    /// Whether it is about publishing in this way.
    fn is_about(&self, how: How) -> bool {
        self.qos_max.is_none_or(|max| u8::from(how.qos) <= max)
            && self.retain.is_none_or(|retain| retain == how.retain)
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
        // Also an allow rule may lower what is granted.
        let matters = |rule: &Rule, action| {
            rule.action == action && (rule.effect == Effect::Deny || rule.qos_max.is_some())
        };
        let judges = Action::ALL.map(|action| {
            config.default_for(action) == Effect::Deny
                || config.rules.iter().any(|rule| matters(rule, action))
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
        who: Who<'a>,
    ) -> impl Iterator<Item = (usize, &'a Rule)> {
        let of_action = move |(_, rule): &(usize, &Rule)| rule.action == action && rule.is_for(who);
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
    pub(crate) fn may_connect(&self, who: Who<'_>) -> Result<(), By> {
        match self.rules(Action::Connect, who).next() {
            Some((_, rule)) if rule.effect == Effect::Allow => Ok(()),
            Some((at, _)) => Err(By::Rule(at)),
            None => self.otherwise(Action::Connect),
        }
    }

    /// Whether the client may publish to `topic`; if not, what says so.
    #[inline]
    pub(crate) fn may_publish(&self, who: Who<'_>, topic: &str, how: How) -> Result<(), By> {
        if topic.starts_with('$') {
            return Err(By::Reserved);
        }
        if !self.judges[Action::Publish as usize] {
            return Ok(());
        }
        self.by_topic(Action::Publish, who, topic, |rule| rule.is_about(how))
    }

    /// Whether the client may receive what is published to `topic`.
    pub(crate) fn may_receive(&self, who: Who<'_>, topic: &str) -> bool {
        if !self.judges[Action::Subscribe as usize] {
            return true;
        }
        self.by_topic(Action::Subscribe, who, topic, |_| true)
            .is_ok()
    }

    fn by_topic(
        &self,
        action: Action,
        who: Who<'_>,
        topic: &str,
        is_about: impl Fn(&Rule) -> bool,
    ) -> Result<(), By> {
        for (at, rule) in self.rules(action, who) {
            if !is_about(rule) {
                continue;
            }
            match rule.filter_for(who) {
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
    pub(crate) fn may_subscribe(&self, who: Who<'_>, filter: &str, qos: Qos) -> Result<Grant, By> {
        let mut scope = Scope::All;
        if !self.judges[Action::Subscribe as usize] {
            return Ok(Grant { scope, qos });
        }
        for (at, rule) in self.rules(Action::Subscribe, who) {
            let Some(of_rule) = rule.filter_for(who) else {
                continue;
            };
            match rule.effect {
                Effect::Allow if covers(&of_rule, filter) => {
                    let max = rule.qos_max.and_then(|max| Qos::try_from(max).ok());
                    let qos = max.map_or(qos, |max| max.min(qos));
                    return Ok(Grant { scope, qos });
                }
                Effect::Deny if covers(&of_rule, filter) => return Err(By::Rule(at)),
                Effect::Deny if overlaps(&of_rule, filter) => scope = Scope::Part,
                _ => {}
            }
        }
        self.otherwise(Action::Subscribe)
            .map(|()| Grant { scope, qos })
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
            ..Rule::default()
        }
    }

    fn client(client_id: &str) -> Who<'_> {
        Who {
            client_id,
            principal: None,
        }
    }

    const PLAIN: How = How {
        qos: Qos::AtMostOnce,
        retain: false,
    };

    /// What the rules say of clients that nobody knows.
    impl Access {
        fn publishes(&self, client_id: &str, topic: &str) -> Result<(), By> {
            self.may_publish(client(client_id), topic, PLAIN)
        }

        fn subscribes(&self, client_id: &str, filter: &str) -> Result<Scope, By> {
            let grant = self.may_subscribe(client(client_id), filter, Qos::ExactlyOnce);
            grant.map(|grant| grant.scope)
        }

        fn receives(&self, client_id: &str, topic: &str) -> bool {
            self.may_receive(client(client_id), topic)
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
        assert_eq!(open.publishes("d1", "devices/d1/telemetry/t"), Ok(()));
        let denied = open.publishes("d2", "devices/d1/telemetry/t");
        assert_eq!(denied, Err(By::Rule(1)));
        assert_eq!(open.publishes("d2", "rooms/1"), Ok(()));
        assert_eq!(open.may_connect(client("bad-1")), Err(By::Rule(2)));
        assert_eq!(open.may_connect(client("good")), Ok(()));
        // Something is allowed, so the rest is not; connecting, which no rule allows, goes on.
        let unset = access(None, rules);
        let denied = unset.publishes("d2", "rooms/1");
        assert_eq!(denied, Err(By::Default(Action::Publish)));
        assert_eq!(unset.may_connect(client("good")), Ok(()));
        assert_eq!(unset.subscribes("d2", "#"), Ok(Scope::All));
    }

    #[test]
    fn a_wider_filter_than_the_denied_one_gets_the_rest() {
        let access = access(
            None,
            vec![rule(Effect::Deny, Action::Subscribe, "secret/+/x", "*")],
        );
        for filter in ["#", "+/#", "secret/#", "+/+/+"] {
            assert_eq!(access.subscribes("c", filter), Ok(Scope::Part), "{filter}");
        }
        for filter in ["secret/a/x", "secret/+/x"] {
            assert_eq!(access.subscribes("c", filter), Err(By::Rule(0)), "{filter}");
        }
        for filter in ["secret/a/y", "public/#", "secret", "$SYS/#"] {
            assert_eq!(access.subscribes("c", filter), Ok(Scope::All), "{filter}");
        }
        assert!(!access.receives("c", "secret/a/x"));
        assert!(access.receives("c", "secret/a/y") && access.receives("c", "open"));
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
            let may = |client, filter| access.subscribes(client, filter).is_ok();
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
                    let received: Vec<bool> =
                        matching.map(|topic| access.receives("c", topic)).collect();
                    let said = format!("{effects:?} {first} {second}, {filter}");
                    if access.subscribes("c", filter) == Ok(Scope::All) {
                        assert!(received.iter().all(|may| *may), "{said}");
                    }
                }
            }
        }
    }

    fn known(user: &str, tenant: Option<&str>) -> Principal {
        let claims = vec![("site".into(), "north".into())];
        Principal::with(user, tenant, vec!["ops".into()], claims)
    }

    fn may(access: &Access, principal: &Principal, topic: &str) -> bool {
        let who = Who {
            client_id: "c",
            principal: Some(principal),
        };
        access.may_publish(who, topic, PLAIN).is_ok()
    }

    #[test]
    fn rules_go_by_user_tenant_and_group() {
        let of = |change: fn(&mut Rule)| {
            let mut rule = rule(Effect::Allow, Action::Publish, "t", "*");
            change(&mut rule);
            access(None, vec![rule])
        };
        let ada = known("ada", Some("acme"));
        let bob = Principal::new("bob");
        for access in [
            of(|rule| rule.user = Some("ada".into())),
            of(|rule| rule.user = Some("a*".into())),
            of(|rule| rule.tenant = Some("acme".into())),
            of(|rule| rule.group = Some("ops".into())),
        ] {
            assert!(may(&access, &ada, "t") && !may(&access, &bob, "t"));
            assert!(access.publishes("ada", "t").is_err(), "nobody knows it");
        }
        let anyone = of(|rule| rule.user = Some("*".into()));
        assert!(may(&anyone, &ada, "t") && may(&anyone, &bob, "t"));
        assert!(anyone.publishes("c", "t").is_err());
        // Groups are names, not beginnings.
        assert!(!may(&of(|rule| rule.group = Some("op*".into())), &ada, "t"));
    }

    #[test]
    fn placeholders_stand_for_what_is_known_of_a_client() {
        let filter = "%t/%u/${claim.site}/%c/#";
        let access = access(
            None,
            vec![rule(Effect::Allow, Action::Publish, filter, "*")],
        );
        let ada = known("ada", Some("acme"));
        assert!(may(&access, &ada, "acme/ada/north/c/x"));
        for topic in [
            "acme/bob/north/c/x",
            "x/ada/north/c/x",
            "acme/ada/south/c/x",
        ] {
            assert!(!may(&access, &ada, topic), "{topic}");
        }
        // What is not known of it is nobody's.
        for topic in ["acme/ada/north/c/x", "/ada/north/c/x", "%t/ada/north/c/x"] {
            assert!(!may(&access, &known("ada", None), topic), "{topic}");
        }
        let mut no_site = ada;
        no_site.claims = Box::default();
        assert!(!may(&access, &no_site, "acme/ada/north/c/x"));
    }

    #[test]
    fn a_value_with_wildcards_or_levels_widens_no_rule() {
        let filters = ["%u/x", "%t/x", "${claim.site}/x", "a/%u", "a/%u/b/#"];
        for value in ["+", "#", "a/b", "+/+", "a\0", "/", "a+"] {
            let mut principal = known(value, Some(value));
            principal.claims = [("site".into(), value.into())].into();
            for filter in filters {
                let allow = access(
                    None,
                    vec![rule(Effect::Allow, Action::Publish, filter, "*")],
                );
                let deny = access(OPEN, vec![rule(Effect::Deny, Action::Publish, filter, "*")]);
                for topic in ["x", "x/x", "a", "a/b", "a/b/x", "a/x/b/c", "other/x", "b"] {
                    assert!(!may(&allow, &principal, topic), "{value} {filter} {topic}");
                }
                // All that the rule could be about is denied, and nothing beside it.
                let within = topic_within(filter);
                assert!(!may(&deny, &principal, within), "{value} {filter} {within}");
                let is_rooted = filter.starts_with("a/");
                assert_eq!(
                    may(&deny, &principal, "other/x"),
                    is_rooted,
                    "{value} {filter}"
                );
            }
        }
    }

    fn topic_within(filter: &str) -> &'static str {
        match filter {
            "a/%u" => "a/q",
            "a/%u/b/#" => "a/q/b/c",
            _ => "q/x",
        }
    }

    #[test]
    fn rules_bound_qos_and_retain() {
        let mut low = rule(Effect::Allow, Action::Publish, "t", "*");
        low.qos_max = Some(1);
        low.retain = Some(false);
        let bounded = access(None, vec![low]);
        let may = |qos: u8, retain| {
            let qos = Qos::try_from(qos).unwrap();
            bounded
                .may_publish(client("c"), "t", How { qos, retain })
                .is_ok()
        };
        assert!(may(0, false) && may(1, false));
        assert!(!may(2, false) && !may(0, true));
        let mut retained = rule(Effect::Deny, Action::Publish, "#", "*");
        retained.retain = Some(true);
        let unretained = access(OPEN, vec![retained]);
        let how = |retain| How { retain, ..PLAIN };
        assert!(unretained.may_publish(client("c"), "t", how(false)).is_ok());
        assert!(unretained.may_publish(client("c"), "t", how(true)).is_err());
        // Who asks for more gets less.
        for default in [OPEN, None] {
            let mut low = rule(Effect::Allow, Action::Subscribe, "t/#", "*");
            low.qos_max = Some(1);
            let access = access(default, vec![low]);
            for (asked, granted) in [
                (Qos::AtMostOnce, Qos::AtMostOnce),
                (Qos::ExactlyOnce, Qos::AtLeastOnce),
            ] {
                let grant = access.may_subscribe(client("c"), "t/x", asked).unwrap();
                assert_eq!((grant.qos, grant.scope), (granted, Scope::All));
            }
        }
    }
}
