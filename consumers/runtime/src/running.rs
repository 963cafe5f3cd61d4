//! The life of a consumer: start, status, end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Registry;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::watch;

use crate::client::{Context, common_settings, consumer_settings};
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::reader::Reader;
use crate::{Config, Handler, State, Status};

/// How long one question to Kafka takes at most while the start waits for an answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to listen for what the Kafka client complains about.
const HEAR: Duration = Duration::from_millis(10);

/// Partitions of a dead-letter topic that the runtime makes: few records, and order among them is worth more than speed.
const DEAD_LETTER_PARTITIONS: i32 = 1;

/// Why a consumer does not start. Each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// librdkafka refuses the settings.
    #[error("Kafka client settings are refused: {0}")]
    Client(String),
    /// No answer from Kafka.
    #[error("Kafka at {servers} cannot be reached: {reason}")]
    Unreachable {
        /// The bootstrap servers.
        servers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// Metrics of a consumer with the same group are in the registry already.
    #[error("metrics of the consumer group {group:?} cannot be registered: {reason}")]
    Metrics {
        /// The consumer group.
        group: String,
        /// What the registry says.
        reason: String,
    },
    /// The operating system gives no thread.
    #[error("the consumer's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A consumer that was started. Clones stand for the same consumer; when the last one is dropped it is told to stop, without
/// waiting for it.
#[derive(Debug, Clone)]
pub struct Running {
    stop: Arc<StopOnDrop>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }
}

/// What the consumer's thread and its owner share.
#[derive(Debug)]
pub(crate) struct Shared {
    stopping: AtomicBool,
    status: Mutex<Status>,
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn with_status<T>(&self, f: impl FnOnce(&mut Status) -> T) -> T {
        f(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts a consumer: checks the configuration, waits for Kafka to answer, and reads from then on.
///
/// Must be called within a tokio runtime, on which the handler's futures run.
///
/// # Errors
///
/// [`StartError`]; after the start Kafka may go away and come back.
pub async fn start<H: Handler>(
    config: Config,
    handler: H,
    registry: &Registry,
) -> Result<Running, StartError> {
    config.validate()?;
    let tokio = tokio::runtime::Handle::current();
    let connecting = config.clone();
    let (consumer, cluster, existing, outlet) =
        tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let timeout = Duration::from_millis(connecting.tuning.start_timeout_ms.into());
            let (consumer, cluster) = connect(&connecting, timeout)?;
            let outlet =
                Outlet::new(&connecting).map_err(|error| StartError::Client(error.to_string()))?;
            let existing = topics(&consumer);
            Ok((consumer, cluster, existing, outlet))
        })
        .await
        .map_err(|error| StartError::Client(error.to_string()))??;
    // Not waited for: a cluster that does not let us takes its time to say so.
    tokio.spawn(make_dead_letter_topics(config.clone(), existing));
    // Last, so that a start that failed can be tried again with the same registry.
    let metrics = Metrics::new(&config, registry).map_err(|error| StartError::Metrics {
        group: config.group.clone(),
        reason: error.to_string(),
    })?;

    let status = Status {
        group: config.group.clone(),
        ..Status::default()
    };
    let shared = Arc::new(Shared {
        stopping: AtomicBool::new(false),
        status: Mutex::new(status),
    });
    let (end, ended) = watch::channel(None);
    let name = format!("consume-{}", config.group);
    let reader = Reader {
        config,
        handler,
        tokio,
        shared: Arc::clone(&shared),
        metrics,
        outlet,
        cluster,
        rebuilds_in_vain: 0,
    };
    let of_thread = Arc::clone(&shared);
    std::thread::Builder::new().name(name).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| reader.run(consumer)))
            .unwrap_or_else(|panic| Err(format!("the consumer panicked: {}", panic_text(&*panic))));
        of_thread.with_status(|status| match &result {
            Ok(()) => (status.state, status.problem) = (State::Stopped, None),
            Err(reason) => {
                tracing::error!(group = status.group, reason, "the consumer stops");
                (status.state, status.problem) = (State::Failed, Some(reason.clone()));
            }
        });
        // Nobody may be left who wants to know.
        let _ = end.send(Some(result));
    })?;
    Ok(Running {
        stop: Arc::new(StopOnDrop(shared)),
        ended,
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

impl Running {
    /// A snapshot, at most some tenths of a second old.
    #[must_use]
    pub fn status(&self) -> Status {
        self.stop.0.with_status(|status| status.clone())
    }

    /// Completes when the consumer has ended: `Ok` after [`shutdown`](Self::shutdown), `Err` with the reason when it stopped by
    /// itself ([`HandleError::Fatal`](crate::HandleError::Fatal)).
    ///
    /// # Errors
    ///
    /// The reason in one sentence.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err("the consumer's thread is gone".to_owned()),
        }
    }

    /// Finishes what was begun, commits, leaves the group and ends. Whoever calls it again waits for the same end.
    ///
    /// # Errors
    ///
    /// The reason, when the consumer had stopped by itself.
    pub async fn shutdown(&self) -> Result<(), String> {
        self.stop.0.stopping.store(true, Ordering::Relaxed);
        self.ended().await
    }
}

/// Makes a consumer that does not read yet, and waits until Kafka answers; also tells the cluster's identifier.
pub(crate) fn connect(
    config: &Config,
    timeout: Duration,
) -> Result<(BaseConsumer<Context>, Arc<str>), StartError> {
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&consumer_settings(config), Context::default())
            .map_err(|error| StartError::Client(error.to_string()))?;
    let deadline = Instant::now() + timeout;
    loop {
        let cluster = consumer.client().fetch_cluster_id(ASK_TIMEOUT.min(timeout));
        // Runs the callback that hears the reason; there is nothing to read yet.
        while consumer.poll(HEAR).is_some() {}
        if let Some(cluster) = cluster {
            return Ok((consumer, Arc::from(cluster)));
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

/// The topics that exist; none when Kafka does not say.
fn topics(consumer: &BaseConsumer<Context>) -> Vec<String> {
    match consumer.fetch_metadata(None, ASK_TIMEOUT) {
        Ok(metadata) => metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "topics cannot be listed");
            Vec::new()
        }
    }
}

/// Makes the dead-letter topics that do not exist. Where that is not allowed or not possible, Kafka may make them itself when
/// the first dead letter comes; if not, the failure is a transient one that the status shows.
async fn make_dead_letter_topics(config: Config, existing: Vec<String>) {
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
