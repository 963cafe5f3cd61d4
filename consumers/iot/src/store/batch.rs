//! The records of one call of the handler, in one transaction.

use std::borrow::Cow;
use std::collections::HashMap;

use envelope::report::Report;
use runtime::HandleError;
use runtime::store::{Progress, ROWS_PER_STATEMENT_MAX, is_whole};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::rules::rules_by_metric;
use super::{Limits, Store};
use crate::alert::{Alert, Crossing, Kind, State};
use crate::payload::Reply;
use crate::telemetry::Value;

/// What a batch of records says: what could be read of it, and the batch itself for what could not.
#[derive(Debug)]
pub struct Partition<'a> {
    /// The records.
    pub batch: &'a runtime::Batch,
    /// The readings, in order; those of one record stand together, each of another metric.
    pub readings: Vec<ReadingAt<'a>>,
    /// The replies, in order.
    pub replies: Vec<ReplyAt<'a>>,
    /// What nodes report of downlink messages, in order.
    pub reports: Vec<Report>,
}

/// A reading and the record it came in.
#[derive(Debug)]
pub struct ReadingAt<'a> {
    /// The record's place in the batch.
    pub index: usize,
    /// The record's offset.
    pub offset: i64,
    /// The device.
    pub device: &'a str,
    /// The metric.
    pub metric: Cow<'a, str>,
    /// The value.
    pub value: Value,
    /// When it was measured, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// When it was received, milliseconds since the Unix epoch.
    pub received_ms: i64,
}

/// A reply and the record it came in.
#[derive(Debug)]
pub struct ReplyAt<'a> {
    /// The record's place in the batch.
    pub index: usize,
    /// The record's offset.
    pub offset: i64,
    /// The device that replies.
    pub device: &'a str,
    /// The command it replies to.
    pub command: &'a str,
    /// What it says.
    pub reply: Reply,
    /// When it was received, milliseconds since the Unix epoch.
    pub received_ms: i64,
}

/// What a call did.
#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    /// The alerts of the records, in order; those of records seen before are the same as then.
    pub alerts: Vec<Alert>,
    /// Records that the store cannot take.
    pub refused: Vec<Refused>,
    /// Readings written.
    pub written: u64,
    /// Readings that were there already.
    pub repeated: u64,
}

/// A record that the store cannot take.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// Which batch.
    pub batch: usize,
    /// Which record of it.
    pub record: usize,
    /// The key of the limit that is reached, if that is why.
    pub limit: Option<&'static str>,
    /// Why.
    pub reason: String,
}

/// A series as the transaction found it and as it will leave it.
struct Series<'a> {
    id: i64,
    state: State,
    last: Option<Last<'a>>,
}

struct Last<'a> {
    reading: &'a ReadingAt<'a>,
    samples: i64,
}

struct Sample<'a> {
    series: i64,
    source: i64,
    reading: &'a ReadingAt<'a>,
}

struct Raised<'a> {
    series: i64,
    reading: &'a ReadingAt<'a>,
    value: f64,
    crossing: Crossing,
}

impl Store {
    /// Applies what the partitions say, as far as `limits` let it, at the moment `now_ms`.
    ///
    /// # Errors
    ///
    /// What the store says; nothing was written then.
    pub async fn apply(
        &self,
        partitions: &[Partition<'_>],
        limits: &Limits,
        now_ms: i64,
    ) -> Result<Applied, HandleError> {
        let mut tx = self.0.write().await?;
        let batches = partitions.iter().map(|partition| partition.batch);
        let progress = Progress::of(&mut tx, batches.clone()).await?;
        let rules = rules_by_metric(&mut tx).await?;
        let mut all = AllSeries::of(partitions);
        all.find(&mut tx).await?;
        all.create(&mut tx, partitions, &progress, limits).await?;
        let silent_before_ms = limits.before(now_ms).silent_ms;
        let mut has_series = HashMap::new();
        let mut applied = Applied::default();
        let mut samples = Vec::with_capacity(all.of_reading.len());
        let of_reading = std::mem::take(&mut all.of_reading);
        let mut of_reading = of_reading.as_slice();
        for (position, (partition, progress)) in partitions.iter().zip(&progress).enumerate() {
            applied
                .alerts
                .extend(alerts_again(&mut tx, partition.batch, *progress).await?);
            let mut raised = Vec::new();
            for readings in of_one_record(&partition.readings) {
                let (of_record, rest) = of_reading.split_at(readings.len());
                of_reading = rest;
                let is_new = progress.is_new(readings[0].offset);
                // All metrics of a record, or none: what is refused comes again as a whole when it is sent again.
                if of_record.iter().any(|series| all.series[*series].is_none()) {
                    let reading = &readings[0];
                    if !is_new && reading.received_ms < silent_before_ms {
                        // What was made of it may be forgotten, series and all.
                        continue;
                    }
                    let (limit, reason) =
                        reached(&mut tx, &mut has_series, reading.device, limits).await?;
                    applied.refused.push(Refused {
                        batch: position,
                        record: reading.index,
                        limit: Some(limit),
                        reason,
                    });
                    continue;
                }
                if !is_new {
                    applied.repeated += readings.len() as u64;
                    continue;
                }
                for (reading, series) in readings.iter().zip(of_record) {
                    let Some(series) = &mut all.series[*series] else {
                        continue;
                    };
                    let rule = rules.get(reading.metric.as_ref());
                    if let Some(value) = reading.value.number() {
                        let (state, crossing) = match rule {
                            Some(rule) => rule.next(series.state, value),
                            None => (State::Normal, None),
                        };
                        series.state = state;
                        raised.extend(crossing.map(|crossing| Raised {
                            series: series.id,
                            reading,
                            value,
                            crossing,
                        }));
                    }
                    series.last = Some(Last {
                        reading,
                        samples: series.last.as_ref().map_or(0, |last| last.samples) + 1,
                    });
                    samples.push(Sample {
                        series: series.id,
                        source: progress.source,
                        reading,
                    });
                }
            }
            insert_alerts(&mut tx, progress.source, &raised).await?;
            applied
                .alerts
                .extend(raised.iter().map(|raised| alert(partition.batch, raised)));
            for report in &partition.reports {
                super::commands::record_report(&mut tx, report).await?;
            }
            for reply in &partition.replies {
                if let Some(reason) =
                    super::commands::record_reply(&mut tx, progress.source, reply).await?
                {
                    applied.refused.push(Refused {
                        batch: position,
                        record: reply.index,
                        limit: None,
                        reason,
                    });
                }
            }
        }
        applied.written = samples.len() as u64;
        insert_samples(&mut tx, samples).await?;
        update_series(&mut tx, all.series.iter().flatten()).await?;
        Progress::advance(&mut tx, progress.iter().zip(batches)).await?;
        tx.commit().await?;
        Ok(applied)
    }
}

/// The readings of each record.
fn of_one_record<'a>(readings: &'a [ReadingAt<'a>]) -> impl Iterator<Item = &'a [ReadingAt<'a>]> {
    readings.chunk_by(|one, next| one.index == next.index)
}

/// The alerts that records of this batch raised when they were applied.
async fn alerts_again(
    tx: &mut Transaction<'_, Sqlite>,
    batch: &runtime::Batch,
    progress: Progress,
) -> sqlx::Result<Vec<Alert>> {
    let Some(first) = batch
        .first_offset()
        .filter(|first| !progress.is_new(*first))
    else {
        return Ok(Vec::new());
    };
    let rows: Vec<(i64, String, String, i64, f64, f64, i64)> = sqlx::query_as(
        r#"SELECT a."offset", s.device, s.metric, a.kind, a.value, a.threshold, a.at_ms
           FROM alerts a JOIN series s ON s.id = a.series
           WHERE a.source = ? AND a."offset" >= ? AND a."offset" < ? ORDER BY a."offset", s.metric"#,
    )
    .bind(progress.source)
    .bind(first)
    .bind(
        batch
            .next_offset()
            .unwrap_or(first)
            .min(progress.next_offset),
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(
            |(offset, device, metric, kind, value, threshold, at)| Alert {
                id: alert_id(batch.topic(), batch.partition(), offset, &metric),
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

/// An alert is named by the record that raised it and its metric.
pub(super) fn alert_id(topic: &str, partition: i32, offset: i64, metric: &str) -> String {
    format!("{topic}/{partition}/{offset}/{metric}")
}

fn alert(batch: &runtime::Batch, raised: &Raised<'_>) -> Alert {
    let (topic, partition) = (batch.topic(), batch.partition());
    let reading = raised.reading;
    Alert {
        id: alert_id(topic, partition, reading.offset, &reading.metric),
        device: reading.device.to_owned(),
        metric: reading.metric.clone().into_owned(),
        value: raised.value,
        threshold: raised.crossing.threshold,
        kind: raised.crossing.kind,
        at: raised.reading.at_ms,
    }
}

/// The series of all readings of a call.
struct AllSeries<'a> {
    /// Device and metric of each.
    names: Vec<(&'a str, &'a str)>,
    /// Where each reading's series stands, in the order of the partitions and their readings.
    of_reading: Vec<usize>,
    /// What the store has of each; `None` for one that may not be made.
    series: Vec<Option<Series<'a>>>,
}

impl<'a> AllSeries<'a> {
    fn of(partitions: &'a [Partition<'a>]) -> Self {
        let readings = || partitions.iter().flat_map(|partition| &partition.readings);
        let mut known = HashMap::new();
        let mut names = Vec::new();
        let of_reading = readings()
            .map(|reading| {
                let name = (reading.device, reading.metric.as_ref());
                *known.entry(name).or_insert_with(|| {
                    names.push(name);
                    names.len() - 1
                })
            })
            .collect();
        Self {
            series: names.iter().map(|_| None).collect(),
            names,
            of_reading,
        }
    }

    /// Looks up those that exist.
    async fn find(&mut self, tx: &mut Transaction<'_, Sqlite>) -> sqlx::Result<()> {
        let chunks = self.names.chunks(ROWS_PER_STATEMENT_MAX);
        for (names, series) in chunks.zip(self.series.chunks_mut(ROWS_PER_STATEMENT_MAX)) {
            let mut query =
                QueryBuilder::<Sqlite>::new("WITH wanted (position, device, metric) AS (");
            query.push_values(
                names.iter().enumerate(),
                |mut row, (position, (device, metric))| {
                    row.push_bind(position as i64)
                        .push_bind(*device)
                        .push_bind(*metric);
                },
            );
            // CROSS JOIN keeps the order: one look-up in the index for each name wanted.
            query.push(
                ") SELECT w.position, s.id, s.state FROM wanted w
                 CROSS JOIN series s ON s.device = w.device AND s.metric = w.metric",
            );
            let rows: Vec<(i64, i64, i64)> = query
                .build_query_as()
                .persistent(is_whole(names))
                .fetch_all(&mut **tx)
                .await?;
            for (position, id, state) in rows {
                let found = usize::try_from(position)
                    .ok()
                    .and_then(|position| series.get_mut(position));
                if let Some(found) = found {
                    *found = Some(Series {
                        id,
                        state: State::from_code(state),
                        last: None,
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes those that new readings need, as far as their devices may have more.
    async fn create(
        &mut self,
        tx: &mut Transaction<'_, Sqlite>,
        partitions: &'a [Partition<'a>],
        progress: &[Progress],
        limits: &Limits,
    ) -> sqlx::Result<()> {
        let mut devices = None;
        let mut metrics: HashMap<&str, i64> = HashMap::new();
        let mut of_reading = self.of_reading.as_slice();
        for (partition, progress) in partitions.iter().zip(progress) {
            for readings in of_one_record(&partition.readings) {
                let (of_record, rest) = of_reading.split_at(readings.len());
                of_reading = rest;
                let missing = of_record
                    .iter()
                    .filter(|series| self.series[**series].is_none())
                    .count();
                // A record seen before whose series does not exist was refused then, and is refused again.
                if missing == 0 || !progress.is_new(readings[0].offset) {
                    continue;
                }
                let device = readings[0].device;
                let count = match metrics.get_mut(device) {
                    Some(count) => count,
                    None => {
                        let count: i64 =
                            sqlx::query_scalar("SELECT count(*) FROM series WHERE device = ?")
                                .bind(device)
                                .fetch_one(&mut **tx)
                                .await?;
                        metrics.entry(device).or_insert(count)
                    }
                };
                let after = count.saturating_add(i64::try_from(missing).unwrap_or(i64::MAX));
                if after > i64::from(limits.metrics_per_device_max) {
                    continue;
                }
                if *count == 0 {
                    let devices = match &mut devices {
                        Some(devices) => devices,
                        None => devices.insert(count_devices(tx).await?),
                    };
                    if *devices >= i64::from(limits.devices_max) {
                        continue;
                    }
                    *devices += 1;
                }
                *count = after;
                for (reading, series) in readings.iter().zip(of_record) {
                    let series = &mut self.series[*series];
                    if series.is_none() {
                        *series = Some(create(tx, reading).await?);
                    }
                }
            }
        }
        Ok(())
    }
}

async fn count_devices(tx: &mut Transaction<'_, Sqlite>) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT devices FROM device_count")
        .fetch_one(&mut **tx)
        .await
}

/// Which limit keeps a device from a series more, and in words. `has_series` holds what was asked before.
async fn reached<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    has_series: &mut HashMap<&'a str, bool>,
    device: &'a str,
    limits: &Limits,
) -> sqlx::Result<(&'static str, String)> {
    let is_known = match has_series.get(device) {
        Some(is_known) => *is_known,
        None => {
            let sql = "SELECT EXISTS (SELECT 1 FROM series WHERE device = ?)";
            let is_known: bool = sqlx::query_scalar(sql)
                .bind(device)
                .fetch_one(&mut **tx)
                .await?;
            has_series.insert(device, is_known);
            is_known
        }
    };
    let devices = if is_known {
        0
    } else {
        count_devices(tx).await?
    };
    Ok(if devices >= i64::from(limits.devices_max) {
        let max = limits.devices_max;
        let reason = format!("the device would be one too many: devices_max = {max}");
        ("devices_max", reason)
    } else {
        let max = limits.metrics_per_device_max;
        let reason =
            format!("the device would have too many metrics: metrics_per_device_max = {max}");
        ("metrics_per_device_max", reason)
    })
}

async fn create<'a>(
    tx: &mut Transaction<'_, Sqlite>,
    reading: &ReadingAt<'_>,
) -> sqlx::Result<Series<'a>> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO series (device, metric, last_value, last_at_ms, last_received_ms, samples, state)
         VALUES (?, ?, ?, ?, ?, 0, 0) RETURNING id",
    )
    .bind(reading.device)
    .bind(reading.metric.as_ref())
    .bind(&reading.value)
    .bind(reading.at_ms)
    .bind(reading.received_ms)
    .fetch_one(&mut **tx)
    .await?;
    Ok(Series {
        id,
        state: State::Normal,
        last: None,
    })
}

async fn insert_samples(
    tx: &mut Transaction<'_, Sqlite>,
    mut samples: Vec<Sample<'_>>,
) -> sqlx::Result<()> {
    // In the order of the table: one after the other goes to the same page.
    samples.sort_unstable_by_key(|sample| {
        let reading = sample.reading;
        (sample.series, reading.at_ms, sample.source, reading.offset)
    });
    for samples in samples.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(
            r#"INSERT OR IGNORE INTO samples (series, at_ms, source, "offset", value) "#,
        );
        query.push_values(samples, |mut row, sample| {
            row.push_bind(sample.series)
                .push_bind(sample.reading.at_ms)
                .push_bind(sample.source)
                .push_bind(sample.reading.offset)
                .push_bind(&sample.reading.value);
        });
        query
            .build()
            .persistent(is_whole(samples))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn update_series<'s>(
    tx: &mut Transaction<'_, Sqlite>,
    series: impl Iterator<Item = &'s Series<'s>>,
) -> sqlx::Result<()> {
    let changed: Vec<(&Series<'_>, &Last<'_>)> = series
        .filter_map(|series| series.last.as_ref().map(|last| (series, last)))
        .collect();
    for changed in changed.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "WITH new (id, state, value, at_ms, received_ms, samples) AS (",
        );
        query.push_values(changed, |mut row, (series, last)| {
            row.push_bind(series.id)
                .push_bind(series.state.code())
                .push_bind(&last.reading.value)
                .push_bind(last.reading.at_ms)
                .push_bind(last.reading.received_ms)
                .push_bind(last.samples);
        });
        query.push(
            ") UPDATE series SET state = new.state, last_value = new.value, last_at_ms = new.at_ms,
             last_received_ms = new.received_ms, samples = series.samples + new.samples
             FROM new WHERE series.id = new.id",
        );
        query
            .build()
            .persistent(is_whole(changed))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn insert_alerts(
    tx: &mut Transaction<'_, Sqlite>,
    source: i64,
    raised: &[Raised<'_>],
) -> sqlx::Result<()> {
    for raised in raised.chunks(ROWS_PER_STATEMENT_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(
            r#"INSERT OR IGNORE INTO alerts (source, "offset", series, kind, value, threshold, at_ms) "#,
        );
        query.push_values(raised, |mut row, raised| {
            row.push_bind(source)
                .push_bind(raised.reading.offset)
                .push_bind(raised.series)
                .push_bind(raised.crossing.kind.code())
                .push_bind(raised.value)
                .push_bind(raised.crossing.threshold)
                .push_bind(raised.reading.at_ms);
        });
        query
            .build()
            .persistent(is_whole(raised))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
