//! Publishers that are held: only their publishes wait. All else that they send is answered, what was read ahead stays in
//! order and within its bounds, and their end is seen at once.

use broker::{Message, MessageParts, Stats, Verdict};
use codec::{Property, Version};

use crate::support::{Client, NOTHING, Net, PENDING, Pub, Store, qos};

/// Both ways in which a client's publishes come to wait: the sink has no room, or (3.x) too many are not answered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hold {
    Sink,
    Answers,
}

const HOLDS: [(Hold, Version); 4] = [
    (Hold::Sink, Version::V31),
    (Hold::Sink, Version::V311),
    (Hold::Sink, Version::V5),
    (Hold::Answers, Version::V311),
];

/// A broker of so many workers, and its store, whose publishers will be held; of each client no more than 1,000 bytes are
/// read ahead.
fn holding(hold: Hold, workers: usize) -> (Net, std::sync::Arc<Store>) {
    let store = Store::answering(match hold {
        Hold::Sink => Verdict::Busy,
        Hold::Answers => PENDING,
    });
    let net = Net::with_sink(store.clone(), |config| {
        config.workers = workers;
        config.limits.read_ahead_bytes_max = 1_000;
        if hold == Hold::Answers {
            config.limits.receive_maximum = 1;
        }
    });
    (net, store)
}

/// A client that is held: it has published `held` with packet identifier 1, behind another where answers are missing.
fn held(net: &Net, hold: Hold, join: crate::support::Join) -> Client {
    let mut client = join.connect();
    if hold == Hold::Answers {
        client.publish_with(&Pub::new("up", "first").qos(1, 9));
    }
    client.publish_with(&Pub::new("up", "held").qos(1, 1));
    assert_eq!(net.stats().publishers_held, 1);
    client
}

/// Messages that do not come by the sink.
fn from_elsewhere(net: &Net, messages: usize) {
    let message = |n: usize| {
        Message::new(&MessageParts {
            topic: "down",
            payload: n.to_string().as_bytes(),
            qos: qos(1),
            retain: false,
            properties: &[],
            expires_at: None,
            arrived_at: broker::Time(0),
        })
    };
    net.handle()
        .publish((0..messages).map(message).collect(), None);
    net.run();
}

fn kept(stats: &Stats) -> (u64, u64, u64) {
    (
        stats.publishers_held,
        stats.publishes_read_ahead,
        stats.read_ahead_bytes,
    )
}

#[test]
fn a_held_client_is_answered_and_its_subscriptions_go_on() {
    for workers in [1, 3] {
        for (hold, version) in HOLDS {
            let (net, _store) = holding(hold, workers);
            let join = net.client("p").version(version).keep_alive_s(10);
            let mut client = held(&net, hold, join);
            client.ping();
            assert_eq!(client.got(), ["PINGRESP"], "{hold:?} {version:?}");
            client.subscribe("down", 1);
            from_elsewhere(&net, 200);
            for n in 0..200_u16 {
                if n % 64 == 0 {
                    // All of its window.
                    let window = client.got();
                    assert_eq!(window.len(), usize::from(200 - n).min(64));
                    assert_eq!(window[0], format!("PUBLISH down {n} q1 #{}", n + 1));
                    (n..200).take(64).for_each(|n| client.puback(n + 1));
                }
            }
            client.unsubscribe(&["down"]);
            let ended = client.got();
            assert!(ended[0].starts_with("UNSUBACK"), "{ended:?}");
            assert_eq!(net.stats().delivered_acknowledged, 200);
            // It is heard, so its silence is its own.
            net.advance_s(20);
            assert!(!client.is_open());
            assert_eq!(net.stats().closed_keep_alive, 1);
            assert_eq!(kept(&net.stats()), (0, 0, 0));
        }
    }
}

#[test]
fn what_was_read_ahead_goes_on_in_order_and_is_acknowledged_in_order() {
    for workers in [1, 3] {
        let (net, store) = holding(Hold::Sink, workers);
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 0);
        let mut publisher = net.join("p");
        let levels = [1, 0, 2, 0, 1, 1, 0, 2];
        for (n, level) in levels.into_iter().enumerate() {
            publisher.publish("t", level, n.to_string());
            publisher.ping();
        }
        assert_eq!(publisher.got(), ["PINGRESP"; 8]);
        assert_eq!(subscriber.got(), NOTHING);
        assert_eq!(net.stats().publishes_read_ahead, 8);
        // There is room for three, then for all.
        store.answer_next([Verdict::Accepted; 3]);
        net.handle().sink_ready();
        net.run();
        let text = |n: usize| format!("PUBLISH t {n}");
        // The QoS 0 that comes next is not stored, as of anybody else, and the next QoS 1 waits.
        assert_eq!(subscriber.got(), (0..4).map(text).collect::<Vec<_>>());
        assert_eq!(net.stats().sink_dropped_qos0, 1);
        publisher.publish("t", 0, "8");
        store.answer_always(Verdict::Accepted);
        net.handle().sink_ready();
        net.run();
        assert_eq!(subscriber.got(), (4..9).map(text).collect::<Vec<_>>());
        assert_eq!(
            publisher.got(),
            [
                "PUBACK #1",
                "PUBREC #2",
                "PUBACK #3",
                "PUBACK #4",
                "PUBREC #5"
            ]
        );
        let stats = net.stats();
        assert_eq!(kept(&stats), (0, 0, 0));
        assert_eq!(
            (stats.publishes_received(), stats.read_ahead_dropped),
            (9, 0)
        );
    }
}

#[test]
fn of_a_held_client_no_more_is_read_than_its_bound_and_all_of_it_comes_in_the_end() {
    for (hold, version) in HOLDS {
        let (net, store) = holding(hold, 1);
        let mut subscriber = net.join("s");
        subscriber.subscribe("up", 0);
        let mut client = held(&net, hold, net.client("p").version(version));
        for id in 2..100 {
            client.publish_with(&Pub::new("up", format!("{id:040}")).qos(1, id));
            let (_, _, bytes) = kept(&net.stats());
            assert!(bytes <= 1_000, "{bytes}");
        }
        assert!(client.unread() > 3_000, "{}", client.unread());
        client.ping();
        // No more is read; that nothing is heard is not the client's doing.
        assert_eq!(client.got(), NOTHING);
        net.advance_s(1_000);
        assert!(client.is_open());
        store.answer_always(Verdict::Accepted);
        net.handle().sink_ready();
        net.run();
        if hold == Hold::Answers {
            store.stored(&net, [0]);
        }
        let got = client.got();
        assert_eq!(got.len(), 100 + usize::from(hold == Hold::Answers));
        assert_eq!(got[got.len() - 2..], ["PUBACK #99", "PINGRESP"]);
        let first = if hold == Hold::Answers { 2 } else { 1 };
        let got = subscriber.got();
        for (id, text) in (2..100).zip(&got[first..]) {
            assert_eq!(*text, format!("PUBLISH up {id:040}"));
        }
        assert_eq!(kept(&net.stats()), (0, 0, 0));
    }
}

#[test]
fn the_end_of_a_held_client_is_seen_and_its_will_goes_out() {
    for (hold, version) in HOLDS {
        // Below the bound, and far beyond it, where nothing more of it is read.
        for publishes in [1, 100] {
            let (net, store) = holding(hold, 1);
            let mut watcher = net.join("w");
            watcher.subscribe("wills", 0);
            let join = net.client("p").version(version).will("wills", "gone");
            let mut client = held(&net, hold, join);
            for id in 2..=publishes {
                client.publish_with(&Pub::new("up", [b'x'; 40]).qos(1, id));
            }
            client.finish();
            assert!(!client.is_open(), "{hold:?} {version:?} {publishes}");
            let stats = net.stats();
            assert_eq!(stats.closed_lost, 1);
            assert_eq!((stats.sessions, kept(&stats)), (1, (0, 0, 0)));
            assert_eq!(stats.read_ahead_dropped, u64::from(publishes));
            assert_eq!(watcher.got(), ["PUBLISH wills gone"]);
            // Nobody is told that any of it was accepted, and none is.
            store.answer_always(Verdict::Accepted);
            store.offered();
            net.handle().sink_ready();
            net.run();
            let will = if hold == Hold::Sink {
                &["wills gone"][..]
            } else {
                &[]
            };
            assert_eq!(store.offered(), will);
        }
    }
}

#[test]
fn a_held_client_that_says_goodbye_has_no_will() {
    for (hold, version) in HOLDS {
        for publishes in [1, 100] {
            let (net, _store) = holding(hold, 1);
            let mut watcher = net.join("w");
            watcher.subscribe("wills", 0);
            let join = net.client("p").version(version).will("wills", "gone");
            let mut client = held(&net, hold, join);
            for id in 2..=publishes {
                client.publish_with(&Pub::new("up", [b'x'; 40]).qos(1, id));
            }
            client.disconnect();
            client.finish();
            let stats = net.stats();
            assert_eq!((stats.closed_by_client, stats.closed_lost), (1, 0));
            assert_eq!(stats.read_ahead_dropped, u64::from(publishes));
            assert_eq!(watcher.got(), NOTHING);
        }
    }
}

#[test]
fn a_5_0_client_keeps_to_its_receive_maximum_while_it_is_held() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |config| config.limits.receive_maximum = 5);
    let mut client = net.join("p");
    for level in [1, 2, 0, 1, 0, 2, 1, 0] {
        client.publish("t", level, "x");
    }
    client.ping();
    assert_eq!(client.got(), ["PINGRESP"]);
    assert_eq!(net.stats().publishes_read_ahead, 8);
    client.publish("t", 1, "x");
    assert_eq!(client.got(), ["DISCONNECT 0x93", "closed"]);
    let stats = net.stats();
    assert_eq!(
        (stats.closed_receive_maximum, stats.read_ahead_dropped),
        (1, 8)
    );
}

#[test]
fn what_was_answered_and_what_waits_count_together_for_the_receive_maximum() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |config| config.limits.receive_maximum = 3);
    let mut client = net.join("p");
    store.answer_next([PENDING, PENDING]);
    for _ in 0..3 {
        client.publish("t", 1, "x");
    }
    store.stored(&net, [0]);
    assert_eq!(client.got(), ["PUBACK #1"]);
    client.publish("t", 1, "x");
    assert!(client.is_open());
    client.publish("t", 1, "x");
    assert_eq!(client.got(), ["DISCONNECT 0x93", "closed"]);
}

#[test]
fn a_malformed_packet_behind_held_publishes_is_found_at_once() {
    let (net, _store) = holding(Hold::Sink, 1);
    let mut client = held(&net, Hold::Sink, net.client("p"));
    client.write(&[0x30, 3, 0, 9, b't']);
    assert_eq!(client.got(), ["DISCONNECT 0x81", "closed"]);
    assert_eq!(net.stats().read_ahead_dropped, 1);
}

#[test]
fn the_node_reads_no_more_ahead_than_its_bound_and_goes_on_when_it_has_room() {
    for workers in [1, 3] {
        let store = Store::answering(Verdict::Busy);
        let net = Net::with_sink(store.clone(), |config| {
            config.workers = workers;
            config.limits.read_ahead_bytes_max = 1_000;
            config.limits.read_ahead_node_bytes_max = 3_000;
        });
        let mut clients: Vec<_> = (0..20).map(|n| net.join(&format!("c{n}"))).collect();
        for client in &mut clients {
            client.publish("t", 1, "x");
        }
        for _ in 0..15 {
            for client in &mut clients {
                client.publish("t", 1, [b'x'; 40]);
            }
        }
        let stats = net.stats();
        assert!(stats.read_ahead_bytes <= 3_000, "{stats:?}");
        assert!(stats.read_ahead_bytes >= 2_900, "{stats:?}");
        let last = clients.last_mut().expect("twenty");
        last.ping();
        assert_eq!(last.got(), NOTHING);
        // The others leave, among them those of whom nothing was read any more.
        for client in &mut clients[..19] {
            client.finish();
            assert!(!client.is_open());
        }
        net.advance_s(2);
        let last = clients.last_mut().expect("twenty");
        assert_eq!(last.unread(), 0);
        last.ping();
        assert_eq!(last.got(), ["PINGRESP", "PINGRESP"]);
        store.answer_always(Verdict::Accepted);
        net.handle().sink_ready();
        net.run();
        assert_eq!(clients.last_mut().expect("twenty").got().len(), 16);
        assert_eq!(kept(&net.stats()), (0, 0, 0));
    }
}

#[test]
fn who_is_held_while_the_node_is_full_adds_little_to_it() {
    let net = Net::with_sink(Store::answering(Verdict::Busy), |config| {
        config.limits.read_ahead_node_bytes_max = 1_000;
    });
    let mut first = net.join("first");
    first.publish("t", 1, [b'x'; 1_000]);
    let full = net.stats().read_ahead_bytes;
    let mut next = net.join("next");
    let bytes = next.encode_publish(&Pub::new("t", [b'x'; 100]).qos(1, 1));
    next.write(&bytes.repeat(500));
    let more = net.stats().read_ahead_bytes - full;
    assert!((100..=4_200).contains(&more), "{more}");
    assert_eq!(net.stats().publishers_held, 2);
    assert_eq!(next.unread(), bytes.len() * 500 - 4_096);
}

#[test]
fn however_many_are_held_a_turn_offers_only_some_of_their_publishes() {
    const CLIENTS: usize = 40_000;
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = net.open();
        let join = net.client(&format!("c{n}")).version(Version::V311);
        let publish = client.encode_publish(&Pub::new("t", "x").qos(1, 1));
        client.push(&[join.bytes(), publish].concat());
        clients.push(client);
    }
    assert_eq!(net.stats().publishers_held, CLIENTS as u64);
    store.offered();
    net.handle().sink_ready();
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < CLIENTS {
        net.sim().turn([0]);
        turns.push(store.offered().len());
    }
    assert!(turns.iter().all(|offered| *offered <= 35_000), "{turns:?}");
    net.run();
    assert_eq!(store.offered(), NOTHING);
    store.answer_always(Verdict::Accepted);
    net.handle().sink_ready();
    net.run();
    assert_eq!(kept(&net.stats()), (0, 0, 0));
    for client in &mut clients {
        assert_eq!(client.got(), ["CONNACK 0x00", "PUBACK #1"]);
    }
}

#[test]
fn a_held_client_that_connects_again_takes_its_session_over() {
    for (hold, version) in HOLDS {
        let (net, store) = holding(hold, 3);
        let join = || net.client("p").version(version).persistent();
        let mut client = held(&net, hold, join());
        client.publish_with(&Pub::new("up", "behind").qos(1, 2));
        store.answer_always(Verdict::Accepted);
        let mut again = join().connect();
        assert!(!client.is_open());
        // 3.1 has no word for it.
        assert_eq!(again.session_present, version != Version::V31);
        let stats = net.stats();
        assert_eq!((stats.read_ahead_dropped, kept(&stats)), (2, (0, 0, 0)));
        again.publish_with(&Pub::new("up", "held").qos(1, 1).dup());
        again.publish_with(&Pub::new("up", "behind").qos(1, 2).dup());
        if hold == Hold::Answers {
            store.stored(&net, [0]);
        }
        assert_eq!(again.got(), ["PUBACK #1", "PUBACK #2"]);
    }
}

#[test]
fn a_drain_drops_what_was_read_ahead_and_acknowledges_none_of_it() {
    let (net, _store) = holding(Hold::Sink, 1);
    let mut client = held(&net, Hold::Sink, net.client("p"));
    client.publish_with(&Pub::new("up", "behind").qos(1, 2));
    assert!(net.sim().shut_down());
    assert_eq!(client.got(), ["DISCONNECT 0x8b", "closed"]);
    let stats = net.sim().stats();
    assert_eq!((stats.read_ahead_dropped, kept(&stats)), (2, (0, 0, 0)));
}

#[test]
fn the_time_that_a_message_is_held_is_taken_off_its_expiry() {
    for (hold, level) in [(Hold::Sink, 1), (Hold::Sink, 2)] {
        let (net, store) = holding(hold, 3);
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 1);
        let mut publisher = net.join("p");
        for (id, expiry_s) in [(1, 10), (2, 60), (3, 20)] {
            let publish = Pub::new("t", format!("{expiry_s}")).qos(level, id).retain();
            let publish = publish.with(Property::UserProperty("k", "v"));
            publisher.publish_with(&publish.with(Property::MessageExpiryInterval(expiry_s)));
        }
        publisher.publish_with(&Pub::new("t", "never").qos(level, 4));
        net.advance_s(30);
        store.answer_always(Verdict::Accepted);
        net.handle().sink_ready();
        net.run();
        assert_eq!(
            subscriber.got(),
            [
                "PUBLISH t 60 q1 #1 {k=v, expiry 30}",
                "PUBLISH t never q1 #2"
            ]
        );
        // The store has all, and knows what had no time left.
        assert_eq!(store.expiries(), [Some(0), Some(30), Some(0), None]);
        assert_eq!(publisher.got().len(), 4);
        let stats = net.stats();
        assert_eq!((stats.dropped_expired, stats.unaccounted()), (2, 0));
    }
}
