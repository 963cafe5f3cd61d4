//! The scenarios that come with the tool.

/// Name, the one line that says what it is for, and the file.
type Builtin = (&'static str, &'static str, &'static str);

macro_rules! builtins {
    ($($name:literal: $about:literal,)*) => {
        const BUILTINS: &[Builtin] = &[
            $(($name, $about, include_str!(concat!("builtin/", $name, ".toml")))),*
        ];
        const NAMES: &[(&str, &str)] = &[$(($name, $about)),*];
    };
}

builtins! {
    "connect": "clients connect at a steady rate",
    "connect-storm": "all clients connect at once",
    "reconnect-storm": "all connections break at once and come back, twice",
    "idle": "clients with one subscription each do nothing: memory and keep-alive",
    "fan-out": "one publisher, every message to all subscribers",
    "slow-reader": "fan-out with one subscriber that reads nothing: it must not hurt the others",
    "fan-in": "many publishers, one subscriber to all of it",
    "pairs": "each publisher has one subscriber of its own, QoS 1",
    "wildcard": "many filters with + and #, one match a message",
    "shared": "a share of workers takes the messages of many publishers",
    "retained": "many retained topics, then late subscribers to all of them",
    "chat": "rooms of 100 members, talkers, and receipts to the talkers",
    "iot": "devices with telemetry, operators with commands, a dashboard",
    "mixed": "what many users do: most idle, some talk to others' inboxes",
    "backends": "chat with receipts and telemetry through Kafka and the backends behind it, end to end",
    "persisted": "1,000 publishers with QoS 1 and 200 bytes: how fast messages are accepted",
}

/// The built-in scenarios: name, and what each is for in one line.
#[must_use]
pub fn builtin_names() -> &'static [(&'static str, &'static str)] {
    NAMES
}

pub(super) fn toml(name: &str) -> Option<&'static str> {
    BUILTINS
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, _, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Scenario};
    use super::*;
    use crate::plan::Group;

    #[test]
    fn each_says_what_it_is_plans_and_survives_being_printed() {
        for (name, about, text) in BUILTINS {
            let scenario = Scenario::builtin(name).unwrap();
            assert_eq!(scenario.name, *name);
            assert_eq!(scenario.about, *about);
            assert!(text.starts_with("# "), "{name} begins with a comment");
            let printed = scenario.to_toml();
            assert_eq!(
                Scenario::parse(&printed, name).unwrap(),
                scenario,
                "{printed}"
            );
            let plan = scenario
                .plan(1, 2)
                .unwrap_or_else(|why| panic!("{name}: {why}"));
            // A process may have 20,000 files on a small machine.
            assert!((1..=18_500).contains(&plan.clients()), "{name}");
            for stream in &plan.streams {
                let unchecked = stream.audiences.iter().filter(|it| !it.checked);
                let mut groups = unchecked.map(|audience| &plan.groups[audience.group]);
                assert!(
                    groups.all(Group::reads_slowly) && stream.lanes > 0,
                    "{name}"
                );
            }
        }
    }

    /// What the one differs by is all that the other has: so the two can be compared.
    #[test]
    fn slow_reader_is_fan_out_with_larger_messages_and_one_client_more() {
        let mut fan_out = Scenario::builtin("fan-out").unwrap();
        let larger = Overrides {
            payload_bytes: Some(4_000),
            warm_up_s: Some(20.0),
            ..Overrides::default()
        };
        fan_out.apply(&larger).unwrap();
        let mut with = Scenario::builtin("slow-reader").unwrap();
        let stuck = with.groups.pop().unwrap();
        assert_eq!((stuck.clients, stuck.read_bytes_per_second), (1, Some(0)));
        assert!(stuck.fixed && stuck.subscribe == fan_out.groups[0].subscribe);
        with.name.clone_from(&fan_out.name);
        with.about.clone_from(&fan_out.about);
        assert_eq!(with, fan_out);
    }

    #[test]
    fn another_name_is_refused_with_those_there_are() {
        let error = Scenario::builtin("fanout").unwrap_err().to_string();
        assert!(
            error.contains("\"fanout\"") && error.contains("fan-out, "),
            "{error}"
        );
    }
}
