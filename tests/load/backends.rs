//! `millstream load backends`: from a writer through Kafka and the chat backend back to the writer, and what is said where
//! nobody answers.

use std::path::Path;

use serde_json::Value;

use crate::{broker, report, text, verdict};
use testkit::clients::kafka_values;
use testkit::kafka::Kafka;
use testkit::millstream::{Ended, Millstream, configuration, run};

/// Ten writers in a hundred rooms and ten devices, 500 messages: 50 of chat, and 450 of telemetry.
fn load(at: &str, json: &Path, more: &[&str]) -> Ended {
    let small = ["--clients", "20", "--rate", "200", "--quiet"];
    let times = ["--warm-up", "0.5", "--seconds", "2"];
    let to = ["--broker", at, "--json", text(json)];
    run(&[&["load", "backends"], &small[..], &times, &to, more].concat())
}

fn number(of: &Value, key: &str) -> u64 {
    of[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is no number in {of}"))
}

#[test]
fn each_message_goes_through_kafka_and_the_backends_and_its_receipt_comes_back() {
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let config = configuration(&data, "bridge.partitions = 3\n");
    let listen = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let rest = [
        "--kafka",
        kafka.bootstrap(),
        "--data",
        text(data.path()),
        "--config",
        &config,
    ];
    let system = Millstream::start(&[&["up"], &listen[..], &rest].concat());
    let at = system.mqtt().to_string();
    let json = data.path().join("report.json");
    for processes in ["1", "2"] {
        let ended = load(&at, &json, &["--processes", processes]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(verdict(&ended).contains("PASSED"), "{}", ended.out);
        // Names that are long are cut.
        let name = "answers to chat → writers (users/load-";
        assert_eq!(ended.out.matches(name).count(), 2, "{}", ended.out);

        let report = report(&json);
        let [chat, telemetry] = [0, 1].map(|at| &report["streams"][at]);
        for (stream, sent) in [(chat, 50), (telemetry, 450)] {
            assert_eq!(number(stream, "sent"), sent, "{stream}");
            assert_eq!(number(stream, "acknowledged"), sent, "{stream}");
        }
        let answers = &report["audiences"][0];
        assert_eq!(answers["answers"], true);
        assert_eq!(report["audiences"].as_array().map(Vec::len), Some(1));
        for key in ["expected", "delivered"] {
            assert_eq!(number(answers, key), 50, "{answers}");
        }
        for key in ["missing", "duplicates", "out_of_order"] {
            assert_eq!(number(answers, key), 0, "{answers}");
        }
        for key in ["misdelivered", "foreign"] {
            assert_eq!(number(&report, key), 0);
        }
        // 40 of them were due in the two measured seconds.
        let json = answers["latency"].to_string();
        let latency: loadgen::histogram::Histo = serde_json::from_str(&json).expect("a histogram");
        assert_eq!(latency.count(), 40);
        // Not sooner than Kafka had the message.
        let acknowledged = chat["latency"].to_string();
        let acknowledged: loadgen::histogram::Histo =
            serde_json::from_str(&acknowledged).expect("a histogram");
        assert!(latency.quantile_ms(0.5) > acknowledged.quantile_ms(0.0));
    }

    // The backends took all of it for what it says it is.
    let stored = kafka_values(kafka.bootstrap(), "chat.messages");
    assert_eq!(stored.len(), 100);
    let room = system.json("/chat/api/rooms/load-0/messages");
    let first = &room["messages"][0];
    assert_eq!(first["from"], "load-writer-0", "{room}");
    let devices = system.json("/iot/api/devices?limit=100");
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(10));
    let status = system.json("/api/status");
    for backend in ["chat", "iot"] {
        let of_backend = &status["consumers"][backend];
        assert_eq!(number(of_backend, "dead_letters"), 0, "{of_backend}");
    }
    assert_eq!(system.terminate().status.code(), Some(0));
}

#[test]
fn what_the_backends_would_not_understand_is_refused() {
    for (options, wanted) in [
        (
            ["--topic-prefix", "x/"],
            "--topic-prefix: scenario \"backends\" waits on \"users/load-writer-{n}/receipts\" for answers",
        ),
        (
            ["--payload-bytes", "79"],
            "--payload-bytes is 79; allowed are 80 to",
        ),
    ] {
        let ended = run(&[&["load", "backends"], &options[..]].concat());
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.err.contains(wanted), "{}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    }
}

#[test]
fn without_backends_every_receipt_is_missing_and_nothing_else() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("report.json");
    let ended = load(&at, &json, &["--drain", "0.5"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let why = "50 answers to stream \"chat\" to group \"writers\" (users/load-writer-{n}/receipts) are missing";
    assert!(verdict(&ended).contains("FAILED"), "{}", ended.out);
    let report = report(&json);
    assert_eq!(report["failures"], serde_json::json!([why]));
    let answers = &report["audiences"][0];
    for (key, wanted) in [("expected", 50), ("delivered", 0), ("missing", 50)] {
        assert_eq!(number(answers, key), wanted, "{answers}");
    }
    for (at, sent) in [(0, 50), (1, 450)] {
        assert_eq!(number(&report["streams"][at], "acknowledged"), sent);
    }
}
