//! What operators build on: counters that alerts name are there before anything went wrong, the process is measured, and the log
//! can be read by machines.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::clients::publish;
use testkit::eventually;
use testkit::millstream::Millstream;

/// Prometheus' own opinion of names, units and help.
#[test]
fn promtool_has_nothing_against_the_metrics() {
    let node = Millstream::start(&["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    publish(node.mqtt(), "rooms/lobby/messages", "no JSON");
    let (_, metrics) = node.get("/metrics");
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("promtool is not there: ./test.sh setup installs it (Debian: prometheus)");
        return;
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(input);
    let judged = promtool.wait_with_output().expect("its own child");
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success() && said.is_empty(), "{said}");
}

#[test]
fn what_alerts_name_is_there_from_the_start() {
    let node = Millstream::start(&["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let (_, metrics) = node.get("/metrics");
    let documented = include_str!("../docs/OPERATIONS.md");
    let alerts = documented
        .split_once("What to alert on:")
        .and_then(|(_, rest)| rest.split_once("\n## "))
        .expect("the table of alerts")
        .0;
    let names: Vec<&str> = alerts
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("millstream_"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    let has = |metrics: &str, name: &str| {
        let mut lines = metrics.lines();
        lines.any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    };
    for name in names {
        if name.ends_with("_total") {
            assert!(has(&metrics, name), "{name} is missing in {metrics}");
        } else {
            // A gauge that is not known yet, such as the lag, is not said.
            eventually(name, || has(&node.get("/metrics").1, name).then_some(()));
        }
    }
    for class in ["NotJson", "BadLength"] {
        let zero = metrics.lines().any(|line| {
            line.starts_with("millstream_consumer_dead_letters_total{class=\"")
                && line.contains(class)
                && line.contains("chat.messages")
                && line.ends_with("} 0")
        });
        assert!(zero, "no 0 for {class} in {metrics}");
    }
    let open_files = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_open_fds "))
        .expect("the process is measured");
    assert!(open_files.parse::<f64>().expect("a number") > 10.0);
    // What is poison is counted by its kind.
    publish(node.mqtt(), "rooms/lobby/messages", "no JSON");
    eventually("the dead letter", || {
        let (_, metrics) = node.get("/metrics");
        metrics
            .lines()
            .any(|line| line.contains("class=\"NotJson\"") && line.ends_with("} 1"))
            .then_some(())
    });
}

#[test]
fn how_long_things_take_is_told() {
    let node = Millstream::start(&["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    publish(
        node.mqtt(),
        "rooms/lobby/messages",
        r#"{"id":"m-1","from":"alice","text":"hello"}"#,
    );
    for name in [
        "millstream_broker_acknowledgement_seconds",
        "millstream_bridge_produce_seconds",
        "millstream_consumer_handle_seconds",
    ] {
        eventually(name, || {
            let (_, metrics) = node.get("/metrics");
            assert!(
                metrics.contains(&format!("# TYPE {name} histogram")),
                "{name} is missing in {metrics}"
            );
            let count = metrics.lines().find_map(|line| {
                let (labels, count) = line.strip_prefix(name)?.rsplit_once(' ')?;
                labels.starts_with("_count").then_some(count)
            });
            (count.expect("a count").parse::<f64>().expect("a number") >= 1.0).then_some(())
        });
    }
    let (_, metrics) = node.get("/metrics");
    assert!(
        metrics.contains("millstream_broker_delivery_seconds_count 0\n"),
        "nobody subscribed: {metrics}"
    );
}

#[test]
fn a_log_for_machines_is_an_object_a_line() {
    let node = Millstream::start(&[
        "broker",
        "--mqtt",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]);
    publish(node.mqtt(), "$own/topic", "x");
    let ended = node.terminate();
    let lines: Vec<Value> = ended
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let denied = lines
        .iter()
        .find(|line| line["fields"]["rule"] == "reserved-topic")
        .unwrap_or_else(|| panic!("no refusal in {lines:?}"));
    assert_eq!(denied["level"], "INFO");
    assert_eq!(denied["fields"]["topic"], "$own/topic");
}
