//! Appends commands to the downlink topic. (Alerts go by the runtime, which ties them to the records that raised them.)

use envelope::Downlink;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::Producer;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};

/// Why a message was not appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// Not now: Kafka is away or busy.
    Later(String),
    /// Never: Kafka refuses this message.
    Refused(String),
}

/// A message on its way to Kafka.
pub(crate) struct Pending(DeliveryFuture);

impl Pending {
    /// Waits until Kafka has the message in all replicas.
    pub(crate) async fn confirmed(self) -> Result<(), AppendError> {
        match self.0.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(verdict(&error)),
            Err(canceled) => Err(AppendError::Later(canceled.to_string())),
        }
    }
}

/// A producer for one Kafka topic.
pub(crate) struct Appender {
    producer: FutureProducer,
    config: runtime::Config,
}

impl Appender {
    /// Makes the producer. It connects when there is something to send.
    pub(crate) fn new(config: runtime::Config) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &config.kafka)
            .set("client.id", format!("millstream-{}-commands", config.group))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As Java's clients do, so that keys fall into the same partitions whoever writes.
            .set("partitioner", "murmur2_random")
            // Kafka refuses a batch as a whole: a command that is too large takes no other with it.
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
        Ok(Self {
            producer: client.create()?,
            config,
        })
    }

    /// Hands `message` over to be sent. Messages to one MQTT topic stay in the order of the calls.
    pub(crate) fn append(&self, message: &Downlink) -> Result<Pending, AppendError> {
        let mut headers = OwnedHeaders::new();
        message.envelope().for_each_header(|key, value| {
            headers = std::mem::take(&mut headers).insert(Header {
                key,
                value: Some(value),
            });
        });
        let record = FutureRecord::to(&self.config.downlink_topic)
            .key(message.key())
            .payload(&message.payload)
            .headers(headers);
        self.producer
            .send_result(record)
            .map(Pending)
            .map_err(|(error, _)| verdict(&error))
    }

    /// After a failure: an idempotent producer that lost its place never works again, and is made anew.
    pub(crate) fn mend(&mut self) {
        let Some((code, reason)) = self.producer.client().fatal_error() else {
            return;
        };
        tracing::warn!(%code, reason, "the producer of commands is made anew");
        match Self::new(self.config.clone()) {
            Ok(fresh) => *self = fresh,
            Err(error) => tracing::error!(%error, "the producer of commands cannot be made anew"),
        }
    }
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
