//! UNSUBSCRIBE (3.10).

use std::fmt;
use std::num::NonZeroU16;

use crate::ack::read_packet_id;
use crate::primitive::{Reader, check_string, put_field, put_header, put_u16};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, Version};

const FIRST: u8 = 0xA2;

/// A client gives subscriptions up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be repeated in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
    /// One or more.
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE, in order, as the bytes they came in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters in order: strings without U+0000. Whether each is a topic
    /// filter is for the server to say by a reason code of its own (3.11.3).
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let mut reader = Reader::new(self.bytes);
        // Every filter was validated, so only the end stops this.
        std::iter::from_fn(move || reader.string().ok())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        let properties = if version.has_properties() {
            Properties::read(&mut reader, Allowed::UNSUBSCRIBE)?
        } else {
            Properties::EMPTY
        };
        let filters = UnsubscribeFilters {
            bytes: reader.rest(),
        };
        if reader.is_empty() {
            return Err(DecodeError::protocol(
                "an UNSUBSCRIBE has no topic filter",
                "MQTT-3.10.3-2",
            ));
        }
        while !reader.is_empty() {
            reader.string()?;
        }
        Ok(Unsubscribe {
            packet_id,
            properties,
            filters,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let filters = self.filters.iter();
        encode_unsubscribe(out, version, self.packet_id, self.properties, filters)
    }
}

/// Appends an UNSUBSCRIBE for these filters. 3.x carries no properties.
///
/// # Errors
///
/// [`EncodeError`] if there is no filter, or one that cannot be expressed;
/// nothing is appended then.
pub fn encode_unsubscribe<'a>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: NonZeroU16,
    properties: Properties<'_>,
    filters: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), EncodeError> {
    let mut remaining = 2;
    if version.has_properties() {
        properties.check(Allowed::UNSUBSCRIBE)?;
        remaining += properties.prefixed_len();
    }
    let mut empty = true;
    for filter in filters.clone() {
        check_string("topic filter", filter)?;
        remaining += 2 + filter.len();
        empty = false;
    }
    if empty {
        return Err(EncodeError::invalid(
            "an UNSUBSCRIBE has no topic filter",
            "MQTT-3.10.3-2",
        ));
    }
    put_header(out, FIRST, remaining)?;
    put_u16(out, packet_id.get());
    if version.has_properties() {
        properties.put(out);
    }
    for filter in filters {
        put_field(out, filter.as_bytes());
    }
    Ok(())
}
