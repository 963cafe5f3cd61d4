//! What a consumer does with records, in the order in which nothing is lost, and the counting of it.

use std::sync::Arc;

use crate::batch::Batch;
use crate::config::Config;
use crate::fault::HandleError;
use crate::handler::{Handler, Outcome};
use crate::identity::Identity;
use crate::metrics::{Metrics, STEP_HANDLE, STEP_PRODUCE};
use crate::outlet::Outlet;
use crate::shared::Shared;
use crate::store::{Originals, without_effect};

/// The handler with all that it needs; it outlives the readers.
pub(crate) struct Effects<H> {
    pub(crate) config: Config,
    pub(crate) handler: H,
    pub(crate) tokio: tokio::runtime::Handle,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
    pub(crate) outlet: Outlet,
    /// Of the store, where the handler has one.
    pub(crate) identity: Option<Identity>,
    /// Calls of the handler whose effects are all done.
    pub(crate) calls_done: u64,
}

impl<H: Handler> Effects<H> {
    /// Effects in the order in which nothing is lost: store, answers and dead letters.
    pub(crate) fn apply(&mut self, batches: &[Batch]) -> Result<(), HandleError> {
        let rest = self.without_copies(batches)?;
        let all = batches;
        let batches = rest.as_deref().unwrap_or(all);
        let records: usize = batches.iter().map(Batch::len).sum();
        self.metrics.batch_records.observe(count(records));
        let timer = self.metrics.handle_seconds.start_timer();
        let limit = self.config.tuning.handle_timeout();
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
        let of = |batches: &[Batch]| batches.iter().map(Batch::len).sum::<usize>();
        self.metrics
            .copies_left_out
            .inc_by((of(all) - of(batches)) as u64);
        self.count(all, &outcome, downlinks);
        self.calls_done += 1;
        Ok(())
    }

    /// The batches without the copies that have no effect here; `None` where there is none of them.
    fn without_copies(&self, batches: &[Batch]) -> Result<Option<Vec<Batch>>, HandleError> {
        if !batches.iter().any(Batch::has_copies) {
            return Ok(None);
        }
        let originals = match self.handler.store() {
            Some(store) => self.tokio.block_on(store.originals(batches))?,
            None => Originals::default(),
        };
        let (group, topics) = (&self.config.group, &self.config.topics);
        let left_out = without_effect(batches, group, topics, &originals);
        if left_out.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let without = |(batch, offsets): (&Batch, Vec<i64>)| batch.without(&offsets);
        Ok(Some(batches.iter().zip(left_out).map(without).collect()))
    }

    fn count(&mut self, batches: &[Batch], outcome: &Outcome, downlinks: u64) {
        let mut records = 0;
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

/// A count as a histogram's value; batches are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn count(records: usize) -> f64 {
    records as f64
}
