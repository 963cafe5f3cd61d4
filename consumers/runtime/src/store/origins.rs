//! Originals and their copies: which records of a replay had their effect before, as the originals or as earlier copies.
//!
//! An original that was consumed is behind the store's [`Progress`]; one in a topic that the group reads comes by itself. Neither
//! is true of what Kafka had deleted before its turn came, so such gaps are noted. A copy that was consumed is noted in the
//! transaction of its effects, with its own place: the same record, read again, is no second copy.

use std::collections::{HashMap, HashSet};

use envelope::replay::{Origin, TARGET_GROUP};
use sqlx::{QueryBuilder, Sqlite};

use super::{Progress, ROWS_PER_STATEMENT_MAX, Store};
use crate::batch::{Batch, Record};
use crate::status::Gap;

/// Copies that are noted; the oldest notes go. A replay of more, done twice, may have its first effects twice.
const NOTES_MAX: i64 = 1_000_000;

type Place = (String, i32, i64);

/// The originals of some copies, as a store knows them.
#[derive(Debug, Default)]
pub(crate) struct Originals {
    /// By topic and partition, the first offset that was not consumed.
    consumed: HashMap<(String, i32), i64>,
    /// What was not consumed before that, and never will be.
    gaps: Vec<Gap>,
    /// By place of the original, the place of the copy that was consumed.
    copies: HashMap<Place, Place>,
}

/// The offsets of the records in each of `batches` that have no effect for this group, in their order: they are meant for another
/// group, or their effect is there. `topics` are those that the group reads.
pub(crate) fn without_effect(
    batches: &[Batch],
    group: &str,
    topics: &[String],
    originals: &Originals,
) -> Vec<Vec<i64>> {
    let mut in_this_call = HashSet::new();
    let mut left_out = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut of_batch = Vec::new();
        for record in batch.iter().filter(|_| batch.has_copies()) {
            let target = record.header(TARGET_GROUP);
            let is_for_others = target.is_some_and(|target| target != group.as_bytes());
            let has_effect = !is_for_others
                && record.origin().is_none_or(|origin| {
                    !originals.had_effect(record, origin, topics, target.is_some())
                        && in_this_call.insert(origin)
                });
            if !has_effect {
                of_batch.push(record.offset());
            }
        }
        left_out.push(of_batch);
    }
    left_out
}

impl Originals {
    /// Whether the effect of a copy is there, or will be: its original was consumed or comes by itself, or another copy of it
    /// was. `once_more`: the original was consumed, and given up.
    fn had_effect(
        &self,
        copy: Record<'_>,
        origin: Origin<'_>,
        topics: &[String],
        once_more: bool,
    ) -> bool {
        let partition = (origin.topic.to_owned(), origin.partition);
        let place = (partition.0.clone(), partition.1, origin.offset);
        if let Some((topic, partition, offset)) = self.copies.get(&place) {
            return (&**topic, *partition, *offset)
                != (copy.topic(), copy.partition(), copy.offset());
        }
        let is_in = |gap: &Gap| {
            (&*gap.topic, gap.partition) == (origin.topic, origin.partition)
                && (gap.from..gap.to).contains(&origin.offset)
        };
        if once_more || self.gaps.iter().any(is_in) {
            return false;
        }
        topics.iter().any(|topic| topic == origin.topic)
            || (self.consumed.get(&partition)).is_some_and(|next| *next > origin.offset)
    }
}

impl Store {
    /// What is known of the originals of all copies in `batches`, which are of one cluster.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn originals(&self, batches: &[Batch]) -> sqlx::Result<Originals> {
        let Some(cluster) = batches.first().map(Batch::cluster) else {
            return Ok(Originals::default());
        };
        let mut originals = Originals {
            consumed: self.positions(cluster).await?,
            gaps: self.gaps(cluster).await?,
            copies: HashMap::new(),
        };
        let copies = batches.iter().filter(|batch| batch.has_copies());
        let origins: Vec<Origin<'_>> = copies
            .flat_map(Batch::iter)
            .filter_map(Record::origin)
            .collect();
        for origins in origins.chunks(ROWS_PER_STATEMENT_MAX) {
            let mut query =
                QueryBuilder::<Sqlite>::new("WITH asked (topic, partition, origin) AS (");
            query.push_values(origins, |mut row, origin| {
                row.push_bind(origin.topic)
                    .push_bind(origin.partition)
                    .push_bind(origin.offset);
            });
            query.push(
                ") SELECT topic, partition, origin, copy_topic, copy_partition, copy_offset
                   FROM asked JOIN store_origins USING (topic, partition, origin) WHERE cluster = ",
            );
            query.push_bind(cluster);
            let rows: Vec<(String, i32, i64, String, i32, i64)> =
                query.build_query_as().fetch_all(self.reader()).await?;
            for (topic, partition, offset, of_topic, of_partition, of_offset) in rows {
                originals.copies.insert(
                    (topic, partition, offset),
                    (of_topic, of_partition, of_offset),
                );
            }
        }
        Ok(originals)
    }

    async fn gaps(&self, cluster: &str) -> sqlx::Result<Vec<Gap>> {
        let rows: Vec<(String, i32, i64, i64)> = sqlx::query_as(
            "SELECT topic, partition, first, next FROM store_gaps WHERE cluster = ?",
        )
        .bind(cluster)
        .fetch_all(self.reader())
        .await?;
        let gap = |(topic, partition, from, to)| Gap {
            topic,
            partition,
            from,
            to,
        };
        Ok(rows.into_iter().map(gap).collect())
    }

    /// Notes what Kafka had no longer.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn note_gaps(&self, cluster: &str, gaps: &[Gap]) -> sqlx::Result<()> {
        if gaps.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        for gap in gaps {
            sqlx::query(NOTE_GAP)
                .bind(cluster)
                .bind(&gap.topic)
                .bind(gap.partition)
                .bind(gap.from)
                .bind(gap.to)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }
}

/// One that begins where another does is longer: nothing in it was consumed.
const NOTE_GAP: &str =
    "INSERT INTO store_gaps (cluster, topic, partition, first, next) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (cluster, topic, partition, first) DO UPDATE SET next = max(next, excluded.next)";

/// Notes the copies in `batches` that are new, and where a partition was first read from. Each statement ends with a semicolon.
pub(super) fn push_notes(writes: &mut QueryBuilder<Sqlite>, batches: &[(&Progress, &Batch)]) {
    let copies = batches.iter().filter(|(_, batch)| batch.has_copies());
    let new: Vec<(Record<'_>, Origin<'_>)> = copies
        .flat_map(|(progress, batch)| {
            let is_new = |record: &Record<'_>| progress.is_new(record.offset());
            batch.iter().filter(is_new)
        })
        .filter_map(|record| Some((record, record.origin()?)))
        .collect();
    for new in new.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push(
            "INSERT OR IGNORE INTO store_origins
             (cluster, topic, partition, origin, copy_topic, copy_partition, copy_offset) ",
        );
        writes.push_values(new, |mut row, (copy, origin)| {
            row.push_bind(copy.batch().cluster())
                .push_bind(origin.topic)
                .push_bind(origin.partition)
                .push_bind(origin.offset)
                .push_bind(copy.topic())
                .push_bind(copy.partition())
                .push_bind(copy.offset());
        });
        writes.push(";");
    }
    if !new.is_empty() {
        writes.push("DELETE FROM store_origins WHERE id <= (SELECT max(id) FROM store_origins) - ");
        writes.push_bind(NOTES_MAX);
        writes.push(";");
    }
    // Its log began later than at 0 when it was first read.
    let begins = |(progress, batch): &(&Progress, &Batch)| {
        let first = batch.first_offset().filter(|first| *first > 0)?;
        progress.has_nothing().then_some(first)
    };
    for (batch, first) in batches
        .iter()
        .filter_map(|pair| Some((pair.1, begins(pair)?)))
    {
        writes.push("INSERT OR IGNORE INTO store_gaps (cluster, topic, partition, first, next) ");
        writes.push_values([first], |mut row, first| {
            row.push_bind(batch.cluster())
                .push_bind(batch.topic())
                .push_bind(batch.partition())
                .push("0")
                .push_bind(first);
        });
        writes.push(";");
    }
}

#[cfg(test)]
mod tests {
    use envelope::replay::ORIGIN;

    use super::super::tests::{SCHEMA, url};
    use super::*;

    /// Records at these offsets, each with the origin that stands beside it; the latter may have `>GROUP` behind it.
    fn batch(topic: &str, records: &[(i64, &str)]) -> Batch {
        let mut batch = Batch::new(topic, 0).of_cluster("c".into());
        for (offset, origin) in records {
            let (origin, group) = origin.split_once('>').unwrap_or((origin, ""));
            let headers = [(ORIGIN, origin), (TARGET_GROUP, group)];
            let headers = headers
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name, Some(value.as_bytes())));
            batch.push(*offset, Some(100 + offset), None, None, headers);
        }
        batch
    }

    async fn consume(store: &Store, batch: &Batch) {
        let mut tx = store.write().await.unwrap();
        let progress = Progress::of(&mut tx, [batch]).await.unwrap();
        Progress::advance(&mut tx, progress.iter().zip([batch]))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    /// Which records of `batch` have no effect for the group `g`, which reads the topic `t`.
    async fn left_out(store: &Store, batch: Batch) -> Vec<i64> {
        let batches = [batch];
        let originals = store.originals(&batches).await.unwrap();
        without_effect(&batches, "g", &["t".to_owned()], &originals).remove(0)
    }

    async fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(&url(dir), SCHEMA).await.unwrap()
    }

    #[tokio::test]
    async fn a_copy_of_what_was_consumed_or_comes_by_itself_has_no_effect() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        consume(&store, &batch("t", &[(0, ""), (1, ""), (2, "")])).await;
        consume(&store, &batch("old", &[(0, ""), (1, "")])).await;
        let copies = [
            (3, "t/0/2"),   // consumed
            (4, "t/0/9"),   // comes by itself
            (5, "old/0/1"), // consumed while the group read that topic
            (6, "old/0/2"),
            (7, "other/0/0"),
            (8, "other/0/0"), // the second of this call
            (9, ""),
            (10, "no place"),
        ];
        assert_eq!(left_out(&store, batch("t", &copies)).await, [3, 4, 5, 8]);
    }

    #[tokio::test]
    async fn a_copy_for_one_group_is_left_out_by_the_others_and_had_no_effect_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        consume(&store, &batch("t", &[(0, ""), (1, ""), (2, "")])).await;
        let copies = [(3, "t/0/0>g"), (4, "t/0/1>other"), (5, ">other"), (6, ">g")];
        assert_eq!(left_out(&store, batch("t", &copies)).await, [4, 5]);
        consume(&store, &batch("t", &[(3, "t/0/0>g")])).await;
        assert_eq!(left_out(&store, batch("t", &[(7, "t/0/0>g")])).await, [7]);
    }

    #[tokio::test]
    async fn a_second_copy_has_no_effect_but_the_first_read_again_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let first = [(0, "u/0/7"), (1, "u/0/8")];
        consume(&store, &batch("t", &first)).await;
        assert_eq!(left_out(&store, batch("t", &first)).await, [0; 0]);
        let second = [(2, "u/0/7"), (3, "u/0/9")];
        assert_eq!(left_out(&store, batch("t", &second)).await, [2]);
    }

    #[tokio::test]
    async fn what_kafka_had_no_longer_was_not_consumed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        // The log began at 5 when it was first read, and at 20 when it was read again.
        consume(&store, &batch("t", &[(5, ""), (6, "")])).await;
        let gap = Gap {
            topic: "t".to_owned(),
            partition: 0,
            from: 7,
            to: 20,
        };
        store
            .note_gaps("c", std::slice::from_ref(&gap))
            .await
            .unwrap();
        store.note_gaps("c", &[gap]).await.unwrap();
        consume(&store, &batch("t", &[(20, "")])).await;
        let copies = [
            (21, "t/0/4"),
            (22, "t/0/5"),
            (23, "t/0/7"),
            (24, "t/0/19"),
            (25, "t/0/20"),
        ];
        assert_eq!(left_out(&store, batch("t", &copies)).await, [22, 25]);
    }
}
