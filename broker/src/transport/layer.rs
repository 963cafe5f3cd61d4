//! What a layer over a socket is: TLS, WebSocket, the header of a proxy.

use std::fmt;
use std::net::SocketAddr;

/// Where a layer puts what it makes of bytes from below. It only ever appends.
#[derive(Debug)]
pub struct Sides<'a> {
    /// For whoever is above.
    pub up: &'a mut Vec<u8>,
    /// For the other side: answers of the layer's own, such as its part of a handshake.
    pub down: &'a mut Vec<u8>,
}

/// A plain state machine over bytes, without input or output of its own: the same over sockets and over memory, and however
/// the bytes are cut.
///
/// It keeps the beginning of what is not whole yet, and nothing else: what it makes of whole records or frames goes to
/// [`Sides::up`] at once. An idle layer holds no buffer.
pub trait Layer: fmt::Debug + Send {
    /// What is to be said before anything came: a client's hello. A server's layer says nothing.
    fn begin(&mut self, down: &mut Vec<u8>) {
        let _ = down;
    }

    /// Takes all of `wire`, bytes that came from below; their memory may be used to work in.
    ///
    /// # Errors
    /// What came is not what it has to be. What the other side is told of that is in `sides.down`; what was whole before is in
    /// `sides.up`. Nothing is given to it any more.
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError>;

    /// Takes all of `plain`, bytes that go to the other side, and appends what stands for them to `wire`. Before the layer is
    /// open it keeps them (a server has nothing to say then).
    ///
    /// # Errors
    /// They cannot be sent any more.
    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError>;

    /// Nothing more will be sent: appends how that is said.
    fn finish(&mut self, wire: &mut Vec<u8>) {
        let _ = wire;
    }

    /// Its handshake is over: bytes may be sent. A step of a handshake may be dear, so only so many are made in a turn.
    fn is_open(&self) -> bool;

    /// The other side has said that it sends nothing more.
    fn is_ended(&self) -> bool {
        false
    }

    /// It has done its work and hands bytes on unchanged in both directions, from now on; nothing is held.
    fn is_spent(&self) -> bool {
        false
    }

    /// Adds what it knows of the client. Lower layers are asked first.
    fn tell(&self, facts: &mut Facts) {
        let _ = facts;
    }
}

/// What is known of a client before it says anything in MQTT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its address: the socket's, or what a trusted proxy said.
    pub address: Option<SocketAddr>,
    /// Whether its bytes were under TLS, here or at the proxy.
    pub is_secure: bool,
    /// The name of the server that it asked for in TLS.
    pub server_name: Option<String>,
    /// Its certificate as DER, checked against the listener's authorities.
    pub certificate: Option<Vec<u8>>,
    /// The common name of the certificate that it showed to a trusted proxy.
    pub common_name: Option<String>,
}

/// The protocol that a first byte belongs to, where another was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// MQTT without the layer that the listener has.
    Mqtt,
    /// TLS where there is none.
    Tls,
    /// HTTP.
    Http,
}

impl Stray {
    /// What a connection that begins with `byte` speaks, as far as it can be told.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            0x10 => Some(Self::Mqtt),
            0x16 => Some(Self::Tls),
            b'G' | b'H' | b'O' | b'D' | b'P' => Some(Self::Http),
            _ => None,
        }
    }
}

/// What a client gets that speaks HTTP where there is none: `text`, for whoever looks at it with a browser or `curl`.
#[must_use]
pub fn http_answer(text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}

/// Why a layer takes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// The client speaks another protocol than the listener.
    #[error("it speaks {0:?}, which this listener does not")]
    Stray(Stray),
    /// The other side does not keep to the layer's protocol, or may not come in.
    #[error("{layer}: {why}")]
    Broken {
        /// Which layer says so.
        layer: &'static str,
        /// In its words.
        why: String,
    },
}
