//! One shard of the simulated broker and its clients: the [`Swarm`] of one thread.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use broker::sim::Shard;
use broker::transport::MemoryOutput;
use broker::{Handle, Time};
use codec::{Packet, Properties, Publish, Qos, SubscribeFilter, SubscriptionOptions};

use super::SimClock;
use super::flight::{Due, Flights};
use super::packets::ReceiveMaximums;
use super::pings::Pings;
use super::state::{CLASSES_MAX, NO_SLOT, Stage, State, Table};
use crate::clock::{self, Nanos};
use crate::slow_reader::Allowance;
use crate::swarm::{Client, Hello, Leave, Notice, Outgoing, Swarm, SwarmError};

/// Turns of the broker in one turn of the swarm, for answers to answers, before the owner is told what happened so far.
const ROUNDS_MAX: usize = 16;

/// How long the swarm sleeps at most while bytes wait that the broker does not read.
const RETRY: Duration = Duration::from_millis(1);

/// What the broker wrote in one turn takes this much memory for good; more is given back.
const OUTPUT_BYTES_KEPT: usize = 16 * 1_048_576;

const NANOS_PER_MS: Nanos = 1_000_000;
const PINGREQ: [u8; 2] = [0xC0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// See the module.
#[derive(Debug)]
pub struct SimulatedSwarm {
    shard: Shard,
    shards: usize,
    pub(super) clients: Table,
    clock: SimClock,
    /// Zero of the broker's clock.
    start: Nanos,
    /// The time as of the last look at the clock; the time itself where it is virtual.
    now: Nanos,
    /// When the broker wants its next turn.
    wanted: Option<Time>,
    pings: Pings,
    pub(super) flights: Flights,
    pub(super) receive_maximums: ReceiveMaximums,
    /// Messages of QoS 2 that clients got and the broker has not released.
    pub(super) received: HashMap<u32, Vec<NonZeroU16>, ahash::RandomState>,
    /// Bytes that the broker does not read now.
    unread: BTreeMap<u32, Vec<u8>>,
    /// Clients that read slowly. What the broker has for one it writes as a whole, so such a client takes more at a time than
    /// it may, and then nothing for as long as that makes good.
    slow: BTreeMap<u32, Slow>,
    output: MemoryOutput,
    scratch: Vec<u8>,
}

/// A client that reads slowly.
#[derive(Debug)]
struct Slow {
    allowance: Allowance,
    /// It takes nothing now.
    blocked: bool,
}

impl SimulatedSwarm {
    pub(super) fn new(
        shard: Shard,
        shards: usize,
        clients: Table,
        clock: SimClock,
        start: Nanos,
    ) -> Self {
        Self {
            shard,
            shards,
            pings: Pings::new(clients.len()),
            clients,
            clock,
            start,
            now: start,
            wanted: None,
            flights: Flights::default(),
            receive_maximums: ReceiveMaximums::default(),
            received: HashMap::default(),
            unread: BTreeMap::new(),
            slow: BTreeMap::new(),
            output: MemoryOutput::default(),
            scratch: Vec::new(),
        }
    }

    /// The way into the whole broker, for its counters, or to settle what a sink holds.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.shard.handle()
    }

    fn time_of(&self, nanos: Nanos) -> Time {
        Time(nanos.saturating_sub(self.start) / NANOS_PER_MS)
    }

    fn nanos_of(&self, time: Time) -> Nanos {
        self.start
            .saturating_add(time.0.saturating_mul(NANOS_PER_MS))
    }

    fn set_now(&mut self, now: Nanos) {
        self.now = now;
        self.shard.set_now(self.time_of(now));
    }

    /// The class of a keep-alive interval.
    pub(super) fn class(&mut self, keep_alive_s: u16) -> io::Result<u8> {
        self.pings.class(keep_alive_s, self.now).ok_or_else(|| {
            let max = CLASSES_MAX - 1;
            let why = format!("simulated clients have at most {max} different keep-alives");
            io::Error::other(why)
        })
    }

    /// Writes a client's bytes to the broker.
    pub(super) fn feed(&mut self, client: u32, state: State, bytes: &[u8]) {
        if !self.unread.is_empty()
            && let Some(unread) = self.unread.get_mut(&client)
        {
            unread.extend_from_slice(bytes);
        } else if !self.shard.feed(state.slot(), client, bytes) {
            self.unread.insert(client, bytes.to_vec());
        }
    }

    /// Offers again what the broker did not read.
    fn feed_unread(&mut self) {
        let Self {
            unread,
            shard,
            clients,
            ..
        } = self;
        unread.retain(|client, bytes| !shard.feed(clients.get(*client).slot(), *client, bytes));
    }

    /// Forgets what was agreed and under way on a client's connection.
    fn forget(&mut self, client: u32, mut state: State) {
        state.set_stage(Stage::Away);
        state.set_pinged(false);
        state.set_class(0);
        self.clients.set(client, state);
        self.flights.forget(client);
        self.unread.remove(&client);
        self.slow.remove(&client);
    }

    /// The connection ended without our doing.
    pub(super) fn close(&mut self, client: u32, why: String, notices: &mut Vec<Notice>) {
        let state = self.clients.get(client);
        if state.stage() == Stage::Away {
            return;
        }
        self.shard.hang_up(state.slot(), client);
        self.forget(client, state);
        let client = Client(client);
        notices.push(Notice::Closed { client, why });
    }

    /// One turn of the broker, and what its clients make of it.
    fn round(&mut self, notices: &mut Vec<Notice>) {
        let mut output = std::mem::take(&mut self.output);
        self.wanted = self.shard.turn(&mut output);
        let mut bytes = &output.bytes[..];
        for writes in output.writes.chunk_by(|one, next| one.0 == next.0) {
            let len = writes.iter().map(|(_, len)| len).sum();
            let (written, rest) = bytes.split_at(len);
            bytes = rest;
            let client = writes[0].0;
            if !self.slow.is_empty() {
                self.note_read(client, len);
            }
            self.receive(client, written, notices);
        }
        for client in &output.closed {
            let why = "the broker closed the connection".to_owned();
            self.close(*client, why, notices);
        }
        if output.bytes.capacity() > OUTPUT_BYTES_KEPT {
            output = MemoryOutput::default();
        }
        self.output = output;
    }

    fn is_busy(&mut self) -> bool {
        let now = self.time_of(self.now);
        self.wanted.is_some_and(|at| at <= now) || self.shard.is_busy()
    }

    fn send_pings(&mut self, notices: &mut Vec<Notice>) {
        for (class, ranges) in self.pings.advance(self.now) {
            for client in ranges.into_iter().flatten() {
                let mut state = self.clients.get(client);
                if state.class() != class
                    || !state.is_connected()
                    || state.shard() != self.shard.index()
                {
                    continue;
                }
                if !self.unread.is_empty() && self.unread.contains_key(&client) {
                    continue; // the broker does not read, so it cannot miss us
                }
                if !self.slow.is_empty() && self.slow.contains_key(&client) {
                    self.feed(client, state, &PINGREQ);
                    continue;
                }
                if state.is_pinged() {
                    let why = "the broker did not answer a PINGREQ for a keep-alive interval";
                    self.close(client, why.to_owned(), notices);
                    continue;
                }
                state.set_pinged(true);
                self.clients.set(client, state);
                self.feed(client, state, &PINGREQ);
            }
        }
    }

    /// When something is due without anything coming in.
    fn next_at(&self) -> Nanos {
        let broker = self.wanted.map_or(Nanos::MAX, |at| self.nanos_of(at));
        let blocked = self.slow.values().filter(|slow| slow.blocked);
        let slow = blocked.filter_map(|slow| slow.allowance.next_at()).min();
        broker
            .min(self.pings.next_at())
            .min(slow.unwrap_or(Nanos::MAX))
    }

    /// Lets time pass until `until` or until something may be due.
    fn pass_time(&mut self, until: Nanos) {
        let until = until.min(self.next_at());
        let now = match self.clock {
            SimClock::Virtual => until.max(self.now),
            SimClock::Real => {
                let mut wait = Duration::from_nanos(until.saturating_sub(clock::now()));
                if !self.unread.is_empty() {
                    wait = wait.min(RETRY);
                }
                if !wait.is_zero() {
                    self.shard.wait(wait);
                }
                clock::now()
            }
        };
        self.set_now(now);
    }

    /// A client took bytes: one that reads slowly takes none until it may again.
    fn note_read(&mut self, client: u32, len: usize) {
        if let Some(slow) = self.slow.get_mut(&client) {
            slow.allowance.took(len);
            if slow.allowance.bytes(self.now) == 0 && !slow.blocked {
                slow.blocked = true;
                let slot = self.clients.get(client).slot();
                self.shard.block(slot, client, true);
            }
        }
    }

    /// Lets those read again who may.
    fn unblock(&mut self) {
        for (client, slow) in &mut self.slow {
            if slow.blocked && slow.allowance.bytes(self.now) > 0 {
                slow.blocked = false;
                let slot = self.clients.get(*client).slot();
                self.shard.block(slot, *client, false);
            }
        }
    }

    fn feed_scratch(&mut self, client: u32, state: State) {
        let scratch = std::mem::take(&mut self.scratch);
        self.feed(client, state, &scratch);
        self.scratch = scratch;
    }
}

impl Swarm for SimulatedSwarm {
    fn now(&self) -> Nanos {
        match self.clock {
            SimClock::Real => clock::now(),
            SimClock::Virtual => self.now,
        }
    }

    fn owns(&self, client: Client, client_id: &str) -> bool {
        if client_id.is_empty() {
            // The broker makes one up that is at home where the client connects.
            return client.index() % self.shards == self.shard.index();
        }
        self.shard.is_home_of(client_id)
    }

    fn connect(&mut self, client: Client, hello: &Hello<'_>) -> Result<(), SwarmError> {
        let number = client.0;
        if number >= self.clients.len() {
            let clients = self.clients.len();
            let why = format!("client {number} is none of the {clients} that were announced");
            return Err(io::Error::other(why).into());
        }
        if !self.owns(client, hello.client_id) {
            let why = format!("client {number} has its session in another shard");
            return Err(io::Error::other(why).into());
        }
        self.disconnect(client, Leave::Abruptly);
        self.scratch.clear();
        hello.encode(&mut self.scratch)?;
        let class = self.class(hello.keep_alive_s)?;
        let slot = self.shard.open(number);
        let mut state = self.clients.get(number);
        state.set_place(self.shard.index(), slot.unwrap_or(NO_SLOT));
        state.set_stage(Stage::Connecting);
        state.set_version(hello.version);
        state.set_class(class);
        self.clients.set(number, state);
        if slot.is_some() {
            self.feed_scratch(number, state);
        }
        Ok(())
    }

    fn subscribe(&mut self, client: Client, filters: &[(&str, Qos)]) -> Result<(), SwarmError> {
        let mut state = self.clients.get(client.0);
        let id = self.flights.next_id(client.0, state.packet_id())?;
        let filters = filters.iter().map(|(filter, qos)| SubscribeFilter {
            filter,
            options: SubscriptionOptions::with_qos(*qos),
        });
        self.scratch.clear();
        let (out, version) = (&mut self.scratch, state.version());
        codec::encode_subscribe(out, version, id, Properties::EMPTY, filters)?;
        if state.is_connected() {
            state.set_packet_id(id.get());
            self.clients.set(client.0, state);
            self.flights.begin(client.0, id, Due::SubAck);
            self.feed_scratch(client.0, state);
        }
        Ok(())
    }

    fn read_slowly(&mut self, client: Client, bytes_per_second: u32) {
        let mut state = self.clients.get(client.0);
        if !state.is_connected() {
            return;
        }
        state.set_pinged(false);
        self.clients.set(client.0, state);
        let slow = Slow {
            allowance: Allowance::new(bytes_per_second, self.now),
            blocked: true,
        };
        self.slow.insert(client.0, slow);
        self.shard.block(state.slot(), client.0, true);
    }

    fn room(&self, client: Client) -> usize {
        let state = self.clients.get(client.0);
        let is_unread = || !self.unread.is_empty() && self.unread.contains_key(&client.0);
        if !state.is_connected() || is_unread() {
            return 0;
        }
        let maximum = self.receive_maximums.of(client.0, state.version());
        usize::from(maximum).saturating_sub(self.flights.publishes(client.0))
    }

    fn publish(
        &mut self,
        client: Client,
        message: &Outgoing<'_>,
    ) -> Result<Option<NonZeroU16>, SwarmError> {
        let mut state = self.clients.get(client.0);
        let due = match message.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Due::PubAck),
            Qos::ExactlyOnce => Some(Due::PubRec),
        };
        let id = match due {
            Some(_) => Some(self.flights.next_id(client.0, state.packet_id())?),
            None => None,
        };
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: message.qos,
            retain: message.retain,
            topic: message.topic,
            packet_id: id,
            properties: Properties::EMPTY,
            payload: message.payload,
        });
        self.scratch.clear();
        packet.encode(state.version(), &mut self.scratch)?;
        if let (Some(id), Some(due)) = (id, due) {
            state.set_packet_id(id.get());
            self.clients.set(client.0, state);
            if state.is_connected() {
                self.flights.begin(client.0, id, due);
            }
        }
        if state.is_connected() {
            self.feed_scratch(client.0, state);
        }
        Ok(id)
    }

    fn disconnect(&mut self, client: Client, how: Leave) {
        let number = client.0;
        let state = self.clients.get(number);
        if state.stage() == Stage::Away {
            return;
        }
        if how == Leave::Politely {
            let mut last = self.unread.remove(&number).unwrap_or_default();
            last.extend_from_slice(&DISCONNECT);
            self.shard.feed_anyway(state.slot(), number, &last);
        }
        self.shard.hang_up(state.slot(), number);
        self.forget(number, state);
    }

    fn turn(&mut self, wait: Duration, notices: &mut Vec<Notice>) -> io::Result<()> {
        let before = notices.len();
        if self.clock == SimClock::Real {
            self.set_now(clock::now());
        }
        let wait = Nanos::try_from(wait.as_nanos()).unwrap_or(Nanos::MAX);
        let until = self.now.saturating_add(wait);
        loop {
            self.send_pings(notices);
            if !self.unread.is_empty() {
                self.feed_unread();
            }
            if !self.slow.is_empty() {
                self.unblock();
            }
            for _ in 0..ROUNDS_MAX {
                self.round(notices);
                if !self.is_busy() {
                    break;
                }
            }
            if notices.len() > before || self.now >= until {
                return Ok(());
            }
            if !self.is_busy() {
                self.pass_time(until);
            } else if self.clock == SimClock::Real {
                self.set_now(clock::now());
            }
        }
    }
}
