//! One member of a room.

use super::{Limits, Store};

/// A membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The member has read up to here.
    pub read_seq: i64,
    /// The room's last sequence number.
    pub last_seq: i64,
    /// Messages after what was read; what was deleted unread is not among them.
    pub unread: i64,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// `rooms_max`.
    Rooms,
    /// `room_members_max`.
    Members,
}

impl Store {
    /// How far `user` has read `room`; `None` when the room does not exist or the user is no member.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn membership(&self, room: &str, user: &str) -> sqlx::Result<Option<Membership>> {
        let found: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT m.read_seq, r.last_seq, r.last_seq - max(m.read_seq, r.first_seq - 1) FROM rooms r
             JOIN members m ON m.room = r.room AND m.user = ? WHERE r.name = ?",
        )
        .bind(user)
        .bind(room)
        .fetch_optional(self.0.reader())
        .await?;
        Ok(found.map(|(read_seq, last_seq, unread)| Membership {
            read_seq,
            last_seq,
            unread,
        }))
    }

    /// Whether `room` has as many members as it may, or, if there is no such room, there are as many rooms as there may be.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn is_full(&self, room: &str, limits: Limits) -> sqlx::Result<Option<LimitReached>> {
        let found: Option<i64> = sqlx::query_scalar("SELECT members FROM rooms WHERE name = ?")
            .bind(room)
            .fetch_optional(self.0.reader())
            .await?;
        Ok(match found {
            Some(members) if members >= i64::from(limits.room_members_max) => {
                Some(LimitReached::Members)
            }
            Some(_) => None,
            None => {
                let rooms: Option<i64> = sqlx::query_scalar("SELECT max(room) FROM rooms")
                    .fetch_one(self.0.reader())
                    .await?;
                (rooms.unwrap_or(0) >= i64::from(limits.rooms_max)).then_some(LimitReached::Rooms)
            }
        })
    }
}
