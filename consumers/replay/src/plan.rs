//! Which offsets of which partitions a replay reads, resolved before it starts, and what retention took of them.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::kafka::{ASK_TIMEOUT, Heard, describe};
use crate::moment::{Bounds, Moment, timestamp};
use crate::{Error, Kafka};

/// Offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset to read.
    pub first: i64,
    /// The offset after the last one to read.
    pub end: i64,
}

impl Span {
    /// Offsets in it. There are fewer records where a topic is compacted or was written in transactions.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.end - self.first).unwrap_or(0)
    }
}

/// What a replay reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The spans, by topic and partition. Those of partitions with nothing to read are empty.
    pub spans: Vec<Span>,
    /// What the operator should know before it starts, for example what retention took.
    pub notes: Vec<String>,
}

impl Plan {
    /// Resolves `from` and `to` for every partition of `topics` as they are now.
    ///
    /// # Errors
    /// An unknown topic or partition, an offset or a time that does not exist yet, or Kafka does not answer.
    pub fn resolve(
        kafka: &Kafka,
        topics: &[String],
        from: &Bounds,
        to: &Bounds,
        now_ms: i64,
    ) -> Result<Self, Error> {
        for moment in from.moments() {
            if let Moment::Time(ms) = moment
                && ms > now_ms
            {
                return Err(Error::option(
                    "--from",
                    timestamp(ms),
                    format!("a time that has been; it is {}", timestamp(now_ms)),
                ));
            }
        }
        let consumer = kafka.consumer("millstream-replay")?;
        let logs = logs(kafka, &consumer, topics, &[from, to])?;
        let starts = resolve(&consumer, &logs, from)?;
        let ends = resolve(&consumer, &logs, to)?;
        let mut plan = Self::default();
        for ((log, start), end) in logs.iter().zip(starts).zip(ends) {
            plan.add(log, from, start, to, end);
        }
        plan.spans
            .sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if let Some(log) = logs.iter().max_by_key(|log| log.end)
            && let Some(asked) = from.moments().find_map(|moment| match moment {
                Moment::Offset(offset) if offset > log.end => Some(offset),
                _ => None,
            })
        {
            return Err(Error::option(
                "--from",
                asked,
                format!(
                    "an offset that exists; the longest partition, {}/{}, ends at {}",
                    log.topic, log.partition, log.end
                ),
            ));
        }
        Ok(plan)
    }

    fn add(&mut self, log: &Log, from: &Bounds, start: i64, to: &Bounds, end: i64) {
        let place = format!("{}/{}", log.topic, log.partition);
        match from.of(log.partition) {
            Moment::Offset(asked) if asked < log.start => self.notes.push(format!(
                "{place} is truncated: retention took offsets {asked} to {}, {} of those asked for",
                log.start - 1,
                log.start - asked
            )),
            Moment::Time(ms) if log.start > 0 && start == log.start => self.notes.push(format!(
                "{place} may be truncated: what is left of it begins at offset {}, younger than {}",
                log.start,
                timestamp(ms)
            )),
            _ => {}
        }
        if let Moment::Offset(asked) = to.of(log.partition)
            && asked > log.end
        {
            self.notes.push(format!(
                "{place} ends at offset {}, before the {asked} of --to",
                log.end
            ));
        }
        let first = start.clamp(log.start, log.end);
        let end = end.clamp(first, log.end);
        self.spans.push(Span {
            topic: log.topic.clone(),
            partition: log.partition,
            first,
            end,
        });
    }

    /// Offsets in all spans: no replay has more records.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.spans.iter().map(Span::offsets).sum()
    }
}

/// What is there of a partition.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The offset of the oldest record that is left.
    pub(crate) start: i64,
    /// The offset that the next record will have.
    pub(crate) end: i64,
}

/// Looks the partitions of `topics` up.
pub(crate) fn logs(
    kafka: &Kafka,
    consumer: &BaseConsumer<Heard>,
    topics: &[String],
    bounds: &[&Bounds],
) -> Result<Vec<Log>, Error> {
    let known = kafka.topics(consumer)?;
    let mut logs = Vec::new();
    for topic in topics {
        let Some(partitions) = known.get(topic) else {
            let names: Vec<&str> = known
                .keys()
                .map(String::as_str)
                .filter(|name| !name.starts_with("__"))
                .collect();
            return Err(Error::option(
                "TOPIC",
                topic,
                format!("a topic of this Kafka: {}", names.join(", ")),
            ));
        };
        for partition in bounds.iter().flat_map(|bounds| bounds.partitions()) {
            if !partitions.contains(&partition) {
                return Err(Error::option(
                    "--from or --to for partition",
                    partition,
                    format!("0 to {}: {topic} has no other", partitions.len() - 1),
                ));
            }
        }
        for &partition in partitions {
            let (start, end) = consumer
                .fetch_watermarks(topic, partition, ASK_TIMEOUT)
                .map_err(|error| {
                    Error::failed(
                        format!("ask where {topic}/{partition} begins and ends"),
                        describe(&error),
                    )
                })?;
            logs.push(Log {
                topic: topic.clone(),
                partition,
                start,
                end,
            });
        }
    }
    Ok(logs)
}

/// The offsets that `bounds` mean in `logs`. Offsets are as they were given, also where there is nothing.
pub(crate) fn resolve(
    consumer: &BaseConsumer<Heard>,
    logs: &[Log],
    bounds: &Bounds,
) -> Result<Vec<i64>, Error> {
    let mut times = TopicPartitionList::new();
    for log in logs {
        if let Moment::Time(ms) = bounds.of(log.partition) {
            times
                .add_partition_offset(&log.topic, log.partition, Offset::Offset(ms))
                .map_err(|error| Error::failed("ask for a time", error))?;
        }
    }
    let found = if times.count() > 0 {
        consumer
            .offsets_for_times(times, ASK_TIMEOUT)
            .map_err(|error| Error::failed("ask Kafka for a time", describe(&error)))?
    } else {
        times
    };
    logs.iter()
        .map(|log| match bounds.of(log.partition) {
            Moment::Earliest => Ok(log.start),
            Moment::Latest => Ok(log.end),
            Moment::Offset(offset) => Ok(offset),
            Moment::Time(_) => {
                let failed = |cause: String| {
                    let doing = format!("ask {}/{} for a time", log.topic, log.partition);
                    Error::failed(doing, cause)
                };
                let element = found
                    .find_partition(&log.topic, log.partition)
                    .ok_or_else(|| failed("no answer".to_owned()))?;
                element.error().map_err(|error| failed(describe(&error)))?;
                match element.offset() {
                    Offset::Offset(offset) => Ok(offset),
                    // No record is as young as that.
                    _ => Ok(log.end),
                }
            }
        })
        .collect()
}
