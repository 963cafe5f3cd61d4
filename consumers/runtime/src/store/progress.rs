//! How far each partition was consumed, in the store beside the effects.

use sqlx::SqliteConnection;

use crate::{Batch, Record};

/// How far a partition was consumed, kept in the same transaction as the effects.
///
/// This is what makes effects idempotent: in one transaction a handler asks [`Progress::of`] each batch, applies the records
/// that are [new](Progress::is_new), looks up what it answered to the others, and [advances](Progress::advance).
///
/// ```ignore
/// let mut tx = store.write().await?;
/// for batch in batches {
///     let progress = Progress::of(&mut tx, batch).await?;
///     for record in batch.iter() {
///         if progress.is_new(record.offset()) { /* apply */ } else { /* yield the same downlink again */ }
///     }
///     progress.advance(&mut tx, batch).await?;
/// }
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
    /// Looks up how far the partition of `batch` was consumed.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn of(connection: &mut SqliteConnection, batch: &Batch) -> sqlx::Result<Self> {
        let found = Self::current(&mut *connection, batch).await?;
        let seen = |record: &Record<'_>| !found.is_new(record.offset());
        let is_younger = |record: Record<'_>| {
            record
                .timestamp_ms()
                .is_some_and(|ms| ms > found.youngest_ms)
        };
        if found.youngest_ms < 0 || !batch.iter().take_while(seen).any(is_younger) {
            return Ok(found);
        }
        tracing::warn!(
            topic = batch.topic(),
            partition = batch.partition(),
            consumed_to = found.next_offset,
            "the topic was made anew; all that is in it now is new"
        );
        sqlx::query("UPDATE store_progress SET replaced = source WHERE source = ?")
            .bind(found.source)
            .execute(&mut *connection)
            .await?;
        Self::current(connection, batch).await
    }

    async fn current(connection: &mut SqliteConnection, batch: &Batch) -> sqlx::Result<Self> {
        // The update that changes nothing makes SQLite return the row that was there.
        let (source, next_offset, youngest_ms) = sqlx::query_as(
            "INSERT INTO store_progress (cluster, topic, partition, next_offset, youngest_ms)
             VALUES (?, ?, ?, 0, -1)
             ON CONFLICT (cluster, topic, partition, replaced) DO UPDATE SET next_offset = next_offset
             RETURNING source, next_offset, youngest_ms",
        )
        .bind(batch.cluster().to_owned())
        .bind(batch.topic().to_owned())
        .bind(batch.partition())
        .fetch_one(connection)
        .await?;
        Ok(Self {
            source,
            next_offset,
            youngest_ms,
        })
    }

    /// Whether the record with this offset was not consumed yet.
    #[must_use]
    pub fn is_new(&self, offset: i64) -> bool {
        offset >= self.next_offset
    }

    /// Writes down that all of `batch` was consumed.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn advance(
        &self,
        connection: &mut SqliteConnection,
        batch: &Batch,
    ) -> sqlx::Result<()> {
        let Some(next_offset) = batch.next_offset().filter(|next| *next > self.next_offset) else {
            return Ok(());
        };
        let youngest_ms = batch
            .iter()
            .filter_map(Record::timestamp_ms)
            .max()
            .unwrap_or(-1);
        sqlx::query("UPDATE store_progress SET next_offset = ?, youngest_ms = ? WHERE source = ?")
            .bind(next_offset)
            .bind(youngest_ms.max(self.youngest_ms))
            .bind(self.source)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
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
        let progress = Progress::of(&mut tx, batch).await?;
        progress.advance(&mut tx, batch).await?;
        tx.commit().await?;
        Ok(progress)
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
        let progress = Progress::of(&mut tx, &batch("a", 0..10, 100))
            .await
            .unwrap();
        progress
            .advance(&mut tx, &batch("a", 0..10, 100))
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
