//! Where a node begins to read the downlink topic.
//!
//! Where it stopped, if Kafka knows, and at the records before that which it still held for a subscriber. A node that Kafka
//! does not know begins with what was appended in the last while and is still of use: what expires and has not. That
//! beginning is committed at once, so that what is appended while it restarts for the first time is not skipped. A partition
//! that is new to a node which Kafka knows is read from its beginning: it was added while the node was away.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::ledger::Positions;
use super::mark::{Mark, Resumption};

/// Reads the positions of the group in every partition of `topic`, and makes them firm. A group that Kafka does not know
/// begins `lookback` ago.
pub(super) fn begin<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    lookback: Duration,
    timeout: Duration,
) -> KafkaResult<BTreeMap<i32, Resumption>> {
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
    let mut known = BTreeMap::new();
    for element in committed.elements() {
        element.error()?;
        let resumption = match element.offset() {
            Offset::Offset(offset) => Some(Resumption {
                offset,
                held: Mark::held(offset, element.metadata()),
                only_expiring: 0,
            }),
            _ => None,
        };
        known.insert(element.partition(), resumption);
    }
    if known.values().all(Option::is_none) {
        let partitions = known.into_keys();
        return begin_anew(consumer, topic, partitions, lookback, timeout);
    }
    let mut resumed = BTreeMap::new();
    for (partition, resumption) in known {
        let resumption = match resumption {
            Some(resumption) => resumption,
            None => Resumption {
                offset: consumer.fetch_watermarks(topic, partition, timeout)?.0,
                ..Resumption::default()
            },
        };
        resumed.insert(partition, resumption);
    }
    Ok(resumed)
}

fn begin_anew<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: impl Iterator<Item = i32>,
    lookback: Duration,
    timeout: Duration,
) -> KafkaResult<BTreeMap<i32, Resumption>> {
    let since = SystemTime::now() - lookback;
    let since_ms = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_ms = i64::try_from(since_ms.as_millis()).unwrap_or(i64::MAX);
    let (mut resumed, mut moments) = (BTreeMap::new(), TopicPartitionList::new());
    for partition in partitions {
        let end = consumer.fetch_watermarks(topic, partition, timeout)?.1;
        let resumption = Resumption {
            offset: end,
            only_expiring: end,
            ..Resumption::default()
        };
        resumed.insert(partition, resumption);
        moments.add_partition_offset(topic, partition, Offset::Offset(since_ms))?;
    }
    if !lookback.is_zero() {
        for element in consumer.offsets_for_times(moments, timeout)?.elements() {
            element.error()?;
            if let (Offset::Offset(offset), Some(resumption)) =
                (element.offset(), resumed.get_mut(&element.partition()))
            {
                resumption.offset = offset.min(resumption.offset);
            }
        }
    }
    let offsets = |resumed: &BTreeMap<i32, Resumption>| -> Positions {
        resumed
            .iter()
            .map(|(partition, resumption)| (*partition, resumption.offset))
            .collect()
    };
    consumer.commit(&list(topic, &offsets(&resumed))?, CommitMode::Sync)?;
    tracing::info!(
        topic,
        lookback_s = lookback.as_secs(),
        "a new node: the downlink begins with what expires, has not, and was appended in the last while"
    );
    Ok(resumed)
}

/// Where reading begins.
pub(super) fn first(resumed: &BTreeMap<i32, Resumption>) -> Positions {
    resumed
        .iter()
        .map(|(partition, resumption)| (*partition, resumption.from()))
        .collect()
}

/// What is committed, as librdkafka wants it.
pub(super) fn marks(topic: &str, marks: &BTreeMap<i32, Mark>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for (partition, mark) in marks {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(mark.offset))?;
        if !mark.metadata.is_empty() {
            element.set_metadata(&mark.metadata);
        }
    }
    Ok(list)
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
