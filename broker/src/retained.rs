//! Retained messages: the last one of each topic, in topic order, so that a wildcard subscription is answered by
//! walking on from where it stopped, a bounded number at a time.

mod owners;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::limits::Limits;
use crate::message::Message;
use crate::time::Time;
use owners::{Owner, Owners};

/// Messages looked at in one step of a walk, so that a filter that matches little holds nobody up.
const EXAMINED_PER_STEP_MAX: usize = 4_096;

/// Where the node's own figures are, which count against no bound: clients cannot publish there.
const SYS: &[u8] = b"$SYS/";
/// Expired messages that one publish lets go of; the rest is the timer's.
const EXPIRED_PER_SET_MAX: usize = 64;
/// Expired messages that go in one step of the timer, or when there is no room.
const EXPIRED_PER_STEP_MAX: usize = 1_024;

/// A retained message, ordered by its topic: by bytes, which order as the text does and need no look at whether they are
/// text.
struct ByTopic {
    message: Message,
    /// Its number in the upper bits, in the lower ones who has set it.
    number_and_owner: u64,
}

/// The last number. It comes after years; what is kept then counts as earlier than any subscription, and may come twice to
/// one that begins meanwhile.
const NUMBER_MAX: u64 = (1 << (u64::BITS - Owner::BITS)) - 1;

impl ByTopic {
    fn new(message: Message, number: u64, owner: Owner) -> Self {
        Self {
            message,
            number_and_owner: number << Owner::BITS | owner.bits(),
        }
    }

    /// Counts the messages that were ever kept on this node: tells what came before a subscription from what came after.
    fn number(&self) -> u64 {
        self.number_and_owner >> Owner::BITS
    }

    fn owner(&self) -> Owner {
        Owner::from_bits(self.number_and_owner)
    }
}

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.message.topic_bytes()
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByTopic {}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.message.topic_bytes().cmp(other.message.topic_bytes())
    }
}

/// A retained message that expires, ordered by when. It shares the message, and messages that do not expire have none.
struct ByExpiry(Time, Message);

impl PartialEq for ByExpiry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByExpiry {}

impl PartialOrd for ByExpiry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByExpiry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.0.cmp(&other.0);
        by_time.then_with(|| self.1.topic_bytes().cmp(other.1.topic_bytes()))
    }
}

#[derive(Default)]
struct Inner {
    by_topic: BTreeSet<ByTopic>,
    by_expiry: BTreeSet<ByExpiry>,
    bytes: u64,
    owners: Owners,
    sequence: u64,
    /// Messages of [`SYS`].
    sys: usize,
}

/// Why a message is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The store is full, or may not grow.
    Full,
    /// Its client has set as much as it may.
    OverShare,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
    /// The same of what one client has set.
    pub(crate) client_messages: u32,
    pub(crate) client_bytes: u64,
}

impl Bounds {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            messages: limits.retained_messages_max,
            bytes: limits.retained_bytes_max,
            client_messages: limits.retained_messages_per_client_max,
            client_bytes: limits.retained_bytes_per_client_max,
        }
    }
}

impl Inner {
    /// Messages that count.
    fn messages(&self) -> usize {
        self.by_topic.len() - self.sys
    }

    /// Notes that `message` has come (`true`) or gone.
    fn count(&mut self, message: &Message, comes: bool) {
        if message.topic_bytes().starts_with(SYS) {
            self.sys = if comes { self.sys + 1 } else { self.sys - 1 };
            return;
        }
        let bytes = message.bytes() as u64;
        self.bytes = if comes {
            self.bytes + bytes
        } else {
            self.bytes - bytes
        };
    }

    fn remove(&mut self, topic: &[u8]) {
        let Some(one) = self.by_topic.take(topic) else {
            return;
        };
        self.owners.remove(one.owner(), one.message.bytes() as u64);
        let message = one.message;
        self.count(&message, false);
        if let Some(at) = message.expires_at() {
            self.by_expiry.remove(&ByExpiry(at, message));
        }
    }

    /// Lets go of up to `max` messages that have expired: when the next one does, if that is known to be later.
    fn purge(&mut self, now: Time, max: usize) -> Option<Time> {
        for _ in 0..max {
            let ByExpiry(at, message) = self.by_expiry.first()?;
            if *at > now {
                return Some(*at);
            }
            let message = message.clone();
            self.remove(message.topic_bytes());
        }
        self.by_expiry.first().map(|next| next.0)
    }
}

/// The retained messages of a node.
pub(crate) struct Retained {
    inner: RwLock<Inner>,
    /// The bytes that are held, for whoever does not need to know it exactly.
    bytes: AtomicU64,
    bounds: Bounds,
}

/// Where a walk over the retained messages of a filter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    Start,
    After(Box<str>),
    End,
}

impl Retained {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            inner: RwLock::default(),
            bytes: AtomicU64::new(0),
            bounds,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, inner: &Inner) {
        self.bytes
            .store(inner.bytes, std::sync::atomic::Ordering::Relaxed);
    }

    /// Messages and bytes held, without the node's own figures (`$SYS`), which are few and no client's.
    pub(crate) fn size(&self) -> (u64, u64) {
        let inner = self.read();
        (inner.messages() as u64, inner.bytes)
    }

    /// Bytes held, as of a moment ago.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The number of the last message that was kept.
    pub(crate) fn sequence(&self) -> u64 {
        self.read().sequence
    }

    /// The same, where a message that is kept may match `filter`: most subscriptions have none to wait for, and that is known by
    /// one look.
    pub(crate) fn sequence_for(&self, filter: &str) -> Option<u64> {
        let inner = self.read();
        let has = |topic: &str| inner.by_topic.contains(topic.as_bytes());
        let may_match = if !topic::has_wildcard(filter) {
            has(filter)
        } else {
            match literal_prefix(filter) {
                // It matches nothing below `$` [MQTT-4.7.2-1].
                "" => inner.messages() > 0,
                prefix => {
                    let from = Bound::Included(prefix.as_bytes());
                    let mut range = inner.by_topic.range::<[u8], _>((from, Bound::Unbounded));
                    let next = range.next().map(|one| one.message.topic_bytes());
                    next.is_some_and(|topic| topic.starts_with(prefix.as_bytes()))
                        || parent_of(filter).is_some_and(has)
                }
            }
        };
        may_match.then_some(inner.sequence)
    }

    fn fits(
        &self,
        inner: &Inner,
        topic: &[u8],
        bytes: u64,
        client: Option<u32>,
        may_grow: bool,
    ) -> Result<(), NotKept> {
        if topic.starts_with(SYS) {
            return Ok(());
        }
        let bounds = &self.bounds;
        let old = inner.by_topic.get(topic);
        if let Some(client) = client {
            let owner = inner.owners.find(client);
            let (messages, held) = owner.map_or((0, 0), |owner| inner.owners.held(owner));
            let own = old.filter(|old| Some(old.owner()) == owner);
            let replaced = own.map_or(0, |own| own.message.bytes() as u64);
            if (own.is_none() && messages >= bounds.client_messages)
                || held - replaced + bytes > bounds.client_bytes
            {
                return Err(NotKept::OverShare);
            }
        }
        let replaced = old.map_or(0, |old| old.message.bytes() as u64);
        if (may_grow || bytes <= replaced)
            && (old.is_some() || inner.messages() < bounds.messages as usize)
            && inner.bytes - replaced + bytes <= bounds.bytes
        {
            Ok(())
        } else {
            Err(NotKept::Full)
        }
    }

    /// Whether a message of that client (its identifier's hash; none is nobody's share) would be kept now; where the store may
    /// not grow, only in the place of a larger one.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn has_room(
        &self,
        topic: &str,
        bytes: usize,
        client: Option<u32>,
        now: Time,
        may_grow: bool,
    ) -> Result<(), NotKept> {
        let (topic, bytes) = (topic.as_bytes(), bytes as u64);
        if let Ok(()) = self.fits(&self.read(), topic, bytes, client, may_grow) {
            return Ok(());
        }
        let mut inner = self.write();
        inner.purge(now, EXPIRED_PER_STEP_MAX);
        self.tell(&inner);
        self.fits(&inner, topic, bytes, client, may_grow)
    }

    /// Keeps `message` of that client as its topic's last, or forgets the topic when the payload is empty [MQTT-3.3.1-6].
    ///
    /// # Errors
    /// It was not kept: a bound is reached, or the store may not grow. What the topic had stays then.
    pub(crate) fn set(
        &self,
        message: Message,
        client: Option<u32>,
        now: Time,
        may_grow: bool,
    ) -> Result<(), NotKept> {
        let mut inner = self.write();
        inner.purge(now, EXPIRED_PER_SET_MAX);
        if message.payload().is_empty() {
            inner.remove(message.topic_bytes());
            self.tell(&inner);
            return Ok(());
        }
        let bytes = message.bytes() as u64;
        self.fits(&inner, message.topic_bytes(), bytes, client, may_grow)?;
        inner.remove(message.topic_bytes());
        inner.count(&message, true);
        let owner = client.map_or(Owner::NOBODY, |client| inner.owners.add(client, bytes));
        inner.sequence = (inner.sequence + 1).min(NUMBER_MAX);
        let one = ByTopic::new(message, inner.sequence, owner);
        if let Some(at) = one.message.expires_at() {
            inner.by_expiry.insert(ByExpiry(at, one.message.clone()));
        }
        inner.by_topic.insert(one);
        self.tell(&inner);
        Ok(())
    }

    /// Lets go of messages that have expired, a bounded number: when to look again.
    pub(crate) fn purge(&self, now: Time) -> Option<Time> {
        let mut inner = self.write();
        let next = inner.purge(now, EXPIRED_PER_STEP_MAX);
        self.tell(&inner);
        next
    }

    /// Appends up to `max` (at least one) messages that match `filter` and that `wanted` says yes to, given their number
    /// ([`Retained::sequence`]), from `position` on: the position behind them.
    pub(crate) fn walk(
        &self,
        filter: &str,
        position: &Position,
        now: Time,
        max: usize,
        wanted: impl Fn(&Message, u64) -> bool,
        out: &mut Vec<Message>,
    ) -> Position {
        let inner = self.read();
        let mut push = |one: &ByTopic| {
            let fresh = one.message.expires_at().is_none_or(|at| at > now);
            if fresh && wanted(&one.message, one.number()) {
                out.push(one.message.clone());
                return true;
            }
            false
        };
        if !topic::has_wildcard(filter) {
            if *position == Position::Start
                && let Some(one) = inner.by_topic.get(filter.as_bytes())
            {
                push(one);
            }
            return Position::End;
        }
        let prefix = literal_prefix(filter);
        let mut found = 0;
        let mut last = None;
        let from = match position {
            Position::Start => {
                // "a/#" matches "a" too [MQTT-4.7.1-2], which stands outside of the range below.
                if let Some(parent) = parent_of(filter)
                    && let Some(one) = inner.by_topic.get(parent.as_bytes())
                {
                    found += usize::from(push(one));
                    last = Some(one);
                }
                Bound::Included(prefix.as_bytes())
            }
            // After the parent the range begins: "a-b" stands between "a" and "a/b".
            Position::After(topic) if topic.as_bytes() < prefix.as_bytes() => {
                Bound::Included(prefix.as_bytes())
            }
            Position::After(topic) => Bound::Excluded(topic.as_bytes()),
            Position::End => return Position::End,
        };
        let range = inner.by_topic.range::<[u8], _>((from, Bound::Unbounded));
        for (examined, one) in range.enumerate() {
            if !one.message.topic_bytes().starts_with(prefix.as_bytes()) {
                return Position::End;
            }
            if found >= max || examined >= EXAMINED_PER_STEP_MAX {
                return last.map_or_else(
                    || position.clone(),
                    |last| Position::After(last.message.topic().into()),
                );
            }
            last = Some(one);
            if topic::matches(filter, one.message.topic()) {
                found += usize::from(push(one));
            }
        }
        Position::End
    }
}

/// What stands before the first wildcard.
fn literal_prefix(filter: &str) -> &str {
    &filter[..filter.find(['+', '#']).unwrap_or(filter.len())]
}

/// The topic that `filter` matches above what it is about, as `a` by `a/#`, where that is one topic.
fn parent_of(filter: &str) -> Option<&str> {
    let parent = filter.strip_suffix("/#")?;
    (!topic::has_wildcard(parent)).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageParts;
    use codec::Qos;

    fn message(topic: &str, payload: &[u8], expires_at: Option<Time>) -> Message {
        Message::new(&MessageParts {
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at,
            arrived_at: Time(0),
        })
    }

    /// A store of so many messages and bytes, of which one client may have all.
    fn store(messages: u32, bytes: u64) -> Retained {
        Retained::new(Bounds {
            messages,
            bytes,
            client_messages: messages,
            client_bytes: bytes,
        })
    }

    fn keeps(retained: &Retained, message: Message, now: Time) -> bool {
        retained.set(message, Some(1), now, true).is_ok()
    }

    fn all(retained: &Retained, filter: &str, step: usize) -> Vec<String> {
        let mut position = Position::Start;
        let mut topics = Vec::new();
        while position != Position::End {
            let mut out = Vec::new();
            position = retained.walk(filter, &position, Time(10), step, |_, _| true, &mut out);
            assert!(out.len() <= step);
            topics.extend(out.iter().map(|m| m.topic().to_owned()));
        }
        topics
    }

    #[test]
    fn a_walk_finds_what_matches_whatever_its_step() {
        let retained = store(100, 100_000);
        // '!' and '-' stand below '/', '0' above it.
        let topics = [
            "a", "a/b", "a/b/c", "a-b", "a!", "a0", "a/b-c", "a/b0/c", "ab", "b/c", "$SYS/x", "/a",
            "a/", "!/a",
        ];
        for topic in topics {
            assert!(keeps(&retained, message(topic, b"1", None), Time(0)));
        }
        for filter in ["#", "a/#", "a/+", "+/+", "a", "+", "$SYS/#", "x/#", "a/+/c"] {
            let mut expected: Vec<String> = topics
                .iter()
                .filter(|t| topic::matches(filter, t))
                .map(|t| (*t).to_owned())
                .collect();
            expected.sort();
            let asks = retained.sequence_for(filter).is_some();
            assert_eq!(asks, !expected.is_empty(), "{filter}");
            for step in [1, 2, 100] {
                let mut found = all(&retained, filter, step);
                found.sort();
                assert_eq!(found, expected, "{filter} in steps of {step}");
            }
        }
    }

    #[test]
    fn the_nodes_own_figures_are_no_reason_to_look_for_others() {
        let retained = store(100, 100_000);
        for topic in ["$SYS/broker/a", "$SYS/broker/b"] {
            assert!(keeps(&retained, message(topic, b"1", None), Time(0)));
        }
        for filter in [
            "#",
            "+/broker/a",
            "devices/1/+",
            "devices/1",
            "$SYS/other/#",
        ] {
            assert_eq!(retained.sequence_for(filter), None, "{filter}");
        }
        for filter in ["$SYS/#", "$SYS/broker/+", "$SYS/broker/b"] {
            assert_eq!(retained.sequence_for(filter), Some(2), "{filter}");
        }
    }

    #[test]
    fn an_empty_payload_forgets_and_an_expired_message_is_not_found() {
        let retained = store(100, 100_000);
        keeps(&retained, message("t", b"1", None), Time(0));
        keeps(&retained, message("u", b"1", Some(Time(5))), Time(0));
        assert_eq!(all(&retained, "#", 10), ["t"]);
        keeps(&retained, message("t", b"", None), Time(0));
        assert!(all(&retained, "#", 10).is_empty());
        assert_eq!(retained.size().0, 1);
    }

    #[test]
    fn bounds_hold_and_replacing_is_not_growing() {
        let retained = store(1, 100_000);
        assert!(keeps(&retained, message("t", b"1", None), Time(0)));
        assert!(keeps(&retained, message("t", b"2", None), Time(0)));
        assert!(!keeps(&retained, message("u", b"1", None), Time(0)));
        assert_eq!(retained.size().0, 1);
    }

    /// Whatever was sent of a step, the walk goes on behind that and finds the rest.
    #[test]
    fn a_walk_resumes_behind_every_topic() {
        let names = ["a", "a!", "a-b", "a.", "a0", "ab", ""];
        let retained = store(10_000, 1_000_000);
        let mut topics = Vec::new();
        for first in names {
            topics.push(first.to_owned());
            for second in names {
                topics.push(format!("{first}/{second}"));
                topics.extend(names.map(|third| format!("{first}/{second}/{third}")));
            }
        }
        topics.retain(|topic| !topic.is_empty());
        for topic in &topics {
            assert!(keeps(&retained, message(topic, b"1", None), Time(0)));
        }
        let filters = [
            "#", "+", "+/#", "a/#", "a-b/#", "a!/#", "a/a/#", "a/+", "a/+/#", "a/+/a", "+/a/#",
            "/#", "+/+", "ab/+/#",
        ];
        for filter in filters {
            let mut expected: Vec<_> = topics
                .iter()
                .filter(|t| topic::matches(filter, t))
                .collect();
            expected.sort();
            for (step, sent) in [(1, 1), (2, 1), (3, 2), (7, 1), (7, 6), (1_000, 1)] {
                let (mut position, mut found) = (Position::Start, Vec::new());
                while position != Position::End {
                    let mut out = Vec::new();
                    let end =
                        retained.walk(filter, &position, Time(0), step, |_, _| true, &mut out);
                    assert!(out.len() <= step);
                    position = if out.len() > sent {
                        Position::After(out[sent - 1].topic().into())
                    } else {
                        end
                    };
                    found.extend(out.iter().take(sent).map(|m| m.topic().to_owned()));
                    assert!(found.len() <= expected.len(), "{filter}: it goes round");
                }
                found.sort();
                assert!(
                    found.iter().eq(expected.iter().copied()),
                    "{filter}, {sent} of {step}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn expired_messages_make_room_and_are_not_counted() {
        let retained = store(2, 100_000);
        assert!(keeps(&retained, message("t", b"1", Some(Time(5))), Time(0)));
        assert!(keeps(
            &retained,
            message("t", b"2", Some(Time(20))),
            Time(0)
        ));
        assert!(keeps(
            &retained,
            message("u", b"1", Some(Time(10))),
            Time(0)
        ));
        let has_room = |now| retained.has_room("v", 50, None, now, true).is_ok();
        assert!(!has_room(Time(9)));
        assert!(!keeps(&retained, message("v", b"1", None), Time(9)));
        assert!(has_room(Time(10)));
        assert!(keeps(&retained, message("v", b"1", None), Time(10)));
        assert_eq!(retained.size().0, 2);
        assert_eq!(retained.purge(Time(19)), Some(Time(20)));
        assert_eq!(retained.purge(Time(20)), None);
        let left = message("v", b"1", None).bytes() as u64;
        assert_eq!(retained.size(), (1, left));
        assert!(retained.inner.read().unwrap().by_expiry.is_empty());
    }

    #[test]
    fn numbers_stop_at_their_last_and_leave_owners_alone() {
        assert_eq!(size_of::<ByTopic>(), 24);
        let retained = store(10, 100_000);
        retained.write().sequence = NUMBER_MAX - 1;
        for topic in ["1", "2", "3"] {
            assert!(keeps(&retained, message(topic, b"x", None), Time(0)));
            assert_eq!(retained.sequence(), NUMBER_MAX);
        }
        let inner = retained.read();
        let owner = inner.owners.find(1).unwrap();
        for one in &inner.by_topic {
            assert_eq!((one.number(), one.owner()), (NUMBER_MAX, owner));
        }
        assert_eq!(inner.owners.held(owner).0, 3);
    }

    #[test]
    fn a_replacement_over_the_bound_leaves_what_was_there() {
        let room = message("t", &[b'x'; 100], None).bytes() as u64;
        let retained = store(10, room);
        assert!(keeps(&retained, message("t", b"old", None), Time(0)));
        assert!(!keeps(&retained, message("t", &[b'x'; 101], None), Time(0)));
        assert_eq!(all(&retained, "#", 10), ["t"]);
        assert!(keeps(&retained, message("t", &[b'x'; 100], None), Time(0)));
        assert_eq!(retained.size(), (1, room));
    }
}
