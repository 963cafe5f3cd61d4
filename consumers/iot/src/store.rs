//! What the backend keeps, in the runtime's SQLite store.

mod batch;
mod commands;
mod rules;
mod value;
mod views;

use runtime::store::{Schema, StoreError};

pub use batch::{Partition, ReadingAt, ReplyAt};
pub use commands::{Command, Dispatch, NewCommand, Status};
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
    ],
};

/// Rows deleted in one transaction, so that a batch of records waits only milliseconds for it.
const FORGET_ROWS_MAX: i64 = 5_000;

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

    /// Deletes samples, alerts and commands older than `before_ms`, a bounded part at a time. Returns the rows deleted; 0
    /// means that nothing is left to delete.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn forget(&self, before_ms: i64) -> sqlx::Result<u64> {
        let mut tx = self.0.write().await?;
        let mut rows = 0;
        for sql in [
            // The series are few beside the samples, and the oldest samples of each stand together.
            r#"DELETE FROM samples WHERE (series, at_ms, source, "offset") IN (
                   SELECT s.series, s.at_ms, s.source, s."offset"
                   FROM series CROSS JOIN samples s ON s.series = series.id
                   WHERE s.at_ms < ?1 LIMIT ?2)"#,
            r#"DELETE FROM alerts WHERE (source, "offset", series) IN (
                   SELECT source, "offset", series FROM alerts WHERE at_ms < ?1 LIMIT ?2)"#,
            r#"DELETE FROM stray_replies WHERE (source, "offset") IN (
                   SELECT source, "offset" FROM stray_replies WHERE at_ms < ?1 LIMIT ?2)"#,
            "DELETE FROM commands WHERE seq IN (
                   SELECT seq FROM commands WHERE expires_ms < ?1 LIMIT ?2)",
        ] {
            let done = sqlx::query(sql)
                .bind(before_ms)
                .bind(FORGET_ROWS_MAX)
                .execute(&mut *tx)
                .await?;
            rows += done.rows_affected();
        }
        tx.commit().await?;
        Ok(rows)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
