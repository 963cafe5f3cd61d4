//! The dead letters of the downlink: records that are no messages, with key, value and headers as they were, and with
//! headers that say where they were and why they are here.
//!
//! Every node reads every record, and one letter is enough. So the nodes are members of one consumer group, which gives
//! each partition of the topic to one of them, and that one writes its letters; how far it has come is the group's
//! committed offset, from which another goes on. As members they read nothing: what is broken the node's reader has seen
//! ([`super::seen`]), and only that, and what it was not there to see, is read once more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker::Time;
use envelope::dead_letter::DeadLetter;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Message as _, Offset};

use super::decode::{self, Malformed};
use super::ledger::Positions;
use super::seen::{Plan, Seen};
use super::wakes::close;
use super::{Counters, WARN_PAUSE, count, position};
use crate::config::Config;
use crate::error::StartError;
use crate::{kafka, letters};

/// The step that failed, in Kafka Connect's words.
const STAGE: &str = "VALUE_CONVERTER";
/// Between two looks; also how long the end may take.
const LOOK: Duration = Duration::from_millis(200);
/// Between two times that Kafka is told how far a partition is sound.
const COMMIT_PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts after one that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Letters that are written before it is noted that they are, and their payloads.
const LETTERS_MAX: usize = 500;
const LETTERS_BYTES_MAX: usize = 16 << 20;
/// Records that are looked at before the same.
const RECORDS_MAX: usize = 10_000;

/// What librdkafka says while it does this.
#[derive(Default)]
pub(super) struct Quiet {
    /// Letters of which Kafka said no, by their place in their batch.
    refused: Mutex<Vec<(RDKafkaErrorCode, usize)>>,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka, about the downlink's dead letters");
    }
}

impl ConsumerContext for Quiet {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let _ = consumer.pause(partitions);
        }
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.push((code, place));
        }
    }
}

/// The running thread.
pub(super) struct Letters {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Letters {
    pub(super) fn start(
        config: &Config,
        seen: &Arc<Seen>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let client_error = |error: KafkaError| StartError::Client(error.to_string());
        let topic = &config.downlink.topic;
        let group = format!("millstream-letters-{topic}");
        let member = kafka::letters_member(config, &group);
        let member = BaseConsumer::from_config_and_context(&member, Quiet::default())
            .map_err(client_error)?;
        member.subscribe(&[topic]).map_err(client_error)?;
        let stop = Arc::new(AtomicBool::new(false));
        let writing = Writing {
            writer: Writer {
                client: kafka::letter_producer(config),
                topic: config.downlink.dead_letter_topic.clone(),
                group: config.downlink_group(),
                producer: None,
            },
            reader: kafka::letters_reader(config, &group),
            topic: topic.clone(),
            member,
            seen: Arc::clone(seen),
            counters: Arc::clone(counters),
            stop: Arc::clone(&stop),
            own: BTreeMap::new(),
            told: Positions::new(),
            told_at: Instant::now(),
            retry_at: Instant::now(),
            warned_at: None,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-letters".to_owned())
            .spawn(move || writing.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Asks the thread to end: what it has not written the next owner of the partition writes. Dropping it waits for that.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// That nobody writes them here any more.
    pub(super) fn problem(&self) -> Option<String> {
        let has_died = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        has_died.then(|| {
            "broken records of the downlink may get no dead letter (the thread that writes them panicked): start the \
             node again"
                .to_owned()
        })
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the downlink's dead letters panicked");
        }
    }
}

/// What the thread works with.
struct Writing {
    member: BaseConsumer<Quiet>,
    writer: Writer,
    reader: ClientConfig,
    topic: String,
    seen: Arc<Seen>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    /// Partitions that are this node's matter, and up to where they are done; nobody knows that of a new one.
    own: BTreeMap<i32, Option<i64>>,
    /// What Kafka was told of that.
    told: Positions,
    told_at: Instant,
    retry_at: Instant,
    warned_at: Option<Instant>,
}

impl Writing {
    fn run(mut self) {
        let mut more = false;
        while !self.stopping() {
            // This serves the group's protocol: nothing is read.
            drop(self.member.poll(if more { Duration::ZERO } else { LOOK }));
            if Instant::now() < self.retry_at {
                continue;
            }
            more = self.look().unwrap_or_else(|reason| {
                self.retry_at = Instant::now() + RETRY_PAUSE;
                self.warn(&reason);
                false
            });
        }
        if let Err(error) = self.tell() {
            tracing::debug!(%error, "how far dead letters are written");
        }
        close(self.member);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Does a piece of work at each partition. Returns whether there is more.
    fn look(&mut self) -> Result<bool, String> {
        self.look_at_own().map_err(|error| error.to_string())?;
        let partitions: Vec<i32> = self.own.keys().copied().collect();
        let mut more = false;
        for partition in partitions {
            more |= !self.stopping() && self.go_on(partition)?;
        }
        if self.told_at.elapsed() >= COMMIT_PAUSE {
            self.tell().map_err(|error| error.to_string())?;
        }
        Ok(more)
    }

    /// Which partitions are this node's matter now, and of new ones, how far they are done.
    fn look_at_own(&mut self) -> KafkaResult<()> {
        let given = self.member.assignment()?;
        let mut new = rdkafka::TopicPartitionList::new();
        let mut own = BTreeMap::new();
        for element in given.elements() {
            let partition = element.partition();
            match self.own.get(&partition) {
                Some(next) => {
                    own.insert(partition, *next);
                }
                None => {
                    new.add_partition(&self.topic, partition);
                }
            }
        }
        self.told.retain(|partition, _| own.contains_key(partition));
        self.own = own;
        if new.count() == 0 {
            return Ok(());
        }
        for element in self
            .member
            .committed_offsets(new, ANSWER_TIMEOUT)?
            .elements()
        {
            element.error()?;
            let next = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            self.own.insert(element.partition(), next);
        }
        Ok(())
    }

    /// Does the next piece of work at a partition. Returns whether there may be more.
    fn go_on(&mut self, partition: i32) -> Result<bool, String> {
        let known = self.own.get(&partition).copied().flatten();
        // The first node ever begins with what it reads itself.
        let Some(next) = known.or_else(|| self.seen.from(partition)) else {
            return Ok(false);
        };
        if known.is_none() {
            // Should the partition be given to another right away, that one shall begin there, too.
            self.own.insert(partition, Some(next));
            self.tell().map_err(|error| error.to_string())?;
        }
        let done = match self.seen.plan(partition, next) {
            Plan::Nothing => return Ok(false),
            Plan::Sound(to) => to,
            Plan::Look(from, to) => self.look_again(partition, from, to)?,
        };
        self.own.insert(partition, Some(done));
        Ok(true)
    }

    /// Reads what lies between two offsets and writes the letters of what is broken there. Returns up to where it came.
    fn look_again(&mut self, partition: i32, from: i64, to: i64) -> Result<i64, String> {
        let describe = |error: KafkaError| kafka::describe(&error);
        let reader = BaseConsumer::from_config_and_context(&self.reader, Quiet::default())
            .map_err(describe)?;
        position::list(&self.topic, &Positions::from([(partition, from)]))
            .and_then(|list| reader.assign(&list))
            .map_err(describe)?;
        let (mut next, mut broken, mut bytes, mut records) = (from, Vec::new(), 0, 0);
        let mut came_at = Instant::now();
        let is_enough = |letters, bytes, records| {
            letters >= LETTERS_MAX || bytes >= LETTERS_BYTES_MAX || records >= RECORDS_MAX
        };
        while next < to && !is_enough(broken.len(), bytes, records) && !self.stopping() {
            match reader.poll(LOOK) {
                Some(Ok(record)) if record.offset() >= to => next = to,
                Some(Ok(record)) => {
                    next = record.offset() + 1;
                    records += 1;
                    came_at = Instant::now();
                    if let Some(letter) = Letter::of(&record) {
                        bytes += record.payload_len();
                        broken.push(letter);
                    }
                }
                // The log ends before: what was there is gone.
                Some(Err(KafkaError::PartitionEOF(_))) => next = to,
                Some(Err(error)) => return Err(describe(error)),
                None if came_at.elapsed() < ANSWER_TIMEOUT => {}
                None if records > 0 => break,
                None => return Err(format!("{}/{partition} cannot be read", self.topic)),
            }
        }
        if broken.is_empty() {
            return Ok(next);
        }
        let written = self.writer.write(&self.topic, partition, broken)?;
        count(&self.counters.dead_lettered, written);
        self.own.insert(partition, Some(next));
        // Whoever comes after this node shall not write them again.
        self.tell().map_err(describe)?;
        Ok(next)
    }

    /// Tells Kafka how far the partitions are done.
    fn tell(&mut self) -> KafkaResult<()> {
        self.told_at = Instant::now();
        let mut news = Positions::new();
        for (partition, next) in &self.own {
            if let Some(next) = next
                && self.told.get(partition) != Some(next)
            {
                news.insert(*partition, *next);
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let list = position::list(&self.topic, &news)?;
        self.member.commit(&list, CommitMode::Async)?;
        self.told.extend(news);
        Ok(())
    }

    fn warn(&mut self, reason: &str) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(
                reason,
                "dead letters of the downlink wait: the records stay where they are"
            );
        }
    }
}

/// A broken record.
struct Letter {
    offset: i64,
    key: Option<Box<[u8]>>,
    payload: Option<Box<[u8]>>,
    headers: Vec<(String, Option<Box<[u8]>>)>,
    class: &'static str,
    reason: String,
}

impl Letter {
    /// Of a record that is no message. Whether one has expired since is no matter here.
    fn of(record: &BorrowedMessage<'_>) -> Option<Self> {
        let headers = decode::headers(record.headers());
        let malformed = match &headers {
            Ok(headers) => {
                let decoded = decode::record(record, headers);
                let then = decoded.timestamp_ms.and_then(|ms| u64::try_from(ms).ok());
                decode::decode(decoded, Time(0), then.unwrap_or_default()).err()?
            }
            Err(_) => Malformed::HeaderName,
        };
        let own = |(name, value): &decode::Header<'_>| ((*name).to_owned(), value.map(Box::from));
        Some(Self {
            offset: record.offset(),
            key: record.key().map(Box::from),
            payload: record.payload().map(Box::from),
            headers: headers.iter().flatten().map(own).collect(),
            class: malformed.class(),
            reason: malformed.to_string(),
        })
    }
}

/// Writes letters. The producer is made when the first one comes, and anew when something went wrong with it.
struct Writer {
    client: ClientConfig,
    topic: String,
    group: String,
    producer: Option<BaseProducer<Quiet>>,
}

impl Writer {
    /// Writes all of them, or says why some are not in Kafka: then they are to be written again. Returns how many are
    /// there; one that Kafka takes in no form is told of in the log.
    fn write(
        &mut self,
        topic: &str,
        partition: i32,
        mut letters: Vec<Letter>,
    ) -> Result<u64, String> {
        let mut written = 0;
        while !letters.is_empty() {
            let all = letters.len();
            let refused = self.write_once(topic, partition, &letters)?;
            let mut again = Vec::new();
            let mut taken: BTreeMap<usize, Letter> = letters.into_iter().enumerate().collect();
            for (code, place) in &refused {
                let Some(mut letter) = taken.remove(place) else {
                    continue;
                };
                let payload = letter.payload.as_deref().unwrap_or_default();
                if !kafka::is_too_large(*code) {
                    self.producer = None;
                    return Err(code.to_string());
                }
                if letters::is_long(payload) {
                    let (left, reason) = letters::shorten(payload, &letter.reason);
                    (letter.payload, letter.reason) = (Some(left.into()), reason);
                    again.push(letter);
                } else {
                    let offset = letter.offset;
                    tracing::error!(topic, partition, offset, %code, "Kafka takes no dead letter of this record");
                }
            }
            written += all.saturating_sub(refused.len()) as u64;
            letters = again;
        }
        Ok(written)
    }

    /// Offers each to Kafka. Returns those that it refused, by their places.
    fn write_once(
        &mut self,
        topic: &str,
        partition: i32,
        letters: &[Letter],
    ) -> Result<Vec<(RDKafkaErrorCode, usize)>, String> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => BaseProducer::from_config_and_context(&self.client, Quiet::default())
                .map_err(|error| error.to_string())?,
        };
        let mut refused = Vec::new();
        for (place, letter) in letters.iter().enumerate() {
            let mut record: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(&self.topic, place)
                    .headers(self.headers(topic, partition, letter));
            record.key = letter.key.as_deref();
            record.payload = letter.payload.as_deref();
            while let Err((error, back)) = producer.send(record) {
                match error {
                    KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                        flush(&producer)?;
                        record = back;
                    }
                    KafkaError::MessageProduction(code) => {
                        refused.push((code, place));
                        break;
                    }
                    error => return Err(error.to_string()),
                }
            }
        }
        flush(&producer)?;
        let mut of_kafka = producer
            .context()
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refused.append(&mut of_kafka);
        drop(of_kafka);
        self.producer = Some(producer);
        Ok(refused)
    }

    fn headers(&self, topic: &str, partition: i32, letter: &Letter) -> OwnedHeaders {
        let own = letter
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        let what = DeadLetter {
            topic,
            partition,
            offset: Some(letter.offset),
            group: &self.group,
            stage: STAGE,
            class: letter.class,
            message: &letter.reason,
        };
        letters::headers(own, &what)
    }
}

/// Waits until Kafka has said of each letter whether it has it.
fn flush(producer: &BaseProducer<Quiet>) -> Result<(), String> {
    producer.flush(ANSWER_TIMEOUT).map_err(|error| {
        producer.purge(PurgeConfig::default().queue().inflight());
        kafka::describe(&error)
    })
}
