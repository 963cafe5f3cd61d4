//! What the dashboard is told, with every bound and default.

use runtime::{ConfigError, Pattern, Tuning, validate_servers, validate_topic};
use serde::{Deserialize, Serialize};

/// The configuration of the dashboard. All keys have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kafka's bootstrap servers, `host:port`, separated by commas.
    pub kafka: String,
    /// The consumer group.
    pub group: String,
    /// Where the totals are kept: `sqlite:FILE`.
    pub database: String,
    /// The Kafka topics to count: all that the bridge writes.
    pub topics: Vec<String>,
    /// The Kafka topic that the broker publishes to MQTT clients; it is never counted.
    pub downlink_topic: String,
    /// Consumer groups whose lag is shown beside the dashboard's own.
    pub watched_groups: Vec<String>,
    /// How many levels of an MQTT topic make the prefix by which messages are counted.
    pub prefix_levels: u32,
    /// Most prefixes; messages of further ones are counted together.
    pub prefixes_max: u32,
    /// How the MQTT topics of a device begin.
    pub device_topics: String,
    /// How the MQTT topics of a room begin.
    pub room_topics: String,
    /// A device or a room is active for so long after its last message.
    pub active_window_s: u32,
    /// Most viewers of the live page at the same time.
    pub viewers_max: u32,
    /// How it reads and retries.
    pub consumer: Tuning,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: "127.0.0.1:9092".to_owned(),
            group: "dashboard".to_owned(),
            database: "sqlite:dashboard.db".to_owned(),
            topics: [
                "chat.messages",
                "iot.telemetry",
                "iot.replies",
                "mqtt.messages",
            ]
            .map(str::to_owned)
            .to_vec(),
            downlink_topic: "mqtt.downlink".to_owned(),
            watched_groups: ["chat", "iot"].map(str::to_owned).to_vec(),
            prefix_levels: 1,
            prefixes_max: 50,
            device_topics: "devices/{device}".to_owned(),
            room_topics: "rooms/{room}".to_owned(),
            active_window_s: 300,
            viewers_max: 64,
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
        "Where the totals are kept.",
    ),
    (
        "topics",
        "a list of Kafka topics",
        "The Kafka topics to count: all that the bridge writes.",
    ),
    (
        "downlink_topic",
        "a Kafka topic",
        "The Kafka topic that the broker publishes to MQTT clients; it is never counted.",
    ),
    (
        "watched_groups",
        "a list of at most 20 consumer groups",
        "Consumer groups whose lag is shown beside the dashboard's own.",
    ),
    (
        "prefix_levels",
        "1 to 8 levels",
        "How many levels of an MQTT topic make the prefix by which messages are counted.",
    ),
    (
        "prefixes_max",
        "1 to 1000 prefixes",
        "Most prefixes; messages of further ones are counted together.",
    ),
    (
        "device_topics",
        "the first levels of an MQTT topic, with {device}",
        "How the MQTT topics of a device begin.",
    ),
    (
        "room_topics",
        "the first levels of an MQTT topic, with {room}",
        "How the MQTT topics of a room begin.",
    ),
    (
        "active_window_s",
        "10 to 86400 seconds",
        "A device or a room is active for so long after its last message.",
    ),
    (
        "viewers_max",
        "1 to 10000 viewers",
        "Most viewers of the live page at the same time.",
    ),
    (
        "consumer",
        "a table",
        "How it reads and retries; the keys are the same for all backends.",
    ),
];

/// Consumer groups watched. Each costs a Kafka client of its own.
const WATCHED_GROUPS_MAX: usize = 20;

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_servers("kafka", &self.kafka)?;
        validate_topic("downlink_topic", &self.downlink_topic)?;
        if self.watched_groups.len() > WATCHED_GROUPS_MAX
            || self.watched_groups.iter().any(String::is_empty)
        {
            return Err(refused(
                "watched_groups",
                format!("{:?}", self.watched_groups),
            ));
        }
        let ranges = [
            ("prefix_levels", self.prefix_levels, 1, 8),
            ("prefixes_max", self.prefixes_max, 1, 1_000),
            ("active_window_s", self.active_window_s, 10, 86_400),
            ("viewers_max", self.viewers_max, 1, 10_000),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(refused(key, value));
            }
        }
        self.device_pattern()?;
        self.room_pattern()?;
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

    pub(crate) fn device_pattern(&self) -> Result<Pattern<1>, ConfigError> {
        pattern("device_topics", &self.device_topics, "device")
    }

    pub(crate) fn room_pattern(&self) -> Result<Pattern<1>, ConfigError> {
        pattern("room_topics", &self.room_topics, "room")
    }
}

fn allowed(key: &str) -> &'static str {
    REFERENCE
        .iter()
        .find(|(other, ..)| *other == key)
        .map_or("", |(_, allowed, _)| allowed)
}

fn refused(key: &str, value: impl std::fmt::Display) -> ConfigError {
    ConfigError::new(key, value, allowed(key))
}

fn pattern(key: &str, text: &str, name: &str) -> Result<Pattern<1>, ConfigError> {
    Pattern::new(text, [name]).map_err(|clause| {
        ConfigError::new(key, text, format!("{}; this one {clause}", allowed(key)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        Config::default().validate().expect("allowed");
    }

    #[test]
    fn a_refused_value_is_named_with_what_is_allowed() {
        type Case = (fn(&mut Config), &'static str, &'static str);
        let cases: [Case; 9] = [
            (|c| c.kafka = "nowhere".into(), "kafka", "host:port"),
            (|c| c.topics.clear(), "topics", "one Kafka topic or more"),
            (
                |c| c.topics = vec!["mqtt.downlink".into()],
                "topics",
                "any topic but downlink_topic",
            ),
            (
                |c| c.watched_groups = vec![String::new()],
                "watched_groups",
                "consumer groups",
            ),
            (|c| c.prefix_levels = 0, "prefix_levels", "1 to 8 levels"),
            (
                |c| c.prefixes_max = 1_001,
                "prefixes_max",
                "1 to 1000 prefixes",
            ),
            (
                |c| c.active_window_s = 9,
                "active_window_s",
                "10 to 86400 seconds",
            ),
            (|c| c.viewers_max = 0, "viewers_max", "1 to 10000 viewers"),
            (
                |c| c.room_topics = "rooms".into(),
                "room_topics",
                "this one does not name `{room}`",
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
}
