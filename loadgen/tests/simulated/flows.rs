//! Connecting, subscribing, publishing and leaving, one shard in virtual time.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{Incoming, Refusal, Sink, Token, Verdict};
use codec::{Qos, ReasonCode, Version};
use loadgen::payload::Body;
use loadgen::simulated::{BuildError, CLIENTS_MAX, SimClock, build};
use loadgen::swarm::{Client, Leave, Notice, Swarm};

use super::support::{Net, PAYLOAD_BYTES, config, hello, name, stamp, topic};

fn connected(client: u32) -> Notice {
    Notice::Connected {
        client: Client(client),
        session_present: false,
    }
}

fn acknowledged(client: u32, id: u16) -> Notice {
    Notice::Acknowledged {
        client: Client(client),
        packet_id: NonZeroU16::new(id).unwrap(),
        reason: ReasonCode::SUCCESS,
    }
}

fn delivered(client: u32, qos: Qos, lane: u32, number: u32) -> Notice {
    Notice::Delivered {
        client: Client(client),
        qos,
        retained: false,
        stamp: Some(stamp(lane, number)),
        body: Body::Intact(PAYLOAD_BYTES as u32),
    }
}

#[test]
fn every_qos_goes_both_ways_in_every_version() {
    for version in Version::ALL {
        for level in 0..3 {
            let mut net = Net::of(2, &config());
            net.connect(0, |hello| hello.version = version);
            net.connect(1, |hello| hello.version = version);
            assert_eq!(net.run(), [connected(0), connected(1)]);
            net.subscribe(1, "a/+", level);
            assert_eq!(net.run().len(), 1);
            let mut notices = Vec::new();
            let mut ids = Vec::new();
            for number in 0..100 {
                ids.push(net.publish(0, "a/b", level, stamp(3, number)));
                notices.extend(net.run());
            }
            let qos = Qos::try_from(level).unwrap();
            let got: Vec<_> = notices
                .iter()
                .filter(|notice| matches!(notice, Notice::Delivered { .. }))
                .cloned()
                .collect();
            let due: Vec<_> = (0..100)
                .map(|number| delivered(1, qos, 3, number))
                .collect();
            assert_eq!(got, due, "{version} {level}");
            let answers: Vec<_> = notices
                .iter()
                .filter(|notice| matches!(notice, Notice::Acknowledged { .. }))
                .cloned()
                .collect();
            let due: Vec<_> = ids
                .iter()
                .filter(|id| **id > 0)
                .map(|id| acknowledged(0, *id))
                .collect();
            assert_eq!(answers, due, "{version} {level}");
            assert_eq!(due.len(), if level == 0 { 0 } else { 100 });
            assert_eq!(notices.len(), got.len() + answers.len());
            let stats = net.stats();
            assert_eq!(stats.unaccounted(), 0);
            assert_eq!(stats.inflight, 0);
        }
    }
}

#[test]
fn the_brokers_receive_maximum_is_the_room_that_is_left() {
    struct Waits;
    impl Sink for Waits {
        fn accept(&self, _: &Incoming<'_>, token: Token) -> Verdict {
            if token == Token::NONE {
                return Verdict::NotStored;
            }
            Verdict::Pending {
                deliver: broker::Deliver::Now,
            }
        }
    }
    let mut config = config();
    config.limits.receive_maximum = 10;
    let mut net = Net::with_sink(1, &config, Arc::new(Waits));
    assert_eq!(net.swarms[0].room(Client(0)), 0);
    net.connect(0, |_| ());
    assert_eq!(net.swarms[0].room(Client(0)), 0);
    net.run();
    assert_eq!(net.swarms[0].room(Client(0)), 10);
    for number in 0..4 {
        net.publish(0, "t", 1 + (number as u8 & 1), stamp(0, number));
    }
    net.publish(0, "t", 0, stamp(0, 4));
    assert_eq!(net.swarms[0].room(Client(0)), 6);
    net.run();
    assert_eq!(net.swarms[0].room(Client(0)), 6);
    // What was in flight is forgotten with the connection.
    net.swarms[0].disconnect(Client(0), Leave::Abruptly);
    assert_eq!(net.swarms[0].room(Client(0)), 0);
    net.connect(0, |_| ());
    net.run();
    assert_eq!(net.swarms[0].room(Client(0)), 10);
}

#[test]
fn what_the_sink_refuses_is_told_with_its_reason() {
    struct Refuses;
    impl Sink for Refuses {
        fn accept(&self, _: &Incoming<'_>, _: Token) -> Verdict {
            Verdict::Refused(Refusal::Quota)
        }
    }
    let mut net = Net::with_sink(2, &config(), Arc::new(Refuses));
    net.connect(0, |_| ());
    net.connect(1, |hello| hello.version = Version::V311);
    net.run();
    for level in [1, 2] {
        let id = net.publish(0, "t", level, stamp(0, 0));
        let told = Notice::Acknowledged {
            client: Client(0),
            packet_id: NonZeroU16::new(id).unwrap(),
            reason: ReasonCode::QUOTA_EXCEEDED,
        };
        assert_eq!(net.run(), [told]);
    }
    // 3.1.1 knows no other way than to close.
    net.publish(1, "t", 1, stamp(0, 0));
    let notices = net.run();
    assert!(
        matches!(&notices[..], [Notice::Closed { client: Client(1), why }] if why == "the broker closed the connection"),
        "{notices:?}"
    );
    assert_eq!(net.swarms[0].room(Client(1)), 0);
    assert_eq!(net.stats().connections, 1);
}

#[test]
fn a_client_that_the_sink_holds_goes_on_where_it_was_stopped() {
    struct Holds(AtomicBool);
    impl Sink for Holds {
        fn accept(&self, _: &Incoming<'_>, _: Token) -> Verdict {
            if self.0.load(Ordering::Relaxed) {
                Verdict::NotStored
            } else {
                Verdict::Busy
            }
        }
    }
    let sink = Arc::new(Holds(AtomicBool::new(false)));
    let mut config = config();
    config.limits.read_ahead_bytes_max = 0;
    let mut net = Net::with_sink(2, &config, sink.clone());
    net.connect(0, |_| ());
    net.connect(1, |_| ());
    net.run();
    net.subscribe(1, "t", 1);
    net.run();
    for number in 0..50 {
        net.publish(0, "t", 1, stamp(0, number));
    }
    assert_eq!(net.run(), []);
    assert_eq!(net.swarms[0].room(Client(0)), 0);
    sink.0.store(true, Ordering::Relaxed);
    net.swarms[0].handle().sink_ready();
    let notices = net.run();
    let got: Vec<_> = notices
        .iter()
        .filter(|notice| matches!(notice, Notice::Delivered { .. }))
        .cloned()
        .collect();
    let due: Vec<_> = (0..50)
        .map(|number| delivered(1, Qos::AtLeastOnce, 0, number))
        .collect();
    assert_eq!(got, due);
    assert_eq!(notices.len(), 100);
    assert!(net.swarms[0].room(Client(0)) > 0);
}

#[test]
fn a_client_that_leaves_hears_nothing_more_and_may_come_back() {
    let mut net = Net::of(2, &config());
    let durable = |hello: &mut loadgen::swarm::Hello<'_>| {
        hello.session_expiry_s = 3_600;
        hello.clean_start = false;
    };
    net.connect(0, durable);
    net.connect(1, |_| ());
    net.run();
    net.subscribe(0, "t", 2);
    net.run();
    for how in [Leave::Politely, Leave::Abruptly] {
        // Both sides have something to say when it leaves.
        net.publish(1, "t", 0, stamp(0, 0));
        net.publish(0, "u", 1, stamp(0, 0));
        net.swarms[0].disconnect(Client(0), how);
        assert_eq!(net.run(), []);
        assert_eq!(net.stats().clients, 1);
        net.publish(1, "t", 2, stamp(0, 1));
        assert_eq!(net.run().len(), 1);
        net.connect(0, durable);
        let notices = net.run();
        let back = Notice::Connected {
            client: Client(0),
            session_present: true,
        };
        let got = delivered(0, Qos::ExactlyOnce, 0, 1);
        assert_eq!(notices, [back, got]);
    }
    let stats = net.stats();
    assert_eq!(stats.closed_by_client, 1);
    assert_eq!(stats.closed_lost, 1);
    assert_eq!(stats.unaccounted(), 0);
}

#[test]
fn connecting_again_while_connected_replaces_the_connection() {
    let mut net = Net::of(1, &config());
    for _ in 0..3 {
        net.connect(0, |_| ());
    }
    assert_eq!(net.run(), [connected(0)]);
    net.connect(0, |_| ());
    assert_eq!(net.run(), [connected(0)]);
    assert_eq!(net.stats().connections, 1);
    assert_eq!(net.stats().sessions, 1);
}

#[test]
fn two_clients_of_one_name_take_over_from_each_other() {
    let mut net = Net::of(2, &config());
    let swarm = &mut net.swarms[0];
    swarm.connect(Client(0), &hello("same")).unwrap();
    net.run();
    let swarm = &mut net.swarms[0];
    swarm.connect(Client(1), &hello("same")).unwrap();
    let notices = net.run();
    assert!(notices.contains(&connected(1)));
    let why = notices.iter().find_map(|notice| match notice {
        Notice::Closed {
            client: Client(0),
            why,
        } => Some(why.as_str()),
        _ => None,
    });
    let why = why.expect("the first one was closed");
    assert!(why.starts_with("the broker disconnected: "), "{why}");
    assert_eq!(notices.len(), 2);
    assert_eq!(net.stats().connections, 1);
}

#[test]
fn a_refused_client_is_told_why_and_a_refused_filter_is_counted() {
    let mut config = config();
    config.limits.client_id_bytes_max = 23;
    config.limits.topic_levels_max = 2;
    let mut net = Net::of(2, &config);
    let swarm = &mut net.swarms[0];
    let long = "x".repeat(24);
    swarm.connect(Client(0), &hello(&long)).unwrap();
    let notices = net.run();
    let [Notice::Closed { why, .. }] = &notices[..] else {
        panic!("{notices:?}");
    };
    assert!(
        why.starts_with("the broker refused the connection: "),
        "{why}"
    );
    net.connect(1, |_| ());
    net.run();
    let filters = [("a/b", Qos::AtMostOnce), ("a/b/c", Qos::AtMostOnce)];
    net.swarms[0].subscribe(Client(1), &filters).unwrap();
    let told = Notice::Subscribed {
        client: Client(1),
        granted: 1,
        refused: 1,
    };
    assert_eq!(net.run(), [told]);
}

#[test]
fn what_cannot_be_is_an_error() {
    let mut net = Net::of(1, &config());
    let swarm = &mut net.swarms[0];
    swarm
        .connect(Client(1), &hello("one too many"))
        .unwrap_err();
    net.connect(0, |_| ());
    net.run();
    let swarm = &mut net.swarms[0];
    swarm.subscribe(Client(0), &[]).unwrap_err();
    let wild = loadgen::swarm::Outgoing {
        topic: "a/#",
        qos: Qos::AtLeastOnce,
        retain: false,
        payload: &[],
    };
    swarm.publish(Client(0), &wild).unwrap_err();
    assert_eq!(net.run(), []);
    assert!(matches!(
        build(&config(), 2, 10, SimClock::Virtual),
        Err(BuildError::VirtualShards(2))
    ));
    assert!(matches!(
        build(&config(), 0, 10, SimClock::Real),
        Err(BuildError::Shards(0))
    ));
    for clients in [0, CLIENTS_MAX + 1] {
        let error = build(&config(), 1, clients, SimClock::Real).unwrap_err();
        let says = format!("clients = {clients} is not allowed: 1 to {CLIENTS_MAX} are");
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn a_client_that_is_away_publishes_into_nothing() {
    let mut net = Net::of(2, &config());
    net.publish(0, "t", 0, stamp(0, 0));
    net.publish(0, "t", 1, stamp(0, 0));
    net.subscribe(0, "t", 0);
    assert_eq!(net.run(), []);
    assert_eq!(net.stats().packets_received, 0);
}

#[test]
fn the_same_inputs_give_the_same_notices() {
    let run = || {
        let mut net = Net::of(500, &config());
        net.connect_all(500, 2, |hello| hello.keep_alive_s = 10);
        let mut notices = Vec::new();
        for number in 0..2_000_u32 {
            let from = number.wrapping_mul(2_654_435_761) % 500;
            let to = number.wrapping_mul(40_503) % 500;
            let level = (number % 3) as u8;
            net.publish(from, &topic(to), level, stamp(from, number));
            if number % 7 == 0 {
                notices.extend(net.pass(Duration::from_millis(u64::from(number % 50))));
            }
            if number % 31 == 0 {
                net.swarms[0].disconnect(Client(to), Leave::Abruptly);
                net.connect(to, |hello| hello.keep_alive_s = 10);
            }
        }
        notices.extend(net.run());
        let stats = net.stats();
        assert_eq!(stats.unaccounted(), 0);
        (notices, stats)
    };
    let (first, stats) = run();
    assert!(first.len() > 2_000, "{}", first.len());
    assert_eq!((first, stats), run());
}

#[test]
fn names_belong_to_somebody() {
    let net = Net::sharded(10, 3);
    for client in 0..10 {
        for id in [name(client), String::new()] {
            let owners = net.swarms.iter();
            let owners = owners.filter(|swarm| swarm.owns(Client(client), &id));
            assert_eq!(owners.count(), 1);
        }
    }
}
