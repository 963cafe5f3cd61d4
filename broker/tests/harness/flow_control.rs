//! How much each side may send the other: receive maximum, packet size, topic aliases, message expiry.

use codec::{Property, Version};

use crate::support::{NOTHING, Net, PENDING, Pub, Store, options};

#[test]
fn a_5_0_client_that_exceeds_the_receive_maximum_is_disconnected() {
    for level in [1, 2] {
        let net = Net::with_sink(Store::answering(PENDING), |config| {
            config.limits.receive_maximum = 3;
        });
        let mut client = net.join("a");
        for _ in 0..3 {
            client.publish("t", level, "x");
        }
        assert_eq!(client.got(), NOTHING);
        client.publish("t", level, "x");
        assert_eq!(client.got(), ["DISCONNECT 0x93", "closed"]);
        assert_eq!(net.stats().closed_receive_maximum, 1);
    }
}

#[test]
fn an_exchange_counts_until_it_is_done() {
    let net = Net::with(|config| config.limits.receive_maximum = 2);
    let mut client = net.join("a");
    client.publish("t", 2, "x");
    client.publish("t", 1, "x");
    client.publish("t", 2, "x");
    client.publish("t", 0, "x");
    client.pubrel(1);
    client.publish("t", 2, "x");
    assert_eq!(
        client.got(),
        [
            "PUBREC #1",
            "PUBACK #2",
            "PUBREC #3",
            "PUBCOMP #1",
            "PUBREC #4"
        ]
    );
    client.publish("t", 1, "x");
    assert_eq!(client.got(), ["DISCONNECT 0x93", "closed"]);
}

#[test]
fn a_3x_clients_publishes_wait_beyond_the_receive_maximum() {
    for version in [Version::V31, Version::V311] {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |config| config.limits.receive_maximum = 2);
        let mut client = net.client("a").version(version).connect();
        for _ in 0..5 {
            client.publish("t", 1, "x");
        }
        assert_eq!(store.offered().len(), 2);
        assert_eq!(net.stats().publishers_held, 1);
        store.stored(&net, [0]);
        assert_eq!(client.got(), ["PUBACK #1"]);
        assert_eq!(store.offered().len(), 1);
        store.stored(&net, [1, 2]);
        store.stored(&net, [3, 4]);
        assert_eq!(
            client.got(),
            ["PUBACK #2", "PUBACK #3", "PUBACK #4", "PUBACK #5"]
        );
        let stats = net.stats();
        assert_eq!((stats.publishers_held, stats.sink_pending), (0, 0));
        assert!(client.is_open());
    }
}

#[test]
fn a_clients_receive_maximum_is_kept() {
    let net = Net::new();
    let mut client = net.client("s").with(Property::ReceiveMaximum(2)).connect();
    client.subscribe("t", 2);
    let mut publisher = net.join("p");
    for (level, payload) in [(2, "a"), (1, "b"), (1, "c"), (0, "zero"), (1, "d")] {
        publisher.publish("t", level, payload);
    }
    assert_eq!(
        client.got(),
        ["PUBLISH t a q2 #1", "PUBLISH t b q1 #2", "PUBLISH t zero"]
    );
    client.pubrec(1);
    assert_eq!(client.got(), ["PUBREL #1"]);
    client.pubcomp(1);
    assert_eq!(client.got(), ["PUBLISH t c q1 #3"]);
    client.puback(2);
    assert_eq!(client.got(), ["PUBLISH t d q1 #4"]);
}

#[test]
fn a_packet_over_the_bound_is_refused_at_its_header() {
    let net = Net::with(|config| config.limits.packet_bytes_max = 1_000);
    let mut client = net.join("a");
    client.publish("t", 1, [b'x'; 900]);
    assert_eq!(client.got(), ["PUBACK #1"]);
    let large = client.encode_publish(&Pub::new("t", [b'x'; 1_000]));
    client.write(&large[..3]);
    assert_eq!(client.got(), ["DISCONNECT 0x95", "closed"]);
    assert_eq!(net.stats().closed_too_large, 1);
}

#[test]
fn a_message_larger_than_a_client_takes_is_not_sent_to_it() {
    let net = Net::new();
    let mut small = net
        .client("small")
        .with(Property::MaximumPacketSize(100))
        .connect();
    let mut other = net.join("other");
    small.subscribe("t", 2);
    other.subscribe("t", 2);
    let mut publisher = net.join("p");
    for level in [0, 1, 2] {
        publisher.publish("t", level, [b'x'; 100]);
        publisher.publish("t", level, [b'x'; 80]);
    }
    // Not even a packet identifier is missing to it that it could wait for.
    let got = small.got();
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(
        got.iter()
            .all(|text| text.starts_with("PUBLISH t (80 bytes)")),
        "{got:?}"
    );
    assert_eq!(other.got().len(), 6);
    let stats = net.stats();
    assert_eq!((stats.dropped_too_large, stats.unaccounted()), (3, 0));
}

#[test]
fn a_message_exactly_as_large_as_a_client_takes_is_sent() {
    let net = Net::new();
    // Fixed header 2, topic 3, properties 1, payload 94.
    let mut client = net
        .client("s")
        .with(Property::MaximumPacketSize(100))
        .connect();
    client.subscribe("t", 0);
    net.join("p").publish("t", 0, [b'x'; 94]);
    assert_eq!(client.got(), ["PUBLISH t (94 bytes)"]);
    net.join("p").publish("t", 0, [b'x'; 95]);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn a_client_may_set_topic_aliases() {
    let net = Net::with(|config| config.limits.topic_alias_maximum = 2);
    let mut subscriber = net.join("s");
    subscriber.subscribe("#", 0);
    let mut publisher = net.join("p");
    let alias = |topic: &str, alias| Pub::new(topic, "x").with(Property::TopicAlias(alias));
    publisher.publish_with(&alias("a", 1));
    publisher.publish_with(&alias("b", 2));
    publisher.publish_with(&alias("", 1));
    publisher.publish_with(&alias("", 2));
    publisher.publish_with(&alias("c", 1));
    publisher.publish_with(&alias("", 1));
    let topics = ["a", "b", "a", "b", "c", "c"].map(|topic| format!("PUBLISH {topic} x"));
    assert_eq!(subscriber.got(), topics);
}

#[test]
fn aliases_end_with_their_connection() {
    let net = Net::new();
    let join = net.client("p").persistent();
    let mut publisher = join.connect();
    publisher.publish_with(&Pub::new("a", "x").with(Property::TopicAlias(1)));
    publisher.cut();
    let mut publisher = join.connect();
    publisher.publish_with(&Pub::new("", "x").with(Property::TopicAlias(1)));
    assert_eq!(publisher.got(), ["DISCONNECT 0x82", "closed"]);
}

#[test]
fn an_alias_survives_that_its_publish_waits_for_the_sink() {
    let store = Store::answering(broker::Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut subscriber = net.join("s");
    subscriber.subscribe("#", 0);
    let mut publisher = net.join("p");
    let alias = |topic: &str, id| {
        Pub::new(topic, "x")
            .qos(1, id)
            .with(Property::TopicAlias(3))
    };
    publisher.publish_with(&alias("a", 1));
    publisher.publish_with(&alias("", 2));
    store.answer_always(broker::Verdict::Accepted);
    net.handle().sink_ready();
    net.run();
    assert_eq!(subscriber.got(), ["PUBLISH a x", "PUBLISH a x"]);
}

#[test]
fn the_broker_uses_the_aliases_that_a_client_grants() {
    let net = Net::with(|config| config.limits.topic_alias_maximum = 5);
    let join = net
        .client("s")
        .persistent()
        .with(Property::TopicAliasMaximum(2));
    let mut client = join.connect();
    client.subscribe("#", 1);
    let mut publisher = net.join("p");
    for topic in ["a", "b", "c", "a", "b", "c"] {
        publisher.publish(topic, 0, "x");
    }
    assert_eq!(
        client.got(),
        [
            "PUBLISH a x {alias 1}",
            "PUBLISH b x {alias 2}",
            "PUBLISH c x",
            "PUBLISH - x {alias 1}",
            "PUBLISH - x {alias 2}",
            "PUBLISH c x",
        ]
    );
    // On a new connection they mean nothing any more, also for what is sent again.
    publisher.publish("b", 1, "y");
    assert_eq!(client.got(), ["PUBLISH - y q1 #1 {alias 2}"]);
    client.cut();
    let mut client = join.connect();
    assert_eq!(client.got(), ["PUBLISH b y q1 #1 dup {alias 1}"]);
}

#[test]
fn aliases_of_one_client_do_not_show_at_another() {
    let net = Net::new();
    let mut with = net
        .client("a")
        .with(Property::TopicAliasMaximum(5))
        .connect();
    let mut without = net.join("b");
    with.subscribe("t", 1);
    without.subscribe("t", 1);
    let mut publisher = net.join("p");
    for _ in 0..2 {
        publisher.publish("t", 1, "x");
    }
    assert_eq!(
        with.got(),
        ["PUBLISH t x q1 #1 {alias 1}", "PUBLISH - x q1 #2 {alias 1}"]
    );
    assert_eq!(without.got(), ["PUBLISH t x q1 #1", "PUBLISH t x q1 #2"]);
}

#[test]
fn a_message_that_waits_for_the_window_longer_than_its_life_is_not_sent() {
    let net = Net::with(|config| config.limits.inflight_messages_max = 1);
    let mut client = net.join("s");
    client.subscribe("t", 1);
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "first");
    for (id, expiry_s) in [(2, 10), (3, 30)] {
        let publish = Pub::new("t", format!("{expiry_s}")).qos(1, id);
        publisher.publish_with(&publish.with(Property::MessageExpiryInterval(expiry_s)));
    }
    net.advance_s(20);
    client.puback(1);
    assert_eq!(
        client.got(),
        ["PUBLISH t first q1 #1", "PUBLISH t 30 q1 #2 {expiry 10}"]
    );
    assert_eq!(net.stats().dropped_expired, 1);
}

#[test]
fn a_slow_reader_loses_qos_0_and_keeps_qos_1() {
    let net = Net::with(|config| {
        config.limits.packet_bytes_max = 2_000;
        config.limits.outbox_bytes_max = 5_000;
    });
    let mut slow = net.join("slow");
    slow.subscribe_with(&[("zero", options(0)), ("one", options(1))], &[]);
    slow.got();
    slow.block(true);
    let mut publisher = net.join("p");
    for _ in 0..20 {
        publisher.publish("zero", 0, [b'x'; 1_000]);
        publisher.publish("one", 1, [b'y'; 1_000]);
    }
    let stats = net.stats();
    assert!(net.sim().unsent(slow.peer()) <= 5_000);
    assert!(
        stats.dropped_outbox_full >= 15,
        "{}",
        stats.dropped_outbox_full
    );
    assert_eq!(
        (stats.inflight + stats.queued, stats.dropped_queue_full),
        (20, 0)
    );
    slow.block(false);
    let got = slow.got();
    let of_qos_1 = got
        .iter()
        .filter(|text| text.starts_with("PUBLISH one"))
        .count();
    assert_eq!(of_qos_1, 20);
    assert_eq!(net.stats().unaccounted(), 0);
}

#[test]
fn a_worker_that_was_behind_lets_clients_read_in_between() {
    let net = Net::with(|config| config.workers = 2);
    let mut publisher = net.join("p");
    let away = 1 - publisher.home();
    let mut readers: Vec<_> = (0..8).map(|n| net.join(&format!("r{n}"))).collect();
    let at = readers.iter_mut().position(|reader| reader.home() == away);
    let mut reader = readers.swap_remove(at.expect("one of eight is at home there"));
    reader.subscribe("t", 0);

    // Half as much again as one client's outbox holds, all of it in the inbox before its worker has a turn.
    let bytes = publisher.encode_publish(&Pub::new("t", vec![0; 1_000]));
    let messages = 3_000;
    for _ in 0..messages {
        publisher.push(&bytes);
        while net.sim().unread(publisher.peer()) > 0 {
            net.sim().turn([1 - away]);
        }
    }
    let mut got = 0;
    while net.sim().turn([away]) {
        got += reader.got().len();
    }
    got += reader.got().len();
    assert_eq!(got, messages);
    assert_eq!(net.stats().deliveries_dropped(), 0);
}

#[test]
fn a_client_that_takes_nothing_is_disconnected_in_time() {
    let net = Net::with(|config| config.limits.write_stall_ms = 30_000);
    let mut stalled = net.join("stalled");
    stalled.subscribe("t", 0);
    stalled.block(true);
    net.join("p").publish("t", 0, "x");
    net.advance_s(29);
    assert!(stalled.is_open());
    net.advance_s(2);
    assert!(!stalled.is_open());
    assert_eq!(net.stats().closed_write_stall, 1);
}

#[test]
fn a_client_that_took_all_while_the_broker_stood_still_is_not_disconnected_for_it() {
    let net = Net::with(|config| config.limits.write_stall_ms = 30_000);
    let mut slow = net.join("slow");
    slow.subscribe("t", 0);
    slow.block(true);
    net.join("p").publish("t", 0, "x");
    // Both are due at once: the timer, and the word that there is room.
    net.sim().pass_ms(60_000);
    slow.block(false);
    assert_eq!(slow.got(), ["PUBLISH t x"]);
    net.advance_s(100);
    assert!(slow.is_open());
    assert_eq!(net.stats().closed_write_stall, 0);
}
