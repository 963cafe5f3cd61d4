//! A node that stood still for longer than its clients' keep-alive (a paused machine, a debugger, a swapped-out process):
//! what they had sent meanwhile counts, and nobody is given up for the node's own silence.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::millstream::{Millstream, signal};

const CLIENTS: u32 = 200;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];

/// Connects a client of MQTT 3.1.1 with a clean session; with a keep-alive, it has a will, too.
fn connect(node: &Millstream, id: &str, keep_alive_s: u8) -> TcpStream {
    let flags = if keep_alive_s > 0 { 0x06 } else { 0x02 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend([flags, 0, keep_alive_s]);
    let mut text = |text: &str| {
        body.extend([0, u8::try_from(text.len()).expect("a short text")]);
        body.extend(text.as_bytes());
    };
    text(id);
    if keep_alive_s > 0 {
        text("wills");
        text("it is gone");
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("a short packet")];
    packet.extend(body);
    let mut stream = TcpStream::connect(node.mqtt()).expect("the node listens");
    stream
        .set_read_timeout(Some(testkit::PATIENCE))
        .expect("a socket");
    stream.write_all(&packet).expect("the node reads");
    assert_eq!(read(&mut stream), [0x20, 2, 0, 0]);
    stream
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("the node answers");
    bytes
}

fn sleep_until(began: Instant, seconds: u64) {
    let then = began + Duration::from_secs(seconds);
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

#[test]
fn nobody_is_given_up_who_spoke_while_the_node_stood_still() {
    let node = Millstream::start(&["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let mut watcher = connect(&node, "watcher", 0);
    watcher
        .write_all(b"\x82\x0a\0\x01\0\x05wills\0")
        .expect("the node reads");
    assert_eq!(read(&mut watcher), [0x90, 3, 0, 1, 0]);
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| connect(&node, &format!("c{number}"), 5))
        .collect();

    // A keep-alive of 5 s is over after 7.5 s, seen from the last packet that the node has read.
    signal(node.pid(), "STOP");
    let stopped = Instant::now();
    sleep_until(stopped, 3);
    for client in &mut clients {
        client.write_all(&PINGREQ).expect("the kernel takes it");
    }
    sleep_until(stopped, 10);
    signal(node.pid(), "CONT");

    for client in &mut clients {
        assert_eq!(read(client), PINGRESP);
        client.write_all(&PINGREQ).expect("still connected");
        assert_eq!(read(client), PINGRESP);
    }
    // A will would have come before this.
    watcher.write_all(&PINGREQ).expect("still connected");
    assert_eq!(read(&mut watcher), PINGRESP);
    let (_, metrics) = node.get("/metrics");
    for line in [
        "millstream_broker_connections_closed_by_reason_total{reason=\"keep_alive\"} 0",
        "millstream_broker_wills_published_total 0",
        "millstream_broker_clients 201",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}
