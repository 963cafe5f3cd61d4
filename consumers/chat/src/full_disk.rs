//! A disk that fills up while messages come from a real Apache Kafka. Inside the crate, because only the store's own
//! connection can be told to find the disk full.

use runtime::{State, Tuning};
use serde_json::json;
use testkit::kafka::{Kafka, Sent};
use testkit::{unique, until};

use crate::Config;
use crate::handler::ChatHandler;
use crate::metrics::Metrics;
use crate::store::Direction;
use crate::store::tests::{growth, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_pauses_the_partition_and_loses_nothing() {
    let kafka = Kafka::shared();
    let config = Config {
        kafka: kafka.bootstrap().to_owned(),
        group: unique("chat"),
        topics: vec![unique("chat.messages")],
        downlink_topic: unique("mqtt.downlink"),
        consumer: Tuning {
            batch_records_max: 50,
            retry_backoff_ms_min: 20,
            retry_backoff_ms_max: 100,
            ..Tuning::default()
        },
        ..Config::default()
    };
    let topic = &config.topics[0];
    kafka.make_topic(topic, 1, &[]).await;
    kafka.make_topic(&config.downlink_topic, 1, &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    store.limit_pages(Some(40)).await;
    let registry = prometheus::Registry::new();
    let handler = ChatHandler {
        store: store.clone(),
        topics: config.mqtt_topics().unwrap(),
        text_bytes_max: 1_000,
        sender: crate::config::Sender::Principal,
        limits: config.limits(),
        growth: growth(&store),
        metrics: Metrics::new(&registry).unwrap(),
    };
    let text = "x".repeat(500);
    let payload = json!({ "from": "alice", "text": text }).to_string();
    kafka.append(
        topic,
        (0..1_000).map(|_| Sent::mqtt("rooms/lobby/messages", payload.as_str())),
    );

    let running = runtime::start(config.runtime(), handler, &registry)
        .await
        .unwrap();
    until("the disk is full", || running.status().failures >= 3).await;
    let status = running.status();
    assert_eq!(status.state, State::Retrying);
    let problem = status.problem.unwrap();
    assert!(problem.contains("database or disk is full"), "{problem}");
    assert!(status.records < 1_000);
    assert!(kafka.committed(&config.group, topic, 0) <= i64::try_from(status.records).unwrap());

    store.limit_pages(None).await;
    until("all are stored and answered", || {
        running.status().downlinks == 2_000
    })
    .await;
    running.shutdown().await.unwrap();
    let ((_, last_seq), page) = store
        .history("lobby", Direction::After(0), 2_000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((last_seq, page.len()), (1_000, 1_000));
    assert_eq!(kafka.committed(&config.group, topic, 0), 1_000);
    assert_eq!(kafka.count(&config.downlink_topic), 2_000);
}
