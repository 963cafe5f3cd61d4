//! Asks Kafka, now and then, what its logs hold and how far other consumer groups have come.
//!
//! It only looks: it joins no group and reads no record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Offset;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use serde::Serialize;

use crate::clock::now_ms;
use crate::config::Config;

/// How often to ask.
const EVERY: Duration = Duration::from_secs(1);

/// How long one question may take. Also how long a shutdown waits at most, as Kafka may be away.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the thread looks whether it shall end.
const STOP_EVERY: Duration = Duration::from_millis(50);

/// What Kafka said last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Logs {
    /// When, milliseconds since the Unix epoch; `None` before the first answer.
    pub as_of: Option<i64>,
    /// Records ever appended to the counted topics.
    pub stored: u64,
    /// Records ever appended to their dead-letter topics.
    pub dead_letters: u64,
    pub topics: Vec<TopicRow>,
    pub groups: Vec<GroupRow>,
}

/// A counted topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TopicRow {
    pub topic: String,
    /// 0: the topic does not exist.
    pub partitions: usize,
    pub stored: u64,
    pub dead_letters: u64,
}

/// A watched consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GroupRow {
    pub group: String,
    /// Records that wait for it; `None` when it has not committed anything yet.
    pub lag: Option<u64>,
}

/// The thread that asks. It ends when this is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    logs: Arc<Mutex<Logs>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Watcher {
    /// Starts asking.
    pub(crate) fn start(config: &Config) -> std::io::Result<Self> {
        let logs = Arc::new(Mutex::new(Logs::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let asker = Asker {
            config: config.clone(),
            clients: BTreeMap::new(),
            stop: Arc::clone(&stop),
        };
        let of_thread = Arc::clone(&logs);
        let thread = std::thread::Builder::new()
            .name(format!("watch-{}", config.group))
            .spawn(move || asker.run(&of_thread))?;
        Ok(Self {
            logs,
            stop,
            thread: Some(thread),
        })
    }

    /// What Kafka said last.
    pub(crate) fn logs(&self) -> Logs {
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the thread and waits for it. Blocks.
    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches Kafka's logs panicked");
        }
    }
}

struct Asker {
    config: Config,
    /// A client for each group: a client asks only for its own.
    clients: BTreeMap<String, BaseConsumer>,
    stop: Arc<AtomicBool>,
}

impl Asker {
    fn run(mut self, logs: &Mutex<Logs>) {
        while !self.stopping() {
            match self.ask() {
                Ok(answer) => *logs.lock().unwrap_or_else(PoisonError::into_inner) = answer,
                // The consumer says so where people look; here the last answer stays, with its time.
                Err(error) => tracing::debug!(%error, "Kafka does not tell about its logs"),
            }
            for client in self.clients.values() {
                // Empties the client's queue of events; nothing is read by it.
                drop(client.poll(Duration::ZERO));
            }
            let next = Instant::now() + EVERY;
            while Instant::now() < next && !self.stopping() {
                std::thread::sleep(STOP_EVERY);
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn client(&mut self, group: &str) -> KafkaResult<&BaseConsumer> {
        if !self.clients.contains_key(group) {
            let mut client = ClientConfig::new();
            client
                .set("bootstrap.servers", &self.config.kafka)
                .set("group.id", group)
                .set("client.id", format!("{}-watch", self.config.group))
                .set("enable.auto.commit", "false")
                .set("allow.auto.create.topics", "false")
                .set_log_level(RDKafkaLogLevel::Critical);
            for (key, value) in self.config.consumer.properties.reveal() {
                client.set(key, value);
            }
            self.clients.insert(group.to_owned(), client.create()?);
        }
        Ok(&self.clients[group])
    }

    fn ask(&mut self) -> KafkaResult<Logs> {
        let Config {
            topics,
            watched_groups,
            group,
            consumer,
            ..
        } = self.config.clone();
        let client = self.client(&group)?;
        let metadata = client.fetch_metadata(None, ASK_TIMEOUT)?;
        let partitions: BTreeMap<&str, usize> = metadata
            .topics()
            .iter()
            .map(|topic| (topic.name(), topic.partitions().len()))
            .collect();
        let dead = |topic: &str| format!("{topic}{}", consumer.dead_letter_suffix);
        let mut wanted = TopicPartitionList::new();
        for name in topics
            .iter()
            .cloned()
            .chain(topics.iter().map(|topic| dead(topic)))
        {
            for partition in 0..partitions.get(name.as_str()).copied().unwrap_or(0) {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                wanted.add_partition_offset(&name, partition, Offset::End)?;
            }
        }
        // "The first offset after the end of time" is where each log ends: one question a broker.
        let ends = Offsets::of(&client.offsets_for_times(wanted, ASK_TIMEOUT)?);
        let rows: Vec<TopicRow> = topics
            .iter()
            .map(|topic| TopicRow {
                topic: topic.clone(),
                partitions: partitions.get(topic.as_str()).copied().unwrap_or(0),
                stored: ends.sum(topic),
                dead_letters: ends.sum(&dead(topic)),
            })
            .collect();
        drop(metadata);
        let mut groups = Vec::new();
        for group in watched_groups {
            if self.stopping() {
                break;
            }
            let mut list = TopicPartitionList::new();
            for (topic, partition) in ends.0.keys().filter(|(topic, _)| topics.contains(topic)) {
                list.add_partition(topic, *partition);
            }
            // A group that cannot be asked (it does not exist yet, say) hides nothing about the others.
            let committed = self.client(&group)?.committed_offsets(list, ASK_TIMEOUT);
            let lag = committed
                .ok()
                .and_then(|committed| lag(&ends, &Offsets::of(&committed)));
            groups.push(GroupRow { group, lag });
        }
        Ok(Logs {
            as_of: Some(now_ms()),
            stored: rows.iter().map(|row| row.stored).sum(),
            dead_letters: rows.iter().map(|row| row.dead_letters).sum(),
            topics: rows,
            groups,
        })
    }
}

/// An offset for each partition; those without one are left out of lists of commits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offsets(BTreeMap<(String, i32), u64>);

impl Offsets {
    fn of(list: &TopicPartitionList) -> Self {
        let offset = |offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let elements = list.elements();
        let known = elements.iter().filter_map(|element| {
            Some((
                (element.topic().to_owned(), element.partition()),
                offset(element.offset())?,
            ))
        });
        Self(known.collect())
    }

    fn sum(&self, topic: &str) -> u64 {
        self.0
            .iter()
            .filter(|((name, _), _)| name == topic)
            .map(|(_, offset)| offset)
            .sum()
    }
}

/// What waits for a group that committed so far. A topic of which it committed no partition is none of its topics; of its
/// topics, a partition that it never committed waits as a whole.
fn lag(ends: &Offsets, committed: &Offsets) -> Option<u64> {
    if committed.0.is_empty() {
        return None;
    }
    let is_its = |topic: &str| committed.0.keys().any(|(name, _)| name == topic);
    let waiting = ends
        .0
        .iter()
        .filter(|((topic, _), _)| is_its(topic))
        .map(|(partition, end)| {
            let done = committed.0.get(partition).copied().unwrap_or(0);
            end.saturating_sub(done)
        });
    Some(waiting.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(entries: &[(&str, i32, u64)]) -> Offsets {
        Offsets(
            entries
                .iter()
                .map(|(topic, partition, offset)| (((*topic).to_owned(), *partition), *offset))
                .collect(),
        )
    }

    #[test]
    fn lag_is_what_waits_in_the_topics_of_a_group() {
        let ends = offsets(&[("a", 0, 10), ("a", 1, 5), ("b", 0, 100)]);
        assert_eq!(lag(&ends, &offsets(&[])), None);
        assert_eq!(lag(&ends, &offsets(&[("a", 0, 7)])), Some(8));
        assert_eq!(
            lag(&ends, &offsets(&[("a", 0, 10), ("a", 1, 5), ("b", 0, 99)])),
            Some(1)
        );
        assert_eq!(
            lag(&ends, &offsets(&[("a", 0, 11), ("a", 1, 5)])),
            Some(0),
            "a commit may be newer than the ends"
        );
    }
}
