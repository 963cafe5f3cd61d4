//! Why a bridge does not start. Each is one sentence for the operator.

/// Why the bridge did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// Kafka did not answer.
    #[error("Kafka at {kafka} did not answer within {waited_ms} ms ({cause}): {advice}")]
    Unreachable {
        /// The addresses.
        kafka: String,
        /// How long the start waited.
        waited_ms: u64,
        /// What the last attempt said.
        cause: String,
        /// What to look at.
        advice: &'static str,
    },
    /// Topics are missing and must not be created.
    #[error(
        "Kafka at {kafka} has no topic {topics}, and create_topics is false: create it, or allow its creation"
    )]
    MissingTopics {
        /// The addresses.
        kafka: String,
        /// The names, with commas between.
        topics: String,
    },
    /// A missing topic could not be created.
    #[error("Kafka at {kafka} has no topic {topic} and did not create it: {cause}")]
    CreateTopic {
        /// The addresses.
        kafka: String,
        /// The topic.
        topic: String,
        /// What Kafka said.
        cause: String,
    },
    /// The topics do not hold what an acknowledgement promises, and `require_replicas` is set.
    #[error(
        "Kafka at {kafka} does not keep what would be acknowledged ({weaknesses}), and bridge.require_replicas is true"
    )]
    Weak {
        /// The addresses.
        kafka: String,
        /// What weakens the promise, with semicolons between.
        weaknesses: String,
    },
    /// Another node has this one's name.
    #[error(
        "a node called {name:?} runs on Kafka at {kafka} already ({holder}), and both would read one position of the downlink: end that one, or give this one a name of its own with bridge.node"
    )]
    NameTaken {
        /// The addresses.
        kafka: String,
        /// The name.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// Where this node has read the downlink topic to could not be found out or kept.
    #[error(
        "the position of consumer group {group} in Kafka topic {topic} cannot be {what}: {cause}"
    )]
    Position {
        /// The consumer group.
        group: String,
        /// The downlink topic.
        topic: String,
        /// `read` or `written`.
        what: &'static str,
        /// What Kafka said.
        cause: String,
    },
    /// The Kafka client could not be made.
    #[error("the Kafka client could not be started: {0}")]
    Client(String),
    /// A thread could not be started.
    #[error("a thread of the bridge could not be started: {0}")]
    Thread(#[from] std::io::Error),
}
