//! What a connection's bytes go through: a socket, and perhaps layers over it. Nothing here knows MQTT.
//!
//! A [`Socket`] does the input and output: TCP, a Unix socket, or memory. A [`Layer`] (TLS, WebSocket, a proxy's header) is a
//! plain state machine over bytes and does none. [`Layered`] puts layers over a socket and keeps what is between them: bytes
//! that were read and that nobody has taken, and bytes to write that the socket did not take.

mod layer;
mod layered;
mod proxy;
mod socket;
mod websocket;

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::TcpStream;

pub use layer::{Facts, Layer, LayerError, Sides, Stray, http_answer};
pub(crate) use layered::ReadError;
pub use layered::{Layered, Took};
pub use proxy::ProxyLayer;
pub use socket::{Memory, MemoryOutput, Socket};
pub use websocket::WebSocketLayer;

/// A connection on its way from the worker that accepted it to the worker that owns its session: the transport, with all that
/// its layers hold, and the bytes that were read and not handled.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) transport: Transport,
    pub(crate) unread: Vec<u8>,
}

/// Where bytes come from and go to.
#[derive(Debug)]
pub enum Transport {
    /// A socket, and nothing over it.
    Plain {
        /// The socket.
        socket: Socket,
        /// The place of its listener in the configuration.
        listener: u16,
    },
    /// A socket with layers over it. Boxed: a connection without them costs nothing for those that have some.
    Layered(Box<Layered>),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain {
            socket: Socket::Tcp(stream),
            listener: 0,
        }
    }
}

impl From<Memory> for Transport {
    fn from(memory: Memory) -> Self {
        Self::Plain {
            socket: Socket::Memory(memory),
            listener: 0,
        }
    }
}

impl Transport {
    /// A socket with these layers over it, the lowest first; there may be none.
    #[must_use]
    pub fn new(socket: Socket, listener: u16, layers: Vec<Box<dyn Layer>>) -> Self {
        if layers.is_empty() {
            return Self::Plain { socket, listener };
        }
        Self::Layered(Box::new(Layered::new(socket, listener, layers)))
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain { socket, .. } => socket,
            Self::Layered(layered) => layered.socket(),
        }
    }

    /// The same, to be changed.
    pub fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain { socket, .. } => socket,
            Self::Layered(layered) => layered.socket_mut(),
        }
    }

    /// The place of its listener in the configuration.
    #[must_use]
    pub fn listener(&self) -> u16 {
        match self {
            Self::Plain { listener, .. } => *listener,
            Self::Layered(layered) => layered.listener(),
        }
    }

    /// What a poll is told of, where there is something to poll.
    pub fn source(&mut self) -> Option<&mut dyn Source> {
        match self.socket_mut() {
            Socket::Tcp(stream) => Some(stream),
            Socket::Unix(stream) => Some(stream),
            Socket::Memory(_) => None,
        }
    }

    /// The TCP socket below, where that is one.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.socket() {
            Socket::Tcp(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether the handshakes of its layers are over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Plain { .. } => true,
            Self::Layered(layered) => layered.is_open(),
        }
    }

    /// The connection in memory that it is, if it is one.
    #[must_use]
    pub fn memory(&self) -> Option<&Memory> {
        match self.socket() {
            Socket::Memory(memory) => Some(memory),
            _ => None,
        }
    }

    /// Its layers, if it has some.
    pub(crate) fn layered(&mut self) -> Option<&mut Layered> {
        match self {
            Self::Plain { .. } => None,
            Self::Layered(layered) => Some(layered),
        }
    }

    /// What is known of who is at the other end.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let mut facts = Facts {
            address: self.socket().peer_address(),
            ..Facts::default()
        };
        if let Self::Layered(layered) = self {
            layered.tell(&mut facts);
        }
        facts
    }

    /// Where the other side is, if it is somewhere on a network. Asked each time: nothing is kept for it.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain { socket, .. } => socket.peer_address(),
            Self::Layered(_) => self.facts().address,
        }
    }

    /// Lets go of layers that have done their work, once what they know was asked for.
    pub fn settle(&mut self) {
        let Self::Layered(layered) = self else { return };
        if layered.settle() {
            let (socket, listener) = (layered.take_socket(), layered.listener());
            *self = Self::Plain { socket, listener };
        }
    }

    /// Reads what is there. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; anything else means that the connection is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain { socket, .. } => socket.read(buffer),
            Self::Layered(layered) => layered.read(buffer),
        }
    }

    /// Writes as much as the other side takes.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; anything else means that the connection is gone.
    #[inline]
    pub fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        memory: &mut MemoryOutput,
    ) -> io::Result<usize> {
        match self {
            Self::Plain { socket, .. } => socket.write(slices, memory),
            Self::Layered(layered) => layered.write(slices, memory),
        }
    }

    /// Bytes that its layers hold for the socket: they are to be [`Transport::flush`]ed although nothing else is to be written.
    #[must_use]
    pub fn unsent(&self) -> usize {
        match self {
            Self::Plain { .. } => 0,
            Self::Layered(layered) => layered.unsent(),
        }
    }

    /// Writes what its layers hold for the socket.
    ///
    /// # Errors
    /// `WouldBlock` when some is left; anything else means that the connection is gone.
    pub fn flush(&mut self, memory: &mut MemoryOutput) -> io::Result<()> {
        match self {
            Self::Plain { .. } => Ok(()),
            Self::Layered(layered) => layered.flush(memory),
        }
    }

    /// Tells the other side that nothing more will come; it may still read what was written. To be called again once what
    /// [`Transport::unsent`] counts is written.
    pub fn finish(&mut self, memory: &mut MemoryOutput) {
        match self {
            Self::Plain { socket, .. } => socket.finish(memory),
            Self::Layered(layered) => layered.finish(memory),
        }
    }
}
