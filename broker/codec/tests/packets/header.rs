//! 2.1: the fixed header, and what is no MQTT at all.

use codec::{Ack, Connect, Packet, Properties, ReasonCode, Version};

use super::*;

pub fn cases() -> Vec<Case> {
    vec![
        // 2.1.2 packet type
        malformed("2.1.2", "packet type 0", ALL, b"\0\0", "2.1.2"),
        malformed("2.1.2", "packet type 15 before 5.0", V3,
            b"\xf0\0", "3.1.1 2.2.1"),
        // 2.1.3 flags
        malformed("2.1.3", "CONNECT of 3.1.1 with a flag", ALL,
            b"\x11\x0e\0\x04MQTT\x04\x02\0\0\0\x02id", "MQTT-2.1.3-1"),
        malformed("2.1.3", "CONNECT of 5.0 with a flag", ALL,
            b"\x18\x0f\0\x04MQTT\x05\x02\0\0\0\0\x02id", "MQTT-2.1.3-1"),
        good("2.1.3", "CONNECT of 3.1 with flags, of which it makes no use", V31,
            b"\x1b\x10\0\x06MQIsdp\x03\x02\0\0\0\x02id",
            Packet::Connect(Connect {
                version: Version::V31, clean_start: true, keep_alive: 0, client_id: "id",
                will: None, username: None, password: None, properties: Properties::EMPTY,
            }))
            .written(b"\x10\x10\0\x06MQIsdp\x03\x02\0\0\0\x02id"),
        malformed("2.1.3", "CONNACK with a flag", ALL, b"\x22\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PUBACK with a flag", ALL, b"\x42\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PUBREC with a flag", ALL, b"\x52\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PUBREL without its flag", ALL, b"\x60\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PUBREL with the retain flag", ALL,
            b"\x63\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PUBREL with DUP", V311_AND_V5,
            b"\x6a\x02\0\x01", "MQTT-2.1.3-1"),
        good("2.1.3", "PUBREL with DUP, as 3.1 repeats it", V31,
            b"\x6a\x02\0\x01",
            Packet::PubRel(Ack::success(id(1))))
            .written(b"\x62\x02\0\x01"),
        malformed("2.1.3", "PUBCOMP with a flag", ALL, b"\x71\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "SUBSCRIBE without its flag", ALL,
            b"\x80\x06\0\x01\0\x01t\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "SUBSCRIBE with DUP", V311_AND_V5,
            b"\x8a\x06\0\x01\0\x01t\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "SUBACK with a flag", ALL, b"\x92\x03\0\x01\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "UNSUBSCRIBE without its flag", ALL,
            b"\xa0\x05\0\x01\0\x01t", "MQTT-2.1.3-1"),
        malformed("2.1.3", "UNSUBSCRIBE with DUP", V311_AND_V5,
            b"\xaa\x05\0\x01\0\x01t", "MQTT-2.1.3-1"),
        malformed("2.1.3", "UNSUBACK with a flag", ALL, b"\xb2\x02\0\x01", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PINGREQ with a flag", ALL, b"\xc8\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "PINGRESP with a flag", ALL, b"\xd1\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "DISCONNECT with a flag", ALL, b"\xe1\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "AUTH with a flag", ALL, b"\xf1\0", "MQTT-2.1.3-1"),
        // 2.1.4 remaining length
        malformed("2.1.4", "a remaining length of more than four bytes", ALL,
            b"\x30\xff\xff\xff\xff\x01", "1.5.5"),
        good("2.1.4", "a padded remaining length, which only 5.0 forbids", V3,
            b"\x40\x82\0\0\x01",
            Packet::PubAck(Ack::success(id(1))))
            .written(b"\x40\x02\0\x01"),
        malformed("2.1.4", "a padded remaining length", V5,
            b"\x40\x82\0\0\x01", "MQTT-1.5.5-1"),
        malformed("2.1.4", "a padded remaining length of a CONNECT in 5.0", V5,
            b"\x10\x8e\0\0\x04MQTT\x05\x02\0\x3c\0\0\x01a", "MQTT-1.5.5-1"),
        // What other protocols send first
        malformed("2.1.3", "an HTTP request", ALL,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "MQTT-2.1.3-1"),
        malformed("2.1.3", "a TLS client hello", ALL,
            b"\x16\x03\x01\0\x05\x01\0\0\x01\0", "MQTT-2.1.3-1"),
        malformed("2.1.3", "an SSH banner", ALL, b"SSH-2.0-client\r\n", "MQTT-2.1.3-1"),
        refused("3.1.2.1", "another protocol in the shape of a CONNECT", ALL,
            b"\x10\x0e\0\x04AMQP\x05\x02\0\x3c\0\0\x01a",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
    ]
}
