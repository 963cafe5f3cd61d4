//! What can be wrong with a record.

use topic::TopicError;

/// Why a record is no envelope. Every one is the fault of who wrote the record; reading it again will not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Neither the header [`TOPIC`](crate::header::TOPIC) nor a key.
    #[error("the record has neither the header mqtt.topic nor a key, so its MQTT topic is unknown")]
    NoTopic,
    /// A field that must be text is not UTF-8, or holds U+0000, which MQTT forbids [MQTT-1.5.4-2].
    #[error("{field} is not MQTT text (UTF-8 without U+0000)")]
    NotText {
        /// The header, or `key`.
        field: &'static str,
    },
    /// A field is longer than MQTT can carry: two bytes of length.
    #[error("{field} is {bytes} bytes long; MQTT carries at most 65535")]
    TooLong {
        /// The header.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A topic name that MQTT forbids, for example one with a wildcard [MQTT-3.3.2-2], [MQTT-3.3.2-14].
    #[error("{field} is no topic name: {cause}")]
    BadTopic {
        /// The header, or `key`.
        field: &'static str,
        /// What is wrong with it.
        cause: TopicError,
    },
    /// A header whose value is none of those allowed.
    #[error("{field} must be {allowed}")]
    BadValue {
        /// The header.
        field: &'static str,
        /// The values it may have.
        allowed: &'static str,
    },
}
