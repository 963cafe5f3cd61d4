//! The producer of librdkafka as this crate uses it: each message carries its publisher's token, and what became of it is
//! collected until the poll thread takes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Settlement, Times, Token};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message as _};

use crate::kafka;
use crate::suspicions::Suspicions;

/// A producer whose messages carry a note.
pub(crate) type Producer = BaseProducer<Events>;

/// What goes with a message through librdkafka and comes back with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whose acknowledgement waits for it.
    pub(crate) token: Token,
    /// Whether a refusal can be told to that publisher by closing its connection alone.
    pub(crate) mute: bool,
    /// The number of its Kafka topic, see [`crate::partitions`].
    pub(crate) topic: u32,
    /// The number of its partition.
    pub(crate) number: u32,
    /// Its place among all messages of its partition; of one publisher, the order in which they came.
    pub(crate) place: u64,
    /// Payload and key, in bytes.
    pub(crate) bytes: u64,
    /// What it takes in a batch, headers included.
    pub(crate) size: u64,
    /// When the sink took it: milliseconds since the Unix epoch.
    pub(crate) taken_ms: u64,
    pub(crate) errand: Errand,
}

impl Note {
    /// It as a run of its own.
    pub(crate) fn run(&self) -> Run {
        Run {
            topic: self.topic,
            number: self.number,
            messages: 1,
            bytes: self.bytes,
        }
    }
}

/// As what a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Among others.
    Message,
    /// Alone, so that a refusal is about it.
    Trial,
    /// As the dead letter of a message that was refused for this.
    Letter(RDKafkaErrorCode),
}

/// A message to be handed to librdkafka.
pub(crate) struct Message<'m> {
    pub(crate) topic: &'m str,
    pub(crate) key: &'m str,
    pub(crate) payload: &'m [u8],
    pub(crate) headers: OwnedHeaders,
    pub(crate) note: Box<Note>,
}

/// What librdkafka did not take, and why.
pub(crate) type NotTaken = (RDKafkaErrorCode, Box<Note>, OwnedHeaders);

impl Message<'_> {
    pub(crate) fn send(self, producer: &Producer) -> Result<(), NotTaken> {
        let taken_ms = i64::try_from(self.note.taken_ms).unwrap_or(i64::MAX);
        let record = BaseRecord::with_opaque_to(self.topic, self.note)
            .key(self.key)
            .payload(self.payload)
            .timestamp(taken_ms)
            .headers(self.headers);
        producer.send(record).map_err(|(error, record)| {
            let code = match error {
                KafkaError::MessageProduction(code) => code,
                _ => RDKafkaErrorCode::Fail,
            };
            let headers = record.headers.unwrap_or_default();
            (code, record.delivery_opaque, headers)
        })
    }

    /// A copy of it, to be sent later.
    pub(crate) fn hold(self) -> Held {
        Held {
            key: self.key.into(),
            payload: self.payload.into(),
            headers: self.headers,
            note: self.note,
            alone: false,
        }
    }
}

/// A message that is not at librdkafka's: it waits for its turn, or came back.
pub(crate) struct Held {
    pub(crate) key: Box<str>,
    pub(crate) payload: Box<[u8]>,
    pub(crate) headers: OwnedHeaders,
    pub(crate) note: Box<Note>,
    /// Kafka refused it among others: it goes alone.
    pub(crate) alone: bool,
}

impl Held {
    fn back(message: &BorrowedMessage<'_>, note: Box<Note>) -> Self {
        // Keys are topics and what templates make of them: text, as they went.
        let key = String::from_utf8_lossy(message.key().unwrap_or_default());
        let headers = message.headers().map(|headers| headers.detach());
        Self {
            key: key.into(),
            payload: message.payload().unwrap_or_default().into(),
            headers: headers.unwrap_or_default(),
            note,
            alone: false,
        }
    }

    /// Hands it to `producer`, or gives it back with why not.
    pub(crate) fn send(
        self,
        topic: &str,
        producer: &Producer,
    ) -> Result<(), (RDKafkaErrorCode, Self)> {
        let message = Message {
            topic,
            key: &self.key,
            payload: &self.payload,
            headers: self.headers,
            note: self.note,
        };
        match message.send(producer) {
            Ok(()) => Ok(()),
            Err((code, note, headers)) => Err((
                code,
                Self {
                    key: self.key,
                    payload: self.payload,
                    headers,
                    note,
                    alone: self.alone,
                },
            )),
        }
    }
}

/// Messages of one partition, one after the other, that Kafka confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) topic: u32,
    pub(crate) number: u32,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What one batch of events brought.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) batch: Vec<(Token, Settlement)>,
    /// What was stored of what went among others.
    pub(crate) runs: Vec<Run>,
    /// What was stored and went alone.
    pub(crate) trials: Vec<Note>,
    /// Dead letters that were stored.
    pub(crate) letters: Vec<Note>,
    /// What was not stored.
    pub(crate) back: Vec<(RDKafkaErrorCode, Held)>,
    /// How long Kafka took to confirm what was stored, from the moment the sink took it.
    pub(crate) times: Times,
    /// The time of the last look, milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Callbacks of any kind, ever: an empty queue is one whose poll moves nothing.
    pub(crate) callbacks: u64,
}

/// What librdkafka calls back, on the thread that polls.
pub(crate) struct Events {
    reports: Mutex<Reports>,
    /// There was an error of the producer as a whole, to be looked into.
    pub(crate) troubled: AtomicBool,
    suspicions: Arc<Suspicions>,
}

impl Events {
    /// What came since the last look.
    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports().callbacks += 1;
        self.troubled.store(true, Ordering::Relaxed);
        tracing::debug!(%error, reason, "the producer has trouble");
        self.suspicions.report(kafka::describe(&error));
    }
}

impl Reports {
    fn stored(&mut self, note: Note) {
        match note.errand {
            Errand::Letter(_) => return self.letters.push(note),
            Errand::Trial => return self.trials.push(note),
            Errand::Message => {}
        }
        match self.runs.last_mut() {
            Some(run) if run.number == note.number => {
                run.messages += 1;
                run.bytes += note.bytes;
            }
            _ => self.runs.push(note.run()),
        }
        if note.token != Token::NONE {
            self.batch.push((note.token, Settlement::Stored));
        }
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = Box<Note>;

    fn delivery(&self, result: &DeliveryResult<'_>, note: Box<Note>) {
        let mut reports = self.reports();
        reports.callbacks += 1;
        match result {
            Ok(_) => {
                let ms = reports.now_ms.saturating_sub(note.taken_ms);
                reports.times.add(ms);
                reports.stored(*note);
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                reports.back.push((code, Held::back(message, note)));
            }
        }
    }
}

/// Makes a producer.
pub(crate) fn new_producer(
    config: &ClientConfig,
    suspicions: &Arc<Suspicions>,
) -> KafkaResult<Producer> {
    let events = Events {
        reports: Mutex::default(),
        troubled: AtomicBool::new(false),
        suspicions: Arc::clone(suspicions),
    };
    BaseProducer::from_config_and_context(config, events)
}
