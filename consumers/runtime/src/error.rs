//! Why a backend does not start.

use crate::store::StoreError;

/// Why a backend does not start. Each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// librdkafka refuses the settings.
    #[error("Kafka client settings are refused: {0}")]
    Client(String),
    /// No answer from Kafka.
    #[error(
        "Kafka at {servers} cannot be reached: {reason}; {}",
        settings::kafka::advice(reason)
    )]
    Unreachable {
        /// The bootstrap servers.
        servers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The group is another store's.
    #[error(
        "the consumer group {group:?} works for another store (identity {owner}, this one is {own}), and two stores would share out its records: start with that store's database or --data directory, or, if it is gone for good and no instance with it runs, once with consumer.adopt_store = true, and this store goes on, filled with what Kafka still has"
    )]
    OtherStore {
        /// The group.
        group: String,
        /// The identity of its store.
        owner: String,
        /// The identity of this one.
        own: String,
    },
    /// The group cannot be used now.
    #[error("the consumer group {group:?} cannot be used: {reason}")]
    Group {
        /// The group.
        group: String,
        /// Why not.
        reason: String,
    },
    /// A metric with the same name and the same labels is in the registry already.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The operating system gives no thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<rdkafka::error::KafkaError> for StartError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::Client(error.to_string())
    }
}
