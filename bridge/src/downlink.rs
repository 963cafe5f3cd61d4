//! The way back: what backends append to the downlink topic, published by this node's broker to its subscribers.
//!
//! One thread reads, decodes, hands over in batches, and commits. Every node reads all of the topic, each under a
//! consumer group of its own, so partitions are assigned here and not by the group's protocol. The position is committed
//! over messages that every session which should have them has ([`ledger`]); of a record that asks for it Kafka gets a report
//! first ([`reports`], [`reporter`]). A broken record becomes a dead letter, written by one node of all ([`letters`]). What
//! becomes of a record: [`intake`]. Where reading begins: [`position`]. What waits
//! for a subscriber: [`held`], and what Kafka is told of it: [`mark`].

mod decode;
mod held;
mod intake;
mod ledger;
mod letters;
mod mark;
mod outcome;
mod position;
mod reach;
mod reporter;
mod reports;
mod seen;
mod wakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker::Handle;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};

use self::intake::{Batch, Intake};
use self::ledger::{Ledger, Positions};
use self::letters::Letters;
use self::reach::Reach;
pub(crate) use self::reach::STATISTICS_MS;
use self::reporter::{Lost, Reporter};
use self::seen::Seen;
use self::wakes::{Arrived, Events, Wakes, close, consumer};
use crate::config::Config;
use crate::error::StartError;
use crate::kafka;
use crate::status::{DownlinkOutcome, DownlinkStatus};
use crate::suspicions::Suspicions;

/// Records handed to the broker at once.
const BATCH_RECORDS_MAX: u64 = 500;
/// Between two looks when nothing wakes the thread.
const REST: Duration = Duration::from_secs(1);
/// Between two looks whether what is held has a subscriber by now.
const HELD_LOOK: Duration = Duration::from_millis(100);
/// Between two looks at how many partitions the topic has.
const PARTITIONS_LOOK: Duration = Duration::from_secs(60);
/// Kafka forgets a position that is not told again for `offsets.retention.minutes` (a week by default).
const POSITION_REFRESH: Duration = Duration::from_secs(3_600);
/// How long a stop waits for sessions to get what was handed over, and for Kafka to take the position.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks while it waits for that.
const STOP_TICK: Duration = Duration::from_millis(10);
/// How long an answer about the topic may take, once it runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts to find out where to begin.
const POSITION_RETRY: Duration = Duration::from_millis(100);
/// Between two log lines about the same kind of trouble.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// The counters behind [`DownlinkStatus`].
#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    delivered: AtomicU64,
    held: AtomicU64,
    expired: AtomicU64,
    malformed: AtomicU64,
    dead_lettered: AtomicU64,
    commits_failed: AtomicU64,
    rewinds: AtomicU64,
    reported: AtomicU64,
    reports_lost: AtomicU64,
    lost: Lost,
    outcomes: outcome::Counts,
}

impl Counters {
    /// A record has expired before a session had it.
    fn expired(&self) {
        count(&self.expired, 1);
        self.outcomes.count(DownlinkOutcome::Expired);
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The running downlink of a node.
pub(crate) struct Downlink {
    wakes: Arc<Wakes>,
    counters: Arc<Counters>,
    topic: String,
    reach: Arc<Reach>,
    thread: Option<JoinHandle<()>>,
    letters: Option<Letters>,
}

impl Downlink {
    /// Finds out where to begin, and begins.
    pub(crate) fn start(
        config: &Config,
        handle: Handle,
        suspicions: Arc<Suspicions>,
    ) -> Result<Self, StartError> {
        let wakes = Arc::new(Wakes::default());
        let counters = Arc::new(Counters::default());
        let seen = Arc::new(Seen::default());
        let reach = Arc::new(Reach::default());
        let shared = (&wakes, &counters, &seen, &reach);
        let reading = Reading::new(config, handle, shared, suspicions)?;
        let letters = Letters::start(config, &seen, &counters)?;
        let thread = std::thread::Builder::new()
            .name("kafka-downlink".to_owned())
            .spawn(move || reading.run())?;
        Ok(Self {
            wakes,
            counters,
            topic: config.downlink.topic.clone(),
            reach,
            thread: Some(thread),
            letters: Some(letters),
        })
    }

    /// What is wrong, each in a sentence.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.death()
            .into_iter()
            .chain(self.counters.reports_problem())
    }

    /// That it has stopped by itself. The clients of the node stay: they publish as before.
    fn death(&self) -> Option<String> {
        let has_died = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        let died = has_died.then(|| {
            "the downlink has stopped (its thread panicked): what backends answer reaches no client of this node until the \
             node is started again"
                .to_owned()
        });
        died.or_else(|| self.letters.as_ref().and_then(Letters::problem))
    }

    /// The partitions that it cannot read, in a sentence.
    pub(crate) fn cut_off(&self) -> Option<String> {
        self.reach.problem(&self.topic, Instant::now())
    }

    pub(crate) fn status(&self) -> DownlinkStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        DownlinkStatus {
            published: read(&counters.published),
            delivered: read(&counters.delivered),
            held: read(&counters.held),
            expired: read(&counters.expired),
            malformed: read(&counters.malformed),
            dead_lettered: read(&counters.dead_lettered),
            commits_failed: read(&counters.commits_failed),
            rewinds: read(&counters.rewinds),
            reported: read(&counters.reported),
            reports_lost: read(&counters.reports_lost),
            outcomes: counters.outcomes.read(),
        }
    }

    /// Stops reading, waits a while for what was handed over to arrive, commits the position, and ends.
    pub(crate) fn stop(&mut self) {
        self.wakes.stop.store(true, Ordering::SeqCst);
        self.wakes.wake();
        self.letters.iter().for_each(Letters::stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the downlink panicked");
        }
        self.letters = None;
    }
}

impl Drop for Downlink {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread shares with others.
type Shared<'s> = (
    &'s Arc<Wakes>,
    &'s Arc<Counters>,
    &'s Arc<Seen>,
    &'s Arc<Reach>,
);

/// What the thread works with.
struct Reading {
    config: Config,
    wakes: Arc<Wakes>,
    counters: Arc<Counters>,
    suspicions: Arc<Suspicions>,
    seen: Arc<Seen>,
    reach: Arc<Reach>,
    consumer: BaseConsumer<Events>,
    ledger: Ledger,
    intake: Intake,
    reporter: Reporter,
    refreshed_at: Instant,
    partitions_looked_at: Instant,
    held_looked_at: Instant,
    warned_at: Option<Instant>,
}

impl Reading {
    fn new(
        config: &Config,
        handle: Handle,
        (wakes, counters, seen, reach): Shared<'_>,
        suspicions: Arc<Suspicions>,
    ) -> Result<Self, StartError> {
        let topic = &config.downlink.topic;
        let consumer = consumer(config, wakes, &suspicions, reach)?;
        let timeout = Duration::from_millis(config.start_timeout_ms);
        let position = |what, error: &KafkaError| StartError::Position {
            group: config.downlink_group(),
            topic: topic.clone(),
            what,
            cause: kafka::describe(error),
        };
        let deadline = Instant::now() + timeout;
        let lookback = Duration::from_secs(config.downlink.new_node_lookback_s);
        let resumed = loop {
            match position::begin(&consumer, topic, lookback, timeout) {
                Ok(resumed) => break resumed,
                // A topic that was made a moment ago may not be known to all of Kafka yet.
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the downlink position cannot be read yet");
                    std::thread::sleep(POSITION_RETRY);
                }
                Err(error) => return Err(position("read", &error)),
            }
        };
        position::list(topic, &position::first(&resumed))
            .and_then(|list| consumer.assign(&list))
            .map_err(|error| position("taken", &error))?;
        for (partition, resumption) in &resumed {
            seen.begins(*partition, resumption.offset.max(resumption.only_expiring));
        }
        Ok(Self {
            ledger: Ledger::new(&resumed),
            intake: Intake::new(config, handle, wakes, counters, seen, resumed),
            reporter: Reporter::new(config, counters),
            seen: Arc::clone(seen),
            reach: Arc::clone(reach),
            config: config.clone(),
            wakes: Arc::clone(wakes),
            counters: Arc::clone(counters),
            suspicions,
            consumer,
            refreshed_at: Instant::now(),
            partitions_looked_at: Instant::now(),
            held_looked_at: Instant::now(),
            warned_at: None,
        })
    }

    fn run(mut self) {
        let _ = self.wakes.thread.set(std::thread::current());
        while !self.wakes.stopping() {
            self.take_ended();
            self.report_later();
            self.take_reported();
            self.look_at_held();
            self.read();
            self.give_positions();
            self.look_at_partitions();
            let held = self.intake.held();
            self.counters.held.store(held, Ordering::Relaxed);
            std::thread::park_timeout(match () {
                () if self.reporter.waits() => self.reporter.look_in(),
                () if self.anything_waits() => HELD_LOOK,
                () => REST,
            });
        }
        let give_up_at = Instant::now() + STOP_PATIENCE;
        while (!self.ledger.settled() || self.reporter.waits()) && Instant::now() < give_up_at {
            self.take_ended();
            self.report_later();
            self.take_reported();
            self.give_positions();
            // Callbacks only: a record that comes now is left for the next start.
            let _ = self.consumer.poll(Duration::ZERO);
            self.take_commits();
            std::thread::park_timeout(STOP_TICK);
        }
        if !self.ledger.settled() {
            tracing::warn!(
                records = self.ledger.outstanding().records,
                "the downlink stopped before all had arrived and the position was committed: some will come again"
            );
        }
        close(self.consumer);
    }

    /// Takes in which batches have arrived.
    fn take_ended(&mut self) {
        let ended = self.wakes.take_ended();
        let mut lost = false;
        for (batch, arrived) in ended {
            match arrived {
                Some(arrived) if self.ledger.is_open(batch) => self.arrived(batch, arrived),
                Some(_) => {}
                None => lost = true,
            }
        }
        // A broker that ends lets go of what it has; then so do we, soon. One that runs should not, but if it does, the
        // messages are still in Kafka.
        if lost && !self.wakes.stopping() {
            self.rewind();
        }
    }

    /// The sessions have the messages of a batch. It is done when Kafka has the reports that are asked for.
    fn arrived(&mut self, batch: u64, arrived: Arrived) {
        for outcome in arrived.outcomes {
            self.counters.outcomes.count(outcome);
        }
        let reports = &mut self.intake.reports;
        let mut told = reports.take_kept(batch);
        for (number, sessions, word) in arrived.numbered {
            told.extend(reports.arrived(number, &sessions, word));
        }
        for told in told {
            if self.reporter.send(&told, Some(batch)) {
                reports.sent(batch);
            }
        }
        self.reporter.untold(reports.take_untold());
        if reports.batch_arrived(batch) {
            self.done(batch);
        }
    }

    /// A batch is done: its messages have arrived, and Kafka has what is reported of it.
    fn done(&mut self, batch: u64) {
        let moved = self.ledger.arrived(batch);
        count(&self.counters.delivered, moved.messages);
    }

    /// Takes in which reports Kafka has.
    fn take_reported(&mut self) {
        for batch in self.reporter.take_confirmed() {
            if self.intake.reports.confirmed(batch) {
                self.done(batch);
            }
        }
    }

    /// Reports what became of messages that waited in sessions.
    fn report_later(&mut self) {
        for (number, sessions) in self.wakes.take_later() {
            if let Some(told) = self.intake.reports.later(number, &sessions) {
                self.reporter.send_later(&told);
            }
        }
    }

    /// Whether there is something that may expire.
    fn anything_waits(&self) -> bool {
        self.intake.held() > 0 || self.intake.reports.waiting_in_sessions() > 0
    }

    /// Hands over what was held and has a subscriber now, and reports what expired.
    fn look_at_held(&mut self) {
        if self.anything_waits() && self.held_looked_at.elapsed() >= HELD_LOOK {
            self.held_looked_at = Instant::now();
            for told in self.intake.take_expired_in_sessions() {
                self.reporter.send_later(&told);
            }
            let batch = self.intake.look_at_held(&mut self.ledger);
            self.intake.hand_over(batch, &mut self.ledger);
        }
    }

    /// Reads what has come while there is room for more.
    fn read(&mut self) {
        let mut batch = Batch::default();
        while !self.wakes.stopping() && self.has_room(&batch) {
            let callbacks = self.consumer.context().callbacks();
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => self.intake.take(&mut batch, &record, &mut self.ledger),
                Some(Err(error)) => self.warn(&error),
                None if self.consumer.context().callbacks() == callbacks => break,
                None => {}
            }
            if batch.weight.records >= BATCH_RECORDS_MAX {
                let whole = std::mem::take(&mut batch);
                self.intake.hand_over(whole, &mut self.ledger);
            }
        }
        self.intake.hand_over(batch, &mut self.ledger);
    }

    fn has_room(&self, batch: &Batch) -> bool {
        let outstanding = self.ledger.outstanding();
        let config = &self.config.downlink;
        self.reporter.has_room()
            && outstanding.records + batch.weight.records
                < u64::from(config.outstanding_messages_max)
            && outstanding.bytes + batch.weight.bytes < config.outstanding_bytes_max
    }

    /// Gives librdkafka what it shall commit, and takes in what it has committed.
    fn give_positions(&mut self) {
        self.take_commits();
        let topic = &self.config.downlink.topic;
        if let Some((marks, same_offset)) = self.ledger.give() {
            let given = position::marks(topic, marks).and_then(|list| {
                self.consumer.store_offsets(&list)?;
                if same_offset {
                    self.consumer.commit(&list, CommitMode::Async)?;
                }
                Ok(())
            });
            if let Err(error) = given {
                self.ledger.not_given();
                self.warn(&error);
            }
        } else if self.refreshed_at.elapsed() >= POSITION_REFRESH {
            self.refreshed_at = Instant::now();
            let told = position::marks(topic, &self.ledger.marks())
                .and_then(|list| self.consumer.commit(&list, CommitMode::Async));
            if let Err(error) = told {
                self.warn(&error);
            }
        }
    }

    fn take_commits(&mut self) {
        let commits = self.consumer.context().take_commits();
        for (partition, offset) in commits.done {
            self.ledger.committed(partition, offset);
        }
        if commits.failed > 0 {
            count(&self.counters.commits_failed, commits.failed);
        }
    }

    /// Goes back to the last position that is safe, with a consumer that has nothing in its queues.
    fn rewind(&mut self) {
        tracing::warn!(
            records = self.ledger.outstanding().records,
            "the broker let go of downlink messages: they are read again"
        );
        let resumed = self.ledger.resumptions();
        let renewed = consumer(&self.config, &self.wakes, &self.suspicions, &self.reach);
        let renewed = renewed.and_then(|consumer| {
            position::list(&self.config.downlink.topic, &position::first(&resumed))
                .and_then(|list| consumer.assign(&list))
                .map_err(|error| StartError::Client(error.to_string()))?;
            Ok(consumer)
        });
        match renewed {
            Ok(consumer) => {
                self.ledger.rewind();
                self.intake.rewind(resumed);
                close(std::mem::replace(&mut self.consumer, consumer));
                count(&self.counters.rewinds, 1);
            }
            // The position stays where it is, so a restart reads them again.
            Err(error) => tracing::error!(%error, "the downlink could not go back"),
        }
    }

    /// Takes up partitions that were added to the topic, from their beginning.
    fn look_at_partitions(&mut self) {
        if self.partitions_looked_at.elapsed() < PARTITIONS_LOOK {
            return;
        }
        self.partitions_looked_at = Instant::now();
        if let Err(error) = self.add_partitions() {
            self.warn(&error);
        }
    }

    fn add_partitions(&mut self) -> KafkaResult<()> {
        let topic = &self.config.downlink.topic;
        let mut added = Positions::new();
        for partition in position::partitions(&self.consumer, topic, ANSWER_TIMEOUT)? {
            if !self.ledger.safe().contains_key(&partition) {
                let (oldest, _) =
                    self.consumer
                        .fetch_watermarks(topic, partition, ANSWER_TIMEOUT)?;
                added.insert(partition, oldest);
            }
        }
        if !added.is_empty() {
            self.consumer
                .incremental_assign(&position::list(topic, &added)?)?;
            tracing::info!(
                topic,
                partitions = added.len(),
                "the downlink topic has new partitions"
            );
            for (partition, offset) in added {
                self.seen.begins(partition, offset);
                self.ledger.add_partition(partition, offset);
            }
        }
        Ok(())
    }

    fn warn(&mut self, error: &KafkaError) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(%error, "the downlink has trouble with Kafka");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_downlink_that_panicked_is_a_problem_until_its_end() {
        let downlink = |life: fn(&Wakes)| {
            let wakes = Arc::new(Wakes::default());
            let of_thread = Arc::clone(&wakes);
            Downlink {
                wakes,
                counters: Arc::default(),
                topic: String::new(),
                reach: Arc::default(),
                thread: Some(std::thread::spawn(move || life(&of_thread))),
                letters: None,
            }
        };
        let mut at_work = downlink(|wakes| {
            while !wakes.stop.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        });
        assert_eq!(at_work.death(), None);
        at_work.stop();
        assert_eq!(at_work.death(), None, "it was told to end");
        let dead = downlink(|_| panic!("a trap of this test"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while dead.death().is_none() {
            assert!(Instant::now() < deadline, "nobody says so");
            std::thread::yield_now();
        }
        assert!(
            dead.death()
                .is_some_and(|problem| problem.contains("panicked"))
        );
    }
}
