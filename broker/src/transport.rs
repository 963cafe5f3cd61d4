//! What a connection's bytes go through: a TCP socket, or memory. A plain state machine over bytes; TLS and WebSocket
//! framing belong here too. It knows nothing of MQTT.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use crate::limits::{PROBE_AFTER, PROBE_INTERVAL, PROBES_MAX};

/// A connection on its way from the worker that accepted it to the worker that owns its session: the transport and
/// the bytes that were read and not handled.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) transport: Transport,
    pub(crate) unread: Vec<u8>,
}

/// Where bytes come from and go to.
#[derive(Debug)]
pub enum Transport {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Memory: a simulated client, or a test. What is written is gathered by the worker.
    Memory(Memory),
}

/// The broker's end of a connection in memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// The number by which the other end is known.
    pub peer: u32,
    /// The other end reads nothing now.
    pub blocked: bool,
}

/// What was written to connections in memory, in order: who, and how many of the bytes.
#[derive(Debug, Default)]
pub struct MemoryOutput {
    /// The bytes of all writes.
    pub bytes: Vec<u8>,
    /// For each write: the peer and the number of bytes.
    pub writes: Vec<(u32, usize)>,
    /// Peers and the slots at which their worker holds them now, when that has changed.
    pub opened: Vec<(u32, u32)>,
    /// Peers to which nothing more will come.
    pub closed: Vec<u32>,
}

impl Transport {
    /// Reads what is there. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; anything else means that the connection is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => loop {
                match stream.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            },
            Self::Memory(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Where the other side is, if it is somewhere on a network. Asked of the system each time: nothing is kept for it.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Memory(_) => None,
        }
    }

    /// Has the kernel ask whether the other side is there. For connections that are not read from: an end that stands
    /// behind bytes for which the kernel has no room, or that is never said, shows itself by nothing else.
    pub fn probe(&self) {
        let Self::Tcp(stream) = self else { return };
        let probes = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES_MAX);
        if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
            tracing::debug!(%error, "the kernel does not probe a connection");
        }
    }

    /// Writes as much as the other side takes.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; anything else means that the connection is gone.
    pub fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        memory: &mut MemoryOutput,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => loop {
                let result = match slices {
                    [one] => stream.write(one),
                    many => stream.write_vectored(many),
                };
                match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            },
            Self::Memory(Memory { blocked: true, .. }) => Err(io::ErrorKind::WouldBlock.into()),
            Self::Memory(Memory { peer, .. }) => {
                let before = memory.bytes.len();
                for slice in slices {
                    memory.bytes.extend_from_slice(slice);
                }
                let written = memory.bytes.len() - before;
                memory.writes.push((*peer, written));
                Ok(written)
            }
        }
    }

    /// Tells the other side that nothing more will come; it may still read what was written.
    pub fn finish(&mut self, memory: &mut MemoryOutput) {
        match self {
            // A socket that is gone already needs no telling.
            Self::Tcp(stream) => drop(stream.shutdown(Shutdown::Write)),
            Self::Memory(Memory { peer, .. }) => memory.closed.push(*peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_probes_a_connection_that_is_not_read_from() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let transport = Transport::Tcp(TcpStream::from_std(client));
        let Transport::Tcp(stream) = &transport else {
            unreachable!()
        };
        let socket = SockRef::from(stream);
        assert!(!socket.keepalive().unwrap());
        transport.probe();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES_MAX);
    }
}
