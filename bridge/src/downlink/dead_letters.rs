//! Where records go that cannot be published: the dead-letter topic, with key, value and headers as they were, and with
//! headers that say where they were and why they are here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envelope::dead_letter::DeadLetter;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Message};

use super::decode::{self, Malformed};
use crate::config::Config;
use crate::error::StartError;
use crate::kafka;

/// The step that failed, in Kafka Connect's words.
const STAGE: &str = "VALUE_CONVERTER";
/// Between two looks for confirmations, or for room.
const WAIT: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Confirmations {
    stored: AtomicU64,
}

impl ClientContext for Confirmations {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the producer of dead letters");
    }
}

impl ProducerContext for Confirmations {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.stored.fetch_add(1, Ordering::Relaxed);
            }
            // The record itself stays where it is in the downlink topic; the log line above tells where.
            Err((error, _)) => tracing::error!(%error, "Kafka took a dead letter for good neither"),
        }
    }
}

/// The producer of dead letters. Broken records are rare, so it is made when the first one comes.
pub(super) struct DeadLetters {
    producer: BaseProducer<Confirmations>,
    topic: String,
    group: String,
}

impl DeadLetters {
    pub(super) fn new(config: &Config) -> Result<Self, StartError> {
        let producer = BaseProducer::from_config_and_context(
            &kafka::dead_letter_producer(config),
            Confirmations::default(),
        )
        .map_err(|error| StartError::Client(error.to_string()))?;
        Ok(Self {
            producer,
            topic: config.downlink.dead_letter_topic.clone(),
            group: config.downlink_group(),
        })
    }

    /// Hands a broken record to librdkafka. `headers` are its own, as far as they can be read. Returns false when
    /// `stopping` says so before there was room.
    pub(super) fn send(
        &self,
        message: &BorrowedMessage<'_>,
        headers: &[decode::Header<'_>],
        malformed: &Malformed,
        stopping: impl Fn() -> bool,
    ) -> bool {
        let reason = malformed.to_string();
        let letter = DeadLetter {
            topic: message.topic(),
            partition: message.partition(),
            offset: Some(message.offset()),
            group: &self.group,
            stage: STAGE,
            class: malformed.class(),
            message: &reason,
        };
        let mut all = Some(OwnedHeaders::new_with_capacity(headers.len() + 7));
        for (key, value) in headers {
            all = all.map(|all| all.insert(Header { key, value: *value }));
        }
        letter.for_each_header(|key, value| {
            all = all.take().map(|all| {
                all.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        });
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.topic).headers(all.unwrap_or_default());
        record.key = message.key();
        record.payload = message.payload();
        loop {
            match self.producer.send(record) {
                Ok(()) => return true,
                Err((
                    KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull),
                    back,
                )) => {
                    if stopping() {
                        return false;
                    }
                    record = back;
                    let _ = self.producer.flush(WAIT);
                }
                Err((error, _)) => {
                    tracing::error!(%error, "Kafka takes no such dead letter");
                    return true;
                }
            }
        }
    }

    /// Waits until Kafka has confirmed or refused all that was sent. Returns how many were confirmed since the last call,
    /// or `None` when `stopping` said so first.
    pub(super) fn confirm(&self, stopping: impl Fn() -> bool) -> Option<u64> {
        while self.producer.flush(WAIT).is_err() {
            if stopping() {
                return None;
            }
        }
        Some(self.producer.context().stored.swap(0, Ordering::Relaxed))
    }
}
