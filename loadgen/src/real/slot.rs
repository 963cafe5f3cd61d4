//! One client's connection: bytes between its socket and its [`State`].

#![expect(
    clippy::box_collection,
    clippy::vec_box,
    reason = "one word in many idle clients, instead of three"
)]

use std::io;

use broker::outbox::Outbox;
use broker::transport::{MemoryOutput, Transport};

use super::bounds::{
    READ_BYTES_PER_TURN, SPARE_OUTBOX_BYTES_MAX, SPARE_OUTBOXES_MAX, WAITING_BYTES_MAX,
};
use super::protocol::{Stage, State, check_first_bytes, no_mqtt};
use super::socket;
use crate::swarm::{Client, Notice};

/// A client, connected or not. What only a busy one needs is boxed and let go.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) transport: Option<Transport>,
    /// What waits for the socket.
    outbox: Option<Box<Outbox>>,
    /// The first part of a packet whose rest has not come yet.
    unread: Option<Box<Vec<u8>>>,
    /// When something was written last, in milliseconds of the swarm.
    pub(crate) written_ms: u32,
    /// When the connection was begun; once it is ready, when the PINGREQ that is not answered was sent.
    pub(crate) asked_ms: u32,
    pub(crate) state: State,
    /// On the list of those with something to write.
    pub(crate) dirty: bool,
    /// On the list of those that had more to read when their share of a turn was used up.
    pub(crate) listed: bool,
    /// Reads no more than it may, and not when the poll tells of news.
    pub(crate) slow: bool,
}

/// Said to users of [`RealSwarm`](super::RealSwarm). Debug builds add 16 bytes to a transport.
const SLOT_BYTES_MAX: usize = if cfg!(debug_assertions) { 88 } else { 72 };
const _: () = assert!(size_of::<Slot>() <= SLOT_BYTES_MAX);

/// What all slots of a swarm use in turn.
#[derive(Debug)]
pub(crate) struct Common {
    /// The time of this turn, in milliseconds of the swarm.
    pub(crate) now_ms: u32,
    /// The largest packet that is taken from the broker, in bytes.
    packet_bytes_max: u32,
    scratch: Box<[u8]>,
    /// Answers to what was read, before they are written.
    answers: Vec<u8>,
    spare: Vec<Box<Outbox>>,
    /// Not used over TCP: where the broker's connection code would put what simulated clients write.
    pub(crate) memory: MemoryOutput,
}

impl Common {
    pub(crate) fn new(packet_bytes_max: u32) -> Self {
        Self {
            now_ms: 0,
            packet_bytes_max,
            // Room for a read beside the first part of the largest packet.
            scratch: vec![0; packet_bytes_max as usize + READ_BYTES_PER_TURN].into_boxed_slice(),
            answers: Vec::new(),
            spare: Vec::new(),
            memory: MemoryOutput::default(),
        }
    }

    /// User memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let spare: usize = self.spare.iter().map(|outbox| outbox_bytes(outbox)).sum();
        self.scratch.len() + self.answers.capacity() + spare
    }

    pub(crate) fn recycle(&mut self, outbox: Box<Outbox>) {
        if outbox.is_empty()
            && outbox.capacity() <= SPARE_OUTBOX_BYTES_MAX
            && self.spare.len() < SPARE_OUTBOXES_MAX
        {
            self.spare.push(outbox);
        }
    }
}

fn outbox_bytes(outbox: &Outbox) -> usize {
    size_of::<Outbox>() + outbox.capacity()
}

impl Slot {
    /// What waits for the socket, to append to.
    pub(crate) fn outbox(&mut self, common: &mut Common) -> &mut Outbox {
        self.outbox
            .get_or_insert_with(|| common.spare.pop().unwrap_or_default())
    }

    /// Bytes that wait for the socket.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// User memory beyond the struct, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.outbox
            .as_ref()
            .map_or(0, |outbox| outbox_bytes(outbox))
            + self
                .unread
                .as_ref()
                .map_or(0, |unread| size_of::<Vec<u8>>() + unread.capacity())
            + self.state.bytes()
    }

    /// The socket says that something has changed.
    ///
    /// # Returns
    /// Whether there may be more to read.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(crate) fn on_event(
        &mut self,
        client: Client,
        event: &mio::event::Event,
        common: &mut Common,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, String> {
        if self.state.stage == Stage::Connecting {
            let Some(stream) = self.transport.as_ref().and_then(Transport::tcp) else {
                return Ok(false);
            };
            match stream.take_error() {
                Ok(Some(error)) | Err(error) => return Err(socket::reason(&error)),
                Ok(None) if !event.is_writable() => return Ok(false),
                Ok(None) => self.state.stage = Stage::Handshake,
            }
        }
        // The end of the stream is told once: with it, all is read until there is nothing.
        let ends = event.is_read_closed() || event.is_error();
        if self.slow {
            if ends {
                return Err(self.why_it_ended());
            }
        } else if event.is_readable() || ends {
            let mut left = READ_BYTES_PER_TURN;
            return self.read_and_answer(client, ends, &mut left, common, notices);
        }
        self.write(client, common, notices)?;
        Ok(false)
    }

    /// Why the connection of a client ended that has not read to the end.
    fn why_it_ended(&self) -> String {
        let stream = self.transport.as_ref().and_then(Transport::tcp);
        let error = stream.and_then(|stream| stream.take_error().ok().flatten());
        error.map_or_else(
            || end_of_stream(self.state.stage, 0),
            |error| socket::reason(&error),
        )
    }

    /// Reads, takes every whole packet, and writes what they ask for and what waited before. `to_the_end`: a short read
    /// does not mean that nothing more is there to be told. `left`: bytes that may be read.
    ///
    /// # Returns
    /// Whether there may be more to read.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(crate) fn read_and_answer(
        &mut self,
        client: Client,
        to_the_end: bool,
        left: &mut usize,
        common: &mut Common,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, String> {
        let more = self.read(client, to_the_end, left, common, notices)?;
        self.write(client, common, notices)?;
        Ok(more)
    }

    fn read(
        &mut self,
        client: Client,
        to_the_end: bool,
        left: &mut usize,
        common: &mut Common,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, String> {
        let mut answers = std::mem::take(&mut common.answers);
        let result = self.read_packets(client, to_the_end, left, common, &mut answers, notices);
        if !answers.is_empty() {
            self.outbox(common).push(&answers);
            answers.clear();
        }
        common.answers = answers;
        if self.waiting_bytes() > WAITING_BYTES_MAX {
            return Err(does_not_read());
        }
        result
    }

    fn read_packets(
        &mut self,
        client: Client,
        to_the_end: bool,
        left: &mut usize,
        common: &mut Common,
        answers: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, String> {
        let Some(transport) = &mut self.transport else {
            return Ok(false);
        };
        // What comes out of layers says nothing of what is in the socket, or in them.
        let to_the_end = to_the_end || matches!(transport, Transport::Layered(_));
        loop {
            let budget = (*left).min(READ_BYTES_PER_TURN);
            let kept = self.unread.as_ref().map_or(0, |unread| unread.len());
            if let Some(unread) = &self.unread {
                common.scratch[..kept].copy_from_slice(unread);
            }
            let read = match transport.read(&mut common.scratch[kept..kept + budget]) {
                Ok(0) => return Err(end_of_stream(self.state.stage, kept)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(socket::reason(&error)),
            };
            *left -= read;
            let mut rest = &common.scratch[..kept + read];
            if self.state.stage == Stage::Handshake {
                check_first_bytes(rest)?;
            }
            while let Some(frame) = codec::split_frame(rest, common.packet_bytes_max)
                .map_err(|error| no_mqtt(&error))?
            {
                let packet =
                    codec::decode(self.state.version(), frame).map_err(|error| no_mqtt(&error))?;
                rest = &rest[frame.len..];
                self.state.on_packet(client, &packet, answers, notices)?;
            }
            if rest.is_empty() {
                self.unread = None;
            } else {
                let unread = self.unread.get_or_insert_default();
                unread.clear();
                unread.extend_from_slice(rest);
            }
            // Less than asked for: the socket is empty, and more of it is a new event.
            if read < budget && !to_the_end {
                return Ok(false);
            }
            if *left == 0 {
                return Ok(true);
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(crate) fn write(
        &mut self,
        client: Client,
        common: &mut Common,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        if matches!(self.state.stage, Stage::Away | Stage::Connecting) {
            return Ok(());
        }
        let Some(transport) = &mut self.transport else {
            return Ok(());
        };
        let result = match &mut self.outbox {
            Some(outbox) => outbox.write_to(transport, &mut common.memory),
            None if transport.unsent() == 0 => return Ok(()),
            None => Ok(0),
        };
        // What its layers answer goes out, too.
        let result = result.and_then(|written| {
            transport.flush(&mut common.memory)?;
            Ok(written)
        });
        match result {
            Ok(written) if written > 0 => self.written_ms = common.now_ms,
            Ok(_) => {}
            // The rest goes when the socket says that it takes more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What the broker said last may be waiting to be read, and says more than this.
            Err(error) => {
                let mut left = READ_BYTES_PER_TURN;
                return Err(match self.read(client, true, &mut left, common, notices) {
                    Err(why) => why,
                    Ok(_) => socket::reason(&error),
                });
            }
        }
        if let Some(outbox) = self.outbox.take_if(|outbox| outbox.is_empty()) {
            common.recycle(outbox);
        }
        Ok(())
    }

    /// Ends the connection on our side: what it was, and what still waited for it.
    pub(crate) fn end(&mut self) -> (Option<Transport>, Option<Box<Outbox>>) {
        self.state.end();
        self.slow = false;
        self.unread = None;
        (self.transport.take(), self.outbox.take())
    }
}

/// The broker takes nothing, and what waits for it has reached its bound.
#[cold]
pub(crate) fn does_not_read() -> String {
    format!("the broker does not read: more than {WAITING_BYTES_MAX} bytes wait for it")
}

#[cold]
fn end_of_stream(stage: Stage, kept: usize) -> String {
    if stage != Stage::Ready {
        "closed by the broker before CONNACK"
    } else if kept > 0 {
        "closed by the broker in the middle of a packet"
    } else {
        "closed by the broker"
    }
    .to_owned()
}
