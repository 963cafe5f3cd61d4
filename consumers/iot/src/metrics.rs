//! What the backend counts for Prometheus, beside what the runtime counts.

use prometheus::{IntCounter, IntGauge, Registry};

/// The backend's metrics. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub readings: IntCounter,
    pub readings_repeated: IntCounter,
    pub alerts: IntCounter,
    pub commands: IntCounter,
    pub commands_pending: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let commands_pending = IntGauge::new(
            "millstream_iot_commands_pending",
            "Commands that are stored and wait for Kafka.",
        )?;
        registry.register(Box::new(commands_pending.clone()))?;
        Ok(Self {
            readings: counter(
                "millstream_iot_readings_total",
                "Readings written to the store.",
            )?,
            readings_repeated: counter(
                "millstream_iot_readings_repeated_total",
                "Readings that came again and were in the store already.",
            )?,
            alerts: counter(
                "millstream_iot_alerts_total",
                "Alerts given to the downlink, those given again included.",
            )?,
            commands: counter(
                "millstream_iot_commands_total",
                "Commands accepted by the HTTP API.",
            )?,
            commands_pending,
        })
    }
}
