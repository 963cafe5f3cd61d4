//! What every part says of Kafka in the same words: addresses, topics, consumer groups, properties of librdkafka.

use std::collections::BTreeMap;

use crate::{Error, Kind};

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

/// Refuses properties of librdkafka that are not for the configuration. Values are never printed: they may be secret.
///
/// # Errors
/// Names the first one.
pub fn refuse_own_properties(
    properties: &BTreeMap<String, String>,
    own: &[&str],
) -> Result<(), Error> {
    match properties.keys().find(|name| own.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            format!("properties.{name}"),
            "…",
            "any property of librdkafka but this one, on which the promises rest or for which there is another key",
        )),
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

    #[test]
    fn a_refused_property_is_named_and_its_value_is_not() {
        let given = BTreeMap::from([("acks".to_owned(), "hunter2".to_owned())]);
        let error = refuse_own_properties(&given, &["acks"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("properties.acks") && !error.contains("hunter2"),
            "{error}"
        );
        refuse_own_properties(&given, &["group.id"]).unwrap();
    }
}
