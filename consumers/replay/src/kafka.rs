//! Settings of librdkafka, connecting, and what its errors mean.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use settings::kafka::{self, Properties};

use crate::Error;

/// How long a question to Kafka may take.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to listen for what the client complains about.
const HEAR: Duration = Duration::from_millis(10);
/// Records that are fetched and not looked at take no more than this, of a consumer.
const PREFETCH_KIB_MAX: u32 = 32 << 10;

/// How Kafka is reached.
#[derive(Debug, Clone)]
pub struct Kafka {
    servers: String,
    properties: Properties,
}

/// A topic's partitions, by number.
pub(crate) type Topics = BTreeMap<String, Vec<i32>>;

impl Kafka {
    /// Kafka at `servers`, with further settings of librdkafka.
    ///
    /// # Errors
    /// When `servers` are no addresses.
    pub fn new(servers: &str, properties: Properties) -> Result<Self, Error> {
        if !(kafka::SERVERS.fits)(&servers.to_owned()) {
            return Err(Error::option("--kafka", servers, kafka::SERVERS.words));
        }
        Ok(Self {
            servers: servers.to_owned(),
            properties,
        })
    }

    pub(crate) fn settings(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "millstream-replay")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in self.properties.reveal() {
            client.set(name, value);
        }
        client
    }

    /// A consumer that is a member of no group; `group` names the one whose offsets it asks for and sets.
    pub(crate) fn consumer(&self, group: &str) -> Result<BaseConsumer<Heard>, Error> {
        let mut settings = self.settings();
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // An offset that retention took is an error, not a silent jump.
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", PREFETCH_KIB_MAX.to_string());
        BaseConsumer::from_config_and_context(&settings, Heard::default())
            .map_err(|error| Error::failed("use the Kafka client", describe(&error)))
    }

    pub(crate) fn admin(&self) -> Result<AdminClient<Heard>, Error> {
        AdminClient::from_config_and_context(&self.settings(), Heard::default())
            .map_err(|error| Error::failed("use the Kafka client", describe(&error)))
    }

    /// All topics and their partitions.
    pub(crate) fn topics(&self, consumer: &BaseConsumer<Heard>) -> Result<Topics, Error> {
        let metadata = consumer
            .fetch_metadata(None, ASK_TIMEOUT)
            .map_err(|error| self.unreachable(consumer, &error))?;
        let topics = metadata.topics().iter();
        Ok(topics
            .filter(|topic| !topic.partitions().is_empty())
            .map(|topic| {
                let mut partitions: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
                partitions.sort_unstable();
                (topic.name().to_owned(), partitions)
            })
            .collect())
    }

    /// Makes a topic of one partition with this setting, where there is none of its name.
    pub(crate) fn make_topic(&self, name: &str, (key, value): (&str, &str)) -> Result<(), Error> {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set(key, value);
        let failed = |cause: String| Error::failed(format!("make the topic {name}"), cause);
        let made = wait(self.admin()?.create_topics([&topic], &admin_options()))?
            .map_err(|error| failed(describe(&error)))?;
        for made in made {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(code.to_string())),
            }
        }
        Ok(())
    }

    fn unreachable(&self, consumer: &BaseConsumer<Heard>, error: &KafkaError) -> Error {
        // Runs the callback that hears the reason; nothing is assigned.
        while consumer.poll(HEAR).is_some() {}
        Error::Unreachable {
            servers: self.servers.clone(),
            cause: consumer
                .context()
                .last_error()
                .unwrap_or_else(|| describe(error)),
        }
    }
}

/// How long the admin client's questions may take.
pub(crate) fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ASK_TIMEOUT))
        .operation_timeout(Some(ASK_TIMEOUT))
}

/// Waits for an answer of the admin client, which has a thread of its own.
pub(crate) fn wait<T>(answer: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Error::failed("wait for Kafka", error))?;
    Ok(runtime.block_on(answer))
}

/// The error in words, without the name of the library's type around it.
pub(crate) fn describe(error: &KafkaError) -> String {
    match error {
        // What a transaction says is more than its code.
        KafkaError::Transaction(error) => error.to_string(),
        _ => error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// Hears librdkafka's callbacks.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    last_error: Mutex<Option<String>>,
}

impl Heard {
    /// What librdkafka last complained about.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka");
        // "All brokers are down" says less than the error before it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            let reason = reason.rsplit_once("]: ").map_or(reason, |(_, rest)| rest);
            let reason = reason
                .split_once("/bootstrap: ")
                .map_or(reason, |(_, rest)| rest);
            *self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(reason.trim().to_owned());
        }
    }
}

impl ConsumerContext for Heard {}
