//! The messages of one call of the handler, in one transaction.

use std::collections::HashMap;

use runtime::store::{Progress, ROWS_PER_STATEMENT_MAX, is_whole};
use runtime::{Batch, HandleError};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::Store;
use crate::change::{Change, What};
use crate::message::Message;

/// What a batch of records says.
#[derive(Debug)]
pub struct Partition<'a> {
    /// The records.
    pub batch: &'a Batch,
    /// The messages in them, in order; a record that could not be read has none.
    pub messages: Vec<Incoming<'a>>,
    /// The changes of members in them, in order.
    pub changes: Vec<Changed<'a>>,
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
    /// When it was stored first: the time of its record in Kafka.
    pub stored_ms: i64,
}

/// A change of a member and the record it came in.
#[derive(Debug)]
pub struct Changed<'a> {
    /// The record's offset.
    pub offset: i64,
    /// The room.
    pub room: &'a str,
    /// The change.
    pub change: Change<'a>,
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
    /// Whether it was this record that made the message, and not one that its sender had sent before.
    pub first: bool,
}

/// A room as the transaction found it and as it will leave it.
struct RoomState {
    room: i64,
    last_seq: i64,
    /// When the last message of this call was stored; `None` while there is none.
    last_at_ms: Option<i64>,
}

/// A message that is in the store, or will be by this call.
#[derive(Debug, Clone, Copy)]
struct Known {
    seq: i64,
    stored_ms: i64,
    source: i64,
    offset: i64,
}

/// What makes a message one, whatever it is sent again in: room, sender, and the sender's own identifier.
type Identity<'a> = (i64, &'a str, &'a str);

/// What happens to members, in the order in which it happens.
enum Members<'a> {
    /// Who wrote, and up to which message.
    Wrote(Vec<((i64, &'a str), i64)>),
    /// Somebody joins a room whose last message is this.
    Joins {
        room: i64,
        user: &'a str,
        last_seq: i64,
    },
    /// Another change.
    Changes(&'a Changed<'a>),
}

impl Store {
    /// Stores the messages that are new, looks up those that are not, and applies changes of members. The answers are in
    /// the order of the records.
    ///
    /// # Errors
    ///
    /// What the store says; nothing was written then.
    pub async fn apply(&self, partitions: &[Partition<'_>]) -> Result<Vec<Stored>, HandleError> {
        let mut tx = self.0.write().await?;
        let batches = partitions.iter().map(|partition| partition.batch);
        let progress = Progress::of(&mut tx, batches.clone()).await?;
        let mut call = Call {
            rooms: find_rooms(&mut tx, partitions, &progress).await?,
            known: HashMap::new(),
            rows: Vec::new(),
            members: Vec::new(),
            wrote: HashMap::new(),
            stored: Vec::new(),
        };
        call.known = find_known(&mut tx, partitions, &call.rooms).await?;
        for (index, (partition, progress)) in partitions.iter().zip(&progress).enumerate() {
            let before = stored_before(&mut tx, partition, *progress).await?;
            call.partition(index, partition, *progress, &before)?;
        }
        call.settle_writers();
        // All in one go, for the sake of the latency of receipts: each way to the connection's thread and back takes two
        // switches, which on a busy machine wait for a core.
        let mut writes = QueryBuilder::new("");
        insert_messages(&mut writes, &call.rows);
        update_rooms(&mut writes, &call.rooms);
        for step in &call.members {
            update_members(&mut writes, step);
        }
        Progress::push_advance(&mut writes, progress.iter().zip(batches));
        writes.build().persistent(false).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(call.stored)
    }
}

struct Row<'a> {
    room: i64,
    seq: i64,
    source: i64,
    incoming: &'a Incoming<'a>,
}

/// What one call finds and what it will write.
struct Call<'a> {
    rooms: HashMap<&'a str, RoomState>,
    known: HashMap<Identity<'a>, Known>,
    rows: Vec<Row<'a>>,
    members: Vec<Members<'a>>,
    /// Who wrote since the last change of a member.
    wrote: HashMap<(i64, &'a str), i64>,
    stored: Vec<Stored>,
}

impl<'a> Call<'a> {
    /// Messages and changes of one partition, in the order of their records.
    fn partition(
        &mut self,
        index: usize,
        partition: &'a Partition<'a>,
        progress: Progress,
        before: &HashMap<i64, Known>,
    ) -> Result<(), HandleError> {
        let mut changes = partition
            .changes
            .iter()
            .filter(|changed| progress.is_new(changed.offset))
            .peekable();
        for (message, incoming) in partition.messages.iter().enumerate() {
            while let Some(changed) = changes.next_if(|changed| changed.offset < incoming.offset) {
                self.change(changed)?;
            }
            let found = match &incoming.message.id {
                Some(id) => {
                    let room = self.room(incoming.room)?.room;
                    self.known.get(&(room, &*incoming.message.from, &**id))
                }
                None => before.get(&incoming.offset),
            };
            let (known, again) = match found {
                Some(known) => (*known, true),
                None if progress.is_new(incoming.offset) => {
                    (self.message(incoming, progress.source)?, false)
                }
                // Stored once, and forgotten since.
                None => continue,
            };
            self.stored.push(Stored {
                partition: index,
                message,
                seq: known.seq,
                stored_ms: known.stored_ms,
                again,
                first: (known.source, known.offset) == (progress.source, incoming.offset),
            });
        }
        changes.try_for_each(|changed| self.change(changed))
    }

    fn room(&mut self, name: &str) -> Result<&mut RoomState, HandleError> {
        self.rooms
            .get_mut(name)
            .ok_or_else(|| HandleError::Fatal(format!("the room {name:?} was not made")))
    }

    /// A new message.
    fn message(&mut self, incoming: &'a Incoming<'a>, source: i64) -> Result<Known, HandleError> {
        let state = self.room(incoming.room)?;
        state.last_seq += 1;
        state.last_at_ms = Some(incoming.stored_ms);
        let (room, seq) = (state.room, state.last_seq);
        self.rows.push(Row {
            room,
            seq,
            source,
            incoming,
        });
        let from = &*incoming.message.from;
        self.wrote.insert((room, from), seq);
        let known = Known {
            seq,
            stored_ms: incoming.stored_ms,
            source,
            offset: incoming.offset,
        };
        if let Some(id) = &incoming.message.id {
            self.known.insert((room, from, id), known);
        }
        Ok(known)
    }

    fn change(&mut self, changed: &'a Changed<'a>) -> Result<(), HandleError> {
        self.settle_writers();
        let step = match changed.change.what {
            What::Join => {
                let RoomState { room, last_seq, .. } = *self.room(changed.room)?;
                Members::Joins {
                    room,
                    user: &changed.change.user,
                    last_seq,
                }
            }
            What::Leave | What::Read(_) => Members::Changes(changed),
        };
        self.members.push(step);
        Ok(())
    }

    /// Who wrote until now is a member before what comes next.
    fn settle_writers(&mut self) {
        if !self.wrote.is_empty() {
            self.members
                .push(Members::Wrote(self.wrote.drain().collect()));
        }
    }
}

/// The rooms of messages and of those who join; those that do not exist are made.
async fn find_rooms<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    partitions: &'a [Partition<'a>],
    progress: &[Progress],
) -> sqlx::Result<HashMap<&'a str, RoomState>> {
    let mut names: Vec<&'a str> = partitions
        .iter()
        .zip(progress)
        .flat_map(|(partition, progress)| {
            let joins = |changed: &&Changed<'_>| {
                changed.change.what == What::Join && progress.is_new(changed.offset)
            };
            let written = partition.messages.iter().map(|incoming| incoming.room);
            let joined = partition.changes.iter().filter(joins);
            written.chain(joined.map(|changed| changed.room))
        })
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
                        last_at_ms: None,
                    },
                );
            }
        }
    }
    Ok(rooms)
}

/// The messages with an identifier that are in the store.
async fn find_known<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    partitions: &'a [Partition<'a>],
    rooms: &HashMap<&str, RoomState>,
) -> sqlx::Result<HashMap<Identity<'a>, Known>> {
    let identity = |incoming: &'a Incoming<'a>| {
        let room = rooms.get(incoming.room)?.room;
        let id = incoming.message.id.as_deref()?;
        Some((room, &*incoming.message.from, id))
    };
    let mut asked: Vec<Identity<'a>> = partitions
        .iter()
        .flat_map(|partition| &partition.messages)
        .filter_map(identity)
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let mut known: HashMap<Identity<'a>, Known> = HashMap::new();
    for part in asked.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut select = QueryBuilder::<Sqlite>::new("WITH asked (room, sender, id) AS (");
        select.push_values(part, |mut row, (room, sender, id)| {
            row.push_bind(*room).push_bind(*sender).push_bind(*id);
        });
        select.push(
            r#") SELECT m.room, m.sender, m.id, m.seq, m.stored_ms, m.source, m."offset"
               FROM asked CROSS JOIN messages m INDEXED BY messages_by_id
               ON m.room = asked.room AND m.sender = asked.sender AND m.id = asked.id
               WHERE m.id IS NOT NULL"#,
        );
        let rows: Vec<(i64, String, String, i64, i64, i64, i64)> = select
            .build_query_as()
            .persistent(is_whole(part))
            .fetch_all(&mut **tx)
            .await?;
        for (room, sender, id, seq, stored_ms, source, offset) in rows {
            let Ok(index) = part.binary_search(&(room, &*sender, &*id)) else {
                continue;
            };
            let found = Known {
                seq,
                stored_ms,
                source,
                offset,
            };
            // Older versions stored what was sent again a second time; the first counts.
            known
                .entry(part[index])
                .and_modify(|known| {
                    if seq < known.seq {
                        *known = found;
                    }
                })
                .or_insert(found);
        }
    }
    Ok(known)
}

/// The messages without an identifier that the records of this batch became when they were applied, by their offsets.
async fn stored_before(
    tx: &mut Transaction<'_, Sqlite>,
    partition: &Partition<'_>,
    progress: Progress,
) -> sqlx::Result<HashMap<i64, Known>> {
    let first = partition
        .messages
        .iter()
        .find(|incoming| incoming.message.id.is_none())
        .filter(|incoming| !progress.is_new(incoming.offset));
    let Some(first) = first else {
        return Ok(HashMap::new());
    };
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        r#"SELECT "offset", seq, stored_ms FROM messages
           WHERE source = ? AND "offset" >= ? AND "offset" < ?"#,
    )
    .bind(progress.source)
    .bind(first.offset)
    .bind(progress.next_offset)
    .fetch_all(&mut **tx)
    .await?;
    let known = |(offset, seq, stored_ms)| {
        let known = Known {
            seq,
            stored_ms,
            source: progress.source,
            offset,
        };
        (offset, known)
    };
    Ok(rows.into_iter().map(known).collect())
}

fn insert_messages(writes: &mut QueryBuilder<Sqlite>, rows: &[Row<'_>]) {
    for part in rows.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push(r#"INSERT INTO messages (room, seq, source, "offset", id, sender, text, received_ms, stored_ms, extra) "#);
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
                .push_bind(new.incoming.stored_ms)
                .push_bind(message.extra.as_deref());
        });
        writes.push(";");
    }
}

fn update_rooms(writes: &mut QueryBuilder<Sqlite>, rooms: &HashMap<&str, RoomState>) {
    let changed: Vec<(&RoomState, i64)> = rooms
        .values()
        .filter_map(|room| Some((room, room.last_at_ms?)))
        .collect();
    for part in changed.chunks(ROWS_PER_STATEMENT_MAX) {
        writes.push("WITH new (room, last_seq, last_at_ms) AS (");
        writes.push_values(part, |mut row, (room, last_at_ms)| {
            row.push_bind(room.room)
                .push_bind(room.last_seq)
                .push_bind(*last_at_ms);
        });
        writes.push(
            ") UPDATE rooms SET last_seq = new.last_seq, last_at_ms = new.last_at_ms
             FROM new WHERE rooms.room = new.room;",
        );
    }
}

fn update_members<'q>(writes: &mut QueryBuilder<Sqlite>, step: &'q Members<'q>) {
    match step {
        // Who writes is a member, and has read the room up to the own message.
        Members::Wrote(written) => {
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
        // Who is a member already stays as it is.
        Members::Joins {
            room,
            user,
            last_seq,
        } => {
            writes.push("INSERT INTO members (user, room, read_seq) VALUES (");
            let mut values = writes.separated(", ");
            values
                .push_bind(*user)
                .push_bind(*room)
                .push_bind(*last_seq);
            writes.push(") ON CONFLICT (user, room) DO NOTHING;");
        }
        Members::Changes(Changed { room, change, .. }) => {
            // Nothing that was read becomes unread.
            if let What::Read(seq) = change.what {
                writes.push("UPDATE members SET read_seq = max(read_seq, ");
                writes.push_bind(seq);
                writes.push(")");
            } else {
                writes.push("DELETE FROM members");
            }
            writes.push(" WHERE user = ");
            writes.push_bind(&*change.user);
            writes.push(" AND room = (SELECT room FROM rooms WHERE name = ");
            writes.push_bind(*room);
            writes.push(");");
        }
    }
}
