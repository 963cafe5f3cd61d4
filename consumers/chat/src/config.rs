//! What the chat backend is told, with every bound and default.

use runtime::{Pattern, Tuning};
use serde::{Deserialize, Serialize};
use settings::{Error, Section as _, kafka};

use crate::store::Limits;

/// Whom a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// Whom the broker knows the client as.
    Principal,
    /// Whom the payload names.
    Payload,
}

settings::section! {
    /// The configuration of the chat backend.
    #[derive(Eq)]
    pub struct Config {
        /// Kafka's addresses to begin with.
        pub kafka: String = "127.0.0.1:9092".to_owned(), [is kafka::SERVERS];
        /// The consumer group.
        pub group: String = "chat".to_owned(), [is kafka::GROUP];
        /// Where messages are kept.
        pub database: String = "sqlite:chat.db".to_owned(), [is runtime::store::DATABASE];
        /// The Kafka topics with messages.
        pub topics: Vec<String> = vec!["chat.messages".to_owned()], [is kafka::TOPICS];
        /// The Kafka topic that the broker publishes to MQTT clients.
        pub downlink_topic: String = "mqtt.downlink".to_owned(), [is kafka::TOPIC];
        /// The MQTT topic of a message.
        pub messages_topic: String = "rooms/{room}/messages".to_owned(), ["an MQTT topic with {room}"];
        /// The MQTT topic to which receipts go.
        pub receipts_topic: String = "users/{user}/receipts".to_owned(), ["an MQTT topic with {user}"];
        /// The MQTT topic to which the backend says what was stored, with its number.
        pub events_topic: String = "rooms/{room}/events".to_owned(), ["an MQTT topic with {room}"];
        /// The longest text of a message; a longer one is a dead letter.
        pub text_bytes_max: u32 = 16_384, [1..=1 << 20, "bytes"];
        /// Whom a message is from: "principal", the user that the broker knows its client as, where the record says one (then the
        /// payload need not name a sender, and a message that names another is a dead letter); or "payload", whom that names.
        pub sender: Sender = Sender::Principal, ["\"principal\" or \"payload\""];
        /// Messages older than this are deleted; a room goes on counting.
        pub retention_days: u32 = 365, [0..=36_500, "days; 0 keeps them for ever"];
        /// Most messages that are kept of a room: older ones are deleted, and the room goes on counting.
        pub room_messages_max: u32 = 1_000_000, [1..=1_000_000_000, "messages"];
        /// Most rooms. What would make one more is a dead letter.
        pub rooms_max: u32 = 1_000_000, [1..=100_000_000, "rooms"];
        /// Most members of a room. A user beyond that does not join, nor by writing: the message is kept.
        pub room_members_max: u32 = 100_000, [1..=10_000_000, "members"];
        /// How it reads and retries; the keys are the same for all backends.
        pub consumer: Tuning = Tuning::default(), [section];
    }
}

/// The MQTT topics, read.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub messages: Pattern<1>,
    pub receipts: Pattern<1>,
    pub events: Pattern<1>,
}

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_keys()?;
        self.mqtt_topics()?;
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

    /// How many different things the store may hold.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            rooms_max: self.rooms_max,
            room_members_max: self.room_members_max,
        }
    }

    pub(crate) fn mqtt_topics(&self) -> Result<Topics, Error> {
        Ok(Topics {
            messages: Pattern::of_key::<Self>("messages_topic", &self.messages_topic, ["room"])?,
            receipts: Pattern::of_key::<Self>("receipts_topic", &self.receipts_topic, ["user"])?,
            events: Pattern::of_key::<Self>("events_topic", &self.events_topic, ["room"])?,
        })
    }
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
        let cases: [Case; 8] = [
            (|c| c.kafka = "nowhere".into(), "kafka", "HOST:PORT"),
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
            (|c| c.rooms_max = 0, "rooms_max", "1 to 100000000 rooms"),
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
}
