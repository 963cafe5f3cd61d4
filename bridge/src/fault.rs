//! What is wrong with a connection to Kafka, in words that lead to the mend. librdkafka tells it in its log, while the
//! question that fails for it only says that time has run out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use settings::kafka::advice;

use crate::kafka;

/// A fault of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What librdkafka says.
    pub(crate) cause: String,
    /// What to look at.
    pub(crate) advice: &'static str,
}

impl Fault {
    fn new(cause: String) -> Self {
        let advice = advice(&cause);
        Self { cause, advice }
    }

    /// From a line of librdkafka's log: `[thrd:BROKER]: BROKER: WORDS (after 1ms in state …)`.
    fn from_line(line: &str) -> Self {
        let words = line.split_once("]: ").map_or(line, |(_, rest)| rest);
        let words = words.split_once(": ").map_or(words, |(_, rest)| rest);
        let words = words
            .split_once(" (after ")
            .map_or(words, |(words, _)| words);
        Self::new(words.to_owned())
    }
}

/// Who asks Kafka about its topics, with a connection that nobody else uses: among the messages a question would take the
/// place of some.
pub(crate) struct Asker {
    client: BaseProducer<Listener>,
    /// How many brokers there were in the last answer.
    brokers: AtomicUsize,
}

/// Events of librdkafka's that are taken at a time.
const EVENTS_MAX: usize = 1_024;

impl Asker {
    pub(crate) fn new(mut config: ClientConfig) -> KafkaResult<Self> {
        config.set_log_level(RDKafkaLogLevel::Info);
        let client = BaseProducer::from_config_and_context(&config, Listener::default())?;
        Ok(Self {
            client,
            brokers: AtomicUsize::new(0),
        })
    }

    /// What Kafka says of `topic`, or of all. Where there are several brokers and the first that is asked says nothing, it
    /// is asked once more: librdkafka has given that one up then.
    pub(crate) fn ask(&self, topic: Option<&str>, patience: Duration) -> Result<Metadata, Fault> {
        let ask = || self.client.client().fetch_metadata(topic, patience);
        let several = self.brokers.load(Ordering::Relaxed) > 1;
        let answer = ask().or_else(|error| if several { ask() } else { Err(error) });
        self.listen();
        match answer {
            Ok(metadata) => {
                let brokers = metadata.brokers().len();
                self.brokers.store(brokers, Ordering::Relaxed);
                // What was wrong is over.
                *self.client.context().last() = None;
                Ok(metadata)
            }
            Err(error) => {
                let last = self.client.context().last().clone();
                Err(last.unwrap_or_else(|| Fault::new(kafka::describe(&error))))
            }
        }
    }

    /// Takes what librdkafka has to say: it keeps it until it is asked.
    fn listen(&self) {
        let heard = || self.client.context().heard.load(Ordering::Relaxed);
        for _ in 0..EVENTS_MAX {
            let before = heard();
            self.client.poll(Duration::ZERO);
            if heard() == before {
                return;
            }
        }
    }
}

/// Hears librdkafka, and keeps the last fault.
#[derive(Default)]
struct Listener {
    last: Mutex<Option<Fault>>,
    heard: AtomicU64,
}

impl Listener {
    fn last(&self) -> MutexGuard<'_, Option<Fault>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if facility == "FAIL" {
            // Whoever asked says what came of it, in one line.
            tracing::debug!(target: "librdkafka", "{facility}: {message}");
            *self.last() = Some(Fault::from_line(message));
        } else {
            kafka::log(level, facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, reason, "a question to Kafka");
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_librdkafkas_gives_the_cause_and_what_to_look_at() {
        let fault = Fault::from_line(
            "[thrd:a.b:9092/bootstrap]: a.b:9092/bootstrap: Failed to resolve 'a.b:9092': Name or service not known \
             (after 3ms in state CONNECT)",
        );
        assert_eq!(
            fault.cause,
            "Failed to resolve 'a.b:9092': Name or service not known"
        );
        assert!(fault.advice.contains("DNS"), "{fault:?}");
        let fault = Fault::from_line("Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        assert!(fault.advice.contains("is it running"), "{fault:?}");
    }
}
