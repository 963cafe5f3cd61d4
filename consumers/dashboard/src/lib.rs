//! The dashboard: counts everything that the bridge stores, and shows it live on a page.
//!
//! It reads all stored topics, keeps totals by topic prefix, who is active, and the time from a message's receipt by the
//! broker to its being counted. The totals are written once per record, whatever is read twice; everything on the page
//! follows from them and from what Kafka says about its logs.

mod api;
mod clock;
mod config;
mod count;
mod handler;
mod live;
mod sampler;
mod store;
mod watch;

use std::sync::{Arc, Mutex};

use axum::Router;
use prometheus::Registry;
use runtime::http::operator_routes;
use tokio::sync::{Semaphore, watch as tokio_watch};
use tokio::task::JoinHandle;

pub use config::Config;

use count::Counter;
use handler::Count;
use live::Live;
use sampler::{Sampler, Shared};
use store::Store;
use watch::Watcher;

/// Why the dashboard does not start. Each is one sentence for the user.
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
    /// The operating system gives no thread.
    #[error("the thread that watches Kafka's logs cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The dashboard, started.
#[derive(Debug)]
pub struct Running {
    runtime: runtime::Running,
    registry: Registry,
    router: Router,
    stop: tokio_watch::Sender<bool>,
    sampler: JoinHandle<()>,
    watcher: Arc<Watcher>,
    store: Store,
}

/// Starts the dashboard: opens its store, waits for Kafka to answer, and counts from then on.
///
/// # Errors
///
/// [`StartError`]; after the start Kafka may go away and come back.
pub async fn start(config: Config) -> Result<Running, StartError> {
    config.validate()?;
    let counter = Counter {
        devices: config.device_pattern()?,
        rooms: config.room_pattern()?,
        prefix_levels: config.prefix_levels as usize,
        scale: count::latencies(),
    };
    let registry = Registry::new();
    let store = Store::open(&config.database).await?;
    let handler = Count {
        store: store.clone(),
        counter,
        prefixes_max: config.prefixes_max,
        noted: store::Noted::default(),
    };
    let runtime = runtime::start(config.runtime(), handler, &registry).await?;
    let watcher = Arc::new(Watcher::start(&config)?);

    let (stop, stopped) = tokio_watch::channel(false);
    let viewers = Arc::new(Semaphore::new(config.viewers_max as usize));
    let shared = Arc::new(Shared {
        live: Mutex::new(Live::default()),
        tick: tokio_watch::Sender::new(Arc::from("null")),
        viewers,
        viewers_max: config.viewers_max,
    });
    let sampler = Sampler {
        shared: Arc::clone(&shared),
        store: store.clone(),
        consumer: runtime.clone(),
        watcher: Arc::clone(&watcher),
        active_window_s: config.active_window_s,
    };
    // Whoever asks first finds figures.
    sampler.sample(0.0).await;
    let sampler = tokio::spawn(sampler.run(stopped.clone()));
    let of_consumer = runtime.clone();
    let operators = operator_routes(move || of_consumer.status(), registry.clone());
    let router = api::router(api::Api {
        shared,
        stop: stopped,
    })
    .merge(operators);
    Ok(Running {
        runtime,
        registry,
        router,
        stop,
        sampler,
        watcher,
        store,
    })
}

impl Running {
    /// The page at `/`, its data, and the pages for operators. All links in it are relative: nest it anywhere.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The metrics of the consumer.
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

    /// Ends the live streams, finishes what was begun, commits, leaves the group and closes the store.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(reason) = self.runtime.shutdown().await {
            tracing::error!(reason, "the consumer had stopped before");
        }
        if let Err(error) = self.sampler.await {
            tracing::error!(%error, "the task that samples the totals ended badly");
        }
        // The sampler had the other reference.
        if let Some(watcher) = Arc::into_inner(self.watcher)
            && let Err(error) = tokio::task::spawn_blocking(move || watcher.stop()).await
        {
            tracing::error!(%error, "the thread that watches Kafka's logs could not be ended");
        }
        self.store.close().await;
    }
}
