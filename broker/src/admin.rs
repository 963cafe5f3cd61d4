//! What an operator asks of a running node: who its clients are, what waits for them, who would get a message; and what
//! an operator does to a client. Every question goes to the workers through their inboxes, as a task of which a worker
//! does one in a turn, and looks at a bounded number of entries ([`ADMIN_ENTRIES_PER_TURN_MAX`]): a walk over a million
//! sessions is a thousand short tasks, each of which says where the next one begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use codec::{Qos, ReasonCode, Version};

use crate::handle::{Handle, Inbox};
use crate::limits::ADMIN_ENTRIES_PER_TURN_MAX;
use crate::losses::{Loss, LostPart};
use crate::message::Message;
use crate::retained::Position;
use crate::router::{Receiver, SessionId};
use crate::time::Time;
use crate::top_topics::TopTopics;
use crate::trace::{Trace, TraceTo, Traced};

/// A pattern of names: `*` stands for any text, `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// A pattern from its text.
    #[must_use]
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern, where it is a plain name.
    fn name(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }

    /// Whether the whole of `text` fits. Takes no longer than the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.as_str(), text);
        // Where the last `*` was, and what it has not taken yet.
        let mut star: Option<(&str, &str)> = None;
        loop {
            let mut after = pattern.chars();
            match (after.next(), rest.chars().next()) {
                (Some('*'), _) => {
                    pattern = after.as_str();
                    star = Some((pattern, rest));
                    continue;
                }
                (Some(wanted), Some(is)) if wanted == '?' || wanted == is => {
                    pattern = after.as_str();
                    rest = &rest[is.len_utf8()..];
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            // That `*` takes one character more.
            let Some((behind, from)) = star else {
                return false;
            };
            let Some(taken) = from.chars().next() else {
                return false;
            };
            rest = &from[taken.len_utf8()..];
            pattern = behind;
            star = Some((behind, rest));
        }
    }
}

/// Which sessions are asked for: those for which everything holds that is said.
#[derive(Debug, Clone, Default)]
pub struct ClientFilter {
    /// Client identifiers.
    pub client_id: Option<Glob>,
    /// Users as whom clients are connected.
    pub user: Option<Glob>,
    /// Addresses from which clients are connected.
    pub address: Option<crate::bans::Network>,
    /// Whether the client is connected.
    pub connected: Option<bool>,
    /// The protocol's version.
    pub version: Option<Version>,
}

/// A session, connected or kept for its client.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The client identifier.
    pub client_id: String,
    /// Who the client is, where somebody knows it.
    pub user: Option<String>,
    /// The protocol's version, of the last connection.
    pub version: Version,
    /// Whether the client is connected.
    pub connected: bool,
    /// Where the client is connected from, if it is, and over a network.
    pub address: Option<SocketAddr>,
    /// Milliseconds since it connected, or since it was last connected.
    pub since_ms: u64,
    /// Milliseconds since its last packet, while it is connected; told in tenths of a second.
    pub heard_ms: Option<u64>,
    /// When the session ends, from now, while the client is away.
    pub ends_in_ms: Option<u64>,
    /// Seconds that the session outlives its connection.
    pub expiry_s: u32,
    /// Whether the last connection asked for a new session.
    pub clean_start: bool,
    /// The keep-alive that holds, in seconds; 0 is none.
    pub keep_alive_s: Option<u16>,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for the client.
    pub queue_messages: usize,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Messages of QoS 1 and 2 that were sent and are not acknowledged.
    pub in_flight: usize,
    /// Messages that may be in flight to the client.
    pub window: u16,
    /// Bytes that wait for the client's socket.
    pub outbox_bytes: usize,
    /// Publishes of the client that are not answered yet.
    pub unanswered: usize,
    /// Whether its publishes wait for room where they are stored, or for earlier ones.
    pub held: bool,
    /// The topic of its will.
    pub will: Option<String>,
    /// The largest packet that the client takes; `None` is any.
    pub packet_bytes_max: Option<u32>,
}

/// Where a walk over all sessions stands. What is there all along is seen exactly once, whoever comes and goes meanwhile:
/// sessions do not change their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The worker.
    pub worker: u32,
    /// The session's place at the worker.
    pub slot: u32,
    /// How many subscriptions of that session have been seen.
    pub within: u32,
}

/// What one step of a walk found.
#[derive(Debug, Clone)]
pub struct Part<T> {
    /// What was found, never more than was asked for.
    pub found: Vec<T>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Cursor>,
    /// Entries that were looked at.
    pub looked_at: u32,
}

impl<T> Default for Part<T> {
    /// Of a step that has not begun.
    fn default() -> Self {
        Self {
            found: Vec::new(),
            next: None,
            looked_at: 0,
        }
    }
}

impl<T> Part<T> {
    /// Whether the step may look at one entry more, where `max` are asked for.
    pub(crate) fn has_room(&self, max: usize) -> bool {
        self.looked_at < ADMIN_ENTRIES_PER_TURN_MAX && self.found.len() < max
    }
}

/// Which subscriptions are asked for.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionFilter {
    /// Client identifiers.
    pub client_id: Option<Glob>,
    /// Topic filters, as they were given (`$share/…` included).
    pub filter: Option<Glob>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// Whose it is.
    pub client_id: String,
    /// The filter, as it was given.
    pub filter: String,
    /// The largest QoS with which it gets messages.
    pub qos: Qos,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages say that they were published to be retained.
    pub retain_as_published: bool,
    /// The subscription identifier, if it has one.
    pub identifier: Option<u32>,
}

/// Who would get a message: by a subscription, or as one of a group that shares one.
#[derive(Debug, Clone, Default)]
pub struct Audience {
    /// Sessions with subscriptions of their own, one for each matching subscription, no more than were asked for.
    pub receivers: Vec<Reached>,
    /// How many there are.
    pub receivers_total: usize,
    /// Groups, of each of which one member gets it.
    pub groups: Vec<GroupFacts>,
}

/// A group that shares a subscription.
#[derive(Debug, Clone)]
pub struct GroupFacts {
    /// The share name.
    pub name: String,
    /// Its members, no more than were asked for.
    pub members: Vec<Reached>,
    /// How many there are.
    pub members_total: usize,
}

/// A session that would get a message, by its number; [`Handle::names`] knows its name.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    pub(crate) session: SessionId,
    pub(crate) generation: u16,
    /// The subscription's QoS.
    pub qos: Qos,
}

impl Reached {
    pub(crate) fn of(receiver: &Receiver) -> Self {
        Self {
            session: receiver.session,
            generation: receiver.generation,
            qos: receiver.options.qos(),
        }
    }

    /// The worker that owns the session.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.session.worker()
    }
}

/// Who a session is, and by which of its filters a topic reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The client identifier; empty when the session has ended meanwhile.
    pub client_id: String,
    /// Whether the client is connected.
    pub connected: bool,
    /// Filters that match; not all of a session with very many.
    pub filters: Vec<String>,
}

/// What a session was told by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kicked {
    /// The client was connected.
    pub was_connected: bool,
    /// The session has ended.
    pub session_ended: bool,
}

/// A retained message.
#[derive(Debug, Clone)]
pub struct RetainedFacts {
    /// The message.
    pub message: Message,
    /// When it expires, from now.
    pub expires_in_ms: Option<u64>,
}

/// Retained messages, and where to go on.
#[derive(Debug, Clone)]
pub struct RetainedPart {
    /// What was found.
    pub found: Vec<RetainedFacts>,
    /// The topic behind which to go on; `None`: that was all.
    pub next: Option<String>,
}

/// How an operator's question is answered: on the worker's thread, so it should be short.
pub type Then<T> = Box<dyn FnOnce(T) + Send>;

impl Handle {
    fn task(&self, worker: usize, task: crate::handle::Task) {
        if let Some(mailbox) = self.0.mailboxes.get(worker) {
            mailbox.send_one(Inbox::Task(task));
        }
    }

    /// Walks on over sessions, one step. `then` is dropped without being run where there is no such worker, or it has
    /// ended.
    pub fn clients(
        &self,
        filter: Arc<ClientFilter>,
        from: Cursor,
        max: usize,
        then: Then<Part<ClientFacts>>,
    ) {
        // A plain name is looked up where it lives.
        if let Some(name) = filter.client_id.as_ref().and_then(Glob::name) {
            let name = name.to_owned();
            let home = self.0.home(&name);
            return self.task(
                home,
                Box::new(move |worker| {
                    let found = worker.client(&name);
                    then(Part {
                        found: found
                            .into_iter()
                            .filter(|facts| filter.fits(facts))
                            .collect(),
                        next: None,
                        looked_at: 1,
                    });
                }),
            );
        }
        let task = move |worker: &mut crate::worker::Worker| {
            then(worker.walk_clients(&filter, from.slot, max));
        };
        self.task(from.worker as usize, Box::new(task));
    }

    /// Has a worker answer in its next turn, to see that it takes turns.
    pub fn look(&self, worker: usize, then: Then<()>) {
        self.task(worker, Box::new(|_| then(())));
    }

    /// A client's session, if there is one.
    pub fn client(&self, client_id: String, then: Then<Option<ClientFacts>>) {
        let home = self.0.home(&client_id);
        self.task(
            home,
            Box::new(move |worker| then(worker.client(&client_id))),
        );
    }

    /// Walks on over subscriptions, one step; as [`Handle::clients`].
    pub fn subscriptions(
        &self,
        filter: Arc<SubscriptionFilter>,
        from: Cursor,
        max: usize,
        then: Then<Part<SubscriptionFacts>>,
    ) {
        if let Some(name) = filter.client_id.as_ref().and_then(Glob::name) {
            let name = name.to_owned();
            let home = self.0.home(&name);
            return self.task(
                home,
                Box::new(move |worker| {
                    then(worker.subscriptions_of(&name, &filter, from.within, max));
                }),
            );
        }
        let task = move |worker: &mut crate::worker::Worker| {
            then(worker.walk_subscriptions(&filter, from, max));
        };
        self.task(from.worker as usize, Box::new(task));
    }

    /// Who would get a message on `topic` now: up to `max` of each kind.
    #[must_use]
    pub fn audience(&self, topic: &str, max: usize) -> Audience {
        self.0.router.audience(topic, max)
    }

    /// Who these sessions of one worker are, and by which filters `topic` reaches them; no more of them than
    /// [`ADMIN_ENTRIES_PER_TURN_MAX`].
    pub fn names(
        &self,
        worker: usize,
        sessions: Vec<Reached>,
        topic: String,
        then: Then<Vec<Name>>,
    ) {
        let task = move |worker: &mut crate::worker::Worker| then(worker.names(&sessions, &topic));
        self.task(worker, Box::new(task));
    }

    /// Disconnects a client with a reason, and ends its session where that is wanted. `None`: there is none.
    pub fn disconnect(
        &self,
        client_id: String,
        reason: ReasonCode,
        end_session: bool,
        then: Then<Option<Kicked>>,
    ) {
        let home = self.0.home(&client_id);
        let task = move |worker: &mut crate::worker::Worker| {
            then(worker.kick(&client_id, reason, end_session));
        };
        self.task(home, Box::new(task));
    }

    /// Disconnects the clients that `filter` fits, one step of a walk: their client identifiers.
    pub fn disconnect_some(
        &self,
        filter: Arc<ClientFilter>,
        reason: ReasonCode,
        from: Cursor,
        then: Then<Part<String>>,
    ) {
        let task = move |worker: &mut crate::worker::Worker| {
            then(worker.kick_some(&filter, reason, from.slot));
        };
        self.task(from.worker as usize, Box::new(task));
    }

    /// Has a worker take no new clients, and sends up to `max` of its clients away, one step of a walk: those that have
    /// nothing under way.
    pub fn leave(&self, from: Cursor, max: usize, then: Then<Part<()>>) {
        let task = move |worker: &mut crate::worker::Worker| {
            then(worker.leave_some(from.slot, max));
        };
        self.task(from.worker as usize, Box::new(task));
    }

    /// Retained messages whose topics match a topic filter, behind the topic `after`: up to `max`, and perhaps fewer
    /// although there are more.
    #[must_use]
    pub fn retained(&self, filter: &str, after: Option<&str>, max: usize) -> RetainedPart {
        let now = self.now();
        let position = after.map_or(Position::Start, |topic| Position::After(topic.into()));
        let mut messages = Vec::new();
        let all = |_: &Message, _| true;
        let retained = &self.0.router.retained;
        let next = retained.walk(filter, &position, now, max, all, &mut messages);
        let facts = |message: Message| RetainedFacts {
            expires_in_ms: message.expires_at().map(|at| at.since_ms(now)),
            message,
        };
        RetainedPart {
            found: messages.into_iter().map(facts).collect(),
            next: match next {
                Position::After(topic) => Some(topic.into()),
                Position::Start | Position::End => None,
            },
        }
    }

    /// What the log of one worker says of who lost what, where `wanted` says yes to client, topic and reason: up to `max`
    /// entries.
    pub fn losses(
        &self,
        worker: usize,
        max: usize,
        wanted: impl Fn(&str, &str, Loss) -> bool + Send + 'static,
        then: Then<LostPart>,
    ) {
        let task = move |worker: &mut crate::worker::Worker| then(worker.losses(max, wanted));
        self.task(worker, Box::new(task));
    }

    /// Traces a client, or the messages of a topic filter, until that time, and for so many lines at most. Each worker that
    /// is concerned says in `then` whether it could begin: there are [`TRACES_MAX`](crate::limits::TRACES_MAX) at a time.
    pub fn trace(
        &self,
        of: &Traced,
        until: Time,
        lines_max: u32,
        to: &TraceTo,
        then: impl Fn(bool) + Clone + Send + 'static,
    ) {
        let left = Arc::new(AtomicU32::new(lines_max));
        let workers = match of {
            Traced::Client(client_id) => {
                let home = self.0.home(client_id);
                home..home + 1
            }
            Traced::Topic(_) => 0..self.workers(),
        };
        for worker in workers {
            let trace = Trace::new(of.clone(), until, Arc::clone(&left), Arc::clone(to));
            let then = then.clone();
            self.task(worker, Box::new(move |worker| then(worker.trace(trace))));
        }
    }

    /// Has a worker count publishes by topic, until that time at most.
    pub fn count_topics(&self, worker: usize, until: Time, then: Then<()>) {
        let task = move |worker: &mut crate::worker::Worker| {
            worker.count_topics(until);
            then(());
        };
        self.task(worker, Box::new(task));
    }

    /// What a worker has counted so: up to `max` topics. It counts no more from then on.
    pub fn counted_topics(&self, worker: usize, max: usize, then: Then<TopTopics>) {
        let task = move |worker: &mut crate::worker::Worker| then(worker.counted_topics(max));
        self.task(worker, Box::new(task));
    }

    /// Who may not connect.
    #[must_use]
    pub fn bans(&self) -> &crate::bans::Bans {
        &self.0.bans
    }
}

const _: () = assert!(ADMIN_ENTRIES_PER_TURN_MAX > 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names() {
        for (pattern, fits, other) in [
            (
                "device-*",
                &["device-", "device-1", "device-*"][..],
                &["device", "a-device-1"][..],
            ),
            ("*-1", &["-1", "a-1", "a-1-1"], &["a-12"]),
            ("a?c", &["abc", "a?c", "aäc"], &["ac", "abbc"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a"]),
            ("", &[""], &["a"]),
            ("*", &["", "x", "ä/\n"], &[]),
        ] {
            let glob = Glob::new(pattern);
            for text in fits {
                assert!(glob.matches(text), "{pattern} {text}");
            }
            for text in other {
                assert!(!glob.matches(text), "{pattern} {text}");
            }
        }
        // It takes no time that grows with the number of stars.
        let glob = Glob::new("*a".repeat(50) + "b");
        assert!(!glob.matches(&"a".repeat(1_000)));
    }
}
