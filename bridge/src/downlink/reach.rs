//! Whether the Kafka brokers that have the downlink's partitions can be reached: what one of several has is not read while
//! it is away, though all looks well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::statistics::Broker;

/// How often librdkafka tells.
pub(crate) const STATISTICS_MS: u32 = 2_000;
/// A broker that says nothing for so long, though it was asked, is away: an answer is due after 0.5 s, new records or none.
const SILENCE_MAX: Duration = Duration::from_millis(3_500);
/// A partition whose broker is away for so long is a problem; leaders move in less.
const AWAY_MIN: Duration = Duration::from_secs(5);
/// Most partitions that a problem names.
const NAMED_MAX: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Partitions whose brokers are away, and since when.
    away: Mutex<BTreeMap<i32, Instant>>,
}

impl Reach {
    fn away(&self) -> MutexGuard<'_, BTreeMap<i32, Instant>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what librdkafka's statistics say of `topic`.
    pub(super) fn observe(&self, statistics: &Statistics, topic: &str, now: Instant) {
        let Some(of_topic) = statistics.topics.get(topic) else {
            return;
        };
        let mut away = self.away();
        for partition in of_topic.partitions.values().filter(|of| of.partition >= 0) {
            // Records come by a broker's own connection; the coordinator of the group has one of its own.
            let mut brokers = statistics.brokers.values();
            let has_it =
                |broker: &&Broker| broker.nodeid == partition.broker && broker.source != "logical";
            match brokers.find(has_it).and_then(heard) {
                Some(silent) if silent < SILENCE_MAX => {
                    away.remove(&partition.partition);
                }
                silent => {
                    let since = now.checked_sub(silent.unwrap_or_default()).unwrap_or(now);
                    away.entry(partition.partition).or_insert(since);
                }
            }
        }
    }

    /// The partitions from which nothing can be read, in a sentence.
    pub(super) fn problem(&self, topic: &str, now: Instant) -> Option<String> {
        let away = self.away();
        let mut named: Vec<String> = away
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= AWAY_MIN)
            .map(|(partition, _)| format!("{topic}/{partition}"))
            .collect();
        let more = named.len().saturating_sub(NAMED_MAX);
        named.truncate(NAMED_MAX);
        let further = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| {
            format!(
                "the downlink cannot read {}{further}: the Kafka broker that has them cannot be reached",
                named.join(", ")
            )
        })
    }
}

/// For how long a connected broker has said nothing that it owes.
fn heard(broker: &Broker) -> Option<Duration> {
    let is_up = matches!(broker.state.as_str(), "UP" | "UPDATE");
    let silent_micros = match broker.waitresp_cnt {
        0 => 0,
        _ => u64::try_from(broker.rxidle).unwrap_or(0),
    };
    is_up.then(|| Duration::from_micros(silent_micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::statistics::{Partition, Topic};

    fn broker(nodeid: i32, state: &str, silent_s: i64) -> Broker {
        Broker {
            nodeid,
            state: state.to_owned(),
            source: "learned".to_owned(),
            waitresp_cnt: 1,
            rxidle: silent_s * 1_000_000,
            ..Broker::default()
        }
    }

    /// Partitions 0, 1, … led by these brokers.
    fn statistics(led_by: &[i32], brokers: Vec<Broker>) -> Statistics {
        let partition = |(partition, broker): (i32, &i32)| {
            let of = Partition {
                partition,
                broker: *broker,
                ..Partition::default()
            };
            (partition, of)
        };
        let topic = Topic {
            partitions: (0..).zip(led_by).map(partition).collect(),
            ..Topic::default()
        };
        let named = |broker: Broker| (format!("{}-{}", broker.nodeid, broker.source), broker);
        Statistics {
            topics: [("d".to_owned(), topic)].into(),
            brokers: brokers.into_iter().map(named).collect(),
            ..Statistics::default()
        }
    }

    #[test]
    fn partitions_of_a_broker_that_is_away_are_named_and_those_of_others_are_not() {
        let (reach, start) = (Reach::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        let problem = |seconds| reach.problem("d", later(seconds));
        let led_by = [1, 2, 2, -1];
        reach.observe(
            &statistics(&led_by, vec![broker(1, "UP", 0), broker(2, "UP", 3)]),
            "d",
            later(10),
        );
        assert_eq!(problem(14), None, "the one without a leader may get one");
        let coordinator = Broker {
            source: "logical".to_owned(),
            ..broker(2, "UP", 0)
        };
        let silent = vec![broker(1, "UP", 0), broker(2, "UP", 5), coordinator];
        reach.observe(&statistics(&led_by, silent), "d", later(12));
        assert_eq!(
            problem(13).as_deref(),
            Some(
                "the downlink cannot read d/1, d/2: the Kafka broker that has them cannot be reached"
            )
        );
        let down = vec![broker(1, "UP", 0), broker(2, "CONNECT", 5)];
        reach.observe(&statistics(&led_by, down), "d", later(14));
        assert!(problem(16).is_some_and(|problem| problem.contains("d/1, d/2, d/3:")));
        reach.observe(
            &statistics(&[1, 1, 1, 1], vec![broker(1, "UP", 0)]),
            "d",
            later(20),
        );
        assert_eq!(problem(60), None);
    }
}
