//! What a backend gives to the runtime, and what it answers.

use std::future::Future;
use std::sync::Arc;

use envelope::Downlink;

use crate::batch::{Batch, Record};
use crate::fault::HandleError;
use crate::store::Store;

/// A backend's effect on its store.
///
/// The runtime calls it with what it read since the last call: one batch per partition, each in order. It calls it again with
/// the same records after a failure, a restart or a handover, so effects must be idempotent by (cluster, topic, partition,
/// offset) (see [`store`](crate::store)), **and a record seen again must yield the same downlink again**, looked up from the
/// store if need be: the first answer may have been lost between the store and Kafka.
///
/// One call at a time. All batches of a call belong in one transaction: that is one `fsync` instead of one a partition. When a
/// call with several batches fails, each is retried in a call of its own, so that one bad partition stops only itself.
///
/// The future must be cancel-safe (a transaction that is dropped rolls back): after `handle_timeout_ms` it is dropped and the
/// batch counts as failed.
pub trait Handler: Send + 'static {
    /// Applies the batches to the store and says what follows from them.
    ///
    /// # Errors
    ///
    /// [`HandleError`]: nothing of the batches was applied.
    fn handle(
        &mut self,
        batches: &[Batch],
    ) -> impl Future<Output = Result<Outcome, HandleError>> + Send;

    /// Where its effects are: the runtime reads from where this store stopped, also when the group was further. `None`: from
    /// what the group has committed.
    fn store(&self) -> Option<Store> {
        None
    }
}

/// What follows from a call that was applied to the store.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Messages for MQTT clients, in this order.
    pub downlink: Vec<Downlink>,
    /// Records that can never be handled. They go to the dead-letter topic; everything else was applied.
    pub poison: Vec<Poison>,
}

/// A record that can never be handled, whoever retries.
#[derive(Debug, Clone)]
pub struct Poison {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) stage: Stage,
    pub(crate) class: &'static str,
    pub(crate) reason: String,
}

/// At which step a record failed, as Kafka Connect names the steps in `__connect.errors.stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The key or the headers are not what the contract says.
    HeaderConverter,
    /// The payload cannot be decoded.
    ValueConverter,
    /// The payload was decoded, but what it says cannot be applied.
    TaskPut,
}

impl Stage {
    /// The name in `__connect.errors.stage`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HeaderConverter => "HEADER_CONVERTER",
            Self::ValueConverter => "VALUE_CONVERTER",
            Self::TaskPut => "TASK_PUT",
        }
    }
}

impl Poison {
    /// Condemns `record`. `class` is a short constant name of the kind of fault (`"NotJson"`), by which faults are counted;
    /// `reason` tells a person what is wrong where.
    #[must_use]
    pub fn new(
        record: Record<'_>,
        stage: Stage,
        class: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            topic: Arc::clone(record.batch().topic_shared()),
            partition: record.partition(),
            offset: record.offset(),
            stage,
            class,
            reason: reason.into(),
        }
    }

    /// The offset of the record.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The kind of fault.
    #[must_use]
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// What is wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
