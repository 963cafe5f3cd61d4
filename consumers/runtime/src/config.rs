//! What a consumer is told, with every bound and default.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Where to read, as whom, and where answers go.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kafka's bootstrap servers, `host:port`, separated by commas.
    pub kafka: String,
    /// The consumer group; also the name of the backend in metrics and dead letters.
    pub group: String,
    /// The Kafka topics to consume.
    pub topics: Vec<String>,
    /// The Kafka topic that the broker publishes to MQTT clients.
    pub downlink_topic: String,
    /// The rest, with defaults that rarely need a change.
    pub tuning: Tuning,
}

/// How a consumer reads and retries. All keys have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// A dead letter of `topic` goes to the topic of this name with the suffix appended.
    pub dead_letter_suffix: String,
    /// Most records handled in one go.
    pub batch_records_max: u32,
    /// Most bytes handled in one go; one record more than that may be in it.
    pub batch_bytes_max: u32,
    /// How long to wait for more records once there is one.
    pub batch_wait_ms: u32,
    /// Kafka answers a fetch when it has so many bytes...
    pub fetch_bytes_min: u32,
    /// ... or after this time, whichever is first.
    pub fetch_wait_ms_max: u32,
    /// Most bytes read ahead.
    pub prefetch_bytes_max: u32,
    /// Offsets of finished records are committed this often, and when a partition is handed over, and at the end.
    pub commit_interval_ms: u32,
    /// The first pause after a transient failure; it doubles with every further one.
    pub retry_backoff_ms_min: u32,
    /// The longest pause after a transient failure.
    pub retry_backoff_ms_max: u32,
    /// A call of the handler that takes longer has failed.
    pub handle_timeout_ms: u32,
    /// Answers and dead letters that Kafka does not confirm in this time are sent again later.
    pub produce_timeout_ms: u32,
    /// How long the start waits for Kafka.
    pub start_timeout_ms: u32,
    /// A partition in which more is to read but nothing comes for so long is stalled: the reader is rebuilt.
    pub stall_timeout_ms: u32,
    /// Kafka gives the partitions of a consumer that was silent for so long to others.
    pub session_timeout_ms: u32,
    /// Further librdkafka properties, for example for TLS and SASL; they win over what the other keys say.
    pub properties: BTreeMap<String, String>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            dead_letter_suffix: ".dlq".to_owned(),
            batch_records_max: 5_000,
            batch_bytes_max: 4 << 20,
            batch_wait_ms: 5,
            fetch_bytes_min: 64 << 10,
            fetch_wait_ms_max: 20,
            prefetch_bytes_max: 16 << 20,
            commit_interval_ms: 200,
            retry_backoff_ms_min: 100,
            retry_backoff_ms_max: 10_000,
            handle_timeout_ms: 60_000,
            produce_timeout_ms: 10_000,
            start_timeout_ms: 10_000,
            stall_timeout_ms: 30_000,
            session_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        }
    }
}

impl Tuning {
    /// Reads the keys that are given over a backend's own defaults; for `deserialize_with`.
    ///
    /// # Errors
    ///
    /// A key that does not exist, or a value of the wrong type.
    pub fn read_over<'de, D: Deserializer<'de>>(
        defaults: &Self,
        given: D,
    ) -> Result<Self, D::Error> {
        let mut keys = Map::new();
        if let Value::Object(defaults) = serde_json::to_value(defaults).map_err(D::Error::custom)? {
            keys = defaults;
        }
        keys.extend(Map::deserialize(given)?);
        serde_json::from_value(Value::Object(keys)).map_err(D::Error::custom)
    }
}

/// The keys of [`Tuning`]: key, allowed values with unit, what it is.
pub const REFERENCE: &[(&str, &str, &str)] = &[
    (
        "dead_letter_suffix",
        "1 to 50 characters of a-z A-Z 0-9 . _ -",
        "A dead letter of topic `t` goes to the topic `t` with this suffix.",
    ),
    (
        "batch_records_max",
        "1 to 100000 records",
        "Most records handled in one go.",
    ),
    (
        "batch_bytes_max",
        "1024 to 1073741824 bytes",
        "Most bytes handled in one go.",
    ),
    (
        "batch_wait_ms",
        "0 to 10000 milliseconds",
        "How long to wait for more records once there is one.",
    ),
    (
        "fetch_bytes_min",
        "1 to 67108864 bytes",
        "Kafka answers a fetch when it has so many bytes, or after fetch_wait_ms_max.",
    ),
    (
        "fetch_wait_ms_max",
        "1 to 10000 milliseconds",
        "Longest time that Kafka waits for fetch_bytes_min.",
    ),
    (
        "prefetch_bytes_max",
        "1048576 to 2147483648 bytes",
        "Most bytes read ahead.",
    ),
    (
        "commit_interval_ms",
        "1 to 60000 milliseconds",
        "How often offsets of finished records are committed; also at a handover and at the end.",
    ),
    (
        "retry_backoff_ms_min",
        "1 to 60000 milliseconds",
        "First pause of a partition after a transient failure; doubles with every further one.",
    ),
    (
        "retry_backoff_ms_max",
        "retry_backoff_ms_min to 3600000 milliseconds",
        "Longest pause after a transient failure.",
    ),
    (
        "handle_timeout_ms",
        "100 to 120000 milliseconds",
        "A call of the handler that takes longer has failed.",
    ),
    (
        "produce_timeout_ms",
        "100 to 120000 milliseconds",
        "Answers and dead letters that Kafka does not confirm in this time are sent again later.",
    ),
    (
        "start_timeout_ms",
        "100 to 600000 milliseconds",
        "How long the start waits for Kafka.",
    ),
    (
        "stall_timeout_ms",
        "1000 to 3600000 milliseconds",
        "A partition in which more is to read but nothing comes for so long makes the reader be rebuilt.",
    ),
    (
        "session_timeout_ms",
        "6000 to 1800000 milliseconds, and what Kafka allows",
        "Kafka gives the partitions of a consumer that was silent for so long to others.",
    ),
    (
        "properties",
        "a table of librdkafka properties",
        "Further librdkafka properties, for example for TLS and SASL; they win over the other keys.",
    ),
];

/// A configuration value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// What it was set to.
    pub value: String,
    /// What it may be set to.
    pub allowed: String,
}

impl ConfigError {
    /// `key` is set to `value`, but may be only what `allowed` says.
    #[must_use]
    pub fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {:?} is not allowed; allowed: {}",
            self.key, self.value, self.allowed
        )
    }
}

/// librdkafka properties that nobody may set: the order of effects rests on them, or another key says them.
const OWN_PROPERTIES: [&str; 14] = [
    "acks",
    "allow.auto.create.topics",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "max.poll.interval.ms",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "statistics.interval.ms",
    "transactional.id",
];

/// Kafka's bound on the length of a topic's name.
const TOPIC_CHARACTERS_MAX: usize = 249;

/// Bound on the dead-letter suffix, so that most topics leave room for it.
const SUFFIX_CHARACTERS_MAX: usize = 50;

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_servers("kafka", &self.kafka)?;
        if self.group.is_empty() || self.group.len() > TOPIC_CHARACTERS_MAX {
            return Err(ConfigError::new(
                "group",
                &self.group,
                "1 to 249 characters",
            ));
        }
        if self.topics.is_empty() {
            return Err(ConfigError::new("topics", "[]", "one Kafka topic or more"));
        }
        for topic in &self.topics {
            validate_topic("topics", topic)?;
            if topic.len() + self.tuning.dead_letter_suffix.len() > TOPIC_CHARACTERS_MAX {
                return Err(ConfigError::new(
                    "topics",
                    topic,
                    "at most 249 characters together with dead_letter_suffix",
                ));
            }
            if *topic == self.downlink_topic {
                return Err(ConfigError::new(
                    "topics",
                    topic,
                    "any topic but downlink_topic, or answers would be consumed",
                ));
            }
        }
        validate_topic("downlink_topic", &self.downlink_topic)?;
        self.tuning.validate()
    }
}

impl Tuning {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let suffix = &self.dead_letter_suffix;
        if suffix.is_empty()
            || suffix.len() > SUFFIX_CHARACTERS_MAX
            || !suffix.bytes().all(topic_byte)
        {
            return Err(refused("dead_letter_suffix", suffix));
        }
        let ranges = [
            ("batch_records_max", self.batch_records_max, 1, 100_000),
            ("batch_bytes_max", self.batch_bytes_max, 1 << 10, 1 << 30),
            ("batch_wait_ms", self.batch_wait_ms, 0, 10_000),
            ("fetch_bytes_min", self.fetch_bytes_min, 1, 64 << 20),
            ("fetch_wait_ms_max", self.fetch_wait_ms_max, 1, 10_000),
            (
                "prefetch_bytes_max",
                self.prefetch_bytes_max,
                1 << 20,
                1 << 31,
            ),
            ("commit_interval_ms", self.commit_interval_ms, 1, 60_000),
            ("retry_backoff_ms_min", self.retry_backoff_ms_min, 1, 60_000),
            (
                "retry_backoff_ms_max",
                self.retry_backoff_ms_max,
                self.retry_backoff_ms_min,
                3_600_000,
            ),
            // Together they stay below librdkafka's max.poll.interval.ms: a reader that waits longer loses its partitions.
            ("handle_timeout_ms", self.handle_timeout_ms, 100, 120_000),
            ("produce_timeout_ms", self.produce_timeout_ms, 100, 120_000),
            ("start_timeout_ms", self.start_timeout_ms, 100, 600_000),
            ("stall_timeout_ms", self.stall_timeout_ms, 1_000, 3_600_000),
            (
                "session_timeout_ms",
                self.session_timeout_ms,
                6_000,
                1_800_000,
            ),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(refused(key, value));
            }
        }
        for key in OWN_PROPERTIES {
            if let Some(value) = self.properties.get(key) {
                let allowed = "any librdkafka property but this one, on which the promises rest";
                return Err(ConfigError::new(
                    format!("properties.{key}"),
                    value,
                    allowed,
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms.into())
    }

    pub(crate) fn produce_timeout(&self) -> Duration {
        Duration::from_millis(self.produce_timeout_ms.into())
    }
}

fn refused(key: &str, value: impl fmt::Display) -> ConfigError {
    let allowed = REFERENCE
        .iter()
        .find(|(other, ..)| *other == key)
        .map_or("", |(_, allowed, _)| allowed);
    ConfigError::new(key, value, allowed)
}

fn topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Checks a Kafka topic's name by Kafka's rules.
///
/// # Errors
///
/// Names `key` and what is allowed.
pub fn validate_topic(key: &str, topic: &str) -> Result<(), ConfigError> {
    let fits = (1..=TOPIC_CHARACTERS_MAX).contains(&topic.len()) && topic.bytes().all(topic_byte);
    if !fits || topic == "." || topic == ".." {
        return Err(ConfigError::new(
            key,
            topic,
            "a Kafka topic: 1 to 249 characters of a-z A-Z 0-9 . _ -",
        ));
    }
    Ok(())
}

/// Checks a list of `host:port`.
///
/// # Errors
///
/// Names `key` and what is allowed.
pub fn validate_servers(key: &str, servers: &str) -> Result<(), ConfigError> {
    let fits = servers.split(',').all(|server| {
        let server = server.trim();
        // librdkafka's `PROTOCOL://host:port` is understood too.
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let Some((host, port)) = server.rsplit_once(':') else {
            return false;
        };
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if fits {
        Ok(())
    } else {
        Err(ConfigError::new(
            key,
            servers,
            "host:port, several separated by commas",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            kafka: "127.0.0.1:9092,[::1]:9092".to_owned(),
            group: "chat".to_owned(),
            topics: vec!["chat.messages".to_owned()],
            downlink_topic: "mqtt.downlink".to_owned(),
            tuning: Tuning::default(),
        }
    }

    #[test]
    fn the_defaults_are_allowed() {
        config().validate().unwrap();
    }

    #[test]
    fn a_refused_value_is_named_with_what_is_allowed() {
        type Case = (fn(&mut Config), &'static str, &'static str);
        let cases: [Case; 15] = [
            (|c| c.kafka = "localhost".into(), "kafka", "host:port"),
            (|c| c.kafka = "localhost:0".into(), "kafka", "host:port"),
            (|c| c.kafka = "a:1,,b:2".into(), "kafka", "host:port"),
            (|c| c.group.clear(), "group", "1 to 249"),
            (|c| c.topics.clear(), "topics", "one Kafka topic or more"),
            (|c| c.topics = vec!["a b".into()], "topics", "a-z"),
            (
                |c| c.topics = vec!["x".repeat(247)],
                "topics",
                "together with dead_letter_suffix",
            ),
            (
                |c| c.topics = vec!["mqtt.downlink".into()],
                "topics",
                "but downlink_topic",
            ),
            (
                |c| c.downlink_topic = "..".into(),
                "downlink_topic",
                "Kafka topic",
            ),
            (
                |c| c.tuning.dead_letter_suffix = "/dlq".into(),
                "dead_letter_suffix",
                "a-z",
            ),
            (
                |c| c.tuning.batch_records_max = 0,
                "batch_records_max",
                "1 to 100000 records",
            ),
            (
                |c| c.tuning.retry_backoff_ms_max = 99,
                "retry_backoff_ms_max",
                "retry_backoff_ms_min to",
            ),
            (
                |c| c.tuning.handle_timeout_ms = 300_000,
                "handle_timeout_ms",
                "120000 milliseconds",
            ),
            (
                |c| {
                    drop(
                        c.tuning
                            .properties
                            .insert("enable.auto.commit".into(), "true".into()),
                    )
                },
                "properties.enable.auto.commit",
                "on which the promises rest",
            ),
            (
                |c| c.tuning.session_timeout_ms = 10,
                "session_timeout_ms",
                "6000",
            ),
        ];
        for (change, key, allowed) in cases {
            let mut config = config();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.key, key);
            assert!(error.allowed.contains(allowed), "{error}");
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn the_reference_names_every_key_once() {
        let debug = format!("{:?}", Tuning::default());
        for (key, allowed, what) in REFERENCE {
            assert!(debug.contains(&format!("{key}: ")), "{key} is no key");
            assert!(!allowed.is_empty() && !what.is_empty());
        }
        assert_eq!(debug.matches(": ").count(), REFERENCE.len());
    }
}
