//! 3.8 to 3.11: SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.

use codec::{
    Packet, Properties, Property, Qos, RetainHandling, SubAck, SubscribeFilter,
    SubscriptionOptions, UnsubAck,
};

use super::*;

pub fn cases() -> Vec<Case> {
    [subscribe(), suback(), unsubscribe(), unsuback()].concat()
}

const fn filter(filter: &'static str, qos: Qos) -> SubscribeFilter<'static> {
    let options = SubscriptionOptions::with_qos(qos);
    SubscribeFilter { filter, options }
}

fn good_subscribe(
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    properties: Properties<'static>,
    filters: &[SubscribeFilter<'static>],
) -> Case {
    let packet_id = id(10);
    let filters = filters.to_vec().leak();
    let subscribe = Expect::Subscribe { packet_id, properties, filters };
    expect("3.8", name, versions, bytes, subscribe)
}

fn subscribe() -> Vec<Case> {
    vec![
        good_subscribe("one filter", V3,
            b"\x82\x08\0\x0a\0\x03a/b\x01",
            Properties::EMPTY,
            &[filter("a/b", Qos::AtLeastOnce)]),
        good_subscribe("every QoS, wildcards and a shared subscription", V3,
            b"\x82\x19\0\x0a\0\x03a/+\0\0\x01#\x01\0\x0a$share/g/t\x02",
            Properties::EMPTY,
            &[
                filter("a/+", Qos::AtMostOnce),
                filter("#", Qos::AtLeastOnce),
                filter("$share/g/t", Qos::ExactlyOnce),
            ]),
        good_subscribe("filters that the server will refuse one by one", V3,
            b"\x82\x0d\0\x0a\0\x05a/#/b\0\0\0\x01",
            Properties::EMPTY,
            &[filter("a/#/b", Qos::AtMostOnce), filter("", Qos::AtLeastOnce)]),
        good_subscribe("one filter, in 5.0", V5,
            b"\x82\x09\0\x0a\0\0\x03a/b\x02",
            Properties::EMPTY,
            &[filter("a/b", Qos::ExactlyOnce)]),
        good_subscribe("every option and property, in 5.0", V5,
            b"\x82\x1d\0\x0a\x0a\x0b\x80\x01\x26\0\x01k\0\x01v\0\x01a\x04\0\x01b\x09\0\x01c\x12\0\x01d\x2e",
            properties(&[
                Property::SubscriptionIdentifier(128),
                Property::UserProperty("k", "v"),
            ]),
            &[
                SubscribeFilter {
                    filter: "a",
                    options: SubscriptionOptions {
                        no_local: true,
                        ..SubscriptionOptions::with_qos(Qos::AtMostOnce)
                    },
                },
                SubscribeFilter {
                    filter: "b",
                    options: SubscriptionOptions {
                        retain_as_published: true,
                        ..SubscriptionOptions::with_qos(Qos::AtLeastOnce)
                    },
                },
                SubscribeFilter {
                    filter: "c",
                    options: SubscriptionOptions {
                        retain_handling: RetainHandling::SendIfNew,
                        ..SubscriptionOptions::with_qos(Qos::ExactlyOnce)
                    },
                },
                SubscribeFilter {
                    filter: "d",
                    options: SubscriptionOptions {
                        qos: Qos::ExactlyOnce,
                        no_local: true,
                        retain_as_published: true,
                        retain_handling: RetainHandling::DoNotSend,
                    },
                },
            ]),
        good_subscribe("3.1 does not use six bits of the requested QoS", V31,
            b"\x82\x06\0\x0a\0\x01a\xfd",
            Properties::EMPTY,
            &[filter("a", Qos::AtLeastOnce)])
            .written(b"\x82\x06\0\x0a\0\x01a\x01"),
        good_subscribe("with DUP, as 3.1 repeats it", V31,
            b"\x8a\x06\0\x0a\0\x01a\x01",
            Properties::EMPTY,
            &[filter("a", Qos::AtLeastOnce)])
            .written(b"\x82\x06\0\x0a\0\x01a\x01"),
        protocol("2.2.1", "SUBSCRIBE with packet identifier 0", V3,
            b"\x82\x06\0\0\0\x01a\0", "MQTT-2.2.1-3"),
        malformed("3.8.2", "SUBSCRIBE without packet identifier", ALL, b"\x82\0", "4.13.1"),
        malformed("3.8.2.1", "SUBSCRIBE without property length", V5, b"\x82\x02\0\x0a", "4.13.1"),
        protocol("3.8.3", "SUBSCRIBE without filter", V3, b"\x82\x02\0\x0a", "MQTT-3.8.3-2"),
        protocol("3.8.3", "SUBSCRIBE without filter, in 5.0", V5,
            b"\x82\x03\0\x0a\0", "MQTT-3.8.3-2"),
        malformed("3.8.3", "SUBSCRIBE with a filter without options", V3,
            b"\x82\x05\0\x0a\0\x01a", "4.13.1"),
        malformed("3.8.3", "SUBSCRIBE with a second filter without options", V5,
            b"\x82\x0a\0\x0a\0\0\x01a\0\0\x01b", "4.13.1"),
        malformed("3.8.3", "SUBSCRIBE with a filter longer than the packet", V3,
            b"\x82\x06\0\x0a\0\x10a\0", "4.13.1"),
        protocol("3.8.3.1", "QoS 3 requested", V3, b"\x82\x06\0\x0a\0\x01a\x03", "3.8.3.1"),
        protocol("3.8.3.1", "QoS 3 requested, in 5.0", V5, b"\x82\x07\0\x0a\0\0\x01a\x03", "3.8.3.1"),
        protocol("3.8.3.1", "QoS 3 in the second filter", V3,
            b"\x82\x0a\0\x0a\0\x01a\0\0\x01b\x03", "3.8.3.1"),
        malformed("3.8.3.1", "an option of 5.0 in 3.1.1", V311,
            b"\x82\x06\0\x0a\0\x01a\x04", "3.1.1 MQTT-3.8.3-4"),
        malformed("3.8.3.1", "reserved bit 6", V5, b"\x82\x07\0\x0a\0\0\x01a\x40", "MQTT-3.8.3-5"),
        malformed("3.8.3.1", "reserved bit 7", V5, b"\x82\x07\0\x0a\0\0\x01a\x80", "MQTT-3.8.3-5"),
        protocol("3.8.3.1", "retain handling 3", V5, b"\x82\x07\0\x0a\0\0\x01a\x30", "3.8.3.1"),
        protocol("3.8.3.1", "no local on a shared subscription", V5,
            b"\x82\x10\0\x0a\0\0\x0a$share/g/t\x04", "MQTT-3.8.3-4"),
        protocol("3.8.2.1.2", "two subscription identifiers", V5,
            b"\x82\x0b\0\x0a\x04\x0b\x01\x0b\x02\0\x01a\0", "2.2.2.2"),
        protocol("3.8.2.1.2", "SUBSCRIBE with subscription identifier 0", V5,
            b"\x82\x09\0\x0a\x02\x0b\0\0\x01a\0", "3.8.2.1.2"),
        malformed("3.8.2.1", "SUBSCRIBE with a reason string", V5,
            b"\x82\x0d\0\x0a\x06\x1f\0\x03why\0\x01a\0", "2.2.2.2"),
    ]
}

fn suback() -> Vec<Case> {
    let suback = |reasons| SubAck {
        packet_id: id(10),
        properties: Properties::EMPTY,
        reasons,
    };
    vec![
        good("3.9", "SUBACK", V3,
            b"\x90\x06\0\x0a\0\x01\x02\x80", Packet::SubAck(suback(&[0, 1, 2, 0x80]))),
        good("3.9", "SUBACK in 5.0", V5,
            b"\x90\x0f\0\x0a\0\0\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
            Packet::SubAck(suback(&[
                0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
            ]))),
        good("3.9.2.1", "SUBACK with properties", V5,
            b"\x90\x11\0\x0a\x0d\x1f\0\x03why\x26\0\x01k\0\x01v\x87",
            Packet::SubAck(SubAck {
                properties: properties(&[
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                ]),
                ..suback(&[0x87])
            })),
        protocol("2.2.1", "SUBACK of packet identifier 0", V3,
            b"\x90\x03\0\0\0", "MQTT-2.2.1-3"),
        protocol("3.9.3", "SUBACK with granted QoS 3", V3, b"\x90\x03\0\x0a\x03", "MQTT-3.9.3-2"),
        protocol("3.9.3", "SUBACK with a failure of 5.0 in 3.x", V3,
            b"\x90\x03\0\x0a\x87", "MQTT-3.9.3-2"),
        protocol("3.9.3", "SUBACK with a reason of UNSUBACK", V5,
            b"\x90\x04\0\x0a\0\x11", "MQTT-3.9.3-2"),
        protocol("3.9.3", "SUBACK without reason code", V3, b"\x90\x02\0\x0a", "MQTT-3.9.3-2"),
        protocol("3.9.3", "SUBACK without reason code, in 5.0", V5,
            b"\x90\x03\0\x0a\0", "MQTT-3.9.3-2"),
        malformed("3.9.2", "SUBACK without packet identifier", ALL, b"\x90\0", "4.13.1"),
        malformed("3.9.2.1", "SUBACK with a subscription identifier", V5,
            b"\x90\x06\0\x0a\x02\x0b\x01\0", "2.2.2.2"),
    ]
}

fn good_unsubscribe(
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    properties: Properties<'static>,
    filters: &'static [&'static str],
) -> Case {
    let packet_id = id(10);
    let unsubscribe = Expect::Unsubscribe { packet_id, properties, filters };
    expect("3.10", name, versions, bytes, unsubscribe)
}

fn unsubscribe() -> Vec<Case> {
    vec![
        good_unsubscribe("one filter to give up", V3,
            b"\xa2\x07\0\x0a\0\x03a/b", Properties::EMPTY, &["a/b"]),
        good_unsubscribe("some filters to give up", V3,
            b"\xa2\x15\0\x0a\0\x03a/+\0\x0a$share/g/#\0\0",
            Properties::EMPTY,
            &["a/+", "$share/g/#", ""]),
        good_unsubscribe("one filter to give up, in 5.0", V5,
            b"\xa2\x08\0\x0a\0\0\x03a/b", Properties::EMPTY, &["a/b"]),
        good_unsubscribe("UNSUBSCRIBE with a property", V5,
            b"\xa2\x10\0\x0a\x07\x26\0\x01k\0\x01v\0\x01a\0\x01b",
            properties(&[Property::UserProperty("k", "v")]),
            &["a", "b"]),
        good_unsubscribe("UNSUBSCRIBE with DUP, as 3.1 repeats it", V31,
            b"\xaa\x05\0\x0a\0\x01a", Properties::EMPTY, &["a"])
            .written(b"\xa2\x05\0\x0a\0\x01a"),
        protocol("2.2.1", "UNSUBSCRIBE with packet identifier 0", V3,
            b"\xa2\x05\0\0\0\x01a", "MQTT-2.2.1-3"),
        malformed("3.10.2", "UNSUBSCRIBE without packet identifier", ALL, b"\xa2\0", "4.13.1"),
        protocol("3.10.3", "UNSUBSCRIBE without filter", V3, b"\xa2\x02\0\x0a", "MQTT-3.10.3-2"),
        protocol("3.10.3", "UNSUBSCRIBE without filter, in 5.0", V5,
            b"\xa2\x03\0\x0a\0", "MQTT-3.10.3-2"),
        malformed("3.10.3", "UNSUBSCRIBE with half a filter", V3,
            b"\xa2\x08\0\x0a\0\x01a\0\x05b", "4.13.1"),
        malformed("3.10.2.1", "UNSUBSCRIBE with a subscription identifier", V5,
            b"\xa2\x08\0\x0a\x02\x0b\x01\0\x01a", "2.2.2.2"),
    ]
}

fn unsuback() -> Vec<Case> {
    let unsuback = |reasons| UnsubAck {
        packet_id: id(10),
        properties: Properties::EMPTY,
        reasons,
    };
    vec![
        good("3.11", "UNSUBACK", V3, b"\xb0\x02\0\x0a", Packet::UnsubAck(unsuback(&[]))),
        good("3.11", "UNSUBACK in 5.0", V5,
            b"\xb0\x0a\0\x0a\0\0\x11\x80\x83\x87\x8f\x91",
            Packet::UnsubAck(unsuback(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]))),
        good("3.11.2.1", "UNSUBACK with properties", V5,
            b"\xb0\x11\0\x0a\x0d\x1f\0\x03why\x26\0\x01k\0\x01v\x11",
            Packet::UnsubAck(UnsubAck {
                properties: properties(&[
                    Property::ReasonString("why"),
                    Property::UserProperty("k", "v"),
                ]),
                ..unsuback(&[0x11])
            })),
        protocol("2.2.1", "UNSUBACK of packet identifier 0", V3,
            b"\xb0\x02\0\0", "MQTT-2.2.1-3"),
        malformed("3.11.3", "UNSUBACK with reason codes in 3.x", V3,
            b"\xb0\x03\0\x0a\0", "4.13.1"),
        protocol("3.11.3", "UNSUBACK with a granted QoS", V5,
            b"\xb0\x04\0\x0a\0\x01", "MQTT-3.11.3-2"),
        protocol("3.11.3", "UNSUBACK without reason code", V5,
            b"\xb0\x03\0\x0a\0", "MQTT-3.11.3-2"),
        malformed("3.11.2", "UNSUBACK without packet identifier", ALL, b"\xb0\0", "4.13.1"),
        malformed("3.11.2.1", "UNSUBACK with a server reference", V5,
            b"\xb0\x0c\0\x0a\x08\x1c\0\x05other\0", "2.2.2.2"),
    ]
}
