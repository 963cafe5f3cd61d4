//! What one share of a run found out, before it is merged with the others.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::histogram::Histo;
use crate::plan::Share;
use crate::report::{Connects, StreamCounts};

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Which share.
    pub share: Share,
    /// Why it gave up before the end of the plan.
    pub aborted: Option<String>,
    /// Who ended it before its time.
    pub interrupted: Option<String>,
    /// Connecting; `clients` counts those of this share.
    pub connects: Connects,
    /// By stream of the plan.
    pub streams: Vec<StreamOutcome>,
    /// By stream of the plan, and by audience of the stream.
    pub audiences: Vec<Vec<AudienceOutcome>>,
    /// Messages of other runs or of nobody.
    pub foreign: u64,
    /// Those of them that came in the measured time.
    pub foreign_measured: u64,
    /// Messages of this run that came to a client that had not asked for them.
    pub misdelivered: u64,
    /// Answers to packets that nobody had sent.
    pub unasked: u64,
    /// Messages that were due and dropped by the tool, because more waited than [`crate::runner::WAITING_MAX`].
    pub dropped_by_tool: u64,
    /// Second 0 begins at this time.
    pub began: Nanos,
    /// The measured time.
    pub measured: (Nanos, Nanos),
    /// Second by second.
    pub seconds: Vec<SecondOutcome>,
    /// CPU time of the share's thread in the measured time, in microseconds; `None` where the system does not tell.
    pub cpu_us_measured: Option<u64>,
}

/// A stream's messages that this share published.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamOutcome {
    /// What became of them.
    #[serde(flatten)]
    pub counts: StreamCounts,
    /// Lane, messages sent, and messages of them that were refused or not answered.
    pub lanes: Vec<[u32; 3]>,
    /// Which these were, by lane: one of them that came does not stand for another one that did not.
    pub failed: Vec<(u32, Numbers)>,
}

/// What arrived at the subscribers of this share.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AudienceOutcome {
    /// All deliveries.
    pub deliveries: u64,
    /// Deliveries in the measured time.
    pub delivered_measured: u64,
    /// Deliveries with other bytes than were published.
    pub damaged: u64,
    /// Deliveries with another QoS than that of the publish and the subscription ask for.
    pub qos_changed: u64,
    /// From due to delivered.
    pub latency: Histo,
    /// Subscriber (by its number in the group), lane, different messages of it that came, duplicates, out of order.
    pub tracks: Vec<[u32; 5]>,
    /// Of tracks that lack something before what came last.
    pub holes: Vec<Holes>,
    /// For shared subscriptions, where no subscriber gets all: the numbers that came, by lane.
    pub numbers: Vec<(u32, Numbers)>,
}

/// What one subscriber lacks of a lane.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Holes {
    /// The subscriber, by its number in the group.
    pub subscriber: u32,
    /// The lane.
    pub lane: u32,
    /// The number behind the last one that came.
    pub next: u32,
    /// Numbers that did not come: from, and behind the last.
    pub gaps: Vec<(u32, u32)>,
    /// More numbers that did not come; which is not known.
    pub forgotten: u32,
    /// All of those are below this number.
    pub forgotten_below: u32,
}

impl Holes {
    /// How many of these numbers, ascending, did not come. Where it is not known which did, as many as may be.
    #[must_use]
    pub fn lacks(&self, numbers: &[u32]) -> u32 {
        let below = |end: u32| numbers.partition_point(|number| *number < end) as u32;
        let all = numbers.len() as u32;
        let (mut known, mut known_below) = (all - below(self.next), 0);
        for (from, to) in &self.gaps {
            known += below(*to) - below(*from);
            known_below +=
                below((*to).min(self.forgotten_below)) - below((*from).min(self.forgotten_below));
        }
        known
            + self
                .forgotten
                .min(below(self.forgotten_below) - known_below)
    }
}

/// A set of message numbers, as bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds a number: whether it is new.
    pub fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Adds all of another set: how many were in both.
    pub fn merge(&mut self, other: &Self) -> u64 {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut both = 0;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            both += u64::from((*mine & *theirs).count_ones());
            *mine |= *theirs;
        }
        both
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.0).flat_map(|(at, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at * 64 + bit)
        })
    }

    /// How many numbers.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One second of a share.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SecondOutcome {
    /// Clients that were connected at its end.
    pub connected: u64,
    /// CONNACKs.
    pub accepted: u64,
    /// Connections that ended without our doing.
    pub closed: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Microseconds from due to acknowledged and how often, of publishes acknowledged in this second.
    pub ack: Vec<(u64, u64)>,
    /// The same of deliveries.
    pub delivery: Vec<(u64, u64)>,
    /// CPU time of the share's thread, in microseconds.
    pub cpu_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_set() {
        let (mut one, mut other) = (Numbers::default(), Numbers::default());
        assert!(one.insert(0) && one.insert(1_000) && !one.insert(0));
        assert!(other.insert(1_000) && other.insert(70));
        assert!(other.has(70) && !other.has(71) && !other.has(5_000));
        assert_eq!(other.iter().collect::<Vec<u32>>(), [70, 1_000]);
        assert_eq!(one.merge(&other), 1);
        assert_eq!(one.len(), 3);
        assert!(Numbers::default().is_empty());
    }

    #[test]
    fn holes_know_what_they_lack_and_suppose_no_more_than_was_forgotten() {
        let mut holes = Holes {
            next: 100,
            gaps: vec![(60, 70), (40, 41)],
            ..Holes::default()
        };
        assert_eq!(holes.lacks(&[5, 40, 41, 60, 69, 70, 99, 100, 200]), 5);
        (holes.forgotten, holes.forgotten_below) = (2, 50);
        assert_eq!(holes.lacks(&[5, 40, 41, 60]), 4);
        assert_eq!(holes.lacks(&[5, 6, 7, 40, 41]), 3);
        assert_eq!(holes.lacks(&[]), 0);
    }
}
