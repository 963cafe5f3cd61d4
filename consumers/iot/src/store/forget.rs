//! Readings, alerts and commands that are too old, or too many, are deleted, and devices of which nothing is left.

use std::collections::BTreeMap;

use runtime::store::{ROWS_PER_STATEMENT_MAX, is_whole};
use runtime::{Forget, Part};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::{Before, Limits, Store};
use crate::clock::now_ms;

/// Rows deleted in one transaction, so that a batch of records waits only milliseconds for it.
const ROWS_MAX: i64 = 5_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Forgetter {
    store: Store,
    limits: Limits,
}

impl Forgetter {
    pub(crate) fn new(store: Store, limits: Limits) -> Self {
        Self { store, limits }
    }
}

impl Forget for Forgetter {
    async fn forget(&mut self) -> sqlx::Result<Part> {
        let before = self.limits.before(now_ms());
        let rows = self.store.forget(before, &self.limits).await?;
        Ok(Part {
            rows,
            more: rows > 0,
        })
    }
}

/// A reading: series, time, source, offset.
type Key = (i64, i64, i64, i64);

/// A series, and how many of its readings are to go.
type Excess = (i64, i64);

impl Store {
    /// Deletes what is older than `before`, or more than `limits` allow, a bounded part at a time. Returns the rows
    /// deleted; 0 means that nothing is left to delete.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn forget(&self, before: Before, limits: &Limits) -> sqlx::Result<u64> {
        let before_ms = before.ms;
        // What takes long to find is looked for beside the writer. The series are few beside the samples, and the oldest
        // samples of each stand together.
        let old: Vec<Key> = sqlx::query_as(
            r#"SELECT s.series, s.at_ms, s.source, s."offset"
               FROM series CROSS JOIN samples s ON s.series = series.id
               WHERE s.at_ms < ?1 LIMIT ?2"#,
        )
        .bind(before_ms)
        .bind(ROWS_MAX)
        .fetch_all(self.0.reader())
        .await?;
        let full: Vec<Excess> = sqlx::query_as(
            "SELECT id, samples - forgotten - ?1 FROM series WHERE samples - forgotten > ?1 LIMIT 100",
        )
        .bind(i64::from(limits.series_points_max))
        .fetch_all(self.0.reader())
        .await?;
        let gone: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM series WHERE last_received_ms < ?1 AND samples <= forgotten LIMIT ?2",
        )
        .bind(before.silent_ms)
        .bind(ROWS_MAX)
        .fetch_all(self.0.reader())
        .await?;
        let alerts = self
            .excess("SELECT count(*) FROM alerts", limits.alerts_max)
            .await?;
        let commands = self
            .excess("SELECT count(*) FROM commands", limits.commands_max)
            .await?;
        let strays = self
            .excess("SELECT count(*) FROM stray_replies", limits.commands_max)
            .await?;
        let mut tx = self.0.write().await?;
        let mut rows = forget_samples(&mut tx, &old).await?;
        for excess in full {
            rows += forget_first_samples(&mut tx, excess).await?;
            if rows >= ROWS_MAX.unsigned_abs() {
                break;
            }
        }
        for (sql, bound, rows_max) in [
            (
                r#"DELETE FROM alerts WHERE (source, "offset", series) IN (
                       SELECT source, "offset", series FROM alerts WHERE at_ms < ?1 LIMIT ?2)"#,
                before_ms,
                ROWS_MAX,
            ),
            (
                r#"DELETE FROM alerts WHERE (source, "offset", series) IN (
                       SELECT source, "offset", series FROM alerts WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)"#,
                i64::MAX,
                alerts,
            ),
            (
                r#"DELETE FROM stray_replies WHERE (source, "offset") IN (
                       SELECT source, "offset" FROM stray_replies WHERE at_ms < ?1 LIMIT ?2)"#,
                before_ms,
                ROWS_MAX,
            ),
            (
                r#"DELETE FROM stray_replies WHERE (source, "offset") IN (
                       SELECT source, "offset" FROM stray_replies WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)"#,
                i64::MAX,
                strays,
            ),
            (
                "DELETE FROM commands WHERE seq IN (
                     SELECT seq FROM commands WHERE expires_ms < ?1 LIMIT ?2)",
                before_ms,
                ROWS_MAX,
            ),
            // Those that wait for Kafka or for a device stay.
            (
                "DELETE FROM commands WHERE seq IN (
                     SELECT seq FROM commands WHERE status IN (2, 3, 4, 7) AND expires_ms < ?1 ORDER BY seq LIMIT ?2)",
                i64::MAX,
                commands,
            ),
        ] {
            if rows_max > 0 {
                let done = sqlx::query(sql)
                    .bind(bound)
                    .bind(rows_max)
                    .execute(&mut *tx)
                    .await?;
                rows += done.rows_affected();
            }
        }
        rows += forget_series(&mut tx, before.silent_ms, &gone).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// How many rows are too many, as far as one transaction deletes.
    async fn excess(&self, count: &'static str, rows_max: u32) -> sqlx::Result<i64> {
        let rows: i64 = sqlx::query_scalar(count).fetch_one(self.0.reader()).await?;
        Ok((rows - i64::from(rows_max)).clamp(0, ROWS_MAX))
    }
}

async fn forget_samples(tx: &mut Transaction<'_, Sqlite>, old: &[Key]) -> sqlx::Result<u64> {
    let mut rows = 0;
    let mut of_series: BTreeMap<i64, i64> = BTreeMap::new();
    for part in old.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut delete = QueryBuilder::<Sqlite>::new(
            r#"DELETE FROM samples WHERE (series, at_ms, source, "offset") IN ("#,
        );
        delete.push_values(part, |mut row, (series, at_ms, source, offset)| {
            row.push_bind(*series)
                .push_bind(*at_ms)
                .push_bind(*source)
                .push_bind(*offset);
        });
        delete.push(") RETURNING series");
        let forgotten: Vec<i64> = delete
            .build_query_scalar()
            .persistent(is_whole(part))
            .fetch_all(&mut **tx)
            .await?;
        rows += forgotten.len() as u64;
        for series in forgotten {
            *of_series.entry(series).or_default() += 1;
        }
    }
    let of_series: Vec<(i64, i64)> = of_series.into_iter().collect();
    for part in of_series.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut update = QueryBuilder::<Sqlite>::new("WITH gone (id, samples) AS (");
        update.push_values(part, |mut row, (id, samples)| {
            row.push_bind(*id).push_bind(*samples);
        });
        update.push(
            ") UPDATE series SET forgotten = forgotten + gone.samples FROM gone WHERE series.id = gone.id",
        );
        update
            .build()
            .persistent(is_whole(part))
            .execute(&mut **tx)
            .await?;
    }
    Ok(rows)
}

async fn forget_first_samples(
    tx: &mut Transaction<'_, Sqlite>,
    (series, excess): Excess,
) -> sqlx::Result<u64> {
    let wanted = excess.min(ROWS_MAX);
    let done = sqlx::query(
        r#"DELETE FROM samples WHERE (series, at_ms, source, "offset") IN (
               SELECT series, at_ms, source, "offset" FROM samples WHERE series = ?1
               ORDER BY at_ms, source, "offset" LIMIT ?2)"#,
    )
    .bind(series)
    .bind(wanted)
    .execute(&mut **tx)
    .await?;
    let rows = done.rows_affected();
    sqlx::query("UPDATE series SET forgotten = forgotten + ? WHERE id = ?")
        .bind(wanted)
        .bind(series)
        .execute(&mut **tx)
        .await?;
    Ok(rows)
}

/// Deletes series of which nothing is left. What was true when they were looked for may not be any more.
async fn forget_series(
    tx: &mut Transaction<'_, Sqlite>,
    before_ms: i64,
    gone: &[i64],
) -> sqlx::Result<u64> {
    let mut rows = 0;
    for part in gone.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut delete =
            QueryBuilder::<Sqlite>::new("DELETE FROM series WHERE last_received_ms < ");
        delete.push_bind(before_ms);
        delete.push(
            " AND NOT EXISTS (SELECT 1 FROM samples WHERE samples.series = series.id)
              AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.series = series.id) AND id IN (",
        );
        let mut ids = delete.separated(", ");
        for id in part {
            ids.push_bind(*id);
        }
        delete.push(")");
        let done = delete.build().persistent(false).execute(&mut **tx).await?;
        rows += done.rows_affected();
    }
    Ok(rows)
}
