//! The producer's other side: one thread that hears what Kafka confirmed and refused, and tells the broker once a batch.
//!
//! It sleeps while nothing waits. While something does, it looks every millisecond: librdkafka's binding can wait for an
//! event but cannot say that a batch of them has ended, and one wake of the broker's workers per batch is what makes
//! acknowledgements cheap. It also replaces a producer that has failed for good.

mod refusals;

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker::{Handle, Settlement, Token};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, PurgeConfig};

use crate::clock;
use crate::config::Config;
use crate::kafka;
use crate::lanes::Distance;
use crate::producer::{Errand, Held, Producer, Reports, Run, new_producer};
use crate::sink::KafkaSink;
use crate::suspicions::Suspicions;
use crate::topics;
use refusals::Refusals;

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
/// What Kafka gets to answer requests that are under way when a batch was refused.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);
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
    pub(crate) alone: ClientConfig,
    pub(crate) letters: ClientConfig,
}

impl Clients {
    pub(crate) fn new(config: &Config, batch_bytes_max: u32) -> Self {
        Self {
            near: kafka::producer(config, batch_bytes_max),
            far: kafka::far_producer(config, batch_bytes_max),
            alone: kafka::alone_producer(config),
            letters: kafka::letter_producer(config),
        }
    }
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
        config: &Config,
        batch_bytes_max: u32,
        suspicions: Arc<Suspicions>,
        outlet: impl Outlet,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let clients = Clients::new(config, batch_bytes_max);
        let mut polling = Polling {
            refusals: Refusals::new(config, &clients, Arc::clone(&suspicions)),
            config: config.clone(),
            sink: Arc::clone(&sink),
            clients,
            suspicions,
            outlet,
            stop: Arc::clone(&stop),
            rebuild_at: Instant::now(),
            looked_at: Instant::now(),
            replacing: Replacing::No,
            too_large: Vec::new(),
            touched: Vec::new(),
            reports: Reports::default(),
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

/// Why messages come back just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replacing {
    /// Kafka refused them.
    No,
    /// Kafka refused some, and the producer stopped for it: all are sent again, those by themselves.
    AfterRefusal,
    /// The producer failed: what it did not confirm may be stored or not.
    AfterFailure,
}

struct Polling<O> {
    config: Config,
    sink: Arc<KafkaSink>,
    clients: Clients,
    suspicions: Arc<Suspicions>,
    outlet: O,
    stop: Arc<Stop>,
    /// What became of what was refused.
    refusals: Refusals,
    /// No new producer before this.
    rebuild_at: Instant,
    /// The last look at the gates.
    looked_at: Instant,
    replacing: Replacing,
    /// Topics of which a batch was too large.
    too_large: Vec<u32>,
    /// Working memory: gates to be moved on.
    touched: Vec<usize>,
    reports: Reports,
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
                sound &= self.look_into(Some(at), producer, &mut batch);
            }
            if let Some(left) = self.sink.lanes.left() {
                if self.poll(&left, &mut batch) {
                    last_event = Instant::now();
                }
                self.look_into(None, &left, &mut batch);
                self.sink.lanes.end_turn();
            }
            for producer in self.refusals.producers() {
                if self.poll(&producer, &mut batch) {
                    last_event = Instant::now();
                }
            }
            self.touched.extend(self.sink.lanes.called());
            self.turn();
            self.advance(&mut batch);
            self.refusals.look(&self.sink, &mut batch);
            self.tell(&mut batch);
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
            let mut reports = events.reports();
            reports.now_ms = clock::now_ms();
            reports.callbacks
        };
        let mut moved = false;
        for _ in 0..EVENTS_PER_BATCH_MAX {
            // Zero takes one event and does not wait. Any other time would be waited out, events or not.
            producer.poll(Duration::ZERO);
            let now = events.reports().callbacks;
            if now == callbacks {
                break;
            }
            callbacks = now;
            moved = true;
        }
        self.take(producer, batch);
        moved
    }

    /// Counts what was settled and moves it into `batch`.
    fn take(&mut self, producer: &Producer, batch: &mut Vec<(Token, Settlement)>) {
        let events = producer.context();
        let mut reports = mem::take(&mut self.reports);
        {
            let mut new = events.reports();
            reports.callbacks = new.callbacks;
            reports.now_ms = new.now_ms;
            mem::swap(&mut *new, &mut reports);
            new.callbacks = reports.callbacks;
        }
        batch.append(&mut reports.batch);
        let mut done = 0;
        for run in reports.runs.drain(..) {
            done += self.stored(&run);
            if self.sink.lanes.landed(&run) {
                self.touched.push(run.number as usize);
            }
        }
        for note in reports.trials.drain(..) {
            done += self.stored(&note.run());
            if note.token != Token::NONE {
                batch.push((note.token, Settlement::Stored));
            }
            let partitions = self.sink.lanes.partitions();
            let now = Instant::now();
            self.sink.troubles.stored(partitions.topic(note.topic), now);
            self.sink.lanes.tried(note.number, None);
            self.touched.push(note.number as usize);
        }
        if done > 0 {
            let times = mem::take(&mut reports.times);
            self.sink.counters.add_times(&times);
            self.sink.counters.done.fetch_add(done, Ordering::SeqCst);
        }
        for note in reports.letters.drain(..) {
            self.refusals.letter_stored(&self.sink, &note, batch);
        }
        let doubtful = |(code, _): &(RDKafkaErrorCode, Held)| kafka::is_doubtful(*code);
        // What was behind a refused batch has lost its place, and nothing else.
        let behind = reports.back.iter().any(doubtful)
            && producer
                .client()
                .fatal_error()
                .is_some_and(|(code, _)| code == RDKafkaErrorCode::GaplessGuarantee);
        for (code, held) in reports.back.drain(..) {
            let code = if kafka::is_doubtful(code) && behind {
                RDKafkaErrorCode::PurgeQueue
            } else {
                code
            };
            self.came_back(code, held, batch);
        }
        self.reports = reports;
    }

    /// Counts what was stored, but for that it is done.
    fn stored(&self, run: &Run) -> u64 {
        let counters = &self.sink.counters;
        counters.stored.fetch_add(run.messages, Ordering::Relaxed);
        counters.bytes_done.fetch_add(run.bytes, Ordering::Relaxed);
        self.sink.waits.done(run);
        run.messages
    }

    /// A message was not stored.
    fn came_back(
        &mut self,
        code: RDKafkaErrorCode,
        mut held: Held,
        batch: &mut Vec<(Token, Settlement)>,
    ) {
        let number = held.note.number as usize;
        match held.note.errand {
            Errand::Letter(_) => self.refusals.letter_back(&self.sink, code, held, batch),
            Errand::Trial => {
                self.judge(code, held, batch);
                self.touched.push(number);
            }
            Errand::Message
                if self.replacing == Replacing::AfterFailure || kafka::is_doubtful(code) =>
            {
                self.sink.lanes.lost(held.note.number);
                self.touched.push(number);
                self.refusals.refuse(&self.sink, code, &held, batch);
            }
            Errand::Message => {
                held.alone = !kafka::is_purged(code);
                if kafka::is_too_large(code) && !self.too_large.contains(&held.note.topic) {
                    self.too_large.push(held.note.topic);
                }
                self.sink.lanes.give_back(held);
                self.touched.push(number);
            }
        }
    }

    /// What went alone was not stored.
    fn judge(&mut self, code: RDKafkaErrorCode, held: Held, batch: &mut Vec<(Token, Settlement)>) {
        let number = held.note.number;
        let again = self.refusals.judge(&self.sink, code, held, batch);
        self.sink.lanes.tried(number, again);
    }

    /// Lets through what may go at the gates where something happened.
    fn advance(&mut self, batch: &mut Vec<(Token, Settlement)>) {
        if self.touched.is_empty() {
            return;
        }
        let mut touched = mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut judged = Vec::new();
        for number in touched.drain(..) {
            let Some(alone) = self.refusals.alone() else {
                self.touched.push(number);
                continue;
            };
            loop {
                let footing = self.refusals.footing(&self.sink, number);
                self.sink
                    .lanes
                    .advance(number, &alone, footing, &mut judged);
                let Some((code, held)) = judged.pop() else {
                    break;
                };
                self.judge(code, held, batch);
            }
        }
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Goes from near to far when that is due, and looks after what waits at the gates.
    fn turn(&mut self) {
        let lanes = &self.sink.lanes;
        match lanes.distance() {
            Distance::Near if self.sink.wants_far() && Instant::now() >= self.rebuild_at => {
                self.rebuild_at = Instant::now() + REBUILD_PAUSE;
                let producers: KafkaResult<Vec<_>> = (0..lanes.far_producers())
                    .map(|_| new_producer(&self.clients.far, &self.suspicions))
                    .collect();
                match producers {
                    Ok(producers) => {
                        tracing::info!("Kafka is far away: several requests under way from now on");
                        lanes.turn(producers);
                        self.touched.extend(lanes.to_look_at());
                    }
                    Err(error) => {
                        tracing::error!(%error, "no new producers could be made; it is tried again");
                    }
                }
            }
            _ => {}
        }
        if self.looked_at.elapsed() >= LOOK {
            self.looked_at = Instant::now();
            self.touched.extend(self.sink.lanes.to_look_at());
        }
    }

    fn tell(&self, batch: &mut Vec<(Token, Settlement)>) {
        if !batch.is_empty() {
            self.outlet.settle(batch);
            batch.clear();
        }
    }

    /// An error of the producer as a whole may be the end of it: an idempotent producer that does not know any more what
    /// Kafka has sends nothing again. Returns whether it can send. `at` is its place; the one that is left has none.
    fn look_into(
        &mut self,
        at: Option<usize>,
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
        let after = if code == RDKafkaErrorCode::GaplessGuarantee {
            Replacing::AfterRefusal
        } else if Instant::now() < self.rebuild_at {
            return false;
        } else {
            self.rebuild_at = Instant::now() + REBUILD_PAUSE;
            Replacing::AfterFailure
        };
        match after {
            Replacing::AfterRefusal => {
                tracing::warn!(
                    reason,
                    "Kafka refused a batch: its messages go one by one, and the others again"
                );
            }
            _ => tracing::error!(%code, reason, "the producer has failed and is made anew"),
        }
        self.replacing = after;
        let replaced = self.rebuild(at, producer, batch);
        self.replacing = Replacing::No;
        replaced
    }

    /// Replaces a failed producer. After a refusal everything that it has comes back and is sent again. What it had not
    /// confirmed when it failed is refused: it may be in Kafka or not, and only the publisher can decide to send it again.
    fn rebuild(
        &mut self,
        at: Option<usize>,
        failed: &Producer,
        batch: &mut Vec<(Token, Settlement)>,
    ) -> bool {
        if self.replacing == Replacing::AfterRefusal {
            self.learn_limits();
        }
        let client = match self.sink.lanes.distance() {
            Distance::Near => &self.clients.near,
            Distance::Far | Distance::Turning => &self.clients.far,
        };
        if let Some(at) = at {
            match new_producer(client, &self.suspicions) {
                Ok(producer) => self.sink.lanes.replace(at, producer),
                Err(error) => {
                    tracing::error!(%error, "no new producer could be made; it is tried again");
                    return false;
                }
            }
        }
        let waits_for_answers = self.replacing == Replacing::AfterRefusal;
        let answers_until = Instant::now() + ANSWERS_TIMEOUT;
        let deadline = Instant::now() + PURGE_TIMEOUT;
        while failed.in_flight_count() > 0 && Instant::now() < deadline {
            // What was asked of other Kafka brokers is still answered.
            let purge = PurgeConfig::default().queue();
            if waits_for_answers && Instant::now() < answers_until {
                failed.purge(purge);
            } else {
                failed.purge(purge.inflight());
            }
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
        if let Some(at) = at {
            self.sink.lanes.replaced(at);
        }
        self.touched.extend(self.sink.lanes.to_look_at());
        self.sink
            .counters
            .producer_rebuilds
            .fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Asks how large a message the topics take now of which a batch was too large, and makes batches no larger.
    fn learn_limits(&mut self) {
        for topic in mem::take(&mut self.too_large) {
            let name = self.sink.lanes.partitions().topic(topic);
            if let Some(limit) = topics::limit(&self.config, name) {
                tracing::warn!(
                    kafka_topic = name,
                    bytes = limit,
                    "Kafka takes smaller messages for this topic"
                );
                self.sink.lanes.lower(topic, limit);
            }
        }
        let batch_bytes_max = self.sink.lanes.batch_bytes_max().max(1).to_string();
        for client in [&mut self.clients.near, &mut self.clients.far] {
            client.set("batch.size", &batch_bytes_max);
        }
    }
}

#[cfg(test)]
mod tests;
