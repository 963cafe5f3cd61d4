//! Records as a handler sees them: a batch of one partition, in order.
//!
//! A batch owns one buffer of bytes that all its records share, so that taking a record from Kafka copies its bytes once and
//! allocates nothing of its own. Headers are stored raw and read when a handler asks for them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use envelope::replay::{ORIGIN, Origin, TARGET_GROUP};
use envelope::{Envelope, EnvelopeError};

/// Consecutive records of one partition, in the order of their offsets.
pub struct Batch {
    cluster: Arc<str>,
    topic: Arc<str>,
    partition: i32,
    bytes: Vec<u8>,
    records: Vec<Slot>,
    headers: Vec<HeaderSlot>,
    /// Whether some record says that it is a copy, or for whom it is.
    has_copies: bool,
    /// The offset after the last record, where that was [left out](Self::without).
    left_out_to: Option<i64>,
}

/// Where a record lies in its batch.
struct Slot {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Range<u32>>,
    payload: Option<Range<u32>>,
    headers: Range<u32>,
    headers_unreadable: bool,
}

struct HeaderSlot {
    name: Range<u32>,
    value: Option<Range<u32>>,
}

impl Batch {
    /// An empty batch of a partition.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            cluster: Arc::from(""),
            topic: topic.into(),
            partition,
            bytes: Vec::new(),
            records: Vec::new(),
            headers: Vec::new(),
            has_copies: false,
            left_out_to: None,
        }
    }

    /// Names the Kafka cluster from which the records come; empty when nobody did.
    #[must_use]
    pub fn of_cluster(mut self, cluster: Arc<str>) -> Self {
        self.cluster = cluster;
        self
    }

    /// Appends a record. Records come in the order of their offsets.
    ///
    /// # Panics
    ///
    /// If the batch grows past 4 GiB; the reader stops at `batch_bytes_max` long before.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let headers_start = position(self.headers.len());
        for (name, value) in headers {
            self.has_copies |= name == ORIGIN || name == TARGET_GROUP;
            let name = self.append(name.as_bytes());
            let value = value.map(|value| self.append(value));
            self.headers.push(HeaderSlot { name, value });
        }
        let headers = headers_start..position(self.headers.len());
        let key = key.map(|key| self.append(key));
        let payload = payload.map(|payload| self.append(payload));
        self.records.push(Slot {
            offset,
            timestamp_ms,
            key,
            payload,
            headers,
            headers_unreadable: false,
        });
    }

    /// Appends a record whose headers cannot be read (a name that is no UTF-8), so that it is dead-lettered and not lost.
    pub fn push_without_headers(
        &mut self,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) {
        self.push(offset, timestamp_ms, key, payload, []);
        if let Some(slot) = self.records.last_mut() {
            slot.headers_unreadable = true;
        }
    }

    fn append(&mut self, part: &[u8]) -> Range<u32> {
        let start = position(self.bytes.len());
        self.bytes.extend_from_slice(part);
        start..position(self.bytes.len())
    }

    /// The identifier of the Kafka cluster. Offsets mean something within one cluster only: a store that remembers how far
    /// it came keeps the cluster beside the offset.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The Kafka topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn cluster_shared(&self) -> Arc<str> {
        Arc::clone(&self.cluster)
    }

    /// Empties the batch and keeps its buffers.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.headers.clear();
        self.has_copies = false;
        self.left_out_to = None;
    }

    /// Whether some record says that it is a copy, or for whom it is.
    pub(crate) fn has_copies(&self) -> bool {
        self.has_copies
    }

    /// The same without the records at these offsets, in their order. It is consumed as far as this one.
    pub(crate) fn without(&self, offsets: &[i64]) -> Self {
        let mut rest = Self::new(Arc::clone(&self.topic), self.partition)
            .of_cluster(Arc::clone(&self.cluster));
        let is_kept = |record: &Record<'_>| offsets.binary_search(&record.offset()).is_err();
        for record in self.iter().filter(is_kept) {
            let (offset, time) = (record.offset(), record.timestamp_ms());
            let payload = record.payload_or_tombstone();
            if record.slot.headers_unreadable {
                rest.push_without_headers(offset, time, record.key(), payload);
            } else {
                rest.push(offset, time, record.key(), payload, record.headers());
            }
        }
        rest.left_out_to = self.next_offset();
        rest
    }

    pub(crate) fn topic_shared(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition of the topic.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes held: keys, payloads and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offset of the first record.
    #[must_use]
    pub fn first_offset(&self) -> Option<i64> {
        self.records.first().map(|slot| slot.offset)
    }

    /// The offset after the last record: what is committed when the batch is done. `None` when the batch is empty.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        let behind_last = self.records.last().map(|slot| slot.offset + 1);
        behind_last.max(self.left_out_to)
    }

    /// The record at `index`, from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        self.records
            .get(index)
            .map(|slot| Record { batch: self, slot })
    }

    /// The record with the Kafka offset `offset`.
    #[must_use]
    pub fn at_offset(&self, offset: i64) -> Option<Record<'_>> {
        let index = self
            .records
            .binary_search_by_key(&offset, |slot| slot.offset)
            .ok()?;
        self.get(index)
    }

    /// All records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> + DoubleEndedIterator + Clone {
        self.records.iter().map(|slot| Record { batch: self, slot })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("first_offset", &self.first_offset())
            .field("records", &self.records.len())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

fn position(length: usize) -> u32 {
    u32::try_from(length).expect("a batch stays below 4 GiB")
}

/// One record of a batch. Copying it copies two references.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    batch: &'a Batch,
    slot: &'a Slot,
}

impl<'a> Record<'a> {
    fn slice(self, range: &Range<u32>) -> &'a [u8] {
        &self.batch.bytes[range.start as usize..range.end as usize]
    }

    /// The batch of the record.
    #[must_use]
    pub fn batch(self) -> &'a Batch {
        self.batch
    }

    /// The Kafka topic.
    #[must_use]
    pub fn topic(self) -> &'a str {
        &self.batch.topic
    }

    /// The partition of the topic.
    #[must_use]
    pub fn partition(self) -> i32 {
        self.batch.partition
    }

    /// The offset in the partition.
    #[must_use]
    pub fn offset(self) -> i64 {
        self.slot.offset
    }

    /// Kafka's timestamp of the record, milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(self) -> Option<i64> {
        self.slot.timestamp_ms
    }

    /// The key.
    #[must_use]
    pub fn key(self) -> Option<&'a [u8]> {
        self.slot.key.as_ref().map(|range| self.slice(range))
    }

    /// The value; empty also when Kafka holds none (a tombstone).
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        self.payload_or_tombstone().unwrap_or_default()
    }

    /// The value, or `None` for a tombstone.
    #[must_use]
    pub fn payload_or_tombstone(self) -> Option<&'a [u8]> {
        self.slot.payload.as_ref().map(|range| self.slice(range))
    }

    /// The headers in order; names may repeat.
    pub fn headers(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let Range { start, end } = self.slot.headers;
        self.batch.headers[start as usize..end as usize]
            .iter()
            .map(move |header| {
                // Names came in as `&str`, so this never takes the other branch.
                let name = std::str::from_utf8(self.slice(&header.name)).unwrap_or_default();
                (name, header.value.as_ref().map(|range| self.slice(range)))
            })
    }

    /// The value of the first header named `name`.
    #[must_use]
    pub fn header(self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .find(|(other, _)| *other == name)
            .and_then(|(_, value)| value)
    }

    /// The place of the record of which this one is a copy.
    pub(crate) fn origin(self) -> Option<Origin<'a>> {
        Origin::parse(self.header(ORIGIN)?)
    }

    /// The MQTT message that the record carries.
    ///
    /// # Errors
    ///
    /// The record is none that the bridge or anybody who follows the contract wrote: poison.
    pub fn envelope(self) -> Result<Envelope<'a>, MalformedRecord> {
        if self.slot.headers_unreadable {
            return Err(MalformedRecord::HeaderName);
        }
        Envelope::parse(self.key(), self.payload(), self.headers())
            .map_err(MalformedRecord::Envelope)
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic(), self.partition(), self.offset())
    }
}

/// Why a record is no MQTT message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// A header name is not UTF-8, so the headers cannot be read.
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    /// The record breaks the envelope's contract.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new("chat.messages", 3);
        batch.push(
            7,
            Some(1),
            Some(b"k"),
            Some(b"one"),
            [("a", Some(&b"1"[..])), ("b", None), ("a", Some(b"2"))],
        );
        batch.push(9, None, None, None, []);
        batch.push(10, Some(3), Some(b""), Some(b""), [("c", Some(&b""[..]))]);
        batch
    }

    #[test]
    fn a_record_reads_back_as_it_was_pushed() {
        let batch = batch();
        assert_eq!(
            (batch.len(), batch.first_offset(), batch.next_offset()),
            (3, Some(7), Some(11))
        );
        let first = batch.get(0).unwrap();
        assert_eq!(
            (first.topic(), first.partition(), first.offset()),
            ("chat.messages", 3, 7)
        );
        assert_eq!(
            (first.timestamp_ms(), first.key(), first.payload()),
            (Some(1), Some(&b"k"[..]), &b"one"[..])
        );
        let headers: Vec<_> = first.headers().collect();
        assert_eq!(
            headers,
            [("a", Some(&b"1"[..])), ("b", None), ("a", Some(b"2"))]
        );
        assert_eq!(
            (first.header("a"), first.header("b"), first.header("z")),
            (Some(&b"1"[..]), None, None)
        );
        let second = batch.get(1).unwrap();
        assert_eq!(
            (
                second.key(),
                second.payload_or_tombstone(),
                second.headers().count()
            ),
            (None, None, 0)
        );
        let third = batch.get(2).unwrap();
        assert_eq!(
            (third.key(), third.payload_or_tombstone()),
            (Some(&b""[..]), Some(&b""[..]))
        );
        assert_eq!(third.header("c"), Some(&b""[..]));
        assert!(batch.get(3).is_none());
    }

    #[test]
    fn a_record_is_found_by_its_offset_across_gaps() {
        let batch = batch();
        assert_eq!(batch.at_offset(9).map(Record::offset), Some(9));
        assert!(batch.at_offset(8).is_none());
        assert!(batch.at_offset(11).is_none());
    }

    #[test]
    fn what_is_left_out_is_consumed_all_the_same() {
        let batch = batch();
        let rest = batch.without(&[7, 10]);
        let offsets = |batch: &Batch| batch.iter().map(Record::offset).collect::<Vec<_>>();
        assert_eq!(offsets(&rest), [9]);
        assert_eq!(rest.next_offset(), Some(11));
        let rest = batch.without(&[9]);
        assert_eq!(offsets(&rest), [7, 10]);
        assert_eq!(rest.get(0).unwrap().payload(), b"one");
        assert_eq!(rest.get(0).unwrap().headers().count(), 3);
        let nothing = batch.without(&[7, 9, 10]);
        assert_eq!(
            (nothing.first_offset(), nothing.next_offset()),
            (None, Some(11))
        );
    }

    #[test]
    fn unreadable_headers_are_told_when_the_envelope_is_read() {
        let mut batch = Batch::new("t", 0);
        batch.push_without_headers(0, None, Some(b"a/b"), Some(b"x"));
        assert_eq!(
            batch.get(0).unwrap().envelope().unwrap_err(),
            MalformedRecord::HeaderName
        );
    }
}
