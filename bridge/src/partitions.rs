//! The partitions of the routed topics, and which one a key belongs to.

use std::ops::Range;

/// Partitions that share a far producer, of those that one Kafka broker leads: they share the five requests that it may
/// have under way there, and a partition of few messages sends each in its own.
const PARTITIONS_PER_PRODUCER: usize = 2;
/// Far producers at most; each has a thread and a connection for each Kafka broker.
const PRODUCERS_MAX: usize = 12;

/// The partitions of the routed topics as they were at the start, numbered. Should a topic get more, its keys still have
/// one number each, which is all that is needed.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    topics: Vec<(Box<str>, usize, i32)>,
    count: usize,
    /// The most that one Kafka broker leads.
    led_max: usize,
}

impl Partitions {
    /// `topics` with the leaders of their partitions.
    pub(crate) fn new<'t>(topics: impl Iterator<Item = (&'t str, Vec<i32>)>) -> Self {
        let mut all = Self::default();
        let mut leaders = Vec::new();
        for (topic, led_by) in topics {
            if let Ok(partitions @ 1..) = i32::try_from(led_by.len()) {
                all.topics.push((topic.into(), all.count, partitions));
                all.count += led_by.len();
                leaders.extend(led_by);
            }
        }
        leaders.sort_unstable();
        all.led_max = leaders
            .chunk_by(|a, b| a == b)
            .map(<[i32]>::len)
            .max()
            .unwrap_or(0);
        all
    }

    /// The numbers of a topic, and of the partition of it to which a key belongs.
    pub(crate) fn find(&self, topic: &str, key: &[u8]) -> (u32, u32) {
        let topics = self.topics.iter().zip(0..);
        let found = topics.clone().find(|((name, ..), _)| **name == *topic).map(
            |((_, first, partitions), at)| {
                (
                    at,
                    *first as u32 + envelope::partition(key, *partitions) as u32,
                )
            },
        );
        found.unwrap_or_default()
    }

    /// How many topics there are, and at least one.
    pub(crate) fn topics(&self) -> usize {
        self.topics.len().max(1)
    }

    /// The name of a topic.
    pub(crate) fn topic(&self, topic: u32) -> &str {
        let found = self.topics.get(topic as usize);
        found.map_or("", |(name, ..)| name)
    }

    /// The numbers of a topic's partitions.
    pub(crate) fn of_topic(&self, topic: u32) -> Range<usize> {
        let found = self.topics.get(topic as usize);
        found.map_or(0..0, |(_, first, partitions)| {
            *first..*first + *partitions as usize
        })
    }

    /// A partition's topic, and which it is there.
    pub(crate) fn name(&self, number: usize) -> (&str, usize) {
        let mut topics = self.topics.iter().rev();
        let found = topics.find(|(_, first, _)| *first <= number);
        found.map_or(("", number), |(name, first, _)| (name, number - first))
    }

    /// How many partitions there are, and at least one.
    pub(crate) fn count(&self) -> usize {
        self.count.max(1)
    }

    /// How many far producers they are worth.
    pub(crate) fn producers(&self) -> usize {
        self.led_max
            .div_ceil(PARTITIONS_PER_PRODUCER)
            .clamp(1, PRODUCERS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_number_and_each_partition_one_of_its_own() {
        let partitions = Partitions::new(
            [("a", vec![1, 2, 3]), ("b", vec![1; 4]), ("none", vec![])].into_iter(),
        );
        let mut seen = std::collections::BTreeSet::new();
        for topic in ["a", "b"] {
            for key in 0..200 {
                let key = format!("key-{key}");
                let (at, number) = partitions.find(topic, key.as_bytes());
                assert_eq!((at, number), partitions.find(topic, key.as_bytes()));
                assert_eq!(partitions.topic(at), topic);
                assert!(partitions.of_topic(at).contains(&(number as usize)));
                let (name, partition) = partitions.name(number as usize);
                assert_eq!(
                    (name, partition + partitions.of_topic(at).start),
                    (topic, number as usize)
                );
                seen.insert((topic, number));
            }
        }
        let expected = (0..3)
            .map(|number| ("a", number))
            .chain((3..7).map(|number| ("b", number)));
        assert!(seen.into_iter().eq(expected));
    }

    #[test]
    fn there_are_as_many_producers_as_the_busiest_broker_needs() {
        let of = |leaders: Vec<i32>| Partitions::new([("a", leaders)].into_iter()).producers();
        assert_eq!(of(vec![1]), 1);
        assert_eq!(of(vec![1; 24]), 12);
        assert_eq!(of([1, 2, 3].repeat(8)), 4);
        assert_eq!(of(vec![1; 1_000]), PRODUCERS_MAX);
        assert_eq!(Partitions::default().producers(), 1);
    }
}
