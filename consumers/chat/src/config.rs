//! What the chat backend is told, with every bound and default.

use runtime::{ConfigError, Pattern, Tuning, validate_servers, validate_topic};
use serde::{Deserialize, Serialize};

/// The configuration of the chat backend. All keys have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kafka's bootstrap servers, `host:port`, separated by commas.
    pub kafka: String,
    /// The consumer group.
    pub group: String,
    /// Where messages are kept: `sqlite:FILE`.
    pub database: String,
    /// The Kafka topics with messages.
    pub topics: Vec<String>,
    /// The Kafka topic that the broker publishes to MQTT clients.
    pub downlink_topic: String,
    /// The MQTT topic of a message.
    pub messages_topic: String,
    /// The MQTT topic to which receipts go.
    pub receipts_topic: String,
    /// The longest text of a message.
    pub text_bytes_max: u32,
    /// How it reads and retries.
    pub consumer: Tuning,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: "127.0.0.1:9092".to_owned(),
            group: "chat".to_owned(),
            database: "sqlite:chat.db".to_owned(),
            topics: vec!["chat.messages".to_owned()],
            downlink_topic: "mqtt.downlink".to_owned(),
            messages_topic: "rooms/{room}/messages".to_owned(),
            receipts_topic: "users/{user}/receipts".to_owned(),
            text_bytes_max: 16_384,
            consumer: Tuning::default(),
        }
    }
}

/// The keys of [`Config`]: key, allowed values with unit, what it is.
pub const REFERENCE: &[(&str, &str, &str)] = &[
    (
        "kafka",
        "host:port, several separated by commas",
        "Kafka's bootstrap servers.",
    ),
    ("group", "1 to 249 characters", "The consumer group."),
    (
        "database",
        "sqlite:FILE or sqlite::memory:",
        "Where messages are kept.",
    ),
    (
        "topics",
        "a list of Kafka topics",
        "The Kafka topics with messages.",
    ),
    (
        "downlink_topic",
        "a Kafka topic",
        "The Kafka topic that the broker publishes to MQTT clients.",
    ),
    (
        "messages_topic",
        "an MQTT topic with {room}",
        "The MQTT topic of a message.",
    ),
    (
        "receipts_topic",
        "an MQTT topic with {user}",
        "The MQTT topic to which receipts go.",
    ),
    (
        "text_bytes_max",
        "1 to 1048576 bytes",
        "The longest text of a message; a longer one is a dead letter.",
    ),
    (
        "consumer",
        "a table",
        "How it reads and retries; the keys are the same for all backends.",
    ),
];

/// The MQTT topics, read.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub messages: Pattern<1>,
    pub receipts: Pattern<1>,
}

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_servers("kafka", &self.kafka)?;
        validate_topic("downlink_topic", &self.downlink_topic)?;
        self.mqtt_topics()?;
        if !(1..=1 << 20).contains(&self.text_bytes_max) {
            return Err(ConfigError::new(
                "text_bytes_max",
                self.text_bytes_max,
                allowed("text_bytes_max"),
            ));
        }
        self.runtime().validate()
    }

    /// What the consumer runtime is told.
    pub(crate) fn runtime(&self) -> runtime::Config {
        runtime::Config {
            kafka: self.kafka.clone(),
            group: self.group.clone(),
            topics: self.topics.clone(),
            downlink_topic: self.downlink_topic.clone(),
            tuning: self.consumer.clone(),
        }
    }

    pub(crate) fn mqtt_topics(&self) -> Result<Topics, ConfigError> {
        Ok(Topics {
            messages: pattern("messages_topic", &self.messages_topic, ["room"])?,
            receipts: pattern("receipts_topic", &self.receipts_topic, ["user"])?,
        })
    }
}

fn allowed(key: &str) -> &'static str {
    REFERENCE
        .iter()
        .find(|(other, ..)| *other == key)
        .map_or("", |(_, allowed, _)| allowed)
}

fn pattern<const N: usize>(
    key: &str,
    text: &str,
    names: [&str; N],
) -> Result<Pattern<N>, ConfigError> {
    Pattern::new(text, names).map_err(|clause| {
        ConfigError::new(key, text, format!("{}; this one {clause}", allowed(key)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_refused_value_is_named_with_what_is_allowed() {
        type Case = (fn(&mut Config), &'static str, &'static str);
        let cases: [Case; 7] = [
            (|c| c.kafka = "nowhere".into(), "kafka", "host:port"),
            (|c| c.group.clear(), "group", "1 to 249 characters"),
            (
                |c| c.downlink_topic = "chat.messages".into(),
                "topics",
                "any topic but downlink_topic",
            ),
            (
                |c| c.messages_topic = "rooms/+/messages".into(),
                "messages_topic",
                "`+`, `#` and U+0000",
            ),
            (
                |c| c.receipts_topic = "receipts".into(),
                "receipts_topic",
                "this one does not name `{user}`",
            ),
            (
                |c| c.text_bytes_max = 0,
                "text_bytes_max",
                "1 to 1048576 bytes",
            ),
            (
                |c| c.consumer.batch_records_max = 0,
                "batch_records_max",
                "1 to 100000 records",
            ),
        ];
        for (change, key, allowed) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().expect_err(key);
            assert_eq!(error.key, key, "{error}");
            assert!(error.allowed.contains(allowed), "{error}");
        }
    }

    #[test]
    fn the_reference_names_every_key_once() {
        let text = format!("{:?}", Config::default());
        let own = text.split("consumer: Tuning").next().unwrap_or_default();
        for (key, allowed, what) in REFERENCE {
            assert!(text.contains(&format!("{key}: ")), "{key} is no key");
            assert!(!allowed.is_empty() && !what.is_empty());
        }
        assert_eq!(own.matches(": ").count() + 1, REFERENCE.len());
    }
}
