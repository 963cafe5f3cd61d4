//! Where a node begins to read the downlink topic.
//!
//! Where it stopped, if Kafka knows; a node that Kafka does not know begins at the end, and that is committed at once, so
//! that what is appended while it restarts for the first time is not skipped. A partition that is new to a node which
//! Kafka knows is read from its beginning: it was added while the node was away.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::ledger::Positions;

/// Reads the positions of the group in every partition of `topic`, and makes them firm.
pub(super) fn begin<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Positions> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions(consumer, topic, timeout)? {
        asked.add_partition(topic, partition);
    }
    if asked.count() == 0 {
        return Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ));
    }
    let committed = consumer.committed_offsets(asked, timeout)?;
    let mut known = Vec::new();
    for element in committed.elements() {
        element.error()?;
        known.push((
            element.partition(),
            match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            },
        ));
    }
    let new_node = known.iter().all(|(_, offset)| offset.is_none());
    let mut positions = Positions::new();
    for (partition, offset) in known {
        let offset = match offset {
            Some(offset) => offset,
            None if new_node => consumer.fetch_watermarks(topic, partition, timeout)?.1,
            None => consumer.fetch_watermarks(topic, partition, timeout)?.0,
        };
        positions.insert(partition, offset);
    }
    if new_node {
        consumer.commit(&list(topic, &positions)?, CommitMode::Sync)?;
        tracing::info!(
            topic,
            "a new node: the downlink begins at the end of the topic"
        );
    }
    Ok(positions)
}

/// The partitions that `topic` has now.
pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let topics = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic);
    Ok(topics
        .flat_map(|found| found.partitions())
        .map(|partition| partition.id())
        .collect())
}

/// Positions as librdkafka wants them.
pub(super) fn list(topic: &str, positions: &Positions) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, offset) in positions {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
