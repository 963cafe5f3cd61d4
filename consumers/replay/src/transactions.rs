//! A producer whose records are there in transactions: all of a batch, or none of it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::kafka::{ASK_TIMEOUT, Heard, describe};
use crate::{Error, Kafka};

/// How long a transaction may take to end while Kafka is away.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one wait for the producer takes.
const POLL: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Transactions {
    producer: BaseProducer<Refusals>,
    in_transaction: bool,
}

/// The first record that Kafka did not take.
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

impl Transactions {
    /// Transactions under `name`. What a killed predecessor of that name left open is ended, and a living one can end none any
    /// more.
    ///
    /// # Errors
    /// Kafka does not give them.
    pub(crate) fn open(kafka: &Kafka, name: &str) -> Result<Self, Error> {
        let mut settings = kafka.settings();
        settings
            .set("transactional.id", name)
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
        insist(|| producer.init_transactions(ASK_TIMEOUT))
            .map_err(|error| Error::failed("begin transactions", describe(&error)))?;
        Ok(Self {
            producer,
            in_transaction: false,
        })
    }

    /// Begins a transaction where none is open.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        if !self.in_transaction {
            self.producer
                .begin_transaction()
                .map_err(|error| Error::failed("begin a transaction", describe(&error)))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Whether one is open.
    pub(crate) fn is_open(&self) -> bool {
        self.in_transaction
    }

    /// Appends a record in the open transaction; `what` names it where it is refused.
    pub(crate) fn send(&self, record: BaseRecord<'_, [u8], [u8]>, what: &str) -> Result<(), Error> {
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => return Err(Error::failed(what, self.reason(&error))),
            }
        }
    }

    /// Ends the transaction, and with it sets the offsets of a group. After an error none of it is there.
    pub(crate) fn commit(
        &mut self,
        offsets: Option<(&BaseConsumer<Heard>, KafkaResult<TopicPartitionList>)>,
    ) -> Result<(), String> {
        let ended = self.end(offsets);
        if let Err(error) = ended {
            let why = self.reason(&error);
            let _ = self.producer.abort_transaction(ASK_TIMEOUT);
            return Err(why);
        }
        self.in_transaction = false;
        Ok(())
    }

    fn end(
        &self,
        offsets: Option<(&BaseConsumer<Heard>, KafkaResult<TopicPartitionList>)>,
    ) -> KafkaResult<()> {
        let deadline = Instant::now() + END_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if self.producer.flush(POLL).is_err() && Instant::now() >= deadline {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        if let Some((consumer, list)) = offsets {
            let list = list?;
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

    /// The first refusal says more than the transaction that failed because of it.
    fn reason(&self, error: &KafkaError) -> String {
        let first = &self.producer.context().0;
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().unwrap_or_else(|| describe(error))
    }
}

/// Appends a header.
pub(crate) fn add(headers: &mut OwnedHeaders, key: &str, value: Option<&[u8]>) {
    let before = std::mem::replace(headers, OwnedHeaders::new_with_capacity(0));
    *headers = before.insert(Header { key, value });
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
