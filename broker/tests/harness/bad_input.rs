//! Bad input, each kind by its name: it costs the sender only, and is counted by its reason.

use broker::Stats;
use codec::{Packet, Property, Publish, Qos, Version};

use crate::support::{Client, NOTHING, Net, Pub, everywhere, options};

/// Another client that goes on, whatever happens.
struct Bystander(Client);

impl Bystander {
    fn new(net: &Net) -> Self {
        let mut client = net.join("bystander");
        client.subscribe("bystander", 1);
        Self(client)
    }

    fn goes_on(&mut self) {
        self.0.publish_with(&Pub::new("bystander", "x").qos(1, 1));
        let got = self.0.got();
        assert!(got.len() == 2 && got[1] == "PUBACK #1", "{got:?}");
        let id = got[0]
            .strip_prefix("PUBLISH bystander x q1 #")
            .expect("it got its own message");
        self.0.puback(id.parse().expect("it is a number"));
    }
}

/// Writes bytes on a fresh connection: it is closed with not a word, and counted where `counter` says.
fn closes_at_once(bytes: &[u8], counter: fn(&Stats) -> u64) {
    let net = Net::new();
    let mut bystander = Bystander::new(&net);
    let mut bad = net.open();
    bad.write(bytes);
    assert_eq!(bad.got(), ["closed"]);
    let stats = net.stats();
    assert_eq!(
        (counter(&stats), stats.connections_closed),
        (1, 1),
        "{stats:#?}"
    );
    bystander.goes_on();
}

/// Writes bytes as a connected client: each version is told in its own words, and it is counted.
fn closes_a_client(bytes: impl Fn(Version) -> Vec<u8>, reason: &str, counter: fn(&Stats) -> u64) {
    everywhere(|net, version| {
        let mut bystander = Bystander::new(net);
        let mut bad = net.client("bad").version(version).connect();
        bad.write(&bytes(version));
        let told = format!("DISCONNECT {reason}");
        let said: &[&str] = match version {
            Version::V5 => &[&told, "closed"],
            _ => &["closed"],
        };
        assert_eq!(bad.got(), said, "{version}");
        let stats = net.stats();
        assert_eq!(
            (counter(&stats), stats.connections_closed),
            (1, 1),
            "{stats:#?}"
        );
        bystander.goes_on();
    });
}

/// The bytes of a PUBLISH whose topic name is any bytes.
fn publish_to(topic: &[u8]) -> impl Fn(Version) -> Vec<u8> {
    move |version| {
        let mut bytes = vec![0x30];
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        bytes.push(u8::try_from(2 + topic.len() + properties.len()).expect("a short topic"));
        bytes.extend([0, u8::try_from(topic.len()).expect("a short topic")]);
        bytes.extend(topic);
        bytes.extend(properties);
        bytes
    }
}

#[test]
fn garbage() {
    closes_at_once(&[0; 100], |stats| stats.closed_not_mqtt);
    closes_at_once(&[0xff; 100], |stats| stats.closed_not_mqtt);
    // A PINGREQ is MQTT, but no way to begin.
    closes_at_once(&[0xc0, 0], |stats| stats.closed_not_mqtt);
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..1_000 {
        let bytes: Vec<u8> = (0..64)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let net = Net::new();
        let mut bad = net.join("bad");
        bad.write(&bytes);
        net.advance_s(11);
        assert!(net.stats().connections <= 1);
    }
}

#[test]
fn an_http_request() {
    let net = Net::new();
    let mut client = net.open();
    client.push(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8(client.got_wire()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!client.is_open());
    let stats = net.stats();
    assert_eq!((stats.closed_not_mqtt, stats.connections), (1, 0));
}

#[test]
fn a_tls_hello() {
    closes_at_once(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", |stats| {
        stats.closed_not_mqtt
    });
}

#[test]
fn another_protocol_that_begins_like_a_connect() {
    closes_at_once(b"\x10\x0d\x00\x04NATS\x04\x02\x00\x00\x00\x01a", |stats| {
        stats.closed_not_mqtt
    });
}

#[test]
fn a_packet_of_claimed_256_mb_is_closed_at_its_header() {
    closes_at_once(b"\x10\xff\xff\xff\x7f", |stats| stats.closed_too_large);
    closes_a_client(
        |_| b"\x30\xff\xff\xff\x7f".to_vec(),
        "0x95",
        |stats| stats.closed_too_large,
    );
}

#[test]
fn a_length_that_never_ends() {
    closes_at_once(b"\x10\xff\xff\xff\xff\xff", |stats| stats.closed_malformed);
    closes_a_client(
        |_| b"\x30\xff\xff\xff\xff".to_vec(),
        "0x81",
        |stats| stats.closed_malformed,
    );
}

#[test]
fn a_connect_of_one_byte_a_second_is_cut_off() {
    let net = Net::new();
    let mut bystander = Bystander::new(&net);
    let mut slow = net.open();
    for byte in net.client("slow").will("will", "x").bytes() {
        slow.write(&[byte]);
        net.advance_s(1);
    }
    assert_eq!(slow.got(), ["closed"]);
    let stats = net.stats();
    assert_eq!((stats.closed_connect_timeout, stats.sessions), (1, 1));
    bystander.goes_on();
}

#[test]
fn a_client_of_one_byte_a_second_is_served_as_long_as_it_keeps_alive() {
    let net = Net::new();
    let mut slow = net.client("slow").keep_alive_s(60).connect();
    for byte in slow.encode_publish(&Pub::new("t", "x").qos(1, 1)) {
        assert_eq!(slow.got(), NOTHING);
        slow.write(&[byte]);
        net.advance_s(1);
    }
    assert_eq!(slow.got(), ["PUBACK #1"]);
    // A packet that never ends is no sign of life.
    let large = slow.encode_publish(&Pub::new("t", [b'x'; 1_000]));
    for byte in &large[..200] {
        slow.write(&[*byte]);
        net.advance_s(1);
    }
    assert_eq!(slow.got(), ["DISCONNECT 0x8d", "closed"]);
}

#[test]
fn no_connect_in_time() {
    let net = Net::new();
    let mut bystander = Bystander::new(&net);
    let mut silent = net.open();
    net.advance_ms(9_900);
    assert_eq!(silent.got(), NOTHING);
    net.advance_ms(200);
    assert_eq!(silent.got(), ["closed"]);
    assert_eq!(net.stats().closed_connect_timeout, 1);
    bystander.goes_on();
}

#[test]
fn connect_twice() {
    closes_a_client(
        |version| Net::new().client("bad").version(version).bytes(),
        "0x82",
        |stats| stats.closed_protocol_error,
    );
}

#[test]
fn packets_that_only_servers_send() {
    // CONNACK, SUBACK, UNSUBACK, PINGRESP.
    for v3 in [
        &b"\x20\x02\x00\x00"[..],
        b"\x90\x03\x00\x01\x00",
        b"\xb0\x02\x00\x01",
        b"\xd0\x00",
    ] {
        let bytes = |version: Version| match (version, v3[0]) {
            (Version::V5, 0x20) => b"\x20\x03\x00\x00\x00".to_vec(),
            (Version::V5, 0x90) => b"\x90\x04\x00\x01\x00\x00".to_vec(),
            (Version::V5, 0xb0) => b"\xb0\x04\x00\x01\x00\x00".to_vec(),
            _ => v3.to_vec(),
        };
        closes_a_client(bytes, "0x82", |stats| stats.closed_protocol_error);
    }
}

#[test]
fn invalid_utf_8() {
    closes_a_client(publish_to(b"a\xc3\x28"), "0x81", |stats| {
        stats.closed_malformed
    });
    closes_a_client(publish_to(b"\xed\xa0\x80"), "0x81", |stats| {
        stats.closed_malformed
    });
}

#[test]
fn u_0000() {
    closes_a_client(publish_to(b"a\0b"), "0x81", |stats| stats.closed_malformed);
    closes_at_once(
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02a\0",
        |stats| stats.closed_malformed,
    );
}

#[test]
fn a_publish_to_a_wildcard_topic() {
    for topic in [&b"a/#"[..], b"a/+/b", b"#", b"a+"] {
        closes_a_client(publish_to(topic), "0x90", |stats| {
            stats.closed_protocol_error
        });
    }
}

#[test]
fn an_empty_topic_without_an_alias() {
    let mut net = Net::new();
    for version in Version::ALL {
        net = Net::new();
        let mut bad = net.client("bad").version(version).connect();
        bad.write(&publish_to(b"")(version));
        assert!(!bad.is_open());
    }
    assert_eq!(net.stats().closed_protocol_error, 1);
}

#[test]
fn an_alias_out_of_range() {
    for alias in [17, 65_535] {
        let net = Net::with(|config| config.limits.topic_alias_maximum = 16);
        let mut bystander = Bystander::new(&net);
        let mut bad = net.join("bad");
        bad.publish_with(&Pub::new("t", "x").with(Property::TopicAlias(alias)));
        assert_eq!(bad.got(), ["DISCONNECT 0x94", "closed"]);
        assert_eq!(net.stats().closed_protocol_error, 1);
        bystander.goes_on();
    }
    let net = Net::new();
    let mut bad = net.join("bad");
    bad.write(b"\x30\x07\x00\x01t\x03\x23\x00\x00");
    assert_eq!(bad.got(), ["DISCONNECT 0x94", "closed"]);
    let mut unset = net.join("unset");
    unset.publish_with(&Pub::new("", "x").with(Property::TopicAlias(1)));
    assert_eq!(unset.got(), ["DISCONNECT 0x82", "closed"]);
}

#[test]
fn bad_filters_are_refused_and_the_client_goes_on() {
    everywhere(|net, version| {
        let mut client = net.client("a").version(version).connect();
        let filters = [
            "a/#/b",
            "a#",
            "+a",
            "a/b+",
            if version == Version::V5 { "" } else { "++" },
            "$share/g",
            "$share//a",
            "$share/g+/a",
            "$share/g/",
        ];
        client.subscribe_with(&filters.map(|filter| (filter, options(0))), &[]);
        let code = if version == Version::V5 {
            "0x8f"
        } else {
            "0x80"
        };
        assert_eq!(
            client.got(),
            [format!("SUBACK #1 [{}]", [code; 9].join(", "))]
        );
        let stats = net.stats();
        assert_eq!((stats.subscriptions_refused, stats.subscriptions), (9, 0));
        client.ping();
        assert_eq!(client.got(), ["PINGRESP"]);
    });
}

#[test]
fn an_empty_filter_closes_a_3x_client() {
    for version in Version::ALL {
        let net = Net::new();
        for subscribes in [true, false] {
            let mut client = net.client("a").version(version).connect();
            if subscribes {
                client.subscribe_with(&[("a", options(0)), ("", options(0))], &[]);
            } else {
                client.unsubscribe(&["a", ""]);
            }
            let said: &[&str] = match (version, subscribes) {
                (Version::V5, true) => &["SUBACK #1 [0x00, 0x8f]"],
                (Version::V5, false) => &["UNSUBACK #1 [0x11, 0x8f]"],
                _ => &["closed"],
            };
            assert_eq!(client.got(), said, "{version:?}");
        }
    }
}

#[test]
fn a_filter_of_200_levels() {
    let net = Net::new();
    let mut client = net.join("a");
    let deep = vec!["x"; 200].join("/");
    let wild = vec!["+"; 200].join("/");
    let allowed = vec!["+"; 128].join("/");
    let filters = [&deep, &wild, &allowed].map(|filter| (filter.as_str(), options(0)));
    client.subscribe_with(&filters, &[]);
    assert_eq!(client.got(), ["SUBACK #1 [0x8f, 0x8f, 0x00]"]);
    client.unsubscribe(&[&deep, &allowed]);
    assert_eq!(client.got(), ["UNSUBACK #1 [0x8f, 0x00]"]);
    // A topic of that depth cannot be published to.
    client.write(&[&[0x30, 0x92, 0x03, 0x01, 0x8f], deep.as_bytes(), &[0]].concat());
    assert_eq!(client.got(), ["DISCONNECT 0x90", "closed"]);
}

#[test]
fn a_client_identifier_of_65_535_bytes() {
    everywhere(|net, version| {
        let mut bystander = Bystander::new(net);
        let mut bad = net.client(&"x".repeat(65_535)).version(version).attempt();
        assert_eq!(bad.got(), ["CONNACK 0x85", "closed"]);
        let stats = net.stats();
        assert_eq!((stats.closed_connect_refused, stats.sessions), (1, 1));
        bystander.goes_on();
    });
}

#[test]
fn ten_thousand_subscriptions_in_one_client() {
    const MAX: usize = 10_000;
    let net = Net::with(|config| config.limits.shared_groups_per_session_max = 5_000);
    let mut bystander = Bystander::new(&net);
    let mut client = net.client("many").persistent().connect();
    let filters: Vec<String> = (0..=MAX)
        .map(|at| match at % 3 {
            0 => format!("many/{at}"),
            1 => format!("many/{at}/+"),
            _ => format!("$share/g/many/{at}/#"),
        })
        .collect();
    for chunk in filters.chunks(1_000) {
        let filters: Vec<_> = chunk
            .iter()
            .map(|filter| (filter.as_str(), options(1)))
            .collect();
        client.subscribe_with(&filters, &[]);
    }
    let refused = client.got().join("").matches("0x97").count();
    assert_eq!(refused, 1);
    let stats = net.stats();
    assert_eq!(
        (stats.subscriptions, stats.subscriptions_refused),
        (MAX as u64 + 1, 1)
    );
    let mut publisher = net.join("p");
    for topic in ["many/9", "many/10/x", "many/11/x/y", "many/10", "other"] {
        publisher.publish(topic, 0, "x");
    }
    let got: Vec<String> = client.got();
    assert_eq!(
        got,
        [
            "PUBLISH many/9 x",
            "PUBLISH many/10/x x",
            "PUBLISH many/11/x/y x"
        ]
    );
    client.disconnect();
    net.client("many").connect().disconnect();
    assert_eq!(net.stats().subscriptions, 1);
    bystander.goes_on();
}

#[test]
fn a_client_that_never_reads_while_100_000_messages_come_for_it() {
    for level in [0, 1, 2] {
        let net = Net::with(|config| {
            config.workers = 3;
            config.limits.packet_bytes_max = 65_536;
            config.limits.outbox_bytes_max = 100_000;
        });
        let mut bystander = Bystander::new(&net);
        let mut deaf = net.client("deaf").persistent().connect();
        deaf.subscribe("t", level);
        let mut reader = net.join("reader");
        reader.subscribe("t", 0);
        deaf.block(true);
        let mut publisher = net.join("p");
        let payload = [b'x'; 100];
        let batch: Vec<u8> = (0..500)
            .flat_map(|_| publisher.encode_publish(&Pub::new("t", payload)))
            .collect();
        let mut id = 0_u16;
        for _ in 0..200 {
            if level == 0 {
                publisher.write(&batch);
            } else {
                for _ in 0..500 {
                    id = id % 60_000 + 1;
                    let bytes = publisher.encode_publish(&Pub::new("t", payload).qos(level, id));
                    publisher.push(&bytes);
                    if level == 2 {
                        let id = id.try_into().expect("it is not 0");
                        let release = publisher.encode(&Packet::PubRel(codec::Ack::success(id)));
                        publisher.push(&release);
                    }
                }
                net.run();
                publisher.got();
            }
            assert!(net.sim().unsent(deaf.peer()) <= 100_000);
            assert_eq!(reader.got().len(), 500);
        }
        let stats = net.stats();
        assert_eq!(
            (stats.publishes_received(), stats.unaccounted()),
            (100_000, 0)
        );
        match level {
            0 => assert!(
                stats.dropped_outbox_full > 98_000,
                "{}",
                stats.dropped_outbox_full
            ),
            _ => {
                assert_eq!((stats.inflight, stats.queued), (64, 10_000));
                assert_eq!(stats.dropped_queue_full, 100_000 - 10_064);
            }
        }
        bystander.goes_on();
        net.advance_s(31);
        assert!(!deaf.is_open());
        let stats = net.stats();
        assert_eq!((stats.closed_write_stall, stats.unaccounted()), (1, 0));
        bystander.goes_on();
    }
}

#[test]
fn a_client_that_asks_and_never_reads_the_answers_is_not_read_either() {
    // Each answer is small, so it is the number of them that must not grow.
    const BOUND: usize = 10_000;
    let join = |net: &Net| {
        let mut client = net.join("asks");
        client.block(true);
        client
    };
    let asks: [fn(&Client) -> Vec<u8>; 3] = [
        |client| client.encode(&Packet::PingReq),
        |client| client.encode_publish(&Pub::new("t", "").qos(1, 1)),
        |client| {
            client.encode(&Packet::PubRel(codec::Ack::success(
                1.try_into().expect("not 0"),
            )))
        },
    ];
    for ask in asks {
        let net = Net::with(|config| {
            config.limits.packet_bytes_max = 1_000;
            config.limits.outbox_bytes_max = BOUND as u64;
        });
        let mut bystander = Bystander::new(&net);
        let mut client = join(&net);
        let bytes = ask(&client).repeat(2_000);
        for _ in 0..20 {
            client.write(&bytes);
            assert!(net.sim().unsent(client.peer()) <= BOUND + 100);
        }
        bystander.goes_on();
        // Once it reads, it gets every answer.
        client.block(false);
        assert_eq!(client.got().len(), 40_000);
        // If it never does, its time ends as for any other.
        client.block(true);
        client.write(&bytes);
        net.advance_s(31);
        assert!(!client.is_open());
        assert_eq!(net.stats().closed_write_stall, 1);
    }
}

#[test]
fn a_packet_identifier_of_zero() {
    let bytes = |version: Version| match version {
        Version::V5 => b"\x32\x06\x00\x01t\x00\x00\x00".to_vec(),
        _ => b"\x32\x05\x00\x01t\x00\x00".to_vec(),
    };
    closes_a_client(bytes, "0x82", |stats| stats.closed_protocol_error);
}

#[test]
fn a_subscribe_and_an_unsubscribe_of_nothing() {
    for first in [0x82, 0xa2] {
        let bytes = |version: Version| match version {
            Version::V5 => vec![first, 3, 0, 1, 0],
            _ => vec![first, 2, 0, 1],
        };
        closes_a_client(bytes, "0x82", |stats| stats.closed_protocol_error);
    }
}

#[test]
fn a_shared_subscription_that_wants_no_local() {
    let net = Net::new();
    let mut bad = net.join("bad");
    bad.write(b"\x82\x11\x00\x01\x00\x00\x0b$share/g/ab\x05");
    assert_eq!(bad.got(), ["DISCONNECT 0x82", "closed"]);
}

#[test]
fn a_subscription_identifier_in_a_publish() {
    let net = Net::new();
    let mut bad = net.join("bad");
    // [MQTT-3.3.4-6]
    let publish = Pub::new("t", "x").with(Property::SubscriptionIdentifier(1));
    bad.publish_with(&publish);
    assert_eq!(bad.got(), ["DISCONNECT 0x82", "closed"]);
}

#[test]
fn auth_without_a_method() {
    let net = Net::new();
    let mut bad = net.join("bad");
    bad.write(&[0xf0, 0]);
    assert_eq!(bad.got(), ["DISCONNECT 0x82", "closed"]);
}

#[test]
fn nothing_is_read_after_the_error_and_the_rest_is_thrown_away() {
    let net = Net::new();
    let mut witness = net.join("witness");
    witness.subscribe("t", 0);
    let mut bad = net.join("bad");
    let mut bytes = vec![0xd0, 0];
    let packet = Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: codec::Properties::EMPTY,
        payload: b"x",
    });
    bytes.extend(bad.encode(&packet));
    bad.write(&bytes);
    assert_eq!(bad.got(), ["DISCONNECT 0x82", "closed"]);
    assert_eq!(witness.got(), NOTHING);
}

#[test]
fn an_answer_that_came_before_the_error_is_not_lost_to_what_comes_behind_it() {
    everywhere(|net, version| {
        let mut bad = net.client("bad").version(version).connect();
        let mut bytes = bad.encode_publish(&Pub::new("t", "x").qos(1, 1));
        bytes.extend([0xd0, 0]);
        bytes.resize(500_000, 0);
        bad.write(&bytes);
        let said: &[&str] = match version {
            Version::V5 => &["PUBACK #1", "DISCONNECT 0x82", "closed"],
            _ => &["PUBACK #1", "closed"],
        };
        assert_eq!(bad.got(), said, "{version}");
        let stats = net.stats();
        assert_eq!((stats.connections, stats.connections_closed), (0, 1));
    });
}

#[test]
fn of_who_goes_on_sending_after_the_error_no_more_is_read_than_a_bound() {
    everywhere(|net, version| {
        let mut bad = net.client("bad").version(version).connect();
        let sent = 4 * 1_048_576;
        let mut bytes = bad.encode_publish(&Pub::new("t", "x").qos(1, 1));
        bytes.extend([0xd0, 0]);
        bytes.resize(sent, 0);
        bad.write(&bytes);
        let read = sent - bad.unread();
        assert!((1_000_000..1_200_000).contains(&read), "{read} were read");
        assert_eq!(net.stats().connections, 1, "it may read what it was told");
        net.advance_s(2);
        assert_eq!(net.stats().connections, 0);
        assert_eq!(bad.got().first().map(String::as_str), Some("PUBACK #1"));
    });
}
