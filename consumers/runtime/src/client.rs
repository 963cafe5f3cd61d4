//! librdkafka as this crate uses it: its settings, and what its callbacks leave for the reader to pick up.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::{Broker, Statistics};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::config::{Config, Tuning};
use crate::outlet::produce_time_max;
use crate::status::Gap;

/// How long one question to Kafka may hold up whoever asks it.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Librdkafka's own default for the longest time between two polls, after which a consumer loses its partitions. It is longer
/// where the timeouts between two polls may be.
const POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Calls of the handler between two polls: one for what is new, one for a partition that is tried again.
const CALLS_BETWEEN_POLLS: u32 = 2;

/// What else happens between two polls: waiting for a batch, the store's commit, Kafka's.
const POLL_INTERVAL_SPARE: Duration = Duration::from_secs(60);

/// How long librdkafka waits before it fetches on when as much is read ahead as allowed. Its default is a second, which
/// starves a reader that catches up.
const FETCH_RESUME_MS: u32 = 10;

/// How often topics and partitions are looked up anew, so that a topic made after the start is noticed.
const METADATA_REFRESH_MS: u32 = 5_000;

/// How often librdkafka tells where the logs end and which brokers are up.
const STATISTICS_MS: u32 = 1_000;

/// Kafka that comes back is noticed within about this time.
const RECONNECT_MS_MAX: u32 = 1_000;

/// A request that is not answered in this time has failed.
const SOCKET_TIMEOUT_MS: u32 = 10_000;

/// How often the group's coordinator is looked up.
const COORDINATOR_QUERY_MS: u32 = 5_000;

/// The librdkafka property that chooses how members of a group find each other.
const GROUP_PROTOCOL: &str = "group.protocol";
/// Its value for the newer protocol, in which a member is in as soon as it asks.
const GROUP_PROTOCOL_CONSUMER: &str = "consumer";

/// How long the producer waits for more messages before it sends. A batch hands over all it has at once.
const LINGER_MS: u32 = 1;

/// Largest message that the producer offers to Kafka; what a topic takes is the topic's setting.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// Most kilobytes that wait in the producer.
const PRODUCER_KBYTES_MAX: u32 = 64 << 10;

fn common(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka)
        .set("client.id", format!("millstream-{}", config.group))
        .set("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string())
        .set(
            "topic.metadata.refresh.interval.ms",
            METADATA_REFRESH_MS.to_string(),
        )
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .set("socket.keepalive.enable", "true")
        .set_log_level(RDKafkaLogLevel::Info);
    client
}

/// Whether librdkafka knows a property and takes this value, else why not.
pub(crate) fn takes_property(name: &str, value: &str) -> Result<(), String> {
    let created = ClientConfig::new().set(name, value).create_native_config();
    created.map(drop).map_err(|error| match error {
        KafkaError::ClientConfig(_, why, ..) => why,
        other => other.to_string(),
    })
}

fn with_properties(mut client: ClientConfig, config: &Config) -> ClientConfig {
    for (key, value) in config.tuning.properties.reveal() {
        client.set(key, value);
    }
    client
}

/// Where librdkafka's statistics have a connection from that is not a broker's own.
const LOGICAL: &str = "logical";

/// The facility of librdkafka's log line about a commit that failed.
const COMMIT_FAILED: &str = "COMMITFAIL";

/// The same of one about a connection that failed.
const CONNECTION_FAILED: &str = "FAIL";

/// The settings of any client, for questions to Kafka.
pub(crate) fn common_settings(config: &Config) -> ClientConfig {
    with_properties(common(config), config)
}

/// The settings of the consumer.
pub(crate) fn consumer_settings(config: &Config) -> ClientConfig {
    let tuning = &config.tuning;
    let mut client = common(config);
    client
        .set("group.id", &config.group)
        .set("auto.offset.reset", "earliest")
        // Offsets are stored by hand after the effect, and committed by hand.
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "false")
        // Bounds how long a commit waits for a coordinator that is away; the default is ten minutes.
        .set(
            "coordinator.query.interval.ms",
            COORDINATOR_QUERY_MS.to_string(),
        )
        .set("allow.auto.create.topics", "false")
        .set(
            "max.poll.interval.ms",
            poll_interval(tuning).as_millis().to_string(),
        )
        .set("fetch.min.bytes", tuning.fetch_bytes_min.to_string())
        .set("fetch.wait.max.ms", tuning.fetch_wait_ms_max.to_string())
        .set("fetch.queue.backoff.ms", FETCH_RESUME_MS.to_string())
        .set(
            "queued.max.messages.kbytes",
            (tuning.prefetch_bytes_max >> 10).to_string(),
        )
        .set("statistics.interval.ms", STATISTICS_MS.to_string());
    // In the newer protocol (KIP-848) the group's coordinator decides on these, and librdkafka refuses them.
    if tuning.properties.get(GROUP_PROTOCOL) != Some(GROUP_PROTOCOL_CONSUMER) {
        client
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", tuning.session_timeout_ms.to_string())
            .set(
                "heartbeat.interval.ms",
                (tuning.session_timeout_ms / 5)
                    .clamp(500, 3_000)
                    .to_string(),
            );
    }
    with_properties(client, config)
}

/// The longest that a reader may be between two polls.
pub(crate) fn poll_interval(tuning: &Tuning) -> Duration {
    let call = tuning.handle_timeout() + produce_time_max(tuning.produce_timeout());
    let busy = call * CALLS_BETWEEN_POLLS;
    POLL_INTERVAL
        .max(busy + tuning.batch_wait() + POLL_INTERVAL_SPARE)
        .max(Duration::from_millis(tuning.session_timeout_ms.into()))
}

/// The settings of the producer of answers and dead letters.
pub(crate) fn producer_settings(config: &Config) -> ClientConfig {
    let mut client = common(config);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // As Java's clients do, so that keys fall into the same partitions whoever writes.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", LINGER_MS.to_string())
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set(
            "queue.buffering.max.kbytes",
            PRODUCER_KBYTES_MAX.to_string(),
        )
        .set(
            "message.timeout.ms",
            config.tuning.produce_timeout_ms.to_string(),
        );
    with_properties(client, config)
}

/// What happened in librdkafka since the reader last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Assigned(Vec<(String, i32)>),
    /// Records that Kafka has no longer.
    Gaps(Vec<Gap>),
    /// Partitions were given, but where to begin is not known.
    NoBeginning(String),
    Revoked(Vec<(String, i32)>),
    CommitFailed(String),
    Statistics(Snapshot),
}

/// The part of librdkafka's statistics that the reader needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) broker_up: bool,
    pub(crate) membership: Membership,
    pub(crate) partitions: Vec<PartitionSnapshot>,
}

/// How far the consumer is a member of its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Membership {
    /// A member, with partitions or with none because others have all.
    #[default]
    Joined,
    /// Kafka lets it wait for other members.
    Waiting,
    /// Something of its own is to be done first.
    Outside,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionSnapshot {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Where the log begins and ends; negative while not known.
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    /// The next offset that will be fetched; negative while not known.
    pub(crate) fetch_offset: i64,
    /// The committed offset; negative without one.
    pub(crate) committed: i64,
    /// Records fetched and not yet taken, of all partitions: they share one queue.
    pub(crate) fetched: i64,
    /// Whether there is a connection to the Kafka broker that has it.
    pub(crate) reachable: bool,
    /// For how long that broker has said nothing, though it was asked.
    pub(crate) silent: Option<Duration>,
}

/// Sets the offsets from which partitions that are given are read, where they differ from the committed ones, and says
/// what is gone.
pub(crate) type Begin = Box<
    dyn Fn(&BaseConsumer<Context>, &mut TopicPartitionList) -> Result<Vec<Gap>, String>
        + Send
        + Sync,
>;

/// Receives librdkafka's callbacks. They run inside `poll`, on the reader's own thread.
#[derive(Default)]
pub(crate) struct Context {
    events: Mutex<Vec<Event>>,
    begin: OnceLock<Begin>,
    last_error: Mutex<Option<String>>,
}

impl Context {
    /// Says once, before any partition is given, how reading begins.
    pub(crate) fn begin_by(&self, begin: Begin) {
        // The first one stays.
        let _ = self.begin.set(begin);
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events))
    }

    /// What librdkafka last complained about.
    pub(crate) fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }

    fn push(&self, event: Event) {
        lock(&self.events).push(event);
    }
}

/// A panic elsewhere leaves these lists whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}

/// librdkafka's sentences begin with the name of a thread and of a connection; a person wants the rest.
fn readable(reason: &str) -> &str {
    let reason = reason.rsplit_once("]: ").map_or(reason, |(_, rest)| rest);
    let reason = reason
        .split_once("/bootstrap: ")
        .map_or(reason, |(_, rest)| rest);
    let reason = reason
        .split_once(" (after ")
        .map_or(reason, |(reason, _)| reason);
    reason.trim()
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A commit that nobody waits for is reported by a line of log only.
        if facility == COMMIT_FAILED {
            self.push(Event::CommitFailed(message.to_owned()));
        }
        // Why Kafka hangs up is told nowhere else.
        if facility == CONNECTION_FAILED {
            *lock(&self.last_error) = Some(readable(message).to_owned());
        }
        forward_log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let is_up = |broker: &Broker| matches!(broker.state.as_str(), "UP" | "UPDATE");
        let mut brokers = statistics.brokers.values();
        let broker_up = brokers.any(|broker| is_up(broker) && broker.nodeid >= 0);
        // Records come by a broker's own connection; the coordinator of the group has one of its own.
        let own = |node: i32| {
            let mut own = statistics.brokers.values();
            own.find(|broker| broker.nodeid == node && broker.source != LOGICAL)
        };
        let silent = |node: i32| {
            let broker = own(node).filter(|broker| broker.waitresp_cnt > 0)?;
            u64::try_from(broker.rxidle).ok().map(Duration::from_micros)
        };
        let partitions = statistics
            .topics
            .values()
            .flat_map(|topic| {
                topic
                    .partitions
                    .values()
                    .map(|partition| (&topic.topic, partition))
            })
            .filter(|(_, partition)| partition.partition >= 0)
            .map(|(topic, partition)| PartitionSnapshot {
                topic: topic.clone(),
                partition: partition.partition,
                log_start: partition.lo_offset,
                log_end: partition.hi_offset,
                fetch_offset: partition.next_offset,
                committed: partition.committed_offset,
                fetched: partition.fetchq_cnt,
                // A partition that no broker has is read from none.
                reachable: own(partition.broker).is_some_and(is_up),
                silent: silent(partition.broker),
            })
            .collect();
        let join_state = statistics
            .cgrp
            .as_ref()
            .map_or("", |group| group.join_state.as_str());
        let membership = match join_state {
            "steady" => Membership::Joined,
            "wait-join" | "wait-sync" => Membership::Waiting,
            _ => Membership::Outside,
        };
        self.push(Event::Statistics(Snapshot {
            broker_up,
            membership,
            partitions,
        }));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client");
        // "All brokers are down" says less than the error before it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *lock(&self.last_error) = Some(readable(reason).to_owned());
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let is_cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.pre_rebalance(consumer, &Rebalance::Assign(list));
            match self.begin.get().map(|begin| begin(consumer, list)) {
                None => {}
                Some(Ok(gaps)) if gaps.is_empty() => {}
                Some(Ok(gaps)) => self.push(Event::Gaps(gaps)),
                Some(Err(reason)) => {
                    // Nothing is read until it is known from where.
                    *list = TopicPartitionList::new();
                    self.push(Event::NoBeginning(reason));
                }
            }
            if is_cooperative {
                consumer.incremental_assign(list)
            } else {
                consumer.assign(list)
            }
        } else {
            let rebalance = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
                Rebalance::Revoke(list)
            } else {
                Rebalance::Error(KafkaError::Rebalance(code.into()))
            };
            self.pre_rebalance(consumer, &rebalance);
            if is_cooperative {
                consumer.incremental_unassign(list)
            } else {
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "partitions could not be taken or given back");
        }
    }

    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.push(Event::Assigned(names(list))),
            Rebalance::Revoke(list) => {
                // Whoever gets the partitions starts at what is committed: all that is finished must be, now. A consumer that
                // was thrown out of its group cannot commit; its records come again to the next owner.
                if !consumer.assignment_lost()
                    && let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
                    && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
                {
                    self.push(Event::CommitFailed(error.to_string()));
                }
                self.push(Event::Revoked(names(list)));
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "the consumer group could not be balanced");
            }
        }
    }
}

/// librdkafka's log lines go where ours go.
pub(crate) fn forward_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        // A broker that is away is reported once by the reader, not by every connection attempt.
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that is longer between two polls loses its partitions, and does the same work again, for ever.
    #[test]
    fn no_timeouts_add_up_to_more_than_a_reader_has() {
        let mut tuning = Tuning {
            handle_timeout_ms: 120_000,
            produce_timeout_ms: 120_000,
            ..Tuning::default()
        };
        assert!(poll_interval(&tuning) > Duration::from_secs(2 * (120 + 2 * 120)));
        assert_eq!(poll_interval(&Tuning::default()), POLL_INTERVAL);
        tuning.session_timeout_ms = 1_800_000;
        assert_eq!(poll_interval(&tuning), Duration::from_secs(1_800));
    }

    #[test]
    fn a_reason_loses_the_names_of_threads_and_connections() {
        let reasons = [
            (
                "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
            ),
            (
                "[thrd:a.b:9092/bootstrap]: a.b:9092/bootstrap: Disconnected (after 3ms in state APIVERSION_QUERY)",
                "Disconnected",
            ),
            ("1/1 brokers are down", "1/1 brokers are down"),
            ("", ""),
        ];
        for (reason, expected) in reasons {
            assert_eq!(readable(reason), expected);
        }
    }
}
