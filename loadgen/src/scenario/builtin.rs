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
    use super::super::Scenario;
    use super::*;

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
                assert!(
                    stream.audiences.iter().all(|audience| audience.checked) && stream.lanes > 0,
                    "{name}"
                );
            }
        }
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
