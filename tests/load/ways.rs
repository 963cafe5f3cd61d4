//! Load over TLS and WebSocket on our own broker, from one process and from several.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use testkit::millstream::{Millstream, configuration, run};

use crate::{SMALL, pairs};

#[test]
fn a_run_over_tls_and_websocket_passes_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let ca = file("server.pem", &cert.pem());
    let key = file("server.key", &signing_key.serialize_pem());
    let listener = |name: &str| {
        let tls = match name {
            "ws" => String::new(),
            _ => format!("tls = {{ certificate = \"{ca}\", key = \"{key}\" }}\n"),
        };
        format!(
            "[[broker.listeners]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ntransport = \"{name}\"\n{tls}"
        )
    };
    let listeners = ["tls", "ws", "wss"].map(listener).concat();
    let config = configuration(&dir, &listeners);
    let node = Millstream::start(&["broker", "--config", &config, "--http", "127.0.0.1:0"]);
    let status = node.json("/api/status");
    let tls: &[&str] = &["--tls", "--ca", &ca];
    let ws: &[&str] = &["--ws"];
    let several: &[&str] = &["--processes", "2"];
    for (at, transport, options) in [
        (0, "TLS", &[tls][..]),
        (1, "WebSocket", &[ws]),
        (2, "WebSocket over TLS", &[tls, ws, several]),
    ] {
        let address = status["listeners"][at]["address"]
            .as_str()
            .expect("an address");
        let at = address.replace("127.0.0.1", "localhost");
        let json = dir.path().join("report.json").display().to_string();
        let written = ["--json", json.as_str()];
        let arguments = pairs(&at, &[SMALL, &options.concat(), &written]);
        let ended = run(&arguments);
        assert_eq!(ended.status.code(), Some(0), "{transport}: {ended:?}");
        assert!(ended.out.starts_with("PASSED\n"), "{}", ended.out);
        assert!(
            ended.out.contains(&format!("over {transport}, ")),
            "{}",
            ended.out
        );
        let text = std::fs::read_to_string(&json).expect("a report");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(report["transport"], transport);
        let handshakes = &report["connects"]["handshakes"];
        let counted = |kind: &str| handshakes[kind].as_u64().expect("a number");
        let expected = if transport.contains("TLS") { 20 } else { 0 };
        assert_eq!(
            counted("full") + counted("resumed"),
            expected,
            "{handshakes}"
        );
    }
}
