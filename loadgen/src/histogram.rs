//! Times as HDR histograms that can be merged and written whole.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2Serializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Values are kept to this many significant decimal digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// What is longer is recorded as this, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// A histogram of times in microseconds. In JSON it is its quantiles for people and, in base64, HdrHistogram's own format
/// (V2) for programs.
#[derive(Debug, Clone)]
pub struct Histo(Histogram<u64>);

impl Default for Histo {
    fn default() -> Self {
        let mut histogram =
            Histogram::new_with_bounds(1, 2, SIGNIFICANT_DIGITS).expect("bounds that it allows");
        histogram.auto(true);
        Self(histogram)
    }
}

impl Histo {
    /// Adds a time.
    pub fn record(&mut self, time: Duration) {
        self.record_micros(u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX));
    }

    /// Adds a time given in microseconds.
    pub fn record_micros(&mut self, micros: u64) {
        // It resizes itself up to any value below the limit.
        let _ = self.0.record(micros.min(MICROS_MAX));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        // It resizes itself.
        let _ = self.0.add(&other.0);
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a part `quantile` (0 to 1) of all do not exceed, in milliseconds; 0 when there is none.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The same in microseconds.
    #[must_use]
    pub fn quantile_micros(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The mean in milliseconds.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1_000.0
    }

    /// The largest in milliseconds.
    #[must_use]
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }

    /// Adds a time given in microseconds, so often.
    pub fn record_micros_times(&mut self, micros: u64, times: u64) {
        let _ = self.0.record_n(micros.min(MICROS_MAX), times);
    }

    /// The different times in microseconds, and how often each was recorded, ascending.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    mean_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    hdr_v2: String,
}

impl Serialize for Histo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| serde::ser::Error::custom(error.to_string()))?;
        Written {
            count: self.count(),
            mean_ms: self.mean_ms(),
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: self.max_ms(),
            hdr_v2: STANDARD.encode(bytes),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(&written.hdr_v2)
            .map_err(|error| de::Error::custom(format!("hdr_v2: {error}")))?;
        let mut histogram: Histogram<u64> = Reader::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| de::Error::custom(format!("hdr_v2: {error:?}")))?;
        histogram.auto(true);
        Ok(Self(histogram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut histo = Histo::default();
        for micros in 1..=100_000 {
            histo.record_micros(micros);
        }
        assert_eq!(histo.count(), 100_000);
        for (value, expected) in [
            (histo.quantile_ms(0.5), 50.0),
            (histo.quantile_ms(0.99), 99.0),
            (histo.max_ms(), 100.0),
        ] {
            assert!((value - expected).abs() <= expected / 900.0, "{value}");
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_merges() {
        let mut histo = Histo::default();
        histo.record(Duration::from_millis(5));
        histo.record(Duration::from_secs(100_000));
        let text = serde_json::to_string(&histo).unwrap();
        let mut read: Histo = serde_json::from_str(&text).unwrap();
        assert_eq!(read.count(), 2);
        assert!((read.max_ms() - 3_600_000.0).abs() < 3_600.0);
        read.merge(&histo);
        read.record_micros(1);
        assert_eq!(read.count(), 5);
        assert_eq!(read.quantile_micros(0.0), 1);
    }

    #[test]
    fn an_empty_one_has_no_times() {
        let text = serde_json::to_string(&Histo::default()).unwrap();
        let read: Histo = serde_json::from_str(&text).unwrap();
        assert_eq!((read.count(), read.quantile_micros(0.99)), (0, 0));
    }
}
