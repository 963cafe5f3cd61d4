//! The bridge's part of the configuration file: what it may say, checked once.

use std::path::Path;

use serde::{Deserialize, Serialize};
use settings::kafka::{self, Properties};
use settings::{Kind, Section as _};

use crate::properties;
use crate::routes::{RouteConfig, Routes, default_routes};

settings::section! {
    /// How the bridge of one broker node is set up.
    #[derive(Eq)]
    pub struct Config {
        /// Kafka's addresses to begin with; the others are learned from there.
        pub kafka: String = "127.0.0.1:9092".to_owned(), [is kafka::SERVERS];
        /// This node's name, unlike any other node's: it stands in every record, and the position in the downlink topic
        /// is kept under it.
        pub node: String = String::new(), [is NODE];
        /// What is stored where; the first route whose filter matches decides, and what none matches is not stored. A
        /// route has `filter` (a topic filter), `store` (true or false; default true), `topic` (the Kafka topic), `key`
        /// (the record's key: text in which `{topic}`, `{client_id}` and `{1}`, `{2}`, … for what the filter's wildcards
        /// stand for are replaced; default `{topic}`), `ack` (`"persisted"`: acknowledged when Kafka has confirmed it,
        /// the default; `"received"`: at once) and `deliver` (`"now"`: subscribers do not wait for Kafka, the default;
        /// `"after-persisted"`). Routes given here replace the default ones.
        pub routes: Vec<RouteConfig> = default_routes(), ["list of routes"];
        /// Whether topics that Kafka does not have are created at the start, or the start fails.
        pub create_topics: bool = true, ["true or false"];
        /// Partitions of a topic that is created.
        pub partitions: i32 = 6, [1..=10_000, "partitions"];
        /// Replicas of a topic that is created.
        pub replication: i32 = 0, [0..=100, "replicas; 0 is 3 on a cluster of three brokers or more (min.insync.replicas 2), else the cluster's default"];
        /// Whether the start fails when a topic has one replica, or min.insync.replicas 1: what Kafka confirms then does
        /// not survive the loss of one of its brokers. Without it this is a warning.
        pub require_replicas: bool = false, ["true or false"];
        /// How long the start waits for Kafka before it fails. A Kafka that goes away later is waited for without end.
        pub start_timeout_ms: u64 = 10_000, [100..=600_000, "milliseconds"];
        /// What becomes of a message that Kafka refuses for good when its publisher, a 3.x client, cannot be told:
        /// `"dead-letter"` puts it into the topic `TOPIC.dlq` with the reason, and acknowledges it when it is there;
        /// `"close"` closes the connection, and when the client is back its publishes wait, longer each time
        /// (broker.limits.refused_pause_ms_max). A 5.0 client gets a reason code.
        pub refused_3x: Refused3x = Refused3x::DeadLetter, ["\"dead-letter\" or \"close\""];
        /// How long messages wait for a topic that Kafka does not have any more before they are refused. With
        /// `create_topics` the topic is made again.
        pub missing_topic_wait_s: u64 = 60, [0..=86_400, "seconds"];
        /// A partition that confirms nothing for so long, though messages wait for it, is a problem, and the node not ready.
        pub confirmation_wait_s: u64 = 10, [1..=3_600, "seconds"];
        /// How messages are sent to Kafka.
        pub producer: ProducerConfig = ProducerConfig::default(), [section];
        /// How messages come back from Kafka to be published.
        pub downlink: DownlinkConfig = DownlinkConfig::default(), [section];
        /// Further settings of librdkafka for every connection to Kafka, for example `"security.protocol" = "ssl"`.
        /// Those on which the bridge's promises rest are refused.
        pub properties: Properties = Properties::default(), [words Properties::WORDS];
    }
}

settings::section! {
    /// How messages are sent to Kafka.
    #[derive(Eq)]
    pub struct ProducerConfig {
        /// How long a message may wait for others to share a request with.
        pub linger_ms: u32 = 3, [0..=10_000, "milliseconds"];
        /// How record batches are compressed.
        pub compression: Compression = Compression::Lz4, ["\"none\", \"lz4\" or \"zstd\""];
        /// The largest batch before compression. A topic with a smaller `max.message.bytes` lowers it, so that no small
        /// message is refused for the size of its batch.
        pub batch_bytes_max: u32 = 1_000_000, [MESSAGE_BYTES_MIN..=MESSAGE_BYTES_CEILING, "bytes"];
        /// The largest message that is offered to Kafka; below it the topic's `max.message.bytes` decides. A larger one is
        /// refused (0x97 for 5.0, a closed connection for 3.x).
        pub message_bytes_max: u32 = 1_048_576, [MESSAGE_BYTES_MIN..=MESSAGE_BYTES_CEILING, "bytes"];
        /// Messages that may wait for Kafka's confirmation: beyond it publishers of QoS 1 and 2 are held, and QoS 0 is
        /// dropped and counted, which may fill half of it.
        pub queue_messages_max: u32 = 200_000, [1..=10_000_000, "messages"];
        /// Payload bytes that may wait for Kafka's confirmation. Beside them a waiting message takes about 1 KB.
        pub queue_bytes_max: u64 = 128 * 1_048_576, [1..=QUEUE_BYTES_CEILING, "bytes, at least message_bytes_max"];
        /// The share of both that messages of one Kafka topic may take, so that a topic which confirms nothing leaves room
        /// to the others. A topic that is the only one may take all.
        pub queue_topic_percent: u32 = 50, [1..=100, "percent"];
        /// The share of its topic's that messages of one partition may take, or an equal part where there are few partitions:
        /// a Kafka broker that confirms nothing leads some of each topic, and the others shall go on.
        pub queue_partition_percent: u32 = 12, [1..=100, "percent"];
    }
}

settings::section! {
    /// How messages come back from Kafka to be published.
    #[derive(Eq)]
    pub struct DownlinkConfig {
        /// Whether this node publishes what backends append to the downlink topic.
        pub enabled: bool = true, ["true or false"];
        /// The topic to which backends append.
        pub topic: String = "mqtt.downlink".to_owned(), [is kafka::TOPIC];
        /// Where records of the downlink topic go that cannot be published.
        pub dead_letter_topic: String = "mqtt.downlink.dlq".to_owned(), [is kafka::TOPIC];
        /// Where what becomes of a record is reported, if the record asks for it (header `mill.report`).
        pub reports_topic: String = "mqtt.downlink.reports".to_owned(), [is kafka::TOPIC];
        /// Reports that wait for Kafka's confirmation; beyond it nothing is read. And messages with a report that wait in
        /// sessions and are followed there, to report when a client has got them: of more it is reported that they wait, and
        /// then no more.
        pub reports_waiting_max: u32 = 10_000, [1..=1_000_000, "reports"];
        /// The consumer group under which this node's position is kept. What a node without a position does: new_node_lookback_s.
        pub group: String = String::new(), ["text; empty is millstream-downlink-NODE"];
        /// Messages handed to the broker that have not reached all their sessions yet; beyond it nothing is read.
        pub outstanding_messages_max: u32 = 10_000, [1..=10_000_000, "messages"];
        /// Bytes of the messages that have not reached all their sessions yet; beyond it nothing is read.
        pub outstanding_bytes_max: u64 = 64 * 1_048_576, [1_048_576.., "bytes"];
        /// Messages with QoS 1 or 2 and an expiry that wait for a subscriber, because nobody has subscribed to their topic yet;
        /// one that comes beyond it is not delivered. 0: none waits.
        pub held_messages_max: u32 = 10_000, [0..=1_000_000, "messages"];
        /// Bytes of the messages that wait for a subscriber.
        pub held_bytes_max: u64 = 16 * 1_048_576, [0.., "bytes"];
        /// A node without a position begins with the messages of so long ago that have an expiry which has not passed, and with
        /// all that are appended from then on. 0: at the end.
        pub new_node_lookback_s: u64 = 300, [0..=86_400, "seconds"];
        /// How often the position is committed: what a killed node may publish again.
        pub commit_interval_ms: u64 = 200, [10..=60_000, "milliseconds"];
    }
}

/// What becomes of a refused message whose publisher cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused3x {
    /// It is put aside, and acknowledged.
    DeadLetter,
    /// The connection is closed.
    Close,
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

/// Longest name of a node, in bytes: it stands in a header of every record.
const NODE_BYTES_MAX: usize = 64;
const NODE: Kind<String> = Kind {
    words: "text of at most 64 bytes without control characters; empty is the host's name",
    fits: |node| node.len() <= NODE_BYTES_MAX && !node.chars().any(char::is_control),
};
/// Bytes that a record has beside its payload at least; a bound on batches below this would refuse everything.
const MESSAGE_BYTES_MIN: u32 = 1_024;
/// The largest message and batch that librdkafka can be set to.
pub(crate) const MESSAGE_BYTES_CEILING: u32 = 1_000_000_000;
/// librdkafka counts its queue in units of 1,024 bytes, up to 31 bits of them.
const QUEUE_BYTES_CEILING: u64 = 2_147_483_647 * 1_024;

impl Config {
    /// Checks every value and how they relate.
    ///
    /// # Errors
    /// The first value that is not allowed, with its key and what is.
    pub fn validate(&self) -> Result<(), settings::Error> {
        self.check_keys()?;
        Routes::compile(&self.routes)?;
        self.producer
            .validate()
            .map_err(|error| error.below("producer"))?;
        self.downlink
            .validate()
            .map_err(|error| error.below("downlink"))?;
        properties::check(&self.properties)
    }

    /// This node's name: the configured one, else the host's.
    #[must_use]
    pub fn node_name(&self) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        host_name()
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
            topics.push(&self.downlink.reports_topic);
        }
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

/// The host's name.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".to_owned())
}

impl ProducerConfig {
    fn validate(&self) -> Result<(), settings::Error> {
        // A message that Kafka would take must have room, or its publisher would be held for ever.
        let least = u64::from(self.message_bytes_max).next_multiple_of(1_024);
        if self.queue_bytes_max < least {
            let allowed = format!("at least message_bytes_max, rounded up to KiB ({least})");
            return Err(settings::Error::new(
                "queue_bytes_max",
                self.queue_bytes_max,
                allowed,
            ));
        }
        Ok(())
    }
}

impl DownlinkConfig {
    fn validate(&self) -> Result<(), settings::Error> {
        if self.topic == self.dead_letter_topic {
            return Err(settings::Error::text(
                "dead_letter_topic",
                &self.topic,
                "another topic than downlink.topic",
            ));
        }
        if [&self.topic, &self.dead_letter_topic].contains(&&self.reports_topic) {
            return Err(settings::Error::text(
                "reports_topic",
                &self.reports_topic,
                "another topic than downlink.topic and downlink.dead_letter_topic",
            ));
        }
        Ok(())
    }
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
        let cases: [Case; 18] = [
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
                |c| c.downlink.reports_topic = "mqtt.downlink.dlq".into(),
                "downlink.reports_topic",
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
                |c| c.properties.insert("acks", "1"),
                "properties.acks = \"1\"",
                "for which there is another key",
            ),
            (
                |c| c.properties.insert("no.such.setting", "1"),
                "no.such.setting",
                "what librdkafka knows",
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
                "mqtt.downlink.reports",
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
