//! What the start asks of Kafka: that it answers, that the topics are there, how large a message each takes, and whether
//! what it confirms would survive the loss of a broker.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};

use crate::config::Config;
use crate::error::StartError;
use crate::fault::Asker;
use crate::kafka;
use crate::letters::{self, LETTER_ROOM_BYTES};
use crate::partitions::Partitions;

/// Between two looks at whether new topics have their leaders.
const LEADER_POLL: Duration = Duration::from_millis(50);

/// Replicas that a new topic gets on a cluster that has so many brokers, and in how many of them a message must be before
/// Kafka confirms it: one broker may fail without a loss and without a pause.
const SAFE_REPLICAS: usize = 3;
const SAFE_MIN_INSYNC: &str = "2";

/// Questions that measure the round trip, unless it is clearly long.
const ROUND_TRIPS: usize = 8;
const CLEARLY_FAR: Duration = Duration::from_millis(20);

/// What a look for a topic may take while the node runs, and a question about its settings.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
const LIMIT_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka at the start");
    }
}

/// What Kafka said of the topics.
pub(crate) struct Prepared {
    /// The largest batch that every topic takes.
    pub(crate) batch_bytes_max: u32,
    /// The partitions of the topics that routes store in.
    pub(crate) partitions: Partitions,
    /// The largest message that each of these topics takes, by its number.
    pub(crate) limits: Vec<u64>,
    /// The least time that an answer took.
    pub(crate) round_trip: Duration,
    /// What weakens the promise that an acknowledged message is never lost, each in one sentence.
    pub(crate) weaknesses: Vec<String>,
    /// Whether it is the cluster in memory, which only this process has.
    pub(crate) in_memory: bool,
}

/// Those who ask Kafka.
pub(crate) fn clients(config: &Config) -> Result<(AdminClient<Quiet>, Asker), StartError> {
    let client_error = |error: KafkaError| StartError::Client(error.to_string());
    let client = kafka::client(config);
    let admin = AdminClient::from_config_and_context(&client, Quiet).map_err(client_error)?;
    let asker = Asker::new(client).map_err(client_error)?;
    Ok((admin, asker))
}

/// Makes sure that Kafka answers and has every topic.
pub(crate) fn prepare(config: &Config) -> Result<Prepared, StartError> {
    let timeout = Duration::from_millis(config.start_timeout_ms);
    let deadline = Instant::now() + timeout;
    let (admin, asker) = clients(config)?;
    let mut metadata = metadata(&asker, config, None, timeout)?;
    let missing: Vec<&str> = config
        .kafka_topics()
        .into_iter()
        .filter(|topic| !has_topic(&metadata, topic))
        .collect();
    if !missing.is_empty() {
        if !config.create_topics {
            return Err(StartError::MissingTopics {
                kafka: config.kafka.clone(),
                topics: missing.join(", "),
            });
        }
        let brokers = metadata.brokers().len();
        metadata = create((&admin, &asker), config, &missing, brokers, deadline)?;
    }
    let partitions = partitions(config, &metadata);
    if is_in_memory(&admin, deadline) {
        // It leaves the question about settings without an answer, which would be waited for, and takes what it is given.
        return Ok(Prepared {
            batch_bytes_max: config.producer.batch_bytes_max,
            partitions,
            limits: Vec::new(),
            round_trip: Duration::ZERO,
            weaknesses: Vec::new(),
            in_memory: true,
        });
    }
    let described = describe(&admin, config, deadline);
    let weaknesses = weaknesses(config, &metadata, &described);
    for weakness in &weaknesses {
        tracing::warn!("{weakness}");
    }
    if config.require_replicas && !weaknesses.is_empty() {
        return Err(StartError::Weak {
            kafka: config.kafka.clone(),
            weaknesses: weaknesses.join("; "),
        });
    }
    Ok(Prepared {
        batch_bytes_max: batch_bytes_max(config, &described),
        limits: limits(&partitions, &described),
        partitions,
        round_trip: round_trip(&asker, config, timeout)?,
        weaknesses,
        in_memory: false,
    })
}

/// Looks whether Kafka has `topic` and each partition of it a leader, and with `make` makes it when it is not there.
pub(crate) fn look_for(config: &Config, topic: &str, make: bool) -> Result<bool, StartError> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    let client_error = |error: KafkaError| StartError::Client(error.to_string());
    let client = kafka::client(config);
    let asker = Asker::new(client.clone()).map_err(client_error)?;
    let known = metadata(&asker, config, None, LOOK_TIMEOUT)?;
    if has_topic(&known, topic) {
        let mut found = known.topics().iter();
        let led = |partition: &MetadataPartition| partition.leader() >= 0;
        return Ok(found.any(|of| of.name() == topic && of.partitions().iter().all(led)));
    }
    if !make {
        return Ok(false);
    }
    let admin = AdminClient::from_config_and_context(&client, Quiet).map_err(client_error)?;
    let brokers = known.brokers().len();
    create((&admin, &asker), config, &[topic], brokers, deadline)?;
    Ok(true)
}

/// The largest message that `topic` takes now, if Kafka tells.
pub(crate) fn limit(config: &Config, topic: &str) -> Option<u64> {
    let admin = AdminClient::from_config_and_context(&kafka::client(config), Quiet).ok()?;
    let asked = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(LIMIT_TIMEOUT));
    let described = kafka::wait(admin.describe_configs(&asked, &options)).ok()?;
    let described: Vec<_> = described.into_iter().flatten().collect();
    number(&described, topic, "max.message.bytes")
}

fn limits(partitions: &Partitions, described: &[ConfigResource]) -> Vec<u64> {
    let topics = 0..u32::try_from(partitions.topics()).unwrap_or(u32::MAX);
    let limit = |topic| number(described, partitions.topic(topic), "max.message.bytes");
    topics
        .map(|topic| limit(topic).unwrap_or(u64::MAX))
        .collect()
}

fn partitions(config: &Config, metadata: &Metadata) -> Partitions {
    let stored_in = |name: &str| {
        let mut stored = config.routes.iter().filter(|route| route.store);
        stored.any(|route| route.topic == name)
    };
    let leaders = |topic: &MetadataTopic| {
        let partitions = topic.partitions().iter();
        partitions.map(MetadataPartition::leader).collect()
    };
    let topics = metadata.topics().iter();
    Partitions::new(
        topics
            .filter(|topic| stored_in(topic.name()))
            .map(|topic| (topic.name(), leaders(topic))),
    )
}

/// The least time that Kafka took to answer: the first answers tell of connections that were made for them.
fn round_trip(asker: &Asker, config: &Config, timeout: Duration) -> Result<Duration, StartError> {
    let topic = config.kafka_topics().first().copied();
    let mut least = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        metadata(asker, config, topic, timeout)?;
        least = least.min(asked.elapsed());
        if least >= CLEARLY_FAR {
            break;
        }
    }
    Ok(least)
}

/// Whether it is librdkafka's cluster in memory: who starts that is told that it forgets everything.
fn is_in_memory(admin: &AdminClient<Quiet>, deadline: Instant) -> bool {
    admin
        .inner()
        .fetch_cluster_id(remaining(deadline))
        .is_some_and(|id| id.starts_with("mockCluster"))
}

pub(crate) fn metadata(
    asker: &Asker,
    config: &Config,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, StartError> {
    asker
        .ask(topic, timeout)
        .map_err(|fault| StartError::Unreachable {
            kafka: config.kafka.clone(),
            waited_ms: config.start_timeout_ms,
            cause: fault.cause,
            advice: fault.advice,
        })
}

pub(crate) fn has_topic(metadata: &Metadata, name: &str) -> bool {
    metadata
        .topics()
        .iter()
        .any(|topic| topic.name() == name && !topic.partitions().is_empty())
}

pub(crate) fn create(
    (admin, asker): (&AdminClient<Quiet>, &Asker),
    config: &Config,
    topics: &[&str],
    brokers: usize,
    deadline: Instant,
) -> Result<Metadata, StartError> {
    let failed = |topic: &str, cause: String| StartError::CreateTopic {
        kafka: config.kafka.clone(),
        topic: topic.to_owned(),
        cause,
    };
    let replication = match config.replication {
        0 if brokers >= SAFE_REPLICAS => SAFE_REPLICAS as i32,
        // Kafka calls its own default -1.
        0 => -1,
        given => given,
    };
    // What is refused for its size has room there.
    let largest_letter = config
        .producer
        .message_bytes_max
        .saturating_add(2 * LETTER_ROOM_BYTES)
        .to_string();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|name| {
            let topic = NewTopic::new(
                name,
                config.partitions,
                TopicReplication::Fixed(replication),
            );
            let topic = if replication >= SAFE_REPLICAS as i32 {
                topic.set("min.insync.replicas", SAFE_MIN_INSYNC)
            } else {
                topic
            };
            if letters::is_topic(name) || **name == *config.downlink.dead_letter_topic {
                topic.set("max.message.bytes", &largest_letter)
            } else {
                topic
            }
        })
        .collect();
    let options = options(deadline);
    let results = kafka::wait(admin.create_topics(&new, &options))
        .map_err(|error| failed(&topics.join(", "), kafka::describe(&error)))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(
                topic,
                partitions = config.partitions,
                replication,
                "created the Kafka topic"
            ),
            // Another node was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(failed(&topic, code.to_string())),
        }
    }
    // A topic takes messages when its partitions have leaders.
    loop {
        let metadata = metadata(asker, config, None, remaining(deadline))?;
        let led = |name: &&&str| {
            metadata.topics().iter().any(|topic| {
                topic.name() == **name
                    && !topic.partitions().is_empty()
                    && topic
                        .partitions()
                        .iter()
                        .all(|partition| partition.leader() >= 0)
            })
        };
        match topics.iter().find(|topic| !led(topic)) {
            None => return Ok(metadata),
            Some(topic) if Instant::now() >= deadline => {
                return Err(failed(
                    topic,
                    "its partitions have no leader yet".to_owned(),
                ));
            }
            Some(_) => std::thread::sleep(LEADER_POLL),
        }
    }
}

/// The settings of every topic that Kafka tells; none where it does not let this client ask.
pub(crate) fn describe(
    admin: &AdminClient<Quiet>,
    config: &Config,
    deadline: Instant,
) -> Vec<ConfigResource> {
    let topics = config.kafka_topics();
    if topics.is_empty() {
        return Vec::new();
    }
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.into_iter().map(ResourceSpecifier::Topic).collect();
    match kafka::wait(admin.describe_configs(&topics, &options(deadline))) {
        Ok(described) => described.into_iter().flatten().collect(),
        Err(error) => {
            // Not allowed to ask, or a Kafka that does not know the question.
            tracing::debug!(
                error = kafka::describe(&error),
                "Kafka does not tell its topics' settings"
            );
            Vec::new()
        }
    }
}

/// A topic's setting that is a number.
pub(crate) fn number<T: std::str::FromStr>(
    described: &[ConfigResource],
    topic: &str,
    key: &str,
) -> Option<T> {
    let is_topic = |of: &&ConfigResource| match &of.specifier {
        OwnedResourceSpecifier::Topic(name) => name == topic,
        _ => false,
    };
    let setting = described.iter().find(is_topic)?.get(key)?;
    setting.value.as_ref()?.parse().ok()
}

/// The configured bound of a batch, lowered to what the most modest topic takes: Kafka refuses a batch as a whole, and
/// librdkafka does not send its messages again one by one.
fn batch_bytes_max(config: &Config, described: &[ConfigResource]) -> u32 {
    let configured = config.producer.batch_bytes_max;
    let stored = config.routes.iter().filter(|route| route.store);
    let allowed =
        stored.filter_map(|route| number::<u32>(described, &route.topic, "max.message.bytes"));
    match allowed.min() {
        Some(least) if least < configured => {
            tracing::info!(
                batch_bytes_max = least,
                "a Kafka topic takes smaller batches than configured"
            );
            least.max(1)
        }
        _ => configured,
    }
}

/// What weakens the promise: topics with one replica, and topics that confirm what one replica has.
pub(crate) fn weaknesses(
    config: &Config,
    metadata: &Metadata,
    described: &[ConfigResource],
) -> Vec<String> {
    let (mut single, mut unsafe_insync) = (Vec::new(), Vec::new());
    for name in config.kafka_topics() {
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            continue;
        };
        let replicas = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min();
        if replicas == Some(1) {
            single.push(name);
        } else if number::<u32>(described, name, "min.insync.replicas") == Some(1) {
            unsafe_insync.push(name);
        }
    }
    let mut weaknesses = Vec::new();
    if !single.is_empty() {
        weaknesses.push(format!(
            "Kafka keeps one replica of {}: what was acknowledged is lost with the disk of one Kafka broker, and nothing \
             is acknowledged while that broker is away; on a cluster of three brokers give these topics 3 replicas and \
             min.insync.replicas 2",
            single.join(", ")
        ));
    }
    if !unsafe_insync.is_empty() {
        weaknesses.push(format!(
            "min.insync.replicas is 1 for {}: Kafka confirms what one broker has while the others are behind, so what was \
             acknowledged is lost when that one fails then; set it to 2",
            unsafe_insync.join(", ")
        ));
    }
    weaknesses
}

fn options(deadline: Instant) -> AdminOptions {
    let remaining = remaining(deadline);
    AdminOptions::new()
        .request_timeout(Some(remaining))
        .operation_timeout(Some(remaining))
}

/// What is left until the deadline, and at least what an answer takes.
fn remaining(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(500))
}
