//! Agents over TCP: the same sums as one process, and whoever else comes to their port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::{FOR_EVER, SMALL, STEADY, all_left, broker, in_the_middle, pairs, report, sums, text};
use testkit::eventually;
use testkit::millstream::{Process, run, signal};

/// An agent on a free port.
struct Agent {
    process: Process,
    address: String,
}

impl Agent {
    fn start() -> Self {
        let process = Process::start(&["load", "agent", "--listen", "127.0.0.1:0"]);
        let address = eventually("the agent's address", || {
            let text = process.err();
            let line = text
                .lines()
                .find(|line| line.contains("waits for coordinators at"))?;
            Some(line.rsplit_once(' ')?.1.to_owned())
        });
        Self { process, address }
    }

    /// Says something to it, and gives the first line of the answer.
    fn say(&self, what: &str) -> (BufReader<TcpStream>, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the agent listens");
        stream.write_all(what.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        (reader, line)
    }

    fn has_said(&self, what: &str) {
        eventually(what, || self.process.err().contains(what).then_some(()));
    }
}

fn addresses(agents: &[Agent]) -> String {
    let addresses: Vec<&str> = agents.iter().map(|agent| agent.address.as_str()).collect();
    addresses.join(",")
}

#[test]
fn four_agents_give_the_same_sums_as_one_process_again_and_again() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let json = |name: &str| dir.path().join(name);
    let alone = run(&pairs(&at, &[SMALL, &["--json", text(&json("alone"))]]));
    assert_eq!(alone.status.code(), Some(0), "{alone:?}");
    let agents = [(); 4].map(|()| Agent::start());
    for name in ["first", "second"] {
        let (names, file) = (addresses(&agents), json(name));
        let ended = run(&pairs(
            &at,
            &[SMALL, &["--agents", &names, "--json", text(&file)]],
        ));
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let report = report(&file);
        assert_eq!(report["tool"]["shares"], 4);
        assert_eq!(sums(&report), sums(&crate::report(&json("alone"))));
    }
}

#[test]
fn an_agent_that_is_killed_is_named_and_the_rest_adds_up() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("a.json");
    let agents = [(); 4].map(|()| Agent::start());
    let names = addresses(&agents);
    let more = ["3", "--agents", &names, "--json", text(&json)];
    let mut load = Process::start(&pairs(&at, &[STEADY, &more]));
    in_the_middle(&broker);
    signal(agents[2].process.pid(), "KILL");
    let ended = load.ended();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let first = ended.out.lines().take(4).collect::<Vec<_>>().join("\n");
    assert!(first.contains(&agents[2].address), "{first}");
    let report = report(&json);
    assert_eq!(
        report["failures"].as_array().map(Vec::len),
        Some(1),
        "{}",
        report["failures"]
    );
    assert_eq!(report["tool"]["shares"], 3);
    let audience = &report["audiences"][0];
    assert_eq!(audience["missing"], 0, "{audience}");
    assert!(audience["expected"].as_u64() > Some(100), "{audience}");
}

#[test]
fn others_at_an_agents_port_are_turned_away_and_the_next_coordinator_is_served() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let agent = Agent::start();
    for (said, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not understood"),
        ("{\"hello\":{\"protocol\":99}}\n", "protocol 99"),
        ("{\"clock\":{}}\n", "no greeting"),
        (&"x".repeat(2_000), "longer than"),
    ] {
        let (mut reader, line) = agent.say(said);
        assert!(
            line.contains("failed") && line.contains(answer),
            "{said}: {line}"
        );
        // It hangs up, politely or not.
        let _ = reader.read_to_end(&mut Vec::new());
    }
    // Somebody who says nothing holds nobody up.
    let _silent = TcpStream::connect(&agent.address).expect("the agent listens");
    let ended = run(&pairs(&at, &[SMALL, &["--agents", &agent.address]]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_second_coordinator_is_refused_until_the_first_has_gone() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let agent = Agent::start();
    let (first, line) = agent.say("{\"hello\":{\"protocol\":5}}\n");
    assert!(line.contains("hello"), "{line}");
    let arguments = pairs(&at, &[SMALL, &["--agents", &agent.address]]);
    let ended = run(&arguments);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(
        ended.err.contains("--agents") && ended.err.contains("busy with a run"),
        "{}",
        ended.err
    );
    drop(first);
    eventually("the agent to be free", || {
        run(&arguments).status.success().then_some(())
    });
}

#[test]
fn an_agent_stops_its_run_when_its_coordinator_dies() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    let agent = Agent::start();
    let load = Process::start(&pairs(
        &at,
        &[STEADY, FOR_EVER, &["--agents", &agent.address]],
    ));
    in_the_middle(&broker);
    signal(load.pid(), "KILL");
    agent.has_said("the coordinator is gone");
    all_left(&broker);
    let ended = run(&pairs(&at, &[SMALL, &["--agents", &agent.address]]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn an_agent_whose_machine_is_not_enough_is_named_before_anything_begins() {
    let agent = Agent::start();
    let arguments = [
        "load",
        "idle",
        "--clients",
        "4000000",
        "--agents",
        &agent.address,
        "--quiet",
    ];
    let ended = run(&arguments);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let last = ended.err.lines().last().expect("a line");
    assert!(
        last.contains(&agent.address) && last.contains("clients"),
        "{last}"
    );
}

#[test]
fn an_agent_may_come_up_later_and_end_after_one_run() {
    let broker = broker();
    let at = broker.mqtt().to_string();
    // An address that no other test uses, so that nobody takes the port in between.
    let free = TcpListener::bind("127.77.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let more = ["--agents", &address, "--agents-wait", "60"];
    let mut load = Process::start(&pairs(&at, &[SMALL, &more]));
    eventually("the coordinator to wait", || {
        load.err().contains("waits up to 60 s").then_some(())
    });
    let mut agent = Process::start(&["load", "agent", "--listen", &address, "--once"]);
    let ended = load.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let ended = agent.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.err.contains("is done"), "{}", ended.err);
}
