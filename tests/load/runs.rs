//! Runs on this machine: reports, limits, interruption, passwords.

use std::fs;

use crate::{
    FOR_EVER, SMALL, STEADY, all_left, broker, in_the_middle, nobody, pairs, report, sums, text,
    verdict,
};
use testkit::eventually;
use testkit::millstream::{Process, run, signal};

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
fn a_broker_that_dies_is_the_headline_of_the_report() {
    for (more, headline) in [
        (
            &["--pid", "auto"][..],
            "THE BROKER DIED: its process PID (millstream) ended",
        ),
        // Of a broker on another machine only the connections tell.
        (&[], "THE BROKER WAS LOST: every connection ended within"),
    ] {
        let broker = broker();
        let at = broker.mqtt().to_string();
        let headline = headline.replace("PID", &broker.pid().to_string());
        let dir = tempfile::tempdir().expect("a directory");
        let (json, html) = (dir.path().join("a.json"), dir.path().join("a.html"));
        let files = ["--json", text(&json), "--html", text(&html)];
        let mut load = Process::start(&pairs(&at, &[STEADY, &["5", "--drain", "1"], more, &files]));
        in_the_middle(&broker);
        broker.kill();
        let ended = load.ended();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let first = verdict(&ended);
        assert!(first.starts_with(&headline), "{first}");
        assert!(
            first.contains("s after the first connect") || more.is_empty(),
            "{first}"
        );
        assert!(first.ends_with("FAILED"), "{first}");
        // What follows from it is told below it.
        let rest = ended
            .out
            .lines()
            .skip(1)
            .take(6)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            rest.contains("connections were refused or ended by the broker"),
            "{rest}"
        );
        assert_eq!(
            ended
                .out
                .to_lowercase()
                .matches(&headline.to_lowercase())
                .count(),
            1,
            "{}",
            ended.out
        );
        let page = fs::read_to_string(&html).expect("a page");
        assert!(
            page.contains(&format!("<p>{headline}")),
            "the page says so first"
        );
        let last = ended.err.lines().last().expect("a line").to_lowercase();
        assert!(last.contains(&headline.to_lowercase()), "{last}");
    }
}

#[test]
fn what_was_interrupted_before_anything_was_measured_has_not_passed() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    // While clients connect, and while it warms up; with more shares each ends at a time of its own.
    for (slow, processes) in [
        (["--connect-rate", "1"], "1"),
        (["--connect-rate", "1"], "2"),
        (["--warm-up", "3600"], "2"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let json = dir.path().join("a.json");
        let more = ["--processes", processes, "--json", text(&json)];
        let arguments = ["--clients", "20", "--rate", "200", "--quiet"];
        let mut load = Process::start(&pairs(&at, &[&arguments, &slow, &more]));
        eventually("clients at the broker", || {
            let (_, text) = broker.get("/metrics");
            let clients = text
                .lines()
                .find(|line| line.starts_with("millstream_broker_clients "));
            (clients != Some("millstream_broker_clients 0")).then_some(())
        });
        if slow[0] == "--warm-up" {
            in_the_middle(&broker);
        }
        signal(load.pid(), "INT");
        let ended = load.ended();
        assert_eq!(ended.status.code(), Some(3), "{slow:?}: {ended:?}");
        let first = verdict(&ended);
        assert!(
            first.starts_with("NOTHING WAS MEASURED: interrupted by a signal"),
            "{first}"
        );
        assert!(!ended.out.contains("PASSED"), "{}", ended.out);
        let shown = run(&["load", "report", text(&json)]);
        assert_eq!(verdict(&shown), first);
        all_left(&broker);
    }
}

#[test]
fn simulated_clients_connect_as_fast_as_it_goes_unless_told_otherwise() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("a.json");
    let file = dir.path().join("my.toml");
    let scenario = run(&["load", "show", "idle"]).out;
    assert!(scenario.contains("per_second = "), "{scenario}");
    fs::write(&file, &scenario).expect("a file");
    let asked = |arguments: &[&str]| {
        let few = [
            "--clients",
            "20",
            "--seconds",
            "0.1",
            "--warm-up",
            "0",
            "--quiet",
        ];
        let simulated = ["--simulated", "--threads", "1", "--json", text(&json)];
        let ended = run(&[&["load"], arguments, &few, &simulated].concat());
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
        let ran = report(&json)["scenario_toml"]
            .as_str()
            .expect("TOML")
            .to_owned();
        let rate = ran.lines().find(|line| line.starts_with("per_second = "));
        rate.map(str::to_owned)
    };
    assert_eq!(asked(&["idle"]), None);
    assert_eq!(
        asked(&["idle", "--connect-rate", "500"]).as_deref(),
        Some("per_second = 500.0")
    );
    let written = asked(&["run", text(&file)]).expect("what the file says");
    assert!(
        scenario.contains(written.trim_end_matches(".0")),
        "{written}"
    );
}

#[test]
fn where_only_others_publish_the_report_says_how_fast() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let (file, json) = (dir.path().join("listen.toml"), dir.path().join("a.json"));
    let listen = "name = \"listen\"\n[[group]]\nname = \"listeners\"\nclients = 2\n\
                  [[group.subscribe]]\nfilter = \"load/#\"\n";
    fs::write(&file, listen).expect("a file");
    let mut others = Process::start(&pairs(&at, &[STEADY, FOR_EVER]));
    in_the_middle(&broker);
    let arguments = [
        "load",
        "run",
        text(&file),
        "--broker",
        &at,
        "--quiet",
        "--json",
        text(&json),
    ];
    let ended = run(&[&arguments[..], &["--seconds", "2", "--warm-up", "0.5"]].concat());
    signal(others.pid(), "INT");
    others.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let row = ended.out.lines().find(|line| line.starts_with("of others"));
    let row = row.unwrap_or_else(|| panic!("no row in {}", ended.out));
    // 200 messages a second to each of the two; a busy machine is late, and not by a factor of four.
    let rate = row.split_whitespace().last().expect("a rate");
    let rate: f64 = rate
        .trim_end_matches("/s")
        .replace(',', "")
        .parse()
        .expect("a number");
    assert!((100.0..=600.0).contains(&rate), "{row}");
    let seconds = report(&json)["seconds"]
        .as_array()
        .expect("seconds")
        .clone();
    let drawn: u64 = seconds
        .iter()
        .filter_map(|second| second["delivered"].as_u64())
        .sum();
    assert_eq!(Some(drawn), report(&json)["foreign"].as_u64());
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
