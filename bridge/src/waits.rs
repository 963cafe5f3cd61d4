//! What waits for Kafka's confirmation, by topic and by partition: no topic may take all of the queue, and a partition
//! that waits for long has a name.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::partitions::Partitions;
use crate::producer::Run;

#[derive(Debug, Default)]
struct Topic {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Somebody was turned away, see [`Waits::take_room`].
    full: AtomicBool,
    waiting_when_full: AtomicU64,
}

#[derive(Debug, Default)]
struct Partition {
    waiting: AtomicU64,
    done: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waits {
    topics: Box<[Topic]>,
    partitions: Box<[Partition]>,
    messages_max: u64,
    bytes_max: u64,
}

impl Waits {
    /// Of `messages_max` and `bytes_max` one topic may take `share_percent`; where there is only one, it takes all. A
    /// message of `message_bytes_max` always has room in an empty queue.
    pub(crate) fn new(
        partitions: &Partitions,
        messages_max: u64,
        bytes_max: u64,
        share_percent: u32,
    ) -> Self {
        let share = match partitions.topics() {
            1 => 100,
            _ => u64::from(share_percent),
        };
        let of = |all: u64| (all / 100 * share + all % 100 * share / 100).max(1);
        Self {
            topics: (0..partitions.topics()).map(|_| Topic::default()).collect(),
            partitions: (0..partitions.count())
                .map(|_| Partition::default())
                .collect(),
            messages_max: of(messages_max),
            bytes_max: of(bytes_max),
        }
    }

    /// Whether no more messages of a topic may wait. `divisor` is the part of its share that is asked for.
    pub(crate) fn is_full(&self, topic: u32, divisor: u64) -> bool {
        let topic = &self.topics[topic as usize];
        topic.messages.load(Ordering::Relaxed) >= self.messages_max.div_ceil(divisor)
            || topic.bytes.load(Ordering::Relaxed) >= self.bytes_max.div_ceil(divisor)
    }

    /// A publisher was turned away for the topic's sake.
    pub(crate) fn set_full(&self, topic: u32) {
        let topic = &self.topics[topic as usize];
        let waiting = topic.messages.load(Ordering::Relaxed);
        topic.waiting_when_full.store(waiting, Ordering::Relaxed);
        topic.full.store(true, Ordering::SeqCst);
    }

    /// Whether a topic has room again for which somebody was turned away; true once.
    pub(crate) fn take_room(&self) -> bool {
        let mut room = false;
        for topic in &self.topics {
            if topic.full.load(Ordering::Relaxed) {
                let then = topic.waiting_when_full.load(Ordering::Relaxed);
                let now = topic.messages.load(Ordering::Relaxed);
                room |= now <= then.saturating_sub((then / 8).max(1))
                    && topic.full.swap(false, Ordering::SeqCst);
            }
        }
        room
    }

    /// A message begins to wait. To be called before it is handed over.
    pub(crate) fn begin(&self, run: &Run) {
        let topic = &self.topics[run.topic as usize];
        topic.messages.fetch_add(run.messages, Ordering::Relaxed);
        topic.bytes.fetch_add(run.bytes, Ordering::Relaxed);
        let partition = &self.partitions[run.number as usize];
        partition.waiting.fetch_add(run.messages, Ordering::Relaxed);
    }

    /// It was not handed over.
    pub(crate) fn cancel(&self, run: &Run) {
        self.end(run);
    }

    /// Messages of a topic that wait.
    pub(crate) fn waiting(&self, topic: u32) -> u64 {
        self.topics[topic as usize].messages.load(Ordering::Relaxed)
    }

    /// Messages of one partition were confirmed, or ended otherwise.
    pub(crate) fn done(&self, run: &Run) {
        self.end(run);
        let partition = &self.partitions[run.number as usize];
        partition.done.fetch_add(run.messages, Ordering::Relaxed);
    }

    fn end(&self, run: &Run) {
        let topic = &self.topics[run.topic as usize];
        topic.messages.fetch_sub(run.messages, Ordering::Relaxed);
        topic.bytes.fetch_sub(run.bytes, Ordering::Relaxed);
        let partition = &self.partitions[run.number as usize];
        partition.waiting.fetch_sub(run.messages, Ordering::Relaxed);
    }
}

/// A partition from which nothing comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(crate) number: usize,
    pub(crate) lasting: Duration,
    pub(crate) waiting: u64,
}

/// Judges which partitions are silent, by looks that are some time apart.
#[derive(Debug)]
pub(crate) struct Silence {
    /// Of each partition: what was done at the last look, and since when it is that while something waits.
    seen: Vec<(u64, Option<Instant>)>,
    patience: Duration,
}

impl Silence {
    pub(crate) fn new(waits: &Waits, patience: Duration) -> Self {
        Self {
            seen: vec![(0, None); waits.partitions.len()],
            patience,
        }
    }

    /// The partitions that have had no confirmation for longer than the patience, though something waits.
    pub(crate) fn look(&mut self, waits: &Waits, now: Instant) -> Vec<Silent> {
        let mut silent = Vec::new();
        for (number, (partition, (done_then, since))) in
            waits.partitions.iter().zip(&mut self.seen).enumerate()
        {
            let waiting = partition.waiting.load(Ordering::Relaxed);
            let done = partition.done.load(Ordering::Relaxed);
            if waiting == 0 {
                *since = None;
            } else if done != *done_then || since.is_none() {
                *since = Some(now);
            }
            *done_then = done;
            let lasting = since.map_or(Duration::ZERO, |since| now.duration_since(since));
            if lasting >= self.patience {
                silent.push(Silent {
                    number,
                    lasting,
                    waiting,
                });
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions() -> Partitions {
        Partitions::new([("a", vec![1, 2]), ("b", vec![1])].into_iter())
    }

    fn one(topic: u32, number: u32) -> Run {
        Run {
            topic,
            number,
            messages: 1,
            bytes: 10,
        }
    }

    #[test]
    fn one_topic_takes_no_more_than_its_share() {
        let waits = Waits::new(&partitions(), 8, 1_000, 50);
        for _ in 0..4 {
            assert!(!waits.is_full(0, 1));
            waits.begin(&one(0, 1));
        }
        assert!(waits.is_full(0, 1) && !waits.is_full(1, 1));
        waits.set_full(0);
        assert!(!waits.take_room());
        waits.done(&one(0, 1));
        assert!(waits.take_room());
        assert!(!waits.take_room(), "it is said once");
        let bytes = Waits::new(&partitions(), 100, 40, 50);
        bytes.begin(&one(0, 0));
        assert!(!bytes.is_full(0, 1) && bytes.is_full(0, 2));
        bytes.begin(&one(0, 0));
        assert!(bytes.is_full(0, 1));
    }

    #[test]
    fn a_topic_that_is_alone_takes_all() {
        let alone = Partitions::new([("a", vec![1])].into_iter());
        let waits = Waits::new(&alone, 4, 1_000, 50);
        (0..3).for_each(|_| waits.begin(&one(0, 0)));
        assert!(!waits.is_full(0, 1));
        waits.begin(&one(0, 0));
        assert!(waits.is_full(0, 1));
    }

    #[test]
    fn a_partition_is_silent_when_nothing_is_confirmed_though_something_waits() {
        let waits = Waits::new(&partitions(), 100, 1_000, 50);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(&waits, Duration::from_secs(10));
        assert_eq!(silence.look(&waits, at(0)), []);
        assert_eq!(silence.look(&waits, at(60)), [], "nothing waits");
        (0..3).for_each(|_| waits.begin(&one(0, 1)));
        waits.begin(&one(1, 2));
        assert_eq!(silence.look(&waits, at(61)), []);
        // One of them goes on.
        waits.done(&one(1, 2));
        waits.begin(&one(1, 2));
        assert_eq!(silence.look(&waits, at(65)), []);
        let silent = Silent {
            number: 1,
            lasting: Duration::from_secs(11),
            waiting: 3,
        };
        assert_eq!(silence.look(&waits, at(72)), [silent]);
        waits.done(&one(0, 1));
        assert_eq!(silence.look(&waits, at(73)), []);
    }
}
