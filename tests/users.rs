//! Users and passwords on the real binary, with mosquitto's clients: who is let in, who is not and hears why, and what becomes
//! of a password file that changes under a running node.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use testkit::eventually;
use testkit::millstream::{Millstream, configuration, run, signal};

fn passwd(file: &Path, arguments: &[&str]) -> String {
    let file = file.display().to_string();
    let ended = run(&[&["passwd", &file], arguments].concat());
    assert!(ended.status.success(), "{ended:?}");
    ended.out
}

fn node(arguments: &[&str]) -> Millstream {
    let own = ["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    Millstream::start(&[&own, arguments].concat())
}

/// Publishes once by mosquitto_pub: its exit code, which for 3.1.1 is the CONNACK's return code, and what it says.
fn publish(node: &Millstream, version: &str, credentials: &[&str]) -> (i32, String) {
    let output = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &node.mqtt().port().to_string()])
        .args(["-V", version, "-q", "1", "-t", "t", "-m", "x"])
        .args(credentials)
        .output()
        .expect("mosquitto_pub can be run (Debian: mosquitto-clients)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("a code"), said)
}

#[test]
fn users_of_a_password_file_come_in_and_nobody_else_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("users");
    assert!(passwd(&file, &["ada", "-b", "hunter2"]).contains("added"));
    let path = file.display().to_string();
    let node = node(&["--password-file", &path]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let right = publish(&node, version, &["-u", "ada", "-P", "hunter2"]);
        assert_eq!(right.0, 0, "{version}: {right:?}");
        let word = |v5, v3| if version == "mqttv5" { v5 } else { v3 };
        for (credentials, code) in [
            (&["-u", "ada", "-P", "hunter3"][..], word(134, 4)),
            (&["-u", "bob", "-P", "hunter2"], word(134, 4)),
            (&["-u", "ada"], word(134, 4)),
            (&[], word(135, 5)),
        ] {
            let refused = publish(&node, version, credentials);
            assert_eq!(refused.0, code, "{version} {credentials:?}: {refused:?}");
        }
    }
    let (_, metrics) = node.get("/metrics");
    for line in [
        "millstream_broker_clients_refused_credentials_total 9",
        "millstream_broker_clients_refused_identity_total 3",
        "millstream_broker_clients_asked 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    let log = node.err();
    assert!(log.contains("the password is wrong"), "{log}");
    assert!(!log.contains("hunter"), "a password is in the log: {log}");
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_one_is_a_problem() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("users");
    passwd(&file, &["ada", "-b", "hunter2"]);
    let config = configuration(
        &directory,
        &format!(
            "[broker.authentication]\nchain = [\"file\"]\nlook_interval_ms = 3600000\n\
             [broker.authentication.file]\npath = \"{}\"\n",
            file.display()
        ),
    );
    let node = node(&["--config", &config]);
    let code = |user, password| publish(&node, "mqttv311", &["-u", user, "-P", password]).0;
    assert_eq!((code("ada", "hunter2"), code("bob", "b")), (0, 4));
    assert!(passwd(&file, &["bob", "-b", "b"]).contains("added"));
    assert!(passwd(&file, &["ada", "-b", "new"]).contains("changed"));
    assert_eq!(
        (code("ada", "hunter2"), code("bob", "b")),
        (0, 4),
        "nobody has read it again"
    );
    signal(node.pid(), "HUP");
    eventually("the new file", || (code("bob", "b") == 0).then_some(()));
    assert_eq!((code("ada", "hunter2"), code("ada", "new")), (4, 0));
    let problems = || node.json("/api/status")["problems"].to_string();
    assert_eq!(problems(), "[]");
    // An editor is at it.
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, &text[..text.len() - 9]).expect("half of it");
    signal(node.pid(), "HUP");
    eventually("the problem", || problems().contains("users").then_some(()));
    assert_eq!((code("ada", "new"), code("bob", "b")), (0, 0));
    assert_eq!(node.get("/health/ready").0, 200, "it does its work");
    std::fs::write(&file, &text).expect("the whole");
    assert!(passwd(&file, &["bob", "-D"]).contains("taken out"));
    signal(node.pid(), "HUP");
    eventually("no problem", || (problems() == "[]").then_some(()));
    assert_eq!(code("bob", "b"), 4);
    let ended = node.terminate();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_start_that_would_let_strangers_in_is_refused_unless_somebody_said_so() {
    let open = ["--mqtt", "0.0.0.0:0", "--http", "127.0.0.1:0"];
    for command in ["broker", "up"] {
        let ended = run(&[&[command][..], &open].concat());
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        for part in ["--password-file FILE", "--anonymous", "0.0.0.0:0"] {
            assert!(ended.err.contains(part), "{ended:?}");
        }
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    }
    let missing = run(&[&["broker", "--password-file", "/no/such/users"][..], &open].concat());
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(missing.err.contains("/no/such/users"), "{missing:?}");
    let node = Millstream::start(&[&["broker", "--anonymous"][..], &open].concat());
    assert_eq!(publish(&node, "mqttv5", &[]).0, 0);
}

#[test]
fn names_from_strangers_are_never_raw_in_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("users");
    passwd(&file, &["ada", "-b", "hunter2"]);
    let path = file.display().to_string();
    let node = node(&["--password-file", &path, "--log", "debug"]);
    for name in [
        "a\n2026-01-01 INFO all is well",
        "\u{1b}[2J\u{1b}[31mred",
        "+/#\u{7}\r",
    ] {
        let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010, 0, 0];
        for field in [name, name, "x"] {
            connect.extend(u16::try_from(field.len()).expect("short").to_be_bytes());
            connect.extend(field.as_bytes());
        }
        let mut bytes = vec![0x10, u8::try_from(connect.len()).expect("short")];
        bytes.append(&mut connect);
        let mut client = TcpStream::connect(node.mqtt()).expect("a connection");
        client.write_all(&bytes).expect("written");
        let mut answer = Vec::new();
        client
            .read_to_end(&mut answer)
            .expect("an answer and the end");
        assert_eq!(answer, [0x20, 2, 0, 4]);
    }
    let log = eventually("the refusals in the log", || {
        let log = node.err();
        log.contains("not let in").then_some(log)
    });
    let is_raw = |c: char| c.is_control() && c != '\n';
    assert!(!log.contains(is_raw), "{log:?}");
    assert!(
        !log.lines()
            .any(|line| line.starts_with("2026-01-01 INFO all")),
        "{log}"
    );
    assert!(log.contains("\\n2026-01-01 INFO all is well"), "{log}");
}

#[test]
fn a_password_file_is_edited_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("users");
    let path = file.display().to_string();
    passwd(
        &file,
        &[
            "ada", "-b", "x", "--tenant", "acme", "--group", "a", "--group", "b",
        ],
    );
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(
        text.starts_with("ada:$argon2id$") && text.ends_with(":tenant=acme:groups=a,b\n"),
        "{text}"
    );
    for (arguments, said) in [
        (&["a:b", "-b", "x"][..], "no name of a user"),
        (&["bob", "-D"], "no user \"bob\""),
        (&["bob", "-b", ""], "1 to 1024 bytes"),
        (&["bob"], "1 to 1024 bytes"),
    ] {
        let ended = run(&[&["passwd", &path], arguments].concat());
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.err.contains(said), "{ended:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), text);
}
