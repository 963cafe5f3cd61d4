//! MQTT 3.1, 3.1.1 and 5.0 packets, to and from bytes.
//!
//! The way in is [`split_frame`] (finds one whole packet at the front of a
//! buffer, refusing what is too large before it is buffered) and [`decode`]
//! (borrows from that packet and allocates nothing). The way out is
//! [`Packet::encode`], and for a broker's fan-out [`encode_publish`].
//!
//! Decoding is strict: what the specification calls malformed or a protocol
//! error is refused, with the reason code that it names and the clause that
//! was broken. Encoding is strict too: what [`Packet::encode`] writes,
//! [`decode`] reads back as the same packet.
//!
//! ```
//! use codec::{Packet, Version, decode, split_frame};
//!
//! // A PUBLISH of 3.1.1 and the beginning of another packet.
//! let mut buffer = &b"\x30\x07\x00\x03a/bhi\xC0"[..];
//! while let Some(frame) = split_frame(buffer, 1_048_576)? {
//!     if let Packet::Publish(publish) = decode(Version::V311, frame)? {
//!         assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
//!     }
//!     buffer = &buffer[frame.len..];
//! }
//! assert_eq!(buffer, b"\xC0");
//! # Ok::<(), codec::DecodeError>(())
//! ```
//!
//! This crate does no I/O and reads no clock. It does not know who sent a
//! packet either: whether a client may send a CONNACK, an alias is within the
//! agreed range, or a filter may be subscribed to is for the session to say.
//!
//! Clauses are cited as in MQTT 5.0 (`MQTT-x.y.z-n`, or the section's number
//! where the text has no such mark), unless `3.1` or `3.1.1` is said.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod primitive;
mod properties;
mod property;
mod publish;
mod qos;
mod reason;
mod suback;
mod subscribe;
mod unsubscribe;
mod version;

pub use ack::Ack;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, HEADER_BYTES_MAX, PACKET_BYTES_MAX, PacketType, split_frame};
pub use packet::{Packet, decode};
pub use primitive::{FIELD_BYTES_MAX, VARIABLE_BYTE_INTEGER_MAX};
pub use properties::{Properties, PropertiesBuf, PropertiesIter};
pub use property::Property;
pub use publish::{
    Publish, PublishHead, encode_publish, encode_publish_head, encoded_publish_len,
    publish_forwardable,
};
pub use qos::Qos;
pub use reason::ReasonCode;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscriptionOptions,
    encode_subscribe,
};
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters, encode_unsubscribe};
pub use version::Version;
