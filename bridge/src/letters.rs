//! Dead letters of messages that Kafka refused: the message with its headers, and why it is where it is.

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
    finish(held, topic, partition, node, code, code.to_string())
}

impl Held {
    /// Whether a dead letter of it may be shortened.
    pub(crate) fn is_long(&self) -> bool {
        self.payload.len() > PAYLOAD_LEFT_BYTES
    }
}

/// The same with the first bytes of the payload alone.
pub(crate) fn shorten(
    held: Held,
    topic: &str,
    partition: usize,
    node: &str,
    code: RDKafkaErrorCode,
) -> Held {
    let len = held.payload.len();
    let says = format!(
        "{code} (the payload of {len} bytes is too large for a dead letter: these are its first {PAYLOAD_LEFT_BYTES})"
    );
    let payload = held.payload[..PAYLOAD_LEFT_BYTES.min(len)].into();
    finish(Held { payload, ..held }, topic, partition, node, code, says)
}

fn finish(
    held: Held,
    topic: &str,
    partition: usize,
    node: &str,
    code: RDKafkaErrorCode,
    message: String,
) -> Held {
    let class = format!("{code:?}");
    let letter = DeadLetter {
        topic,
        partition: i32::try_from(partition).unwrap_or(i32::MAX),
        offset: None,
        group: node,
        stage: STAGE,
        class: &class,
        message: &message,
    };
    let mut headers = Some(OwnedHeaders::new_with_capacity(held.headers.count() + 6));
    let mut add = |key: &str, value: Option<&[u8]>| {
        headers = headers
            .take()
            .map(|headers| headers.insert(Header { key, value }));
    };
    // A letter that is written once more has its own words already.
    let own = held
        .headers
        .iter()
        .filter(|header| !dead_letter::is_header(header.key));
    own.for_each(|header| add(header.key, header.value));
    letter.for_each_header(|key, value| add(key, Some(value)));
    Held {
        headers: headers.unwrap_or_default(),
        ..held
    }
}
