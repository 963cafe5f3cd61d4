//! What can be wrong with bytes from a peer, and with a packet of ours.
//!
//! "More bytes are needed" is no error: [`split_frame`](crate::split_frame)
//! says it with `None`.

use crate::{ReasonCode, Version};

/// Why bytes from a peer are refused. It is always the peer's fault and never
/// worth a retry: the connection must be closed (4.13 of MQTT 5.0), in 5.0
/// after a DISCONNECT or CONNACK with [`reason`](Self::reason).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes cannot be parsed according to the specification.
    #[error("malformed packet: {what} [{clause}]")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// The clause that it breaks.
        clause: &'static str,
    },
    /// The bytes can be parsed but say what the protocol does not allow.
    #[error("protocol error: {what} [{clause}]")]
    Protocol {
        /// What is wrong.
        what: &'static str,
        /// The clause that it breaks.
        clause: &'static str,
    },
    /// The packet is larger than the receiver takes. Known from the packet's
    /// first bytes, so it was not buffered.
    #[error("packet of {len} bytes is larger than the maximum of {max} bytes")]
    TooLarge {
        /// Size of the whole packet, in bytes.
        len: u32,
        /// Size that the receiver takes, in bytes.
        max: u32,
    },
    /// A CONNECT with another protocol name: the peer does not speak MQTT.
    #[error("the protocol name is neither \"MQTT\" nor \"MQIsdp\" [MQTT-3.1.2-1]")]
    NotMqtt,
    /// A CONNECT of a version that is not spoken here [MQTT-3.1.2-2].
    #[error("protocol version {0} is not supported [MQTT-3.1.2-2]")]
    UnsupportedVersion(u8),
    /// The topic name of a PUBLISH or of a will is none [MQTT-3.3.2-2].
    #[error("invalid topic name: {0}")]
    TopicName(topic::TopicError),
    /// A topic alias of 0 [MQTT-3.3.2-8].
    #[error("topic alias 0 is not permitted [MQTT-3.3.2-8]")]
    TopicAliasZero,
}

impl DecodeError {
    /// The reason code that the specification names for this error.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            DecodeError::Malformed { .. } => ReasonCode::MALFORMED_PACKET,
            DecodeError::Protocol { .. } => ReasonCode::PROTOCOL_ERROR,
            DecodeError::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            DecodeError::NotMqtt | DecodeError::UnsupportedVersion(_) => {
                ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
            }
            DecodeError::TopicName(_) => ReasonCode::TOPIC_NAME_INVALID,
            DecodeError::TopicAliasZero => ReasonCode::TOPIC_ALIAS_INVALID,
        }
    }

    pub(crate) const fn malformed(what: &'static str, clause: &'static str) -> Self {
        DecodeError::Malformed { what, clause }
    }

    pub(crate) const fn protocol(what: &'static str, clause: &'static str) -> Self {
        DecodeError::Protocol { what, clause }
    }

    /// A field that runs past the end of what contains it.
    pub(crate) const TRUNCATED: Self =
        Self::malformed("a field runs past the end of the packet", "4.13.1");

    /// Bytes after the last field of a packet.
    pub(crate) const TRAILING: Self =
        Self::malformed("bytes follow the packet's last field", "4.13.1");
}

/// Why a packet of ours cannot be written. It is always the caller's fault;
/// nothing was appended to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The packet would be larger than any packet can be.
    #[error("a packet's content of {len} bytes is larger than the possible 268,435,455 bytes")]
    TooLarge {
        /// What would follow the fixed header, in bytes.
        len: usize,
    },
    /// A string or binary field is longer than its length prefix can say.
    #[error("{what} of {len} bytes is longer than the possible 65,535 bytes")]
    FieldTooLong {
        /// The field.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// This version of the protocol has no way to say this.
    #[error("MQTT {version} has no {what}")]
    NotInVersion {
        /// What it has not.
        what: &'static str,
        /// The version to encode for.
        version: Version,
    },
    /// The packet would break the specification.
    #[error("{what} [{clause}]")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// The clause that it would break.
        clause: &'static str,
    },
}

impl EncodeError {
    pub(crate) const fn invalid(what: &'static str, clause: &'static str) -> Self {
        EncodeError::Invalid { what, clause }
    }
}
