//! One member of a room.

use super::Store;

/// A membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The member has read up to here.
    pub read_seq: i64,
    /// The room's last sequence number.
    pub last_seq: i64,
}

impl Store {
    /// How far `user` has read `room`; `None` when the room does not exist or the user is no member.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn membership(&self, room: &str, user: &str) -> sqlx::Result<Option<Membership>> {
        let found: Option<(i64, i64)> = sqlx::query_as(
            "SELECT m.read_seq, r.last_seq FROM rooms r
             JOIN members m ON m.room = r.room AND m.user = ? WHERE r.name = ?",
        )
        .bind(user)
        .bind(room)
        .fetch_optional(self.0.reader())
        .await?;
        Ok(found.map(|(read_seq, last_seq)| Membership { read_seq, last_seq }))
    }
}
