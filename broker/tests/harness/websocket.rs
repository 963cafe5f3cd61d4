//! MQTT over WebSocket, and behind a proxy's header.

use std::sync::Arc;

use broker::Time;
use broker::bans::{Ban, Banned};
use broker::transport::{Layer, ProxyLayer, WebSocketLayer};
use codec::{Packet, Version};
use websocket::{Client as FarClient, Greeting, Rules};

use crate::admin;
use crate::support::{Client, Ends, Far, NOTHING, Net, Pub, Way};

/// The client's end.
struct Browser {
    header: &'static [u8],
    client: FarClient,
}

impl Far for Browser {
    fn begin(&mut self) -> Vec<u8> {
        let mut wire = self.header.to_vec();
        self.client.begin(&mut wire);
        wire
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        self.client.send(plain, &mut wire);
        wire
    }

    fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Vec<u8> {
        let mut answer = Vec::new();
        self.client.receive(&mut wire.to_vec(), plain, &mut answer);
        answer
    }
}

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883\r\n";

fn ends(header: &'static [u8]) -> Ends {
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    if !header.is_empty() {
        layers.push(Box::new(ProxyLayer::new(true)));
    }
    layers.push(Box::new(WebSocketLayer::new(Arc::new(Rules::default()))));
    let client = FarClient::new(Greeting {
        host: "broker.example",
        path: "/mqtt",
        protocol: "mqtt",
        seed: 7,
    });
    (layers, Box::new(Browser { header, client }))
}

/// WebSocket, and the same behind a proxy's header.
pub fn ways() -> [Way; 2] {
    [Way::new(|| ends(b"")), Way::new(|| ends(HEADER))]
}

fn net() -> Net {
    Net::new().over(&ways()[0])
}

/// A frame of a client, whose mask is nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125);
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

#[test]
fn packets_and_frames_have_nothing_to_do_with_each_other() {
    let net = net();
    // Several packets in one frame.
    let mut bytes = net.client("a").bytes();
    let mut client = net.open_as(Version::V5);
    bytes.extend(client.encode_publish(&Pub::new("t", "x").qos(1, 1)));
    bytes.extend(client.encode(&Packet::PingReq));
    assert!(bytes.len() <= 125);
    client.push_wire(&frame(BINARY, &bytes));
    net.run();
    assert_eq!(client.got(), ["CONNACK 0x00", "PUBACK #1", "PINGRESP"]);
    // One packet in many frames, empty ones and pings among them, of one message and of several.
    let publish = client.encode_publish(&Pub::new("t", "in pieces").qos(1, 2));
    for fragmented in [false, true] {
        let mut wire = Vec::new();
        for (at, byte) in publish.iter().enumerate() {
            let first = match (fragmented, at) {
                (false, _) => BINARY,
                (true, 0) => BINARY & 0x0F,
                (true, _) if at + 1 == publish.len() => 0x80,
                (true, _) => 0,
            };
            wire.extend(frame(first, &[*byte]));
            wire.extend(frame(PING, b"?"));
        }
        client.push_wire(&wire);
        net.run();
        assert_eq!(client.got(), ["PUBACK #2"]);
    }
}

#[test]
fn what_leaves_in_one_turn_is_one_frame() {
    let net = net();
    let mut client = net.join("a");
    client.subscribe("t", 0);
    let publish = client.encode_publish(&Pub::new("t", "x"));
    let all = publish.repeat(10);
    assert!(all.len() <= 125);
    client.push_wire(&frame(BINARY, &all));
    let wire = client.got_wire();
    assert_eq!(wire[..2], [BINARY, all.len() as u8], "{wire:?}");
    assert_eq!(wire.len(), 2 + all.len());
}

#[test]
fn a_client_that_breaks_the_rules_is_told_which_kind_and_closed() {
    let text = frame(TEXT, b"hello");
    let bare = [BINARY, 1, 0xC0].to_vec();
    let endless = [&[BINARY, 0xFF, 0x80][..], &[0; 7], &[0; 4]].concat();
    let large = [&[BINARY, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    let in_two = frame(PING & 0x0F, b"x");
    for (wire, code) in [
        (text, 1003),
        (bare, 1002),
        (endless, 1002),
        (large, 1009),
        (in_two, 1002),
    ] {
        let net = net();
        let mut client = net.join("a");
        // What was whole before it counts.
        let publish = client.encode_publish(&Pub::new("t", "x").qos(1, 1));
        client.push_wire(&[frame(BINARY, &publish), wire].concat());
        let wire = client.got_wire();
        let said = [&[CLOSE, 2][..], &u16::to_be_bytes(code)].concat();
        assert!(wire.ends_with(&said), "{code}: {wire:?}");
        assert!(!client.is_open());
        let stats = net.stats();
        assert_eq!((stats.closed_layer, stats.connections), (1, 0));
        assert_eq!(stats.publishes_received_qos1, 1);
    }
}

#[test]
fn who_closes_without_disconnect_hears_the_echo_and_leaves_a_will() {
    let net = net();
    let mut other = net.join("other");
    other.subscribe("gone", 0);
    let mut client = net.client("a").will("gone", "x").connect();
    // What a browser does when its page closes.
    client.push_wire(&frame(CLOSE, &1001_u16.to_be_bytes()));
    assert_eq!(client.got_wire(), [CLOSE, 2, 0x03, 0xE9]);
    assert!(!client.is_open());
    assert!(other.got()[0].starts_with("PUBLISH gone"));
}

#[test]
fn a_disconnect_is_followed_by_a_close_frame() {
    let net = net();
    let mut client = net.join("a");
    client.push_wire(&frame(BINARY, &[0xE0, 0]));
    assert_eq!(client.got_wire(), [CLOSE, 2, 0x03, 0xE8]);
    assert!(!client.is_open());
    // One that is taken over is told why, and closed.
    let mut client = net.join("b");
    let _other = net.join("b");
    let wire = client.got_wire();
    assert_eq!(wire, [BINARY, 4, 0xE0, 2, 0x8E, 0, CLOSE, 2, 0x03, 0xE8]);
}

#[test]
fn of_100_000_pings_few_are_answered_and_none_to_who_does_not_read() {
    let net = net();
    let mut client = net.join("a");
    let pings = frame(PING, b"1234").repeat(1_000);
    for _ in 0..100 {
        client.push_wire(&pings);
    }
    let wire = client.got_wire();
    assert!(wire.ends_with(&[PONG, 4, b'1', b'2', b'3', b'4']));
    assert!(wire.len() <= 100 * 6 * 10, "{} bytes", wire.len());
    assert_eq!(client.got(), NOTHING);
    client.block(true);
    for _ in 0..100 {
        client.push_wire(&pings);
        net.run();
    }
    net.advance_s(31);
    assert!(!client.is_open());
    assert_eq!(net.stats().closed_write_stall, 1);
}

#[test]
fn a_health_check_and_a_lost_browser_get_an_answer() {
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "200 OK"),
        (
            "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n",
            "426 Upgrade Required",
        ),
        (
            "GET /wp-login.php HTTP/1.1\r\nHost: x\r\n\r\n",
            "404 Not Found",
        ),
    ] {
        let net = net();
        let mut client = Client::open_silent(&net, Version::V5);
        client.push_wire(request.as_bytes());
        let answer = String::from_utf8(client.got_wire()).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(answer.ends_with('\n'), "{answer}");
        assert!(!client.is_open());
        assert_eq!(net.stats().connections, 0);
    }
}

#[test]
fn mqtt_and_tls_on_a_websocket_port_are_known_by_their_first_byte() {
    for bytes in [
        net().client("a").bytes(),
        b"\x16\x03\x01\x02\0\x01".to_vec(),
    ] {
        let net = net();
        let mut client = Client::open_silent(&net, Version::V5);
        client.push_wire(&bytes);
        assert!(client.got_wire().is_empty());
        assert!(!client.is_open());
        assert_eq!(net.stats().closed_not_mqtt, 1);
    }
}

#[test]
fn a_request_that_is_cut_at_any_byte_leaves_nothing_behind() {
    for way in ways() {
        let wire = way.ends().1.begin();
        for at in 0..=wire.len() {
            let net = Net::with(|config| config.workers = 3).over(&way);
            let mut client = Client::open_silent(&net, Version::V5);
            client.push_wire(&wire[..at]);
            net.run();
            client.cut();
            let stats = net.stats();
            assert_eq!((stats.connections, stats.sessions), (0, 0), "cut at {at}");
        }
    }
}

#[test]
fn a_client_behind_a_proxy_is_known_and_banned_by_its_own_address() {
    let way = &ways()[1];
    for workers in [1, 3] {
        let net = Net::with(|config| config.workers = workers).over(way);
        let _clients = ["a", "b", "c"].map(|id| net.join(id));
        let own = "192.0.2.1:56324".parse().unwrap();
        for id in ["a", "b", "c"] {
            assert_eq!(admin::client(&net, id).unwrap().address, Some(own));
        }
        let ban = Ban {
            who: Banned::Network("192.0.2.0/24".parse().unwrap()),
            since: Time(0),
            until: Time(1_000_000),
            why: String::new(),
            refused: 0,
        };
        assert!(net.handle().bans().ban(Time(0), ban));
        let mut client = net.open_as(Version::V5);
        let hello = net.client("d").bytes();
        client.write(&hello);
        assert!(client.got()[0].starts_with("CONNACK 0x8a"));
    }
}

#[test]
fn who_has_to_come_by_a_proxy_and_does_not_is_closed() {
    let cases = [
        (true, &b"\x10\x0E\0\x04MQTT"[..]),
        (true, b"GET / HTTP/1.1\r\n\r\n"),
        (true, b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n"),
        (true, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF"),
        // A header that is sound, from somewhere that is not a proxy.
        (false, HEADER),
    ];
    for (is_trusted, bytes) in cases {
        let net = Net::new().over(&Way::new(move || {
            let layers: Vec<Box<dyn Layer>> = vec![Box::new(ProxyLayer::new(is_trusted))];
            (layers, ends(b"").1)
        }));
        let mut client = Client::open_silent(&net, Version::V5);
        client.push_wire(bytes);
        assert!(client.got_wire().is_empty());
        assert!(!client.is_open(), "{bytes:?}");
        assert_eq!(net.stats().closed_layer, 1);
    }
}
