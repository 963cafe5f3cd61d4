//! What every part says of Kafka in the same words: addresses, topics, consumer groups, properties of librdkafka.

mod advice;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::secret::{HIDDEN, Secret};
use crate::{Error, Kind};

pub use advice::advice;

/// Longest name that Kafka gives a topic, in characters; also the bound on a consumer group's name.
pub const NAME_CHARACTERS_MAX: usize = 249;

/// Addresses to begin with; librdkafka's `PROTOCOL://HOST:PORT` is understood too.
pub const SERVERS: Kind<String> = Kind {
    words: "HOST:PORT, several with commas between, such as \"127.0.0.1:9092\"",
    fits: |servers| servers.split(',').all(|server| is_server(server.trim())),
};

/// A topic.
pub const TOPIC: Kind<String> = Kind {
    words: "a Kafka topic: 1 to 249 characters of A-Z a-z 0-9 . _ -",
    fits: |topic| is_topic(topic),
};

/// Topics that are read.
pub const TOPICS: Kind<Vec<String>> = Kind {
    words: "a list of one Kafka topic or more, each 1 to 249 characters of A-Z a-z 0-9 . _ -",
    fits: |topics| !topics.is_empty() && topics.iter().all(|topic| is_topic(topic)),
};

/// A consumer group.
pub const GROUP: Kind<String> = Kind {
    words: "1 to 249 characters",
    fits: |group| (1..=NAME_CHARACTERS_MAX).contains(&group.len()),
};

/// Whether a character may stand in a topic's name.
#[must_use]
pub fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Whether Kafka allows a topic of this name.
#[must_use]
pub fn is_topic(name: &str) -> bool {
    (1..=NAME_CHARACTERS_MAX).contains(&name.len())
        && name.bytes().all(is_topic_byte)
        && !matches!(name, "." | "..")
}

fn is_server(server: &str) -> bool {
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    server.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Properties of librdkafka, as a table of the configuration. Each value may be given as `env:NAME` or `file:PATH`, and
/// those that hold secrets are not printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, Secret>);

impl Properties {
    /// The words of a key that holds such a table.
    pub const WORDS: &str =
        "table of librdkafka properties; a value may be given as \"env:NAME\" or \"file:PATH\"";

    /// Sets a property.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a property unless somebody did.
    pub fn insert_default(&mut self, name: &str, value: &str) {
        self.0
            .entry(name.to_owned())
            .or_insert_with(|| value.into());
    }

    /// Takes over every property that is not set here, as it was given there.
    pub fn fill_from(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// The value of a property, in clear: for librdkafka, for nobody else.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::reveal)
    }

    /// Names and values, the secret ones in clear: for librdkafka, for nobody else.
    pub fn reveal(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.reveal()))
    }

    /// Refuses the properties in `own`, and those that librdkafka, asked by `accepts`, does not take; the latter says
    /// why.
    ///
    /// # Errors
    /// Names the first one alone; its value is printed unless it may be secret.
    pub fn check(
        &self,
        own: &[&str],
        accepts: impl Fn(&str, &str) -> Result<(), String>,
    ) -> Result<(), Error> {
        for (name, value) in self.reveal() {
            let refused = |allowed: String| {
                let value = self.printed(name).unwrap_or_default();
                Err(Error::text(format!("properties.{name}"), value, allowed))
            };
            if own.contains(&name) {
                return refused(
                    "any property of librdkafka but this one, on which the promises rest or for which there is \
                     another key"
                        .to_owned(),
                );
            }
            if let Err(why) = accepts(name, value) {
                // librdkafka's words may repeat the value.
                let why = if why.contains(value) && may_be_secret(name) {
                    "it does not take this one".to_owned()
                } else {
                    why
                };
                return refused(format!("what librdkafka knows and takes ({why})"));
            }
        }
        Ok(())
    }

    fn printed(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        Some(match value.origin() {
            Some(origin) => origin,
            None if may_be_secret(name) => HIDDEN,
            None => value.reveal(),
        })
    }
}

/// Whether a property may hold a secret. A name that librdkafka does not know is one misspelt, perhaps of a secret.
fn may_be_secret(name: &str) -> bool {
    const SHOWN: &[&str] = &[
        ".location",
        ".locations",
        ".mechanism",
        ".mechanisms",
        ".protocol",
        ".username",
        ".ms",
        ".bytes",
        ".method",
    ];
    const HINTS: &[&str] = &[
        "sasl",
        "pass",
        "secret",
        "pem",
        "key",
        "token",
        "config",
        "credential",
        "jaas",
        "ssl",
    ];
    !SHOWN.iter().any(|end| name.ends_with(end)) && HINTS.iter().any(|hint| name.contains(hint))
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|name| (name, self.printed(name))))
            .finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, self.printed(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for good in [
            "a:1",
            "127.0.0.1:9092",
            "a:1, b:2",
            "ssl://a:9093",
            "[::1]:9092",
        ] {
            assert!((SERVERS.fits)(&good.to_owned()), "{good}");
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:70000", "a:1,,b:2", "a b:1"] {
            assert!(!(SERVERS.fits)(&bad.to_owned()), "{bad}");
        }
    }

    #[test]
    fn topics_are_what_kafka_allows() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert!(is_topic(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
    }

    fn properties(given: &[(&str, &str)]) -> Properties {
        let mut properties = Properties::default();
        for (name, value) in given {
            properties.insert(name, value);
        }
        properties
    }

    #[test]
    fn a_refused_property_is_named_alone_and_its_secret_is_not() {
        let given = properties(&[
            ("sasl.password", "hunter2"),
            ("sasl.pasword", "hunter2"),
            ("x.ms", "1"),
        ]);
        let takes = |name: &str, value: &str| match name {
            "sasl.pasword" => Err("No such configuration property: \"sasl.pasword\"".to_owned()),
            "x.ms" => Err(format!("Invalid value \"{value}\"")),
            _ => Ok(()),
        };
        let error = given
            .check(&["sasl.password"], takes)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("properties.sasl.password = \"***\""),
            "{error}"
        );
        let error = given.check(&[], takes).unwrap_err().to_string();
        assert!(
            error.contains("properties.sasl.pasword = \"***\"") && error.contains("No such"),
            "{error}"
        );
        assert!(
            !error.contains("hunter2") && !error.contains("x.ms"),
            "{error}"
        );
        let error = properties(&[("x.ms", "one")])
            .check(&[], takes)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("properties.x.ms = \"one\"") && error.contains("Invalid value"),
            "{error}"
        );
        properties(&[("y", "1")]).check(&["x"], takes).unwrap();
    }

    #[test]
    fn librdkafkas_words_do_not_give_a_secret_away() {
        let given = properties(&[("ssl.key.pem", "hunter2")]);
        let error = given
            .check(&[], |_, value| Err(format!("cannot read {value}")))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn printed_properties_show_what_is_no_secret() {
        let given: Properties = serde_json::from_str(
            r#"{"sasl.password":"hunter2","ssl.key.password":"env:CARGO_PKG_NAME","ssl.key.pem":"hunter2",
                "security.protocol":"sasl_ssl","ssl.ca.location":"/ca.pem","sasl.username":"me","socket.timeout.ms":"5"}"#,
        )
        .unwrap();
        let shown = serde_json::json!({
            "sasl.password": "***", "ssl.key.password": "env:CARGO_PKG_NAME", "ssl.key.pem": "***",
            "security.protocol": "sasl_ssl", "ssl.ca.location": "/ca.pem", "sasl.username": "me",
            "socket.timeout.ms": "5",
        });
        assert_eq!(serde_json::to_value(&given).unwrap(), shown);
        assert!(!format!("{given:?}").contains("hunter2"), "{given:?}");
        assert!(
            given
                .reveal()
                .any(|property| property == ("ssl.key.password", "settings"))
        );
    }
}
