//! What people change by HTTP: who belongs to a room, and how far each has read.
//!
//! A change is appended to the room's own log, among its messages, and applied when it is read. So a store that is made
//! anew from the log has it too, at the same place in the order of the messages.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use runtime::http::ApiError;
use runtime::{AppendError, Applied, Changes};
use serde::{Deserialize, Serialize};

use crate::message::{Fault, check_name};

/// A change of a member of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// The member.
    pub user: Cow<'a, str>,
    /// What changes.
    pub what: What,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The user becomes a member; what was written before counts as read.
    Join,
    /// The user is no member any more.
    Leave,
    /// The member has read up to this sequence number.
    Read(i64),
}

/// A change as it lies in Kafka, beside its kind in a header.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
}

impl<'a> Change<'a> {
    /// Its kind, for the record's header.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Join => "join",
            What::Leave => "leave",
            What::Read(_) => "read",
        }
    }

    /// The record's value.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON, which would be a bug.
    pub fn payload(&self) -> serde_json::Result<Vec<u8>> {
        let seq = match self.what {
            What::Read(seq) => Some(seq),
            What::Join | What::Leave => None,
        };
        serde_json::to_vec(&Payload {
            user: Cow::Borrowed(&self.user),
            seq,
        })
    }

    /// Reads what [`Change::kind`] and [`Change::payload`] wrote.
    ///
    /// # Errors
    ///
    /// It was written by somebody else.
    pub fn read(kind: &[u8], payload: &'a [u8]) -> Result<Self, Fault> {
        let fault = |reason| Fault {
            class: "BadChange",
            reason,
        };
        let Payload { user, seq } =
            serde_json::from_slice(payload).map_err(|error| fault(error.to_string()))?;
        check_name("user", &user).map_err(fault)?;
        let what = match (kind, seq) {
            (b"join", None) => What::Join,
            (b"leave", None) => What::Leave,
            (b"read", Some(seq)) if seq >= 0 => What::Read(seq),
            _ => return Err(fault("there is no such change".to_owned())),
        };
        Ok(Self { user, what })
    }
}

/// Where changes are appended; the HTTP API's tests have one without Kafka.
pub(crate) trait Log: Send + Sync {
    /// Appends a change of the room whose messages have the MQTT topic `topic`, and waits a while until it is applied.
    fn append<'a>(
        &'a self,
        topic: &'a str,
        change: &'a Change<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Applied, ApiError>> + Send + 'a>>;
}

/// The log in Kafka.
pub(crate) struct KafkaLog {
    pub changes: Changes,
    /// The Kafka topic with messages.
    pub kafka_topic: String,
}

impl Log for KafkaLog {
    fn append<'a>(
        &'a self,
        topic: &'a str,
        change: &'a Change<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Applied, ApiError>> + Send + 'a>> {
        Box::pin(async move {
            let payload = change
                .payload()
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            self.changes
                .apply(&self.kafka_topic, topic, change.kind(), &payload)
                .await
                .map_err(|error| match error {
                    AppendError::Later(_) => ApiError::unavailable(error.to_string()),
                    AppendError::Refused(_) => ApiError::bad_request(error.to_string()),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_written() {
        for what in [What::Join, What::Leave, What::Read(42)] {
            let user = Cow::Borrowed("bob");
            let change = Change { user, what };
            let payload = change.payload().unwrap();
            let read = Change::read(change.kind().as_bytes(), &payload);
            assert_eq!(read, Ok(change));
        }
        for (kind, payload) in [
            ("join", r#"{"user":"a/b"}"#),
            ("join", r#"{"user":"a","seq":1}"#),
            ("read", r#"{"user":"a"}"#),
            ("read", r#"{"user":"a","seq":-1}"#),
            ("own", r#"{"user":"a"}"#),
            ("join", "x"),
        ] {
            let fault = Change::read(kind.as_bytes(), payload.as_bytes()).unwrap_err();
            assert_eq!(fault.class, "BadChange", "{kind} {payload}");
        }
    }
}
