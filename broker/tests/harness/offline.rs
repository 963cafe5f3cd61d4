//! What waits for a client that is away: in order, within bounds, and not for longer than it is worth.

use codec::Version;

use crate::support::{NOTHING, Net, Pub, everywhere};
use codec::Property;

#[test]
fn messages_wait_for_a_client_that_is_away_and_come_in_order() {
    everywhere(|net, version| {
        let join = net.client("a").version(version).persistent();
        let mut client = join.connect();
        client.subscribe("t/#", 2);
        client.cut();
        let mut publisher = net.join("b");
        publisher.publish("t/1", 1, "one");
        publisher.publish("t/2", 2, "two");
        publisher.publish("t/1", 1, "three");
        assert_eq!(net.stats().queued, 3);
        let mut client = join.connect();
        assert_eq!(
            client.got(),
            [
                "PUBLISH t/1 one q1 #1",
                "PUBLISH t/2 two q2 #2",
                "PUBLISH t/1 three q1 #3"
            ]
        );
        let stats = net.stats();
        assert_eq!(
            (stats.queued, stats.inflight, stats.unaccounted()),
            (0, 3, 0)
        );
    });
}

#[test]
fn qos_0_does_not_wait() {
    everywhere(|net, version| {
        let join = net.client("a").version(version).persistent();
        let mut client = join.connect();
        client.subscribe("t", 2);
        client.cut();
        net.join("b").publish("t", 0, "x");
        assert_eq!(join.connect().got(), NOTHING);
        let stats = net.stats();
        assert_eq!((stats.dropped_offline, stats.unaccounted()), (1, 0));
    });
}

#[test]
fn one_message_over_the_queues_bound_is_dropped_and_counted() {
    let net = Net::with(|config| config.limits.queue_messages_max = 3);
    let join = net.client("a").persistent();
    let mut client = join.connect();
    client.subscribe("t", 1);
    client.cut();
    let mut publisher = net.join("b");
    for payload in ["1", "2", "3", "4", "5"] {
        publisher.publish("t", 1, payload);
    }
    let stats = net.stats();
    assert_eq!(
        (stats.queued, stats.dropped_queue_full, stats.unaccounted()),
        (3, 2, 0)
    );
    let got = join.connect().got();
    assert_eq!(
        got,
        [
            "PUBLISH t 1 q1 #1",
            "PUBLISH t 2 q1 #2",
            "PUBLISH t 3 q1 #3"
        ]
    );
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let net = Net::with(|config| {
        config.limits.packet_bytes_max = 1_000;
        config.limits.queue_bytes_max = 3_000;
    });
    let mut client = net.client("a").persistent().connect();
    client.subscribe("t", 1);
    client.cut();
    let mut publisher = net.join("b");
    for _ in 0..10 {
        publisher.publish("t", 1, [b'x'; 900]);
    }
    let stats = net.stats();
    assert_eq!((stats.queued, stats.dropped_queue_full), (3, 7));
}

#[test]
fn a_session_that_ends_takes_its_messages_along_and_they_are_counted() {
    let net = Net::new();
    let join = net
        .client("a")
        .resuming()
        .with(Property::SessionExpiryInterval(10));
    let mut client = join.connect();
    client.subscribe("t", 1);
    net.join("b").publish("t", 1, "in flight");
    client.cut();
    net.join("b").publish("t", 1, "queued");
    net.advance_s(11);
    let stats = net.stats();
    assert_eq!((stats.inflight, stats.queued), (0, 0));
    assert_eq!((stats.dropped_session_ended, stats.unaccounted()), (2, 0));
}

#[test]
fn a_message_that_expires_while_it_waits_is_not_delivered() {
    let net = Net::new();
    let join = net.client("a").persistent();
    let mut client = join.connect();
    client.subscribe("t", 1);
    client.cut();
    let mut publisher = net.join("b");
    for (id, expiry_s) in [(1, 10), (2, 100)] {
        let publish = Pub::new("t", expiry_s.to_string()).qos(1, id);
        publisher.publish_with(&publish.with(Property::MessageExpiryInterval(expiry_s)));
    }
    net.advance_s(30);
    // What is left of its time is told [MQTT-3.3.2-6].
    assert_eq!(join.connect().got(), ["PUBLISH t 100 q1 #1 {expiry 70}"]);
    let stats = net.stats();
    assert_eq!((stats.dropped_expired, stats.unaccounted()), (1, 0));
}

#[test]
fn beyond_the_bound_on_absent_clients_a_session_ends_with_its_connection() {
    let net = Net::with(|config| config.limits.offline_sessions_max = 1);
    let (a, b) = (net.client("a").persistent(), net.client("b").persistent());
    let (mut first, mut second) = (a.connect(), b.connect());
    first.cut();
    second.cut();
    assert_eq!(net.stats().sessions, 1);
    assert!(!b.connect().session_present);
    // One that is taken over is not away.
    b.connect();
    assert!(b.connect().session_present);
    assert!(a.connect().session_present);
}

#[test]
fn a_client_that_comes_and_goes_leaves_no_timers_behind() {
    let net = Net::new();
    let join = net
        .client("a")
        .persistent()
        .keep_alive_s(u16::MAX)
        .will_with("will", "x", 0, false, &[Property::WillDelayInterval(3_000)]);
    for _ in 0..1_000 {
        join.connect().cut();
        net.advance_ms(100);
    }
    net.advance_s(700);
    assert!(net.sim().timers() <= 2, "{} timers", net.sim().timers());
    let session_expiry_s = 3_600;
    net.advance_s(session_expiry_s - 702);
    assert_eq!((net.stats().sessions, net.stats().wills_published), (1, 1));
    net.advance_s(3);
    assert_eq!((net.stats().sessions, net.sim().timers()), (0, 0));
}

#[test]
fn a_3_1_client_that_returns_gets_what_waited() {
    let net = Net::new();
    let join = net.client("a").version(Version::V31).persistent();
    let mut client = join.connect();
    client.subscribe("t", 1);
    client.disconnect();
    net.join("b").publish("t", 1, "x");
    assert_eq!(join.connect().got(), ["PUBLISH t x q1 #1"]);
}

#[test]
fn the_bound_on_absent_clients_is_the_nodes_whatever_the_workers() {
    let net = Net::with(|config| {
        config.workers = 6;
        config.limits.offline_sessions_max = 3;
    });
    let join = |n: usize| net.client(&format!("c{n}")).persistent();
    let mut clients: Vec<_> = (0..40).map(|n| join(n).connect()).collect();
    for client in &mut clients {
        client.cut();
    }
    assert_eq!(net.stats().sessions, 3);
    // The places of those who come back are for others, and so are those of sessions that end.
    let mut back = join(0).connect();
    assert!(back.session_present);
    assert_eq!(net.stats().sessions, 3);
    let (mut other, mut over) = (join(98).connect(), join(99).connect());
    other.cut();
    over.cut();
    assert_eq!(net.stats().sessions, 4, "one is connected");
    back.cut();
    assert_eq!(net.stats().sessions, 3);
    net.advance_s(3_700);
    assert_eq!(net.stats().sessions, 0);
    let mut clients: Vec<_> = (0..40).map(|n| join(n).connect()).collect();
    for client in &mut clients {
        client.cut();
    }
    assert_eq!(net.stats().sessions, 3);
}
