//! Real clients: a [`Swarm`] over TCP, and over TLS and WebSocket on it, against any broker that speaks MQTT. One thread, one poll, one buffer to read
//! into, one write per client and turn, through the same connection code as the broker's.

mod bounds;
mod keep_alive;
mod leaving;
mod packet_ids;
mod protocol;
mod slot;
mod slow;
mod socket;
mod turn;
mod way;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use broker::transport::{Socket, Transport};
use codec::{Properties, PublishHead, Qos, SubscribeFilter, SubscriptionOptions};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use self::bounds::{EVENTS_PER_TURN_MAX, ROOM_BYTES_MAX, WAITING_BYTES_MAX};
use self::keep_alive::Cursor;
use self::leaving::Leaving;
use self::packet_ids::Awaited;
use self::protocol::Stage;
use self::slot::{Common, Slot, does_not_read};
use self::socket::Begun;
use self::way::Layers;
pub use self::way::{Tls, Trust, Way, check};
use crate::clock::{self, Nanos};
use crate::plan::Share;
use crate::slow_reader::Allowance;
use crate::swarm::{Client, Handshakes, Hello, Leave, Notice, Outgoing, Swarm, SwarmError};

/// How real clients reach their broker.
#[derive(Debug, Clone)]
pub struct RealOptions {
    /// The broker.
    pub broker: SocketAddr,
    /// Addresses of this machine from which the clients connect, one after the other; with none the kernel chooses. Each
    /// has as many connections as the kernel has ports for it.
    pub source_addresses: Vec<IpAddr>,
    /// Clients of the plan, of all shares.
    pub clients: u32,
    /// Which of them are this swarm's.
    pub share: Share,
    /// The largest packet that a client takes, in bytes; a larger one ends its connection.
    pub packet_bytes_max: u32,
    /// From the start of a connection to its CONNACK.
    pub connect_timeout: Duration,
    /// What is between their sockets and MQTT.
    pub way: Way,
}

impl RealOptions {
    /// All of `clients` over TCP on this machine's usual address; packets up to 1 MiB, 30 seconds for each connection.
    #[must_use]
    pub fn new(broker: SocketAddr, clients: u32) -> Self {
        Self {
            broker,
            source_addresses: Vec::new(),
            clients,
            share: Share::WHOLE,
            packet_bytes_max: 1_048_576,
            connect_timeout: Duration::from_secs(30),
            way: Way::default(),
        }
    }
}

/// Clients over TCP, and what the options put on it. See the module.
///
/// An idle client over TCP costs 72 bytes of this process and nothing else, besides what the kernel keeps for its socket. One that
/// publishes with QoS 1 or 2, or has got a message with QoS 2, keeps about 150 bytes more and a byte or two for each
/// message in flight; what waits to be written or is read by half is held only as long as that lasts.
///
/// Connecting a client that is connected breaks its connection first. [`Swarm::turn`] waits for whole milliseconds, as
/// the kernel does, rounded down; a wait below one looks, and sleeps a tenth of one between two looks.
///
/// # Panics
/// Every call with a client that is not of this swarm's share.
#[derive(Debug)]
pub struct RealSwarm {
    options: RealOptions,
    poll: Poll,
    events: Events,
    slots: Vec<Slot>,
    common: Common,
    /// Who got something to write since the last flush.
    dirty: Vec<u32>,
    /// Who had more to read when its share of the last turn was used up.
    listed: Vec<u32>,
    /// Who reads slowly, and what it may read.
    slow: Vec<(u32, Allowance)>,
    /// Slots that began to connect, and when, oldest first.
    connecting: VecDeque<(u32, u32)>,
    leaving: Leaving,
    cursor: Cursor,
    /// What happened between two turns.
    pending: Vec<Notice>,
    next_source: usize,
    began: Nanos,
    layers: Layers,
}

impl RealSwarm {
    /// Clients that are not connected yet.
    ///
    /// # Errors
    /// The kernel gives no poll, or the certificates for TLS are none.
    pub fn new(options: RealOptions) -> io::Result<Self> {
        let Share { index, count } = options.share;
        let owned = options.clients.saturating_sub(index).div_ceil(count);
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN_MAX),
            slots: (0..owned).map(|_| Slot::default()).collect(),
            common: Common::new(options.packet_bytes_max),
            dirty: Vec::new(),
            listed: Vec::new(),
            slow: Vec::new(),
            connecting: VecDeque::new(),
            leaving: Leaving::default(),
            cursor: Cursor::default(),
            pending: Vec::new(),
            next_source: 0,
            began: clock::now(),
            layers: Layers::new(&options.way, owned as usize).map_err(io::Error::other)?,
            options,
        })
    }

    /// User memory of all clients together, connected or not, in bytes: by what is allocated for them, without what the
    /// allocator adds, and without the buffers that all share.
    #[must_use]
    pub fn client_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.slots.iter().map(Slot::bytes).sum::<usize>()
    }

    /// User memory that does not grow with the number of clients, in bytes.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        self.common.bytes()
    }

    fn slot_of(&self, client: Client) -> usize {
        let share = self.options.share;
        assert!(share.owns(client), "{client:?} is of another share");
        (client.0 / share.count) as usize
    }

    fn client_in(share: Share, slot: usize) -> Client {
        Client(slot as u32 * share.count + share.index)
    }

    fn tick(&mut self) {
        let elapsed = clock::now().saturating_sub(self.began);
        // Goes round after 49 days; only differences are looked at.
        self.common.now_ms = (elapsed / 1_000_000) as u32;
    }

    fn mark_dirty(&mut self, at: usize) {
        if !self.slots[at].dirty {
            self.slots[at].dirty = true;
            self.dirty.push(at as u32);
        }
    }

    /// Begins a connection from the next source address that has a port.
    fn begin(&mut self) -> io::Result<Begun> {
        let sources = self.options.source_addresses.len();
        let mut tried = 1;
        loop {
            let source = self.options.source_addresses.get(self.next_source).copied();
            self.next_source = (self.next_source + 1).checked_rem(sources).unwrap_or(0);
            match socket::begin(self.options.broker, source) {
                Err(error) if socket::is_out_of_ports(&error) && tried < sources => tried += 1,
                result => return result,
            }
        }
    }

    fn register(&self, stream: &mut TcpStream, at: usize) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, Token(at), interests)
    }
}

impl Swarm for RealSwarm {
    fn now(&self) -> Nanos {
        clock::now()
    }

    fn owns(&self, client: Client, _client_id: &str) -> bool {
        client.0 < self.options.clients && self.options.share.owns(client)
    }

    fn connect(&mut self, client: Client, hello: &Hello<'_>) -> Result<(), SwarmError> {
        let at = self.slot_of(client);
        if self.slots[at].state.stage != Stage::Away {
            self.disconnect(client, Leave::Abruptly);
        }
        let mut connect = Vec::new();
        hello.encode(&mut connect)?;
        let mut stream = match self.begin()? {
            Begun::Stream(stream) => stream,
            Begun::Failed(error) => {
                let why = socket::reason(&error);
                self.pending.push(Notice::Closed { client, why });
                return Ok(());
            }
        };
        self.register(&mut stream, at)?;
        let layers = self.layers.make().map_err(io::Error::other)?;
        self.tick();
        let now_ms = self.common.now_ms;
        let slot = &mut self.slots[at];
        slot.state.begin(hello);
        slot.outbox(&mut self.common).push(&connect);
        slot.transport = Some(Transport::new(Socket::Tcp(stream), 0, layers));
        slot.asked_ms = now_ms;
        slot.written_ms = now_ms;
        self.connecting.push_back((at as u32, now_ms));
        Ok(())
    }

    fn subscribe(&mut self, client: Client, filters: &[(&str, Qos)]) -> Result<(), SwarmError> {
        let at = self.slot_of(client);
        let slot = &mut self.slots[at];
        if slot.state.stage != Stage::Ready {
            return Ok(());
        }
        let filters = filters.iter().map(|&(filter, qos)| SubscribeFilter {
            filter,
            options: SubscriptionOptions::with_qos(qos),
        });
        let (version, max) = (slot.state.version(), slot.state.packet_bytes_max());
        let Some(packet_id) = slot.state.take_id(Awaited::SubAck) else {
            return Err(io::Error::other("no packet identifier is free for a SUBSCRIBE").into());
        };
        let result = slot.outbox(&mut self.common).encode(|out| {
            let before = out.len();
            codec::encode_subscribe(out, version, packet_id, Properties::EMPTY, filters)?;
            match out.len() - before {
                len if len > max as usize => Err(SwarmError::TooLarge { len, max }),
                _ => Ok(()),
            }
        });
        if result.is_err() {
            slot.state.untake_id();
            return result;
        }
        self.mark_dirty(at);
        Ok(())
    }

    fn read_slowly(&mut self, client: Client, bytes_per_second: u32) {
        self.begin_to_read_slowly(client, bytes_per_second);
    }

    fn room(&self, client: Client) -> usize {
        let slot = &self.slots[self.slot_of(client)];
        if slot.waiting_bytes() >= ROOM_BYTES_MAX {
            return 0;
        }
        slot.state.room()
    }

    fn publish(
        &mut self,
        client: Client,
        message: &Outgoing<'_>,
    ) -> Result<Option<NonZeroU16>, SwarmError> {
        let at = self.slot_of(client);
        let slot = &mut self.slots[at];
        if slot.state.stage != Stage::Ready {
            return Ok(None);
        }
        topic::validate_name(message.topic).map_err(SwarmError::Topic)?;
        let packet_id = match message.qos {
            Qos::AtMostOnce => None,
            _ if slot.state.room() == 0 => return Ok(None),
            Qos::AtLeastOnce => slot.state.take_id(Awaited::PubAck),
            Qos::ExactlyOnce => slot.state.take_id(Awaited::PubRec),
        };
        if packet_id.is_none() && message.qos != Qos::AtMostOnce {
            return Ok(None);
        }
        let head = PublishHead {
            qos: message.qos,
            retain: message.retain,
            topic: message.topic,
            packet_id,
            ..PublishHead::default()
        };
        let (version, max) = (slot.state.version(), slot.state.packet_bytes_max());
        let len = codec::encoded_publish_len(version, &head, message.payload.len());
        let result = if len > max as usize {
            Err(SwarmError::TooLarge { len, max })
        } else {
            slot.outbox(&mut self.common)
                .encode(|out| codec::encode_publish(out, version, &head, message.payload))
                .map_err(SwarmError::from)
        };
        if let Err(error) = result {
            if packet_id.is_some() {
                slot.state.untake_id();
            }
            return Err(error);
        }
        if slot.waiting_bytes() > WAITING_BYTES_MAX {
            close(slot, client, does_not_read(), &mut self.pending);
        } else {
            self.mark_dirty(at);
        }
        Ok(packet_id)
    }

    fn disconnect(&mut self, client: Client, how: Leave) {
        let at = self.slot_of(client);
        self.pending
            .retain(|notice| !matches!(notice, Notice::Closed { client: of, .. } if *of == client));
        self.tick();
        let slot = &mut self.slots[at];
        let knows_us = matches!(slot.state.stage, Stage::Handshake | Stage::Ready);
        let (transport, outbox) = slot.end();
        let Some(transport) = transport else {
            return;
        };
        match how {
            Leave::Politely if knows_us => {
                let mut outbox = outbox.unwrap_or_default();
                outbox.push(&[0xE0, 0]);
                self.leaving.add(
                    transport,
                    outbox,
                    self.poll.registry(),
                    &mut self.common.memory,
                    self.common.now_ms,
                );
            }
            Leave::Politely => {}
            Leave::Abruptly => {
                if let Some(stream) = transport.tcp() {
                    socket::make_abrupt(stream);
                }
            }
        }
    }

    fn turn(&mut self, wait: Duration, notices: &mut Vec<Notice>) -> io::Result<()> {
        self.take_turn(wait, notices)
    }

    fn handshakes(&self) -> Handshakes {
        self.layers.handshakes()
    }
}

/// Ends a connection that was not ended by the runner.
#[cold]
fn close(slot: &mut Slot, client: Client, why: String, notices: &mut Vec<Notice>) {
    if slot.state.stage == Stage::Away {
        return;
    }
    slot.end();
    notices.push(Notice::Closed { client, why });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_a_slot_for_each_of_its_clients_and_no_more() {
        let broker = SocketAddr::from(([127, 0, 0, 1], 1));
        for clients in [0, 1, 7, 9] {
            let slots = (0..3).map(|index| {
                let share = Share { index, count: 3 };
                let swarm = RealSwarm::new(RealOptions {
                    share,
                    ..RealOptions::new(broker, clients)
                });
                let swarm = swarm.unwrap();
                let owned: Vec<Client> = (0..clients + 5)
                    .map(Client)
                    .filter(|&client| swarm.owns(client, ""))
                    .collect();
                for (at, &client) in owned.iter().enumerate() {
                    assert_eq!(swarm.slot_of(client), at);
                    assert_eq!(RealSwarm::client_in(share, at), client);
                }
                assert_eq!(owned.len(), swarm.slots.len());
                owned.len()
            });
            assert_eq!(slots.sum::<usize>(), clients as usize);
        }
    }
}
