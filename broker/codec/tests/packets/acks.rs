//! 3.4 to 3.7: PUBACK, PUBREC, PUBREL, PUBCOMP.

use codec::{Ack, Packet, Properties, Property, ReasonCode};

use super::*;

const ACK: Ack<'static> = Ack {
    packet_id: std::num::NonZeroU16::MIN,
    reason: ReasonCode::SUCCESS,
    properties: Properties::EMPTY,
};

pub fn cases() -> Vec<Case> {
    [well_formed(), refused_ones()].concat()
}

fn well_formed() -> Vec<Case> {
    let why = || properties(&[Property::ReasonString("why"), Property::UserProperty("k", "v")]);
    vec![
        good("3.4", "PUBACK", ALL, b"\x40\x02\0\x01", Packet::PubAck(ACK)),
        good("3.5", "PUBREC", ALL, b"\x50\x02\0\x01", Packet::PubRec(ACK)),
        good("3.6", "PUBREL", ALL, b"\x62\x02\0\x01", Packet::PubRel(ACK)),
        good("3.7", "PUBCOMP", ALL, b"\x70\x02\0\x01", Packet::PubComp(ACK)),
        good("3.4", "PUBACK of the highest packet identifier", ALL, b"\x40\x02\xff\xff",
            Packet::PubAck(Ack::success(id(65_535)))),
        good("3.4.2.1", "PUBACK with a reason", V5, b"\x40\x03\0\x01\x10",
            Packet::PubAck(Ack { reason: ReasonCode::NO_MATCHING_SUBSCRIBERS, ..ACK })),
        good("3.5.2.1", "PUBREC with a reason", V5, b"\x50\x03\0\x01\x97",
            Packet::PubRec(Ack { reason: ReasonCode::QUOTA_EXCEEDED, ..ACK })),
        good("3.6.2.1", "PUBREL with a reason", V5, b"\x62\x03\0\x01\x92",
            Packet::PubRel(Ack { reason: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND, ..ACK })),
        good("3.7.2.1", "PUBCOMP with a reason", V5, b"\x70\x03\0\x01\x92",
            Packet::PubComp(Ack { reason: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND, ..ACK })),
        good("3.4.2.1", "PUBACK that spells success out", V5, b"\x40\x03\0\x01\0",
            Packet::PubAck(ACK))
            .written(b"\x40\x02\0\x01"),
        good("3.4.2.2.1", "PUBACK that spells out success and no properties", V5,
            b"\x40\x04\0\x01\0\0", Packet::PubAck(ACK))
            .written(b"\x40\x02\0\x01"),
        good("3.6.2.2.1", "PUBREL with a reason and no properties", V5,
            b"\x62\x04\0\x01\x92\0",
            Packet::PubRel(Ack { reason: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND, ..ACK }))
            .written(b"\x62\x03\0\x01\x92"),
        good("3.4.2.2", "PUBACK with properties", V5,
            b"\x40\x11\0\x01\x80\x0d\x1f\0\x03why\x26\0\x01k\0\x01v",
            Packet::PubAck(Ack {
                reason: ReasonCode::UNSPECIFIED_ERROR,
                properties: why(),
                ..ACK
            })),
        good("3.5.2.2", "PUBREC with properties", V5,
            b"\x50\x11\0\x01\x87\x0d\x1f\0\x03why\x26\0\x01k\0\x01v",
            Packet::PubRec(Ack {
                reason: ReasonCode::NOT_AUTHORIZED,
                properties: why(),
                ..ACK
            })),
        good("3.6.2.2", "PUBREL with properties", V5,
            b"\x62\x11\0\x01\0\x0d\x1f\0\x03why\x26\0\x01k\0\x01v",
            Packet::PubRel(Ack { properties: why(), ..ACK })),
        good("3.7.2.2", "PUBCOMP with properties", V5,
            b"\x70\x11\0\x01\0\x0d\x1f\0\x03why\x26\0\x01k\0\x01v",
            Packet::PubComp(Ack { properties: why(), ..ACK })),
    ]
}

fn refused_ones() -> Vec<Case> {
    vec![
        malformed("3.4", "PUBACK without packet identifier", ALL, b"\x40\0", "4.13.1"),
        malformed("3.5", "PUBREC with half a packet identifier", ALL, b"\x50\x01\0", "4.13.1"),
        protocol("2.2.1", "PUBACK of packet identifier 0", ALL, b"\x40\x02\0\0", "MQTT-2.2.1-3"),
        protocol("2.2.1", "PUBREC of packet identifier 0", ALL, b"\x50\x02\0\0", "MQTT-2.2.1-3"),
        protocol("2.2.1", "PUBREL of packet identifier 0", ALL, b"\x62\x02\0\0", "MQTT-2.2.1-3"),
        protocol("2.2.1", "PUBCOMP of packet identifier 0", ALL, b"\x70\x02\0\0", "MQTT-2.2.1-3"),
        malformed("3.4.2", "PUBACK with a reason in 3.x", V3, b"\x40\x03\0\x01\0", "4.13.1"),
        malformed("3.7.2", "PUBCOMP with properties in 3.x", V3,
            b"\x70\x04\0\x01\0\0", "4.13.1"),
        protocol("3.4.2.1", "PUBACK with a reason of PUBREL", V5,
            b"\x40\x03\0\x01\x92", "MQTT-3.4.2-1"),
        protocol("3.5.2.1", "PUBREC with a reason that does not exist", V5,
            b"\x50\x03\0\x01\x7f", "MQTT-3.5.2-1"),
        protocol("3.6.2.1", "PUBREL with a reason of PUBACK", V5,
            b"\x62\x03\0\x01\x10", "MQTT-3.6.2-1"),
        protocol("3.7.2.1", "PUBCOMP with a reason of PUBACK", V5,
            b"\x70\x03\0\x01\x80", "MQTT-3.7.2-1"),
        malformed("3.4.2.2", "PUBACK with a property of PUBLISH", V5,
            b"\x40\x06\0\x01\0\x02\x01\x01", "2.2.2.2"),
        protocol("3.4.2.2.2", "PUBACK with two reason strings", V5,
            b"\x40\x0c\0\x01\0\x08\x1f\0\x01a\x1f\0\x01a", "2.2.2.2"),
        malformed("3.4.3", "PUBACK with a payload", V5,
            b"\x40\x05\0\x01\0\0\0", "4.13.1"),
        malformed("3.6.2.2", "PUBREL with properties that are too long", V5,
            b"\x62\x05\0\x01\0\x02\x1f", "4.13.1"),
    ]
}
