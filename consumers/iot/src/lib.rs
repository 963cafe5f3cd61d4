//! The iot backend: keeps what devices measure, raises alerts, and carries commands to devices and their replies back.
//!
//! It reads telemetry and replies from Kafka and answers by the downlink topic; it never speaks MQTT. What the topics and
//! payloads look like is in docs/TOPICS.md.
//!
//! Effects happen once in the store, whatever is read twice: see [`runtime::store`]. Alerts and commands reach devices at
//! least once, each under an id that stays the same.

mod alert;
mod api;
mod clock;
mod config;
mod dispatch;
mod handler;
mod metrics;
mod payload;
mod store;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use runtime::store::StoreError;
use runtime::{Appender, Parts, Running, StartError};
use tokio::sync::{Notify, watch};

pub use alert::{Rule, RuleError};
pub use config::Config;

use clock::now_ms;
use dispatch::Dispatcher;
use handler::IotHandler;
use metrics::Metrics;
use store::Store;

/// How often old data is deleted, in seconds.
const RETENTION_EVERY_S: u64 = 600;

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
        .map_err(|source| StoreError::Write {
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
    let consumer = runtime::start(config.runtime(), handler, &registry).await?;
    let mut parts = Parts::new(consumer, registry, store.file().clone());
    let posted = Arc::new(Notify::new());
    let dispatcher = Dispatcher {
        store: store.clone(),
        appender,
        topics,
        metrics: metrics.clone(),
        posted: Arc::clone(&posted),
    };
    parts.spawn(dispatcher.run(parts.stopped()));
    parts.spawn(forget_old(
        store.clone(),
        config.retention_days,
        parts.stopped(),
    ));
    Ok(parts.run(api::router(api::Api {
        store,
        metrics,
        posted,
        configured_rules: Arc::new(config.rules),
        rules_max: config.rules_max,
        commands_pending_max: config.commands_pending_max,
        command_expiry_s: config.command_expiry_s,
    })))
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
