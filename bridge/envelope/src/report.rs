//! What the bridge reports of a downlink record that asks for it by the header [`REPORT`](crate::header::REPORT): a record
//! in the topic of the reports, whose key is the MQTT topic of the message and whose value is a [`Report`] as JSON.
//!
//! Every node reads every downlink record, and reports what became of it there; a message that waits is reported again when
//! its waiting ends. A reader takes the furthest of all that it gets for one correlation: [`Outcome`]s are in that order.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest correlation, in bytes.
pub const CORRELATION_BYTES_MAX: usize = 256;

/// What became of a downlink record at a node: the further down, the further it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is no message.
    Malformed,
    /// Nobody has subscribed to it, or who had is gone.
    NoSession,
    /// Its sessions may not have it by the access rules.
    DroppedWithheld,
    /// Lost to its sessions: their clients take no packet of that size.
    DroppedTooLarge,
    /// Lost to its sessions: QoS 0, and their clients are away.
    DroppedOffline,
    /// Lost to its sessions: QoS 0, and their clients did not read fast enough.
    DroppedOutboxFull,
    /// Lost to its sessions: their queues were full.
    DroppedQueueFull,
    /// Lost to its sessions: the node had no memory to spare.
    DroppedMemory,
    /// It should have waited for a subscriber, and there was no room.
    NoRoom,
    /// Nobody has subscribed to it yet; it waits at the node for who does, until it expires.
    Waiting,
    /// Nobody has subscribed to it; the broker keeps it for the next who does.
    Retained,
    /// It waits in a session, at least one: its client is away, or has as much in flight as it may.
    Queued,
    /// Its expiry passed before a client had it.
    Expired,
    /// It was sent to a client, at least one. Not the client's PUBACK.
    Delivered,
    /// A word of a later version: nothing, in this order.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            known => known as u8 + 1,
        }
    }
}

impl Ord for Outcome {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Outcome {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where the downlink record lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The correlation: the value of the header that asked for it.
    pub report: String,
    /// What became of the message.
    pub outcome: Outcome,
    /// Sessions for which it became that.
    pub sessions: u32,
    /// The node that reports.
    pub node: String,
    /// The MQTT topic of the message.
    pub topic: String,
    /// Where the downlink record lies.
    pub origin: Place,
    /// When that was, in milliseconds since the Unix epoch.
    pub at: u64,
}

impl Report {
    /// The value of its record.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Names and numbers are JSON whatever they are.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    pub fn parse(value: &[u8]) -> Result<Self, BadReport> {
        serde_json::from_slice(value).map_err(|error| BadReport(error.to_string()))
    }
}

/// Why a record is no report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadReport(String);

impl fmt::Display for BadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record is no report: {}", self.0)
    }
}

impl std::error::Error for BadReport {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_json_and_comes_back_from_it() {
        let report = Report {
            report: "c-1".into(),
            outcome: Outcome::NoSession,
            sessions: 0,
            node: "n".into(),
            topic: "devices/d-1/commands/reboot".into(),
            origin: Place {
                topic: "mqtt.downlink".into(),
                partition: 3,
                offset: 42,
            },
            at: 1_766_000_000_000,
        };
        let json = report.to_json();
        assert_eq!(
            std::str::from_utf8(&json),
            Ok(concat!(
                r#"{"report":"c-1","outcome":"no_session","sessions":0,"node":"n","topic":"devices/d-1/commands/reboot","#,
                r#""origin":{"topic":"mqtt.downlink","partition":3,"offset":42},"at":1766000000000}"#
            ))
        );
        assert_eq!(Report::parse(&json), Ok(report));
    }

    #[test]
    fn what_a_later_version_adds_does_no_harm_and_what_is_no_report_says_so() {
        let later = r#"{"report":"c","outcome":"acknowledged","sessions":1,"node":"n","topic":"t","new":1,
                        "origin":{"topic":"d","partition":0,"offset":0},"at":1}"#;
        let report = Report::parse(later.as_bytes()).unwrap();
        assert_eq!(report.outcome, Outcome::Unknown);
        assert!(report.outcome < Outcome::NoSession);
        let error = Report::parse(b"{}").unwrap_err().to_string();
        assert!(error.contains("missing field"), "{error}");
    }

    #[test]
    fn the_furthest_outcome_is_the_greatest() {
        use Outcome::{Delivered, Expired, NoSession, Queued, Waiting};
        let in_order = [NoSession, Waiting, Queued, Expired, Delivered];
        assert!(in_order.is_sorted());
    }
}
