//! Users have changed: whether those who are in still are who they were. Looked at a part of the sessions at a time, so that
//! clients go on meanwhile. What changed rules do is in `reconfigure.rs`.

use super::{Close, Worker};
use crate::limits::{SESSIONS_LOOKED_AT_PER_TURN, WORK_FILTER, WORK_PER_TURN_MAX};
use crate::session::OFFLINE;
use crate::timers::Timer;

impl Worker {
    /// Begins to look at all sessions.
    pub(super) fn recheck(&mut self) {
        if self.recheck_from.replace(0).is_none() {
            self.timers.at(self.now, Timer::Recheck);
        }
    }

    /// Looks at some of them.
    pub(super) fn recheck_due(&mut self) {
        let Some(from) = self.recheck_from.take() else {
            return;
        };
        let slots = self.sessions.slots();
        let to = from.saturating_add(SESSIONS_LOOKED_AT_PER_TURN).min(slots);
        for slot in from..to {
            if self.work >= WORK_PER_TURN_MAX {
                return self.recheck_later(slot);
            }
            self.recheck_session(slot);
        }
        if to < slots {
            self.recheck_later(to);
        }
    }

    fn recheck_later(&mut self, slot: u32) {
        self.recheck_from = Some(slot);
        self.timers.at(self.now.plus_ms(1), Timer::Recheck);
    }

    fn recheck_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let principal = session.owner.principal();
        if !principal.is_some_and(|principal| principal.is_revoked()) {
            return;
        }
        let connection = session.connection;
        self.work += WORK_FILTER * (1 + session.subscriptions.len() as u64);
        // Nothing of it is left for whoever has the name next.
        if let Some(session) = self.sessions.get_mut(slot) {
            session.expiry_s = 0;
        }
        if connection == OFFLINE {
            self.shared.end_offline();
            self.end_session(slot);
        } else {
            self.close(connection, Close::NotAuthorized);
        }
    }
}
