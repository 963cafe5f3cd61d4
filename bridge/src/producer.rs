//! The producer of librdkafka as this crate uses it: each message carries its publisher's token, and what became of it is
//! collected until the poll thread takes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Settlement, Times, Token};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message as _, Timestamp};

use crate::kafka;
use crate::partitions::Partitions;
use crate::suspicions::Suspicions;

// A token has to pass through librdkafka's opaque pointer.
const _: () = assert!(usize::BITS >= u64::BITS);

/// A producer whose messages carry a token.
pub(crate) type Producer = BaseProducer<Events>;

/// What one batch of events brought.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) batch: Vec<(Token, Settlement)>,
    pub(crate) stored: u64,
    /// There are few reasons at a time.
    pub(crate) refused: Vec<(RDKafkaErrorCode, u64)>,
    /// Payload and key bytes of what was stored or refused.
    pub(crate) bytes: u64,
    /// Of far producers: the numbers of the partitions whose messages were reported on.
    pub(crate) landed: Vec<usize>,
    /// How long Kafka took to confirm what was stored, from the moment the sink took it.
    pub(crate) times: Times,
    /// The time of the last look, milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
    /// Callbacks of any kind, ever: an empty queue is one whose poll moves nothing.
    pub(crate) callbacks: u64,
}

/// What librdkafka calls back, on the thread that polls.
pub(crate) struct Events {
    settled: Mutex<Settled>,
    /// There was an error of the producer as a whole, to be looked into.
    pub(crate) troubled: AtomicBool,
    suspicions: Arc<Suspicions>,
    /// Of far producers.
    partitions: Option<Arc<Partitions>>,
}

impl Events {
    /// What came since the last look.
    pub(crate) fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.settled().callbacks += 1;
        self.troubled.store(true, Ordering::Relaxed);
        tracing::debug!(%error, reason, "the producer has trouble");
        self.suspicions.report(kafka::describe(&error));
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let mut settled = self.settled();
        settled.callbacks += 1;
        let (Ok(message) | Err((_, message))) = result;
        let key = message.key().unwrap_or_default();
        settled.bytes += (key.len() + message.payload_len()) as u64;
        if let Some(partitions) = &self.partitions {
            let number = partitions.number(message.topic(), key);
            settled.landed.push(number);
        }
        let settlement = match result {
            Ok(_) => {
                settled.stored += 1;
                // The sink's own time. A topic may stand at the broker's instead, which says nothing of when it was taken.
                if let Timestamp::CreateTime(taken_ms) = message.timestamp() {
                    let ms = settled.now_ms.saturating_sub(taken_ms);
                    settled.times.add(u64::try_from(ms).unwrap_or(0));
                }
                Settlement::Stored
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                match settled.refused.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, count)) => *count += 1,
                    None => settled.refused.push((code, 1)),
                }
                Settlement::Refused(kafka::refusal(code))
            }
        };
        let token = token(opaque);
        if token != Token::NONE {
            settled.batch.push((token, settlement));
        }
    }
}

/// Makes a producer; a far one gets `partitions`.
pub(crate) fn new_producer(
    config: &ClientConfig,
    suspicions: &Arc<Suspicions>,
    partitions: Option<Arc<Partitions>>,
) -> KafkaResult<Producer> {
    let events = Events {
        settled: Mutex::default(),
        troubled: AtomicBool::new(false),
        suspicions: Arc::clone(suspicions),
        partitions,
    };
    BaseProducer::from_config_and_context(config, events)
}

/// The number that stands for `token` in librdkafka.
pub(crate) fn opaque(token: Token) -> usize {
    // Lossless by the assertion above.
    usize::try_from(token.0).unwrap_or(usize::MAX)
}

/// The token that `opaque` stands for.
pub(crate) fn token(opaque: usize) -> Token {
    Token(opaque as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_passes_through_librdkafka() {
        for number in [0, 1, u64::from(u32::MAX) + 1, u64::MAX - 1] {
            assert_eq!(token(opaque(Token(number))), Token(number));
        }
        assert_eq!(token(opaque(Token::NONE)), Token::NONE);
    }
}
