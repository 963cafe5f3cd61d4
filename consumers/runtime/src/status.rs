//! What a consumer says about itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A snapshot of a consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The consumer group.
    pub group: String,
    /// The identifier of the Kafka cluster.
    pub cluster: String,
    /// What it is doing.
    pub state: State,
    /// In words what is wrong, while something is.
    pub problem: Option<String>,
    /// Since when no Kafka broker can be reached, milliseconds since the Unix epoch.
    pub kafka_unreachable_since_ms: Option<u64>,
    /// Records handled since the start, dead letters included.
    pub records: u64,
    /// Records put into a dead-letter topic since the start.
    pub dead_letters: u64,
    /// Messages appended to the downlink topic since the start.
    pub downlinks: u64,
    /// Transient failures since the start.
    pub failures: u64,
    /// Times that the reader was rebuilt since the start.
    pub rebuilds: u64,
    /// Records that wait in Kafka for this consumer, as far as known.
    pub lag: u64,
    /// Each partition that this consumer has.
    pub partitions: Vec<PartitionStatus>,
    /// Records that Kafka had no longer when their turn came, found since the start: the store does not have them.
    pub gaps: Vec<Gap>,
    /// How large the store is; none before it was measured first.
    pub store: Option<Sizes>,
}

/// How large a store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Bytes of its file, without the write-ahead log.
    pub bytes: u64,
    /// Of them, those that deleted rows left for new ones: the file does not get smaller.
    pub free_bytes: u64,
    /// Rows by table.
    pub rows: BTreeMap<&'static str, u64>,
}

/// Records that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the first.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            partition,
            from,
            to,
        } = self;
        write!(
            f,
            "{topic}/{partition} has lost the records from offset {from} to {}: Kafka deleted them before they were stored",
            to - 1
        )
    }
}

/// What a consumer is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has no partitions yet: it joins its group, or waits for its topics.
    #[default]
    Joining,
    /// It is in its group, and others have all partitions.
    Standby,
    /// It reads.
    Running,
    /// It reads, but one partition or more is paused after a transient failure.
    Retrying,
    /// No Kafka broker can be reached; it goes on when one can.
    Unreachable,
    /// It was told to stop and has.
    Stopped,
    /// It stopped by itself; [`Status::problem`] says why.
    Failed,
}

/// One partition of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to handle; `None` before the first.
    pub next_offset: Option<i64>,
    /// Records that wait in Kafka; `None` while not known, or when what is known is old.
    pub lag: Option<u64>,
    /// How long ago Kafka said where the log ends, milliseconds.
    pub lag_age_ms: Option<u64>,
    /// For how long the Kafka broker that has the partition cannot be reached, milliseconds.
    pub unreachable_ms: Option<u64>,
    /// Set while the partition is paused after a transient failure.
    pub retry: Option<RetryStatus>,
}

/// A pause after a transient failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetryStatus {
    /// Failures in a row.
    pub failures: u32,
    /// What failed.
    pub error: String,
    /// Records that wait in memory; more wait in Kafka.
    pub records: u64,
    /// Milliseconds until the next try.
    pub next_try_ms: u64,
}
