//! The topics on which most is published, counted only while somebody looks. A bounded number of topics is counted
//! ([`TOPICS_COUNTED_MAX`]): when one more comes, all counts shrink by one and those at nothing make room (the algorithm of
//! Misra and Gries). So every topic with more than a `1 / TOPICS_COUNTED_MAX` share of the publishes is among them, and no
//! count is too small by more than is told with it.

use std::collections::HashMap;

use crate::limits::{LOSS_TEXT_BYTES_MAX, TOPICS_COUNTED_MAX};
use crate::time::Time;

/// What was published on one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCount {
    /// The topic. Very long ones are cut.
    pub topic: String,
    /// Publishes: as many, or [`TopTopics::missed_max`] more.
    pub publishes: u64,
    /// Bytes of payloads, of those publishes that are counted.
    pub bytes: u64,
    /// Deliveries of these.
    pub deliveries: u64,
}

#[derive(Debug, Default)]
struct Count {
    publishes: u64,
    bytes: u64,
    deliveries: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// When nobody looks any more.
    until: Time,
    by_topic: HashMap<Box<str>, Count, ahash::RandomState>,
    publishes: u64,
    missed_max: u64,
}

/// What one worker has counted.
#[derive(Debug, Clone, Default)]
pub struct TopTopics {
    /// The topics, those with most first.
    pub topics: Vec<TopicCount>,
    /// All publishes.
    pub publishes: u64,
    /// How much any count may be too small.
    pub missed_max: u64,
}

impl Counting {
    pub(crate) fn new(until: Time) -> Self {
        Self {
            until,
            ..Self::default()
        }
    }

    pub(crate) fn until(&self) -> Time {
        self.until
    }

    pub(crate) fn count(&mut self, topic: &str, bytes: usize, deliveries: usize) {
        let mut topic = topic;
        if topic.len() > LOSS_TEXT_BYTES_MAX {
            topic = &topic[..topic.floor_char_boundary(LOSS_TEXT_BYTES_MAX)];
        }
        self.publishes += 1;
        if !self.by_topic.contains_key(topic) {
            if self.by_topic.len() >= TOPICS_COUNTED_MAX {
                // It takes as many looks as it takes publishes off, so it costs each publish one look in the end.
                self.missed_max += 1;
                self.by_topic.retain(|_, count| {
                    count.publishes -= 1;
                    count.publishes > 0
                });
                return;
            }
            self.by_topic.insert(topic.into(), Count::default());
        }
        let Some(count) = self.by_topic.get_mut(topic) else {
            return;
        };
        count.publishes += 1;
        count.bytes += bytes as u64;
        count.deliveries += deliveries as u64;
    }

    pub(crate) fn told(&self, max: usize) -> TopTopics {
        let counts = self.by_topic.iter();
        let mut topics: Vec<TopicCount> = counts
            .map(|(topic, count)| TopicCount {
                topic: topic.to_string(),
                publishes: count.publishes,
                bytes: count.bytes,
                deliveries: count.deliveries,
            })
            .collect();
        topics.sort_by(|one, other| {
            let by_count = other.publishes.cmp(&one.publishes);
            by_count.then_with(|| one.topic.cmp(&other.topic))
        });
        topics.truncate(max);
        TopTopics {
            topics,
            publishes: self.publishes,
            missed_max: self.missed_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_found_among_any_number_of_small_ones() {
        let mut counting = Counting::new(Time(0));
        let (mut large, mut all) = (0, 0);
        for n in 0..200_000_u32 {
            all += 1;
            if n % 50 == 0 {
                large += 1;
                counting.count("large", 7, 3);
            } else {
                counting.count(&format!("small/{n}"), 1, 0);
            }
            assert!(counting.by_topic.len() <= TOPICS_COUNTED_MAX);
        }
        let told = counting.told(1);
        assert_eq!(told.publishes, all);
        let [first] = &told.topics[..] else {
            panic!("one was asked for");
        };
        assert_eq!(first.topic, "large");
        assert!(first.publishes <= large && first.publishes + told.missed_max >= large);
        assert!(told.missed_max <= all / TOPICS_COUNTED_MAX as u64);
    }

    #[test]
    fn few_topics_are_counted_exactly() {
        let mut counting = Counting::new(Time(0));
        for (topic, times) in [("b", 3), ("a", 3), ("c", 9)] {
            for _ in 0..times {
                counting.count(topic, 10, 2);
            }
        }
        let told = counting.told(9);
        let order: Vec<_> = told
            .topics
            .iter()
            .map(|one| (&*one.topic, one.publishes, one.bytes, one.deliveries))
            .collect();
        assert_eq!(order, [("c", 9, 90, 18), ("a", 3, 30, 6), ("b", 3, 30, 6)]);
        assert_eq!((told.publishes, told.missed_max), (15, 0));
    }
}
