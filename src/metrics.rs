//! The broker's and the bridge's counters in Prometheus' form. Consumers register their own in the same registry.
//!
//! Counters live where they are counted; a scrape copies them into metrics that live as long as the scrape.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::demo::Totals;

/// Counts of the broker that go up and down.
const BROKER_GAUGES: &[&str] = &[
    "connections",
    "clients",
    "clients_asked",
    "sessions",
    "sink_pending",
    "publishers_held",
    "publishes_read_ahead",
    "wills_waiting",
    "read_ahead_bytes",
    "inflight",
    "queued",
    "subscriptions",
    "shared_subscriptions",
    "retained_messages",
    "retained_bytes",
    "inbox_entries",
    "budget_used_bytes",
    "budget_bytes",
];

/// Counters that differ in one word become one metric with a label: prefix, metric, label, help.
type Family = (&'static str, &'static str, &'static str, &'static str);

const BROKER_FAMILIES: &[Family] = &[
    (
        "denied_",
        "publishes_denied",
        "reason",
        "Publishes refused, by reason.",
    ),
    (
        "closed_",
        "connections_closed_by_reason",
        "reason",
        "Connections closed, by reason.",
    ),
    (
        "dropped_",
        "deliveries_dropped",
        "reason",
        "Deliveries dropped, by reason.",
    ),
    (
        "publishes_received_",
        "publishes_received",
        "qos",
        "Publishes received, by QoS.",
    ),
];

/// Puts the counts of backends that were started again into `registry`.
///
/// # Errors
/// When two metrics have one name.
pub fn restarts(
    registry: &Registry,
    restarted: &BTreeMap<&'static str, u64>,
) -> prometheus::Result<()> {
    let opts = Opts::new(
        "millstream_backend_restarts_total",
        "Attempts to start a backend again that had stopped by itself.",
    );
    let counter = IntCounterVec::new(opts, &["backend"])?;
    for (backend, count) in restarted {
        counter.with_label_values(&[*backend]).inc_by(*count);
    }
    registry.register(Box::new(counter))
}

/// Puts the broker's counters into `registry`.
///
/// # Errors
/// When two metrics have one name.
pub fn broker(
    registry: &Registry,
    stats: &broker::Stats,
    denied: &[broker::Denied],
) -> prometheus::Result<()> {
    let options = Opts::new(
        "millstream_broker_access_denied_total",
        "What clients were refused by the access rules, by rule.",
    );
    let by_rule = IntCounterVec::new(options, &["action", "rule"])?;
    for denied in denied {
        by_rule
            .with_label_values(&[denied.action.to_string(), denied.rule.clone()])
            .inc_by(denied.times);
    }
    registry.register(Box::new(by_rule))?;
    times(
        registry,
        "millstream_broker_acknowledgement_seconds",
        "From a publish of QoS 1 or 2 to its PUBACK or PUBREC.",
        &stats.acknowledgement_times,
    )?;
    times(
        registry,
        "millstream_broker_delivery_seconds",
        "From a publish to the outbox of each receiver, the time in the queue of a client that was away included.",
        &stats.delivery_times,
    )?;
    counts(
        registry,
        "broker",
        stats.each(),
        BROKER_GAUGES,
        BROKER_FAMILIES,
    )
}

/// Puts what is counted of each listener into `registry`.
///
/// # Errors
/// When two metrics have one name.
pub fn listeners(
    registry: &Registry,
    listeners: &[broker::ListenerStatus],
) -> prometheus::Result<()> {
    let name = |what: &str| format!("millstream_broker_listener_{what}");
    let open = GaugeVec::new(
        Opts::new(name("connections"), "Connections open now, by listener."),
        &["listener"],
    )?;
    let accepted = IntCounterVec::new(
        Opts::new(name("accepted_total"), "Connections accepted, by listener."),
        &["listener"],
    )?;
    let refused = IntCounterVec::new(
        Opts::new(
            name("refused_total"),
            "Connections closed at once because the listener's own bound was reached.",
        ),
        &["listener"],
    )?;
    let problems = GaugeVec::new(
        Opts::new(
            name("certificates_refused"),
            "1 while certificates that have changed cannot be used, and the ones from before are.",
        ),
        &["listener"],
    )?;
    let expires = GaugeVec::new(
        Opts::new(
            "millstream_broker_certificate_expiry_timestamp_seconds",
            "When a certificate in use expires, in seconds since 1970.",
        ),
        &["listener", "file"],
    )?;
    for listener in listeners {
        let label = &[&*listener.name];
        open.with_label_values(label)
            .set(listener.connections.into());
        accepted.with_label_values(label).inc_by(listener.accepted);
        refused.with_label_values(label).inc_by(listener.refused);
        let is_refused = f64::from(u8::from(listener.problem.is_some()));
        problems.with_label_values(label).set(is_refused);
        for certificate in &listener.certificates {
            expires
                .with_label_values(&[&*listener.name, &*certificate.file])
                .set(certificate.expires_at_s as f64);
        }
    }
    registry.register(Box::new(open))?;
    registry.register(Box::new(accepted))?;
    registry.register(Box::new(refused))?;
    registry.register(Box::new(problems))?;
    registry.register(Box::new(expires))
}

/// `bytes_received` is `received_bytes` in Prometheus' convention.
fn unit_last(name: &str) -> String {
    name.strip_prefix("bytes_")
        .map_or_else(|| name.to_owned(), |what| format!("{what}_bytes"))
}

/// Counts of the bridge that go up and down.
const BRIDGE_GAUGES: &[&str] = &[
    "kafka_reachable",
    "kafka_unreachable_seconds",
    "kafka_waiting",
    "kafka_waiting_bytes",
    "kafka_weaknesses",
    "downlink_held",
];

/// As [`BROKER_FAMILIES`].
const BRIDGE_FAMILIES: &[Family] = &[
    (
        "kafka_refused_",
        "kafka_refused",
        "reason",
        "Messages that Kafka refused for good, by reason.",
    ),
    (
        "downlink_outcomes_",
        "downlink_outcomes",
        "outcome",
        "Downlink records, by what became of them on this node.",
    ),
];

/// Puts the bridge's counters into `registry`.
///
/// # Errors
/// When two metrics have one name.
pub fn bridge(registry: &Registry, status: &bridge::Status) -> prometheus::Result<()> {
    times(
        registry,
        "millstream_bridge_produce_seconds",
        "From the moment a message was taken to Kafka's confirmation.",
        &status.produce_times,
    )?;
    counts(
        registry,
        "bridge",
        status.each(),
        BRIDGE_GAUGES,
        BRIDGE_FAMILIES,
    )
}

/// Puts counts into `registry`, as gauges, families or counters.
fn counts(
    registry: &Registry,
    part: &str,
    each: Vec<(&'static str, &'static str, u64)>,
    gauges: &[&str],
    families: &[Family],
) -> prometheus::Result<()> {
    let mut vectors: BTreeMap<&str, IntCounterVec> = BTreeMap::new();
    let memory = GaugeVec::new(
        Opts::new(
            format!("millstream_{part}_memory_bytes"),
            "Bytes held now, by kind; a message that waits in several places counts in each.",
        ),
        &["kind"],
    )?;
    let mut has_memory = false;
    for (name, help, value) in each {
        if let Some(kind) = name.strip_prefix("memory_") {
            memory.with_label_values(&[kind]).set(value as f64);
            has_memory = true;
            continue;
        }
        let family = families
            .iter()
            .find(|(prefix, ..)| name.starts_with(prefix));
        if let Some((prefix, metric, label, help)) = family {
            if !vectors.contains_key(metric) {
                let options = Opts::new(format!("millstream_{part}_{metric}_total"), *help);
                vectors.insert(metric, IntCounterVec::new(options, &[label])?);
            }
            vectors[metric]
                .with_label_values(&[name.trim_start_matches(prefix).trim_start_matches("qos")])
                .inc_by(value);
        } else if gauges.contains(&name) {
            gauge(registry, &format!("millstream_{part}_{name}"), help, value)?;
        } else {
            counter(
                registry,
                &format!("millstream_{part}_{}_total", unit_last(name)),
                help,
                value,
            )?;
        }
    }
    for vector in vectors.into_values() {
        registry.register(Box::new(vector))?;
    }
    if has_memory {
        registry.register(Box::new(memory))?;
    }
    Ok(())
}

/// Puts the demo's ledger into `registry`.
///
/// # Errors
/// When two metrics have one name.
pub fn demo(registry: &Registry, totals: &Totals) -> prometheus::Result<()> {
    let count = |name: &str, help, value| {
        counter(
            registry,
            &format!("millstream_demo_{name}_total"),
            help,
            value,
        )
    };
    count(
        "messages_published",
        "Messages that the demo fleet published.",
        totals.published,
    )?;
    count(
        "messages_acknowledged",
        "Messages of the demo fleet that were acknowledged.",
        totals.acknowledged,
    )?;
    count(
        "effects",
        "Deliveries, receipts and replies that the demo fleet saw.",
        totals.effects,
    )?;
    count(
        "duplicates",
        "Deliveries, receipts and replies that the demo fleet saw again.",
        totals.duplicates,
    )?;
    count(
        "out_of_order",
        "Deliveries that the demo fleet saw out of order.",
        totals.out_of_order,
    )?;
    let help = "Messages of the demo fleet that were acknowledged and have not arrived everywhere in time.";
    gauge(registry, "millstream_demo_messages_lost", help, totals.lost)
}

/// Puts one counter into `registry`.
///
/// # Errors
/// When the name is taken or is none.
pub fn counter(registry: &Registry, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
    let counter = prometheus::IntCounter::new(name, help)?;
    counter.inc_by(value);
    registry.register(Box::new(counter))
}

/// Puts one gauge into `registry`.
///
/// # Errors
/// When the name is taken or is none.
pub fn gauge(registry: &Registry, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
    let gauge = IntGauge::new(name, help)?;
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(Box::new(gauge))
}

/// Puts a histogram of times that were counted elsewhere into `registry`.
///
/// # Errors
/// When the name is taken or is none.
fn times(
    registry: &Registry,
    name: &str,
    help: &str,
    times: &broker::Times,
) -> prometheus::Result<()> {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(times.count());
    histogram.set_sample_sum(times.sum_ms() as f64 / 1_000.0);
    let mut count = 0;
    let steps = broker::TIMES_UP_TO_MS.iter().zip(times.counts());
    let buckets = steps.map(|(up_to_ms, of_step)| {
        count += of_step;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*up_to_ms as f64 / 1_000.0);
        bucket.set_cumulative_count(count);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(vec![metric]);
    let desc = Desc::new(
        name.to_owned(),
        help.to_owned(),
        Vec::new(),
        Default::default(),
    )?;
    registry.register(Box::new(Counted { desc, family }))
}

/// What was counted elsewhere, as it stands at this scrape.
struct Counted {
    desc: Desc,
    family: MetricFamily,
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.family.clone()]
    }
}

/// Puts the constant 1 with the version as a label into `registry`.
///
/// # Errors
/// When the name is taken.
pub fn build(registry: &Registry) -> prometheus::Result<()> {
    let info = GaugeVec::new(
        Opts::new("millstream_build_info", "1; the label is the version."),
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    registry.register(Box::new(info) as Box<dyn Collector>)
}

/// Puts what the system says of this process into `registry`: CPU, memory, open files and their limit, the time of its start.
///
/// # Errors
/// When it is there already.
pub fn process(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(ProcessCollector::for_self()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_now_is_a_gauge_and_the_rest_counters() {
        for (name, help, _) in broker::Stats::default().each() {
            let now = help
                .split(|c: char| !c.is_alphabetic())
                .any(|word| word == "now");
            let is_gauge = BROKER_GAUGES.contains(&name) || name.starts_with("memory_");
            assert_eq!(is_gauge, now, "{name}: {help}");
        }
        let each = bridge::Status::default().each();
        for gauge in BRIDGE_GAUGES {
            assert!(each.iter().any(|(name, ..)| name == gauge), "{gauge}");
        }
    }

    #[test]
    fn the_page_has_names_units_and_help() {
        let registry = Registry::new();
        let mut delivery_times = broker::Times::default();
        for ms in [0, 1, 7, 70_000] {
            delivery_times.add(ms);
        }
        let stats = broker::Stats {
            delivery_times,
            publishes_received_qos1: 7,
            bytes_received: 9,
            ..broker::Stats::default()
        };
        let denied = broker::Denied {
            rule: "rules[0]".into(),
            action: broker::Action::Publish,
            times: 3,
        };
        broker(&registry, &stats, &[denied]).unwrap();
        build(&registry).unwrap();
        process(&registry).unwrap();
        demo(&registry, &Totals::default()).unwrap();
        bridge(&registry, &bridge::Status::default()).unwrap();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "# HELP millstream_broker_received_bytes_total Bytes received.",
            "millstream_broker_received_bytes_total 9",
            "millstream_broker_publishes_received_total{qos=\"1\"} 7",
            "# TYPE millstream_broker_clients gauge",
            "millstream_broker_access_denied_total{action=\"publish\",rule=\"rules[0]\"} 3",
            "millstream_broker_publishes_denied_total{reason=\"reserved_topic\"} 0",
            "millstream_demo_messages_lost 0",
            "# TYPE millstream_broker_delivery_seconds histogram",
            "millstream_broker_delivery_seconds_bucket{le=\"0.001\"} 2",
            "millstream_broker_delivery_seconds_bucket{le=\"0.005\"} 2",
            "millstream_broker_delivery_seconds_bucket{le=\"0.01\"} 3",
            "millstream_broker_delivery_seconds_bucket{le=\"60\"} 3",
            "millstream_broker_delivery_seconds_bucket{le=\"+Inf\"} 4",
            "millstream_broker_delivery_seconds_sum 70.008",
            "millstream_broker_delivery_seconds_count 4",
            "millstream_broker_acknowledgement_seconds_count 0",
            "millstream_bridge_produce_seconds_bucket{le=\"+Inf\"} 0",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_open_fds gauge",
            "# TYPE process_max_fds gauge",
            "# TYPE process_start_time_seconds gauge",
            "millstream_bridge_kafka_reachable 1",
            "millstream_bridge_downlink_outcomes_total{outcome=\"no_session\"} 0",
            "# TYPE millstream_bridge_downlink_held gauge",
            "millstream_bridge_kafka_refused_total{reason=\"too_large\"} 0",
            "millstream_bridge_downlink_outcomes_total{outcome=\"dropped_queue_full\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
