//! Who gets what: subscriptions of all workers' sessions, shared by the workers.
//!
//! Filters without wildcards are in a sharded hash map, filters with wildcards in a tree, shared subscriptions in a
//! tree of groups. A lookup costs the topic's depth and the matches. The router holds numbers of sessions, never
//! sessions; a number carries the generation of its slot, so one that is out of date names nobody.

mod group;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use codec::{Qos, SubscriptionOptions};
use dashmap::DashMap;
use hashbrown::HashMap;
use topic::FilterTree;

pub use group::ShareStrategy;
pub(crate) use group::{Among, Ask, Group, Join, Member, Share};

use crate::access::Scope;
use crate::admin::{Audience, GroupFacts, Reached};
use crate::retained::Retained;
use crate::stats::Stats;

/// A session's number on this node: 6 bits of worker, 26 bits of slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u32);

impl SessionId {
    pub(crate) fn new(worker: usize, slot: u32) -> Self {
        Self((worker as u32) << 26 | slot)
    }

    pub(crate) fn worker(self) -> usize {
        (self.0 >> 26) as usize
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 & ((1 << 26) - 1)
    }
}

/// One subscription as a publisher sees it: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) session: SessionId,
    /// The subscription identifier; 0 is none [MQTT-3.8.2-1].
    pub(crate) identifier: u32,
    pub(crate) generation: u16,
    pub(crate) options: Options,
}

/// The options of a subscription that matter on delivery, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options(u8);

impl Options {
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;
    const IN_PART: u8 = 0b1_0000;

    pub(crate) fn new(options: SubscriptionOptions, scope: Scope) -> Self {
        let mut bits = u8::from(options.qos);
        if options.no_local {
            bits |= Self::NO_LOCAL;
        }
        if options.retain_as_published {
            bits |= Self::RETAIN_AS_PUBLISHED;
        }
        if scope == Scope::Part {
            bits |= Self::IN_PART;
        }
        Self(bits)
    }

    /// The same, as far as the access rules let it go now.
    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        match scope {
            Scope::All => Self(self.0 & !Self::IN_PART),
            Scope::Part => Self(self.0 | Self::IN_PART),
        }
    }

    pub(crate) fn qos(self) -> Qos {
        Qos::try_from(self.0 & 0b11).unwrap_or(Qos::AtMostOnce)
    }

    pub(crate) fn no_local(self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    pub(crate) fn retain_as_published(self) -> bool {
        self.0 & Self::RETAIN_AS_PUBLISHED != 0
    }

    /// Whether the access rules deny a part of what matches the filter, so that each delivery is judged.
    pub(crate) fn in_part(self) -> bool {
        self.0 & Self::IN_PART != 0
    }

    /// Of two subscriptions of one session that match the same message: the larger QoS [MQTT-3.3.4-2], and whatever
    /// lets more through.
    fn merge(self, other: Self) -> Self {
        let qos = self.qos().max(other.qos());
        let local = self.0 & other.0 & Self::NO_LOCAL;
        let retain = (self.0 | other.0) & Self::RETAIN_AS_PUBLISHED;
        // Rules go by client and topic: what one filter may have whole, they allow by the other, too.
        let in_part = (self.0 | other.0) & Self::IN_PART;
        Self(u8::from(qos) | local | retain | in_part)
    }
}

/// The subscribers of one filter. Most filters have one, so one costs no allocation.
#[derive(Debug, Default)]
enum Receivers {
    #[default]
    None,
    One(Receiver),
    Few(Box<Vec<Receiver>>),
    Many(Box<HashMap<SessionId, Receiver, ahash::RandomState>>),
}

/// Up to this many subscribers are searched one by one.
const FEW_RECEIVERS_MAX: usize = 32;

impl Receivers {
    /// Adds or replaces the session's subscription: whether it is new.
    fn insert(&mut self, receiver: Receiver) -> bool {
        match self {
            Self::None => *self = Self::One(receiver),
            Self::One(one) if one.session == receiver.session => {
                *one = receiver;
                return false;
            }
            Self::One(one) => *self = Self::Few(Box::new(vec![*one, receiver])),
            Self::Few(few) => {
                if let Some(old) = few.iter_mut().find(|old| old.session == receiver.session) {
                    *old = receiver;
                    return false;
                }
                few.push(receiver);
                if few.len() > FEW_RECEIVERS_MAX {
                    *self = Self::Many(Box::new(few.iter().map(|r| (r.session, *r)).collect()));
                }
            }
            Self::Many(many) => return many.insert(receiver.session, receiver).is_none(),
        }
        true
    }

    fn remove(&mut self, session: SessionId) -> bool {
        match self {
            Self::One(one) if one.session == session => *self = Self::None,
            Self::None | Self::One(_) => return false,
            Self::Few(few) => {
                let Some(at) = few.iter().position(|old| old.session == session) else {
                    return false;
                };
                few.swap_remove(at);
                if let [one] = few[..] {
                    *self = Self::One(one);
                }
            }
            Self::Many(many) => {
                if many.remove(&session).is_none() {
                    return false;
                }
                if many.len() <= FEW_RECEIVERS_MAX / 2 {
                    *self = Self::Few(Box::new(many.values().copied().collect()));
                }
            }
        }
        true
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Receiver> {
        let (few, many) = match self {
            Self::None => (&[][..], None),
            Self::One(one) => (std::slice::from_ref(one), None),
            Self::Few(few) => (&few[..], None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter()
            .chain(many.into_iter().flat_map(|many| many.values()))
    }

    fn get(&self, session: SessionId) -> Option<Receiver> {
        match self {
            Self::Many(many) => many.get(&session).copied(),
            _ => self.iter().find(|one| one.session == session).copied(),
        }
    }

    fn append_to(&self, out: &mut Vec<Receiver>) {
        match self {
            Self::None => {}
            Self::One(one) => out.push(*one),
            Self::Few(few) => out.extend_from_slice(few),
            Self::Many(many) => out.extend(many.values()),
        }
    }
}

/// A delivery that does not fit a plain [`Receiver`]: of a shared subscription, or with several identifiers.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) receiver: Receiver,
    pub(crate) more_identifiers: Box<[u32]>,
    /// Its member's part of the shared subscription that it is for, if it is.
    pub(crate) share: Option<Share>,
    /// How many members handed it on.
    pub(crate) passed_on: u8,
    /// Whether one of them may not have it.
    pub(crate) was_denied: bool,
    /// The member that had it and went away, to which it goes back when nobody has room.
    pub(crate) giver: Option<SessionId>,
}

impl Hit {
    /// A message for a member of a shared subscription.
    pub(crate) fn shared((receiver, share): (Receiver, Share)) -> Self {
        Self {
            receiver,
            more_identifiers: Box::default(),
            share: Some(share),
            passed_on: 0,
            was_denied: false,
            giver: None,
        }
    }
}

/// What a lookup found. Reused from lookup to lookup.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// One entry a session, unless a session is in `hits` too.
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) hits: Vec<Hit>,
    groups: Vec<Arc<Group>>,
}

/// The shared subscriptions of one filter, by name.
type Groups = HashMap<Box<str>, Arc<Group>, ahash::RandomState>;

/// What a lookup is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) topic: &'a str,
    pub(crate) qos: Qos,
    /// Who published it (no local [MQTT-3.8.3-3]).
    pub(crate) origin: Option<(SessionId, u16)>,
    /// What sticky shared subscriptions go by.
    pub(crate) share_key: u32,
}

/// Subscriptions and retained messages of a node.
pub(crate) struct Router {
    exact: DashMap<Arc<str>, Receivers, ahash::RandomState>,
    wild: RwLock<FilterTree<Receivers>>,
    shared: RwLock<FilterTree<Groups>>,
    wild_subscriptions: AtomicU64,
    shared_subscriptions: AtomicU64,
    subscriptions: AtomicU64,
    pub(crate) strategy: ShareStrategy,
    pub(crate) retained: Retained,
}

impl Router {
    pub(crate) fn new(
        hasher: ahash::RandomState,
        strategy: ShareStrategy,
        retained: Retained,
    ) -> Self {
        Self {
            exact: DashMap::with_hasher(hasher),
            wild: RwLock::new(FilterTree::new()),
            shared: RwLock::new(FilterTree::new()),
            wild_subscriptions: AtomicU64::new(0),
            shared_subscriptions: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            strategy,
            retained,
        }
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.subscriptions = self.subscriptions.load(Ordering::Relaxed);
        stats.shared_subscriptions = self.shared_subscriptions.load(Ordering::Relaxed);
        (stats.retained_messages, stats.retained_bytes) = self.retained.size();
    }

    /// Subscribes a session to a plain filter, or replaces its subscription: whether it is new.
    pub(crate) fn subscribe(&self, filter: &Arc<str>, receiver: Receiver) -> bool {
        let new = if topic::has_wildcard(filter) {
            let mut tree = self.wild.write().unwrap_or_else(PoisonError::into_inner);
            let new = tree.get_or_insert(filter).insert(receiver);
            self.wild_subscriptions
                .fetch_add(u64::from(new), Ordering::Release);
            new
        } else {
            self.exact
                .entry(Arc::clone(filter))
                .or_default()
                .insert(receiver)
        };
        self.subscriptions
            .fetch_add(u64::from(new), Ordering::Relaxed);
        new
    }

    /// Ends a session's subscription to a plain filter: whether there was one.
    pub(crate) fn unsubscribe(&self, filter: &str, session: SessionId) -> bool {
        let removed = if topic::has_wildcard(filter) {
            let mut tree = self.wild.write().unwrap_or_else(PoisonError::into_inner);
            let Some(receivers) = tree.get_mut(filter) else {
                return false;
            };
            let removed = receivers.remove(session);
            if receivers.is_empty() {
                tree.remove(filter);
            }
            self.wild_subscriptions
                .fetch_sub(u64::from(removed), Ordering::Release);
            removed
        } else {
            let mut removed = false;
            self.exact.remove_if_mut(filter, |_, receivers| {
                removed = receivers.remove(session);
                receivers.is_empty()
            });
            removed
        };
        self.subscriptions
            .fetch_sub(u64::from(removed), Ordering::Relaxed);
        removed
    }

    /// Makes a session a member of a shared subscription, or replaces its options: its part in it. `None` when the
    /// filter has `groups_max` groups already and this would be one more.
    pub(crate) fn join(
        &self,
        name: &str,
        filter: &str,
        join: &Join<'_>,
        groups_max: usize,
    ) -> Option<Arc<Member>> {
        let mut tree = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let of_filter = tree.get_mut(filter);
        let count = of_filter.as_ref().map_or(0, |groups| groups.len());
        let group = match of_filter.and_then(|groups| groups.get(name)) {
            Some(group) => Arc::clone(group),
            None if count >= groups_max => return None,
            None => {
                let group = Arc::new(Group::new(self.strategy));
                tree.get_or_insert(filter)
                    .insert(name.into(), Arc::clone(&group));
                group
            }
        };
        // Under the lock of the tree: otherwise the group might end meanwhile.
        let (member, is_new) = group.join(join);
        self.shared_subscriptions
            .fetch_add(u64::from(is_new), Ordering::Release);
        self.subscriptions
            .fetch_add(u64::from(is_new), Ordering::Relaxed);
        Some(member)
    }

    /// Takes a session out of a shared subscription: whether it was a member.
    pub(crate) fn leave(&self, name: &str, filter: &str, session: SessionId) -> bool {
        let mut tree = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let Some(groups) = tree.get_mut(filter) else {
            return false;
        };
        let Some(group) = groups.get(name) else {
            return false;
        };
        let (removed, is_empty) = group.leave(session);
        if is_empty {
            groups.remove(name);
            if groups.is_empty() {
                tree.remove(filter);
            }
        }
        self.shared_subscriptions
            .fetch_sub(u64::from(removed), Ordering::Release);
        self.subscriptions
            .fetch_sub(u64::from(removed), Ordering::Relaxed);
        removed
    }

    /// Whether any session, connected or kept, has a filter that matches `topic`.
    pub(crate) fn has_subscriber(&self, topic: &str) -> bool {
        if self.exact.contains_key(topic) {
            return true;
        }
        let mut found = false;
        if self.wild_subscriptions.load(Ordering::Acquire) > 0 {
            let tree = self.wild.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, |_| found = true);
        }
        if !found && self.shared_subscriptions.load(Ordering::Acquire) > 0 {
            let tree = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, |_| found = true);
        }
        found
    }

    /// A session's subscription to a filter, as it was given (`$share/…` included).
    pub(crate) fn subscription(&self, filter: &str, session: SessionId) -> Option<Receiver> {
        if let Ok(Some(share)) = topic::split_share(filter) {
            let tree = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            let group = tree.get(share.filter)?.get(share.group)?;
            return group.member(session);
        }
        if topic::has_wildcard(filter) {
            let tree = self.wild.read().unwrap_or_else(PoisonError::into_inner);
            return tree.get(filter)?.get(session);
        }
        self.exact.get(filter)?.get(session)
    }

    /// Who would get a message on `topic`: one for each matching subscription, up to `max` of each kind. Nobody's turn is
    /// taken by asking.
    pub(crate) fn audience(&self, topic: &str, max: usize) -> Audience {
        let mut audience = Audience::default();
        let mut add = |of_filter: &Receivers| {
            let room = max - audience.receivers.len();
            let some = of_filter.iter().take(room).map(Reached::of);
            audience.receivers.extend(some);
            audience.receivers_total += of_filter.len();
        };
        if let Some(exact) = self.exact.get(topic) {
            add(&exact);
        }
        if self.wild_subscriptions.load(Ordering::Acquire) > 0 {
            let tree = self.wild.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, add);
        }
        if self.shared_subscriptions.load(Ordering::Acquire) > 0 {
            let tree = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, |of_filter: &Groups| {
                let groups = of_filter.iter().map(|(name, group)| {
                    let (members, members_total) = group.some_members(max);
                    GroupFacts {
                        name: name.to_string(),
                        members,
                        members_total,
                    }
                });
                let room = max.saturating_sub(audience.groups.len());
                audience.groups.extend(groups.take(room));
            });
        }
        audience
    }

    /// Finds who gets a message: each session once in `receivers`, with all its matching subscriptions merged; and one
    /// member of each shared subscription.
    pub(crate) fn lookup(&self, query: &Query<'_>, found: &mut Matches) {
        let Query { topic, origin, .. } = *query;
        let Matches {
            receivers,
            hits,
            groups,
        } = found;
        receivers.clear();
        hits.clear();
        if let Some(exact) = self.exact.get(topic) {
            exact.append_to(receivers);
        }
        let of_exact = receivers.len();
        if self.wild_subscriptions.load(Ordering::Acquire) > 0 {
            let mut filters = u32::from(of_exact > 0);
            let tree = self.wild.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, |of_filter| {
                of_filter.append_to(receivers);
                filters += 1;
            });
            drop(tree);
            if filters > 1 {
                merge(receivers, hits, origin);
            }
        }
        if let Some((session, generation)) = origin {
            let is_local = |r: &Receiver| {
                r.options.no_local() && r.session == session && r.generation == generation
            };
            receivers.retain(|receiver| !is_local(receiver));
            hits.retain(|hit| !is_local(&hit.receiver));
        }
        if self.shared_subscriptions.load(Ordering::Acquire) > 0 {
            let tree = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            tree.for_each_match(topic, |of_filter| {
                groups.extend(of_filter.values().cloned())
            });
            drop(tree);
            let ask = Ask {
                qos: query.qos,
                key: query.share_key,
                among: Among::All,
                except: None,
            };
            for group in groups.drain(..) {
                hits.extend(group.pick(&ask).map(Hit::shared));
            }
        }
    }
}

/// Merges what several subscriptions of one session matched into one delivery, keeping all their identifiers
/// [MQTT-3.3.4-4].
fn merge(receivers: &mut Vec<Receiver>, hits: &mut Vec<Hit>, origin: Option<(SessionId, u16)>) {
    // A no-local subscription of the publisher itself must not lend its options to another one.
    if let Some((session, _)) = origin {
        receivers.retain(|receiver| receiver.session != session || !receiver.options.no_local());
    }
    receivers.sort_unstable_by_key(|receiver| receiver.session);
    let mut kept = 0;
    let mut at = 0;
    while at < receivers.len() {
        let mut one = receivers[at];
        let end = at
            + receivers[at..]
                .iter()
                .take_while(|r| r.session == one.session)
                .count();
        let mut identifiers = 0;
        for other in &receivers[at..end] {
            one.options = one.options.merge(other.options);
            identifiers += usize::from(other.identifier != 0);
        }
        if identifiers > 1 {
            let mut all = receivers[at..end]
                .iter()
                .map(|r| r.identifier)
                .filter(|id| *id != 0);
            one.identifier = all.next().unwrap_or(0);
            hits.push(Hit {
                receiver: one,
                more_identifiers: all.collect(),
                share: None,
                passed_on: 0,
                was_denied: false,
                giver: None,
            });
        } else {
            one.identifier = receivers[at..end]
                .iter()
                .map(|r| r.identifier)
                .max()
                .unwrap_or(0);
            receivers[kept] = one;
            kept += 1;
        }
        at = end;
    }
    receivers.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::RetainHandling;

    fn options(qos: Qos) -> Options {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        Options::new(options, Scope::All)
    }

    fn receiver(slot: u32, qos: Qos, identifier: u32) -> Receiver {
        Receiver {
            session: SessionId::new(1, slot),
            identifier,
            generation: 0,
            options: options(qos),
        }
    }

    fn router() -> Router {
        let strategy = ShareStrategy::RoundRobin;
        let retained = Retained::new(crate::retained::Bounds::of(&crate::Limits::default()));
        Router::new(ahash::RandomState::new(), strategy, retained)
    }

    fn query(topic: &str) -> Query<'_> {
        Query {
            topic,
            qos: Qos::AtLeastOnce,
            origin: None,
            share_key: 0,
        }
    }

    fn join(router: &Router, name: &str, slot: u32, groups_max: usize) -> Option<Arc<Member>> {
        let join = Join {
            receiver: receiver(slot, Qos::AtLeastOnce, 0),
            client_id: "m",
            hasher: &ahash::RandomState::new(),
            has_room: true,
        };
        router.join(name, "t/#", &join, groups_max)
    }

    #[test]
    fn a_session_with_overlapping_filters_gets_one_delivery_with_the_largest_qos() {
        let router = router();
        router.subscribe(&"a/b".into(), receiver(1, Qos::AtMostOnce, 0));
        router.subscribe(&"a/+".into(), receiver(1, Qos::AtLeastOnce, 7));
        router.subscribe(&"#".into(), receiver(2, Qos::AtMostOnce, 0));
        let mut found = Matches::default();
        router.lookup(&query("a/b"), &mut found);
        assert_eq!(found.receivers.len(), 2);
        assert_eq!(found.receivers[0].options.qos(), Qos::AtLeastOnce);
        assert_eq!(found.receivers[0].identifier, 7);
        router.subscribe(&"a/#".into(), receiver(1, Qos::AtMostOnce, 9));
        router.lookup(&query("a/b"), &mut found);
        assert_eq!(found.receivers.len(), 1);
        assert_eq!(found.hits.len(), 1);
        assert_eq!(1 + found.hits[0].more_identifiers.len(), 2);
    }

    #[test]
    fn subscriptions_come_and_go_at_every_size() {
        let router = router();
        for filter in ["x/y", "x/+"] {
            let filter: Arc<str> = filter.into();
            for slot in 0..100 {
                assert!(router.subscribe(&filter, receiver(slot, Qos::AtMostOnce, 0)));
                assert!(!router.subscribe(&filter, receiver(slot, Qos::AtMostOnce, 0)));
            }
            let mut found = Matches::default();
            router.lookup(&query("x/y"), &mut found);
            assert_eq!(found.receivers.len(), 100);
            for slot in 0..100 {
                assert!(router.unsubscribe(&filter, SessionId::new(1, slot)));
                assert!(!router.unsubscribe(&filter, SessionId::new(1, slot)));
            }
            router.lookup(&query("x/y"), &mut found);
            assert!(found.receivers.is_empty());
        }
        assert!(router.exact.is_empty());
        assert!(router.wild.read().unwrap().is_empty());
        assert_eq!(router.subscriptions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_shared_subscription_takes_turns_among_connected_members() {
        let router = router();
        let members: Vec<_> = (0..3)
            .map(|slot| join(&router, "g", slot, 1).unwrap())
            .collect();
        members[1].set(SessionId::new(1, 1), false, true);
        let mut found = Matches::default();
        let mut turns = [0; 3];
        for _ in 0..10 {
            router.lookup(&query("t/1"), &mut found);
            assert_eq!(found.hits.len(), 1);
            turns[found.hits[0].receiver.session.slot() as usize] += 1;
        }
        assert_eq!(turns, [5, 0, 5]);
        for slot in 0..3 {
            assert!(router.leave("g", "t/#", SessionId::new(1, slot)));
        }
        router.lookup(&query("t/1"), &mut found);
        assert!(found.hits.is_empty());
    }

    #[test]
    fn a_filter_has_so_many_groups_and_no_more() {
        let router = router();
        for at in 0..3 {
            let member = join(&router, &format!("g{at}"), at, 2);
            assert_eq!(member.is_some(), at < 2);
        }
        // Joining one that is there is always possible.
        assert!(join(&router, "g0", 9, 2).is_some());
        assert_eq!(router.subscriptions.load(Ordering::Relaxed), 3);
        for (name, slot) in [("g0", 0), ("g0", 9), ("g1", 1)] {
            assert!(router.leave(name, "t/#", SessionId::new(1, slot)));
            assert!(!router.leave(name, "t/#", SessionId::new(1, slot)));
        }
        assert!(router.shared.read().unwrap().is_empty());
        assert_eq!(router.subscriptions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn sizes_stay_small() {
        assert_eq!(size_of::<Receiver>(), 12);
        assert_eq!(size_of::<Receivers>(), 16);
    }
}
