//! What keeps a store from growing without end: how large it is, which limits it has come to, and rows that are deleted when
//! their time is over, in the background and a part at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::sync::watch;

use crate::status::{Sizes, Status};
use crate::store::Store;

/// Between two measurements; more where one takes long, so that it stays below a hundredth of the time.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
const MEASURE_SHARE: u32 = 100;

/// How long a limit that was reached is a problem.
const REACHED_SHOWN: Duration = Duration::from_secs(60);

/// Between two rounds in which what is over is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// Between two parts of a round: at least this, and several times what the part took, so that records that wait for the
/// writer go first.
const PART_PAUSE: Duration = Duration::from_millis(20);
const PART_SHARE: u32 = 4;

/// Deletes what is over.
pub trait Forget: Send + 'static {
    /// Deletes a bounded part in a transaction of its own, so that a batch of records waits only milliseconds for it. Returns
    /// whether more may be left, and the rows deleted.
    fn forget(&mut self) -> impl Future<Output = sqlx::Result<Part>> + Send;

    /// The time between two rounds.
    fn every(&self) -> Duration {
        FORGET_EVERY
    }
}

/// A part of what was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Rows deleted.
    pub rows: u64,
    /// Whether more may be left.
    pub more: bool,
}

/// The growth of a store. Clones are about the same store.
#[derive(Clone)]
pub struct Growth(Arc<Inner>);

struct Inner {
    store: Store,
    tables: &'static [&'static str],
    sizes: Mutex<Option<Sizes>>,
    reached: Mutex<BTreeMap<&'static str, (u64, Instant)>>,
    bytes: IntGauge,
    free_bytes: IntGauge,
    rows: IntGaugeVec,
    forgotten: IntCounter,
    refused: IntCounterVec,
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth")
            .field("tables", &self.0.tables)
            .finish_non_exhaustive()
    }
}

impl Growth {
    /// Of the store of a consumer group: its tables, and the keys of the limits on what they hold.
    ///
    /// # Errors
    ///
    /// Two metrics have one name: there is another one in the registry.
    pub fn new(
        store: &Store,
        group: &str,
        tables: &'static [&'static str],
        limits: &[&'static str],
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| {
            Opts::new(format!("millstream_store_{name}"), help).const_label("group", group)
        };
        let inner = Inner {
            store: store.clone(),
            tables,
            sizes: Mutex::default(),
            reached: Mutex::default(),
            bytes: IntGauge::with_opts(opts("bytes", "Bytes of the database's file"))?,
            free_bytes: IntGauge::with_opts(opts(
                "free_bytes",
                "Bytes in the database's file that deleted rows left for new ones",
            ))?,
            rows: IntGaugeVec::new(opts("rows", "Rows, by table"), &["table"])?,
            forgotten: IntCounter::with_opts(opts(
                "forgotten_rows_total",
                "Rows deleted because they were too old or too many",
            ))?,
            refused: IntCounterVec::new(
                opts(
                    "limit_refusals_total",
                    "What was not kept because of a limit on how many different things there may be, by limit",
                ),
                &["limit"],
            )?,
        };
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(inner.bytes.clone()),
            Box::new(inner.free_bytes.clone()),
            Box::new(inner.rows.clone()),
            Box::new(inner.forgotten.clone()),
            Box::new(inner.refused.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        for limit in limits {
            inner.refused.with_label_values(&[*limit]);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// So much was not kept because of the limit with the key `limit`, which allows `allowed`.
    pub fn refused(&self, limit: &'static str, allowed: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.0.refused.with_label_values(&[limit]).inc_by(count);
        let mut reached = lock(&self.0.reached);
        let before = reached.insert(limit, (allowed, Instant::now()));
        if before.is_none_or(|(_, at)| at.elapsed() >= REACHED_SHOWN) {
            tracing::warn!(limit, allowed, "a limit is reached");
        }
    }

    /// Says in a status how large the store is, and which limits stood in the way a short while ago.
    pub(crate) fn describe(&self, status: &mut Status) {
        status.store.clone_from(&lock(&self.0.sizes));
        let mut reached = lock(&self.0.reached);
        reached.retain(|_, (_, at)| at.elapsed() < REACHED_SHOWN);
        if reached.is_empty() {
            return;
        }
        let limits: Vec<String> = reached
            .iter()
            .map(|(limit, (allowed, _))| format!("{limit} = {allowed}"))
            .collect();
        let problem = format!(
            "what is new is not kept, because a limit is reached: {}",
            limits.join(", ")
        );
        status.problem = Some(match status.problem.take() {
            Some(other) => format!("{other}; {problem}"),
            None => problem,
        });
    }

    /// Measures now and then, until `stop` changes.
    pub(crate) async fn measure(self, mut stop: watch::Receiver<bool>) {
        loop {
            let began = Instant::now();
            match self.0.store.sizes(self.0.tables).await {
                Ok(sizes) => self.measured(sizes),
                Err(error) => tracing::debug!(%error, "the store could not be measured"),
            }
            let pause = MEASURE_EVERY.max(began.elapsed() * MEASURE_SHARE);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return,
            }
        }
    }

    fn measured(&self, sizes: Sizes) {
        let signed = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        self.0.bytes.set(signed(sizes.bytes));
        self.0.free_bytes.set(signed(sizes.free_bytes));
        for (table, rows) in &sizes.rows {
            self.0.rows.with_label_values(&[*table]).set(signed(*rows));
        }
        *lock(&self.0.sizes) = Some(sizes);
    }

    /// Has `what` delete what is over, now and then, until `stop` changes.
    pub(crate) async fn forget(self, mut what: impl Forget, mut stop: watch::Receiver<bool>) {
        loop {
            let began = Instant::now();
            let pause = match what.forget().await {
                Ok(part) => {
                    self.0.forgotten.inc_by(part.rows);
                    if part.more {
                        PART_PAUSE.max(began.elapsed() * PART_SHARE)
                    } else {
                        what.every()
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "old data could not be deleted; it is tried again later");
                    what.every()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::Schema;

    const SCHEMA: Schema = Schema {
        backend: "test",
        versions: &["CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT NOT NULL);"],
    };

    async fn growth(dir: &tempfile::TempDir) -> (Store, Growth, Registry) {
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        let store = Store::open(&url, SCHEMA).await.expect("opens");
        let registry = Registry::new();
        let growth = Growth::new(&store, "g", &["things"], &["things_max"], &registry);
        (store, growth.expect("registers"), registry)
    }

    #[tokio::test]
    async fn it_says_how_large_a_store_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, growth, registry) = growth(&dir).await;
        let mut tx = store.write().await.expect("begins");
        sqlx::query("INSERT INTO things VALUES (1, ?), (2, ?)")
            .bind("x".repeat(20_000))
            .bind("y")
            .execute(&mut *tx)
            .await
            .expect("inserts");
        tx.commit().await.expect("commits");
        let mut status = Status::default();
        growth.describe(&mut status);
        assert_eq!(status.store, None, "not measured yet");
        let (_stop, stopped) = watch::channel(false);
        let measuring = tokio::spawn(growth.clone().measure(stopped));
        let sizes = loop {
            growth.describe(&mut status);
            if let Some(sizes) = status.store.take() {
                break sizes;
            }
            tokio::task::yield_now().await;
        };
        measuring.abort();
        assert_eq!(sizes.rows, BTreeMap::from([("things", 2)]));
        assert!(sizes.bytes > 20_000, "{sizes:?}");
        let mut tx = store.write().await.expect("begins");
        sqlx::query("DELETE FROM things WHERE id = 1")
            .execute(&mut *tx)
            .await
            .expect("deletes");
        tx.commit().await.expect("commits");
        let after = store.sizes(&["things"]).await.expect("measures");
        assert_eq!(after.rows["things"], 1);
        assert!(after.free_bytes > sizes.free_bytes + 10_000, "{after:?}");
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("encodes");
        for line in [
            "millstream_store_rows{group=\"g\",table=\"things\"} 2",
            "millstream_store_limit_refusals_total{group=\"g\",limit=\"things_max\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    #[tokio::test]
    async fn a_limit_that_is_reached_is_a_problem_beside_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_store, growth, _) = growth(&dir).await;
        let mut status = Status::default();
        growth.refused("things_max", 5, 0);
        growth.describe(&mut status);
        assert_eq!(status.problem, None);
        growth.refused("things_max", 5, 2);
        growth.describe(&mut status);
        let reached = "what is new is not kept, because a limit is reached: things_max = 5";
        assert_eq!(status.problem.as_deref(), Some(reached));
        status.problem = Some("another".to_owned());
        growth.describe(&mut status);
        assert_eq!(status.problem, Some(format!("another; {reached}")));
    }

    struct Parts(Arc<AtomicU64>);

    impl Forget for Parts {
        async fn forget(&mut self) -> sqlx::Result<Part> {
            let parts = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Part {
                rows: 10,
                more: parts < 2,
            })
        }
    }

    #[tokio::test]
    async fn what_is_over_goes_part_by_part_and_then_a_round_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_store, growth, _) = growth(&dir).await;
        tokio::time::pause();
        let parts = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = watch::channel(false);
        let forgotten = growth.0.forgotten.clone();
        let task = tokio::spawn(growth.forget(Parts(Arc::clone(&parts)), stopped));
        tokio::time::sleep(FORGET_EVERY / 2).await;
        assert_eq!(parts.load(Ordering::SeqCst), 3);
        tokio::time::sleep(FORGET_EVERY).await;
        assert_eq!((parts.load(Ordering::SeqCst), forgotten.get()), (4, 40));
        stop.send_replace(true);
        task.await.expect("ends");
    }
}
