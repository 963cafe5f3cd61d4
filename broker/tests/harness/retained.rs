//! Retained messages: the last one of a topic, for whoever subscribes later.

use broker::{Message, MessageParts, Time};
use codec::{Property, Version};

use crate::support::{Client, NOTHING, Net, Pub, everywhere, on_one_and_more_workers};

fn retain(net: &Net, topic: &str, payload: &str) {
    net.join("retainer")
        .publish_with(&Pub::new(topic, payload).qos(1, 1).retain());
}

#[test]
fn a_new_subscription_gets_the_last_retained_message() {
    everywhere(|net, version| {
        retain(net, "t/1", "old");
        retain(net, "t/1", "new");
        retain(net, "t/2", "other");
        let mut client = net.client("s").version(version).connect();
        client.subscribe("t/1", 0);
        assert_eq!(client.got(), ["PUBLISH t/1 new retain"]);
        client.subscribe("t/+", 2);
        assert_eq!(
            client.got(),
            [
                "PUBLISH t/1 new q1 #1 retain",
                "PUBLISH t/2 other q1 #2 retain"
            ]
        );
        // To those who are subscribed already it is a message like any other [MQTT-3.3.1-12].
        retain(net, "t/1", "live");
        assert_eq!(client.got(), ["PUBLISH t/1 live q1 #3"]);
    });
}

#[test]
fn an_empty_payload_removes_the_retained_message_and_is_delivered() {
    on_one_and_more_workers(|net| {
        retain(net, "t", "x");
        let mut subscribed = net.join("a");
        subscribed.subscribe("t", 0);
        subscribed.got();
        retain(net, "t", "");
        assert_eq!(subscribed.got(), ["PUBLISH t "]);
        let mut late = net.join("b");
        late.subscribe("t", 0);
        assert_eq!(late.got(), NOTHING);
        assert_eq!(
            (net.stats().retained_messages, net.stats().retained_bytes),
            (0, 0)
        );
    });
}

#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    let net = Net::new();
    retain(&net, "t", "x");
    let mut client = net.join("s");
    client.subscribe("$share/g/t", 0);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn a_retained_message_keeps_its_properties_and_expires() {
    let net = Net::new();
    net.join("p").publish_with(
        &Pub::new("t", "x")
            .retain()
            .with(Property::MessageExpiryInterval(60))
            .with(Property::ContentType("text")),
    );
    net.advance_s(20);
    let mut client = net.join("s");
    client.subscribe("t", 0);
    assert_eq!(client.got(), ["PUBLISH t x retain {type text, expiry 40}"]);
    net.advance_s(41);
    client.subscribe("t", 0);
    client.subscribe("+", 0);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn a_hundred_thousand_retained_messages_reach_a_subscriber_with_a_bounded_outbox() {
    for (level, topics) in [(0, 100_000), (1, 10_000)] {
        let net = Net::with(|config| {
            config.limits.packet_bytes_max = 10_000;
            config.limits.outbox_bytes_max = 10_000;
        });
        let mut publisher = net.join("p");
        let bytes: Vec<u8> = (0..topics)
            .flat_map(|at| {
                let publish = Pub::new(&format!("many/{at:06}"), "x").qos(1, 1).retain();
                publisher.encode_publish(&publish)
            })
            .collect();
        for chunk in bytes.chunks(60_000) {
            publisher.write(chunk);
        }
        publisher.got();
        assert_eq!(net.stats().retained_messages, topics as u64);
        let mut client = net.join("s");
        client.block(true);
        client.subscribe_with(&[("#", crate::support::options(level))], &[]);
        assert!(net.sim().unsent(client.peer()) <= 10_000);
        assert!(
            net.stats().deliveries < 1_000,
            "they wait where they are stored"
        );
        client.block(false);
        let mut got = client.got();
        assert_eq!(got.remove(0), format!("SUBACK #1 [{level:#04x}]"));
        while level == 1 && got.len() < topics {
            let before = got.len();
            for text in &got[before - 64.min(before)..] {
                let id = text.split('#').nth(1).expect("it has an identifier");
                let id = id
                    .trim_end_matches(" retain")
                    .parse()
                    .expect("it is a number");
                client.puback(id);
            }
            got.extend(client.got());
            assert!(got.len() > before, "it stopped after {before}");
        }
        assert_eq!(got.len(), topics);
        for (at, text) in got.iter().enumerate() {
            assert!(
                text.starts_with(&format!("PUBLISH many/{at:06} x")),
                "{text} at {at}"
            );
        }
        let stats = net.stats();
        assert_eq!((stats.deliveries_dropped(), stats.unaccounted()), (0, 0));
    }
}

#[test]
fn a_client_that_does_not_read_its_retained_messages_keeps_no_worker_busy() {
    let net = Net::with(|config| {
        config.limits.packet_bytes_max = 1_000;
        config.limits.outbox_bytes_max = 1_000;
    });
    let mut publisher = net.join("p");
    for at in 0..100 {
        publisher.publish_with(&Pub::new(&format!("t/{at}"), [b'x'; 100]).retain());
    }
    let mut client = net.join("s");
    client.block(true);
    client.subscribe_with(&[("t/#", crate::support::options(0))], &[]);
    assert!(
        !net.sim().turn([0]),
        "there is nothing to do until it reads"
    );
    client.block(false);
    assert_eq!(client.got().len(), 101);
}

#[test]
fn a_replay_that_was_cut_goes_on_with_the_session() {
    let net = Net::with(|config| config.limits.inflight_messages_max = 2);
    for at in 0..5 {
        retain(&net, &format!("t/{at}"), "x");
    }
    let join = net.client("s").persistent();
    let mut client = join.connect();
    client.subscribe("t/#", 1);
    assert_eq!(
        client.got(),
        ["PUBLISH t/0 x q1 #1 retain", "PUBLISH t/1 x q1 #2 retain"]
    );
    client.puback(1);
    client.cut();
    let mut client = join.connect();
    assert_eq!(
        client.got(),
        [
            "PUBLISH t/1 x q1 #2 dup retain",
            "PUBLISH t/2 x q1 #3 dup retain"
        ]
    );
    client.puback(2);
    client.puback(3);
    assert_eq!(
        client.got(),
        ["PUBLISH t/3 x q1 #4 retain", "PUBLISH t/4 x q1 #5 retain"]
    );
}

#[test]
fn unsubscribing_ends_the_replay() {
    let net = Net::with(|config| config.limits.inflight_messages_max = 1);
    for at in 0..5 {
        retain(&net, &format!("t/{at}"), "x");
    }
    let mut client = net.join("s");
    client.subscribe("t/#", 1);
    client.unsubscribe(&["t/#"]);
    assert_eq!(
        client.got(),
        ["PUBLISH t/0 x q1 #1 retain", "UNSUBACK #1 [0x00]"]
    );
    client.puback(1);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn beyond_the_bound_a_message_is_delivered_and_not_retained() {
    let net = Net::with(|config| config.limits.retained_messages_max = 2);
    let mut subscribed = net.join("s");
    subscribed.subscribe("#", 0);
    for topic in ["a", "b", "c", "a"] {
        net.join("p").publish_with(&Pub::new(topic, "x").retain());
    }
    assert_eq!(
        subscribed.got(),
        ["PUBLISH a x", "PUBLISH b x", "PUBLISH c x", "PUBLISH a x"]
    );
    let stats = net.stats();
    assert_eq!((stats.retained_messages, stats.retained_refused), (2, 1));
}

#[test]
fn a_retained_message_larger_than_a_client_takes_is_skipped_and_the_rest_comes() {
    let net = Net::new();
    retain(&net, "t/1", &"x".repeat(200));
    retain(&net, "t/2", "small");
    let mut client = net
        .client("s")
        .with(Property::MaximumPacketSize(100))
        .connect();
    client.subscribe("t/#", 1);
    assert_eq!(client.got(), ["PUBLISH t/2 small q1 #2 retain"]);
    assert_eq!(net.stats().dropped_too_large, 1);
}

/// Retains with QoS 1, as the client: the answer.
fn retains(client: &mut Client, topic: &str, payload: &str) -> Vec<String> {
    client.publish_with(&Pub::new(topic, payload).qos(1, 1).retain());
    client.got()
}

/// One client may set two messages, or so many bytes.
fn shared_out(workers: usize, bytes: u64) -> Net {
    Net::with(|config| {
        config.workers = workers;
        config.limits.retained_messages_per_client_max = 2;
        config.limits.retained_bytes_per_client_max = bytes;
    })
}

const RETAINED: [&str; 1] = ["PUBACK #1"];
const REFUSED: [&str; 1] = ["PUBACK #1 0x97"];

#[test]
fn one_client_cannot_fill_the_store() {
    for workers in [1, 3] {
        let net = shared_out(workers, 10_000);
        let (mut greedy, mut other) = (net.join("greedy"), net.join("other"));
        assert_eq!(retains(&mut greedy, "g/1", "x"), RETAINED);
        assert_eq!(retains(&mut greedy, "g/2", "x"), RETAINED);
        assert_eq!(retains(&mut greedy, "g/3", "x"), REFUSED);
        // Others have their own share, and what replaces is not one more.
        assert_eq!(retains(&mut other, "o/1", "x"), RETAINED);
        assert_eq!(retains(&mut greedy, "g/2", "y"), RETAINED);
        assert_eq!(net.stats().retained_refused_client, 1);
        // What is deleted, has expired or was replaced by another gives its share back.
        assert_eq!(retains(&mut greedy, "g/1", ""), RETAINED);
        assert_eq!(retains(&mut greedy, "g/3", "x"), RETAINED);
        assert_eq!(retains(&mut other, "g/3", "other's"), RETAINED);
        assert_eq!(retains(&mut other, "o/2", "x"), REFUSED);
        let expiring = Pub::new("g/4", "x").qos(1, 1).retain();
        greedy.publish_with(&expiring.with(Property::MessageExpiryInterval(10)));
        assert_eq!(greedy.got(), RETAINED);
        assert_eq!(retains(&mut greedy, "g/5", "x"), REFUSED);
        net.advance_s(11);
        assert_eq!(retains(&mut greedy, "g/5", "x"), RETAINED);
        // It is the client's share, whatever becomes of its session.
        greedy.disconnect();
        assert_eq!(retains(&mut net.join("greedy"), "g/6", "x"), REFUSED);
        let stats = net.stats();
        // g/2, g/5 and the other's two.
        assert_eq!((stats.retained_messages, stats.retained_refused), (4, 0));
        assert_eq!(stats.retained_refused_client, 4);
    }
}

#[test]
fn a_clients_share_of_the_store_is_bounded_in_bytes() {
    let net = shared_out(1, 300);
    let mut client = net.join("c");
    assert_eq!(retains(&mut client, "1", &"x".repeat(200)), RETAINED);
    assert_eq!(retains(&mut client, "2", &"x".repeat(200)), REFUSED);
    // A larger one in its place does not fit either, and what was there stays.
    assert_eq!(retains(&mut client, "1", &"x".repeat(300)), REFUSED);
    assert_eq!(retains(&mut client, "1", &"y".repeat(100)), RETAINED);
    assert_eq!(retains(&mut client, "2", "x"), RETAINED);
    let mut reader = net.join("reader");
    reader.subscribe("1", 0);
    assert_eq!(reader.got(), ["PUBLISH 1 (100 bytes) retain"]);
}

#[test]
fn beyond_its_share_a_message_without_an_answer_is_delivered_and_not_retained() {
    for version in [Version::V31, Version::V311] {
        let net = shared_out(1, 10_000);
        let mut subscribed = net.join("s");
        subscribed.subscribe("#", 0);
        let mut client = net.client("c").version(version).connect();
        for topic in ["1", "2", "3"] {
            client.publish_with(&Pub::new(topic, "x").qos(1, 1).retain());
            assert_eq!(client.got(), ["PUBACK #1"]);
        }
        assert_eq!(
            subscribed.got(),
            ["PUBLISH 1 x", "PUBLISH 2 x", "PUBLISH 3 x"]
        );
        let stats = net.stats();
        let counts = (stats.retained_messages, stats.retained_refused_client);
        assert_eq!(counts, (2, 1));
    }
}

/// Wills count as their client's, and what no client sent as nobody's.
#[test]
fn what_no_client_of_the_node_sent_is_no_clients_share() {
    let net = Net::with(|config| {
        config.sys_interval_s = 10;
        config.limits.retained_messages_per_client_max = 2;
    });
    net.advance_s(30);
    let message = |n: usize| {
        Message::new(&MessageParts {
            topic: &format!("down/{n}"),
            payload: b"x",
            qos: crate::support::qos(1),
            retain: true,
            properties: &[],
            expires_at: None,
            arrived_at: Time(0),
        })
    };
    net.handle().publish((0..10).map(message).collect(), None);
    assert_eq!(net.stats().retained_messages, 10);
    let mut client = net.join("c");
    assert_eq!(retains(&mut client, "down/0", "mine"), RETAINED);
    assert_eq!(retains(&mut client, "down/1", "mine"), RETAINED);
    assert_eq!(retains(&mut client, "down/2", "mine"), REFUSED);
    // In place of a client's it gives that its share back.
    net.handle().publish(vec![message(0)], None);
    net.run();
    assert_eq!(retains(&mut client, "down/2", "mine"), RETAINED);
    let will = net.client("w").will_with("will", "x", 1, true, &[]);
    for _ in 0..2 {
        will.connect().cut();
    }
    let mut returned = net.join("w");
    assert_eq!(retains(&mut returned, "w/1", "x"), RETAINED);
    assert_eq!(retains(&mut returned, "w/2", "x"), REFUSED);
    assert_eq!(net.stats().retained_refused_client, 2);
}
