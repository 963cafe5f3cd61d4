//! A command for a device that is not there yet: it waits, on a node that has just been started, and comes once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::clients::Subscriber;
use testkit::eventually;
use testkit::kafka::Kafka;
use testkit::millstream::{Millstream, configuration};

/// How much later than its node the device connects.
const LATER: Duration = Duration::from_secs(2);

fn node(kafka: &Kafka, data: &tempfile::TempDir) -> Millstream {
    let config = configuration(data, "");
    let listen = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let arguments = ["broker", "--kafka", kafka.bootstrap(), "--config", &config];
    Millstream::start(&[&arguments[..], &listen].concat())
}

/// Gives a command, and waits until Kafka has it.
fn command(iot: &Millstream, percent: u32) -> String {
    let args = json!({ "percent": percent });
    let posted = iot.post("/api/devices/kiln/commands/open", &args);
    let id = posted["id"].as_str().expect("an identifier").to_owned();
    eventually("the command in Kafka", || {
        (iot.json(&format!("/api/commands/{id}"))["status"] != "pending").then_some(())
    });
    id
}

/// Whether a line of the node's metrics is there.
fn says(node: &Millstream, line: &str) -> bool {
    node.get("/metrics").1.lines().any(|said| said == line)
}

#[test]
fn a_command_given_while_the_node_is_down_comes_once_to_a_device_that_comes_after_it() {
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let config = configuration(&data, "");
    let database = format!("sqlite:{}", data.path().join("iot.db").display());
    // Kafka knows the node, and its topics are there.
    let ended = node(&kafka, &data).terminate();
    assert!(ended.status.success(), "{}", ended.err);
    let iot = Millstream::start(&[
        "iot",
        "--kafka",
        kafka.bootstrap(),
        "--database",
        &database,
        "--http",
        "127.0.0.1:0",
        "--config",
        &config,
    ]);
    let given = command(&iot, 50);

    let node = node(&kafka, &data);
    let started = Instant::now();
    eventually("the command waits on the node", || {
        says(&node, "millstream_bridge_downlink_held 1").then_some(())
    });
    std::thread::sleep(LATER.saturating_sub(started.elapsed()));
    let device = Subscriber::start(node.mqtt(), &["devices/kiln/commands/#"]);
    device.on("devices/kiln/commands/open");
    // What comes behind it shows that it does not come again.
    let next = command(&iot, 60);
    eventually("the command after it", || {
        let last = device.messages().pop()?.1;
        last.contains(&next).then_some(())
    });
    let came: Vec<Value> = device
        .messages()
        .iter()
        .map(|(_, payload)| serde_json::from_str(payload).expect("JSON"))
        .collect();
    assert_eq!(
        came,
        [
            json!({"id": given, "args": {"percent": 50}}),
            json!({"id": next, "args": {"percent": 60}})
        ]
    );
    eventually("both have their outcome", || {
        let delivered = "millstream_bridge_downlink_outcomes_total{outcome=\"delivered\"} 2";
        says(&node, delivered).then_some(())
    });
    assert!(says(&node, "millstream_bridge_downlink_held 0"));
}
