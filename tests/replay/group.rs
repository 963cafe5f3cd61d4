//! A consumer group put back, as `kafka-consumer-groups` would, and the way back from that.

use std::process::Command;

use testkit::kafka::Kafka;
use testkit::millstream;
use testkit::unique;

use crate::support::{appended, replay, topic};

/// What Kafka's own tool would set: partition and new offset.
fn of_kafkas_tool(group: &str, topic: &str, to: &[&str]) -> Vec<(i32, i64)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let output = Command::new(script)
        .args([
            "run",
            class,
            "--bootstrap-server",
            Kafka::shared().bootstrap(),
        ])
        .args([
            "--group",
            group,
            "--topic",
            topic,
            "--reset-offsets",
            "--dry-run",
        ])
        .args(to)
        .output()
        .expect("Kafka's tool runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut rows: Vec<(i32, i64)> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|cells| cells.first() == Some(&group))
        .map(|cells| {
            (
                cells[2].parse().expect("a partition"),
                cells[3].parse().expect("an offset"),
            )
        })
        .collect();
    rows.sort_unstable();
    assert!(
        !rows.is_empty(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    rows
}

/// The same of our table.
fn of_our_table(out: &str, topic: &str) -> Vec<(i32, i64)> {
    out.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|cells| cells.first() == Some(&topic))
        .map(|cells| {
            (
                cells[1].parse().expect("a partition"),
                cells[3].parse().expect("an offset"),
            )
        })
        .collect()
}

#[test]
fn the_plan_is_that_of_kafkas_tool() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic("reset-plan", 3), unique("group"));
    appended(&topic, 0..40);
    kafka.set_committed(&group, &topic, 0, 3);
    for (ours, theirs) in [
        (&["--from", "earliest"][..], &["--to-earliest"][..]),
        (&["--from", "latest"], &["--to-latest"]),
        (&["--from", "5"], &["--to-offset", "5"]),
        // Behind the end: the end.
        (&["--from", "1000"], &["--to-offset", "1000"]),
        (
            &["--from", "1970-01-01T00:00:01Z"],
            &["--to-datetime", "1970-01-01T00:00:01.000Z"],
        ),
    ] {
        let ended = replay(&[&[&*topic, "--group", &group], ours].concat());
        assert!(ended.status.success(), "{}", ended.err);
        assert_eq!(
            of_our_table(&ended.out, &topic),
            of_kafkas_tool(&group, &topic, theirs),
            "{ours:?}"
        );
        assert!(ended.err.contains("--execute"), "{}", ended.err);
    }
    // Nothing of that was done.
    assert_eq!(
        (
            kafka.committed(&group, &topic, 0),
            kafka.committed(&group, &topic, 1)
        ),
        (3, -1)
    );
}

#[test]
fn a_reset_can_be_undone_until_the_group_moves() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic("reset-undo", 2), unique("group"));
    appended(&topic, 0..40);
    kafka.set_committed(&group, &topic, 0, 4);
    kafka.set_committed(&group, &topic, 1, 5);
    let committed = || [0, 1].map(|partition| kafka.committed(&group, &topic, partition));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("undo");
    let undo_file = file.to_str().expect("UTF-8");
    let set = [
        &*topic,
        "--group",
        &group,
        "--from",
        "0:1",
        "--from",
        "1:earliest",
        "--execute",
        "--undo-file",
        undo_file,
    ];
    let ended = replay(&set);
    assert!(ended.status.success(), "{}", ended.err);
    assert_eq!(committed(), [1, 0]);
    let undo = ["--undo", undo_file, "--execute"];

    kafka.set_committed(&group, &topic, 1, 2);
    let moved = replay(&undo);
    assert!(
        moved.status.code() == Some(2) && moved.err.contains("has moved meanwhile"),
        "{}",
        moved.err
    );
    assert!(
        moved.err.contains(&format!("{topic}/1 is at 2, not at 0")),
        "{}",
        moved.err
    );
    assert_eq!(committed(), [1, 2]);

    kafka.set_committed(&group, &topic, 1, 0);
    let undone = replay(&undo);
    assert!(undone.status.success(), "{}", undone.err);
    assert_eq!(committed(), [4, 5]);
    // The file of one reset is not written over by another.
    let again = replay(&set);
    assert!(!again.status.success(), "{}", again.err);
    assert_eq!(committed(), [4, 5]);
    let no_file = replay(&["--undo", "/no/such/file"]);
    assert!(
        no_file.status.code() == Some(2) && no_file.err.contains("--undo"),
        "{}",
        no_file.err
    );
}

#[test]
fn a_live_group_is_refused_with_its_members() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic("reset-live", 1);
    appended(&topic, 0..4);
    let group = unique("group");
    let config = millstream::configuration(&dir, &format!("dashboard.topics = [\"{topic}\"]\n"));
    let database = format!("sqlite:{}/dashboard.db", dir.path().display());
    let backend = millstream::Millstream::start(&[
        "dashboard",
        "--config",
        &config,
        "--kafka",
        kafka.bootstrap(),
        "--group",
        &group,
        "--database",
        &database,
        "--http",
        "127.0.0.1:0",
    ]);
    testkit::eventually("all read", || {
        (kafka.committed(&group, &topic, 0) == 4).then_some(())
    });
    let reset = || {
        replay(&[
            &topic,
            "--group",
            &group,
            "--from",
            "earliest",
            "--execute",
            "--undo-file",
            &format!("{}/undo", dir.path().display()),
        ])
    };
    let refused = reset();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    assert!(
        refused.err.contains("is live") && refused.err.contains("127.0.0.1"),
        "{}",
        refused.err
    );
    assert_eq!(kafka.committed(&group, &topic, 0), 4);
    backend.terminate();
    let done = reset();
    assert!(done.status.success(), "{}", done.err);
    assert_eq!(kafka.committed(&group, &topic, 0), 0);
}
