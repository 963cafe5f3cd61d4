//! What the start asks of Kafka: that it answers, that the topics are there, and how large a message each takes.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::config::Config;
use crate::error::StartError;
use crate::kafka;

/// Between two looks at whether new topics have their leaders.
const LEADER_POLL: Duration = Duration::from_millis(50);

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka at the start");
    }
}

/// Makes sure that Kafka answers and has every topic. Returns the largest batch that every topic takes.
pub(crate) fn prepare(config: &Config) -> Result<u32, StartError> {
    let timeout = Duration::from_millis(config.start_timeout_ms);
    let deadline = Instant::now() + timeout;
    let admin = AdminClient::from_config_and_context(&kafka::client(config), Quiet)
        .map_err(|error| StartError::Client(error.to_string()))?;
    let metadata = metadata(&admin, config, timeout)?;
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
        create(&admin, config, &missing, deadline)?;
    }
    Ok(batch_bytes_max(&admin, config, deadline))
}

fn metadata(
    admin: &AdminClient<Quiet>,
    config: &Config,
    timeout: Duration,
) -> Result<Metadata, StartError> {
    admin
        .inner()
        .fetch_metadata(None, timeout)
        .map_err(|error| StartError::Unreachable {
            kafka: config.kafka.clone(),
            waited_ms: config.start_timeout_ms,
            cause: kafka::describe(&error),
        })
}

fn has_topic(metadata: &Metadata, name: &str) -> bool {
    metadata
        .topics()
        .iter()
        .any(|topic| topic.name() == name && !topic.partitions().is_empty())
}

fn create(
    admin: &AdminClient<Quiet>,
    config: &Config,
    topics: &[&str],
    deadline: Instant,
) -> Result<(), StartError> {
    let failed = |topic: &str, cause: String| StartError::CreateTopic {
        kafka: config.kafka.clone(),
        topic: topic.to_owned(),
        cause,
    };
    // Kafka calls its own default -1.
    let replication = if config.replication == 0 {
        -1
    } else {
        config.replication
    };
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            NewTopic::new(
                topic,
                config.partitions,
                TopicReplication::Fixed(replication),
            )
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
                "created the Kafka topic"
            ),
            // Another node was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(failed(&topic, code.to_string())),
        }
    }
    // A topic takes messages when its partitions have leaders.
    loop {
        let metadata = metadata(admin, config, remaining(deadline))?;
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
            None => return Ok(()),
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

/// The configured bound of a batch, lowered to what the most modest topic takes: Kafka refuses a batch as a whole, and
/// librdkafka does not send its messages again one by one.
fn batch_bytes_max(admin: &AdminClient<Quiet>, config: &Config, deadline: Instant) -> u32 {
    let configured = config.producer.batch_bytes_max;
    let stored = config.routes.iter().filter(|route| route.store);
    let topics: Vec<ResourceSpecifier<'_>> = stored
        .map(|route| ResourceSpecifier::Topic(&route.topic))
        .collect();
    if topics.is_empty() {
        return configured;
    }
    let described = match kafka::wait(admin.describe_configs(&topics, &options(deadline))) {
        Ok(described) => described,
        Err(error) => {
            // Not allowed to ask, or a Kafka that does not know the question: the configured bound stands.
            tracing::debug!(
                error = kafka::describe(&error),
                "Kafka does not tell its topics' settings"
            );
            return configured;
        }
    };
    let allowed = described.iter().flatten().filter_map(|topic| {
        topic
            .get("max.message.bytes")?
            .value
            .as_ref()?
            .parse::<u32>()
            .ok()
    });
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
