//! What Kafka never takes: the publisher is told, by what its protocol version has for it, and never by silence.

mod common;

use std::time::{Duration, Instant};

use bridge::{Config, Refused3x, RouteConfig};
use broker::codec::{Properties, Qos, ReasonCode, Version};
use common::mqtt::{Client, Event};
use common::{DEADLINE, Node, config, log, stored_in, unique, wait_for};
use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use testkit::kafka::Kafka;

/// Bytes that no compression makes smaller: Kafka judges the compressed batch.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A topic that takes batches of up to 2,000 bytes.
fn with_a_modest_topic(kafka: &str) -> Config {
    let config = config(kafka);
    let topic = NewTopic::new(stored_in(&config), 1, TopicReplication::Fixed(1))
        .set("max.message.bytes", "2000");
    let created =
        log::block_on(log::admin(kafka).create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    config
}

#[test]
fn a_message_larger_than_the_topic_allows_is_refused_and_no_other() {
    let kafka = Kafka::shared().bootstrap();
    let config = with_a_modest_topic(kafka);
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, &unique("c"));
    let mut expected = Vec::new();
    // All in one go, so that they are candidates for the same batches: together they are larger than what the topic
    // takes, and Kafka refuses a batch as a whole.
    for number in 0..200 {
        let too_large = number % 20 == 7;
        let payload = noise(if too_large { 5_000 } else { 300 });
        let packet_id = client
            .publish("a/b", Qos::AtLeastOnce, &payload, Properties::default())
            .unwrap();
        let reason = if too_large {
            ReasonCode::QUOTA_EXCEEDED
        } else {
            ReasonCode::SUCCESS
        };
        expected.push(Event::PubAck { packet_id, reason });
    }
    for expected in expected {
        assert_eq!(client.next(DEADLINE), Some(expected));
    }
    let status = node.status();
    assert_eq!(
        (
            status.stored,
            status.refused.too_large,
            status.refused.total()
        ),
        (190, 10, 10)
    );
    assert_eq!(log::read_all(kafka, stored_in(&config)).len(), 190);
}

#[test]
fn a_refused_qos_2_publish_ends_with_its_pubrec() {
    let config = with_a_modest_topic(Kafka::shared().bootstrap());
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, &unique("c"));
    let packet_id = client
        .publish(
            "a/b",
            Qos::ExactlyOnce,
            &noise(5_000),
            Properties::default(),
        )
        .unwrap();
    assert_eq!(
        client.next(DEADLINE),
        Some(Event::PubRec {
            packet_id,
            reason: ReasonCode::QUOTA_EXCEEDED
        })
    );
}

/// Takes `count` acknowledgements of a 3.1.1 client.
fn acknowledged(client: &mut Client, count: usize) {
    for _ in 0..count {
        match client.next(DEADLINE) {
            Some(Event::PubAck { .. }) => {}
            other => panic!("not an acknowledgement: {other:?}"),
        }
    }
}

#[test]
fn what_is_refused_to_a_3_1_1_publisher_is_a_dead_letter_before_it_is_acknowledged() {
    let kafka = Kafka::shared().bootstrap();
    let config = with_a_modest_topic(kafka);
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V311, &unique("c"));
    let bad = noise(5_000);
    for number in 0..20 {
        let payload = if number == 10 { &bad[..] } else { b"good" };
        client.publish("a/b", Qos::AtLeastOnce, payload, Properties::default());
    }
    acknowledged(&mut client, 20);
    let status = node.status();
    assert_eq!(
        (
            status.stored,
            status.refused.too_large,
            status.refused.total(),
            status.dead_lettered,
            status.waiting
        ),
        (19, 1, 1, 1, 0)
    );
    let letters = log::read_all(kafka, &format!("{}.dlq", stored_in(&config)));
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.payload.as_deref(), Some(&bad[..]));
    let header = |name: &str| letter.header(name).unwrap_or_default();
    assert_eq!(header("mqtt.topic"), "a/b");
    assert_eq!(header("__connect.errors.topic"), stored_in(&config));
    assert_eq!(header("__connect.errors.partition"), "0");
    assert_eq!(letter.header("__connect.errors.offset"), None);
    assert_eq!(
        header("__connect.errors.exception.class.name"),
        "MessageSizeTooLarge"
    );
    assert_eq!(log::read_all(kafka, stored_in(&config)).len(), 19);
}

#[test]
fn a_message_too_large_for_its_dead_letter_is_cut_and_says_so() {
    let kafka = Kafka::shared().bootstrap();
    let config = with_a_modest_topic(kafka);
    let dlq = format!("{}.dlq", stored_in(&config));
    let modest =
        NewTopic::new(&dlq, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "3000");
    let created =
        log::block_on(log::admin(kafka).create_topics([&modest], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V311, &unique("c"));
    let bad = noise(5_000);
    client.publish("a/b", Qos::AtLeastOnce, &bad, Properties::default());
    acknowledged(&mut client, 1);
    let letters = log::read_all(kafka, &dlq);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].payload.as_deref(), Some(&bad[..512]));
    let message = letters[0].header("__connect.errors.exception.message");
    let message = message.unwrap_or_default();
    assert!(message.contains("payload of 5000 bytes"), "{message}");
}

#[test]
fn where_refusals_close_a_3_1_1_publisher_is_disconnected() {
    let mut config = with_a_modest_topic(Kafka::shared().bootstrap());
    config.refused_3x = Refused3x::Close;
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V311, &unique("c"));
    let bad = noise(5_000);
    client.publish("a/b", Qos::AtLeastOnce, &bad, Properties::default());
    assert_eq!(client.next(DEADLINE), Some(Event::Closed));
    wait_for("it is counted", || node.status().refused.too_large == 1);
    let mut other = Client::connect(node.address, Version::V311, &unique("c"));
    other.publish("a/b", Qos::AtLeastOnce, b"fits", Properties::default());
    acknowledged(&mut other, 1);
}

#[test]
fn where_refusals_close_a_client_that_comes_back_with_it_is_let_wait_and_does_not_loop() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = with_a_modest_topic(kafka);
    config.refused_3x = Refused3x::Close;
    let node = Node::start(&config);
    let id = unique("c");
    let bad = noise(5_000);
    let begin = Instant::now();
    let mut closed_after = Vec::new();
    // As clients do that know nothing better: back at once, and all of it again.
    while closed_after.len() < 3 {
        let mut client = Client::connect(node.address, Version::V311, &id);
        client.publish("a/b", Qos::AtLeastOnce, &bad, Properties::default());
        client.publish("a/b", Qos::AtLeastOnce, b"behind", Properties::default());
        loop {
            match client.next(DEADLINE) {
                Some(Event::Closed) => break,
                // What was behind it on an earlier connection is stored by now.
                Some(Event::PubAck { packet_id: 2, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        closed_after.push(begin.elapsed());
    }
    // At once, after one second, after two more.
    assert!(
        closed_after[2] >= Duration::from_secs(3),
        "{closed_after:?}"
    );
    // Without the bad one it goes on, after a while.
    let mut client = Client::connect(node.address, Version::V311, &id);
    client.publish("a/b", Qos::AtLeastOnce, b"good", Properties::default());
    let texts = || -> Vec<String> {
        let stored = log::read_all(kafka, stored_in(&config));
        stored.iter().map(log::Record::text).collect()
    };
    wait_for("the good one is stored", || {
        texts().last().is_some_and(|text| text == "good")
    });
    assert_eq!(node.status().refused.too_large, 3);
    assert!(texts().len() <= 4, "{:?}", texts());
}

#[test]
fn a_limit_that_is_lowered_while_the_node_runs_refuses_no_small_message_and_keeps_the_order() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 6_000;
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let topic = stored_in(&config);
    let lowered =
        AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", "3000");
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let address = node.address;
            std::thread::spawn(move || {
                let mut client = Client::connect(address, Version::V5, &unique("c"));
                let pad = noise(200);
                let mut open = 0;
                for number in 0..MESSAGES {
                    let mut payload = format!("{number} ").into_bytes();
                    payload.extend_from_slice(&pad);
                    let topic = format!("lowered/{publisher}");
                    client.publish(&topic, Qos::AtLeastOnce, &payload, Properties::default());
                    open += 1;
                    while open >= 200 || (number + 1 == MESSAGES && open > 0) {
                        match client.next(DEADLINE) {
                            Some(Event::PubAck { reason, .. }) => {
                                assert_eq!(reason, ReasonCode::SUCCESS);
                                open -= 1;
                            }
                            other => panic!("not an acknowledgement: {other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    wait_for("they publish", || node.status().stored >= 2_000);
    log::block_on(log::admin(kafka).alter_configs([&lowered], &AdminOptions::new())).unwrap();
    for publisher in publishers {
        publisher.join().expect("every message is acknowledged");
    }
    let status = node.status();
    assert_eq!(status.refused.total(), 0);
    assert!(status.producer_rebuilds > 0, "no batch was refused");
    let mut next = [0; PUBLISHERS];
    for record in log::read_all(kafka, topic) {
        let envelope = record.envelope().unwrap();
        let publisher: usize = envelope
            .topic
            .strip_prefix("lowered/")
            .unwrap()
            .parse()
            .unwrap();
        let payload = record.payload.as_deref().unwrap();
        let number = payload.split(|byte| *byte == b' ').next().unwrap();
        let number: usize = std::str::from_utf8(number).unwrap().parse().unwrap();
        assert_eq!(number, next[publisher], "publisher {publisher}");
        next[publisher] += 1;
    }
    assert_eq!(next, [MESSAGES; PUBLISHERS]);
}

/// A node with a route of its own to a topic, one message through it, and then the topic deleted.
fn with_a_deleted_topic(change: impl FnOnce(&mut Config)) -> (Node, Client, String) {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    let doomed = unique("doomed");
    let route = RouteConfig::new("doomed/#", &doomed);
    config.routes.insert(0, route);
    change(&mut config);
    if !config.create_topics {
        for topic in config.kafka_topics() {
            log::create(kafka, topic, 1, 1);
        }
    }
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, &unique("c"));
    client.publish("doomed/a", Qos::AtLeastOnce, b"0", Properties::default());
    assert_eq!(reason(&mut client), ReasonCode::SUCCESS);
    let deleted =
        log::block_on(log::admin(kafka).delete_topics(&[&doomed], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    wait_for("no partition is left", || {
        log::partitions(kafka, &doomed) == 0
    });
    (node, client, doomed)
}

fn reason(client: &mut Client) -> ReasonCode {
    match client.next(DEADLINE) {
        Some(Event::PubAck { reason, .. }) => reason,
        other => panic!("not an acknowledgement: {other:?}"),
    }
}

#[test]
fn a_topic_that_was_deleted_is_made_again_and_what_waited_is_stored_in_order() {
    let kafka = Kafka::shared().bootstrap();
    let (node, mut client, doomed) = with_a_deleted_topic(|_| {});
    for number in 1..=50 {
        let payload = format!("{number}");
        client.publish(
            "doomed/a",
            Qos::AtLeastOnce,
            payload.as_bytes(),
            Properties::default(),
        );
    }
    for _ in 1..=50 {
        assert_eq!(reason(&mut client), ReasonCode::SUCCESS);
    }
    let stored: Vec<String> = log::read_all(kafka, &doomed)
        .iter()
        .map(|record| record.text())
        .collect();
    let expected: Vec<String> = (1..=50).map(|number| number.to_string()).collect();
    assert_eq!(stored, expected);
    wait_for("it is no problem any more", || {
        node.status().problems.is_empty()
    });
}

#[test]
fn a_topic_that_is_not_made_again_is_waited_for_and_then_an_unknown_one() {
    let (node, mut client, doomed) = with_a_deleted_topic(|config| {
        config.create_topics = false;
        config.missing_topic_wait_s = 3;
    });
    client.publish("doomed/a", Qos::AtLeastOnce, b"1", Properties::default());
    wait_for("the problem is named", || {
        let problems = node.status().problems;
        problems
            .iter()
            .any(|problem| problem.contains(&format!("no topic {doomed}")))
    });
    // Others go on meanwhile.
    client.publish("elsewhere", Qos::AtLeastOnce, b"x", Properties::default());
    wait_for("the other is stored", || node.status().stored == 2);
    assert_eq!(reason(&mut client), ReasonCode::TOPIC_NAME_INVALID);
    assert_eq!(reason(&mut client), ReasonCode::SUCCESS);
    assert_eq!(node.status().refused.unknown_topic, 1);
    assert_eq!(node.status().waiting, 0);
}
