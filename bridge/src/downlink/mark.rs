//! What a node commits for a partition: how far it has read, and which records before that still wait for a subscriber.
//!
//! The records that wait stand in the metadata of the committed offset, so a node that starts again, or is killed, reads
//! these and no others a second time.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Bytes of metadata that Kafka takes with an offset, with something in reserve (`offset.metadata.max.bytes` is 4096).
const METADATA_BYTES_MAX: usize = 3_500;
const PREFIX: &str = "held";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: i64,
    pub(super) metadata: String,
}

impl Mark {
    /// Everything before `offset` is done, but for `held`. Where these are too many to be told, the offset is that of the
    /// first that is not: what follows is then read again after a restart.
    pub(super) fn new(offset: i64, held: Option<&BTreeSet<i64>>) -> Self {
        let (mut metadata, mut previous) = (String::new(), 0);
        for at in held.iter().flat_map(|held| held.range(..offset)).copied() {
            let before = metadata.len();
            if before == 0 {
                metadata.push_str(PREFIX);
            }
            // The first as it is, the others as steps: short ones, mostly.
            let _ = write!(metadata, " {}", at - previous);
            if metadata.len() > METADATA_BYTES_MAX {
                metadata.truncate(before);
                return Self {
                    offset: at,
                    metadata,
                };
            }
            previous = at;
        }
        Self { offset, metadata }
    }

    /// The records before `offset` that `metadata` says to be held; none where somebody else wrote it.
    pub(super) fn held(offset: i64, metadata: &str) -> BTreeSet<i64> {
        let mut words = metadata.split(' ');
        if words.next() != Some(PREFIX) {
            return BTreeSet::new();
        }
        let steps: Option<Vec<i64>> = words.map(|word| word.parse().ok()).collect();
        let mut previous: i64 = 0;
        let mut held = BTreeSet::new();
        for step in steps.unwrap_or_default() {
            previous = previous.saturating_add(step);
            if (0..offset).contains(&previous) {
                held.insert(previous);
            }
        }
        held
    }
}

/// How a partition is read that was read before: first the records that were held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resumption {
    /// From here on everything is read.
    pub(super) offset: i64,
    /// Before it, only these.
    pub(super) held: BTreeSet<i64>,
    /// And before this offset only what expires: a node that Kafka did not know takes up what is still of use.
    pub(super) only_expiring: i64,
}

/// What a record is to a resumed partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    New,
    /// It was held.
    Again,
    /// It is taken up if it expires, and is not for this node otherwise.
    IfItExpires,
    /// It was dealt with.
    Done,
}

impl Resumption {
    /// Where reading begins.
    pub(super) fn from(&self) -> i64 {
        self.held.first().copied().unwrap_or(self.offset)
    }

    /// What the record at `offset` is, and which held ones before it Kafka does not have any more.
    pub(super) fn look(&mut self, offset: i64) -> (Look, Vec<i64>) {
        let mut gone = Vec::new();
        while let Some(first) = self.held.first().copied().filter(|first| *first < offset) {
            self.held.remove(&first);
            gone.push(first);
        }
        let look = if self.held.remove(&offset) {
            Look::Again
        } else if offset < self.offset {
            Look::Done
        } else if offset < self.only_expiring {
            Look::IfItExpires
        } else {
            Look::New
        };
        (look, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_what_was_held_before_its_offset() {
        let held = BTreeSet::from([3, 4, 1_000, 2_000]);
        let mark = Mark::new(1_500, Some(&held));
        assert_eq!(mark.metadata, "held 3 1 996");
        assert_eq!(mark.offset, 1_500);
        assert_eq!(
            Mark::held(mark.offset, &mark.metadata),
            BTreeSet::from([3, 4, 1_000])
        );
        assert_eq!(Mark::new(7, None).metadata, "");
        for other in ["", "held x", "moved by hand", "held -4", "held 99"] {
            assert_eq!(Mark::held(50, other), BTreeSet::new(), "{other}");
        }
    }

    #[test]
    fn where_too_many_are_held_the_offset_stays_before_those_that_cannot_be_told() {
        let held: BTreeSet<i64> = (0..2_000).map(|at| at * 1_000).collect();
        let mark = Mark::new(5_000_000, Some(&held));
        assert!(mark.metadata.len() <= METADATA_BYTES_MAX);
        let told = Mark::held(mark.offset, &mark.metadata);
        assert!(told.len() > 500);
        assert_eq!(
            told,
            held.range(..mark.offset).copied().collect(),
            "all before the offset are told"
        );
        assert!(held.contains(&mark.offset));
    }

    #[test]
    fn what_was_held_is_read_again_and_nothing_else_before_the_offset() {
        let mut resumption = Resumption {
            offset: 10,
            held: BTreeSet::from([3, 5, 8]),
            only_expiring: 12,
        };
        assert_eq!(resumption.from(), 3);
        assert_eq!(resumption.look(4), (Look::Done, vec![3]));
        assert_eq!(resumption.look(5), (Look::Again, vec![]));
        assert_eq!(resumption.look(9), (Look::Done, vec![8]));
        assert_eq!(resumption.look(11), (Look::IfItExpires, vec![]));
        assert_eq!(resumption.look(12), (Look::New, vec![]));
        assert_eq!(resumption.from(), 10);
    }
}
