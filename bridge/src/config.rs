//! The bridge's part of the configuration file: what it may say, checked once. Its reference page is in `reference`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use broker::ConfigError;
use serde::{Deserialize, Serialize};

use crate::routes::{RouteConfig, Routes, default_routes};

/// How the bridge of one broker node is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Kafka's addresses to begin with: `host:port`, several with commas between.
    pub kafka: String,
    /// This node's name, unlike any other node's; empty is the host's name.
    pub node: String,
    /// What is stored where; the first route whose filter matches decides, and what none matches is not stored.
    pub routes: Vec<RouteConfig>,
    /// Whether topics that Kafka does not have are created.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: i32,
    /// Replicas of a topic that is created; 0 is the cluster's default.
    pub replication: i32,
    /// How long the start waits for Kafka, in milliseconds.
    pub start_timeout_ms: u64,
    /// The producer.
    pub producer: ProducerConfig,
    /// The way back, from Kafka to MQTT.
    pub downlink: DownlinkConfig,
    /// Further settings of librdkafka, for example for TLS and passwords.
    pub properties: BTreeMap<String, String>,
}

/// How messages are sent to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerConfig {
    /// How long a message may wait for others to share a request with, in milliseconds.
    pub linger_ms: u32,
    /// How batches are compressed.
    pub compression: Compression,
    /// The largest batch before compression, in bytes; a topic that allows less lowers it.
    pub batch_bytes_max: u32,
    /// The largest message that is offered to Kafka, in bytes. The topic's own `max.message.bytes` decides below it.
    pub message_bytes_max: u32,
    /// Messages that may wait for Kafka's confirmation.
    pub queue_messages_max: u32,
    /// Payload bytes that may wait for Kafka's confirmation.
    pub queue_bytes_max: u64,
}

/// How messages come back from Kafka to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownlinkConfig {
    /// Whether this node reads the downlink topic.
    pub enabled: bool,
    /// The topic to which backends append.
    pub topic: String,
    /// Where records go that cannot be published.
    pub dead_letter_topic: String,
    /// The consumer group under which this node's position is kept; empty is `millstream-downlink-` and the node's name.
    pub group: String,
    /// Messages that were handed to the broker and have not reached all their sessions yet.
    pub outstanding_messages_max: u32,
    /// Bytes of these messages.
    pub outstanding_bytes_max: u64,
    /// How often the position is committed, in milliseconds.
    pub commit_interval_ms: u64,
}

/// A compression of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// Fast.
    Lz4,
    /// Smaller, for more CPU.
    Zstd,
}

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: "127.0.0.1:9092".to_owned(),
            node: String::new(),
            routes: default_routes(),
            create_topics: true,
            partitions: 6,
            replication: 0,
            start_timeout_ms: 10_000,
            producer: ProducerConfig::default(),
            downlink: DownlinkConfig::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger_ms: 3,
            compression: Compression::Lz4,
            batch_bytes_max: 1_000_000,
            message_bytes_max: 1_048_576,
            queue_messages_max: 200_000,
            queue_bytes_max: 128 * 1_048_576,
        }
    }
}

impl Default for DownlinkConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            topic: "mqtt.downlink".to_owned(),
            dead_letter_topic: "mqtt.downlink.dlq".to_owned(),
            group: String::new(),
            outstanding_messages_max: 10_000,
            outstanding_bytes_max: 64 * 1_048_576,
            commit_interval_ms: 200,
        }
    }
}

/// Settings of librdkafka on which the bridge's promises rest: they are not for the configuration.
const OWN_PROPERTIES: &[&str] = &[
    "acks",
    "request.required.acks",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "retries",
    "transactional.id",
];

/// Longest name that Kafka gives a topic, in bytes.
const KAFKA_TOPIC_BYTES_MAX: usize = 249;
/// Longest name of a node, in bytes: it stands in a header of every record.
const NODE_BYTES_MAX: usize = 64;
/// Bytes that a record has beside its payload at least; a bound on batches below this would refuse everything.
const MESSAGE_BYTES_MIN: u32 = 1_024;
/// The largest message and batch that librdkafka can be set to.
const MESSAGE_BYTES_CEILING: u32 = 1_000_000_000;

impl Config {
    /// Checks every value and how they relate.
    ///
    /// # Errors
    /// The first value that is not allowed, with its key and what is.
    pub fn validate(&self) -> Result<(), ConfigError> {
        kafka_addresses("kafka", &self.kafka)?;
        if self.node.len() > NODE_BYTES_MAX || self.node.chars().any(char::is_control) {
            let allowed =
                format!("text of at most {NODE_BYTES_MAX} bytes without control characters");
            return Err(error("node", format!("{:?}", self.node), allowed));
        }
        Routes::compile(&self.routes)?;
        in_range("partitions", self.partitions, 1, 10_000)?;
        in_range("replication", self.replication, 0, 100)?;
        in_range("start_timeout_ms", self.start_timeout_ms, 100, 600_000)?;
        self.producer.validate()?;
        self.downlink.validate()?;
        for (name, value) in &self.properties {
            if OWN_PROPERTIES.contains(&name.as_str()) {
                let allowed = "a setting of librdkafka that the bridge does not set itself";
                return Err(error(
                    &format!("properties.{name}"),
                    format!("{value:?}"),
                    allowed,
                ));
            }
        }
        crate::kafka::producer(self, self.producer.batch_bytes_max)
            .create_native_config()
            .map_err(|cause| {
                error(
                    "properties",
                    format!("{:?}", self.properties),
                    format!("settings of librdkafka ({cause})"),
                )
            })?;
        Ok(())
    }

    /// This node's name: the configured one, else the host's.
    #[must_use]
    pub fn node_name(&self) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
            .ok()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "node".to_owned())
    }

    /// The consumer group under which this node's position in the downlink topic is kept.
    #[must_use]
    pub fn downlink_group(&self) -> String {
        if self.downlink.group.is_empty() {
            format!("millstream-downlink-{}", self.node_name())
        } else {
            self.downlink.group.clone()
        }
    }

    /// Every Kafka topic that the bridge needs, each once.
    #[must_use]
    pub fn kafka_topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self
            .routes
            .iter()
            .filter(|route| route.store)
            .map(|route| route.topic.as_str())
            .collect();
        if self.downlink.enabled {
            topics.push(&self.downlink.topic);
            topics.push(&self.downlink.dead_letter_topic);
        }
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

impl ProducerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        in_range("producer.linger_ms", self.linger_ms, 0, 10_000)?;
        in_range(
            "producer.message_bytes_max",
            self.message_bytes_max,
            MESSAGE_BYTES_MIN,
            MESSAGE_BYTES_CEILING,
        )?;
        in_range(
            "producer.batch_bytes_max",
            self.batch_bytes_max,
            MESSAGE_BYTES_MIN,
            MESSAGE_BYTES_CEILING,
        )?;
        in_range(
            "producer.queue_messages_max",
            self.queue_messages_max,
            1,
            10_000_000,
        )?;
        // A message that Kafka would take must have room, or its publisher would be held for ever. librdkafka counts in
        // units of 1,024 bytes, up to 31 bits of them.
        let least = u64::from(self.message_bytes_max).next_multiple_of(1_024);
        if self.queue_bytes_max < least {
            let allowed =
                format!("at least producer.message_bytes_max, rounded up to KiB ({least})");
            return Err(error(
                "producer.queue_bytes_max",
                self.queue_bytes_max,
                allowed,
            ));
        }
        in_range(
            "producer.queue_bytes_max",
            self.queue_bytes_max,
            least,
            2_147_483_647 * 1_024,
        )
    }
}

impl DownlinkConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        kafka_topic("downlink.topic", &self.topic)?;
        kafka_topic("downlink.dead_letter_topic", &self.dead_letter_topic)?;
        if self.topic == self.dead_letter_topic {
            return Err(error(
                "downlink.dead_letter_topic",
                &self.topic,
                "another topic than downlink.topic",
            ));
        }
        in_range(
            "downlink.outstanding_messages_max",
            self.outstanding_messages_max,
            1,
            10_000_000,
        )?;
        in_range(
            "downlink.outstanding_bytes_max",
            self.outstanding_bytes_max,
            1_048_576,
            u64::MAX,
        )?;
        in_range(
            "downlink.commit_interval_ms",
            self.commit_interval_ms,
            10,
            60_000,
        )
    }
}

pub(crate) fn error(key: &str, value: impl Display, allowed: impl Into<String>) -> ConfigError {
    ConfigError {
        key: key.to_owned(),
        value: value.to_string(),
        allowed: allowed.into(),
    }
}

fn in_range<T: PartialOrd + Display + Copy>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(error(key, value, format!("{least} to {most}")));
    }
    Ok(())
}

/// Checks a name by Kafka's rule for topics.
pub(crate) fn kafka_topic(key: &str, name: &str) -> Result<(), ConfigError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty()
        || name.len() > KAFKA_TOPIC_BYTES_MAX
        || matches!(name, "." | "..")
        || !name.bytes().all(legal)
    {
        let allowed = format!("a Kafka topic: 1 to {KAFKA_TOPIC_BYTES_MAX} of A-Z a-z 0-9 . _ -");
        return Err(error(key, format!("{name:?}"), allowed));
    }
    Ok(())
}

fn kafka_addresses(key: &str, addresses: &str) -> Result<(), ConfigError> {
    let well_formed = |address: &str| {
        address.trim().rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    if !addresses.split(',').all(well_formed) {
        let allowed = "HOST:PORT, several with commas between, such as \"127.0.0.1:9092\"";
        return Err(error(key, format!("{addresses:?}"), allowed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        type Case = (fn(&mut Config), &'static str, &'static str);
        let cases: [Case; 17] = [
            (|c| c.kafka = String::new(), "kafka = \"\"", "HOST:PORT"),
            (
                |c| c.kafka = "localhost".into(),
                "kafka = \"localhost\"",
                "HOST:PORT",
            ),
            (
                |c| c.kafka = "a:1,b:70000".into(),
                "kafka = \"a:1,b:70000\"",
                "HOST:PORT",
            ),
            (|c| c.node = "x".repeat(65), "node = ", "64"),
            (|c| c.partitions = 0, "partitions = 0", "1 to 10000"),
            (|c| c.replication = -1, "replication = -1", "0 to 100"),
            (
                |c| c.start_timeout_ms = 0,
                "start_timeout_ms = 0",
                "100 to 600000",
            ),
            (
                |c| c.producer.linger_ms = 10_001,
                "producer.linger_ms = 10001",
                "0 to 10000",
            ),
            (
                |c| c.producer.queue_messages_max = 0,
                "producer.queue_messages_max = 0",
                "1 to",
            ),
            (
                |c| c.producer.queue_bytes_max = 1_000_000,
                "producer.queue_bytes_max = 1000000",
                "message_bytes_max",
            ),
            (
                |c| c.producer.message_bytes_max = 1,
                "producer.message_bytes_max = 1",
                "1024",
            ),
            (
                |c| c.downlink.topic = "a/b".into(),
                "downlink.topic = \"a/b\"",
                "Kafka topic",
            ),
            (
                |c| c.downlink.dead_letter_topic = "mqtt.downlink".into(),
                "downlink.dead_letter_topic",
                "another topic",
            ),
            (
                |c| c.downlink.commit_interval_ms = 1,
                "downlink.commit_interval_ms = 1",
                "10 to 60000",
            ),
            (
                |c| c.downlink.outstanding_messages_max = 0,
                "downlink.outstanding_messages_max = 0",
                "1 to",
            ),
            (
                |c| drop(c.properties.insert("acks".into(), "1".into())),
                "properties.acks = \"1\"",
                "does not set itself",
            ),
            (
                |c| drop(c.properties.insert("no.such.setting".into(), "1".into())),
                "no.such.setting",
                "settings of librdkafka",
            ),
        ];
        for (change, says, allows) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().expect_err(says).to_string();
            assert!(
                error.contains(says) && error.contains(allows),
                "{says}: {error}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<Config>(r#"{"producer": {"linger": 5}}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("linger") && error.contains("linger_ms"),
            "{error}"
        );
    }

    #[test]
    fn every_topic_is_listed_once() {
        let config = Config::default();
        assert_eq!(
            config.kafka_topics(),
            [
                "chat.messages",
                "iot.replies",
                "iot.telemetry",
                "mqtt.downlink",
                "mqtt.downlink.dlq",
                "mqtt.messages"
            ]
        );
        let off = Config {
            downlink: DownlinkConfig {
                enabled: false,
                ..DownlinkConfig::default()
            },
            routes: Vec::new(),
            ..config
        };
        assert!(off.kafka_topics().is_empty());
    }
}
