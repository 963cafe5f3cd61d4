//! 3.3: PUBLISH.

use codec::{Packet, Properties, Property, Publish, Qos, ReasonCode};

use super::*;

const HELLO: Publish<'static> = Publish {
    dup: false,
    qos: Qos::AtMostOnce,
    retain: false,
    topic: "a/b",
    packet_id: None,
    properties: Properties::EMPTY,
    payload: b"hello",
};

pub fn cases() -> Vec<Case> {
    [flags_and_topic(), in_5_0()].concat()
}

fn flags_and_topic() -> Vec<Case> {
    let publish = |name, bytes, publish| good("3.3.1", name, V3, bytes, Packet::Publish(publish));
    vec![
        publish("QoS 0", b"\x30\x0a\0\x03a/bhello", HELLO),
        publish("QoS 0, retained", b"\x31\x0a\0\x03a/bhello", Publish { retain: true, ..HELLO }),
        publish("QoS 1", b"\x32\x0c\0\x03a/b\0\x0ahello",
            Publish { qos: Qos::AtLeastOnce, packet_id: Some(id(10)), ..HELLO }),
        publish("QoS 1, repeated and retained", b"\x3b\x0c\0\x03a/b\0\x0ahello",
            Publish {
                dup: true,
                qos: Qos::AtLeastOnce,
                retain: true,
                packet_id: Some(id(10)),
                ..HELLO
            }),
        publish("QoS 2", b"\x34\x0c\0\x03a/b\xff\xffhello",
            Publish { qos: Qos::ExactlyOnce, packet_id: Some(id(65_535)), ..HELLO }),
        publish("QoS 2, repeated", b"\x3c\x0c\0\x03a/b\0\x01hello",
            Publish { dup: true, qos: Qos::ExactlyOnce, packet_id: Some(id(1)), ..HELLO }),
        good("3.3.3", "an empty payload", V3, b"\x31\x05\0\x03a/b",
            Packet::Publish(Publish { retain: true, payload: b"", ..HELLO })),
        good("3.3.3", "a payload that is no text", V3, b"\x30\x08\0\x03a/b\0\xff\x80",
            Packet::Publish(Publish { payload: &[0, 0xFF, 0x80], ..HELLO })),
        good("4.7.2", "a topic that begins with $", V3, b"\x30\x0d\0\x06$SYS/ahello",
            Packet::Publish(Publish { topic: "$SYS/a", ..HELLO })),
        good("4.7.3", "empty levels and spaces", V3, b"\x30\x0b\0\x04/ //hello",
            Packet::Publish(Publish { topic: "/ //", ..HELLO })),
        malformed("3.3.1.2", "QoS 3", ALL, b"\x36\x0c\0\x03a/b\0\x0ahello", "MQTT-3.3.1-4"),
        malformed("3.3.1.2", "QoS 3, repeated", ALL, b"\x3e\x0c\0\x03a/b\0\x0ahello", "MQTT-3.3.1-4"),
        malformed("3.3.1.1", "DUP with QoS 0", ALL, b"\x38\x0a\0\x03a/bhello", "MQTT-3.3.1-2"),
        refused("3.3.2.1", "a wildcard # in the topic", ALL, b"\x30\x06\0\x03a/#\0",
            ReasonCode::TOPIC_NAME_INVALID),
        refused("3.3.2.1", "a wildcard + in the topic", ALL, b"\x30\x06\0\x03+/b\0",
            ReasonCode::TOPIC_NAME_INVALID),
        refused("3.3.2.1", "a + inside a level", ALL, b"\x30\x06\0\x03a+b\0",
            ReasonCode::TOPIC_NAME_INVALID),
        refused("3.3.2.1", "an empty topic in 3.x", V3, b"\x30\x07\0\0hello",
            ReasonCode::TOPIC_NAME_INVALID),
        malformed("3.3.2.1", "no topic", ALL, b"\x30\0", "4.13.1"),
        malformed("3.3.2.1", "a topic longer than the packet", ALL,
            b"\x30\x05\xff\xffa/b", "4.13.1"),
        malformed("3.3.2.2", "QoS 1 without packet identifier", ALL, b"\x32\x05\0\x03a/b", "4.13.1"),
        malformed("3.3.2.2", "half a packet identifier", ALL, b"\x34\x06\0\x03a/b\0", "4.13.1"),
        protocol("2.2.1", "QoS 1 with packet identifier 0", ALL,
            b"\x32\x08\0\x03a/b\0\0\0", "MQTT-2.2.1-3"),
        protocol("2.2.1", "QoS 2 with packet identifier 0", ALL,
            b"\x34\x08\0\x03a/b\0\0\0", "MQTT-2.2.1-3"),
    ]
}

fn in_5_0() -> Vec<Case> {
    vec![
        good("3.3", "QoS 0 in 5.0", V5, b"\x30\x0b\0\x03a/b\0hello", Packet::Publish(HELLO)),
        good("3.3", "QoS 1 in 5.0", V5, b"\x32\x0d\0\x03a/b\0\x0a\0hello",
            Packet::Publish(Publish {
                qos: Qos::AtLeastOnce,
                packet_id: Some(id(10)),
                ..HELLO
            })),
        good("3.3", "QoS 2 in 5.0, without payload", V5, b"\x3d\x08\0\x03a/b\0\x0a\0",
            Packet::Publish(Publish {
                dup: true,
                qos: Qos::ExactlyOnce,
                retain: true,
                packet_id: Some(id(10)),
                payload: b"",
                ..HELLO
            })),
        good("3.3.2.3", "every property", V5,
            b"\x34\x45\0\x03a/b\0\x0a\x38\x01\x01\x02\0\0\0\x3c\x23\0\x07\x08\0\x06re/ply\x09\0\x02\0\xff\x26\0\x01k\0\x01v\x26\0\0\0\0\x0b\x01\x0b\xff\xff\xff\x7f\x03\0\x0atext/plainhello",
            Packet::Publish(Publish {
                qos: Qos::ExactlyOnce,
                packet_id: Some(id(10)),
                properties: properties(&[
                    Property::PayloadFormatIndicator(1),
                    Property::MessageExpiryInterval(60),
                    Property::TopicAlias(7),
                    Property::ResponseTopic("re/ply"),
                    Property::CorrelationData(&[0, 0xFF]),
                    Property::UserProperty("k", "v"),
                    Property::UserProperty("", ""),
                    Property::SubscriptionIdentifier(1),
                    Property::SubscriptionIdentifier(268_435_455),
                    Property::ContentType("text/plain"),
                ]),
                ..HELLO
            })),
        good("3.3.2.3", "properties of more than 127 bytes", V5,
            b"\x30\x9d\x01\0\x03a/b\x91\x01\x26\0\x460123456789012345678901234567890123456789012345678901234567890123456789\0\x460123456789012345678901234567890123456789012345678901234567890123456789hello",
            Packet::Publish(Publish {
                properties: properties(&[Property::UserProperty(
                    "0123456789012345678901234567890123456789012345678901234567890123456789",
                    "0123456789012345678901234567890123456789012345678901234567890123456789",
                )]),
                ..HELLO
            })),
        good("3.3.2.3.4", "a topic alias instead of the topic", V5,
            b"\x30\x0b\0\0\x03\x23\0\x01hello",
            Packet::Publish(Publish {
                topic: "",
                properties: properties(&[Property::TopicAlias(1)]),
                ..HELLO
            })),
        protocol("3.3.2.1", "neither topic nor alias", V5,
            b"\x30\x08\0\0\0hello", "3.3.2.1"),
        protocol("3.3.2.1", "neither topic nor alias, but another property", V5,
            b"\x30\x0a\0\0\x02\x01\x01hello", "3.3.2.1"),
        protocol("3.3.2.3.4", "a topic alias twice", V5,
            b"\x30\x11\0\x03a/b\x06\x23\0\x01\x23\0\x01hello", "2.2.2.2"),
        protocol("3.3.2.3.3", "message expiry twice", V5,
            b"\x30\x15\0\x03a/b\x0a\x02\0\0\0\x01\x02\0\0\0\x01hello", "2.2.2.2"),
        malformed("3.3.2.3", "a will delay", V5,
            b"\x30\x10\0\x03a/b\x05\x18\0\0\0\x01hello", "2.2.2.2"),
        malformed("3.3.2.3", "a reason string", V5,
            b"\x30\x11\0\x03a/b\x06\x1f\0\x03whyhello", "2.2.2.2"),
    ]
}
