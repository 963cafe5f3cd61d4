//! The properties of one packet: validated once when the packet is decoded,
//! then kept as the bytes they came in.
//!
//! A broker passes most of them on untouched, so nothing is collected; the
//! getters scan, which for the handful that a packet carries is cheaper than
//! any table.

use std::fmt;

use crate::primitive::{Reader, put_varint, varint_len};
use crate::property::{RawProperty, id};
use crate::{DecodeError, EncodeError, Property, Qos};

/// The properties that a kind of packet may carry (table 2-4), as a set of
/// property identifiers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed(u64);

impl Allowed {
    const fn of(ids: &[u8]) -> Allowed {
        let mut set = 1 << id::USER_PROPERTY;
        let mut i = 0;
        while i < ids.len() {
            set |= 1 << ids[i];
            i += 1;
        }
        Allowed(set)
    }

    const fn contains(self, id: u8) -> bool {
        id < u64::BITS as u8 && self.0 & (1 << id) != 0
    }

    pub(crate) const CONNECT: Allowed = Allowed::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::MAXIMUM_PACKET_SIZE,
    ]);
    pub(crate) const WILL: Allowed = Allowed::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY_INTERVAL,
    ]);
    pub(crate) const CONNACK: Allowed = Allowed::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::ASSIGNED_CLIENT_IDENTIFIER,
        id::SERVER_KEEP_ALIVE,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::RESPONSE_INFORMATION,
        id::SERVER_REFERENCE,
        id::REASON_STRING,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::MAXIMUM_QOS,
        id::RETAIN_AVAILABLE,
        id::MAXIMUM_PACKET_SIZE,
        id::WILDCARD_SUBSCRIPTION_AVAILABLE,
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        id::SHARED_SUBSCRIPTION_AVAILABLE,
    ]);
    pub(crate) const PUBLISH: Allowed = Allowed::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::SUBSCRIPTION_IDENTIFIER,
        id::TOPIC_ALIAS,
    ]);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    pub(crate) const ACK: Allowed = Allowed::of(&[id::REASON_STRING]);
    pub(crate) const SUBSCRIBE: Allowed = Allowed::of(&[id::SUBSCRIPTION_IDENTIFIER]);
    pub(crate) const UNSUBSCRIBE: Allowed = Allowed::of(&[]);
    pub(crate) const DISCONNECT: Allowed = Allowed::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::SERVER_REFERENCE,
        id::REASON_STRING,
    ]);
    pub(crate) const AUTH: Allowed = Allowed::of(&[
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REASON_STRING,
    ]);

    /// The identifiers that may come more than once: user properties, and in
    /// PUBLISH one subscription identifier for each subscription that matched
    /// (3.3.2.3.8).
    const fn repeatable(self) -> u64 {
        let in_publish = self.contains(id::TOPIC_ALIAS) as u64;
        1 << id::USER_PROPERTY | in_publish << id::SUBSCRIPTION_IDENTIFIER
    }
}

/// Checks each property's bytes and value, and whether it may be there.
fn validate(bytes: &[u8], allowed: Allowed) -> Result<(), DecodeError> {
    let mut rest = bytes;
    let mut seen = 0_u64;
    while !rest.is_empty() {
        let (raw, after) = RawProperty::split(rest)?;
        if !allowed.contains(raw.id) {
            return Err(DecodeError::malformed(
                "a property is not allowed in this packet",
                "2.2.2.2",
            ));
        }
        let bit = 1 << raw.id;
        if seen & bit != 0 && allowed.repeatable() & bit == 0 {
            return Err(DecodeError::protocol(
                "a property is included more than once",
                "2.2.2.2",
            ));
        }
        seen |= bit;
        Property::parse(raw)?;
        rest = after;
    }
    let has = |id: u8| seen & (1 << id) != 0;
    if has(id::AUTHENTICATION_DATA) && !has(id::AUTHENTICATION_METHOD) {
        return Err(DecodeError::protocol(
            "Authentication Data comes without Authentication Method",
            "3.1.2.11.10",
        ));
    }
    Ok(())
}

/// The properties of one packet, without their length prefix. Always valid:
/// they come from a decoded packet or from a [`PropertiesBuf`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties at all.
    pub const EMPTY: Properties<'static> = Properties { bytes: &[] };

    /// Takes the bytes of properties that were validated before, for example
    /// a copy of [`as_bytes`](Self::as_bytes).
    ///
    /// Bytes that were not validated do no worse than yield fewer properties
    /// and a packet that its receiver refuses; debug builds panic on them.
    #[must_use]
    pub fn from_validated(bytes: &'a [u8]) -> Self {
        debug_assert!(
            PropertiesIter { rest: bytes }.try_all_valid(),
            "these bytes are not properties: {bytes:02X?}"
        );
        Properties { bytes }
    }

    /// Reads length and properties, and refuses what the packet must not
    /// carry.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>, allowed: Allowed) -> Result<Self, DecodeError> {
        let len = reader.varint()?;
        let bytes = reader.take(len as usize)?;
        if !bytes.is_empty() {
            validate(bytes, allowed)?;
        }
        Ok(Properties { bytes })
    }

    /// Refuses to write what [`read`](Self::read) would refuse; the values
    /// are valid already.
    pub(crate) fn check(self, allowed: Allowed) -> Result<(), EncodeError> {
        validate(self.bytes, allowed).map_err(|_| {
            EncodeError::invalid("the packet may not carry these properties", "2.2.2.2")
        })
    }

    /// True if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes as on the wire, without the length prefix.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes that [`put`](Self::put) appends.
    pub(crate) const fn prefixed_len(self) -> usize {
        varint_len(self.bytes.len()) + self.bytes.len()
    }

    /// Appends length and properties.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        put_varint(out, self.bytes.len());
        out.extend_from_slice(self.bytes);
    }

    /// The properties in the order in which they came.
    #[must_use]
    pub const fn iter(&self) -> PropertiesIter<'a> {
        PropertiesIter { rest: self.bytes }
    }

    /// The first property with this identifier; only that one is parsed.
    fn find(&self, id: u8) -> Option<Property<'a>> {
        let mut rest = self.bytes;
        while !rest.is_empty() {
            let (raw, after) = RawProperty::split(rest).ok()?;
            if raw.id == id {
                return Property::parse(raw).ok();
            }
            rest = after;
        }
        None
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $id:ident $variant:ident;)*) => {
        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(&self) -> Option<$type> {
                    match self.find(id::$id)? {
                        Property::$variant(value) => Some(value),
                        _ => None,
                    }
                }
            )*
        }
    };
}

getters! {
    /// Payload Format Indicator: 0 or 1.
    payload_format: u8 = PAYLOAD_FORMAT_INDICATOR PayloadFormatIndicator;
    /// Message Expiry Interval, in seconds.
    message_expiry: u32 = MESSAGE_EXPIRY_INTERVAL MessageExpiryInterval;
    /// Content Type.
    content_type: &'a str = CONTENT_TYPE ContentType;
    /// Response Topic, a valid topic name.
    response_topic: &'a str = RESPONSE_TOPIC ResponseTopic;
    /// Correlation Data.
    correlation_data: &'a [u8] = CORRELATION_DATA CorrelationData;
    /// The first Subscription Identifier; a SUBSCRIBE has at most one.
    subscription_identifier: u32 = SUBSCRIPTION_IDENTIFIER SubscriptionIdentifier;
    /// Session Expiry Interval, in seconds; `u32::MAX`: never.
    session_expiry: u32 = SESSION_EXPIRY_INTERVAL SessionExpiryInterval;
    /// Assigned Client Identifier.
    assigned_client_id: &'a str = ASSIGNED_CLIENT_IDENTIFIER AssignedClientIdentifier;
    /// Server Keep Alive, in seconds.
    server_keep_alive: u16 = SERVER_KEEP_ALIVE ServerKeepAlive;
    /// Authentication Method.
    auth_method: &'a str = AUTHENTICATION_METHOD AuthenticationMethod;
    /// Authentication Data.
    auth_data: &'a [u8] = AUTHENTICATION_DATA AuthenticationData;
    /// Request Problem Information; absent means true.
    request_problem_information: bool = REQUEST_PROBLEM_INFORMATION RequestProblemInformation;
    /// Will Delay Interval, in seconds.
    will_delay: u32 = WILL_DELAY_INTERVAL WillDelayInterval;
    /// Request Response Information; absent means false.
    request_response_information: bool =
        REQUEST_RESPONSE_INFORMATION RequestResponseInformation;
    /// Response Information.
    response_information: &'a str = RESPONSE_INFORMATION ResponseInformation;
    /// Server Reference.
    server_reference: &'a str = SERVER_REFERENCE ServerReference;
    /// Reason String.
    reason_string: &'a str = REASON_STRING ReasonString;
    /// Receive Maximum, 1 or more; absent means 65,535.
    receive_maximum: u16 = RECEIVE_MAXIMUM ReceiveMaximum;
    /// Topic Alias Maximum; absent means 0.
    topic_alias_maximum: u16 = TOPIC_ALIAS_MAXIMUM TopicAliasMaximum;
    /// Topic Alias, 1 or more.
    topic_alias: u16 = TOPIC_ALIAS TopicAlias;
    /// Maximum QoS; absent means 2.
    maximum_qos: Qos = MAXIMUM_QOS MaximumQos;
    /// Retain Available; absent means true.
    retain_available: bool = RETAIN_AVAILABLE RetainAvailable;
    /// Maximum Packet Size, in bytes, 1 or more; absent means no limit.
    maximum_packet_size: u32 = MAXIMUM_PACKET_SIZE MaximumPacketSize;
    /// Wildcard Subscription Available; absent means true.
    wildcard_subscription_available: bool =
        WILDCARD_SUBSCRIPTION_AVAILABLE WildcardSubscriptionAvailable;
    /// Subscription Identifiers Available; absent means true.
    subscription_identifiers_available: bool =
        SUBSCRIPTION_IDENTIFIERS_AVAILABLE SubscriptionIdentifiersAvailable;
    /// Shared Subscription Available; absent means true.
    shared_subscription_available: bool =
        SHARED_SUBSCRIPTION_AVAILABLE SharedSubscriptionAvailable;
}

impl<'a> Properties<'a> {
    /// Every Subscription Identifier, in order.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }

    /// Every user property, name and value, in order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> PropertiesIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Properties`].
#[derive(Debug, Clone)]
pub struct PropertiesIter<'a> {
    rest: &'a [u8],
}

impl PropertiesIter<'_> {
    /// True if the iterator would stop only at the end.
    fn try_all_valid(mut self) -> bool {
        while self.next().is_some() {}
        self.rest.is_empty()
    }
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (raw, rest) = RawProperty::split(self.rest).ok()?;
        let property = Property::parse(raw).ok()?;
        self.rest = rest;
        Some(property)
    }
}

/// Properties being put together for a packet to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// No properties yet; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        PropertiesBuf(Vec::new())
    }

    /// Appends one property. Whether the packet may carry it, and twice, is
    /// checked when the packet is encoded.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a value that the property cannot have, such as a
    /// string of more than 65,535 bytes; the buffer is as before then.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        property.encode(&mut self.0)
    }

    /// Appends properties of another packet.
    pub fn extend(&mut self, properties: Properties<'_>) {
        self.0.extend_from_slice(properties.as_bytes());
    }

    /// Removes all properties and keeps the allocation.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The properties, to put into a packet.
    #[must_use]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.0 }
    }

    /// The bytes as on the wire, without the length prefix.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
