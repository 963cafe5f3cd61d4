//! What cannot begin ends with exit code 2 and one sentence that names the option and what is allowed, before anything
//! connects.

use std::io::Write;

use crate::nobody;
use testkit::millstream::{Ended, run};

/// The sentence of a run that was refused.
fn refused(arguments: &[&str]) -> String {
    let ended: Ended = run(&[&["load"], arguments].concat());
    assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
    assert_eq!(ended.out, "", "{arguments:?}");
    ended.err
}

#[test]
fn what_is_not_possible_is_refused_in_one_sentence() {
    let pairs: &[(&[&str], &[&str])] = &[
        (
            &["--broker", "nowhere.invalid:1883"],
            &["--broker", "nowhere.invalid:1883", "HOST:PORT"],
        ),
        (&["--broker", "127.0.0.1"], &["--broker", "HOST:PORT"]),
        (&["--rate", "0"], &["--rate is 0", "more than 0"]),
        (&["--rate", "-5"], &["--rate is -5", "more than 0"]),
        (&["--rate", "nan"], &["--rate is NaN", "more than 0"]),
        (&["--clients", "0"], &["--clients is 0", "2 to"]),
        (&["--clients", "1"], &["--clients is 1", "2 to"]),
        (
            &["--processes", "1", "--clients", "1000000"],
            &["--processes", "open files", "1,000,000 clients need"],
        ),
        (&["--clients", "4000000000"], &["--clients", "open files"]),
        (&["--processes", "0"], &["--processes is 0", "1 to 1,024"]),
        (
            &["--processes", "2000"],
            &["--processes is 2,000", "1 to 1,024"],
        ),
        (
            &["--simulated", "--virtual-time", "--threads", "2"],
            &["--threads is 2", "--virtual-time"],
        ),
        (
            &["--simulated", "--threads", "0"],
            &["--threads is 0", "1 to 64"],
        ),
        (
            &["--simulated", "--threads", "1000"],
            &["--threads is 1000", "1 to 64"],
        ),
        (&["--pid", "me"], &["--pid", "\"me\"", "auto"]),
        (
            &["--tls", "--ca", "/nowhere/ca.pem"],
            &["--ca /nowhere/ca.pem", "No such file"],
        ),
        (
            &["--tls", "--ca", "Cargo.toml"],
            &["--tls", "no certificate"],
        ),
        (
            &["--ws", "--ws-path", "mqtt"],
            &["--ws-path is \"mqtt\"", "begins with /"],
        ),
        (&["--pid", "4194305"], &["--pid", "4194305"]),
        (
            &["--json", "/nowhere/a.json"],
            &["--json", "/nowhere/a.json", "cannot be written"],
        ),
        (&["--html", "/"], &["--html", "cannot be written"]),
        (
            &["--html", "a", "--json", "a"],
            &["--json and --html", "same file"],
        ),
        (&["--name", ""], &["--name is empty"]),
        (
            &["--protocol", "3"],
            &["--protocol is \"3\"", "3.1.1", "5.0"],
        ),
        (&["--qos", "3"], &["--qos is 3", "0, 1 and 2"]),
        (&["--seconds", "0"], &["--seconds is 0", "0.01"]),
        (&["--warm-up", "-1"], &["--warm-up is -1", "allowed"]),
        (&["--drain", "-1"], &["--drain is -1", "allowed"]),
        (
            &["--connect-rate", "0"],
            &["--connect-rate is 0", "more than 0"],
        ),
        (
            &["--connect-rate", "fast"],
            &["--connect-rate", "\"fast\"", "storm"],
        ),
        (
            &["--payload-bytes", "1"],
            &["--payload-bytes is 1", "24 to"],
        ),
        (&["--window", "0"], &["--window is 0", "1 to 65,535"]),
        (&["--burst", "0"], &["--burst is 0", "1 to"]),
        (&["--topic-prefix", "#/"], &["--topic-prefix", "'#'"]),
        (&["--username", "{x}"], &["--username", "{x}", "{n}"]),
        (
            &["--username", "u", "--password-file", "/nowhere/p"],
            &["--password-file", "/nowhere/p"],
        ),
        (
            &["--source-addresses", "127.0.0.1,127.0.0.1"],
            &["--source-addresses", "twice"],
        ),
        (
            &["--source-addresses", "::1"],
            &["--source-addresses", "IPv6"],
        ),
        (
            &["--source-addresses", "192.0.2.1"],
            &[
                "--source-addresses",
                "192.0.2.1",
                "not an address of this machine",
            ],
        ),
        (&["--metrics", "nowhere"], &["--metrics", "nowhere"]),
        (
            &["--agents", "127.0.0.1:1,127.0.0.1:1"],
            &["--agents", "twice"],
        ),
    ];
    for (options, wanted) in pairs {
        let sentence = refused(&[&["pairs"], *options].concat());
        assert_eq!(sentence.lines().count(), 1, "{options:?}: {sentence}");
        assert!(sentence.starts_with("millstream: "), "{sentence}");
        for part in *wanted {
            assert!(
                sentence.contains(part),
                "{options:?}: {sentence:?} lacks {part:?}"
            );
        }
    }
}

#[test]
fn options_that_are_none_or_do_not_go_together_are_refused() {
    for (arguments, wanted) in [
        (&["nonsense"][..], "'nonsense'"),
        (&["pairs", "--agents", "127.0.0.1"], "HOST:PORT"),
        (
            &["pairs", "--agents", "127.0.0.1:1", "--processes", "2"],
            "--processes",
        ),
        (
            &[
                "pairs",
                "--agents",
                "127.0.0.1:1",
                "--source-addresses",
                "127.0.0.1",
            ],
            "--source-addresses",
        ),
        (
            &["pairs", "--simulated", "--broker", "127.0.0.1:1"],
            "--broker",
        ),
        (&["pairs", "--threads", "2"], "--simulated"),
        (&["pairs", "--password-file", "/dev/null"], "--username"),
        (&["pairs", "--qos", "-1"], "--qos"),
        (&["pairs", "--ca", "ca.pem"], "--tls"),
        (&["pairs", "--tls", "--cert", "client.pem"], "--key"),
        (&["pairs", "--tls-resume", "off"], "--tls"),
        (&["pairs", "--simulated", "--tls"], "--tls"),
        (&["pairs", "--simulated", "--ws"], "--ws"),
        (&["pairs", "--ws-path", "/mqtt"], "--ws"),
        (&["agent", "--listen", "here"], "--listen"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
}

#[test]
fn scenarios_that_are_none_are_refused() {
    let mut file = tempfile::Builder::new()
        .suffix(".toml")
        .tempfile()
        .expect("a file");
    writeln!(file, "name = \"x\"\n[run]\nsecond = 5").expect("a file that can be written");
    let path = file.path().to_str().expect("UTF-8");
    for (arguments, wanted) in [
        (
            &["run", path][..],
            &[path, "line 3", "`second`", "seconds"][..],
        ),
        (&["run", "/nowhere.toml"], &["/nowhere.toml"]),
        (&["show", "pear"], &["\"pear\"", "pairs"]),
        (&["report", "/nowhere.json"], &["/nowhere.json"]),
        (&["report", path], &[path, "no report"]),
        (&["connect", "--rate", "5"], &["--rate", "\"connect\""]),
        (&["connect", "--window", "5"], &["--window", "\"connect\""]),
        (
            &["reconnect-storm", "--seconds", "1"],
            &["--seconds: churn.storms_at_s is 5", "measured time"],
        ),
        (
            &["iot", "--clients", "110"],
            &["--clients: stream \"commands\"", "do not divide"],
        ),
        (
            &["agent", "--listen", "192.0.2.1:7401"],
            &["--listen", "192.0.2.1:7401"],
        ),
    ] {
        let sentence = refused(arguments);
        assert_eq!(sentence.lines().count(), 1, "{arguments:?}: {sentence}");
        for part in wanted {
            assert!(
                sentence.contains(part),
                "{arguments:?}: {sentence:?} lacks {part:?}"
            );
        }
    }
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let agent = nobody();
    for agents_wait in ["0", "1"] {
        let arguments = ["pairs", "--agents", &agent, "--agents-wait", agents_wait];
        let sentence = refused(&arguments);
        let last = sentence.lines().last().expect("a line");
        assert!(
            last.contains("--agents") && last.contains(&agent),
            "{sentence}"
        );
    }
}

/// Lines between the one that begins with `from` and the next one with `to`.
fn part<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(from));
    lines
        .skip(1)
        .take_while(|line| !line.starts_with(to))
        .collect()
}

#[test]
fn the_scenarios_of_the_manifest_and_of_the_documentation_are_scenarios() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let agent = nobody();
    for (file, from, to) in [
        ("k8s/load-job.yaml", "load.toml: |", "---"),
        ("docs/LOAD.md", "```toml", "```"),
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect("a file of this project");
        let scenario = part(&text, from, to).join("\n");
        assert!(scenario.contains("[[group]]"), "{file}: {scenario}");
        let mut toml = tempfile::Builder::new()
            .suffix(".toml")
            .tempfile()
            .expect("a file");
        toml.write_all(scenario.as_bytes())
            .expect("a file that can be written");
        let path = toml.path().to_str().expect("UTF-8");
        // Only a scenario that is possible gets as far as its agents.
        let message = refused(&["run", path, "--agents", &agent, "--agents-wait", "0"]);
        assert!(
            message.contains(&format!("--agents: {agent}")),
            "{file}: {message}"
        );
    }
}
