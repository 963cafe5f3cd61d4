//! Table 2-4 of MQTT 5.0: which packet may carry which property, how often,
//! and what the getters make of it.

use codec::{
    DecodeError, EncodeError, PACKET_BYTES_MAX, Packet, Properties, PropertiesBuf, Property, Qos,
    ReasonCode, Version, decode, split_frame,
};

/// The places of a property, in the order of the columns below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
    ConnAck,
    Publish,
    Acks,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

use Place::{Acks, Auth, ConnAck, Connect, Disconnect, Publish, Subscribe, Unsubscribe, Will};

const PLACES: [Place; 9] = [
    Connect,
    Will,
    ConnAck,
    Publish,
    Acks,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
];

/// Table 2-4, in its order.
const TABLE: [(Property<'static>, &[Place]); 27] = [
    (Property::PayloadFormatIndicator(1), &[Publish, Will]),
    (Property::MessageExpiryInterval(2), &[Publish, Will]),
    (Property::ContentType("text"), &[Publish, Will]),
    (Property::ResponseTopic("re"), &[Publish, Will]),
    (Property::CorrelationData(b"\0\xFF"), &[Publish, Will]),
    (Property::SubscriptionIdentifier(300), &[Publish, Subscribe]),
    (
        Property::SessionExpiryInterval(3),
        &[Connect, ConnAck, Disconnect],
    ),
    (Property::AssignedClientIdentifier("id"), &[ConnAck]),
    (Property::ServerKeepAlive(4), &[ConnAck]),
    (
        Property::AuthenticationMethod("m"),
        &[Connect, ConnAck, Auth],
    ),
    (
        Property::AuthenticationData(b"\xFF\0"),
        &[Connect, ConnAck, Auth],
    ),
    (Property::RequestProblemInformation(false), &[Connect]),
    (Property::WillDelayInterval(5), &[Will]),
    (Property::RequestResponseInformation(true), &[Connect]),
    (Property::ResponseInformation("info"), &[ConnAck]),
    (Property::ServerReference("ref"), &[ConnAck, Disconnect]),
    (
        Property::ReasonString("why"),
        &[ConnAck, Acks, Disconnect, Auth],
    ),
    (Property::ReceiveMaximum(6), &[Connect, ConnAck]),
    (Property::TopicAliasMaximum(7), &[Connect, ConnAck]),
    (Property::TopicAlias(8), &[Publish]),
    (Property::MaximumQos(Qos::AtLeastOnce), &[ConnAck]),
    (Property::RetainAvailable(false), &[ConnAck]),
    (Property::UserProperty("n", "v"), &PLACES),
    (Property::MaximumPacketSize(9), &[Connect, ConnAck]),
    (Property::WildcardSubscriptionAvailable(false), &[ConnAck]),
    (
        Property::SubscriptionIdentifiersAvailable(false),
        &[ConnAck],
    ),
    (Property::SharedSubscriptionAvailable(false), &[ConnAck]),
];

/// Packets with these properties at that place; six packets share one column.
fn packets(place: Place, properties: &[u8]) -> Vec<Vec<u8>> {
    let mut prefixed = vec![u8::try_from(properties.len()).expect("short")];
    prefixed.extend_from_slice(properties);
    let with = |first: u8, before: &[u8], after: &[u8]| {
        let body = [before, &prefixed, after].concat();
        let len = u8::try_from(body.len()).expect("short");
        assert!(len < 128);
        [&[first, len], &body[..]].concat()
    };
    match place {
        Connect => vec![with(0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\x01c")],
        Will => vec![with(
            0x10,
            b"\0\x04MQTT\x05\x06\0\0\0\0\x01c",
            b"\0\x01w\0\0",
        )],
        ConnAck => vec![with(0x20, b"\0\0", b"")],
        Publish => vec![with(0x30, b"\0\x01t", b"payload")],
        Acks => vec![
            with(0x40, b"\0\x01\0", b""),
            with(0x50, b"\0\x01\0", b""),
            with(0x62, b"\0\x01\0", b""),
            with(0x70, b"\0\x01\0", b""),
            with(0x90, b"\0\x01", b"\0"),
            with(0xB0, b"\0\x01", b"\0"),
        ],
        Subscribe => vec![with(0x82, b"\0\x01", b"\0\x01f\0")],
        Unsubscribe => vec![with(0xA2, b"\0\x01", b"\0\x01f")],
        Disconnect => vec![with(0xE0, b"\0", b"")],
        Auth => vec![with(0xF0, b"\x18", b"")],
    }
}

fn decode_bytes(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let frame = split_frame(bytes, PACKET_BYTES_MAX)?.expect("the packet is whole");
    decode(Version::V5, frame)
}

fn properties_at<'a>(place: Place, packet: &Packet<'a>) -> Properties<'a> {
    match packet {
        Packet::Connect(packet) if place == Will => packet.will.expect("there is one").properties,
        Packet::Connect(packet) => packet.properties,
        Packet::ConnAck(packet) => packet.properties,
        Packet::Publish(packet) => packet.properties,
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => packet.properties,
        Packet::Subscribe(packet) => packet.properties,
        Packet::SubAck(packet) => packet.properties,
        Packet::Unsubscribe(packet) => packet.properties,
        Packet::UnsubAck(packet) => packet.properties,
        Packet::Disconnect(packet) => packet.properties,
        Packet::Auth(packet) => packet.properties,
        Packet::PingReq | Packet::PingResp => Properties::EMPTY,
    }
}

/// What must be there for the property to make sense.
fn companion(place: Place, property: &Property<'_>) -> Option<Property<'static>> {
    let method = Property::AuthenticationMethod("m");
    let needs_method = matches!(property, Property::AuthenticationData(_)) || place == Auth;
    (needs_method && property.id() != method.id()).then_some(method)
}

#[test]
fn each_property_is_allowed_where_table_2_4_says_and_nowhere_else() {
    for (property, places) in TABLE {
        for place in PLACES {
            let mut properties = PropertiesBuf::new();
            properties.push(property).unwrap();
            if let Some(companion) = companion(place, &property) {
                properties.push(companion).unwrap();
            }
            for bytes in packets(place, properties.as_properties().as_bytes()) {
                let decoded = decode_bytes(&bytes);
                if places.contains(&place) {
                    let packet = decoded.unwrap_or_else(|e| panic!("{property:?}, {place:?}: {e}"));
                    let got = properties_at(place, &packet);
                    assert_eq!(got.iter().next(), Some(property));
                    assert_eq!(got, properties.as_properties());
                    let mut out = Vec::new();
                    packet.encode(Version::V5, &mut out).unwrap();
                    assert_eq!(out, bytes);
                } else {
                    let error = decoded.expect_err("not allowed here");
                    assert_eq!(error.reason(), ReasonCode::MALFORMED_PACKET, "{error}");
                }
            }
        }
    }
}

#[test]
fn each_property_but_two_may_come_once_only() {
    for (property, places) in TABLE {
        for &place in places {
            let mut properties = PropertiesBuf::new();
            properties.push(property).unwrap();
            if let Some(companion) = companion(place, &property) {
                properties.push(companion).unwrap();
            }
            properties.push(property).unwrap();
            let repeatable = matches!(
                (property, place),
                (Property::UserProperty(..), _) | (Property::SubscriptionIdentifier(_), Publish)
            );
            for bytes in packets(place, properties.as_properties().as_bytes()) {
                match decode_bytes(&bytes) {
                    Ok(_) => assert!(repeatable, "{property:?} twice in {place:?}"),
                    Err(error) => {
                        assert!(!repeatable, "{property:?} twice in {place:?}: {error}");
                        assert_eq!(error.reason(), ReasonCode::PROTOCOL_ERROR, "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_decoding_refuses_is_not_encoded_either() {
    let mut delay = PropertiesBuf::new();
    delay.push(Property::WillDelayInterval(1)).unwrap();
    let packet = Packet::Disconnect(codec::Disconnect {
        reason: ReasonCode::NORMAL_DISCONNECTION,
        properties: delay.as_properties(),
    });
    let mut out = Vec::new();
    assert!(matches!(
        packet.encode(Version::V5, &mut out),
        Err(EncodeError::Invalid { .. })
    ));
    assert!(out.is_empty());
    // 3.x leaves properties out, so they do no harm there.
    packet.encode(Version::V311, &mut out).unwrap();
    assert_eq!(out, [0xE0, 0]);
}

#[test]
fn length_and_bytes_of_each_property_agree() {
    for (property, _) in TABLE {
        let mut out = Vec::new();
        property.encode(&mut out).unwrap();
        assert_eq!(out.len(), property.encoded_len(), "{property:?}");
        assert_eq!(out[0], property.id(), "{property:?}");
        let properties = Properties::from_validated(&out);
        assert_eq!(properties.iter().collect::<Vec<_>>(), [property]);
    }
}

#[test]
fn a_value_that_a_property_cannot_have_is_refused_and_nothing_is_written() {
    let long = "x".repeat(65_536);
    for property in [
        Property::PayloadFormatIndicator(2),
        Property::SubscriptionIdentifier(0),
        Property::SubscriptionIdentifier(268_435_456),
        Property::ReceiveMaximum(0),
        Property::TopicAlias(0),
        Property::MaximumQos(Qos::ExactlyOnce),
        Property::MaximumPacketSize(0),
        Property::ResponseTopic("a/+"),
        Property::ResponseTopic(""),
        Property::ContentType("a\0b"),
        Property::UserProperty("a\0b", "v"),
        Property::UserProperty("n", "a\0b"),
        Property::ReasonString(&long),
        Property::CorrelationData(long.as_bytes()),
        Property::UserProperty("n", &long),
    ] {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::UserProperty("n", "v")).unwrap();
        let before = properties.clone();
        assert!(properties.push(property).is_err(), "{property:?}");
        assert_eq!(properties, before);
    }
    // The longest that there is.
    let mut properties = PropertiesBuf::new();
    properties
        .push(Property::UserProperty(&long[1..], &long[1..]))
        .unwrap();
    let (name, value) = properties
        .as_properties()
        .user_properties()
        .next()
        .expect("was pushed");
    assert_eq!((name.len(), value.len()), (65_535, 65_535));
}

#[test]
fn getters_find_their_property_among_all_others() {
    let mut all = PropertiesBuf::new();
    for (property, _) in TABLE {
        all.push(property).unwrap();
    }
    all.push(Property::SubscriptionIdentifier(301)).unwrap();
    all.push(Property::UserProperty("n", "w")).unwrap();
    let all = all.as_properties();
    assert_eq!(all.payload_format(), Some(1));
    assert_eq!(all.message_expiry(), Some(2));
    assert_eq!(all.content_type(), Some("text"));
    assert_eq!(all.response_topic(), Some("re"));
    assert_eq!(all.correlation_data(), Some(&b"\0\xFF"[..]));
    assert_eq!(all.subscription_identifier(), Some(300));
    assert_eq!(all.session_expiry(), Some(3));
    assert_eq!(all.assigned_client_id(), Some("id"));
    assert_eq!(all.server_keep_alive(), Some(4));
    assert_eq!(all.auth_method(), Some("m"));
    assert_eq!(all.auth_data(), Some(&b"\xFF\0"[..]));
    assert_eq!(all.request_problem_information(), Some(false));
    assert_eq!(all.will_delay(), Some(5));
    assert_eq!(all.request_response_information(), Some(true));
    assert_eq!(all.response_information(), Some("info"));
    assert_eq!(all.server_reference(), Some("ref"));
    assert_eq!(all.reason_string(), Some("why"));
    assert_eq!(all.receive_maximum(), Some(6));
    assert_eq!(all.topic_alias_maximum(), Some(7));
    assert_eq!(all.topic_alias(), Some(8));
    assert_eq!(all.maximum_qos(), Some(Qos::AtLeastOnce));
    assert_eq!(all.retain_available(), Some(false));
    assert_eq!(all.maximum_packet_size(), Some(9));
    assert_eq!(all.wildcard_subscription_available(), Some(false));
    assert_eq!(all.subscription_identifiers_available(), Some(false));
    assert_eq!(all.shared_subscription_available(), Some(false));
    let identifiers: Vec<u32> = all.subscription_identifiers().collect();
    assert_eq!(identifiers, [300, 301]);
    let user: Vec<_> = all.user_properties().collect();
    assert_eq!(user, [("n", "v"), ("n", "w")]);
}

#[test]
fn getters_find_nothing_in_no_properties() {
    let none = Properties::EMPTY;
    assert!(none.is_empty() && none.iter().next().is_none());
    assert_eq!(none.message_expiry(), None);
    assert_eq!(none.topic_alias(), None);
    assert_eq!(none.reason_string(), None);
    assert_eq!(none.user_properties().next(), None);
    assert_eq!(none.subscription_identifiers().next(), None);
}
