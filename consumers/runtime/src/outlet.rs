//! Appends answers and dead letters to Kafka and waits until Kafka has them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use envelope::dead_letter::{self, DeadLetter};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};

use crate::batch::{Batch, Record};
use crate::client::{forward_log, producer_settings};
use crate::config::Config;
use crate::handler::{Outcome, Poison};

/// Between two looks for confirmations, or for room. librdkafka's binding can wait for an event, but waits on when it has come.
const LOOK: Duration = Duration::from_millis(1);

/// The same when nothing has come for [`QUIET_AFTER`]: there is no hurry then.
const QUIET_LOOK: Duration = Duration::from_millis(20);
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// librdkafka gives up a message after `produce_timeout_ms`, but looks only once a second; then it is forced to.
const GRACE: Duration = Duration::from_secs(3);

/// The longest that [`Outlet::produce`] takes: it may send twice.
pub(crate) fn produce_time_max(produce_timeout: Duration) -> Duration {
    2 * (produce_timeout + GRACE)
}

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

/// Number of a message within what is waited for, and above it of the wait: what was given up may be told of late, and is not to be
/// taken for what is waited for now.
type Number = usize;
const WAIT_SHIFT: u32 = Number::BITS / 2;

#[derive(Default)]
struct Confirmations(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Which wait this is. Wraps around.
    wait: u32,
    outstanding: usize,
    failed: Vec<(Number, KafkaError)>,
}

impl Waiting {
    /// Begins to wait for other messages.
    fn begin(&mut self) {
        *self = Self {
            wait: self.wait.wrapping_add(1),
            ..Self::default()
        };
    }

    /// What stands for a message in librdkafka.
    fn opaque(&self, number: Number) -> Number {
        (self.wait as Number) << WAIT_SHIFT | number
    }

    fn ended(&mut self, opaque: Number, error: Option<&KafkaError>) {
        if opaque >> WAIT_SHIFT != self.wait as Number {
            return;
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        let number = opaque & ((1 << WAIT_SHIFT) - 1);
        self.failed
            .extend(error.map(|error| (number, error.clone())));
    }
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
            let error = result.as_ref().err().map(|(error, _)| error);
            waiting.ended(number, error);
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
        self.producer.context().with(Waiting::begin);
        for (number, item) in items.iter().enumerate() {
            if let Err(error) = self.enqueue(number, item, deadline) {
                failed.push((number, error));
            }
        }
        let context = self.producer.context();
        let outstanding = || context.with(|waiting| waiting.outstanding);
        let mut heard_at = Instant::now();
        loop {
            let before = outstanding();
            if before == 0 {
                break;
            }
            if Instant::now() >= deadline {
                self.producer
                    .purge(PurgeConfig::default().queue().inflight());
                return Err(self.failed(&KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
            }
            // A flush does not wait for `linger.ms`; zero takes what is there and waits for nothing.
            let _ = self.producer.flush(Duration::ZERO);
            self.producer.poll(Duration::ZERO);
            if outstanding() < before {
                heard_at = Instant::now();
            } else if heard_at.elapsed() < QUIET_AFTER {
                std::thread::sleep(LOOK);
            } else {
                std::thread::sleep(QUIET_LOOK);
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
                        offset: Some(poison.offset),
                        group: &self.config.group,
                        stage: poison.stage.name(),
                        class: poison.class,
                        message: &message,
                    };
                    letter.for_each_header(|name, value| add(&mut headers, name, Some(value)));
                    if !*with_payload {
                        add(&mut headers, dead_letter::TRUNCATED, Some(b"1"));
                    }
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
        let opaque = self.producer.context().with(|waiting| {
            waiting.outstanding += 1;
            waiting.opaque(number)
        });
        let mut record =
            BaseRecord::<[u8], [u8], Number>::with_opaque_to(topic, opaque).headers(headers);
        record.key = key;
        record.payload = payload;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && Instant::now() < deadline =>
                {
                    record = back;
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(LOOK);
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

#[cfg(test)]
mod tests {
    use envelope::Downlink;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::config::Tuning;

    const TIMED_OUT: KafkaError = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);

    fn outlet(kafka: &str) -> Outlet {
        let config = Config {
            kafka: kafka.to_owned(),
            group: "g".to_owned(),
            topics: vec!["t".to_owned()],
            downlink_topic: "d".to_owned(),
            tuning: Tuning {
                produce_timeout_ms: 2_000,
                ..Tuning::default()
            },
        };
        Outlet::new(&config).expect("good settings")
    }

    fn answer() -> Outcome {
        Outcome {
            downlink: vec![Downlink::new("a/b", "x")],
            poison: Vec::new(),
        }
    }

    #[test]
    fn what_was_given_up_is_not_taken_for_what_is_waited_for() {
        let mut waiting = Waiting::default();
        waiting.begin();
        waiting.outstanding = 1;
        let given_up = waiting.opaque(0);
        waiting.begin();
        waiting.outstanding = 1;
        waiting.ended(given_up, Some(&TIMED_OUT));
        assert_eq!((waiting.outstanding, waiting.failed.len()), (1, 0));
        let waited_for = waiting.opaque(7);
        waiting.ended(waited_for, Some(&TIMED_OUT));
        assert_eq!(
            (waiting.outstanding, waiting.failed),
            (0, vec![(7, TIMED_OUT)])
        );
    }

    /// The quickest of many: what else the machine does slows down some of them.
    #[test]
    fn a_confirmation_is_not_waited_for_longer_than_it_takes() {
        let kafka = MockCluster::new(1).expect("a cluster");
        kafka.create_topic("d", 1, 1).expect("a topic");
        let mut outlet = outlet(&kafka.bootstrap_servers());
        let quickest = (0..20)
            .map(|_| {
                let began = Instant::now();
                outlet.produce(&answer(), &[]).expect("Kafka takes it");
                began.elapsed()
            })
            .min();
        assert!(quickest < Some(QUIET_LOOK), "{quickest:?}");
    }

    #[test]
    fn after_its_producer_failed_for_good_there_is_another() {
        let kafka = MockCluster::new(1).expect("a cluster");
        kafka.create_topic("d", 1, 1).expect("a topic");
        let mut outlet = outlet(&kafka.bootstrap_servers());
        outlet.produce(&answer(), &[]).expect("Kafka takes it");
        kafka.request_errors(
            RDKafkaApiKey::Produce,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        );
        outlet.produce(&answer(), &[]).expect_err("it failed");
        outlet.produce(&answer(), &[]).expect("Kafka takes it");
    }
}
