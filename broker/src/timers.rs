//! One coarse timer wheel a worker. A timer that is no longer wanted is not taken out: when it fires, its owner looks
//! whether it still means anything. So re-arming a keep-alive with every packet costs nothing at all.

use std::collections::BTreeMap;

use crate::limits::TIMER_TICK_MS;
use crate::time::Time;

/// What a timer is for, and whose it is. Slots carry their generation, which comes round after 65,536 reuses: what fires
/// asks the connection or session whether it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The CONNECT must be here.
    Connect { connection: u32, generation: u16 },
    /// Something must have been heard.
    KeepAlive { connection: u32, generation: u16 },
    /// The socket must have taken something.
    WriteStall { connection: u32, generation: u16 },
    /// A closed connection has had its time to read our last packet.
    Linger { connection: u32, generation: u16 },
    /// What its client was let in by may have ended.
    Expiry { connection: u32, generation: u16 },
    /// Sessions are looked at again.
    Recheck,
    /// The will of a session without connection is due, or its end.
    Session { session: u32, generation: u16 },
    /// The publishes of a client that was closed for a refused one have waited long enough.
    Refused { connection: u32, generation: u16 },
    /// Clients wait until the node has room to read them ahead.
    ReadAhead,
    /// Wills wait to be stored.
    Wills,
    /// `$SYS` is due.
    Sys,
    /// A retained message expires.
    Retained,
}

/// The first tick that is not before `at`.
pub(crate) fn tick(at: Time) -> u64 {
    at.0.div_ceil(TIMER_TICK_MS)
}

/// Timers by tick.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    ticks: BTreeMap<u64, Vec<Timer>>,
}

impl Timers {
    /// Fires `timer` at the first tick that is not before `at`.
    pub(crate) fn at(&mut self, at: Time, timer: Timer) {
        self.ticks.entry(tick(at)).or_default().push(timer);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ticks.values().map(Vec::len).sum()
    }

    /// When the next timer fires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.ticks
            .first_key_value()
            .map(|(tick, _)| Time(tick * TIMER_TICK_MS))
    }

    /// Puts back timers that [`Timers::due`] gave and that have not fired.
    pub(crate) fn not_yet(&mut self, now: Time, timers: impl Iterator<Item = Timer>) {
        self.ticks
            .entry(now.0 / TIMER_TICK_MS)
            .or_default()
            .splice(0..0, timers);
    }

    /// Takes the timers of the earliest tick that is due.
    pub(crate) fn due(&mut self, now: Time) -> Option<Vec<Timer>> {
        let entry = self.ticks.first_entry()?;
        (entry.key() * TIMER_TICK_MS <= now.0).then(|| entry.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_never_early() {
        let mut timers = Timers::default();
        timers.at(Time(1_001), Timer::Sys);
        timers.at(
            Time(500),
            Timer::Connect {
                connection: 1,
                generation: 0,
            },
        );
        assert_eq!(timers.next(), Some(Time(500)));
        assert_eq!(timers.due(Time(499)), None);
        assert_eq!(
            timers.due(Time(500)),
            Some(vec![Timer::Connect {
                connection: 1,
                generation: 0
            }])
        );
        assert_eq!(timers.due(Time(1_001)), None);
        assert_eq!(timers.due(Time(1_100)), Some(vec![Timer::Sys]));
        assert_eq!(timers.next(), None);
    }
}
