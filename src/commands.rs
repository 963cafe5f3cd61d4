//! The commands, one file each (the backends share one): parse, validate, bind, run, drain.

pub mod backend_process;
pub mod broker;
mod broker_node;
pub mod config;
pub mod ctl;
pub mod load;
pub mod replay;
pub mod up;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;

use crate::backends::Backend;
use crate::cli::Common;
use crate::config::Config;
use crate::exit::Failure;
use crate::log;

/// Threads for everything that is not per packet: HTTP, the bridge's control loops, consumers.
const RUNTIME_THREADS_MIN: usize = 2;

/// How long a backend may take to finish what it began.
const BACKEND_DRAIN: Duration = Duration::from_secs(20);
/// How long a step of the drain may take that needs Kafka, when it is away: what was begun is begun again by whoever
/// comes after.
const KAFKA_AWAY_DRAIN: Duration = Duration::from_secs(3);

/// Reads the configuration file and starts logging, at level `log` unless somebody said otherwise.
fn prepare(common: &Common, log: &str) -> Result<Config, Failure> {
    let config = Config::load(common.config.as_deref())?;
    log::start(common.log.as_deref(), common.log_format, &config.log, log)?;
    Ok(config)
}

/// Runs `process` on a tokio runtime of its own.
fn block_on(process: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(RUNTIME_THREADS_MIN))
        .thread_name("millstream-io")
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let ended = runtime.block_on(process);
    // A blocking call of a library must not hold the end up: everything that counts has been drained.
    runtime.shutdown_background();
    ended
}

/// Runs what blocks (a start that waits for Kafka, a drain) where it keeps nobody from working.
async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(what).await;
    Ok(done.context("a thread ended badly")?)
}

/// Waits for a step of the drain, but not longer than `limit`: a library that waits for a Kafka that is away must not
/// keep the process from ending. `None`: it was left behind.
async fn within<T>(limit: Duration, what: &str, step: impl Future<Output = T>) -> Option<T> {
    let done = tokio::time::timeout(limit, step).await.ok();
    if done.is_none() {
        tracing::warn!("waited {limit:?} in vain for {what}");
    }
    done
}

/// Finishes what the backends began, all at the same time.
async fn drain_backends(backends: Vec<Backend>) {
    let ends = backends.into_iter().map(|backend| {
        let what = format!("the {} backend to finish", backend.kind.name());
        let away = backend
            .running
            .status()
            .kafka_unreachable_since_ms
            .is_some();
        let limit = if away {
            KAFKA_AWAY_DRAIN
        } else {
            BACKEND_DRAIN
        };
        async move { within(limit, &what, backend.running.shutdown()).await }
    });
    join_all(ends).await;
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    match written {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to standard output")?),
    }
}
