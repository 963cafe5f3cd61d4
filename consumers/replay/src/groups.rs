//! Consumer groups as they stand: who is in them, and what waits for them, in records and in time.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::groups::GroupInfo;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::kafka::{ASK_TIMEOUT, Heard, describe};
use crate::{Error, Kafka};

/// How long the oldest records that wait may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one wait for them takes.
const POLL: Duration = Duration::from_millis(100);

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// As Kafka calls it: `Stable`, `Empty`, `PreparingRebalance`, …
    pub state: String,
    /// Its members: client identifier and host.
    pub members: Vec<(String, String)>,
    /// The partitions in which it has committed.
    pub partitions: Vec<Waiting>,
}

/// What waits for a group in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that the group reads next.
    pub committed: i64,
    /// Where the partition ends.
    pub end: i64,
    /// Records that Kafka deleted before the group read them.
    pub lost: i64,
    /// The timestamp of the oldest record that waits, in milliseconds since the Unix epoch; none where nothing waits, or where it
    /// could not be read in time.
    pub since_ms: Option<i64>,
}

impl Waiting {
    /// Offsets that wait.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.end - self.committed
    }
}

impl Group {
    /// Offsets that wait, in all partitions.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.partitions.iter().map(Waiting::lag).sum()
    }

    /// The timestamp of the oldest record that waits.
    #[must_use]
    pub fn since_ms(&self) -> Option<i64> {
        self.partitions.iter().filter_map(|of| of.since_ms).min()
    }

    /// All groups of a Kafka, or those of these names, in their order.
    ///
    /// # Errors
    /// Kafka does not answer, or has no group of such a name.
    pub fn all(kafka: &Kafka, names: &[String]) -> Result<Vec<Self>, Error> {
        let consumer = kafka.consumer("millstream-groups")?;
        let topics = kafka.topics(&consumer)?;
        let found = consumer
            .fetch_group_list(None, ASK_TIMEOUT)
            .map_err(|error| Error::failed("ask for the consumer groups", describe(&error)))?;
        let mut known: Vec<&GroupInfo> = found.groups().iter().collect();
        known.sort_by_key(|group| group.name());
        for name in names {
            if !known.iter().any(|group| group.name() == name) {
                let all: Vec<&str> = known.iter().map(|group| group.name()).collect();
                let allowed = format!("a group of this Kafka: {}", all.join(", "));
                return Err(Error::option("GROUP", name, allowed));
            }
        }
        let mut groups = Vec::new();
        for group in known {
            if !names.is_empty() && !names.iter().any(|name| name == group.name()) {
                continue;
            }
            let member = |member: &rdkafka::groups::GroupMemberInfo| {
                (
                    member.client_id().to_owned(),
                    member.client_host().to_owned(),
                )
            };
            groups.push(Self {
                name: group.name().to_owned(),
                state: group.state().to_owned(),
                members: group.members().iter().map(member).collect(),
                partitions: waiting(kafka, group.name(), &topics)?,
            });
        }
        Ok(groups)
    }
}

fn waiting(
    kafka: &Kafka,
    group: &str,
    topics: &crate::kafka::Topics,
) -> Result<Vec<Waiting>, Error> {
    let failed =
        |doing: &str, cause: String| Error::failed(format!("{doing} of the group {group}"), cause);
    let consumer = kafka.consumer(group)?;
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in topics {
        for partition in partitions {
            all.add_partition(topic, *partition);
        }
    }
    let committed = consumer
        .committed_offsets(all, ASK_TIMEOUT)
        .map_err(|error| failed("ask for the offsets", describe(&error)))?;
    let mut rows = Vec::new();
    for element in committed.elements() {
        let Offset::Offset(committed) = element.offset() else {
            continue;
        };
        let (topic, partition) = (element.topic(), element.partition());
        let (start, end) = consumer
            .fetch_watermarks(topic, partition, ASK_TIMEOUT)
            .map_err(|error| failed("ask where the partitions end", describe(&error)))?;
        rows.push(Waiting {
            topic: topic.to_owned(),
            partition,
            committed,
            end: end.max(committed),
            lost: (start - committed).max(0),
            since_ms: None,
        });
    }
    read_oldest(kafka, &mut rows)?;
    Ok(rows)
}

/// Fills in when the oldest records that wait were written, by reading them.
fn read_oldest(kafka: &Kafka, rows: &mut [Waiting]) -> Result<(), Error> {
    let mut list = TopicPartitionList::new();
    for row in rows.iter().filter(|row| row.lag() > row.lost) {
        let first = Offset::Offset(row.committed + row.lost);
        list.add_partition_offset(&row.topic, row.partition, first)
            .map_err(|error| Error::failed("read what waits", error))?;
    }
    let mut left = list.count();
    if left == 0 {
        return Ok(());
    }
    let consumer: BaseConsumer<Heard> = kafka.consumer("millstream-groups")?;
    consumer
        .assign(&list)
        .map_err(|error| Error::failed("read what waits", describe(&error)))?;
    let deadline = std::time::Instant::now() + READ_TIMEOUT;
    while left > 0 && std::time::Instant::now() < deadline {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let (topic, partition) = (message.topic(), message.partition());
                let row = rows
                    .iter_mut()
                    .find(|row| row.topic == topic && row.partition == partition);
                let Some(row) = row.filter(|row| row.since_ms.is_none()) else {
                    continue;
                };
                row.since_ms = message.timestamp().to_millis();
                left -= 1;
                let mut read = TopicPartitionList::new();
                read.add_partition(topic, partition);
                if let Err(error) = consumer.pause(&read) {
                    tracing::debug!(%error, "a partition that was read cannot be paused");
                }
            }
            // Only marks of transactions wait there.
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => {
                return Err(Error::failed("read what waits", describe(&error)));
            }
            Some(Err(error)) => tracing::debug!(%error, "while reading"),
            None => {}
        }
    }
    Ok(())
}

/// Partitions of the later look in which something waits and the group has not moved since the earlier one.
#[must_use]
pub fn stuck<'g>(earlier: &[Group], later: &'g [Group]) -> Vec<(&'g str, &'g Waiting)> {
    let before = |group: &Group, row: &Waiting| {
        let same = earlier.iter().find(|other| other.name == group.name)?;
        let mut rows = same.partitions.iter();
        rows.find(|other| (&other.topic, other.partition) == (&row.topic, row.partition))
            .map(|row| row.committed)
    };
    let mut found = Vec::new();
    for group in later {
        for row in &group.partitions {
            if row.lag() > 0 && before(group, row) == Some(row.committed) {
                found.push((group.name.as_str(), row));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(rows: &[(i32, i64, i64)]) -> Group {
        Group {
            name: "g".to_owned(),
            state: "Stable".to_owned(),
            members: Vec::new(),
            partitions: rows
                .iter()
                .map(|&(partition, committed, end)| Waiting {
                    topic: "t".to_owned(),
                    partition,
                    committed,
                    end,
                    lost: 0,
                    since_ms: None,
                })
                .collect(),
        }
    }

    #[test]
    fn stuck_is_what_has_something_and_does_not_move() {
        let earlier = [group(&[(0, 5, 9), (1, 5, 9), (2, 9, 9), (3, 5, 9)])];
        let later = [group(&[(0, 5, 12), (1, 8, 12), (2, 9, 9), (4, 0, 3)])];
        let found: Vec<i32> = stuck(&earlier, &later)
            .iter()
            .map(|(_, row)| row.partition)
            .collect();
        assert_eq!(found, [0]);
        assert_eq!(later[0].lag(), 7 + 4 + 3);
    }
}
