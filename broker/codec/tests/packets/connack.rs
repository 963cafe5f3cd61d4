//! 3.2: CONNACK.

use codec::{ConnAck, Packet, Properties, Property, Qos, ReasonCode};

use super::*;

const ACCEPTED: ConnAck<'static> = ConnAck {
    session_present: false,
    reason: ReasonCode::SUCCESS,
    properties: Properties::EMPTY,
};

pub fn cases() -> Vec<Case> {
    let code_3x = |name, bytes, reason| {
        good("3.2.2.2", name, V3, bytes, Packet::ConnAck(ConnAck { reason, ..ACCEPTED }))
    };
    vec![
        good("3.2", "accepted, in 3.x", V3, b"\x20\x02\0\0", Packet::ConnAck(ACCEPTED)),
        good("3.2", "accepted, in 5.0", V5, b"\x20\x03\0\0\0", Packet::ConnAck(ACCEPTED)),
        good("3.2.2.1.1", "session present in 3.1.1", V311, b"\x20\x02\x01\0",
            Packet::ConnAck(ConnAck { session_present: true, ..ACCEPTED })),
        good("3.2.2.1.1", "session present in 5.0", V5, b"\x20\x03\x01\0\0",
            Packet::ConnAck(ConnAck { session_present: true, ..ACCEPTED })),
        code_3x("return code 1", b"\x20\x02\0\x01", ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
        code_3x("return code 2", b"\x20\x02\0\x02", ReasonCode::CLIENT_IDENTIFIER_NOT_VALID),
        code_3x("return code 3", b"\x20\x02\0\x03", ReasonCode::SERVER_UNAVAILABLE),
        code_3x("return code 4", b"\x20\x02\0\x04", ReasonCode::BAD_USER_NAME_OR_PASSWORD),
        code_3x("return code 5", b"\x20\x02\0\x05", ReasonCode::NOT_AUTHORIZED),
        malformed("3.2.2.2", "return code 6", V3, b"\x20\x02\0\x06", "3.1.1 3.2.2.3"),
        malformed("3.2.2.2", "a code of 5.0 in 3.x", V3, b"\x20\x02\0\x87", "3.1.1 3.2.2.3"),
        good("3.2.2.2", "refused, in 5.0", V5,
            b"\x20\x08\0\x87\x05\x1f\0\x02no",
            Packet::ConnAck(ConnAck {
                reason: ReasonCode::NOT_AUTHORIZED,
                properties: properties(&[Property::ReasonString("no")]),
                ..ACCEPTED
            })),
        good("3.2.2.3", "every property", V5,
            b"\x20\x53\x01\0\x50\x11\0\0\0\x0a\x21\0\x14\x24\x01\x25\0\x27\0\x01\0\0\x12\0\x06auto-1\x22\0\x05\x1f\0\x05hello\x26\0\x01k\0\x01v\x28\0\x29\x01\x2a\0\x13\0\x1e\x1a\0\x03re/\x1c\0\x05other\x15\0\x05PLAIN\x16\0\x02\x01\x02",
            Packet::ConnAck(ConnAck {
                session_present: true,
                properties: properties(&[
                    Property::SessionExpiryInterval(10),
                    Property::ReceiveMaximum(20),
                    Property::MaximumQos(Qos::AtLeastOnce),
                    Property::RetainAvailable(false),
                    Property::MaximumPacketSize(65_536),
                    Property::AssignedClientIdentifier("auto-1"),
                    Property::TopicAliasMaximum(5),
                    Property::ReasonString("hello"),
                    Property::UserProperty("k", "v"),
                    Property::WildcardSubscriptionAvailable(false),
                    Property::SubscriptionIdentifiersAvailable(true),
                    Property::SharedSubscriptionAvailable(false),
                    Property::ServerKeepAlive(30),
                    Property::ResponseInformation("re/"),
                    Property::ServerReference("other"),
                    Property::AuthenticationMethod("PLAIN"),
                    Property::AuthenticationData(&[1, 2]),
                ]),
                ..ACCEPTED
            })),
        malformed("3.2.2.1", "a reserved flag", V311, b"\x20\x02\x02\0", "MQTT-3.2.2-1"),
        malformed("3.2.2.1", "a reserved flag in 5.0", V5, b"\x20\x03\x80\0\0", "MQTT-3.2.2-1"),
        malformed("3.2.2.1", "session present in 3.1, which has no such flag", V31,
            b"\x20\x02\x01\0", "MQTT-3.2.2-1"),
        protocol("3.2.2.1.1", "session present of a refused connection", V311,
            b"\x20\x02\x01\x05", "MQTT-3.2.2-6"),
        protocol("3.2.2.1.1", "session present of a refused connection in 5.0", V5,
            b"\x20\x03\x01\x87\0", "MQTT-3.2.2-6"),
        protocol("3.2.2.2", "a reason code that is not for CONNACK", V5,
            b"\x20\x03\0\x8e\0", "MQTT-3.2.2-8"),
        protocol("3.2.2.2", "a reason code that does not exist", V5,
            b"\x20\x03\0\x7f\0", "MQTT-3.2.2-8"),
        malformed("3.2.2.3", "no property length", V5, b"\x20\x02\0\0", "4.13.1"),
        malformed("3.2", "an empty packet", ALL, b"\x20\0", "4.13.1"),
        malformed("3.2", "flags only", ALL, b"\x20\x01\0", "4.13.1"),
        malformed("3.2.3", "a payload", V3, b"\x20\x03\0\0\0", "4.13.1"),
        malformed("3.2.3", "a payload in 5.0", V5, b"\x20\x04\0\0\0\0", "4.13.1"),
        malformed("3.2.2.3", "a property of CONNECT", V5,
            b"\x20\x05\0\0\x02\x17\x01", "2.2.2.2"),
    ]
}
