//! Keep-alive without a timer or a time a client: a cursor goes round all clients once a keep-alive interval, and whoever
//! it meets sends a PINGREQ. So nobody is silent for longer, and the pings are spread evenly.

use std::ops::Range;

use super::state::CLASSES_MAX;
use crate::clock::Nanos;

/// The cursor goes round in so many percent of the keep-alive interval: a late turn makes nobody late.
const PERIOD_PERCENT: u64 = 95;
/// The cursors move no more often than that.
const TICK_NS: Nanos = 10_000_000;

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

#[derive(Debug)]
struct Cursor {
    keep_alive_s: u16,
    since: Nanos,
    /// Clients passed since then.
    passed: u64,
}

impl Cursor {
    fn period(&self) -> Nanos {
        Nanos::from(self.keep_alive_s) * NANOS_PER_SECOND / 100 * PERIOD_PERCENT
    }

    /// How many clients should be passed by now.
    fn due(&self, now: Nanos, clients: u32) -> u64 {
        let since = u128::from(now.saturating_sub(self.since));
        let due = since * u128::from(clients) / u128::from(self.period());
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// When the next client is due.
    fn next_at(&self, clients: u32) -> Nanos {
        let next = u128::from(self.passed) + 1;
        let after = (next * u128::from(self.period())).div_ceil(u128::from(clients));
        self.since
            .saturating_add(Nanos::try_from(after).unwrap_or(Nanos::MAX))
    }
}

/// The cursors of a swarm: one for each keep-alive interval that is in use.
#[derive(Debug)]
pub(super) struct Pings {
    clients: u32,
    cursors: Vec<Cursor>,
    /// Nothing is due before.
    next_at: Nanos,
}

impl Pings {
    pub(super) fn new(clients: u32) -> Self {
        Self {
            clients: clients.max(1),
            cursors: Vec::new(),
            next_at: Nanos::MAX,
        }
    }

    /// The class of a keep-alive: 0 for none. `None` when there would be too many different ones.
    pub(super) fn class(&mut self, keep_alive_s: u16, now: Nanos) -> Option<u8> {
        if keep_alive_s == 0 {
            return Some(0);
        }
        let known = self
            .cursors
            .iter()
            .position(|cursor| cursor.keep_alive_s == keep_alive_s);
        let at = match known {
            Some(at) => at,
            None if self.cursors.len() + 1 < CLASSES_MAX => {
                let cursor = Cursor {
                    keep_alive_s,
                    since: now,
                    passed: 0,
                };
                self.next_at = self.next_at.min(cursor.next_at(self.clients));
                self.cursors.push(cursor);
                self.cursors.len() - 1
            }
            None => return None,
        };
        Some(at as u8 + 1) // below CLASSES_MAX
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Nanos {
        self.next_at
    }

    /// The clients that the cursors pass now: the class, and their numbers in order, which go on at 0 after the last one.
    pub(super) fn advance(&mut self, now: Nanos) -> Vec<(u8, [Range<u32>; 2])> {
        if now < self.next_at {
            return Vec::new();
        }
        let clients = u64::from(self.clients);
        let mut passed = Vec::new();
        self.next_at = Nanos::MAX;
        for (cursor, class) in self.cursors.iter_mut().zip(1..) {
            let due = cursor.due(now, self.clients);
            // After a long sleep, once round is enough.
            let from = cursor.passed.max(due.saturating_sub(clients));
            if due > from {
                let (first, len) = ((from % clients) as u32, (due - from) as u32);
                let to_end = len.min(self.clients - first);
                passed.push((class, [first..first + to_end, 0..len - to_end]));
            }
            cursor.passed = due;
            let next = cursor.next_at(self.clients).max(now + TICK_NS);
            self.next_at = self.next_at.min(next);
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(passed: Vec<(u8, [Range<u32>; 2])>) -> Vec<u32> {
        let ranges = passed.into_iter().flat_map(|(_, ranges)| ranges);
        ranges.flatten().collect()
    }

    #[test]
    fn everybody_is_met_once_a_period_whenever_one_looks() {
        let mut pings = Pings::new(1_000);
        assert_eq!(pings.class(0, 0), Some(0));
        assert_eq!(pings.class(60, 0), Some(1));
        assert_eq!(pings.class(60, 5), Some(1));
        let period = 57 * NANOS_PER_SECOND;
        let mut met = vec![Vec::new(); 1_000];
        let mut now = 0;
        while now < 10 * period {
            now = pings.next_at().max(now + now % 77_000_001);
            for client in all(pings.advance(now)) {
                met[client as usize].push(now);
            }
        }
        for times in met {
            assert!(times.len() >= 9, "{}", times.len());
            for pair in times.windows(2) {
                assert!(pair[1] - pair[0] < 60 * NANOS_PER_SECOND);
            }
        }
    }

    #[test]
    fn a_long_sleep_makes_everybody_due_once() {
        let mut pings = Pings::new(10);
        pings.class(1, 0);
        let mut met = all(pings.advance(3_600 * NANOS_PER_SECOND));
        met.sort_unstable();
        assert_eq!(met, (0..10).collect::<Vec<_>>());
        assert!(all(pings.advance(3_600 * NANOS_PER_SECOND)).is_empty());
    }

    #[test]
    fn there_are_fifteen_intervals_at_most() {
        let mut pings = Pings::new(10);
        for keep_alive_s in 1..CLASSES_MAX as u16 {
            assert!(pings.class(keep_alive_s, 0).is_some());
        }
        assert_eq!(pings.class(100, 0), None);
        assert_eq!(pings.class(3, 0), Some(3));
    }
}
