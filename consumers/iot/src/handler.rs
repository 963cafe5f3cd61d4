//! From records to readings, replies and reports, and from their effects to alerts on the downlink.

use envelope::Downlink;
use envelope::report::Report;
use runtime::{Batch, Growth, HandleError, Handler, Outcome, Pattern, Poison, Record, Stage};

use crate::alert::Alert;
use crate::clock::now_ms;
use crate::config::Topics;
use crate::metrics::Metrics;
use crate::payload::{self, Fault, check_name};
use crate::store::{Limits, Partition, ReadingAt, ReplyAt, Store};
use crate::telemetry;

/// The iot backend's [`Handler`].
pub(crate) struct IotHandler {
    pub store: Store,
    pub topics: Topics,
    pub limits: Limits,
    pub growth: Growth,
    pub metrics: Metrics,
}

impl Handler for IotHandler {
    fn store(&self) -> Option<runtime::store::Store> {
        Some(self.store.file().clone())
    }

    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        let mut poison = Vec::new();
        let partitions: Vec<Partition<'_>> = batches
            .iter()
            .map(|batch| read_batch(&self.topics, batch, &mut poison))
            .collect();
        let applied = self
            .store
            .apply(&partitions, &self.limits, now_ms())
            .await?;
        for refused in applied.refused {
            let class = match refused.limit {
                Some(limit) => {
                    self.growth.refused(limit, self.allowed(limit), 1);
                    "LimitReached"
                }
                None => "NotApplicable",
            };
            let batch = batches.get(refused.batch);
            if let Some(record) = batch.and_then(|batch| batch.get(refused.record)) {
                poison.push(Poison::new(record, Stage::TaskPut, class, refused.reason));
            }
        }
        self.metrics.readings.inc_by(applied.written);
        self.metrics.readings_repeated.inc_by(applied.repeated);
        self.metrics.alerts.inc_by(applied.alerts.len() as u64);
        let downlink = applied
            .alerts
            .iter()
            .map(|alert| alert_message(&self.topics.alerts, alert))
            .collect::<Result<_, _>>()?;
        Ok(Outcome { downlink, poison })
    }
}

impl IotHandler {
    /// What a limit on how many different things there may be allows.
    fn allowed(&self, limit: &str) -> u64 {
        match limit {
            "devices_max" => self.limits.devices_max.into(),
            _ => self.limits.metrics_per_device_max.into(),
        }
    }
}

fn read_batch<'a>(topics: &Topics, batch: &'a Batch, poison: &mut Vec<Poison>) -> Partition<'a> {
    let mut partition = Partition {
        batch,
        readings: Vec::with_capacity(batch.len()),
        replies: Vec::new(),
        reports: Vec::new(),
    };
    if batch.topic() == topics.reports {
        for record in batch.iter() {
            match Report::parse(record.payload()) {
                Ok(report) => partition.reports.push(report),
                Err(error) => poison.push(Poison::new(
                    record,
                    Stage::ValueConverter,
                    "NoReport",
                    error.to_string(),
                )),
            }
        }
        return partition;
    }
    for (index, record) in batch.iter().enumerate() {
        if let Err((stage, fault)) = read_record(topics, index, record, &mut partition) {
            poison.push(Poison::new(record, stage, fault.class, fault.reason));
        }
    }
    partition
}

/// Puts what the record says into the partition: all of it or nothing.
fn read_record<'a>(
    topics: &Topics,
    index: usize,
    record: Record<'a>,
    partition: &mut Partition<'a>,
) -> Result<(), (Stage, Fault)> {
    let header = |fault| (Stage::HeaderConverter, fault);
    let value = |fault| (Stage::ValueConverter, fault);
    let envelope = record
        .envelope()
        .map_err(|error| header(Fault::new("MalformedRecord", error.to_string())))?;
    // The broker's clock if the record came by it, else Kafka's: both are the same however often the record is read.
    let received_ms = envelope
        .received_at_micros
        .and_then(|micros| i64::try_from(micros / 1_000).ok())
        .or(record.timestamp_ms())
        .unwrap_or(0);
    if let Some([device, metric]) = topics.telemetry.read(envelope.topic) {
        check_name("device", device)
            .and_then(|()| check_name("metric", metric))
            .map_err(header)?;
        let reading = telemetry::reading(envelope.payload, received_ms).map_err(value)?;
        partition.readings.push(ReadingAt {
            index,
            offset: record.offset(),
            device,
            metric: metric.into(),
            value: reading.value,
            at_ms: reading.at_ms.unwrap_or(received_ms),
            received_ms,
        });
        return Ok(());
    }
    if let Some([device]) = topics.device_telemetry.read(envelope.topic) {
        check_name("device", device).map_err(header)?;
        let readings = telemetry::readings(envelope.payload, received_ms).map_err(value)?;
        let at_ms = readings.at_ms.unwrap_or(received_ms);
        let values = readings.values.into_iter();
        partition
            .readings
            .extend(values.map(|(metric, value)| ReadingAt {
                index,
                offset: record.offset(),
                device,
                metric: metric.into(),
                value,
                at_ms,
                received_ms,
            }));
        return Ok(());
    }
    if let Some([device, command]) = topics.replies.read(envelope.topic) {
        let reply = payload::reply(envelope.payload, envelope.correlation_data).map_err(value)?;
        check_name("device", device)
            .and_then(|()| check_name("command", command))
            .map_err(header)?;
        partition.replies.push(ReplyAt {
            index,
            offset: record.offset(),
            device,
            command,
            reply,
            received_ms,
        });
        return Ok(());
    }
    let reason = format!(
        "the MQTT topic is none of {}, {} and {}",
        topics.telemetry.as_str(),
        topics.device_telemetry.as_str(),
        topics.replies.as_str()
    );
    Err(header(Fault::new("UnknownTopic", reason)))
}

fn alert_message(topic: &Pattern<1>, alert: &Alert) -> Result<Downlink, HandleError> {
    let payload = serde_json::to_vec(alert).map_err(|error| {
        HandleError::Fatal(format!("an alert cannot be written as JSON: {error}"))
    })?;
    Ok(Downlink::new(topic.write([&alert.device]), payload)
        .qos(1)
        .payload_format(1)
        .content_type("application/json"))
}

#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod tests;
