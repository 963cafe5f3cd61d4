//! How far each partition was consumed, in the store beside the effects.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{ROWS_PER_STATEMENT_MAX, Store};
use crate::batch::{Batch, Record};

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position<'a> {
    /// The Kafka cluster's identifier.
    pub cluster: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

impl Store {
    /// How far each topic and partition of a cluster was consumed: the first offset that was not.
    pub(crate) async fn positions(
        &self,
        cluster: &str,
    ) -> sqlx::Result<HashMap<(String, i32), i64>> {
        let rows: Vec<(String, i32, i64)> = sqlx::query_as(
            "SELECT topic, partition, next_offset FROM store_progress
             WHERE cluster = ? AND replaced = 0",
        )
        .bind(cluster)
        .fetch_all(self.reader())
        .await?;
        let position = |(topic, partition, next)| ((topic, partition), next);
        Ok(rows.into_iter().map(position).collect())
    }

    /// Whether the record at `position` was consumed.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn has_consumed(&self, position: Position<'_>) -> sqlx::Result<bool> {
        let next_offset: Option<i64> = sqlx::query_scalar(
            "SELECT next_offset FROM store_progress
             WHERE cluster = ? AND topic = ? AND partition = ? AND replaced = 0",
        )
        .bind(position.cluster)
        .bind(position.topic)
        .bind(position.partition)
        .fetch_optional(self.reader())
        .await?;
        Ok(next_offset.is_some_and(|next| next > position.offset))
    }
}

/// How far a partition was consumed, kept in the same transaction as the effects.
///
/// This is what makes effects idempotent: in one transaction a handler asks [`Progress::of`] its batches, applies the records
/// that are [new](Progress::is_new), looks up what it answered to the others, and [advances](Progress::advance).
///
/// ```ignore
/// let mut tx = store.write().await?;
/// let progress = Progress::of(&mut tx, batches).await?;
/// for (progress, batch) in progress.iter().zip(batches) {
///     for record in batch.iter() {
///         if progress.is_new(record.offset()) { /* apply */ } else { /* yield the same downlink again */ }
///     }
/// }
/// Progress::advance(&mut tx, progress.iter().zip(batches)).await?;
/// tx.commit().await?;
/// ```
///
/// A topic that is deleted and made again is another log under the same name, whose offsets begin at 0 again. Taken for
/// records seen before, its records would be lost. But no record that was consumed is younger than the youngest that was: an
/// offset that looks consumed with a timestamp above all of them proves another log. It gets a source of its own, and all of
/// it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// A small number that stands for one log: (cluster, topic, partition) until the topic is made anew. For use in the
    /// backend's own tables, beside the offset.
    pub source: i64,
    /// The first offset that was not yet consumed.
    pub next_offset: i64,
    /// The timestamp of the youngest record that was consumed, in milliseconds; negative without one.
    youngest_ms: i64,
}

impl Progress {
    /// Looks up how far the partitions of `batches` were consumed, in their order.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn of<'b>(
        connection: &mut SqliteConnection,
        batches: impl IntoIterator<Item = &'b Batch>,
    ) -> sqlx::Result<Vec<Self>> {
        let batches: Vec<&Batch> = batches.into_iter().collect();
        let mut all = Self::current(&mut *connection, &batches).await?;
        for (progress, batch) in all.iter_mut().zip(&batches) {
            if !progress.is_of_another_log(batch) {
                continue;
            }
            tracing::warn!(
                topic = batch.topic(),
                partition = batch.partition(),
                consumed_to = progress.next_offset,
                "the topic was made anew; all that is in it now is new"
            );
            sqlx::query("UPDATE store_progress SET replaced = source WHERE source = ?")
                .bind(progress.source)
                .execute(&mut *connection)
                .await?;
            for anew in Self::current(&mut *connection, &[batch]).await? {
                *progress = anew;
            }
        }
        Ok(all)
    }

    fn is_of_another_log(&self, batch: &Batch) -> bool {
        let seen = |record: &Record<'_>| !self.is_new(record.offset());
        let is_younger = |record: Record<'_>| {
            record
                .timestamp_ms()
                .is_some_and(|ms| ms > self.youngest_ms)
        };
        self.youngest_ms >= 0 && batch.iter().take_while(seen).any(is_younger)
    }

    /// One statement for all of them: each is a way to SQLite's thread and back.
    async fn current(
        connection: &mut SqliteConnection,
        batches: &[&Batch],
    ) -> sqlx::Result<Vec<Self>> {
        let mut found: HashMap<(String, String, i32), Self> = HashMap::new();
        for batches in batches.chunks(ROWS_PER_STATEMENT_MAX) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO store_progress (cluster, topic, partition, next_offset, youngest_ms) ",
            );
            query.push_values(batches, |mut row, batch| {
                row.push_bind(batch.cluster())
                    .push_bind(batch.topic())
                    .push_bind(batch.partition())
                    .push("0, -1");
            });
            // The update that changes nothing makes SQLite return the rows that were there, in no promised order.
            query.push(
                " ON CONFLICT (cluster, topic, partition, replaced) DO UPDATE SET next_offset = next_offset
                 RETURNING cluster, topic, partition, source, next_offset, youngest_ms",
            );
            let rows: Vec<(String, String, i32, i64, i64, i64)> =
                query.build_query_as().fetch_all(&mut *connection).await?;
            for (cluster, topic, partition, source, next_offset, youngest_ms) in rows {
                let progress = Self {
                    source,
                    next_offset,
                    youngest_ms,
                };
                found.insert((cluster, topic, partition), progress);
            }
        }
        let of = |batch: &&Batch| {
            let name = (
                batch.cluster().to_owned(),
                batch.topic().to_owned(),
                batch.partition(),
            );
            found.get(&name).copied().ok_or(sqlx::Error::RowNotFound)
        };
        batches.iter().map(of).collect()
    }

    /// Whether the record with this offset was not consumed yet.
    #[must_use]
    pub fn is_new(&self, offset: i64) -> bool {
        offset >= self.next_offset
    }

    /// Whether nothing of the partition was consumed.
    pub(super) fn has_nothing(&self) -> bool {
        self.next_offset == 0 && self.youngest_ms < 0
    }

    /// Writes down that all of each batch was consumed; what stands beside it is what [`Progress::of`] said of it.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn advance<'b>(
        connection: &mut SqliteConnection,
        batches: impl IntoIterator<Item = (&'b Self, &'b Batch)>,
    ) -> sqlx::Result<()> {
        let mut writes = QueryBuilder::new("");
        Self::push_advance(&mut writes, batches);
        writes.build().execute(connection).await?;
        Ok(())
    }

    /// As [`Progress::advance`], as further statements of a query that has others: for those who want few ways to SQLite's
    /// thread and back. Each ends with a semicolon.
    pub fn push_advance<'b>(
        writes: &mut QueryBuilder<Sqlite>,
        batches: impl IntoIterator<Item = (&'b Self, &'b Batch)>,
    ) {
        let batches: Vec<(&Self, &Batch)> = batches.into_iter().collect();
        super::origins::push_notes(writes, &batches);
        let advanced: Vec<Self> = batches
            .iter()
            .filter_map(|(progress, batch)| progress.after(batch))
            .collect();
        for advanced in advanced.chunks(ROWS_PER_STATEMENT_MAX) {
            writes.push("WITH new (source, next_offset, youngest_ms) AS (");
            writes.push_values(advanced, |mut row, progress| {
                row.push_bind(progress.source)
                    .push_bind(progress.next_offset)
                    .push_bind(progress.youngest_ms);
            });
            writes.push(
                ") UPDATE store_progress SET next_offset = new.next_offset, youngest_ms = new.youngest_ms
                 FROM new WHERE store_progress.source = new.source;",
            );
        }
    }

    /// The progress when all of `batch` is consumed; `None` when it was before.
    fn after(&self, batch: &Batch) -> Option<Self> {
        let next_offset = batch
            .next_offset()
            .filter(|next| *next > self.next_offset)?;
        let youngest_ms = batch
            .iter()
            .filter_map(Record::timestamp_ms)
            .max()
            .unwrap_or(-1);
        Some(Self {
            source: self.source,
            next_offset,
            youngest_ms: youngest_ms.max(self.youngest_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SCHEMA, url};
    use super::*;

    fn batch(cluster: &str, offsets: std::ops::Range<i64>, first_ms: i64) -> Batch {
        let mut batch = Batch::new("t", 3).of_cluster(cluster.into());
        for offset in offsets {
            batch.push(offset, Some(first_ms + offset), None, None, []);
        }
        batch
    }

    async fn consume(store: &Store, batch: &Batch) -> sqlx::Result<Progress> {
        let mut tx = store.write().await?;
        let progress = Progress::of(&mut tx, [batch]).await?;
        Progress::advance(&mut tx, progress.iter().zip([batch])).await?;
        tx.commit().await?;
        Ok(progress[0])
    }

    #[tokio::test]
    async fn progress_is_per_cluster_topic_and_partition_and_survives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let first = consume(&store, &batch("a", 0..10, 100)).await.unwrap();
        assert_eq!((first.next_offset, first.is_new(0)), (0, true));
        let other = consume(&store, &batch("b", 0..5, 100)).await.unwrap();
        assert_eq!(other.next_offset, 0);
        assert_ne!(first.source, other.source);
        // What was seen before takes nothing back.
        consume(&store, &batch("a", 3..6, 100)).await.unwrap();
        store.close().await;

        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let again = consume(&store, &batch("a", 8..12, 100)).await.unwrap();
        assert_eq!((again.source, again.next_offset), (first.source, 10));
        assert_eq!((again.is_new(9), again.is_new(10)), (false, true));
        assert_eq!(
            consume(&store, &batch("a", 12..12, 100))
                .await
                .unwrap()
                .next_offset,
            12
        );
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_progress_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let batch_of_ten = batch("a", 0..10, 100);
        let progress = Progress::of(&mut tx, [&batch_of_ten]).await.unwrap();
        Progress::advance(&mut tx, progress.iter().zip([&batch_of_ten]))
            .await
            .unwrap();
        drop(tx);
        assert_eq!(
            consume(&store, &batch("a", 0..1, 100))
                .await
                .unwrap()
                .next_offset,
            0
        );
    }

    #[tokio::test]
    async fn a_topic_that_was_made_anew_is_another_log() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let old = consume(&store, &batch("a", 0..10, 1_000)).await.unwrap();
        // Seen again, whole or in part, it is the same log.
        assert_eq!(
            consume(&store, &batch("a", 0..10, 1_000))
                .await
                .unwrap()
                .source,
            old.source
        );
        assert_eq!(
            consume(&store, &batch("a", 5..12, 1_000))
                .await
                .unwrap()
                .source,
            old.source
        );
        // Offsets that were consumed, but younger than all that was.
        let new = consume(&store, &batch("a", 0..3, 2_000)).await.unwrap();
        assert_ne!(new.source, old.source);
        assert!(new.is_new(0));
        let again = consume(&store, &batch("a", 0..5, 2_000)).await.unwrap();
        assert_eq!((again.source, again.next_offset), (new.source, 3));
        // And once more.
        let third = consume(&store, &batch("a", 0..3, 3_000)).await.unwrap();
        assert!(third.source != new.source && third.source != old.source && third.is_new(0));
    }

    #[tokio::test]
    async fn partitions_of_one_call_advance_by_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let mut batches: Vec<Batch> = (0..40)
            .map(|partition| Batch::new("t", partition))
            .collect();
        batches.push(Batch::new("u", 3));
        for (batch, end) in batches.iter_mut().zip(1..) {
            for offset in 0..end {
                batch.push(offset, Some(100 + offset), None, None, []);
            }
        }
        consume(&store, &batches[7]).await.unwrap();
        for first_time in [true, false] {
            let mut tx = store.write().await.unwrap();
            let all = Progress::of(&mut tx, &batches).await.unwrap();
            let mut sources: Vec<i64> = all.iter().map(|progress| progress.source).collect();
            sources.sort_unstable();
            sources.dedup();
            assert_eq!(sources.len(), batches.len());
            for (index, (progress, batch)) in all.iter().zip(&batches).enumerate() {
                let expected = if first_time && index != 7 {
                    0
                } else {
                    batch.len()
                };
                assert_eq!(progress.next_offset, i64::try_from(expected).unwrap());
            }
            Progress::advance(&mut tx, all.iter().zip(&batches))
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn records_without_timestamps_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let mut batch = Batch::new("t", 3);
        batch.push(0, None, None, None, []);
        let first = consume(&store, &batch).await.unwrap();
        let again = consume(&store, &batch).await.unwrap();
        assert_eq!((again.source, again.next_offset), (first.source, 1));
    }
}
