//! Which downlink records have been handed to the broker, which of them have arrived, and what position may therefore be
//! committed. Pure: no Kafka, no clock, no threads.
//!
//! Records go to the broker in batches. A batch may arrive before an earlier one; the position moves only over batches
//! that have all arrived, so that a restart repeats some messages and skips none.

use std::collections::{BTreeMap, VecDeque};

/// What a batch covers: per partition, the offset after its last record.
pub(super) type Positions = BTreeMap<i32, i64>;

/// How much a batch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Records, those included that turned out to be no message.
    pub(super) records: u64,
    /// Messages.
    pub(super) messages: u64,
    /// Bytes of the messages in memory.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Batch {
    positions: Positions,
    weight: Weight,
    arrived: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Number of the batch at the front.
    front: u64,
    open: VecDeque<Batch>,
    outstanding: Weight,
    /// Everything before these offsets has arrived.
    safe: Positions,
    /// What of it was given to librdkafka to commit.
    given: Positions,
    /// What of it Kafka has.
    committed: Positions,
}

impl Ledger {
    /// Begins at `positions`, which Kafka knows.
    pub(super) fn new(positions: Positions) -> Self {
        Self {
            safe: positions.clone(),
            given: positions.clone(),
            committed: positions,
            ..Self::default()
        }
    }

    /// Takes down a batch that goes to the broker. Returns its number.
    pub(super) fn open(&mut self, positions: Positions, weight: Weight) -> u64 {
        let number = self.front + self.open.len() as u64;
        self.outstanding.records += weight.records;
        self.outstanding.messages += weight.messages;
        self.outstanding.bytes += weight.bytes;
        self.open.push_back(Batch {
            positions,
            weight,
            arrived: false,
        });
        number
    }

    /// The batch `number` has arrived. Returns the number of messages over which the position has moved.
    pub(super) fn arrived(&mut self, number: u64) -> u64 {
        // A number from before a rewind is that of no batch.
        if let Some(batch) = number
            .checked_sub(self.front)
            .and_then(|at| self.open.get_mut(usize::try_from(at).ok()?))
        {
            batch.arrived = true;
        }
        let mut moved = 0;
        while let Some(batch) = self.open.pop_front_if(|batch| batch.arrived) {
            self.front += 1;
            self.outstanding.records -= batch.weight.records;
            self.outstanding.messages -= batch.weight.messages;
            self.outstanding.bytes -= batch.weight.bytes;
            moved += batch.weight.messages;
            self.safe.extend(batch.positions);
        }
        moved
    }

    /// What was handed over and over which the position has not moved.
    pub(super) fn outstanding(&self) -> Weight {
        self.outstanding
    }

    /// Whether nothing is under way: all has arrived, and Kafka knows.
    pub(super) fn settled(&self) -> bool {
        self.open.is_empty() && self.safe == self.committed
    }

    /// What is to be given to librdkafka to commit, if there is anything new.
    pub(super) fn give(&mut self) -> Option<&Positions> {
        if self.given == self.safe {
            return None;
        }
        self.given.clone_from(&self.safe);
        Some(&self.given)
    }

    /// What was given did not get there; it is to be given again.
    pub(super) fn not_given(&mut self) {
        self.given.clear();
    }

    /// Kafka has this position.
    pub(super) fn committed(&mut self, partition: i32, offset: i64) {
        self.committed.insert(partition, offset);
    }

    /// A partition that did not exist before.
    pub(super) fn add_partition(&mut self, partition: i32, offset: i64) {
        self.safe.entry(partition).or_insert(offset);
        // There is nothing to commit as long as nothing was read.
        self.given.entry(partition).or_insert(offset);
        self.committed.entry(partition).or_insert(offset);
    }

    /// Everything before these offsets has arrived.
    pub(super) fn safe(&self) -> &Positions {
        &self.safe
    }

    /// Forgets the batches that are under way: they will be read again from [`Ledger::safe`].
    pub(super) fn rewind(&mut self) {
        self.front += self.open.len() as u64;
        self.open.clear();
        self.outstanding = Weight::default();
        self.not_given();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const N: usize>(positions: [(i32, i64); N]) -> Positions {
        Positions::from(positions)
    }

    fn of(records: u64) -> Weight {
        Weight {
            records,
            messages: records,
            bytes: 100 * records,
        }
    }

    #[test]
    fn the_position_moves_only_over_what_has_all_arrived() {
        let mut ledger = Ledger::new(at([(0, 5), (1, 0)]));
        let first = ledger.open(at([(0, 10)]), of(5));
        let second = ledger.open(at([(0, 12), (1, 3)]), of(5));
        let third = ledger.open(at([(1, 4)]), of(1));
        assert_eq!(ledger.outstanding(), of(11));
        assert_eq!(ledger.arrived(second), 0);
        assert_eq!(ledger.safe(), &at([(0, 5), (1, 0)]));
        assert_eq!(ledger.give(), None);
        assert_eq!(ledger.arrived(first), 10);
        assert_eq!(ledger.safe(), &at([(0, 12), (1, 3)]));
        assert_eq!(ledger.outstanding(), of(1));
        assert_eq!(ledger.arrived(third), 1);
        assert_eq!(ledger.safe(), &at([(0, 12), (1, 4)]));
        assert!(!ledger.settled(), "Kafka does not know");
    }

    #[test]
    fn it_is_settled_when_kafka_has_the_last_position() {
        let mut ledger = Ledger::new(at([(0, 0)]));
        assert!(ledger.settled());
        let batch = ledger.open(at([(0, 1)]), of(1));
        assert!(!ledger.settled());
        ledger.arrived(batch);
        assert_eq!(ledger.give(), Some(&at([(0, 1)])));
        assert_eq!(ledger.give(), None, "once is enough");
        let batch = ledger.open(at([(0, 2)]), of(1));
        ledger.arrived(batch);
        assert_eq!(ledger.give(), Some(&at([(0, 2)])));
        ledger.committed(0, 1);
        assert!(
            !ledger.settled(),
            "what arrived meanwhile is not known to Kafka"
        );
        ledger.committed(0, 2);
        assert!(ledger.settled());
    }

    #[test]
    fn what_librdkafka_did_not_take_is_given_again() {
        let mut ledger = Ledger::new(at([(0, 0)]));
        let batch = ledger.open(at([(0, 1)]), of(1));
        ledger.arrived(batch);
        assert!(ledger.give().is_some());
        ledger.not_given();
        assert_eq!(ledger.give(), Some(&at([(0, 1)])));
    }

    #[test]
    fn after_a_rewind_late_arrivals_mean_nothing() {
        let mut ledger = Ledger::new(at([(0, 0)]));
        let first = ledger.open(at([(0, 1)]), of(1));
        let second = ledger.open(at([(0, 2)]), of(1));
        ledger.rewind();
        assert_eq!(ledger.outstanding(), of(0));
        assert_eq!(ledger.arrived(first), 0);
        let again = ledger.open(at([(0, 1)]), of(1));
        assert_eq!(
            ledger.arrived(second),
            0,
            "the second batch before the rewind is not the first one after it"
        );
        assert_eq!(ledger.safe(), &at([(0, 0)]));
        assert_eq!(ledger.arrived(again), 1);
        assert_eq!(ledger.safe(), &at([(0, 1)]));
    }

    #[test]
    fn a_new_partition_does_not_move_an_old_one() {
        let mut ledger = Ledger::new(at([(0, 7)]));
        ledger.add_partition(0, 0);
        ledger.add_partition(1, 0);
        assert_eq!(ledger.safe(), &at([(0, 7), (1, 0)]));
        assert!(ledger.settled());
    }
}
