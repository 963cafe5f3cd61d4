//! Another configuration, taken over while the worker runs: new bounds and access rules hold for what comes from then on.
//! What is there already is looked at again, a bounded part of it in a turn: clients that may not be connected any more are
//! disconnected, subscriptions that may not be any more end with their connection, so that their clients learn it.

use std::sync::Arc;

use codec::{Qos, ReasonCode};

use super::pressure::Relief;
use super::{Close, Settings, Worker};
use crate::access::Scope;
use crate::budget::Pressure;
use crate::handle::Inbox;
use crate::limits::{ADMIN_ENTRIES_PER_TURN_MAX, MEMORY_OUTBOX_BYTES};
use crate::router::{Join, Receiver, SessionId};
use crate::session::OFFLINE;

/// How far a worker has come with looking again.
#[derive(Debug, Default)]
struct Look {
    /// The session, and its generation.
    slot: u32,
    generation: u16,
    /// Filters of it that are left to look at.
    filters: Vec<Arc<str>>,
    /// Whether its filters were listed.
    is_listed: bool,
    /// Whether some of them have ended.
    lost_some: bool,
}

impl Worker {
    /// Takes another configuration over, and begins to look again at what is there.
    pub(crate) fn reconfigure(&mut self, settings: Arc<Settings>) {
        let rules_differ = settings.access != self.settings.access;
        let bytes = settings.limits.read_bytes_per_turn as usize;
        self.read_buffer.resize(bytes, 0);
        self.settings = settings;
        let outbox = Relief::new(self.settings.limits.outbox_bytes_max).outbox_bytes_max;
        self.relief.outbox_bytes_max = match self.relief.pressure() {
            Pressure::Queues => outbox.min(MEMORY_OUTBOX_BYTES),
            _ => outbox,
        };
        if rules_differ {
            self.look_again(Look::default());
        }
    }

    /// Looks at a bounded number of sessions and subscriptions, and has the rest looked at in later turns.
    fn look_again(&mut self, mut look: Look) {
        let mut left = ADMIN_ENTRIES_PER_TURN_MAX;
        while look.slot < self.sessions.slots() && left > 0 {
            left -= 1;
            if !look.is_listed {
                look = self.begin_look(look.slot);
            }
            while left > 0
                && let Some(filter) = look.filters.pop()
            {
                left -= 1;
                look.lost_some |= self.ends_now(&look, &filter);
            }
            if !look.filters.is_empty() {
                break;
            }
            if look.lost_some {
                self.disconnect_unauthorised(look.slot);
            }
            look = Look {
                slot: look.slot + 1,
                ..Look::default()
            };
        }
        if look.slot < self.sessions.slots() {
            let task = Box::new(move |worker: &mut Self| worker.look_again(look));
            self.shared.mailboxes[self.index].send_one(Inbox::Task(task));
        }
    }

    /// Whether a session's client may be connected, and which filters it has.
    fn begin_look(&mut self, slot: u32) -> Look {
        let mut look = Look {
            slot,
            generation: self.sessions.generation(slot),
            is_listed: true,
            ..Look::default()
        };
        let Some(session) = self.sessions.get(slot) else {
            return look;
        };
        let may = self.settings.access.may_connect(session.who());
        look.filters = session.subscriptions.iter().cloned().collect();
        if may.is_err() {
            self.disconnect_unauthorised(slot);
        }
        look
    }

    fn disconnect_unauthorised(&mut self, slot: u32) {
        let connection = self.sessions.get(slot).map(|session| session.connection);
        if let Some(connection) = connection.filter(|connection| *connection != OFFLINE) {
            self.close(connection, Close::ByOperator(ReasonCode::NOT_AUTHORIZED));
        }
    }

    /// Judges one subscription again: ends it where it may not be any more, which is said, or has what is delivered by it
    /// judged as it must be now.
    fn ends_now(&mut self, look: &Look, filter: &Arc<str>) -> bool {
        let id = SessionId::new(self.index, look.slot);
        let Some(session) = self.sessions.get_mut_if(look.slot, look.generation) else {
            return false;
        };
        if session.subscriptions.get(filter).is_none() {
            return false;
        }
        let share = topic::split_share(filter).ok().flatten();
        let inner = share.as_ref().map_or(&**filter, |share| share.filter);
        let router = &self.shared.router;
        let access = &self.settings.access;
        let scope = match access.may_subscribe(session.who(), inner, Qos::AtMostOnce) {
            Ok(grant) => grant.scope,
            Err(by) => {
                let denials = &self.settings.denials;
                denials.note(by, session.owner.client_id(), inner, self.now);
                session.subscriptions.remove(filter);
                if let Some(flow) = &mut session.flow {
                    flow.outgoing.replays.remove(filter);
                }
                match &share {
                    Some(share) => router.leave(share.group, share.filter, id),
                    None => router.unsubscribe(filter, id),
                };
                return true;
            }
        };
        let Some(receiver) = router.subscription(filter, id) else {
            return false;
        };
        if receiver.options.in_part() == (scope == Scope::Part) {
            return false;
        }
        let receiver = Receiver {
            options: receiver.options.with_scope(scope),
            ..receiver
        };
        match &share {
            Some(share) => {
                let join = Join {
                    receiver,
                    client_id: session.owner.client_id(),
                    hasher: &self.shared.hasher,
                    has_room: !session.said_no_room(),
                };
                router.join(share.group, share.filter, &join, usize::MAX);
                self.tell_shares(look.slot);
            }
            None => {
                router.subscribe(filter, receiver);
            }
        }
        false
    }
}
