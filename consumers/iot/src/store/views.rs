//! What the HTTP API reads.

use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::batch::alert_id;
use super::{Status, Store};
use crate::alert::{Alert, Kind, State};
use crate::telemetry::Value as Measured;

/// A device in the list of devices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceRow {
    /// Its name.
    pub device: String,
    /// How many metrics it has.
    pub metrics: i64,
    /// When its last reading was received, milliseconds since the Unix epoch.
    pub last_seen_at: i64,
}

/// A metric of a device with its last value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricRow {
    /// Its name.
    pub metric: String,
    /// The last value: a number in the metric's unit, a boolean or a text.
    pub value: Measured,
    /// When that was measured, milliseconds since the Unix epoch.
    pub at: i64,
    /// When that was received, milliseconds since the Unix epoch.
    pub received_at: i64,
    /// Readings since the first.
    pub samples: i64,
    /// On which side of its thresholds it is.
    pub state: State,
}

/// A reading in a time series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it was measured, milliseconds since the Unix epoch.
    pub at: i64,
    /// A number in the metric's unit, a boolean or a text.
    pub value: Measured,
}

/// A page of a time series.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// In the order of time.
    pub points: Vec<Point>,
    /// Where the page before this one ends; `None` when this is the first of the range.
    pub before: Option<Cursor>,
}

/// A place in a time series: readings before it are on earlier pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at_ms: i64,
    source: i64,
    offset: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.at_ms, self.source, self.offset)
    }
}

impl std::str::FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text
            .split('.')
            .map(|number| number.parse::<i64>().map_err(drop));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let cursor = Self {
            at_ms: next()?,
            source: next()?,
            offset: next()?,
        };
        if numbers.next().is_some() {
            Err(())
        } else {
            Ok(cursor)
        }
    }
}

/// Which part of a time series is wanted: the latest `points_max` readings of it.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The earliest time, milliseconds since the Unix epoch; included.
    pub from_ms: i64,
    /// The latest time, milliseconds since the Unix epoch; included.
    pub to_ms: i64,
    /// Only readings before this place.
    pub before: Option<Cursor>,
    /// At most this many.
    pub points_max: u32,
}

/// A command as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandView {
    /// Its id.
    pub id: String,
    /// For which device.
    pub device: String,
    /// Which command.
    pub command: String,
    /// Its arguments.
    pub args: Value,
    /// How far it has come.
    pub status: Status,
    /// When it was posted, milliseconds since the Unix epoch.
    pub created_at: i64,
    /// From when on it is not delivered any more, milliseconds since the Unix epoch.
    pub expires_at: i64,
    /// When Kafka took it, milliseconds since the Unix epoch.
    pub sent_at: Option<i64>,
    /// What a node reported of it: the furthest that one did.
    pub report: Option<Value>,
    /// Why Kafka refused it.
    pub failure: Option<String>,
    /// What the device replied.
    pub reply: Option<ReplyView>,
}

/// A reply as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplyView {
    /// Whether the device says that it did it.
    pub ok: bool,
    /// What it added.
    pub result: Value,
    /// When it was received, milliseconds since the Unix epoch.
    pub received_at: i64,
}

/// Topic, partition, offset, device, metric, value, threshold, kind, time.
type AlertRow = (String, i32, i64, String, String, f64, f64, i64, i64);

/// The columns that [`command_view`] reads.
macro_rules! select_command {
    ($rest:literal) => {
        concat!(
            "SELECT id, device, command, args, status, created_ms, expires_ms, sent_ms, report, failure, ok, result, replied_ms
             FROM commands ",
            $rest
        )
    };
}

fn command_view(row: &SqliteRow) -> sqlx::Result<CommandView> {
    // JSON text that this backend wrote.
    let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let result: Option<&str> = row.try_get("result")?;
    let report: Option<&str> = row.try_get("report")?;
    let reply = match row.try_get("replied_ms")? {
        None => None,
        Some(received_at) => Some(ReplyView {
            ok: row.try_get::<Option<bool>, _>("ok")?.unwrap_or(false),
            result: result.map_or(Value::Null, json),
            received_at,
        }),
    };
    Ok(CommandView {
        id: row.try_get("id")?,
        device: row.try_get("device")?,
        command: row.try_get("command")?,
        args: json(row.try_get("args")?),
        status: Status::from_code(row.try_get("status")?),
        created_at: row.try_get("created_ms")?,
        expires_at: row.try_get("expires_ms")?,
        sent_at: row.try_get("sent_ms")?,
        report: report.map(json),
        failure: row.try_get("failure")?,
        reply,
    })
}

impl Store {
    /// Devices in the order of their names, those after `after`.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn devices(&self, after: &str, devices_max: u32) -> sqlx::Result<Vec<DeviceRow>> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT device, count(*), max(last_received_ms) FROM series WHERE device > ?
             GROUP BY device ORDER BY device LIMIT ?",
        )
        .bind(after.to_owned())
        .bind(devices_max)
        .fetch_all(self.0.reader())
        .await?;
        let row = |(device, metrics, last_seen_at)| DeviceRow {
            device,
            metrics,
            last_seen_at,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// The metrics of a device by name.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn metrics(&self, device: &str) -> sqlx::Result<Vec<MetricRow>> {
        let rows: Vec<(String, Measured, i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT metric, last_value, last_at_ms, last_received_ms, samples, state FROM series
             WHERE device = ? ORDER BY metric",
        )
        .bind(device.to_owned())
        .fetch_all(self.0.reader())
        .await?;
        Ok(rows
            .into_iter()
            .map(
                |(metric, value, at, received_at, samples, state)| MetricRow {
                    metric,
                    value,
                    at,
                    received_at,
                    samples,
                    state: State::from_code(state),
                },
            )
            .collect())
    }

    /// A part of a time series; `None` when the device has no such metric.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn points(
        &self,
        device: &str,
        metric: &str,
        range: Range,
    ) -> sqlx::Result<Option<Points>> {
        let series: Option<i64> =
            sqlx::query_scalar("SELECT id FROM series WHERE device = ? AND metric = ?")
                .bind(device.to_owned())
                .bind(metric.to_owned())
                .fetch_optional(self.0.reader())
                .await?;
        let Some(series) = series else {
            return Ok(None);
        };
        let before = range.before.unwrap_or(Cursor {
            at_ms: i64::MAX,
            source: i64::MAX,
            offset: i64::MAX,
        });
        // One more than wanted tells whether there is a page before.
        let mut rows: Vec<(i64, i64, i64, Measured)> = sqlx::query_as(
            r#"SELECT at_ms, source, "offset", value FROM samples
               WHERE series = ? AND at_ms >= ? AND at_ms <= ? AND (at_ms, source, "offset") < (?, ?, ?)
               ORDER BY at_ms DESC, source DESC, "offset" DESC LIMIT ?"#,
        )
        .bind(series)
        .bind(range.from_ms)
        .bind(range.to_ms)
        .bind(before.at_ms)
        .bind(before.source)
        .bind(before.offset)
        .bind(i64::from(range.points_max) + 1)
        .fetch_all(self.0.reader())
        .await?;
        let more = rows.len() > range.points_max as usize;
        rows.truncate(range.points_max as usize);
        let first = rows.last().map(|(at_ms, source, offset, _)| Cursor {
            at_ms: *at_ms,
            source: *source,
            offset: *offset,
        });
        let points = rows
            .into_iter()
            .rev()
            .map(|(at, _, _, value)| Point { at, value })
            .collect();
        Ok(Some(Points {
            points,
            before: first.filter(|_| more),
        }))
    }

    /// The latest alerts of a device, or of all, the latest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn alerts(&self, device: Option<&str>, alerts_max: u32) -> sqlx::Result<Vec<Alert>> {
        let rows: Vec<AlertRow> = match device {
            Some(device) => {
                sqlx::query_as(
                    r#"SELECT p.topic, p.partition, a."offset", s.device, s.metric, a.value, a.threshold, a.kind, a.at_ms
                       FROM series s CROSS JOIN alerts a ON a.series = s.id
                       JOIN store_progress p ON p.source = a.source
                       WHERE s.device = ? ORDER BY a.at_ms DESC, a."offset" DESC, s.metric LIMIT ?"#,
                )
                .bind(device.to_owned())
                .bind(alerts_max)
                .fetch_all(self.0.reader())
                .await?
            }
            None => {
                sqlx::query_as(
                    r#"SELECT p.topic, p.partition, a."offset", s.device, s.metric, a.value, a.threshold, a.kind, a.at_ms
                       FROM alerts a JOIN series s ON s.id = a.series
                       JOIN store_progress p ON p.source = a.source
                       ORDER BY a.at_ms DESC, a."offset" DESC, s.metric LIMIT ?"#,
                )
                .bind(alerts_max)
                .fetch_all(self.0.reader())
                .await?
            }
        };
        Ok(rows
            .into_iter()
            .map(
                |(topic, partition, offset, device, metric, value, threshold, kind, at)| Alert {
                    id: alert_id(&topic, partition, offset, &metric),
                    device,
                    metric,
                    value,
                    threshold,
                    kind: Kind::from_code(kind),
                    at,
                },
            )
            .collect())
    }

    /// A command.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn command(&self, id: &str) -> sqlx::Result<Option<CommandView>> {
        let row = sqlx::query(select_command!("WHERE id = ?"))
            .bind(id.to_owned())
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(command_view).transpose()
    }

    /// The first reply to a command that this store does not have: device, command, reply.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn stray_reply(&self, id: &str) -> sqlx::Result<Option<(String, String, ReplyView)>> {
        let row: Option<(String, String, bool, Option<String>, i64)> = sqlx::query_as(
            "SELECT device, command, ok, result, at_ms FROM stray_replies WHERE id = ? ORDER BY at_ms LIMIT 1",
        )
        .bind(id.to_owned())
        .fetch_optional(self.0.reader())
        .await?;
        Ok(row.map(|(device, command, ok, result, received_at)| {
            // JSON text that this backend wrote.
            let result = result.map_or(Value::Null, |text| {
                serde_json::from_str(&text).unwrap_or(Value::Null)
            });
            let reply = ReplyView {
                ok,
                result,
                received_at,
            };
            (device, command, reply)
        }))
    }

    /// The latest commands for a device, the latest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn commands(
        &self,
        device: &str,
        commands_max: u32,
    ) -> sqlx::Result<Vec<CommandView>> {
        let rows = sqlx::query(select_command!(
            "WHERE device = ? ORDER BY seq DESC LIMIT ?"
        ))
        .bind(device.to_owned())
        .bind(commands_max)
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(command_view).collect()
    }

    /// How many commands wait for Kafka.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn commands_pending(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM commands WHERE status = ?")
            .bind(Status::Pending.code())
            .fetch_one(self.0.reader())
            .await
    }
}
