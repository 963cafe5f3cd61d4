//! CONNACK (3.2), and the return codes that 3.x has instead of reason codes.

use crate::primitive::{Reader, put_header};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Version};

/// The answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// A session of this client existed and goes on. 3.1 cannot say: it is
    /// left out there.
    pub session_present: bool,
    /// The answer, as a code of 5.0 in every version.
    pub reason: ReasonCode,
    /// 3.x cannot carry them.
    pub properties: Properties<'a>,
}

const SESSION_PRESENT: u8 = 0x01;

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        let known_flags = match version {
            // All eight bits are reserved (3.1, section 3.2).
            Version::V31 => 0,
            Version::V311 | Version::V5 => SESSION_PRESENT,
        };
        if flags & !known_flags != 0 {
            return Err(DecodeError::malformed(
                "a reserved acknowledge flag is set",
                "MQTT-3.2.2-1",
            ));
        }
        let (reason, properties) = if version.has_properties() {
            let reason = ReasonCode(code);
            if !reason.in_connack() {
                return Err(DecodeError::protocol(
                    "a CONNACK must not have this reason code",
                    "MQTT-3.2.2-8",
                ));
            }
            (reason, Properties::read(&mut reader, Allowed::CONNACK)?)
        } else {
            (from_return_code(code)?, Properties::EMPTY)
        };
        reader.end()?;
        let session_present = flags & SESSION_PRESENT != 0;
        if session_present && reason != ReasonCode::SUCCESS {
            return Err(DecodeError::protocol(
                "a refused connection has a session present",
                "MQTT-3.2.2-6",
            ));
        }
        Ok(ConnAck {
            session_present,
            reason,
            properties,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.session_present && self.reason != ReasonCode::SUCCESS {
            return Err(EncodeError::invalid(
                "a refused connection has a session present",
                "MQTT-3.2.2-6",
            ));
        }
        let session_present = u8::from(self.session_present && version != Version::V31);
        if !version.has_properties() {
            let code = to_return_code(self.reason).ok_or(EncodeError::NotInVersion {
                what: "return code for this reason",
                version,
            })?;
            out.extend_from_slice(&[0x20, 2, session_present, code]);
            return Ok(());
        }
        if !self.reason.in_connack() {
            return Err(EncodeError::invalid(
                "a CONNACK must not have this reason code",
                "MQTT-3.2.2-8",
            ));
        }
        self.properties.check(Allowed::CONNACK)?;
        put_header(out, 0x20, 2 + self.properties.prefixed_len())?;
        out.extend_from_slice(&[session_present, self.reason.0]);
        self.properties.put(out);
        Ok(())
    }
}

/// The 3.x return code nearest to a reason. `None`: there is none, and the
/// connection must be closed without a CONNACK (3.1.1 MQTT-3.2.2-6).
const fn to_return_code(reason: ReasonCode) -> Option<u8> {
    Some(match reason {
        ReasonCode::SUCCESS => 0,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
        ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::USE_ANOTHER_SERVER
        | ReasonCode::SERVER_MOVED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => 3,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
        ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED | ReasonCode::BAD_AUTHENTICATION_METHOD => {
            5
        }
        _ => return None,
    })
}

const fn from_return_code(code: u8) -> Result<ReasonCode, DecodeError> {
    Ok(match code {
        0 => ReasonCode::SUCCESS,
        1 => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        2 => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        3 => ReasonCode::SERVER_UNAVAILABLE,
        4 => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        5 => ReasonCode::NOT_AUTHORIZED,
        _ => {
            return Err(DecodeError::malformed(
                "the return code is reserved",
                "3.1.1 3.2.2.3",
            ));
        }
    })
}
