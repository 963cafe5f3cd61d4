//! Retained messages on their way to a new subscription: all of them, once, whatever the window and the turn.

use codec::Property;

use crate::support::{Client, NOTHING, Net, Pub, on_one_and_more_workers};

fn retain(net: &Net, topic: &str, payload: &str, level: u8) {
    let mut publish = Pub::new(topic, payload).retain();
    if level > 0 {
        publish = publish.qos(level, 1);
    }
    let mut client = net.join("retainer");
    client.publish_with(&publish);
    client.pubrel(1);
}

/// Reads and acknowledges until nothing more comes: topics and payloads.
fn drain(client: &mut Client) -> Vec<String> {
    let mut messages = Vec::new();
    loop {
        let texts = client.got();
        if texts.is_empty() {
            return messages;
        }
        for text in texts {
            let Some(publish) = text.strip_prefix("PUBLISH ") else {
                continue;
            };
            let words: Vec<&str> = publish.split(' ').collect();
            messages.push(words[..2].join(" "));
            let id = words.iter().find_map(|word| word.strip_prefix('#'));
            match (words.get(2), id.and_then(|id| id.parse().ok())) {
                (Some(&"q1"), Some(id)) => client.puback(id),
                (Some(&"q2"), Some(id)) => {
                    client.pubrec(id);
                    client.pubcomp(id);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_replay_is_complete_whatever_the_window_and_the_turn() {
    let names = ["a", "a!", "a-b", "a0", "b"];
    let mut topics = Vec::new();
    for first in names {
        topics.push(first.to_owned());
        for second in names {
            topics.push(format!("{first}/{second}"));
            topics.push(format!("{first}/{second}/x"));
        }
    }
    let filters = [
        "#", "+", "+/#", "a/#", "a-b/#", "a!/#", "a0/#", "b/#", "a/a/#", "a/+", "+/+", "+/+/+",
        "a/+/x", "a/+/#", "+/a", "+/a/#", "a", "a/a-b/x", "a!/+", "c/#",
    ];
    for window in [1, 2, 7] {
        for level in [0, 1, 2] {
            let net = Net::with(|config| {
                config.limits.inflight_messages_max = window;
                config.limits.retained_per_turn = 3;
            });
            for topic in &topics {
                retain(&net, topic, "x", level);
            }
            for filter in filters {
                let mut client = net.join("s");
                client.subscribe(filter, level);
                let mut got = drain(&mut client);
                got.sort();
                let matching = topics.iter().filter(|topic| topic::matches(filter, topic));
                let mut expected: Vec<String> =
                    matching.map(|topic| format!("{topic} x")).collect();
                expected.sort();
                assert_eq!(got, expected, "{filter}, window {window}, QoS {level}");
            }
            assert_eq!(net.stats().unaccounted(), 0);
        }
    }
}

#[test]
fn what_is_retained_after_the_suback_comes_once() {
    let [old, new] = ["old", "new"].map(|word| format!("{word}{}", ".".repeat(40)));
    for workers in [1, 6] {
        for level in [0, 1, 2] {
            let net = Net::with(|config| {
                config.workers = workers;
                config.limits.inflight_messages_max = 1;
                config.limits.retained_per_turn = 1;
                config.limits.packet_bytes_max = 200;
                config.limits.outbox_bytes_max = 200;
            });
            for at in 0..9 {
                retain(&net, &format!("t/{at}"), &old, level);
            }
            let mut client = net.join("s");
            client.block(true);
            client.subscribe_with(&[("t/#", crate::support::options(level))], &[]);
            // One that it has not been sent yet, and a new one.
            retain(&net, "t/8", &new, level.max(1));
            retain(&net, "t/9", &new, level.max(1));
            client.block(false);
            let mut got = drain(&mut client);
            if level == 0 {
                // QoS 0 does not wait: what the full outbox had no room for is lost, and is not made good by the replay.
                got.retain(|message| !message.contains("new"));
            }
            got.sort();
            let mut expected: Vec<String> = (0..8).map(|at| format!("t/{at} {old}")).collect();
            if level > 0 {
                expected.extend(["t/8", "t/9"].map(|topic| format!("{topic} {new}")));
            }
            assert_eq!(got, expected, "QoS {level}, {workers} workers");
        }
    }
}

#[test]
fn what_a_client_missed_while_it_was_away_comes_with_the_rest_of_the_replay() {
    let net = Net::with(|config| config.limits.inflight_messages_max = 1);
    for at in 0..4 {
        retain(&net, &format!("t/{at}"), "old", 1);
    }
    let join = net.client("s").persistent();
    let mut client = join.connect();
    client.subscribe("t/#", 1);
    client.cut();
    retain(&net, "t/2", "lost", 0);
    retain(&net, "t/3", "queued", 1);
    let mut got = drain(&mut join.connect());
    got.sort();
    assert_eq!(got, ["t/0 old", "t/1 old", "t/2 lost", "t/3 queued"]);
}

#[test]
fn expired_messages_are_let_go_of_and_make_room() {
    on_one_and_more_workers(|net| {
        let mut publisher = net.join("p");
        for at in 0..2_000_u32 {
            let publish = Pub::new(&format!("t/{at}"), "x").retain();
            publisher.publish_with(&publish.with(Property::MessageExpiryInterval(10 + at % 7)));
        }
        assert_eq!(net.stats().retained_messages, 2_000);
        net.advance_s(18);
        let stats = net.stats();
        assert_eq!((stats.retained_messages, stats.retained_bytes), (0, 0));
    });
}

#[test]
fn a_5_0_publisher_is_told_that_its_message_cannot_be_retained() {
    let net = Net::with(|config| config.limits.retained_messages_max = 2);
    let mut subscribed = net.join("s");
    subscribed.subscribe("#", 0);
    let mut publisher = net.join("p");
    for (at, topic) in ["a", "b", "c"].into_iter().enumerate() {
        publisher.publish_with(&Pub::new(topic, "x").qos(1, at as u16 + 1).retain());
    }
    publisher.publish_with(&Pub::new("c", "x").qos(2, 4).retain());
    // Replacing and forgetting need no room, and neither does a message that is not to be retained.
    publisher.publish_with(&Pub::new("b", "y").qos(1, 5).retain());
    publisher.publish_with(&Pub::new("c", "z").qos(1, 6));
    publisher.publish_with(&Pub::new("a", "").qos(1, 7).retain());
    publisher.publish_with(&Pub::new("c", "x").qos(1, 8).retain());
    assert_eq!(
        publisher.got(),
        [
            "PUBACK #1",
            "PUBACK #2",
            "PUBACK #3 0x97",
            "PUBREC #4 0x97",
            "PUBACK #5",
            "PUBACK #6",
            "PUBACK #7",
            "PUBACK #8"
        ]
    );
    let got = [
        "PUBLISH a x",
        "PUBLISH b x",
        "PUBLISH b y",
        "PUBLISH c z",
        "PUBLISH a ",
        "PUBLISH c x",
    ];
    assert_eq!(subscribed.got(), got);
    let stats = net.stats();
    assert_eq!((stats.retained_messages, stats.retained_refused), (2, 2));
}

#[test]
fn the_nodes_own_figures_take_no_room_from_clients() {
    let net = Net::with(|config| {
        config.sys_interval_s = 10;
        config.limits.retained_messages_max = 1;
    });
    net.advance_s(1);
    retain(&net, "t", "x", 1);
    let mut client = net.join("s");
    client.subscribe("t", 0);
    assert_eq!(client.got(), ["PUBLISH t x retain"]);
    client.subscribe("$SYS/#", 0);
    assert_ne!(client.got(), NOTHING);
    assert_eq!(net.stats().retained_messages, 1);
}
