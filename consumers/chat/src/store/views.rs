//! What the HTTP API shows.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::Store;

/// A room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Its name.
    pub room: String,
    /// The sequence number of the oldest message that is kept.
    pub first_seq: i64,
    /// The sequence number of its last message; 0 before the first.
    pub last_seq: i64,
    /// When its last message was stored, milliseconds since the Unix epoch.
    pub last_at: Option<i64>,
}

/// A message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its sequence number in the room.
    pub seq: i64,
    /// The sender's own identifier of it.
    pub id: Option<String>,
    /// Who wrote it.
    pub from: String,
    /// What was written.
    pub text: String,
    /// When the broker took it, milliseconds since the Unix epoch.
    pub received_at: Option<i64>,
    /// When it was stored, milliseconds since the Unix epoch.
    pub stored_at: i64,
    /// Fields that this version does not know, as they were written.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_written")]
    pub extra: Option<String>,
}

/// Shows JSON as it was written.
fn as_written<S: Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let json: Option<&RawValue> = json
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(S::Error::custom)?;
    json.serialize(serializer)
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The user.
    pub user: String,
    /// Has read up to here.
    pub read_seq: i64,
    /// Messages after that.
    pub unread: i64,
}

/// A room in which a user has something to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The room.
    pub room: String,
    /// Messages after `read_seq`.
    pub unread: i64,
    /// Has read up to here.
    pub read_seq: i64,
    /// The sequence number of the room's last message.
    pub last_seq: i64,
}

/// Reads the columns of a query by the names of the fields.
macro_rules! from_columns {
    ($row:ident { $($field:ident),+ }) => {
        impl FromRow<'_, SqliteRow> for $row {
            fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
    };
}

from_columns!(Room {
    room,
    first_seq,
    last_seq,
    last_at
});
from_columns!(Entry {
    seq,
    id,
    from,
    text,
    received_at,
    stored_at,
    extra
});
from_columns!(Member {
    user,
    read_seq,
    unread
});
from_columns!(Unread {
    room,
    unread,
    read_seq,
    last_seq
});

/// Which way a page of history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The last messages with a smaller sequence number.
    Before(i64),
    /// The first messages with a larger sequence number.
    After(i64),
}

impl Store {
    /// Rooms by name, from the one after `after` on.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn rooms(&self, after: &str, limit: i64) -> sqlx::Result<Vec<Room>> {
        sqlx::query_as(
            "SELECT name AS room, first_seq, last_seq, last_at_ms AS last_at FROM rooms
             WHERE name > ? ORDER BY name LIMIT ?",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(self.0.reader())
        .await
    }

    /// A room and the number of its members.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn room(&self, name: &str) -> sqlx::Result<Option<(Room, i64)>> {
        let found: Option<(String, i64, i64, Option<i64>, i64)> = sqlx::query_as(
            "SELECT name, first_seq, last_seq, last_at_ms, (SELECT count(*) FROM members m WHERE m.room = r.room)
             FROM rooms r WHERE name = ?",
        )
        .bind(name)
        .fetch_optional(self.0.reader())
        .await?;
        Ok(found.map(|(room, first_seq, last_seq, last_at, members)| {
            (
                Room {
                    room,
                    first_seq,
                    last_seq,
                    last_at,
                },
                members,
            )
        }))
    }

    /// A page of a room's history, oldest first, and the room's first and last sequence numbers; `None` when there is no such room.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn history(
        &self,
        name: &str,
        direction: Direction,
        limit: i64,
    ) -> sqlx::Result<Option<((i64, i64), Vec<Entry>)>> {
        let mut reader = self.0.reader().acquire().await?;
        let room: Option<(i64, i64, i64)> =
            sqlx::query_as("SELECT room, first_seq, last_seq FROM rooms WHERE name = ?")
                .bind(name)
                .fetch_optional(&mut *reader)
                .await?;
        let Some((room, first_seq, last_seq)) = room else {
            return Ok(None);
        };
        let (sql, seq) = match direction {
            Direction::Before(seq) => (
                r#"SELECT seq, id, sender AS "from", text, received_ms AS received_at, stored_ms AS stored_at, extra
                   FROM messages WHERE room = ? AND seq < ? ORDER BY seq DESC LIMIT ?"#,
                seq,
            ),
            Direction::After(seq) => (
                r#"SELECT seq, id, sender AS "from", text, received_ms AS received_at, stored_ms AS stored_at, extra
                   FROM messages WHERE room = ? AND seq > ? ORDER BY seq LIMIT ?"#,
                seq,
            ),
        };
        let mut page: Vec<Entry> = sqlx::query_as(sql)
            .bind(room)
            .bind(seq)
            .bind(limit)
            .fetch_all(&mut *reader)
            .await?;
        if matches!(direction, Direction::Before(_)) {
            page.reverse();
        }
        // A message that came between the two queries counts.
        let last_seq = page
            .last()
            .map_or(last_seq, |entry| last_seq.max(entry.seq));
        Ok(Some(((first_seq, last_seq), page)))
    }

    /// Members of a room by name, from the one after `after` on.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn members(&self, room: &str, after: &str, limit: i64) -> sqlx::Result<Vec<Member>> {
        sqlx::query_as(
            "SELECT m.user, m.read_seq, r.last_seq - max(m.read_seq, r.first_seq - 1) AS unread
             FROM rooms r JOIN members m ON m.room = r.room
             WHERE r.name = ? AND m.user > ? ORDER BY m.user LIMIT ?",
        )
        .bind(room)
        .bind(after)
        .bind(limit)
        .fetch_all(self.0.reader())
        .await
    }

    /// The rooms in which a user has something to read, fullest first, and how many messages and rooms that is in all.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn unread(&self, user: &str, limit: i64) -> sqlx::Result<(i64, i64, Vec<Unread>)> {
        let mut reader = self.0.reader().acquire().await?;
        let (messages, rooms): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(r.last_seq - max(m.read_seq, r.first_seq - 1)), 0), count(*)
             FROM members m JOIN rooms r ON r.room = m.room
             WHERE m.user = ? AND r.last_seq > max(m.read_seq, r.first_seq - 1)",
        )
        .bind(user)
        .fetch_one(&mut *reader)
        .await?;
        let page = sqlx::query_as(
            "SELECT r.name AS room, r.last_seq - max(m.read_seq, r.first_seq - 1) AS unread, m.read_seq, r.last_seq
             FROM members m JOIN rooms r ON r.room = m.room
             WHERE m.user = ? AND r.last_seq > max(m.read_seq, r.first_seq - 1) ORDER BY unread DESC, r.name LIMIT ?",
        )
        .bind(user)
        .bind(limit)
        .fetch_all(&mut *reader)
        .await?;
        Ok((messages, rooms, page))
    }
}
