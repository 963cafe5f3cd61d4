//! Sockets: TCP, Unix, and memory in place of one. Bytes in order, as they are.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpStream, UnixStream};
use socket2::{SockRef, TcpKeepalive};

use crate::limits::{PROBE_AFTER, PROBE_INTERVAL, PROBES_MAX};

/// See the module.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
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
    /// Those of them whose connection is gone, here too: as a socket, it is reset where they have written what was not read.
    pub dropped: Vec<u32>,
}

impl MemoryOutput {
    /// A peer's connection is gone.
    pub(crate) fn drops(&mut self, peer: u32) {
        self.closed.push(peer);
        self.dropped.push(peer);
    }
}

/// Tries again what a signal interrupted.
fn again(mut what: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match what() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn write_all_at_once(stream: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    again(|| match slices {
        [one] => stream.write(one),
        many => stream.write_vectored(many),
    })
}

impl Socket {
    /// Reads what is there. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; anything else means that the connection is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => again(|| stream.read(buffer)),
            Self::Unix(stream) => again(|| stream.read(buffer)),
            Self::Memory(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether a read that did not fill its buffer has emptied the socket, so that the next bytes make a new edge. Of TCP that
    /// is documented (epoll(7)); of others it is not relied upon.
    #[must_use]
    pub fn is_emptied_by_a_short_read(&self) -> bool {
        matches!(self, Self::Tcp(_))
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
            Self::Tcp(stream) => write_all_at_once(stream, slices),
            Self::Unix(stream) => write_all_at_once(stream, slices),
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
            Self::Unix(stream) => drop(stream.shutdown(Shutdown::Write)),
            Self::Memory(Memory { peer, .. }) => memory.closed.push(*peer),
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

    /// The address of the other end, where it has one.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) | Self::Memory(_) => None,
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
        let socket = Socket::Tcp(TcpStream::from_std(client));
        let Socket::Tcp(stream) = &socket else {
            unreachable!()
        };
        let asked = SockRef::from(stream);
        assert!(!asked.keepalive().unwrap());
        socket.probe();
        assert!(asked.keepalive().unwrap());
        assert_eq!(asked.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(asked.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(asked.tcp_keepalive_retries().unwrap(), PROBES_MAX);
    }
}
