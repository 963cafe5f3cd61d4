//! DISCONNECT (3.14) and AUTH (3.15).

use crate::primitive::{Reader, put_header};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Version};

/// The last packet of a connection. In 3.x only a client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. 3.x cannot say: always normal there.
    pub reason: ReasonCode,
    /// 3.x cannot carry them.
    pub properties: Properties<'a>,
}

/// A step of an enhanced authentication, 5.0 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Empty only with [`ReasonCode::SUCCESS`]; otherwise they name the
    /// authentication method.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        if !version.has_properties() {
            reader.end()?;
        }
        let reason = match reader.is_empty() {
            true => ReasonCode::NORMAL_DISCONNECTION,
            false => ReasonCode(reader.u8()?),
        };
        if !reason.in_disconnect() {
            return Err(DecodeError::protocol(
                "a DISCONNECT must not have this reason code",
                "MQTT-3.14.2-1",
            ));
        }
        let properties = read_rest(&mut reader, Allowed::DISCONNECT)?;
        Ok(Disconnect { reason, properties })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_properties() {
            out.extend_from_slice(&[0xE0, 0]);
            return Ok(());
        }
        if !self.reason.in_disconnect() {
            return Err(EncodeError::invalid(
                "a DISCONNECT must not have this reason code",
                "MQTT-3.14.2-1",
            ));
        }
        self.properties.check(Allowed::DISCONNECT)?;
        put(out, 0xE0, self.reason, self.properties)
    }
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        if !version.has_properties() {
            return Err(DecodeError::malformed(
                "packet type 15 is reserved",
                "3.1.1 2.2.1",
            ));
        }
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            // 3.15.2.1: all may be left out with Success.
            return Ok(Auth {
                reason: ReasonCode::SUCCESS,
                properties: Properties::EMPTY,
            });
        }
        let reason = ReasonCode(reader.u8()?);
        if !reason.in_auth() {
            return Err(DecodeError::protocol(
                "an AUTH must not have this reason code",
                "MQTT-3.15.2-1",
            ));
        }
        let properties = read_rest(&mut reader, Allowed::AUTH)?;
        if properties.auth_method().is_none() {
            return Err(DecodeError::protocol(NO_METHOD, "3.15.2.2.2"));
        }
        Ok(Auth { reason, properties })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_properties() {
            return Err(EncodeError::NotInVersion {
                what: "AUTH packet",
                version,
            });
        }
        if !self.reason.in_auth() {
            return Err(EncodeError::invalid(
                "an AUTH must not have this reason code",
                "MQTT-3.15.2-1",
            ));
        }
        self.properties.check(Allowed::AUTH)?;
        let bare = self.reason == ReasonCode::SUCCESS && self.properties.is_empty();
        if !bare && self.properties.auth_method().is_none() {
            return Err(EncodeError::invalid(NO_METHOD, "3.15.2.2.2"));
        }
        put(out, 0xF0, self.reason, self.properties)
    }
}

const NO_METHOD: &str = "an AUTH has no Authentication Method";

/// The properties, which may be left out with all that follows the reason
/// code (3.14.2.2.1).
fn read_rest<'a>(reader: &mut Reader<'a>, allowed: Allowed) -> Result<Properties<'a>, DecodeError> {
    if reader.is_empty() {
        return Ok(Properties::EMPTY);
    }
    let properties = Properties::read(reader, allowed)?;
    reader.end()?;
    Ok(properties)
}

/// Leaves out what may be left out, but for the property length after a
/// reason code: that it may be missing (3.14.2.2.1) is news to some clients.
fn put(
    out: &mut Vec<u8>,
    first: u8,
    reason: ReasonCode,
    properties: Properties<'_>,
) -> Result<(), EncodeError> {
    if reason == ReasonCode::SUCCESS && properties.is_empty() {
        out.extend_from_slice(&[first, 0]);
        return Ok(());
    }
    put_header(out, first, 1 + properties.prefixed_len())?;
    out.push(reason.0);
    properties.put(out);
    Ok(())
}
