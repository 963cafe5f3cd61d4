//! What the start asks of Kafka, and what it says when it does not get it.

mod common;

use std::net::TcpListener;

use bridge::{Config, EmbeddedKafka};
use broker::codec::{Properties, Qos, Version};
use common::mqtt::{Client, Event};
use common::{Node, config, log, stored_in, wait_for};
use testkit::kafka::Kafka;

fn start_error(config: &Config) -> String {
    match Node::try_start(config) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn missing_topics_are_created_with_the_configured_partitions() {
    let kafka = Kafka::shared().bootstrap();
    let config = Config {
        partitions: 5,
        replication: 1,
        ..config(kafka)
    };
    let node = Node::start(&config);
    for topic in [
        stored_in(&config),
        &config.downlink.topic,
        &config.downlink.dead_letter_topic,
        &config.downlink.reports_topic,
    ] {
        assert_eq!(log::partitions(kafka, topic), 5, "{topic}");
    }
    node.stop();
    // What is there stays as it is.
    let changed = Config {
        partitions: 7,
        create_topics: false,
        ..config
    };
    Node::start(&changed).stop();
    assert_eq!(log::partitions(kafka, stored_in(&changed)), 5);
}

#[test]
fn missing_topics_that_must_not_be_created_are_named() {
    let config = Config {
        create_topics: false,
        ..config(Kafka::shared().bootstrap())
    };
    let error = start_error(&config);
    assert!(
        error.contains(stored_in(&config)) && error.contains(&config.downlink.topic),
        "{error}"
    );
    assert!(error.contains("create_topics is false"), "{error}");
}

#[test]
fn a_topic_that_kafka_does_not_create_is_named_with_kafkas_reason() {
    // There is one broker.
    let config = Config {
        replication: 3,
        ..config(Kafka::shared().bootstrap())
    };
    let error = start_error(&config);
    assert!(
        error.contains("did not create it") && error.contains("replication factor"),
        "{error}"
    );
}

#[test]
fn a_kafka_that_does_not_answer_is_one_sentence() {
    // A port on which nobody listens.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = Config {
        start_timeout_ms: 500,
        ..config(&format!("127.0.0.1:{port}"))
    };
    let error = start_error(&config);
    assert!(
        error.starts_with(&format!(
            "Kafka at 127.0.0.1:{port} did not answer within 500 ms"
        )),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_wrong_configuration_is_refused_before_kafka_is_asked() {
    let config = Config {
        partitions: 0,
        ..config("127.0.0.1:1")
    };
    assert_eq!(
        start_error(&config),
        "partitions = 0 is not allowed: allowed is 1 to 10000 partitions"
    );
}

#[test]
fn the_embedded_kafka_stores_too_and_other_clients_can_read_it() {
    let mut config = config("");
    let kafka = EmbeddedKafka::start(config.kafka_topics(), 2).unwrap();
    config.kafka = kafka.bootstrap().to_owned();
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.publish("a/b", Qos::AtLeastOnce, b"hello", Properties::default());
    assert!(matches!(
        client.next(common::DEADLINE),
        Some(Event::PubAck { .. })
    ));
    wait_for("it is counted", || node.status().stored == 1);
    let records = log::read_all(kafka.bootstrap(), stored_in(&config));
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].key.as_deref(), records[0].text().as_str()),
        (Some(b"a/b".as_slice()), "hello")
    );
}

#[test]
fn a_kafka_that_cannot_be_spoken_to_is_no_kafka_that_does_not_run() {
    let kafka = Kafka::start_secure();
    let with = |address: &str, properties: &[(&str, &str)]| {
        let mut config = Config {
            start_timeout_ms: 3_000,
            ..config(address)
        };
        for (name, value) in properties {
            config.properties.insert(name, value);
        }
        config
    };
    let login = |password| {
        [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "mill"),
            ("sasl.password", password),
        ]
    };
    let cases = [
        (
            with("no-such-host.invalid:9092", &[]),
            "nobody knows a host of this name",
        ),
        (
            with(kafka.bootstrap(), &[("security.protocol", "ssl")]),
            "TLS is spoken to a port that does not speak it",
        ),
        (with(&kafka.tls(), &[]), "if the port wants TLS"),
        (
            with(&kafka.tls(), &[("security.protocol", "ssl")]),
            "certificate is not trusted",
        ),
        (
            with(&kafka.sasl(), &login("stroam")),
            "does not accept the SASL login",
        ),
        (with("127.0.0.1:1", &[]), "is it running"),
    ];
    for (config, says) in cases {
        let error = start_error(&config);
        assert!(error.contains(says), "{says}: {error}");
        assert!(!error.contains("stroam"), "{error}");
        assert!(
            says.starts_with("is it") || !error.contains("is it running"),
            "{error}"
        );
    }
    // And with the right ones it is spoken to.
    Node::start(&with(&kafka.sasl(), &login("stream"))).stop();
    let trusting = [
        ("security.protocol", "ssl"),
        ("enable.ssl.certificate.verification", "false"),
    ];
    Node::start(&with(&kafka.tls(), &trusting)).stop();
}
