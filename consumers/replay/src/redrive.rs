//! Dead letters put back: each as a copy in the topic that it came from, with a mark beside it that it was, in one transaction.
//!
//! A copy names as its origin the record that was given up, and as its target the group that gave it up: that group takes it, and
//! whoever had the effect of the record does not have it again. See [`envelope::replay`].

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use envelope::dead_letter;
use envelope::replay::{ATTEMPTS, ORIGIN, Origin, REPLAY_ID, TARGET_GROUP};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{Message, consumer::Consumer};
use serde_json::json;

use crate::kafka::describe;
use crate::letters::{self, Letter, REDRIVEN_TOPIC, Wanted};
use crate::line::Line;
use crate::transactions::{Transactions, add};
use crate::{Error, Kafka};

/// Letters of one transaction.
const BATCH_MAX: u64 = 1_000;
/// How long it may take to read the record that a letter is of.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one wait for it takes.
const POLL: Duration = Duration::from_millis(100);

/// What is put back, and how.
#[derive(Debug, Clone, Default)]
pub struct Redrive {
    /// The topic of the letters.
    pub topic: String,
    /// Which of them.
    pub wanted: Wanted,
    /// The topic that they go to; the one that each came from, where it is `None`.
    pub to: Option<String>,
    /// What stands in place of the payload; for one letter.
    pub payload: Option<Vec<u8>>,
    /// Also letters that were put back before.
    pub again: bool,
    /// Most letters that are put back.
    pub limit: Option<u64>,
}

/// What became of the letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Put back.
    pub written: u64,
    /// Put back before, and left alone.
    pub before: u64,
    /// Their payload is only in the record that they are of, and that is gone.
    pub lost: u64,
}

impl Redrive {
    /// Counts what [`run`](Self::run) would do.
    ///
    /// # Errors
    /// No such topic, or Kafka fails.
    pub fn count(&self, kafka: &Kafka, stop: &AtomicBool) -> Result<Redriven, Error> {
        let done = letters::redriven(kafka, &self.topic, stop)?;
        let mut counts = Redriven::default();
        letters::each(kafka, &self.topic, stop, |record| {
            if let Some(letter) = Letter::of(record)
                && self.wanted.takes(record, &letter)
            {
                if done.contains(&(record.partition, record.offset)) && !self.again {
                    counts.before += 1;
                } else {
                    counts.written += 1;
                }
            }
            Ok(counts.written < self.limit.unwrap_or(u64::MAX))
        })?;
        Ok(counts)
    }

    /// Puts the letters back. After a kill, what was finished is marked, and the same command does the rest.
    ///
    /// # Errors
    /// No such topic, or Kafka fails; what was finished stays.
    pub fn run(&self, kafka: &Kafka, id: &str, stop: &AtomicBool) -> Result<Redriven, Error> {
        kafka.make_topic(REDRIVEN_TOPIC, ("cleanup.policy", "compact"))?;
        // First: whoever else puts letters of this topic back can finish nothing from here on, so the marks are all of them.
        let mut transactions =
            Transactions::open(kafka, &format!("millstream-dlq-{}", self.topic))?;
        let known = kafka.topics(&kafka.consumer("millstream-dlq")?)?;
        let done = letters::redriven(kafka, &self.topic, stop)?;
        let mut counts = Redriven::default();
        let mut in_batch = 0;
        let read = letters::each(kafka, &self.topic, stop, |record| {
            let Some(letter) = Letter::of(record) else {
                return Ok(true);
            };
            if !self.wanted.takes(record, &letter) {
                return Ok(true);
            }
            if done.contains(&(record.partition, record.offset)) && !self.again {
                counts.before += 1;
                return Ok(true);
            }
            let topic = self.to.as_deref().unwrap_or(letter.topic);
            if !known.contains_key(topic) {
                return Err(Error::failed(
                    format!("put {}/{} back", record.partition, record.offset),
                    format!("Kafka has no topic {topic}; make it, or name another with --to-topic"),
                ));
            }
            let fetched = match (&self.payload, letter.truncated) {
                (Some(payload), _) => Some(Some(payload.clone())),
                (None, true) => match fetch(kafka, &letter)? {
                    None => {
                        counts.lost += 1;
                        return Ok(true);
                    }
                    found => found,
                },
                (None, false) => None,
            };
            let payload = match &fetched {
                Some(payload) => payload.as_deref(),
                None => record.value,
            };
            transactions.begin()?;
            put_back(&transactions, id, topic, record, &letter, payload)?;
            counts.written += 1;
            in_batch += 1;
            if in_batch >= BATCH_MAX {
                in_batch = 0;
                transactions.commit(None).map_err(not_finished)?;
            }
            Ok(counts.written < self.limit.unwrap_or(u64::MAX))
        });
        if let Err(error) = read {
            transactions.abort();
            return Err(error);
        }
        if transactions.is_open() {
            transactions.commit(None).map_err(not_finished)?;
        }
        Ok(counts)
    }
}

fn not_finished(why: String) -> Error {
    Error::failed("put a batch of letters back (none of it is there)", why)
}

/// One letter, and the mark that it was.
fn put_back(
    transactions: &Transactions,
    id: &str,
    topic: &str,
    record: &Line<'_>,
    letter: &Letter<'_>,
    payload: Option<&[u8]>,
) -> Result<(), Error> {
    let place = Origin {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
    };
    let what = format!("put {place} back");
    let origin = match letter.offset {
        Some(offset) => Origin {
            topic: letter.topic,
            partition: letter.partition,
            offset,
        },
        // Kafka never had it.
        None => place,
    };
    let (origin, attempts) = (origin.to_string(), (letter.attempts + 1).to_string());
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    let is_ours = |name: &str| {
        dead_letter::is_header(name) || [REPLAY_ID, ORIGIN, TARGET_GROUP, ATTEMPTS].contains(&name)
    };
    for &(name, value) in record.headers.iter().filter(|(name, _)| !is_ours(name)) {
        add(&mut headers, name, value);
    }
    add(&mut headers, REPLAY_ID, Some(id.as_bytes()));
    add(&mut headers, ORIGIN, Some(origin.as_bytes()));
    add(&mut headers, ATTEMPTS, Some(attempts.as_bytes()));
    if letter.offset.is_some() {
        add(&mut headers, TARGET_GROUP, Some(letter.group.as_bytes()));
    }
    let mut copy = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
    copy.key = record.key;
    copy.payload = payload;
    copy.timestamp = record.timestamp_ms;
    transactions.send(copy, &what)?;
    let key = place.to_string();
    let value = json!({"replay": id, "topic": topic, "attempts": letter.attempts + 1}).to_string();
    let mark = BaseRecord::<[u8], [u8]>::to(REDRIVEN_TOPIC)
        .key(key.as_bytes())
        .payload(value.as_bytes());
    transactions.send(mark, &what)
}

/// The value of the record that a letter is of: `None` when Kafka has it no longer, or never had it.
pub fn fetch(kafka: &Kafka, letter: &Letter<'_>) -> Result<Option<Option<Vec<u8>>>, Error> {
    let Some(offset) = letter.offset else {
        return Ok(None);
    };
    let (topic, partition) = (letter.topic, letter.partition);
    let doing = || format!("read {topic}/{partition} at {offset}");
    let consumer = kafka.consumer("millstream-dlq")?;
    if !kafka.topics(&consumer)?.contains_key(topic) {
        return Ok(None);
    }
    let (start, end) = consumer
        .fetch_watermarks(topic, partition, FETCH_TIMEOUT)
        .map_err(|error| Error::failed(doing(), describe(&error)))?;
    if !(start..end).contains(&offset) {
        return Ok(None);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .map_err(|error| Error::failed(doing(), describe(&error)))?;
    consumer
        .assign(&list)
        .map_err(|error| Error::failed(doing(), describe(&error)))?;
    let deadline = Instant::now() + FETCH_TIMEOUT;
    while Instant::now() < deadline {
        match consumer.poll(POLL) {
            // One behind it: compaction took it.
            Some(Ok(message)) if message.offset() != offset => return Ok(None),
            Some(Ok(message)) => return Ok(Some(message.payload().map(<[u8]>::to_vec))),
            Some(Err(error)) => tracing::debug!(%error, "while reading"),
            None => {}
        }
    }
    Err(Error::failed(doing(), "Kafka does not answer"))
}
