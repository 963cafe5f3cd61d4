//! Records as copies in a Kafka topic, in transactions: what a killed replay had not finished is not there.
//!
//! With a resume file the offsets that were read are part of the transaction (in a consumer group of the replay's own), so
//! that they and the copies are there together or not at all. Readers with Kafka's isolation level `read_committed` (the
//! default of librdkafka, and of all parts of this project) see only what was finished.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use envelope::Envelope;
use envelope::replay::{ORIGIN, REPLAY_ID};
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{ASK_TIMEOUT, Heard, admin_options, describe, wait};
use crate::line::Line;
use crate::plan::Span;
use crate::run::Progress;
use crate::{Error, Kafka};

/// How long a transaction may take to end while Kafka is away.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one wait for the producer takes.
const POLL: Duration = Duration::from_millis(100);

/// What a copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// The record as it was: key, value, headers and timestamp.
    Record,
    /// A message for the downlink, which the brokers publish.
    Mqtt {
        /// What stands before the topic.
        topic_prefix: String,
        /// The quality of service, if not the recorded one.
        qos: Option<u8>,
        /// Whether it is retained, if not as recorded.
        retain: Option<bool>,
    },
}

/// Writes copies.
pub struct Copies {
    producer: BaseProducer<Refusals>,
    /// Of the replay's own group, with a resume file.
    offsets: Option<BaseConsumer<Heard>>,
    kafka: Kafka,
    topic: String,
    shape: Shape,
    id: String,
    spans: Vec<Span>,
    in_transaction: bool,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The first copy that Kafka did not take.
#[derive(Debug, Default)]
struct Refusals(Mutex<Option<String>>);

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| describe(error));
        }
    }
}

impl Copies {
    /// Copies in `topic`, as the replay `id` of `spans`. With `resume` it goes on where the last finished transaction of that
    /// replay ended, and `progress` is set to that.
    ///
    /// # Errors
    /// The topic does not exist, or Kafka does not give the transactions.
    pub fn open(
        kafka: &Kafka,
        topic: &str,
        shape: Shape,
        id: &str,
        spans: &[Span],
        resume: bool,
        progress: &mut Progress,
    ) -> Result<Self, Error> {
        let name = format!("millstream-replay-{id}");
        let consumer = kafka.consumer(&name)?;
        if !kafka.topics(&consumer)?.contains_key(topic) {
            return Err(Error::option(
                "the target topic",
                topic,
                "a topic that Kafka has: make it first",
            ));
        }
        let mut settings = kafka.settings();
        settings
            .set("transactional.id", &name)
            .set("transaction.timeout.ms", "60000")
            .set("compression.type", "lz4")
            // As Java's clients do, so that keys fall into the same partitions whoever writes.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "20")
            // How large a record may be is the topic's matter.
            .set("message.max.bytes", "1000000000")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("queue.buffering.max.messages", "200000");
        let producer = BaseProducer::from_config_and_context(&settings, Refusals::default())
            .map_err(|error| Error::failed("use the Kafka client", describe(&error)))?;
        // Ends what a killed predecessor left open, and keeps a living one from going on.
        insist(|| producer.init_transactions(ASK_TIMEOUT))
            .map_err(|error| Error::failed("begin transactions", describe(&error)))?;
        let mut copies = Self {
            producer,
            offsets: resume.then_some(consumer),
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            shape,
            id: id.to_owned(),
            spans: spans.to_vec(),
            in_transaction: false,
        };
        copies.read_offsets(progress)?;
        Ok(copies)
    }

    fn read_offsets(&mut self, progress: &mut Progress) -> Result<(), Error> {
        let Some(consumer) = &self.offsets else {
            return Ok(());
        };
        let failed =
            |error: KafkaError| Error::failed("ask how far the replay came", describe(&error));
        let mut list = TopicPartitionList::new();
        for span in &self.spans {
            list.add_partition(&span.topic, span.partition);
        }
        let found = consumer
            .committed_offsets(list, ASK_TIMEOUT)
            .map_err(failed)?;
        for (number, span) in self.spans.iter().enumerate() {
            let Some(element) = found.find_partition(&span.topic, span.partition) else {
                continue;
            };
            element.error().map_err(failed)?;
            if let Offset::Offset(offset) = element.offset() {
                progress.positions[number] = offset;
                progress.written_of[number] = element.metadata().parse().unwrap_or(0);
            }
        }
        progress.written = progress.written_of.iter().sum();
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        if !self.in_transaction {
            self.producer
                .begin_transaction()
                .map_err(|error| Error::failed("begin a transaction", describe(&error)))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, record: &Line<'_>) -> Result<bool, Error> {
        self.begin()?;
        let origin = record.origin().to_string();
        let marks = [(REPLAY_ID, self.id.as_bytes()), (ORIGIN, origin.as_bytes())];
        let message;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + marks.len());
        let mut add = |name: &str, value: Option<&[u8]>| {
            headers = std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0))
                .insert(Header { key: name, value });
        };
        let mut copy = BaseRecord::<[u8], [u8]>::to(&self.topic);
        match &self.shape {
            Shape::Record => {
                for &(name, value) in &record.headers {
                    if name != REPLAY_ID && name != ORIGIN {
                        add(name, value);
                    }
                }
                copy.key = record.key;
                copy.payload = record.value;
                copy.timestamp = record.timestamp_ms;
            }
            Shape::Mqtt {
                topic_prefix,
                qos,
                retain,
            } => {
                let headers = record.headers.iter().copied();
                let value = record.value.unwrap_or_default();
                let Ok(mut envelope) = Envelope::parse(record.key, value, headers) else {
                    return Ok(false);
                };
                message = format!("{topic_prefix}{}", envelope.topic);
                // The broker's own topics are not the downlink's.
                if message.starts_with('$') || topic::validate_name(&message).is_err() {
                    return Ok(false);
                }
                envelope.topic = &message;
                envelope.qos = qos.unwrap_or(envelope.qos);
                envelope.retain = retain.unwrap_or(envelope.retain);
                envelope.client_id = None;
                (envelope.node, envelope.received_at_micros) = (None, None);
                envelope.for_each_header(|name, value| add(name, Some(value)));
                copy.key = Some(message.as_bytes());
                copy.payload = Some(value);
            }
        }
        for (name, value) in marks {
            add(name, Some(value));
        }
        let mut copy = copy.headers(headers);
        loop {
            match self.producer.send(copy) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(true);
                }
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    copy = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    return Err(Error::failed(format!("copy {origin}"), self.reason(&error)));
                }
            }
        }
    }

    /// The first refusal says more than the transaction that failed because of it.
    fn reason(&self, error: &KafkaError) -> String {
        let first = &self.producer.context().0;
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().unwrap_or_else(|| describe(error))
    }

    pub(crate) fn finish_batch(&mut self, progress: &Progress) -> Result<(), Error> {
        if !self.in_transaction && self.offsets.is_none() {
            return Ok(());
        }
        self.begin()?;
        let ended = self.end_transaction(progress);
        if let Err(error) = ended {
            let why = self.reason(&error);
            let _ = self.producer.abort_transaction(ASK_TIMEOUT);
            return Err(Error::failed(
                format!("finish a batch in {} (none of it is there)", self.topic),
                why,
            ));
        }
        self.in_transaction = false;
        Ok(())
    }

    fn end_transaction(&self, progress: &Progress) -> KafkaResult<()> {
        let deadline = Instant::now() + END_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if self.producer.flush(POLL).is_err() && Instant::now() >= deadline {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        if let Some(consumer) = &self.offsets {
            let mut list = TopicPartitionList::new();
            for (number, span) in self.spans.iter().enumerate() {
                let mut element = list.add_partition(&span.topic, span.partition);
                element.set_offset(Offset::Offset(progress.positions[number]))?;
                element.set_metadata(progress.written_of[number].to_string());
            }
            let group = consumer
                .group_metadata()
                .ok_or(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup))?;
            insist(|| {
                self.producer
                    .send_offsets_to_transaction(&list, &group, ASK_TIMEOUT)
            })?;
        }
        insist(|| self.producer.commit_transaction(ASK_TIMEOUT))
    }

    /// Takes back what is not finished, so that nobody who reads has to wait for the end of a transaction that never comes.
    pub(crate) fn abort(&mut self) {
        if std::mem::take(&mut self.in_transaction)
            && let Err(error) = self.producer.abort_transaction(ASK_TIMEOUT)
        {
            tracing::debug!(%error, "a transaction could not be aborted");
        }
    }

    /// Deletes the group that kept how far it came; for a replay that has ended.
    pub(crate) fn clean_up(&self) {
        if self.offsets.is_none() {
            return;
        }
        let name = format!("millstream-replay-{}", self.id);
        let deleted = self.kafka.admin().and_then(|admin| {
            wait(admin.delete_groups(&[&name], &admin_options()))?
                .map_err(|error| Error::failed("delete a group", describe(&error)))
        });
        if let Err(error) = deleted {
            tracing::debug!(%error, "the group of the replay stays until Kafka forgets it");
        }
    }
}

/// Does it again while Kafka says that it may help, for as long as that is worth it.
fn insist(mut step: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        match step() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < deadline =>
            {
                tracing::debug!(%error, "again");
            }
            ended => return ended,
        }
    }
}
