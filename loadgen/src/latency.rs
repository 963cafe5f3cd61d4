//! Latencies, as a histogram that is exact to three digits up to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Values are kept to this many significant decimal digits.
const SIGNIFICANT_DIGITS: u8 = 3;
/// What is longer is recorded as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A histogram of latencies in microseconds.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

/// What a report says of latencies. In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many values there were.
    pub count: u64,
    /// The mean.
    pub mean_ms: f64,
    /// Half of the values are not above this.
    pub p50_ms: f64,
    /// 90 of 100 values are not above this.
    pub p90_ms: f64,
    /// 99 of 100 values are not above this.
    pub p99_ms: f64,
    /// 999 of 1,000 values are not above this.
    pub p999_ms: f64,
    /// The largest value.
    pub max_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
                .expect("bounds that it allows"),
        )
    }
}

impl Latencies {
    /// Adds a value.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// The figures of a report.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let quantile = |q| self.0.value_at_quantile(q) as f64 / 1_000.0;
        LatencySummary {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1_000.0,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: self.0.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::default();
        for micros in 1..=100_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 100_000);
        for (value, expected) in [
            (summary.p50_ms, 50.0),
            (summary.p90_ms, 90.0),
            (summary.p99_ms, 99.0),
            (summary.p999_ms, 99.9),
            (summary.max_ms, 100.0),
        ] {
            assert!(
                (value - expected).abs() <= expected / 900.0,
                "{value} is not {expected}"
            );
        }
    }

    #[test]
    fn minutes_are_recorded_too() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(600));
        assert!((latencies.summary().max_ms - 600_000.0).abs() < 600.0);
    }
}
