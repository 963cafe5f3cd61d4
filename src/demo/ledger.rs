//! The demo's own bookkeeping: every message it publishes has a number, and the ledger knows what must follow.
//!
//! It takes nobody's word: not the broker's counters, only what the demo's clients saw. A message that was
//! acknowledged and whose effects (each reader got it, its sender got the receipt) did not all arrive within
//! a bound is **lost**, until they do arrive after all. An effect seen twice is a **duplicate**.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The most effects that one message may have: one bit each.
pub const EFFECTS_MAX: u32 = u32::BITS;

/// What the ledger knows at one moment. The numbers add up:
/// `acknowledged + unacknowledged + refused + forgotten = published` and `complete + pending + lost = acknowledged`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Messages handed to a client for publishing.
    pub published: u64,
    /// … of these, acknowledged by the broker.
    pub acknowledged: u64,
    /// … of these, not acknowledged yet.
    pub unacknowledged: u64,
    /// … of these, refused by the broker with a reason.
    pub refused: u64,
    /// … of these, given up by the publisher before an acknowledgement (its session was gone).
    pub forgotten: u64,
    /// Acknowledged messages of which every effect was seen.
    pub complete: u64,
    /// Acknowledged messages that have effects to come, within the bound.
    pub pending: u64,
    /// Acknowledged messages that have effects to come, past the bound.
    pub lost: u64,
    /// Effects seen: deliveries, receipts, replies.
    pub effects: u64,
    /// Effects seen more than once (at-least-once allows them; they are counted all the same).
    pub duplicates: u64,
    /// Effects that came after a later one of the same publisher, seen by the same receiver.
    pub out_of_order: u64,
}

/// Lost messages that are still watched for; of more the oldest are let go, and stay lost.
const LOST_OPEN_MAX: usize = 100_000;

struct Entry {
    acknowledged: Option<Instant>,
    /// One bit for each effect still to come.
    awaited: u32,
    lost: bool,
}

/// The last number that one receiver saw from one publisher: how it knows repetition and disorder.
#[derive(Default)]
pub struct LastSeen(HashMap<u64, u64>);

/// See the module.
pub struct Ledger {
    next: AtomicU64,
    bound: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<u64, Entry>,
    /// Entries in `open` that are lost.
    lost_open: usize,
    /// Set while the effects cannot come (Kafka is away): the clock of the bound stands still.
    held: bool,
    /// When the last hold ended: no bound is measured from before.
    resumed: Option<Instant>,
    totals: Totals,
}

impl Ledger {
    /// A ledger that calls a message lost when an effect is missing `bound` after its acknowledgement.
    pub fn new(bound: Duration) -> Self {
        Self {
            next: AtomicU64::new(1),
            bound,
            inner: Mutex::default(),
        }
    }

    /// Opens an entry for a message with `effects` effects (at most [`EFFECTS_MAX`]) and gives its number. Numbers
    /// grow, so the messages of one publisher have growing numbers.
    pub fn publish(&self, effects: u32) -> u64 {
        assert!(
            (1..=EFFECTS_MAX).contains(&effects),
            "a message has 1 to {EFFECTS_MAX} effects"
        );
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.totals.published += 1;
        inner.totals.unacknowledged += 1;
        let awaited = u32::MAX >> (EFFECTS_MAX - effects);
        inner.open.insert(
            number,
            Entry {
                acknowledged: None,
                awaited,
                lost: false,
            },
        );
        number
    }

    /// The broker acknowledged `number`.
    pub fn acknowledged(&self, number: u64, now: Instant) {
        let mut inner = self.lock();
        let Some(entry) = inner.open.get_mut(&number) else {
            return;
        };
        if entry.acknowledged.replace(now).is_some() {
            return;
        }
        inner.totals.unacknowledged -= 1;
        inner.totals.acknowledged += 1;
        inner.totals.pending += 1;
        inner.complete(number);
    }

    /// The broker refused `number` with a reason: nothing is owed.
    pub fn refused(&self, number: u64) {
        let mut inner = self.lock();
        if inner.close_unacknowledged(number) {
            inner.totals.refused += 1;
        }
    }

    /// The publisher gave `number` up before an acknowledgement: nothing is owed.
    pub fn forget(&self, number: u64) {
        let mut inner = self.lock();
        if inner.close_unacknowledged(number) {
            inner.totals.forgotten += 1;
        }
    }

    /// A receiver saw effect `effect` of message `number` by `publisher`; `last` is that receiver's memory.
    pub fn effect(&self, number: u64, effect: u32, publisher: u64, last: &mut LastSeen) {
        let seen = last.0.entry(publisher).or_default();
        let mut inner = self.lock();
        inner.totals.effects += 1;
        let bit = 1u32.checked_shl(effect).unwrap_or(0);
        let first = match inner.open.get_mut(&number) {
            Some(entry) => {
                let first = entry.awaited & bit != 0;
                entry.awaited &= !bit;
                first
            }
            // Complete already (then this receiver saw it), or forgotten by its publisher and arrived all the same.
            None => number > *seen,
        };
        if !first {
            inner.totals.duplicates += 1;
        } else if number < *seen {
            inner.totals.out_of_order += 1;
        }
        *seen = (*seen).max(number);
        inner.complete(number);
    }

    /// Stops (`true`) or restarts (`false`) the clock of the bound. Called with whether Kafka is away: then receipts
    /// and replies wait for it by design, and nothing is lost.
    pub fn hold(&self, held: bool, now: Instant) {
        let mut inner = self.lock();
        if inner.held && !held {
            inner.resumed = Some(now);
        }
        inner.held = held;
    }

    /// Moves messages whose bound has passed to `lost`, and gives the totals.
    pub fn totals(&self, now: Instant) -> Totals {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if !inner.held {
            for entry in inner.open.values_mut().filter(|entry| !entry.lost) {
                let Some(acknowledged) = entry.acknowledged else {
                    continue;
                };
                let since = inner
                    .resumed
                    .map_or(acknowledged, |resumed| resumed.max(acknowledged));
                if now.saturating_duration_since(since) > self.bound {
                    entry.lost = true;
                    inner.lost_open += 1;
                    inner.totals.pending -= 1;
                    inner.totals.lost += 1;
                }
            }
        }
        while inner.lost_open > LOST_OPEN_MAX {
            let oldest = inner.open.iter().find(|(_, entry)| entry.lost);
            let Some(number) = oldest.map(|(number, _)| *number) else {
                break;
            };
            inner.open.remove(&number);
            inner.lost_open -= 1;
        }
        inner.totals
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // The numbers stay whole even when a holder of the lock panicked: each is changed by one line.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    /// Closes `number` when it was acknowledged and every effect was seen.
    fn complete(&mut self, number: u64) {
        let Some(entry) = self.open.get(&number) else {
            return;
        };
        if entry.acknowledged.is_none() || entry.awaited != 0 {
            return;
        }
        if entry.lost {
            self.lost_open -= 1;
            self.totals.lost -= 1;
        } else {
            self.totals.pending -= 1;
        }
        self.totals.complete += 1;
        self.open.remove(&number);
    }

    fn close_unacknowledged(&mut self, number: u64) -> bool {
        let open = self
            .open
            .get(&number)
            .is_some_and(|entry| entry.acknowledged.is_none());
        if open {
            self.open.remove(&number);
            self.totals.unacknowledged -= 1;
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn adds_up(totals: Totals) {
        let Totals {
            published,
            acknowledged,
            unacknowledged,
            refused,
            forgotten,
            complete,
            pending,
            lost,
            ..
        } = totals;
        assert_eq!(
            acknowledged + unacknowledged + refused + forgotten,
            published,
            "{totals:?}"
        );
        assert_eq!(complete + pending + lost, acknowledged, "{totals:?}");
    }

    #[test]
    fn a_message_is_complete_when_acknowledged_and_seen_by_all() {
        let ledger = Ledger::new(BOUND);
        let now = Instant::now();
        let mut last = [LastSeen::default(), LastSeen::default()];
        let number = ledger.publish(2);
        ledger.effect(number, 0, 1, &mut last[0]);
        ledger.acknowledged(number, now);
        assert_eq!(ledger.totals(now).pending, 1);
        ledger.effect(number, 1, 1, &mut last[1]);
        let totals = ledger.totals(now);
        assert_eq!(
            (totals.complete, totals.pending, totals.lost, totals.effects),
            (1, 0, 0, 2)
        );
        adds_up(totals);
    }

    #[test]
    fn a_missing_effect_is_lost_after_the_bound_and_found_again_when_it_comes() {
        let ledger = Ledger::new(BOUND);
        let start = Instant::now();
        let number = ledger.publish(1);
        ledger.acknowledged(number, start);
        assert_eq!(ledger.totals(start + BOUND).lost, 0);
        let totals = ledger.totals(start + BOUND + Duration::from_millis(1));
        assert_eq!((totals.lost, totals.pending), (1, 0));
        adds_up(totals);
        ledger.effect(number, 0, 1, &mut LastSeen::default());
        let totals = ledger.totals(start + 2 * BOUND);
        assert_eq!((totals.lost, totals.complete), (0, 1));
        adds_up(totals);
    }

    #[test]
    fn what_is_watched_for_has_a_bound_and_what_is_let_go_stays_lost() {
        let ledger = Ledger::new(BOUND);
        let start = Instant::now();
        for _ in 0..LOST_OPEN_MAX + 10 {
            ledger.acknowledged(ledger.publish(1), start);
        }
        let totals = ledger.totals(start + 2 * BOUND);
        assert_eq!(totals.lost, LOST_OPEN_MAX as u64 + 10);
        assert_eq!(ledger.lock().open.len(), LOST_OPEN_MAX);
        adds_up(totals);
    }

    #[test]
    fn what_was_not_acknowledged_is_never_lost() {
        let ledger = Ledger::new(BOUND);
        let start = Instant::now();
        let (refused, forgotten) = (ledger.publish(1), ledger.publish(1));
        ledger.publish(1);
        ledger.refused(refused);
        ledger.forget(forgotten);
        let totals = ledger.totals(start + 10 * BOUND);
        assert_eq!(
            (
                totals.lost,
                totals.refused,
                totals.forgotten,
                totals.unacknowledged
            ),
            (0, 1, 1, 1)
        );
        adds_up(totals);
    }

    #[test]
    fn repetition_and_disorder_are_told_apart() {
        let ledger = Ledger::new(BOUND);
        let now = Instant::now();
        let mut last = LastSeen::default();
        let (first, second) = (ledger.publish(2), ledger.publish(2));
        ledger.effect(second, 0, 1, &mut last);
        ledger.effect(first, 0, 1, &mut last);
        ledger.effect(first, 0, 1, &mut last);
        let totals = ledger.totals(now);
        assert_eq!((totals.out_of_order, totals.duplicates), (1, 1));
        // Other publishers' numbers are no disorder.
        ledger.effect(ledger.publish(1), 0, 2, &mut last);
        assert_eq!(ledger.totals(now).out_of_order, 1);
    }

    #[test]
    fn a_repetition_after_completion_is_a_duplicate() {
        let ledger = Ledger::new(BOUND);
        let now = Instant::now();
        let mut last = LastSeen::default();
        let number = ledger.publish(1);
        ledger.acknowledged(number, now);
        ledger.effect(number, 0, 1, &mut last);
        ledger.effect(number, 0, 1, &mut last);
        let totals = ledger.totals(now);
        assert_eq!(
            (totals.duplicates, totals.effects, totals.complete),
            (1, 2, 1)
        );
    }

    #[test]
    fn while_kafka_is_away_the_bound_does_not_run() {
        let ledger = Ledger::new(BOUND);
        let start = Instant::now();
        ledger.acknowledged(ledger.publish(1), start);
        ledger.hold(true, start);
        assert_eq!(ledger.totals(start + 100 * BOUND).lost, 0);
        ledger.hold(false, start + 100 * BOUND);
        assert_eq!(ledger.totals(start + 101 * BOUND).lost, 0);
        assert_eq!(ledger.totals(start + 102 * BOUND).lost, 1);
    }
}
