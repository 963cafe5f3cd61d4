//! The fixed header (2.1): where a packet ends, and whether it may begin so.
//!
//! This is all that happens before a packet is whole, so a peer cannot make
//! us buffer what we would refuse.

use crate::DecodeError;
use crate::primitive::{VARIABLE_BYTE_INTEGER_MAX, read_varint};

/// Longest fixed header, in bytes.
pub const HEADER_BYTES_MAX: usize = 5;

/// Largest packet that the protocol can express, in bytes.
pub const PACKET_BYTES_MAX: u32 = VARIABLE_BYTE_INTEGER_MAX + HEADER_BYTES_MAX as u32;

/// The type of a packet, by its number in the fixed header (2.1.2).
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// The answer to it.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// QoS 1: the message was taken.
    PubAck = 4,
    /// QoS 2, first answer.
    PubRec = 5,
    /// QoS 2, release.
    PubRel = 6,
    /// QoS 2, done.
    PubComp = 7,
    /// A client asks for subscriptions.
    Subscribe = 8,
    /// The answer to it.
    SubAck = 9,
    /// A client gives subscriptions up.
    Unsubscribe = 10,
    /// The answer to it.
    UnsubAck = 11,
    /// A client shows that it is alive.
    PingReq = 12,
    /// The answer to it.
    PingResp = 13,
    /// The last packet of a connection.
    Disconnect = 14,
    /// A step of an enhanced authentication (5.0 only).
    Auth = 15,
}

impl PacketType {
    /// The type in the high four bits of a packet's first byte; 0 is none.
    #[must_use]
    pub const fn from_first_byte(first: u8) -> Option<PacketType> {
        Some(match first >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The specification's name, for example `PUBLISH`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PacketType::Connect => "CONNECT",
            PacketType::ConnAck => "CONNACK",
            PacketType::Publish => "PUBLISH",
            PacketType::PubAck => "PUBACK",
            PacketType::PubRec => "PUBREC",
            PacketType::PubRel => "PUBREL",
            PacketType::PubComp => "PUBCOMP",
            PacketType::Subscribe => "SUBSCRIBE",
            PacketType::SubAck => "SUBACK",
            PacketType::Unsubscribe => "UNSUBSCRIBE",
            PacketType::UnsubAck => "UNSUBACK",
            PacketType::PingReq => "PINGREQ",
            PacketType::PingResp => "PINGRESP",
            PacketType::Disconnect => "DISCONNECT",
            PacketType::Auth => "AUTH",
        }
    }
}

/// One whole packet in a buffer, not looked into yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type and flags.
    pub first: u8,
    /// All after the fixed header.
    pub body: &'a [u8],
    /// The whole packet with its fixed header, in bytes: what to drop from
    /// the front of the buffer once the packet is done.
    pub len: usize,
}

/// Finds the packet at the front of `buf`. `None`: more bytes are needed.
///
/// Type and flags are checked with the first byte, the size as soon as the
/// fixed header is complete, both before the rest is there. A padded
/// remaining length, which only 5.0 forbids, is left to
/// [`decode`](crate::decode), which knows the version.
///
/// # Errors
///
/// [`DecodeError::Malformed`] for a fixed header that no packet can have;
/// [`DecodeError::TooLarge`] for a packet of more than `packet_bytes_max`
/// bytes, fixed header included.
#[inline]
pub fn split_frame(buf: &[u8], packet_bytes_max: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((&first, after)) = buf.split_first() else {
        return Ok(None);
    };
    check_first_byte(first)?;
    let Some((remaining, length_bytes)) = read_varint(after)? else {
        return Ok(None);
    };
    let header = 1 + length_bytes;
    let len = remaining + header as u32;
    if len > packet_bytes_max {
        return Err(DecodeError::TooLarge {
            len,
            max: packet_bytes_max,
        });
    }
    let len = len as usize;
    Ok(buf.get(header..len).map(|body| Frame { first, body, len }))
}

/// Refuses types and flags that no version allows [MQTT-2.1.3-1].
#[inline]
pub(crate) fn check_first_byte(first: u8) -> Result<(), DecodeError> {
    let flags = first & 0x0F;
    let allowed = match first >> 4 {
        0 => {
            return Err(DecodeError::malformed("packet type 0 is reserved", "2.1.2"));
        }
        3 => return check_publish_flags(flags),
        // 3.1 makes no use of CONNECT's flags, and says nothing of what they must be; `decode` refuses them in the later
        // versions. With what would be QoS 3 it is none, but the hello of TLS.
        1 => flags & 0b0110 != 0b0110,
        // 3.1 repeats these three with DUP set; `decode` refuses that in the
        // later versions.
        6 | 8 | 10 => flags & 0b0111 == 0b0010,
        _ => flags == 0,
    };
    if allowed { Ok(()) } else { Err(RESERVED_FLAGS) }
}

pub(crate) const RESERVED_FLAGS: DecodeError = DecodeError::malformed(
    "the reserved flags of the fixed header are wrong",
    "MQTT-2.1.3-1",
);

#[inline]
fn check_publish_flags(flags: u8) -> Result<(), DecodeError> {
    match (flags & 0b0110, flags & 0b1000) {
        (0b0110, _) => Err(DecodeError::malformed(
            "a PUBLISH has QoS 3",
            "MQTT-3.3.1-4",
        )),
        (0, 0b1000) => Err(DecodeError::malformed(
            "a PUBLISH of QoS 0 has the DUP flag",
            "MQTT-3.3.1-2",
        )),
        _ => Ok(()),
    }
}
