//! An open-loop schedule: message n is due at a time that was fixed before the first was sent, however slowly the broker
//! answers. Latency counted from there includes what a message had to wait because others were late, which a client that
//! sends its next message only after an answer would hide.

use std::time::Duration;

/// Messages at a steady rate. All times are since the start.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate_per_second: u64,
    total: u64,
}

impl Schedule {
    /// `rate_per_second` messages a second (at least 1) for `duration`.
    #[must_use]
    pub fn new(rate_per_second: u64, duration: Duration) -> Self {
        let rate_per_second = rate_per_second.max(1);
        let total = u128::from(rate_per_second) * duration.as_micros() / 1_000_000;
        Self {
            rate_per_second,
            total: u64::try_from(total).unwrap_or(u64::MAX),
        }
    }

    /// Number of messages in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When message `n` (from 0) is due.
    #[must_use]
    pub fn due_at(&self, n: u64) -> Duration {
        let nanos = u128::from(n) * 1_000_000_000 / u128::from(self.rate_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many messages are due at `elapsed`: those with [`Schedule::due_at`] up to and including it.
    #[must_use]
    pub fn due_by(&self, elapsed: Duration) -> u64 {
        let due = u128::from(self.rate_per_second) * elapsed.as_nanos() / 1_000_000_000 + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_due_at_its_time_and_not_before() {
        let schedule = Schedule::new(83_333, Duration::from_secs(2));
        assert_eq!(schedule.total(), 166_666);
        assert_eq!(schedule.due_by(Duration::ZERO), 1);
        for n in [1, 2, 3, 1_000, 83_333, 166_665] {
            // A time in whole nanoseconds is at most one too early.
            let at = schedule.due_at(n) + Duration::from_nanos(1);
            assert_eq!(schedule.due_by(at), n + 1, "message {n}");
            assert!(
                schedule.due_by(at - Duration::from_nanos(2)) <= n,
                "message {n}"
            );
        }
        assert_eq!(schedule.due_by(Duration::from_secs(9)), 166_666);
    }
}
