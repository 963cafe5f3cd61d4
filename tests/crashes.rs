//! What was acknowledged survives `kill -9`, of a node, of a backend and of Kafka, in the middle of 20,000 messages.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use testkit::clients::{Subscriber, kafka_values, publish};
use testkit::kafka::Kafka;
use testkit::millstream::{Millstream, configuration};
use testkit::publisher::Publisher;
use testkit::{eventually, now_ms};

const MESSAGES: usize = 20_000;
/// When the blow falls: in the middle, with plenty before and after.
const BLOW: usize = MESSAGES / 4;

fn chat(n: usize) -> (String, String) {
    let payload = json!({"id": format!("m-{n}"), "from": "alice", "text": format!("message {n}")});
    ("rooms/crash/messages".to_owned(), payload.to_string())
}

/// One a millisecond, ended about now: what is too old is not kept.
fn telemetry(first_ms: u64) -> impl Fn(usize) -> (String, String) {
    move |n| {
        let payload = json!({"value": n, "at": first_ms + n as u64});
        ("devices/crash/telemetry/n".to_owned(), payload.to_string())
    }
}

/// The whole history of the room, page by page.
fn history(system: &Millstream, below: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all
            .last()
            .map_or(0, |entry| entry["seq"].as_u64().expect("a number"));
        let page = system.json(&format!(
            "{below}/api/rooms/crash/messages?after={after}&limit=1000"
        ));
        let page = page["messages"].as_array().expect("a list");
        if page.is_empty() {
            return all;
        }
        all.extend_from_slice(page);
    }
}

/// Asserts that the room has each message once, in the order of its publishing, under dense sequence numbers.
fn assert_whole(history: &[Value]) {
    assert_eq!(history.len(), MESSAGES);
    for (n, entry) in history.iter().enumerate() {
        assert_eq!(entry["seq"], n + 1, "{entry}");
        assert_eq!(entry["id"], format!("m-{n}"), "{entry}");
    }
}

/// Each test has a Kafka of its own, which is too much for small machines at the same time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const LISTEN: [&str; 4] = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// Small batches, so that the blow falls between and into many of them; and dead members are soon given up.
fn config(data: &tempfile::TempDir) -> String {
    let lines = ["chat", "iot", "dashboard"].map(|name| {
        format!(
            "{name}.consumer.batch_records_max = 200\n{name}.consumer.session_timeout_ms = 6000\n"
        )
    });
    configuration(data, &lines.concat())
}

fn broker(kafka: &Kafka, data: &tempfile::TempDir) -> Millstream {
    let config = config(data);
    Millstream::start(
        &[
            &["broker", "--kafka", kafka.bootstrap(), "--config", &config],
            &LISTEN[..],
        ]
        .concat(),
    )
}

fn backend(name: &str, kafka: &Kafka, data: &tempfile::TempDir) -> Millstream {
    let database = format!(
        "sqlite:{}",
        data.path().join(format!("{name}.db")).display()
    );
    let config = config(data);
    let common = ["--http", "127.0.0.1:0", "--config", &config];
    Millstream::start(
        &[
            &[name, "--kafka", kafka.bootstrap(), "--database", &database],
            &common[..],
        ]
        .concat(),
    )
}

fn records(backend: &Millstream, name: &str) -> u64 {
    backend
        .try_json("/api/status")
        .ok()
        .and_then(|status| status["consumers"][name]["records"].as_u64())
        .unwrap_or(0)
}

#[test]
fn a_killed_backend_has_every_effect_once_after_its_restart() {
    let _alone = alone();
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let broker = broker(&kafka, &data);
    let start = |name| backend(name, &kafka, &data);
    let receipts = Subscriber::start(broker.mqtt(), &["users/alice/receipts"]);
    let (chat_backend, iot, dashboard) = (start("chat"), start("iot"), start("dashboard"));
    // The second half is published when all have fallen: however fast they are, each falls in the middle of the whole.
    let half = MESSAGES / 2;
    let at = now_ms() - MESSAGES as u64;
    let talk = |part: std::ops::Range<usize>| {
        Publisher::start(broker.mqtt(), "talker", part.map(chat).collect())
    };
    let measure = |part: std::ops::Range<usize>| {
        Publisher::start(broker.mqtt(), "sensor", part.map(telemetry(at)).collect())
    };
    let (talking, measuring) = (talk(0..half), measure(0..half));
    for (running, name) in [
        (chat_backend, "chat"),
        (iot, "iot"),
        (dashboard, "dashboard"),
    ] {
        eventually(&format!("{name} in the middle of its work"), || {
            (records(&running, name) >= BLOW as u64).then_some(())
        });
        running.kill();
    }
    talking.finish();
    measuring.finish();
    // They come back while messages come.
    let (talking, measuring) = (talk(half..MESSAGES), measure(half..MESSAGES));
    let (chat_backend, iot, dashboard) = (start("chat"), start("iot"), start("dashboard"));
    talking.finish();
    measuring.finish();

    eventually("all messages in the room", || {
        (chat_backend.try_json("/api/rooms/crash").ok()?["last_seq"].as_u64()? >= MESSAGES as u64)
            .then_some(())
    });
    assert_whole(&history(&chat_backend, ""));
    eventually("the last measurement", || {
        let device = iot.try_json("/api/devices/crash").ok()?;
        (device["metrics"][0]["value"].as_f64()? >= (MESSAGES - 1) as f64).then_some(())
    });
    let mut values = Vec::new();
    let mut before = String::new();
    loop {
        let page = iot.json(&format!("/api/devices/crash/metrics/n?limit=10000{before}"));
        values.extend(
            page["points"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|p| p["value"].as_f64().expect("a number")),
        );
        match page["before"].as_str() {
            Some(cursor) => before = format!("&before={cursor}"),
            None => break,
        }
    }
    assert_eq!(values.len(), MESSAGES, "each measurement once");
    assert_eq!(
        values
            .iter()
            .map(|value| *value as usize)
            .collect::<HashSet<_>>()
            .len(),
        MESSAGES
    );
    eventually("the dashboard's count", || {
        let snapshot = dashboard.try_json("/api/snapshot").ok()?;
        (snapshot["now"]["figures"]["messages"].as_u64()? >= 2 * MESSAGES as u64).then_some(())
    });
    assert_eq!(
        dashboard.json("/api/snapshot")["now"]["figures"]["messages"],
        2 * MESSAGES
    );
    // A receipt for each message at least once, whoever wrote it.
    eventually("all receipts", || {
        let seen: HashSet<String> = receipts
            .messages()
            .iter()
            .filter_map(|(_, receipt)| {
                Some(
                    serde_json::from_str::<Value>(receipt).ok()?["id"]
                        .as_str()?
                        .to_owned(),
                )
            })
            .collect();
        (seen.len() == MESSAGES).then_some(())
    });
    for process in [chat_backend, iot, dashboard, broker] {
        assert_eq!(process.terminate().status.code(), Some(0));
    }
}

/// The identifiers of all messages in Kafka, as often as they are there.
fn stored_ids(kafka: &Kafka) -> Vec<String> {
    let stored = kafka_values(kafka.bootstrap(), "chat.messages");
    let id = |value: &String| {
        let value: Value = serde_json::from_str(value).expect("JSON");
        value["id"].as_str().expect("an id").to_owned()
    };
    stored.iter().map(id).collect()
}

#[test]
fn what_was_acknowledged_survives_a_killed_node() {
    let _alone = alone();
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let node = broker(&kafka, &data);
    let talking = Publisher::start(node.mqtt(), "talker", (0..MESSAGES).map(chat).collect());
    eventually("a quarter of the messages", || {
        (talking.acknowledged() >= BLOW).then_some(())
    });
    node.kill();
    let acknowledged = talking.lost();
    assert!(
        (BLOW..MESSAGES).contains(&acknowledged),
        "the node fell in the middle: {acknowledged}"
    );
    let ids: HashSet<String> = stored_ids(&kafka).into_iter().collect();
    for n in 0..acknowledged {
        assert!(
            ids.contains(&format!("m-{n}")),
            "message {n} was acknowledged and is not in Kafka"
        );
    }
    // The rest is its publisher's to send again; a new node takes it.
    let again = broker(&kafka, &data);
    let rest = (acknowledged..MESSAGES).map(chat).collect();
    Publisher::start(again.mqtt(), "talker", rest).finish();
    let ids: HashSet<String> = stored_ids(&kafka).into_iter().collect();
    assert_eq!(ids.len(), MESSAGES);
    assert_eq!(again.terminate().status.code(), Some(0));
}

#[test]
fn what_was_acknowledged_survives_a_killed_kafka() {
    let _alone = alone();
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let (path, config) = (data.path().to_str().expect("UTF-8"), config(&data));
    let rest = [
        "--kafka",
        kafka.bootstrap(),
        "--data",
        path,
        "--config",
        &config,
    ];
    let system = Millstream::start(&[&["up"], &LISTEN[..], &rest].concat());
    let plain = Subscriber::start(system.mqtt(), &["rooms/crash/typing"]);
    let talking = Publisher::start(system.mqtt(), "talker", (0..MESSAGES).map(chat).collect());
    eventually("a quarter of the messages", || {
        (talking.acknowledged() >= BLOW).then_some(())
    });
    kafka.kill();

    // It says so in words, holds the publisher, and serves everybody else.
    let problem = eventually("the words", || {
        let status = system.json("/api/status");
        let problem = status["problems"].as_array()?.iter().find_map(|problem| {
            problem
                .as_str()
                .filter(|text| text.starts_with("Kafka unreachable since"))
                .map(str::to_owned)
        });
        (status["bridge"]["kafka_waiting"].as_u64()? > 0)
            .then_some(problem)
            .flatten()
    });
    assert!(problem.contains("messages wait"), "{problem}");
    let held = talking.acknowledged();
    assert!(held < MESSAGES, "Kafka fell too late to be noticed");
    publish(system.mqtt(), "rooms/crash/typing", "still here");
    assert_eq!(plain.on("rooms/crash/typing"), "still here");
    assert_eq!(
        talking.acknowledged(),
        held,
        "nothing is acknowledged that is not stored"
    );
    assert_eq!(system.get("/health/live").0, 200, "no reason to restart");
    assert_eq!(system.get("/health/ready").0, 503);
    let (_, metrics) = system.get("/metrics");
    assert!(metrics.contains("millstream_bridge_kafka_reachable 0"));

    kafka.start_again();
    talking.finish();
    let stored = stored_ids(&kafka);
    let ids: HashSet<&String> = stored.iter().collect();
    for n in 0..MESSAGES {
        assert!(
            ids.contains(&format!("m-{n}")),
            "message {n} was acknowledged and is not in Kafka"
        );
    }
    assert_eq!(
        stored.len(),
        MESSAGES,
        "and none twice: the producer is idempotent"
    );
    eventually("all messages in the room", || {
        (system.try_json("/chat/api/rooms/crash").ok()?["last_seq"].as_u64()? >= MESSAGES as u64)
            .then_some(())
    });
    assert_whole(&history(&system, "/chat"));
    eventually("no problems any more", || {
        let status = system.json("/api/status");
        (status["problems"].as_array()?.is_empty() && status["bridge"]["kafka_waiting"] == 0)
            .then_some(())
    });
    assert_eq!(system.get("/health").0, 200);
    assert_eq!(system.terminate().status.code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_for_a_kafka_that_is_away() {
    let _alone = alone();
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let (path, config) = (data.path().to_str().expect("UTF-8"), config(&data));
    let rest = [
        "--kafka",
        kafka.bootstrap(),
        "--data",
        path,
        "--config",
        &config,
    ];
    let system = Millstream::start(&[&["up", "--demo"], &LISTEN[..], &rest].concat());
    // Everything is in motion: publishes, records, receipts, commands.
    eventually("the demo in motion", || {
        (system.json("/api/status")["demo"]["complete"].as_u64()? > 50).then_some(())
    });
    kafka.kill();
    eventually("messages that wait for Kafka", || {
        let status = system.json("/api/status");
        let waiting = status["bridge"]["kafka_waiting"].as_u64()?;
        (status["bridge"]["kafka_reachable"] == 0 && waiting > 0).then_some(())
    });
    let ended = system.terminate();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(
        ended.out.contains("lost = 0"),
        "nothing that was acknowledged is lost: {}",
        ended.out
    );
}

#[test]
fn two_instances_share_the_partitions_and_one_that_leaves_hands_over() {
    let _alone = alone();
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let broker = broker(&kafka, &data);
    // One group has one store: sequence numbers go on where the other instance stopped.
    let (first, second) = (
        backend("chat", &kafka, &data),
        backend("chat", &kafka, &data),
    );
    let partitions = |instance: &Millstream| -> HashSet<u64> {
        let status = instance.json("/api/status");
        let partitions = status["consumers"]["chat"]["partitions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        partitions
            .iter()
            .filter_map(|partition| partition["partition"].as_u64())
            .collect()
    };
    let all: HashSet<u64> = (0..6).collect();
    eventually("both to have a share", || {
        let (one, other) = (partitions(&first), partitions(&second));
        let whole: HashSet<u64> = one.union(&other).copied().collect();
        (!one.is_empty() && !other.is_empty() && one.is_disjoint(&other) && whole == all)
            .then_some(())
    });
    // What an operator asks of a backend of its own.
    assert_eq!(first.get("/health").0, 200);
    assert_eq!(first.json("/status")["group"], "chat");
    assert_eq!(first.json("/api/status")["command"], "chat");
    assert!(first.get("/metrics").1.contains("millstream_consumer_"));
    // Rooms enough for every partition.
    let receipts = Subscriber::start(broker.mqtt(), &["users/alice/receipts"]);
    let message = |n: usize| {
        (
            format!("rooms/r{}/messages", n % 48),
            json!({"id": format!("m-{n}"), "from": "alice", "text": "x"}).to_string(),
        )
    };
    let seen = |wanted: usize| {
        eventually("a receipt for each message", || {
            let ids: HashSet<String> = receipts
                .messages()
                .iter()
                .filter_map(|(_, receipt)| {
                    Some(
                        serde_json::from_str::<Value>(receipt).ok()?["id"]
                            .as_str()?
                            .to_owned(),
                    )
                })
                .collect();
            (ids.len() == wanted).then_some(())
        });
    };
    Publisher::start(broker.mqtt(), "before", (0..480).map(message).collect()).finish();
    seen(480);
    assert!(
        records(&first, "chat") > 0 && records(&second, "chat") > 0,
        "both work"
    );

    assert_eq!(second.terminate().status.code(), Some(0));
    eventually("the handover", || (partitions(&first) == all).then_some(()));
    Publisher::start(broker.mqtt(), "after", (480..960).map(message).collect()).finish();
    seen(960);
    for room in 0..48 {
        let history = first.json(&format!("/api/rooms/r{room}/messages"));
        let seqs = history["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| entry["seq"].as_u64());
        assert!(seqs.eq((1..=20).map(Some)), "{history}");
    }
    assert_eq!(first.terminate().status.code(), Some(0));
    assert_eq!(broker.terminate().status.code(), Some(0));
}
