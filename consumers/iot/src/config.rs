//! What the iot backend is told, with every bound and default.

use std::collections::BTreeMap;

use runtime::{ConfigError, Pattern, Tuning, validate_servers, validate_topic};
use serde::{Deserialize, Serialize};

use crate::alert::Rule;
use crate::payload::check_name;

/// The configuration of the iot backend. All keys but `kafka` have defaults.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kafka's bootstrap servers, `host:port`, separated by commas.
    pub kafka: String,
    /// The consumer group.
    pub group: String,
    /// Where readings, alerts and commands are kept: `sqlite:FILE`.
    pub database: String,
    /// The Kafka topics with telemetry and replies.
    pub topics: Vec<String>,
    /// The Kafka topic that the broker publishes to MQTT clients.
    pub downlink_topic: String,
    /// The MQTT topic of a reading.
    pub telemetry_topic: String,
    /// The MQTT topic to which alerts go.
    pub alerts_topic: String,
    /// The MQTT topic to which commands go.
    pub commands_topic: String,
    /// The MQTT topic on which devices reply.
    pub replies_topic: String,
    /// Alert rules by metric.
    pub rules: BTreeMap<String, Rule>,
    /// Most alert rules, those put by the HTTP API included.
    pub rules_max: u32,
    /// Most metrics that one device may have.
    pub metrics_per_device_max: u32,
    /// Most commands that wait for Kafka; more are refused.
    pub commands_pending_max: u32,
    /// A command that no device took for so long is not delivered any more.
    pub command_expiry_s: u32,
    /// Readings, alerts and commands older than this are deleted; 0 keeps them for ever.
    pub retention_days: u32,
    /// How it reads and retries.
    #[serde(deserialize_with = "consumer")]
    pub consumer: Tuning,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: "127.0.0.1:9092".to_owned(),
            group: "iot".to_owned(),
            database: "sqlite:iot.db".to_owned(),
            topics: vec!["iot.telemetry".to_owned(), "iot.replies".to_owned()],
            downlink_topic: "mqtt.downlink".to_owned(),
            telemetry_topic: "devices/{device}/telemetry/{metric}".to_owned(),
            alerts_topic: "devices/{device}/alerts".to_owned(),
            commands_topic: "devices/{device}/commands/{command}".to_owned(),
            replies_topic: "devices/{device}/replies/{command}".to_owned(),
            rules: BTreeMap::new(),
            rules_max: 1_000,
            metrics_per_device_max: 1_000,
            commands_pending_max: 10_000,
            command_expiry_s: 86_400,
            retention_days: 30,
            consumer: consumer_defaults(),
        }
    }
}

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
        "Where readings, alerts and commands are kept.",
    ),
    (
        "topics",
        "a list of Kafka topics",
        "The Kafka topics with telemetry and replies.",
    ),
    (
        "downlink_topic",
        "a Kafka topic",
        "The Kafka topic that the broker publishes to MQTT clients.",
    ),
    (
        "telemetry_topic",
        "an MQTT topic with {device} and {metric}",
        "The MQTT topic of a reading.",
    ),
    (
        "alerts_topic",
        "an MQTT topic with {device}",
        "The MQTT topic to which alerts go.",
    ),
    (
        "commands_topic",
        "an MQTT topic with {device} and {command}",
        "The MQTT topic to which commands go.",
    ),
    (
        "replies_topic",
        "an MQTT topic with {device} and {command}",
        "The MQTT topic on which devices reply.",
    ),
    (
        "rules",
        "a table by metric of { above, below, hysteresis }, in the metric's unit",
        "Alert rules; the HTTP API may put others over them.",
    ),
    (
        "rules_max",
        "1 to 100000 rules",
        "Most alert rules, those put by the HTTP API included.",
    ),
    (
        "metrics_per_device_max",
        "1 to 100000 metrics",
        "Most metrics that one device may have.",
    ),
    (
        "commands_pending_max",
        "1 to 1000000 commands",
        "Most commands that wait for Kafka; more are refused.",
    ),
    (
        "command_expiry_s",
        "1 to 31536000 seconds",
        "A command that no device took for so long is not delivered any more.",
    ),
    (
        "retention_days",
        "0 to 36500 days",
        "Readings, alerts and commands older than this are deleted; 0 keeps them for ever.",
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
    pub telemetry: Pattern<2>,
    pub alerts: Pattern<1>,
    pub commands: Pattern<2>,
    pub replies: Pattern<2>,
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
        self.topics()?;
        for (metric, rule) in &self.rules {
            check_name("metric", metric).map_err(|error| {
                ConfigError::new(format!("rules.{metric}"), metric, error.reason)
            })?;
            rule.validate().map_err(|error| {
                ConfigError::new(
                    format!("rules.{metric}.{}", error.key),
                    error.value,
                    error.allowed,
                )
            })?;
        }
        let ranges = [
            ("rules_max", self.rules_max, 1, 100_000),
            (
                "metrics_per_device_max",
                self.metrics_per_device_max,
                1,
                100_000,
            ),
            (
                "commands_pending_max",
                self.commands_pending_max,
                1,
                1_000_000,
            ),
            ("command_expiry_s", self.command_expiry_s, 1, 31_536_000),
            ("retention_days", self.retention_days, 0, 36_500),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                let allowed = REFERENCE
                    .iter()
                    .find(|(other, ..)| *other == key)
                    .map_or("", |(_, allowed, _)| allowed);
                return Err(ConfigError::new(key, value, allowed));
            }
        }
        if self.rules.len() > self.rules_max as usize {
            return Err(ConfigError::new(
                "rules_max",
                self.rules_max,
                "at least the number of rules configured",
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

    pub(crate) fn topics(&self) -> Result<Topics, ConfigError> {
        Ok(Topics {
            telemetry: pattern(
                "telemetry_topic",
                &self.telemetry_topic,
                ["device", "metric"],
            )?,
            alerts: pattern("alerts_topic", &self.alerts_topic, ["device"])?,
            commands: pattern(
                "commands_topic",
                &self.commands_topic,
                ["device", "command"],
            )?,
            replies: pattern("replies_topic", &self.replies_topic, ["device", "command"])?,
        })
    }
}

fn pattern<const N: usize>(
    key: &str,
    text: &str,
    names: [&str; N],
) -> Result<Pattern<N>, ConfigError> {
    Pattern::new(text, names).map_err(|clause| {
        let allowed = REFERENCE
            .iter()
            .find(|(other, ..)| *other == key)
            .map_or("", |(_, allowed, _)| allowed);
        ConfigError::new(key, text, format!("{allowed}; this one {clause}"))
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
