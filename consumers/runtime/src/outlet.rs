//! Appends answers and dead letters to Kafka and waits until Kafka has them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use envelope::dead_letter::DeadLetter;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};

use crate::batch::{Batch, Record};
use crate::client::{forward_log, producer_settings};
use crate::config::Config;
use crate::handler::{Outcome, Poison};

/// How long one wait for confirmations takes before the deadline is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// librdkafka gives up a message after `produce_timeout_ms`, but looks only once a second; then it is forced to.
const GRACE: Duration = Duration::from_secs(3);

/// What became of everything that followed from a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Produced {
    /// Downlink messages that Kafka will never take, with the reason. All others are stored.
    pub(crate) refused: Vec<(usize, String)>,
    /// Dead letters that were stored without their payload, because with it they are too large.
    pub(crate) truncated: u64,
}

/// The producer. Used by one thread, which also runs its callbacks while it waits.
pub(crate) struct Outlet {
    producer: BaseProducer<Confirmations>,
    config: Config,
}

/// Number of a message within what is waited for.
type Number = usize;

#[derive(Default)]
struct Confirmations(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    outstanding: usize,
    failed: Vec<(Number, KafkaError)>,
}

impl Confirmations {
    fn with<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Confirmations {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Confirmations {
    type DeliveryOpaque = Number;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Number) {
        self.with(|waiting| {
            waiting.outstanding = waiting.outstanding.saturating_sub(1);
            if let Err((error, _)) = result {
                waiting.failed.push((number, error.clone()));
            }
        });
    }
}

/// One message to append.
enum Item<'a> {
    Downlink(&'a envelope::Downlink),
    DeadLetter {
        poison: &'a Poison,
        batch: &'a Batch,
        with_payload: bool,
    },
}

impl Outlet {
    pub(crate) fn new(config: &Config) -> KafkaResult<Self> {
        let producer = BaseProducer::from_config_and_context(
            &producer_settings(config),
            Confirmations::default(),
        )?;
        Ok(Self {
            producer,
            config: config.clone(),
        })
    }

    /// Appends all that follows from `batches` and waits for Kafka's confirmation of each.
    ///
    /// An error says that something is not known to be stored and may be after a while: the caller does it all again.
    pub(crate) fn produce(
        &mut self,
        outcome: &Outcome,
        batches: &[Batch],
    ) -> Result<Produced, String> {
        let mut produced = Produced::default();
        if outcome.downlink.is_empty() && outcome.poison.is_empty() {
            return Ok(produced);
        }
        let downlinks = outcome.downlink.len();
        let mut items: Vec<Item<'_>> = outcome.downlink.iter().map(Item::Downlink).collect();
        for poison in &outcome.poison {
            let batch = batches
                .iter()
                .find(|batch| {
                    batch.partition() == poison.partition && *batch.topic() == *poison.topic
                })
                .ok_or_else(|| "the handler condemned a record that it was not given".to_owned())?;
            items.push(Item::DeadLetter {
                poison,
                batch,
                with_payload: true,
            });
        }
        let mut again = Vec::new();
        for (number, error) in self.send(&items)? {
            if !is_refusal(&error) {
                return Err(self.failed(&error));
            }
            if number < downlinks {
                produced.refused.push((number, error.to_string()));
            } else {
                again.push(number);
            }
        }
        // A dead letter is larger than the record was, by its headers. Where the payload is, they say.
        let smaller: Vec<Item<'_>> = again
            .into_iter()
            .filter_map(|number| match &items[number] {
                Item::DeadLetter { poison, batch, .. } => Some(Item::DeadLetter {
                    poison,
                    batch,
                    with_payload: false,
                }),
                Item::Downlink(_) => None,
            })
            .collect();
        if let Some((_, error)) = self.send(&smaller)?.first() {
            return Err(self.failed(error));
        }
        produced.truncated = smaller.len() as u64;
        Ok(produced)
    }

    fn failed(&mut self, error: &KafkaError) -> String {
        // An idempotent producer that lost its place never works again.
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the producer is made anew");
            match Self::new(&self.config) {
                Ok(fresh) => *self = fresh,
                Err(error) => return format!("the producer cannot be made anew: {error}"),
            }
        }
        let code = error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string());
        format!("Kafka did not confirm answers or dead letters: {code}")
    }

    /// Appends `items` and waits for all of them; returns those that failed.
    fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<(Number, KafkaError)>, String> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.config.tuning.produce_timeout() + GRACE;
        let mut failed = Vec::new();
        for (number, item) in items.iter().enumerate() {
            if let Err(error) = self.enqueue(number, item, deadline) {
                failed.push((number, error));
            }
        }
        let context = self.producer.context();
        while context.with(|waiting| waiting.outstanding) > 0 {
            if Instant::now() >= deadline {
                self.producer
                    .purge(PurgeConfig::default().queue().inflight());
                self.producer.poll(POLL);
                context.with(|waiting| *waiting = Waiting::default());
                return Err("Kafka did not confirm answers or dead letters in time".to_owned());
            }
            // Returns as soon as everything is confirmed, and does not wait for `linger.ms`.
            if self.producer.flush(POLL).is_ok() {
                self.producer.poll(Duration::ZERO);
            }
        }
        failed.append(&mut context.with(|waiting| std::mem::take(&mut waiting.failed)));
        Ok(failed)
    }

    fn enqueue(
        &self,
        number: Number,
        item: &Item<'_>,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let dead_letter_topic;
        let (topic, key, payload, headers): (&str, Option<&[u8]>, Option<&[u8]>, OwnedHeaders) =
            match item {
                Item::Downlink(message) => {
                    let mut headers = Some(OwnedHeaders::new_with_capacity(4));
                    message.for_each_header(|name, value| add(&mut headers, name, Some(value)));
                    let headers = headers.unwrap_or_default();
                    (
                        &self.config.downlink_topic,
                        Some(message.key()),
                        Some(&message.payload),
                        headers,
                    )
                }
                Item::DeadLetter {
                    poison,
                    batch,
                    with_payload,
                } => {
                    dead_letter_topic =
                        format!("{}{}", poison.topic, self.config.tuning.dead_letter_suffix);
                    let record = batch.at_offset(poison.offset);
                    let mut headers = Some(OwnedHeaders::new_with_capacity(16));
                    for (name, value) in record.into_iter().flat_map(Record::headers) {
                        add(&mut headers, name, value);
                    }
                    let message = if *with_payload {
                        poison.reason.clone()
                    } else {
                        format!(
                            "{} (the payload is too large for a dead letter; read it at the offset)",
                            poison.reason
                        )
                    };
                    let letter = DeadLetter {
                        topic: &poison.topic,
                        partition: poison.partition,
                        offset: poison.offset,
                        group: &self.config.group,
                        stage: poison.stage.name(),
                        class: poison.class,
                        message: &message,
                    };
                    letter.for_each_header(|name, value| add(&mut headers, name, Some(value)));
                    let headers = headers.unwrap_or_default();
                    let payload = record
                        .and_then(Record::payload_or_tombstone)
                        .filter(|_| *with_payload);
                    (
                        &dead_letter_topic,
                        record.and_then(Record::key),
                        payload,
                        headers,
                    )
                }
            };
        let mut record =
            BaseRecord::<[u8], [u8], Number>::with_opaque_to(topic, number).headers(headers);
        record.key = key;
        record.payload = payload;
        self.producer
            .context()
            .with(|waiting| waiting.outstanding += 1);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && Instant::now() < deadline =>
                {
                    record = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    self.producer
                        .context()
                        .with(|waiting| waiting.outstanding -= 1);
                    return Err(error);
                }
            }
        }
    }
}

fn add(headers: &mut Option<OwnedHeaders>, name: &str, value: Option<&[u8]>) {
    *headers = headers
        .take()
        .map(|headers| headers.insert(Header { key: name, value }));
}

/// Whether Kafka will say the same however often it is asked.
fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord)
    )
}
