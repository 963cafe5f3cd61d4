//! Layers over a socket, and what is between them.

use std::io::{self, IoSlice};

use super::layer::{Facts, Layer, LayerError, Sides};
use super::socket::{Memory, MemoryOutput, Socket};
use crate::limits::LAYER_WRITE_BYTES_MAX;

/// See the module.
#[derive(Debug)]
pub struct Layered {
    socket: Socket,
    listener: u16,
    /// The socket's stream has ended, or the other side has said so in a layer.
    ended: bool,
    /// The other side was told that nothing more comes.
    finished: bool,
    /// Bytes that the socket took since [`Layered::take_sent`] was asked.
    sent: u32,
    /// The lowest first.
    layers: Vec<Box<dyn Layer>>,
    /// What came through all layers and was not taken.
    held: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// Bytes that came from the socket.
    pub wire: usize,
    /// There may be more: nothing will tell of it.
    pub more: bool,
    /// Nothing more will come, and nothing is held.
    pub ended: bool,
}

/// Why a read gives nothing.
#[derive(Debug)]
pub(crate) enum ReadError {
    Socket(io::Error),
    Layer(LayerError),
}

impl Layered {
    /// `layers`, the lowest first, over a socket.
    #[must_use]
    pub fn new(socket: Socket, listener: u16, layers: Vec<Box<dyn Layer>>) -> Self {
        let mut layered = Self {
            socket,
            listener,
            ended: false,
            finished: false,
            sent: 0,
            layers,
            held: Vec::new(),
            unsent: Vec::new(),
        };
        for at in 0..layered.layers.len() {
            let mut begins = Vec::new();
            layered.layers[at].begin(&mut begins);
            // A fresh layer keeps what it cannot send yet.
            let _ = send(&mut layered.layers[..at], &begins, &mut layered.unsent);
        }
        layered
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(super) fn take_socket(&mut self) -> Socket {
        std::mem::replace(&mut self.socket, Socket::Memory(Memory::default()))
    }

    pub(super) fn listener(&self) -> u16 {
        self.listener
    }

    pub(super) fn tell(&self, facts: &mut Facts) {
        for layer in &self.layers {
            layer.tell(facts);
        }
    }

    /// Lets go of layers that are spent: whether none is left and nothing is held.
    pub(super) fn settle(&mut self) -> bool {
        self.layers.retain(|layer| !layer.is_spent());
        self.layers.shrink_to_fit();
        let holds = self.ended || self.finished || !self.held.is_empty() || !self.unsent.is_empty();
        self.layers.is_empty() && !holds
    }

    /// Whether all handshakes are over.
    pub(crate) fn is_open(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_open())
    }

    /// For [`Layered::steps_since`]: how much is answered by now, while a handshake is under way.
    pub(crate) fn before_step(&self) -> Option<usize> {
        (!self.is_open()).then_some(self.unsent.len())
    }

    /// How many steps of handshakes were made since: those that were answered. Bytes that are not whole yet cost nothing.
    pub(crate) fn steps_since(&self, before: Option<usize>) -> u32 {
        u32::from(before.is_some_and(|unsent| self.unsent.len() > unsent))
    }

    /// Whether bytes, or the end, wait to be taken: the socket will not tell of them.
    pub(crate) fn holds(&self) -> bool {
        self.ended || !self.held.is_empty()
    }

    /// Whether bytes wait to be taken.
    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Bytes that the socket took since this was last asked.
    pub(crate) fn take_sent(&mut self) -> u32 {
        std::mem::take(&mut self.sent)
    }

    /// Takes bytes that came from the socket. What they mean goes to `plain`, up to `room` bytes of it, behind what was held;
    /// the rest is held.
    pub(crate) fn take(
        &mut self,
        wire: &mut [u8],
        plain: &mut Vec<u8>,
        room: usize,
    ) -> Result<(), LayerError> {
        plain.append(&mut self.held);
        let result = receive(&mut self.layers, wire, plain, &mut self.unsent);
        if plain.len() > room {
            self.held = plain.split_off(room);
        } else {
            self.held = Vec::new();
        }
        self.ended |= self.layers.iter().any(|layer| layer.is_ended());
        result
    }

    /// Reads once from the socket, unless bytes are held: those come first.
    pub(crate) fn read_some(
        &mut self,
        buffer: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Took, ReadError> {
        let room = buffer.len();
        if !self.held.is_empty() {
            self.take(&mut [], plain, room).map_err(ReadError::Layer)?;
            return Ok(Took {
                wire: 0,
                more: true,
                ended: false,
            });
        }
        let mut wire = 0;
        if !self.ended {
            wire = self.socket.read(buffer).map_err(ReadError::Socket)?;
            self.ended = wire == 0;
            self.take(&mut buffer[..wire], plain, room)
                .map_err(ReadError::Layer)?;
        }
        let short = wire < room && self.socket.is_emptied_by_a_short_read();
        Ok(Took {
            wire,
            more: !short || self.holds(),
            ended: self.ended && self.held.is_empty() && plain.is_empty(),
        })
    }

    /// Reads bytes and throws them away as they are: how many.
    pub(crate) fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.held = Vec::new();
        self.socket.read(buffer)
    }

    /// See [`super::Transport::read`]. Handshakes are gone on with until something comes of it.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut plain = Vec::new();
        loop {
            let took = self
                .read_some(buffer, &mut plain)
                .map_err(|error| match error {
                    ReadError::Socket(error) => error,
                    ReadError::Layer(error) => io::Error::other(error),
                })?;
            if !plain.is_empty() || took.ended {
                buffer[..plain.len()].copy_from_slice(&plain);
                return Ok(plain.len());
            }
        }
    }

    pub(super) fn flush(&mut self, memory: &mut MemoryOutput) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let written = self.socket.write(&[IoSlice::new(&self.unsent)], memory)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent = self
                .sent
                .saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
            if written == self.unsent.len() {
                self.unsent = Vec::new();
            } else {
                self.unsent.drain(..written);
            }
        }
        Ok(())
    }

    /// What was written before has to be gone first: no more is held than one write is turned into.
    pub(super) fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        memory: &mut MemoryOutput,
    ) -> io::Result<usize> {
        self.flush(memory)?;
        let mut gathered = Vec::new();
        let plain = match slices {
            [one] => &one[..one.len().min(LAYER_WRITE_BYTES_MAX)],
            many => {
                for slice in many {
                    let room = LAYER_WRITE_BYTES_MAX - gathered.len();
                    gathered.extend_from_slice(&slice[..slice.len().min(room)]);
                }
                &gathered[..]
            }
        };
        send(&mut self.layers, plain, &mut self.unsent).map_err(io::Error::other)?;
        match self.flush(memory) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(plain.len()),
        }
    }

    pub(super) fn finish(&mut self, memory: &mut MemoryOutput) {
        if !std::mem::replace(&mut self.finished, true) {
            for at in (0..self.layers.len()).rev() {
                let (below, this) = self.layers.split_at_mut(at);
                let mut last = Vec::new();
                this[0].finish(&mut last);
                // Whether the other side hears of it is its own matter.
                let _ = send(below, &last, &mut self.unsent);
            }
        }
        if self.flush(memory).is_ok() {
            self.socket.finish(memory);
        }
    }
}

/// Has bytes go up through `layers`; what these answer goes down through those below.
fn receive(
    layers: &mut [Box<dyn Layer>],
    wire: &mut [u8],
    up: &mut Vec<u8>,
    down: &mut Vec<u8>,
) -> Result<(), LayerError> {
    let Some((first, above)) = layers.split_first_mut() else {
        up.extend_from_slice(wire);
        return Ok(());
    };
    if above.is_empty() {
        return first.receive(wire, &mut Sides { up, down });
    }
    let (mut middle, mut answers) = (Vec::new(), Vec::new());
    let up_to_here = first.receive(
        wire,
        &mut Sides {
            up: &mut middle,
            down,
        },
    );
    let beyond = if middle.is_empty() {
        Ok(())
    } else {
        receive(above, &mut middle, up, &mut answers)
    };
    if !answers.is_empty() {
        first.send(&answers, down)?;
    }
    up_to_here.and(beyond)
}

/// Has bytes go down through `layers`.
fn send(layers: &mut [Box<dyn Layer>], plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
    if plain.is_empty() {
        return Ok(());
    }
    match layers.split_last_mut() {
        None => {
            wire.extend_from_slice(plain);
            Ok(())
        }
        Some((last, [])) => last.send(plain, wire),
        Some((last, below)) => {
            let mut middle = Vec::new();
            last.send(plain, &mut middle)?;
            send(below, &middle, wire)
        }
    }
}
