//! A record of the downlink topic as a message for the broker.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use broker::codec::{EncodeError, PropertiesBuf, Property, Qos};
use broker::{Message, MessageParts, Time};
use envelope::{Envelope, EnvelopeError, header};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, Headers as _};

/// The parts of a record that matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) payload: &'a [u8],
    pub(super) headers: &'a [Header<'a>],
    /// When it was appended, in milliseconds since the Unix epoch, if Kafka knows.
    pub(super) timestamp_ms: Option<i64>,
}

/// What a record turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A message to publish.
    Message(Message),
    /// A message that nobody wants any more.
    Expired,
}

/// Why a record cannot be published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the topics that begin with $ are the broker's own")]
    ReservedTopic,
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    #[error("the properties do not fit an MQTT packet: {0}")]
    Properties(#[from] EncodeError),
}

impl Malformed {
    /// The kind of error in one word, for the dead letter.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Envelope(_) => "Envelope",
            Self::ReservedTopic => "ReservedTopic",
            Self::HeaderName => "HeaderName",
            Self::Properties(_) => "Properties",
        }
    }
}

/// A header: its name, and its value if it has one.
pub(super) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The headers of a record as pairs. The binding panics at a header whose name is not UTF-8, which any Kafka client can
/// write, so the panic is caught here and the record is malformed.
pub(super) fn headers(headers: Option<&BorrowedHeaders>) -> Result<Vec<Header<'_>>, Malformed> {
    let Some(headers) = headers else {
        return Ok(Vec::new());
    };
    catch_unwind(AssertUnwindSafe(|| {
        headers
            .iter()
            .map(|header| (header.key, header.value))
            .collect()
    }))
    .map_err(|_| Malformed::HeaderName)
}

/// Under what a record asks for a report, as far as that can be told of one that may be no message, and its MQTT topic.
pub(super) fn asks<'a>(
    key: Option<&'a [u8]>,
    headers: &[Header<'a>],
) -> Option<(&'a str, Cow<'a, str>)> {
    let last = |name: &str| headers.iter().rev().find(|(header, _)| *header == name);
    let correlation = last(header::REPORT)?.1?;
    let correlation = std::str::from_utf8(correlation).ok()?;
    let topic = last(header::TOPIC).and_then(|(_, value)| *value).or(key);
    Some((
        correlation,
        String::from_utf8_lossy(topic.unwrap_or_default()),
    ))
}

/// Makes a message of a record. `now` and `now_ms` are the same moment on the broker's clock and since the Unix epoch.
pub(super) fn decode(record: Record<'_>, now: Time, now_ms: u64) -> Result<Decoded, Malformed> {
    let envelope = Envelope::parse(record.key, record.payload, record.headers.iter().copied())?;
    if envelope.topic.starts_with('$') {
        return Err(Malformed::ReservedTopic);
    }
    let expires_at = match envelope.message_expiry_s {
        None => None,
        Some(seconds) => match remaining_ms(seconds, record.timestamp_ms, now_ms) {
            0 => return Ok(Decoded::Expired),
            ms => Some(now.plus_ms(ms)),
        },
    };
    let properties = properties(&envelope)?;
    Ok(Decoded::Message(Message::new(&MessageParts {
        topic: envelope.topic,
        payload: envelope.payload,
        qos: Qos::try_from(envelope.qos).unwrap_or(Qos::AtMostOnce),
        retain: envelope.retain,
        properties: properties.as_properties().as_bytes(),
        expires_at,
        arrived_at: now,
    })))
}

/// What is left of a message expiry interval after the time in Kafka [MQTT-3.3.2-6]. Clocks of other machines may be
/// ahead of ours: that never makes a message live longer than its interval.
fn remaining_ms(seconds: u32, timestamp_ms: Option<i64>, now_ms: u64) -> u64 {
    let appended_ms = timestamp_ms
        .and_then(|ms| u64::try_from(ms).ok())
        .unwrap_or(now_ms);
    (u64::from(seconds) * 1_000).saturating_sub(now_ms.saturating_sub(appended_ms))
}

/// The properties that a server forwards unaltered, user properties in their order [MQTT-3.3.2-18].
fn properties(envelope: &Envelope<'_>) -> Result<PropertiesBuf, EncodeError> {
    let mut properties = PropertiesBuf::default();
    if let Some(format) = envelope.payload_format {
        properties.push(Property::PayloadFormatIndicator(format))?;
    }
    if let Some(content_type) = envelope.content_type {
        properties.push(Property::ContentType(content_type))?;
    }
    if let Some(topic) = envelope.response_topic {
        properties.push(Property::ResponseTopic(topic))?;
    }
    if let Some(data) = envelope.correlation_data {
        properties.push(Property::CorrelationData(data))?;
    }
    for (name, value) in &envelope.user_properties {
        properties.push(Property::UserProperty(name, value))?;
    }
    Ok(properties)
}

/// The record behind a message of the binding.
pub(super) fn record<'a>(
    message: &'a rdkafka::message::BorrowedMessage<'_>,
    headers: &'a [Header<'a>],
) -> Record<'a> {
    Record {
        key: message.key(),
        // A record without a value is one with an empty payload: a backend that clears a retained message may write it so.
        payload: message.payload().unwrap_or_default(),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envelope::Downlink;

    fn decode_downlink(
        downlink: &Downlink,
        timestamp_ms: Option<i64>,
        now_ms: u64,
    ) -> Result<Decoded, Malformed> {
        let mut owned = Vec::new();
        downlink.for_each_header(|name, value| owned.push((name.to_owned(), value.to_vec())));
        let headers: Vec<_> = owned
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_slice())))
            .collect();
        let record = Record {
            key: Some(downlink.key()),
            payload: &downlink.payload,
            headers: &headers,
            timestamp_ms,
        };
        decode(record, Time(1_000), now_ms)
    }

    fn message(decoded: Result<Decoded, Malformed>) -> Message {
        match decoded {
            Ok(Decoded::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_property_reaches_the_message_in_order() {
        let downlink = Downlink::new("users/alice/receipts", "x")
            .qos(2)
            .retain(true)
            .payload_format(1)
            .content_type("text/plain")
            .response_topic("r/1")
            .correlation_data([0, 255])
            .user_property("b", "1")
            .user_property("traceparent", "00-1-2-01")
            .user_property("a", "2")
            .user_property("b", "3");
        let message = message(decode_downlink(&downlink, Some(0), 0));
        assert_eq!(message.topic(), "users/alice/receipts");
        assert_eq!(message.payload(), b"x");
        assert_eq!((message.qos(), message.retain()), (Qos::ExactlyOnce, true));
        assert_eq!(message.expires_at(), None);
        let properties: Vec<_> = message.properties().iter().collect();
        assert_eq!(
            properties,
            [
                Property::PayloadFormatIndicator(1),
                Property::ContentType("text/plain"),
                Property::ResponseTopic("r/1"),
                Property::CorrelationData(&[0, 255]),
                Property::UserProperty("b", "1"),
                Property::UserProperty("traceparent", "00-1-2-01"),
                Property::UserProperty("a", "2"),
                Property::UserProperty("b", "3"),
            ]
        );
    }

    #[test]
    fn the_time_in_kafka_is_taken_off_the_expiry() {
        let downlink = Downlink::new("a", "x").message_expiry_s(10);
        let appended = Some(1_000_000);
        let at = |now_ms| decode_downlink(&downlink, appended, now_ms);
        assert_eq!(message(at(1_000_000)).expires_at(), Some(Time(11_000)));
        assert_eq!(message(at(1_004_000)).expires_at(), Some(Time(7_000)));
        assert_eq!(at(1_010_000), Ok(Decoded::Expired));
        // The other clock is ahead.
        assert_eq!(message(at(900_000)).expires_at(), Some(Time(11_000)));
        assert_eq!(
            message(decode_downlink(&downlink, None, 5)).expires_at(),
            Some(Time(11_000))
        );
        assert_eq!(
            decode_downlink(&Downlink::new("a", "x").message_expiry_s(0), None, 5),
            Ok(Decoded::Expired)
        );
    }

    #[test]
    fn a_record_that_is_no_message_says_why() {
        let cases = [
            (Downlink::new("a/+", "x"), "Envelope"),
            (Downlink::new("$SYS/broker/uptime", "x"), "ReservedTopic"),
            (Downlink::new("a", "x").qos(7), "Envelope"),
        ];
        for (downlink, class) in cases {
            assert_eq!(
                decode_downlink(&downlink, None, 0).unwrap_err().class(),
                class
            );
        }
        let nothing = Record {
            key: None,
            payload: b"",
            headers: &[],
            timestamp_ms: None,
        };
        assert_eq!(
            decode(nothing, Time(0), 0),
            Err(Malformed::Envelope(EnvelopeError::NoTopic))
        );
    }

    #[test]
    fn a_record_asks_for_a_report_by_its_last_header_even_if_it_is_no_message() {
        let headers: [Header<'_>; 3] = [
            ("mill.report", Some(b"c-1")),
            ("mqtt.topic", Some(b"a/+")),
            ("mill.report", Some(b"c-2")),
        ];
        assert_eq!(asks(Some(b"k"), &headers), Some(("c-2", "a/+".into())));
        assert_eq!(asks(Some(b"k"), &headers[..1]), Some(("c-1", "k".into())));
        assert_eq!(asks(Some(b"k"), &headers[1..2]), None);
        assert_eq!(asks(None, &[("mill.report", Some(b"\xff"))]), None);
    }

    #[test]
    fn a_key_alone_is_enough() {
        let record = Record {
            key: Some(b"a/b"),
            payload: b"x",
            headers: &[],
            timestamp_ms: None,
        };
        let message = message(decode(record, Time(0), 0));
        assert_eq!(
            (message.topic(), message.qos(), message.payload()),
            ("a/b", Qos::AtMostOnce, b"x".as_slice())
        );
    }
}
