//! The life of a consumer: start, status, end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::watch;

use crate::config::Config;
use crate::connect::{connect, make_dead_letter_topics};
use crate::effects::Effects;
use crate::error::StartError;
use crate::handler::Handler;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::shared::Shared;
use crate::status::{State, Status};
use crate::supervisor::Supervisor;

/// A consumer that was started. Clones stand for the same consumer; when the last one is dropped it is told to stop, without
/// waiting for it.
#[derive(Debug, Clone)]
pub struct Consumer {
    stop: Arc<StopOnDrop>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Starts a consumer: checks the configuration, waits for Kafka to answer, and reads from then on.
///
/// Must be called within a tokio runtime, on which the handler's futures run.
///
/// # Errors
///
/// [`StartError`]; after the start Kafka may go away and come back.
pub async fn start<H: Handler>(
    config: Config,
    handler: H,
    registry: &Registry,
) -> Result<Consumer, StartError> {
    config.validate()?;
    let tokio = tokio::runtime::Handle::current();
    let connecting = config.clone();
    let identity = handler.store().map(|store| Identity::new(store.identity()));
    let claimed = identity.clone();
    let (connected, outlet) = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
        let timeout = Duration::from_millis(connecting.tuning.start_timeout_ms.into());
        let connected = connect(&connecting, timeout)?;
        if let Some(identity) = claimed {
            identity.claim(&connected.consumer, &connecting, timeout)?;
        }
        Ok((connected, Outlet::new(&connecting)?))
    })
    .await
    .map_err(|error| StartError::Client(error.to_string()))??;
    // Not waited for: a cluster that does not let us takes its time to say so.
    tokio.spawn(make_dead_letter_topics(config.clone(), connected.topics));
    // Last, so that a start that failed can be tried again with the same registry.
    let metrics = Metrics::new(&config, registry)?;

    let shared = Arc::new(Shared::new(Status {
        group: config.group.clone(),
        cluster: connected.cluster.to_string(),
        ..Status::default()
    }));
    let (end, ended) = watch::channel(None);
    let name = format!("consume-{}", config.group);
    let supervisor = Supervisor {
        effects: Effects {
            config,
            handler,
            tokio,
            shared: Arc::clone(&shared),
            metrics,
            outlet,
            identity,
            calls_done: 0,
        },
        cluster: connected.cluster,
        rebuilds_in_vain: 0,
    };
    let of_thread = Arc::clone(&shared);
    std::thread::Builder::new().name(name).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| supervisor.run(connected.consumer)))
            .unwrap_or_else(|panic| Err(format!("the consumer panicked: {}", panic_text(&*panic))));
        of_thread.with_status(|status| match &result {
            Ok(()) => (status.state, status.problem) = (State::Stopped, None),
            Err(reason) => {
                tracing::error!(group = status.group, reason, "the consumer stops");
                (status.state, status.problem) = (State::Failed, Some(reason.clone()));
            }
        });
        // Nobody may be left who wants to know.
        let _ = end.send(Some(result));
    })?;
    Ok(Consumer {
        stop: Arc::new(StopOnDrop(shared)),
        ended,
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

impl Consumer {
    /// A snapshot, at most some tenths of a second old.
    #[must_use]
    pub fn status(&self) -> Status {
        self.stop.0.with_status(|status| status.clone())
    }

    /// The identifier of the Kafka cluster that it reads.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.stop.0.with_status(|status| status.cluster.clone())
    }

    /// Completes when the consumer has ended: `Ok` after [`shutdown`](Self::shutdown), `Err` with the reason when it stopped by
    /// itself ([`HandleError::Fatal`](crate::HandleError::Fatal)).
    ///
    /// # Errors
    ///
    /// The reason in one sentence.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err("the consumer's thread is gone".to_owned()),
        }
    }

    /// Finishes what was begun, commits, leaves the group and ends. Whoever calls it again waits for the same end.
    ///
    /// # Errors
    ///
    /// The reason, when the consumer had stopped by itself.
    pub async fn shutdown(&self) -> Result<(), String> {
        self.stop.0.stop();
        self.ended().await
    }
}
