//! Runs on this machine: reports, limits, interruption, passwords.

use std::fs;

use crate::millstream::{Process, eventually, run, signal};
use crate::{
    FOR_EVER, SMALL, STEADY, broker, in_the_middle, nobody, pairs, report, sums, text, verdict,
};

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: the state and the parent.
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

#[test]
fn a_run_that_passes_writes_reports_that_can_be_read_and_compared() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let (one, three) = (dir.path().join("one.json"), dir.path().join("three.json"));
    let (page, both) = (dir.path().join("one.html"), dir.path().join("both.html"));
    let ended = run(&pairs(
        &at,
        &[
            SMALL,
            &["--json", text(&one), "--html", text(&page), "--pid", "auto"],
        ],
    ));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(verdict(&ended).contains("PASSED"), "{}", ended.out);
    let ended = run(&pairs(
        &at,
        &[
            SMALL,
            &[
                "--json",
                text(&three),
                "--processes",
                "3",
                "--name",
                "three",
            ],
        ],
    ));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");

    let (one_json, three_json) = (report(&one), report(&three));
    assert_eq!(sums(&one_json), sums(&three_json));
    assert_eq!(one_json["tool"]["shares"], 1);
    assert_eq!(three_json["tool"]["shares"], 3);
    assert_eq!(one_json["server"]["pid"], broker.pid());
    let delivered = one_json["audiences"][0]["delivered"]
        .as_u64()
        .expect("a number");
    assert!(delivered >= 200, "{delivered}");

    let shown = run(&["load", "report", text(&one)]);
    assert!(
        shown.status.success() && shown.out.contains("PASSED"),
        "{shown:?}"
    );
    let compared = run(&[
        "load",
        "report",
        text(&one),
        text(&three),
        "--html",
        text(&both),
    ]);
    assert!(
        compared.status.success() && compared.out.contains("three"),
        "{compared:?}"
    );
    for page in [page, both] {
        let page = fs::read_to_string(page).expect("a page");
        assert!(
            page.contains("<html") && page.contains("pairs"),
            "{} bytes",
            page.len()
        );
    }
}

#[test]
fn the_built_in_scenarios_are_listed_shown_and_run_as_files() {
    let broker = broker();
    let list = run(&["load", "list"]);
    assert!(list.status.success());
    let known = loadgen::scenario::builtin_names().len();
    assert_eq!(list.out.lines().count(), known, "{}", list.out);
    for line in list.out.lines() {
        let name = line.split_whitespace().next().expect("a name");
        let shown = run(&["load", "show", name]);
        assert!(
            shown.out.contains(&format!("name = \"{name}\"")),
            "{name}: {shown:?}"
        );
        let help = run(&["load", name, "--help"]);
        assert!(
            help.status.success() && help.out.contains("Example:"),
            "{name}"
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("my.toml");
    fs::write(&file, run(&["load", "show", "fan-out"]).out).expect("a file");
    let at = broker.mqtt().to_string();
    let ended = run(&[
        "load",
        "run",
        text(&file),
        "--broker",
        &at,
        "--clients",
        "11",
        "--rate",
        "50",
        "--seconds",
        "1",
        "--warm-up",
        "0",
        "--quiet",
    ]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_simulated_run_passes_on_threads_and_on_virtual_time() {
    for more in [&["--threads", "2"][..], &["--virtual-time"]] {
        let ended = run(&[&["load", "pairs", "--simulated"], SMALL, more].concat());
        assert_eq!(ended.status.code(), Some(0), "{more:?}: {ended:?}");
        assert!(ended.out.contains("on simulated"), "{}", ended.out);
    }
}

#[test]
fn a_broker_that_is_not_there_is_a_failed_run_with_its_reason() {
    let at = nobody();
    for processes in ["1", "2"] {
        let ended = run(&pairs(&at, &[SMALL, &["--processes", processes]]));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let first = verdict(&ended);
        assert!(
            first.contains("FAILED") && first.contains("no client was accepted"),
            "{first}"
        );
        assert!(first.contains("connection refused"), "{first}");
        let last = ended.err.lines().last().expect("a line");
        assert!(last.starts_with("millstream: the run failed"), "{last}");
    }
}

#[test]
fn a_broker_that_dies_fails_the_limits_and_the_first_lines_say_so() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let mut load = Process::start(&pairs(&at, &[STEADY, &["3", "--drain", "1"]]));
    in_the_middle(&broker);
    broker.kill();
    let ended = load.ended();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let first = ended.out.lines().take(6).collect::<Vec<_>>().join("\n");
    assert!(first.contains("FAILED"), "{first}");
    assert!(
        first.contains("connections were refused or ended by the broker"),
        "{first}"
    );
}

#[test]
fn an_interrupted_run_reports_what_it_has_so_far() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    for processes in ["1", "3"] {
        let json = dir.path().join(format!("{processes}.json"));
        let more = ["--processes", processes, "--json", text(&json)];
        let mut load = Process::start(&pairs(&at, &[STEADY, FOR_EVER, &more]));
        in_the_middle(&broker);
        // A terminal tells the whole group.
        for pid in children(load.pid()).into_iter().chain([load.pid()]) {
            signal(pid, "INT");
        }
        let ended = load.ended();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(
            verdict(&ended).contains("PASSED so far (interrupted by a signal)"),
            "{}",
            ended.out
        );
        let report = report(&json);
        assert_eq!(report["interrupted"], "a signal");
        assert_eq!(report["tool"]["shares"].to_string(), processes);
        assert!(sums(&report)[1] > 20, "{report}");
    }
}

#[test]
fn a_process_that_dies_is_named_and_nothing_of_its_clients_is_missing() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("a.json");
    let more = ["3", "--processes", "3", "--json", text(&json)];
    let mut load = Process::start(&pairs(&at, &[STEADY, &more]));
    in_the_middle(&broker);
    let victim = children(load.pid())[1];
    signal(victim, "KILL");
    let ended = load.ended();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let lines = ended.out.lines().take(4).collect::<Vec<_>>().join("\n");
    assert!(lines.contains(&format!("process {victim}")), "{lines}");
    let report = report(&json);
    assert_eq!(
        report["failures"].as_array().map(Vec::len),
        Some(1),
        "{}",
        report["failures"]
    );
    let audience = &report["audiences"][0];
    assert_eq!(audience["missing"], 0, "{audience}");
    assert!(
        audience["delivered"].as_u64() >= audience["expected"].as_u64(),
        "{audience}"
    );
    assert!(audience["expected"].as_u64() > Some(100), "{audience}");
}

#[test]
fn a_password_is_nowhere_to_be_seen() {
    const PASSWORD: &str = "correct-horse-battery";
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("password"), format!("{PASSWORD}\n")).expect("a file");
    let (file, json, html) = (path("password"), path("a.json"), path("a.html"));
    let more = [
        "--username",
        "user-{n}",
        "--password-file",
        text(&file),
        "--processes",
        "2",
        "--json",
        text(&json),
        "--html",
        text(&html),
    ];
    let mut load = Process::start(&pairs(&at, &[STEADY, FOR_EVER, &more]));
    in_the_middle(&broker);
    let processes = eventually("the processes", || {
        let processes = children(load.pid());
        (processes.len() == 2).then_some(processes)
    });
    for pid in processes.into_iter().chain([load.pid()]) {
        for list in ["cmdline", "environ"] {
            let list = fs::read(format!("/proc/{pid}/{list}")).expect("our own process");
            assert!(!String::from_utf8_lossy(&list).contains(PASSWORD));
        }
    }
    signal(load.pid(), "TERM");
    let ended = load.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let files = [&json, &html].map(|file| fs::read_to_string(file).expect("a report"));
    for text in [
        &ended.out,
        &ended.err,
        &files[0],
        &files[1],
        &broker.out(),
        &broker.err(),
    ] {
        assert!(!text.contains(PASSWORD));
    }
    assert!(
        files[0].contains("***"),
        "the scenario says that there is one"
    );
}
