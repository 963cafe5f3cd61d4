//! Access rules from the configuration file, on the real binary: the start says what is in force, and what is refused is in
//! the log and in the metrics.

use testkit::clients::publish;
use testkit::eventually;
use testkit::millstream::{Millstream, configuration};

const RULES: &str = r#"
[[broker.access.rules]]
effect = "deny"
action = "publish"
filter = "secret/#"
name = "no-secrets"

[[broker.access.rules]]
effect = "allow"
action = "publish"
filter = "rooms/#"
"#;

#[test]
fn what_is_refused_is_in_the_log_and_in_the_metrics() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = configuration(&directory, RULES);
    let node = Millstream::start(&[
        "broker",
        "--config",
        &file,
        "--mqtt",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    eventually("the default in force", || {
        node.out()
            .contains("access: 2 rules; else connect is allowed, publish denied, subscribe allowed")
            .then_some(())
    });
    // mosquitto_pub speaks 3.1.1: all of these are acknowledged.
    for topic in ["secret/a", "secret/b", "other", "rooms/1"] {
        publish(node.mqtt(), topic, "x");
    }
    let (_, metrics) = node.get("/metrics");
    for line in [
        "millstream_broker_access_denied_total{action=\"publish\",rule=\"no-secrets\"} 2",
        "millstream_broker_access_denied_total{action=\"publish\",rule=\"default\"} 1",
        "millstream_broker_access_denied_total{action=\"publish\",rule=\"rules[1]\"} 0",
        "millstream_broker_publishes_denied_total{reason=\"access\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    let log = node.err();
    let denied = log
        .lines()
        .find(|line| line.contains("no-secrets"))
        .unwrap_or_else(|| panic!("no line about the rule in {log}"));
    assert!(
        denied.contains("secret/a") && denied.contains("publish"),
        "{denied}"
    );
    assert!(log.contains("passwords are not checked"), "{log}");
}
