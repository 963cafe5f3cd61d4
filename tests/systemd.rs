//! What the process says to systemd, heard on a socket in its place; and the unit file, where systemd can judge it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::PATIENCE;
use testkit::millstream::{Millstream, configuration, signal};

/// The socket on which the process believes systemd to listen.
struct Systemd {
    socket: UnixDatagram,
    path: String,
    _directory: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a socket");
        Self {
            socket,
            path: path.to_str().expect("UTF-8").to_owned(),
            _directory: directory,
        }
    }

    /// Waits for a message that has `line` in it: that message. What comes before it is heard, too.
    fn hears(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let mut message = [0; 4_096];
            let Ok(length) = self.socket.recv(&mut message) else {
                continue;
            };
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.lines().any(|said| said == line) {
                return message;
            }
            heard.push(message);
        }
        panic!("{line} was never said; heard {heard:?}");
    }
}

#[test]
fn systemd_hears_when_it_serves_reloads_lives_and_drains() {
    let systemd = Systemd::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = configuration(&directory, "");
    let mut node = Millstream::start_with_environment(
        &[
            ("NOTIFY_SOCKET", &systemd.path),
            ("WATCHDOG_USEC", "200000"),
        ],
        &[
            "broker",
            "--config",
            &file,
            "--mqtt",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ],
    );
    systemd.hears("READY=1");
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1");
    }
    signal(node.pid(), "HUP");
    let reloading = systemd.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    systemd.hears("READY=1");
    signal(node.pid(), "TERM");
    systemd.hears("STOPPING=1");
    assert_eq!(node.ended().status.code(), Some(0));
}

#[test]
fn a_start_that_fails_never_says_that_it_serves() {
    let systemd = Systemd::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address").to_string();
    let ended = Command::new(testkit::millstream::binary())
        .args(["broker", "--mqtt", "127.0.0.1:0", "--http", &taken])
        .env("NOTIFY_SOCKET", &systemd.path)
        .output()
        .expect("the binary starts");
    assert_eq!(ended.status.code(), Some(2));
    let mut message = [0; 64];
    assert!(systemd.socket.recv(&mut message).is_err());
}

#[test]
fn the_unit_file_is_one() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/millstream.service");
    let text = std::fs::read_to_string(&unit).expect("the unit file");
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "RestartPreventExitStatus=2",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing");
    }
    // systemd looks whether the program is there.
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("millstream.service");
    let binary = testkit::millstream::binary();
    let binary = binary.to_str().expect("UTF-8");
    std::fs::write(&copy, text.replace("/usr/local/bin/millstream", binary)).expect("a file");
    let Ok(judged) = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
    else {
        return; // no systemd on this machine
    };
    let said = String::from_utf8_lossy(&judged.stderr);
    let of_ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("millstream"))
        .collect();
    assert!(judged.status.success() && of_ours.is_empty(), "{said}");
}
