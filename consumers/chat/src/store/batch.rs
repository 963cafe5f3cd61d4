//! The messages of one call of the handler, in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

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

/// How many different things there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rooms.
    pub rooms_max: u32,
    /// Members of a room.
    pub room_members_max: u32,
}

/// What a call did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What became of the messages, in the order of the records.
    pub stored: Vec<Stored>,
    /// Records that would have made a room too many: which partition, and the record's offset.
    pub refused: Vec<(usize, i64)>,
    /// Times that somebody wrote or would have joined for whom the room had no place as a member.
    pub members_refused: u64,
}

/// A room as the transaction found it and as it will leave it.
struct RoomState {
    room: i64,
    members: i64,
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
    /// Stores the messages that are new, looks up those that are not, and applies changes of members, as far as `limits` let
    /// it.
    ///
    /// # Errors
    ///
    /// What the store says; nothing was written then.
    pub async fn apply(
        &self,
        partitions: &[Partition<'_>],
        limits: Limits,
    ) -> Result<Applied, HandleError> {
        let mut tx = self.0.write().await?;
        let batches = partitions.iter().map(|partition| partition.batch);
        let progress = Progress::of(&mut tx, batches.clone()).await?;
        let mut call = Call {
            rooms: find_rooms(&mut tx, partitions, &progress, limits.rooms_max).await?,
            narrow: HashMap::new(),
            known: HashMap::new(),
            rows: Vec::new(),
            members: Vec::new(),
            wrote: HashMap::new(),
            applied: Applied::default(),
        };
        call.narrow = find_narrow(&mut tx, partitions, &call.rooms, limits).await?;
        call.known = find_known(&mut tx, partitions, &call.rooms).await?;
        for (index, (partition, progress)) in partitions.iter().zip(&progress).enumerate() {
            let before = stored_before(&mut tx, partition, *progress).await?;
            call.partition(index, partition, *progress, &before);
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
        Ok(call.applied)
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
    /// Rooms that may come to have as many members as they may.
    narrow: HashMap<i64, Narrow<'a>>,
    known: HashMap<Identity<'a>, Known>,
    rows: Vec<Row<'a>>,
    members: Vec<Members<'a>>,
    /// Who wrote since the last change of a member.
    wrote: HashMap<(i64, &'a str), i64>,
    applied: Applied,
}

/// A room without a place for each who writes or joins.
struct Narrow<'a> {
    /// Who of them is a member.
    members: HashSet<&'a str>,
    /// How many more may be.
    left: i64,
}

impl<'a> Call<'a> {
    /// Messages and changes of one partition, in the order of their records.
    fn partition(
        &mut self,
        index: usize,
        partition: &'a Partition<'a>,
        progress: Progress,
        before: &HashMap<i64, Known>,
    ) {
        // Rooms stay, so one that is not there was refused before, too, if the record was seen before.
        let rooms = &self.rooms;
        let refused = partition.changes.iter().filter(|changed| {
            changed.change.what == What::Join && !rooms.contains_key(changed.room)
        });
        let refused = refused.map(|changed| (index, changed.offset));
        self.applied.refused.extend(refused);
        let mut changes = partition
            .changes
            .iter()
            .filter(|changed| progress.is_new(changed.offset))
            .peekable();
        for (message, incoming) in partition.messages.iter().enumerate() {
            while let Some(changed) = changes.next_if(|changed| changed.offset < incoming.offset) {
                self.change(changed);
            }
            let Some(state) = self.rooms.get_mut(incoming.room) else {
                self.applied.refused.push((index, incoming.offset));
                continue;
            };
            let found = match &incoming.message.id {
                Some(id) => {
                    let identity = (state.room, &*incoming.message.from, &**id);
                    self.known.get(&identity)
                }
                None => before.get(&incoming.offset),
            };
            let (known, again) = match found {
                Some(known) => (*known, true),
                None if progress.is_new(incoming.offset) => {
                    state.last_seq += 1;
                    state.last_at_ms = Some(incoming.stored_ms);
                    let (room, seq) = (state.room, state.last_seq);
                    (self.message(incoming, room, seq, progress.source), false)
                }
                // Stored once, and forgotten since.
                None => continue,
            };
            self.applied.stored.push(Stored {
                partition: index,
                message,
                seq: known.seq,
                stored_ms: known.stored_ms,
                again,
                first: (known.source, known.offset) == (progress.source, incoming.offset),
            });
        }
        changes.for_each(|changed| self.change(changed));
    }

    /// A new message.
    fn message(&mut self, incoming: &'a Incoming<'a>, room: i64, seq: i64, source: i64) -> Known {
        self.rows.push(Row {
            room,
            seq,
            source,
            incoming,
        });
        let from = &*incoming.message.from;
        if self.may_be_member(room, from) {
            self.wrote.insert((room, from), seq);
        }
        let known = Known {
            seq,
            stored_ms: incoming.stored_ms,
            source,
            offset: incoming.offset,
        };
        if let Some(id) = &incoming.message.id {
            self.known.insert((room, from, id), known);
        }
        known
    }

    /// Whether there is a place for a member, or it is one; who gets a place has it.
    fn may_be_member(&mut self, room: i64, user: &'a str) -> bool {
        let Some(narrow) = self.narrow.get_mut(&room) else {
            return true;
        };
        if narrow.members.contains(user) {
            return true;
        }
        if narrow.left <= 0 {
            self.applied.members_refused += 1;
            return false;
        }
        narrow.left -= 1;
        narrow.members.insert(user)
    }

    fn change(&mut self, changed: &'a Changed<'a>) {
        self.settle_writers();
        let step = match changed.change.what {
            What::Join => {
                let Some(&RoomState { room, last_seq, .. }) = self.rooms.get(changed.room) else {
                    return;
                };
                let user = &*changed.change.user;
                if !self.may_be_member(room, user) {
                    return;
                }
                Members::Joins {
                    room,
                    user,
                    last_seq,
                }
            }
            What::Leave | What::Read(_) => Members::Changes(changed),
        };
        self.members.push(step);
    }

    /// Who wrote until now is a member before what comes next.
    fn settle_writers(&mut self) {
        if !self.wrote.is_empty() {
            self.members
                .push(Members::Wrote(self.wrote.drain().collect()));
        }
    }
}

/// The rooms of messages and of those who join; those that do not exist are made, as far as there may be more.
async fn find_rooms<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    partitions: &'a [Partition<'a>],
    progress: &[Progress],
    rooms_max: u32,
) -> sqlx::Result<HashMap<&'a str, RoomState>> {
    let mut names: BTreeMap<&'a str, bool> = BTreeMap::new();
    for (partition, progress) in partitions.iter().zip(progress) {
        let joins = |changed: &&Changed<'_>| changed.change.what == What::Join;
        let written = partition.messages.iter();
        let written = written.map(|incoming| (incoming.room, incoming.offset));
        let joined = partition.changes.iter().filter(joins);
        let joined = joined.map(|changed| (changed.room, changed.offset));
        for (room, offset) in written.chain(joined) {
            *names.entry(room).or_default() |= progress.is_new(offset);
        }
    }
    let mut rooms = HashMap::with_capacity(names.len());
    let all: Vec<&'a str> = names.keys().copied().collect();
    for part in all.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut select = QueryBuilder::<Sqlite>::new("WITH asked (name) AS (");
        select.push_values(part, |mut row, name| {
            row.push_bind(*name);
        });
        select.push(
            ") SELECT r.room, r.name, r.members, r.last_seq
               FROM asked CROSS JOIN rooms r ON r.name = asked.name",
        );
        let query = select.build_query_as().persistent(is_whole(part));
        take_rooms(&mut rooms, part, query.fetch_all(&mut **tx).await?);
    }
    let mut missing: Vec<&'a str> = names
        .into_iter()
        .filter(|(name, is_new)| *is_new && !rooms.contains_key(name))
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        return Ok(rooms);
    }
    // Rooms stay for ever and are numbered without a gap.
    let count: Option<i64> = sqlx::query_scalar("SELECT max(room) FROM rooms")
        .fetch_one(&mut **tx)
        .await?;
    let left = i64::from(rooms_max).saturating_sub(count.unwrap_or(0));
    missing.truncate(usize::try_from(left).unwrap_or(0));
    for part in missing.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO rooms (name) ");
        insert.push_values(part, |mut row, name| {
            row.push_bind(*name);
        });
        insert.push(" RETURNING room, name, members, last_seq");
        let query = insert.build_query_as().persistent(is_whole(part));
        take_rooms(&mut rooms, part, query.fetch_all(&mut **tx).await?);
    }
    Ok(rooms)
}

/// Takes in rows of rooms that were asked for by these names, which are sorted. Rows come in no promised order.
fn take_rooms<'a>(
    rooms: &mut HashMap<&'a str, RoomState>,
    asked: &[&'a str],
    found: Vec<(i64, String, i64, i64)>,
) {
    for (room, name, members, last_seq) in found {
        if let Ok(index) = asked.binary_search(&name.as_str()) {
            let state = RoomState {
                room,
                members,
                last_seq,
                last_at_ms: None,
            };
            rooms.insert(asked[index], state);
        }
    }
}

/// The rooms that have no place for each who writes or joins in this call: with who of them is a member.
async fn find_narrow<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    partitions: &'a [Partition<'a>],
    rooms: &HashMap<&'a str, RoomState>,
    limits: Limits,
) -> sqlx::Result<HashMap<i64, Narrow<'a>>> {
    let mut users: HashMap<i64, HashSet<&'a str>> = HashMap::new();
    for partition in partitions {
        let written = partition.messages.iter();
        let written = written.map(|incoming| (incoming.room, &*incoming.message.from));
        let joins = |changed: &&Changed<'_>| changed.change.what == What::Join;
        let joined = partition.changes.iter().filter(joins);
        let joined = joined.map(|changed| (changed.room, &*changed.change.user));
        for (room, user) in written.chain(joined) {
            if let Some(state) = rooms.get(room) {
                users.entry(state.room).or_default().insert(user);
            }
        }
    }
    let max = i64::from(limits.room_members_max);
    let mut narrow = HashMap::new();
    for state in rooms.values() {
        let Some(users) = users.get(&state.room) else {
            continue;
        };
        if state.members.saturating_add_unsigned(users.len() as u64) <= max {
            continue;
        }
        let mut members = HashSet::new();
        for user in users {
            let is_member: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM members WHERE user = ? AND room = ?)",
            )
            .bind(*user)
            .bind(state.room)
            .fetch_one(&mut **tx)
            .await?;
            if is_member {
                members.insert(*user);
            }
        }
        let left = max - state.members;
        narrow.insert(state.room, Narrow { members, left });
    }
    Ok(narrow)
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
