//! What Kafka's topics look like to a node of this configuration, for operators who ask before or without starting one.

use std::time::{Duration, Instant};

use rdkafka::admin::ConfigResource;
use rdkafka::metadata::Metadata;
use serde::Serialize;

use crate::config::Config;
use crate::error::StartError;
use crate::topics;

/// A topic that a node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NeededTopic {
    /// Its name.
    pub name: String,
    /// What is in it: the filters of the routes that store in it, or what the downlink keeps there.
    pub holds: Vec<String>,
    /// Its partitions; 0 where Kafka does not have it.
    pub partitions: usize,
    /// Partitions without a leader: nothing can be stored in them now.
    pub leaderless: usize,
    /// The fewest replicas that a partition has.
    pub replicas: usize,
    /// In how many of them a message must be before Kafka confirms it, if Kafka tells.
    pub min_insync: Option<u32>,
    /// How long records are kept, in milliseconds; -1 is for ever.
    pub retention_ms: Option<i64>,
    /// The largest batch of messages that it takes, in bytes.
    pub max_message_bytes: Option<u64>,
}

/// All topics that a node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// By name.
    pub topics: Vec<NeededTopic>,
    /// What weakens the promise that an acknowledged message is never lost, each in one sentence.
    pub weaknesses: Vec<String>,
    /// Topics that were made for this answer.
    pub made: Vec<String>,
}

impl Inventory {
    /// Asks Kafka; with `make` it makes what is missing, as a node would.
    ///
    /// # Errors
    /// Kafka does not answer, or does not make a topic.
    pub fn take(config: &Config, make: bool) -> Result<Self, StartError> {
        let timeout = Duration::from_millis(config.start_timeout_ms);
        let deadline = Instant::now() + timeout;
        let (admin, asker) = topics::clients(config)?;
        let mut metadata = topics::metadata(&asker, config, None, timeout)?;
        let names = config.kafka_topics();
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !topics::has_topic(&metadata, name))
            .collect();
        let made = match make {
            true => missing.iter().map(|&name| name.to_owned()).collect(),
            false => Vec::new(),
        };
        if !made.is_empty() {
            let brokers = metadata.brokers().len();
            metadata = topics::create((&admin, &asker), config, &missing, brokers, deadline)?;
        }
        let described = topics::describe(&admin, config, deadline);
        let needed = |name| needed(config, name, &metadata, &described);
        Ok(Self {
            topics: names.into_iter().map(needed).collect(),
            weaknesses: topics::weaknesses(config, &metadata, &described),
            made,
        })
    }

    /// Topics that Kafka does not have.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let missing = self.topics.iter().filter(|topic| topic.partitions == 0);
        missing.map(|topic| topic.name.as_str())
    }
}

fn needed(
    config: &Config,
    name: &str,
    metadata: &Metadata,
    described: &[ConfigResource],
) -> NeededTopic {
    let routes = config.routes.iter();
    let mut holds: Vec<String> = routes
        .filter(|route| route.store && route.topic == name)
        .map(|route| route.filter.clone())
        .collect();
    let downlink = &config.downlink;
    if downlink.enabled && name == downlink.topic {
        holds.push("what backends answer (downlink)".to_owned());
    }
    if downlink.enabled && name == downlink.dead_letter_topic {
        holds.push("dead letters of the downlink".to_owned());
    }
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = found.map_or(&[][..], |topic| topic.partitions());
    let replicas = partitions
        .iter()
        .map(|partition| partition.replicas().len());
    let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
    NeededTopic {
        name: name.to_owned(),
        holds,
        partitions: partitions.len(),
        leaderless: leaderless.count(),
        replicas: replicas.min().unwrap_or(0),
        min_insync: topics::number(described, name, "min.insync.replicas"),
        retention_ms: topics::number(described, name, "retention.ms"),
        max_message_bytes: topics::number(described, name, "max.message.bytes"),
    }
}
