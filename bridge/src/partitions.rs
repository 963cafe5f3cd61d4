//! The partitions of the routed topics, and which one a key belongs to.

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

    /// The number of the partition to which a key belongs.
    pub(crate) fn number(&self, topic: &str, key: &[u8]) -> usize {
        let found = self.topics.iter().find(|(name, ..)| **name == *topic);
        found.map_or(0, |(_, first, partitions)| {
            first + envelope::partition(key, *partitions) as usize
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
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
                let number = partitions.number(topic, key.as_bytes());
                assert_eq!(number, partitions.number(topic, key.as_bytes()));
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
