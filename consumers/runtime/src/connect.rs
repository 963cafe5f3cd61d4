//! The first words with Kafka: a consumer that gets an answer, and the topics for what it cannot handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::client::{ASK_TIMEOUT, Context, common_settings, consumer_settings};
use crate::config::Config;
use crate::error::StartError;

/// How long to listen for what the Kafka client complains about.
const HEAR: Duration = Duration::from_millis(10);

/// Partitions of a dead-letter topic that the runtime makes: few records, and order among them is worth more than speed.
const DEAD_LETTER_PARTITIONS: i32 = 1;

/// A consumer that does not read yet, and what Kafka said first.
pub(crate) struct Connected {
    pub(crate) consumer: BaseConsumer<Context>,
    /// The cluster's identifier.
    pub(crate) cluster: Arc<str>,
    /// The topics that exist.
    pub(crate) topics: Vec<String>,
}

/// Makes a consumer that does not read yet, and waits until Kafka answers.
pub(crate) fn connect(config: &Config, timeout: Duration) -> Result<Connected, StartError> {
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&consumer_settings(config), Context::default())?;
    let deadline = Instant::now() + timeout;
    let wait = ASK_TIMEOUT.min(timeout);
    loop {
        // A question about topics opens a connection at once; one about the cluster waits until librdkafka wants one for
        // another reason, up to a second. The answer to the first holds that to the second.
        let answer = consumer.fetch_metadata(None, wait).ok().and_then(|known| {
            let topics = known.topics().iter().map(|topic| topic.name().to_owned());
            Some((consumer.client().fetch_cluster_id(wait)?, topics.collect()))
        });
        // Runs the callback that hears the reason; there is nothing to read yet.
        while consumer.poll(HEAR).is_some() {}
        if let Some((cluster, topics)) = answer {
            return Ok(Connected {
                consumer,
                cluster: Arc::from(cluster),
                topics,
            });
        }
        if Instant::now() >= deadline {
            let reason = consumer
                .context()
                .last_error()
                .unwrap_or_else(|| "no answer".to_owned());
            return Err(StartError::Unreachable {
                servers: config.kafka.clone(),
                reason,
            });
        }
    }
}

/// Makes the dead-letter topics that do not exist. Where that is not allowed or not possible, Kafka may make them itself when
/// the first dead letter comes; if not, the failure is a transient one that the status shows.
pub(crate) async fn make_dead_letter_topics(config: Config, existing: Vec<String>) {
    let names: Vec<String> = config
        .topics
        .iter()
        .map(|topic| format!("{topic}{}", config.tuning.dead_letter_suffix))
        .filter(|name| !existing.contains(name))
        .collect();
    if names.is_empty() {
        return;
    }
    let admin: AdminClient<DefaultClientContext> =
        match AdminClient::from_config_and_context(&common_settings(&config), DefaultClientContext)
        {
            Ok(admin) => admin,
            Err(error) => {
                tracing::debug!(%error, "dead-letter topics cannot be made");
                return;
            }
        };
    // -1: the replication that the cluster has by default.
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| NewTopic::new(name, DEAD_LETTER_PARTITIONS, TopicReplication::Fixed(-1)))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    match admin.create_topics(&topics, &options).await {
        Ok(results) => {
            for (name, code) in results.into_iter().filter_map(Result::err) {
                tracing::debug!(name, %code, "a dead-letter topic was not made");
            }
        }
        Err(error) => tracing::debug!(%error, "dead-letter topics cannot be made"),
    }
}
