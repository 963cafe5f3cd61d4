//! 3.x clients that were closed because a publish of theirs was refused. Many come back at once and send it again, for ever:
//! so when such a client is back, its publishes wait for a while, each time for longer. All else that it sends is answered,
//! as with any publisher that is held.

use std::collections::HashMap;

use super::Worker;
use crate::limits::{REFUSED_CLIENTS_MAX, REFUSED_PAUSE_MS_MIN};
use crate::time::Time;
use crate::timers::Timer;

/// What is remembered of a client.
#[derive(Debug, Clone, Copy)]
struct Refused {
    /// How often, one after the other.
    times: u32,
    /// Until when its publishes wait.
    until: Time,
}

/// Clients by the hash of their identifiers. Those of long ago make room for others.
#[derive(Debug, Default)]
pub(super) struct RefusedClients {
    young: HashMap<u64, Refused>,
    old: HashMap<u64, Refused>,
}

impl RefusedClients {
    /// A client was closed. Until when its publishes wait: `pause_ms_max` at most, and it is forgotten when it was
    /// refused nothing for as long after that.
    fn note(&mut self, client: u64, now: Time, pause_ms_max: u64) {
        let before = self.young.remove(&client).or(self.old.remove(&client));
        let times = before
            .filter(|before| before.until.plus_ms(pause_ms_max) > now)
            .map_or(0, |before| before.times);
        let doubled = REFUSED_PAUSE_MS_MIN.checked_shl(times.min(32));
        let pause_ms = doubled.unwrap_or(u64::MAX).min(pause_ms_max);
        if self.young.len() >= REFUSED_CLIENTS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let refused = Refused {
            times: times.saturating_add(1),
            until: now.plus_ms(pause_ms),
        };
        self.young.insert(client, refused);
    }

    /// Until when the publishes of a client wait, if they do.
    fn until(&self, client: u64, now: Time) -> Option<Time> {
        let refused = self.young.get(&client).or_else(|| self.old.get(&client))?;
        (refused.until > now).then_some(refused.until)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

impl Worker {
    /// A 3.x client is closed for a publish that was refused.
    pub(super) fn note_refused(&mut self, session: u32) {
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        let client = self.client_hash(session.owner.client_id());
        let pause_ms_max = self.settings.limits.refused_pause_ms_max;
        if pause_ms_max > 0 {
            self.refused.note(client, self.now, pause_ms_max);
        }
    }

    /// A 3.x client is back. Its publishes wait when it was closed for one not long ago.
    pub(super) fn pause_refused(&mut self, slot: u32, client: u64) {
        let Some(until) = self.refused.until(client, self.now) else {
            return;
        };
        let generation = self.connections.slab.generation(slot);
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        // With these, whatever it publishes is read ahead.
        connection.ahead_mut().paused_until = Some(until);
        self.hold(slot);
        self.counts.publishers_paused += 1;
        let timer = Timer::Refused {
            connection: slot,
            generation,
        };
        self.timers.at(until, timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_MS: u64 = 60_000;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_forgotten() {
        let mut clients = RefusedClients::default();
        assert!(clients.is_empty());
        let mut now = Time(5_000);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            clients.note(1, now, MAX_MS);
            let until = clients.until(1, now).unwrap();
            pauses.push(until.since_ms(now));
            now = until;
            assert_eq!(clients.until(1, now), None, "it is over");
        }
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|seconds| seconds * 1_000);
        assert_eq!(pauses, expected);
        assert_eq!(clients.until(2, Time(5_000)), None, "another client's");
        now = now.plus_ms(MAX_MS);
        clients.note(1, now, MAX_MS);
        let until = clients.until(1, now).unwrap();
        assert_eq!(until.since_ms(now), 1_000, "it was long ago");
    }

    #[test]
    fn those_of_long_ago_make_room() {
        let mut clients = RefusedClients::default();
        let now = Time(0);
        for client in 0..10 * REFUSED_CLIENTS_MAX as u64 {
            clients.note(client, now, MAX_MS);
            assert!(clients.young.len() + clients.old.len() <= REFUSED_CLIENTS_MAX);
            assert!(clients.until(client, now).is_some());
            let before = client.saturating_sub(REFUSED_CLIENTS_MAX as u64 / 2 - 1);
            assert!(clients.until(before, now).is_some(), "{before} of {client}");
        }
        assert_eq!(clients.until(0, now), None);
    }
}
