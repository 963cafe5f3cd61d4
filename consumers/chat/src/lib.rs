//! The chat backend: rooms, sequence numbers, history, receipts, unread counts.
//!
//! It reads messages from Kafka and answers by the downlink topic; it never speaks MQTT. What the topics and payloads look
//! like is in docs/TOPICS.md, how it is run in docs/CONSUMERS.md.
//!
//! A message gets its number in the transaction that stores it, and keeps it whatever is read twice: see
//! [`runtime::store`]. Its sender gets a receipt with the number at least once. Several instances may share one database
//! file; numbers stay dense.

mod api;
mod change;
mod clock;
mod config;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod growth_tests;
mod handler;
mod message;
mod metrics;
mod store;

use std::sync::Arc;

use prometheus::Registry;
use runtime::{Changes, Growth, Parts, Running, StartError};

pub use config::{Config, Sender};

use api::Api;
use change::KafkaLog;
use handler::ChatHandler;
use metrics::Metrics;
use store::{Forgetter, Store};

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
    let topics = config.mqtt_topics()?;
    let file = store.file().clone();
    let limits = ["rooms_max", "room_members_max"];
    let growth = Growth::new(&file, &config.group, store::TABLES, &limits, &registry)?;
    let messages = topics.messages.clone();
    let handler = ChatHandler {
        store: store.clone(),
        topics,
        text_bytes_max: config.text_bytes_max as usize,
        sender: config.sender,
        limits: config.limits(),
        growth: growth.clone(),
        metrics,
    };
    let consumer = runtime::start(config.runtime(), handler, &registry).await?;
    let changes = Changes::new(config.runtime(), consumer.clone(), file.clone())?;
    let log = Arc::new(KafkaLog {
        changes,
        // Where the bridge puts messages; further topics are for those who route otherwise.
        kafka_topic: config.topics.first().cloned().unwrap_or_default(),
    });
    let mut parts = Parts::new(consumer, registry, file, growth);
    parts.forget(Forgetter::new(
        store.clone(),
        config.retention_days,
        config.room_messages_max,
    ));
    Ok(parts.run(api::router(Api {
        store,
        log,
        messages,
        limits: config.limits(),
    })))
}
