//! What the dashboard is told, with every bound and default.

use runtime::{Pattern, Tuning};
use settings::{Error, Kind, Section as _, kafka};

settings::section! {
    /// The configuration of the dashboard.
    #[derive(Eq)]
    pub struct Config {
        /// Kafka's addresses to begin with.
        pub kafka: String = "127.0.0.1:9092".to_owned(), [is kafka::SERVERS];
        /// The consumer group.
        pub group: String = "dashboard".to_owned(), [is kafka::GROUP];
        /// Where the totals are kept.
        pub database: String = "sqlite:dashboard.db".to_owned(), [is runtime::store::DATABASE];
        /// The Kafka topics to count: all that the bridge writes.
        pub topics: Vec<String> = ["chat.messages", "iot.telemetry", "iot.replies", "mqtt.messages"]
            .map(str::to_owned)
            .to_vec(), [is kafka::TOPICS];
        /// The Kafka topic that the broker publishes to MQTT clients; it is never counted.
        pub downlink_topic: String = "mqtt.downlink".to_owned(), [is kafka::TOPIC];
        /// Consumer groups whose lag is shown beside the dashboard's own.
        pub watched_groups: Vec<String> = ["chat", "iot"].map(str::to_owned).to_vec(), [is WATCHED_GROUPS];
        /// How many levels of an MQTT topic make the prefix by which messages are counted.
        pub prefix_levels: u32 = 1, [1..=8, "levels"];
        /// Most prefixes; messages of further ones are counted together.
        pub prefixes_max: u32 = 50, [1..=1_000, "prefixes"];
        /// How the MQTT topics of a device begin.
        pub device_topics: String = "devices/{device}".to_owned(), ["the first levels of an MQTT topic, with {device}"];
        /// How the MQTT topics of a room begin.
        pub room_topics: String = "rooms/{room}".to_owned(), ["the first levels of an MQTT topic, with {room}"];
        /// A device or a room is active for so long after its last message.
        pub active_window_s: u32 = 300, [10..=86_400, "seconds"];
        /// Most devices and rooms that may be active at the same time, together; further ones are not counted as active.
        pub active_max: u32 = 1_000_000, [1..=100_000_000, "devices and rooms"];
        /// Most viewers of the live page at the same time.
        pub viewers_max: u32 = 64, [1..=10_000, "viewers"];
        /// How it reads and retries; the keys are the same for all backends.
        pub consumer: Tuning = Tuning::default(), [section];
    }
}

/// Consumer groups watched. Each costs a Kafka client of its own.
const WATCHED_GROUPS_MAX: usize = 20;
const WATCHED_GROUPS: Kind<Vec<String>> = Kind {
    words: "a list of at most 20 consumer groups",
    fits: |groups| groups.len() <= WATCHED_GROUPS_MAX && !groups.iter().any(String::is_empty),
};

impl Config {
    /// Checks every value and the relations between them.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_keys()?;
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

    pub(crate) fn device_pattern(&self) -> Result<Pattern<1>, Error> {
        Pattern::of_key::<Self>("device_topics", &self.device_topics, ["device"])
    }

    pub(crate) fn room_pattern(&self) -> Result<Pattern<1>, Error> {
        Pattern::of_key::<Self>("room_topics", &self.room_topics, ["room"])
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
