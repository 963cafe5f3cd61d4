//! Against tungstenite's own connections, as client and as server, over pipes that cut the stream anywhere.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Bytes, Message, WebSocket};
use websocket::{Client, Greeting, Rules, Server};

/// Both directions of a stream in memory.
#[derive(Clone, Default)]
struct Pipe {
    to_peer: Rc<RefCell<VecDeque<u8>>>,
    from_peer: Rc<RefCell<VecDeque<u8>>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from_peer.borrow_mut().read(buffer) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            result => result,
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_peer.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes what the other side wrote, in pieces of these lengths in turn, and answers it: the payload.
fn take(
    pipe: &Pipe,
    pieces: &[usize],
    mut receive: impl FnMut(&mut [u8], &mut Vec<u8>, &mut Vec<u8>),
) -> Vec<u8> {
    let bytes: Vec<u8> = pipe.to_peer.borrow_mut().drain(..).collect();
    let (mut up, mut down, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = pieces.next().map_or(rest.len(), |it| (*it).min(rest.len()));
        let (piece, behind) = rest.split_at(length);
        receive(&mut piece.to_vec(), &mut up, &mut down);
        rest = behind;
    }
    pipe.from_peer.borrow_mut().extend(down);
    up
}

fn received(socket: &mut WebSocket<Pipe>) -> Vec<u8> {
    let mut payload = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => payload.extend_from_slice(&bytes),
            Ok(Message::Pong(_) | Message::Ping(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return payload;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn messages() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let sizes = prop_oneof![0..200_usize, 100..130_usize, 65_000..66_000_usize];
    let message = sizes.prop_map(|length| (0..length).map(|n| (n * 7) as u8).collect::<Vec<u8>>());
    proptest::collection::vec((any::<bool>(), message), 1..8)
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..20_usize, 1..5_000_usize], 1..10)
}

/// The handshake of tungstenite's client with our server.
fn connected() -> (WebSocket<Pipe>, Pipe, Server) {
    let pipe = Pipe::default();
    let mut request = "ws://broker.example/mqtt".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    let handshake = tungstenite::client::client(request, pipe.clone());
    let Err(tungstenite::HandshakeError::Interrupted(handshake)) = handshake else {
        panic!("it does not wait for the answer");
    };
    let mut server = Server::new(Arc::new(Rules::default()));
    let up = take(&pipe, &[3], |wire, up, down| server.receive(wire, up, down));
    assert!(server.is_open() && up.is_empty());
    let (socket, response) = handshake.handshake().expect("it likes our answer");
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    (socket, pipe, server)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn our_server_understands_tungstenites_client_and_is_understood(
        messages in messages(), pieces in pieces(),
    ) {
        let (mut socket, pipe, mut server) = connected();
        let mut expected = Vec::new();
        for (pings, message) in &messages {
            if *pings {
                socket.send(Message::Ping(Bytes::from_static(b"ping"))).unwrap();
            }
            expected.extend_from_slice(message);
            socket.send(Message::Binary(message.clone().into())).unwrap();
        }
        prop_assert_eq!(&take(&pipe, &pieces, |wire, up, down| server.receive(wire, up, down)), &expected);
        let mut wire = Vec::new();
        prop_assert!(server.send(&expected, &mut wire));
        pipe.from_peer.borrow_mut().extend(wire);
        prop_assert_eq!(received(&mut socket), expected);
        socket.close(None).unwrap();
        take(&pipe, &pieces, |wire, up, down| server.receive(wire, up, down));
        prop_assert!(server.end().is_some());
        prop_assert!(socket.read().unwrap().is_close());
    }

    #[test]
    fn our_client_understands_tungstenites_server_and_is_understood(
        messages in messages(), pieces in pieces(), seed in any::<u64>(),
    ) {
        let pipe = Pipe::default();
        let greeting = Greeting {
            host: "broker.example:1883",
            path: "/mqtt",
            protocol: "mqtt",
            seed,
        };
        let (mut client, mut wire) = (Client::new(greeting), Vec::new());
        client.begin(&mut wire);
        // It may want to send before it is let in.
        prop_assert!(client.send(b"early", &mut wire));
        pipe.from_peer.borrow_mut().extend(wire);
        #[expect(clippy::result_large_err, reason = "tungstenite's type")]
        let choose = |_: &Request, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
            Ok(response)
        };
        let mut socket = tungstenite::accept_hdr(pipe.clone(), choose).expect("it likes our request");
        prop_assert!(take(&pipe, &pieces, |wire, up, down| client.receive(wire, up, down)).is_empty());
        prop_assert!(client.is_open(), "{:?}", client.end());
        prop_assert_eq!(received(&mut socket), b"early");
        let mut expected = Vec::new();
        for (pings, message) in &messages {
            if *pings {
                socket.send(Message::Ping(Bytes::from_static(b"ping"))).unwrap();
            }
            expected.extend_from_slice(message);
            socket.send(Message::Binary(message.clone().into())).unwrap();
        }
        prop_assert_eq!(&take(&pipe, &pieces, |wire, up, down| client.receive(wire, up, down)), &expected);
        let mut wire = Vec::new();
        prop_assert!(client.send(&expected, &mut wire));
        let plain = expected.len() >= 8 && wire.windows(8).any(|it| it == &expected[..8]);
        prop_assert!(!plain, "what a client sends is masked");
        pipe.from_peer.borrow_mut().extend(wire);
        prop_assert_eq!(received(&mut socket), expected);
        let mut wire = Vec::new();
        client.close(websocket::Close::Normal, &mut wire);
        pipe.from_peer.borrow_mut().extend(wire);
        prop_assert!(socket.read().unwrap().is_close());
        drop(socket.flush());
        take(&pipe, &pieces, |wire, up, down| client.receive(wire, up, down));
        prop_assert_eq!(client.end(), Some(websocket::End::Closed(Some(1000))));
    }
}
