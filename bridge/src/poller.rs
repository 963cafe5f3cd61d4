//! The producer's other side: one thread that hears what Kafka confirmed and refused, and tells the broker once a batch.
//!
//! It sleeps while nothing waits. While something does, it looks every millisecond: librdkafka's binding can wait for an
//! event but cannot say that a batch of them has ended, and one wake of the broker's workers per batch is what makes
//! acknowledgements cheap. It also replaces a producer that has failed for good.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::{Handle, Settlement, Token};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{Producer as _, PurgeConfig};

use crate::kafka;
use crate::lanes::{Distance, Refusals};
use crate::producer::{Events, Producer, new_producer};
use crate::sink::KafkaSink;
use crate::status::Counters;
use crate::suspicions::Suspicions;

/// Between two looks while messages wait and Kafka answers.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks while messages wait and nothing has come for [`QUIET_AFTER`].
const QUIET_TICK: Duration = Duration::from_millis(20);
/// Without a word from Kafka for this long, there is no hurry.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Between two looks while nothing waits: only errors can come then.
const REST: Duration = Duration::from_millis(250);
/// Events of librdkafka's that are handled before the broker is told; one is up to a whole request's messages.
const EVENTS_PER_BATCH_MAX: usize = 256;
/// Between two looks at whether a gate was left with something that a producer had no room for.
const LOOK: Duration = Duration::from_millis(100);
/// What a failed producer gets to hand back its messages.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two log lines about refused messages: a publisher can cause them as fast as it sends.
const WARN_PAUSE: Duration = Duration::from_secs(10);
/// Between two attempts to make a new producer, also when each new one fails at once.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// Where settlements go. In the process it is the broker's handle.
pub(crate) trait Outlet: Send + 'static {
    /// Ends pending publishes and empties the batch.
    fn settle(&self, batch: &mut Vec<(Token, Settlement)>);
    /// Publishers that were turned away may try again.
    fn sink_ready(&self);
    /// The thread panicked: nothing is settled any more.
    fn died(&self, panic: Box<dyn Any + Send>);
}

impl Outlet for Handle {
    fn settle(&self, batch: &mut Vec<(Token, Settlement)>) {
        Handle::settle(self, batch);
    }

    fn sink_ready(&self) {
        Handle::sink_ready(self);
    }

    fn died(&self, panic: Box<dyn Any + Send>) {
        self.vital(|| resume_unwind(panic));
    }
}

/// What producers are made from.
pub(crate) struct Clients {
    pub(crate) near: ClientConfig,
    pub(crate) far: ClientConfig,
}

/// How the poll thread is told to end.
#[derive(Debug, Default)]
struct Stop {
    requested: AtomicBool,
    /// How long to wait for Kafka, in milliseconds.
    patience_ms: AtomicU64,
}

/// The running poll thread.
pub(crate) struct Poller {
    sink: Arc<KafkaSink>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<u64>>,
}

impl Poller {
    pub(crate) fn start(
        sink: Arc<KafkaSink>,
        clients: Clients,
        suspicions: Arc<Suspicions>,
        outlet: impl Outlet,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let mut polling = Polling {
            sink: Arc::clone(&sink),
            clients,
            suspicions,
            outlet,
            stop: Arc::clone(&stop),
            warned_at: None,
            rebuild_at: Instant::now(),
            looked_at: Instant::now(),
            landed: Vec::new(),
            refusals: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || {
                catch_unwind(AssertUnwindSafe(|| polling.run())).unwrap_or_else(|panic| {
                    polling.outlet.died(panic);
                    polling.sink.counters.waiting()
                })
            })?;
        sink.set_poll_thread(thread.thread().clone());
        Ok(Self {
            sink,
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread when nothing waits any more, or after `patience`. Returns how many messages Kafka had not
    /// confirmed; their publishers were told nothing.
    pub(crate) fn stop(&mut self, patience: Duration) -> u64 {
        let Some(thread) = self.thread.take() else {
            return 0;
        };
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.stop.patience_ms.store(patience_ms, Ordering::SeqCst);
        self.stop.requested.store(true, Ordering::SeqCst);
        self.sink.wake_poll_thread();
        // A panic in it has been told of.
        thread.join().unwrap_or(0)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

struct Polling<O> {
    sink: Arc<KafkaSink>,
    clients: Clients,
    suspicions: Arc<Suspicions>,
    outlet: O,
    stop: Arc<Stop>,
    warned_at: Option<Instant>,
    /// No new producer before this.
    rebuild_at: Instant,
    /// The last look at the gates.
    looked_at: Instant,
    /// Working memory.
    landed: Vec<usize>,
    refusals: Refusals,
}

impl<O: Outlet> Polling<O> {
    fn run(&mut self) -> u64 {
        let mut batch = Vec::new();
        let mut last_event = Instant::now();
        let mut give_up_at = None;
        loop {
            let mut sound = true;
            for (at, producer) in self.sink.lanes.producers().iter().enumerate() {
                if self.poll(producer, &mut batch) {
                    last_event = Instant::now();
                }
                sound &= self.look_into(at, producer, &mut batch);
            }
            self.tell(&mut batch);
            self.turn(&mut batch);
            if sound && self.sink.take_room() {
                self.outlet.sink_ready();
            }
            let waiting = self.sink.counters.waiting();
            if self.stop.requested.load(Ordering::SeqCst) {
                let patience = Duration::from_millis(self.stop.patience_ms.load(Ordering::SeqCst));
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + patience);
                if waiting == 0 || Instant::now() >= give_up_at {
                    self.sink.close();
                    return waiting;
                }
            }
            if waiting == 0 {
                std::thread::park_timeout(REST);
                last_event = Instant::now();
            } else if last_event.elapsed() < QUIET_AFTER {
                std::thread::sleep(TICK);
            } else {
                std::thread::sleep(QUIET_TICK);
            }
        }
    }

    /// Takes in what librdkafka has to tell, up to a bound. Returns whether there was anything.
    fn poll(&mut self, producer: &Producer, batch: &mut Vec<(Token, Settlement)>) -> bool {
        let events = producer.context();
        let mut callbacks = {
            let mut settled = events.settled();
            settled.now_ms = now_ms();
            settled.callbacks
        };
        let mut moved = false;
        for _ in 0..EVENTS_PER_BATCH_MAX {
            // Zero takes one event and does not wait. Any other time would be waited out, events or not.
            producer.poll(Duration::ZERO);
            let now = events.settled().callbacks;
            if now == callbacks {
                break;
            }
            callbacks = now;
            moved = true;
        }
        self.take(events, batch);
        moved
    }

    /// Counts what was settled and moves it into `batch`.
    fn take(&mut self, events: &Events, batch: &mut Vec<(Token, Settlement)>) {
        let (stored, refused, bytes) = {
            let mut settled = events.settled();
            if batch.is_empty() {
                mem::swap(&mut settled.batch, batch);
            } else {
                batch.append(&mut settled.batch);
            }
            mem::swap(&mut settled.landed, &mut self.landed);
            if settled.stored > 0 {
                self.sink.counters.add_times(&mem::take(&mut settled.times));
            }
            (
                mem::take(&mut settled.stored),
                mem::take(&mut settled.refused),
                mem::take(&mut settled.bytes),
            )
        };
        let counters: &Counters = &self.sink.counters;
        let mut done = stored;
        counters.stored.fetch_add(stored, Ordering::Relaxed);
        counters.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        for (code, count) in refused {
            if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
                self.warned_at = Some(Instant::now());
                tracing::warn!(%code, count, "Kafka refused messages for good");
            }
            counters.count_refused(kafka::refusal(code), count);
            done += count;
        }
        if done > 0 {
            counters.done.fetch_add(done, Ordering::SeqCst);
        }
        if !self.landed.is_empty() {
            let mut refusals = mem::take(&mut self.refusals);
            self.sink.lanes.landed(&mut self.landed, &mut refusals);
            self.refuse(refusals, batch);
        }
    }

    /// What was refused when it was handed to a producer at last.
    fn refuse(&mut self, mut refusals: Refusals, batch: &mut Vec<(Token, Settlement)>) {
        for (token, code, bytes) in refusals.drain(..) {
            let refusal = kafka::refusal(code);
            let counters = &self.sink.counters;
            counters.count_refused(refusal, 1);
            counters.bytes_done.fetch_add(bytes, Ordering::Relaxed);
            counters.done.fetch_add(1, Ordering::SeqCst);
            if token != Token::NONE {
                batch.push((token, Settlement::Refused(refusal)));
            }
        }
        self.refusals = refusals;
    }

    /// Goes from near to far when that is due, and looks after what waits at the gates there.
    fn turn(&mut self, batch: &mut Vec<(Token, Settlement)>) {
        let lanes = &self.sink.lanes;
        let mut refusals = mem::take(&mut self.refusals);
        match lanes.distance() {
            Distance::Near if self.sink.wants_far() => {
                tracing::info!("Kafka is far away: several requests under way from now on");
                lanes.begin_turn();
            }
            Distance::Turning if lanes.may_turn() && Instant::now() >= self.rebuild_at => {
                self.rebuild_at = Instant::now() + REBUILD_PAUSE;
                let producers: KafkaResult<Vec<_>> = (0..lanes.far_producers())
                    .map(|_| {
                        let partitions = Some(lanes.partitions());
                        new_producer(&self.clients.far, &self.suspicions, partitions)
                    })
                    .collect();
                match producers {
                    Ok(producers) => lanes.turn(producers, &mut refusals),
                    Err(error) => {
                        tracing::error!(%error, "no new producers could be made; it is tried again");
                    }
                }
            }
            Distance::Far if self.looked_at.elapsed() >= LOOK => {
                self.looked_at = Instant::now();
                lanes.look_for_stuck(&mut refusals);
            }
            _ => {}
        }
        self.refuse(refusals, batch);
        self.tell(batch);
    }

    fn tell(&self, batch: &mut Vec<(Token, Settlement)>) {
        if !batch.is_empty() {
            self.outlet.settle(batch);
            batch.clear();
        }
    }

    /// An error of the producer as a whole may be the end of it: an idempotent producer that does not know any more what
    /// Kafka has sends nothing again. Returns whether the producer of the moment can send.
    fn look_into(
        &mut self,
        at: usize,
        producer: &Producer,
        batch: &mut Vec<(Token, Settlement)>,
    ) -> bool {
        if !producer.context().troubled.load(Ordering::Relaxed) {
            return true;
        }
        let Some((code, reason)) = producer.client().fatal_error() else {
            producer.context().troubled.store(false, Ordering::Relaxed);
            return true;
        };
        if Instant::now() < self.rebuild_at {
            return false;
        }
        self.rebuild_at = Instant::now() + REBUILD_PAUSE;
        tracing::error!(%code, reason, "the producer has failed and is made anew");
        self.rebuild(at, producer, batch)
    }

    /// Replaces a failed producer. What it had not confirmed is refused: it may be in Kafka or not, and only the
    /// publisher can decide to send it again.
    fn rebuild(
        &mut self,
        at: usize,
        failed: &Producer,
        batch: &mut Vec<(Token, Settlement)>,
    ) -> bool {
        let lanes = &self.sink.lanes;
        let (client, partitions) = match lanes.distance() {
            Distance::Far => (&self.clients.far, Some(lanes.partitions())),
            Distance::Near | Distance::Turning => (&self.clients.near, None),
        };
        match new_producer(client, &self.suspicions, partitions) {
            Ok(producer) => lanes.replace(at, producer),
            Err(error) => {
                tracing::error!(%error, "no new producer could be made; it is tried again");
                return false;
            }
        }
        failed.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + PURGE_TIMEOUT;
        while failed.in_flight_count() > 0 && Instant::now() < deadline {
            if !self.poll(failed, batch) {
                std::thread::sleep(TICK);
            }
            self.tell(batch);
        }
        if failed.in_flight_count() > 0 {
            tracing::error!(
                messages = failed.in_flight_count(),
                "the failed producer kept messages"
            );
        }
        self.sink
            .counters
            .producer_rebuilds
            .fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
