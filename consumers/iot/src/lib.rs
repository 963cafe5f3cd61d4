//! The iot backend: keeps what devices measure, raises alerts, and carries commands to devices and their replies back.
//!
//! It reads telemetry and replies from Kafka and answers by the downlink topic; it never speaks MQTT. What the topics and
//! payloads look like is in docs/TOPICS.md.
//!
//! Effects happen once in the store, whatever is read twice: see [`runtime::store`]. Alerts and commands reach devices at
//! least once, each under an id that stays the same.

mod alert;
mod api;
mod append;
mod clock;
mod config;
mod dispatch;
mod handler;
mod metrics;
mod payload;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus::Registry;
use runtime::http::operator_routes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use alert::{Rule, RuleError};
pub use config::Config;

use append::Appender;
use clock::now_ms;
use dispatch::Dispatcher;
use handler::IotHandler;
use metrics::Metrics;
use store::Store;

/// How often old data is deleted, in seconds.
const RETENTION_EVERY_S: u64 = 600;

/// Why the backend does not start. Each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] runtime::store::StoreError),
    /// The database cannot be written to.
    #[error("database {url} cannot be written to: {source}")]
    Write {
        /// As it was given.
        url: String,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// The consumer does not start.
    #[error(transparent)]
    Runtime(#[from] runtime::StartError),
    /// librdkafka refuses the settings of the producer of commands.
    #[error("Kafka client settings are refused: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// The metrics cannot be registered.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The backend, started.
#[derive(Debug)]
pub struct Running {
    runtime: runtime::Running,
    registry: Registry,
    router: Router,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    store: Store,
}

/// Starts the backend: opens its store, waits for Kafka to answer, and consumes from then on.
///
/// # Errors
///
/// [`StartError`]; after the start Kafka may go away and come back.
pub async fn start(config: Config) -> Result<Running, StartError> {
    config.validate()?;
    let topics = config.topics()?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let store = Store::open(&config.database).await?;
    store
        .configure_rules(
            config
                .rules
                .iter()
                .map(|(metric, rule)| (metric.as_str(), rule)),
        )
        .await
        .map_err(|source| StartError::Write {
            url: config.database.clone(),
            source,
        })?;
    let appender = Appender::new(config.runtime())?;
    let handler = IotHandler {
        store: store.clone(),
        topics: topics.clone(),
        metrics_per_device_max: config.metrics_per_device_max,
        metrics: metrics.clone(),
    };
    let runtime = runtime::start(config.runtime(), handler, &registry).await?;

    let posted = Arc::new(Notify::new());
    let (stop, stopped) = watch::channel(false);
    let dispatcher = Dispatcher {
        store: store.clone(),
        appender,
        topics,
        metrics: metrics.clone(),
        posted: Arc::clone(&posted),
    };
    let tasks = vec![
        tokio::spawn(dispatcher.run(stopped.clone())),
        tokio::spawn(forget_old(store.clone(), config.retention_days, stopped)),
    ];
    let api = api::Api {
        store: store.clone(),
        metrics,
        posted,
        configured_rules: Arc::new(config.rules),
        rules_max: config.rules_max,
        commands_pending_max: config.commands_pending_max,
        command_expiry_s: config.command_expiry_s,
    };
    let of_consumer = runtime.clone();
    let operators = operator_routes(move || of_consumer.status(), registry.clone());
    Ok(Running {
        runtime,
        registry,
        router: api::router(api).merge(operators),
        stop,
        tasks,
        store,
    })
}

impl Running {
    /// The HTTP API and the pages for operators. All links in it are relative: nest it anywhere.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The metrics of the backend and of its consumer.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What the consumer does.
    #[must_use]
    pub fn status(&self) -> runtime::Status {
        self.runtime.status()
    }

    /// Completes when the consumer has ended: with the reason when it stopped by itself.
    ///
    /// # Errors
    ///
    /// The reason in one sentence.
    pub async fn ended(&self) -> Result<(), String> {
        self.runtime.ended().await
    }

    /// Finishes what was begun, commits, leaves the group and closes the store. Commands that were not sent stay stored.
    pub async fn shutdown(self) {
        if let Err(reason) = self.runtime.shutdown().await {
            tracing::error!(reason, "the consumer had stopped before");
        }
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the iot backend ended badly");
            }
        }
        self.store.close().await;
    }
}

/// Deletes what is older than the retention, now and then, until `stop` changes.
async fn forget_old(store: Store, retention_days: u32, mut stop: watch::Receiver<bool>) {
    const DAY_MS: i64 = 86_400_000;
    if retention_days == 0 {
        return;
    }
    loop {
        let before_ms = now_ms() - i64::from(retention_days) * DAY_MS;
        let pause = match store.forget(before_ms).await {
            // More may be left; records waiting for the writer go first.
            Ok(rows) if rows > 0 => Duration::from_millis(50),
            Ok(_) => Duration::from_secs(RETENTION_EVERY_S),
            Err(error) => {
                tracing::warn!(%error, "old data could not be deleted; it is tried again later");
                Duration::from_secs(RETENTION_EVERY_S)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return,
        }
    }
}
