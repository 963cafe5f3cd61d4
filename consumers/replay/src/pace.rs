//! How fast a replay goes: a rate, or recorded time run faster or slower.

use std::time::{Duration, Instant};

/// A bound on the speed. Without one a replay goes as fast as it can.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Records a second at most.
    pub rate: Option<f64>,
    /// How many times faster than it was recorded.
    pub speed: Option<f64>,
}

/// Keeps to a pace.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    started: Instant,
    written: u64,
    first_ms: Option<i64>,
}

impl Pacer {
    pub(crate) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            started: now,
            written: 0,
            first_ms: None,
        }
    }

    /// How long the next record, of this timestamp, still has to wait. It counts as written when asked for the first time.
    pub(crate) fn due(&mut self, timestamp_ms: Option<i64>) -> Option<Instant> {
        if self.pace == Pace::default() {
            return None;
        }
        let mut after = Duration::ZERO;
        if let Some(rate) = self.pace.rate {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a pace need not be exact to 2^53 records"
            )]
            let written = self.written as f64;
            after = after.max(Duration::try_from_secs_f64(written / rate).unwrap_or(Duration::MAX));
        }
        if let (Some(speed), Some(ms)) = (self.pace.speed, timestamp_ms) {
            let first = *self.first_ms.get_or_insert(ms);
            let recorded = u64::try_from(ms.saturating_sub(first)).unwrap_or(0);
            let scaled = Duration::from_millis(recorded).as_secs_f64() / speed;
            after = after.max(Duration::try_from_secs_f64(scaled).unwrap_or(Duration::MAX));
        }
        self.written += 1;
        self.started.checked_add(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spreads_records_evenly() {
        let start = Instant::now();
        let mut pacer = Pacer::new(
            Pace {
                rate: Some(4.0),
                speed: None,
            },
            start,
        );
        let due: Vec<u128> = (0..5)
            .map(|_| (pacer.due(None).unwrap() - start).as_millis())
            .collect();
        assert_eq!(due, [0, 250, 500, 750, 1_000]);
    }

    #[test]
    fn a_speed_keeps_the_gaps_of_the_recording() {
        let start = Instant::now();
        let mut pacer = Pacer::new(
            Pace {
                rate: None,
                speed: Some(10.0),
            },
            start,
        );
        // One that is older than the first, and one without a time, wait for nothing.
        let times = [Some(5_000), Some(6_000), Some(4_000), None, Some(65_000)];
        let due: Vec<u128> = times
            .map(|ms| (pacer.due(ms).unwrap() - start).as_millis())
            .to_vec();
        assert_eq!(due, [0, 100, 0, 0, 6_000]);
    }

    #[test]
    fn without_a_pace_nothing_waits() {
        assert_eq!(
            Pacer::new(Pace::default(), Instant::now()).due(Some(1)),
            None
        );
    }
}
