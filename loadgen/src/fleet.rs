//! Many MQTT clients on one thread: one poll, one buffer to read into, one write per client and turn.
//!
//! A fleet moves bytes and hands out [`Notice`]s; what to do about them is its owner's business, between two turns.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use broker::outbox::Outbox;
use broker::transport::{MemoryOutput, Transport};
use codec::{
    Connect, EncodeError, Packet, Properties, PublishHead, Qos, SubscriptionOptions, Version,
};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::client::{Client, ClientId, Notice, Stage};

/// A packet from the broker; what is larger ends the connection.
const PACKET_BYTES_MAX: u32 = 1_048_576;
/// One read takes as much as this. At least one whole packet beside what was read before.
const SCRATCH_BYTES: usize = 2 * PACKET_BYTES_MAX as usize;
/// Readiness events taken from the kernel in one turn.
const EVENTS_PER_TURN_MAX: usize = 4_096;

/// How clients connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The broker.
    pub broker: SocketAddr,
    /// Protocol version.
    pub version: Version,
    /// Keep-alive in seconds; 0 is none. A fleet sends no PINGREQ: choose it longer than the measure takes.
    pub keep_alive_s: u16,
}

/// Clients of one broker.
#[derive(Debug)]
pub struct Fleet {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    /// Whose outbox got bytes since it was flushed last.
    dirty: Vec<ClientId>,
    scratch: Box<[u8]>,
    /// Not used over TCP: where the broker's connection code would put what simulated clients write.
    memory: MemoryOutput,
}

#[derive(Debug)]
struct Member {
    client: Client,
    transport: Option<Transport>,
    outbox: Outbox,
    /// The first part of a packet whose rest has not come yet.
    unread: Vec<u8>,
    dirty: bool,
}

impl Fleet {
    /// An empty fleet.
    ///
    /// # Errors
    /// The kernel gives no poll.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN_MAX),
            members: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            memory: MemoryOutput::default(),
        })
    }

    /// Starts to connect one more client. [`Notice::Connected`] or [`Notice::Closed`] will follow.
    ///
    /// # Errors
    /// There is no socket for it: too many open files, or no port left.
    pub fn connect(&mut self, options: &ConnectOptions, client_id: &str) -> io::Result<ClientId> {
        let mut stream = TcpStream::connect(options.broker)?;
        let id = ClientId(u32::try_from(self.members.len()).map_err(io::Error::other)?);
        self.poll.registry().register(
            &mut stream,
            Token(id.index()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        // Nothing else says "now" to a message that waits for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let mut outbox = Outbox::default();
        let connect = Packet::Connect(Connect {
            version: options.version,
            clean_start: true,
            keep_alive: options.keep_alive_s,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: Properties::EMPTY,
        });
        outbox
            .encode(|out| connect.encode(options.version, out))
            .map_err(io::Error::other)?;
        self.members.push(Member {
            client: Client::new(id, options.version),
            transport: Some(Transport::Tcp(stream)),
            outbox,
            unread: Vec::new(),
            dirty: false,
        });
        Ok(id)
    }

    /// Number of clients that were ever started.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no client was ever started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many QoS 1 publishes of this client the broker takes before it acknowledges the first.
    #[must_use]
    pub fn receive_maximum(&self, client: ClientId) -> u16 {
        self.members[client.index()].client.receive_maximum
    }

    /// Bytes that wait for this client's socket.
    #[must_use]
    pub fn waiting_bytes(&self, client: ClientId) -> usize {
        self.members[client.index()].outbox.bytes()
    }

    /// Asks for subscriptions in one packet. [`Notice::Subscribed`] will follow.
    ///
    /// # Errors
    /// No filter at all, or more than a packet holds.
    pub fn subscribe<'a>(
        &mut self,
        client: ClientId,
        filters: impl Iterator<Item = &'a str> + Clone,
        qos: Qos,
    ) -> Result<(), EncodeError> {
        let member = &mut self.members[client.index()];
        let packet_id = member.client.next_packet_id();
        let version = member.client.version;
        let filters = filters.map(|filter| codec::SubscribeFilter {
            filter,
            options: SubscriptionOptions::with_qos(qos),
        });
        member.outbox.encode(|out| {
            codec::encode_subscribe(out, version, packet_id, Properties::EMPTY, filters)
        })?;
        self.mark_dirty(client);
        Ok(())
    }

    /// Publishes a message with the next turn. With QoS 1, [`Notice::Acknowledged`] with the returned packet identifier
    /// will follow. A client whose connection has ended publishes into nothing.
    ///
    /// # Errors
    /// The topic name is none, or the packet would be too large.
    pub fn publish(
        &mut self,
        client: ClientId,
        topic: &str,
        qos: Qos,
        payload: &[u8],
    ) -> Result<Option<NonZeroU16>, EncodeError> {
        let member = &mut self.members[client.index()];
        let packet_id = (qos != Qos::AtMostOnce).then(|| member.client.next_packet_id());
        let head = PublishHead {
            qos,
            topic,
            packet_id,
            ..PublishHead::default()
        };
        let version = member.client.version;
        member
            .outbox
            .encode(|out| codec::encode_publish(out, version, &head, payload))?;
        self.mark_dirty(client);
        Ok(packet_id)
    }

    /// Writes what waits, waits for something to happen but no longer than `timeout` (rounded up to milliseconds), and
    /// appends what happened to `notices`.
    ///
    /// # Errors
    /// The poll itself fails; trouble with one connection is a [`Notice::Closed`].
    pub fn turn(&mut self, timeout: Duration, notices: &mut Vec<Notice>) -> io::Result<()> {
        self.flush(notices);
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let Self {
            events,
            members,
            scratch,
            memory,
            ..
        } = self;
        for event in &*events {
            let member = &mut members[event.token().0];
            let result = member.on_event(event, scratch, memory, notices);
            if let Err(why) = result {
                member.close(why, notices);
            }
        }
        Ok(())
    }

    /// Why each closed client was closed, as counts by reason; for messages to people.
    #[must_use]
    pub fn reasons_of(notices: &[Notice]) -> HashMap<&str, usize> {
        let mut reasons = HashMap::new();
        for notice in notices {
            if let Notice::Closed { why, .. } = notice {
                *reasons.entry(why.as_str()).or_default() += 1;
            }
        }
        reasons
    }

    fn mark_dirty(&mut self, client: ClientId) {
        let member = &mut self.members[client.index()];
        if !member.dirty {
            member.dirty = true;
            self.dirty.push(client);
        }
    }

    fn flush(&mut self, notices: &mut Vec<Notice>) {
        for client in self.dirty.drain(..) {
            let member = &mut self.members[client.index()];
            member.dirty = false;
            if member.client.stage == Stage::Connecting {
                continue;
            }
            if let Err(why) = member.write(&mut self.memory) {
                member.close(why, notices);
            }
        }
    }
}

impl Member {
    fn on_event(
        &mut self,
        event: &mio::event::Event,
        scratch: &mut [u8],
        memory: &mut MemoryOutput,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        if self.client.stage == Stage::Connecting {
            if !event.is_writable() {
                return Ok(());
            }
            if let Some(Transport::Tcp(stream)) = &self.transport
                && let Some(error) = stream.take_error().map_err(|error| error.to_string())?
            {
                return Err(format!("connecting failed: {error}"));
            }
            self.client.stage = Stage::Handshake;
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(scratch, notices)?;
        }
        self.write(memory)
    }

    /// Reads until the socket is empty and takes every whole packet.
    fn read(&mut self, scratch: &mut [u8], notices: &mut Vec<Notice>) -> Result<(), String> {
        let Some(transport) = &mut self.transport else {
            return Ok(());
        };
        loop {
            let kept = self.unread.len();
            scratch[..kept].copy_from_slice(&self.unread);
            let read = match transport.read(&mut scratch[kept..]) {
                Ok(0) => return Err("the broker closed the connection".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            self.unread.clear();
            let mut rest = &scratch[..kept + read];
            while let Some(frame) =
                codec::split_frame(rest, PACKET_BYTES_MAX).map_err(|error| error.to_string())?
            {
                let packet =
                    codec::decode(self.client.version, frame).map_err(|error| error.to_string())?;
                rest = &rest[frame.len..];
                let client = &mut self.client;
                self.outbox
                    .encode(|out| client.on_packet(&packet, out, notices))?;
            }
            self.unread.extend_from_slice(rest);
            // Less than asked for: the socket is empty, and more of it is a new event.
            if kept + read < scratch.len() {
                return Ok(());
            }
        }
    }

    fn write(&mut self, memory: &mut MemoryOutput) -> Result<(), String> {
        let Some(transport) = &mut self.transport else {
            self.outbox = Outbox::default();
            return Ok(());
        };
        if self.outbox.is_empty() {
            return Ok(());
        }
        match self.outbox.write_to(transport, memory) {
            Ok(_) => Ok(()),
            // The rest goes when the socket says that it takes more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn close(&mut self, why: String, notices: &mut Vec<Notice>) {
        if self.client.stage == Stage::Closed {
            return;
        }
        self.client.stage = Stage::Closed;
        self.transport = None;
        self.outbox = Outbox::default();
        self.unread = Vec::new();
        notices.push(Notice::Closed {
            client: self.client.id,
            why,
        });
    }
}
