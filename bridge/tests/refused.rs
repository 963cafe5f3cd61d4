//! What Kafka never takes: the publisher is told, by what its protocol version has for it, and never by silence.

mod common;

use bridge::{Config, RouteConfig};
use broker::codec::{Properties, Qos, ReasonCode, Version};
use common::mqtt::{Client, Event};
use common::{DEADLINE, Node, config, log, stored_in, unique, wait_for};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
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

#[test]
fn a_3_1_1_publisher_of_a_refused_message_is_disconnected() {
    let config = with_a_modest_topic(Kafka::shared().bootstrap());
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V311, &unique("c"));
    client.publish(
        "a/b",
        Qos::AtLeastOnce,
        &noise(5_000),
        Properties::default(),
    );
    assert_eq!(client.next(DEADLINE), Some(Event::Closed));
    wait_for("it is counted", || node.status().refused.too_large == 1);
    let mut other = Client::connect(node.address, Version::V311, &unique("c"));
    other.publish("a/b", Qos::AtLeastOnce, b"fits", Properties::default());
    assert!(matches!(other.next(DEADLINE), Some(Event::PubAck { .. })));
}

#[test]
fn a_topic_that_was_deleted_is_an_unknown_one() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    let doomed = unique("doomed");
    config
        .routes
        .insert(0, RouteConfig::new("doomed/#", &doomed));
    // So that this test does not wait for half a minute.
    config
        .properties
        .insert("topic.metadata.propagation.max.ms", "1000");
    config
        .properties
        .insert("topic.metadata.refresh.interval.ms", "1000");
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, &unique("c"));
    client.publish("doomed/a", Qos::AtLeastOnce, b"x", Properties::default());
    assert!(matches!(
        client.next(DEADLINE),
        Some(Event::PubAck {
            reason: ReasonCode::SUCCESS,
            ..
        })
    ));
    let deleted =
        log::block_on(log::admin(kafka).delete_topics(&[&doomed], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    wait_for("no partition is left", || {
        log::partitions(kafka, &doomed) == 0
    });
    let packet_id = client
        .publish("doomed/a", Qos::AtLeastOnce, b"x", Properties::default())
        .unwrap();
    assert_eq!(
        client.next(DEADLINE),
        Some(Event::PubAck {
            packet_id,
            reason: ReasonCode::TOPIC_NAME_INVALID
        })
    );
    assert_eq!(node.status().refused.unknown_topic, 1);
    client.publish("elsewhere", Qos::AtLeastOnce, b"x", Properties::default());
    assert!(matches!(
        client.next(DEADLINE),
        Some(Event::PubAck {
            reason: ReasonCode::SUCCESS,
            ..
        })
    ));
}
