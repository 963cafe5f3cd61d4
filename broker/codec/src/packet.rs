//! Any packet: the way from a frame to its fields and back.

use crate::frame::{Frame, PacketType, RESERVED_FLAGS, check_first_byte};
use crate::primitive::varint_len;
use crate::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, EncodeError, Publish, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version,
};

/// One packet of any type, borrowing from the bytes it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a connection.
    Connect(Connect<'a>),
    /// The answer to it.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// QoS 1: the message was taken.
    PubAck(Ack<'a>),
    /// QoS 2, first answer.
    PubRec(Ack<'a>),
    /// QoS 2, release.
    PubRel(Ack<'a>),
    /// QoS 2, done.
    PubComp(Ack<'a>),
    /// A client asks for subscriptions.
    Subscribe(Subscribe<'a>),
    /// The answer to it.
    SubAck(SubAck<'a>),
    /// A client gives subscriptions up.
    Unsubscribe(Unsubscribe<'a>),
    /// The answer to it.
    UnsubAck(UnsubAck<'a>),
    /// A client shows that it is alive.
    PingReq,
    /// The answer to it.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// A step of an enhanced authentication (5.0 only).
    Auth(Auth<'a>),
}

/// Reads the fields of a packet. Allocates nothing.
///
/// CONNECT carries its own version; `version` says nothing about it.
///
/// # Errors
///
/// [`DecodeError`] with the specification's reason code; never
/// [`DecodeError::TooLarge`], which is for
/// [`split_frame`](crate::split_frame) to say.
#[inline]
pub fn decode<'a>(version: Version, frame: Frame<'a>) -> Result<Packet<'a>, DecodeError> {
    let Frame { first, body, .. } = frame;
    // Again, as a frame need not come from `split_frame`.
    check_first_byte(first)?;
    let Some(kind) = PacketType::from_first_byte(first) else {
        return Err(RESERVED_FLAGS);
    };
    // Five types are nearly all of the traffic; they are small enough to be
    // inlined into the caller, so that no `Packet` is ever put together.
    match kind {
        PacketType::Publish => {
            check_header(version, &frame)?;
            Publish::decode(version, first, body).map(Packet::Publish)
        }
        PacketType::PubAck => {
            check_header(version, &frame)?;
            Ack::decode(version, kind, body).map(Packet::PubAck)
        }
        PacketType::PubRec => {
            check_header(version, &frame)?;
            Ack::decode(version, kind, body).map(Packet::PubRec)
        }
        PacketType::PubRel => {
            check_header(version, &frame)?;
            Ack::decode(version, kind, body).map(Packet::PubRel)
        }
        PacketType::PubComp => {
            check_header(version, &frame)?;
            Ack::decode(version, kind, body).map(Packet::PubComp)
        }
        _ => decode_rare(version, kind, frame),
    }
}

/// All but PUBLISH and its acknowledgements.
#[inline(never)]
fn decode_rare(
    version: Version,
    kind: PacketType,
    frame: Frame<'_>,
) -> Result<Packet<'_>, DecodeError> {
    let body = frame.body;
    if kind == PacketType::Connect {
        let connect = Connect::decode(body)?;
        if frame.first & 0x0F != 0 && connect.version != Version::V31 {
            return Err(RESERVED_FLAGS);
        }
        check_header(connect.version, &frame)?;
        return Ok(Packet::Connect(connect));
    }
    check_header(version, &frame)?;
    match kind {
        PacketType::ConnAck => ConnAck::decode(version, body).map(Packet::ConnAck),
        PacketType::Subscribe => Subscribe::decode(version, body).map(Packet::Subscribe),
        PacketType::SubAck => SubAck::decode(version, body).map(Packet::SubAck),
        PacketType::Unsubscribe => Unsubscribe::decode(version, body).map(Packet::Unsubscribe),
        PacketType::UnsubAck => UnsubAck::decode(version, body).map(Packet::UnsubAck),
        PacketType::PingReq => empty(body, Packet::PingReq),
        PacketType::PingResp => empty(body, Packet::PingResp),
        PacketType::Disconnect => Disconnect::decode(version, body).map(Packet::Disconnect),
        PacketType::Auth => Auth::decode(version, body).map(Packet::Auth),
        // `decode` kept the others.
        _ => Err(RESERVED_FLAGS),
    }
}

/// What the fixed header may be in some versions only.
#[inline]
fn check_header(version: Version, frame: &Frame<'_>) -> Result<(), DecodeError> {
    let header = frame.len.saturating_sub(frame.body.len());
    if version.has_properties() && header > 1 + varint_len(frame.body.len()) {
        return Err(DecodeError::malformed(
            "the remaining length is longer than its value needs",
            "MQTT-1.5.5-1",
        ));
    }
    // Bit 3 is DUP in PUBLISH, and in 3.1 in what `check_first_byte` let pass.
    let publish = frame.first >> 4 == PacketType::Publish as u8;
    if frame.first & 0x08 != 0 && !publish && version != Version::V31 {
        return Err(RESERVED_FLAGS);
    }
    Ok(())
}

fn empty<'a>(body: &[u8], packet: Packet<'a>) -> Result<Packet<'a>, DecodeError> {
    if body.is_empty() {
        Ok(packet)
    } else {
        Err(DecodeError::TRAILING)
    }
}

impl Packet<'_> {
    /// Appends the packet. What `version` cannot express and the receiver can
    /// do without is left out: properties and reason codes in 3.x, the
    /// session present flag in 3.1. CONNECT is written in its own version.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the packet would break the specification, or if
    /// `version` has no such packet: AUTH, and a CONNACK with a reason for
    /// which 3.x has no return code. Nothing is appended then.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::ConnAck(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::PubAck(ack) => ack.encode(version, PacketType::PubAck, out),
            Packet::PubRec(ack) => ack.encode(version, PacketType::PubRec, out),
            Packet::PubRel(ack) => ack.encode(version, PacketType::PubRel, out),
            Packet::PubComp(ack) => ack.encode(version, PacketType::PubComp, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::SubAck(suback) => suback.encode(version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::UnsubAck(unsuback) => unsuback.encode(version, out),
            Packet::PingReq => {
                out.extend_from_slice(&[0xC0, 0]);
                Ok(())
            }
            Packet::PingResp => {
                out.extend_from_slice(&[0xD0, 0]);
                Ok(())
            }
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }

    /// The packet's type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}
