//! A shared subscription: its members, what each of them can take, and which of them gets a message.
//!
//! Members are kept apart by what they can take, so that a message finds one with room without asking those that have
//! none, however many there are. A member's own worker says when that changes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use codec::Qos;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{Receiver, SessionId};
use crate::admin::Reached;
use crate::limits::{SHARED_COMPARED_MAX, SHARED_SEARCHED_MAX, SHARED_STICKY_POINTS};

/// Which member of a shared subscription gets a message, among those with room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareStrategy {
    /// Each in turn.
    RoundRobin,
    /// The same one for all messages of a publisher.
    StickyClient,
    /// The same one for all messages of a topic.
    StickyTopic,
    /// The one that has the fewest messages of the group to acknowledge.
    LeastInFlight,
}

impl ShareStrategy {
    fn is_sticky(self) -> bool {
        matches!(self, Self::StickyClient | Self::StickyTopic)
    }
}

/// What a member can take. Offline ones keep QoS 1 and 2 in their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Connected, with room.
    Now,
    /// Not connected, with room.
    Later,
    /// Connected, without room for another QoS 1 or 2 message.
    Full,
    /// Not connected and without room.
    Nothing,
}

impl Takes {
    const COUNT: usize = 4;

    /// The order in which members are preferred for QoS 1 and 2: those with room first.
    const WITH_ROOM_FIRST: [Self; Self::COUNT] =
        [Self::Now, Self::Later, Self::Full, Self::Nothing];
    /// For QoS 0, which never waits: connected ones first.
    const CONNECTED_FIRST: [Self; Self::COUNT] =
        [Self::Now, Self::Full, Self::Later, Self::Nothing];

    pub(crate) fn of(is_online: bool, has_room: bool, qos: Qos) -> Self {
        // Nothing with QoS 0 waits, connected or not.
        match (is_online, has_room, qos) {
            (true, _, Qos::AtMostOnce) | (true, true, _) => Self::Now,
            (true, false, _) => Self::Full,
            (false, true, Qos::AtLeastOnce | Qos::ExactlyOnce) => Self::Later,
            (false, ..) => Self::Nothing,
        }
    }
}

/// Whom a message may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among {
    /// Anybody, those who can take it first.
    All,
    /// Those who have room: for QoS 0, those who are connected.
    WithRoom,
    /// Those who are connected and, for QoS 1 and 2, have room.
    Connected,
    /// Those to whom the access rules deny nothing of the filter.
    Undenied,
}

/// What decides which member gets a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) qos: Qos,
    /// What [`ShareStrategy::StickyClient`] and [`ShareStrategy::StickyTopic`] go by.
    pub(crate) key: u32,
    pub(crate) among: Among,
    pub(crate) except: Option<SessionId>,
}

/// A session's part in a group, as the session itself holds it.
#[derive(Debug)]
pub(crate) struct Member {
    group: Weak<Group>,
    /// Messages of the group that are on their way to the member, wait for it or are in flight.
    under_way: AtomicU32,
}

impl Member {
    /// Its group, while that has members.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        self.group.upgrade()
    }

    /// The member can take more, or less, from now on.
    pub(crate) fn set(&self, session: SessionId, is_online: bool, has_room: bool) {
        if let Some(group) = self.group() {
            group.members().set(session, is_online, has_room);
        }
    }
}

/// A message of a group in the hands of a member, which counts it for as long as this lives.
#[derive(Debug)]
pub(crate) struct Share {
    member: Arc<Member>,
    key: u32,
}

impl Share {
    fn new(member: Arc<Member>, key: u32) -> Self {
        member.under_way.fetch_add(1, Ordering::Relaxed);
        Self { member, key }
    }

    /// Another member for the message.
    pub(crate) fn other(
        &self,
        qos: Qos,
        among: Among,
        except: SessionId,
    ) -> Option<(Receiver, Self)> {
        self.member.group()?.pick(&Ask {
            qos,
            key: self.key,
            among,
            except: Some(except),
        })
    }

    /// The same message in the hands of another member, if that is still one.
    pub(crate) fn back_to(&self, session: SessionId) -> Option<(Receiver, Self)> {
        let group = self.member.group()?;
        let members = group.members();
        let (takes, at) = *members.places.get(&session)?;
        let entry = &members.lists[takes as usize].entries[at];
        Some((
            entry.receiver,
            Self::new(Arc::clone(&entry.member), self.key),
        ))
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.member), self.key)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.member.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Group {
    strategy: ShareStrategy,
    members: Mutex<Members>,
}

impl Group {
    pub(super) fn new(strategy: ShareStrategy) -> Self {
        Self {
            strategy,
            members: Mutex::default(),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member that a message goes to.
    pub(crate) fn pick(&self, ask: &Ask) -> Option<(Receiver, Share)> {
        self.members().pick(self.strategy, ask)
    }

    /// Makes a session a member, or replaces its options: its part in the group, and whether it is new.
    pub(super) fn join(self: &Arc<Self>, join: &Join<'_>) -> (Arc<Member>, bool) {
        let mut members = self.members();
        let session = join.receiver.session;
        let old = members.take(session);
        let is_new = old.is_none();
        let entry = old.unwrap_or_else(|| Entry {
            receiver: join.receiver,
            member: Arc::new(Member {
                group: Arc::downgrade(self),
                under_way: AtomicU32::new(0),
            }),
            points: if self.strategy.is_sticky() {
                (0..SHARED_STICKY_POINTS)
                    .map(|at| join.hasher.hash_one((join.client_id, at)) as u32)
                    .collect()
            } else {
                Box::default()
            },
        });
        let member = Arc::clone(&entry.member);
        let takes = Takes::of(true, join.has_room, join.receiver.options.qos());
        members.put(
            Entry {
                receiver: join.receiver,
                ..entry
            },
            takes,
        );
        (member, is_new)
    }

    /// A member's subscription.
    pub(super) fn member(&self, session: SessionId) -> Option<Receiver> {
        let members = self.members();
        let (takes, at) = *members.places.get(&session)?;
        Some(members.lists[takes as usize].entries[at].receiver)
    }

    /// Up to `max` of its members, those who can take most first, and how many there are.
    pub(super) fn some_members(&self, max: usize) -> (Vec<Reached>, usize) {
        let members = self.members();
        let entries = members.lists.iter().flat_map(|list| &list.entries);
        let some = entries.map(|entry| Reached::of(&entry.receiver));
        (some.take(max).collect(), members.places.len())
    }

    /// Takes a session out: whether it was a member, and whether nobody is left.
    pub(super) fn leave(&self, session: SessionId) -> (bool, bool) {
        let mut members = self.members();
        let was_member = members.take(session).is_some();
        (was_member, members.places.is_empty())
    }
}

/// A session that becomes a member.
pub(crate) struct Join<'a> {
    pub(crate) receiver: Receiver,
    pub(crate) client_id: &'a str,
    pub(crate) hasher: &'a ahash::RandomState,
    pub(crate) has_room: bool,
}

#[derive(Debug)]
struct Entry {
    receiver: Receiver,
    member: Arc<Member>,
    /// Its places on the ring of a sticky strategy.
    points: Box<[u32]>,
}

#[derive(Debug, Default)]
struct Members {
    /// The list that each session is in, and where in it.
    places: HashMap<SessionId, (Takes, usize), ahash::RandomState>,
    lists: [List; Takes::COUNT],
}

/// Members that can take the same.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Entry>,
    /// Whose turn it is.
    next: usize,
    /// A sticky strategy's key belongs to whoever has the next point from it on: who comes or goes takes or leaves only
    /// what is its own.
    ring: BTreeSet<(u32, SessionId)>,
}

impl Members {
    fn put(&mut self, entry: Entry, takes: Takes) {
        let session = entry.receiver.session;
        let list = &mut self.lists[takes as usize];
        list.ring
            .extend(entry.points.iter().map(|point| (*point, session)));
        self.places.insert(session, (takes, list.entries.len()));
        list.entries.push(entry);
    }

    fn take(&mut self, session: SessionId) -> Option<Entry> {
        let (takes, at) = self.places.remove(&session)?;
        let list = &mut self.lists[takes as usize];
        let entry = list.entries.swap_remove(at);
        for point in &entry.points {
            list.ring.remove(&(*point, session));
        }
        if let Some(moved) = list.entries.get(at) {
            self.places.insert(moved.receiver.session, (takes, at));
        }
        Some(entry)
    }

    fn set(&mut self, session: SessionId, is_online: bool, has_room: bool) {
        let Some((old, at)) = self.places.get(&session).copied() else {
            return;
        };
        let qos = self.lists[old as usize].entries[at].receiver.options.qos();
        let takes = Takes::of(is_online, has_room, qos);
        if takes != old
            && let Some(entry) = self.take(session)
        {
            self.put(entry, takes);
        }
    }

    fn pick(&mut self, strategy: ShareStrategy, ask: &Ask) -> Option<(Receiver, Share)> {
        let order = match ask.qos {
            Qos::AtMostOnce => Takes::CONNECTED_FIRST,
            _ => Takes::WITH_ROOM_FIRST,
        };
        let lists = match (ask.among, ask.qos) {
            (Among::All | Among::Undenied, _) => &order[..],
            (Among::Connected, Qos::AtLeastOnce | Qos::ExactlyOnce) => &order[..1],
            (Among::WithRoom | Among::Connected, _) => &order[..2],
        };
        for takes in lists {
            let list = &mut self.lists[*takes as usize];
            if let Some(at) = list.choose(strategy, ask, &self.places) {
                let entry = &list.entries[at];
                let share = Share::new(Arc::clone(&entry.member), ask.key);
                return Some((entry.receiver, share));
            }
        }
        None
    }
}

impl List {
    fn choose(
        &mut self,
        strategy: ShareStrategy,
        ask: &Ask,
        places: &HashMap<SessionId, (Takes, usize), ahash::RandomState>,
    ) -> Option<usize> {
        let len = self.entries.len();
        let from = if self.next < len { self.next } else { 0 };
        let entries = &self.entries;
        let eligible = |at: &usize| {
            #[cfg(test)]
            tests::LOOKED_AT.set(tests::LOOKED_AT.get() + 1);
            let receiver = &entries[*at].receiver;
            ask.except != Some(receiver.session)
                && (ask.among != Among::Undenied || !receiver.options.in_part())
        };
        let in_turn = (from..len).chain(0..from);
        let at = match strategy {
            ShareStrategy::RoundRobin => in_turn.take(SHARED_SEARCHED_MAX).find(eligible),
            ShareStrategy::LeastInFlight => in_turn
                .take(SHARED_SEARCHED_MAX)
                .filter(eligible)
                .take(SHARED_COMPARED_MAX)
                .min_by_key(|at| entries[*at].member.under_way.load(Ordering::Relaxed)),
            ShareStrategy::StickyClient | ShareStrategy::StickyTopic => {
                let key = (ask.key, SessionId(0));
                self.ring
                    .range(key..)
                    .chain(self.ring.range(..key))
                    .take(SHARED_SEARCHED_MAX)
                    .filter_map(|(_, session)| places.get(session).map(|(_, at)| *at))
                    .find(eligible)
            }
        }?;
        self.next = at + 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use codec::{RetainHandling, SubscriptionOptions};

    use super::*;
    use crate::access::Scope;
    use crate::router::Options;

    thread_local! {
        /// Members that were looked at.
        pub(super) static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    const QOS: Qos = Qos::AtLeastOnce;

    fn receiver(slot: u32) -> Receiver {
        let options = SubscriptionOptions {
            qos: QOS,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        Receiver {
            session: SessionId::new(0, slot),
            identifier: 0,
            generation: 0,
            options: Options::new(options, Scope::All),
        }
    }

    fn group(strategy: ShareStrategy, members: u32) -> (Arc<Group>, Vec<Arc<Member>>) {
        let group = Arc::new(Group::new(strategy));
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let members = (0..members).map(|slot| {
            let join = Join {
                receiver: receiver(slot),
                client_id: &format!("worker-{slot}"),
                hasher: &hasher,
                has_room: true,
            };
            group.join(&join).0
        });
        let members = members.collect();
        (group, members)
    }

    fn ask(key: u32) -> Ask {
        Ask {
            qos: QOS,
            key,
            among: Among::All,
            except: None,
        }
    }

    fn picked(group: &Group, key: u32) -> (u32, Share) {
        let (receiver, share) = group.pick(&ask(key)).expect("a member");
        (receiver.session.slot(), share)
    }

    #[test]
    fn members_with_room_are_asked_first_whatever_the_strategy() {
        for strategy in [
            ShareStrategy::RoundRobin,
            ShareStrategy::StickyClient,
            ShareStrategy::StickyTopic,
            ShareStrategy::LeastInFlight,
        ] {
            let (group, members) = group(strategy, 4);
            let set = |at: u32, online, room| {
                members[at as usize].set(SessionId::new(0, at), online, room);
            };
            set(0, true, false);
            set(1, false, false);
            set(2, false, true);
            let who = |group: &Group| {
                (0..50)
                    .map(|key| picked(group, key << 24).0)
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(who(&group), [3].into(), "{strategy:?}");
            set(3, true, false);
            assert_eq!(who(&group), [2].into(), "{strategy:?}");
            set(2, false, false);
            assert!(who(&group).is_subset(&[0, 3].into()), "{strategy:?}");
            for slot in 0..4 {
                assert_eq!(group.leave(SessionId::new(0, slot)), (true, slot == 3));
            }
            assert!(group.pick(&ask(0)).is_none());
        }
    }

    #[test]
    fn who_leaves_a_sticky_group_leaves_only_its_own_keys() {
        let (group, members) = group(ShareStrategy::StickyTopic, 8);
        let keys = || (0..4_000_u32).map(|key| key.wrapping_mul(0x9E37_79B1));
        let before: Vec<u32> = keys().map(|key| picked(&group, key).0).collect();
        for slot in 0..8 {
            let of_slot = before.iter().filter(|owner| **owner == slot).count();
            assert!(
                (100..=1_500).contains(&of_slot),
                "{slot} has {of_slot} of 4,000"
            );
        }
        members[3].set(SessionId::new(0, 3), false, true);
        for (key, owner) in keys().zip(&before) {
            let now = picked(&group, key).0;
            assert!(now != 3 && (now == *owner || *owner == 3));
        }
        members[3].set(SessionId::new(0, 3), true, true);
        let after: Vec<u32> = keys().map(|key| picked(&group, key).0).collect();
        assert_eq!(after, before);
    }

    #[test]
    fn the_one_with_the_fewest_in_flight_is_the_next() {
        let (group, _members) = group(ShareStrategy::LeastInFlight, 3);
        let mut held: Vec<(u32, Share)> = (0..9).map(|_| picked(&group, 0)).collect();
        held.retain(|(slot, _)| *slot != 1);
        assert_eq!(held.len(), 6);
        for _ in 0..3 {
            let one = picked(&group, 0);
            assert_eq!(one.0, 1);
            held.push(one);
        }
        let next: BTreeSet<u32> = (0..3).map(|_| picked(&group, 0)).map(|one| one.0).collect();
        assert_eq!(next, [0, 1, 2].into(), "all have three: in turn");
    }

    #[test]
    fn members_that_can_take_nothing_are_not_looked_at_however_many_they_are() {
        let (group, members) = group(ShareStrategy::RoundRobin, 100_000);
        for (slot, member) in (0..).zip(&members[1..]) {
            member.set(SessionId::new(0, slot + 1), false, false);
        }
        LOOKED_AT.set(0);
        for _ in 0..100 {
            assert_eq!(picked(&group, 0).0, 0);
        }
        assert_eq!(LOOKED_AT.get(), 100);
    }
}
