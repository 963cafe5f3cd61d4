//! Frames and requests written by hand, so that what the crate reads was not written by it.

#![allow(dead_code, reason = "each file of tests uses its own part")]

use std::sync::Arc;

use websocket::{End, Rules, Server};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// The bit of the last frame of a message.
pub const FIN: u8 = 0x80;

pub const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// The bytes of a frame. `first`: opcode and bits. The length is that of the payload, in its shortest form.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, mask, payload.len() as u64);
    let mask = mask.unwrap_or_default();
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// The header of a frame that says so many bytes.
pub fn head(first: u8, mask: Option<[u8; 4]>, length: u64) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    if length <= 125 {
        bytes.push(bit | length as u8);
    } else if length <= 0xFFFF {
        bytes.push(bit | 126);
        bytes.extend((length as u16).to_be_bytes());
    } else {
        bytes.push(bit | 127);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(mask.iter().flatten());
    bytes
}

/// A frame of a client.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, Some(MASK), payload)
}

pub const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A server that has let a client in, and has said so.
pub fn opened() -> Server {
    let mut server = Server::new(Arc::new(Rules::default()));
    let (up, said) = receive(&mut server, REQUEST.as_bytes());
    assert!(server.is_open() && up.is_empty(), "{:?}", server.end());
    assert!(said.starts_with(b"HTTP/1.1 101 "));
    server
}

/// What a server makes of bytes: payload, and what it answers.
pub fn receive(server: &mut Server, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    server.receive(&mut bytes.to_vec(), &mut up, &mut down);
    (up, down)
}

/// What becomes of a client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub payload: Vec<u8>,
    pub end: Option<End>,
    /// What is answered.
    pub said: Vec<u8>,
}

/// Gives the bytes to a server in pieces of these lengths, and in one piece what is left.
pub fn outcome(
    mut server: Server,
    bytes: &[u8],
    pieces: impl IntoIterator<Item = usize>,
) -> Outcome {
    let (mut payload, mut said, mut rest) = (Vec::new(), Vec::new(), bytes);
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(piece.min(rest.len()));
        let (up, down) = receive(&mut server, piece);
        payload.extend(up);
        said.extend(down);
        rest = behind;
    }
    Outcome {
        payload,
        end: server.end(),
        said,
    }
}
