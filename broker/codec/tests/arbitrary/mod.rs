//! Strategies for every packet that a version can express.
//!
//! Packets borrow, so what they borrow from is leaked; a test run is short.

use std::num::NonZeroU16;

use codec::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish,
    Qos, ReasonCode, RetainHandling, SubAck, SubscribeFilter, SubscriptionOptions, UnsubAck,
    Version, Will,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::packets::Expect;

fn text(pattern: &'static str) -> impl Strategy<Value = &'static str> {
    pattern.prop_map(|string: String| &*string.leak())
}

/// Any string that MQTT allows, now and then one of more than 127 bytes.
fn string() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => text("[^\u{0}]{0,16}"), 1 => text("[^\u{0}]{120,300}")]
}

fn topic_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => text("[a-c/$]{1,24}"), 2 => text("[^\u{0}+#]{1,40}")]
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| &*bytes.leak())
}

/// A payload, now and then so large that the remaining length takes three
/// bytes.
fn payload() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        8 => binary(),
        2 => vec(any::<u8>(), 100..300).prop_map(|bytes| &*bytes.leak()),
        1 => (16_000_usize..20_000, any::<u8>()).prop_map(|(len, byte)| &*vec![byte; len].leak()),
    ]
}

fn qos() -> impl Strategy<Value = Qos> {
    select(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][..])
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

type AnyProperty = BoxedStrategy<Property<'static>>;

fn user_property() -> AnyProperty {
    (string(), string())
        .prop_map(|(name, value)| Property::UserProperty(name, value))
        .boxed()
}

fn subscription_identifier() -> AnyProperty {
    prop_oneof![1..300_u32, 1..=268_435_455_u32]
        .prop_map(Property::SubscriptionIdentifier)
        .boxed()
}

/// Some of these properties, in any order, and some user properties; none in
/// 3.x.
fn properties(version: Version, once: Vec<AnyProperty>) -> BoxedStrategy<Properties<'static>> {
    if !version.has_properties() {
        return Just(Properties::EMPTY).boxed();
    }
    let some = once.into_iter().map(option::of).collect::<Vec<_>>();
    (some, vec(user_property(), 0..3))
        .prop_map(|(some, user)| some.into_iter().flatten().chain(user).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(leak_properties)
        .boxed()
}

fn leak_properties(list: Vec<Property<'static>>) -> Properties<'static> {
    let mut buf = PropertiesBuf::new();
    for property in list {
        buf.push(property).expect("generated values are valid");
    }
    Properties::from_validated(buf.into_bytes().leak())
}

/// Method and data of an enhanced authentication, beside other properties.
fn with_auth(properties: Properties<'static>, method: &str, data: &[u8]) -> Properties<'static> {
    let mut buf = PropertiesBuf::new();
    buf.extend(properties);
    buf.push(Property::AuthenticationMethod(method))
        .expect("generated values are valid");
    buf.push(Property::AuthenticationData(data))
        .expect("generated values are valid");
    Properties::from_validated(buf.into_bytes().leak())
}

fn message_properties() -> Vec<AnyProperty> {
    vec![
        (0..=1_u8)
            .prop_map(Property::PayloadFormatIndicator)
            .boxed(),
        any::<u32>()
            .prop_map(Property::MessageExpiryInterval)
            .boxed(),
        string().prop_map(Property::ContentType).boxed(),
        topic_name().prop_map(Property::ResponseTopic).boxed(),
        binary().prop_map(Property::CorrelationData).boxed(),
    ]
}

fn publish_properties(version: Version) -> BoxedStrategy<Properties<'static>> {
    let mut once = message_properties();
    once.push((1..=u16::MAX).prop_map(Property::TopicAlias).boxed());
    once.push(subscription_identifier());
    once.push(subscription_identifier());
    properties(version, once)
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let mut once = message_properties();
    once.push(any::<u32>().prop_map(Property::WillDelayInterval).boxed());
    (
        topic_name(),
        payload(),
        qos(),
        any::<bool>(),
        properties(version, once),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let once = vec![
        any::<u32>()
            .prop_map(Property::SessionExpiryInterval)
            .boxed(),
        (1..=u16::MAX).prop_map(Property::ReceiveMaximum).boxed(),
        (1..=u32::MAX).prop_map(Property::MaximumPacketSize).boxed(),
        any::<u16>().prop_map(Property::TopicAliasMaximum).boxed(),
        any::<bool>()
            .prop_map(Property::RequestResponseInformation)
            .boxed(),
        any::<bool>()
            .prop_map(Property::RequestProblemInformation)
            .boxed(),
        string().prop_map(Property::AuthenticationMethod).boxed(),
    ];
    (
        (any::<bool>(), any::<u16>()),
        string(),
        option::of(will(version)),
        option::of(string()),
        option::of(binary()),
        properties(version, once),
    )
        .prop_map(
            move |((clean_start, keep_alive), client_id, will, username, password, properties)| {
                // Only 5.0 has a password without a user name.
                let password = password.filter(|_| username.is_some() || version == Version::V5);
                Packet::Connect(Connect {
                    version,
                    clean_start,
                    keep_alive,
                    client_id,
                    will,
                    username,
                    password,
                    properties,
                })
            },
        )
}

fn connack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let once = vec![
        any::<u32>()
            .prop_map(Property::SessionExpiryInterval)
            .boxed(),
        (1..=u16::MAX).prop_map(Property::ReceiveMaximum).boxed(),
        select(&[Qos::AtMostOnce, Qos::AtLeastOnce][..])
            .prop_map(Property::MaximumQos)
            .boxed(),
        any::<bool>().prop_map(Property::RetainAvailable).boxed(),
        (1..=u32::MAX).prop_map(Property::MaximumPacketSize).boxed(),
        string()
            .prop_map(Property::AssignedClientIdentifier)
            .boxed(),
        any::<u16>().prop_map(Property::TopicAliasMaximum).boxed(),
        string().prop_map(Property::ReasonString).boxed(),
        any::<bool>()
            .prop_map(Property::WildcardSubscriptionAvailable)
            .boxed(),
        any::<bool>()
            .prop_map(Property::SubscriptionIdentifiersAvailable)
            .boxed(),
        any::<bool>()
            .prop_map(Property::SharedSubscriptionAvailable)
            .boxed(),
        any::<u16>().prop_map(Property::ServerKeepAlive).boxed(),
        string().prop_map(Property::ResponseInformation).boxed(),
        string().prop_map(Property::ServerReference).boxed(),
        string().prop_map(Property::AuthenticationMethod).boxed(),
    ];
    let reasons: &[u8] = match version {
        Version::V5 => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        _ => &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88],
    };
    (any::<bool>(), select(reasons), properties(version, once)).prop_map(
        move |(session_present, reason, properties)| {
            Packet::ConnAck(ConnAck {
                session_present: session_present && reason == 0 && version != Version::V31,
                reason: ReasonCode(reason),
                properties,
            })
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic_name(),
        packet_id(),
        publish_properties(version),
        payload(),
    )
        .prop_map(
            |(dup, qos, retain, topic, packet_id, properties, payload)| {
                let acknowledged = qos != Qos::AtMostOnce;
                Packet::Publish(Publish {
                    dup: dup && acknowledged,
                    qos,
                    retain,
                    // With an alias the name may be left out; half of them do.
                    topic: match properties.topic_alias() {
                        Some(alias) if alias % 2 == 0 => "",
                        _ => topic,
                    },
                    packet_id: acknowledged.then_some(packet_id),
                    properties,
                    payload,
                })
            },
        )
}

fn reason_string() -> Vec<AnyProperty> {
    vec![string().prop_map(Property::ReasonString).boxed()]
}

fn ack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let acks = [
        Packet::PubAck as fn(Ack<'static>) -> Packet<'static>,
        Packet::PubRec,
        Packet::PubRel,
        Packet::PubComp,
    ];
    let to_publish: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    (
        0..4_usize,
        packet_id(),
        select(to_publish),
        any::<bool>(),
        properties(version, reason_string()),
    )
        .prop_map(move |(kind, packet_id, reason, found, properties)| {
            let reason = match kind {
                _ if !version.has_properties() => 0,
                0 | 1 => reason,
                _ if found => 0,
                _ => 0x92,
            };
            acks[kind](Ack {
                packet_id,
                reason: ReasonCode(reason),
                properties,
            })
        })
}

fn suback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let allowed: &[u8] = match version {
        Version::V5 => &[
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
        _ => &[0, 1, 2, 0x80],
    };
    (
        packet_id(),
        properties(version, reason_string()),
        vec(select(allowed), 1..200),
    )
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons: reasons.leak(),
            })
        })
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let allowed: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    (
        packet_id(),
        properties(version, reason_string()),
        vec(select(allowed), 1..20),
    )
        .prop_map(move |(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons: match version {
                    Version::V5 => reasons.leak(),
                    _ => &[],
                },
            })
        })
}

fn disconnect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let once = vec![
        any::<u32>()
            .prop_map(Property::SessionExpiryInterval)
            .boxed(),
        string().prop_map(Property::ReasonString).boxed(),
        string().prop_map(Property::ServerReference).boxed(),
    ];
    let allowed: &[u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
        0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    (select(allowed), properties(version, once)).prop_map(move |(reason, properties)| {
        let reason = match version {
            Version::V5 => ReasonCode(reason),
            _ => ReasonCode::NORMAL_DISCONNECTION,
        };
        Packet::Disconnect(Disconnect { reason, properties })
    })
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    let reasons: &[u8] = &[0x00, 0x18, 0x19];
    (
        select(reasons),
        string(),
        binary(),
        properties(Version::V5, reason_string()),
    )
        .prop_map(|(reason, method, data, properties)| {
            Packet::Auth(Auth {
                reason: ReasonCode(reason),
                properties: with_auth(properties, method, data),
            })
        })
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let handling: &[RetainHandling] = &[
        RetainHandling::SendAtSubscribe,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ];
    (qos(), any::<bool>(), any::<bool>(), select(handling)).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| match version {
            Version::V5 => SubscriptionOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            },
            _ => SubscriptionOptions::with_qos(qos),
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Expect> {
    let filter = (string(), options(version))
        .prop_map(|(filter, options)| SubscribeFilter { filter, options });
    (
        packet_id(),
        properties(version, vec![subscription_identifier()]),
        vec(filter, 1..12),
    )
        .prop_map(|(packet_id, properties, filters)| Expect::Subscribe {
            packet_id,
            properties,
            filters: filters.leak(),
        })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Expect> {
    (
        packet_id(),
        properties(version, Vec::new()),
        vec(string(), 1..12),
    )
        .prop_map(|(packet_id, properties, filters)| Expect::Unsubscribe {
            packet_id,
            properties,
            filters: filters.leak(),
        })
}

/// Any packet that this version can express.
pub fn packet(version: Version) -> BoxedStrategy<Expect> {
    let mut packets = vec![
        connect(version).boxed(),
        connack(version).boxed(),
        publish(version).boxed(),
        publish(version).boxed(),
        ack(version).boxed(),
        suback(version).boxed(),
        unsuback(version).boxed(),
        disconnect(version).boxed(),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
    ];
    if version == Version::V5 {
        packets.push(auth().boxed());
    }
    let packets = proptest::strategy::Union::new(packets);
    prop_oneof![
        10 => packets.prop_map(Expect::Packet),
        1 => subscribe(version),
        1 => unsubscribe(version),
    ]
    .boxed()
}
