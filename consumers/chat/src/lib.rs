//! The chat backend: rooms, sequence numbers, history, receipts, unread counts.
//!
//! It reads messages from Kafka and answers by the downlink topic; it never speaks MQTT. What the topics and payloads look
//! like is in docs/TOPICS.md, how it is run in docs/CONSUMERS.md.
//!
//! A message gets its number in the transaction that stores it, and keeps it whatever is read twice: see
//! [`runtime::store`]. Its sender gets a receipt with the number at least once. Several instances may share one database
//! file; numbers stay dense.

mod api;
mod clock;
mod config;
#[cfg(test)]
mod full_disk;
mod handler;
mod message;
mod metrics;
mod store;

use axum::Router;
use prometheus::Registry;
use runtime::http::operator_routes;

pub use config::Config;

use handler::ChatHandler;
use metrics::Metrics;
use store::Store;

/// Why the backend does not start. Each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] runtime::store::StoreError),
    /// The consumer does not start.
    #[error(transparent)]
    Runtime(#[from] runtime::StartError),
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
    store: Store,
}

/// Starts the backend: opens its store, waits for Kafka to answer, and consumes from then on.
///
/// # Errors
///
/// [`StartError`]; after the start Kafka may go away and come back.
pub async fn start(config: Config) -> Result<Running, StartError> {
    config.validate()?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let store = Store::open(&config.database).await?;
    let handler = ChatHandler {
        store: store.clone(),
        topics: config.mqtt_topics()?,
        text_bytes_max: config.text_bytes_max as usize,
        metrics,
    };
    let runtime = runtime::start(config.runtime(), handler, &registry).await?;
    let of_consumer = runtime.clone();
    let operators = operator_routes(move || of_consumer.status(), registry.clone());
    let router = api::router(store.clone()).merge(operators);
    Ok(Running {
        runtime,
        registry,
        router,
        store,
    })
}

impl Running {
    /// The HTTP API, with `/health`, `/status` and `/metrics`. All links in it are relative: nest it anywhere.
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

    /// Finishes what was begun, commits, leaves the group and closes the store.
    pub async fn shutdown(self) {
        if let Err(reason) = self.runtime.shutdown().await {
            tracing::error!(reason, "the consumer had stopped before");
        }
        self.store.close().await;
    }
}
