//! What a run needs of its clients, whether they are sockets or memory: connect, subscribe, publish, and hear what
//! became of it. A [`Swarm`] moves bytes and speaks MQTT; what to send when, and what it means, is the runner's business.

use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use codec::{Connect, EncodeError, Packet, PropertiesBuf, Property, Qos, ReasonCode, Version};
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::payload::Body;
use crate::stamp::Stamp;

/// A client of a run, by its number over all groups of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub u32);

impl Client {
    /// The number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a client introduces itself.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// Protocol version.
    pub version: Version,
    /// Clean start (5.0) or clean session (3.x).
    pub clean_start: bool,
    /// How long the broker keeps the session after the connection; 5.0 only, in seconds.
    pub session_expiry_s: u32,
    /// Keep-alive in seconds; 0 is none. The swarm sends the pings.
    pub keep_alive_s: u16,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

impl Hello<'_> {
    /// Appends the CONNECT packet.
    ///
    /// # Errors
    /// It cannot be expressed.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut properties = PropertiesBuf::new();
        if self.version.has_properties() && self.session_expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(self.session_expiry_s))?;
        }
        let connect = Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive_s,
            client_id: self.client_id,
            will: None,
            username: self.username,
            password: self.password,
            properties: properties.as_properties(),
        };
        Packet::Connect(connect).encode(self.version, out)
    }
}

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// QoS 0, 1 or 2.
    pub qos: Qos,
    /// Whether the broker shall retain it.
    pub retain: bool,
    /// The payload, which begins with a [`Stamp`].
    pub payload: &'a [u8],
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// With DISCONNECT.
    Politely,
    /// The connection breaks.
    Abruptly,
}

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// CONNACK with success.
    Connected {
        /// Who.
        client: Client,
        /// The broker had a session of this client.
        session_present: bool,
    },
    /// SUBACK.
    Subscribed {
        /// Who had asked.
        client: Client,
        /// Filters granted with any QoS.
        granted: u32,
        /// Filters refused.
        refused: u32,
    },
    /// A message came. What its QoS asks of the receiver was answered; with QoS 2 it is told once, at PUBLISH.
    Delivered {
        /// The receiver.
        client: Client,
        /// The QoS it came with.
        qos: Qos,
        /// It was a retained message, by its flag.
        retained: bool,
        /// Its stamp; `None` when it is not one of a run of this tool.
        stamp: Option<Stamp>,
        /// What it is besides the stamp.
        body: Body,
    },
    /// The end of a publish: PUBACK, PUBCOMP, or a PUBREC that refuses.
    Acknowledged {
        /// The publisher.
        client: Client,
        /// Which publish.
        packet_id: NonZeroU16,
        /// [`ReasonCode::SUCCESS`] always in 3.x.
        reason: ReasonCode,
    },
    /// An answer that nobody had asked for: a packet identifier that is not in use.
    Unasked {
        /// Who got it.
        client: Client,
    },
    /// The connection ended without our doing, or never came to be. The client may connect again. What it had in flight
    /// is forgotten by the swarm.
    Closed {
        /// Whose connection.
        client: Client,
        /// Why, in a few words that are the same for the same reason: they are counted.
        why: String,
    },
}

/// Why a swarm cannot do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// A packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A text is no topic name.
    #[error("the topic name is refused: {0}")]
    Topic(topic::TopicError),
    /// A packet is larger than the broker takes, by its CONNACK.
    #[error("a packet of {len} bytes is larger than the {max} bytes that the broker takes")]
    TooLarge {
        /// Size of the whole packet, in bytes.
        len: usize,
        /// What the broker takes, in bytes.
        max: u32,
    },
    /// The machine lacks something: files, ports, memory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// TLS handshakes that came to their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    /// With a certificate.
    pub full: u64,
    /// By which a client went on with an earlier session.
    pub resumed: u64,
}

/// The clients of a run, or a share of them, on one thread.
pub trait Swarm {
    /// The time by which everything of this swarm is measured: real, or virtual where the swarm owns it.
    fn now(&self) -> Nanos;

    /// Whether a client belongs to this swarm's share of the run. Asked once a client, before the first connect.
    fn owns(&self, client: Client, client_id: &str) -> bool;

    /// Starts to connect a client, for the first time or again. [`Notice::Connected`] or [`Notice::Closed`] will follow.
    ///
    /// # Errors
    /// There is no socket for it.
    fn connect(&mut self, client: Client, hello: &Hello<'_>) -> Result<(), SwarmError>;

    /// Asks for subscriptions, in one packet. [`Notice::Subscribed`] will follow.
    ///
    /// # Errors
    /// No filter at all, or more than a packet holds.
    fn subscribe(&mut self, client: Client, filters: &[(&str, Qos)]) -> Result<(), SwarmError>;

    /// From now on, until its connection ends, this client takes no more than so many bytes a second from it; with 0 none.
    /// It goes on to ping, and does not mind that it sees no answer.
    fn read_slowly(&mut self, client: Client, bytes_per_second: u32);

    /// How many more messages with QoS 1 or 2 this client may publish now, by the broker's receive maximum and by what
    /// its connection takes; 0 while it is not connected. Also to be asked before QoS 0, where 0 means that more would
    /// only wait in memory.
    fn room(&self, client: Client) -> usize;

    /// Publishes with the next turn. With QoS 1 and 2 [`Notice::Acknowledged`] with the returned packet identifier will
    /// follow; without one nothing was sent, as there was no [room](Swarm::room). A client whose connection has ended
    /// publishes into nothing.
    ///
    /// # Errors
    /// The packet would be too large, or the topic is none.
    fn publish(
        &mut self,
        client: Client,
        message: &Outgoing<'_>,
    ) -> Result<Option<NonZeroU16>, SwarmError>;

    /// Ends a connection. No [`Notice::Closed`] will follow.
    fn disconnect(&mut self, client: Client, how: Leave);

    /// Writes what waits, waits for something to happen but no longer than `wait`, and appends what happened.
    ///
    /// # Errors
    /// The swarm as a whole cannot go on; trouble with one connection is a [`Notice::Closed`].
    fn turn(&mut self, wait: Duration, notices: &mut Vec<Notice>) -> io::Result<()>;

    /// TLS handshakes so far; none where there is no TLS.
    fn handshakes(&self) -> Handshakes {
        Handshakes::default()
    }
}
