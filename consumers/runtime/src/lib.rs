//! The consumer runtime: poll, handle, retry, dead-letter, commit, drain.
//!
//! A backend implements [`Handler`] and calls [`start`]. The runtime reads the topics as a member of a consumer group, hands
//! over batches in the order of each partition, and lets effects happen in an order in which nothing is lost:
//!
//! 1. the handler's transaction (idempotent, see [`store`]),
//! 2. answers to the downlink topic and dead letters, confirmed by Kafka with `acks=all`,
//! 3. the commit of the offset.
//!
//! A transient failure pauses its partition and tries again, less and less often; other partitions go on. A record that can
//! never be handled becomes a dead letter and blocks nothing.
//!
//! Beside that, [`store`] and [`http`] hold what all backends would otherwise write alike. The runtime knows nothing of MQTT
//! but the envelope, and nothing of what a backend does.

mod append;
mod assignment;
mod batch;
mod beginning;
mod client;
mod companions;
mod config;
mod connect;
mod consumer;
mod effects;
mod error;
mod fault;
mod growth;
mod handler;
mod health;
pub mod http;
mod identity;
mod metrics;
mod outlet;
mod pattern;
mod reader;
mod running;
mod shared;
mod status;
pub mod store;
mod supervisor;

pub use append::{AppendError, Appender, Applied, Changes, Pending};
pub use batch::{Batch, MalformedRecord, Record};
pub use config::{Config, Tuning};
pub use consumer::{Consumer, start};
pub use error::StartError;
pub use fault::HandleError;
pub use growth::{Forget, Growth, Part};
pub use handler::{Handler, Outcome, Poison, Stage};
pub use pattern::Pattern;
pub use running::{Parts, Running};
pub use status::{Gap, PartitionStatus, RetryStatus, Sizes, State, Status};
