//! What wakes the downlink's thread: the broker, when a batch has arrived, and librdkafka, when it has records or has
//! committed a position.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use broker::Outcome;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::reach::Reach;
use crate::config::Config;
use crate::error::StartError;
use crate::kafka;
use crate::status::DownlinkOutcome;
use crate::suspicions::Suspicions;

/// How long the thread waits for librdkafka to let go of a consumer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of the messages of a batch.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pub(super) outcomes: Vec<DownlinkOutcome>,
    /// Of those with a number, in full.
    pub(super) numbered: Vec<(u64, Outcome, DownlinkOutcome)>,
}

/// A batch that has ended.
pub(super) type Ended = (u64, Option<Arrived>);

/// What the thread is woken for.
#[derive(Default)]
pub(super) struct Wakes {
    pub(super) thread: OnceLock<Thread>,
    pub(super) stop: AtomicBool,
    /// Batches that have arrived, each with what became of its messages, or were let go of by the broker (`None`).
    ended: Mutex<Vec<Ended>>,
    /// What became of numbered messages that waited in sessions.
    later: Mutex<Vec<(u64, Outcome)>>,
}

impl Wakes {
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Takes down what became of numbered messages that waited in sessions.
    pub(super) fn tell_later(&self, mut told: Vec<(u64, Outcome)>) {
        self.later
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut told);
        self.wake();
    }

    /// What was told since the last call.
    pub(super) fn take_later(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, batch: u64, arrived: Option<Arrived>) {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((batch, arrived));
        self.wake();
    }

    /// The batches that have ended since the last call.
    pub(super) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Tells that a batch has arrived, or, when it is dropped before, that it never will.
pub(super) struct Guard {
    wakes: Arc<Wakes>,
    batch: u64,
    arrived: Option<Arrived>,
}

impl Guard {
    pub(super) fn new(wakes: &Arc<Wakes>, batch: u64) -> Self {
        Self {
            wakes: Arc::clone(wakes),
            batch,
            arrived: None,
        }
    }

    pub(super) fn arrived(mut self, arrived: Arrived) {
        self.arrived = Some(arrived);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.wakes.end(self.batch, self.arrived.take());
    }
}

/// What librdkafka calls back, on the thread that polls.
pub(super) struct Events {
    /// Callbacks of any kind: an empty queue is one whose poll brings nothing and calls nothing.
    callbacks: AtomicU64,
    /// What Kafka was told since the last look, and how often it could not be.
    commits: Mutex<Commits>,
    suspicions: Arc<Suspicions>,
    topic: String,
    reach: Arc<Reach>,
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.callbacks.fetch_add(1, Ordering::Relaxed);
        self.reach.observe(&statistics, &self.topic, Instant::now());
    }

    fn error(&self, error: KafkaError, _: &str) {
        self.callbacks.fetch_add(1, Ordering::Relaxed);
        self.suspicions.report(kafka::describe(&error));
    }
}

impl Events {
    /// How many callbacks there were, ever.
    pub(super) fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// What was committed since the last call.
    pub(super) fn take_commits(&self) -> Commits {
        std::mem::take(&mut *self.commits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends of commits.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Partitions and the positions that Kafka has for them now.
    pub(super) done: Vec<(i32, i64)>,
    /// Commits that failed.
    pub(super) failed: u64,
}

impl ConsumerContext for Events {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.callbacks.fetch_add(1, Ordering::Relaxed);
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = &result {
            tracing::debug!(%error, "the downlink position was not committed");
            commits.failed += 1;
            return;
        }
        for element in offsets.elements() {
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => {
                    commits.done.push((element.partition(), offset))
                }
                // A partition without anything new.
                (Ok(()), _) => {}
                (Err(error), _) => {
                    tracing::debug!(%error, partition = element.partition(), "the downlink position was not committed");
                    commits.failed += 1;
                }
            }
        }
    }
}

/// Makes a consumer that wakes the thread whenever it has something.
pub(super) fn consumer(
    config: &Config,
    wakes: &Arc<Wakes>,
    suspicions: &Arc<Suspicions>,
    reach: &Arc<Reach>,
) -> Result<BaseConsumer<Events>, StartError> {
    let events = Events {
        callbacks: AtomicU64::new(0),
        commits: Mutex::default(),
        suspicions: Arc::clone(suspicions),
        topic: config.downlink.topic.clone(),
        reach: Arc::clone(reach),
    };
    let mut consumer =
        BaseConsumer::from_config_and_context(&kafka::downlink_consumer(config), events)
            .map_err(|error| StartError::Client(error.to_string()))?;
    let wakes = Arc::clone(wakes);
    consumer.set_nonempty_callback(move || wakes.wake());
    Ok(consumer)
}

/// Lets go of a consumer. librdkafka tells Kafka the last position first, and waits for the answer without end when Kafka is
/// away; so another thread does it, and is left alone after [`CLOSE_TIMEOUT`].
pub(super) fn close<C: ConsumerContext + 'static>(consumer: BaseConsumer<C>) {
    let (done, closed) = sync_channel::<()>(1);
    let closing = std::thread::Builder::new()
        .name("downlink-close".to_owned())
        .spawn(move || {
            drop(consumer);
            drop(done);
        });
    // Without a thread the closure, and the consumer in it, was dropped right there.
    if closing.is_ok() && closed.recv_timeout(CLOSE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!(
            "a consumer of the downlink could not be closed in time: Kafka may not have the last position, and what follows it comes again"
        );
    }
}
