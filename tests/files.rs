//! A node with few open files: it raises what it may, keeps some back for those who ask how it is, and says what it refuses
//! without a line for each.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testkit::eventually;
use testkit::millstream::Millstream;

/// A CONNECT of MQTT 3.1.1 with a clean session and an identifier of its own.
fn connect(number: u32) -> Vec<u8> {
    let id = format!("c{number:05}");
    let mut packet = vec![0x10, 18, 0, 4];
    packet.extend(b"MQTT\x04\x02\x00\x00\x00\x06");
    packet.extend(id.as_bytes());
    packet
}

/// Whether the node answered with a CONNACK, or closed the connection.
fn is_in(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let mut answer = [0; 4];
    match stream.read_exact(&mut answer) {
        Ok(()) => {
            assert_eq!(answer, [0x20, 2, 0, 0]);
            true
        }
        Err(error) => {
            let closed = [
                ErrorKind::UnexpectedEof,
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
            ];
            assert!(closed.contains(&error.kind()), "{error}");
            false
        }
    }
}

#[test]
fn more_clients_than_files_leave_room_for_those_who_ask_how_it_is() {
    const CLIENTS: u32 = 1_200;
    let node = Millstream::start_with_files(
        "512:1024",
        &["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"],
    );
    // The soft limit was raised, and a part is kept back.
    assert!(
        node.out().contains("768 connections (1,024 open files"),
        "{}",
        node.out()
    );

    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let mut client = TcpStream::connect(node.mqtt()).expect("the kernel takes it");
            // The node may have closed it already.
            let _ = client.write_all(&connect(number));
            client
        })
        .collect();
    let mut accepted: Vec<_> = clients
        .iter_mut()
        .filter_map(|client| is_in(client).then_some(client))
        .collect();
    assert_eq!(accepted.len(), 768);

    let (code, text) = node.get("/health/live");
    assert_eq!(code, 200, "{text}");
    let refused = f64::from(CLIENTS - 768);
    eventually("the refused are counted", || {
        let (_, metrics) = node.get("/metrics");
        let line = metrics.lines().find(|line| {
            line.starts_with("millstream_broker_connections_closed_by_reason_total")
                && line.contains("\"limit\"")
        })?;
        let count: f64 = line.split_whitespace().last()?.parse().ok()?;
        (count == refused).then_some(())
    });
    let lines = node.err();
    let about = lines
        .lines()
        .filter(|line| line.contains("connections_max"))
        .count();
    assert!((1..20).contains(&about), "{about} lines: {lines}");

    // Those who are in are served.
    for client in accepted.iter_mut().take(5) {
        client.write_all(&[0xC0, 0]).expect("a ping");
        let mut answer = [0; 2];
        client.read_exact(&mut answer).expect("its answer");
        assert_eq!(answer, [0xD0, 0]);
    }
}
