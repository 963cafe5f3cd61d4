//! What a consumer is told, with every bound and default.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};
use serde_json::{Map, Value};
use settings::kafka::{self, Properties};
use settings::{Error, Kind, Section as _, is_kind};

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

settings::section! {
    /// How a consumer reads and retries.
    #[derive(Eq)]
    pub struct Tuning {
        /// A dead letter of topic `t` goes to the topic `t` with this suffix.
        pub dead_letter_suffix: String = ".dlq".to_owned(), [is SUFFIX];
        /// Most records handled in one go.
        pub batch_records_max: u32 = 5_000, [1..=100_000, "records"];
        /// Most bytes handled in one go; one record more than that may be in it.
        pub batch_bytes_max: u32 = 4 << 20, [1 << 10..=1 << 30, "bytes"];
        /// How long to wait for more records once there is one.
        pub batch_wait_ms: u32 = 5, [0..=10_000, "milliseconds"];
        /// Kafka answers a fetch when it has so many bytes, or after fetch_wait_ms_max.
        pub fetch_bytes_min: u32 = 64 << 10, [1..=64 << 20, "bytes"];
        /// Longest time that Kafka waits for fetch_bytes_min.
        pub fetch_wait_ms_max: u32 = 20, [1..=10_000, "milliseconds"];
        /// Most bytes read ahead.
        pub prefetch_bytes_max: u32 = 16 << 20, [1 << 20..=1 << 31, "bytes"];
        /// How often offsets of finished records are committed; also at a handover and at the end.
        pub commit_interval_ms: u32 = 200, [1..=60_000, "milliseconds"];
        /// First pause of a partition after a transient failure; doubles with every further one.
        pub retry_backoff_ms_min: u32 = 100, [1..=60_000, "milliseconds"];
        /// Longest pause after a transient failure.
        pub retry_backoff_ms_max: u32 = 10_000, [1..=3_600_000, "milliseconds, at least retry_backoff_ms_min"];
        // librdkafka's max.poll.interval.ms follows from this one and the next: a reader that waits longer loses its
        // partitions.
        /// A call of the handler that takes longer has failed.
        pub handle_timeout_ms: u32 = 60_000, [100..=120_000, "milliseconds"];
        /// Answers and dead letters that Kafka does not confirm in this time are sent again later.
        pub produce_timeout_ms: u32 = 10_000, [100..=120_000, "milliseconds"];
        /// How long the start waits for Kafka.
        pub start_timeout_ms: u32 = 10_000, [100..=600_000, "milliseconds"];
        /// A partition in which more is to read but nothing comes for so long makes the reader be rebuilt.
        pub stall_timeout_ms: u32 = 30_000, [1_000..=3_600_000, "milliseconds"];
        /// Take the group over from another store that is gone for good; refused while the group has members. To be set for
        /// one start.
        pub adopt_store: bool = false, ["true or false"];
        /// Kafka gives the partitions of a consumer that was silent for so long to others.
        pub session_timeout_ms: u32 = 10_000, [6_000..=1_800_000, "milliseconds, and what Kafka allows"];
        /// Further librdkafka properties, for example for TLS and SASL; they win over the other keys.
        pub properties: Properties = Properties::default(), [words Properties::WORDS];
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

/// Bound on the dead-letter suffix, so that most topics leave room for it.
const SUFFIX_CHARACTERS_MAX: usize = 50;
const SUFFIX: Kind<String> = Kind {
    words: "1 to 50 characters of A-Z a-z 0-9 . _ -",
    fits: |suffix| {
        (1..=SUFFIX_CHARACTERS_MAX).contains(&suffix.len())
            && suffix.bytes().all(kafka::is_topic_byte)
    },
};

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), Error> {
        is_kind("kafka", &self.kafka, kafka::SERVERS)?;
        is_kind("group", &self.group, kafka::GROUP)?;
        is_kind("topics", &self.topics, kafka::TOPICS)?;
        is_kind("downlink_topic", &self.downlink_topic, kafka::TOPIC)?;
        for topic in &self.topics {
            if topic.len() + self.tuning.dead_letter_suffix.len() > kafka::NAME_CHARACTERS_MAX {
                let allowed = "at most 249 characters together with consumer.dead_letter_suffix";
                return Err(Error::text("topics", topic, allowed));
            }
            if *topic == self.downlink_topic {
                let allowed = "any topic but downlink_topic, or answers would be consumed";
                return Err(Error::text("topics", topic, allowed));
            }
        }
        self.tuning
            .validate()
            .map_err(|error| error.below("consumer"))
    }
}

impl Tuning {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_keys()?;
        if self.retry_backoff_ms_max < self.retry_backoff_ms_min {
            let allowed = format!(
                "at least retry_backoff_ms_min ({})",
                self.retry_backoff_ms_min
            );
            return Err(Error::new(
                "retry_backoff_ms_max",
                self.retry_backoff_ms_max,
                allowed,
            ));
        }
        self.properties
            .check(&OWN_PROPERTIES, crate::client::takes_property)
    }

    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms.into())
    }

    pub(crate) fn handle_timeout(&self) -> Duration {
        Duration::from_millis(self.handle_timeout_ms.into())
    }

    pub(crate) fn produce_timeout(&self) -> Duration {
        Duration::from_millis(self.produce_timeout_ms.into())
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
            (|c| c.kafka = "localhost".into(), "kafka", "HOST:PORT"),
            (|c| c.kafka = "localhost:0".into(), "kafka", "HOST:PORT"),
            (|c| c.kafka = "a:1,,b:2".into(), "kafka", "HOST:PORT"),
            (|c| c.group.clear(), "group", "1 to 249"),
            (|c| c.topics.clear(), "topics", "one Kafka topic or more"),
            (|c| c.topics = vec!["a b".into()], "topics", "A-Z a-z 0-9"),
            (
                |c| c.topics = vec!["x".repeat(247)],
                "topics",
                "together with consumer.dead_letter_suffix",
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
                "consumer.dead_letter_suffix",
                "A-Z a-z 0-9",
            ),
            (
                |c| c.tuning.batch_records_max = 0,
                "consumer.batch_records_max",
                "1 to 100000 records",
            ),
            (
                |c| c.tuning.retry_backoff_ms_max = 99,
                "consumer.retry_backoff_ms_max",
                "at least retry_backoff_ms_min (100)",
            ),
            (
                |c| c.tuning.handle_timeout_ms = 300_000,
                "consumer.handle_timeout_ms",
                "120000 milliseconds",
            ),
            (
                |c| {
                    c.tuning.properties.insert("enable.auto.commit", "true");
                },
                "consumer.properties.enable.auto.commit",
                "on which the promises rest",
            ),
            (
                |c| c.tuning.session_timeout_ms = 10,
                "consumer.session_timeout_ms",
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
}
