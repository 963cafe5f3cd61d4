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

use prometheus::Registry;
use runtime::{Growth, Parts, Running, StartError};
use tokio::sync::{Semaphore, watch as tokio_watch};

pub use config::Config;

use count::Counter;
use handler::Count;
use live::Live;
use sampler::{Forgetter, Sampler, Shared};
use store::Store;
use watch::Watcher;

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
    let growth = Growth::new(
        store.file(),
        &config.group,
        store::TABLES,
        &["active_max"],
        &registry,
    )?;
    let handler = Count {
        store: store.clone(),
        counter,
        prefixes_max: config.prefixes_max,
        active_max: config.active_max,
        growth: growth.clone(),
        noted: store::Noted::default(),
    };
    let consumer = runtime::start(config.runtime(), handler, &registry).await?;
    let watcher = Watcher::start(&config)?;
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
        consumer: consumer.clone(),
        watcher,
        active_window_s: config.active_window_s,
    };
    let mut parts = Parts::new(consumer, registry, store.file().clone(), growth);
    parts.forget(Forgetter {
        store,
        active_window_s: config.active_window_s,
    });
    // Whoever asks first finds figures.
    sampler.sample(0.0).await;
    parts.spawn(sampler.run(parts.stopped()));
    let stop = parts.stopped();
    Ok(parts.run(api::router(api::Api::new(shared, stop))))
}
