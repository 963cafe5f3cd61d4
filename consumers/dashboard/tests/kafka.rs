//! The dashboard's numbers on a real Apache Kafka, whatever happens to it, and on the in-memory one.

use std::time::{Duration, Instant};

use dashboard::Config;
use rdkafka::mocking::MockCluster;
use runtime::Running;
use serde_json::{Value, json};
use testkit::again::{self, Process};
use testkit::kafka::{Kafka, Sent};
use testkit::{unique, until};

/// Topics, a group and a database of a test's own.
struct Test {
    kafka: &'static Kafka,
    config: Config,
    dir: tempfile::TempDir,
}

impl Test {
    async fn new(partitions: i32) -> Self {
        let kafka = Kafka::shared();
        let topics = vec![unique("chat"), unique("telemetry")];
        for topic in &topics {
            kafka.make_topic(topic, partitions, &[]).await;
        }
        let (config, dir) = config(kafka.bootstrap(), topics);
        Self { kafka, config, dir }
    }

    async fn start(&self) -> Running {
        dashboard::start(self.config.clone()).await.expect("starts")
    }

    async fn append(&self, topic: usize, records: Vec<Sent>) {
        let (kafka, topic) = (self.kafka, self.config.topics[topic].clone());
        blocking(move || kafka.append(&topic, records)).await;
    }
}

fn config(kafka: &str, topics: Vec<String>) -> (Config, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config {
        kafka: kafka.to_owned(),
        group: unique("dashboard"),
        database: format!("sqlite:{}", dir.path().join("dashboard.db").display()),
        topics,
        watched_groups: vec!["nobody".to_owned()],
        ..Config::default()
    };
    config.consumer.batch_records_max = 100;
    config.consumer.retry_backoff_ms_min = 20;
    config.consumer.retry_backoff_ms_max = 200;
    (config, dir)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// The dashboard's HTTP API on loopback.
struct Http {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Http {
    async fn serve(running: &Running) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let router = running.router();
        let task =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { url, task }
    }

    async fn snapshot(&self) -> Value {
        let url = format!("{}/api/snapshot", self.url);
        blocking(move || {
            let agent = testkit::http::agent();
            let text = agent
                .get(&url)
                .call()
                .expect("answers")
                .body_mut()
                .read_to_string()
                .expect("a body");
            serde_json::from_str(&text).expect("JSON")
        })
        .await
    }

    /// Waits until a part of the snapshot, named by a JSON pointer, is as wanted.
    async fn until(&self, pointer: &str, wanted: &Value) -> Value {
        let deadline = Instant::now() + testkit::PATIENCE;
        loop {
            let snapshot = self.snapshot().await;
            if snapshot.pointer(pointer) == Some(wanted) {
                return snapshot;
            }
            let found = snapshot.pointer(pointer);
            assert!(
                Instant::now() < deadline,
                "waited in vain for {wanted} at {pointer}: {found:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn readings(from: u32, to: u32) -> Vec<Sent> {
    (from..to)
        .map(|n| Sent::mqtt(&format!("devices/d-{}/telemetry/t", n % 40), "21.5"))
        .collect()
}

/// The backend as a process of its own, for the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test that kills the dashboard runs this as a process"]
async fn dashboard_to_be_killed() {
    let Some(config) = again::config::<Config>() else {
        return;
    };
    let _running = dashboard::start(config).await.expect("starts");
    again::started().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_20_000_messages_every_one_counts_once() {
    let test = Test::new(4).await;
    test.append(1, readings(0, 12_000)).await;
    let config = test.config.clone();
    let process = blocking(move || Process::start("dashboard_to_be_killed", &config)).await;
    let database = sqlx::SqlitePool::connect(&format!("{}?mode=ro", test.config.database))
        .await
        .expect("opens");
    let counted = || async {
        let sum: Option<i64> = sqlx::query_scalar("SELECT sum(messages) FROM prefixes")
            .fetch_one(&database)
            .await
            .expect("reads");
        sum.unwrap_or(0)
    };
    let deadline = Instant::now() + testkit::PATIENCE;
    while counted().await < 1_000 {
        assert!(Instant::now() < deadline, "nothing is counted");
    }
    process.kill();
    let before = counted().await;
    assert!((1_000..20_000).contains(&before), "{before}");
    test.append(1, readings(12_000, 20_000)).await;

    let running = test.start().await;
    let http = Http::serve(&running).await;
    http.until("/now/figures/messages", &json!(20_000)).await;
    until("the end of the log", || running.status().lag == 0).await;
    let snapshot = http.until("/now/logs/stored", &json!(20_000)).await;
    assert_eq!(snapshot["now"]["figures"]["messages"], json!(20_000));
    assert_eq!(snapshot["now"]["figures"]["bytes"], json!(80_000));
    assert_eq!(snapshot["now"]["figures"]["devices"], json!(40));
    running.shutdown().await;
    drop(test.dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_share_the_partitions_and_show_the_same() {
    let test = Test::new(4).await;
    let one = test.start().await;
    let two = test.start().await;
    let share = |running: &Running| running.status().partitions.len();
    until("both have partitions", || {
        share(&one) == 4 && share(&two) == 4
    })
    .await;
    let (first, second) = (Http::serve(&one).await, Http::serve(&two).await);
    // Which topic's partitions each has is Kafka's choice.
    test.append(0, readings(0, 1_000)).await;
    test.append(1, readings(1_000, 2_000)).await;
    first.until("/now/figures/messages", &json!(2_000)).await;
    second.until("/now/figures/messages", &json!(2_000)).await;
    // What a consumer says about itself comes a moment after the store has it.
    until("both worked", || {
        one.status().records > 0 && two.status().records > 0
    })
    .await;
    drop(first);
    one.shutdown().await;
    test.append(1, readings(2_000, 3_000)).await;
    until("one has all partitions", || share(&two) == 8).await;
    second.until("/now/figures/messages", &json!(3_000)).await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_no_message_is_a_dead_letter_and_payloads_may_be_anything() {
    let test = Test::new(1).await;
    let running = test.start().await;
    let http = Http::serve(&running).await;
    let mut records: Vec<Sent> = ["not JSON", r#"{"value":"hot"}"#, "1e999", "NaN"]
        .map(|payload| Sent::mqtt("devices/d/telemetry/t", payload))
        .into();
    let mut wrong = Sent::mqtt("devices/d/telemetry/t", "1");
    wrong
        .headers
        .push(("mqtt.received-at".to_owned(), b"soon".to_vec()));
    records.push(wrong);
    records.push(Sent {
        payload: Some(b"x".to_vec()),
        ..Sent::default()
    });
    test.append(0, records).await;
    test.append(0, readings(0, 1)).await;
    http.until("/now/figures/messages", &json!(5)).await;
    http.until("/now/logs/dead_letters", &json!(2)).await;
    let (kafka, topic) = (test.kafka, format!("{}.dlq", test.config.topics[0]));
    let letters = blocking(move || kafka.read_all(&topic)).await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| {
            letter
                .header("__connect.errors.exception.message")
                .unwrap_or_default()
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "mqtt.received-at must be microseconds since 1970 in decimal digits",
            "the record has neither the header mqtt.topic nor a key, so its MQTT topic is unknown",
        ]
    );
    running.shutdown().await;
}

/// `millstream up` without a Kafka of its own: librdkafka's in-memory cluster has to tell the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_in_memory_kafka_tells_what_is_stored_too() {
    let cluster = MockCluster::new(1).expect("starts");
    let topics = vec!["chat.messages".to_owned(), "iot.telemetry".to_owned()];
    for topic in [
        "chat.messages",
        "iot.telemetry",
        "chat.messages.dlq",
        "iot.telemetry.dlq",
        "mqtt.downlink",
    ] {
        cluster.create_topic(topic, 3, 1).expect("makes a topic");
    }
    let (config, _dir) = config(&cluster.bootstrap_servers(), topics);
    let running = dashboard::start(config.clone()).await.expect("starts");
    let http = Http::serve(&running).await;
    let producer: rdkafka::producer::BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &config.kafka)
        .create()
        .expect("a producer");
    for n in 0..30 {
        let key = format!("devices/d-{n}/telemetry/t");
        let record = rdkafka::producer::BaseRecord::to("iot.telemetry")
            .key(&key)
            .payload("21.5");
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("enqueues");
    }
    blocking(move || rdkafka::producer::Producer::flush(&producer, testkit::PATIENCE))
        .await
        .expect("flushes");
    http.until("/now/figures/messages", &json!(30)).await;
    let snapshot = http.until("/now/logs/stored", &json!(30)).await;
    assert_eq!(
        snapshot["now"]["logs"]["groups"],
        json!([{ "group": "nobody", "lag": null }])
    );
    assert_eq!(snapshot["now"]["figures"]["devices"], json!(30));
    running.shutdown().await;
}
