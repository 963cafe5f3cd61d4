//! A backend as a process of its own, so that a test can kill it as a power cut would: the test program runs itself again,
//! with nothing but an ignored test that is the backend.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Carries the backend's configuration, as JSON.
const CONFIG: &str = "MILLSTREAM_TEST_CONFIG";

/// What the process prints when the backend has started.
const STARTED: &str = "the backend has started";

/// The process. Dropping it kills it.
pub struct Process(Child);

impl Process {
    /// Runs the ignored test `name` with `config` and waits until the backend has started.
    pub fn start(name: &str, config: &impl serde::Serialize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([name, "--exact", "--ignored", "--nocapture"])
            .env(CONFIG, serde_json::to_string(config).expect("JSON"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let started = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains(STARTED));
        assert!(started, "the backend's process ended before it had started");
        Self(child)
    }

    /// Kills it: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.0.kill().expect("can be killed");
        self.0.wait().expect("ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the ignored test: the configuration, or `None` when somebody runs ignored tests for themselves.
pub fn config<C: serde::de::DeserializeOwned>() -> Option<C> {
    let json = std::env::var(CONFIG).ok()?;
    Some(serde_json::from_str(&json).expect("the configuration that the test wrote"))
}

/// In the ignored test: says that the backend has started, and waits to be killed.
pub async fn started() {
    println!("{STARTED}");
    std::future::pending::<()>().await;
}
