//! What waits for Kafka's confirmation, by topic and by partition: none of them may take all of the queue, and a partition
//! that waits for long has a name.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::partitions::Partitions;
use crate::producer::Run;

/// A part of the queue.
#[derive(Debug, Clone, Copy)]
struct Bound {
    messages: u64,
    bytes: u64,
}

impl Bound {
    fn percent(self, percent: u64) -> Self {
        let of = |all: u64| (all / 100 * percent + all % 100 * percent / 100).max(1);
        Self {
            messages: of(self.messages),
            bytes: of(self.bytes),
        }
    }
}

/// What waits of a topic or of a partition.
#[derive(Debug, Default)]
struct Waiting {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Somebody was turned away, see [`Waits::take_room`].
    full: AtomicBool,
    when_full: AtomicU64,
}

impl Waiting {
    fn reaches(&self, bound: Bound, divisor: u64) -> bool {
        self.messages.load(Ordering::Relaxed) >= bound.messages.div_ceil(divisor)
            || self.bytes.load(Ordering::Relaxed) >= bound.bytes.div_ceil(divisor)
    }

    fn set_full(&self) {
        let waiting = self.messages.load(Ordering::Relaxed);
        self.when_full.store(waiting, Ordering::Relaxed);
        self.full.store(true, Ordering::SeqCst);
    }

    /// Whether there is room again for which somebody was turned away; true once.
    fn take_room(&self) -> bool {
        if !self.full.load(Ordering::Relaxed) {
            return false;
        }
        // A few places would be taken at once and everybody turned away again, so wait for an eighth.
        let then = self.when_full.load(Ordering::Relaxed);
        let now = self.messages.load(Ordering::Relaxed);
        now <= then.saturating_sub((then / 8).max(1)) && self.full.swap(false, Ordering::SeqCst)
    }

    fn add(&self, run: &Run) {
        self.messages.fetch_add(run.messages, Ordering::Relaxed);
        self.bytes.fetch_add(run.bytes, Ordering::Relaxed);
    }

    fn remove(&self, run: &Run) {
        self.messages.fetch_sub(run.messages, Ordering::Relaxed);
        self.bytes.fetch_sub(run.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Topic {
    waiting: Waiting,
    /// What one of its partitions may take.
    partition_max: Bound,
}

#[derive(Debug, Default)]
struct Partition {
    waiting: Waiting,
    done: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waits {
    topics: Box<[Topic]>,
    partitions: Box<[Partition]>,
    topic_max: Bound,
    /// Whether somebody was turned away for the sake of some topic or partition.
    some_full: AtomicBool,
}

impl Waits {
    /// Of `messages_max` and `bytes_max` one topic may take `topic_percent`, and of that one partition `partition_percent`,
    /// or its equal part where that is more. A topic that is the only one may take all. A message of any size has room in
    /// an empty queue.
    pub(crate) fn new(
        partitions: &Partitions,
        (messages, bytes): (u64, u64),
        topic_percent: u32,
        partition_percent: u32,
    ) -> Self {
        let all = Bound { messages, bytes };
        let topic_max = match partitions.topics() {
            1 => all,
            _ => all.percent(topic_percent.into()),
        };
        let topics = 0..u32::try_from(partitions.topics()).unwrap_or(u32::MAX);
        let topic = |topic| {
            let equal = 100 / partitions.of_topic(topic).len().max(1) as u64;
            Topic {
                waiting: Waiting::default(),
                partition_max: topic_max.percent(equal.max(partition_percent.into())),
            }
        };
        Self {
            topics: topics.map(topic).collect(),
            partitions: (0..partitions.count())
                .map(|_| Partition::default())
                .collect(),
            topic_max,
            some_full: AtomicBool::new(false),
        }
    }

    /// Whether no more messages of a topic's partition may wait. `divisor` is the part of its share that is asked for.
    pub(crate) fn is_full(&self, topic: u32, number: u32, divisor: u64) -> bool {
        let (topic, partition) = (
            &self.topics[topic as usize],
            &self.partitions[number as usize],
        );
        topic.waiting.reaches(self.topic_max, divisor)
            || partition.waiting.reaches(topic.partition_max, divisor)
    }

    /// A publisher was turned away for the topic's sake, or the partition's.
    pub(crate) fn set_full(&self, topic: u32, number: u32) {
        let topic = &self.topics[topic as usize];
        let partition = &self.partitions[number as usize].waiting;
        if partition.reaches(topic.partition_max, 1) {
            partition.set_full();
        }
        // Also when there is room by now: then that is found out.
        if topic.waiting.reaches(self.topic_max, 1) || !partition.full.load(Ordering::Relaxed) {
            topic.waiting.set_full();
        }
        self.some_full.store(true, Ordering::SeqCst);
    }

    /// Whether a topic or a partition has room again for which somebody was turned away; true once.
    pub(crate) fn take_room(&self) -> bool {
        if !self.some_full.swap(false, Ordering::SeqCst) {
            return false;
        }
        let (mut room, mut full) = (false, false);
        let partitions = self.partitions.iter().map(|partition| &partition.waiting);
        let topics = self.topics.iter().map(|topic| &topic.waiting);
        for waiting in topics.chain(partitions) {
            room |= waiting.take_room();
            full |= waiting.full.load(Ordering::Relaxed);
        }
        if full {
            self.some_full.store(true, Ordering::SeqCst);
        }
        room
    }

    /// A message begins to wait. To be called before it is handed over.
    pub(crate) fn begin(&self, run: &Run) {
        self.topics[run.topic as usize].waiting.add(run);
        self.partitions[run.number as usize].waiting.add(run);
    }

    /// It was not handed over.
    pub(crate) fn cancel(&self, run: &Run) {
        self.end(run);
    }

    /// Messages of a topic that wait.
    pub(crate) fn waiting(&self, topic: u32) -> u64 {
        let topic = &self.topics[topic as usize].waiting;
        topic.messages.load(Ordering::Relaxed)
    }

    /// Messages of one partition were confirmed, or ended otherwise.
    pub(crate) fn done(&self, run: &Run) {
        self.end(run);
        let partition = &self.partitions[run.number as usize];
        partition.done.fetch_add(run.messages, Ordering::Relaxed);
    }

    fn end(&self, run: &Run) {
        self.topics[run.topic as usize].waiting.remove(run);
        self.partitions[run.number as usize].waiting.remove(run);
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
            let waiting = partition.waiting.messages.load(Ordering::Relaxed);
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
        let waits = Waits::new(&partitions(), (8, 1_000), 50, 100);
        for _ in 0..4 {
            assert!(!waits.is_full(0, 1, 1));
            waits.begin(&one(0, 1));
        }
        assert!(waits.is_full(0, 1, 1) && waits.is_full(0, 0, 1) && !waits.is_full(1, 2, 1));
        waits.set_full(0, 0);
        assert!(!waits.take_room());
        waits.done(&one(0, 1));
        assert!(waits.take_room());
        assert!(!waits.take_room(), "it is said once");
        let bytes = Waits::new(&partitions(), (100, 40), 50, 100);
        bytes.begin(&one(0, 0));
        assert!(!bytes.is_full(0, 0, 1) && bytes.is_full(0, 0, 2));
        bytes.begin(&one(0, 0));
        assert!(bytes.is_full(0, 0, 1));
    }

    #[test]
    fn one_partition_leaves_room_to_the_others_of_its_topic() {
        // Of 80 messages 40 are the topic's, and of these half a partition's: there are two.
        let waits = Waits::new(&partitions(), (80, 1_000_000), 50, 12);
        (0..20).for_each(|_| waits.begin(&one(0, 1)));
        assert!(waits.is_full(0, 1, 1) && !waits.is_full(0, 0, 1));
        waits.set_full(0, 1);
        (0..10).for_each(|_| waits.begin(&one(0, 0)));
        assert!(!waits.is_full(0, 0, 1) && waits.is_full(0, 0, 2));
        assert!(!waits.take_room());
        (0..3).for_each(|_| waits.done(&one(0, 1)));
        assert!(waits.take_room());
        assert!(!waits.take_room(), "it is said once");
        // Of many partitions, each has its share of what the topic may have.
        let many = Partitions::new([("a", vec![1; 50]), ("b", vec![1])].into_iter());
        let waits = Waits::new(&many, (2_000, 1_000_000), 50, 12);
        (0..120).for_each(|_| waits.begin(&one(0, 7)));
        assert!(waits.is_full(0, 7, 1) && !waits.is_full(0, 8, 1));
    }

    #[test]
    fn a_topic_that_is_alone_takes_all() {
        let alone = Partitions::new([("a", vec![1])].into_iter());
        let waits = Waits::new(&alone, (4, 1_000), 50, 12);
        (0..3).for_each(|_| waits.begin(&one(0, 0)));
        assert!(!waits.is_full(0, 0, 1));
        waits.begin(&one(0, 0));
        assert!(waits.is_full(0, 0, 1));
    }

    #[test]
    fn a_partition_is_silent_when_nothing_is_confirmed_though_something_waits() {
        let waits = Waits::new(&partitions(), (100, 1_000), 50, 12);
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
