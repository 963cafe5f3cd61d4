//! `millstream replay` on a real Kafka: what it reads, where it puts it, and that a kill at any moment loses and doubles
//! nothing.

mod dlq;
mod group;
mod http;
mod kafka;
mod kill;
mod support;

use serde_json::{Value, json};
use testkit::clients::{self, Subscriber};
use testkit::kafka::{Kafka, Sent};
use testkit::millstream::{Millstream, configuration};
use testkit::{eventually, now_ms};

use support::{appended, committed, lines, replay, topic};

#[test]
fn what_is_selected_comes_out_without_a_loss() {
    let topic = topic("replay-select", 2);
    let sent = |name: &str, payload: &[u8], client: &str, partition| {
        let mut sent = Sent::mqtt(name, payload).in_partition(partition);
        let id = ("mqtt.client-id".to_owned(), client.as_bytes().to_vec());
        sent.headers.push(id);
        sent
    };
    let mut nulls = Sent::default().in_partition(1);
    nulls.key = Some(b"\xff\xfe".to_vec());
    nulls.headers.push(("bytes".into(), vec![0xc3]));
    Kafka::shared().append(
        &topic,
        [
            sent("rooms/a/messages", b"one", "alice", 0),
            sent("rooms/b/messages", b"\xff\x00", "bob", 0),
            sent("devices/1/t", b"two", "alice", 1),
            nulls,
        ],
    );
    let values = |options: &[&str]| -> Vec<Value> {
        let mut lines = lines(&replay(&[&[&*topic, "--to-stdout"], options].concat()));
        lines.sort_by_key(|line| (line["partition"].as_i64(), line["offset"].as_i64()));
        lines
            .into_iter()
            .map(|line| line["value"].clone())
            .collect()
    };
    let binary = json!({"base64": "/wA="});
    assert_eq!(
        values(&[]),
        [json!("one"), binary.clone(), json!("two"), Value::Null]
    );
    assert_eq!(
        values(&["--filter", "rooms/+/messages"]),
        [json!("one"), binary.clone()]
    );
    assert_eq!(
        values(&["--filter", "rooms/a/#", "--filter", "devices/#"]),
        [json!("one"), json!("two")]
    );
    assert_eq!(
        values(&["--client-id", "alice", "--filter", "rooms/#"]),
        [json!("one")]
    );
    assert_eq!(
        values(&["--header", "mqtt.client-id=bob"]),
        std::slice::from_ref(&binary)
    );
    assert_eq!(values(&["--from", "1"]), [binary.clone(), Value::Null]);
    assert_eq!(
        values(&["--from", "0:latest", "--from", "1:1"]),
        [Value::Null]
    );
    assert_eq!(values(&["--to", "1"]), [json!("one"), json!("two")]);
    assert_eq!(
        values(&["--from", "-1h", "--to", "0:earliest"]),
        [json!("two"), Value::Null]
    );
    assert_eq!(values(&["--from", "latest"]), [] as [Value; 0]);
    assert_eq!(values(&["--limit", "1"]).len(), 1);

    let all = lines(&replay(&[&topic, "--to-stdout"]));
    let odd = all
        .iter()
        .find(|line| line["value"].is_null())
        .expect("the tombstone");
    assert_eq!(odd["key"], json!({"base64": "//4="}));
    assert_eq!(odd["headers"], json!([["bytes", {"base64": "ww=="}]]));
    assert_eq!(
        (&odd["topic"], &odd["partition"], &odd["offset"]),
        (&json!(topic), &json!(1), &json!(1))
    );
    let since = now_ms() - odd["timestamp_ms"].as_u64().expect("a time");
    assert!(since < 600_000, "{since} ms ago");
}

#[test]
fn a_time_divides_what_came_before_from_what_came_after() {
    let topic = topic("replay-time", 1);
    appended(&topic, 0..3);
    let between = now_ms() + 1;
    eventually("the clock to go on", || (now_ms() > between).then_some(()));
    appended(&topic, 3..5);
    let time = replay::timestamp(i64::try_from(between).expect("a time"));
    let offsets = |options: &[&str]| -> Vec<i64> {
        lines(&replay(&[&[&*topic, "--to-stdout"], options].concat()))
            .iter()
            .map(|line| line["offset"].as_i64().expect("an offset"))
            .collect()
    };
    assert_eq!(offsets(&["--from", &time]), [3, 4]);
    assert_eq!(offsets(&["--to", &time]), [0, 1, 2]);
    // As fast as it was recorded, or much faster: the same records.
    assert_eq!(offsets(&["--speed", "1000"]), [0, 1, 2, 3, 4]);
    let future = replay(&[&topic, "--to-stdout", "--from", "2999-01-01T00:00:00Z"]);
    assert_eq!(future.status.code(), Some(2), "{}", future.err);
    assert!(
        future.err.contains("a time that has been"),
        "{}",
        future.err
    );
}

#[test]
fn what_retention_took_is_said() {
    let topic = topic("replay-retention", 1);
    appended(&topic, 0..10);
    support::delete_before(&topic, 4);
    let ended = replay(&[&topic, "--to-stdout", "--from", "1"]);
    assert_eq!(lines(&ended).len(), 6);
    assert!(
        ended.err.contains(&format!(
            "{topic}/0 is truncated: retention took offsets 1 to 3, 3 of"
        )),
        "{}",
        ended.err
    );
    let ended = replay(&[&topic, "--to-stdout", "--from", "-1h"]);
    assert!(ended.err.contains("may be truncated"), "{}", ended.err);
    let ended = replay(&[&topic, "--to-stdout", "--from", "earliest"]);
    assert!(!ended.err.contains("truncated"), "{}", ended.err);
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let topic = topic("replay-dry", 1);
    appended(&topic, 0..8);
    let ended = replay(&[
        &topic,
        "--dry-run",
        "--filter",
        "rooms/1/messages",
        "--rate",
        "0.5",
    ]);
    assert!(ended.status.success(), "{}", ended.err);
    for part in [
        "2 records,",
        "first: {\"topic\"",
        "\"offset\":1,",
        "\"offset\":5,",
        "about 4.0 s",
    ] {
        assert!(ended.out.contains(part), "{part}: {}", ended.out);
    }
    assert_eq!(Kafka::shared().count(&topic), 8);
}

#[test]
fn copies_name_their_origin_also_in_the_topic_that_is_read() {
    let topic = topic("replay-into-itself", 2);
    appended(&topic, 0..20);
    for run in 1..=2 {
        let ended = replay(&[&topic, "--to-topic", &topic]);
        assert!(ended.status.success(), "{}", ended.err);
        let records = committed(&topic, "%p/%o %T %s|%h\n", 20 << run);
        assert_eq!(records.len(), 20 << run);
        let originals: Vec<&String> = records
            .iter()
            .filter(|record| !record.contains("mill.origin"))
            .collect();
        assert_eq!(originals.len(), 20);
        for original in originals {
            let (place, rest) = original.split_once(' ').expect("a place");
            let (time_and_value, headers) = rest.split_once('|').expect("headers");
            let origin = format!("mill.origin={topic}/{place}");
            let copies = records.iter().filter(|record| record.ends_with(&origin));
            // Key, time, value and headers are as they were.
            let same = copies.filter(|copy| {
                copy.contains(&format!("{time_and_value}|{headers},mill.replay.id="))
            });
            assert_eq!(same.count(), (1 << run) - 1, "{original}: {records:?}");
        }
    }
}

#[test]
fn mqtt_clients_get_it_below_a_prefix() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a directory");
    let config = configuration(&dir, "");
    let node = Millstream::start(&[
        "broker",
        "--config",
        &config,
        "--kafka",
        kafka.bootstrap(),
        "--mqtt",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    let subscriber = Subscriber::start(node.mqtt(), &["again/#"]);
    for room in ["a", "b"] {
        clients::publish(node.mqtt(), &format!("rooms/{room}/messages"), room);
    }
    eventually("both in Kafka", || {
        (kafka.count("chat.messages") == 2).then_some(())
    });
    let ended = testkit::millstream::run(&[
        "replay",
        "chat.messages",
        "--kafka",
        kafka.bootstrap(),
        "--to-mqtt",
        "--topic-prefix",
        "again/",
        "--qos",
        "1",
    ]);
    assert!(ended.status.success(), "{}", ended.err);
    let got = eventually("both at the subscriber", || {
        let mut got = subscriber.messages();
        got.sort();
        (got.len() == 2).then_some(got)
    });
    let expected = ["a", "b"].map(|room| (format!("again/rooms/{room}/messages"), room.to_owned()));
    assert_eq!(got, expected);
    let records = clients::kafka_records(kafka.bootstrap(), "mqtt.downlink", "%h\n");
    assert!(
        records.iter().all(|headers| headers.contains("mqtt.qos=1")
            && headers.contains("mill.origin=chat.messages/")
            && !headers.contains("client-id")),
        "{records:?}"
    );
}

#[test]
fn bad_input_is_named_with_what_is_allowed() {
    let topic = topic("replay-bad", 1);
    appended(&topic, 0..3);
    let out = ["--to-stdout"];
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--to-stdout", "--from", "yesterday"],
            &["--from", "yesterday", "earliest", "-15m"],
        ),
        (&["--to-stdout", "--to", "12h"], &["--to", "12h"]),
        (
            &["--to-stdout", "--from", "4"],
            &["--from", "4", "ends at 3"],
        ),
        (
            &["--to-stdout", "--from", "7:0"],
            &["partition", "7", "0 to 0"],
        ),
        (
            &["--to-stdout", "--filter", "a/#/b"],
            &["--filter", "a/#/b"],
        ),
        (
            &["--to-stdout", "--header", "x"],
            &["--header", "NAME=VALUE"],
        ),
        (&["--to-stdout", "--rate", "0"], &["--rate", "above 0"]),
        (&["--to-stdout", "--speed=-1"], &["--speed"]),
        (&["--to-stdout", "--limit", "0"], &["--limit"]),
        (&["--to-stdout", "--qos", "1"], &["--to-stdout", "--qos"]),
        (
            &["--dry-run", "--topic-prefix", "x"],
            &["--dry-run", "--topic-prefix"],
        ),
        (&["--to-stdout", "--execute"], &["--execute"]),
        (&["--group", "g", "--limit", "1"], &["--group", "--limit"]),
        (&["--to-stdout", "--dry-run"], &["--to-stdout", "--dry-run"]),
        (
            &["--to-topic", "no-such-topic"],
            &["no-such-topic", "make it first"],
        ),
        (
            &["--to-topic", "x", "--confirm", "2"],
            &["3 records", "--confirm 3"],
        ),
        (&[], &["--to-stdout", "--to-topic"]),
    ];
    for (options, parts) in cases {
        let ended = replay(&[&[&*topic], *options].concat());
        assert_eq!(ended.status.code(), Some(2), "{options:?}: {}", ended.err);
        for part in *parts {
            assert!(
                ended.err.contains(part),
                "{options:?} lacks {part}: {}",
                ended.err
            );
        }
        assert_eq!(ended.out, "", "{options:?}");
    }
    let unknown = replay(&[&["no-such"][..], &out].concat());
    assert!(
        unknown.status.code() == Some(2) && unknown.err.contains(&topic),
        "{}",
        unknown.err
    );
    let nowhere = testkit::millstream::run(&["replay", "t", "--kafka", "127.0.0.1", "--to-stdout"]);
    assert!(
        nowhere.status.code() == Some(2) && nowhere.err.contains("HOST:PORT"),
        "{}",
        nowhere.err
    );
}
