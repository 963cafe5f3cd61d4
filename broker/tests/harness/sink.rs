//! What the sink's answers mean for publishers and subscribers: an acknowledgement means stored.

use broker::{Refusal, Verdict};
use codec::{Property, Version};

use crate::support::{
    NOTHING, Net, PENDING, PENDING_DELIVER_AFTER, Pub, Store, everywhere, options,
};

#[test]
fn an_acknowledgement_waits_for_the_sink_and_delivery_does_not() {
    everywhere(|_, version| {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |_| ());
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 0);
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish("t", 1, "one");
        publisher.publish("t", 2, "two");
        assert_eq!(publisher.got(), NOTHING);
        assert_eq!(subscriber.got(), ["PUBLISH t one", "PUBLISH t two"]);
        assert_eq!(net.stats().sink_pending, 2);
        store.stored(&net, [0, 1]);
        assert_eq!(publisher.got(), ["PUBACK #1", "PUBREC #2"]);
        let stats = net.stats();
        assert_eq!(
            (stats.sink_pending, stats.sink_taken, stats.sink_stored),
            (0, 2, 2)
        );
    });
}

#[test]
fn acknowledgements_leave_in_the_order_of_the_publishes() {
    for workers in [1, 3] {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |config| config.workers = workers);
        let mut publisher = net.join("p");
        for (level, id) in [(1, 30), (2, 10), (1, 20), (2, 40)] {
            publisher.publish_with(&Pub::new("t", "x").qos(level, id));
        }
        store.stored(&net, [3, 1]);
        assert_eq!(publisher.got(), NOTHING);
        store.stored(&net, [0]);
        assert_eq!(publisher.got(), ["PUBACK #30", "PUBREC #10"]);
        store.stored(&net, [2]);
        assert_eq!(publisher.got(), ["PUBACK #20", "PUBREC #40"]);
    }
}

#[test]
fn a_publish_that_is_not_stored_does_not_overtake_one_that_is() {
    let store = Store::answering(Verdict::NotStored);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut publisher = net.join("p");
    store.answer_next([PENDING]);
    publisher.publish("stored", 1, "x");
    publisher.publish("plain", 1, "x");
    assert_eq!(publisher.got(), NOTHING);
    store.stored(&net, [0]);
    assert_eq!(publisher.got(), ["PUBACK #1", "PUBACK #2"]);
}

#[test]
fn what_is_delivered_after_it_is_stored_does_not_come_back_to_a_publisher_that_wants_none_of_its_own()
 {
    let store = Store::answering(PENDING_DELIVER_AFTER);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut client = net.join("c");
    let mut not_its_own = options(0);
    not_its_own.no_local = true;
    client.subscribe_with(&[("t", not_its_own), ("u", options(0))], &[]);
    client.got();
    client.publish("t", 1, "x");
    client.publish("u", 1, "x");
    store.stored(&net, [0, 1]);
    assert_eq!(client.got(), ["PUBACK #1", "PUBACK #2", "PUBLISH u x"]);
}

#[test]
fn what_is_delivered_after_it_is_stored_comes_in_order_and_not_before() {
    for workers in [1, 3] {
        let store = Store::answering(PENDING_DELIVER_AFTER);
        let net = Net::with_sink(store.clone(), |config| config.workers = workers);
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 2);
        let mut publisher = net.join("p");
        publisher.publish("t", 1, "one");
        publisher.publish("t", 2, "two");
        publisher.publish("t", 1, "three");
        store.stored(&net, [2, 1]);
        assert_eq!(subscriber.got(), NOTHING);
        store.stored(&net, [0]);
        assert_eq!(
            subscriber.got(),
            [
                "PUBLISH t one q1 #1",
                "PUBLISH t two q2 #2",
                "PUBLISH t three q1 #3"
            ]
        );
        assert_eq!(publisher.got(), ["PUBACK #1", "PUBREC #2", "PUBACK #3"]);
    }
}

#[test]
fn what_expired_before_it_was_stored_is_not_delivered() {
    for workers in [1, 3] {
        let store = Store::answering(PENDING_DELIVER_AFTER);
        let net = Net::with_sink(store.clone(), |config| config.workers = workers);
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 2);
        let mut publisher = net.join("p");
        for (id, seconds) in [(1, 10), (2, 60)] {
            let publish = Pub::new("t", "x").qos(1, id);
            publisher.publish_with(&publish.with(Property::MessageExpiryInterval(seconds)));
        }
        net.advance_s(20);
        store.stored(&net, [0, 1]);
        assert_eq!(publisher.got(), ["PUBACK #1", "PUBACK #2"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x q1 #1 {expiry 40}"]);
        let stats = net.stats();
        assert_eq!((stats.dropped_expired, stats.unaccounted()), (1, 0));
    }
}

#[test]
fn a_message_that_was_refused_later_is_not_delivered_after_it() {
    let store = Store::answering(PENDING_DELIVER_AFTER);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 1);
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "refused");
    publisher.publish("t", 1, "stored");
    store.stored(&net, [1]);
    store.refused(&net, [0], Refusal::TooLarge);
    assert_eq!(publisher.got(), ["PUBACK #1 0x97", "PUBACK #2"]);
    assert_eq!(subscriber.got(), ["PUBLISH t stored q1 #1"]);
}

#[test]
fn a_stored_message_is_delivered_although_its_publisher_has_gone() {
    everywhere(|_, version| {
        for persistent in [false, true] {
            let store = Store::answering(PENDING_DELIVER_AFTER);
            let net = Net::with_sink(store.clone(), |config| config.workers = 3);
            let mut subscriber = net.join("s");
            subscriber.subscribe("t", 1);
            let join = net.client("p").version(version);
            let mut publisher = if persistent { join.persistent() } else { join }.connect();
            publisher.publish("t", 1, "one");
            publisher.publish("t", 2, "two");
            publisher.cut();
            store.stored(&net, [1]);
            assert_eq!(subscriber.got(), NOTHING);
            store.stored(&net, [0]);
            assert_eq!(
                subscriber.got(),
                ["PUBLISH t one q1 #1", "PUBLISH t two q1 #2"]
            );
            assert_eq!(net.stats().sink_pending, 0);
        }
    });
}

#[test]
fn each_refusal_has_its_reason_in_5_0() {
    let refusals = [
        (Refusal::TooLarge, "0x97"),
        (Refusal::Quota, "0x97"),
        (Refusal::NotAuthorized, "0x87"),
        (Refusal::UnknownTopic, "0x90"),
        (Refusal::Other, "0x80"),
    ];
    for (refusal, reason) in refusals {
        let store = Store::answering(Verdict::Refused(refusal));
        let net = Net::with_sink(store.clone(), |_| ());
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 0);
        let mut publisher = net.join("p");
        publisher.publish("t", 1, "x");
        publisher.publish("t", 2, "x");
        publisher.publish("t", 0, "x");
        let said = [format!("PUBACK #1 {reason}"), format!("PUBREC #2 {reason}")];
        assert_eq!(publisher.got(), said);
        assert_eq!(subscriber.got(), NOTHING);
        // Refused later, it is the same; and both identifiers are free again.
        store.answer_always(PENDING);
        publisher.publish_with(&Pub::new("t", "x").qos(1, 1));
        publisher.publish_with(&Pub::new("t", "x").qos(2, 2));
        store.refused(&net, [0, 1], refusal);
        assert_eq!(publisher.got(), said);
        let stats = net.stats();
        assert_eq!(
            (
                stats.sink_refused,
                stats.sink_pending,
                stats.publishes_duplicate
            ),
            (5, 0, 0)
        );
        assert!(publisher.is_open());
    }
}

#[test]
fn a_refusal_closes_a_3x_client() {
    for version in [Version::V31, Version::V311] {
        for level in [1, 2] {
            let store = Store::answering(PENDING);
            let net = Net::with_sink(store.clone(), |_| ());
            let mut publisher = net.client("p").version(version).connect();
            publisher.publish("t", level, "x");
            store.refused(&net, [0], Refusal::TooLarge);
            assert_eq!(publisher.got(), ["closed"]);
            store.answer_always(Verdict::Refused(Refusal::TooLarge));
            let mut publisher = net.client("q").version(version).connect();
            publisher.publish("t", level, "x");
            assert_eq!(publisher.got(), ["closed"]);
            let stats = net.stats();
            assert_eq!((stats.sink_refused, stats.closed_publish_refused), (2, 2));
        }
    }
}

#[test]
fn what_was_stored_behind_a_refusal_does_not_hold_up_a_3x_client_that_returns() {
    let store = Store::answering(PENDING);
    let net = Net::with_sink(store.clone(), |_| ());
    let join = net.client("p").version(Version::V311).persistent();
    let mut publisher = join.connect();
    let publish = |id| Pub::new("t", "x").qos(if id == 3 { 2 } else { 1 }, id);
    (1..=3).for_each(|id| publisher.publish_with(&publish(id)));
    store.stored(&net, [1, 2]);
    store.refused(&net, [0], Refusal::TooLarge);
    assert_eq!(publisher.got(), ["closed"]);
    let mut publisher = join.connect();
    publisher.publish_with(&publish(2).dup());
    publisher.publish_with(&publish(3).dup());
    assert_eq!(publisher.got(), NOTHING);
    // Refused one, it has to wait.
    net.advance_s(2);
    store.stored(&net, [3]);
    assert_eq!(publisher.got(), ["PUBACK #2", "PUBREC #3"]);
}

#[test]
fn while_the_sink_is_busy_a_publisher_is_held_and_others_go_on() {
    everywhere(|_, version| {
        let store = Store::answering(Verdict::Busy);
        let net = Net::with_sink(store.clone(), |config| config.workers = 3);
        let mut subscriber = net.join("s");
        subscriber.subscribe("t", 2);
        let join = net.client("p").version(version).keep_alive_s(10);
        let mut publisher = join.connect();
        publisher.publish("t", 1, "one");
        publisher.publish("t", 2, "two");
        publisher.ping();
        assert_eq!(publisher.got(), ["PINGRESP"]);
        net.advance_s(14);
        publisher.ping();
        net.advance_s(14);
        assert_eq!(publisher.got(), ["PINGRESP"]);
        assert_eq!(subscriber.got(), NOTHING);
        assert_eq!(net.stats().publishers_held, 1);
        assert_eq!(store.offered(), ["t one"]);
        subscriber.ping();
        assert_eq!(subscriber.got(), ["PINGRESP"]);
        store.answer_next([Verdict::Accepted]);
        net.handle().sink_ready();
        net.run();
        assert_eq!(store.offered(), ["t one", "t two"]);
        assert_eq!(publisher.got(), ["PUBACK #1"]);
        store.answer_always(Verdict::Accepted);
        net.handle().sink_ready();
        net.run();
        assert_eq!(publisher.got(), ["PUBREC #2"]);
        assert_eq!(
            subscriber.got(),
            ["PUBLISH t one q1 #1", "PUBLISH t two q2 #2"]
        );
        let stats = net.stats();
        assert_eq!(
            (stats.publishers_held, stats.sink_busy, stats.sink_accepted),
            (0, 2, 2)
        );
        assert_eq!(stats.publishes_received(), 2);
        net.advance_s(20);
        assert!(!publisher.is_open());
    });
}

#[test]
fn while_the_sink_is_busy_qos_0_is_delivered_and_its_loss_there_is_counted() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 0);
    let mut publisher = net.join("p");
    publisher.publish("t", 0, "x");
    publisher.ping();
    assert_eq!(publisher.got(), ["PINGRESP"]);
    assert_eq!(subscriber.got(), ["PUBLISH t x"]);
    assert_eq!(
        (net.stats().sink_dropped_qos0, net.stats().publishers_held),
        (1, 0)
    );
}

#[test]
fn a_publisher_that_goes_while_it_is_held_is_let_go() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let join = net.client("p").persistent();
    for _ in 0..3 {
        let mut publisher = join.connect();
        publisher.publish("t", 2, "x");
        assert_eq!(net.stats().publishers_held, 1);
        publisher.cut();
        assert_eq!(net.stats().publishers_held, 0);
    }
    store.answer_always(Verdict::Accepted);
    net.handle().sink_ready();
    let mut publisher = join.connect();
    publisher.publish_with(&Pub::new("t", "x").qos(2, 1).dup());
    assert_eq!(publisher.got(), ["PUBREC #1"]);
    let stats = net.stats();
    assert_eq!((stats.publishes_received_qos2, stats.sink_accepted), (1, 1));
}

#[test]
fn a_publish_settled_while_its_publisher_is_away_is_answered_when_it_asks_again() {
    everywhere(|_, version| {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |_| ());
        let join = net.client("p").version(version).persistent();
        let mut publisher = join.connect();
        publisher.publish("t", 2, "two");
        publisher.publish("t", 1, "one");
        publisher.cut();
        store.stored(&net, [0, 1]);
        let mut publisher = join.connect();
        assert_eq!(publisher.got(), NOTHING);
        publisher.publish_with(&Pub::new("t", "two").qos(2, 1).dup());
        assert_eq!(publisher.got(), ["PUBREC #1"]);
        // QoS 1 has no memory: the repetition is stored once more [MQTT-4.3.2-5].
        publisher.publish_with(&Pub::new("t", "one").qos(1, 2).dup());
        store.stored(&net, [2]);
        assert_eq!(publisher.got(), ["PUBACK #2"]);
    });
}

#[test]
fn a_publish_settled_after_its_publisher_asked_again_is_answered_once() {
    everywhere(|_, version| {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |_| ());
        let join = net.client("p").version(version).persistent();
        let mut publisher = join.connect();
        publisher.publish("t", 2, "two");
        publisher.publish("t", 1, "one");
        publisher.cut();
        let mut publisher = join.connect();
        publisher.publish_with(&Pub::new("t", "two").qos(2, 1).dup());
        publisher.publish_with(&Pub::new("t", "one").qos(1, 2).dup());
        assert_eq!(store.offered(), ["t two", "t one", "t one"]);
        store.stored(&net, [0, 1]);
        assert_eq!(publisher.got(), ["PUBREC #1"]);
        store.stored(&net, [2]);
        assert_eq!(publisher.got(), ["PUBACK #2"]);
    });
}

#[test]
fn repeated_qos_2_publishes_are_answered_in_the_order_in_which_they_came_again() {
    // The first of two was refused while its publisher was away, so that its repetition is a new one, which has to
    // wait; the second was stored, or will be.
    for stored_while_away in [true, false] {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |_| ());
        let join = net.client("p").persistent();
        let mut publisher = join.connect();
        let publish = |id| Pub::new("t", "x").qos(2, id);
        publisher.publish_with(&publish(1));
        publisher.publish_with(&publish(2));
        publisher.cut();
        store.refused(&net, [0], Refusal::Other);
        if stored_while_away {
            store.stored(&net, [1]);
        }
        let mut publisher = join.connect();
        publisher.publish_with(&publish(1).dup());
        publisher.publish_with(&publish(2).dup());
        if !stored_while_away {
            store.stored(&net, [1]);
        }
        assert_eq!(publisher.got(), NOTHING);
        store.stored(&net, [2]);
        assert_eq!(publisher.got(), ["PUBREC #1", "PUBREC #2"]);
        assert_eq!(store.offered().len(), 3);
        publisher.pubrel(1);
        publisher.pubrel(2);
        assert_eq!(publisher.got(), ["PUBCOMP #1", "PUBCOMP #2"]);
    }
}

#[test]
fn a_settlement_for_a_session_that_is_gone_harms_nobody() {
    let store = Store::answering(PENDING);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut gone = net.join("gone");
    gone.publish("t", 1, "x");
    gone.cut();
    // The next session may well sit in the same place.
    let mut other = net.join("other");
    other.publish("t", 1, "y");
    store.stored(&net, [0]);
    assert_eq!(other.got(), NOTHING);
    store.stored(&net, [1]);
    assert_eq!(other.got(), ["PUBACK #1"]);
    assert_eq!(net.stats().sink_pending, 0);
}

#[test]
fn what_each_publish_came_to_adds_up() {
    let store = Store::answering(Verdict::NotStored);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut publisher = net.join("p");
    let refused = Verdict::Refused(Refusal::Other);
    store.answer_next([
        PENDING,
        PENDING,
        PENDING,
        Verdict::Accepted,
        refused,
        Verdict::NotStored,
    ]);
    for level in [1, 2, 1, 1, 2, 0, 0] {
        publisher.publish("t", level, "x");
    }
    publisher.publish("$denied", 1, "x");
    store.stored(&net, [1]);
    store.refused(&net, [0], Refusal::Other);
    let stats = net.stats();
    assert_eq!(stats.publishes_received(), 8);
    assert_eq!(
        (stats.sink_stored, stats.sink_pending, stats.sink_refused),
        (1, 1, 2)
    );
    assert_eq!((stats.sink_accepted, stats.sink_not_stored), (1, 2));
    assert_eq!(stats.publishes_denied(), 1);
}

#[test]
fn a_settlement_that_comes_after_70_000_sessions_answers_nobody_else() {
    const WAITING: usize = 5_000;
    for deliver in [PENDING, PENDING_DELIVER_AFTER] {
        let store = Store::answering(deliver);
        let net = Net::with_sink(store.clone(), |_| ());
        // In an outage clients come and go, in the same place for all that they know of each other.
        for _ in 0..WAITING {
            let mut client = net.join("gone");
            client.publish("t", 1, "x");
            client.cut();
        }
        for _ in WAITING..70_000 {
            net.join("passing").cut();
        }
        let mut client = net.join("c");
        for _ in 0..3 {
            client.publish("t", 1, "x");
        }
        assert_eq!(net.stats().sink_pending, WAITING as u64 + 3);
        store.stored(&net, 0..WAITING);
        assert_eq!(client.got(), NOTHING, "its own are not stored");
        store.stored(&net, WAITING..WAITING + 3);
        assert_eq!(client.got(), ["PUBACK #1", "PUBACK #2", "PUBACK #3"]);
        assert_eq!(net.stats().sink_pending, 0);
    }
}
