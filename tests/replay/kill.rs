//! SIGKILL in the middle, and the same command again.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::millstream::{Process, signal};
use testkit::{eventually, unique};

use crate::support::{appended, arguments, committed, replay, topic};

/// Records of a run that is killed: some batches of a second at `RATE`.
const RECORDS: u64 = 60_000;
/// Slow enough to be killed on the way.
const RATE: &str = "10000";
/// How often it is killed.
const KILLS: usize = 3;

/// Runs `options` and kills it `KILLS` times, each when `done` has grown; the last run goes to its end.
fn kill_and_go_on(options: &[&str], done: impl Fn() -> u64) {
    let slow = [options, &["--rate", RATE]].concat();
    for _ in 0..KILLS {
        let before = done();
        let mut process = Process::start(&arguments(&slow));
        eventually("another batch", || (done() > before).then_some(()));
        signal(process.pid(), "KILL");
        let ended = process.ended();
        assert!(!ended.status.success(), "it was killed: {}", ended.err);
        assert!(done() < RECORDS, "it was too fast to be killed on the way");
    }
    let ended = replay(options);
    assert!(ended.status.success(), "{}", ended.err);
    // Once more there is nothing to do.
    let again = replay(options);
    assert!(
        again.status.success() && again.err.contains("its end before"),
        "{}",
        again.err
    );
}

/// How many records the resume file speaks of.
fn scanned(resume: &Path) -> u64 {
    let text = std::fs::read_to_string(resume).unwrap_or_default();
    let saved: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    saved["progress"]["scanned"].as_u64().unwrap_or(0)
}

#[test]
fn a_killed_replay_into_a_topic_misses_and_doubles_none() {
    let (from, to) = (topic("replay-kill", 3), topic("replay-kill-to", 2));
    appended(&from, 0..RECORDS);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resume");
    let resume = file.to_str().expect("UTF-8");
    let confirm = RECORDS.to_string();
    let options = [
        &*from,
        "--to-topic",
        &to,
        "--resume",
        resume,
        "--confirm",
        &confirm,
    ];
    kill_and_go_on(&options, || scanned(&file));
    let mut copies = BTreeMap::new();
    for record in committed(&to, "%s %h\n", usize::try_from(RECORDS).expect("a count")) {
        let (number, headers) = record.split_once(' ').expect("headers");
        assert!(
            headers.contains(&format!("mill.origin={from}/")),
            "{headers}"
        );
        *copies
            .entry(number.parse::<u64>().expect("a number"))
            .or_insert(0u32) += 1;
    }
    let doubled: Vec<_> = copies.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        doubled.is_empty(),
        "{} doubled, for example {:?}",
        doubled.len(),
        doubled[0]
    );
    assert_eq!(copies.len() as u64, RECORDS, "missing");
}

#[test]
fn a_killed_replay_into_a_file_misses_and_doubles_none() {
    let from = topic("replay-kill-file", 2);
    appended(&from, 0..RECORDS);
    let dir = tempfile::tempdir().expect("a directory");
    let (file, out) = (dir.path().join("resume"), dir.path().join("out"));
    let (resume, to_file) = (file.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    kill_and_go_on(&[&from, "--to-file", to_file, "--resume", resume], || {
        scanned(&file)
    });
    let text = std::fs::read_to_string(&out).expect("the file");
    let mut numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line"))
        .map(|line| {
            line["value"]
                .as_str()
                .expect("text")
                .parse()
                .expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..RECORDS));
}

#[test]
fn a_resume_file_belongs_to_one_replay_and_to_one_process() {
    let from = topic("replay-resume", 1);
    appended(&from, 0..1_000);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resume");
    let resume = file.to_str().expect("UTF-8");
    let to = unique("replay-out");
    let out = dir.path().join(&to);
    let to_file = out.to_str().expect("UTF-8");
    let options = [&*from, "--to-file", to_file, "--resume", resume];
    let process = Process::start(&arguments(&[&options[..], &["--rate", "10"]].concat()));
    eventually("the resume file", || file.exists().then_some(()));
    let second = replay(&options);
    assert!(
        second.status.code() == Some(2) && second.err.contains("no other replay"),
        "{}",
        second.err
    );
    // Asked to end, it finishes what it began and says so.
    let mut process = process;
    signal(process.pid(), "TERM");
    let ended = process.ended();
    assert!(
        ended.status.code() == Some(1) && ended.err.contains("goes on"),
        "{}",
        ended.err
    );
    let other = replay(&[&options[..], &["--from", "5"]].concat());
    assert!(
        other.status.code() == Some(2) && other.err.contains("it is of"),
        "{}",
        other.err
    );
    let whole = std::fs::read(&file).expect("the file");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    let cut = replay(&options);
    assert!(
        cut.status.code() == Some(2) && cut.err.contains("a replay wrote"),
        "{}",
        cut.err
    );
    std::fs::write(&file, &whole).expect("whole again");
    assert!(replay(&options).status.success());
    let lines = std::fs::read_to_string(&out)
        .expect("the file")
        .lines()
        .count();
    assert_eq!(lines, 1_000);
}
