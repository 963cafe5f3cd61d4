//! Whether what Kafka confirms would survive the loss of one of its brokers: asked at the start, on one broker and on three.

mod common;

use bridge::Config;
use common::{Node, config, log, stored_in, unique};
use testkit::kafka::Kafka;

fn weaknesses(config: &Config) -> Vec<String> {
    let node = Node::start(config);
    let weaknesses = node.status().weaknesses.to_vec();
    node.stop();
    weaknesses
}

fn start_error(config: &Config) -> String {
    match Node::try_start(config) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn one_replica_is_said_and_refused_where_more_are_required() {
    let mut config = config(Kafka::shared().bootstrap());
    let said = weaknesses(&config);
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["one replica", stored_in(&config), &config.downlink.topic] {
        assert!(said[0].contains(part), "{said:?} lacks {part}");
    }

    config.require_replicas = true;
    let error = start_error(&config);
    for part in [stored_in(&config), "one replica", "bridge.require_replicas"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn on_three_brokers_topics_are_made_so_that_one_may_fail() {
    let brokers = Kafka::cluster();
    let kafka = brokers[0].bootstrap();
    let mut config = Config {
        require_replicas: true,
        ..config(kafka)
    };
    assert_eq!(weaknesses(&config), [""; 0]);
    for topic in [stored_in(&config), &config.downlink.topic] {
        assert_eq!(log::replicas(kafka, topic), 3, "{topic}");
    }

    // A topic that somebody else made, with min.insync.replicas left at Kafka's default of 1.
    let weak = unique("weak");
    log::create(kafka, &weak, 3, 3);
    config.routes.last_mut().expect("a route").topic = weak.clone();
    let error = start_error(&config);
    for part in [weak.as_str(), "min.insync.replicas is 1"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}
