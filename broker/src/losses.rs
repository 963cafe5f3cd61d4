//! Who lost what: each drop, refusal and kick counts under its reason, and under the client and the topic that it is about,
//! in a bounded log of each worker. When that is full, the entry about which nothing happened for the longest time makes
//! room; what is forgotten so is counted by reason, so that the log and the counters add up.
//!
//! It costs nothing where nothing is lost. A loss costs a look into a table.

use hashbrown::HashTable;

use crate::limits::{LOSS_TEXT_BYTES_MAX, LOSSES_PER_WORKER_MAX};
use crate::stats::{Local, Stats};
use crate::time::Time;

macro_rules! reasons {
    ($($name:ident $counter:ident,)+) => {
        /// Why something was lost. Each has its counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the counters say what they are")]
        pub enum Loss { $($name,)+ }

        impl Loss {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, which is its counter's.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($counter),)+ }
            }

            /// What its counter says.
            #[must_use]
            pub fn counted(self, stats: &Stats) -> u64 {
                match self { $(Self::$name => stats.$counter,)+ }
            }

            fn counter(self, counts: &mut Local) -> &mut u64 {
                match self { $(Self::$name => &mut counts.$counter,)+ }
            }
        }

        /// How many reasons there are.
        const REASONS: usize = [$(Loss::$name),+].len();
    };
}

reasons! {
    Offline dropped_offline,
    OutboxFull dropped_outbox_full,
    QueueFull dropped_queue_full,
    Memory dropped_memory,
    Expired dropped_expired,
    TooLarge dropped_too_large,
    SessionEnded dropped_session_ended,
    Withheld deliveries_withheld,
    DeniedAccess denied_access,
    DeniedReservedTopic denied_reserved_topic,
    SinkRefused sink_refused,
    SinkDroppedQos0 sink_dropped_qos0,
    RetainedRefused retained_refused,
    RetainedRefusedClient retained_refused_client,
    ReadAheadDropped read_ahead_dropped,
    WillNotStored wills_not_stored,
    SubscriptionRefused subscriptions_refused,
    ClientRefusedMemory clients_refused_memory,
    ClientRefusedBanned clients_refused_banned,
    ClosedMalformed closed_malformed,
    ClosedProtocolError closed_protocol_error,
    ClosedTooLarge closed_too_large,
    ClosedReceiveMaximum closed_receive_maximum,
    ClosedWriteStall closed_write_stall,
    ClosedPublishRefused closed_publish_refused,
    ClosedByOperator closed_by_operator,
}

/// No entry, where one's place is expected.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Entry {
    client: Box<str>,
    topic: Box<str>,
    loss: Loss,
    times: u64,
    first: Time,
    last: Time,
    /// The entry about which something happened next, and the one before.
    newer: u32,
    older: u32,
}

/// What one client lost for one reason on one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The client identifier; empty where nobody knows it (any more).
    pub client_id: String,
    /// The topic, or the filter of a subscription; empty where it is about none, or it is not known any more.
    pub topic: String,
    /// Why.
    pub loss: Loss,
    /// How often.
    pub times: u64,
    /// When first.
    pub first: Time,
    /// When last.
    pub last: Time,
}

/// What a worker's log says.
#[derive(Debug, Clone, Default)]
pub struct LostPart {
    /// Entries that were asked for, the latest first.
    pub found: Vec<Lost>,
    /// What was forgotten, by reason: for want of room, never anything else.
    pub forgotten: Vec<(Loss, u64)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Losses {
    /// The time of the worker's turn.
    pub(crate) now: Time,
    entries: Vec<Entry>,
    places: HashTable<u32>,
    hasher: ahash::RandomState,
    newest: u32,
    oldest: u32,
    forgotten: [u64; REASONS],
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            now: Time(0),
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: ahash::RandomState::new(),
            newest: NONE,
            oldest: NONE,
            forgotten: [0; REASONS],
        }
    }
}

/// As much of a text as is kept, up to a character's end.
fn cut(text: &str) -> &str {
    if text.len() <= LOSS_TEXT_BYTES_MAX {
        return text;
    }
    &text[..text.floor_char_boundary(LOSS_TEXT_BYTES_MAX)]
}

impl Losses {
    /// Takes an entry out of the row.
    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    /// Puts an entry at the new end of the row.
    fn link(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.entries[newest as usize].newer = at,
        }
        self.newest = at;
    }

    fn hash(&self, loss: Loss, client: &str, topic: &str) -> u64 {
        self.hasher.hash_one((loss, client, topic))
    }

    fn note(&mut self, loss: Loss, client: &str, topic: &str, times: u64) {
        let (client, topic, now) = (cut(client), cut(topic), self.now);
        let hash = self.hash(loss, client, topic);
        let entries = &self.entries;
        let is_it = |at: &u32| {
            let entry = &entries[*at as usize];
            entry.loss == loss && *entry.client == *client && *entry.topic == *topic
        };
        if let Some(at) = self.places.find(hash, is_it).copied() {
            let entry = &mut self.entries[at as usize];
            entry.times += times;
            entry.last = now;
            if self.newest != at {
                self.unlink(at);
                self.link(at);
            }
            return;
        }
        let entry = Entry {
            client: client.into(),
            topic: topic.into(),
            loss,
            times,
            first: now,
            last: now,
            newer: NONE,
            older: NONE,
        };
        let at = if self.entries.len() < LOSSES_PER_WORKER_MAX {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let at = self.oldest;
            self.unlink(at);
            let old = std::mem::replace(&mut self.entries[at as usize], entry);
            self.forgotten[old.loss as usize] += old.times;
            let hash = self.hash(old.loss, &old.client, &old.topic);
            if let Ok(place) = self.places.find_entry(hash, |other| *other == at) {
                place.remove();
            }
            at
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, at, |at| {
            let entry = &entries[*at as usize];
            hasher.hash_one((entry.loss, &*entry.client, &*entry.topic))
        });
        self.link(at);
    }

    /// What the log says of clients that `wanted` says yes to: up to `max` entries, the latest first.
    pub(crate) fn tell(&self, max: usize, wanted: impl Fn(&str, &str, Loss) -> bool) -> LostPart {
        let mut part = LostPart::default();
        let mut at = self.newest;
        while at != NONE && part.found.len() < max {
            let entry = &self.entries[at as usize];
            if wanted(&entry.client, &entry.topic, entry.loss) {
                part.found.push(Lost {
                    client_id: entry.client.to_string(),
                    topic: entry.topic.to_string(),
                    loss: entry.loss,
                    times: entry.times,
                    first: entry.first,
                    last: entry.last,
                });
            }
            at = entry.older;
        }
        let forgotten = Loss::ALL.iter().zip(self.forgotten);
        part.forgotten = forgotten
            .map(|(loss, times)| (*loss, times))
            .filter(|(_, times)| *times > 0)
            .collect();
        part
    }
}

impl Local {
    /// Counts what a client lost, and notes who and what. Both are empty where they are not known.
    #[cold]
    #[inline(never)]
    pub(crate) fn lose(&mut self, loss: Loss, client: &str, topic: &str) {
        self.lose_many(loss, client, topic, 1);
    }

    /// The same, of so many.
    #[cold]
    #[inline(never)]
    pub(crate) fn lose_many(&mut self, loss: Loss, client: &str, topic: &str, times: u64) {
        if times > 0 {
            *loss.counter(self) += times;
            self.losses.note(loss, client, topic, times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(losses: &Losses) -> LostPart {
        losses.tell(usize::MAX, |_, _, _| true)
    }

    #[test]
    fn the_same_loss_is_one_entry_and_the_latest_stands_first() {
        let mut losses = Losses::default();
        for (at, client, topic) in [(1, "a", "t"), (2, "b", "t"), (3, "a", "u"), (9, "a", "t")] {
            losses.now = Time(at);
            losses.note(Loss::Offline, client, topic, 1);
        }
        losses.note(Loss::QueueFull, "a", "t", 5);
        let found = all(&losses).found;
        let told: Vec<_> = found
            .iter()
            .map(|lost| {
                let (first, last) = (lost.first.0, lost.last.0);
                (
                    &*lost.client_id,
                    &*lost.topic,
                    lost.loss,
                    lost.times,
                    first,
                    last,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", "t", Loss::QueueFull, 5, 9, 9),
                ("a", "t", Loss::Offline, 2, 1, 9),
                ("a", "u", Loss::Offline, 1, 3, 3),
                ("b", "t", Loss::Offline, 1, 2, 2),
            ]
        );
        assert_eq!(losses.tell(1, |_, _, _| true).found.len(), 1);
        assert_eq!(losses.tell(9, |client, _, _| client == "b").found.len(), 1);
    }

    #[test]
    fn the_one_that_is_quiet_for_the_longest_time_makes_room_and_is_counted() {
        let mut losses = Losses::default();
        let note = |losses: &mut Losses, n: usize| {
            losses.now = Time(losses.now.0 + 1);
            losses.note(Loss::Offline, &n.to_string(), "t", 2);
        };
        for n in 0..LOSSES_PER_WORKER_MAX {
            note(&mut losses, n);
        }
        note(&mut losses, 0); // it is not the oldest any more
        for n in 0..10 {
            note(&mut losses, 1_000_000 + n);
        }
        let told = all(&losses);
        assert_eq!(told.found.len(), LOSSES_PER_WORKER_MAX);
        assert_eq!(told.forgotten, [(Loss::Offline, 20)]);
        let has = |n: usize| {
            told.found
                .iter()
                .any(|lost| lost.client_id == n.to_string())
        };
        assert!(has(0) && !has(1) && !has(10) && has(11) && has(1_000_009));
        let sum: u64 = told.found.iter().map(|lost| lost.times).sum();
        let noted = 2 * (LOSSES_PER_WORKER_MAX as u64 + 11);
        assert_eq!(sum + 20, noted);
        // Each entry is still found by its name.
        for n in [0, 11, 1_000_009] {
            note(&mut losses, n);
        }
        assert_eq!(all(&losses).forgotten, [(Loss::Offline, 20)]);
    }

    #[test]
    fn long_names_are_cut_at_a_characters_end() {
        let mut losses = Losses::default();
        let long = "ä".repeat(LOSS_TEXT_BYTES_MAX);
        losses.note(Loss::Offline, &long, &format!("x{long}"), 1);
        let lost = &all(&losses).found[0];
        assert_eq!(lost.client_id.len(), LOSS_TEXT_BYTES_MAX);
        assert_eq!(lost.topic.len(), LOSS_TEXT_BYTES_MAX - 1);
    }
}
