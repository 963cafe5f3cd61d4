//! Clients that are not ours, for tests end to end: `mosquitto_sub`, `mosquitto_pub` and `kcat`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::eventually;
use crate::millstream::Output;

/// `mosquitto_sub` for one test: subscribed when [`Subscriber::start`] returns.
pub struct Subscriber {
    child: Child,
    out: Output,
}

impl Subscriber {
    /// Subscribes to `filters` with QoS 1; each message becomes a line `TOPIC PAYLOAD`.
    pub fn start(mqtt: SocketAddr, filters: &[&str]) -> Self {
        Self::with(mqtt, &[], filters)
    }

    /// The same with a client identifier, whose session the broker keeps when this one is dropped.
    pub fn kept(mqtt: SocketAddr, client_id: &str, filters: &[&str]) -> Self {
        Self::with(mqtt, &["-c", "-i", client_id], filters)
    }

    fn with(mqtt: SocketAddr, options: &[&str], filters: &[&str]) -> Self {
        // Without stdbuf what it writes into a pipe comes in blocks. -d writes what happens, too; messages are told
        // apart by their prefix.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "mosquitto_sub", "-d", "-q", "1", "-F", "> %t %p"])
            .args(options)
            .args(address(mqtt));
        for filter in filters {
            command.args(["-t", filter]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub can be run (Debian: mosquitto-clients)");
        let out = Output::of(child.stdout.take().expect("a pipe"));
        let subscriber = Self { child, out };
        eventually("mosquitto_sub's subscription", || {
            subscriber
                .out
                .text()
                .contains("Subscribed (mid:")
                .then_some(())
        });
        subscriber
    }

    /// The messages so far.
    pub fn messages(&self) -> Vec<(String, String)> {
        let text = self.out.text();
        text.lines()
            .filter_map(|line| line.strip_prefix("> ")?.split_once(' '))
            .map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
            .collect()
    }

    /// The first message on `topic`, waited for.
    pub fn on(&self, topic: &str) -> String {
        eventually(&format!("a message on {topic}"), || {
            self.messages()
                .into_iter()
                .find_map(|(other, payload)| (other == topic).then_some(payload))
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("mosquitto_sub:\n{}", self.out.text());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes `payload` with QoS 1 by `mosquitto_pub`, and waits for the acknowledgement.
pub fn publish(mqtt: SocketAddr, topic: &str, payload: &str) {
    publish_lines(mqtt, topic, payload);
}

/// Publishes each line with QoS 1 by one `mosquitto_pub`, and waits for all acknowledgements.
pub fn publish_lines(mqtt: SocketAddr, topic: &str, lines: &str) {
    let mut child = Command::new("mosquitto_pub")
        .args(["-q", "1", "-l", "-t", topic])
        .args(address(mqtt))
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub can be run (Debian: mosquitto-clients)");
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "{lines}").expect("mosquitto_pub reads");
    drop(input);
    let status = child.wait().expect("its own child");
    assert!(status.success(), "mosquitto_pub: {status}");
}

fn address(mqtt: SocketAddr) -> [String; 4] {
    [
        "-h".into(),
        mqtt.ip().to_string(),
        "-p".into(),
        mqtt.port().to_string(),
    ]
}

/// The values of a Kafka topic from its beginning to its end now, by `kcat`.
pub fn kafka_values(bootstrap: &str, topic: &str) -> Vec<String> {
    kafka_records(bootstrap, topic, "%s\n")
}

/// The records of a Kafka topic from its beginning to its end now, one line each, in `kcat`'s format `format`.
pub fn kafka_records(bootstrap: &str, topic: &str, format: &str) -> Vec<String> {
    let output = Command::new("kcat")
        .args([
            "-b",
            bootstrap,
            "-C",
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            format,
        ])
        .output()
        .expect("kcat can be run");
    assert!(
        output.status.success(),
        "kcat: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Appends one record to a Kafka topic by `kcat`, past the bridge.
pub fn kafka_append(
    bootstrap: &str,
    topic: &str,
    key: &str,
    value: &str,
    headers: &[(&str, &str)],
) {
    let mut command = Command::new("kcat");
    command.args(["-b", bootstrap, "-P", "-t", topic, "-k", key]);
    for (name, value) in headers {
        command.args(["-H", &format!("{name}={value}")]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat can be run");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(value.as_bytes()).expect("kcat reads");
    drop(input);
    assert!(child.wait().expect("its own child").success());
}
