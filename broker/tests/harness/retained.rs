//! Retained messages: the last one of a topic, for whoever subscribes later.

use codec::Property;

use crate::support::{NOTHING, Net, Pub, everywhere, on_one_and_more_workers};

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
