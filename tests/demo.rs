//! The first thing that a newcomer runs: `millstream up --demo`, with nothing installed.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::clients::publish;
use testkit::eventually;
use testkit::millstream::Millstream;

const FREE: [&str; 5] = ["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_node_that_is_ready_stores_and_that_is_soon() {
    // The goal is 1.5 s on a machine with nothing else to do; librdkafka's in-memory cluster would take 3 s for its groups
    // alone, and as much for making topics.
    const SOON: Duration = Duration::from_secs(4);
    let began = Instant::now();
    let system = Millstream::start(&FREE);
    eventually("readiness", || {
        (system.get("/health/ready").0 == 200).then_some(())
    });
    let status = system.json("/api/status");
    for name in ["chat", "iot", "dashboard"] {
        let partitions = status["consumers"][name]["partitions"].as_array();
        assert!(partitions.is_some_and(|all| !all.is_empty()), "{status}");
    }
    publish(
        system.mqtt(),
        "rooms/first/messages",
        r#"{"from":"ann","text":"hello"}"#,
    );
    eventually("the first message", || {
        let (_, page) = system.get("/chat/api/rooms/first/messages");
        page.contains("hello").then_some(())
    });
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
    assert_eq!(system.terminate().status.code(), Some(0));
}

/// Renames a table in the chat backend's database, as a broken migration or a careless hand would.
fn rename_table(data: &std::path::Path, from: &str, to: &str) {
    let url = format!("sqlite:{}", data.join("in-memory/chat.db").display());
    let sql = format!("ALTER TABLE {from} RENAME TO {to}");
    let tokio = tokio::runtime::Runtime::new().expect("tokio");
    tokio.block_on(async {
        let pool = sqlx::SqlitePool::connect(&url).await.expect("opens");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&pool)
            .await
            .expect("renames");
        pool.close().await;
    });
}

#[test]
fn a_backend_that_stops_is_started_again_and_the_broker_goes_on() {
    let data = tempfile::tempdir().expect("a directory");
    let directory = data.path().to_str().expect("UTF-8");
    let system = Millstream::start(&[&FREE[..], &["--data", directory]].concat());
    let write = |text: &str| {
        let payload = format!(r#"{{"from":"ann","text":"{text}"}}"#);
        publish(system.mqtt(), "rooms/first/messages", &payload);
    };
    rename_table(data.path(), "messages", "hidden");
    write("one");
    let problem = eventually("the problem is said", || {
        let (code, ready) = system.get("/health/ready");
        let says = ready.contains("chat: stopped by itself and is started again");
        (code == 503 && says).then_some(ready)
    });
    assert!(problem.contains("no such table"), "{problem}");
    assert_eq!(system.get("/health/live").0, 200);
    // The broker and the other backends go on.
    publish(system.mqtt(), "devices/d-1/telemetry/t", "21.5");
    eventually("a reading", || {
        let (code, device) = system.get("/iot/api/devices/d-1");
        (code == 200 && device.contains("21.5")).then_some(())
    });
    let (_, metrics) = system.get("/metrics");
    let counted = |line: &str| {
        line.strip_prefix("millstream_backend_restarts_total{backend=\"chat\"} ")
            .is_some_and(|count| count != "0")
    };
    assert!(metrics.lines().any(counted), "{metrics}");
    rename_table(data.path(), "hidden", "messages");
    eventually("the message is stored after all", || {
        let (_, page) = system.get("/chat/api/rooms/first/messages");
        page.contains("one").then_some(())
    });
    eventually("readiness", || {
        (system.get("/health/ready").0 == 200).then_some(())
    });
    assert_eq!(system.terminate().status.code(), Some(0));
}

#[test]
fn the_demo_shows_messages_and_drains() {
    let system = Millstream::start(&[&FREE[..], &["--demo"]].concat());
    let status = eventually(
        "messages that went all the way, commands and their replies included",
        || {
            let status = system.json("/api/status");
            let (demo, consumers) = (&status["demo"], &status["consumers"]);
            let moved = number(&demo["complete"]) > 100
                && number(&status["broker"]["clients"]) >= 41
                && number(&status["bridge"]["kafka_stored"]) > 100
                && number(&status["bridge"]["downlink_delivered"]) > 10
                && ["chat", "iot", "dashboard"]
                    .iter()
                    .all(|name| number(&consumers[name]["records"]) > 0)
                && status["rates"]["in_per_s"].as_f64()? > 0.0;
            moved.then_some(status)
        },
    );
    assert_eq!(status["state"], "running");
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0));
    assert_eq!(status["listen"]["kafka_in_memory"], true);
    assert_eq!(number(&status["demo"]["lost"]), 0, "{}", status["demo"]);
    assert_eq!(
        number(&status["demo"]["out_of_order"]),
        0,
        "{}",
        status["demo"]
    );

    let (code, metrics) = system.get("/metrics");
    assert_eq!(code, 200);
    for metric in [
        "millstream_broker_publishes_received_total{qos=\"1\"}",
        "millstream_bridge_kafka_stored_total",
        "millstream_consumer_records_total{group=\"chat\",",
        "millstream_demo_messages_lost 0",
    ] {
        assert!(metrics.contains(metric), "{metric} is missing in {metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let named = ["millstream_", "process_"]
            .iter()
            .any(|prefix| line.starts_with(prefix));
        assert!(named, "{line}");
    }
    assert_eq!(system.get("/health").0, 200);
    assert_eq!(system.get("/health/live").0, 200);
    // `/` leads to the page.
    let (code, page) = system.get("/");
    assert_eq!(code, 200);
    assert!(
        page.to_lowercase().contains("<!doctype html"),
        "{page:.200}"
    );

    let ended = system.terminate();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.out.contains("lost = 0"), "{}", ended.out);
    let farewell = ended
        .out
        .lines()
        .find(|line| line.starts_with("demo: "))
        .expect("what the fleet saw");
    assert!(
        farewell.contains(" 0 still under way, lost = 0"),
        "{farewell}"
    );
}

#[test]
fn the_start_says_what_to_try_and_it_works() {
    let system = Millstream::start(&FREE);
    let out = eventually("three commands", || {
        let out = system.out();
        out.contains("kcat -b").then_some(out)
    });
    assert!(out.lines().count() <= 48, "two screens: {out}");
    let command = |name: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("{name} is missing in {out}"))
            .trim()
            .to_owned()
    };
    let shell = |command: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .output()
            .expect("a shell");
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The message, and what the chat backend says of it: a receipt and an event of the room, in any order.
    let mut subscriber = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("exec {} -C 3 -W 60", command("mosquitto_sub")),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    eventually("its subscription", || {
        (number(&system.json("/api/status")["broker"]["subscriptions"]) >= 2).then_some(())
    });
    shell(&command("mosquitto_pub"));
    let mut seen = String::new();
    let mut pipe = subscriber.stdout.take().expect("a pipe");
    std::io::Read::read_to_string(&mut pipe, &mut seen).expect("text");
    assert!(subscriber.wait().expect("its own child").success());
    assert!(
        seen.contains("rooms/lobby/messages") && seen.contains("hello"),
        "{seen}"
    );
    assert!(
        seen.contains("users/you/receipts"),
        "the receipt of the chat backend: {seen}"
    );
    let records = shell(&format!(
        "timeout 60 {} -e",
        command("kcat").replace("-c 5", "")
    ));
    assert!(
        records.contains("rooms/lobby/messages") && records.contains("hello"),
        "{records}"
    );
    assert_eq!(system.terminate().status.code(), Some(0));
}

#[test]
fn a_plain_broker_needs_no_kafka() {
    let broker = Millstream::start(&["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let subscriber = testkit::clients::Subscriber::start(broker.mqtt(), &["greetings/#"]);
    publish(broker.mqtt(), "greetings/world", "hello");
    assert_eq!(subscriber.on("greetings/world"), "hello");
    let status = broker.json("/api/status");
    assert_eq!(status["command"], "broker");
    assert!(status.get("bridge").is_none());
    assert_eq!(number(&status["broker"]["publishes_received"]), 1);
    assert_eq!(broker.get("/health").0, 200);
    drop(subscriber);
    assert_eq!(broker.terminate().status.code(), Some(0));
}

#[test]
fn a_wish_that_is_said_twice_is_one() {
    let mut broker =
        Millstream::start(&["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let pid = broker.pid();
    // From one shell, so that both are there before the drain is over.
    let said = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("kill -TERM {pid}; kill -INT {pid}; kill -TERM {pid}"),
        ])
        .status();
    assert!(said.is_ok());
    let ended = broker.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.err.contains("draining"), "{}", ended.err);
}
