//! 3.12 to 3.15: PINGREQ, PINGRESP, DISCONNECT, AUTH.

use codec::{Auth, Disconnect, Packet, Properties, Property, ReasonCode};

use super::*;

const NORMAL: Disconnect<'static> = Disconnect {
    reason: ReasonCode::NORMAL_DISCONNECTION,
    properties: Properties::EMPTY,
};

pub fn cases() -> Vec<Case> {
    [ping(), disconnect(), auth()].concat()
}

fn ping() -> Vec<Case> {
    vec![
        good("3.12", "PINGREQ", ALL, b"\xc0\0", Packet::PingReq),
        good("3.13", "PINGRESP", ALL, b"\xd0\0", Packet::PingResp),
        malformed("3.12", "PINGREQ with a body", ALL, b"\xc0\x01\0", "4.13.1"),
        malformed("3.13", "PINGRESP with a body", ALL, b"\xd0\x02\0\0", "4.13.1"),
    ]
}

fn disconnect() -> Vec<Case> {
    vec![
        good("3.14", "DISCONNECT", ALL, b"\xe0\0", Packet::Disconnect(NORMAL)),
        good("3.14.2.1", "DISCONNECT that spells normal out", V5, b"\xe0\x01\0",
            Packet::Disconnect(NORMAL))
            .written(b"\xe0\0"),
        good("3.14.2.2.1", "DISCONNECT that spells out normal and no properties", V5,
            b"\xe0\x02\0\0", Packet::Disconnect(NORMAL))
            .written(b"\xe0\0"),
        good("3.14.2.1", "DISCONNECT with will", V5, b"\xe0\x02\x04\0",
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::DISCONNECT_WITH_WILL_MESSAGE,
                ..NORMAL
            })),
        good("3.14.2.2.1", "DISCONNECT with will, without property length", V5, b"\xe0\x01\x04",
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::DISCONNECT_WITH_WILL_MESSAGE,
                ..NORMAL
            }))
            .written(b"\xe0\x02\x04\0"),
        good("3.14.2.1", "DISCONNECT because of a takeover", V5, b"\xe0\x02\x8e\0",
            Packet::Disconnect(Disconnect { reason: ReasonCode::SESSION_TAKEN_OVER, ..NORMAL })),
        good("3.14.2.2", "DISCONNECT with every property", V5,
            b"\xe0\x1c\x9c\x1a\x11\0\0\0\x0a\x1f\0\x03why\x26\0\x01k\0\x01v\x1c\0\x05other",
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::USE_ANOTHER_SERVER,
                properties: properties(&[
                    Property::SessionExpiryInterval(10),
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                    Property::ServerReference("other"),
                ]),
            })),
        good("3.14.2.2", "DISCONNECT, normal but with a property", V5,
            b"\xe0\x07\0\x05\x11\0\0\0\0",
            Packet::Disconnect(Disconnect {
                properties: properties(&[Property::SessionExpiryInterval(0)]),
                ..NORMAL
            })),
        malformed("3.14.2", "DISCONNECT with a reason in 3.x", V3, b"\xe0\x01\0", "4.13.1"),
        protocol("3.14.2.1", "DISCONNECT with a reason of CONNACK", V5,
            b"\xe0\x01\x86", "MQTT-3.14.2-1"),
        protocol("3.14.2.1", "DISCONNECT with a reason that does not exist", V5,
            b"\xe0\x02\x7f\0", "MQTT-3.14.2-1"),
        malformed("3.14.2.2", "DISCONNECT with a receive maximum", V5,
            b"\xe0\x05\0\x03\x21\0\x01", "2.2.2.2"),
        malformed("3.14.3", "DISCONNECT with a payload", V5, b"\xe0\x03\0\0\0", "4.13.1"),
    ]
}

fn auth() -> Vec<Case> {
    let method = || properties(&[Property::AuthenticationMethod("SCRAM")]);
    vec![
        good("3.15.2.1", "AUTH with nothing in it", V5, b"\xf0\0",
            Packet::Auth(Auth { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY })),
        good("3.15", "AUTH, success", V5,
            b"\xf0\x0a\0\x08\x15\0\x05SCRAM",
            Packet::Auth(Auth { reason: ReasonCode::SUCCESS, properties: method() })),
        good("3.15", "AUTH, continue, with every property", V5,
            b"\xf0\x1c\x18\x1a\x15\0\x05SCRAM\x16\0\x02\0\xff\x1f\0\x03why\x26\0\x01k\0\x01v",
            Packet::Auth(Auth {
                reason: ReasonCode::CONTINUE_AUTHENTICATION,
                properties: properties(&[
                    Property::AuthenticationMethod("SCRAM"),
                    Property::AuthenticationData(&[0, 0xFF]),
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                ]),
            })),
        good("3.15", "AUTH, again", V5,
            b"\xf0\x0a\x19\x08\x15\0\x05SCRAM",
            Packet::Auth(Auth { reason: ReasonCode::RE_AUTHENTICATE, properties: method() })),
        malformed("3.15", "AUTH before 5.0", V3, b"\xf0\x0a\x18\x08\x15\0\x05SCRAM", "3.1.1 2.2.1"),
        protocol("3.15.2.1", "AUTH with a reason of others", V5,
            b"\xf0\x0a\x87\x08\x15\0\x05SCRAM", "MQTT-3.15.2-1"),
        protocol("3.15.2.2.2", "AUTH without method", V5, b"\xf0\x02\x18\0", "3.15.2.2.2"),
        protocol("3.15.2.2.2", "AUTH with a reason only", V5, b"\xf0\x01\x18", "3.15.2.2.2"),
        protocol("3.15.2.2.2", "AUTH with data but no method", V5,
            b"\xf0\x06\x18\x04\x16\0\x01\0", "3.1.2.11.10"),
        protocol("3.15.2.2.2", "AUTH with two methods", V5,
            b"\xf0\x0a\x18\x08\x15\0\x01a\x15\0\x01a", "2.2.2.2"),
        malformed("3.15.2.2", "AUTH with a session expiry", V5,
            b"\xf0\x0b\x18\x09\x15\0\x01a\x11\0\0\0\x01", "2.2.2.2"),
        malformed("3.15.3", "AUTH with a payload", V5,
            b"\xf0\x07\x18\x04\x15\0\x01a\0", "4.13.1"),
    ]
}
