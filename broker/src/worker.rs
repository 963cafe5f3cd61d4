//! A worker: it owns its connections, sessions, timers and scratch memory outright and is a deterministic function of
//! its inputs (bytes, inbox, time). Threads and sockets are the driver's business; tests drive it by hand.
//!
//! One turn: read what is ready, take the inbox, fire due timers, flush every dirty outbox once.

mod admin;
mod close;
mod connect;
mod deliver;
mod drain;
mod held;
mod identify;
mod layers;
mod leave;
mod memory;
mod packets;
mod pressure;
mod publish;
mod recheck;
mod reconfigure;
mod refused;
mod subscribe;
mod sys;
mod turn;
mod watch;
mod wills;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use codec::{DecodeError, Packet, Qos};
use hashbrown::HashTable;

use crate::access::{Access, Denials};
use crate::config::{Config, Drain};
use crate::connection::{Connection, Connections};
use crate::handle::{Inbox, Shared};
use crate::limits::{Limits, TIMER_LOOK_MS, TIMER_TICK_MS, WORK_PER_TURN_MAX};
use crate::outcome::Fate;
use crate::router::{Matches, Receiver};
use crate::session::{Frames, Incoming, OFFLINE, Session};
use crate::sink::Sink;
use crate::slab::Slab;
use crate::stats::Local;
use crate::time::Time;
use crate::timers::{Timer, Timers};
use crate::transport::{Handover, MemoryOutput, Transport};

pub(crate) use close::Close;
pub(crate) use drain::Drained;
pub(crate) use identify::Answer;
pub(crate) use turn::Next;

/// What all workers of a node are told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) access: Access,
    /// What the access rules refused.
    pub(crate) denials: Arc<Denials>,
    pub(crate) assign_client_ids: bool,
    pub(crate) drain: Drain,
    pub(crate) sys_interval_s: u32,
}

impl Settings {
    pub(crate) fn new(config: &Config, denials: Arc<Denials>) -> Arc<Self> {
        Arc::new(Self {
            limits: config.limits.clone(),
            access: Access::new(&config.access),
            denials,
            assign_client_ids: config.assign_client_ids,
            drain: config.drain.clone(),
            sys_interval_s: config.sys_interval_s,
        })
    }

    /// Whether the timer of a connection's CONNECT fires before its keep-alive can end, and so can go on as the timer of
    /// that: most do, and need no second one.
    fn connect_timer_goes_on(&self, keep_alive_s: u16) -> bool {
        let keep_alive_ms = (u64::from(keep_alive_s) * 1_500).min(TIMER_LOOK_MS);
        keep_alive_s > 0
            && self.limits.connect_timeout_ms.saturating_add(TIMER_TICK_MS) <= keep_alive_ms
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Handled: on to the next.
    Done,
    /// A publish with QoS 1 or 2 that is not handled and kept: the client is held until the sink moves.
    Hold,
    /// A CONNECT that is not handled before it is known who sends it.
    Wait,
    /// Not handled: its client's home is another worker, to which the connection goes.
    Move(usize),
    /// The connection is closed.
    Closed,
}

/// Whether the packet that begins with `byte` is PUBLISH, SUBSCRIBE or UNSUBSCRIBE.
fn asks_for_work(byte: u8) -> bool {
    matches!(byte >> 4, 3 | 8 | 10)
}

/// See the module.
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    sink: Arc<dyn Sink>,
    registry: Option<mio::Registry>,
    /// The connection that is being adopted and not registered yet.
    adopting: Option<u32>,
    now: Time,
    /// What this part of the turn has done; see [`WORK_PER_TURN_MAX`].
    work: u64,
    /// The last turn left outboxes to be written.
    is_behind: bool,
    /// Steps of handshakes in this turn.
    handshakes: u32,
    relief: pressure::Relief,
    connections: Connections,
    sessions: Slab<Session>,
    /// The session from which on it is looked whether all may still be.
    recheck_from: Option<u32>,
    /// Whose credentials are being looked at.
    questions: identify::Questions,
    /// Session slots by client identifier.
    clients: HashTable<u32>,
    /// When this worker next looks for retained messages that have expired.
    retained_expire_at: Option<Time>,
    timers: Timers,
    counts: Local,
    /// Connections held because the sink had no room.
    held_by_sink: Vec<u32>,
    refused: refused::RefusedClients,
    waiting_wills: wills::WaitingWills,
    /// Connections not read from because the node has read enough ahead.
    wait_for_node: Vec<u32>,
    /// What sessions that have ended had published and is not settled, by slot and generation; with the hash of the client
    /// identifier.
    departed: HashMap<(u32, u16), (Incoming, u32)>,
    /// Takes no new clients: the node is about to end.
    is_leaving: bool,
    /// What somebody looks at.
    watch: Option<Box<watch::Watch>>,
    /// What `$SYS` has to remember, at the worker that publishes it.
    sys: Option<Box<sys::Sys>>,
    /// Entries for the other workers, posted once a turn.
    posts: Vec<Vec<Inbox>>,
    /// What became of followed messages that waited, told once a turn.
    followed: Vec<(u64, Fate)>,
    /// Entries of the inbox that were handled, and their bytes, while these still count.
    handled: (usize, usize),
    /// How far its end is, once that has begun.
    draining: Option<drain::Drain>,
    voice: drain::Voice,
    memory: MemoryOutput,
    // Working memory, reused.
    read_buffer: Vec<u8>,
    /// What came through a connection's layers.
    plain: Vec<u8>,
    inbox: Vec<Inbox>,
    found: Matches,
    remote: Vec<Vec<Receiver>>,
    frames: Frames,
    forwardable: Vec<u8>,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        settings: Arc<Settings>,
        sink: Arc<dyn Sink>,
        registry: Option<mio::Registry>,
    ) -> Self {
        let workers = shared.mailboxes.len();
        let outbox_bytes_max = settings.limits.outbox_bytes_max;
        let voice = drain::Voice::new(&shared, index);
        let mut timers = Timers::default();
        if index == 0 && settings.sys_interval_s > 0 {
            timers.at(Time(0), Timer::Sys);
        }
        Self {
            index,
            shared,
            read_buffer: vec![0; settings.limits.read_bytes_per_turn as usize],
            sink,
            registry,
            adopting: None,
            now: Time(0),
            work: 0,
            is_behind: false,
            handshakes: 0,
            relief: pressure::Relief::new(outbox_bytes_max),
            connections: Connections::default(),
            sessions: Slab::default(),
            recheck_from: None,
            questions: identify::Questions::default(),
            clients: HashTable::new(),
            settings,
            retained_expire_at: None,
            timers,
            counts: Local::default(),
            held_by_sink: Vec::new(),
            refused: refused::RefusedClients::default(),
            waiting_wills: wills::WaitingWills::default(),
            wait_for_node: Vec::new(),
            departed: HashMap::new(),
            sys: None,
            is_leaving: false,
            watch: None,
            followed: Vec::new(),
            posts: (0..workers).map(|_| Vec::new()).collect(),
            handled: (0, 0),
            draining: None,
            voice,
            memory: MemoryOutput::default(),
            plain: Vec::new(),
            inbox: Vec::new(),
            found: Matches::default(),
            remote: (0..workers).map(|_| Vec::new()).collect(),
            frames: Frames::default(),
            forwardable: Vec::new(),
        }
    }

    /// Takes a new connection, or one that another worker handed over, and handles what it brings along.
    pub(crate) fn adopt(&mut self, handover: Handover) -> Option<u32> {
        let Handover { transport, unread } = handover;
        // One that another worker hands over, with its CONNECT, was counted and admitted there.
        let is_new = unread.is_empty();
        let limit = self.settings.limits.connections_max;
        let draining = self.is_draining();
        let listener = transport.listener();
        let refused = if is_new && !draining {
            self.shared.admit(listener, limit).err()
        } else {
            None
        };
        if draining || refused.is_some() {
            self.counts.connections_opened += u64::from(is_new);
            self.counts.connections_closed += 1;
            if draining {
                self.counts.closed_shutdown += 1;
            } else {
                self.counts.closed_limit += 1;
                if let Some(bound) = refused
                    && let Some(times) = self.shared.refused.count(self.now)
                {
                    tracing::warn!(times, "connections were closed at once: {bound}");
                }
            }
            if draining && !is_new {
                self.shared.let_go(listener);
            }
            if let Some(memory) = transport.memory() {
                self.memory.drops(memory.peer);
            }
            return None;
        }
        let (slot, generation) = self
            .connections
            .slab
            .insert(Connection::new(transport, self.now));
        self.counts.connections_opened += u64::from(is_new);
        self.counts.connections += 1;
        if let Some(connection) = self.connections.slab.get(slot)
            && let Some(memory) = connection.transport.memory()
        {
            self.memory.opened.push((memory.peer, slot));
        }
        let connect_by = self.now.plus_ms(self.settings.limits.connect_timeout_ms);
        self.timers.at(
            connect_by,
            Timer::Connect {
                connection: slot,
                generation,
            },
        );
        self.adopting = Some(slot);
        if !unread.is_empty() {
            self.handle_bytes(slot, &unread);
        } else if self.registry.is_some() && self.may_read() {
            // In a storm the CONNECT is often here already: a connection that goes on to its home is never registered.
            self.readable(slot);
        }
        self.adopting = None;
        self.register(slot, generation);
        self.goes_on_held(slot);
        Some(slot)
    }

    /// The system had no file or memory for a connection. When a log line is due: how often that was.
    pub(crate) fn unaccepted(&mut self) -> Option<u64> {
        self.counts.connections_unaccepted += 1;
        self.shared.unaccepted.count(self.now)
    }

    /// Has the kernel tell when there is something to read, and at once if there is something now. Room to write is
    /// asked for by the few that run out of it.
    fn register(&mut self, slot: u32, generation: u16) {
        let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
            return; // closed, or gone to its home
        };
        if let Some(registry) = &self.registry
            && let Some(source) = connection.transport.source()
            && let Err(error) =
                registry.register(source, mio::Token(slot as usize), mio::Interest::READABLE)
        {
            tracing::warn!(%error, "a connection could not be registered and was closed");
            self.close(slot, Close::Lost);
        }
    }

    /// Reads from a connection that may have something, a bounded number of bytes.
    pub(crate) fn readable(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        connection.set_readable(true);
        if self.shakes_hands_later(slot) {
            return;
        }
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        // One that waits for its next turn brings no more before it has had it, not even its end.
        let goes_on = connection.reads_ahead() && !connection.is_held();
        if self.work >= WORK_PER_TURN_MAX && (connection.waits() || goes_on) {
            return;
        }
        let room = self.room(slot);
        if room == 0 {
            return;
        }
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        match &mut connection.transport {
            Transport::Plain { socket, .. } => {
                let result = socket.read(&mut buffer[..room]);
                self.read_on(slot, result, &buffer[..room]);
            }
            Transport::Layered(_) => self.readable_layered(slot, &mut buffer[..room]),
        }
        self.read_buffer = buffer;
    }

    /// Goes on with what a read of a socket into `buffer` came to.
    fn read_on(&mut self, slot: u32, result: io::Result<usize>, buffer: &[u8]) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        match result {
            Ok(0) => self.close(slot, Close::Lost),
            Ok(n) => {
                self.counts.bytes_received += n as u64;
                // A short read emptied the socket: the next bytes make a new edge. An end that came with these does not.
                let emptied =
                    n < buffer.len() && connection.transport.socket().is_emptied_by_a_short_read();
                let more = !emptied || connection.is_ended();
                connection.set_readable(more);
                self.handle_bytes(slot, &buffer[..n]);
                if more {
                    self.connections.list(slot);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.set_readable(false);
            }
            Err(_) => self.close(slot, Close::Lost),
        }
    }

    /// The other side has sent its last byte. What it sent is still to be read.
    pub(crate) fn ended(&mut self, slot: u32) {
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.set_ended();
        }
    }

    /// Handles bytes of a connection together with what was left of the last ones.
    pub(crate) fn handle_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if connection.is_closing() {
            if connection.discard(bytes.len()) > crate::limits::LINGER_BYTES_MAX {
                // What it still sends waits in the kernel; it has its time to read our last packet all the same.
                connection.set_owes_reading(true);
            }
            return;
        }
        let mut rest = connection.take_rest();
        if rest.is_empty() {
            let handled = self.handle_packets(slot, bytes);
            if handled < bytes.len()
                && let Some(connection) = self.connections.slab.get_mut(slot)
                && !connection.is_closing()
            {
                connection.keep_rest(bytes[handled..].to_vec());
                self.count_ahead(slot);
            }
        } else {
            rest.extend_from_slice(bytes);
            let handled = self.handle_packets(slot, &rest);
            if let Some(connection) = self.connections.slab.get_mut(slot)
                && !connection.is_closing()
            {
                rest.drain(..handled);
                connection.keep_rest(rest);
                self.count_ahead(slot);
            }
        }
    }

    /// Handles whole packets in order until there is none left, but for publishes that have to wait: the number of bytes
    /// handled. Where the connection is gone afterwards, the number means nothing.
    fn handle_packets(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let packet_bytes_max = self.settings.limits.packet_bytes_max;
        let mut at = 0;
        while at < bytes.len() {
            let Some(connection) = self.connections.slab.get_mut(slot) else {
                break;
            };
            if connection.is_closing() || connection.owes_reading() {
                break;
            }
            // Every packet may be answered, and answers must not pile up for a client that does not read them.
            if connection.outbox_bytes() as u64 > self.settings.limits.outbox_bytes_max {
                connection.set_owes_reading(true);
                break;
            }
            let ahead = connection.reads_ahead();
            // Who asks for no work is answered also when there is enough for this turn.
            if self.work >= WORK_PER_TURN_MAX && asks_for_work(bytes[at]) {
                self.connections.list(slot);
                break;
            }
            let (session, version) = (connection.session, connection.version);
            // 0x16 begins a TLS hello.
            if session == OFFLINE {
                if connection.is_asked() {
                    break;
                }
                if bytes[at] >> 4 != 1 || bytes[at] == 0x16 {
                    self.close(slot, Close::NotMqtt(bytes[at]));
                    break;
                }
            }
            let frame = match codec::split_frame(&bytes[at..], packet_bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.close(slot, Close::Decode(error));
                    break;
                }
            };
            let len = frame.len;
            let decoded = codec::decode(version, frame);
            if self.watch.is_some()
                && let Ok(packet) = &decoded
            {
                self.saw_packet(slot, session, packet);
            }
            let step = match decoded {
                Ok(Packet::Publish(publish)) if ahead => {
                    let tracked = publish.qos != Qos::AtMostOnce;
                    self.read_ahead(slot, session, tracked, &bytes[at..at + len])
                }
                Ok(packet) => self.handle_packet(slot, session, &packet),
                Err(DecodeError::UnsupportedVersion(version)) if session == OFFLINE => {
                    self.refuse_version(slot, version);
                    Step::Closed
                }
                Err(error) => {
                    self.close(slot, Close::Decode(error));
                    Step::Closed
                }
            };
            let step = match step {
                Step::Hold => self.read_ahead(slot, session, true, &bytes[at..at + len]),
                other => other,
            };
            match step {
                Step::Done => {
                    at += len;
                    self.counts.packets_received += 1;
                    if let Some(connection) = self.connections.slab.get_mut(slot) {
                        connection.has_heard(self.now);
                    }
                }
                Step::Hold | Step::Wait | Step::Closed => break,
                Step::Move(worker) => {
                    self.hand_over(slot, worker, &bytes[at..]);
                    break;
                }
            }
        }
        at
    }

    fn handle_packet(&mut self, slot: u32, session: u32, packet: &Packet<'_>) -> Step {
        if session == OFFLINE {
            return match packet {
                Packet::Connect(connect) => self.on_connect(slot, connect),
                _ => self.close_step(slot, Close::NotMqtt(0)),
            };
        }
        self.on_packet(slot, session, packet)
    }

    fn close_step(&mut self, slot: u32, close: Close) -> Step {
        self.close(slot, close);
        Step::Closed
    }

    /// Gives a connection to the worker that owns its client's session, with the bytes that it will read first.
    fn hand_over(&mut self, slot: u32, worker: usize, unread: &[u8]) {
        let Some(mut connection) = self.connections.slab.remove(slot) else {
            return;
        };
        self.counts.connections -= 1; // it counts where it goes
        if let Some(registry) = &self.registry
            && self.adopting != Some(slot)
            && let Some(source) = connection.transport.source()
            && let Err(error) = registry.deregister(source)
        {
            tracing::warn!(%error, "a connection could not be handed to its worker");
            self.counts.connections_closed += 1;
            self.counts.closed_lost += 1;
            self.shared.let_go(connection.transport.listener());
            return;
        }
        let handover = Handover {
            transport: connection.transport,
            unread: unread.to_vec(),
        };
        self.posts[worker].push(Inbox::Adopt(Box::new(handover)));
    }
}
