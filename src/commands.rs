//! The commands, one file each (the backends share one): parse, validate, bind, run, drain.

pub mod backend_process;
pub mod broker;
mod broker_node;
pub mod config;
pub mod ctl;
pub mod dlq;
pub mod groups;
mod leave;
pub mod load;
pub mod passwd;
pub mod replay;
pub mod topics;
pub mod up;

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::replay::Kafka;
use ::replay::audit::Audit;
use anyhow::Context;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::backends::Backend;
use crate::cli::Common;
use crate::config::Config;
use crate::exit::Failure;
use crate::log;
use crate::signals;

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

/// Runs a command that works through something, logging warnings, until it ends or is told to stop.
fn stoppable(
    common: &Common,
    work: impl FnOnce(&Config, &AtomicBool) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let config = prepare(common, "warn")?;
    block_on(async move {
        let mut shutdown = signals::listen().map_err(anyhow::Error::from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let of_work = Arc::clone(&stop);
        let work = blocking(move || work(&config, &of_work));
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => ended?,
            () = signals::asked(&mut shutdown) => {
                stop.store(true, Ordering::Relaxed);
                work.await?
            }
        }
    })
}

/// Does something that changes what Kafka has, with a record of it in `mill.audit` before and after. `told` are its counts.
fn audited<T>(
    kafka: &Kafka,
    id: &str,
    work: impl FnOnce() -> Result<T, Failure>,
    told: impl FnOnce(&T) -> Value,
) -> Result<T, Failure> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let who = format!("{}@{}", user.as_deref().unwrap_or("?"), host.trim());
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let audit = Audit::begin(kafka, id, &who, &command, now_ms())?;
    let ended = work();
    let result = match &ended {
        Ok(counts) => told(counts),
        Err(failure) => json!({ "failed": failure.to_string() }),
    };
    if let Err(error) = audit.end(result, now_ms()) {
        eprintln!("note: {error}");
    }
    ended
}

/// The time of day in milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
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
