//! What an operator asks of a worker. Each question looks at a bounded number of entries; see [`crate::admin`].

use codec::ReasonCode;

use super::{Close, Worker};
use crate::admin::{
    ClientFacts, ClientFilter, Cursor, Kicked, Name, Part, Reached, SubscriptionFacts,
    SubscriptionFilter,
};
use crate::limits::{ADMIN_ENTRIES_PER_TURN_MAX, TIMER_TICK_MS};
use crate::losses::{Loss, LostPart};
use crate::router::SessionId;
use crate::session::{OFFLINE, Session};
use crate::time::Time;

/// Filters that are named of one session, for one topic.
const FILTERS_NAMED_MAX: usize = 16;

impl ClientFilter {
    /// Whether what is cheap to know fits.
    fn may_fit(&self, session: &Session) -> bool {
        self.connected.is_none_or(|is| is == session.is_online())
            && self
                .version
                .is_none_or(|version| version == session.version)
            && (self.address.is_none() || session.is_online())
            && (self.user.is_none() || session.owner.principal().is_some())
            && self
                .client_id
                .as_ref()
                .is_none_or(|glob| glob.matches(session.owner.client_id()))
    }

    /// Whether all fits.
    pub(crate) fn fits(&self, facts: &ClientFacts) -> bool {
        let user = facts.user.as_deref();
        self.user
            .as_ref()
            .is_none_or(|glob| user.is_some_and(|user| glob.matches(user)))
            && self.connected.is_none_or(|is| is == facts.connected)
            && self.version.is_none_or(|version| version == facts.version)
            && self.address.is_none_or(|network| {
                facts
                    .address
                    .is_some_and(|address| network.contains(address.ip()))
            })
            && self
                .client_id
                .as_ref()
                .is_none_or(|glob| glob.matches(&facts.client_id))
    }
}

impl Worker {
    /// The slot of a client's session.
    fn session_of(&self, client_id: &str) -> Option<u32> {
        let hash = self.client_hash(client_id);
        let is_it = |at: &u32| {
            self.sessions
                .get(*at)
                .is_some_and(|session| session.owner.client_id() == client_id)
        };
        self.clients.find(hash, is_it).copied()
    }

    /// Where the next step of a walk begins.
    pub(super) fn next(&self, slot: u32, within: u32) -> Option<Cursor> {
        let worker = self.index as u32;
        if slot < self.sessions.slots() {
            return Some(Cursor {
                worker,
                slot,
                within,
            });
        }
        (self.index + 1 < self.shared.mailboxes.len()).then_some(Cursor {
            worker: worker + 1,
            ..Cursor::default()
        })
    }

    fn facts(&self, session: &Session) -> ClientFacts {
        let connection = self.connections.slab.get(session.connection);
        let flow = session.flow.as_ref();
        let outgoing = flow.map(|flow| &flow.outgoing);
        let max_s = self.settings.limits.session_expiry_max_s;
        let expiry_s = session.expiry_s.min(max_s);
        let connected = session.is_online();
        let since = if connected {
            session.turns_at
        } else {
            let expiry_ms = u64::from(expiry_s) * 1_000;
            Time(session.turns_at.0.saturating_sub(expiry_ms))
        };
        ClientFacts {
            client_id: session.owner.client_id().to_owned(),
            user: session
                .owner
                .principal()
                .map(|principal| principal.user.to_string()),
            version: session.version,
            connected,
            address: connection.and_then(|connection| connection.transport.peer_address()),
            since_ms: self.now.since_ms(since),
            heard_ms: connection.map(|connection| {
                let heard = connection.last_heard();
                self.now.since_ms(heard) / TIMER_TICK_MS * TIMER_TICK_MS
            }),
            ends_in_ms: (!connected).then(|| session.turns_at.since_ms(self.now)),
            expiry_s,
            clean_start: session.clean_start,
            keep_alive_s: connection.map(|connection| connection.keep_alive_s),
            subscriptions: session.subscriptions.len(),
            queue_messages: outgoing.map_or(0, |outgoing| outgoing.queue_messages()),
            queue_bytes: outgoing.map_or(0, |outgoing| outgoing.queue_bytes()),
            in_flight: outgoing.map_or(0, |outgoing| outgoing.in_flight()),
            window: session.window,
            outbox_bytes: connection.map_or(0, |connection| connection.outbox_bytes()),
            unanswered: flow.map_or(0, |flow| flow.incoming.waiting()),
            held: connection.is_some_and(|connection| connection.is_held()),
            will: session.will.as_ref().map(|will| will.topic.to_string()),
            packet_bytes_max: (session.packet_bytes_max < u32::MAX)
                .then_some(session.packet_bytes_max),
        }
    }

    /// A client's session.
    pub(crate) fn client(&self, client_id: &str) -> Option<ClientFacts> {
        let session = self.sessions.get(self.session_of(client_id)?)?;
        Some(self.facts(session))
    }

    /// The sessions from `slot` on that `filter` fits: up to `max`, of a bounded number that is looked at.
    pub(crate) fn walk_clients(
        &self,
        filter: &ClientFilter,
        slot: u32,
        max: usize,
    ) -> Part<ClientFacts> {
        let mut part = Part::default();
        let mut at = slot;
        while at < self.sessions.slots() && part.has_room(max) {
            part.looked_at += 1;
            if let Some(session) = self.sessions.get(at)
                && filter.may_fit(session)
            {
                let facts = self.facts(session);
                if filter.fits(&facts) {
                    part.found.push(facts);
                }
            }
            at += 1;
        }
        part.next = self.next(at, 0);
        part
    }

    /// Looks at subscriptions of one session, those behind the first `within`, as far as `part` has room: how many have
    /// been seen when it had none, `None` when that were all.
    fn look_at_subscriptions(
        &self,
        slot: u32,
        within: u32,
        filter: &SubscriptionFilter,
        max: usize,
        part: &mut Part<SubscriptionFacts>,
    ) -> Option<u32> {
        let session = self.sessions.get(slot)?;
        let id = SessionId::new(self.index, slot);
        let unseen = session.subscriptions.iter().skip(within as usize);
        for (seen, text) in (within..).zip(unseen) {
            if !part.has_room(max) {
                return Some(seen);
            }
            part.looked_at += 1;
            if !filter.filter.as_ref().is_none_or(|glob| glob.matches(text)) {
                continue;
            }
            if let Some(receiver) = self.shared.router.subscription(text, id) {
                part.found.push(SubscriptionFacts {
                    client_id: session.owner.client_id().to_owned(),
                    filter: text.to_string(),
                    qos: receiver.options.qos(),
                    no_local: receiver.options.no_local(),
                    retain_as_published: receiver.options.retain_as_published(),
                    identifier: (receiver.identifier > 0).then_some(receiver.identifier),
                });
            }
        }
        None
    }

    /// A client's subscriptions behind the first `within`.
    pub(crate) fn subscriptions_of(
        &self,
        client_id: &str,
        filter: &SubscriptionFilter,
        within: u32,
        max: usize,
    ) -> Part<SubscriptionFacts> {
        let mut part = Part::default();
        if let Some(slot) = self.session_of(client_id) {
            let seen = self.look_at_subscriptions(slot, within, filter, max, &mut part);
            part.next = seen.and_then(|seen| self.next(slot, seen));
        }
        part
    }

    /// Subscriptions from there on that `filter` fits: up to `max`, of a bounded number that is looked at.
    pub(crate) fn walk_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        from: Cursor,
        max: usize,
    ) -> Part<SubscriptionFacts> {
        let mut part = Part::default();
        let (mut at, mut within) = (from.slot, from.within);
        while at < self.sessions.slots() && part.has_room(max) {
            part.looked_at += 1;
            let fits = |session: &Session| {
                let glob = filter.client_id.as_ref();
                glob.is_none_or(|glob| glob.matches(session.owner.client_id()))
            };
            if self.sessions.get(at).is_some_and(fits)
                && let Some(seen) = self.look_at_subscriptions(at, within, filter, max, &mut part)
            {
                within = seen;
                break;
            }
            at += 1;
            within = 0;
        }
        part.next = self.next(at, within);
        part
    }

    /// Who these sessions are.
    pub(crate) fn names(&self, sessions: &[Reached], topic: &str) -> Vec<Name> {
        let mut left = ADMIN_ENTRIES_PER_TURN_MAX as usize;
        let name = |reached: &Reached| {
            let slot = reached.session.slot();
            let is_it = self.sessions.generation(slot) == reached.generation;
            let Some(session) = self.sessions.get(slot).filter(|_| is_it) else {
                return Name {
                    client_id: String::new(),
                    connected: false,
                    filters: Vec::new(),
                };
            };
            let mut filters = Vec::new();
            for text in session.subscriptions.iter() {
                if left == 0 || filters.len() >= FILTERS_NAMED_MAX {
                    break;
                }
                left -= 1;
                let inner = match topic::split_share(text) {
                    Ok(Some(share)) => share.filter,
                    _ => text,
                };
                if topic::matches(inner, topic) {
                    filters.push(text.to_string());
                }
            }
            Name {
                client_id: session.owner.client_id().to_owned(),
                connected: session.is_online(),
                filters,
            }
        };
        let most = ADMIN_ENTRIES_PER_TURN_MAX as usize;
        sessions.iter().take(most).map(name).collect()
    }

    /// What is noted here of who lost what.
    pub(crate) fn losses(&self, max: usize, wanted: impl Fn(&str, &str, Loss) -> bool) -> LostPart {
        self.counts.losses.tell(max, wanted)
    }

    /// Disconnects a client, and ends its session where that is wanted.
    pub(crate) fn kick(
        &mut self,
        client_id: &str,
        reason: ReasonCode,
        end_session: bool,
    ) -> Option<Kicked> {
        let slot = self.session_of(client_id)?;
        let session = self.sessions.get_mut(slot)?;
        let connection = session.connection;
        if end_session {
            session.expiry_s = 0;
        }
        if connection != OFFLINE {
            self.close(connection, Close::ByOperator(reason));
        } else if end_session {
            self.shared.end_offline();
            self.end_session(slot);
        }
        Some(Kicked {
            was_connected: connection != OFFLINE,
            session_ended: self.session_of(client_id).is_none(),
        })
    }

    /// Disconnects the clients from `slot` on that `filter` fits, of a bounded number that is looked at.
    pub(crate) fn kick_some(
        &mut self,
        filter: &ClientFilter,
        reason: ReasonCode,
        slot: u32,
    ) -> Part<String> {
        let part = self.walk_clients(filter, slot, usize::MAX);
        let connected = part.found.into_iter().filter(|facts| facts.connected);
        let found: Vec<String> = connected.map(|facts| facts.client_id).collect();
        for client_id in &found {
            self.kick(client_id, reason, false);
        }
        Part {
            found,
            next: part.next,
            looked_at: part.looked_at,
        }
    }
}
