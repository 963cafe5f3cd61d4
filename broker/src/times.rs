//! How long things took: counts in fixed steps, so that a worker's own are a few words and many can be added up.

use std::sync::atomic::{AtomicU64, Ordering};

/// The steps: so many milliseconds or fewer. What took longer is counted beyond the last.
pub const TIMES_UP_TO_MS: [u64; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000,
];

/// How many took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    counts: [u64; TIMES_UP_TO_MS.len() + 1],
    count: u64,
    sum_ms: u64,
}

impl Times {
    /// Counts one that took so many milliseconds.
    #[inline]
    pub fn add(&mut self, ms: u64) {
        self.count += 1;
        if ms == 0 {
            self.counts[0] += 1; // nearly all, where nothing waits
        } else {
            self.add_longer(ms);
        }
    }

    #[inline(never)]
    fn add_longer(&mut self, ms: u64) {
        let step = TIMES_UP_TO_MS.partition_point(|up_to| *up_to < ms);
        self.counts[step] += 1;
        self.sum_ms = self.sum_ms.wrapping_add(ms);
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ms = self.sum_ms.wrapping_add(other.sum_ms);
    }

    /// How many, up to each of [`TIMES_UP_TO_MS`] and beyond the last: each is in one step only.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of their times together, in milliseconds.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }
}

/// A worker's times as others see them.
#[derive(Debug, Default)]
pub(crate) struct SharedTimes {
    counts: [AtomicU64; TIMES_UP_TO_MS.len() + 1],
    count: AtomicU64,
    sum_ms: AtomicU64,
}

impl SharedTimes {
    #[inline]
    pub(crate) fn publish(&self, times: &Times) {
        // Most turns have nothing new.
        if self.count.load(Ordering::Relaxed) != times.count {
            self.publish_all(times);
        }
    }

    #[inline(never)]
    fn publish_all(&self, times: &Times) {
        self.count.store(times.count, Ordering::Relaxed);
        for (shared, count) in self.counts.iter().zip(&times.counts) {
            shared.store(*count, Ordering::Relaxed);
        }
        self.sum_ms.store(times.sum_ms, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, times: &mut Times) {
        for (count, shared) in times.counts.iter_mut().zip(&self.counts) {
            let of_step = shared.load(Ordering::Relaxed);
            *count += of_step;
            times.count += of_step;
        }
        let sum_ms = self.sum_ms.load(Ordering::Relaxed);
        times.sum_ms = times.sum_ms.wrapping_add(sum_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_step_that_holds_it() {
        for (ms, step) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (5, 2),
            (1_000, 9),
            (60_000, 13),
            (60_001, 14),
            (u64::MAX, 14),
        ] {
            let mut times = Times::default();
            times.add(ms);
            assert_eq!(
                times.counts().iter().position(|count| *count == 1),
                Some(step),
                "{ms} ms"
            );
        }
    }

    #[test]
    fn many_workers_times_add_up() {
        let mut one = Times::default();
        for _ in 0..3 {
            one.add(7);
        }
        let shared = SharedTimes::default();
        shared.publish(&one);
        let mut all = one.clone();
        shared.add_to(&mut all);
        assert_eq!((all.count(), all.sum_ms()), (6, 42));
        one.merge(&all);
        assert_eq!((one.count(), one.sum_ms()), (9, 63));
    }
}
