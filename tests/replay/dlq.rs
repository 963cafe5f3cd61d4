//! `millstream dlq` beside a chat backend: what it gave up is shown, mended and put back, once; and copies of a replay have no
//! effect where that of their originals is.

use serde_json::{Value, json};
use testkit::kafka::{Kafka, Sent};
use testkit::millstream::{self, Ended, Millstream, configuration};
use testkit::{eventually, unique};

use crate::support::{self, committed, lines, replay, topic};

fn dlq(options: &[&str]) -> Ended {
    let kafka = Kafka::shared().bootstrap();
    millstream::run(&[&["dlq"], options, &["--kafka", kafka]].concat())
}

/// What it wrote, of a run that went well.
fn out(ended: &Ended) -> &str {
    assert!(ended.status.success(), "{}", ended.err);
    &ended.out
}

/// A chat backend of its own topic, group and store.
struct Chat {
    running: Millstream,
    topic: String,
    group: String,
    _directory: tempfile::TempDir,
}

impl Chat {
    fn start(name: &str) -> Self {
        let (topic, group) = (topic(name, 1), unique("dlq-group"));
        let directory = tempfile::tempdir().expect("a directory");
        let downlink = support::topic("dlq-downlink", 1);
        let lines = format!("chat.topics = [{topic:?}]\nchat.downlink_topic = {downlink:?}\n");
        let config = configuration(&directory, &lines);
        let database = format!("sqlite:{}", directory.path().join("chat.db").display());
        let running = Millstream::start(&[
            "chat",
            "--kafka",
            Kafka::shared().bootstrap(),
            "--group",
            &group,
            "--database",
            &database,
            "--http",
            "127.0.0.1:0",
            "--config",
            &config,
        ]);
        Self {
            running,
            topic,
            group,
            _directory: directory,
        }
    }

    fn append(&self, payloads: &[&str]) {
        let sent = payloads
            .iter()
            .map(|payload| Sent::mqtt("rooms/lobby/messages", *payload));
        Kafka::shared().append(&self.topic, sent);
    }

    /// The texts in the room, when the backend has consumed to `offset`.
    fn texts(&self, offset: i64) -> Vec<String> {
        eventually("the backend has read all", || {
            let committed = Kafka::shared().committed(&self.group, &self.topic, 0);
            (committed >= offset).then_some(())
        });
        let page = self
            .running
            .json("/api/rooms/lobby/messages?after=0&limit=1000");
        let messages = page["messages"].as_array().expect("messages").iter();
        messages
            .map(|message| message["text"].as_str().expect("a text").to_owned())
            .collect()
    }

    /// The offset after the last record, as soon as there are `records` in its topic.
    fn end(&self, records: usize) -> i64 {
        let offsets = committed(&self.topic, "%o\n", records);
        assert_eq!(offsets.len(), records, "{offsets:?}");
        let last: i64 = offsets[records - 1].parse().expect("an offset");
        last + 1
    }
}

/// A message without an identifier: by nothing but its place is it known.
fn said(text: &str) -> String {
    json!({ "from": "alice", "text": text }).to_string()
}

#[test]
fn a_letter_is_mended_and_put_back_once_for_the_group_that_gave_it_up() {
    let chat = Chat::start("dlq-mend");
    chat.append(&[
        &said("one"),
        "{\"from\":",
        &said("two"),
        "no JSON \u{1b}[2J",
    ]);
    assert_eq!(chat.texts(4), ["one", "two"]);
    let letters = format!("{}.dlq", chat.topic);

    let listed = dlq(&["list", &letters]);
    assert!(
        out(&listed).contains("2 letters, 0 put back"),
        "{}",
        listed.out
    );
    let fault = format!("NotJson ({})", chat.group);
    assert!(listed.out.contains(&fault), "{}", listed.out);
    let shown = dlq(&["show", &letters, "--original"]);
    for part in [
        "0/0",
        &format!("of       {}/0 at 1", chat.topic),
        "original",
        "why",
    ] {
        assert!(out(&shown).contains(part), "{part}: {}", shown.out);
    }
    assert!(!shown.out.contains('\u{1b}'), "{:?}", shown.out);

    let directory = tempfile::tempdir().expect("a directory");
    let mended = directory.path().join("mended");
    std::fs::write(&mended, said("mended")).expect("a file");
    let mended = mended.to_str().expect("UTF-8");
    let one = ["redrive", &letters, "--id", "0/0"];
    let ended = dlq(&[&one[..], &["--payload", mended]].concat());
    out(&ended);
    assert!(ended.err.contains("1 letters put back"), "{}", ended.err);
    assert_eq!(chat.texts(chat.end(5)), ["one", "two", "mended"]);
    let copy = committed(&chat.topic, "%h\n", 5).pop().expect("a copy");
    for part in [
        format!("mill.origin={}/0/1,mill.attempts=1", chat.topic),
        format!("mill.target-group={}", chat.group),
    ] {
        assert!(copy.contains(&part), "{part}: {copy}");
    }
    assert!(!copy.contains("__connect"), "{copy}");

    // Not twice; and where it is asked for, the backend has the effect of it already.
    let ended = dlq(&one);
    out(&ended);
    assert!(
        ended.err.contains("0 letters put back, 1 were before"),
        "{}",
        ended.err
    );
    out(&dlq(&[&one[..], &["--payload", mended, "--again"]].concat()));
    assert_eq!(chat.texts(chat.end(6)), ["one", "two", "mended"]);

    // The other fails again, as a letter that knows it.
    out(&dlq(&["redrive", &letters, "--reason", "NotJson"]));
    let again = eventually("the letter of the second attempt", || {
        let shown = dlq(&["show", &letters, "--json"]);
        let letters = lines(&shown);
        letters
            .into_iter()
            .find(|shown| shown["letter"]["attempts"] == json!(1))
    });
    assert_eq!(again["redriven"], Value::Bool(false));
    let listed = dlq(&["list", &letters, "--json"]);
    let summary: Value = serde_json::from_str(out(&listed)).expect("JSON");
    assert_eq!(
        (&summary[0]["letters"], &summary[0]["redriven"]),
        (&json!(3), &json!(2))
    );

    let purged = dlq(&["purge", &letters, "--before", "2"]);
    out(&purged);
    assert!(purged.err.contains("--execute does it"), "{}", purged.err);
    out(&dlq(&["purge", &letters, "--before", "2", "--execute"]));
    let file = directory.path().join("letters.jsonl");
    let file = file.to_str().expect("UTF-8");
    out(&dlq(&["export", &letters, "--to-file", file]));
    let text = std::fs::read_to_string(file).expect("a file");
    assert_eq!(text.lines().count(), 1, "{text}");
    chat.running.terminate();
}

#[test]
fn a_replay_into_a_topic_that_a_backend_reads_doubles_nothing() {
    let chat = Chat::start("replay-effects");
    chat.append(&[&said("one"), &said("two"), &said("three")]);
    assert_eq!(chat.texts(3), ["one", "two", "three"]);
    // Its own past, and that of a topic that it does not read, twice.
    let other = topic("replay-other", 1);
    Kafka::shared().append(&other, [Sent::mqtt("rooms/lobby/messages", said("other"))]);
    for from in [&chat.topic, &other, &other] {
        let ended = replay(&[from, "--to-topic", &chat.topic]);
        assert!(ended.status.success(), "{}", ended.err);
    }
    assert_eq!(chat.texts(chat.end(8)), ["one", "two", "three", "other"]);
    chat.running.terminate();
}

#[test]
fn what_cannot_be_put_back_says_so() {
    let letters = topic("dlq-refused", 1);
    for (options, says) in [
        (&["redrive", &letters][..], "required"),
        (&["redrive", &letters, "--id", "17"], "PARTITION/OFFSET"),
        (
            &["redrive", &letters, "--all", "--edit"],
            "cannot be used with",
        ),
        (
            &["redrive", &letters, "--id", "0/1", "--id", "0/2", "--edit"],
            "one --id",
        ),
        (&["list", "no-such-topic"], "a topic of this Kafka"),
        (&["purge", &letters, "--before", "yesterday"], "--before"),
    ] {
        let ended = dlq(options);
        assert_eq!(ended.status.code(), Some(2), "{options:?}: {}", ended.err);
        assert!(ended.err.contains(says), "{options:?}: {}", ended.err);
    }
    // A letter of a topic that is gone.
    let mut letter = Sent::mqtt("rooms/lobby/messages", "x");
    for (name, value) in [("topic", "gone"), ("partition", "0"), ("offset", "3")] {
        let name = format!("__connect.errors.{name}");
        letter.headers.push((name, value.as_bytes().to_vec()));
    }
    Kafka::shared().append(&letters, [letter]);
    let ended = dlq(&["redrive", &letters, "--all"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended.err.contains("Kafka has no topic gone"),
        "{}",
        ended.err
    );
}

#[test]
fn what_changes_kafka_is_written_down() {
    let (from, to) = (topic("audit-from", 1), topic("audit-to", 1));
    support::appended(&from, 0..3);
    let ended = replay(&[&from, "--to-topic", &to]);
    assert!(ended.status.success(), "{}", ended.err);
    let ours = || -> Vec<Value> {
        let records = Kafka::shared().read_all("mill.audit");
        let records = records.iter().map(|record| record.text());
        let records = records.map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        let is_ours = |record: &Value| record["command"].to_string().contains(&to);
        records.filter(is_ours).collect()
    };
    let (of_replay, ours) = (ours(), ours);
    assert_eq!(of_replay.len(), 2, "{of_replay:?}");
    assert_eq!(
        (&of_replay[0]["event"], &of_replay[1]["event"]),
        (&json!("began"), &json!("ended"))
    );
    assert_eq!(of_replay[0]["id"], of_replay[1]["id"]);
    assert_eq!(of_replay[1]["result"], json!({"written": 3, "whole": true}));
    // What only reads leaves no record.
    let ended = replay(&[&to, "--to-stdout"]);
    assert!(ended.status.success(), "{}", ended.err);
    assert_eq!(ours().len(), 2);
}

#[test]
fn payloads_are_asked_and_partitions_are_read_in_the_order_of_time() {
    let topic = topic("replay-where", 2);
    for (value, partition) in [(10, 1), (31, 0), (40, 1), (5, 0), (99, 0)] {
        let sent = Sent::mqtt(
            "devices/d/telemetry/t",
            json!({ "value": value }).to_string(),
        );
        Kafka::shared().append(&topic, [sent.in_partition(partition)]);
    }
    let values = |options: &[&str]| -> Vec<i64> {
        let ended = replay(&[&[&*topic, "--to-stdout"], options].concat());
        let value = |line: &Value| {
            let payload: Value = serde_json::from_str(line["value"].as_str()?).ok()?;
            payload["value"].as_i64()
        };
        lines(&ended)
            .iter()
            .map(|line| value(line).expect("a number"))
            .collect()
    };
    assert_eq!(values(&["--ordered-by", "time"]), [10, 31, 40, 5, 99]);
    assert_eq!(
        values(&[
            "--ordered-by",
            "time",
            "--where",
            "@.value > 30",
            "--where",
            "@.value < 50"
        ]),
        [31, 40]
    );
    let ended = replay(&[&topic, "--to-stdout", "--where", "value > 30"]);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.err);
    assert!(ended.err.contains("--where"), "{}", ended.err);
}
