//! MQTT over WebSocket in a real browser, with and without TLS, by MQTT.js; and pages that may not.

use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use testkit::browser::Browser;
use testkit::millstream::{Millstream, configuration};

/// MQTT.js as pages load it.
fn mqttjs() -> String {
    let file = "broker/tests/wire/mqttjs/node_modules/mqtt/dist/mqtt.min.js";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{file}: {error}; run ./test.sh setup"))
}

/// Where a listener listens.
fn address(node: &Millstream, name: &str) -> String {
    let status = node.json("/api/status");
    let listeners = status["listeners"].as_array().expect("a list").clone();
    let listener = listeners.iter().find(|listener| listener["name"] == name);
    let address = &listener.unwrap_or_else(|| panic!("no {name} in {status}"))["address"];
    address.as_str().expect("an address").to_owned()
}

/// What a page says to itself by a broker at this address.
fn conversation(url: &str) -> String {
    format!(
        r"(async () => {{
            const client = await mqtt.connectAsync('{url}', {{ protocolVersion: 5, reconnectPeriod: 0 }});
            const came = new Promise(done => client.on('message', (topic, payload) => done(topic + ' ' + payload.length)));
            await client.subscribeAsync('page/1', {{ qos: 1 }});
            await client.publishAsync('page/1', 'x'.repeat(200000), {{ qos: 1 }});
            const text = await came;
            await client.endAsync();
            return text;
        }})()"
    )
}

/// Whether a page may open a WebSocket at this address.
fn attempt(url: &str) -> String {
    format!(
        r"new Promise(done => {{
            const socket = new WebSocket('{url}', 'mqtt');
            socket.onopen = () => {{ done('open ' + socket.protocol); socket.close(); }};
            socket.onerror = () => done('refused');
        }})"
    )
}

#[test]
fn a_page_speaks_mqtt_over_websocket_with_and_without_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (certificate, key) = (
        file("server.pem", &cert.pem()),
        file("server.key", &signing_key.serialize_pem()),
    );
    let config = configuration(
        &dir,
        &format!(
            r#"
            [[broker.listeners]]
            name = "page"
            address = "127.0.0.1:0"
            transport = "ws"

            [[broker.listeners]]
            name = "secure"
            address = "127.0.0.1:0"
            transport = "wss"
            path = "/deep/mqtt"
            tls = {{ certificate = "{certificate}", key = "{key}" }}

            [[broker.listeners]]
            name = "listed"
            address = "127.0.0.1:0"
            transport = "ws"
            origins = ["https://app.example"]
            "#
        ),
    );
    let node = Millstream::start(&["broker", "--config", &config, "--http", "127.0.0.1:0"]);
    let mut browser = Browser::start(800, 600);
    browser.call(
        "Security.setIgnoreCertificateErrors",
        json!({ "ignore": true }),
    );
    let (page, secure) = (address(&node, "page"), address(&node, "secure"));
    for (web, url) in [
        (format!("http://{page}/"), format!("ws://{page}/mqtt")),
        (
            format!("https://{secure}/"),
            format!("wss://{secure}/deep/mqtt"),
        ),
    ] {
        // A person who looks there with a browser is told what it is.
        browser.open(&web);
        browser.until("document.body.innerText.includes('connect by WebSocket')");
        browser.value(&format!("{}; typeof mqtt", mqttjs()));
        assert_eq!(
            browser.value(&conversation(&url)),
            json!("page/1 200000"),
            "{url}"
        );
    }
    browser.open(&format!("http://{page}/"));
    let allowed = browser.value(&attempt(&format!("ws://{page}/mqtt")));
    assert_eq!(allowed, json!("open mqtt"));
    let listed = address(&node, "listed");
    let refused = browser.value(&attempt(&format!("ws://{listed}/mqtt")));
    assert_eq!(refused, json!("refused"), "a page of another origin");
}
