//! Reads spans of partitions to their ends.
//!
//! A consumer without a group. Where a span ends is known before; its last offsets may hold no record (a topic that is
//! compacted, the marks of transactions), so that the end of the log ends it, too. librdkafka names only the number of the
//! partition whose end it reached: a source reads one topic.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{Heard, describe};
use crate::plan::Span;
use crate::{Error, Kafka};

/// What a look at a source gives.
pub(crate) enum Next<'a> {
    /// A record of the span with this number.
    Record(usize, BorrowedMessage<'a>),
    /// The span with this number has no more.
    Ended(usize),
    /// Nothing came in time.
    Idle,
    /// All spans have ended.
    Done,
}

/// Some spans of one topic.
pub(crate) struct Source {
    consumer: BaseConsumer<Heard>,
    topic: String,
    /// By partition: the span's number and its end; `None` when it has ended or is none of ours.
    open: RefCell<Vec<Option<(usize, i64)>>>,
    left: Cell<usize>,
}

impl Source {
    /// Begins to read `spans`: number, span, first offset. All are of one topic and not empty.
    pub(crate) fn open(kafka: &Kafka, spans: &[(usize, &Span, i64)]) -> Result<Self, Error> {
        let consumer = kafka.consumer("millstream-replay")?;
        let mut list = TopicPartitionList::new();
        let mut open = Vec::new();
        for &(number, span, first) in spans {
            list.add_partition_offset(&span.topic, span.partition, Offset::Offset(first))
                .map_err(|error| Error::failed("read", error))?;
            let partition = usize::try_from(span.partition).unwrap_or(0);
            if open.len() <= partition {
                open.resize(partition + 1, None);
            }
            open[partition] = Some((number, span.end));
        }
        consumer
            .assign(&list)
            .map_err(|error| Error::failed("read", describe(&error)))?;
        Ok(Self {
            consumer,
            topic: spans
                .first()
                .map_or_else(String::new, |(_, span, _)| span.topic.clone()),
            open: RefCell::new(open),
            left: Cell::new(spans.len()),
        })
    }

    /// The next record, or why there is none.
    pub(crate) fn next(&self, wait: Duration) -> Result<Next<'_>, Error> {
        if self.left.get() == 0 {
            return Ok(Next::Done);
        }
        match self.consumer.poll(wait) {
            None => Ok(Next::Idle),
            Some(Ok(message)) => {
                let Some((number, end)) = self.span(message.partition()) else {
                    // Fetched before the span ended.
                    return Ok(Next::Idle);
                };
                if message.offset() >= end {
                    self.close(message.partition());
                    return Ok(Next::Ended(number));
                }
                if message.offset() + 1 == end {
                    self.close(message.partition());
                }
                Ok(Next::Record(number, message))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => match self.span(partition) {
                Some((number, _)) => {
                    self.close(partition);
                    Ok(Next::Ended(number))
                }
                None => Ok(Next::Idle),
            },
            Some(Err(error)) => self.judge(&error),
        }
    }

    fn span(&self, partition: i32) -> Option<(usize, i64)> {
        let partition = usize::try_from(partition).ok()?;
        self.open.borrow().get(partition).copied().flatten()
    }

    fn close(&self, partition: i32) {
        if let Some(slot) = usize::try_from(partition)
            .ok()
            .and_then(|partition| self.open.borrow_mut().get_mut(partition)?.take())
        {
            let _: (usize, i64) = slot;
            self.left.set(self.left.get() - 1);
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, partition);
            // What it would fetch on is only a waste.
            if let Err(error) = self.consumer.pause(&list) {
                tracing::debug!(%error, "a partition that was read cannot be paused");
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> Result<Next<'_>, Error> {
        use RDKafkaErrorCode as Code;
        let doing = format!("read {}", self.topic);
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Error::failed(
                doing,
                "retention took records that were still to be read; begin again with --from earliest",
            )),
            Some(
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication
                | Code::Fatal,
            ) => Err(Error::failed(doing, describe(error))),
            // Kafka is away: librdkafka goes on when it is back.
            _ => {
                tracing::debug!(%error, "while reading");
                Ok(Next::Idle)
            }
        }
    }
}
