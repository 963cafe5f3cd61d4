//! The iot backend on a real Apache Kafka: readings, alerts, commands and replies the whole way, and what may go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iot::{Config, Rule};
use runtime::Running;
use serde_json::{Value, json};
use sqlx::sqlite::SqlitePool;
use testkit::again::{self, Process};
use testkit::kafka::{Kafka, Read, Sent};
use testkit::{unique, until};

/// Topics, a group and a database of a test's own.
struct Test {
    kafka: &'static Kafka,
    config: Config,
    dir: tempfile::TempDir,
}

impl Test {
    async fn new(kafka: &'static Kafka, partitions: i32) -> Self {
        Self::with_downlink(kafka, partitions, &[]).await
    }

    /// With settings of the downlink topic.
    async fn with_downlink(
        kafka: &'static Kafka,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (telemetry, replies, downlink) =
            (unique("telemetry"), unique("replies"), unique("downlink"));
        kafka.make_topic(&telemetry, partitions, &[]).await;
        kafka.make_topic(&replies, 1, &[]).await;
        kafka.make_topic(&downlink, 1, settings).await;
        let mut config = Config {
            kafka: kafka.bootstrap().to_owned(),
            group: unique("iot"),
            database: format!("sqlite:{}", dir.path().join("iot.db").display()),
            topics: vec![telemetry, replies],
            downlink_topic: downlink,
            reports_topic: String::new(),
            rules: BTreeMap::from([(
                "temperature".to_owned(),
                Rule {
                    above: Some(30.0),
                    below: None,
                    hysteresis: 1.0,
                },
            )]),
            ..Config::default()
        };
        config.consumer.retry_backoff_ms_min = 20;
        config.consumer.retry_backoff_ms_max = 200;
        config.consumer.produce_timeout_ms = 5_000;
        config.consumer.batch_records_max = 500;
        Self { kafka, config, dir }
    }

    async fn start(&self) -> Running {
        iot::start(self.config.clone()).await.expect("starts")
    }

    async fn append(&self, topic: usize, records: Vec<Sent>) {
        let (kafka, topic) = (self.kafka, self.config.topics[topic].clone());
        blocking(move || kafka.append(&topic, records)).await;
    }

    /// What the backend appended to the downlink so far.
    async fn downlink(&self) -> Vec<Read> {
        let (kafka, topic) = (self.kafka, self.config.downlink_topic.clone());
        blocking(move || kafka.read_all(&topic)).await
    }

    async fn dead_letters(&self, topic: usize) -> Vec<Read> {
        let (kafka, topic) = (self.kafka, format!("{}.dlq", self.config.topics[topic]));
        blocking(move || kafka.read_all(&topic)).await
    }

    /// A look at the database past the backend.
    async fn database(&self) -> SqlitePool {
        SqlitePool::connect(&format!("{}?mode=ro", self.config.database))
            .await
            .expect("opens")
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

async fn number(database: &SqlitePool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(database)
        .await
        .expect("reads")
}

/// Waits until a question to the database has an answer.
async fn until_number(what: &str, database: &SqlitePool, sql: &'static str, wanted: i64) {
    let deadline = std::time::Instant::now() + testkit::PATIENCE;
    loop {
        let found = number(database, sql).await;
        if found == wanted {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain: {what}: {found} and not {wanted}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The backend's HTTP API on loopback.
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

    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.url))
            .body(body.to_owned())
            .expect("a request");
        blocking(move || {
            let agent = testkit::http::agent();
            let mut response = agent.run(request).expect("answers");
            let text = response.body_mut().read_to_string().expect("a body");
            (
                response.status().as_u16(),
                serde_json::from_str(&text).unwrap_or(Value::String(text)),
            )
        })
        .await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits until a part of an answer, named by a JSON pointer, is as wanted.
    async fn until(&self, path: &str, pointer: &str, wanted: &Value) -> Value {
        let deadline = std::time::Instant::now() + testkit::PATIENCE;
        loop {
            let (_, body) = self.call("GET", path, "").await;
            if body.pointer(pointer) == Some(wanted) {
                return body;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "waited in vain for {wanted} at {pointer}: {body}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn reading(device: &str, value: impl std::fmt::Display) -> Sent {
    Sent::mqtt(
        &format!("devices/{device}/telemetry/temperature"),
        value.to_string(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_alerts_commands_and_replies_go_the_whole_way() {
    let test = Test::new(Kafka::shared(), 3).await;
    let running = test.start().await;
    let http = Http::serve(&running).await;

    test.append(
        0,
        vec![
            reading("d-1", 21.5),
            reading("d-1", r#"{"value":31.5,"at":1766000000000}"#),
        ],
    )
    .await;
    let device = http
        .until("api/devices/d-1", "/metrics/0/samples", &json!(2))
        .await;
    assert_eq!(device["metrics"][0]["value"], json!(31.5));
    assert_eq!(device["metrics"][0]["state"], json!("above"));
    let series = http
        .get("api/devices/d-1/metrics/temperature?from=1766000000000&to=1766000000000")
        .await;
    assert_eq!(
        series["points"],
        json!([{ "at": 1_766_000_000_000_i64, "value": 31.5 }])
    );

    let alert = test.downlink().await.remove(0);
    assert_eq!(alert.header("mqtt.topic"), Some("devices/d-1/alerts"));
    assert_eq!(
        (alert.header("mqtt.qos"), alert.key.as_deref()),
        (Some("1"), Some(&b"devices/d-1/alerts"[..]))
    );
    let payload: Value = serde_json::from_str(alert.text()).expect("JSON");
    let id = payload["id"].as_str().expect("an id");
    assert!(
        id.starts_with(&format!("{}/", test.config.topics[0])),
        "{id}"
    );
    assert_eq!(
        payload,
        json!({
            "id": id, "device": "d-1", "metric": "temperature", "value": 31.5, "threshold": 30.0, "kind": "above",
            "at": 1_766_000_000_000_i64,
        })
    );
    assert_eq!(
        http.get("api/devices/d-1").await["alerts"],
        json!([payload])
    );

    // A rule that is put holds from the next reading on.
    let (status, _) = http
        .call("PUT", "api/rules/temperature", r#"{"above":100,"below":0}"#)
        .await;
    assert_eq!(status, 200);
    test.append(0, vec![reading("d-1", 50), reading("d-1", -1)])
        .await;
    let device = http
        .until("api/devices/d-1", "/alerts/0/kind", &json!("below"))
        .await;
    assert_eq!(device["alerts"].as_array().map(Vec::len), Some(2));

    // A command goes out with all that a device of any MQTT version needs to reply.
    let (status, accepted) = http
        .call(
            "POST",
            "api/devices/d-1/commands/reboot",
            r#"{"delay_s":5}"#,
        )
        .await;
    assert_eq!(status, 202, "{accepted}");
    let id = accepted["id"].as_str().expect("an id").to_owned();
    let path = format!("api/commands/{id}");
    http.until(&path, "/status", &json!("sent")).await;
    let command = test.downlink().await.pop().expect("a command");
    assert_eq!(
        command.header("mqtt.topic"),
        Some("devices/d-1/commands/reboot")
    );
    assert_eq!(
        command.header("mqtt.response-topic"),
        Some("devices/d-1/replies/reboot")
    );
    assert_eq!(command.header("mqtt.correlation-data"), Some(id.as_str()));
    assert_eq!(command.header("mqtt.message-expiry"), Some("86400"));
    assert_eq!(
        serde_json::from_str::<Value>(command.text()).expect("JSON"),
        json!({ "id": id, "args": { "delay_s": 5 } })
    );

    // A device of MQTT 5.0 leaves the id to the correlation data.
    let mut reply = Sent::mqtt(
        "devices/d-1/replies/reboot",
        r#"{"ok":true,"result":{"uptime_s":3}}"#,
    );
    reply
        .headers
        .push(("mqtt.correlation-data".to_owned(), id.clone().into_bytes()));
    test.append(1, vec![reply]).await;
    let shown = http.until(&path, "/status", &json!("replied")).await;
    assert_eq!(
        (&shown["reply"]["ok"], &shown["reply"]["result"]),
        (&json!(true), &json!({ "uptime_s": 3 }))
    );
    assert_eq!(
        http.get("api/devices/d-1").await["commands"][0]["status"],
        json!("replied")
    );
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_goes_to_the_dead_letters_with_a_reason_and_blocks_nothing() {
    let test = Test::new(Kafka::shared(), 1).await;
    let running = test.start().await;
    let bad = [
        "hello",
        r#"{"value":["hot"]}"#,
        "NaN",
        "1e999",
        r#"{"value":1,"at":-5}"#,
        "[[[[",
    ];
    let mut records = vec![reading("d-1", 1)];
    records.extend(
        bad.iter()
            .map(|payload| Sent::mqtt("devices/d-1/telemetry/temperature", *payload)),
    );
    records.push(Sent {
        payload: Some(b"1".to_vec()),
        ..Sent::default()
    });
    records.push(reading("d-1", 2));
    test.append(0, records).await;
    test.append(
        1,
        vec![Sent::mqtt(
            "devices/d-1/replies/reboot",
            r#"{"id":"c-1","ok":"yes"}"#,
        )],
    )
    .await;

    let database = test.database().await;
    until_number(
        "both good readings",
        &database,
        "SELECT count(*) FROM samples",
        2,
    )
    .await;
    until("the dead letters", || running.status().dead_letters == 8).await;
    let letters = test.dead_letters(0).await;
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
            "the payload is not JSON: expected value at line 1 column 1",
            "value: an array; it must be a number, a boolean or a string",
            "the payload is not JSON: expected value at line 1 column 1",
            "the payload is not JSON: number out of range at line 1 column 5",
            "at: -5; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            "the payload is not JSON: EOF while parsing a list at line 1 column 4",
            "the record has neither the header mqtt.topic nor a key, so its MQTT topic is unknown",
        ]
    );
    assert_eq!(
        letters[0].text(),
        "hello",
        "as it came, so that it can be replayed"
    );
    let letters = test.dead_letters(1).await;
    assert_eq!(
        letters[0].header("__connect.errors.exception.message"),
        Some("ok: a string; it must be true or false")
    );
    running.shutdown().await;
}

/// The backend as a process of its own, for the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test that kills the backend runs this as a process"]
async fn backend_to_be_killed() {
    let Some(config) = again::config::<Config>() else {
        return;
    };
    let _running = iot::start(config).await.expect("starts");
    again::started().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_20_000_readings_every_one_counts_once() {
    const READINGS: i64 = 20_000;
    const DEVICES: i64 = 40;
    let mut test = Test::new(Kafka::shared(), 4).await;
    // Small batches: more moments at which the end may come.
    test.config.consumer.batch_records_max = 100;
    // Each device crosses the threshold with every second of its readings.
    let readings = |from: i64, to: i64| {
        (from..to)
            .map(|n| {
                reading(
                    &format!("d-{}", n % DEVICES),
                    if n / DEVICES % 2 == 0 { 20 } else { 40 },
                )
            })
            .collect()
    };

    test.append(0, readings(0, 12_000)).await;
    let config = test.config.clone();
    let process = blocking(move || Process::start("backend_to_be_killed", &config)).await;
    let database = test.database().await;
    let deadline = std::time::Instant::now() + testkit::PATIENCE;
    while number(&database, "SELECT count(*) FROM samples").await < 1_000 {
        assert!(std::time::Instant::now() < deadline, "nothing is stored");
    }
    process.kill();
    let before = number(&database, "SELECT count(*) FROM samples").await;
    test.append(0, readings(12_000, READINGS)).await;

    let running = test.start().await;
    until_number(
        "all readings",
        &database,
        "SELECT count(*) FROM samples",
        READINGS,
    )
    .await;
    until("the end of the log", || running.status().lag == 0).await;
    assert!((1_000..READINGS).contains(&before), "{before}");
    assert_eq!(
        number(&database, "SELECT sum(samples) FROM series").await,
        READINGS
    );
    assert_eq!(
        number(&database, "SELECT count(*) FROM series").await,
        DEVICES
    );
    let places = "SELECT count(*) FROM (SELECT DISTINCT source, \"offset\" FROM samples)";
    assert_eq!(number(&database, places).await, READINGS);
    assert_eq!(
        number(&database, "SELECT count(*) FROM alerts").await,
        READINGS / 2
    );
    running.shutdown().await;

    // Every alert reached the downlink, and one that came twice came as the same.
    let mut alerts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in test.downlink().await {
        let alert: Value = serde_json::from_str(record.text()).expect("JSON");
        alerts
            .entry(alert["id"].to_string())
            .or_default()
            .insert(record.text().to_owned());
    }
    assert_eq!(alerts.len(), usize::try_from(READINGS / 2).expect("fits"));
    assert!(alerts.values().all(|texts| texts.len() == 1));
    drop(test.dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_share_the_partitions_and_one_that_leaves_hands_over() {
    let test = Test::new(Kafka::shared(), 4).await;
    let one = test.start().await;
    let two = test.start().await;
    let share = |running: &Running| {
        let status = running.status();
        status
            .partitions
            .iter()
            .filter(|partition| partition.topic == test.config.topics[0])
            .count()
    };
    // Which has how many also depends on the topic of replies, which they share as well.
    until("both have partitions", || {
        let shares = (share(&one), share(&two));
        shares.0 > 0 && shares.1 > 0 && shares.0 + shares.1 == 4
    })
    .await;
    let readings = |from: i64, to: i64| {
        (from..to)
            .map(|n| reading(&format!("d-{}", n % 40), n))
            .collect::<Vec<_>>()
    };
    test.append(0, readings(0, 2_000)).await;
    let database = test.database().await;
    until_number(
        "the readings of both",
        &database,
        "SELECT count(*) FROM samples",
        2_000,
    )
    .await;
    // What a consumer says about itself comes a moment after the store has it.
    until("both worked", || {
        one.status().records > 0 && two.status().records > 0
    })
    .await;

    test.append(0, readings(2_000, 4_000)).await;
    one.shutdown().await;
    test.append(0, readings(4_000, 6_000)).await;
    until("one has all partitions", || share(&two) == 4).await;
    until_number(
        "all readings",
        &database,
        "SELECT count(*) FROM samples",
        6_000,
    )
    .await;
    assert_eq!(
        number(&database, "SELECT sum(samples) FROM series").await,
        6_000
    );
    // The last value is the last that was sent, also where two wrote it in turns.
    assert_eq!(
        number(
            &database,
            "SELECT count(*) FROM series WHERE last_value < 5960"
        )
        .await,
        0
    );
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_survives_kafka_being_away_and_a_restart() {
    let kafka: &'static Kafka = Box::leak(Box::new(blocking(Kafka::start).await));
    let mut test = Test::new(kafka, 1).await;
    test.config.consumer.produce_timeout_ms = 1_000;
    let running = test.start().await;
    let http = Http::serve(&running).await;
    blocking(|| kafka.stop()).await;
    until("the backend notices", || {
        running.status().kafka_unreachable_since_ms.is_some()
    })
    .await;

    let mut ids = Vec::new();
    for device in ["d-1", "d-2"] {
        let (status, accepted) = http
            .call("POST", &format!("api/devices/{device}/commands/open"), "{}")
            .await;
        assert_eq!(status, 202, "{accepted}");
        ids.push(accepted["id"].as_str().expect("an id").to_owned());
    }
    for id in &ids {
        assert_eq!(
            http.get(&format!("api/commands/{id}")).await["status"],
            json!("pending")
        );
    }
    // The process ends while they wait; the next one sends them.
    drop(http);
    running.shutdown().await;
    blocking(|| kafka.start_again()).await;
    let running = test.start().await;
    let http = Http::serve(&running).await;
    for id in &ids {
        http.until(&format!("api/commands/{id}"), "/status", &json!("sent"))
            .await;
    }
    let sent: Vec<_> = test
        .downlink()
        .await
        .iter()
        .map(|record| {
            (
                record.header("mqtt.topic").unwrap_or_default().to_owned(),
                record
                    .header("mqtt.correlation-data")
                    .unwrap_or_default()
                    .to_owned(),
            )
        })
        .collect();
    assert_eq!(
        sent,
        [
            ("devices/d-1/commands/open".to_owned(), ids[0].clone()),
            ("devices/d-2/commands/open".to_owned(), ids[1].clone())
        ]
    );
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_kafka_refuses_fails_with_the_reason_and_takes_no_other_with_it() {
    let small = [("max.message.bytes", "2000")];
    let test = Test::with_downlink(Kafka::shared(), 1, &small).await;
    let running = test.start().await;
    let http = Http::serve(&running).await;
    let large = format!("\"{}\"", "x".repeat(5_000));
    let mut posted = Vec::new();
    for (args, status) in [("1", "sent"), (large.as_str(), "failed"), ("2", "sent")] {
        let (code, accepted) = http
            .call("POST", "api/devices/d-1/commands/open", args)
            .await;
        assert_eq!(code, 202, "{accepted}");
        posted.push((accepted["id"].as_str().expect("an id").to_owned(), status));
    }
    for (id, status) in &posted {
        let command = http
            .until(&format!("api/commands/{id}"), "/status", &json!(status))
            .await;
        assert_eq!(
            command["failure"].is_string(),
            *status == "failed",
            "{command}"
        );
    }
    assert_eq!(test.downlink().await.len(), 2);
    running.shutdown().await;
}
