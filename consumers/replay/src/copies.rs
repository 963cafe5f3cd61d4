//! Records as copies in a Kafka topic, in transactions: what a killed replay had not finished is not there.
//!
//! With a resume file the offsets that were read are part of the transaction (in a consumer group of the replay's own), so
//! that they and the copies are there together or not at all. Readers with Kafka's isolation level `read_committed` (the
//! default of librdkafka, and of all parts of this project) see only what was finished.

use std::fmt;

use envelope::Envelope;
use envelope::replay::{ORIGIN, REPLAY_ID};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{ASK_TIMEOUT, Heard, admin_options, describe, wait};
use crate::line::Line;
use crate::plan::Span;
use crate::run::Progress;
use crate::transactions::{Transactions, add};
use crate::{Error, Kafka};

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
    transactions: Transactions,
    /// Of the replay's own group, with a resume file.
    offsets: Option<BaseConsumer<Heard>>,
    kafka: Kafka,
    topic: String,
    shape: Shape,
    id: String,
    spans: Vec<Span>,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .finish_non_exhaustive()
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
        let transactions = Transactions::open(kafka, &name)?;
        let mut copies = Self {
            transactions,
            offsets: resume.then_some(consumer),
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            shape,
            id: id.to_owned(),
            spans: spans.to_vec(),
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

    pub(crate) fn write(&mut self, record: &Line<'_>) -> Result<bool, Error> {
        self.transactions.begin()?;
        let origin = record.origin().to_string();
        let marks = [(REPLAY_ID, self.id.as_bytes()), (ORIGIN, origin.as_bytes())];
        let message;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + marks.len());
        let mut copy = BaseRecord::<[u8], [u8]>::to(&self.topic);
        match &self.shape {
            Shape::Record => {
                for &(name, value) in &record.headers {
                    if name != REPLAY_ID && name != ORIGIN {
                        add(&mut headers, name, value);
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
                let recorded = record.headers.iter().copied();
                let value = record.value.unwrap_or_default();
                let Ok(mut envelope) = Envelope::parse(record.key, value, recorded) else {
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
                // Who asked to hear of the original has heard.
                envelope.report = None;
                envelope.for_each_header(|name, value| add(&mut headers, name, Some(value)));
                copy.key = Some(message.as_bytes());
                copy.payload = Some(value);
            }
        }
        for (name, value) in marks {
            add(&mut headers, name, Some(value));
        }
        let copy = copy.headers(headers);
        self.transactions.send(copy, &format!("copy {origin}"))?;
        Ok(true)
    }

    pub(crate) fn finish_batch(&mut self, progress: &Progress) -> Result<(), Error> {
        if !self.transactions.is_open() && self.offsets.is_none() {
            return Ok(());
        }
        self.transactions.begin()?;
        let list = self.positions(progress);
        let offsets = self.offsets.as_ref().map(|consumer| (consumer, list));
        self.transactions.commit(offsets).map_err(|why| {
            Error::failed(
                format!("finish a batch in {} (none of it is there)", self.topic),
                why,
            )
        })
    }

    fn positions(&self, progress: &Progress) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (number, span) in self.spans.iter().enumerate() {
            let mut element = list.add_partition(&span.topic, span.partition);
            element.set_offset(Offset::Offset(progress.positions[number]))?;
            element.set_metadata(progress.written_of[number].to_string());
        }
        Ok(list)
    }

    /// Takes back what is not finished, so that nobody who reads has to wait for the end of a transaction that never comes.
    pub(crate) fn abort(&mut self) {
        self.transactions.abort();
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
