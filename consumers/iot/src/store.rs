//! What the backend keeps, in the runtime's SQLite store.

mod batch;
mod commands;
mod forget;
mod rules;
mod value;
mod views;

use runtime::store::{Schema, StoreError};

pub use batch::{Partition, ReadingAt, ReplyAt};
pub use commands::{Command, Dispatch, NewCommand, Status};
pub(crate) use forget::Forgetter;
#[cfg(test)]
pub(crate) use views::Point;
pub use views::{Cursor, Range};

const SCHEMA: Schema = Schema {
    backend: "iot",
    versions: &[
        include_str!("store/schema.sql"),
        include_str!("store/schema_2.sql"),
        include_str!("store/schema_3.sql"),
        include_str!("store/schema_4.sql"),
        include_str!("store/schema_5.sql"),
    ],
};

/// The tables that grow.
pub const TABLES: &[&str] = &[
    "series",
    "samples",
    "alerts",
    "commands",
    "stray_replies",
    "rules",
];

/// How much the store may hold, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Metrics of a device.
    pub metrics_per_device_max: u32,
    /// Devices.
    pub devices_max: u32,
    /// Readings of a metric.
    pub series_points_max: u32,
    /// Alerts.
    pub alerts_max: u32,
    /// Commands that have come to their end, and replies to those of others.
    pub commands_max: u32,
    /// What is older is deleted; 0 is never.
    pub retention_days: u32,
    /// A metric of which nothing came for so long, and of which nothing is left but the last value, is deleted; 0 is never.
    pub silent_days: u32,
}

/// Before when things are deleted, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Readings, alerts, commands.
    pub ms: i64,
    /// Metrics of which nothing else is left.
    pub silent_ms: i64,
}

impl Limits {
    /// Before when things are deleted at a moment, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn before(&self, now_ms: i64) -> Before {
        const DAY_MS: i64 = 86_400_000;
        let before = |days: u32| match days {
            0 => i64::MIN,
            days => now_ms.saturating_sub(i64::from(days) * DAY_MS),
        };
        Before {
            ms: before(self.retention_days),
            silent_ms: before(self.silent_days),
        }
    }
}

/// The store. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Store(runtime::store::Store);

impl Store {
    /// Opens the database and makes what it lacks.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        runtime::store::Store::open(url, SCHEMA).await.map(Self)
    }

    /// The runtime's store below it.
    pub fn file(&self) -> &runtime::store::Store {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One whose numbers nobody reads.
    pub(crate) fn growth(store: &Store) -> runtime::Growth {
        let registry = prometheus::Registry::new();
        runtime::Growth::new(store.file(), "iot", TABLES, &[], &registry).expect("registers")
    }

    pub(crate) async fn store(dir: &tempfile::TempDir) -> Store {
        let url = format!("sqlite:{}", dir.path().join("iot.db").display());
        Store::open(&url).await.expect("opens")
    }

    /// A database of before values could be booleans and texts keeps what is in it, whole numbers as numbers too.
    #[tokio::test]
    async fn an_older_database_keeps_its_readings() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("iot.db").display());
        let older = Schema {
            backend: "iot",
            versions: &SCHEMA.versions[..2],
        };
        let old = runtime::store::Store::open(&url, older)
            .await
            .expect("opens");
        let mut tx = old.write().await.expect("begins");
        sqlx::raw_sql(
            "INSERT INTO series VALUES (1, 'd', 't', 21, 2, 3, 2, 1);
             INSERT INTO samples VALUES (1, 1, 1, 0, 20.5), (1, 2, 1, 1, 21);
             INSERT INTO alerts VALUES (1, 1, 1, 1, 21, 20.75, 2);",
        )
        .execute(&mut *tx)
        .await
        .expect("inserts");
        tx.commit().await.expect("commits");
        drop(old);

        let store = Store::open(&url).await.expect("opens");
        let number = crate::telemetry::Value::Number;
        let all = Range {
            from_ms: 0,
            to_ms: 10,
            before: None,
            points_max: 10,
        };
        let page = store.points("d", "t", all).await.expect("reads");
        let points = page.expect("a series").points;
        assert_eq!(
            points
                .iter()
                .map(|point| (point.at, point.value.clone()))
                .collect::<Vec<_>>(),
            [(1, number(20.5)), (2, number(21.0))]
        );
        let metrics = store.metrics("d").await.expect("reads");
        assert_eq!(metrics[0].value, number(21.0));
    }

    impl Store {
        /// Makes the disk full (`Some`: from this many pages on) or gives it room again.
        pub(crate) async fn limit_pages(&self, pages_max: Option<u32>) {
            let pages_max = pages_max.unwrap_or(u32::MAX - 1);
            let mut tx = self.0.write().await.expect("begins");
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "PRAGMA max_page_count = {pages_max}"
            )))
            .execute(&mut *tx)
            .await
            .expect("sets");
            tx.commit().await.expect("commits");
        }
    }
}
