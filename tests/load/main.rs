//! `millstream load` as people and scripts use it: the real binary, exit codes and first lines, reports that can be read,
//! processes and agents that die in mid-run.

mod agents;
mod backends;
mod begin;
mod runs;
mod ways;

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use testkit::eventually;
use testkit::millstream::{Ended, Millstream};

/// Ten pairs, 200 messages a second, a second: as small as it can be and still have a second of everything.
const SMALL: &[&str] = &[
    "--clients",
    "20",
    "--rate",
    "200",
    "--seconds",
    "1",
    "--warm-up",
    "0.2",
    "--quiet",
];

/// As many clients, measured from the first message on for as long as a test says.
const STEADY: &[&str] = &[
    "--clients",
    "20",
    "--rate",
    "200",
    "--quiet",
    "--warm-up",
    "0",
    "--seconds",
];

/// Longer than any test waits.
const FOR_EVER: &[&str] = &["3600"];

/// A broker on free ports.
fn broker() -> Millstream {
    Millstream::start(&["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"])
}

/// The arguments of a run of `pairs` on the broker.
fn pairs<'a>(at: &'a str, more: &[&[&'a str]]) -> Vec<&'a str> {
    [&["load", "pairs", "--broker", at], &more.concat()[..]].concat()
}

/// Waits until the broker has got so many messages more: the run is in its middle.
fn in_the_middle(broker: &Millstream) {
    let before = received(broker);
    eventually("messages at the broker", || {
        (received(broker) > before + 20).then_some(())
    });
}

/// Publishes that the broker has got.
fn received(broker: &Millstream) -> u64 {
    let (_, text) = broker.get("/metrics");
    text.lines()
        .filter(|line| line.starts_with("millstream_broker_publishes_received_total"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// Waits until nobody is connected to the broker.
fn all_left(broker: &Millstream) {
    eventually("the end of all connections", || {
        let (_, text) = broker.get("/metrics");
        text.lines()
            .any(|line| line == "millstream_broker_clients 0")
            .then_some(())
    });
}

/// An address at which nobody answers.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

fn report(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What must be the same however many processes share the clients.
fn sums(report: &Value) -> Vec<u64> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let (stream, audience) = (&report["streams"][0], &report["audiences"][0]);
    let mut sums: Vec<u64> = ["due", "sent", "acknowledged", "unanswered"]
        .iter()
        .map(|key| number(&stream[key]))
        .collect();
    sums.extend(
        [
            "subscribers",
            "expected",
            "delivered",
            "missing",
            "duplicates",
            "out_of_order",
        ]
        .iter()
        .map(|key| number(&audience[key])),
    );
    sums.extend(
        ["clients", "accepted", "granted"]
            .iter()
            .map(|key| number(&report["connects"][key])),
    );
    sums
}

/// The first line of the report.
fn verdict(ended: &Ended) -> &str {
    ended.out.lines().next().unwrap_or_default()
}
