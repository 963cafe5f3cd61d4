//! Who belongs to a room and how far each has read.

use super::Store;

/// A membership after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The member has read up to here.
    pub read_seq: i64,
    /// The room's last sequence number.
    pub last_seq: i64,
}

/// What became of a wish to mark messages as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkRead {
    /// The room does not exist or the user is no member.
    NoMember,
    /// The room has no message of that number; its last is this.
    Beyond {
        /// The room's last sequence number.
        last_seq: i64,
    },
    /// Done, or had been done.
    Done(Joined),
}

impl Store {
    /// Makes `user` a member of `room`, which is made if it does not exist. What was written before counts as read. Who is
    /// a member already stays as it is.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn join(&self, room: &str, user: &str) -> sqlx::Result<Joined> {
        let mut tx = self.0.write().await?;
        let (room, last_seq): (i64, i64) = sqlx::query_as(
            "INSERT INTO rooms (name) VALUES (?)
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING room, last_seq",
        )
        .bind(room)
        .fetch_one(&mut *tx)
        .await?;
        let read_seq: i64 = sqlx::query_scalar(
            "INSERT INTO members (user, room, read_seq) VALUES (?, ?, ?)
             ON CONFLICT (user, room) DO UPDATE SET read_seq = read_seq RETURNING read_seq",
        )
        .bind(user)
        .bind(room)
        .bind(last_seq)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Joined { read_seq, last_seq })
    }

    /// Ends a membership; says whether there was one. Who writes again is a member again.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn leave(&self, room: &str, user: &str) -> sqlx::Result<bool> {
        let mut tx = self.0.write().await?;
        let done = sqlx::query(
            "DELETE FROM members WHERE user = ? AND room = (SELECT room FROM rooms WHERE name = ?)",
        )
        .bind(user)
        .bind(room)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Marks the messages up to `seq` as read by a member. Nothing that was read becomes unread by it.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn mark_read(&self, room: &str, user: &str, seq: i64) -> sqlx::Result<MarkRead> {
        let mut tx = self.0.write().await?;
        let found: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT r.room, r.last_seq, m.read_seq FROM rooms r
             JOIN members m ON m.room = r.room AND m.user = ? WHERE r.name = ?",
        )
        .bind(user)
        .bind(room)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((room, last_seq, read_seq)) = found else {
            return Ok(MarkRead::NoMember);
        };
        if seq > last_seq {
            return Ok(MarkRead::Beyond { last_seq });
        }
        if seq <= read_seq {
            return Ok(MarkRead::Done(Joined { read_seq, last_seq }));
        }
        sqlx::query("UPDATE members SET read_seq = ? WHERE user = ? AND room = ?")
            .bind(seq)
            .bind(user)
            .bind(room)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(MarkRead::Done(Joined {
            read_seq: seq,
            last_seq,
        }))
    }
}
