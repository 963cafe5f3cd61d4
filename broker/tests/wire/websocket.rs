//! MQTT over WebSocket, with and without TLS, and behind a proxy's header: paho in Python, MQTT.js, and plain sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use broker::{Carrier, Listener, TlsConfig};

use crate::certificates::{Authority, write};
use crate::support::process::{mqttjs, paho_websocket};
use crate::support::{DEADLINE, Server};

struct Setting {
    dir: tempfile::TempDir,
    server: Server,
}

impl Setting {
    fn new() -> Self {
        let authority = Authority::new("authority of the tests");
        let issued = authority.issue(&["localhost"], 1);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "ca.pem", &authority.pem());
        let tls = TlsConfig {
            certificate: write(dir.path(), "server.pem", &issued.certificate),
            key: write(dir.path(), "server.key", &issued.key),
            ..TlsConfig::default()
        };
        let listener = |name: &str, transport| Listener {
            name: name.to_owned(),
            address: "127.0.0.1:0".to_owned(),
            transport,
            ..Listener::default()
        };
        let server = Server::with(|config| {
            config.listen = broker::Config::default().listen;
            config.listeners = vec![
                listener("ws", Carrier::Ws),
                Listener {
                    path: "/deep/down".to_owned(),
                    tls,
                    ..listener("wss", Carrier::Wss)
                },
                Listener {
                    proxy_protocol: true,
                    ..listener("proxied", Carrier::Tcp)
                },
                Listener {
                    proxy_protocol: true,
                    proxy_from: vec!["192.0.2.0/24".to_owned()],
                    ..listener("far", Carrier::Tcp)
                },
            ];
        });
        Self { dir, server }
    }

    fn address(&self, name: &str) -> SocketAddr {
        let mut listeners = self.server.listeners().into_iter();
        let listener = listeners.find(|listener| listener.name == name);
        let address = listener.expect("there is one of that name").address;
        address.parse().expect("an address")
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Sends bytes to a listener: what it answers until it closes, or until so many bytes are there.
    fn ask(&self, name: &str, bytes: &[u8], answer: usize) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address(name)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut got = Vec::new();
        let result = stream.take(answer as u64).read_to_end(&mut got);
        // Closed with bytes of ours that nobody read: the kernel says it so.
        assert!(result.is_ok() || got.is_empty(), "{result:?}");
        got
    }
}

#[test]
fn paho_speaks_over_websocket() {
    let setting = Setting::new();
    let port = setting.address("ws").port();
    for version in ["3.1.1", "5"] {
        let run = |scenario: &str| paho_websocket(port, "/mqtt", scenario, version).finish();
        assert_eq!(run("large"), ["0 True", "1 True", "2 True"]);
        assert_eq!(
            run("order"),
            ["accepted {0}", "messages 1000", "in order True"]
        );
        assert_eq!(run("wildcards").len(), 5);
    }
}

#[test]
fn mqttjs_speaks_over_websocket_with_and_without_tls() {
    let setting = Setting::new();
    let urls = [
        format!("ws://127.0.0.1:{}/mqtt", setting.address("ws").port()),
        format!(
            "wss://localhost:{}/deep/down",
            setting.address("wss").port()
        ),
    ];
    let sizes = ["2", "200", "200000"];
    let lines = (0..3).flat_map(|qos| sizes.map(|size| format!("to/me {qos} {size}")));
    let expected: Vec<String> = lines.chain(["bye".to_owned()]).collect();
    for url in urls {
        for version in ["4", "5"] {
            assert_eq!(
                mqttjs(&url, version, &setting.ca()).finish(),
                expected,
                "{url}"
            );
        }
    }
}

#[test]
fn a_browsers_first_look_gets_an_answer_and_the_connection_ends() {
    let setting = Setting::new();
    let answer = setting.ask("ws", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 10_000);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("connect by WebSocket, with the subprotocol mqtt\n"));
    let answer = setting.ask("ws", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 10_000);
    assert!(answer.starts_with(b"HTTP/1.1 426 "));
    assert!(
        setting
            .ask("ws", b"\x10\x0E\0\x04MQTT\x04\x02\0\0\0\x02me", 10_000)
            .is_empty()
    );
}

#[test]
fn a_client_behind_a_proxy_comes_in_with_its_header_and_from_a_proxy_that_is_believed() {
    const CONNECT: &[u8] = b"\x10\x0E\0\x04MQTT\x04\x02\0\0\0\x02me";
    const CONNACK: &[u8] = &[0x20, 2, 0, 0];
    let setting = Setting::new();
    let v1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883\r\n";
    let v2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC6\x33\x64\x07\xDC\x04\x07\x5B";
    for header in [v1, v2] {
        let bytes = [header, CONNECT].concat();
        assert_eq!(setting.ask("proxied", &bytes, 4), CONNACK);
        // From an address that is none of the proxies'.
        assert!(setting.ask("far", &bytes, 4).is_empty());
    }
    assert!(setting.ask("proxied", CONNECT, 4).is_empty());
    let lies = [&b"PROXY TCP4 192.0.2.1\r\n"[..], CONNECT].concat();
    assert!(setting.ask("proxied", &lies, 4).is_empty());
}
