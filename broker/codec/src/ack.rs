//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7): one shape, four names.

use std::num::NonZeroU16;

use crate::frame::PacketType;
use crate::primitive::{Reader, put_header, put_u16};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Version};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Identifier of the PUBLISH that this is about.
    pub packet_id: NonZeroU16,
    /// How it went. 3.x cannot say: always [`ReasonCode::SUCCESS`] there.
    pub reason: ReasonCode,
    /// Reason string and user properties; 3.x cannot carry them.
    pub properties: Properties<'a>,
}

impl Ack<'static> {
    /// An acknowledgement with nothing to add, the most frequent of packets.
    #[must_use]
    pub const fn success(packet_id: NonZeroU16) -> Self {
        Ack {
            packet_id,
            reason: ReasonCode::SUCCESS,
            properties: Properties::EMPTY,
        }
    }
}

/// Refuses a packet identifier of 0.
#[inline]
pub(crate) fn read_packet_id(reader: &mut Reader<'_>) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(reader.u16()?).ok_or(DecodeError::protocol(
        "a packet identifier is 0",
        "MQTT-2.2.1-3",
    ))
}

const WRONG_REASON: &str = "the packet must not have this reason code";

/// Whether this packet may have this reason code, and the clause that says so.
const fn allows(kind: PacketType, reason: ReasonCode) -> (bool, &'static str) {
    match kind {
        PacketType::PubAck => (reason.in_puback(), "MQTT-3.4.2-1"),
        PacketType::PubRec => (reason.in_puback(), "MQTT-3.5.2-1"),
        PacketType::PubRel => (reason.in_pubrel(), "MQTT-3.6.2-1"),
        _ => (reason.in_pubrel(), "MQTT-3.7.2-1"),
    }
}

impl<'a> Ack<'a> {
    #[inline]
    pub(crate) fn decode(
        version: Version,
        kind: PacketType,
        body: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        // The reason code and the properties may be left out (3.4.2.1), and
        // nearly always are.
        if reader.is_empty() {
            return Ok(Ack::success(packet_id));
        }
        Ack::decode_rest(version, kind, packet_id, reader)
    }

    #[inline(never)]
    fn decode_rest(
        version: Version,
        kind: PacketType,
        packet_id: NonZeroU16,
        mut reader: Reader<'a>,
    ) -> Result<Self, DecodeError> {
        if !version.has_properties() {
            return Err(DecodeError::TRAILING);
        }
        let reason = ReasonCode(reader.u8()?);
        if let (false, clause) = allows(kind, reason) {
            return Err(DecodeError::protocol(WRONG_REASON, clause));
        }
        let properties = if reader.is_empty() {
            Properties::EMPTY
        } else {
            Properties::read(&mut reader, Allowed::ACK)?
        };
        reader.end()?;
        Ok(Ack {
            packet_id,
            reason,
            properties,
        })
    }

    #[inline]
    pub(crate) fn encode(
        &self,
        version: Version,
        kind: PacketType,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        // [MQTT-3.6.1-1]
        let flags = if kind as u8 == PacketType::PubRel as u8 {
            0b0010
        } else {
            0
        };
        let first = (kind as u8) << 4 | flags;
        let bare = self.reason.0 == 0 && self.properties.is_empty();
        if bare || !version.has_properties() {
            let [high, low] = self.packet_id.get().to_be_bytes();
            out.extend_from_slice(&[first, 2, high, low]);
            return Ok(());
        }
        if let (false, clause) = allows(kind, self.reason) {
            return Err(EncodeError::invalid(WRONG_REASON, clause));
        }
        self.properties.check(Allowed::ACK)?;
        let properties_len = if self.properties.is_empty() {
            0
        } else {
            self.properties.prefixed_len()
        };
        put_header(out, first, 3 + properties_len)?;
        put_u16(out, self.packet_id.get());
        out.push(self.reason.0);
        if !self.properties.is_empty() {
            self.properties.put(out);
        }
        Ok(())
    }
}
