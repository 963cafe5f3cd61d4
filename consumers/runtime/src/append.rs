//! Appends what a backend does not say in answer to a record: commands to devices, and changes that came by HTTP.
//! (Answers go by the outcome of a call, which ties them to the records that they answer.)

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use envelope::{Downlink, header};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::Producer;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};

use crate::config::Config;
use crate::consumer::Consumer;
use crate::store::{Position, Store};

/// How long somebody who asked for a change by HTTP waits until it is applied; then it is on its way.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked at.
const APPLY_LOOK: Duration = Duration::from_millis(10);

/// Why a message was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Not now: Kafka is away or busy.
    #[error("Kafka does not take it now: {0}")]
    Later(String),
    /// Never: Kafka refuses this message.
    #[error("Kafka refuses it: {0}")]
    Refused(String),
}

/// A message on its way to Kafka.
pub struct Pending(DeliveryFuture);

impl Pending {
    /// Waits until Kafka has the message in all replicas, and says where: partition and offset.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn confirmed(self) -> Result<(i32, i64), AppendError> {
        match self.0.await {
            Ok(Ok(delivered)) => Ok((delivered.partition, delivered.offset)),
            Ok(Err((error, _))) => Err(verdict(&error)),
            Err(canceled) => Err(AppendError::Later(canceled.to_string())),
        }
    }
}

/// A producer of single messages.
pub struct Appender {
    producer: RwLock<FutureProducer>,
    config: Config,
}

impl Appender {
    /// Makes the producer. It connects when there is something to send.
    ///
    /// # Errors
    ///
    /// What librdkafka refuses of the settings.
    pub fn new(config: Config) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: RwLock::new(producer(&config)?),
            config,
        })
    }

    /// Hands a message for MQTT clients over to be sent. Messages to one MQTT topic stay in the order of the calls.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn append(&self, message: &Downlink) -> Result<Pending, AppendError> {
        let mut headers = OwnedHeaders::new();
        message.envelope().for_each_header(|key, value| {
            headers = std::mem::take(&mut headers).insert(Header {
                key,
                value: Some(value),
            });
        });
        self.send(
            FutureRecord::to(&self.config.downlink_topic)
                .key(message.key())
                .payload(message.payload.as_slice())
                .headers(headers),
        )
    }

    /// Hands a change over to be sent to a topic that the backend reads itself. It goes where all records with `key` go,
    /// and so has its place in their order.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn append_change(
        &self,
        topic: &str,
        key: &str,
        change: &str,
        payload: &[u8],
    ) -> Result<Pending, AppendError> {
        let headers = OwnedHeaders::new().insert(Header {
            key: header::CHANGE,
            value: Some(change),
        });
        self.send(
            FutureRecord::to(topic)
                .key(key.as_bytes())
                .payload(payload)
                .headers(headers),
        )
    }

    fn send(&self, record: FutureRecord<'_, [u8], [u8]>) -> Result<Pending, AppendError> {
        self.producer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .send_result(record)
            .map(Pending)
            .map_err(|(error, _)| verdict(&error))
    }

    /// After a failure: an idempotent producer that lost its place never works again, and is made anew.
    pub fn mend(&self) {
        let mut current = self
            .producer
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((code, reason)) = current.client().fatal_error() else {
            return;
        };
        tracing::warn!(%code, reason, "the producer of commands and changes is made anew");
        match producer(&self.config) {
            Ok(fresh) => *current = fresh,
            Err(error) => tracing::error!(%error, "the producer cannot be made anew"),
        }
    }
}

fn producer(config: &Config) -> Result<FutureProducer, KafkaError> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka)
        .set("client.id", format!("millstream-{}-commands", config.group))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // As Java's clients do, so that keys fall into the same partitions whoever writes.
        .set("partitioner", "murmur2_random")
        // Kafka refuses a batch as a whole: a message that is too large takes no other with it.
        .set("batch.num.messages", "1")
        .set("linger.ms", "0")
        .set(
            "message.timeout.ms",
            config.tuning.produce_timeout_ms.to_string(),
        )
        .set_log_level(RDKafkaLogLevel::Critical);
    for (key, value) in config.tuning.properties.reveal() {
        client.set(key, value);
    }
    client.create()
}

fn verdict(error: &KafkaError) -> AppendError {
    let reason = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord,
        ) => AppendError::Refused(reason),
        _ => AppendError::Later(reason),
    }
}

/// What became of a change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is in the store.
    Now,
    /// Kafka has it there, and the store will have it when the consumer comes to it.
    Later {
        /// The partition of the topic.
        partition: i32,
        /// The offset in the partition.
        offset: i64,
    },
}

/// The log as the place where a backend's store changes: a change that comes by HTTP is appended to a topic that the
/// backend reads, and is applied when it is read. So the log has all that the store has.
pub struct Changes {
    appender: Appender,
    consumer: Consumer,
    store: Store,
}

impl Changes {
    /// Changes of `store`, which `consumer` applies.
    ///
    /// # Errors
    ///
    /// What librdkafka refuses of the settings.
    pub fn new(config: Config, consumer: Consumer, store: Store) -> Result<Self, KafkaError> {
        Ok(Self {
            appender: Appender::new(config)?,
            consumer,
            store,
        })
    }

    /// Appends a change and waits a while until it is applied, by this instance or another that shares the store.
    ///
    /// # Errors
    ///
    /// Kafka does not have it: nothing will change.
    pub async fn apply(
        &self,
        topic: &str,
        key: &str,
        change: &str,
        payload: &[u8],
    ) -> Result<Applied, AppendError> {
        let confirmed = match self.appender.append_change(topic, key, change, payload) {
            Ok(pending) => pending.confirmed().await,
            Err(error) => Err(error),
        };
        let (partition, offset) = confirmed.inspect_err(|_| self.appender.mend())?;
        let cluster = self.consumer.cluster();
        let position = Position {
            cluster: &cluster,
            topic,
            partition,
            offset,
        };
        let until = Instant::now() + APPLY_PATIENCE;
        while Instant::now() < until {
            // A store that cannot be read now may be read in a moment.
            if self.store.has_consumed(position).await.unwrap_or(false) {
                return Ok(Applied::Now);
            }
            tokio::time::sleep(APPLY_LOOK).await;
        }
        Ok(Applied::Later { partition, offset })
    }
}
