//! 3.1: CONNECT. It carries its own version, so what the decoder is told
//! makes no difference: nearly all cases are for every version.

use codec::{Connect, Packet, Properties, Property, Qos, ReasonCode, Version, Will};

use super::*;

const CONNECT: Connect<'static> = Connect {
    version: Version::V311,
    clean_start: true,
    keep_alive: 60,
    client_id: "a",
    will: None,
    username: None,
    password: None,
    properties: Properties::EMPTY,
};

const WILL: Will<'static> = Will {
    topic: "w",
    payload: b"m",
    qos: Qos::AtMostOnce,
    retain: false,
    properties: Properties::EMPTY,
};

pub fn cases() -> Vec<Case> {
    [well_formed(), name_and_version(), flags_and_payload(), in_5_0()].concat()
}

fn well_formed() -> Vec<Case> {
    vec![
        good("3.1", "the least of 3.1", ALL,
            b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a",
            Packet::Connect(Connect { version: Version::V31, ..CONNECT })),
        good("3.1", "the least of 3.1.1", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a",
            Packet::Connect(CONNECT)),
        good("3.1", "the least of 5.0", ALL,
            b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a",
            Packet::Connect(Connect { version: Version::V5, ..CONNECT })),
        good("3.1.2.4", "without clean start, without keep alive", ALL,
            b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01a",
            Packet::Connect(Connect { clean_start: false, keep_alive: 0, ..CONNECT })),
        good("3.1.2.10", "the longest keep alive", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x02\xff\xff\0\x01a",
            Packet::Connect(Connect { keep_alive: u16::MAX, ..CONNECT })),
        good("3.1.3.1", "an empty client identifier", ALL,
            b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
            Packet::Connect(Connect { client_id: "", ..CONNECT })),
        good("3.1.3.1", "a client identifier longer than the 23 bytes of 3.1", ALL,
            b"\x10\x32\0\x06MQIsdp\x03\x02\0\x3c\0\x24a-client-identifier-of-34-characters",
            Packet::Connect(Connect {
                version: Version::V31,
                client_id: "a-client-identifier-of-34-characters",
                ..CONNECT
            })),
        good("3.1.2.5", "a will in 3.1", ALL,
            b"\x10\x15\0\x06MQIsdp\x03\x36\0\x3c\0\x01a\0\x01w\0\x01m",
            Packet::Connect(Connect {
                version: Version::V31,
                will: Some(Will { qos: Qos::ExactlyOnce, retain: true, ..WILL }),
                ..CONNECT
            })),
        good("3.1.2.5", "a will of QoS 1", ALL,
            b"\x10\x13\0\x04MQTT\x04\x0e\0\x3c\0\x01a\0\x01w\0\x01m",
            Packet::Connect(Connect {
                will: Some(Will { qos: Qos::AtLeastOnce, ..WILL }),
                ..CONNECT
            })),
        good("3.1.3.4", "an empty will payload", ALL,
            b"\x10\x12\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\x01w\0\0",
            Packet::Connect(Connect { will: Some(Will { payload: b"", ..WILL }), ..CONNECT })),
        good("3.1.3.4", "a will payload that is no text", ALL,
            b"\x10\x15\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\x01w\0\x03\xff\0\xfe",
            Packet::Connect(Connect {
                will: Some(Will { payload: &[0xFF, 0, 0xFE], ..WILL }),
                ..CONNECT
            })),
        good("3.1.3.5", "user name and password", ALL,
            b"\x10\x19\0\x04MQTT\x04\xc2\0\x3c\0\x01a\0\x04user\0\x04pw\0\xff",
            Packet::Connect(Connect {
                username: Some("user"),
                password: Some(b"pw\0\xff"),
                ..CONNECT
            })),
        good("3.1.3.5", "empty user name and password", ALL,
            b"\x10\x11\0\x04MQTT\x04\xc2\0\x3c\0\x01a\0\0\0\0",
            Packet::Connect(Connect { username: Some(""), password: Some(b""), ..CONNECT })),
        good("3.1.3.5", "a user name without password", ALL,
            b"\x10\x13\0\x04MQTT\x04\x82\0\x3c\0\x01a\0\x04user",
            Packet::Connect(Connect { username: Some("user"), ..CONNECT })),
        good("3.1.2.9", "a password without user name, in 5.0", ALL,
            b"\x10\x12\0\x04MQTT\x05\x42\0\x3c\0\0\x01a\0\x02pw",
            Packet::Connect(Connect {
                version: Version::V5,
                password: Some(b"pw"),
                ..CONNECT
            })),
        good("3.1", "everything of 3.1.1", ALL,
            b"\x10\x1d\0\x04MQTT\x04\xf4\0\x3c\0\x01a\0\x01w\0\x01m\0\x04user\0\x02pw",
            Packet::Connect(Connect {
                clean_start: false,
                will: Some(Will { qos: Qos::ExactlyOnce, retain: true, ..WILL }),
                username: Some("user"),
                password: Some(b"pw"),
                ..CONNECT
            })),
        // What 3.1 tolerates, each written without it.
        good("3.1.2.3", "3.1 does not use the lowest connect flag", ALL,
            b"\x10\x0f\0\x06MQIsdp\x03\x03\0\x3c\0\x01a",
            Packet::Connect(Connect { version: Version::V31, ..CONNECT }))
            .written(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        good("3.1.2.6", "3.1 disregards the will's QoS and retain without a will", ALL,
            b"\x10\x0f\0\x06MQIsdp\x03\x3a\0\x3c\0\x01a",
            Packet::Connect(Connect { version: Version::V31, ..CONNECT }))
            .written(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        good("3.1.2.8", "3.1 allows the user name to be missing", ALL,
            b"\x10\x0f\0\x06MQIsdp\x03\xc2\0\x3c\0\x01a",
            Packet::Connect(Connect { version: Version::V31, ..CONNECT }))
            .written(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        good("3.1.2.8", "3.1 allows the password to be missing", ALL,
            b"\x10\x15\0\x06MQIsdp\x03\xc2\0\x3c\0\x01a\0\x04user",
            Packet::Connect(Connect {
                version: Version::V31,
                username: Some("user"),
                ..CONNECT
            }))
            .written(b"\x10\x15\0\x06MQIsdp\x03\x82\0\x3c\0\x01a\0\x04user"),
    ]
}

fn name_and_version() -> Vec<Case> {
    let unsupported = |name, bytes| {
        refused("3.1.2.2", name, ALL, bytes, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION)
    };
    vec![
        unsupported("version 6", b"\x10\x0e\0\x04MQTT\x06\x02\0\x3c\0\0\x01a"),
        unsupported("version 0", b"\x10\x0d\0\x04MQTT\0\x02\0\x3c\0\x01a"),
        unsupported("version 3 with the name of later ones", b"\x10\x0d\0\x04MQTT\x03\x02\0\x3c\0\x01a"),
        unsupported("version 4 with the name of 3.1", b"\x10\x0f\0\x06MQIsdp\x04\x02\0\x3c\0\x01a"),
        unsupported("a private version, as bridges announce themselves",
            b"\x10\x0d\0\x04MQTT\x84\x02\0\x3c\0\x01a"),
        unsupported("a version of which nothing else is known", b"\x10\x07\0\x04MQTT\x09"),
        unsupported("the name in lower case", b"\x10\x0d\0\x04mqtt\x04\x02\0\x3c\0\x01a"),
        unsupported("an empty name", b"\x10\x09\0\0\x04\x02\0\x3c\0\x01a"),
        malformed("3.1.2.1", "an empty packet", ALL, b"\x10\0", "4.13.1"),
        malformed("3.1.2.1", "a name longer than the packet", ALL,
            b"\x10\x06\xff\xffMQTT", "4.13.1"),
        malformed("3.1.2.2", "nothing after the name", ALL, b"\x10\x06\0\x04MQTT", "4.13.1"),
    ]
}

fn flags_and_payload() -> Vec<Case> {
    vec![
        malformed("3.1.2.3", "the reserved flag in 3.1.1", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x03\0\x3c\0\x01a", "MQTT-3.1.2-3"),
        malformed("3.1.2.3", "the reserved flag in 5.0", ALL,
            b"\x10\x0e\0\x04MQTT\x05\x03\0\x3c\0\0\x01a", "MQTT-3.1.2-3"),
        malformed("3.1.2.6", "a will QoS without will", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x0a\0\x3c\0\x01a", "MQTT-3.1.2-11"),
        malformed("3.1.2.6", "will QoS 3", ALL,
            b"\x10\x13\0\x04MQTT\x04\x1e\0\x3c\0\x01a\0\x01w\0\x01m", "MQTT-3.1.2-12"),
        malformed("3.1.2.6", "will QoS 3 in 3.1", ALL,
            b"\x10\x15\0\x06MQIsdp\x03\x1e\0\x3c\0\x01a\0\x01w\0\x01m", "MQTT-3.1.2-12"),
        malformed("3.1.2.7", "a will retain flag without will", ALL,
            b"\x10\x0e\0\x04MQTT\x05\x22\0\x3c\0\0\x01a", "MQTT-3.1.2-13"),
        protocol("3.1.2.9", "a password without user name, in 3.1.1", ALL,
            b"\x10\x11\0\x04MQTT\x04\x42\0\x3c\0\x01a\0\x02pw", "3.1.1 MQTT-3.1.2-22"),
        protocol("3.1.2.9", "a password without user name, in 3.1", ALL,
            b"\x10\x13\0\x06MQIsdp\x03\x42\0\x3c\0\x01a\0\x02pw", "3.1.1 MQTT-3.1.2-22"),
        malformed("3.1.2.10", "half a keep alive", ALL,
            b"\x10\x09\0\x04MQTT\x04\x02\0", "4.13.1"),
        malformed("3.1.3.1", "no client identifier", ALL,
            b"\x10\x0a\0\x04MQTT\x04\x02\0\x3c", "4.13.1"),
        malformed("3.1.3.3", "a will flag without will topic", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x06\0\x3c\0\x01a", "4.13.1"),
        malformed("3.1.3.4", "a will flag without will payload", ALL,
            b"\x10\x10\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\x01w", "4.13.1"),
        malformed("3.1.3.5", "a user name flag without user name", ALL,
            b"\x10\x0d\0\x04MQTT\x04\x82\0\x3c\0\x01a", "4.13.1"),
        malformed("3.1.3.6", "a password flag without password", ALL,
            b"\x10\x13\0\x04MQTT\x04\xc2\0\x3c\0\x01a\0\x04user", "4.13.1"),
        malformed("3.1.3", "more than was announced", ALL,
            b"\x10\x13\0\x04MQTT\x04\x02\0\x3c\0\x01a\0\x04user", "4.13.1"),
        malformed("3.1.3.5", "a user name that is not UTF-8", ALL,
            b"\x10\x11\0\x04MQTT\x04\x82\0\x3c\0\x01a\0\x02\xc3\x28", "MQTT-1.5.4-1"),
        refused("3.1.3.3", "a will topic with a wildcard", ALL,
            b"\x10\x15\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\x03w/#\0\x01m", ReasonCode::TOPIC_NAME_INVALID),
        refused("3.1.3.3", "an empty will topic", ALL,
            b"\x10\x12\0\x04MQTT\x04\x06\0\x3c\0\x01a\0\0\0\x01m", ReasonCode::TOPIC_NAME_INVALID),
    ]
}

fn in_5_0() -> Vec<Case> {
    vec![
        good("3.1.2.11", "every property", ALL,
            b"\x10\x36\0\x04MQTT\x05\x02\0\x3c\x28\x11\0\0\0\x0a\x21\0\x14\x27\0\x01\0\0\x22\0\x05\x19\x01\x17\0\x26\0\x01k\0\x01v\x15\0\x05PLAIN\x16\0\x02\0\xff\0\x01a",
            Packet::Connect(Connect {
                version: Version::V5,
                properties: properties(&[
                    Property::SessionExpiryInterval(10),
                    Property::ReceiveMaximum(20),
                    Property::MaximumPacketSize(65_536),
                    Property::TopicAliasMaximum(5),
                    Property::RequestResponseInformation(true),
                    Property::RequestProblemInformation(false),
                    Property::UserProperty("k", "v"),
                    Property::AuthenticationMethod("PLAIN"),
                    Property::AuthenticationData(&[0, 0xFF]),
                ]),
                ..CONNECT
            })),
        good("3.1.3.2", "every property of a will", ALL,
            b"\x10\x44\0\x04MQTT\x05\x16\0\x3c\0\0\x01a\x2f\x18\0\0\0\x1e\x01\x01\x02\0\0\0\x3c\x03\0\x04text\x08\0\x06re/ply\x09\0\x02\x01\x02\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w\0\x01w\0\x01m",
            Packet::Connect(Connect {
                version: Version::V5,
                will: Some(Will {
                    qos: Qos::ExactlyOnce,
                    properties: properties(&[
                        Property::WillDelayInterval(30),
                        Property::PayloadFormatIndicator(1),
                        Property::MessageExpiryInterval(60),
                        Property::ContentType("text"),
                        Property::ResponseTopic("re/ply"),
                        Property::CorrelationData(&[1, 2]),
                        Property::UserProperty("k", "v"),
                        Property::UserProperty("k", "w"),
                    ]),
                    ..WILL
                }),
                ..CONNECT
            })),
        malformed("3.1.2.11", "no property length", ALL,
            b"\x10\x0a\0\x04MQTT\x05\x02\0\x3c", "4.13.1"),
        malformed("3.1.2.11", "a property of PUBLISH", ALL,
            b"\x10\x11\0\x04MQTT\x05\x02\0\x3c\x03\x23\0\x01\0\x01a", "2.2.2.2"),
        malformed("3.1.2.11", "a will delay outside the will", ALL,
            b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\x05\x18\0\0\0\x01\0\x01a", "2.2.2.2"),
        malformed("3.1.3.2", "a topic alias in a will", ALL,
            b"\x10\x18\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\x03\x23\0\x01\0\x01w\0\x01m", "2.2.2.2"),
        protocol("3.1.2.11.2", "session expiry twice", ALL,
            b"\x10\x18\0\x04MQTT\x05\x02\0\x3c\x0a\x11\0\0\0\x01\x11\0\0\0\x01\0\x01a", "2.2.2.2"),
        protocol("3.1.3.2.2", "will delay twice", ALL,
            b"\x10\x1f\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\x0a\x18\0\0\0\x01\x18\0\0\0\x01\0\x01w\0\x01m", "2.2.2.2"),
    ]
}
