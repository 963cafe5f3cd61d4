//! What no client sends, over real sockets: it harms nobody else, and a counter names the reason.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use broker::Stats;

use crate::support::{Bystander, DEADLINE, Server};

/// A CONNECT of 3.1.1 with a clean session and no keep-alive.
fn connect(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client_id.len() as u8];
    packet.extend(b"\0\x04MQTT\x04\x02\0\0\0");
    packet.push(client_id.len() as u8);
    packet.extend(client_id.as_bytes());
    packet
}

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
    packet.extend(filter.as_bytes());
    packet.push(qos);
    packet
}

fn open(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Waits until the broker closes the connection: what it said until then.
fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        // A reset is what remains when the broker closes with bytes unread.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("the broker keeps the connection: {error}")
        }
        _ => said,
    }
}

/// Sends `bytes`: the broker closes without a word, one counter says why, and others go on.
fn is_closed_as(bytes: &[u8], reason: fn(&Stats) -> u64) {
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    let mut stream = open(&server);
    stream.write_all(bytes).unwrap();
    assert_eq!(read_to_end(stream), b"");
    server.until("closed for that reason", |stats| {
        (stats.connections_closed, reason(stats), stats.clients) == (1, 1, 1)
    });
    bystander.goes_on();
}

#[test]
fn an_http_request() {
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    let mut stream = open(&server);
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
        )
        .unwrap();
    let answer = String::from_utf8(read_to_end(stream)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("This port speaks MQTT"), "{answer}");
    server.until("closed for that reason", |stats| {
        (stats.connections_closed, stats.closed_not_mqtt) == (1, 1)
    });
    bystander.goes_on();
}

#[test]
fn a_tls_hello() {
    let mut hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec();
    hello.resize(517, 0x5a);
    is_closed_as(&hello, |stats| stats.closed_not_mqtt);
}

#[test]
fn garbage() {
    let garbage: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 + 200) as u8).collect();
    is_closed_as(&garbage, |stats| stats.closed_not_mqtt);
}

#[test]
fn a_packet_that_claims_256_mb() {
    is_closed_as(b"\x10\xff\xff\xff\x7f\0\x04MQTT", |stats| {
        stats.closed_too_large
    });
}

#[test]
fn a_length_that_never_ends() {
    is_closed_as(b"\x10\xff\xff\xff\xff\xff", |stats| stats.closed_malformed);
}

#[test]
fn a_packet_before_connect() {
    is_closed_as(&subscribe("a", 0), |stats| stats.closed_not_mqtt);
}

#[test]
fn a_second_connect() {
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    let mut stream = open(&server);
    stream.write_all(&connect("twice")).unwrap();
    let mut accepted = [0; 4];
    stream.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    stream.write_all(&connect("twice")).unwrap();
    assert_eq!(read_to_end(stream), b"");
    server.until("closed", |stats| stats.closed_protocol_error == 1);
    bystander.goes_on();
}

#[test]
fn one_byte_at_a_time_until_the_time_for_connect_is_over() {
    let server = Server::with(|config| config.limits.connect_timeout_ms = 500);
    let mut bystander = Bystander::new(&server);
    let mut stream = open(&server);
    // Each byte comes well within the time; only all of them do not.
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let packet = connect(&"x".repeat(100));
    let sent = packet
        .iter()
        .position(|byte| stream.write_all(&[*byte]).is_err() || is_closed(&mut stream))
        .expect("the broker does not wait for all of it");
    assert!(sent > 0);
    server.until("closed for that reason", |stats| {
        (stats.connections_closed, stats.closed_connect_timeout) == (1, 1)
    });
    bystander.goes_on();
}

/// Whether the broker has closed the connection, after having waited for the read timeout.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => {
            assert_eq!(read, 0, "the broker answers a part of a CONNECT");
            true
        }
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn an_end_right_behind_the_last_packet_is_seen() {
    // Many times: the end must be there already when the broker reads the packets.
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    for n in 0..200 {
        let mut stream = open(&server);
        let mut bytes = connect(&format!("leaves-{n}"));
        bytes.extend(subscribe("a", 0));
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_to_end(stream);
    }
    // Without a keep-alive nothing else would end them.
    server.until("all are gone", |stats| stats.clients == 1);
    bystander.goes_on();
}

#[test]
fn one_byte_at_a_time_is_understood() {
    let server = Server::start();
    let mut stream = open(&server);
    stream.set_nodelay(true).unwrap();
    for byte in [connect("slow"), subscribe("a", 1)].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answers = [0; 9];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1]);
}

const FLOOD_MESSAGES: u64 = 100_000;

/// Publishes [`FLOOD_MESSAGES`] of 200 bytes with QoS 1 to "flood" and waits until all are acknowledged.
fn flood(server: &Server) {
    let mut stream = open(server);
    stream.write_all(&connect("flood")).unwrap();
    let mut acknowledged = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut expected = vec![0; 4 + 4 * FLOOD_MESSAGES as usize]; // CONNACK and PUBACKs
        acknowledged.read_exact(&mut expected).unwrap();
    });
    let mut packets = Vec::new();
    for number in 0..FLOOD_MESSAGES {
        let packet_id = (number % 60_000 + 1) as u16;
        packets.extend([0x32, 209 | 0x80, 1, 0, 5]);
        packets.extend(b"flood");
        packets.extend(packet_id.to_be_bytes());
        packets.extend([b'x'; 200]);
    }
    stream.write_all(&packets).unwrap();
    reader.join().expect("every PUBACK comes");
    stream.shutdown(Shutdown::Both).unwrap();
}

/// Opens a client that subscribes to "flood" and then never reads.
fn deaf(server: &Server, qos: u8) -> TcpStream {
    let mut stream = open(server);
    stream.write_all(&connect("deaf")).unwrap();
    stream.write_all(&subscribe("flood", qos)).unwrap();
    server.until_subscribed(2); // the bystander's and this one
    stream
}

#[test]
fn a_client_that_never_reads_loses_qos_0_beyond_its_outbox_and_is_cut() {
    let server = Server::with(|config| config.limits.write_stall_ms = 1_000);
    let mut bystander = Bystander::new(&server);
    let deaf = deaf(&server, 0);
    flood(&server);
    bystander.goes_on();
    server.until("cut", |stats| {
        stats.closed_write_stall == 1 && stats.dropped_outbox_full > 0 && stats.clients == 1
    });
    bystander.goes_on();
    drop(deaf);
}

#[test]
fn a_client_that_never_acknowledges_fills_its_queue_and_no_more() {
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    let limits = broker::Limits::default();
    let deaf = deaf(&server, 1);
    flood(&server);
    bystander.goes_on();
    let (inflight, queued) = (
        u64::from(limits.inflight_messages_max),
        u64::from(limits.queue_messages_max),
    );
    server.until("in flight, queued or dropped", |stats| {
        (stats.inflight, stats.queued) == (inflight, queued)
            && stats.dropped_queue_full == FLOOD_MESSAGES - inflight - queued
    });
    drop(deaf);
    server.until("gone", |stats| stats.clients == 1);
    bystander.goes_on();
}

#[test]
fn two_thousand_connections_at_once_that_are_dropped() {
    const CONNECTIONS: u64 = 2_000;
    allow_files(2 * CONNECTIONS + 500);
    let server = Server::start();
    let mut bystander = Bystander::new(&server);
    let half = &connect("half")[..9];
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|number| {
            let mut stream = open(&server);
            let says = match number % 4 {
                0 => Vec::new(),
                1 => half.to_vec(),
                2 => connect(&format!("c{number}")),
                _ => b"nothing of MQTT".to_vec(),
            };
            stream.write_all(&says).unwrap();
            stream
        })
        .collect();
    bystander.goes_on();
    drop(streams);
    server.until("all gone, each for its reason", |stats| {
        (stats.connections_opened, stats.connections) == (CONNECTIONS + 1, 1)
            && stats.connections_closed == CONNECTIONS
            && stats.closed_not_mqtt == CONNECTIONS / 4
            && stats.closed_lost == 3 * CONNECTIONS / 4
            && (stats.clients, stats.sessions) == (1, 1)
    });
    bystander.goes_on();
}

/// Raises this process's own soft limit on open files, which is often 1,024.
fn allow_files(files: u64) {
    let status = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--nofile={}:", files.max(8_192)))
        .status()
        .expect("prlimit comes with util-linux");
    assert!(status.success(), "{files} open files are not allowed here");
}
