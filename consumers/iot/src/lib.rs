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

use prometheus::Registry;
use runtime::store::StoreError;
use runtime::{Appender, Growth, Parts, Running, StartError};
use tokio::sync::Notify;

pub use alert::{Rule, RuleError};
pub use config::Config;

use dispatch::Dispatcher;
use handler::IotHandler;
use metrics::Metrics;
use store::{Forgetter, Store};

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
    let limits = ["devices_max", "metrics_per_device_max"];
    let growth = Growth::new(
        store.file(),
        &config.group,
        store::TABLES,
        &limits,
        &registry,
    )?;
    let handler = IotHandler {
        store: store.clone(),
        topics: topics.clone(),
        limits: config.limits(),
        growth: growth.clone(),
        metrics: metrics.clone(),
    };
    let consumer = runtime::start(config.runtime(), handler, &registry).await?;
    let mut parts = Parts::new(consumer, registry, store.file().clone(), growth);
    let posted = Arc::new(Notify::new());
    let dispatcher = Dispatcher {
        store: store.clone(),
        appender,
        topics,
        metrics: metrics.clone(),
        posted: Arc::clone(&posted),
    };
    parts.spawn(dispatcher.run(parts.stopped()));
    parts.forget(Forgetter::new(store.clone(), config.limits()));
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
