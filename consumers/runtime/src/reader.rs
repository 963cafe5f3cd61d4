//! The consumer with all that outlives a rebuild, and the order of effects.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use crate::client::Context;
use crate::metrics::{Metrics, STEP_HANDLE, STEP_PRODUCE};
use crate::outlet::Outlet;
use crate::running::{self, Shared};
use crate::session::Session;
use crate::{Batch, Config, HandleError, Handler, Outcome, State};

/// How long an attempt to make the reader anew takes at most.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between attempts to make the reader anew.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How long the end waits for librdkafka to leave the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often the patience with a reader that gets nothing doubles at most.
const STALL_DOUBLINGS_MAX: u32 = 5;

/// What the consumer's thread owns.
pub(crate) struct Reader<H> {
    pub(crate) config: Config,
    pub(crate) handler: H,
    pub(crate) tokio: tokio::runtime::Handle,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
    pub(crate) outlet: Outlet,
    pub(crate) cluster: Arc<str>,
    /// Rebuilds since a record was last handled.
    pub(crate) rebuilds_in_vain: u32,
}

/// Why reading ended.
pub(crate) enum End {
    Stop,
    Rebuild(String),
    Fatal(String),
}

impl<H: Handler> Reader<H> {
    /// Reads until told to stop.
    pub(crate) fn run(mut self, first: BaseConsumer<Context>) -> Result<(), String> {
        let mut consumer = first;
        loop {
            let end = Session::new(&mut self, &consumer).run();
            close(consumer);
            match end {
                End::Stop => return Ok(()),
                End::Fatal(reason) => return Err(reason),
                End::Rebuild(reason) => {
                    tracing::warn!(group = self.config.group, reason, "the reader is rebuilt");
                    self.metrics.rebuilds.inc();
                    self.rebuilds_in_vain = self.rebuilds_in_vain.saturating_add(1);
                    self.shared.with_status(|status| status.rebuilds += 1);
                }
            }
            consumer = loop {
                if self.shared.is_stopping() {
                    return Ok(());
                }
                match running::connect(&self.config, REBUILD_TIMEOUT) {
                    Ok((consumer, cluster)) => {
                        self.cluster = cluster;
                        break consumer;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the reader cannot be rebuilt yet");
                        self.shared.with_status(|status| {
                            status.state = State::Unreachable;
                            status.problem = Some(error.to_string());
                        });
                        std::thread::sleep(REBUILD_PAUSE);
                    }
                }
            };
        }
    }

    /// How long the next reader may get nothing before it is rebuilt too. It doubles with each rebuild that did not help: a
    /// Kafka that takes longer than that to let a reader in would otherwise never see one stay.
    pub(crate) fn stall_timeout(&self) -> Duration {
        let doublings = self.rebuilds_in_vain.min(STALL_DOUBLINGS_MAX);
        Duration::from_millis(self.config.tuning.stall_timeout_ms.into()) * (1 << doublings)
    }

    /// Effects in the order in which nothing is lost: store, answers and dead letters.
    pub(crate) fn apply(&mut self, batches: &[Batch]) -> Result<(), HandleError> {
        let records: usize = batches.iter().map(Batch::len).sum();
        self.metrics.batch_records.observe(count(records));
        let timer = self.metrics.handle_seconds.start_timer();
        let limit = Duration::from_millis(self.config.tuning.handle_timeout_ms.into());
        let handler = &mut self.handler;
        let late = || HandleError::Transient(format!("no result after {} ms", limit.as_millis()));
        let result = self
            .tokio
            .block_on(async { tokio::time::timeout(limit, handler.handle(batches)).await })
            .unwrap_or_else(|_| Err(late()));
        timer.observe_duration();
        let failures = &self.metrics.failures;
        let outcome = result.inspect_err(|_| failures.with_label_values(&[STEP_HANDLE]).inc())?;
        let produced = self.outlet.produce(&outcome, batches).map_err(|error| {
            failures.with_label_values(&[STEP_PRODUCE]).inc();
            HandleError::Transient(error)
        })?;
        for (number, reason) in &produced.refused {
            let topic = outcome
                .downlink
                .get(*number)
                .map(|message| message.topic.as_str());
            tracing::error!(
                group = self.config.group,
                topic,
                reason,
                "Kafka refuses an answer for good"
            );
        }
        self.metrics
            .downlinks_refused
            .inc_by(produced.refused.len() as u64);
        self.metrics
            .dead_letters_truncated
            .inc_by(produced.truncated);
        let downlinks = (outcome.downlink.len() - produced.refused.len()) as u64;
        self.metrics.downlinks.inc_by(downlinks);
        self.count(batches, &outcome, downlinks);
        Ok(())
    }

    fn count(&mut self, batches: &[Batch], outcome: &Outcome, downlinks: u64) {
        let mut records = 0;
        self.rebuilds_in_vain = 0;
        for batch in batches {
            records += batch.len() as u64;
            self.metrics
                .records
                .with_label_values(&[batch.topic()])
                .inc_by(batch.len() as u64);
        }
        for poison in &outcome.poison {
            tracing::debug!(
                topic = &*poison.topic,
                partition = poison.partition,
                offset = poison.offset,
                class = poison.class,
                reason = poison.reason,
                "dead letter"
            );
            self.metrics
                .dead_letters
                .with_label_values(&[&*poison.topic, poison.class])
                .inc();
        }
        self.shared.with_status(|status| {
            status.records += records;
            status.downlinks += downlinks;
            status.dead_letters += outcome.poison.len() as u64;
        });
    }
}

/// Leaves the group. librdkafka may hang in that when Kafka is away, so another thread does it, and is left alone after a while.
fn close(consumer: BaseConsumer<Context>) {
    let (done, closed) = std::sync::mpsc::sync_channel::<()>(1);
    let closing = std::thread::Builder::new()
        .name("consumer-close".to_owned())
        .spawn(move || {
            drop(consumer);
            drop(done);
        });
    // Without a thread the closure, and the consumer in it, was dropped right there.
    if closing.is_ok()
        && closed.recv_timeout(CLOSE_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        tracing::warn!(
            "the consumer group could not be left in time; Kafka notices by the session timeout"
        );
    }
}

/// A count as a histogram's value; batches are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn count(records: usize) -> f64 {
    records as f64
}
