//! A publisher that is held because the sink has no room, over a real socket: what the kernel tells of it is seen although
//! its bytes are not read.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{Incoming, Sink, Token, Verdict};
use socket2::SockRef;

use crate::support::{Bystander, DEADLINE, Server};

/// A store of the topic `up` that may have no room; nothing else is stored.
#[derive(Debug, Default)]
struct Store {
    has_room: AtomicBool,
}

impl Sink for Store {
    fn accept(&self, publish: &Incoming<'_>, _: Token) -> Verdict {
        if publish.topic != "up" {
            Verdict::NotStored
        } else if self.has_room.load(Ordering::SeqCst) {
            Verdict::Accepted
        } else {
            Verdict::Busy
        }
    }
}

/// Bytes that are read ahead of a client: so few that a multiple of them has room in the kernel.
const AHEAD: usize = 8_192;
/// Publishes of as many bytes as the kernel has room for behind these.
const BEYOND: u16 = 400;

fn server() -> (Server, Arc<Store>) {
    let store = Arc::new(Store::default());
    let server = Server::with_sink(store.clone(), |config| {
        config.limits.read_ahead_bytes_max = AHEAD as u64;
    });
    (server, store)
}

/// A PUBLISH of 100 bytes to `up` with QoS 1.
fn publish(packet_id: u16) -> Vec<u8> {
    let mut packet = b"\x32\x62\0\x02up".to_vec();
    packet.extend(packet_id.to_be_bytes());
    packet.resize(100, b'x');
    packet
}

/// A client of 3.1.1 with a clean session, no keep-alive and a will, which is held.
fn held(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let connect = b"\x10\x18\0\x04MQTT\x04\x06\0\0\0\x01p\0\x05wills\0\x02gw";
    stream.write_all(connect).unwrap();
    let mut accepted = [0; 4];
    stream.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    stream.write_all(&publish(1)).unwrap();
    server.until("held", |stats| stats.publishers_held == 1);
    stream
}

fn is_answered(stream: &mut TcpStream) {
    stream.write_all(&[0xc0, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0xd0, 0]);
}

/// Publishes until the broker reads no more.
fn fill(server: &Server, stream: &mut TcpStream) {
    let packets: Vec<u8> = (2..BEYOND).flat_map(publish).collect();
    stream.write_all(&packets).unwrap();
    let ahead = AHEAD as u64;
    server.until("full", |stats| {
        (ahead - 100..=ahead).contains(&stats.read_ahead_bytes)
    });
}

/// All that the node kept of a held client is gone with it, and it was acknowledged nothing.
fn is_gone(server: &Server) {
    server.until("gone", |stats| {
        (stats.closed_lost, stats.sessions, stats.publishers_held) == (1, 1, 0)
            && (stats.read_ahead_bytes, stats.publishes_read_ahead) == (0, 0)
            && stats.read_ahead_dropped > 0
            && (stats.wills_published, stats.publishes_received_qos1) == (1, 1)
    });
}

#[test]
fn a_held_client_is_answered_and_its_end_is_seen() {
    let (server, _store) = server();
    let mut bystander = Bystander::new(&server);
    let mut stream = held(&server);
    is_answered(&mut stream);
    drop(stream);
    is_gone(&server);
    bystander.goes_on();
}

#[test]
fn the_end_of_a_held_client_that_is_not_read_from_is_seen() {
    for resets in [false, true] {
        let (server, _store) = server();
        let mut bystander = Bystander::new(&server);
        let mut stream = held(&server);
        fill(&server, &mut stream);
        if resets {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        } else {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        drop(stream);
        is_gone(&server);
        bystander.goes_on();
    }
}

#[test]
fn a_held_client_that_is_not_read_from_says_goodbye() {
    let (server, _store) = server();
    let mut stream = held(&server);
    fill(&server, &mut stream);
    stream.write_all(&[0xe0, 0]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    server.until("gone without a will", |stats| {
        (stats.closed_by_client, stats.wills_published) == (1, 0)
            && (stats.read_ahead_dropped, stats.sessions) == (u64::from(BEYOND) - 1, 0)
    });
}

#[test]
fn a_held_client_goes_on_where_it_stopped() {
    let (server, store) = server();
    let mut stream = held(&server);
    let mut reader = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let packets: Vec<u8> = (2..=50_000).flat_map(publish).collect();
        stream.write_all(&packets).unwrap();
    });
    server.until("read ahead", |stats| stats.publishes_read_ahead > 60);
    store.has_room.store(true, Ordering::SeqCst);
    server.sink_ready();
    for id in 1..=50_000_u16 {
        let mut puback = [0; 4];
        reader.read_exact(&mut puback).unwrap();
        let [high, low] = id.to_be_bytes();
        assert_eq!(puback, [0x40, 2, high, low]);
    }
    sender.join().unwrap();
    server.until("none is kept", |stats| {
        (stats.read_ahead_bytes, stats.read_ahead_dropped) == (0, 0)
    });
}
