//! What the bridge says of itself: typed, in one line of words, and as numbers for metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{Refusal, Times};

/// Whether Kafka answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reachability {
    /// It does.
    #[default]
    Reachable,
    /// It does, but takes its time.
    Slow {
        /// What the last answer took.
        answer: Duration,
    },
    /// It does not.
    Unreachable {
        /// Since when, as far as this node can tell.
        since: SystemTime,
        /// What the last attempt said.
        cause: String,
    },
}

impl Reachability {
    /// Whether Kafka answers, fast or slowly.
    #[must_use]
    pub fn answers(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }
}

/// Messages that Kafka refused for good, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Larger than Kafka or the topic allows.
    pub too_large: u64,
    /// Kafka does not let this node write there.
    pub not_authorized: u64,
    /// Kafka does not have the topic.
    pub unknown_topic: u64,
    /// Against a policy or over a quota.
    pub quota: u64,
    /// Anything else, what a failed producer left unconfirmed included.
    pub other: u64,
}

impl Refused {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.too_large + self.not_authorized + self.unknown_topic + self.quota + self.other
    }
}

/// What becomes of a record of the downlink topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownlinkOutcome {
    /// Sent to a client, at least one.
    Delivered,
    /// Waits in a session, at least one, and was sent to no client.
    Queued,
    /// Nobody has subscribed to it; the broker keeps it for the next who does.
    Retained,
    /// Nobody has subscribed to it.
    NoSession,
    /// It should have waited for a subscriber, and there was no room.
    NoRoom,
    /// Nobody wants it any more.
    Expired,
    /// It is no message.
    Malformed,
    /// Lost to its sessions: their queues were full.
    QueueFull,
    /// Lost to its sessions: a message of QoS 0, and their clients did not read fast enough.
    OutboxFull,
    /// Lost to its sessions: the node had no memory to spare.
    Memory,
    /// Lost to its sessions: their clients take no packet of that size.
    TooLarge,
    /// Lost to its sessions: a message of QoS 0 whose clients are away.
    Offline,
    /// Its sessions may not have it by the access rules.
    Withheld,
}

impl DownlinkOutcome {
    /// Each, in their order.
    pub const ALL: [Self; 13] = [
        Self::Delivered,
        Self::Queued,
        Self::Retained,
        Self::NoSession,
        Self::NoRoom,
        Self::Expired,
        Self::Malformed,
        Self::QueueFull,
        Self::OutboxFull,
        Self::Memory,
        Self::TooLarge,
        Self::Offline,
        Self::Withheld,
    ];

    /// Its count's name, and what it counts.
    fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Delivered => (
                "downlink_outcomes_delivered",
                "Downlink records sent to a client, at least one.",
            ),
            Self::Queued => (
                "downlink_outcomes_queued",
                "Downlink records sent to no client that wait in a session, at least one.",
            ),
            Self::Retained => (
                "downlink_outcomes_retained",
                "Downlink records that nobody had subscribed to, and that are retained for who does.",
            ),
            Self::NoRoom => (
                "downlink_outcomes_no_room",
                "Downlink records that should have waited for a subscriber, and for which there was no room.",
            ),
            Self::NoSession => (
                "downlink_outcomes_no_session",
                "Downlink records that nobody had subscribed to.",
            ),
            Self::Expired => (
                "downlink_outcomes_expired",
                "Downlink records that expired before any session had them.",
            ),
            Self::Malformed => (
                "downlink_outcomes_malformed",
                "Downlink records that were no message.",
            ),
            Self::QueueFull => (
                "downlink_outcomes_dropped_queue_full",
                "Downlink records lost because the queues of their sessions were full.",
            ),
            Self::OutboxFull => (
                "downlink_outcomes_dropped_outbox_full",
                "Downlink records of QoS 0 lost because their clients did not read fast enough.",
            ),
            Self::Memory => (
                "downlink_outcomes_dropped_memory",
                "Downlink records lost because the node had no memory to spare for their sessions.",
            ),
            Self::TooLarge => (
                "downlink_outcomes_dropped_too_large",
                "Downlink records lost because their clients take no packet of that size.",
            ),
            Self::Offline => (
                "downlink_outcomes_dropped_offline",
                "Downlink records of QoS 0 lost because their clients were away.",
            ),
            Self::Withheld => (
                "downlink_outcomes_dropped_withheld",
                "Downlink records that their sessions may not have by the access rules.",
            ),
        }
    }
}

/// How many records came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DownlinkOutcomes(pub(crate) [u64; DownlinkOutcome::ALL.len()]);

impl DownlinkOutcomes {
    /// How many came to that.
    #[must_use]
    pub fn of(&self, outcome: DownlinkOutcome) -> u64 {
        self.0[outcome as usize]
    }
}

/// The way back, from Kafka to MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DownlinkStatus {
    /// Records handed to the broker to publish.
    pub published: u64,
    /// Of them, those that all their sessions have.
    pub delivered: u64,
    /// Records that wait for a subscriber now.
    pub held: u64,
    /// Records whose message expiry had passed before they were read, or while they waited for a subscriber.
    pub expired: u64,
    /// Records that are no message.
    pub malformed: u64,
    /// Of them, and of those of other nodes, what this node put into the dead-letter topic.
    pub dead_lettered: u64,
    /// Commits of the position that failed; they are tried again.
    pub commits_failed: u64,
    /// Times the position was gone back to, because the broker had let go of messages.
    pub rewinds: u64,
    /// Reports of what became of records, confirmed by Kafka.
    pub reported: u64,
    /// Reports that nobody will get: Kafka refused them, or too many messages waited in sessions to follow each.
    pub reports_lost: u64,
    /// What became of the records, each counted once; again those that are read again after going back.
    pub outcomes: DownlinkOutcomes,
}

/// A snapshot of the bridge. Every message that a stored route took is counted once: as stored, refused, or waiting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether Kafka answers.
    pub kafka: Reachability,
    /// Messages taken.
    pub accepted: u64,
    /// Messages that wait for Kafka's confirmation.
    pub waiting: u64,
    /// Their payloads and keys, in bytes.
    pub waiting_bytes: u64,
    /// Messages that Kafka confirmed.
    pub stored: u64,
    /// Messages refused for good.
    pub refused: Refused,
    /// Messages of QoS 0 that were not taken because there was no room.
    pub dropped: u64,
    /// Times a publisher of QoS 1 or 2 was held because there was no room.
    pub held: u64,
    /// Of the messages refused for good, those that are dead letters, acknowledged.
    pub dead_lettered: u64,
    /// Times the producer had to be made anew.
    pub producer_rebuilds: u64,
    /// From the moment a message was taken to Kafka's confirmation.
    pub produce_times: Times,
    /// What weakened, at the start, the promise that an acknowledged message is never lost; each in one sentence.
    pub weaknesses: Arc<[String]>,
    /// What is wrong now beside an unreachable Kafka, each in one sentence.
    pub problems: Vec<String>,
    /// The way back.
    pub downlink: DownlinkStatus,
}

impl Status {
    /// Every number's name, what it counts, and its value.
    #[must_use]
    pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
        let unreachable_s = match &self.kafka {
            Reachability::Reachable | Reachability::Slow { .. } => 0,
            Reachability::Unreachable { since, .. } => age(*since).as_secs(),
        };
        let mut each = vec![
            (
                "kafka_reachable",
                "1 while Kafka answers, 0 while it does not.",
                u64::from(self.kafka.answers()),
            ),
            (
                "kafka_unreachable_seconds",
                "Seconds since Kafka stopped answering; 0 while it answers.",
                unreachable_s,
            ),
            (
                "kafka_accepted",
                "Messages taken to be stored.",
                self.accepted,
            ),
            (
                "kafka_waiting",
                "Messages that wait for Kafka's confirmation now.",
                self.waiting,
            ),
            (
                "kafka_waiting_bytes",
                "Bytes of payloads and keys that wait for Kafka's confirmation now.",
                self.waiting_bytes,
            ),
            (
                "kafka_stored",
                "Messages that Kafka confirmed.",
                self.stored,
            ),
            (
                "kafka_refused_too_large",
                "Messages refused for good: too large.",
                self.refused.too_large,
            ),
            (
                "kafka_refused_not_authorized",
                "Messages refused for good: not authorised.",
                self.refused.not_authorized,
            ),
            (
                "kafka_refused_unknown_topic",
                "Messages refused for good: unknown topic.",
                self.refused.unknown_topic,
            ),
            (
                "kafka_refused_quota",
                "Messages refused for good: policy or quota.",
                self.refused.quota,
            ),
            (
                "kafka_refused_other",
                "Messages refused for good: any other reason.",
                self.refused.other,
            ),
            (
                "kafka_dead_lettered",
                "Of the messages refused for good, those put into a dead-letter topic and acknowledged.",
                self.dead_lettered,
            ),
            (
                "kafka_dropped",
                "Messages of QoS 0 dropped because the queue to Kafka was full.",
                self.dropped,
            ),
            (
                "kafka_held",
                "Times a publisher of QoS 1 or 2 was held because the queue to Kafka was full.",
                self.held,
            ),
            (
                "kafka_producer_rebuilds",
                "Times the producer had to be made anew.",
                self.producer_rebuilds,
            ),
            (
                "kafka_weaknesses",
                "What weakens the promise that an acknowledged message is never lost, as found at the start.",
                self.weaknesses.len() as u64,
            ),
            (
                "downlink_published",
                "Downlink records handed to the broker.",
                self.downlink.published,
            ),
            (
                "downlink_delivered",
                "Downlink records that all their sessions have.",
                self.downlink.delivered,
            ),
            (
                "downlink_expired",
                "Downlink records that expired before they were read, or while they waited for a subscriber.",
                self.downlink.expired,
            ),
            (
                "downlink_held",
                "Downlink records that wait for a subscriber now.",
                self.downlink.held,
            ),
            (
                "downlink_malformed",
                "Downlink records that are no message.",
                self.downlink.malformed,
            ),
            (
                "downlink_dead_lettered",
                "Downlink records that this node put into the dead-letter topic.",
                self.downlink.dead_lettered,
            ),
            (
                "downlink_commits_failed",
                "Commits of the downlink position that failed.",
                self.downlink.commits_failed,
            ),
            (
                "downlink_rewinds",
                "Times the downlink went back to its committed position.",
                self.downlink.rewinds,
            ),
        ];
        each.extend([
            (
                "downlink_reported",
                "Reports of what became of downlink records that asked for one, confirmed by Kafka.",
                self.downlink.reported,
            ),
            (
                "downlink_reports_lost",
                "Reports of what became of downlink records that nobody will get.",
                self.downlink.reports_lost,
            ),
        ]);
        each.extend(DownlinkOutcome::ALL.map(|outcome| {
            let (name, help) = outcome.described();
            (name, help, self.downlink.outcomes.of(outcome))
        }));
        each
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kafka {
            Reachability::Reachable => write!(f, "Kafka reachable, {} messages wait", self.waiting),
            Reachability::Slow { answer } => write!(
                f,
                "Kafka slow: {:.1} s, {} messages wait",
                answer.as_secs_f64(),
                self.waiting
            ),
            Reachability::Unreachable { since, cause } => write!(
                f,
                "Kafka unreachable since {} ({} s, {cause}), {} messages wait",
                clock(*since),
                age(*since).as_secs(),
                self.waiting
            ),
        }
    }
}

fn age(since: SystemTime) -> Duration {
    SystemTime::now().duration_since(since).unwrap_or_default()
}

/// The time of day in UTC; the age beside it tells the day.
fn clock(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!(
        "{:02}:{:02}:{:02} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The counters behind [`Status`]. `accepted` and `done` are what accepting a message and settling it touch.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Counted by the broker's workers before they hand a message to librdkafka, so that `done` never passes it.
    pub(crate) accepted: AtomicU64,
    /// Payload and key bytes that were accepted, and of them what was stored or refused. A message may be counted as done
    /// before it is counted as accepted.
    bytes_accepted: AtomicU64,
    pub(crate) bytes_done: AtomicU64,
    /// Messages that were stored or refused after they had been accepted.
    pub(crate) done: AtomicU64,
    pub(crate) stored: AtomicU64,
    too_large: AtomicU64,
    not_authorized: AtomicU64,
    unknown_topic: AtomicU64,
    quota: AtomicU64,
    other: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) producer_rebuilds: AtomicU64,
    /// Only the poll thread adds to it, once a batch.
    produce_times: Mutex<Times>,
}

impl Counters {
    pub(crate) fn add_times(&self, times: &Times) {
        self.produce_times().merge(times);
    }

    fn produce_times(&self) -> MutexGuard<'_, Times> {
        self.produce_times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages under way. Sequentially consistent, because the poll thread goes to sleep on a zero.
    pub(crate) fn waiting(&self) -> u64 {
        let done = self.done.load(Ordering::SeqCst);
        self.accepted.load(Ordering::SeqCst).saturating_sub(done)
    }

    pub(crate) fn count_bytes(&self, bytes: u64) {
        self.bytes_accepted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what [`Counters::count_bytes`] counted.
    pub(crate) fn uncount_bytes(&self, bytes: u64) {
        self.bytes_accepted.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Payload and key bytes under way.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let done = self.bytes_done.load(Ordering::Relaxed);
        self.bytes_accepted
            .load(Ordering::Relaxed)
            .saturating_sub(done)
    }

    pub(crate) fn count_refused(&self, refusal: Refusal, messages: u64) {
        let counter = match refusal {
            Refusal::TooLarge => &self.too_large,
            Refusal::NotAuthorized => &self.not_authorized,
            Refusal::UnknownTopic => &self.unknown_topic,
            Refusal::Quota => &self.quota,
            Refusal::Other => &self.other,
        };
        counter.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn status(
        &self,
        kafka: Reachability,
        downlink: DownlinkStatus,
        weaknesses: Arc<[String]>,
        problems: Vec<String>,
    ) -> Status {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            kafka,
            waiting: self.waiting(),
            waiting_bytes: self.waiting_bytes(),
            accepted: read(&self.accepted),
            stored: read(&self.stored),
            refused: Refused {
                too_large: read(&self.too_large),
                not_authorized: read(&self.not_authorized),
                unknown_topic: read(&self.unknown_topic),
                quota: read(&self.quota),
                other: read(&self.other),
            },
            dead_lettered: read(&self.dead_lettered),
            dropped: read(&self.dropped),
            held: read(&self.held),
            producer_rebuilds: read(&self.producer_rebuilds),
            produce_times: self.produce_times().clone(),
            weaknesses,
            problems,
            downlink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_since_when_and_how_many_wait() {
        let mut status = Status {
            waiting: 17,
            ..Status::default()
        };
        assert_eq!(status.to_string(), "Kafka reachable, 17 messages wait");
        let since = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        status.kafka = Reachability::Unreachable {
            since,
            cause: "Broker transport failure".into(),
        };
        let line = status.to_string();
        assert!(
            line.starts_with("Kafka unreachable since 19:33:20 UTC ("),
            "{line}"
        );
        assert!(
            line.ends_with(" s, Broker transport failure), 17 messages wait"),
            "{line}"
        );
    }

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let each = Status::default().each();
        let mut names: Vec<_> = each.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), each.len());
    }

    #[test]
    fn every_refusal_is_counted_once_under_its_reason() {
        let counters = Counters::default();
        let refusals = [
            Refusal::TooLarge,
            Refusal::NotAuthorized,
            Refusal::UnknownTopic,
            Refusal::Quota,
            Refusal::Other,
        ];
        for refusal in refusals {
            counters.count_refused(refusal, 1);
        }
        let refused = counters
            .status(
                Reachability::Reachable,
                DownlinkStatus::default(),
                Arc::default(),
                Vec::new(),
            )
            .refused;
        let once = Refused {
            too_large: 1,
            not_authorized: 1,
            unknown_topic: 1,
            quota: 1,
            other: 1,
        };
        assert_eq!(refused, once);
        assert_eq!(refused.total(), 5);
    }
}
