//! What a connection's bytes go through: a TCP socket, or memory. A plain state machine over bytes; TLS and WebSocket
//! framing belong here too. It knows nothing of MQTT.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

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
