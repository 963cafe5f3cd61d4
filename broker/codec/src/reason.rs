//! The reason codes of MQTT 5.0 (2.4), and which packet may carry which.
//!
//! The rest of the program speaks these codes only; the few return codes of
//! 3.1 and 3.1.1 are translated where those packets are read and written.

use std::fmt;

/// A reason code of MQTT 5.0. Codes from 0x80 are failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(pub u8);

macro_rules! reason_codes {
    ($($code:literal $constant:ident $name:literal,)*) => {
        impl ReasonCode {
            $(#[doc = concat!($name, ".")] pub const $constant: ReasonCode = ReasonCode($code);)*

            /// The specification's name of the code, `None` for a number that
            /// it does not define. 0x00 also means "normal disconnection" and
            /// "granted QoS 0", by packet.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// Every code that the specification defines, in order.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode($code)),*];
        }
    };
}

reason_codes! {
    0x00 SUCCESS "Success",
    0x01 GRANTED_QOS_1 "Granted QoS 1",
    0x02 GRANTED_QOS_2 "Granted QoS 2",
    0x04 DISCONNECT_WITH_WILL_MESSAGE "Disconnect with Will Message",
    0x10 NO_MATCHING_SUBSCRIBERS "No matching subscribers",
    0x11 NO_SUBSCRIPTION_EXISTED "No subscription existed",
    0x18 CONTINUE_AUTHENTICATION "Continue authentication",
    0x19 RE_AUTHENTICATE "Re-authenticate",
    0x80 UNSPECIFIED_ERROR "Unspecified error",
    0x81 MALFORMED_PACKET "Malformed Packet",
    0x82 PROTOCOL_ERROR "Protocol Error",
    0x83 IMPLEMENTATION_SPECIFIC_ERROR "Implementation specific error",
    0x84 UNSUPPORTED_PROTOCOL_VERSION "Unsupported Protocol Version",
    0x85 CLIENT_IDENTIFIER_NOT_VALID "Client Identifier not valid",
    0x86 BAD_USER_NAME_OR_PASSWORD "Bad User Name or Password",
    0x87 NOT_AUTHORIZED "Not authorized",
    0x88 SERVER_UNAVAILABLE "Server unavailable",
    0x89 SERVER_BUSY "Server busy",
    0x8A BANNED "Banned",
    0x8B SERVER_SHUTTING_DOWN "Server shutting down",
    0x8C BAD_AUTHENTICATION_METHOD "Bad authentication method",
    0x8D KEEP_ALIVE_TIMEOUT "Keep Alive timeout",
    0x8E SESSION_TAKEN_OVER "Session taken over",
    0x8F TOPIC_FILTER_INVALID "Topic Filter invalid",
    0x90 TOPIC_NAME_INVALID "Topic Name invalid",
    0x91 PACKET_IDENTIFIER_IN_USE "Packet Identifier in use",
    0x92 PACKET_IDENTIFIER_NOT_FOUND "Packet Identifier not found",
    0x93 RECEIVE_MAXIMUM_EXCEEDED "Receive Maximum exceeded",
    0x94 TOPIC_ALIAS_INVALID "Topic Alias invalid",
    0x95 PACKET_TOO_LARGE "Packet too large",
    0x96 MESSAGE_RATE_TOO_HIGH "Message rate too high",
    0x97 QUOTA_EXCEEDED "Quota exceeded",
    0x98 ADMINISTRATIVE_ACTION "Administrative action",
    0x99 PAYLOAD_FORMAT_INVALID "Payload format invalid",
    0x9A RETAIN_NOT_SUPPORTED "Retain not supported",
    0x9B QOS_NOT_SUPPORTED "QoS not supported",
    0x9C USE_ANOTHER_SERVER "Use another server",
    0x9D SERVER_MOVED "Server moved",
    0x9E SHARED_SUBSCRIPTIONS_NOT_SUPPORTED "Shared Subscriptions not supported",
    0x9F CONNECTION_RATE_EXCEEDED "Connection rate exceeded",
    0xA0 MAXIMUM_CONNECT_TIME "Maximum connect time",
    0xA1 SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED "Subscription Identifiers not supported",
    0xA2 WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED "Wildcard Subscriptions not supported",
}

impl ReasonCode {
    /// What 0x00 means in DISCONNECT.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::SUCCESS;
    /// What 0x00 means in SUBACK.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::SUCCESS;

    /// True for the codes from 0x80.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 >= 0x80
    }

    /// [MQTT-3.2.2-8]
    pub(crate) const fn in_connack(self) -> bool {
        matches!(
            self.0,
            0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
        )
    }

    /// PUBACK and PUBREC [MQTT-3.4.2-1] [MQTT-3.5.2-1].
    pub(crate) const fn in_puback(self) -> bool {
        matches!(
            self.0,
            0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
        )
    }

    /// PUBREL and PUBCOMP [MQTT-3.6.2-1] [MQTT-3.7.2-1].
    pub(crate) const fn in_pubrel(self) -> bool {
        matches!(self.0, 0x00 | 0x92)
    }

    /// [MQTT-3.9.3-2]
    pub(crate) const fn in_suback(self) -> bool {
        matches!(
            self.0,
            0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
        )
    }

    /// [MQTT-3.11.3-2]
    pub(crate) const fn in_unsuback(self) -> bool {
        matches!(self.0, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
    }

    /// True for the codes of DISCONNECT [MQTT-3.14.2-1]. 0x8C is in the table of 2.4 but not in that of 3.14.
    #[must_use]
    pub const fn in_disconnect(self) -> bool {
        matches!(
            self.0,
            0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
        )
    }

    /// [MQTT-3.15.2-1]
    pub(crate) const fn in_auth(self) -> bool {
        matches!(self.0, 0x00 | 0x18 | 0x19)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Reason code 0x{:02X}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ReasonCode;

    #[test]
    fn every_code_has_a_name_and_a_packet() {
        for &code in ReasonCode::ALL {
            assert!(code.name().is_some());
            assert!(
                code.in_connack()
                    || code.in_puback()
                    || code.in_pubrel()
                    || code.in_suback()
                    || code.in_unsuback()
                    || code.in_disconnect()
                    || code.in_auth(),
                "{code}"
            );
        }
        assert_eq!(ReasonCode::ALL.len(), 43);
        assert_eq!(ReasonCode::PACKET_TOO_LARGE.to_string(), "Packet too large");
        assert_eq!(ReasonCode(0x7F).to_string(), "Reason code 0x7F");
    }

    #[test]
    fn no_packet_may_carry_an_undefined_code() {
        for code in (0..=u8::MAX).map(ReasonCode).filter(|c| c.name().is_none()) {
            assert!(!code.in_connack() && !code.in_puback() && !code.in_pubrel());
            assert!(!code.in_suback() && !code.in_unsuback());
            assert!(!code.in_disconnect() && !code.in_auth());
        }
    }
}
