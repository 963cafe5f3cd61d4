//! What becomes of messages that Kafka refused though they went alone: they wait for their topic, become dead letters, or
//! are refused to their publishers.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker::{Settlement, Token};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{Producer as _, PurgeConfig};

use super::Clients;
use crate::config::Config;
use crate::kafka;
use crate::lanes::Footing;
use crate::letters;
use crate::producer::{Errand, Held, Note, Producer, new_producer};
use crate::sink::KafkaSink;
use crate::suspicions::Suspicions;

/// Between two log lines about refused messages: a publisher can cause them as fast as it sends.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// A producer that is made when it is first needed, and anew when it failed.
struct Spare {
    client: ClientConfig,
    producer: Option<Arc<Producer>>,
}

impl Spare {
    fn new(client: &ClientConfig) -> Self {
        Self {
            client: client.clone(),
            producer: None,
        }
    }

    fn get(&mut self, suspicions: &Arc<Suspicions>) -> Option<Arc<Producer>> {
        if self.producer.is_none() {
            match new_producer(&self.client, suspicions) {
                Ok(producer) => self.producer = Some(Arc::new(producer)),
                Err(error) => {
                    tracing::error!(%error, "no producer could be made for what was refused")
                }
            }
        }
        self.producer.clone()
    }

    /// Whether it has failed for good. What it has comes back then.
    fn has_failed(&self) -> bool {
        let Some(producer) = &self.producer else {
            return false;
        };
        let events = producer.context();
        if !events.troubled.swap(false, Ordering::Relaxed) {
            return false;
        }
        let Some((code, reason)) = producer.client().fatal_error() else {
            return false;
        };
        tracing::error!(%code, reason, "the producer of what was refused has failed and is made anew");
        events.troubled.store(true, Ordering::Relaxed);
        producer.purge(PurgeConfig::default().queue().inflight());
        true
    }
}

/// See the module.
pub(super) struct Refusals {
    alone: Spare,
    letters: Spare,
    suspicions: Arc<Suspicions>,
    /// Dead letters whose topic is missing.
    waiting: VecDeque<Held>,
    missing_wait: Duration,
    warned_at: Option<Instant>,
}

impl Refusals {
    pub(super) fn new(config: &Config, clients: &Clients, suspicions: Arc<Suspicions>) -> Self {
        Self {
            alone: Spare::new(&clients.alone),
            letters: Spare::new(&clients.letters),
            suspicions,
            waiting: VecDeque::new(),
            missing_wait: Duration::from_secs(config.missing_topic_wait_s),
            warned_at: None,
        }
    }

    /// The producer of what goes alone.
    pub(super) fn alone(&mut self) -> Option<Arc<Producer>> {
        self.alone.get(&self.suspicions)
    }

    /// The producers that there are, to be polled.
    pub(super) fn producers(&self) -> Vec<Arc<Producer>> {
        let all = [&self.alone, &self.letters];
        all.iter()
            .filter_map(|spare| spare.producer.clone())
            .collect()
    }

    /// How messages may go through a gate now.
    pub(super) fn footing(&self, sink: &KafkaSink, number: usize) -> Footing {
        let topic = sink.lanes.partitions().name(number).0;
        let now = Instant::now();
        match sink.troubles.missing_for(topic, now) {
            Some(lasting) if lasting < self.missing_wait => Footing::Waits,
            Some(_) => Footing::Alone,
            None if sink.troubles.is_distrusted(topic, now) => Footing::Alone,
            None => Footing::Sound,
        }
    }

    /// What went alone was not stored. Returns it when it is to be tried again.
    pub(super) fn judge(
        &mut self,
        sink: &KafkaSink,
        code: RDKafkaErrorCode,
        mut held: Held,
        batch: &mut Vec<(Token, Settlement)>,
    ) -> Option<Held> {
        let now = Instant::now();
        let topic = sink.lanes.partitions().topic(held.note.topic);
        let waits =
            kafka::is_missing(code) && sink.troubles.is_missing(topic, now) < self.missing_wait;
        if waits || kafka::is_purged(code) {
            held.alone = true;
            return Some(held);
        }
        if !kafka::is_missing(code) {
            sink.troubles.refused(topic, code, now);
            if !kafka::is_too_large(code) {
                sink.lanes.shut(held.note.topic);
            }
        }
        if held.note.mute {
            let (topic, partition) = sink.lanes.partitions().name(held.note.number as usize);
            let letter = letters::write(held, topic, partition, sink.node(), code);
            self.send_letter(sink, letter, batch);
        } else {
            self.refuse(sink, code, &held, batch);
        }
        None
    }

    /// A message is refused for good, and its publisher told so.
    pub(super) fn refuse(
        &mut self,
        sink: &KafkaSink,
        code: RDKafkaErrorCode,
        held: &Held,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        let settlement = Settlement::Refused(kafka::refusal(code));
        self.end(sink, code, &held.note, settlement, batch);
    }

    fn end(
        &mut self,
        sink: &KafkaSink,
        code: RDKafkaErrorCode,
        note: &Note,
        settlement: Settlement,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            self.warned_at = Some(Instant::now());
            let topic = sink.lanes.partitions().topic(note.topic);
            tracing::warn!(kafka_topic = topic, %code, "Kafka refuses messages for good");
        }
        let counters = &sink.counters;
        counters.count_refused(kafka::refusal(code), 1);
        counters.bytes_done.fetch_add(note.bytes, Ordering::Relaxed);
        sink.waits.done(&note.run());
        counters.done.fetch_add(1, Ordering::SeqCst);
        if note.token != Token::NONE {
            batch.push((note.token, settlement));
        }
    }

    fn send_letter(
        &mut self,
        sink: &KafkaSink,
        letter: Held,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        let Some(producer) = self.letters.get(&self.suspicions) else {
            return self.waiting.push_back(letter);
        };
        let topic = letters::topic(sink.lanes.partitions().topic(letter.note.topic));
        match letter.send(&topic, &producer) {
            Ok(()) => {}
            Err((RDKafkaErrorCode::QueueFull, letter)) => self.waiting.push_back(letter),
            Err((code, letter)) => self.letter_back(sink, code, letter, batch),
        }
    }

    /// Kafka has a dead letter: the message is acknowledged.
    pub(super) fn letter_stored(
        &mut self,
        sink: &KafkaSink,
        note: &Note,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        if let Errand::Letter(code) = note.errand {
            sink.counters.dead_lettered.fetch_add(1, Ordering::Relaxed);
            self.end(sink, code, note, Settlement::SetAside, batch);
        }
    }

    /// A dead letter was not stored.
    pub(super) fn letter_back(
        &mut self,
        sink: &KafkaSink,
        code: RDKafkaErrorCode,
        letter: Held,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        let Errand::Letter(refused_for) = letter.note.errand else {
            return;
        };
        let (topic, partition) = sink.lanes.partitions().name(letter.note.number as usize);
        let missing = kafka::is_missing(code);
        if missing {
            let lasting = sink
                .troubles
                .is_missing(&letters::topic(topic), Instant::now());
            if lasting < self.missing_wait {
                return self.waiting.push_back(letter);
            }
        }
        if kafka::is_purged(code) {
            return self.waiting.push_back(letter);
        }
        let too_large = kafka::is_too_large(code) && letters::is_long(&letter.payload);
        if too_large {
            let shorter =
                letters::write_shorter(letter, topic, partition, sink.node(), refused_for);
            return self.send_letter(sink, shorter, batch);
        }
        tracing::error!(
            kafka_topic = letters::topic(topic),
            %code,
            "Kafka takes no dead letter: its publisher's connection is closed"
        );
        self.refuse(sink, refused_for, &letter, batch);
    }

    /// Tries what waits, when it may go now, and replaces producers that failed.
    pub(super) fn look(&mut self, sink: &KafkaSink, batch: &mut Vec<(Token, Settlement)>) {
        for spare in [&mut self.alone, &mut self.letters] {
            let failed = spare.has_failed();
            let idle = |producer: &Arc<Producer>| producer.in_flight_count() == 0;
            if failed && spare.producer.as_ref().is_some_and(idle) {
                spare.producer = None;
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        for letter in mem::take(&mut self.waiting) {
            let topic = letters::topic(sink.lanes.partitions().topic(letter.note.topic));
            match sink.troubles.missing_for(&topic, now) {
                Some(lasting) if lasting < self.missing_wait => self.waiting.push_back(letter),
                _ => self.send_letter(sink, letter, batch),
            }
        }
    }
}
