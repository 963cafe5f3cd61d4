//! A real Apache Kafka for one test: started on free ports, gone when the test ends, however it ends.
//!
//! The work is done by `scripts/kafka.sh`, which fetches Kafka at its first use. A server takes about 5 s to start and 250
//! to 500 MB: tests that only need *a* Kafka share one ([`Kafka::shared`]) and use topic names of their own; only tests
//! that stop or kill it start their own. What tests ask of a Kafka is in `records`.

mod records;

pub use records::{Read, Sent, partition_of};

use crate::far::Far;
use crate::millstream::signal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running (or stopped) Kafka, alone or one broker of a cluster. Dropping it kills the server and deletes its data.
pub struct Kafka {
    dir: PathBuf,
    bootstrap: String,
}

impl Kafka {
    /// Starts a server with empty storage on a free port and waits until it answers.
    ///
    /// # Panics
    /// If it does not start, with what the script said about it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that also has a listener with TLS and one with SASL (PLAIN, user `mill`, password `stream`).
    ///
    /// # Panics
    /// If it does not start, with what the script said about it.
    pub fn start_secure() -> Self {
        Self::start_with(&["--secure", "auto"])
    }

    fn secure_port(&self) -> u16 {
        let port = std::fs::read_to_string(self.dir.join("option.SECURE"));
        let port = port.expect("a secure server");
        port.trim().parse().expect("a port")
    }

    /// The address that wants TLS, of a secure server.
    ///
    /// # Panics
    /// If it is none.
    pub fn tls(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port())
    }

    /// The address that wants SASL, of a secure server.
    ///
    /// # Panics
    /// If it is none.
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port() + 1)
    }

    /// Starts a server that all clients reach by `far` alone.
    ///
    /// # Panics
    /// If it does not start, with what the script said about it.
    pub fn start_behind(far: &Far) -> Self {
        let kafka = Self::start_with(&["--advertise", &far.address().port().to_string()]);
        far.leads_to(kafka.bootstrap.parse().expect("an address"));
        kafka
    }

    /// Starts a cluster of three brokers; the first is the only controller.
    ///
    /// # Panics
    /// If one of them does not start, with what the script said about it.
    pub fn cluster() -> [Self; 3] {
        let first = Self::start_with(&["--replicas", "3"]);
        let join = first.dir.display().to_string();
        let [second, third] = [(); 2].map(|()| Self::start_with(&["--join", &join]));
        [first, second, third]
    }

    /// The same, with the third reached by `far` alone, and none of Kafka's own topics on it.
    ///
    /// # Panics
    /// If one of them does not start, with what the script said about it.
    pub fn cluster_with_one_behind(far: &Far) -> [Self; 3] {
        let first = Self::start_with(&["--replicas", "2"]);
        let join = first.dir.display().to_string();
        let second = Self::start_with(&["--join", &join]);
        // With the first committed offset Kafka makes its topic for them.
        first.make_topics_of_its_own();
        let port = far.address().port().to_string();
        let third = Self::start_with(&["--join", &join, "--advertise", &port]);
        far.leads_to(third.bootstrap.parse().expect("an address"));
        [first, second, third]
    }

    fn start_with(options: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "kafka-{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join("millstream-tests").join(name);
        let pid = std::process::id().to_string();
        let start = ["start", "--port", "auto", "--while", &pid];
        let bootstrap = script(&dir, &[&start[..], options].concat());
        Self { dir, bootstrap }
    }

    /// The server that all tests of this process share; it ends with the process. It must not be stopped.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// `host:port`, as `bootstrap.servers` wants it; the same over stops and starts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where the server lives: the script's `--dir`.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// The broker's number in its cluster.
    ///
    /// # Panics
    /// If its configuration does not say it.
    pub fn id(&self) -> i32 {
        let settings = std::fs::read_to_string(self.dir.join("server.properties"));
        let settings = settings.expect("it was started");
        let mut lines = settings.lines();
        let id = lines.find_map(|line| line.strip_prefix("node.id="));
        id.and_then(|id| id.parse().ok()).expect("a number")
    }

    /// Has the server stand still: its connections stay, and nothing is answered.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    /// Ends that.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    fn pid(&self) -> u32 {
        let pid = std::fs::read_to_string(self.dir.join("pid")).expect("it runs");
        pid.trim().parse().expect("a number")
    }

    /// Ends the server as an operator would, and waits for the end. What it stored stays.
    pub fn stop(&self) {
        script(&self.dir, &["stop"]);
    }

    /// Ends the server as a power cut would (SIGKILL). What it stored stays.
    pub fn kill(&self) {
        script(&self.dir, &["kill"]);
    }

    /// Starts it again after [`Kafka::stop`] or [`Kafka::kill`], on the same address with the same data.
    ///
    /// # Panics
    /// If it does not start, with what the script said about it.
    pub fn start_again(&self) {
        let bootstrap = script(&self.dir, &["start"]);
        assert_eq!(bootstrap, self.bootstrap, "the address must not change");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Of a test that fails the server's log may tell why, so it stays until the process ends.
        if std::thread::panicking() {
            eprintln!("Kafka's log was {}/kafka.log", self.dir.display());
        }
        let _ = Command::new(script_path())
            .arg("kill")
            .arg("--dir")
            .arg(&self.dir)
            .status();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs the script about the server in `dir` and returns its last line.
fn script(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(script_path())
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("scripts/kafka.sh can be run");
    assert!(
        output.status.success(),
        "scripts/kafka.sh {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

/// The script of the checkout in which this test was built, however deep its crate lies.
fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("scripts/kafka.sh"))
        .find(|path| path.exists())
        .expect("scripts/kafka.sh is in the checkout")
}
