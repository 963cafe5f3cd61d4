//! What this node has read of each partition, as far as it matters to who writes the dead letters: from where to where, and
//! which records in between are no messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::Positions;

/// Broken records of a partition that are remembered. What is before them is read once more when it is wanted.
const BROKEN_MAX: usize = 1_000;
/// Broken records that are no farther from each other are looked at together, with what is between them.
const NEAR: i64 = 500;

/// Everything from `from` to before `to` was read, without a gap.
#[derive(Debug, Default)]
struct Span {
    from: i64,
    to: i64,
    broken: BTreeSet<i64>,
}

/// What is to be done about a partition from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: no more was read.
    Nothing,
    /// All is sound until here.
    Sound(i64),
    /// The first and the offset after the last of what is to be looked at.
    Look(i64, i64),
}

/// See the module. The reader writes into it, once a batch and for each broken record.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<BTreeMap<i32, Span>>);

impl Seen {
    fn spans(&self) -> MutexGuard<'_, BTreeMap<i32, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `offset` on everything of a partition is read.
    pub(super) fn begins(&self, partition: i32, offset: i64) {
        let span = Span {
            from: offset,
            to: offset,
            broken: BTreeSet::new(),
        };
        // After a rewind what was seen before was seen all the same.
        self.spans().entry(partition).or_insert(span);
    }

    /// A record is no message.
    pub(super) fn broken(&self, partition: i32, offset: i64) {
        let mut spans = self.spans();
        let Some(span) = spans.get_mut(&partition) else {
            return;
        };
        if offset < span.from {
            return;
        }
        span.broken.insert(offset);
        if span.broken.len() > BROKEN_MAX
            && let Some(first) = span.broken.pop_first()
        {
            span.from = first + 1;
        }
    }

    /// These were read up to these offsets.
    pub(super) fn read_to(&self, positions: &Positions) {
        let mut spans = self.spans();
        for (partition, next) in positions {
            if let Some(span) = spans.get_mut(partition) {
                span.to = span.to.max(*next);
            }
        }
    }

    /// Where reading of a partition began, if it has.
    pub(super) fn from(&self, partition: i32) -> Option<i64> {
        self.spans().get(&partition).map(|span| span.from)
    }

    /// What is to be done about a partition of which everything before `next` is done. It is forgotten.
    pub(super) fn plan(&self, partition: i32, next: i64) -> Plan {
        let mut spans = self.spans();
        let Some(span) = spans.get_mut(&partition) else {
            return Plan::Nothing;
        };
        if next < span.from {
            // Read before this node's time, or by nobody.
            return Plan::Look(next, span.from);
        }
        span.broken = span.broken.split_off(&next);
        let mut broken = span.broken.range(..span.to).copied();
        match broken.next() {
            Some(first) => {
                let last = broken.try_fold(first, |last, offset| {
                    if offset - last <= NEAR {
                        Ok(offset)
                    } else {
                        Err(last)
                    }
                });
                let (Ok(last) | Err(last)) = last;
                Plan::Look(first, last + 1)
            }
            None if span.to > next => Plan::Sound(span.to),
            None => Plan::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let seen = Seen::default();
        seen.begins(0, 10);
        seen
    }

    fn read_to(seen: &Seen, offset: i64) {
        seen.read_to(&Positions::from([(0, offset)]));
    }

    #[test]
    fn only_what_is_broken_is_looked_at() {
        let seen = seen();
        assert_eq!(seen.plan(0, 10), Plan::Nothing);
        read_to(&seen, 100);
        assert_eq!(seen.plan(0, 10), Plan::Sound(100));
        seen.broken(0, 120);
        assert_eq!(seen.plan(0, 100), Plan::Nothing, "its batch is under way");
        read_to(&seen, 150);
        seen.broken(0, 140);
        assert_eq!(seen.plan(0, 100), Plan::Look(120, 141));
        assert_eq!(seen.plan(0, 121), Plan::Look(140, 141));
        assert_eq!(seen.plan(0, 141), Plan::Sound(150));
        seen.broken(0, 160);
        seen.broken(0, 160 + NEAR + 1);
        read_to(&seen, 1_000);
        assert_eq!(
            seen.plan(0, 150),
            Plan::Look(160, 161),
            "far from each other"
        );
        assert_eq!(seen.plan(0, 161 + NEAR + 1), Plan::Sound(1_000));
        assert_eq!(seen.plan(0, 1_000), Plan::Nothing);
        assert_eq!(seen.plan(7, 0), Plan::Nothing, "nothing was read of it");
    }

    #[test]
    fn what_was_not_seen_is_looked_at() {
        let seen = seen();
        read_to(&seen, 100);
        assert_eq!(seen.plan(0, 4), Plan::Look(4, 10));
        seen.broken(0, 9);
        assert_eq!(seen.plan(0, 10), Plan::Sound(100), "it was before");
        seen.begins(0, 50);
        assert_eq!(seen.from(0), Some(10), "a rewind takes nothing back");
    }

    #[test]
    fn too_many_broken_ones_are_read_once_more_when_they_are_wanted() {
        let seen = seen();
        let count = BROKEN_MAX as i64 + 5;
        (10..10 + count).for_each(|offset| seen.broken(0, offset));
        read_to(&seen, 10 + count);
        assert_eq!(seen.plan(0, 10), Plan::Look(10, 15));
        assert_eq!(seen.plan(0, 15), Plan::Look(15, 10 + count));
    }
}
