//! The Kafka record contract: which MQTT field sits where in a record.
//!
//! The bridge writes records by it, every backend reads records by it, and what a backend appends to the downlink topic
//! follows it too. A header is named here and nowhere else. The crate knows no Kafka library and does no I/O: headers go
//! out through a callback and come in through an iterator, so that any client can be put around it. The same contract in
//! words, for developers of other languages, is docs/ENVELOPE.md.
//!
//! | part of the record | carries |
//! |---|---|
//! | key | the MQTT topic, unless the route names another key |
//! | value | the MQTT payload, untouched |
//! | headers | everything else, see [`header`] |

pub mod dead_letter;
mod downlink;
mod error;
pub mod header;
mod partition;
mod record;
pub mod replay;
pub mod report;

pub use downlink::Downlink;
pub use error::EnvelopeError;
pub use partition::{murmur2, partition};
pub use record::{Envelope, Fields};
