//! Messages that are too old, or too many for their room, are deleted: always a room's oldest, so that what is left of a room is
//! whole. The room's row stays, and with it the number of its last message.

use runtime::{Forget, Part};
use sqlx::{Sqlite, Transaction};

use super::Store;
use crate::clock::now_ms;

const DAY_MS: i64 = 86_400_000;

/// Rooms looked at in one part.
const ROOMS_MAX: i64 = 1_000;
/// Messages deleted in one transaction: a message may be as long as `text_bytes_max`.
const MESSAGES_MAX: i64 = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Forgetter {
    store: Store,
    retention_days: u32,
    room_messages_max: u32,
    /// The room to look at next.
    next_room: i64,
}

impl Forgetter {
    pub(crate) fn new(store: Store, retention_days: u32, room_messages_max: u32) -> Self {
        Self {
            store,
            retention_days,
            room_messages_max,
            next_room: 0,
        }
    }

    async fn forget_before(&mut self, before_ms: i64) -> sqlx::Result<Part> {
        // A reader finds out in which rooms something is over, by the oldest message of each.
        let rooms: Vec<(i64, bool)> = sqlx::query_as(
            "SELECT r.room, r.last_seq - r.first_seq >= ?1 OR coalesce(m.stored_ms < ?2, 0)
             FROM rooms r LEFT JOIN messages m ON m.room = r.room AND m.seq = r.first_seq
             WHERE r.room >= ?3 ORDER BY r.room LIMIT ?4",
        )
        .bind(i64::from(self.room_messages_max))
        .bind(before_ms)
        .bind(self.next_room)
        .bind(ROOMS_MAX)
        .fetch_all(self.store.0.reader())
        .await?;
        let over: Vec<i64> = rooms
            .iter()
            .filter_map(|(room, is_over)| is_over.then_some(*room))
            .collect();
        let mut deleted = 0;
        if !over.is_empty() {
            let mut tx = self.store.0.write().await?;
            for room in over {
                self.next_room = room;
                let messages_max = MESSAGES_MAX - deleted;
                deleted += self
                    .forget_in(&mut tx, room, before_ms, messages_max)
                    .await?;
                if deleted >= MESSAGES_MAX {
                    break;
                }
            }
            tx.commit().await?;
        }
        let rows = deleted.unsigned_abs();
        if deleted >= MESSAGES_MAX {
            // The last of these rooms may have more.
            return Ok(Part { rows, more: true });
        }
        let more = rooms.len() as i64 == ROOMS_MAX;
        let last = rooms.last().map_or(0, |(room, _)| *room);
        self.next_room = if more { last + 1 } else { 0 };
        Ok(Part { rows, more })
    }

    /// Deletes at most so many of a room's oldest messages; returns how many.
    async fn forget_in(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        room: i64,
        before_ms: i64,
        messages_max: i64,
    ) -> sqlx::Result<i64> {
        let last_seq: i64 = sqlx::query_scalar("SELECT last_seq FROM rooms WHERE room = ?")
            .bind(room)
            .fetch_one(&mut **tx)
            .await?;
        let oldest: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT seq, stored_ms FROM messages WHERE room = ? ORDER BY seq LIMIT ?",
        )
        .bind(room)
        .bind(messages_max)
        .fetch_all(&mut **tx)
        .await?;
        let kept_from = last_seq - i64::from(self.room_messages_max);
        let mut last = None;
        for (seq, stored_ms) in oldest {
            if seq > kept_from && stored_ms >= before_ms {
                break;
            }
            last = Some(seq);
        }
        let Some(last) = last else {
            return Ok(0);
        };
        let done = sqlx::query("DELETE FROM messages WHERE room = ? AND seq <= ?")
            .bind(room)
            .bind(last)
            .execute(&mut **tx)
            .await?;
        sqlx::query("UPDATE rooms SET first_seq = ? WHERE room = ?")
            .bind(last + 1)
            .bind(room)
            .execute(&mut **tx)
            .await?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

impl Forget for Forgetter {
    async fn forget(&mut self) -> sqlx::Result<Part> {
        let before_ms = match self.retention_days {
            0 => i64::MIN,
            days => now_ms().saturating_sub(i64::from(days) * DAY_MS),
        };
        self.forget_before(before_ms).await
    }
}
