//! A consumer group is one store's: a second instance with a store of its own is refused with what to do, one with the same
//! store is not, and a store that is gone for good can be replaced.

use std::path::Path;

use serde_json::json;
use testkit::eventually;
use testkit::kafka::{Kafka, Sent};
use testkit::millstream::{Millstream, configuration, run};

fn arguments(kafka: &Kafka, directory: &Path, config: &str) -> Vec<String> {
    let database = format!("sqlite:{}", directory.join("chat.db").display());
    [
        "chat",
        "--kafka",
        kafka.bootstrap(),
        "--database",
        &database,
        "--http",
        "127.0.0.1:0",
        "--config",
        config,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn start(arguments: &[String]) -> Millstream {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Millstream::start(&arguments)
}

/// Starts what is refused, and gives its sentence.
fn refused(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = run(&arguments);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    ended.err
}

fn say(kafka: &Kafka, numbers: std::ops::Range<usize>) {
    let records = numbers.map(|number| {
        let payload = json!({ "id": format!("m-{number}"), "from": "alice", "text": "x" });
        Sent::mqtt("rooms/lobby/messages", payload.to_string())
    });
    kafka.append("chat.messages", records);
}

fn has(backend: &Millstream, messages: usize) {
    eventually("the room has all", || {
        let path = "/api/rooms/lobby/messages?after=0&limit=1000";
        let page = backend.try_json(path).ok()?;
        (page["messages"].as_array()?.len() == messages).then_some(())
    });
}

#[test]
fn a_second_store_in_the_group_is_refused_until_the_first_is_gone_for_good() {
    let kafka = Kafka::start();
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            kafka.make_topic("chat.messages", 1, &[]).await;
            kafka.make_topic("mqtt.downlink", 1, &[]).await;
        });
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain = configuration(&one, "");
    let adopting = configuration(&two, "chat.consumer.adopt_store = true\n");
    let first = arguments(&kafka, one.path(), &plain);
    let second = arguments(&kafka, two.path(), &plain);
    let heir = arguments(&kafka, two.path(), &adopting);

    let running = start(&first);
    say(&kafka, 0..20);
    has(&running, 20);
    eventually("the group is its store's", || {
        (kafka.committed("chat", "chat.messages", 0) == 20).then_some(())
    });

    let sentence = refused(&second);
    for part in [
        "\"chat\"",
        "another store",
        "--data",
        "consumer.adopt_store = true",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    let sentence = refused(&heir);
    assert!(sentence.contains("still running"), "{sentence}");
    // The same store, by a second process.
    let helper = start(&first);
    say(&kafka, 20..40);
    has(&running, 40);
    helper.terminate();
    running.terminate();

    refused(&second);
    let running = start(&heir);
    has(&running, 40);
    running.terminate();
    let running = start(&second);
    say(&kafka, 40..50);
    has(&running, 50);
    running.terminate();
    let sentence = refused(&first);
    assert!(sentence.contains("another store"), "{sentence}");
}
