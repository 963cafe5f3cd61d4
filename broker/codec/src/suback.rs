//! SUBACK (3.9) and UNSUBACK (3.11).

use std::num::NonZeroU16;

use crate::ack::read_packet_id;
use crate::primitive::{Reader, put_header, put_u16};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Version};

/// The answer to a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// 3.x cannot carry them.
    pub properties: Properties<'a>,
    /// One reason code for each filter, in the SUBSCRIBE's order: the granted
    /// QoS or a failure. 3.x knows one failure, 0x80, which every other one
    /// becomes on the wire.
    pub reasons: &'a [u8],
}

/// The answer to an UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// 3.x cannot carry them.
    pub properties: Properties<'a>,
    /// One reason code for each filter, in the UNSUBSCRIBE's order; 3.x
    /// cannot carry them.
    pub reasons: &'a [u8],
}

/// The one failure of a subscription that 3.1.1 has [3.1.1 MQTT-3.9.3-2].
const FAILURE: u8 = 0x80;

impl<'a> SubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        let properties = if version.has_properties() {
            Properties::read(&mut reader, Allowed::ACK)?
        } else {
            Properties::EMPTY
        };
        let reasons = reader.rest();
        check_reasons(reasons, |reason| {
            if version.has_properties() {
                reason.in_suback()
            } else {
                reason.0 <= 2 || reason.0 == FAILURE
            }
        })
        .map_err(|what| DecodeError::protocol(what, "MQTT-3.9.3-2"))?;
        Ok(SubAck {
            packet_id,
            properties,
            reasons,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        check_reasons(self.reasons, ReasonCode::in_suback)
            .map_err(|what| EncodeError::invalid(what, "MQTT-3.9.3-2"))?;
        put_start(
            out,
            0x90,
            version,
            self.packet_id,
            self.properties,
            self.reasons,
        )?;
        if version.has_properties() {
            out.extend_from_slice(self.reasons);
        } else {
            out.extend(self.reasons.iter().map(|&reason| reason.min(FAILURE)));
        }
        Ok(())
    }
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        if !version.has_properties() {
            reader.end()?;
            return Ok(UnsubAck {
                packet_id,
                properties: Properties::EMPTY,
                reasons: &[],
            });
        }
        let properties = Properties::read(&mut reader, Allowed::ACK)?;
        let reasons = reader.rest();
        check_reasons(reasons, ReasonCode::in_unsuback)
            .map_err(|what| DecodeError::protocol(what, "MQTT-3.11.3-2"))?;
        Ok(UnsubAck {
            packet_id,
            properties,
            reasons,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_properties() {
            return put_start(out, 0xB0, version, self.packet_id, self.properties, &[]);
        }
        check_reasons(self.reasons, ReasonCode::in_unsuback)
            .map_err(|what| EncodeError::invalid(what, "MQTT-3.11.3-2"))?;
        put_start(
            out,
            0xB0,
            version,
            self.packet_id,
            self.properties,
            self.reasons,
        )?;
        out.extend_from_slice(self.reasons);
        Ok(())
    }
}

/// There is at least one filter in what is answered, so at least one code.
fn check_reasons(reasons: &[u8], allowed: impl Fn(ReasonCode) -> bool) -> Result<(), &'static str> {
    if reasons.is_empty() {
        return Err("the packet has no reason code");
    }
    if !reasons.iter().all(|&reason| allowed(ReasonCode(reason))) {
        return Err("the packet must not have this reason code");
    }
    Ok(())
}

/// All before the reason codes.
fn put_start(
    out: &mut Vec<u8>,
    first: u8,
    version: Version,
    packet_id: NonZeroU16,
    properties: Properties<'_>,
    reasons: &[u8],
) -> Result<(), EncodeError> {
    let mut remaining = 2 + reasons.len();
    if version.has_properties() {
        properties.check(Allowed::ACK)?;
        remaining += properties.prefixed_len();
    }
    put_header(out, first, remaining)?;
    put_u16(out, packet_id.get());
    if version.has_properties() {
        properties.put(out);
    }
    Ok(())
}
