//! Dead letters: the record with its headers, and why it is where it is. Of messages that Kafka refused, and of records of
//! the downlink topic that are no messages.

use envelope::dead_letter::{self, DeadLetter};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};

use crate::producer::{Errand, Held};

/// What a topic's name gets for that of its dead letters.
const SUFFIX: &str = ".dlq";
/// The step that failed, as Kafka Connect calls such steps.
const STAGE: &str = "KAFKA_PRODUCE";
/// What is left of a payload that is too large even for a dead letter.
const PAYLOAD_LEFT_BYTES: usize = 512;
/// What a dead letter takes beside its payload: room for it in the topics that are made for them.
pub(crate) const LETTER_ROOM_BYTES: u32 = 65_536;

/// The topic of the dead letters of `topic`.
pub(crate) fn topic(topic: &str) -> String {
    format!("{topic}{SUFFIX}")
}

/// Whether `topic` is one of dead letters.
pub(crate) fn is_topic(topic: &str) -> bool {
    topic.ends_with(SUFFIX)
}

/// Whether a dead letter with this payload may be shortened.
pub(crate) fn is_long(payload: &[u8]) -> bool {
    payload.len() > PAYLOAD_LEFT_BYTES
}

/// What is left of a payload that is too large for a dead letter, and how the letter's message says so.
pub(crate) fn shorten<'p>(payload: &'p [u8], message: &str) -> (&'p [u8], String) {
    let says = format!(
        "{message} (the payload of {} bytes is too large for a dead letter: these are its first {PAYLOAD_LEFT_BYTES})",
        payload.len()
    );
    (&payload[..PAYLOAD_LEFT_BYTES.min(payload.len())], says)
}

/// The headers of a dead letter: the record's `own`, and then what it is.
pub(crate) fn headers<'h>(
    own: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    letter: &DeadLetter<'_>,
) -> OwnedHeaders {
    let mut headers = Some(OwnedHeaders::new());
    let mut add = |key: &str, value: Option<&[u8]>| {
        headers = headers
            .take()
            .map(|headers| headers.insert(Header { key, value }));
    };
    // A letter that is written once more has its own words already.
    own.filter(|(key, _)| !dead_letter::is_header(key))
        .for_each(|(key, value)| add(key, value));
    letter.for_each_header(|key, value| add(key, Some(value)));
    headers.unwrap_or_default()
}

/// Makes a dead letter of a message for `topic` and its `partition`, which Kafka refused for `code`. `node` is who gave up.
pub(crate) fn write(
    held: Held,
    topic: &str,
    partition: usize,
    node: &str,
    code: RDKafkaErrorCode,
) -> Held {
    let mut held = held;
    held.note.errand = Errand::Letter(code);
    finish(held, topic, partition, node, code, &code.to_string())
}

/// The same with the first bytes of the payload alone.
pub(crate) fn write_shorter(
    held: Held,
    topic: &str,
    partition: usize,
    node: &str,
    code: RDKafkaErrorCode,
) -> Held {
    let (left, says) = shorten(&held.payload, &code.to_string());
    let payload = left.into();
    finish(
        Held { payload, ..held },
        topic,
        partition,
        node,
        code,
        &says,
    )
}

fn finish(
    held: Held,
    topic: &str,
    partition: usize,
    node: &str,
    code: RDKafkaErrorCode,
    message: &str,
) -> Held {
    let class = format!("{code:?}");
    let letter = DeadLetter {
        topic,
        partition: i32::try_from(partition).unwrap_or(i32::MAX),
        offset: None,
        group: node,
        stage: STAGE,
        class: &class,
        message,
    };
    let own = held.headers.iter().map(|header| (header.key, header.value));
    let headers = headers(own, &letter);
    Held { headers, ..held }
}
