//! Several listeners of the real binary, under TLS: what it says of them, certificates that change, and starts that are refused.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::eventually;
use testkit::millstream::{Millstream, configuration, run, signal};

const LISTENERS: &str = r#"
[http]
broker = "127.0.0.1:0"

[[broker.listeners]]
name = "here"
address = "127.0.0.1:0"

[[broker.listeners]]
name = "secure"
address = "127.0.0.1:0"
transport = "tls"
tls = { certificate = "DIR/server.pem", key = "DIR/server.key" }
"#;

fn openssl(dir: &Path, words: &str) {
    let output = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl {words}: {output:?}");
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Who vouches for certificates, in `NAME.pem` and `NAME.key`.
fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &format!("req -x509 {KEY} -subj /CN={name} -keyout {name}.key -out {name}.pem"),
    );
}

/// A certificate for localhost and its key, in `NAME.pem` and `NAME.key`.
fn issue(dir: &Path, authority: &str, name: &str) {
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
    openssl(
        dir,
        &format!("req {KEY} -subj /CN=localhost -keyout {name}.key -out csr"),
    );
    openssl(
        dir,
        &format!(
            "x509 -req -in csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -extfile names -out {name}.pem"
        ),
    );
}

fn listener(node: &Millstream, name: &str) -> Value {
    let status = node.json("/api/status");
    let listeners = status["listeners"].as_array().expect("a list");
    let listener = listeners.iter().find(|listener| listener["name"] == name);
    listener.expect("one of that name").clone()
}

/// Publishes by mosquitto_pub under TLS, asking for this name: whether that went well.
fn publishes(node: &Millstream, dir: &Path, authority: &str) -> bool {
    let authority = format!("{authority}.pem");
    let address = listener(node, "secure")["address"]
        .as_str()
        .expect("text")
        .to_owned();
    let (_, port) = address.rsplit_once(':').expect("a port");
    let output = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", port, "--cafile"])
        .arg(dir.join(authority))
        .args(["-t", "t", "-q", "1", "-m", "x"])
        .output()
        .expect("mosquitto_pub is installed; run ./test.sh setup");
    output.status.success()
}

#[test]
fn listeners_are_shown_and_their_certificates_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    for name in ["first", "second"] {
        authority(path, name);
    }
    issue(path, "first", "server");
    let put = |from: &str, file: &str| {
        std::fs::copy(path.join(from), path.join(file)).expect("a copy");
    };
    let text = LISTENERS.replace("DIR", &path.display().to_string());
    let file = configuration(&dir, &text);
    let node = Millstream::start(&["broker", "--config", &file]);

    let here = node.mqtt().to_string();
    assert_eq!(
        listener(&node, "here")["address"],
        here,
        "the plain one is the one that is shown first"
    );
    assert!(publishes(&node, path, "first"));
    assert!(!publishes(&node, path, "second"));
    let secure = listener(&node, "secure");
    assert_eq!(secure["transport"], "tls");
    assert_eq!(secure["certificates"][0]["names"][0], "localhost");
    assert!(
        node.out().contains("listener secure on 127.0.0.1:"),
        "{}",
        node.out()
    );
    let (_, metrics) = node.get("/metrics");
    for line in [
        "millstream_broker_listener_accepted_total{listener=\"secure\"} 2",
        "millstream_broker_listener_connections{listener=\"here\"} 0",
        "millstream_broker_listener_certificates_refused{listener=\"secure\"} 0",
        "millstream_broker_certificate_expiry_timestamp_seconds{",
        "millstream_broker_connections_closed_by_reason_total{reason=\"layer\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    // The certificate without its key: the old ones stay, and a reload changes nothing.
    issue(path, "second", "other");
    put("other.pem", "server.pem");
    signal(node.pid(), "HUP");
    eventually("a line that says so", || {
        let says = node.err().contains("is not that of the certificate");
        (says && node.err().contains("nothing was changed")).then_some(())
    });
    assert!(publishes(&node, path, "first"));
    put("other.key", "server.key");
    signal(node.pid(), "HUP");
    eventually("the new certificate", || {
        publishes(&node, path, "second").then_some(())
    });
    assert!(!publishes(&node, path, "first"));
    // Without a signal they are looked at by themselves.
    issue(path, "first", "again");
    put("again.key", "server.key");
    put("again.pem", "server.pem");
    eventually("the certificate of before", || {
        publishes(&node, path, "first").then_some(())
    });
    assert_eq!(node.terminate().status.code(), Some(0));
}

#[test]
fn a_start_that_would_open_the_node_by_an_oversight_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = |arguments: &[&str], parts: &[&str]| {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        for part in parts {
            assert!(ended.err.contains(part), "{:?} lacks {part:?}", ended.err);
        }
    };
    let http = ["--http", "127.0.0.1:0"];
    for command in ["broker", "up"] {
        let open = [&[command, "--mqtt", "0.0.0.0:0"][..], &http].concat();
        says(&open, &["broker.listen", "--anonymous", "0.0.0.0:0"]);
    }
    let text = LISTENERS.replace("DIR", &dir.path().display().to_string());
    let file = configuration(&dir, &text);
    let beside = ["broker", "--config", &file, "--mqtt", "127.0.0.1:0"];
    says(&beside, &["--mqtt", "[[broker.listeners]]"]);
    says(
        &["broker", "--config", &file],
        &["\"secure\"", "server.pem"],
    );
    let text = text.replace("127.0.0.1:0\"\ntransport", "0.0.0.0:0\"\ntransport");
    let file = configuration(&dir, &text);
    says(
        &["broker", "--config", &file],
        &["broker.listeners[1].address", "anonymous = true"],
    );
}
