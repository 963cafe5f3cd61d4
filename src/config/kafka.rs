//! The `[kafka]` section: what is the same for every part, said once. What a part says itself wins.

use settings::kafka::Properties;

use crate::backends;

settings::section! {
    /// The `[kafka]` section.
    pub struct Config {
        /// Kafka's addresses for every part whose own section has no `kafka`; `up` uses them instead of a Kafka in memory.
        pub servers: String = "127.0.0.1:9092".to_owned(), [is settings::kafka::SERVERS];
        /// Properties of librdkafka for every connection of every part, for example for TLS and SASL. A part's own table
        /// (`bridge.properties`, `chat.consumer.properties` and so on) adds to it and wins.
        pub properties: Properties = Properties::default(), [words Properties::WORDS];
    }
}

/// Gives every part what its own section does not say. `says` tells whether the file has a key in a section.
pub fn spread(config: &mut super::Config, says: impl Fn(&str, &str) -> bool) {
    let Config {
        servers,
        properties,
    } = config.kafka.clone();
    config.bridge.properties.fill_from(&properties);
    if !says("bridge", "kafka") {
        config.bridge.kafka.clone_from(&servers);
    }
    for backend in backends::ALL {
        let part = backend.settings(config);
        part.consumer.properties.fill_from(&properties);
        if !says(backend.name(), "kafka") {
            part.kafka.clone_from(&servers);
        }
    }
    if says("kafka", "servers") && !says("up", "kafka") {
        config.up.kafka = servers;
    }
}
