//! The headers of a record in a dead-letter topic: those of Kafka Connect, so that its users and tools know them.
//!
//! A dead letter keeps key, value and headers of the record it was, and gets these headers after them.

use crate::header::Decimal;

/// The topic in which the record was.
pub const ORIGINAL_TOPIC: &str = "__connect.errors.topic";

/// The partition in which it was.
pub const ORIGINAL_PARTITION: &str = "__connect.errors.partition";

/// Its offset there.
pub const ORIGINAL_OFFSET: &str = "__connect.errors.offset";

/// Who gave up: the consumer group.
pub const CONNECTOR_NAME: &str = "__connect.errors.connector.name";

/// The step that failed, for example `VALUE_CONVERTER` or `TASK_PUT`.
pub const STAGE: &str = "__connect.errors.stage";

/// What kind of error it was, one word.
pub const EXCEPTION_CLASS: &str = "__connect.errors.exception.class.name";

/// The error in words.
pub const EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";

/// That the letter was too large with its payload, which is therefore cut or left out. Not of Kafka Connect.
pub const TRUNCATED: &str = "mill.truncated";

/// Whether a header of this name is one of these.
#[must_use]
pub fn is_header(name: &str) -> bool {
    name.starts_with("__connect.errors.") || name == TRUNCATED
}

/// Where a record came from and why it is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The topic in which the record was.
    pub topic: &'a str,
    /// The partition in which it was.
    pub partition: i32,
    /// Its offset there; none of what Kafka never took.
    pub offset: Option<i64>,
    /// The consumer group that gave up.
    pub group: &'a str,
    /// The step that failed.
    pub stage: &'a str,
    /// What kind of error it was.
    pub class: &'a str,
    /// The error in words.
    pub message: &'a str,
}

impl DeadLetter<'_> {
    /// Calls `f` with the name and value of every header that tells it.
    pub fn for_each_header(&self, mut f: impl FnMut(&str, &[u8])) {
        f(ORIGINAL_TOPIC, self.topic.as_bytes());
        // Partitions and offsets of real records are never negative.
        f(
            ORIGINAL_PARTITION,
            Decimal::new(u64::try_from(self.partition).unwrap_or(0)).as_bytes(),
        );
        if let Some(offset) = self.offset {
            f(
                ORIGINAL_OFFSET,
                Decimal::new(u64::try_from(offset).unwrap_or(0)).as_bytes(),
            );
        }
        f(CONNECTOR_NAME, self.group.as_bytes());
        f(STAGE, self.stage.as_bytes());
        f(EXCEPTION_CLASS, self.class.as_bytes());
        f(EXCEPTION_MESSAGE, self.message.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_kafka_connect() {
        let letter = DeadLetter {
            topic: "chat.messages",
            partition: 3,
            offset: Some(42),
            group: "chat",
            stage: "VALUE_CONVERTER",
            class: "Json",
            message: "expected value",
        };
        let mut headers = Vec::new();
        letter.for_each_header(|name, value| {
            headers.push((name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
        });
        let expected = [
            ("__connect.errors.topic", "chat.messages"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "42"),
            ("__connect.errors.connector.name", "chat"),
            ("__connect.errors.stage", "VALUE_CONVERTER"),
            ("__connect.errors.exception.class.name", "Json"),
            ("__connect.errors.exception.message", "expected value"),
        ];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
