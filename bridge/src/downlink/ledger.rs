//! Which downlink records have been handed to the broker, which of them have arrived, and what position may therefore be
//! committed. Pure: no Kafka, no clock, no threads.
//!
//! Records go to the broker in batches. A batch may arrive before an earlier one; the position moves only over batches
//! that have all arrived, so that a restart repeats some messages and skips none. It moves over records that are held for a
//! subscriber, too; which ones these are is committed with it ([`Mark`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::held::At;
use super::mark::{Mark, Resumption};

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
    /// Records in it that were held until now.
    released: Vec<At>,
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
    /// Of that, records that wait for a subscriber.
    held: BTreeMap<i32, BTreeSet<i64>>,
    /// What was given to librdkafka to commit.
    given: BTreeMap<i32, Mark>,
    /// Whether there may be something new to give.
    changed: bool,
    /// What of it Kafka has.
    committed: Positions,
}

impl Ledger {
    /// Begins where Kafka knows that reading ended.
    pub(super) fn new(resumed: &BTreeMap<i32, Resumption>) -> Self {
        let mut ledger = Self::default();
        for (partition, resumption) in resumed {
            ledger.add_partition(*partition, resumption.offset);
            if !resumption.held.is_empty() {
                ledger.held.insert(*partition, resumption.held.clone());
            }
        }
        ledger.given = ledger.marks();
        ledger
    }

    /// Takes down a batch that goes to the broker. Returns its number.
    pub(super) fn open(&mut self, positions: Positions, released: Vec<At>, weight: Weight) -> u64 {
        let number = self.front + self.open.len() as u64;
        self.outstanding.records += weight.records;
        self.outstanding.messages += weight.messages;
        self.outstanding.bytes += weight.bytes;
        self.open.push_back(Batch {
            positions,
            released,
            weight,
            arrived: false,
        });
        number
    }

    /// Whether the batch `number` is under way: none is from before a rewind.
    pub(super) fn is_open(&self, number: u64) -> bool {
        number >= self.front
    }

    /// The batch `number` has arrived. Returns over how much the position has moved.
    pub(super) fn arrived(&mut self, number: u64) -> Weight {
        // A number from before a rewind is that of no batch.
        if let Some(batch) = number
            .checked_sub(self.front)
            .and_then(|at| self.open.get_mut(usize::try_from(at).ok()?))
        {
            batch.arrived = true;
        }
        let mut moved = Weight::default();
        while let Some(batch) = self.open.pop_front_if(|batch| batch.arrived) {
            self.front += 1;
            self.changed = true;
            self.outstanding.records -= batch.weight.records;
            self.outstanding.messages -= batch.weight.messages;
            self.outstanding.bytes -= batch.weight.bytes;
            moved.records += batch.weight.records;
            moved.messages += batch.weight.messages;
            moved.bytes += batch.weight.bytes;
            self.safe.extend(batch.positions);
            for at in batch.released {
                self.unhold(at);
            }
        }
        moved
    }

    /// A record waits for a subscriber.
    pub(super) fn hold(&mut self, (partition, offset): At) {
        self.held.entry(partition).or_default().insert(offset);
    }

    /// A record that waited has come to its end.
    pub(super) fn unhold(&mut self, (partition, offset): At) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.remove(&offset);
            self.changed = true;
        }
    }

    /// What was handed over and over which the position has not moved.
    pub(super) fn outstanding(&self) -> Weight {
        self.outstanding
    }

    /// Whether nothing is under way: all has arrived, and Kafka knows.
    pub(super) fn settled(&self) -> bool {
        let marks = self.marks();
        self.open.is_empty()
            && self.given == marks
            && marks.len() == self.committed.len()
            && marks
                .iter()
                .all(|(partition, mark)| self.committed.get(partition) == Some(&mark.offset))
    }

    /// What is to be committed now.
    pub(super) fn marks(&self) -> BTreeMap<i32, Mark> {
        let mark = |(partition, offset): (&i32, &i64)| {
            (*partition, Mark::new(*offset, self.held.get(partition)))
        };
        self.safe.iter().map(mark).collect()
    }

    /// What is to be given to librdkafka to commit, if there is anything new, and whether some of it is no new offset:
    /// librdkafka commits by itself only what has moved.
    pub(super) fn give(&mut self) -> Option<(&BTreeMap<i32, Mark>, bool)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let marks = self.marks();
        if self.given == marks {
            return None;
        }
        let same_offset = marks.iter().any(|(partition, mark)| {
            self.given
                .get(partition)
                .is_some_and(|given| given.offset == mark.offset && given != mark)
        });
        self.given = marks;
        Some((&self.given, same_offset))
    }

    /// What was given did not get there; it is to be given again.
    pub(super) fn not_given(&mut self) {
        self.given.clear();
        self.changed = true;
    }

    /// Kafka has this position.
    pub(super) fn committed(&mut self, partition: i32, offset: i64) {
        self.committed.insert(partition, offset);
    }

    /// A partition that did not exist before.
    pub(super) fn add_partition(&mut self, partition: i32, offset: i64) {
        self.safe.entry(partition).or_insert(offset);
        // There is nothing to commit as long as nothing was read.
        self.given
            .entry(partition)
            .or_insert_with(|| Mark::new(offset, None));
        self.committed.entry(partition).or_insert(offset);
    }

    /// Everything before these offsets has arrived.
    pub(super) fn safe(&self) -> &Positions {
        &self.safe
    }

    /// How reading begins again after everything that is safe.
    pub(super) fn resumptions(&self) -> BTreeMap<i32, Resumption> {
        let resumption = |(partition, offset): (&i32, &i64)| {
            let held = self.held.get(partition).into_iter();
            let resumption = Resumption {
                offset: *offset,
                held: held
                    .flat_map(|held| held.range(..offset))
                    .copied()
                    .collect(),
                only_expiring: 0,
            };
            (*partition, resumption)
        };
        self.safe.iter().map(resumption).collect()
    }

    /// Forgets the batches that are under way: they will be read again, as [`Ledger::resumptions`] says.
    pub(super) fn rewind(&mut self) {
        for (partition, held) in &mut self.held {
            let safe = self.safe.get(partition).copied().unwrap_or_default();
            held.split_off(&safe);
        }
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

    fn begin<const N: usize>(positions: [(i32, i64); N]) -> Ledger {
        let resumption = |offset| Resumption {
            offset,
            ..Resumption::default()
        };
        let of_partition = |(partition, offset)| (partition, resumption(offset));
        Ledger::new(&positions.into_iter().map(of_partition).collect())
    }

    fn given(ledger: &mut Ledger) -> Option<Positions> {
        let (marks, _) = ledger.give()?;
        Some(marks.iter().map(|(of, mark)| (*of, mark.offset)).collect())
    }

    #[test]
    fn the_position_moves_over_what_is_held_and_says_so_until_that_has_arrived() {
        let mut ledger = begin([(0, 5)]);
        ledger.hold((0, 6));
        ledger.hold((0, 9));
        let batch = ledger.open(at([(0, 8)]), Vec::new(), of(3));
        ledger.arrived(batch);
        let (marks, same_offset) = ledger.give().unwrap();
        assert_eq!(
            (marks[&0].offset, marks[&0].metadata.as_str()),
            (8, "held 6")
        );
        assert!(!same_offset, "librdkafka commits it by itself");
        ledger.committed(0, 8);
        assert!(ledger.settled());
        assert_eq!(ledger.resumptions()[&0].held, BTreeSet::from([6]));

        let batch = ledger.open(Positions::new(), vec![(0, 6)], of(0));
        assert_eq!(ledger.give(), None, "it is held until it has arrived");
        ledger.arrived(batch);
        let (marks, same_offset) = ledger.give().unwrap();
        assert_eq!((marks[&0].offset, marks[&0].metadata.as_str()), (8, ""));
        assert!(same_offset, "nobody else commits it");
        ledger.rewind();
        assert!(ledger.resumptions()[&0].held.is_empty());
        let batch = ledger.open(at([(0, 10)]), Vec::new(), of(2));
        ledger.arrived(batch);
        let (marks, _) = ledger.give().unwrap();
        assert_eq!(
            marks[&0].metadata, "",
            "what is read again is not held before"
        );
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
        let mut ledger = begin([(0, 5), (1, 0)]);
        let first = ledger.open(at([(0, 10)]), Vec::new(), of(5));
        let second = ledger.open(at([(0, 12), (1, 3)]), Vec::new(), of(5));
        let third = ledger.open(at([(1, 4)]), Vec::new(), of(1));
        assert_eq!(ledger.outstanding(), of(11));
        assert_eq!(ledger.arrived(second).messages, 0);
        assert_eq!(ledger.safe(), &at([(0, 5), (1, 0)]));
        assert_eq!(given(&mut ledger), None);
        assert_eq!(ledger.arrived(first).messages, 10);
        assert_eq!(ledger.safe(), &at([(0, 12), (1, 3)]));
        assert_eq!(ledger.outstanding(), of(1));
        assert_eq!(ledger.arrived(third).messages, 1);
        assert_eq!(ledger.safe(), &at([(0, 12), (1, 4)]));
        assert!(!ledger.settled(), "Kafka does not know");
    }

    #[test]
    fn it_is_settled_when_kafka_has_the_last_position() {
        let mut ledger = begin([(0, 0)]);
        assert!(ledger.settled());
        let batch = ledger.open(at([(0, 1)]), Vec::new(), of(1));
        assert!(!ledger.settled());
        ledger.arrived(batch);
        assert_eq!(given(&mut ledger), Some(at([(0, 1)])));
        assert_eq!(given(&mut ledger), None, "once is enough");
        let batch = ledger.open(at([(0, 2)]), Vec::new(), of(1));
        ledger.arrived(batch);
        assert_eq!(given(&mut ledger), Some(at([(0, 2)])));
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
        let mut ledger = begin([(0, 0)]);
        let batch = ledger.open(at([(0, 1)]), Vec::new(), of(1));
        ledger.arrived(batch);
        assert!(ledger.give().is_some());
        ledger.not_given();
        assert_eq!(given(&mut ledger), Some(at([(0, 1)])));
    }

    #[test]
    fn after_a_rewind_late_arrivals_mean_nothing() {
        let mut ledger = begin([(0, 0)]);
        let first = ledger.open(at([(0, 1)]), Vec::new(), of(1));
        let second = ledger.open(at([(0, 2)]), Vec::new(), of(1));
        ledger.rewind();
        assert_eq!(ledger.outstanding(), of(0));
        assert_eq!(ledger.arrived(first).messages, 0);
        let again = ledger.open(at([(0, 1)]), Vec::new(), of(1));
        assert_eq!(
            ledger.arrived(second).messages,
            0,
            "the second batch before the rewind is not the first one after it"
        );
        assert_eq!(ledger.safe(), &at([(0, 0)]));
        assert_eq!(ledger.arrived(again).messages, 1);
        assert_eq!(ledger.safe(), &at([(0, 1)]));
    }

    #[test]
    fn a_new_partition_does_not_move_an_old_one() {
        let mut ledger = begin([(0, 7)]);
        ledger.add_partition(0, 0);
        ledger.add_partition(1, 0);
        assert_eq!(ledger.safe(), &at([(0, 7), (1, 0)]));
        assert!(ledger.settled());
    }
}
