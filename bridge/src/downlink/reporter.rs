//! Reports on their way to Kafka: the producer, made when the first one is asked for, and what it could not do.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use envelope::report::{Place, Report};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::reports::Told;
use super::{Counters, count};
use crate::clock;
use crate::config::Config;
use crate::kafka;

/// How long a lost report is a problem of the node.
const LOST_SHOWN: Duration = Duration::from_secs(60);

/// Between two looks at what Kafka has confirmed, which wakes nobody.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// When the last report was lost, and why.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<Option<(Instant, String)>>);

impl Lost {
    fn say(&self, cause: String) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .as_ref()
            .is_none_or(|(at, _)| at.elapsed() >= LOST_SHOWN)
        {
            tracing::error!(cause, "a report of the downlink is lost");
        }
        *last = Some((Instant::now(), cause));
    }

    /// That reports were lost a short while ago, in a sentence.
    pub(super) fn problem(&self, lost: u64) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, cause) = last.as_ref().filter(|(at, _)| at.elapsed() < LOST_SHOWN)?;
        Some(format!(
            "reports of the downlink were lost: {lost} since the start (the last: {cause}); who asked for them does not learn \
             what became of the messages"
        ))
    }
}

struct Confirmations {
    /// About which batches Kafka has a report now, or will never have it; see [`opaque`].
    done: Mutex<Vec<usize>>,
    counters: Arc<Counters>,
}

impl ClientContext for Confirmations {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the producer of reports");
    }
}

impl ProducerContext for Confirmations {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: usize) {
        match result {
            Ok(_) => count(&self.counters.reported, 1),
            Err((error, _)) => self.counters.report_lost(1, kafka::describe(error)),
        }
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(batch);
    }
}

impl Counters {
    /// Reports that nobody will get.
    fn report_lost(&self, reports: u64, cause: impl Into<String>) {
        count(&self.reports_lost, reports);
        self.lost.say(cause.into());
    }

    /// That reports were lost, in a sentence.
    pub(super) fn reports_problem(&self) -> Option<String> {
        self.lost.problem(self.reports_lost.load(Ordering::Relaxed))
    }
}

/// A batch as librdkafka carries it; 0 is none.
fn opaque(batch: Option<u64>) -> usize {
    let after = batch.map_or(0, |batch| batch + 1);
    usize::try_from(after).unwrap_or_default()
}

/// See the module.
pub(super) struct Reporter {
    config: Config,
    node: String,
    counters: Arc<Counters>,
    producer: Option<BaseProducer<Confirmations>>,
    unconfirmed: u64,
    /// When something last came of those that wait.
    moved_at: Instant,
}

impl Reporter {
    pub(super) fn new(config: &Config, counters: &Arc<Counters>) -> Self {
        Self {
            node: config.node_name(),
            config: config.clone(),
            counters: Arc::clone(counters),
            producer: None,
            unconfirmed: 0,
            moved_at: Instant::now(),
        }
    }

    /// Sends a report about a record of `batch`. True when it will be said of it that it is confirmed.
    pub(super) fn send(&mut self, told: &Told, batch: Option<u64>) -> bool {
        if self.producer.is_none() {
            let confirmations = Confirmations {
                done: Mutex::default(),
                counters: Arc::clone(&self.counters),
            };
            let client = kafka::report_producer(&self.config);
            match BaseProducer::from_config_and_context(&client, confirmations) {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => self.counters.report_lost(1, error.to_string()),
            }
        }
        let Some(producer) = &self.producer else {
            return false;
        };
        let downlink = &self.config.downlink;
        let value = self.report(told).to_json();
        let record = BaseRecord::with_opaque_to(&downlink.reports_topic, opaque(batch))
            .key(told.asked.topic.as_bytes())
            .payload(&value);
        match producer.send(record) {
            Ok(()) => {
                if self.unconfirmed == 0 {
                    self.moved_at = Instant::now();
                }
                self.unconfirmed += 1;
                true
            }
            Err((error, _)) => {
                self.counters.report_lost(1, kafka::describe(&error));
                false
            }
        }
    }

    /// Sends a report of what became later of a message that waited: one of many at most, for nothing waits for it.
    pub(super) fn send_later(&mut self, told: &Told) {
        if self.has_room() {
            self.send(told, None);
        } else {
            self.counters
                .report_lost(1, "Kafka has not confirmed those before it");
        }
    }

    /// So many messages wait in sessions of which will not be told how it ends.
    pub(super) fn untold(&self, messages: u64) {
        if messages > 0 {
            let cause = "more messages with a report wait in sessions than reports_waiting_max";
            self.counters.report_lost(messages, cause);
        }
    }

    fn report(&self, told: &Told) -> Report {
        let (partition, offset) = told.asked.at;
        Report {
            report: told.asked.correlation.to_string(),
            outcome: told.outcome,
            sessions: told.sessions,
            node: self.node.clone(),
            topic: told.asked.topic.to_string(),
            origin: Place {
                topic: self.config.downlink.topic.clone(),
                partition,
                offset,
            },
            at: clock::now_ms(),
        }
    }

    /// Whether more may wait for Kafka.
    pub(super) fn has_room(&self) -> bool {
        self.unconfirmed < u64::from(self.config.downlink.reports_waiting_max)
    }

    /// Whether some wait for Kafka.
    pub(super) fn waits(&self) -> bool {
        self.unconfirmed > 0
    }

    /// When to look again what Kafka has confirmed, while some wait for it: soon, and less and less often while nothing comes.
    pub(super) fn look_in(&self) -> Duration {
        (self.moved_at.elapsed() / 8).clamp(LOOK_MIN, LOOK_MAX)
    }

    /// Hears what Kafka has confirmed: for each report about a batch, the batch.
    pub(super) fn take_confirmed(&mut self) -> Vec<u64> {
        let Some(producer) = self.producer.as_ref().filter(|_| self.unconfirmed > 0) else {
            return Vec::new();
        };
        producer.poll(Duration::ZERO);
        let done = &producer.context().done;
        let done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
        if !done.is_empty() {
            self.moved_at = Instant::now();
        }
        self.unconfirmed -= done.len() as u64;
        let batches = done.into_iter().filter_map(|batch| batch.checked_sub(1));
        batches.map(|batch| batch as u64).collect()
    }
}
