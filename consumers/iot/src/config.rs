//! What the iot backend is told, with every bound and default.

use std::collections::BTreeMap;

use runtime::{Pattern, Tuning};
use settings::{Error, Kind, Section as _, kafka};

use crate::alert::Rule;
use crate::payload::check_name;
use crate::store::Limits;

settings::section! {
    /// The configuration of the IoT backend.
    pub struct Config {
        /// Kafka's addresses to begin with.
        pub kafka: String = "127.0.0.1:9092".to_owned(), [is kafka::SERVERS];
        /// The consumer group.
        pub group: String = "iot".to_owned(), [is kafka::GROUP];
        /// Where readings, alerts and commands are kept.
        pub database: String = "sqlite:iot.db".to_owned(), [is runtime::store::DATABASE];
        /// The Kafka topics with telemetry and replies.
        pub topics: Vec<String> = vec!["iot.telemetry".to_owned(), "iot.replies".to_owned()], [is kafka::TOPICS];
        /// The Kafka topic that the broker publishes to MQTT clients.
        pub downlink_topic: String = "mqtt.downlink".to_owned(), [is kafka::TOPIC];
        /// The Kafka topic in which the nodes report what became of commands (their `bridge.downlink.reports_topic`).
        pub reports_topic: String = "mqtt.downlink.reports".to_owned(), [is REPORTS_TOPIC];
        /// The MQTT topic of a reading.
        pub telemetry_topic: String = "devices/{device}/telemetry/{metric}".to_owned(), ["an MQTT topic with {device} and {metric}"];
        /// The MQTT topic of readings of several metrics in one payload.
        pub device_telemetry_topic: String = "devices/{device}/telemetry".to_owned(), ["an MQTT topic with {device}"];
        /// The MQTT topic to which alerts go.
        pub alerts_topic: String = "devices/{device}/alerts".to_owned(), ["an MQTT topic with {device}"];
        /// The MQTT topic to which commands go.
        pub commands_topic: String = "devices/{device}/commands/{command}".to_owned(), ["an MQTT topic with {device} and {command}"];
        /// The MQTT topic on which devices reply.
        pub replies_topic: String = "devices/{device}/replies/{command}".to_owned(), ["an MQTT topic with {device} and {command}"];
        /// Alert rules; the HTTP API may put others over them.
        pub rules: BTreeMap<String, Rule> = BTreeMap::new(), ["a table by metric of { above, below, hysteresis }, in the metric's unit"];
        /// Most alert rules, those put by the HTTP API included.
        pub rules_max: u32 = 1_000, [1..=100_000, "rules"];
        /// Most metrics that one device may have. A reading of a further one is a dead letter.
        pub metrics_per_device_max: u32 = 1_000, [1..=100_000, "metrics"];
        /// Most devices that have sent a reading. One of a further device is a dead letter.
        pub devices_max: u32 = 1_000_000, [1..=100_000_000, "devices"];
        /// Most readings that are kept of a metric of a device: older ones are deleted.
        pub series_points_max: u32 = 1_000_000, [1..=1_000_000_000, "readings"];
        /// Most alerts that are kept: older ones are deleted.
        pub alerts_max: u32 = 1_000_000, [1..=1_000_000_000, "alerts"];
        /// Most commands that are kept: of those that have come to their end, the oldest are deleted.
        pub commands_max: u32 = 1_000_000, [1..=1_000_000_000, "commands"];
        /// Most commands that wait for Kafka; more are refused.
        pub commands_pending_max: u32 = 10_000, [1..=1_000_000, "commands"];
        /// A command that no device took for so long is not delivered any more.
        pub command_expiry_s: u32 = 86_400, [1..=31_536_000, "seconds"];
        /// Readings, alerts and commands older than this are deleted. The last value of each metric stays.
        pub retention_days: u32 = 30, [0..=36_500, "days; 0 keeps them for ever"];
        /// A metric of which nothing came for so long is deleted with its last value, and a device with its last metric.
        pub silent_days: u32 = 365, [0..=36_500, "days; 0 keeps them for ever"];
        /// How it reads and retries; the keys are the same for all backends.
        #[serde(deserialize_with = "consumer")]
        pub consumer: Tuning = consumer_defaults(), [section];
    }
}

const REPORTS_TOPIC: Kind<String> = Kind {
    words: "a Kafka topic; empty asks for no reports: then a command stays `sent` until the device replies",
    fits: |topic| topic.is_empty() || (kafka::TOPIC.fits)(topic),
};

/// Each call of the handler writes the last page of every device that it hears of anew, so it hears of more in fewer calls.
fn consumer_defaults() -> Tuning {
    Tuning {
        batch_wait_ms: 100,
        batch_records_max: 20_000,
        batch_bytes_max: 16 << 20,
        ..Tuning::default()
    }
}

fn consumer<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Tuning, D::Error> {
    Tuning::read_over(&consumer_defaults(), given)
}

/// The MQTT topics, read.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub telemetry: Pattern<2>,
    pub device_telemetry: Pattern<1>,
    pub alerts: Pattern<1>,
    pub commands: Pattern<2>,
    pub replies: Pattern<2>,
    /// The Kafka topic of reports; empty: there is none.
    pub reports: String,
}

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_keys()?;
        self.topics()?;
        for (metric, rule) in &self.rules {
            check_name("metric", metric)
                .map_err(|error| Error::new(format!("rules.{metric}"), metric, error.reason))?;
            rule.validate().map_err(|error| {
                Error::new(
                    format!("rules.{metric}.{}", error.key),
                    error.value,
                    error.allowed,
                )
            })?;
        }
        if self.rules.len() > self.rules_max as usize {
            return Err(Error::new(
                "rules_max",
                self.rules_max,
                "at least the number of rules configured",
            ));
        }
        self.runtime().validate()
    }

    /// What the consumer runtime is told.
    pub(crate) fn runtime(&self) -> runtime::Config {
        let mut topics = self.topics.clone();
        if !self.reports_topic.is_empty() && !topics.contains(&self.reports_topic) {
            topics.push(self.reports_topic.clone());
        }
        runtime::Config {
            kafka: self.kafka.clone(),
            group: self.group.clone(),
            topics,
            downlink_topic: self.downlink_topic.clone(),
            tuning: self.consumer.clone(),
        }
    }

    /// How much the store may hold, and for how long.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            metrics_per_device_max: self.metrics_per_device_max,
            devices_max: self.devices_max,
            series_points_max: self.series_points_max,
            alerts_max: self.alerts_max,
            commands_max: self.commands_max,
            retention_days: self.retention_days,
            silent_days: self.silent_days,
        }
    }

    pub(crate) fn topics(&self) -> Result<Topics, Error> {
        Ok(Topics {
            telemetry: Pattern::of_key::<Self>(
                "telemetry_topic",
                &self.telemetry_topic,
                ["device", "metric"],
            )?,
            device_telemetry: Pattern::of_key::<Self>(
                "device_telemetry_topic",
                &self.device_telemetry_topic,
                ["device"],
            )?,
            alerts: Pattern::of_key::<Self>("alerts_topic", &self.alerts_topic, ["device"])?,
            commands: Pattern::of_key::<Self>(
                "commands_topic",
                &self.commands_topic,
                ["device", "command"],
            )?,
            replies: Pattern::of_key::<Self>(
                "replies_topic",
                &self.replies_topic,
                ["device", "command"],
            )?,
            reports: self.reports_topic.clone(),
        })
    }
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
            (|c| c.kafka = "nowhere".into(), "kafka", "HOST:PORT"),
            (|c| c.group.clear(), "group", "1 to 249 characters"),
            (
                |c| c.downlink_topic = "iot.replies".into(),
                "topics",
                "any topic but downlink_topic",
            ),
            (
                |c| c.alerts_topic = "alerts".into(),
                "alerts_topic",
                "this one does not name `{device}`",
            ),
            (|c| c.rules_max = 0, "rules_max", "1 to 100000 rules"),
            (
                |c| c.command_expiry_s = 0,
                "command_expiry_s",
                "1 to 31536000 seconds",
            ),
            (
                |c| c.rules = BTreeMap::from([("t".into(), Rule::default())]),
                "rules.t.above",
                "at least one of above and below",
            ),
            (
                |c| c.rules = BTreeMap::from([("a/b".into(), Rule::default())]),
                "rules.a/b",
                "one level of a topic",
            ),
            (
                |c| c.consumer.batch_records_max = 0,
                "consumer.batch_records_max",
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
    fn keys_of_the_consumer_go_over_the_defaults_of_this_backend() {
        let config: Config =
            serde_json::from_str(r#"{"consumer":{"batch_wait_ms":7}}"#).expect("reads");
        let expected = Tuning {
            batch_wait_ms: 7,
            ..Config::default().consumer
        };
        assert_eq!(config.consumer, expected);
        assert_ne!(
            expected.batch_records_max,
            Tuning::default().batch_records_max
        );
        let error = serde_json::from_str::<Config>(r#"{"consumer":{"batch_weight_ms":7}}"#)
            .expect_err("no such key");
        assert!(
            error
                .to_string()
                .contains("unknown field `batch_weight_ms`, expected one of"),
            "{error}"
        );
    }
}
