//! Stopping a node under load: what was acknowledged comes to its publisher although the kernel holds bytes that nobody reads
//! any more, and what clients leave behind comes to the others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use broker::{Incoming, Sink, Token, Verdict};
use socket2::{Domain, Socket, Type};

use crate::support::{DEADLINE, Server, poll};

/// Publishes that are acknowledged, on a topic that is not stored.
const ACKNOWLEDGED: u16 = 20_000;
/// Publishes behind them, as many as a client of 5.0 may send: the store has no room for the first, and of the rest no more
/// is read than comes with it.
const BEHIND: u16 = 1_000;
const READ_AHEAD: u64 = 8_192;

/// A store without room for what is published to `up`.
struct Full;

impl Sink for Full {
    fn accept(&self, publish: &Incoming<'_>, _: Token) -> Verdict {
        match publish.topic {
            "up" => Verdict::Busy,
            _ => Verdict::NotStored,
        }
    }
}

/// A PUBLISH of 5.0 of 100 bytes, with QoS 1.
fn publish(topic: &[u8; 2], packet_id: u16) -> Vec<u8> {
    let mut packet = b"\x32\x62\0\x02".to_vec();
    packet.extend(topic);
    packet.extend(packet_id.to_be_bytes());
    packet.push(0);
    packet.resize(100, b'x');
    packet
}

/// A client of 5.0 for whose bytes the kernel has little room.
fn connect(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8_192).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01p")
        .unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!((head[0], rest[1]), (0x20, 0));
    stream
}

#[test]
fn what_was_acknowledged_and_the_goodbye_come_although_bytes_are_unread() {
    let mut server = Server::with_sink(Arc::new(Full), |config| {
        config.limits.drain_timeout_ms = 20_000;
        config.limits.read_ahead_bytes_max = READ_AHEAD;
    });
    let mut stream = connect(server.port);
    let packets = (1..=ACKNOWLEDGED).map(|id| publish(b"ok", id));
    let behind = (1..=BEHIND).map(|id| publish(b"up", ACKNOWLEDGED + id));
    let bytes: Vec<u8> = packets.chain(behind).flatten().collect();
    stream.write_all(&bytes).unwrap();
    server.until("not reading any more", |stats| {
        stats.publishes_received_qos1 == u64::from(ACKNOWLEDGED)
            && stats.read_ahead_bytes > READ_AHEAD - 100
            && stats.bytes_received < bytes.len() as u64
    });
    let handle = server.handle();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| server.stop());
        // It reads nothing before all is said: most of it waits in the node's kernel.
        poll(
            || (handle.stats().closed_shutdown == 1).then_some(()),
            || format!("not told: {:#?}", handle.stats()),
        );
        let end = stream.read_to_end(&mut got);
        drop(stream);
        end.expect("the connection ends as it should");
    });
    let mut expected: Vec<u8> = (1..=ACKNOWLEDGED)
        .flat_map(|id| {
            let [high, low] = id.to_be_bytes();
            [0x40, 2, high, low]
        })
        .collect();
    expected.extend([0xe0, 2, 0x8b, 0]);
    assert_eq!(got.len(), expected.len());
    assert!(got == expected, "{:02x?}", &got[got.len() - 8..]);
}

/// A client of 3.1.1 with a clean session and a will.
fn mortal(port: u16, number: u8) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut connect = b"\x10\x18\0\x04MQTT\x04\x06\0\0\0\x02m".to_vec();
    connect.extend([b'a' + number, 0, 5]);
    connect.extend(b"wills\0\x01");
    connect.push(b'a' + number);
    stream.write_all(&connect).unwrap();
    read_exactly(&mut stream, &[0x20, 2, 0, 0]);
    stream
}

fn read_exactly(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn wills_of_a_stopped_node_reach_the_clients_of_all_its_workers() {
    const CLIENTS: u8 = 12;
    let mut server = Server::with(|config| {
        config.workers = 3;
        config.limits.drain_timeout_ms = 20_000;
    });
    // Each of these has a will, and hears those of all. Names spread them over the workers.
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| mortal(server.port, number))
        .collect();
    for client in &mut clients {
        client.write_all(b"\x82\x0a\0\x01\0\x05wills\0").unwrap();
        read_exactly(client, &[0x90, 3, 0, 1, 0]);
    }
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| server.stop());
        for mut client in clients {
            let mut got = Vec::new();
            client.read_to_end(&mut got).expect("it ends as it should");
            let mut wills: Vec<u8> = got
                .chunks(10)
                .map(|publish| {
                    assert_eq!(publish[..9], *b"\x30\x08\0\x05wills");
                    publish[9]
                })
                .collect();
            wills.sort_unstable();
            assert!(wills.iter().copied().eq(b'a'..b'a' + CLIENTS), "{wills:?}");
        }
        let stats = stopped.join().unwrap();
        assert_eq!(stats.wills_published, u64::from(CLIENTS));
    });
}
