//! A session: what the broker remembers of one client, connected or not. A pure state machine over packets, events
//! and the time: it does no I/O, reads no clock and takes no lock. What it has to say it appends to an outbox, which
//! is memory.
//!
//! An idle session is small: what only a busy one needs is behind [`Flow`], allocated on first use and let go when
//! nothing is under way.

mod incoming;
mod outgoing;
mod owner;
mod replays;
mod subscriptions;

use codec::{Qos, Version};

pub(crate) use incoming::{Begin, Incoming, Released, encode, encode_within};
pub(crate) use outgoing::{Delivery, Frames, Outgoing, QueueMax, Routed, Sending};
pub(crate) use owner::Owner;
pub(crate) use replays::{Replay, Replays};
pub(crate) use subscriptions::Subscriptions;

use crate::access::Who;
use crate::message::Message;
use crate::time::Time;

/// "No connection", where a connection's slot is expected.
pub(crate) const OFFLINE: u32 = u32::MAX;

/// A will, as CONNECT gave it.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: Box<str>,
    pub(crate) payload: Box<[u8]>,
    /// The properties to forward, encoded.
    pub(crate) properties: Box<[u8]>,
    pub(crate) message_expiry_s: Option<u32>,
    pub(crate) delay_s: u32,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// When it is to be published; `None` while the client is connected.
    pub(crate) due: Option<Time>,
    /// When the sink was first offered it, and had no room: from then on its expiry counts.
    pub(crate) offered: Option<Time>,
}

/// What only a session with messages under way needs.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) owner: Owner,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) flow: Option<Box<Flow>>,
    pub(crate) will: Option<Box<Will>>,
    /// When it ends, while the client is away; since when the client is connected, while it is.
    pub(crate) turns_at: Time,
    /// The tick of the timer that looks at it, while the client is away; 0 is none. One is enough for all its absences.
    pub(crate) timer_tick: u32,
    /// The slot of its connection, or [`OFFLINE`].
    pub(crate) connection: u32,
    /// How long it outlives its connection; `u32::MAX` is as long as the node's bound.
    pub(crate) expiry_s: u32,
    /// The largest packet that the client takes.
    pub(crate) packet_bytes_max: u32,
    /// QoS 1 and 2 messages that may be in flight to the client.
    pub(crate) window: u16,
    /// Topic aliases that the client lets us use.
    pub(crate) alias_maximum: u16,
    pub(crate) version: Version,
    /// Whether the last connection asked for a new session.
    pub(crate) clean_start: bool,
}

impl Session {
    pub(crate) fn new(client_id: &str, version: Version) -> Self {
        Self {
            owner: Owner::new(client_id),
            subscriptions: Subscriptions::default(),
            flow: None,
            will: None,
            turns_at: Time(0),
            timer_tick: 0,
            connection: OFFLINE,
            expiry_s: 0,
            packet_bytes_max: u32::MAX,
            window: 1,
            alias_maximum: 0,
            version,
            clean_start: false,
        }
    }

    /// The client identifier.
    pub(crate) fn client_id(&self) -> &str {
        self.owner.client_id()
    }

    /// Who the client is, for access rules.
    pub(crate) fn who(&self) -> Who<'_> {
        Who {
            client_id: self.owner.client_id(),
            principal: self.owner.principal().map(|principal| &**principal),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.connection != OFFLINE
    }

    pub(crate) fn flow(&mut self) -> &mut Flow {
        self.flow.get_or_insert_default()
    }

    /// Lets go of the flow's memory when nothing is under way.
    pub(crate) fn tidy(&mut self) {
        if self
            .flow
            .as_ref()
            .is_some_and(|flow| flow.incoming.is_idle() && flow.outgoing.is_idle())
        {
            self.flow = None;
        }
    }
}

/// A publish that was held back until it is stored ([`crate::Deliver::AfterStored`]).
pub(crate) type Deferred = Option<Message>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session>() <= 80, "{}", size_of::<Session>());
        assert!(size_of::<Delivery>() <= 56, "{}", size_of::<Delivery>());
    }
}
