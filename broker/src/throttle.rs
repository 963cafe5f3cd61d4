//! Log lines about what may happen very often: one a second at most, which says how often it was.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LOG_PAUSE_MS;
use crate::time::Time;

/// Counts occurrences between two lines.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// Since the last line.
    pending: AtomicU64,
    /// When the next line may be written, in the broker's milliseconds.
    next_ms: AtomicU64,
}

impl Throttle {
    /// Counts one occurrence. When a line is due: how many occurrences it stands for.
    pub(crate) fn count(&self, now: Time) -> Option<u64> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let next = self.next_ms.load(Ordering::Relaxed);
        let due = now.0 >= next
            && self
                .next_ms
                .compare_exchange(
                    next,
                    now.0 + LOG_PAUSE_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        due.then(|| self.pending.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all() {
        let throttle = Throttle::default();
        assert_eq!(throttle.count(Time(0)), Some(1));
        for _ in 0..9 {
            assert_eq!(throttle.count(Time(LOG_PAUSE_MS - 1)), None);
        }
        assert_eq!(throttle.count(Time(LOG_PAUSE_MS)), Some(10));
        assert_eq!(throttle.count(Time(5 * LOG_PAUSE_MS)), Some(1));
    }
}
