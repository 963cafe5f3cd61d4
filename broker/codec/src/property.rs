//! One property of MQTT 5.0 (2.2.2): its identifier, type, allowed values,
//! and bytes.
//!
//! Which packet may carry it, and how often, is in
//! [`properties`](crate::properties).

use crate::primitive::{
    NULL_CHARACTER, Reader, VARIABLE_BYTE_INTEGER_MAX, check_binary, check_string, put_field,
    put_u16, put_u32, put_varint, varint_len,
};
use crate::{DecodeError, EncodeError, Qos};

/// Property identifiers of table 2-4.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// One property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0: unspecified bytes, 1: UTF-8 (3.3.2.3.2).
    PayloadFormatIndicator(u8),
    /// Seconds until the message is worthless (3.3.2.3.3).
    MessageExpiryInterval(u32),
    /// Type of the payload's content, by the application's own rules.
    ContentType(&'a str),
    /// Topic name for a response to this message; without wildcards.
    ResponseTopic(&'a str),
    /// Tells the requester which request a response is for.
    CorrelationData(&'a [u8]),
    /// Identifier of the subscription, 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// Seconds that a session outlives its connection; 0xFFFFFFFF: for ever.
    SessionExpiryInterval(u32),
    /// The client identifier that the server chose.
    AssignedClientIdentifier(&'a str),
    /// The keep alive that the server wants instead of the client's, in
    /// seconds.
    ServerKeepAlive(u16),
    /// Name of the enhanced authentication's method.
    AuthenticationMethod(&'a str),
    /// Data of the enhanced authentication, by its method.
    AuthenticationData(&'a [u8]),
    /// Whether reason strings and user properties may come with
    /// acknowledgements (3.1.2.11.7).
    RequestProblemInformation(bool),
    /// Seconds between the end of a connection and its will.
    WillDelayInterval(u32),
    /// Whether CONNACK shall say where responses go (3.1.2.11.6).
    RequestResponseInformation(bool),
    /// The server's base for response topics.
    ResponseInformation(&'a str),
    /// Another server to use.
    ServerReference(&'a str),
    /// A reason for humans.
    ReasonString(&'a str),
    /// QoS 1 and 2 messages taken at once without acknowledgement, 1 or more.
    ReceiveMaximum(u16),
    /// Highest topic alias taken; 0: none.
    TopicAliasMaximum(u16),
    /// Number for the topic name, 1 or more.
    TopicAlias(u16),
    /// Highest QoS that the server takes; 2 is said by leaving it out.
    MaximumQos(Qos),
    /// Whether the server keeps retained messages.
    RetainAvailable(bool),
    /// A name and value of the application's.
    UserProperty(&'a str, &'a str),
    /// Largest packet taken, in bytes, 1 or more.
    MaximumPacketSize(u32),
    /// Whether filters may have wildcards.
    WildcardSubscriptionAvailable(bool),
    /// Whether subscriptions may have identifiers.
    SubscriptionIdentifiersAvailable(bool),
    /// Whether there are shared subscriptions.
    SharedSubscriptionAvailable(bool),
}

/// A property's bytes, found but not looked into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawProperty<'a> {
    pub(crate) id: u8,
    /// All after the identifier, length prefixes included.
    pub(crate) value: &'a [u8],
}

impl<'a> RawProperty<'a> {
    /// Takes one property off the front of `bytes`.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> Result<(RawProperty<'a>, &'a [u8]), DecodeError> {
        let mut after_id = Reader::new(bytes);
        // Identifiers are variable byte integers, but all that exist fit into
        // one byte, and padding is malformed.
        let id = after_id.u8()?;
        let mut reader = after_id;
        match id {
            id::PAYLOAD_FORMAT_INDICATOR
            | id::REQUEST_PROBLEM_INFORMATION
            | id::REQUEST_RESPONSE_INFORMATION
            | id::MAXIMUM_QOS
            | id::RETAIN_AVAILABLE
            | id::WILDCARD_SUBSCRIPTION_AVAILABLE
            | id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE
            | id::SHARED_SUBSCRIPTION_AVAILABLE => {
                reader.u8()?;
            }
            id::SERVER_KEEP_ALIVE
            | id::RECEIVE_MAXIMUM
            | id::TOPIC_ALIAS_MAXIMUM
            | id::TOPIC_ALIAS => {
                reader.u16()?;
            }
            id::MESSAGE_EXPIRY_INTERVAL
            | id::SESSION_EXPIRY_INTERVAL
            | id::WILL_DELAY_INTERVAL
            | id::MAXIMUM_PACKET_SIZE => {
                reader.u32()?;
            }
            id::SUBSCRIPTION_IDENTIFIER => {
                reader.varint()?;
            }
            id::CONTENT_TYPE
            | id::RESPONSE_TOPIC
            | id::CORRELATION_DATA
            | id::ASSIGNED_CLIENT_IDENTIFIER
            | id::AUTHENTICATION_METHOD
            | id::AUTHENTICATION_DATA
            | id::RESPONSE_INFORMATION
            | id::SERVER_REFERENCE
            | id::REASON_STRING => {
                reader.binary()?;
            }
            id::USER_PROPERTY => {
                reader.binary()?;
                reader.binary()?;
            }
            _ => {
                return Err(DecodeError::malformed(
                    "a property identifier does not exist",
                    "2.2.2.2",
                ));
            }
        }
        let len = after_id.rest().len() - reader.rest().len();
        let value = after_id.take(len)?;
        Ok((RawProperty { id, value }, reader.rest()))
    }
}

impl<'a> Property<'a> {
    /// The property and its value, checked.
    pub(crate) fn parse(raw: RawProperty<'a>) -> Result<Property<'a>, DecodeError> {
        let mut value = Reader::new(raw.value);
        let property = match raw.id {
            id::PAYLOAD_FORMAT_INDICATOR => match value.u8()? {
                format @ (0 | 1) => Property::PayloadFormatIndicator(format),
                _ => {
                    return Err(DecodeError::protocol(
                        "a Payload Format Indicator is neither 0 nor 1",
                        "3.3.2.3.2",
                    ));
                }
            },
            id::MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiryInterval(value.u32()?),
            id::CONTENT_TYPE => Property::ContentType(value.string()?),
            id::RESPONSE_TOPIC => Property::ResponseTopic(response_topic(value.utf8()?)?),
            id::CORRELATION_DATA => Property::CorrelationData(value.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => match value.varint()? {
                0 => {
                    return Err(DecodeError::protocol(
                        "a Subscription Identifier is 0",
                        "3.8.2.1.2",
                    ));
                }
                identifier => Property::SubscriptionIdentifier(identifier),
            },
            id::SESSION_EXPIRY_INTERVAL => Property::SessionExpiryInterval(value.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Property::AssignedClientIdentifier(value.string()?),
            id::SERVER_KEEP_ALIVE => Property::ServerKeepAlive(value.u16()?),
            id::AUTHENTICATION_METHOD => Property::AuthenticationMethod(value.string()?),
            id::AUTHENTICATION_DATA => Property::AuthenticationData(value.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => {
                Property::RequestProblemInformation(boolean(value.u8()?, "3.1.2.11.7")?)
            }
            id::WILL_DELAY_INTERVAL => Property::WillDelayInterval(value.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                Property::RequestResponseInformation(boolean(value.u8()?, "3.1.2.11.6")?)
            }
            id::RESPONSE_INFORMATION => Property::ResponseInformation(value.string()?),
            id::SERVER_REFERENCE => Property::ServerReference(value.string()?),
            id::REASON_STRING => Property::ReasonString(value.string()?),
            id::RECEIVE_MAXIMUM => match value.u16()? {
                0 => {
                    return Err(DecodeError::protocol(
                        "a Receive Maximum is 0",
                        "3.1.2.11.3",
                    ));
                }
                maximum => Property::ReceiveMaximum(maximum),
            },
            id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(value.u16()?),
            id::TOPIC_ALIAS => match value.u16()? {
                0 => return Err(DecodeError::TopicAliasZero),
                alias => Property::TopicAlias(alias),
            },
            id::MAXIMUM_QOS => match value.u8()? {
                0 => Property::MaximumQos(Qos::AtMostOnce),
                1 => Property::MaximumQos(Qos::AtLeastOnce),
                _ => {
                    return Err(DecodeError::protocol(
                        "a Maximum QoS is neither 0 nor 1",
                        "3.2.2.3.4",
                    ));
                }
            },
            id::RETAIN_AVAILABLE => Property::RetainAvailable(boolean(value.u8()?, "3.2.2.3.5")?),
            id::USER_PROPERTY => Property::UserProperty(value.string()?, value.string()?),
            id::MAXIMUM_PACKET_SIZE => match value.u32()? {
                0 => {
                    return Err(DecodeError::protocol(
                        "a Maximum Packet Size is 0",
                        "3.1.2.11.4",
                    ));
                }
                maximum => Property::MaximumPacketSize(maximum),
            },
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                Property::WildcardSubscriptionAvailable(boolean(value.u8()?, "3.2.2.3.11")?)
            }
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
                Property::SubscriptionIdentifiersAvailable(boolean(value.u8()?, "3.2.2.3.12")?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                Property::SharedSubscriptionAvailable(boolean(value.u8()?, "3.2.2.3.13")?)
            }
            // `RawProperty::split` let no other pass.
            _ => return Err(DecodeError::TRUNCATED),
        };
        Ok(property)
    }

    /// The property's identifier (table 2-4).
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => id::PAYLOAD_FORMAT_INDICATOR,
            Property::MessageExpiryInterval(_) => id::MESSAGE_EXPIRY_INTERVAL,
            Property::ContentType(_) => id::CONTENT_TYPE,
            Property::ResponseTopic(_) => id::RESPONSE_TOPIC,
            Property::CorrelationData(_) => id::CORRELATION_DATA,
            Property::SubscriptionIdentifier(_) => id::SUBSCRIPTION_IDENTIFIER,
            Property::SessionExpiryInterval(_) => id::SESSION_EXPIRY_INTERVAL,
            Property::AssignedClientIdentifier(_) => id::ASSIGNED_CLIENT_IDENTIFIER,
            Property::ServerKeepAlive(_) => id::SERVER_KEEP_ALIVE,
            Property::AuthenticationMethod(_) => id::AUTHENTICATION_METHOD,
            Property::AuthenticationData(_) => id::AUTHENTICATION_DATA,
            Property::RequestProblemInformation(_) => id::REQUEST_PROBLEM_INFORMATION,
            Property::WillDelayInterval(_) => id::WILL_DELAY_INTERVAL,
            Property::RequestResponseInformation(_) => id::REQUEST_RESPONSE_INFORMATION,
            Property::ResponseInformation(_) => id::RESPONSE_INFORMATION,
            Property::ServerReference(_) => id::SERVER_REFERENCE,
            Property::ReasonString(_) => id::REASON_STRING,
            Property::ReceiveMaximum(_) => id::RECEIVE_MAXIMUM,
            Property::TopicAliasMaximum(_) => id::TOPIC_ALIAS_MAXIMUM,
            Property::TopicAlias(_) => id::TOPIC_ALIAS,
            Property::MaximumQos(_) => id::MAXIMUM_QOS,
            Property::RetainAvailable(_) => id::RETAIN_AVAILABLE,
            Property::UserProperty(..) => id::USER_PROPERTY,
            Property::MaximumPacketSize(_) => id::MAXIMUM_PACKET_SIZE,
            Property::WildcardSubscriptionAvailable(_) => id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            Property::SubscriptionIdentifiersAvailable(_) => id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
            Property::SharedSubscriptionAvailable(_) => id::SHARED_SUBSCRIPTION_AVAILABLE,
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        1 + match self.value() {
            Value::Byte(_) => 1,
            Value::TwoBytes(_) => 2,
            Value::FourBytes(_) => 4,
            Value::Varint(value) => varint_len(value as usize),
            Value::String(string) => 2 + string.len(),
            Value::Binary(bytes) => 2 + bytes.len(),
            Value::Pair(name, value) => 4 + name.len() + value.len(),
        }
    }

    /// Appends identifier and value.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a value that the property cannot have; nothing is
    /// appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check()?;
        out.push(self.id());
        match self.value() {
            Value::Byte(value) => out.push(value),
            Value::TwoBytes(value) => put_u16(out, value),
            Value::FourBytes(value) => put_u32(out, value),
            Value::Varint(value) => put_varint(out, value as usize),
            Value::String(string) => put_field(out, string.as_bytes()),
            Value::Binary(bytes) => put_field(out, bytes),
            Value::Pair(name, value) => {
                put_field(out, name.as_bytes());
                put_field(out, value.as_bytes());
            }
        }
        Ok(())
    }

    /// Refuses to write what [`parse`](Self::parse) would refuse.
    fn check(&self) -> Result<(), EncodeError> {
        let (value_allowed, clause) = match *self {
            Property::PayloadFormatIndicator(format) => (format <= 1, "3.3.2.3.2"),
            Property::SubscriptionIdentifier(identifier) => (
                (1..=VARIABLE_BYTE_INTEGER_MAX).contains(&identifier),
                "3.8.2.1.2",
            ),
            Property::ReceiveMaximum(maximum) => (maximum > 0, "3.1.2.11.3"),
            Property::TopicAlias(alias) => (alias > 0, "MQTT-3.3.2-8"),
            Property::MaximumQos(qos) => (qos < Qos::ExactlyOnce, "3.2.2.3.4"),
            Property::MaximumPacketSize(maximum) => (maximum > 0, "3.1.2.11.4"),
            Property::ResponseTopic(topic) => {
                (topic::validate_name(topic).is_ok(), "MQTT-3.3.2-14")
            }
            _ => (true, ""),
        };
        if !value_allowed {
            return Err(EncodeError::invalid(
                "a property's value is not allowed",
                clause,
            ));
        }
        match self.value() {
            Value::String(string) => check_string("string property", string),
            Value::Binary(bytes) => check_binary("binary property", bytes),
            Value::Pair(name, value) => {
                check_string("user property name", name)?;
                check_string("user property value", value)
            }
            _ => Ok(()),
        }
    }

    const fn value(&self) -> Value<'a> {
        match *self {
            Property::PayloadFormatIndicator(byte) => Value::Byte(byte),
            Property::MaximumQos(qos) => Value::Byte(qos as u8),
            Property::RequestProblemInformation(flag)
            | Property::RequestResponseInformation(flag)
            | Property::RetainAvailable(flag)
            | Property::WildcardSubscriptionAvailable(flag)
            | Property::SubscriptionIdentifiersAvailable(flag)
            | Property::SharedSubscriptionAvailable(flag) => Value::Byte(flag as u8),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => Value::TwoBytes(value),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => Value::FourBytes(value),
            Property::SubscriptionIdentifier(value) => Value::Varint(value),
            Property::ContentType(string)
            | Property::ResponseTopic(string)
            | Property::AssignedClientIdentifier(string)
            | Property::AuthenticationMethod(string)
            | Property::ResponseInformation(string)
            | Property::ServerReference(string)
            | Property::ReasonString(string) => Value::String(string),
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => {
                Value::Binary(bytes)
            }
            Property::UserProperty(name, value) => Value::Pair(name, value),
        }
    }
}

/// A value by its data type on the wire.
enum Value<'a> {
    Byte(u8),
    TwoBytes(u16),
    FourBytes(u32),
    Varint(u32),
    String(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

fn boolean(byte: u8, clause: &'static str) -> Result<bool, DecodeError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol(
            "a property of 0 or 1 has another value",
            clause,
        )),
    }
}

fn response_topic(topic: &str) -> Result<&str, DecodeError> {
    match topic::validate_name(topic) {
        Ok(()) => Ok(topic),
        Err(topic::TopicError::NullCharacter) => Err(NULL_CHARACTER),
        Err(_) => Err(DecodeError::protocol(
            "a Response Topic is no topic name",
            "MQTT-3.3.2-14",
        )),
    }
}
