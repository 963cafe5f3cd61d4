//! Readers one after the other: one that is stuck is made anew, and what it had begun is read again.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use crate::client::Context;
use crate::connect::connect;
use crate::effects::Effects;
use crate::handler::Handler;
use crate::reader::{End, Reader};
use crate::status::State;

/// How long an attempt to make the reader anew takes at most.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between attempts to make the reader anew.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How long the end waits for librdkafka to leave the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often the patience with a reader that gets nothing doubles at most.
const STALL_DOUBLINGS_MAX: u32 = 5;

/// What the consumer's thread owns.
pub(crate) struct Supervisor<H> {
    pub(crate) effects: Effects<H>,
    pub(crate) cluster: Arc<str>,
    /// Rebuilds since a record was last handled.
    pub(crate) rebuilds_in_vain: u32,
}

impl<H: Handler> Supervisor<H> {
    /// Reads until told to stop.
    pub(crate) fn run(mut self, first: BaseConsumer<Context>) -> Result<(), String> {
        let mut consumer = first;
        loop {
            let (cluster, patience) = (Arc::clone(&self.cluster), self.stall_timeout());
            let done_before = self.effects.calls_done;
            let end = Reader::new(&mut self.effects, &consumer, cluster, patience).run();
            close(consumer);
            if self.effects.calls_done > done_before {
                self.rebuilds_in_vain = 0;
            }
            match end {
                End::Stop => return Ok(()),
                End::Fatal(reason) => return Err(reason),
                End::Rebuild(reason) => {
                    let effects = &self.effects;
                    tracing::warn!(
                        group = effects.config.group,
                        reason,
                        "the reader is rebuilt"
                    );
                    effects.metrics.rebuilds.inc();
                    effects.shared.with_status(|status| status.rebuilds += 1);
                    self.rebuilds_in_vain = self.rebuilds_in_vain.saturating_add(1);
                }
            }
            consumer = loop {
                if self.effects.shared.is_stopping() {
                    return Ok(());
                }
                match connect(&self.effects.config, REBUILD_TIMEOUT) {
                    Ok(connected) => {
                        let cluster = connected.cluster;
                        let shared = &self.effects.shared;
                        shared.with_status(|status| status.cluster = cluster.to_string());
                        self.cluster = cluster;
                        break connected.consumer;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the reader cannot be rebuilt yet");
                        self.effects.shared.with_status(|status| {
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
    fn stall_timeout(&self) -> Duration {
        let doublings = self.rebuilds_in_vain.min(STALL_DOUBLINGS_MAX);
        let timeout_ms = self.effects.config.tuning.stall_timeout_ms;
        Duration::from_millis(timeout_ms.into()) * (1 << doublings)
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
