//! A whole broker in one thread: real workers, sessions, router and sink over connections in memory, on time that the
//! caller owns. The same inputs give the same outputs, so a test can cut a connection at every byte, settle a sink's
//! publishes in any order and let hours pass, and a failure can be run again.
//!
//! Only threads and the kernel's sockets are missing. [`crate::Broker`] is the same workers with those. A [`Shard`] is
//! one worker with nothing around it, for clients by the million and for real time.

mod shard;

use std::sync::Arc;

pub use shard::Shard;

use crate::config::Config;
use crate::gates::Gates;
use crate::handle::{Handle, Inbox, Shared};
use crate::sink::Sink;
use crate::stats::Stats;
use crate::time::Time;
use crate::transport::{Handover, Layer, Memory, Socket, Transport};
use crate::worker::{Next, Worker};

/// Turns after which [`Sim::run`] gives up waiting for rest: workers that never rest are a bug.
const TURNS_MAX: usize = 1_000_000;

/// The client's end of a connection to a [`Sim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub u32);

#[derive(Debug, Default)]
struct End {
    /// The worker and slot that hold the connection; `None` while it moves between workers.
    place: Option<(usize, u32)>,
    to_broker: Vec<u8>,
    from_broker: Vec<u8>,
    open: bool,
    blocked: bool,
    /// The client writes no more.
    finished: bool,
}

/// See the module.
pub struct Sim {
    workers: Vec<Worker>,
    shared: Arc<Shared>,
    ends: Vec<End>,
    /// Ends with bytes to read, so that idle ones cost nothing.
    busy: Vec<u32>,
    now: Time,
    next_worker: usize,
    ended: Vec<bool>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim")
            .field("now", &self.now)
            .field("peers", &self.ends.len())
            .finish_non_exhaustive()
    }
}

impl Sim {
    /// A broker with `config.workers` workers (one, where that is 0) and the given sink. `seed` decides what is
    /// random in a broker: hashes.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn new(config: &Config, sink: Arc<dyn Sink>, seed: u64) -> Result<Self, settings::Error> {
        let (shared, workers) = shard::workers(config, &sink, seed)?;
        let count = workers.len();
        Ok(Self {
            workers,
            shared,
            ends: Vec::new(),
            busy: Vec::new(),
            now: Time(0),
            next_worker: 0,
            ended: vec![false; count],
        })
    }

    /// The same, with a chain that looks at who its clients are.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn guarded(
        config: &Config,
        sink: Arc<dyn Sink>,
        seed: u64,
        chain: Arc<identity::Chain>,
    ) -> Result<Self, settings::Error> {
        let sim = Self::new(config, sink, seed)?;
        sim.shared.set_gates(Gates::of(chain));
        Ok(sim)
    }

    /// The way in that other threads have; here for settling and publishing.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The counters, as of the last turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle().stats()
    }

    /// The worker that owns that client's session.
    #[must_use]
    pub fn home(&self, client_id: &str) -> usize {
        self.shared.home(client_id)
    }

    /// Timers that are set, those that are no longer wanted included.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.workers.iter().map(Worker::timers).sum()
    }

    /// Opens a connection; each goes to the next worker, as `accept` might have it.
    ///
    /// # Panics
    /// When there were 2^32 connections.
    pub fn connect(&mut self) -> Peer {
        self.connect_to(0)
    }

    /// The same, on the listener at that place of the configuration.
    ///
    /// # Panics
    /// As [`Sim::connect`], and where there is no such listener.
    pub fn connect_to(&mut self, listener: u16) -> Peer {
        let socket = Socket::Memory(Memory::default());
        let layers = self.shared.ports[usize::from(listener)].layers(&socket);
        self.open(listener, layers)
    }

    /// The same, with layers at the broker's end, the lowest first.
    ///
    /// # Panics
    /// As [`Sim::connect`].
    pub fn connect_over(&mut self, layers: Vec<Box<dyn Layer>>) -> Peer {
        self.open(0, layers)
    }

    fn open(&mut self, listener: u16, layers: Vec<Box<dyn Layer>>) -> Peer {
        let number = u32::try_from(self.ends.len()).expect("fewer than 2^32 connections");
        self.ends.push(End {
            open: true,
            ..End::default()
        });
        let worker = self.next_worker;
        self.next_worker = (worker + 1) % self.workers.len();
        let memory = Memory {
            peer: number,
            blocked: false,
        };
        let transport = Transport::new(Socket::Memory(memory), listener, layers);
        self.workers[worker].begin(self.now);
        self.workers[worker].adopt(Handover {
            transport,
            unread: Vec::new(),
        });
        self.collect(worker);
        Peer(number)
    }

    /// The client writes bytes; the broker reads them in the next turns, unless it holds the client.
    pub fn send(&mut self, peer: Peer, bytes: &[u8]) {
        let end = &mut self.ends[peer.0 as usize];
        if end.open && !end.finished && !bytes.is_empty() {
            if end.to_broker.is_empty() {
                self.busy.push(peer.0);
            }
            end.to_broker.extend_from_slice(bytes);
        }
    }

    /// The client closes its connection: the broker sees the end behind what was written before, as behind a socket's last
    /// bytes, and that it is there as soon as it looks.
    pub fn finish(&mut self, peer: Peer) {
        let end = &mut self.ends[peer.0 as usize];
        if end.open && !end.finished {
            end.finished = true;
            if end.to_broker.is_empty() {
                self.busy.push(peer.0);
            }
            if let Some((worker, slot)) = end.place {
                self.workers[worker].ended(slot);
            }
        }
    }

    /// Bytes that the client has written and the broker not read.
    #[must_use]
    pub fn unread(&self, peer: Peer) -> usize {
        self.ends[peer.0 as usize].to_broker.len()
    }

    /// Bytes that the broker holds for the client and has not written.
    #[must_use]
    pub fn unsent(&self, peer: Peer) -> usize {
        let place = self.ends[peer.0 as usize].place;
        place.map_or(0, |(worker, slot)| {
            self.workers[worker].unsent(slot, peer.0)
        })
    }

    /// Takes what the broker has written to the client.
    pub fn receive(&mut self, peer: Peer) -> Vec<u8> {
        std::mem::take(&mut self.ends[peer.0 as usize].from_broker)
    }

    /// Whether neither side has closed the connection.
    #[must_use]
    pub fn is_open(&self, peer: Peer) -> bool {
        self.ends[peer.0 as usize].open
    }

    /// The connection breaks: what was written and not read is lost, on both sides.
    pub fn cut(&mut self, peer: Peer) {
        let end = &mut self.ends[peer.0 as usize];
        end.open = false;
        end.to_broker.clear();
        end.from_broker.clear();
        if let Some((worker, slot)) = end.place {
            self.workers[worker].begin(self.now);
            self.workers[worker].hang_up(slot, peer.0);
            self.collect(worker);
        }
    }

    /// The client reads nothing any more, or reads again.
    pub fn block(&mut self, peer: Peer, blocked: bool) {
        let end = &mut self.ends[peer.0 as usize];
        end.blocked = blocked;
        if let Some((worker, slot)) = end.place {
            self.workers[worker].set_blocked(slot, peer.0, blocked);
        }
    }

    /// Gives each of these workers one turn, in the given order. False when nothing happened and nothing is left to
    /// do now, for them or for others.
    pub fn turn(&mut self, order: impl IntoIterator<Item = usize>) -> bool {
        let mut moved = false;
        for worker in order {
            moved |= self.turn_of(worker);
        }
        moved
            || self
                .shared
                .mailboxes
                .iter()
                .any(|mailbox| mailbox.waiting() > 0)
    }

    fn turn_of(&mut self, at: usize) -> bool {
        if self.ended[at] {
            return false;
        }
        let mut moved = self.shared.mailboxes[at].waiting() > 0;
        let worker = &mut self.workers[at];
        worker.begin(self.now);
        worker.go_on();
        let mut still_busy = Vec::new();
        for number in std::mem::take(&mut self.busy) {
            let end = &mut self.ends[number as usize];
            let is_gone = !end.open && end.place.is_none();
            if (end.to_broker.is_empty() && !end.finished) || is_gone {
                continue;
            }
            let Some((_, slot)) = end.place.filter(|(of, _)| *of == at) else {
                still_busy.push(number);
                continue;
            };
            let worker = &mut self.workers[at];
            let read = worker.feed_some(slot, number, &end.to_broker);
            end.to_broker.drain(..read);
            moved |= read > 0;
            if !end.to_broker.is_empty() {
                still_busy.push(number);
            } else if end.finished && worker.reads(slot) > 0 {
                worker.hang_up(slot, number);
                moved = true;
            } else if end.finished {
                still_busy.push(number);
            }
        }
        self.busy = still_busy;
        let worker = &mut self.workers[at];
        worker.take_inbox();
        worker.fire_timers();
        worker.flush();
        match worker.end() {
            Next::Now => moved = true,
            Next::Ended => self.ended[at] = true,
            Next::At(time) => moved |= time <= self.now,
            Next::Idle => {}
        }
        self.collect(at) | moved
    }

    /// Hands out what a worker wrote, and notes which connections it opened, took over and closed.
    fn collect(&mut self, worker: usize) -> bool {
        let mut moved = false;
        loop {
            let output = std::mem::take(self.workers[worker].memory());
            if output.writes.is_empty() && output.opened.is_empty() && output.closed.is_empty() {
                return moved;
            }
            moved = true;
            for (peer, slot) in output.opened {
                let end = &mut self.ends[peer as usize];
                end.place = Some((worker, slot));
                self.workers[worker].set_blocked(slot, peer, end.blocked);
                if end.finished {
                    self.workers[worker].ended(slot);
                }
                if !end.open {
                    self.workers[worker].hang_up(slot, peer);
                }
            }
            let mut bytes = &output.bytes[..];
            for (peer, len) in output.writes {
                let (written, rest) = bytes.split_at(len);
                bytes = rest;
                let end = &mut self.ends[peer as usize];
                if end.open {
                    end.from_broker.extend_from_slice(written);
                }
            }
            for peer in output.dropped {
                let end = &mut self.ends[peer as usize];
                if end.open && !end.to_broker.is_empty() {
                    // A socket that is closed with unread bytes is reset: what was under way to the client is lost.
                    end.from_broker.clear();
                }
                end.to_broker = Vec::new();
                end.place = None;
                end.open = false;
            }
            for peer in output.closed {
                let end = &mut self.ends[peer as usize];
                if !std::mem::replace(&mut end.open, false) {
                    continue;
                }
                // Reading the end of the stream, a client hangs up too, behind what it has written.
                if !std::mem::replace(&mut end.finished, true) && end.to_broker.is_empty() {
                    self.busy.push(peer);
                }
                if let Some((of, slot)) = end.place {
                    self.workers[of].ended(slot);
                }
            }
        }
    }

    /// Gives turns until nothing is left to do at this time.
    ///
    /// # Panics
    /// When the workers never come to rest.
    pub fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn(0..self.workers.len()) {
                return;
            }
        }
        panic!("the workers did not come to rest within {TURNS_MAX} turns");
    }

    /// Lets time pass; what is due happens in the next turns.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Lets time pass, stopping wherever a timer fires, and runs.
    pub fn advance_ms(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        self.run();
        while let Some(at) = self
            .workers
            .iter()
            .zip(&self.ended)
            .filter_map(|(worker, ended)| worker.next_timer().filter(|_| !ended))
            .filter(|at| *at <= until)
            .min()
        {
            self.now = self.now.max(at);
            self.run();
        }
        self.now = until;
        self.run();
    }

    /// Begins to shut down, as `Running::shutdown` does.
    pub fn begin_shut_down(&mut self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.send_one(Inbox::Shutdown);
        }
    }

    /// Whether every worker has drained and ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }

    /// Shuts down, and lets the drain's time pass: whether the workers ended.
    pub fn shut_down(&mut self) -> bool {
        self.begin_shut_down();
        for _ in 0..1_000 {
            self.turn(0..self.workers.len());
            if self.has_ended() {
                return true;
            }
            self.now = self.now.plus_ms(20);
        }
        false
    }
}
