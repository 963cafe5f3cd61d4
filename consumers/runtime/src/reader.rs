//! One life of a librdkafka consumer: reads, hands over, retries and commits.
//!
//! One thread does it all in turns, so nothing is in flight while librdkafka calls back: when a partition is taken away, what
//! is finished can be committed and the rest forgotten. librdkafka fetches in the background meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::assignment::{Assignment, Backoff};
use crate::batch::Batch;
use crate::beginning::Beginning;
use crate::client::{ASK_TIMEOUT, Context, Event};
use crate::effects::Effects;
use crate::fault::HandleError;
use crate::handler::Handler;
use crate::health::Health;
use crate::identity::{Identity, Refusal};
use crate::metrics::STEP_COMMIT;
use crate::status::Gap;

/// The longest wait for records; a stop is noticed within this time.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// How often the status is renewed while nothing special happens.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// How often stalled partitions and missing topics are looked for. A turn that takes longer stands out.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether another store has come to own the group.
const OWNER_INTERVAL: Duration = Duration::from_secs(30);

/// Why reading ended.
pub(crate) enum End {
    Stop,
    Rebuild(String),
    Fatal(String),
}

/// See the module.
pub(crate) struct Reader<'a, H> {
    effects: &'a mut Effects<H>,
    consumer: &'a BaseConsumer<Context>,
    assignment: Assignment,
    health: Health,
    /// Whether an offset was stored that no commit has taken.
    uncommitted: bool,
    committed_at: Instant,
    checked_at: Instant,
    /// When the status was renewed; `None` when something special has happened since.
    status_at: Option<Instant>,
    /// Why it is not known from where to read.
    no_beginning: Option<String>,
    /// When it is looked next whether the group is still this store's, and whether nothing may be handled before.
    owner_due: Instant,
    owner_unknown: bool,
}

impl<'a, H: Handler> Reader<'a, H> {
    /// A reader of `cluster` that gives up, to be made anew, when nothing comes for `stall_timeout` though it could.
    pub(crate) fn new(
        effects: &'a mut Effects<H>,
        consumer: &'a BaseConsumer<Context>,
        cluster: Arc<str>,
        stall_timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        if let Some(store) = effects.handler.store() {
            let beginning = Beginning::new(store, effects.tokio.clone(), Arc::clone(&cluster));
            let begin = move |consumer: &_, list: &mut _| beginning.set(consumer, list);
            consumer.context().begin_by(Box::new(begin));
        }
        let fetch_wait = Duration::from_millis(effects.config.tuning.fetch_wait_ms_max.into());
        let assignment = Assignment::new(cluster, fetch_wait);
        let health = Health::new(&effects.config, stall_timeout);
        Self {
            effects,
            consumer,
            assignment,
            health,
            uncommitted: false,
            committed_at: now,
            checked_at: now,
            status_at: None,
            no_beginning: None,
            owner_due: now,
            owner_unknown: true,
        }
    }

    /// Reads until there is a reason not to.
    pub(crate) fn run(mut self) -> End {
        let topics: Vec<&str> = self
            .effects
            .config
            .topics
            .iter()
            .map(String::as_str)
            .collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            return End::Fatal(format!("Kafka refuses the subscription: {error}"));
        }
        let end = loop {
            if self.effects.shared.is_stopping() {
                break End::Stop;
            }
            if let Err(end) = self.turn() {
                break end;
            }
        };
        if !matches!(end, End::Rebuild(_)) {
            self.commit_last();
        }
        for slot in self.assignment.slots() {
            self.effects.metrics.forget(&slot.topic, slot.partition);
        }
        end
    }

    /// Reads, handles what is new, retries what is due, commits, and looks after things.
    fn turn(&mut self) -> Result<(), End> {
        self.collect()?;
        if let Some(reason) = self.no_beginning.take() {
            return Err(End::Rebuild(reason));
        }
        self.check_owner()?;
        let fresh = self.assignment.fresh();
        if !fresh.is_empty() {
            self.handle(&fresh)?;
        }
        if let Some(due) = self.assignment.due(Instant::now()) {
            self.retry(due)?;
        }
        let now = Instant::now();
        self.commit(now);
        if now.duration_since(self.checked_at) >= CHECK_INTERVAL {
            self.checked_at = now;
            if self.health.check_topics(self.consumer, now) {
                self.status_at = None;
            }
            self.health.check_membership(now).map_err(End::Rebuild)?;
            self.health
                .check_stalls(self.consumer, &mut self.assignment, now)
                .map_err(End::Rebuild)?;
        }
        if self
            .status_at
            .is_none_or(|at| now.duration_since(at) >= STATUS_INTERVAL)
        {
            self.publish_status(now);
        }
        Ok(())
    }

    /// Stops a store that is not its group's. Partitions that were just given are not read before that is known.
    fn check_owner(&mut self) -> Result<(), End> {
        let Some(identity) = &self.effects.identity else {
            return Ok(());
        };
        if Instant::now() < self.owner_due || self.assignment.slots().is_empty() {
            return Ok(());
        }
        if !self.owner_unknown && self.health.is_unreachable() {
            return Ok(());
        }
        let config = &self.effects.config;
        let checked = identity.check(self.consumer, config, ASK_TIMEOUT);
        self.owner_due = Instant::now() + OWNER_INTERVAL;
        match checked {
            Ok(()) => self.owner_unknown = false,
            Err(Refusal::OtherStore(sentence)) => return Err(End::Fatal(sentence)),
            Err(Refusal::Unknown(reason)) if self.owner_unknown => {
                return Err(End::Rebuild(format!(
                    "Kafka does not say whose the group is: {reason}"
                )));
            }
            Err(Refusal::Unknown(reason)) => {
                tracing::debug!(reason, "Kafka does not say whose the group is");
            }
        }
        Ok(())
    }

    /// Takes records until there are enough, or none comes any more.
    fn collect(&mut self) -> Result<(), End> {
        let started = Instant::now();
        let mut wait = self.assignment.next_due().map_or(POLL_WAIT, |due| {
            due.saturating_duration_since(started).min(POLL_WAIT)
        });
        let tuning = &self.effects.config.tuning;
        let (records_max, bytes_max) = (tuning.batch_records_max, tuning.batch_bytes_max as usize);
        let batch_wait = tuning.batch_wait();
        let (mut records, mut bytes) = (0, 0);
        let mut now = started;
        let mut deadline = None;
        while records < records_max && bytes < bytes_max {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let (topic, partition) = (message.topic(), message.partition());
                    let offset = message.offset();
                    let arrival = self.assignment.arrival(topic, partition, offset, now);
                    let arrival = arrival.map_err(|reason| {
                        // What was finished is an offset of another log and must not be committed any more.
                        forget_stored(self.consumer, topic, partition, offset);
                        End::Rebuild(reason)
                    })?;
                    if let Some(batch) = arrival {
                        let before = batch.bytes();
                        push(batch, &message);
                        records += 1;
                        bytes += batch.bytes() - before;
                    }
                    if deadline.is_none() {
                        now = Instant::now();
                        deadline = Some(now + batch_wait);
                    }
                    // What is here already is taken without asking for the time.
                    wait = Duration::ZERO;
                }
                Some(Err(error)) => {
                    self.complain(&error)?;
                    wait = Duration::ZERO;
                }
                None => {
                    // Also the end of a callback: a partition may have come or gone.
                    self.take_events();
                    now = Instant::now();
                    match deadline {
                        Some(deadline) if now < deadline => wait = deadline - now,
                        _ => break,
                    }
                }
            }
        }
        self.take_events();
        Ok(())
    }

    fn complain(&mut self, error: &KafkaError) -> Result<(), End> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(End::Rebuild(format!(
                "the Kafka client failed for good: {code}"
            )));
        }
        match error.rdkafka_error_code() {
            // These come and go with the connection; the statistics tell for how long.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.health.suspect_topics();
            }
            code => {
                let text = code.map_or_else(|| error.to_string(), |code| code.to_string());
                tracing::warn!(
                    group = self.effects.config.group,
                    error = text,
                    "Kafka consumer"
                );
                self.health.complaint(text, Instant::now());
            }
        }
        Ok(())
    }

    fn take_events(&mut self) {
        for event in self.consumer.context().take_events() {
            match event {
                Event::Assigned(partitions) => self.assigned(&partitions),
                Event::Gaps(gaps) => self.lost(gaps),
                Event::NoBeginning(reason) => self.no_beginning = Some(reason),
                Event::Revoked(partitions) => {
                    self.effects.metrics.rebalances.inc();
                    tracing::info!(
                        group = self.effects.config.group,
                        partitions = partitions.len(),
                        "partitions were taken away"
                    );
                    for (topic, partition) in &partitions {
                        self.assignment.revoke(topic, *partition);
                        self.effects.metrics.forget(topic, *partition);
                    }
                    self.status_at = None;
                }
                Event::CommitFailed(error) => {
                    tracing::debug!(group = self.effects.config.group, error, "a commit failed");
                    self.effects
                        .metrics
                        .failures
                        .with_label_values(&[STEP_COMMIT])
                        .inc();
                    self.uncommitted = true;
                }
                Event::Statistics(snapshot) => {
                    self.assignment.observe(&snapshot, Instant::now());
                    self.health.observe(&snapshot, Instant::now());
                    self.status_at = None;
                }
            }
        }
    }

    /// Says what Kafka has no longer.
    fn lost(&mut self, gaps: Vec<Gap>) {
        for gap in &gaps {
            tracing::error!(group = self.effects.config.group, "{gap}");
            self.effects.metrics.lost(gap);
        }
        self.effects
            .shared
            .with_status(|status| status.gaps.extend(gaps));
        self.status_at = None;
    }

    fn assigned(&mut self, partitions: &[(String, i32)]) {
        self.effects.metrics.rebalances.inc();
        (self.owner_due, self.owner_unknown) = (Instant::now(), true);
        tracing::info!(
            group = self.effects.config.group,
            partitions = partitions.len(),
            "partitions were given"
        );
        let now = Instant::now();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            self.assignment.assign(topic, *partition, now);
            list.add_partition(topic, *partition);
        }
        // It may have been ours before, and been paused.
        if !partitions.is_empty()
            && let Err(error) = self.consumer.resume(&list)
        {
            tracing::debug!(%error, "resume");
        }
        self.status_at = None;
    }

    /// Hands the records of these partitions over, in one call.
    fn handle(&mut self, indices: &[usize]) -> Result<(), End> {
        let batches: Vec<Batch> = indices
            .iter()
            .map(|&index| self.assignment.slot_mut(index).take_batch())
            .collect();
        let began = Instant::now();
        let result = self.effects.apply(&batches);
        let now = Instant::now();
        // What stood still while the handler ran did so because of us.
        if now.duration_since(began) >= CHECK_INTERVAL {
            self.assignment.moved(now);
        }
        match result {
            Ok(()) => {
                for (&index, batch) in indices.iter().zip(batches) {
                    self.assignment.slot_mut(index).done(batch);
                }
                self.store_offsets(indices);
                Ok(())
            }
            Err(HandleError::Fatal(reason)) => Err(End::Fatal(reason)),
            Err(HandleError::Transient(reason)) => {
                self.failed(indices, batches, &reason, now);
                Ok(())
            }
        }
    }

    /// Pauses the partitions of a call that failed and keeps their records.
    fn failed(&mut self, indices: &[usize], batches: Vec<Batch>, reason: &str, now: Instant) {
        tracing::warn!(
            group = self.effects.config.group,
            partitions = indices.len(),
            reason,
            "will retry"
        );
        self.effects
            .shared
            .with_status(|status| status.failures += 1);
        let tuning = &self.effects.config.tuning;
        let backoff = Backoff {
            min: Duration::from_millis(tuning.retry_backoff_ms_min.into()),
            max: Duration::from_millis(tuning.retry_backoff_ms_max.into()),
        };
        for (&index, batch) in indices.iter().zip(batches) {
            self.assignment
                .slot_mut(index)
                .failed(batch, reason.to_owned(), backoff, now);
        }
        if let Err(error) = self.consumer.pause(&self.list(indices)) {
            // It goes on to be read; its records wait behind the failed ones.
            tracing::warn!(%error, "a partition could not be paused");
        }
        self.status_at = None;
    }

    /// Tries one paused partition again, alone, so that it fails alone.
    fn retry(&mut self, index: usize) -> Result<(), End> {
        if !self.health.is_unreachable() && !self.assignment.slots()[index].is_cut_off() {
            self.ask_log_end(index);
        }
        self.handle(&[index])?;
        if self.assignment.slots()[index].retry.is_none() {
            let list = self.list(&[index]);
            if let Err(error) = self.consumer.resume(&list) {
                tracing::warn!(%error, "a partition could not be resumed");
            }
            self.status_at = None;
        }
        Ok(())
    }

    fn ask_log_end(&mut self, index: usize) {
        let slot = &self.assignment.slots()[index];
        match self
            .consumer
            .fetch_watermarks(&slot.topic, slot.partition, ASK_TIMEOUT)
        {
            Ok((_, end)) => self.assignment.slot_mut(index).ends_at(end, Instant::now()),
            Err(error) => tracing::debug!(%error, "Kafka does not say where a log ends"),
        }
    }

    fn list(&self, indices: &[usize]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(indices.len());
        for &index in indices {
            let slot = &self.assignment.slots()[index];
            list.add_partition(&slot.topic, slot.partition);
        }
        list
    }

    /// Tells librdkafka what to commit: the next commit, also the one at a handover, takes it.
    fn store_offsets(&mut self, indices: &[usize]) {
        let mut list = TopicPartitionList::with_capacity(indices.len());
        let mark = self.effects.identity.as_ref().and_then(Identity::mark);
        for &index in indices {
            let slot = &self.assignment.slots()[index];
            let Some(offset) = slot.next_offset else {
                continue;
            };
            let mut element = list.add_partition(&slot.topic, slot.partition);
            if let Err(error) = element.set_offset(Offset::Offset(offset)) {
                tracing::warn!(%error, offset, "an offset cannot be committed");
            }
            if let Some(mark) = &mark {
                element.set_metadata(mark);
            }
        }
        if let Err(error) = self.consumer.store_offsets(&list) {
            tracing::debug!(%error, "offsets could not be stored; the partitions are not ours any more");
        }
        self.uncommitted = true;
    }

    fn commit(&mut self, now: Instant) {
        let interval = Duration::from_millis(self.effects.config.tuning.commit_interval_ms.into());
        if !self.uncommitted || now.duration_since(self.committed_at) < interval {
            return;
        }
        self.committed_at = now;
        // A failure comes back as an event.
        self.uncommitted = false;
        self.send_commit(CommitMode::Async);
    }

    fn send_commit(&mut self, mode: CommitMode) {
        match self.consumer.commit_consumer_state(mode) {
            Ok(()) => {}
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
            Err(error) => {
                tracing::debug!(%error, "a commit failed");
                self.effects
                    .metrics
                    .failures
                    .with_label_values(&[STEP_COMMIT])
                    .inc();
                self.uncommitted = true;
            }
        }
    }

    /// Commits what is finished and waits for it, but not for a Kafka that is away: then some records come again.
    fn commit_last(&mut self) {
        self.take_events();
        if !self.health.is_unreachable() {
            self.send_commit(CommitMode::Sync);
        }
        self.publish_status(Instant::now());
    }

    fn publish_status(&mut self, now: Instant) {
        self.status_at = Some(now);
        let partitions = self.assignment.status(now);
        let last_error = self.consumer.context().last_error();
        let metrics = &self.effects.metrics;
        let health = &mut self.health;
        self.effects.shared.with_status(|status| {
            health.describe(status, partitions, last_error.as_deref(), now);
            metrics.observe(status);
        });
    }
}

/// Takes back an offset that was stored and not committed.
fn forget_stored(consumer: &BaseConsumer<Context>, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::with_capacity(1);
    let stored = list
        .add_partition_offset(topic, partition, Offset::Offset(offset))
        .and_then(|()| consumer.store_offsets(&list));
    if let Err(error) = stored {
        tracing::debug!(%error, "an offset could not be taken back");
    }
}

/// Copies a record into the batch.
fn push(batch: &mut Batch, message: &BorrowedMessage<'_>) {
    let (offset, timestamp) = (message.offset(), message.timestamp().to_millis());
    let (key, payload) = (message.key(), message.payload());
    let Some(headers) = message.headers() else {
        batch.push(offset, timestamp, key, payload, []);
        return;
    };
    // rdkafka panics at a header name that is no UTF-8, which anybody who may write to the topic could send.
    let pushed = catch_unwind(AssertUnwindSafe(|| {
        let headers = (0..headers.count()).filter_map(|index| headers.try_get(index));
        batch.push(
            offset,
            timestamp,
            key,
            payload,
            headers.map(|header| (header.key, header.value)),
        );
    }));
    if pushed.is_err() {
        batch.push_without_headers(offset, timestamp, key, payload);
    }
}
