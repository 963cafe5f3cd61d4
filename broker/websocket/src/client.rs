//! A client's side of a connection, for load and for tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

use crate::bounds::{HEADERS_MAX, REQUEST_BYTES_MAX};
use crate::end::{Close, End, Violation};
use crate::frames::Frames;
use crate::mask::Masks;
use crate::request::{Headers, end_of_head};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Greeting<'a> {
    /// The host, with its port.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// The subprotocol, usually `mqtt`.
    pub protocol: &'a str,
    /// Makes the key and the masks of one connection different from those of another.
    pub seed: u64,
}

/// A client's side of a connection: at first the response to its request, then frames.
#[derive(Debug)]
pub struct Client {
    phase: Phase,
    frames: Frames,
}

#[derive(Debug)]
enum Phase {
    Response(Box<Response>),
    Open,
    Ended(Box<End>),
}

#[derive(Debug)]
struct Response {
    /// Our request, until it is sent.
    request: Vec<u8>,
    /// What the server makes of our key.
    accept: String,
    protocol: String,
    head: Vec<u8>,
    /// What is to be sent once the server has let us in.
    early: Vec<u8>,
}

impl Client {
    /// A connection that is to be opened: see [`Client::begin`].
    #[must_use]
    pub fn new(greeting: Greeting<'_>) -> Self {
        let Greeting {
            host,
            path,
            protocol,
            seed,
        } = greeting;
        let mut masks = Masks::new(seed);
        let mut key = [0; 16];
        for part in key.as_chunks_mut().0 {
            *part = masks.next();
        }
        let key = STANDARD.encode(key);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        let response = Response {
            request: request.into_bytes(),
            accept: derive_accept_key(key.as_bytes()),
            protocol: protocol.to_owned(),
            head: Vec::new(),
            early: Vec::new(),
        };
        Self {
            phase: Phase::Response(Box::new(response)),
            frames: Frames::of_client(masks),
        }
    }

    /// Appends the request to `wire`, once.
    pub fn begin(&mut self, wire: &mut Vec<u8>) {
        if let Phase::Response(response) = &mut self.phase {
            wire.append(&mut response.request);
        }
    }

    /// Whether the server has let us in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Takes all of `wire` as it came; its memory may be used to work in. Payload goes to `up`, and to `down` what has to be
    /// answered or could not be sent before. Behind the [end](Client::end) everything is thrown away.
    pub fn receive(&mut self, wire: &mut [u8], up: &mut Vec<u8>, down: &mut Vec<u8>) {
        let mut rest = wire;
        if let Phase::Response(response) = &mut self.phase {
            match response.take(rest) {
                Ok(None) => return,
                Ok(Some(taken)) => {
                    self.frames.writer.data(&response.early, down);
                    self.phase = Phase::Open;
                    rest = &mut rest[taken..];
                }
                Err(end) => self.phase = Phase::Ended(Box::new(end)),
            }
        }
        if self.is_open()
            && let Some(end) = self.frames.receive(rest, up, down)
        {
            self.phase = Phase::Ended(Box::new(end));
        }
    }

    /// Why nothing more comes, once nothing does.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match &self.phase {
            Phase::Ended(end) => Some(**end),
            _ => None,
        }
    }

    /// Appends the frames for `plain` to `wire`; before the server has let us in they are kept. Behind a close frame nothing is
    /// sent any more: false.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> bool {
        match &mut self.phase {
            Phase::Response(response) => response.early.extend_from_slice(plain),
            _ => self.frames.writer.data(plain, wire),
        }
        !self.frames.writer.is_closed()
    }

    /// Says that nothing more will come, if there was a beginning and this was not said before.
    pub fn close(&mut self, code: Close, wire: &mut Vec<u8>) {
        if self.is_open() {
            self.frames.writer.close(Some(code as u16), wire);
        }
    }
}

impl Response {
    /// Takes what came: how much of it is the response's, once all of that is there.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, End> {
        let before = self.head.len();
        let room = REQUEST_BYTES_MAX - before;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some(end) = end_of_head(&self.head, before) else {
            return match bytes.len() >= room {
                true => Err(malformed("it is too long")),
                false => Ok(None),
            };
        };
        self.head.truncate(end);
        self.judge().map(|()| Some(end - before))
    }

    /// RFC 6455, 4.1, from "once a response" on.
    fn judge(&self) -> Result<(), End> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        if !matches!(
            response.parse(&self.head),
            Ok(httparse::Status::Complete(_))
        ) {
            return Err(malformed("it is no HTTP"));
        }
        match response.code {
            Some(101) => {}
            code => return Err(End::Refused(code.unwrap_or_default())),
        }
        let headers = Headers(response.headers);
        if !headers.has("upgrade", "websocket") || !headers.has("connection", "upgrade") {
            return Err(malformed("it does not upgrade"));
        }
        if headers.only("sec-websocket-accept") != Some(&self.accept) {
            return Err(malformed(
                "Sec-WebSocket-Accept does not follow from our key",
            ));
        }
        if headers.only("sec-websocket-protocol") != Some(&self.protocol) {
            return Err(malformed(
                "it does not choose the subprotocol that we offer",
            ));
        }
        Ok(())
    }
}

fn malformed(why: &'static str) -> End {
    End::Broken(Violation::Response(why))
}
