//! MQTT client → broker → Kafka → backend → Kafka → broker → MQTT client, for each backend: the real binary, a real Kafka,
//! Debian's MQTT clients.

use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};
use testkit::clients::{
    Subscriber, kafka_append, kafka_records, kafka_values, publish, publish_lines,
};
use testkit::kafka::Kafka;
use testkit::millstream::{Millstream, configuration};
use testkit::{eventually, now_ms};

/// One system that the tests of this file share as long as one of them runs; each has rooms and devices of its own.
struct World {
    system: Millstream,
    // Dropped in this order: the system before what it uses.
    kafka: Kafka,
    _data: tempfile::TempDir,
}

fn world() -> Arc<World> {
    static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut world = WORLD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    world.upgrade().unwrap_or_else(|| {
        let kafka = Kafka::start();
        let data = tempfile::tempdir().expect("a directory");
        let system = up(&kafka, &data);
        let new = Arc::new(World {
            system,
            kafka,
            _data: data,
        });
        *world = Arc::downgrade(&new);
        new
    })
}

fn up(kafka: &Kafka, data: &tempfile::TempDir) -> Millstream {
    let config = configuration(data, "bridge.partitions = 3\n");
    let data = data.path().to_str().expect("UTF-8");
    let listen = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let rest = [
        "--kafka",
        kafka.bootstrap(),
        "--data",
        data,
        "--config",
        &config,
    ];
    Millstream::start(&[&["up"], &listen[..], &rest].concat())
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn chat_from_a_talker_to_its_receipt() {
    let world = world();
    let (system, mqtt) = (&world.system, world.system.mqtt());
    let reader = Subscriber::start(mqtt, &["rooms/hall/messages", "users/alice/receipts"]);
    let lines: Vec<String> = (1..=3)
        .map(|n| {
            json!({"id": format!("m-{n}"), "from": "alice", "text": format!("line {n}")})
                .to_string()
        })
        .collect();
    publish_lines(mqtt, "rooms/hall/messages", &lines.join("\n"));

    // Live to whoever listens in the room, in order.
    let heard = eventually("the messages in the room", || {
        let heard: Vec<_> = reader
            .messages()
            .into_iter()
            .filter(|(topic, _)| topic == "rooms/hall/messages")
            .collect();
        (heard.len() == 3).then_some(heard)
    });
    let heard: Vec<_> = heard.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(heard, lines);

    // Stored in Kafka with what the envelope says, the payload untouched.
    let records = kafka_records(world.kafka.bootstrap(), "chat.messages", "%k|%s|%h\n");
    let ours: Vec<_> = records
        .iter()
        .filter(|record| record.starts_with("rooms/hall/messages|"))
        .collect();
    assert_eq!(ours.len(), 3, "{records:?}");
    for (record, line) in ours.iter().zip(&lines) {
        assert!(record.contains(line.as_str()), "{record}");
        for header in [
            "mqtt.topic=rooms/hall/messages",
            "mqtt.qos=1",
            "mqtt.client-id=",
            "mqtt.received-at=",
        ] {
            assert!(record.contains(header), "{header} is missing in {record}");
        }
    }

    // Receipts with the sequence number in the room, by the downlink.
    let receipts = eventually("the receipts", || {
        let receipts: Vec<_> = reader
            .messages()
            .into_iter()
            .filter(|(topic, _)| topic == "users/alice/receipts")
            .collect();
        (receipts.len() >= 3).then_some(receipts)
    });
    for (n, (_, receipt)) in receipts.iter().enumerate() {
        let receipt = parse(receipt);
        assert_eq!(receipt["room"], "hall");
        assert_eq!(receipt["id"], format!("m-{}", n + 1));
        assert_eq!(receipt["seq"], n + 1);
        assert!(receipt["stored_at"].is_u64(), "{receipt}");
    }

    // History and unread counts.
    let history = system.json("/chat/api/rooms/hall/messages");
    let texts: Vec<_> = history["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| m["text"].clone())
        .collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3"]);
    system.put("/chat/api/rooms/hall/members/bob");
    publish(
        mqtt,
        "rooms/hall/messages",
        r#"{"from":"alice","text":"line 4"}"#,
    );
    eventually("bob's unread message", || {
        let members = system.json("/chat/api/rooms/hall/members");
        let bob = members["members"]
            .as_array()?
            .iter()
            .find(|member| member["user"] == "bob")?
            .clone();
        (bob["unread"].as_u64()? > 0).then_some(())
    });
}

#[test]
fn iot_from_a_sensor_to_its_alert_and_from_a_command_to_its_reply() {
    let world = world();
    let (system, mqtt) = (&world.system, world.system.mqtt());
    let device = Subscriber::start(mqtt, &["devices/kiln/alerts", "devices/kiln/commands/#"]);

    // Last value and series.
    system.put_json("/iot/api/rules/heat", &json!({"above": 900}));
    publish_lines(
        mqtt,
        "devices/kiln/telemetry/heat",
        &format!("20.5\n{{\"value\": 950, \"at\": {}}}", now_ms()),
    );
    let shown = eventually("the last value", || {
        let shown = system.try_json("/iot/api/devices/kiln").ok()?;
        let metric = shown["metrics"]
            .as_array()?
            .iter()
            .find(|metric| metric["metric"] == "heat")?
            .clone();
        (metric["value"] == 950.0).then_some(metric)
    });
    assert_eq!(shown["metric"], "heat");
    let series = system.json("/iot/api/devices/kiln/metrics/heat");
    assert_eq!(
        series["points"].as_array().map(Vec::len),
        Some(2),
        "{series}"
    );

    // The alert, by the downlink.
    let alert = parse(&device.on("devices/kiln/alerts"));
    assert_eq!(
        (&alert["device"], &alert["metric"]),
        (&json!("kiln"), &json!("heat"))
    );
    assert_eq!(
        (&alert["value"], &alert["threshold"], &alert["kind"]),
        (&json!(950.0), &json!(900.0), &json!("above"))
    );

    // A command, by the downlink, and the device's reply.
    let posted = system.post(
        "/iot/api/devices/kiln/commands/open",
        &json!({"percent": 50}),
    );
    let id = posted["id"].as_str().expect("an identifier");
    let command = parse(&device.on("devices/kiln/commands/open"));
    assert_eq!(command, json!({"id": id, "args": {"percent": 50}}));
    publish(
        mqtt,
        "devices/kiln/replies/open",
        &json!({"id": id, "ok": true, "result": "opened"}).to_string(),
    );
    let shown = eventually("the reply", || {
        let shown = system.json(&format!("/iot/api/commands/{id}"));
        (shown["status"] == "replied").then_some(shown)
    });
    assert_eq!(shown["reply"]["result"], "opened", "{shown}");
}

#[test]
fn the_dashboard_counts_what_went_by() {
    let world = world();
    let (system, mqtt) = (&world.system, world.system.mqtt());
    let of = |snapshot: &Value, prefix: &str| {
        let rows = snapshot["now"]["figures"]["prefixes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        rows.iter()
            .find(|row| row["prefix"] == prefix)
            .map_or(0, |row| row["messages"].as_u64().unwrap_or(0))
    };
    publish_lines(mqtt, "meters/one", &vec!["1"; 25].join("\n"));
    // What matches no other route is stored too; what nobody stores is not counted.
    publish(mqtt, "rooms/hall/typing", "x");
    eventually("25 messages below meters", || {
        (of(&system.json("/dashboard/api/snapshot"), "meters/") == 25).then_some(())
    });
    assert_eq!(
        kafka_values(world.kafka.bootstrap(), "mqtt.messages")
            .iter()
            .filter(|value| *value == "1")
            .count(),
        25
    );
    let (code, page) = system.get("/dashboard/");
    assert_eq!(code, 200);
    assert!(page.contains("<script"), "{page:.200}");
}

#[test]
fn what_a_backend_cannot_read_goes_to_the_dead_letters_and_stops_nobody() {
    let world = world();
    let (system, mqtt, bootstrap) = (&world.system, world.system.mqtt(), world.kafka.bootstrap());
    for (topic, bad, good, dead) in [
        (
            "rooms/poison/messages",
            &[
                "this is not JSON",
                r#"{"from":7,"text":"x"}"#,
                r#"{"from":"eve"}"#,
            ][..],
            r#"{"from":"alice","text":"after the poison"}"#,
            "chat.messages.dlq",
        ),
        (
            "devices/poison/telemetry/heat",
            &["warm", r#"{"value":["hot"]}"#, "1e999"][..],
            "42",
            "iot.telemetry.dlq",
        ),
    ] {
        publish_lines(mqtt, topic, &bad.join("\n"));
        publish(mqtt, topic, good);
        let letters = eventually(&format!("{} dead letters in {dead}", bad.len()), || {
            let letters: Vec<String> = kafka_records(bootstrap, dead, "%k|%s|%h\n")
                .into_iter()
                .filter(|letter| letter.starts_with(topic))
                .collect();
            (letters.len() == bad.len()).then_some(letters)
        });
        for (letter, bad) in letters.iter().zip(bad) {
            assert!(letter.contains(bad), "the payload is untouched: {letter}");
            for header in ["topic", "partition", "offset", "stage", "exception.message"] {
                let header = format!("__connect.errors.{header}=");
                assert!(letter.contains(&header), "{header} is missing in {letter}");
            }
        }
    }
    eventually("what came after the poison", || {
        let text =
            system.try_json("/chat/api/rooms/poison/messages").ok()?["messages"][0]["text"].clone();
        let value = system.try_json("/iot/api/devices/poison").ok()?["metrics"][0]["value"].clone();
        (text == "after the poison" && value == 42.0).then_some(())
    });

    // The dashboard reads no payloads; what it cannot read is a record against the envelope's contract.
    kafka_append(
        bootstrap,
        "mqtt.messages",
        "poison/dashboard",
        "x",
        &[("mqtt.topic", "poison/#"), ("mqtt.qos", "9")],
    );
    eventually("the dashboard's dead letter", || {
        let letters = kafka_records(bootstrap, "mqtt.messages.dlq", "%k|%s|%h\n");
        letters
            .iter()
            .any(|letter| letter.starts_with("poison/dashboard|x|"))
            .then_some(())
    });
    publish(mqtt, "poison/after", "x");
    eventually("the dashboard after its poison", || {
        (system.json("/api/status")["consumers"]["dashboard"]["lag"] == 0).then_some(())
    });
    let status = system.json("/api/status");
    for backend in ["chat", "iot", "dashboard"] {
        let of_backend = &status["consumers"][backend];
        assert!(
            of_backend["dead_letters"].as_u64() > Some(0),
            "{of_backend}"
        );
        assert_eq!(of_backend["state"], "running", "{of_backend}");
    }
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let system = up(&kafka, &data);
    publish(
        system.mqtt(),
        "rooms/attic/messages",
        r#"{"from":"alice","text":"before"}"#,
    );
    publish(system.mqtt(), "devices/clock/telemetry/ticks", "1");
    publish(system.mqtt(), "notes/one", "kept");
    let seen = |system: &Millstream, messages: usize, prefixes: usize| {
        eventually("the messages in every backend", || {
            let history = system.try_json("/chat/api/rooms/attic/messages").ok()?["messages"]
                .as_array()?
                .len();
            let points = system
                .try_json("/iot/api/devices/clock/metrics/ticks")
                .ok()?["points"]
                .as_array()?
                .len();
            let figures =
                system.try_json("/dashboard/api/snapshot").ok()?["now"]["figures"].clone();
            let counted = figures["messages"].as_u64()?;
            (history == messages
                && points == messages
                && counted == 3 * messages as u64
                && figures["prefixes"].as_array()?.len() == prefixes)
                .then_some(())
        });
    };
    seen(&system, 1, 3);
    assert_eq!(system.terminate().status.code(), Some(0));

    let system = up(&kafka, &data);
    seen(&system, 1, 3);
    let receipts = Subscriber::start(system.mqtt(), &["users/alice/receipts"]);
    publish(
        system.mqtt(),
        "rooms/attic/messages",
        r#"{"from":"alice","text":"after"}"#,
    );
    publish(system.mqtt(), "devices/clock/telemetry/ticks", "2");
    publish(system.mqtt(), "notes/one", "kept too");
    seen(&system, 2, 3);
    // The sequence goes on, and old receipts do not come again.
    assert_eq!(parse(&receipts.on("users/alice/receipts"))["seq"], 2);
    assert_eq!(
        kafka_values(kafka.bootstrap(), "mqtt.messages"),
        ["kept", "kept too"]
    );
    assert_eq!(system.terminate().status.code(), Some(0));
}
