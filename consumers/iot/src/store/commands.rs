//! Commands: written when they are posted, sent when Kafka takes them, answered when the device replies.

use envelope::report::{Outcome, Report};
use serde_json::json;
use sqlx::{Sqlite, Transaction};

use super::{ReplyAt, Store};

/// How far a command has come. The numbers are what the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Stored here; Kafka does not have it yet.
    Pending = 0,
    /// Kafka has it for the brokers; none has reported what became of it.
    Sent = 1,
    /// The device replied.
    Replied = 2,
    /// Kafka refused it for good.
    Failed = 3,
    /// It grew too old before Kafka took it, and was not sent; or before a device got it. A delivery or a reply that comes
    /// after all still counts.
    Expired = 4,
    /// No device has received it: none had subscribed, or it was lost on its way to those who had. It may be that a node keeps
    /// it until it expires.
    NoReceiver = 5,
    /// It waits in the session of a device that is away or busy.
    Queued = 6,
    /// It was sent to a device that is connected.
    Delivered = 7,
}

impl Status {
    /// The number that the store keeps.
    #[must_use]
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The status of a number from the store.
    #[must_use]
    pub fn from_code(code: i64) -> Self {
        match code {
            1 => Self::Sent,
            2 => Self::Replied,
            3 => Self::Failed,
            4 => Self::Expired,
            5 => Self::NoReceiver,
            6 => Self::Queued,
            7 => Self::Delivered,
            _ => Self::Pending,
        }
    }

    /// What a node's report means. `None`: nothing, for a command.
    fn of_report(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Unknown | Outcome::Malformed => None,
            Outcome::Delivered => Some(Self::Delivered),
            Outcome::Expired => Some(Self::Expired),
            Outcome::Queued => Some(Self::Queued),
            Outcome::NoSession
            | Outcome::DroppedWithheld
            | Outcome::DroppedTooLarge
            | Outcome::DroppedOffline
            | Outcome::DroppedOutboxFull
            | Outcome::DroppedQueueFull
            | Outcome::DroppedMemory
            | Outcome::NoRoom
            | Outcome::Waiting
            | Outcome::Retained => Some(Self::NoReceiver),
        }
    }
}

/// A command as it was posted.
#[derive(Debug)]
pub struct NewCommand<'a> {
    /// Its id, chosen by this backend.
    pub id: &'a str,
    /// For which device.
    pub device: &'a str,
    /// Which command.
    pub command: &'a str,
    /// Its arguments, as JSON text.
    pub args: &'a str,
    /// When it was posted, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// From when on it is not sent any more, milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// A command to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its place in the order of posting.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// For which device.
    pub device: String,
    /// Which command.
    pub command: String,
    /// Its arguments, as JSON text.
    pub args: String,
    /// From when on it is not sent any more, milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// What became of a command that was to be sent.
#[derive(Debug)]
pub enum Dispatch {
    /// Kafka has it.
    Sent,
    /// Kafka refused it for good.
    Failed(String),
}

impl Store {
    /// Stores a command. `false`: `pending_max` commands wait for Kafka already.
    ///
    /// # Errors
    ///
    /// What SQLite says; the command is not stored then.
    pub async fn post_command(&self, new: &NewCommand<'_>, pending_max: u32) -> sqlx::Result<bool> {
        let mut tx = self.0.write().await?;
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM commands WHERE status = ?")
            .bind(Status::Pending.code())
            .fetch_one(&mut *tx)
            .await?;
        if pending >= i64::from(pending_max) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO commands (id, device, command, args, status, created_ms, expires_ms, claimed_until_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        )
        .bind(new.id)
        .bind(new.device)
        .bind(new.command)
        .bind(new.args)
        .bind(Status::Pending.code())
        .bind(new.created_ms)
        .bind(new.expires_ms)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes the oldest commands to send, for this process alone until `claimed_until_ms`: another one on the same
    /// database does not send them too. Those that grew too old are put aside.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn claim_commands(
        &self,
        now_ms: i64,
        claimed_until_ms: i64,
        commands_max: u32,
    ) -> sqlx::Result<Vec<Command>> {
        // Most of the time there is nothing to send, and a reader finds that out without the write lock.
        let waiting: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM commands WHERE status = ?1 AND claimed_until_ms <= ?2)
                 OR EXISTS (SELECT 1 FROM commands WHERE status IN (1, 5, 6) AND expires_ms <= ?2)",
        )
        .bind(Status::Pending.code())
        .bind(now_ms)
        .fetch_one(self.0.reader())
        .await?;
        if !waiting {
            return Ok(Vec::new());
        }
        let mut tx = self.0.write().await?;
        sqlx::query("UPDATE commands SET status = ? WHERE status = ? AND claimed_until_ms <= ? AND expires_ms <= ?")
            .bind(Status::Expired.code())
            .bind(Status::Pending.code())
            .bind(now_ms)
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
        // The numbers and not parameters, or SQLite does not see that its index fits.
        sqlx::query("UPDATE commands SET status = ? WHERE status IN (1, 5, 6) AND expires_ms <= ?")
            .bind(Status::Expired.code())
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
        let mut rows: Vec<(i64, String, String, String, String, i64)> = sqlx::query_as(
            "UPDATE commands SET claimed_until_ms = ? WHERE seq IN (
                 SELECT seq FROM commands WHERE status = ? AND claimed_until_ms <= ? ORDER BY seq LIMIT ?)
             RETURNING seq, id, device, command, args, expires_ms",
        )
        .bind(claimed_until_ms)
        .bind(Status::Pending.code())
        .bind(now_ms)
        .bind(commands_max)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        // RETURNING promises no order.
        rows.sort_unstable_by_key(|row| row.0);
        Ok(rows
            .into_iter()
            .map(|(seq, id, device, command, args, expires_ms)| Command {
                seq,
                id,
                device,
                command,
                args,
                expires_ms,
            })
            .collect())
    }

    /// Notes what became of commands that were claimed.
    ///
    /// # Errors
    ///
    /// What SQLite says; they will be sent again then, under the same ids.
    pub async fn settle_commands(
        &self,
        settled: impl Iterator<Item = (i64, Dispatch)>,
        now_ms: i64,
    ) -> sqlx::Result<()> {
        let mut tx = self.0.write().await?;
        for (seq, dispatch) in settled {
            let (status, failure) = match dispatch {
                Dispatch::Sent => (Status::Sent, None),
                Dispatch::Failed(reason) => (Status::Failed, Some(reason)),
            };
            // A device can be faster than this note, and a node's report: a command that has come further stays there.
            sqlx::query("UPDATE commands SET status = CASE status WHEN ? THEN ? ELSE status END, sent_ms = ?, failure = ? WHERE seq = ?")
                .bind(Status::Pending.code())
                .bind(status.code())
                .bind(now_ms)
                .bind(failure)
                .bind(seq)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Gives commands back that could not be sent now.
    ///
    /// # Errors
    ///
    /// What SQLite says; their claims then end by themselves.
    pub async fn release_commands(&self, seqs: impl Iterator<Item = i64>) -> sqlx::Result<()> {
        let mut tx = self.0.write().await?;
        for seq in seqs {
            sqlx::query("UPDATE commands SET claimed_until_ms = 0 WHERE seq = ?")
                .bind(seq)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }
}

/// Notes what a node reports of a command. A command never goes back, whatever comes in which order and how often; what is
/// reported of no command of this store is somebody else's matter.
pub(super) async fn record_report(
    tx: &mut Transaction<'_, Sqlite>,
    report: &Report,
) -> sqlx::Result<()> {
    let Some(status) = Status::of_report(report.outcome) else {
        return Ok(());
    };
    let shown = json!({
        "outcome": report.outcome,
        "sessions": report.sessions,
        "node": report.node,
        "at": report.at,
    });
    // What Kafka gave to a node was sent, whether or not this backend lived to note it. In the order in which a command goes: pending, sent, no-receiver, queued, expired, delivered; replied and failed are ends.
    sqlx::query(
        "UPDATE commands SET status = ?1, report = ?2, sent_ms = coalesce(sent_ms, ?4) WHERE id = ?3
           AND CASE status WHEN 0 THEN 0 WHEN 1 THEN 1 WHEN 5 THEN 2 WHEN 6 THEN 3 WHEN 4 THEN 4 WHEN 7 THEN 5 ELSE 9 END
             < CASE ?1 WHEN 5 THEN 2 WHEN 6 THEN 3 WHEN 4 THEN 4 ELSE 5 END",
    )
    .bind(status.code())
    .bind(shown.to_string())
    .bind(&report.report)
    .bind(i64::try_from(report.at).unwrap_or(i64::MAX))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes a reply. `Some`: why it cannot be one. One to a command that this store does not have is kept as such. A reply to a
/// command that has one already changes nothing: the first holds, however often records come again.
pub(super) async fn record_reply(
    tx: &mut Transaction<'_, Sqlite>,
    source: i64,
    at: &ReplyAt<'_>,
) -> sqlx::Result<Option<String>> {
    let found: Option<(i64, String, String)> =
        sqlx::query_as("SELECT seq, device, command FROM commands WHERE id = ?")
            .bind(&at.reply.id)
            .fetch_optional(&mut **tx)
            .await?;
    let Some((seq, device, command)) = found else {
        sqlx::query(
            r#"INSERT OR IGNORE INTO stray_replies (source, "offset", id, device, command, ok, result, at_ms)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)"#,
        )
        .bind(source)
        .bind(at.offset)
        .bind(&at.reply.id)
        .bind(at.device)
        .bind(at.command)
        .bind(at.reply.ok)
        .bind(&at.reply.result)
        .bind(at.received_ms)
        .execute(&mut **tx)
        .await?;
        return Ok(None);
    };
    if device != at.device || command != at.command {
        return Ok(Some(format!(
            "id: it is that of the command {command} for the device {device}"
        )));
    }
    sqlx::query(
        "UPDATE commands SET status = ?, ok = ?, result = ?, replied_ms = ? WHERE seq = ? AND replied_ms IS NULL",
    )
    .bind(Status::Replied.code())
    .bind(at.reply.ok)
    .bind(&at.reply.result)
    .bind(at.received_ms)
    .bind(seq)
    .execute(&mut **tx)
    .await?;
    Ok(None)
}
