//! A record as it is read, and as a line of JSON from which it can be made again without a loss.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envelope::replay::{ORIGIN, Origin};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

/// A record of Kafka's, borrowed.
///
/// As JSON it is one object: `topic`, `partition`, `offset`, `timestamp_ms`, `key`, `value`, `headers`, and `origin` when it is
/// a copy. Bytes are text where they are UTF-8, else an object `{"base64": "…"}`; `null` is what Kafka calls null. Headers are
/// pairs in their order, as names may repeat.
#[derive(Debug, Clone, Default)]
pub struct Line<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in order.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Line<'a> {
    /// Takes a record; `None` when its headers cannot be read (a name that is no UTF-8).
    pub(crate) fn of(message: &'a BorrowedMessage<'_>) -> Option<Self> {
        let mut headers = Vec::new();
        if let Some(found) = message.headers() {
            // rdkafka panics at a header name that is no UTF-8, which anybody who may write to the topic could send.
            headers.reserve_exact(found.count());
            let read = catch_unwind(AssertUnwindSafe(|| {
                for index in 0..found.count() {
                    if let Some(header) = found.try_get(index) {
                        headers.push((header.key, header.value));
                    }
                }
            }));
            if read.is_err() {
                return None;
            }
        }
        Some(Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers,
        })
    }

    /// The value of the last header named `name`: of a header that makes sense once, the last one counts.
    #[must_use]
    pub fn last_header(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self.headers.iter().rev();
        found
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value.unwrap_or_default())
    }

    /// Where the original of this record is: what its header says, else its own place.
    #[must_use]
    pub fn origin(&self) -> Origin<'a> {
        self.copied_from().unwrap_or(Origin {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
        })
    }

    fn copied_from(&self) -> Option<Origin<'a>> {
        self.last_header(ORIGIN).and_then(Origin::parse)
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
            .sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// Bytes, as text where that loses nothing.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &Cow::<str>::Owned(STANDARD.encode(self.0)))?;
                map.end()
            }
        }
    }
}

struct HeaderPairs<'a>(&'a [(&'a str, Option<&'a [u8]>)]);

impl Serialize for HeaderPairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (name, value) in self.0 {
            list.serialize_element(&(name, value.map(Bytes)))?;
        }
        list.end()
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp_ms", &self.timestamp_ms)?;
        map.serialize_entry("key", &self.key.map(Bytes))?;
        map.serialize_entry("value", &self.value.map(Bytes))?;
        map.serialize_entry("headers", &HeaderPairs(&self.headers))?;
        if let Some(origin) = self.copied_from() {
            map.serialize_entry("origin", &origin.to_string())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_nothing() {
        let line = Line {
            topic: "t",
            partition: 2,
            offset: 9,
            timestamp_ms: Some(5),
            key: Some(b"k\"\n"),
            value: Some(b"\xff\x00"),
            headers: vec![
                ("a", Some(b"1")),
                ("a", None),
                ("b", Some(b"\xfe")),
                (ORIGIN, Some(b"s/1/7")),
            ],
        };
        let expected = serde_json::json!({
            "topic": "t", "partition": 2, "offset": 9, "timestamp_ms": 5,
            "key": "k\"\n", "value": {"base64": "/wA="},
            "headers": [["a", "1"], ["a", null], ["b", {"base64": "/g=="}], [ORIGIN, "s/1/7"]],
            "origin": "s/1/7",
        });
        assert_eq!(serde_json::to_value(&line).unwrap(), expected);
        assert!(!serde_json::to_string(&line).unwrap().contains('\n'));
    }

    #[test]
    fn null_and_empty_are_told_apart() {
        let line = Line {
            value: Some(b""),
            ..Line::default()
        };
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(
            (&json["key"], &json["value"]),
            (&serde_json::Value::Null, &"".into())
        );
        assert_eq!(json.get("origin"), None);
    }

    #[test]
    fn a_copy_of_a_copy_has_the_origin_of_the_first() {
        let own = Line {
            topic: "t",
            partition: 1,
            offset: 2,
            ..Line::default()
        };
        assert_eq!(own.origin().to_string(), "t/1/2");
        let copy = Line {
            headers: vec![(ORIGIN, Some(b"s/0/7"))],
            ..own.clone()
        };
        assert_eq!(copy.origin().to_string(), "s/0/7");
        let nonsense = Line {
            headers: vec![(ORIGIN, Some(b"s"))],
            ..own
        };
        assert_eq!(nonsense.origin().to_string(), "t/1/2");
    }
}
