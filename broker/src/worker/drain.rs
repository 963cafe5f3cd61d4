//! The end of a worker. It takes no more work and goes its steps with the other workers, so that what one of them has to say
//! last reaches the clients of all: what the sink took is settled and answered; wills are published and delivered; clients are
//! told; and their sockets are read until they hang up, because closing one with unread bytes would reset it, and that takes
//! back what was written last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Close, Next, Worker};
use crate::handle::{Inbox, Shared};
use crate::limits::{
    DRAIN_CLOSES_PER_TURN, DRAIN_LOOK_MS, LINGER_MS, SESSIONS_LOOKED_AT_PER_TURN, WORK_PER_TURN_MAX,
};
use crate::time::Time;

/// How far the workers of a node are with the end, as far as one has to wait for the others.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// Workers that have published their last message.
    silent: AtomicUsize,
}

/// Says that a worker publishes nothing any more: when it has published its wills, or when it is gone.
pub(super) struct Voice {
    shared: Arc<Shared>,
    index: usize,
    is_silent: bool,
}

impl Voice {
    pub(super) fn new(shared: &Arc<Shared>, index: usize) -> Self {
        Self {
            shared: Arc::clone(shared),
            index,
            is_silent: false,
        }
    }

    fn falls_silent(&mut self) {
        if std::mem::replace(&mut self.is_silent, true) {
            return;
        }
        let silent = &self.shared.drained.silent;
        if silent.fetch_add(1, Ordering::AcqRel) + 1 == self.shared.mailboxes.len() {
            for mailbox in &self.shared.mailboxes {
                mailbox.send_one(Inbox::Look); // the others wait for this
            }
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.shared.mailboxes[self.index].leave();
        self.falls_silent();
    }
}

/// A worker's drain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    step: Step,
    /// When it is over, whatever is left.
    until: Time,
    /// The part of its time that is kept for what comes after settling.
    kept_ms: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The sink settles what it took.
    Settle,
    /// The wills of the sessions from this slot on are published.
    Wills(u32),
    /// What all workers have published comes to its receivers.
    Deliver,
    /// The clients of the connections from this slot on are told.
    Tell(u32),
    /// They read it and hang up, until then at the latest.
    Linger(Time),
}

impl Drain {
    fn new(now: Time, timeout_ms: u64) -> Self {
        Self {
            step: Step::Settle,
            until: now.plus_ms(timeout_ms),
            kept_ms: LINGER_MS.min(timeout_ms / 4),
        }
    }

    /// Whether there is time for what comes before the last so many milliseconds.
    fn has_time(&self, now: Time, last_ms: u64) -> bool {
        now.plus_ms(last_ms) < self.until
    }
}

impl Worker {
    pub(super) fn begin_drain(&mut self) {
        let drain = Drain::new(self.now, self.settings.limits.drain_timeout_ms);
        self.draining.get_or_insert(drain);
    }

    /// Goes on with the drain: when to do so again.
    pub(super) fn drain(&mut self, mut drain: Drain) -> Next {
        loop {
            let next = match drain.step {
                Step::Settle => self.settles(&mut drain),
                Step::Wills(from) => self.publishes_wills(&mut drain, from),
                Step::Deliver => self.delivers(&mut drain),
                Step::Tell(from) => self.tells(&mut drain, from),
                Step::Linger(until) => Some(self.lingers(until)),
            };
            self.draining = Some(drain);
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn looks_again(&self) -> Next {
        if self.has_inbox() || self.connections.has_dirty() {
            Next::Now
        } else {
            Next::At(self.now.plus_ms(DRAIN_LOOK_MS))
        }
    }

    fn settles(&mut self, drain: &mut Drain) -> Option<Next> {
        let pending = self.counts.sink_pending;
        if (self.has_inbox() || pending > 0) && drain.has_time(self.now, drain.kept_ms) {
            return Some(self.looks_again());
        }
        if pending > 0 {
            tracing::warn!(
                pending,
                "shut down with publishes not yet stored; they were not acknowledged"
            );
        }
        drain.step = Step::Wills(0);
        None
    }

    /// Publishes the wills of clients that are connected, and those that wait for their delay: with the process their sessions
    /// end [MQTT-3.1.3-9].
    fn publishes_wills(&mut self, drain: &mut Drain, from: u32) -> Option<Next> {
        if !self.others_keep_up() && drain.has_time(self.now, drain.kept_ms / 2) {
            return Some(Next::At(self.now.plus_ms(1)));
        }
        self.work = 0;
        let slots = self.sessions.slots();
        let to = slots.min(from.saturating_add(SESSIONS_LOOKED_AT_PER_TURN));
        let mut at = from;
        while at < to && self.work < WORK_PER_TURN_MAX {
            let will = self.sessions.get_mut(at).and_then(|one| one.will.take());
            if let Some(will) = will {
                self.publish_will(at, *will, true);
            }
            at += 1;
        }
        self.work = 0;
        // What goes to other workers is posted at the end of a turn.
        if at < slots || self.posts.iter().any(|posts| !posts.is_empty()) {
            drain.step = Step::Wills(at);
            return Some(Next::Now);
        }
        self.voice.falls_silent();
        drain.step = Step::Deliver;
        None
    }

    fn delivers(&mut self, drain: &mut Drain) -> Option<Next> {
        let all_silent = || {
            self.shared.drained.silent.load(Ordering::Acquire) >= self.shared.mailboxes.len()
                && self.shared.is_quiet()
        };
        let is_done =
            !self.connections.has_dirty() && self.counts.memory_outboxes == 0 && all_silent();
        if !is_done && drain.has_time(self.now, drain.kept_ms / 2) {
            return Some(self.looks_again());
        }
        drain.step = Step::Tell(0);
        None
    }

    fn tells(&mut self, drain: &mut Drain, from: u32) -> Option<Next> {
        let slots = self.connections.slab.slots();
        let to = slots.min(from.saturating_add(DRAIN_CLOSES_PER_TURN));
        for slot in from..to {
            self.close(slot, Close::Shutdown);
        }
        if to < slots && drain.has_time(self.now, 0) {
            drain.step = Step::Tell(to);
            return Some(Next::Now);
        }
        drain.step = Step::Linger(self.now.plus_ms(LINGER_MS).min(drain.until));
        None
    }

    fn lingers(&mut self, until: Time) -> Next {
        if self.counts.connections > 0 && self.now < until {
            return if self.connections.listed.is_empty() {
                self.looks_again()
            } else {
                Next::Now
            };
        }
        for slot in self.connections.slab.indices().collect::<Vec<_>>() {
            self.close(slot, Close::Shutdown);
            self.drop_connection(slot);
        }
        self.forgo_wills();
        self.shared.counters[self.index].publish(&self.counts);
        Next::Ended
    }
}
