//! What is counted. Each case prepares what it needs, does its work once to be warm, and is counted doing it again.

use std::hint::black_box;
use std::num::NonZeroU16;

use codec::{
    Connect, Packet, Properties, PropertiesBuf, Property, Publish, Qos, SubscribeFilter,
    SubscriptionOptions, Version, Will, encode_subscribe,
};
use topic::FilterTree;

use crate::callgrind::counted_section;
use crate::client::{self, Broker};

const PACKETS: u64 = 1_000;
const FILTERS: u64 = 10_000;
const MESSAGES: u64 = 200;
const FAN_OUT: u64 = 1_000;
const FAN_OUT_MESSAGES: u64 = 20;
const CLIENTS: u64 = 200;
const REPEATED: u64 = 1_000;
const SHARE: &str = "$share/workers/rooms/1";

type Work = Box<dyn FnMut()>;

/// One thing that is counted.
pub struct Case {
    pub name: &'static str,
    /// How many times the work does it.
    pub operations: u64,
    prepare: fn() -> Work,
}

const fn case(name: &'static str, operations: u64, prepare: fn() -> Work) -> Case {
    Case {
        name,
        operations,
        prepare,
    }
}

/// All of them, the longest first, as they run beside each other.
pub const CASES: &[Case] = &[
    case("publish_to_1", MESSAGES, || publish_to_1(Qos::AtMostOnce)),
    case("publish_to_1_qos_1", MESSAGES, || {
        publish_to_1(Qos::AtLeastOnce)
    }),
    case("publish_to_nobody", MESSAGES, publish_to_nobody),
    case("publish_to_1_wildcard", MESSAGES, publish_to_1_wildcard),
    case("publish_to_1000", FAN_OUT_MESSAGES, publish_to_1000),
    case("connect", CLIENTS, connect),
    case(
        "publish_to_share_of_1000",
        MESSAGES,
        publish_to_share_of_1000,
    ),
    case(
        "join_and_leave_share_of_1000",
        CLIENTS,
        join_and_leave_share_of_1000,
    ),
    case(
        "subscribe_again_to_1000",
        2 * REPEATED,
        subscribe_again_to_1000,
    ),
    case("match_wildcards", FILTERS, match_wildcards),
    case("decode_publish", PACKETS, || decode(publish_3())),
    case("decode_publish_5", PACKETS, || decode(publish_5())),
    case("decode_connect", PACKETS, || decode(connect_5())),
    case("decode_subscribe", PACKETS, || decode(subscribe_5())),
    case("encode_publish", PACKETS, || {
        encode(Version::V311, publish_3())
    }),
    case("encode_publish_5", PACKETS, || {
        encode(Version::V5, publish_5())
    }),
    case("encode_connect", PACKETS, || {
        encode(Version::V5, connect_5())
    }),
    case("encode_subscribe", PACKETS, encode_filters),
];

/// Runs one case; under callgrind, this counts it.
pub fn run(name: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("there is no case {name:?}"))?;
    let mut work = (case.prepare)();
    work();
    counted_section(&mut *work);
    Ok(())
}

fn publish_3() -> (Version, Vec<u8>) {
    let bytes = client::publish("devices/0001234/telemetry", Qos::AtLeastOnce);
    (Version::V311, bytes)
}

fn bytes_of(packet: &Packet<'_>) -> (Version, Vec<u8>) {
    let mut bytes = Vec::new();
    packet
        .encode(Version::V5, &mut bytes)
        .expect("a valid packet");
    (Version::V5, bytes)
}

fn properties(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    for property in list {
        properties.push(*property).expect("a valid property");
    }
    properties
}

fn publish_5() -> (Version, Vec<u8>) {
    let properties = properties(&[
        Property::MessageExpiryInterval(60),
        Property::ContentType("application/json"),
        Property::ResponseTopic("devices/0001234/replies"),
        Property::CorrelationData(b"0123456789abcdef"),
    ]);
    bytes_of(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "devices/0001234/telemetry",
        packet_id: Some(NonZeroU16::MIN),
        properties: properties.as_properties(),
        payload: &[b'x'; 100],
    }))
}

fn connect_5() -> (Version, Vec<u8>) {
    let properties = properties(&[
        Property::SessionExpiryInterval(3_600),
        Property::ReceiveMaximum(64),
    ]);
    bytes_of(&Packet::Connect(Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 300,
        client_id: "device-0001234",
        will: Some(Will {
            topic: "devices/0001234/status",
            payload: b"gone",
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: Properties::EMPTY,
        }),
        username: Some("device-0001234"),
        password: Some(b"0123456789abcdef"),
        properties: properties.as_properties(),
    }))
}

fn two_filters() -> impl Iterator<Item = SubscribeFilter<'static>> + Clone {
    let filters = ["devices/0001234/commands/+", "users/0001234/#"];
    filters.into_iter().map(|filter| SubscribeFilter {
        filter,
        options: SubscriptionOptions::with_qos(Qos::AtLeastOnce),
    })
}

fn put_subscribe(out: &mut Vec<u8>) {
    let (id, none) = (NonZeroU16::MIN, Properties::EMPTY);
    encode_subscribe(out, Version::V5, id, none, two_filters()).expect("a valid packet");
}

fn subscribe_5() -> (Version, Vec<u8>) {
    let mut bytes = Vec::new();
    put_subscribe(&mut bytes);
    (Version::V5, bytes)
}

fn packet((version, bytes): &(Version, Vec<u8>)) -> Packet<'_> {
    let frame = codec::split_frame(bytes, 1_048_576).expect("a valid packet");
    codec::decode(*version, frame.expect("a whole packet")).expect("a valid packet")
}

fn decode(packet_bytes: (Version, Vec<u8>)) -> Work {
    Box::new(move || {
        for _ in 0..PACKETS {
            match packet(black_box(&packet_bytes)) {
                Packet::Subscribe(subscribe) => {
                    for filter in subscribe.filters.iter() {
                        black_box(filter);
                    }
                }
                other => {
                    black_box(other);
                }
            }
        }
    })
}

fn encode(version: Version, packet_bytes: (Version, Vec<u8>)) -> Work {
    let mut out = Vec::with_capacity(packet_bytes.1.len());
    // Decoded once, outside of what is counted; it borrows from bytes that live as long as the program.
    let packet = packet(Box::leak(Box::new(packet_bytes)));
    Box::new(move || {
        for _ in 0..PACKETS {
            out.clear();
            black_box(&packet)
                .encode(version, &mut out)
                .expect("a valid packet");
            black_box(&out);
        }
    })
}

fn encode_filters() -> Work {
    let mut out = Vec::with_capacity(128);
    Box::new(move || {
        for _ in 0..PACKETS {
            out.clear();
            put_subscribe(&mut out);
            black_box(&out);
        }
    })
}

/// Filters with `+` and `#`, five levels deep, of which each topic matches one.
fn wild_filter(n: u64) -> String {
    match n % 2 {
        0 => format!("site/{}/devices/{n}/+", n % 100),
        _ => format!("site/+/devices/{n}/#"),
    }
}

fn wild_topic(n: u64) -> String {
    format!("site/{}/devices/{n}/state", n % 100)
}

fn match_wildcards() -> Work {
    let mut tree = FilterTree::<u64>::new();
    for n in 0..FILTERS {
        *tree.get_or_insert(&wild_filter(n)) = n;
    }
    let topics = (0..FILTERS).map(wild_topic).collect::<Vec<_>>();
    Box::new(move || {
        let mut matches = 0;
        for topic in &topics {
            tree.for_each_match(black_box(topic), |value| {
                matches += 1;
                black_box(value);
            });
        }
        assert_eq!(matches, FILTERS);
    })
}

/// A broker whose [`CLIENTS`] clients have [`FILTERS`] subscriptions, and the place of its publisher, number 0.
fn subscribed(filter: fn(u64) -> String, qos: Qos) -> (Broker, Vec<u32>) {
    let mut broker = Broker::new();
    let mut slots = vec![broker.join(0, &[], qos)];
    for nth in 0..CLIENTS {
        let of_client = (0..FILTERS / CLIENTS).map(|n| filter(nth * (FILTERS / CLIENTS) + n));
        slots.push(broker.join(nth as u32 + 1, &of_client.collect::<Vec<_>>(), qos));
    }
    (broker, slots)
}

fn exact(n: u64) -> String {
    format!("users/{n:07}/receipts")
}

/// Publishes to topics of clients all over the broker; each message is followed by a turn, and a message of QoS 1 by its
/// receiver's acknowledgement.
fn publish_to_each(
    (mut broker, slots): (Broker, Vec<u32>),
    topic: fn(u64) -> String,
    qos: Qos,
) -> Work {
    let per_client = FILTERS / CLIENTS;
    let messages = (0..MESSAGES).map(|n| client::publish(&topic(n * per_client), qos));
    let messages = messages.collect::<Vec<_>>();
    let receiver = move |n: usize| (slots[n + 1], n as u32 + 1);
    let mut acknowledgement = vec![0x40, 2, 0, 0];
    Box::new(move || {
        for (n, message) in messages.iter().enumerate() {
            broker.send(0, 0, message);
            let (bytes, writes) = broker.turn();
            if qos == Qos::AtMostOnce {
                assert_eq!((bytes, writes), (message.len(), 1));
                continue;
            }
            assert_eq!((bytes, writes), (message.len() + 4, 2)); // PUBACK to the publisher
            let delivered = broker.written();
            let at = delivered.len() - 102; // the packet identifier, before the payload
            let delivered_first = delivered[0] >> 4 == 3;
            let id = if delivered_first { at - 4 } else { at };
            acknowledgement[2..].copy_from_slice(&delivered[id..id + 2]);
            let (slot, peer) = receiver(n);
            broker.send(slot, peer, &acknowledgement);
            broker.turn();
        }
    })
}

fn publish_to_1(qos: Qos) -> Work {
    publish_to_each(subscribed(exact, qos), exact, qos)
}

fn publish_to_1_wildcard() -> Work {
    let qos = Qos::AtMostOnce;
    publish_to_each(subscribed(wild_filter, qos), wild_topic, qos)
}

fn publish_to_nobody() -> Work {
    let (mut broker, _) = subscribed(exact, Qos::AtMostOnce);
    let messages = (0..MESSAGES).map(|n| client::publish(&exact(FILTERS + n), Qos::AtMostOnce));
    let messages = messages.collect::<Vec<_>>();
    Box::new(move || {
        for message in &messages {
            broker.send(0, 0, message);
            assert_eq!(broker.turn(), (0, 0));
        }
    })
}

fn publish_to_1000() -> Work {
    let mut broker = Broker::new();
    let publisher = broker.join(0, &[], Qos::AtMostOnce);
    for nth in 0..FAN_OUT {
        broker.join(nth as u32 + 1, &["rooms/1".to_owned()], Qos::AtMostOnce);
    }
    let message = client::publish("rooms/1", Qos::AtMostOnce);
    Box::new(move || {
        for _ in 0..FAN_OUT_MESSAGES {
            broker.send(publisher, 0, &message);
            let bytes = message.len() * FAN_OUT as usize;
            assert_eq!(broker.turn(), (bytes, FAN_OUT as usize));
        }
    })
}

/// A broker with a shared subscription of [`FAN_OUT`] members, and the place of another client, number 0.
fn shared() -> (Broker, u32) {
    let mut broker = Broker::new();
    let slot = broker.join(0, &[], Qos::AtMostOnce);
    for nth in 0..FAN_OUT {
        broker.join(nth as u32 + 1, &[SHARE.to_owned()], Qos::AtMostOnce);
    }
    (broker, slot)
}

fn publish_to_share_of_1000() -> Work {
    let (mut broker, publisher) = shared();
    let message = client::publish("rooms/1", Qos::AtMostOnce);
    Box::new(move || {
        for _ in 0..MESSAGES {
            broker.send(publisher, 0, &message);
            assert_eq!(broker.turn(), (message.len(), 1));
        }
    })
}

fn join_and_leave_share_of_1000() -> Work {
    let (mut broker, slot) = shared();
    let join = client::subscribe(SHARE, Qos::AtMostOnce);
    let leave = client::unsubscribe(SHARE);
    Box::new(move || {
        for _ in 0..CLIENTS {
            broker.send(slot, 0, &join);
            assert_eq!(broker.turn().0, 5);
            broker.send(slot, 0, &leave);
            assert_eq!(broker.turn().0, 4);
        }
    })
}

/// A SUBSCRIBE says every filter twice, while there are retained messages, of which none matches.
fn subscribe_again_to_1000() -> Work {
    let mut broker = Broker::new();
    let slot = broker.join(0, &[], Qos::AtMostOnce);
    let mut retained = client::publish("elsewhere", Qos::AtMostOnce);
    retained[0] |= 1;
    broker.send(slot, 0, &retained);
    let filters = (0..2 * REPEATED).map(|n| exact(n % REPEATED));
    let subscribe = client::subscribe_to(&filters.collect::<Vec<_>>(), Qos::AtMostOnce);
    Box::new(move || {
        broker.send(slot, 0, &subscribe);
        assert!(broker.turn().0 > 2 * REPEATED as usize);
    })
}

/// A client comes, subscribes, and goes; others stay.
fn connect() -> Work {
    let (mut broker, _) = subscribed(exact, Qos::AtMostOnce);
    let first = CLIENTS as u32 + 1;
    let clients = (0..CLIENTS as u32).map(|nth| {
        let peer = first + nth;
        let connect = client::connect(&format!("visitor-{nth:07}"), true);
        let subscribe = client::subscribe(&format!("visitors/{nth:07}"), Qos::AtMostOnce);
        (peer, connect, subscribe)
    });
    let clients = clients.collect::<Vec<_>>();
    let disconnect = client::disconnect();
    Box::new(move || {
        for (peer, connect, subscribe) in &clients {
            let slot = broker.open(*peer);
            broker.send(slot, *peer, connect);
            assert_eq!(broker.turn().0, 4);
            broker.send(slot, *peer, subscribe);
            assert_eq!(broker.turn().0, 5);
            broker.send(slot, *peer, &disconnect);
            broker.turn();
        }
    })
}
