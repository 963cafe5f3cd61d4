//! The chat backend on a real Apache Kafka: from a record to the store, the HTTP API and the receipt.

use std::collections::HashMap;

use chat::{Config, start};
use runtime::{Running, StartError, State, Tuning};
use serde_json::{Value, json};
use testkit::kafka::{Kafka, Sent};
use testkit::{unique, until};

struct Test {
    kafka: &'static Kafka,
    config: Config,
    topic: String,
    dir: tempfile::TempDir,
}

impl Test {
    async fn new(partitions: i32) -> Self {
        let kafka = Kafka::shared();
        let topic = unique("chat.messages");
        let downlink_topic = unique("mqtt.downlink");
        kafka.make_topic(&topic, partitions, &[]).await;
        kafka.make_topic(&downlink_topic, 2, &[]).await;
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            kafka: kafka.bootstrap().to_owned(),
            group: unique("chat"),
            database: format!("sqlite:{}", dir.path().join("chat.db").display()),
            topics: vec![topic.clone()],
            downlink_topic,
            consumer: Tuning {
                batch_records_max: 100,
                commit_interval_ms: 50,
                retry_backoff_ms_min: 50,
                retry_backoff_ms_max: 200,
                ..Tuning::default()
            },
            ..Config::default()
        };
        Self {
            kafka,
            config,
            topic,
            dir,
        }
    }

    /// Messages of `user`, by turns in `rooms`, in the partition that each room's topic falls into.
    fn write(&self, user: &str, rooms: &[&str], numbers: std::ops::Range<usize>) {
        let records = numbers.map(|number| {
            let payload = json!({ "id": format!("{user}-{number}"), "from": user, "text": format!("text {number}") });
            Sent::mqtt(&format!("rooms/{}/messages", rooms[number % rooms.len()]), payload.to_string())
        });
        self.kafka.append(&self.topic, records);
    }

    /// All receipts so far: by user and identifier, the distinct numbers and how often.
    fn receipts(&self) -> HashMap<(String, String), (Vec<Value>, usize)> {
        let mut all: HashMap<_, (Vec<Value>, usize)> = HashMap::new();
        for record in self.kafka.read_all(&self.config.downlink_topic) {
            let receipt: Value = serde_json::from_str(record.text()).unwrap();
            let user = record.header("mqtt.topic").unwrap().to_owned();
            if !user.starts_with("users/") {
                continue;
            }
            assert_eq!(record.header("mqtt.qos"), Some("1"));
            let (distinct, count) = all
                .entry((user, receipt["id"].as_str().unwrap_or_default().to_owned()))
                .or_default();
            *count += 1;
            if !distinct.contains(&receipt) {
                distinct.push(receipt);
            }
        }
        all
    }
}

/// The backend with its HTTP API on loopback.
struct Served {
    running: Running,
    url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(config: &Config) -> Self {
        let running = start(config.clone()).await.expect("it starts");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = running.router();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            running,
            url,
            server,
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}/{path}", self.url);
        tokio::task::spawn_blocking(move || {
            let agent = testkit::http::agent();
            let mut answer = agent.get(&url).call().unwrap();
            (
                answer.status().as_u16(),
                answer.body_mut().read_to_string().unwrap(),
            )
        })
        .await
        .unwrap()
    }

    /// Changes something and says what is answered.
    async fn change(&self, method: &'static str, path: &str, body: &'static str) -> u16 {
        let url = format!("{}/{path}", self.url);
        tokio::task::spawn_blocking(move || {
            let agent = testkit::http::agent();
            let answer = match method {
                "PUT" => agent.put(&url).send(body),
                "POST" => agent.post(&url).send(body),
                _ => agent.delete(&url).call(),
            };
            answer.unwrap().status().as_u16()
        })
        .await
        .unwrap()
    }

    /// All that the API shows, as it is shown.
    async fn everything(&self) -> Vec<(String, String)> {
        let mut paths = vec!["api/rooms".to_owned()];
        for room in ROOMS {
            for part in ["", "/messages?after=0&limit=1000", "/members"] {
                paths.push(format!("api/rooms/{room}{part}"));
            }
        }
        paths.extend(["alice", "bob", "carol"].map(|user| format!("api/users/{user}/unread")));
        let mut all = Vec::new();
        for path in paths {
            let (status, text) = self.get(&path).await;
            assert_eq!(status, 200, "{path}: {text}");
            all.push((path, text));
        }
        all
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn stored(&self, rooms: &[&str]) -> i64 {
        let mut stored = 0;
        for room in rooms {
            let (status, text) = self.get(&format!("api/rooms/{room}")).await;
            if status == 200 {
                let room: Value = serde_json::from_str(&text).unwrap();
                stored += room["last_seq"].as_i64().unwrap();
            }
        }
        stored
    }

    /// The history of a room: its numbers are dense, and each sender's texts are in order.
    async fn assert_history(&self, room: &str, messages: usize) {
        let mut seq = 0;
        let mut texts: HashMap<String, usize> = HashMap::new();
        loop {
            let page = self
                .json(&format!("api/rooms/{room}/messages?after={seq}&limit=1000"))
                .await;
            for entry in page["messages"].as_array().unwrap() {
                seq += 1;
                assert_eq!(entry["seq"], seq, "dense");
                let number: usize = entry["text"]
                    .as_str()
                    .unwrap()
                    .strip_prefix("text ")
                    .unwrap()
                    .parse()
                    .unwrap();
                let last = texts.insert(entry["from"].as_str().unwrap().to_owned(), number);
                assert!(
                    last.is_none_or(|last| last < number),
                    "in the order of the sender, once"
                );
            }
            if page["after"].is_null() {
                break;
            }
        }
        assert_eq!(usize::try_from(seq).unwrap(), messages);
    }

    async fn stop(self) {
        self.server.abort();
        self.running.shutdown().await;
    }
}

const ROOMS: [&str; 4] = ["lobby", "attic", "cellar", "garden"];

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_numbered_stored_shown_and_receipted() {
    let test = Test::new(3).await;
    test.write("alice", &ROOMS, 0..400);
    test.write("bob", &ROOMS, 0..400);
    let served = Served::start(&test.config).await;
    until("all are stored", || {
        served.running.status().downlinks == 1_600
    })
    .await;
    for room in ROOMS {
        served.assert_history(room, 200).await;
    }
    assert_eq!(
        served.json("api/rooms").await["rooms"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let (status, health) = served.get("health").await;
    assert_eq!(status, 200);
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(
        (&health["state"], &health["records"]),
        (&json!("running"), &json!(800))
    );
    let (_, metrics) = served.get("metrics").await;
    assert!(
        metrics.contains("millstream_chat_messages_total 800"),
        "{metrics}"
    );
    assert!(
        metrics.contains("millstream_consumer_downlinks_total"),
        "{metrics}"
    );
    served.stop().await;

    let receipts = test.receipts();
    assert_eq!(receipts.len(), 800);
    let (distinct, count) = &receipts[&("users/alice/receipts".to_owned(), "alice-4".to_owned())];
    assert_eq!((distinct.len(), count), (1, &1));
    assert_eq!(distinct[0]["room"], "lobby");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_again_is_stored_once_and_receipted_again() {
    let test = Test::new(1).await;
    test.write("alice", &ROOMS, 0..300);
    let served = Served::start(&test.config).await;
    until("all are stored", || {
        served.running.status().downlinks == 600
    })
    .await;
    served.stop().await;
    // As after a crash between the store and the commit.
    test.kafka
        .set_committed(&test.config.group, &test.topic, 0, 100);
    test.write("alice", &ROOMS, 300..320);
    let served = Served::start(&test.config).await;
    until("all are answered", || {
        served.running.status().downlinks == 440
    })
    .await;
    for room in ROOMS {
        served.assert_history(room, 80).await;
    }
    served.stop().await;
    let receipts = test.receipts();
    assert_eq!(receipts.len(), 320);
    for ((_, id), (distinct, count)) in receipts {
        let number: usize = id.strip_prefix("alice-").unwrap().parse().unwrap();
        assert_eq!(
            distinct.len(),
            1,
            "the receipt of {id} says the same every time"
        );
        assert_eq!(
            count,
            if (100..300).contains(&number) { 2 } else { 1 },
            "{id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_made_anew_from_the_log_says_the_same() {
    let test = Test::new(3).await;
    let served = Served::start(&test.config).await;
    let topic = "rooms/lobby/messages";
    let extra = r#"{"id":"x","from":"bob","text":"hi","reply_to":{"seq":1e0},"tags":["a", "b"]}"#;
    test.kafka.append(
        &test.topic,
        [extra, extra].map(|text| Sent::mqtt(topic, text)),
    );
    test.write("alice", &ROOMS, 0..200);
    until("all are handled", || served.running.status().records == 202).await;
    // What people change, before and after further messages.
    let carol = "api/rooms/attic/members/carol";
    assert_eq!(served.change("PUT", carol, "").await, 200);
    let bob = "api/rooms/attic/members/bob";
    assert_eq!(served.change("PUT", bob, "").await, 200);
    assert_eq!(
        served
            .change("DELETE", "api/rooms/cellar/members/alice", "")
            .await,
        204
    );
    test.write("alice", &ROOMS[..2], 200..300);
    until("these too", || served.running.status().records == 305).await;
    let read = "api/rooms/attic/members/carol/read";
    assert_eq!(served.change("POST", read, r#"{"seq":60}"#).await, 200);
    assert_eq!(served.change("DELETE", bob, "").await, 204);
    let before = served.everything().await;
    let carol = &before
        .iter()
        .find(|(path, _)| path.ends_with("carol/unread"));
    let (_, unread) = carol.expect("asked for");
    assert!(unread.contains(r#""unread":40"#), "{unread}");
    served.stop().await;

    for file in ["chat.db", "chat.db-wal", "chat.db-shm"] {
        let _ = std::fs::remove_file(test.dir.path().join(file));
    }
    for partition in 0..3 {
        test.kafka
            .set_committed(&test.config.group, &test.topic, partition, 0);
    }
    // Otherwise everything would be stored in the same millisecond again.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let served = Served::start(&test.config).await;
    until("all are handled again", || {
        served.running.status().records == 307
    })
    .await;
    let after = served.everything().await;
    served.stop().await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    let receipts = test.receipts();
    assert_eq!(receipts.len(), 301);
    for ((user, id), (distinct, count)) in receipts {
        assert_eq!(distinct.len(), 1, "{user} {id}: {distinct:?}");
        assert_eq!(count, if id == "x" { 4 } else { 2 }, "{user} {id}");
    }
}

/// Handles what is there, and leaves a copy of the store as it was after the first 50 messages.
async fn store_with_backup(test: &Test) -> std::path::PathBuf {
    test.write("alice", &ROOMS[..1], 0..50);
    let served = Served::start(&test.config).await;
    until("half is stored", || served.running.status().records == 50).await;
    served.stop().await;
    let backup = test.dir.path().join("backup.db");
    std::fs::copy(test.dir.path().join("chat.db"), &backup).unwrap();
    test.write("alice", &ROOMS[..1], 50..100);
    let served = Served::start(&test.config).await;
    until("the rest is stored", || {
        served.running.status().records == 50
    })
    .await;
    served.stop().await;
    assert_eq!(
        test.kafka.committed(&test.config.group, &test.topic, 0),
        100
    );
    backup
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_its_group_is_read_from_where_the_store_is() {
    let test = Test::new(1).await;
    let backup = store_with_backup(&test).await;
    std::fs::copy(&backup, test.dir.path().join("chat.db")).unwrap();
    let served = Served::start(&test.config).await;
    until("it has caught up", || served.running.status().records == 50).await;
    served.assert_history("lobby", 100).await;
    assert_eq!(served.running.status().gaps, []);
    served.stop().await;
    // Another directory: nothing is there at all.
    let mut other = test.config.clone();
    other.database = format!("sqlite:{}", test.dir.path().join("other.db").display());
    let refused = start(other.clone()).await.expect_err("it is another store");
    assert!(
        matches!(refused, StartError::OtherStore { .. }),
        "{refused}"
    );
    other.consumer.adopt_store = true;
    let served = Served::start(&other).await;
    until("it has all", || served.running.status().records == 100).await;
    served.assert_history("lobby", 100).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_deleted_before_it_was_stored_is_said() {
    let test = Test::new(1).await;
    let backup = store_with_backup(&test).await;
    std::fs::copy(&backup, test.dir.path().join("chat.db")).unwrap();
    test.kafka.delete_records(&test.topic, 0, 70).await;
    let served = Served::start(&test.config).await;
    until("the rest is stored", || {
        served.running.status().records == 30
    })
    .await;
    let gap = runtime::Gap {
        topic: test.topic.clone(),
        partition: 0,
        from: 50,
        to: 70,
    };
    assert_eq!(served.running.status().gaps, std::slice::from_ref(&gap));
    assert!(gap.to_string().contains("from offset 50 to 69"), "{gap}");
    let (_, metrics) = served.get("metrics").await;
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("millstream_consumer_gap_records_total"));
    assert!(
        counted.is_some_and(|line| line.ends_with(" 20")),
        "{metrics}"
    );
    served.assert_history("lobby", 80).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_with_its_reason() {
    let test = Test::new(1).await;
    let bad = [
        ("not json", "hello", "NotJson"),
        ("wrong type", r#"{"from":7,"text":"x"}"#, "WrongType"),
        ("huge number", r#"{"from":1e999,"text":"x"}"#, "NotJson"),
        ("missing", r#"{"from":"alice"}"#, "MissingField"),
        ("bad name", r#"{"from":"a/#","text":"x"}"#, "BadName"),
    ];
    test.write("alice", &ROOMS, 0..10);
    test.kafka.append(
        &test.topic,
        bad.map(|(_, payload, _)| Sent::mqtt("rooms/lobby/messages", payload)),
    );
    let long = json!({ "from": "alice", "text": "x".repeat(20_000) }).to_string();
    test.kafka
        .append(&test.topic, [Sent::mqtt("rooms/lobby/messages", long)]);
    test.write("alice", &ROOMS, 10..20);
    let served = Served::start(&test.config).await;
    until("all are handled", || served.running.status().records == 26).await;
    assert_eq!(served.running.status().dead_letters, 6);
    assert_eq!(served.stored(&ROOMS).await, 20);
    let (_, metrics) = served.get("metrics").await;
    assert!(metrics.contains("class=\"BadLength\""), "{metrics}");
    served.stop().await;
    let letters = test.kafka.read_all(&format!("{}.dlq", test.topic));
    let classes: Vec<_> = letters
        .iter()
        .map(|letter| {
            letter
                .header("__connect.errors.exception.class.name")
                .unwrap()
        })
        .collect();
    let expected: Vec<_> = bad
        .iter()
        .map(|(.., class)| *class)
        .chain(["BadLength"])
        .collect();
    assert_eq!(classes, expected);
    assert_eq!(letters[1].text(), r#"{"from":7,"text":"x"}"#);
    let message = letters[1].header("__connect.errors.exception.message");
    assert_eq!(message, Some("from: a number; it must be text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_store_share_partitions_and_one_that_leaves_hands_over() {
    let test = Test::new(4).await;
    let first = Served::start(&test.config).await;
    let second = Served::start(&test.config).await;
    until("they share", || {
        first.running.status().partitions.len() == 2
            && second.running.status().partitions.len() == 2
    })
    .await;
    let rooms: Vec<String> = (0..20).map(|room| format!("room-{room}")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    test.write("alice", &rooms, 0..1_000);
    until("both work", || {
        first.running.status().records > 0 && second.running.status().records > 0
    })
    .await;
    test.write("alice", &rooms, 1_000..2_000);
    first.stop().await;
    until("the second has all", || {
        second.running.status().partitions.len() == 4
    })
    .await;
    until("all are answered", || {
        test.kafka.count(&test.config.downlink_topic) >= 4_000
    })
    .await;
    for room in &rooms {
        second.assert_history(room, 100).await;
    }
    second.stop().await;
    let receipts = test.receipts();
    assert_eq!(receipts.len(), 2_000);
    assert!(receipts.values().all(|(distinct, _)| distinct.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_store_is_waited_for_and_loses_nothing() {
    let test = Test::new(1).await;
    let mut config = test.config.clone();
    config.consumer.handle_timeout_ms = 1_000;
    let served = Served::start(&config).await;
    test.write("alice", &ROOMS, 0..10);
    until("it works", || served.running.status().downlinks == 20).await;
    // Another program holds the file, for example a backup that does not end.
    let url = format!("sqlite:{}", test.dir.path().join("chat.db").display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    test.write("alice", &ROOMS, 10..50);
    until("the status tells", || {
        served.running.status().state == State::Retrying
    })
    .await;
    let problem = served.running.status().problem.unwrap();
    assert!(problem.contains("is paused and retried"), "{problem}");
    assert_eq!(
        served.json("api/rooms/lobby").await["last_seq"],
        3,
        "readers are not held up"
    );
    lock.rollback().await.unwrap();
    until("all are answered", || {
        served.running.status().downlinks == 100
    })
    .await;
    until("it runs again", || {
        served.running.status().state == State::Running
    })
    .await;
    assert_eq!(served.stored(&ROOMS).await, 50);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let test = Test::new(1).await;
    let served = Served::start(&test.config).await;
    test.write("alice", &ROOMS, 0..40);
    until("all are stored", || served.running.status().downlinks == 80).await;
    // While it runs ...
    test.kafka.delete_topic(&test.topic).await;
    test.kafka.make_topic(&test.topic, 1, &[]).await;
    test.write("alice", &ROOMS, 40..60);
    until("all are answered", || {
        test.kafka.count(&test.config.downlink_topic) >= 120
    })
    .await;
    assert_eq!(served.stored(&ROOMS).await, 60);
    served.stop().await;
    // ... and while it does not.
    test.kafka.delete_topic(&test.topic).await;
    test.kafka.make_topic(&test.topic, 1, &[]).await;
    test.write("alice", &ROOMS, 60..100);
    let served = Served::start(&test.config).await;
    until("all are answered", || {
        test.kafka.count(&test.config.downlink_topic) >= 200
    })
    .await;
    for room in ROOMS {
        served.assert_history(room, 25).await;
    }
    served.stop().await;
    assert_eq!(test.receipts().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_be_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        database: format!("sqlite:{}", dir.path().join("missing/chat.db").display()),
        ..Config::default()
    };
    let error = start(config).await.expect_err("no such directory");
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("cannot open database sqlite:"),
        "{error}"
    );
    let config = Config {
        database: "postgres://localhost/chat".to_owned(),
        ..Config::default()
    };
    let error = start(config).await.expect_err("not yet").to_string();
    assert!(
        error.contains("database = ") && error.contains("sqlite:FILE"),
        "{error}"
    );
    let config = Config {
        kafka: "127.0.0.1:1".to_owned(),
        database: format!("sqlite:{}", dir.path().join("chat.db").display()),
        consumer: Tuning {
            start_timeout_ms: 1_000,
            ..Tuning::default()
        },
        ..Config::default()
    };
    let error = start(config)
        .await
        .expect_err("nobody is there")
        .to_string();
    assert!(
        error.starts_with("Kafka at 127.0.0.1:1 cannot be reached: "),
        "{error}"
    );
}
