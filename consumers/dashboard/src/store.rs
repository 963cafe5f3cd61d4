//! The totals, in the runtime's SQLite store. They are the only truth: rates and live percentiles are the difference between
//! two looks at them, so two processes that share a store show the same, and a restart loses nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use runtime::store::{Progress, ROWS_PER_STATEMENT_MAX, Schema, StoreError, is_whole};
use runtime::{Batch, HandleError, Poison};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use crate::count::{Counter, Counts, Kind, OTHER, Volume};

const SCHEMA: Schema = Schema {
    backend: "dashboard",
    versions: &[include_str!("schema.sql"), include_str!("schema_2.sql")],
};

/// Who was heard of within this time of the last note is not noted again: rows written anew for the messages of each device
/// would be most of the work. Far below the shortest window of activity, 10 s.
const NOTE_AGAIN_MS: i64 = 1_000;

/// Most devices and rooms of which it is known in memory when they were noted; beyond it, all is forgotten and noted again.
const NOTED_MAX: usize = 100_000;

/// Rows deleted in one transaction, so that a batch of records waits only milliseconds for it.
const FORGET_ROWS_MAX: i64 = 5_000;

/// The tables that grow.
pub(crate) const TABLES: &[&str] = &["prefixes", "latencies", "active"];

/// The store. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Store(runtime::store::Store);

/// All totals at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub prefixes: BTreeMap<String, Volume>,
    /// Messages by latency in microseconds.
    pub latencies: BTreeMap<u64, u64>,
    pub devices: u64,
    pub rooms: u64,
}

impl Totals {
    /// All prefixes together.
    pub(crate) fn volume(&self) -> Volume {
        self.prefixes
            .values()
            .fold(Volume::default(), |sum, volume| Volume {
                messages: sum.messages + volume.messages,
                bytes: sum.bytes + volume.bytes,
            })
    }
}

/// When devices and rooms were last noted as active, for the one who writes the notes.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    devices: HashMap<String, i64>,
    rooms: HashMap<String, i64>,
}

/// A device or room that is to be noted, with the time, milliseconds since the Unix epoch.
type Note<'a> = ((Kind, &'a str), i64);

impl Noted {
    fn of(&mut self, kind: Kind) -> &mut HashMap<String, i64> {
        match kind {
            Kind::Device => &mut self.devices,
            Kind::Room => &mut self.rooms,
        }
    }

    /// Those that were not noted lately.
    fn due<'a>(&mut self, active: HashMap<(Kind, &'a str), i64>) -> Vec<Note<'a>> {
        let is_due = |((kind, name), seen_ms): &Note<'a>| {
            let noted = self.of(*kind).get(*name);
            noted.is_none_or(|noted_ms| *seen_ms >= noted_ms.saturating_add(NOTE_AGAIN_MS))
        };
        active.into_iter().filter(is_due).collect()
    }

    /// The notes are in the store.
    fn remember(&mut self, notes: &[Note<'_>]) {
        if self.devices.len() + self.rooms.len() + notes.len() > NOTED_MAX {
            *self = Self::default();
        }
        for ((kind, name), seen_ms) in notes {
            match self.of(*kind).get_mut(*name) {
                Some(noted_ms) => *noted_ms = *seen_ms,
                None => drop(self.of(*kind).insert((*name).to_owned(), *seen_ms)),
            }
        }
    }
}

impl Store {
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        runtime::store::Store::open(url, SCHEMA).await.map(Self)
    }

    /// The runtime's store below it.
    pub(crate) fn file(&self) -> &runtime::store::Store {
        &self.0
    }

    /// Counts what of the batches was not counted before. Returns the records that cannot be counted, and how many devices
    /// and rooms were not noted because there are `active_max`.
    pub(crate) async fn apply(
        &self,
        batches: &[Batch],
        counter: &Counter,
        (prefixes_max, active_max): (u32, u32),
        noted: &mut Noted,
        now_micros: u64,
    ) -> Result<(Vec<Poison>, u64), HandleError> {
        let mut poison = Vec::new();
        let mut tx = self.0.write().await?;
        let mut known: HashSet<String> = sqlx::query_scalar("SELECT prefix FROM prefixes")
            .fetch_all(&mut *tx)
            .await?
            .into_iter()
            .collect();
        let mut sum = Counts::default();
        let progress = Progress::of(&mut tx, batches).await?;
        for (progress, batch) in progress.iter().zip(batches) {
            let counts = counter.count(
                batch,
                |offset| progress.is_new(offset),
                now_micros,
                &mut poison,
            );
            for (prefix, volume) in counts.prefixes {
                let sum = sum.prefixes.entry(prefix).or_default();
                sum.messages += volume.messages;
                sum.bytes += volume.bytes;
            }
            for (micros, messages) in counts.latencies {
                *sum.latencies.entry(micros).or_default() += messages;
            }
            for (who, seen_ms) in counts.active {
                let seen = sum.active.entry(who).or_default();
                *seen = seen_ms.max(*seen);
            }
        }
        Progress::advance(&mut tx, progress.iter().zip(batches)).await?;
        add_prefixes(&mut tx, bounded(sum.prefixes, &mut known, prefixes_max)).await?;
        add_latencies(&mut tx, &sum.latencies).await?;
        let mut notes = noted.due(sum.active);
        let too_many = bound_active(&mut tx, &mut notes, active_max).await?;
        note_active(&mut tx, &notes).await?;
        tx.commit().await?;
        noted.remember(&notes);
        Ok((poison, too_many))
    }

    /// All totals; who was heard of since `active_since_ms` is active.
    pub(crate) async fn totals(&self, active_since_ms: i64) -> sqlx::Result<Totals> {
        // One transaction: the sums belong to the same moment.
        let mut tx = self.0.reader().begin().await?;
        let prefixes: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT prefix, messages, bytes FROM prefixes")
                .fetch_all(&mut *tx)
                .await?;
        let latencies: Vec<(i64, i64)> = sqlx::query_as("SELECT micros, messages FROM latencies")
            .fetch_all(&mut *tx)
            .await?;
        let mut active = [0; 2];
        for (kind, count) in [Kind::Device, Kind::Room].into_iter().zip(&mut active) {
            let found: i64 =
                sqlx::query_scalar("SELECT count(*) FROM active WHERE kind = ? AND seen_ms >= ?")
                    .bind(kind.code())
                    .bind(active_since_ms)
                    .fetch_one(&mut *tx)
                    .await?;
            *count = found.unsigned_abs();
        }
        tx.commit().await?;
        Ok(Totals {
            prefixes: prefixes
                .into_iter()
                .map(|(prefix, messages, bytes)| {
                    (
                        prefix,
                        Volume {
                            messages: messages.unsigned_abs(),
                            bytes: bytes.unsigned_abs(),
                        },
                    )
                })
                .collect(),
            latencies: latencies
                .into_iter()
                .map(|(micros, messages)| (micros.unsigned_abs(), messages.unsigned_abs()))
                .collect(),
            devices: active[0],
            rooms: active[1],
        })
    }

    /// Deletes who was not heard of since `active_since_ms`, a bounded part at a time; returns the rows deleted.
    pub(crate) async fn forget(&self, active_since_ms: i64) -> sqlx::Result<u64> {
        let mut tx = self.0.write().await?;
        let done = sqlx::query(
            "DELETE FROM active WHERE (kind, name) IN (SELECT kind, name FROM active WHERE seen_ms < ? LIMIT ?)",
        )
        .bind(active_since_ms)
        .bind(FORGET_ROWS_MAX)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

/// Takes out devices and rooms for which there is no place. Returns how many.
async fn bound_active(
    tx: &mut Transaction<'_, Sqlite>,
    notes: &mut Vec<Note<'_>>,
    active_max: u32,
) -> sqlx::Result<u64> {
    if notes.is_empty() {
        return Ok(0);
    }
    let rows: i64 = sqlx::query_scalar("SELECT total FROM active_count")
        .fetch_one(&mut **tx)
        .await?;
    let mut left = i64::from(active_max).saturating_sub(rows);
    if left >= i64::try_from(notes.len()).unwrap_or(i64::MAX) {
        return Ok(0);
    }
    // In the order of the alphabet, so that which are too many does not depend on chance.
    notes.sort_unstable_by_key(|((kind, name), _)| (kind.code(), *name));
    let mut kept = Vec::with_capacity(notes.len());
    let mut too_many = 0;
    for note in notes.drain(..) {
        let (kind, name) = note.0;
        let sql = "SELECT EXISTS (SELECT 1 FROM active WHERE kind = ? AND name = ?)";
        let is_there: bool = sqlx::query_scalar(sql)
            .bind(kind.code())
            .bind(name)
            .fetch_one(&mut **tx)
            .await?;
        if is_there {
            kept.push(note);
        } else if left > 0 {
            left -= 1;
            kept.push(note);
        } else {
            too_many += 1;
        }
    }
    *notes = kept;
    Ok(too_many)
}

/// Counts of prefixes beyond the bound become those of [`OTHER`].
fn bounded<'a>(
    counts: HashMap<&'a str, Volume>,
    known: &mut HashSet<String>,
    prefixes_max: u32,
) -> HashMap<&'a str, Volume> {
    let mut bounded: HashMap<&str, Volume> = HashMap::with_capacity(counts.len());
    let mut counts: Vec<_> = counts.into_iter().collect();
    // In the order of the alphabet, so that which are one too many does not depend on chance.
    counts.sort_unstable_by_key(|(prefix, _)| *prefix);
    for (prefix, volume) in counts {
        let fits = known.contains(prefix) || known.len() < prefixes_max as usize;
        if fits {
            known.insert(prefix.to_owned());
        }
        let sum = bounded
            .entry(if fits { prefix } else { OTHER })
            .or_default();
        sum.messages += volume.messages;
        sum.bytes += volume.bytes;
    }
    bounded
}

/// SQLite's integers are signed; no sum here comes near their end.
fn signed(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

async fn add_prefixes(
    tx: &mut Transaction<'_, Sqlite>,
    counts: HashMap<&str, Volume>,
) -> sqlx::Result<()> {
    let counts: Vec<_> = counts.into_iter().collect();
    for counts in counts.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO prefixes (prefix, messages, bytes) ");
        query.push_values(counts, |mut row, (prefix, volume)| {
            row.push_bind(*prefix)
                .push_bind(signed(volume.messages))
                .push_bind(signed(volume.bytes));
        });
        query.push(
            " ON CONFLICT (prefix) DO UPDATE SET
             messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
        );
        query
            .build()
            .persistent(is_whole(counts))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn add_latencies(
    tx: &mut Transaction<'_, Sqlite>,
    counts: &HashMap<u64, u64>,
) -> sqlx::Result<()> {
    let counts: Vec<_> = counts.iter().collect();
    for counts in counts.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO latencies (micros, messages) ");
        query.push_values(counts, |mut row, (micros, messages)| {
            row.push_bind(signed(**micros))
                .push_bind(signed(**messages));
        });
        query.push(" ON CONFLICT (micros) DO UPDATE SET messages = messages + excluded.messages");
        query
            .build()
            .persistent(is_whole(counts))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn note_active(tx: &mut Transaction<'_, Sqlite>, notes: &[Note<'_>]) -> sqlx::Result<()> {
    for notes in notes.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO active (kind, name, seen_ms) ");
        query.push_values(notes, |mut row, ((kind, name), seen_ms)| {
            row.push_bind(kind.code())
                .push_bind(*name)
                .push_bind(*seen_ms);
        });
        query.push(
            " ON CONFLICT (kind, name) DO UPDATE SET seen_ms = excluded.seen_ms
             WHERE excluded.seen_ms > seen_ms",
        );
        query
            .build()
            .persistent(is_whole(notes))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
