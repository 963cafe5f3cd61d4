//! The messages of one call of the handler, in one transaction.

use std::collections::HashMap;

use runtime::store::{Progress, ROWS_PER_STATEMENT_MAX, is_whole};
use runtime::{Batch, HandleError};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::Store;
use crate::message::Message;

/// What a batch of records says.
#[derive(Debug)]
pub struct Partition<'a> {
    /// The records.
    pub batch: &'a Batch,
    /// The messages in them, in order; a record that could not be read has none.
    pub messages: Vec<Incoming<'a>>,
}

/// A message and the record it came in.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The record's offset.
    pub offset: i64,
    /// The room.
    pub room: &'a str,
    /// The message.
    pub message: Message<'a>,
    /// When the broker took it, milliseconds since the Unix epoch.
    pub received_ms: Option<i64>,
}

/// What became of a message: for its receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Which of the partitions.
    pub partition: usize,
    /// Which of its messages.
    pub message: usize,
    /// Its sequence number in the room.
    pub seq: i64,
    /// When it was stored first, milliseconds since the Unix epoch.
    pub stored_ms: i64,
    /// Whether it had been stored before.
    pub again: bool,
}

/// A room as the transaction found it and as it will leave it.
struct RoomState {
    room: i64,
    last_seq: i64,
    changed: bool,
}

impl Store {
    /// Stores the messages that are new and looks up those that are not. The answers are in the order of the records.
    ///
    /// # Errors
    ///
    /// What the store says; nothing was written then.
    pub async fn apply(
        &self,
        partitions: &[Partition<'_>],
        now_ms: i64,
    ) -> Result<Vec<Stored>, HandleError> {
        let mut tx = self.0.write().await?;
        let batches = partitions.iter().map(|partition| partition.batch);
        let progress = Progress::of(&mut tx, batches.clone()).await?;
        let mut rooms = find_rooms(&mut tx, partitions, &progress).await?;
        let mut all = Vec::with_capacity(
            partitions
                .iter()
                .map(|partition| partition.messages.len())
                .sum(),
        );
        let mut rows = Vec::with_capacity(all.capacity());
        for (index, (partition, progress)) in partitions.iter().zip(&progress).enumerate() {
            all.extend(stored_before(&mut tx, index, partition, *progress).await?);
            for (position, incoming) in partition.messages.iter().enumerate() {
                if !progress.is_new(incoming.offset) {
                    continue;
                }
                let Some(room) = rooms.get_mut(incoming.room) else {
                    return Err(HandleError::Fatal(format!(
                        "the room {:?} was not made",
                        incoming.room
                    )));
                };
                room.last_seq += 1;
                room.changed = true;
                let seq = room.last_seq;
                rows.push(Row {
                    room: room.room,
                    seq,
                    source: progress.source,
                    incoming,
                });
                all.push(Stored {
                    partition: index,
                    message: position,
                    seq,
                    stored_ms: now_ms,
                    again: false,
                });
            }
        }
        // All in one go, for the sake of the latency of receipts: each way to the connection's thread and back takes two
        // switches, which on a busy machine wait for a core.
        let mut writes = QueryBuilder::new("");
        insert_messages(&mut writes, &rows, now_ms);
        update_rooms(&mut writes, &rooms, now_ms);
        update_members(&mut writes, &rows);
        Progress::push_advance(&mut writes, progress.iter().zip(batches));
        writes.build().persistent(false).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(all)
    }
}

struct Row<'a> {
    room: i64,
    seq: i64,
    source: i64,
    incoming: &'a Incoming<'a>,
}

/// The rooms of new messages; those that do not exist are made.
async fn find_rooms<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    partitions: &[Partition<'a>],
    progress: &[Progress],
) -> sqlx::Result<HashMap<&'a str, RoomState>> {
    let mut names: Vec<&'a str> = partitions
        .iter()
        .zip(progress)
        .flat_map(|(partition, progress)| {
            partition
                .messages
                .iter()
                .filter(|incoming| progress.is_new(incoming.offset))
        })
        .map(|incoming| incoming.room)
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut rooms = HashMap::with_capacity(names.len());
    for part in names.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO rooms (name) ");
        insert.push_values(part, |mut row, name| {
            row.push_bind(*name);
        });
        // The update that changes nothing makes SQLite return the rows that were there.
        insert.push(" ON CONFLICT (name) DO UPDATE SET name = name RETURNING room, name, last_seq");
        let found: Vec<(i64, String, i64)> = insert
            .build_query_as()
            .persistent(is_whole(part))
            .fetch_all(&mut **tx)
            .await?;
        for (room, name, last_seq) in found {
            // Rows come back in no promised order.
            if let Ok(index) = part.binary_search(&name.as_str()) {
                rooms.insert(
                    part[index],
                    RoomState {
                        room,
                        last_seq,
                        changed: false,
                    },
                );
            }
        }
    }
    Ok(rooms)
}

/// The messages that the records of this batch became when they were applied.
async fn stored_before(
    tx: &mut Transaction<'_, Sqlite>,
    index: usize,
    partition: &Partition<'_>,
    progress: Progress,
) -> sqlx::Result<Vec<Stored>> {
    let Some(first) = partition
        .batch
        .first_offset()
        .filter(|first| !progress.is_new(*first))
    else {
        return Ok(Vec::new());
    };
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        r#"SELECT "offset", seq, stored_ms FROM messages
           WHERE source = ? AND "offset" >= ? AND "offset" < ? ORDER BY "offset""#,
    )
    .bind(progress.source)
    .bind(first)
    .bind(progress.next_offset)
    .fetch_all(&mut **tx)
    .await?;
    let find = |(offset, seq, stored_ms): (i64, i64, i64)| {
        let message = partition
            .messages
            .binary_search_by_key(&offset, |incoming| incoming.offset)
            .ok()?;
        Some(Stored {
            partition: index,
            message,
            seq,
            stored_ms,
            again: true,
        })
    };
    Ok(rows.into_iter().filter_map(find).collect())
}

fn insert_messages(writes: &mut QueryBuilder<Sqlite>, rows: &[Row<'_>], now_ms: i64) {
    for part in rows.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push(r#"INSERT INTO messages (room, seq, source, "offset", id, sender, text, received_ms, stored_ms) "#);
        writes.push_values(part, |mut row, new| {
            let message = &new.incoming.message;
            row.push_bind(new.room)
                .push_bind(new.seq)
                .push_bind(new.source)
                .push_bind(new.incoming.offset)
                .push_bind(message.id.as_deref())
                .push_bind(&*message.from)
                .push_bind(&*message.text)
                .push_bind(new.incoming.received_ms)
                .push_bind(now_ms);
        });
        writes.push(";");
    }
}

fn update_rooms(writes: &mut QueryBuilder<Sqlite>, rooms: &HashMap<&str, RoomState>, now_ms: i64) {
    let changed: Vec<&RoomState> = rooms.values().filter(|room| room.changed).collect();
    for part in changed.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push("WITH new (room, last_seq, last_at_ms) AS (");
        writes.push_values(part, |mut row, room| {
            row.push_bind(room.room)
                .push_bind(room.last_seq)
                .push_bind(now_ms);
        });
        writes.push(
            ") UPDATE rooms SET last_seq = new.last_seq, last_at_ms = new.last_at_ms
             FROM new WHERE rooms.room = new.room;",
        );
    }
}

/// Who writes is a member, and has read the room up to the own message.
fn update_members(writes: &mut QueryBuilder<Sqlite>, rows: &[Row<'_>]) {
    let mut written: HashMap<(i64, &str), i64> = HashMap::new();
    for row in rows {
        // Rows come in the order of their sequence numbers, so the last is the highest.
        written.insert((row.room, &row.incoming.message.from), row.seq);
    }
    let written: Vec<_> = written.into_iter().collect();
    for part in written.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push("INSERT INTO members (user, room, read_seq) ");
        writes.push_values(part, |mut row, ((room, user), seq)| {
            row.push_bind(*user).push_bind(*room).push_bind(*seq);
        });
        writes.push(
            " ON CONFLICT (user, room) DO UPDATE SET read_seq = max(read_seq, excluded.read_seq);",
        );
    }
}
