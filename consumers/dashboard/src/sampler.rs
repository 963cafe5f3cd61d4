//! Once a second: looks at the totals, and tells all viewers.
//!
//! There is one text for all of them, and only the latest: a viewer that does not keep up misses some, and costs nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime::{Forget, Part};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use crate::clock::now_ms;
use crate::live::{Figures, Live, Point};
use crate::store::Store;
use crate::watch::{Logs, Watcher};

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// How often those who were not heard of for long are deleted.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Something that people should know about now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// `kafka`, `consumer` or `store`.
    pub kind: &'static str,
    pub text: String,
    /// Since when, milliseconds since the Unix epoch, where that is known.
    pub since: Option<u64>,
}

/// What every viewer gets.
#[derive(Debug, Serialize)]
struct Tick<'a> {
    at: i64,
    figures: &'a Figures,
    point: Option<&'a Point>,
    active_window_s: u32,
    logs: &'a Logs,
    lag: u64,
    dead_letters_here: u64,
    problems: &'a [Problem],
    viewers: u64,
    viewers_max: u32,
}

/// What the sampler looks at, and what the HTTP API serves.
#[derive(Debug)]
pub(crate) struct Shared {
    pub live: Mutex<Live>,
    /// The latest tick as JSON.
    pub tick: watch::Sender<Arc<str>>,
    pub viewers: Arc<Semaphore>,
    pub viewers_max: u32,
}

/// The task.
pub(crate) struct Sampler {
    pub shared: Arc<Shared>,
    pub store: Store,
    pub consumer: runtime::Consumer,
    pub watcher: Watcher,
    pub active_window_s: u32,
}

/// Since when somebody must have been heard of to be active.
fn active_since_ms(active_window_s: u32) -> i64 {
    now_ms() - i64::from(active_window_s) * 1_000
}

/// Deletes those who were not heard of for long.
pub(crate) struct Forgetter {
    pub store: Store,
    pub active_window_s: u32,
}

impl Forget for Forgetter {
    async fn forget(&mut self) -> sqlx::Result<Part> {
        let rows = self
            .store
            .forget(active_since_ms(self.active_window_s))
            .await?;
        Ok(Part {
            rows,
            more: rows > 0,
        })
    }

    fn every(&self) -> Duration {
        FORGET_EVERY
    }
}

impl Sampler {
    /// Looks and tells until `stop` changes, then ends the watcher too.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        self.look_until(stop).await;
        if let Err(error) = tokio::task::spawn_blocking(move || self.watcher.stop()).await {
            tracing::error!(%error, "the thread that watches Kafka's logs could not be ended");
        }
    }

    async fn look_until(&self, mut stop: watch::Receiver<bool>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = stop.changed() => return,
            }
            let now = Instant::now();
            self.sample(now.duration_since(last).as_secs_f64()).await;
            last = now;
        }
    }

    /// Looks once and tells.
    pub(crate) async fn sample(&self, elapsed_s: f64) {
        let totals = self
            .store
            .totals(active_since_ms(self.active_window_s))
            .await;
        let at = now_ms();
        let status = self.consumer.status();
        let mut problems = problems(&status);
        let json = {
            let mut live = self
                .shared
                .live
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match totals {
                Ok(totals) => live.take(totals, at, elapsed_s),
                Err(error) => {
                    let text = format!(
                        "The dashboard's store cannot be read ({error}); the numbers stand still."
                    );
                    problems.push(Problem {
                        kind: "store",
                        text,
                        since: None,
                    });
                }
            }
            let tick = Tick {
                at,
                figures: &live.figures(),
                point: live.point(),
                active_window_s: self.active_window_s,
                logs: &self.watcher.logs(),
                lag: status.lag,
                dead_letters_here: status.dead_letters,
                problems: &problems,
                viewers: u64::from(self.shared.viewers_max)
                    .saturating_sub(self.shared.viewers.available_permits() as u64),
                viewers_max: self.shared.viewers_max,
            };
            serde_json::to_string(&tick)
        };
        match json {
            Ok(json) => drop(self.shared.tick.send_replace(json.into())),
            Err(error) => tracing::error!(%error, "the figures cannot be written as JSON"),
        }
    }
}

fn problems(status: &runtime::Status) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(since) = status.kafka_unreachable_since_ms {
        let text = "Kafka cannot be reached. Nothing is lost: counting goes on where it stopped when Kafka is back.";
        problems.push(Problem {
            kind: "kafka",
            text: text.to_owned(),
            since: Some(since),
        });
    } else if let Some(problem) = &status.problem {
        problems.push(Problem {
            kind: "consumer",
            text: problem.clone(),
            since: None,
        });
    }
    problems
}
