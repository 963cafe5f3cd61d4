//! What was refused, counted by what refused it, with a line in the log: the first at once, then one a second for each rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AccessConfig, Action};
use crate::throttle::Throttle;
use crate::time::Time;

/// The names of what refuses and is no rule. No rule may be called so.
pub(super) const NAMES_TAKEN: [&str; 2] = [DEFAULT, RESERVED];
const DEFAULT: &str = "default";
const RESERVED: &str = "reserved-topic";

/// What refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The rule at this place of the list.
    Rule(usize),
    /// No rule allowed it.
    Default(Action),
    /// Clients do not publish to topics of the broker's own (`$…`).
    Reserved,
}

/// How often something was refused, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule's name, or its place in the list; `default` where none matched, `reserved-topic` for the broker's own topics.
    pub rule: String,
    /// What clients wanted to do.
    pub action: Action,
    /// How often they were refused.
    pub times: u64,
}

#[derive(Debug)]
struct Refuser {
    rule: String,
    action: Action,
    times: AtomicU64,
    throttle: Throttle,
}

/// One refuser for each rule, one for each action's default, and one for reserved topics.
#[derive(Debug)]
pub(crate) struct Denials {
    refusers: Box<[Arc<Refuser>]>,
    rules: usize,
}

impl Denials {
    pub(crate) fn new(config: &AccessConfig) -> Self {
        let of_rules = config.rules.iter().enumerate();
        let named = of_rules.map(|(at, rule)| (rule.label(at), rule.action));
        let others = Action::ALL.map(|action| (DEFAULT.to_owned(), action));
        let reserved = (RESERVED.to_owned(), Action::Publish);
        let refuser = |(rule, action)| {
            Arc::new(Refuser {
                rule,
                action,
                times: AtomicU64::new(0),
                throttle: Throttle::default(),
            })
        };
        Self {
            refusers: named.chain(others).chain([reserved]).map(refuser).collect(),
            rules: config.rules.len(),
        }
    }

    /// The same for other rules: those that are called the same go on counting.
    pub(crate) fn followed_by(&self, config: &AccessConfig) -> Self {
        let mut next = Self::new(config);
        for refuser in &mut next.refusers {
            let is_it =
                |old: &&Arc<Refuser>| old.rule == refuser.rule && old.action == refuser.action;
            if let Some(old) = self.refusers.iter().find(is_it) {
                *refuser = Arc::clone(old);
            }
        }
        next
    }

    /// Counts a refusal. `topic` is empty for connect.
    pub(crate) fn note(&self, by: By, client_id: &str, topic: &str, now: Time) {
        let at = match by {
            By::Rule(at) => at,
            By::Default(action) => self.rules + action as usize,
            By::Reserved => self.rules + Action::ALL.len(),
        };
        let Some(refuser) = self.refusers.get(at) else {
            return;
        };
        refuser.times.fetch_add(1, Ordering::Relaxed);
        if let Some(times) = refuser.throttle.count(now) {
            tracing::info!(
                client = client_id,
                action = %refuser.action,
                topic,
                rule = refuser.rule,
                times,
                "denied; this is the last of them"
            );
        }
    }

    /// What was refused so far, also what never was.
    pub(crate) fn counts(&self) -> Vec<Denied> {
        let denied = |refuser: &Arc<Refuser>| Denied {
            rule: refuser.rule.clone(),
            action: refuser.action,
            times: refuser.times.load(Ordering::Relaxed),
        };
        self.refusers.iter().map(denied).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_by_what_refused() {
        let rule = |name: &str| {
            format!(r#"{{"effect":"deny","action":"publish","filter":"a","name":"{name}"}}"#)
        };
        let text = format!(r#"{{"rules":[{},{}]}}"#, rule("own"), rule(""));
        let denials = Denials::new(&serde_json::from_str(&text).unwrap());
        for by in [
            By::Rule(0),
            By::Rule(1),
            By::Rule(1),
            By::Default(Action::Subscribe),
            By::Reserved,
        ] {
            denials.note(by, "c", "a", Time(0));
        }
        let counts = denials.counts();
        let counts: Vec<_> = counts
            .iter()
            .map(|denied| (denied.rule.as_str(), denied.action, denied.times))
            .collect();
        assert_eq!(
            counts,
            [
                ("own", Action::Publish, 1),
                ("rules[1]", Action::Publish, 2),
                ("default", Action::Connect, 0),
                ("default", Action::Publish, 0),
                ("default", Action::Subscribe, 1),
                ("reserved-topic", Action::Publish, 1),
            ]
        );
    }
}
