//! PUBLISH (3.3): the hot path, one pass and no allocation both ways.
//!
//! A message is read once and then written once for each version and QoS of
//! its receivers, so writing has its own entry, [`encode_publish`], that takes
//! what a broker keeps of a message: the properties to forward as bytes, and
//! those that change from hop to hop as values.

use std::num::NonZeroU16;

use crate::ack::read_packet_id;
use crate::connect::topic_name_error;
use crate::primitive::{
    Reader, VARIABLE_BYTE_INTEGER_MAX, check_binary, check_topic_name, put_field, put_header,
    put_u16, put_u32, put_varint, varint_len,
};
use crate::properties::Allowed;
use crate::property::{RawProperty, id};
use crate::{DecodeError, EncodeError, Properties, Qos, Version};

const FIRST: u8 = 0x30;
const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before; never set with QoS 0.
    pub dup: bool,
    /// Quality of service of this transfer.
    pub qos: Qos,
    /// From a client: keep it. From a server: it was kept.
    pub retain: bool,
    /// A valid topic name; empty only in 5.0 and with a topic alias.
    pub topic: &'a str,
    /// Present with QoS 1 and 2 only.
    pub packet_id: Option<NonZeroU16>,
    /// Empty in 3.x. May hold a Subscription Identifier, which a server must
    /// refuse from a client [MQTT-3.3.4-6].
    pub properties: Properties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// `first` passed [`check_first_byte`](crate::frame::check_first_byte).
    #[inline]
    pub(crate) fn decode(version: Version, first: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let topic = reader.utf8()?;
        // An empty topic name is looked at when the properties are known.
        if !topic.is_empty() || !version.has_properties() {
            topic::validate_name(topic).map_err(topic_name_error)?;
        }
        let (qos, packet_id) = match first >> 1 & 0b11 {
            0 => (Qos::AtMostOnce, None),
            1 => (Qos::AtLeastOnce, Some(read_packet_id(&mut reader)?)),
            _ => (Qos::ExactlyOnce, Some(read_packet_id(&mut reader)?)),
        };
        let properties = if version.has_properties() {
            Properties::read(&mut reader, Allowed::PUBLISH)?
        } else {
            Properties::EMPTY
        };
        if topic.is_empty() && properties.topic_alias().is_none() {
            return Err(DecodeError::protocol(
                "a PUBLISH has neither topic name nor topic alias",
                "3.3.2.1",
            ));
        }
        Ok(Publish {
            dup: first & DUP != 0,
            qos,
            retain: first & RETAIN != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let has_properties = version.has_properties();
        if !(has_properties && self.topic.is_empty() && self.properties.topic_alias().is_some()) {
            check_topic_name(self.topic)?;
        }
        check_packet_id(self.dup, self.qos, self.packet_id)?;
        let mut remaining = 2 + self.topic.len() + self.payload.len();
        if self.packet_id.is_some() {
            remaining += 2;
        }
        if has_properties {
            self.properties.check(Allowed::PUBLISH)?;
            remaining += self.properties.prefixed_len();
        }
        put_header(out, first_byte(self.dup, self.qos, self.retain), remaining)?;
        put_field(out, self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            put_u16(out, packet_id.get());
        }
        if has_properties {
            self.properties.put(out);
        }
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

/// Everything of a PUBLISH to be written but its payload. See
/// [`encode_publish`].
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishHead<'a> {
    /// Sent before; never with QoS 0.
    pub dup: bool,
    /// Quality of service of this transfer.
    pub qos: Qos,
    /// The retain flag.
    pub retain: bool,
    /// A valid topic name; may be empty in 5.0 with a topic alias.
    pub topic: &'a str,
    /// `Some` with QoS 1 and 2, `None` with QoS 0.
    pub packet_id: Option<NonZeroU16>,
    /// What [`publish_forwardable`] yielded. Left out in 3.x.
    pub forwardable: &'a [u8],
    /// What is left of the message's life, in seconds. Left out in 3.x.
    pub message_expiry: Option<u32>,
    /// Identifiers of the matching subscriptions, each 1 to 268,435,455.
    /// Left out in 3.x.
    pub subscription_ids: &'a [u32],
    /// Alias for the topic, 1 or more. Left out in 3.x.
    pub topic_alias: Option<u16>,
}

impl PublishHead<'_> {
    fn properties_len(&self) -> usize {
        let mut len = self.forwardable.len();
        if self.message_expiry.is_some() {
            len += 5;
        }
        if self.topic_alias.is_some() {
            len += 3;
        }
        for &identifier in self.subscription_ids {
            len += 1 + varint_len(identifier as usize);
        }
        len
    }

    fn remaining_len(&self, properties_len: Option<usize>, payload_len: usize) -> usize {
        let packet_id_len = if self.packet_id.is_some() { 2 } else { 0 };
        let properties_len = properties_len.map_or(0, |len| varint_len(len) + len);
        2 + self.topic.len() + packet_id_len + properties_len + payload_len
    }
}

/// Size of the packet that [`encode_publish`] would append, in bytes; what a
/// receiver's Maximum Packet Size is compared with.
#[must_use]
pub fn encoded_publish_len(version: Version, head: &PublishHead<'_>, payload_len: usize) -> usize {
    let properties_len = version.has_properties().then(|| head.properties_len());
    let remaining = head.remaining_len(properties_len, payload_len);
    1 + varint_len(remaining) + remaining
}

/// Appends a PUBLISH and returns the offset in `out` of its packet
/// identifier, to be patched for each further receiver; 0 with QoS 0.
///
/// The topic name and the bytes to forward must have been validated, as
/// decoding does; they are not looked at again.
///
/// # Errors
///
/// [`EncodeError`] if the packet cannot be expressed; nothing is appended.
#[inline]
pub fn encode_publish(
    out: &mut Vec<u8>,
    version: Version,
    head: &PublishHead<'_>,
    payload: &[u8],
) -> Result<usize, EncodeError> {
    let packet_id_at = encode_publish_head(out, version, head, payload.len())?;
    out.extend_from_slice(payload);
    Ok(packet_id_at)
}

/// Appends all of a PUBLISH but its payload, whose `payload_len` bytes the
/// caller sends behind it, and returns what [`encode_publish`] returns. So a
/// large payload need not be copied for each receiver.
///
/// # Errors
///
/// [`EncodeError`] if the packet cannot be expressed; nothing is appended.
#[inline]
pub fn encode_publish_head(
    out: &mut Vec<u8>,
    version: Version,
    head: &PublishHead<'_>,
    payload_len: usize,
) -> Result<usize, EncodeError> {
    check_binary("topic name", head.topic.as_bytes())?;
    check_packet_id(head.dup, head.qos, head.packet_id)?;
    if head.topic.is_empty() && !(version.has_properties() && head.topic_alias.is_some()) {
        return Err(EncodeError::invalid(
            "a PUBLISH has neither topic name nor topic alias",
            "3.3.2.1",
        ));
    }
    let properties_len = if version.has_properties() {
        check_hop_properties(head)?;
        Some(head.properties_len())
    } else {
        None
    };
    let remaining = head.remaining_len(properties_len, payload_len);
    put_header(out, first_byte(head.dup, head.qos, head.retain), remaining)?;
    put_field(out, head.topic.as_bytes());
    let packet_id_at = match head.packet_id {
        Some(packet_id) => {
            let at = out.len();
            put_u16(out, packet_id.get());
            at
        }
        None => 0,
    };
    if let Some(len) = properties_len {
        put_varint(out, len);
        if len > 0 {
            put_properties(out, head);
        }
    }
    Ok(packet_id_at)
}

fn put_properties(out: &mut Vec<u8>, head: &PublishHead<'_>) {
    out.extend_from_slice(head.forwardable);
    if let Some(seconds) = head.message_expiry {
        out.push(id::MESSAGE_EXPIRY_INTERVAL);
        put_u32(out, seconds);
    }
    if let Some(alias) = head.topic_alias {
        out.push(id::TOPIC_ALIAS);
        put_u16(out, alias);
    }
    // Last, as there are decoders in use that miscount what follows them.
    for &identifier in head.subscription_ids {
        out.push(id::SUBSCRIPTION_IDENTIFIER);
        put_varint(out, identifier as usize);
    }
}

fn check_hop_properties(head: &PublishHead<'_>) -> Result<(), EncodeError> {
    if head.topic_alias == Some(0) {
        return Err(EncodeError::invalid(
            "topic alias 0 is not permitted",
            "MQTT-3.3.2-8",
        ));
    }
    let identifiers = 1..=VARIABLE_BYTE_INTEGER_MAX;
    if !head
        .subscription_ids
        .iter()
        .all(|i| identifiers.contains(i))
    {
        return Err(EncodeError::invalid(
            "a Subscription Identifier is out of range",
            "3.3.2.3.8",
        ));
    }
    Ok(())
}

const fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    FIRST | (dup as u8) << 3 | (qos as u8) << 1 | retain as u8
}

fn check_packet_id(dup: bool, qos: Qos, packet_id: Option<NonZeroU16>) -> Result<(), EncodeError> {
    match (qos, packet_id) {
        (Qos::AtMostOnce, None) if dup => Err(EncodeError::invalid(
            "a PUBLISH of QoS 0 has the DUP flag",
            "MQTT-3.3.1-2",
        )),
        (Qos::AtMostOnce, None) => Ok(()),
        (Qos::AtMostOnce, Some(_)) => Err(EncodeError::invalid(
            "a PUBLISH of QoS 0 has a packet identifier",
            "MQTT-2.2.1-2",
        )),
        (_, Some(_)) => Ok(()),
        (_, None) => Err(EncodeError::invalid(
            "a PUBLISH of QoS 1 or 2 has no packet identifier",
            "MQTT-2.2.1-3",
        )),
    }
}

/// Appends the properties that a server forwards unaltered and in order:
/// Payload Format Indicator [MQTT-3.3.2-4], Response Topic [MQTT-3.3.2-15],
/// Correlation Data [MQTT-3.3.2-16], user properties [MQTT-3.3.2-17]
/// [MQTT-3.3.2-18] and Content Type [MQTT-3.3.2-20].
///
/// Left out are those of one hop: Message Expiry Interval, Topic Alias,
/// Subscription Identifier; and a will's Will Delay Interval.
pub fn publish_forwardable(properties: Properties<'_>, out: &mut Vec<u8>) {
    let mut rest = properties.as_bytes();
    while !rest.is_empty() {
        let Ok((property, after)) = RawProperty::split(rest) else {
            return;
        };
        if matches!(
            property.id,
            id::PAYLOAD_FORMAT_INDICATOR
                | id::CONTENT_TYPE
                | id::RESPONSE_TOPIC
                | id::CORRELATION_DATA
                | id::USER_PROPERTY
        ) {
            out.push(property.id);
            out.extend_from_slice(property.value);
        }
        rest = after;
    }
}
