//! SUBSCRIBE (3.8).

use std::fmt;
use std::num::NonZeroU16;

use crate::ack::read_packet_id;
use crate::primitive::{Reader, check_string, put_field, put_header, put_u16};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, Qos, Version};

const FIRST: u8 = 0x82;

/// A client asks for subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be repeated in the SUBACK.
    pub packet_id: NonZeroU16,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
    /// One or more.
    pub filters: SubscribeFilters<'a>,
}

/// The filters of a SUBSCRIBE with their options, in order, as the bytes they
/// came in.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    bytes: &'a [u8],
    version: Version,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// A string without U+0000. Whether it is a topic filter is for the
    /// server to say, for each filter by a reason code of its own (3.9.3).
    pub filter: &'a str,
    /// How to deliver what matches.
    pub options: SubscriptionOptions,
}

/// How a subscription wants its messages (3.8.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// Highest QoS for messages to this subscription.
    pub qos: Qos,
    /// Do not send what this same client published. 5.0 only.
    pub no_local: bool,
    /// Forward the retain flag as it was published. 5.0 only.
    pub retain_as_published: bool,
    /// When retained messages are sent. 5.0 only.
    pub retain_handling: RetainHandling,
}

/// When a new subscription gets the retained messages (3.8.3.1).
#[repr(u8)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// With every SUBSCRIBE; the only way of 3.x.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u8 = 4;

impl SubscriptionOptions {
    /// Options of a subscription that asks for nothing but a QoS.
    #[must_use]
    pub const fn with_qos(qos: Qos) -> Self {
        SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    fn from_bits(version: Version, bits: u8) -> Result<Self, DecodeError> {
        let qos = Qos::from_bits(bits).ok_or(DecodeError::protocol(
            "the QoS of a subscription is 3",
            "3.8.3.1",
        ))?;
        match version {
            // The six other bits are "not used" (3.1, section 3.8).
            Version::V31 => Ok(SubscriptionOptions::with_qos(qos)),
            Version::V311 if bits & 0xFC != 0 => Err(DecodeError::malformed(
                "a reserved bit of the requested QoS is set",
                "3.1.1 MQTT-3.8.3-4",
            )),
            Version::V311 => Ok(SubscriptionOptions::with_qos(qos)),
            Version::V5 if bits & 0xC0 != 0 => Err(DecodeError::malformed(
                "a reserved bit of the subscription options is set",
                "MQTT-3.8.3-5",
            )),
            Version::V5 => Ok(SubscriptionOptions {
                qos,
                no_local: bits & NO_LOCAL != 0,
                retain_as_published: bits & RETAIN_AS_PUBLISHED != 0,
                retain_handling: match bits >> RETAIN_HANDLING_SHIFT & 0b11 {
                    0 => RetainHandling::SendAtSubscribe,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => {
                        return Err(DecodeError::protocol(
                            "the retain handling of a subscription is 3",
                            "3.8.3.1",
                        ));
                    }
                },
            }),
        }
    }

    /// 3.x has only the QoS.
    const fn to_bits(self, version: Version) -> u8 {
        let qos = self.qos as u8;
        if !version.has_properties() {
            return qos;
        }
        qos | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }
}

impl<'a> SubscribeFilters<'a> {
    /// The filters in order.
    pub fn iter(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + Clone + use<'a> {
        let version = self.version;
        let mut reader = Reader::new(self.bytes);
        // Every filter was validated, so only the end stops this.
        std::iter::from_fn(move || read_filter(&mut reader, version).ok())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

// By meaning, not by bytes: 3.1 has bits that it does not use.
impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn read_filter<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<SubscribeFilter<'a>, DecodeError> {
    let filter = reader.string()?;
    let options = SubscriptionOptions::from_bits(version, reader.u8()?)?;
    Ok(SubscribeFilter { filter, options })
}

/// [MQTT-3.8.3-4]
fn no_local_on_shared(filter: &SubscribeFilter<'_>) -> bool {
    filter.options.no_local && filter.filter.starts_with("$share/")
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        let properties = if version.has_properties() {
            Properties::read(&mut reader, Allowed::SUBSCRIBE)?
        } else {
            Properties::EMPTY
        };
        let filters = SubscribeFilters {
            bytes: reader.rest(),
            version,
        };
        if reader.is_empty() {
            return Err(DecodeError::protocol(
                "a SUBSCRIBE has no topic filter",
                "MQTT-3.8.3-2",
            ));
        }
        while !reader.is_empty() {
            if no_local_on_shared(&read_filter(&mut reader, version)?) {
                return Err(DecodeError::protocol(
                    "a shared subscription has the No Local option",
                    "MQTT-3.8.3-4",
                ));
            }
        }
        Ok(Subscribe {
            packet_id,
            properties,
            filters,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let filters = self.filters.iter();
        encode_subscribe(out, version, self.packet_id, self.properties, filters)
    }
}

/// Appends a SUBSCRIBE for these filters. 3.x carries only each filter's QoS,
/// and no properties.
///
/// # Errors
///
/// [`EncodeError`] if there is no filter, or one that cannot be expressed;
/// nothing is appended then.
pub fn encode_subscribe<'a>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: NonZeroU16,
    properties: Properties<'_>,
    filters: impl Iterator<Item = SubscribeFilter<'a>> + Clone,
) -> Result<(), EncodeError> {
    let mut remaining = 2;
    if version.has_properties() {
        properties.check(Allowed::SUBSCRIBE)?;
        remaining += properties.prefixed_len();
    }
    let mut empty = true;
    for filter in filters.clone() {
        check_string("topic filter", filter.filter)?;
        if version.has_properties() && no_local_on_shared(&filter) {
            return Err(EncodeError::invalid(
                "a shared subscription has the No Local option",
                "MQTT-3.8.3-4",
            ));
        }
        remaining += 2 + filter.filter.len() + 1;
        empty = false;
    }
    if empty {
        return Err(EncodeError::invalid(
            "a SUBSCRIBE has no topic filter",
            "MQTT-3.8.3-2",
        ));
    }
    put_header(out, FIRST, remaining)?;
    put_u16(out, packet_id.get());
    if version.has_properties() {
        properties.put(out);
    }
    for filter in filters {
        put_field(out, filter.filter.as_bytes());
        out.push(filter.options.to_bits(version));
    }
    Ok(())
}
