//! `millstream groups` and `millstream topics` on a real Kafka.

use serde_json::Value;
use testkit::kafka::Kafka;
use testkit::millstream::{self, Ended, configuration};
use testkit::unique;

use crate::support::{appended, delete_before, topic};

fn run(arguments: &[&str]) -> Ended {
    let kafka = Kafka::shared().bootstrap();
    millstream::run(&[arguments, &["--kafka", kafka]].concat())
}

#[test]
fn a_group_says_what_waits_since_when_and_what_is_stuck() {
    let (topic, group) = (topic("groups", 1), unique("of-groups"));
    appended(&topic, 0..10);
    Kafka::shared().set_committed(&group, &topic, 0, 3);
    delete_before(&topic, 5);
    let ended = run(&["groups", &group, "--partitions"]);
    assert!(ended.status.success(), "{}", ended.err);
    let row = format!("{topic}/0  at 3 of 10, 7 wait, 2 were deleted unread, oldest ");
    assert!(ended.out.contains(&row), "{}", ended.out);
    let ended = run(&["groups", &group, "--json"]);
    let groups: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(groups[0]["state"], "Empty");
    assert!(
        groups[0]["partitions"][0]["since_ms"].as_i64() > Some(0),
        "{groups}"
    );

    let ended = run(&["groups", &group, "--stuck", "1"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    let says = format!("did not move in 1 s: {group} at {topic}/0 (7 wait)");
    assert!(ended.err.contains(&says), "{}", ended.err);
    Kafka::shared().set_committed(&group, &topic, 0, 10);
    let ended = run(&["groups", &group, "--stuck", "1"]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);

    let ended = run(&["groups", "no-such-group"]);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.err);
    assert!(ended.err.contains("a group of this Kafka"), "{}", ended.err);
}

#[test]
fn the_topics_of_a_node_are_checked_and_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let (stored, downlink) = (unique("inventory"), unique("inventory-downlink"));
    let config = configuration(
        &directory,
        &format!(
            "bridge.downlink.topic = {downlink:?}\nbridge.downlink.dead_letter_topic = \"{downlink}.dlq\"\n\
             bridge.partitions = 3\n\
             [[bridge.routes]]\nfilter = \"rooms/+/messages\"\ntopic = {stored:?}\n"
        ),
    );
    let topics = |command: &str| run(&["topics", command, "--config", &config]);
    let listed = topics("list");
    assert!(listed.status.success(), "{}", listed.err);
    assert!(
        listed.out.contains("is missing: rooms/+/messages"),
        "{}",
        listed.out
    );
    let checked = topics("check");
    assert_eq!(checked.status.code(), Some(1), "{}", checked.err);
    assert!(
        checked.err.contains("topics create makes them"),
        "{}",
        checked.err
    );

    let made = topics("create");
    assert!(made.status.success(), "{}", made.err);
    assert!(
        made.out.contains(&format!("made: {stored}")),
        "{}",
        made.out
    );
    assert!(topics("create").status.success());
    let checked = run(&["topics", "check", "--json", "--config", &config]);
    let inventory: Value = serde_json::from_str(&checked.out).expect("JSON");
    let mut of = inventory["topics"].as_array().expect("topics").iter();
    let topic = of
        .find(|topic| topic["name"] == *stored)
        .expect("it is there");
    assert_eq!(
        (&topic["partitions"], &topic["replicas"]),
        (&3.into(), &1.into())
    );
    assert!(topic["retention_ms"].as_i64() > Some(0), "{topic}");
    // A Kafka of one broker keeps one replica: that is no promise.
    assert_eq!(checked.status.code(), Some(1), "{}", checked.err);
    assert!(checked.err.contains("one replica"), "{}", checked.err);
    assert!(!checked.err.contains("has no"), "{}", checked.err);
}
