//! MQTT topic names and topic filters: what is valid, what matches what, and a tree that answers
//! "which of a million filters match this topic" at the cost of the topic's depth and the matches.
//!
//! Everything here is text and data structure. There is no packet, no client, no I/O and no clock,
//! and no dependency beyond the standard library. Names and filters are plain `&str`: a caller that
//! checked one once (with [`validate_name`], [`validate_filter`] or [`split_share`]) need not carry
//! a wrapper type through the hot path.
//!
//! Clauses are those of MQTT 5.0; the rules of 3.1 and 3.1.1 for names and filters are the same.

mod error;
mod matching;
#[cfg(test)]
mod naive;
mod share;
mod slab;
mod tree;
mod validate;

pub use error::TopicError;
pub use matching::{has_wildcard, matches};
pub use share::{Share, split_share};
pub use tree::{FilterTree, Iter};
pub use validate::{LEVELS_MAX, TOPIC_BYTES_MAX, validate_filter, validate_name};
