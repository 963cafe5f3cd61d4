//! Which publish goes to which Kafka topic, and under which key: the configured routes, compiled once.
//!
//! A publish is looked up by the first level of its topic: routes that begin with a literal level are candidates only
//! for topics that begin with it. Among the candidates the first match wins, in the order of the configuration.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One route as it stands in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The MQTT topic filter.
    pub filter: String,
    /// Whether what matches is stored at all.
    #[serde(default = "yes")]
    pub store: bool,
    /// The Kafka topic; needed when `store` is true.
    #[serde(default)]
    pub topic: String,
    /// The template of the record's key.
    #[serde(default = "topic_key")]
    pub key: String,
    /// When QoS 1 and 2 are acknowledged.
    #[serde(default)]
    pub ack: Ack,
    /// When subscribers get the message.
    #[serde(default)]
    pub deliver: Deliver,
}

/// When a publisher is told that its message was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// When Kafka has confirmed it.
    #[default]
    Persisted,
    /// When it is in this node's memory.
    Received,
}

/// When subscribers of this node get a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliver {
    /// At once.
    #[default]
    Now,
    /// When Kafka has confirmed it.
    AfterPersisted,
}

fn yes() -> bool {
    true
}

fn topic_key() -> String {
    "{topic}".to_owned()
}

impl RouteConfig {
    /// A route that stores what matches `filter` in the Kafka topic `topic`, everything else as by default.
    #[must_use]
    pub fn new(filter: &str, topic: &str) -> Self {
        Self {
            filter: filter.to_owned(),
            store: true,
            topic: topic.to_owned(),
            key: topic_key(),
            ack: Ack::default(),
            deliver: Deliver::default(),
        }
    }

    /// A route that keeps what matches `filter` out of Kafka.
    #[must_use]
    pub fn not_stored(filter: &str) -> Self {
        Self {
            store: false,
            ..Self::new(filter, "")
        }
    }
}

/// The routes of a configuration that names none: chat messages, telemetry and replies to topics of their own, what only
/// live subscribers want to none, the rest together.
#[must_use]
pub fn default_routes() -> Vec<RouteConfig> {
    vec![
        RouteConfig::not_stored("rooms/+/typing"),
        RouteConfig::new("rooms/+/messages", "chat.messages"),
        RouteConfig::new("devices/+/telemetry/#", "iot.telemetry"),
        RouteConfig::new("devices/+/replies/+", "iot.replies"),
        RouteConfig::new("#", "mqtt.messages"),
    ]
}

/// A compiled route.
#[derive(Debug)]
pub(crate) struct Route {
    filter: Box<str>,
    key: Key,
    /// `None`: not stored.
    pub(crate) store: Option<Store>,
}

/// Where and how a route stores.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) topic: Box<str>,
    pub(crate) ack: Ack,
    pub(crate) deliver: Deliver,
}

impl Route {
    /// The key of a record: the topic itself where the template says no more, else put together in `scratch`.
    pub(crate) fn key<'a>(
        &self,
        topic: &'a str,
        client_id: &str,
        scratch: &'a mut String,
    ) -> &'a str {
        match &self.key {
            Key::Topic => topic,
            Key::Template(parts) => {
                scratch.clear();
                for part in parts {
                    match part {
                        Part::Literal(text) => scratch.push_str(text),
                        Part::Topic => scratch.push_str(topic),
                        Part::ClientId => scratch.push_str(client_id),
                        Part::Wildcard(nth) => {
                            scratch.push_str(wildcard(&self.filter, topic, *nth))
                        }
                    }
                }
                scratch
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Topic,
    Template(Vec<Part>),
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Topic,
    ClientId,
    /// Counted from 0.
    Wildcard(usize),
}

/// What the `nth` wildcard of `filter` stands for in `topic`, which matches it: a level for `+`, the rest for `#`.
fn wildcard<'a>(filter: &str, topic: &'a str, nth: usize) -> &'a str {
    let mut seen = 0;
    let mut rest = Some(topic);
    for level in filter.split('/') {
        let here = rest.unwrap_or_default();
        let (first, after) = here
            .split_once('/')
            .map_or((here, None), |(first, after)| (first, Some(after)));
        if matches!(level, "+" | "#") {
            if seen == nth {
                return if level == "#" { here } else { first };
            }
            seen += 1;
        }
        rest = after;
    }
    ""
}

impl Key {
    fn compile(template: &str, filter: &str, field: &str) -> Result<Self, settings::Error> {
        let wildcards = filter
            .split('/')
            .filter(|level| matches!(*level, "+" | "#"))
            .count();
        let wrong = || {
            let mut allowed = String::from("text with {topic}, {client_id}");
            for nth in 1..=wildcards {
                let _ = write!(allowed, ", {{{nth}}}");
            }
            settings::Error::text(
                field,
                template,
                format!("{allowed}; at least one character"),
            )
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let literal = &rest[..rest.find(['{', '}']).unwrap_or(rest.len())];
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
                rest = &rest[literal.len()..];
                continue;
            }
            let (name, after) = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
                .ok_or_else(wrong)?;
            parts.push(match name {
                "topic" => Part::Topic,
                "client_id" => Part::ClientId,
                number => match number.parse::<usize>() {
                    Ok(nth)
                        if (1..=wildcards).contains(&nth) && !number.starts_with(['0', '+']) =>
                    {
                        Part::Wildcard(nth - 1)
                    }
                    _ => return Err(wrong()),
                },
            });
            rest = after;
        }
        match parts.as_slice() {
            [] => Err(wrong()),
            [Part::Topic] => Ok(Self::Topic),
            _ => Ok(Self::Template(parts)),
        }
    }
}

/// All routes of a node.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    /// First levels that some filter begins with, sorted, and the routes that may match a topic which begins so.
    by_first_level: Vec<(Box<str>, Vec<usize>)>,
    /// The routes that may match any other topic.
    other: Vec<usize>,
}

impl Routes {
    /// Checks and compiles the routes of a configuration.
    pub(crate) fn compile(configs: &[RouteConfig]) -> Result<Self, settings::Error> {
        let mut routes = Vec::with_capacity(configs.len());
        for (at, config) in configs.iter().enumerate() {
            let field = |name: &str| format!("routes[{at}].{name}");
            topic::validate_filter(&config.filter).map_err(|cause| {
                settings::Error::text(
                    field("filter"),
                    &config.filter,
                    format!("a topic filter ({cause})"),
                )
            })?;
            // Only stored routes have a use for the topic.
            if config.store {
                settings::is_kind(&field("topic"), &config.topic, settings::kafka::TOPIC)?;
            } else if !config.topic.is_empty() {
                let allowed = "nothing in a route with store = false";
                return Err(settings::Error::text(
                    field("topic"),
                    &config.topic,
                    allowed,
                ));
            }
            if config.ack == Ack::Received && config.deliver == Deliver::AfterPersisted {
                let allowed =
                    "\"now\" in a route with ack = \"received\", which waits for no confirmation";
                return Err(settings::Error::new(
                    field("deliver"),
                    "\"after-persisted\"",
                    allowed,
                ));
            }
            routes.push(Route {
                filter: config.filter.as_str().into(),
                key: Key::compile(&config.key, &config.filter, &field("key"))?,
                store: config.store.then(|| Store {
                    topic: config.topic.as_str().into(),
                    ack: config.ack,
                    deliver: config.deliver,
                }),
            });
        }
        let first_level = |route: &Route| -> Option<Box<str>> {
            let first = route.filter.split('/').next().unwrap_or_default();
            (!matches!(first, "+" | "#")).then(|| first.into())
        };
        let mut firsts: Vec<Box<str>> = routes.iter().filter_map(first_level).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let candidates = |of: Option<&str>| -> Vec<usize> {
            let fits = |route: &Route| match first_level(route) {
                Some(first) => of == Some(&first),
                None => true,
            };
            (0..routes.len()).filter(|at| fits(&routes[*at])).collect()
        };
        let by_first_level = firsts
            .into_iter()
            .map(|first| (first.clone(), candidates(Some(&first))))
            .collect();
        let other = candidates(None);
        Ok(Self {
            routes,
            by_first_level,
            other,
        })
    }

    /// The first route that matches `topic`.
    pub(crate) fn find(&self, topic: &str) -> Option<&Route> {
        let first = topic.split('/').next().unwrap_or_default();
        let candidates = match self
            .by_first_level
            .binary_search_by(|(level, _)| (**level).cmp(first))
        {
            Ok(at) => &self.by_first_level[at].1,
            Err(_) => &self.other,
        };
        candidates
            .iter()
            .map(|at| &self.routes[*at])
            .find(|route| topic::matches(&route.filter, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_in<'a>(routes: &'a Routes, topic: &str) -> Option<&'a str> {
        routes
            .find(topic)?
            .store
            .as_ref()
            .map(|store| &*store.topic)
    }

    #[test]
    fn the_default_routes_are_those_of_the_documentation() {
        let routes = Routes::compile(&default_routes()).unwrap();
        let cases = [
            ("rooms/lobby/messages", Some("chat.messages")),
            ("rooms/lobby/typing", None),
            ("rooms/lobby/other", Some("mqtt.messages")),
            ("rooms/lobby/messages/x", Some("mqtt.messages")),
            ("devices/d1/telemetry/temperature", Some("iot.telemetry")),
            ("devices/d1/replies/reboot", Some("iot.replies")),
            ("devices/d1/other", Some("mqtt.messages")),
            ("anything", Some("mqtt.messages")),
            ("/", Some("mqtt.messages")),
            ("$SYS/broker/uptime", None),
        ];
        for (topic, kafka_topic) in cases {
            assert_eq!(stored_in(&routes, topic), kafka_topic, "{topic}");
        }
    }

    #[test]
    fn the_first_match_wins_whatever_it_begins_with() {
        let routes = Routes::compile(&[
            RouteConfig::new("a/x", "one"),
            RouteConfig::new("+/x", "two"),
            RouteConfig::new("a/#", "three"),
            RouteConfig::not_stored("+/y"),
            RouteConfig::new("b/y", "four"),
        ])
        .unwrap();
        assert_eq!(stored_in(&routes, "a/x"), Some("one"));
        assert_eq!(stored_in(&routes, "b/x"), Some("two"));
        assert_eq!(stored_in(&routes, "c/x"), Some("two"));
        assert_eq!(stored_in(&routes, "a/y"), Some("three"));
        assert_eq!(stored_in(&routes, "a"), Some("three"));
        assert_eq!(stored_in(&routes, "b/y"), None);
        assert!(routes.find("b/y").is_some());
        assert!(routes.find("c/z").is_none());
    }

    #[test]
    fn a_key_is_put_together_from_its_template() {
        let cases = [
            (
                "rooms/+/messages",
                "{topic}",
                "rooms/lobby/messages",
                "rooms/lobby/messages",
            ),
            ("rooms/+/messages", "{1}", "rooms/lobby/messages", "lobby"),
            (
                "rooms/+/messages",
                "room-{1}-of-{client_id}",
                "rooms/lobby/messages",
                "room-lobby-of-c1",
            ),
            ("a/+/b/+/#", "{2}.{1}.{3}", "a/1/b/2/x/y", "2.1.x/y"),
            ("a/#", "<{1}>", "a", "<>"),
            ("a/#", "<{1}>", "a/", "<>"),
            ("#", "{1}", "a/b", "a/b"),
            ("+/+", "{1}|{2}|{topic}", "/", "||/"),
            ("a", "everything", "a", "everything"),
        ];
        for (filter, key, topic, expected) in cases {
            let routes = Routes::compile(&[RouteConfig {
                key: key.into(),
                ..RouteConfig::new(filter, "t")
            }])
            .unwrap();
            let mut scratch = String::from("left over");
            assert_eq!(
                routes.find(topic).unwrap().key(topic, "c1", &mut scratch),
                expected,
                "{filter} {key}"
            );
        }
    }

    #[test]
    fn a_wrong_route_is_named() {
        let good = RouteConfig::new("a/+", "t");
        let key = |key: &str| RouteConfig {
            key: key.into(),
            ..good.clone()
        };
        let cases = [
            (
                RouteConfig {
                    filter: "a/#/b".into(),
                    ..good.clone()
                },
                "routes[1].filter = \"a/#/b\"",
            ),
            (
                RouteConfig {
                    filter: String::new(),
                    ..good.clone()
                },
                "routes[1].filter = \"\"",
            ),
            (
                RouteConfig {
                    topic: "a b".into(),
                    ..good.clone()
                },
                "routes[1].topic = \"a b\"",
            ),
            (
                RouteConfig {
                    topic: String::new(),
                    ..good.clone()
                },
                "routes[1].topic = \"\"",
            ),
            (
                RouteConfig {
                    store: false,
                    ..good.clone()
                },
                "store = false",
            ),
            (
                RouteConfig {
                    ack: Ack::Received,
                    deliver: Deliver::AfterPersisted,
                    ..good.clone()
                },
                "routes[1].deliver = \"after-persisted\"",
            ),
            (key(""), "routes[1].key = \"\""),
            (key("{2}"), "{1}; at least"),
            (key("{0}"), "routes[1].key = \"{0}\""),
            (key("{01}"), "routes[1].key = \"{01}\""),
            (key("{user}"), "routes[1].key = \"{user}\""),
            (key("{topic"), "routes[1].key = \"{topic\""),
            (key("topic}"), "routes[1].key = \"topic}\""),
        ];
        for (route, says) in cases {
            let error = Routes::compile(&[good.clone(), route])
                .expect_err(says)
                .to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn a_route_in_a_file_needs_only_filter_and_topic() {
        let route: RouteConfig =
            serde_json::from_str(r#"{"filter": "a/+", "topic": "t"}"#).unwrap();
        assert_eq!(route, RouteConfig::new("a/+", "t"));
        let route: RouteConfig = serde_json::from_str(
            r#"{"filter": "a", "topic": "t", "ack": "received", "deliver": "after-persisted"}"#,
        )
        .unwrap();
        assert_eq!(
            (route.ack, route.deliver),
            (Ack::Received, Deliver::AfterPersisted)
        );
        let route: RouteConfig =
            serde_json::from_str(r#"{"filter": "a", "store": false}"#).unwrap();
        assert_eq!(route, RouteConfig::not_stored("a"));
        assert!(
            serde_json::from_str::<RouteConfig>(r#"{"filter": "a", "topic": "t", "acks": 1}"#)
                .is_err()
        );
    }
}
