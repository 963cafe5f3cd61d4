//! The real binary for one test: started on free ports, asked over HTTP, ended as an operator or a power cut would.
//!
//! Taken in by `#[path = "support/millstream.rs"] mod millstream;`. Nothing here sleeps to hope: what must come is
//! waited for with [`eventually`], up to a deadline.
#![allow(dead_code, reason = "each test takes from this file what it needs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that is no matter of performance. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Writes a configuration into `dir`: patience with a Kafka that was just started on a busy machine, and `lines` with
/// dotted keys. Gives its path.
pub fn configuration(dir: &tempfile::TempDir, lines: &str) -> String {
    let patience = PATIENCE.as_millis();
    let mut text = format!("bridge.start_timeout_ms = {patience}\n");
    for backend in ["chat", "iot", "dashboard"] {
        text.push_str(&format!(
            "{backend}.consumer.start_timeout_ms = {patience}\n"
        ));
    }
    text.push_str(lines);
    let path = dir.path().join("millstream.toml");
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("before the year 500 million")
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it finds nothing within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        std::thread::sleep(LOOK);
    }
}

/// A running process. Dropping it kills it.
pub struct Millstream {
    child: Child,
    out: Output,
    err: Output,
    pub http: String,
    pub mqtt: Option<SocketAddr>,
}

impl Millstream {
    /// Starts `millstream` with `arguments` and waits until it says where it listens. Free ports are given as port 0.
    ///
    /// # Panics
    /// When it ends before that, with what it said.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = Output::of(child.stdout.take().expect("a pipe"));
        let err = Output::of(child.stderr.take().expect("a pipe"));
        let http = eventually("the address of the HTTP server", || {
            if let Some(status) = child.try_wait().expect("its own child") {
                panic!(
                    "millstream {arguments:?} ended with {status}: {} {}",
                    out.text(),
                    err.text()
                );
            }
            // A whole line only: the rest may come later.
            let text = out.text();
            let at = text.find("http://")?;
            let address = text[at..]
                .split_once('/')?
                .1
                .split_once('/')?
                .1
                .split_once('/')?
                .0;
            Some(format!("http://{address}"))
        });
        let mqtt = out.text().split_once("MQTT").map(|(_, rest)| {
            let address = rest
                .split_whitespace()
                .next()
                .expect("an address")
                .trim_end_matches(',');
            address.parse().expect("an address")
        });
        Self {
            child,
            out,
            err,
            http,
            mqtt,
        }
    }

    /// Where MQTT clients connect.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.expect("this command has MQTT")
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// What it has written to standard error so far.
    pub fn err(&self) -> String {
        self.err.text()
    }

    /// The JSON at `path`.
    ///
    /// # Panics
    /// When there is none.
    pub fn json(&self, path: &str) -> Value {
        self.try_json(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}; {}", self.err()))
    }

    /// The JSON at `path`, or why there is none.
    pub fn try_json(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}{path}", self.http);
        let mut response = agent()
            .get(&url)
            .call()
            .map_err(|error| error.to_string())?;
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// The status code and the text at `path`.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = agent()
            .get(format!("{}{path}", self.http))
            .call()
            .unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let code = response.status().as_u16();
        (code, response.body_mut().read_to_string().expect("text"))
    }

    /// Posts JSON and gives the JSON of the answer.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.http);
        let mut response = agent()
            .post(&url)
            .content_type("application/json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("POST {path}: {error}"));
        let text = response.body_mut().read_to_string().expect("text");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("POST {path}: {error}: {text}"))
    }

    /// Puts nothing at `path`.
    pub fn put(&self, path: &str) {
        self.put_json(path, &Value::Null);
    }

    /// Puts JSON at `path`.
    pub fn put_json(&self, path: &str, body: &Value) {
        let url = format!("{}{path}", self.http);
        let response = agent()
            .put(&url)
            .content_type("application/json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("PUT {path}: {error}"));
        assert!(
            response.status().is_success(),
            "PUT {path}: {}",
            response.status()
        );
    }

    /// Ends it as an operator would, and waits for the end.
    pub fn terminate(mut self) -> Ended {
        signal(self.child.id(), "TERM");
        self.ended()
    }

    /// Waits for its end by itself.
    pub fn ended(&mut self) -> Ended {
        let status = eventually("the end of the process", || {
            self.child.try_wait().expect("its own child")
        });
        // The pipes are closed now; the readers have seen their ends when both are done.
        Ended {
            status,
            out: self.out.whole(),
            err: self.err.whole(),
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("its own child");
        self.child.wait().expect("its own child");
    }
}

impl Drop for Millstream {
    fn drop(&mut self) {
        kill_and_tell(&mut self.child, &self.out, &self.err);
    }
}

/// Kills a process that a test leaves behind; what it wrote belongs to a test that fails.
fn kill_and_tell(child: &mut Child, out: &Output, err: &Output) {
    if std::thread::panicking() {
        eprintln!(
            "standard output:\n{}\nstandard error:\n{}",
            out.text(),
            err.text()
        );
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A running process that serves no HTTP. Dropping it kills it.
pub struct Process {
    child: Child,
    out: Output,
    err: Output,
}

impl Process {
    /// Starts `millstream` with `arguments`.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Self {
            out: Output::of(child.stdout.take().expect("a pipe")),
            err: Output::of(child.stderr.take().expect("a pipe")),
            child,
        }
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error so far.
    pub fn err(&self) -> String {
        self.err.text()
    }

    /// Waits for its end by itself.
    pub fn ended(&mut self) -> Ended {
        let status = eventually("the end of the process", || {
            self.child.try_wait().expect("its own child")
        });
        Ended {
            status,
            out: self.out.whole(),
            err: self.err.whole(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_and_tell(&mut self.child, &self.out, &self.err);
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

/// Runs `millstream` with `arguments` to its end.
pub fn run(arguments: &[&str]) -> Ended {
    let output = command(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    Ended {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .expect("kill can be run");
    assert!(sent.success(), "kill -{name} {pid}: {sent}");
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

/// What a process writes, read as it comes so that it never waits for us.
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let into = text.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut text = into.lock().expect("no reader panics");
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no reader panics").clone()
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        self.text()
    }
}

/// `mosquitto_sub` for one test: subscribed when [`Subscriber::start`] returns.
pub struct Subscriber {
    child: Child,
    out: Output,
}

impl Subscriber {
    /// Subscribes to `filters` with QoS 1; each message becomes a line `TOPIC PAYLOAD`.
    pub fn start(mqtt: SocketAddr, filters: &[&str]) -> Self {
        // Without stdbuf what it writes into a pipe comes in blocks. -d writes what happens, too; messages are told
        // apart by their prefix.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "mosquitto_sub", "-d", "-q", "1", "-F", "> %t %p"])
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
