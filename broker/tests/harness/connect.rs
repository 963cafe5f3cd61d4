//! CONNECT: who is let in, in which version, what both sides agree on, and how long silence is borne.

use broker::{Action, Effect, Rule};
use codec::{Property, Version};

use crate::support::{NOTHING, Net, Pub, everywhere, options};

#[test]
fn each_version_is_answered_in_its_own_words() {
    everywhere(|net, version| {
        let mut client = net.client("a").version(version).attempt();
        assert_eq!(client.got(), ["CONNACK 0x00"]);
        client.ping();
        assert_eq!(client.got(), ["PINGRESP"]);
        client.disconnect();
        assert_eq!(client.got(), ["closed"]);
        let stats = net.stats();
        assert_eq!(
            (stats.clients_connected, stats.clients, stats.sessions),
            (1, 0, 0)
        );
        assert_eq!((stats.connections_opened, stats.connections), (1, 0));
        assert_eq!((stats.connections_closed, stats.closed_by_client), (1, 1));
    });
}

#[test]
fn packets_in_the_same_segment_as_the_connect_are_handled() {
    everywhere(|net, version| {
        for id in ["a", "b", "c", "d", "e"] {
            let mut client = net.open_as(version);
            let mut bytes = net.client(id).version(version).bytes();
            bytes.extend(client.encode_publish(&Pub::new("t", "x").qos(1, 1)));
            bytes.extend([0xc0, 0, 0xc0]);
            client.write(&bytes);
            assert_eq!(client.got(), ["CONNACK 0x00", "PUBACK #1", "PINGRESP"]);
            client.write(&[0]);
            assert_eq!(client.got(), ["PINGRESP"]);
        }
        assert_eq!(
            (net.stats().connections_opened, net.stats().connections),
            (5, 5)
        );
    });
}

#[test]
fn an_empty_client_identifier_gets_one_assigned() {
    for workers in [1, 3] {
        let net = Net::with(|config| config.workers = workers);
        let assigned: Vec<String> = (0..10)
            .map(|_| {
                let client = net.join("");
                let id = client.connack.as_properties().assigned_client_id();
                id.expect("the CONNACK tells it [MQTT-3.2.2-16]").to_owned()
            })
            .collect();
        assert_eq!(net.stats().clients, 10);
        assert!(assigned.iter().all(|id| !id.is_empty()));
        assert!((1..10).all(|at| !assigned[..at].contains(&assigned[at])));
        net.client("").version(Version::V311).connect();
        assert_eq!(net.stats().clients, 11);
    }
}

#[test]
fn in_3_1_1_an_empty_client_identifier_needs_a_clean_session() {
    let net = Net::new();
    let mut client = net.client("").version(Version::V311).resuming().attempt();
    assert_eq!(client.got(), ["CONNACK 0x85", "closed"]);
    assert_eq!(net.stats().closed_connect_refused, 1);
}

#[test]
fn in_3_1_a_client_identifier_is_never_empty() {
    let net = Net::new();
    let mut client = net.client("").version(Version::V31).attempt();
    assert_eq!(client.got(), ["CONNACK 0x85", "closed"]); // 0x02 on the wire
}

#[test]
fn in_3_1_the_flags_of_a_connects_first_byte_mean_nothing() {
    for (version, first, fits) in [
        (Version::V31, 0x1b, true),
        (Version::V31, 0x16, false), // a TLS hello, more likely
        (Version::V311, 0x11, false),
        (Version::V5, 0x11, false),
    ] {
        let net = Net::new();
        let mut bytes = net.client("a").version(version).bytes();
        bytes[0] = first;
        let mut client = net.open_as(version);
        client.write(&bytes);
        assert_eq!(client.is_open(), fits, "{version:?} {first:#x}");
        assert_eq!(net.stats().clients, u64::from(fits));
    }
}

#[test]
fn an_empty_client_identifier_is_refused_where_none_is_assigned() {
    let net = Net::with(|config| config.assign_client_ids = false);
    assert_eq!(net.client("").attempt().got(), ["CONNACK 0x85", "closed"]);
}

#[test]
fn the_connack_announces_the_bounds() {
    let net = Net::with(|config| {
        config.limits.receive_maximum = 12;
        config.limits.packet_bytes_max = 5_000;
        config.limits.topic_alias_maximum = 7;
        config.limits.session_expiry_max_s = 60;
    });
    let client = net
        .client("a")
        .with(Property::SessionExpiryInterval(61))
        .connect();
    let properties = client.connack.as_properties();
    assert_eq!(properties.receive_maximum(), Some(12));
    assert_eq!(properties.maximum_packet_size(), Some(5_000));
    assert_eq!(properties.topic_alias_maximum(), Some(7));
    assert_eq!(properties.session_expiry(), Some(60));
    assert_eq!(properties.server_keep_alive(), None);
    let client = net
        .client("b")
        .with(Property::SessionExpiryInterval(60))
        .connect();
    assert_eq!(client.connack.as_properties().session_expiry(), None);
}

#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    everywhere(|net, version| {
        let mut client = net.client("a").version(version).keep_alive_s(10).connect();
        net.advance_s(15);
        assert_eq!(client.got(), NOTHING);
        net.advance_ms(300);
        let said: &[&str] = match version {
            Version::V5 => &["DISCONNECT 0x8d", "closed"],
            _ => &["closed"],
        };
        assert_eq!(client.got(), said);
        assert_eq!(net.stats().closed_keep_alive, 1);
    });
}

#[test]
fn any_packet_keeps_a_client_alive() {
    let net = Net::new();
    let mut client = net.client("a").keep_alive_s(10).connect();
    for _ in 0..10 {
        net.advance_s(14);
        client.ping();
        assert_eq!(client.got(), ["PINGRESP"]);
        net.advance_s(14);
        client.publish("t", 0, "x");
        assert_eq!(client.got(), NOTHING);
    }
    net.advance_s(16);
    assert_eq!(client.got(), ["DISCONNECT 0x8d", "closed"]);
}

#[test]
fn the_timer_of_the_connect_becomes_that_of_the_keep_alive_where_it_is_in_time() {
    // CONNECT has 10 s, so a keep-alive of 7 s is the first whose end that timer sees coming.
    for (keep_alive_s, timers) in [(1, 2), (6, 2), (7, 1), (60, 1), (400, 1), (u16::MAX, 1)] {
        let net = Net::new();
        let mut client = net.client("a").keep_alive_s(keep_alive_s).connect();
        assert_eq!(net.sim().timers(), timers, "{keep_alive_s} s");
        net.advance_ms(u64::from(keep_alive_s) * 1_500 - 1);
        assert_eq!(client.got(), NOTHING, "{keep_alive_s} s");
        net.advance_ms(201);
        assert_eq!(
            client.got(),
            ["DISCONNECT 0x8d", "closed"],
            "{keep_alive_s} s"
        );
    }
}

#[test]
fn without_keep_alive_silence_is_borne_for_ever() {
    let net = Net::new();
    let mut client = net.client("a").keep_alive_s(0).connect();
    net.advance_s(1_000_000);
    client.ping();
    assert_eq!(client.got(), ["PINGRESP"]);
}

#[test]
fn the_server_may_name_a_shorter_keep_alive() {
    let net = Net::with(|config| config.limits.keep_alive_max_s = 20);
    for asked_s in [0, 21, 60_000] {
        let mut client = net.client("a").keep_alive_s(asked_s).connect();
        assert_eq!(client.connack.as_properties().server_keep_alive(), Some(20));
        net.advance_s(30);
        assert_eq!(client.got(), NOTHING);
        net.advance_s(1);
        assert_eq!(client.got(), ["DISCONNECT 0x8d", "closed"]);
    }
    let client = net.client("b").keep_alive_s(19).connect();
    assert_eq!(client.connack.as_properties().server_keep_alive(), None);
}

#[test]
fn access_rules_refuse_a_client_in_each_version() {
    everywhere(|_, version| {
        let net = Net::with(|config| {
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Connect,
                filter: String::new(),
                client: "bad-*".to_owned(),
                ..Rule::default()
            }];
        });
        let mut bad = net.client("bad-1").version(version).attempt();
        assert_eq!(bad.got(), ["CONNACK 0x87", "closed"]);
        net.client("good").version(version).connect();
        let stats = net.stats();
        assert_eq!((stats.closed_connect_refused, stats.clients), (1, 1));
    });
}

#[test]
fn an_authentication_method_is_refused_as_there_is_none() {
    let net = Net::new();
    let mut client = net
        .client("a")
        .with(Property::AuthenticationMethod("x"))
        .attempt();
    assert_eq!(client.got(), ["CONNACK 0x8c", "closed"]);
}

#[test]
fn an_unknown_version_is_refused_in_words_of_the_nearest_one() {
    let net = Net::new();
    let mut old = net.open();
    old.write(b"\x10\x0d\x00\x04MQTT\x02\x02\x00\x00\x00\x01a");
    assert_eq!(old.got(), ["CONNACK 0x84", "closed"]);
    let mut new = net.open();
    new.write(b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01a");
    assert_eq!(net.sim().receive(new.peer()), [0x20, 3, 0, 0x84, 0]);
    assert!(!new.is_open());
    assert_eq!(net.stats().closed_connect_refused, 2);
}

#[test]
fn one_connection_over_the_bound_is_closed_at_once() {
    let net = Net::with(|config| config.limits.connections_max = 2);
    let (mut a, mut b) = (net.join("a"), net.join("b"));
    let mut over = net.open();
    assert_eq!(over.got(), ["closed"]);
    let stats = net.stats();
    assert_eq!((stats.closed_limit, stats.connections), (1, 2));
    assert_eq!((stats.connections_opened, stats.connections_closed), (3, 1));
    a.cut();
    net.join("c");
    b.ping();
    assert_eq!(b.got(), ["PINGRESP"]);
}

#[test]
fn the_bound_on_connections_is_the_nodes_however_they_spread_over_the_workers() {
    let net = Net::with(|config| {
        config.workers = 6;
        config.limits.connections_max = 20;
    });
    // A client's worker is decided by its identifier, so some workers have many of the twenty and some have few.
    let mut clients: Vec<_> = (0..20).map(|n| net.join(&format!("c{n}"))).collect();
    assert_eq!((net.stats().connections, net.stats().closed_limit), (20, 0));
    assert_eq!(net.open().got(), ["closed"]);
    // What goes makes room.
    clients[3].cut();
    clients[7].cut();
    net.join("c20");
    net.join("c21");
    assert_eq!(net.open().got(), ["closed"]);
    assert_eq!((net.stats().connections, net.stats().closed_limit), (20, 2));
}

#[test]
fn no_packet_is_larger_than_the_client_takes() {
    let mut accepted = 0;
    for max in 1..100_u32 {
        let net = Net::new();
        let will = net.client("").will("w", "gone");
        let mut client = will.with(Property::MaximumPacketSize(max)).attempt();
        let sent = net.stats().bytes_sent;
        assert!(sent <= u64::from(max), "{sent} of {max} bytes");
        if client.is_open() {
            accepted += 1;
            assert!(client.got()[0].starts_with("CONNACK 0x00"));
        } else {
            assert_eq!(accepted, 0, "a smaller one was enough");
            assert_eq!(client.got(), ["closed"]);
            let stats = net.stats();
            assert_eq!((stats.sessions, stats.wills_published), (0, 0));
        }
    }
    assert!((10..90).contains(&accepted), "{accepted}");
}

#[test]
fn a_refusal_is_not_larger_than_the_client_takes() {
    let net = Net::with(|config| config.assign_client_ids = false);
    for (max, said) in [(4, &["closed"][..]), (5, &["CONNACK 0x85", "closed"])] {
        let mut client = net
            .client("")
            .with(Property::MaximumPacketSize(max))
            .attempt();
        assert_eq!(client.got(), said);
    }
}

#[test]
fn an_answer_to_more_filters_than_fit_the_clients_packets_ends_the_connection() {
    let filters: Vec<String> = (0..100).map(|at| format!("t/{at}")).collect();
    for (count, fits) in [(95, true), (96, false)] {
        for subscribes in [true, false] {
            let net = Net::new();
            let mut client = net
                .client("a")
                .with(Property::MaximumPacketSize(100))
                .connect();
            let filters = filters[..count].iter().map(String::as_str);
            if subscribes {
                let filters: Vec<_> = filters.map(|filter| (filter, options(0))).collect();
                client.subscribe_with(&filters, &[]);
            } else {
                client.unsubscribe(&filters.collect::<Vec<_>>());
            }
            let got = client.got();
            if fits {
                assert_eq!(got.len(), 1, "{got:?}");
            } else {
                assert_eq!(got, ["DISCONNECT 0x95", "closed"], "{count}");
            }
        }
    }
}

/// Connections that come and go at one time in one place, until its generation is again what it was.
fn place_comes_round(net: &Net) {
    for _ in 0..65_535 {
        net.open().cut();
    }
}

#[test]
fn an_old_connections_timer_does_not_end_a_new_ones_time_to_connect() {
    let net = Net::new();
    net.open().cut();
    place_comes_round(&net);
    net.advance_ms(9_900);
    let mut client = net.open_as(Version::V5);
    net.advance_ms(200);
    client.write(&net.client("c").bytes());
    assert_eq!(client.got(), ["CONNACK 0x00"]);
    net.open();
    net.advance_ms(10_200);
    assert_eq!(net.stats().closed_connect_timeout, 1, "its own time holds");
}

#[test]
fn an_old_connections_timer_does_not_drop_a_new_one() {
    let net = Net::new();
    let mut old = net.join("x");
    let _new = net.join("x");
    assert_eq!(old.got(), ["DISCONNECT 0x8e", "closed"]);
    old.cut();
    place_comes_round(&net);
    let mut client = net.join("y");
    net.advance_ms(2_200);
    client.ping();
    assert_eq!(client.got(), ["PINGRESP"]);
}
