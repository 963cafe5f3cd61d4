//! Programs of others: mosquitto's clients, and Python with paho-mqtt. Each ends with its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use super::{DEADLINE, Server, poll};

/// Lines that a program may be ahead of its test.
const LINES_MAX: usize = 10_000;

/// A program whose standard output is read as it comes.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    lines: Receiver<String>,
    /// What it wrote to standard error, to be shown when it fails.
    complaints: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command, input: Option<Vec<u8>>) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; run ./test.sh setup"));
        let (stdin, stdout, stderr) = (
            child.stdin.take().expect("piped"),
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        let (sender, lines) = sync_channel(LINES_MAX);
        let complaints = Arc::new(Mutex::new(String::new()));
        let complain = Arc::clone(&complaints);
        let readers = vec![
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }),
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut text = complain.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                }
            }),
            std::thread::spawn(move || {
                let mut stdin = stdin;
                // A program that ended before it read all says so by its exit code.
                drop(stdin.write_all(&input.unwrap_or_default()));
            }),
        ];
        Self {
            child,
            name,
            lines,
            complaints,
            readers,
        }
    }

    fn complaints(&self) -> String {
        self.complaints.lock().unwrap().clone()
    }

    /// The next line of its output.
    ///
    /// # Panics
    /// When none comes.
    pub fn line(&self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: no line came; {}", self.name, self.complaints())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{}: it ended; {}", self.name, self.complaints())
            }
        }
    }

    /// The next lines of its output.
    pub fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Waits until it ends by itself with exit code 0: the rest of its lines.
    ///
    /// # Panics
    /// When it does not end, or with another code.
    pub fn finish(mut self) -> Vec<String> {
        let (mut rest, complaints) = (Vec::new(), Arc::clone(&self.complaints));
        let (child, lines, name) = (&mut self.child, &self.lines, &self.name);
        let status = poll(
            || {
                rest.extend(lines.try_iter());
                child.try_wait().expect("it is our child")
            },
            || format!("{name} does not end; {}", complaints.lock().unwrap()),
        );
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        rest.extend(self.lines.try_iter());
        let complaints = self.complaints();
        assert!(
            status.success(),
            "{}: {status}; it said {rest:#?}; {complaints}",
            self.name
        );
        rest
    }

    /// Waits until it ends by itself with another exit code than 0.
    ///
    /// # Panics
    /// When it does not.
    pub fn fails(mut self) {
        let (child, name) = (&mut self.child, &self.name);
        let status = poll(
            || child.try_wait().expect("it is our child"),
            || format!("{name} does not end"),
        );
        assert!(!status.success(), "{name} succeeded");
    }

    /// Kills it without a word to anybody (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn mosquitto(program: &str, server: &Server, version: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &server.port.to_string()])
        .args(["-V", version])
        .args(arguments);
    command
}

/// Starts a program of mosquitto's with these words.
pub fn mosquitto_at(program: &str, words: &[String]) -> Process {
    let mut command = Command::new(program);
    command.args(words);
    Process::start(command, None)
}

/// Starts mosquitto_sub. It is not subscribed yet: see [`Server::until_subscribed`].
pub fn mosquitto_sub(server: &Server, version: &str, arguments: &[&str]) -> Process {
    Process::start(mosquitto("mosquitto_sub", server, version, arguments), None)
}

/// Starts mosquitto_rr, which publishes a request and waits for the response.
pub fn mosquitto_rr(server: &Server, version: &str, arguments: &[&str]) -> Process {
    Process::start(mosquitto("mosquitto_rr", server, version, arguments), None)
}

/// Runs mosquitto_pub to its end.
pub fn mosquitto_pub(server: &Server, version: &str, arguments: &[&str]) {
    mosquitto_pub_input(server, version, arguments, Vec::new());
}

/// Runs mosquitto_pub with `input` as its standard input.
pub fn mosquitto_pub_input(server: &Server, version: &str, arguments: &[&str], input: Vec<u8>) {
    Process::start(
        mosquitto("mosquitto_pub", server, version, arguments),
        Some(input),
    )
    .finish();
}

/// Runs mosquitto_sub until it has got one message: its output as it is. `then` runs once it is started.
pub fn mosquitto_sub_bytes(
    server: &Server,
    version: &str,
    arguments: &[&str],
    then: impl FnOnce(),
) -> Vec<u8> {
    let mut child = mosquitto("mosquitto_sub", server, version, arguments)
        .args(["-N", "-C", "1", "-W", &DEADLINE.as_secs().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub is installed; run ./test.sh setup");
    then();
    let mut output = Vec::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_end(&mut output).expect("its output is read");
    assert!(child.wait().expect("it is our child").success());
    output
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Python with the packages that the tests need. It makes its environment when it is missing, which needs the
/// network: once, and by `./test.sh setup`.
fn python() -> Command {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    let script = repository().join("scripts/python.sh");
    let ready = READY.get_or_init(|| {
        let output = Command::new(&script)
            .args(["-c", "import paho.mqtt.client"])
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    });
    if let Err(why) = ready {
        panic!("paho-mqtt for Python is missing; run ./test.sh setup ({why})");
    }
    Command::new(script)
}

/// Starts `paho/{scenario}.py` with the port and the version ("3.1.1" or "5").
pub fn paho(server: &Server, scenario: &str, version: &str) -> Process {
    Process::start(paho_command(server.port, scenario, version), None)
}

/// The same over WebSocket.
pub fn paho_websocket(port: u16, path: &str, scenario: &str, version: &str) -> Process {
    let mut command = paho_command(port, scenario, version);
    command.env("WEBSOCKET_PATH", path);
    Process::start(command, None)
}

fn paho_command(port: u16, scenario: &str, version: &str) -> Command {
    let mut command = python();
    command
        .arg("-B") // no bytecode into the source tree
        .arg(repository().join(format!("broker/tests/wire/paho/{scenario}.py")))
        .args([port.to_string().as_str(), version]);
    command
}

/// Starts `mqttjs/talk.mjs`, which believes certificates of the authority in the file `ca`. Its packages are fetched when
/// they are missing, which needs the network: once, and by `./test.sh setup`.
pub fn mqttjs(url: &str, version: &str, ca: &Path) -> Process {
    static READY: OnceLock<()> = OnceLock::new();
    let project = repository().join("broker/tests/wire/mqttjs");
    READY.get_or_init(|| {
        if !project.join("node_modules/mqtt/package.json").exists() {
            let status = Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--silent", "--prefix"])
                .arg(&project)
                .status();
            let status = status.expect("npm is installed; run ./test.sh setup");
            assert!(status.success(), "MQTT.js is missing; run ./test.sh setup");
        }
    });
    let mut command = Command::new("node");
    command
        .arg(project.join("talk.mjs"))
        .args([url, version])
        .env("NODE_EXTRA_CA_CERTS", ca);
    Process::start(command, None)
}
