//! The real binary for one test: started on free ports, asked over HTTP, ended as an operator or a power cut would.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::http::agent;
use crate::{PATIENCE, eventually};

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

/// A running process. Dropping it kills it.
pub struct Millstream {
    child: Child,
    out: Output,
    err: Output,
    /// Where its HTTP server listens: `http://HOST:PORT`.
    pub http: String,
    /// Where MQTT clients connect, if its command has MQTT.
    pub mqtt: Option<SocketAddr>,
}

impl Millstream {
    /// Starts `millstream` with `arguments` and waits until it says where it listens. Free ports are given as port 0.
    ///
    /// # Panics
    /// When it ends before that, with what it said.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(command(arguments), arguments)
    }

    /// The same, with variables in its environment.
    ///
    /// # Panics
    /// As [`Millstream::start`].
    pub fn start_with_environment(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.envs(environment.iter().copied());
        Self::start_as(command, arguments)
    }

    /// The same, with so many open files allowed: `SOFT:HARD`.
    ///
    /// # Panics
    /// As [`Millstream::start`].
    pub fn start_with_files(files: &str, arguments: &[&str]) -> Self {
        Self::start_limited(&format!("--nofile={files}"), arguments)
    }

    /// The same, with an option of `prlimit` that says what is allowed.
    ///
    /// # Panics
    /// As [`Millstream::start`].
    pub fn start_limited(limit: &str, arguments: &[&str]) -> Self {
        let millstream = command(arguments);
        let mut limited = Command::new("prlimit");
        limited
            .arg(limit)
            .arg(millstream.get_program())
            .args(millstream.get_args());
        Self::start_as(limited, arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
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
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it wrote to standard output.
    pub out: String,
    /// All that it wrote to standard error.
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

/// The binary that belongs to this test: cargo names it to the tests of the crate that builds it; a test program that was
/// started without cargo finds it where it lies itself.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("CARGO_BIN_EXE_millstream").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| {
        let program = std::env::current_exe().expect("this program has a path");
        let deps = program.parent().expect("a directory");
        deps.with_file_name("millstream")
    });
    assert!(
        binary.exists(),
        "{} is missing: cargo build",
        binary.display()
    );
    binary
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
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

/// What a process writes, read as it comes so that it never waits for us.
pub(crate) struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Output {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
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

    pub(crate) fn text(&self) -> String {
        self.text.lock().expect("no reader panics").clone()
    }

    pub(crate) fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        self.text()
    }
}
