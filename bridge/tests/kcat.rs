//! The `kcat` lines of docs/ENVELOPE.md do what the page says, with a program that shares no code with us.

mod common;

use std::process::Command;

use broker::codec::{Properties, Qos, Version};
use common::mqtt::{Client, Event};
use common::{DEADLINE, Node, config, stored_in};
use testkit::kafka::Kafka;

/// The commands of the page's shell block, each on one line.
fn commands() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ENVELOPE.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let (_, block) = page.split_once("```sh\n").expect("it has a shell block");
    let (block, _) = block.split_once("```").expect("the block ends");
    let lines: Vec<_> = block
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    lines
        .join("\n")
        .split("\n\n")
        .map(|command| command.trim().replace("|\n", "|"))
        .collect()
}

fn run(command: &str) -> String {
    let output = Command::new("sh")
        .arg("-c")
        .arg(command)
        .output()
        .expect("a shell runs");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_commands_of_the_page_work() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let here = |command: &str| {
        command
            .replace("127.0.0.1:9092", kafka)
            .replace("mqtt.downlink.dlq", &config.downlink.dead_letter_topic)
            .replace("-t mqtt.downlink", &format!("-t {}", config.downlink.topic))
            .replace("-t chat.messages", &format!("-t {}", stored_in(&config)))
            // The page follows the topic without end.
            .replace("-o end", "-o beginning -e")
    };
    let commands = commands();
    let [watch, send, broken] = commands.as_slice() else {
        panic!("{commands:?}")
    };

    let mut alice = Client::connect(node.address, Version::V5, "alice");
    alice.subscribe("users/alice/receipts", Qos::AtLeastOnce);
    alice.publish(
        "rooms/lobby/messages",
        Qos::AtLeastOnce,
        b"hello",
        Properties::default(),
    );
    assert!(matches!(alice.next(DEADLINE), Some(Event::PubAck { .. })));
    let seen = run(&here(watch));
    assert!(
        seen.contains("rooms/lobby/messages [mqtt.topic=rooms/lobby/messages,mqtt.qos=1,"),
        "{seen}"
    );
    assert!(
        seen.contains("mqtt.client-id=alice") && seen.trim_end().ends_with("] hello"),
        "{seen}"
    );

    run(&here(send));
    match alice.message() {
        Event::Message {
            topic,
            payload,
            qos,
            ..
        } => {
            assert_eq!(
                (topic.as_str(), qos),
                ("users/alice/receipts", Qos::AtLeastOnce)
            );
            assert_eq!(payload, br#"{"room":"lobby","seq":42}"#);
        }
        other => panic!("{other:?}"),
    }

    run(&here(
        &send.replace("users/alice/receipts", "users/+/receipts"),
    ));
    common::wait_for("it is a dead letter", || {
        node.status().downlink.dead_lettered == 1
    });
    let seen = run(&here(broken));
    assert!(
        seen.starts_with("users/+/receipts: mqtt.qos=1,__connect.errors.topic="),
        "{seen}"
    );
}

#[test]
fn a_header_whose_name_is_no_text_is_a_dead_letter() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let mut alice = Client::connect(node.address, Version::V5, "alice");
    alice.subscribe("#", Qos::AtLeastOnce);
    let append = |header: &str, payload: &str| {
        let topic = &config.downlink.topic;
        run(&format!(
            "printf '{payload}' | kcat -b {kafka} -P -t {topic} -k a -H \"$(printf '{header}')=1\""
        ));
    };
    append(r"\377\376", "broken");
    append("fine", "good");
    match alice.message() {
        Event::Message { payload, .. } => assert_eq!(payload, b"good"),
        other => panic!("{other:?}"),
    }
    common::wait_for("it is a dead letter", || {
        node.status().downlink.dead_lettered == 1
    });
    let letters = common::log::read_all(kafka, &config.downlink.dead_letter_topic);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].text(), "broken");
    let reason = letters[0].header("__connect.errors.exception.message");
    assert_eq!(reason.as_deref(), Some("the name of a header is not UTF-8"));
}
