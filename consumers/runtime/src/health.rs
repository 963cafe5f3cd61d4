//! Whether a consumer can do its work, and what to say about it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::assignment::Assignment;
use crate::client::{ASK_TIMEOUT, Context, Membership, Snapshot, poll_interval};
use crate::config::Config;
use crate::status::{PartitionStatus, State, Status};

/// How often missing topics are looked for again.
const TOPICS_INTERVAL: Duration = Duration::from_secs(5);

/// How long a complaint of the Kafka client is shown.
const COMPLAINT_SHOWN: Duration = Duration::from_secs(10);

/// Most silent partitions for which Kafka is asked at one check.
const ASKED_MAX: usize = 4;

/// Statistics in a row that must show no broker before Kafka counts as unreachable: a single one may fall between two connections.
const DOWN_SNAPSHOTS: u32 = 2;

/// A partition whose Kafka broker is away for so long is a problem, in milliseconds; leaders move in less.
const CUT_OFF_MS_MIN: u64 = 5_000;

/// Most partitions that a problem names.
const NAMED_MAX: usize = 4;

/// Statistics in a row that must show a member before one without partitions is on standby: the first may fall between the
/// joining and the giving.
const MEMBER_SNAPSHOTS: u32 = 2;

pub(crate) struct Health {
    servers: String,
    group: String,
    topics: Vec<String>,
    stall_timeout: Duration,
    /// How long another member of the group may be busy, if it is told what this one is.
    poll_interval: Duration,
    down_snapshots: u32,
    down_since: Option<SystemTime>,
    topics_checked_at: Option<Instant>,
    missing_topics: Vec<String>,
    complaint: Option<(String, Instant)>,
    /// In which way it is no member of its group, and since when.
    outside: Option<(Membership, Instant)>,
    /// Statistics in a row in which it was a member.
    joined_snapshots: u32,
}

impl Health {
    pub(crate) fn new(config: &Config, stall_timeout: Duration) -> Self {
        Self {
            servers: config.kafka.clone(),
            group: config.group.clone(),
            topics: config.topics.clone(),
            stall_timeout,
            poll_interval: poll_interval(&config.tuning),
            down_snapshots: 0,
            down_since: None,
            topics_checked_at: None,
            missing_topics: Vec::new(),
            complaint: None,
            outside: None,
            joined_snapshots: 0,
        }
    }

    /// Takes over what librdkafka's statistics say.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot, now: Instant) {
        let was_outside = self
            .outside
            .filter(|(membership, _)| *membership == snapshot.membership);
        self.outside = match snapshot.membership {
            Membership::Joined => None,
            // While nobody answers it cannot be a member.
            membership if !snapshot.broker_up => Some((membership, now)),
            membership => was_outside.or(Some((membership, now))),
        };
        self.joined_snapshots = match snapshot.membership {
            Membership::Joined if snapshot.broker_up => self.joined_snapshots.saturating_add(1),
            _ => 0,
        };
        if snapshot.broker_up {
            if self.is_unreachable() {
                // At the level of the line that it ends.
                tracing::warn!(group = self.group, "Kafka can be reached again");
            }
            (self.down_snapshots, self.down_since) = (0, None);
        } else {
            self.down_since.get_or_insert_with(SystemTime::now);
            self.down_snapshots = self.down_snapshots.saturating_add(1);
            if self.down_snapshots == DOWN_SNAPSHOTS {
                tracing::warn!(group = self.group, "Kafka cannot be reached");
            }
        }
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.down_snapshots >= DOWN_SNAPSHOTS
    }

    /// Whether it is a member for long enough to have been given partitions, had there been any.
    fn is_member(&self) -> bool {
        self.joined_snapshots >= MEMBER_SNAPSHOTS && self.missing_topics.is_empty()
    }

    pub(crate) fn complaint(&mut self, text: String, now: Instant) {
        self.complaint = Some((text, now));
    }

    /// Kafka said that a topic does not exist: look at the next check.
    pub(crate) fn suspect_topics(&mut self) {
        self.topics_checked_at = None;
    }

    /// Looks for topics that do not exist; they are waited for. Says whether there is news.
    pub(crate) fn check_topics(&mut self, consumer: &BaseConsumer<Context>, now: Instant) -> bool {
        let due = self.topics_checked_at.is_none_or(|at| {
            !self.missing_topics.is_empty() && now.duration_since(at) >= TOPICS_INTERVAL
        });
        if !due || self.is_unreachable() {
            return false;
        }
        self.topics_checked_at = Some(now);
        // All topics: asking for one that does not exist could make it.
        let Ok(metadata) = consumer.fetch_metadata(None, ASK_TIMEOUT) else {
            return false;
        };
        let exists = |topic: &&String| metadata.topics().iter().any(|known| known.name() == *topic);
        let missing: Vec<String> = self
            .topics
            .iter()
            .filter(|topic| !exists(topic))
            .cloned()
            .collect();
        if missing == self.missing_topics {
            return false;
        }
        if !missing.is_empty() {
            tracing::warn!(group = self.group, ?missing, "topics do not exist yet");
        }
        self.missing_topics = missing;
        true
    }

    /// Whether the consumer comes into its group. `Err` says that it takes too long: something is stuck.
    pub(crate) fn check_membership(&mut self, now: Instant) -> Result<(), String> {
        let Some((membership, since)) = self.outside else {
            return Ok(());
        };
        if !self.missing_topics.is_empty() {
            // librdkafka does not join for topics that do not exist.
            self.outside = Some((membership, now));
            return Ok(());
        }
        let patience = match membership {
            // Another member may take that long before it answers, and is thrown out then.
            Membership::Waiting => self.poll_interval + self.stall_timeout,
            _ => self.stall_timeout,
        };
        if now.saturating_duration_since(since) < patience {
            return Ok(());
        }
        Err(format!(
            "the group was not joined in {} s",
            patience.as_secs()
        ))
    }

    /// Asks Kafka about partitions from which nothing comes. librdkafka was seen to stop fetching for good after a broker was
    /// away; a new consumer reads on. `Err` says why one is needed.
    pub(crate) fn check_stalls(
        &self,
        consumer: &BaseConsumer<Context>,
        assignment: &mut Assignment,
        now: Instant,
    ) -> Result<(), String> {
        if self.is_unreachable() {
            return Ok(());
        }
        let timeout = self.stall_timeout;
        let suspects: Vec<usize> = (0..assignment.slots().len())
            .filter(|&index| {
                let slot = &assignment.slots()[index];
                slot.looks_stalled(timeout, now) && !slot.is_cut_off()
            })
            .take(ASKED_MAX)
            .collect();
        for index in suspects {
            let slot = &assignment.slots()[index];
            let Ok((_, end)) = consumer.fetch_watermarks(&slot.topic, slot.partition, ASK_TIMEOUT)
            else {
                return Ok(());
            };
            if assignment.is_stalled(index, end, timeout, now) {
                let (topic, partition, seconds) = (&slot.topic, slot.partition, timeout.as_secs());
                return Err(format!(
                    "nothing came from {topic}/{partition} for {seconds} s, but its log goes on to {end}"
                ));
            }
            assignment.slot_mut(index).verified_idle(end, now);
        }
        Ok(())
    }

    /// Writes down how things are. `last_error` is what the Kafka client last said about its connections.
    pub(crate) fn describe(
        &mut self,
        status: &mut Status,
        partitions: Vec<PartitionStatus>,
        last_error: Option<&str>,
        now: Instant,
    ) {
        if self
            .complaint
            .as_ref()
            .is_some_and(|(_, at)| now.duration_since(*at) > COMPLAINT_SHOWN)
        {
            self.complaint = None;
        }
        let unreachable_since = self.down_since.filter(|_| self.is_unreachable());
        let retrying = partitions
            .iter()
            .find_map(|partition| Some((partition, partition.retry.as_ref()?)));
        (status.state, status.problem) = if unreachable_since.is_some() {
            let reason = last_error.map_or_else(String::new, |error| format!(": {error}"));
            let problem = format!("Kafka at {} cannot be reached{reason}", self.servers);
            (State::Unreachable, Some(problem))
        } else if let Some((partition, retry)) = retrying {
            let (topic, number) = (&partition.topic, partition.partition);
            (
                State::Retrying,
                Some(format!(
                    "{topic}/{number} is paused and retried: {}",
                    retry.error
                )),
            )
        } else {
            let problem = if self.missing_topics.is_empty() {
                let complaint = self.complaint.as_ref().map(|(text, _)| text.clone());
                cut_off(&partitions).or(complaint)
            } else {
                Some(format!(
                    "waits for topics that do not exist yet: {}",
                    self.missing_topics.join(", ")
                ))
            };
            (
                match partitions.is_empty() {
                    false => State::Running,
                    true if self.is_member() => State::Standby,
                    true => State::Joining,
                },
                problem,
            )
        };
        status.kafka_unreachable_since_ms = unreachable_since
            .and_then(|since| since.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        status.lag = partitions
            .iter()
            .filter_map(|partition| partition.lag)
            .sum();
        status.partitions = partitions;
    }
}

/// Names the partitions whose Kafka broker is away while others are not.
fn cut_off(partitions: &[PartitionStatus]) -> Option<String> {
    let away = |partition: &&PartitionStatus| {
        partition
            .unreachable_ms
            .is_some_and(|ms| ms >= CUT_OFF_MS_MIN)
    };
    let names: Vec<String> = partitions
        .iter()
        .filter(away)
        .map(|partition| format!("{}/{}", partition.topic, partition.partition))
        .collect();
    let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    let further = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "nothing can be read from {}{further}: the Kafka broker that has them cannot be reached",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tuning;
    use crate::status::RetryStatus;

    fn health() -> Health {
        let config = Config {
            kafka: "k:9092".to_owned(),
            group: "g".to_owned(),
            topics: vec!["t".to_owned()],
            downlink_topic: "d".to_owned(),
            tuning: Tuning::default(),
        };
        Health::new(&config, Duration::from_secs(30))
    }

    fn partition(retry: Option<&str>) -> PartitionStatus {
        let retry = retry.map(|error| RetryStatus {
            failures: 1,
            error: error.to_owned(),
            records: 1,
            next_try_ms: 1,
        });
        PartitionStatus {
            topic: "t".to_owned(),
            partition: 3,
            next_offset: Some(1),
            lag: Some(7),
            lag_age_ms: Some(0),
            unreachable_ms: None,
            retry,
        }
    }

    fn describe(health: &mut Health, partitions: Vec<PartitionStatus>) -> Status {
        let mut status = Status::default();
        health.describe(
            &mut status,
            partitions,
            Some("Connection refused"),
            Instant::now(),
        );
        status
    }

    fn observe(health: &mut Health, broker_up: bool) {
        health.observe(
            &Snapshot {
                broker_up,
                ..Snapshot::default()
            },
            Instant::now(),
        );
    }

    #[test]
    fn a_group_that_cannot_be_joined_is_noticed() {
        let mut health = health();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut observe = |membership, broker_up, seconds| {
            let snapshot = Snapshot {
                broker_up,
                membership,
                partitions: Vec::new(),
            };
            health.observe(&snapshot, later(seconds));
            health.check_membership(later(seconds))
        };
        assert_eq!(observe(Membership::Outside, true, 0), Ok(()));
        assert_eq!(observe(Membership::Outside, true, 29), Ok(()));
        assert_eq!(
            observe(Membership::Outside, true, 30),
            Err("the group was not joined in 30 s".to_owned())
        );
        assert_eq!(
            observe(Membership::Outside, false, 31),
            Ok(()),
            "there is nobody to join"
        );
        assert_eq!(observe(Membership::Outside, true, 60), Ok(()));
        assert_eq!(observe(Membership::Waiting, true, 61), Ok(()));
        assert_eq!(
            observe(Membership::Waiting, true, 300),
            Ok(()),
            "others may take their time"
        );
        assert!(observe(Membership::Waiting, true, 61 + 330).is_err());
        assert_eq!(observe(Membership::Joined, true, 400), Ok(()));
        assert_eq!(observe(Membership::Joined, true, 4_000), Ok(()));
        assert_eq!(observe(Membership::Outside, true, 5_000), Ok(()));
        health.missing_topics = vec!["t".to_owned()];
        assert_eq!(
            health.check_membership(later(6_000)),
            Ok(()),
            "it waits for the topic"
        );
        health.missing_topics.clear();
        assert_eq!(health.check_membership(later(6_029)), Ok(()));
        assert!(health.check_membership(later(6_030)).is_err());
    }

    #[test]
    fn a_member_without_partitions_is_on_standby_and_others_join() {
        let mut health = health();
        let state = |health: &mut Health| describe(health, vec![]).state;
        assert_eq!(state(&mut health), State::Joining);
        observe(&mut health, true);
        assert_eq!(state(&mut health), State::Joining, "perhaps not given yet");
        observe(&mut health, true);
        assert_eq!(state(&mut health), State::Standby);
        health.missing_topics = vec!["t".to_owned()];
        assert_eq!(state(&mut health), State::Joining, "waits for its topic");
        health.missing_topics.clear();
        let outside = Snapshot {
            broker_up: true,
            membership: Membership::Waiting,
            ..Snapshot::default()
        };
        health.observe(&outside, Instant::now());
        assert_eq!(state(&mut health), State::Joining);
    }

    #[test]
    fn one_snapshot_without_a_broker_is_no_outage() {
        let mut health = health();
        observe(&mut health, false);
        assert!(!health.is_unreachable());
        observe(&mut health, false);
        assert!(health.is_unreachable());
        let status = describe(&mut health, vec![partition(Some("x"))]);
        assert_eq!(status.state, State::Unreachable);
        assert_eq!(
            status.problem.as_deref(),
            Some("Kafka at k:9092 cannot be reached: Connection refused")
        );
        assert!(status.kafka_unreachable_since_ms.is_some());
        observe(&mut health, true);
        let status = describe(&mut health, vec![partition(None)]);
        assert_eq!(
            (
                status.state,
                status.problem,
                status.kafka_unreachable_since_ms
            ),
            (State::Running, None, None)
        );
    }

    #[test]
    fn partitions_that_are_cut_off_are_a_problem_though_others_are_read() {
        let mut health = health();
        let away = |unreachable_ms| PartitionStatus {
            unreachable_ms: Some(unreachable_ms),
            ..partition(None)
        };
        let status = describe(&mut health, vec![partition(None), away(4_999)]);
        assert_eq!(status.problem, None, "its leader may be moving");
        let status = describe(&mut health, vec![partition(None), away(5_000)]);
        assert_eq!(
            status.problem.as_deref(),
            Some("nothing can be read from t/3: the Kafka broker that has them cannot be reached")
        );
        let many = (0..6).map(|_| away(9_000)).collect();
        let problem = describe(&mut health, many).problem.unwrap();
        assert!(
            problem.contains("t/3, t/3, t/3, t/3 and 2 more"),
            "{problem}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_worst_first() {
        let mut health = health();
        assert_eq!(describe(&mut health, vec![]).state, State::Joining);
        health.complaint("Broker: Not authorized".to_owned(), Instant::now());
        let status = describe(&mut health, vec![partition(None), partition(None)]);
        assert_eq!(
            (status.state, status.problem.as_deref()),
            (State::Running, Some("Broker: Not authorized"))
        );
        assert_eq!(status.lag, 14);
        health.missing_topics = vec!["t".to_owned()];
        let status = describe(&mut health, vec![]);
        assert_eq!(
            status.problem.as_deref(),
            Some("waits for topics that do not exist yet: t")
        );
        let status = describe(
            &mut health,
            vec![partition(None), partition(Some("disk full"))],
        );
        assert_eq!(status.state, State::Retrying);
        assert_eq!(
            status.problem.as_deref(),
            Some("t/3 is paused and retried: disk full")
        );
    }
}
