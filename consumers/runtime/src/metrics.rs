//! The numbers of one consumer, for Prometheus.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::config::Config;
use crate::status::{Gap, Status};

/// Where a transient failure happened.
pub(crate) const STEP_HANDLE: &str = "handle";
pub(crate) const STEP_PRODUCE: &str = "produce";
pub(crate) const STEP_COMMIT: &str = "commit";

/// The kinds of fault for which backends condemn records. Each is counted from the start, with 0: Prometheus' `increase` does not
/// see a counter that begins with 1, so the first dead letter would be no alert.
pub(crate) const FAULT_CLASSES: [&str; 12] = [
    "BadChange",
    "BadLength",
    "BadName",
    "LimitReached",
    "MalformedRecord",
    "MissingField",
    "NoReport",
    "NotApplicable",
    "NotJson",
    "OutOfRange",
    "UnknownTopic",
    "WrongType",
];

/// All metrics carry the label `group`, so that several consumers can share a registry.
pub(crate) struct Metrics {
    pub(crate) records: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) dead_letters_truncated: IntCounter,
    pub(crate) copies_left_out: IntCounter,
    pub(crate) downlinks: IntCounter,
    pub(crate) downlinks_refused: IntCounter,
    pub(crate) failures: IntCounterVec,
    pub(crate) rebuilds: IntCounter,
    pub(crate) rebalances: IntCounter,
    pub(crate) handle_seconds: Histogram,
    pub(crate) batch_records: Histogram,
    gaps: IntCounterVec,
    lag: IntGaugeVec,
    paused: IntGauge,
    reachable: IntGauge,
    uptime: Gauge,
}

impl Metrics {
    pub(crate) fn new(config: &Config, registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| {
            Opts::new(format!("millstream_consumer_{name}"), help)
                .const_label("group", &config.group)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            Histogram::with_opts(
                HistogramOpts::new(format!("millstream_consumer_{name}"), help)
                    .const_label("group", &config.group)
                    .buckets(buckets),
            )
        };
        let metrics = Self {
            records: IntCounterVec::new(
                opts("records_total", "Records handled, dead letters included"),
                &["topic"],
            )?,
            dead_letters: IntCounterVec::new(
                opts(
                    "dead_letters_total",
                    "Records put into a dead-letter topic, by kind of fault",
                ),
                &["topic", "class"],
            )?,
            dead_letters_truncated: IntCounter::with_opts(opts(
                "dead_letters_truncated_total",
                "Dead letters stored without their payload because they were too large with it",
            ))?,
            copies_left_out: IntCounter::with_opts(opts(
                "copies_left_out_total",
                "Copies of a replay that had their effect before or were meant for another group",
            ))?,
            downlinks: IntCounter::with_opts(opts(
                "downlinks_total",
                "Messages appended to the downlink topic",
            ))?,
            downlinks_refused: IntCounter::with_opts(opts(
                "downlinks_refused_total",
                "Messages that Kafka refuses for good, for example because they are too large",
            ))?,
            failures: IntCounterVec::new(
                opts(
                    "failures_total",
                    "Transient failures by the step that failed; each is retried",
                ),
                &["step"],
            )?,
            rebuilds: IntCounter::with_opts(opts(
                "rebuilds_total",
                "Times that the reader was rebuilt because it stalled or lost its group for good",
            ))?,
            rebalances: IntCounter::with_opts(opts(
                "rebalances_total",
                "Times that partitions were given to or taken from this consumer",
            ))?,
            handle_seconds: histogram(
                "handle_seconds",
                "Time that one call of the handler takes",
                vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
                ],
            )?,
            batch_records: histogram(
                "batch_records",
                "Records in one call of the handler",
                vec![
                    1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
                ],
            )?,
            gaps: IntCounterVec::new(
                opts(
                    "gap_records_total",
                    "Records that Kafka had no longer when their turn came",
                ),
                &["topic"],
            )?,
            lag: IntGaugeVec::new(
                opts("lag_records", "Records that wait in Kafka"),
                &["topic", "partition"],
            )?,
            paused: IntGauge::with_opts(opts(
                "paused_partitions",
                "Partitions that are paused after a transient failure",
            ))?,
            reachable: IntGauge::with_opts(opts(
                "kafka_reachable",
                "1 while a Kafka broker can be reached, else 0",
            ))?,
            uptime: Gauge::with_opts(opts("start_time_seconds", "When the consumer was started"))?,
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        metrics.uptime.set(now.as_secs_f64());
        metrics.reachable.set(1);
        for step in [STEP_HANDLE, STEP_PRODUCE, STEP_COMMIT] {
            metrics.failures.with_label_values(&[step]);
        }
        for topic in &config.topics {
            metrics.records.with_label_values(&[topic]);
            for class in FAULT_CLASSES {
                metrics.dead_letters.with_label_values(&[topic, class]);
            }
            metrics.gaps.with_label_values(&[topic]);
        }
        let all: [Box<dyn prometheus::core::Collector>; 16] = [
            Box::new(metrics.records.clone()),
            Box::new(metrics.dead_letters.clone()),
            Box::new(metrics.dead_letters_truncated.clone()),
            Box::new(metrics.copies_left_out.clone()),
            Box::new(metrics.downlinks.clone()),
            Box::new(metrics.downlinks_refused.clone()),
            Box::new(metrics.failures.clone()),
            Box::new(metrics.rebuilds.clone()),
            Box::new(metrics.rebalances.clone()),
            Box::new(metrics.handle_seconds.clone()),
            Box::new(metrics.batch_records.clone()),
            Box::new(metrics.gaps.clone()),
            Box::new(metrics.lag.clone()),
            Box::new(metrics.paused.clone()),
            Box::new(metrics.reachable.clone()),
            Box::new(metrics.uptime.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Counts records that are gone.
    pub(crate) fn lost(&self, gap: &Gap) {
        self.gaps
            .with_label_values(&[gap.topic.as_str()])
            .inc_by(u64::try_from(gap.to - gap.from).unwrap_or(0));
    }

    /// Takes over what a status says.
    pub(crate) fn observe(&self, status: &Status) {
        for partition in &status.partitions {
            if partition.lag.is_none() {
                self.forget(&partition.topic, partition.partition);
            }
            if let Some(lag) = partition.lag {
                self.lag
                    .with_label_values(&[
                        partition.topic.as_str(),
                        &partition.partition.to_string(),
                    ])
                    .set(i64::try_from(lag).unwrap_or(i64::MAX));
            }
        }
        let paused = status
            .partitions
            .iter()
            .filter(|partition| partition.retry.is_some())
            .count();
        self.paused.set(i64::try_from(paused).unwrap_or(i64::MAX));
        self.reachable
            .set(i64::from(status.kafka_unreachable_since_ms.is_none()));
    }
    /// Says no more about a partition: it is another instance's now.
    pub(crate) fn forget(&self, topic: &str, partition: i32) {
        // An error says that nothing was said about it.
        let _ = self
            .lag
            .remove_label_values(&[topic, &partition.to_string()]);
    }
}
