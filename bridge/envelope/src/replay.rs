//! The headers of a record that was copied from elsewhere in Kafka, and the place it came from.
//!
//! A copy keeps key, value and headers of the record it was, and gets these after them. They say that it is no new message:
//! whoever had the effect of the original does not have it a second time.

use std::fmt;

/// Which replay wrote the copy.
pub const REPLAY_ID: &str = "mill.replay.id";

/// Where the original is: `TOPIC/PARTITION/OFFSET`. A copy of a copy names the original.
pub const ORIGIN: &str = "mill.origin";

/// The consumer group for which a copy is meant, and nobody else: all others of this project leave it out. That group takes it
/// although it has consumed the original, which it gave up then.
pub const TARGET_GROUP: &str = "mill.target-group";

/// How often a dead letter was put back, in decimal digits.
pub const ATTEMPTS: &str = "mill.attempts";

/// The place of a record in Kafka, as [`ORIGIN`] holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

impl<'a> Origin<'a> {
    /// Reads the header's value; `None` when it is no place.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.rsplitn(3, '/');
        let offset = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        // A topic of Kafka's has no slash in its name.
        let topic = parts.next().filter(|topic| !topic.is_empty())?;
        (offset >= 0 && partition >= 0 && !topic.contains('/')).then_some(Self {
            topic,
            partition,
            offset,
        })
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_header() {
        let origin = Origin {
            topic: "chat.messages",
            partition: 3,
            offset: 42,
        };
        assert_eq!(origin.to_string(), "chat.messages/3/42");
        assert_eq!(Origin::parse(b"chat.messages/3/42"), Some(origin));
    }

    #[test]
    fn what_is_no_place_is_none() {
        for bad in [
            "", "a", "a/1", "/1/2", "a/b/2", "a/1/-2", "a/-1/2", "a/1/x", "a/b/1/2", "a/1/",
        ] {
            assert_eq!(Origin::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Origin::parse(b"\xff/1/2"), None);
    }
}
