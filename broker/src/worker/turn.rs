//! The rest of a turn: the inbox, due timers, flushing, and posting to the other workers.

use std::io;

use super::deliver::{Origin, count};
use super::{Close, Worker};
use crate::connection::Connection;
use crate::handle::Inbox;
use crate::limits::{
    FLUSH_WRITES_PER_TURN_MAX, INBOX_BYTES_PER_TURN_MAX, INBOX_ENTRIES_PER_TURN_MAX,
    LAYER_UNSENT_BYTES_MAX, TIMER_LOOK_MS, TIMER_TICK_MS, WORK_PER_TURN_MAX,
};
use crate::message::Message;
use crate::outcome::{Fate, Part};
use crate::session::{Flow, OFFLINE, Routed};
use crate::time::Time;
use crate::timers::Timer;
use crate::transport::{Layered, MemoryOutput, Transport};

/// When a worker wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once: there is more to do.
    Now,
    /// At that time, or when something happens.
    At(Time),
    /// When something happens.
    Idle,
    /// Never: it has drained.
    Ended,
}

impl Worker {
    /// A turn begins.
    pub(crate) fn begin(&mut self, now: Time) {
        self.now = now;
        self.counts.losses.now = now;
        self.handshakes = 0;
        if self.watch.is_some() {
            self.look_at_watch();
        }
        self.feel_pressure();
    }

    /// Whether sockets may be read: not while another worker is behind with what we sent it, nor while draining.
    pub(crate) fn may_read(&self) -> bool {
        self.draining.is_none() && self.others_keep_up()
    }

    /// Whether no worker is behind with what the others send it.
    pub(super) fn others_keep_up(&self) -> bool {
        let limits = &self.settings.limits;
        let entries_max = limits.inbox_entries_max as usize;
        let bytes_max = usize::try_from(limits.inbox_bytes_max).unwrap_or(usize::MAX);
        self.shared
            .mailboxes
            .iter()
            .all(|mailbox| mailbox.waiting() <= entries_max && mailbox.waiting_bytes() <= bytes_max)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether the connection is closed on our side: what still comes of it is thrown away, also where nothing else is read.
    pub(crate) fn is_closing(&self, slot: u32) -> bool {
        let connection = self.connections.slab.get(slot);
        connection.is_some_and(Connection::is_closing)
    }

    /// Goes on with connections that were left with something to do.
    pub(crate) fn go_on(&mut self) {
        let may_read = self.may_read();
        let mut listed = std::mem::take(&mut self.connections.listed).into_iter();
        while self.work < WORK_PER_TURN_MAX
            && let Some(slot) = listed.next()
        {
            let Some(connection) = self.connections.slab.get_mut(slot) else {
                continue;
            };
            connection.set_listed(false);
            let session = connection.session;
            if session != OFFLINE {
                self.pump(slot, session);
            }
            let Some(connection) = self.connections.slab.get_mut(slot) else {
                continue;
            };
            if !may_read && !connection.is_closing() {
                let goes_on = connection.reads_ahead() && !connection.is_held();
                if connection.is_readable() || connection.has_rest() || goes_on {
                    self.connections.list(slot);
                }
                continue;
            }
            // First what came first.
            if connection.reads_ahead() {
                self.go_on_ahead(slot);
            }
            let has_rest = |connection: &Connection| connection.has_rest();
            if self.connections.slab.get(slot).is_some_and(has_rest) {
                self.handle_bytes(slot, &[]);
            }
            let readable = |connection: &Connection| connection.is_readable();
            if self.connections.slab.get(slot).is_some_and(readable) {
                self.readable(slot);
            }
        }
        // Those who were not reached come first in the next turn.
        self.connections.listed.splice(0..0, listed);
    }

    /// Sockets are not read in this turn: this one is remembered.
    pub(crate) fn readable_later(&mut self, slot: u32) {
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.set_readable(true);
            self.connections.list(slot);
        }
    }

    /// The socket takes bytes again.
    pub(crate) fn writable(&mut self, slot: u32) {
        let waiting = |connection: &Connection| {
            connection.outbox.is_some() || connection.transport.unsent() > 0
        };
        if self.connections.slab.get(slot).is_some_and(waiting) {
            self.connections.mark_behind(slot);
        }
    }

    /// Handles what other threads have put into the inbox, as much of it as fits a turn.
    pub(crate) fn take_inbox(&mut self) {
        if self.is_behind {
            return; // what is delivered waits for its sockets as it is
        }
        self.work = 0;
        let mailbox = &self.shared.mailboxes[self.index];
        if self.inbox.is_empty() && !mailbox.is_notified() {
            return;
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        if inbox.is_empty() {
            mailbox.take(&mut inbox);
        }
        let fit = fits_turn(&inbox);
        let (mut taken, mut bytes) = (0, 0);
        for entry in &mut inbox[..fit] {
            if self.work >= WORK_PER_TURN_MAX {
                break;
            }
            bytes += entry.bytes();
            let this = std::mem::replace(entry, Inbox::Look);
            if let Some(left) = self.handle_entry(this) {
                bytes -= left.bytes();
                *entry = left;
                break;
            }
            taken += 1;
        }
        inbox.drain(..taken);
        self.inbox = inbox;
        self.handled = (taken, bytes);
        if !self.is_draining() {
            self.tell_handled();
        }
    }

    /// Entries of the inbox are handled: they count no more.
    fn tell_handled(&mut self) {
        let (entries, bytes) = std::mem::take(&mut self.handled);
        self.shared.mailboxes[self.index].handled(entries, bytes);
    }

    /// Handles an entry of the inbox: what is left of it when there is enough for this turn.
    fn handle_entry(&mut self, entry: Inbox) -> Option<Inbox> {
        match entry {
            Inbox::Adopt(handover) => {
                self.adopt(*handover);
            }
            Inbox::Deliver {
                message,
                receivers,
                delivered,
            } => {
                self.deliver_all(&message, &receivers, delivered.as_ref());
                complete(delivered);
            }
            Inbox::DeliverHit {
                message,
                hit,
                delivered,
            } => {
                self.frames.reset();
                let mut routed = Routed {
                    parts: message.parts(),
                    shared: Some(message.clone()),
                };
                self.work += 1;
                self.deliver_hit(&mut routed, *hit, delivered.as_ref());
                complete(delivered);
            }
            Inbox::Publish {
                messages,
                mut delivered,
            } => {
                let mut messages = messages.into_iter();
                while self.work < WORK_PER_TURN_MAX
                    && let Some((number, message)) = messages.next()
                {
                    if let Some(part) = &mut delivered {
                        part.message = number;
                    }
                    self.publish(&message, delivered.as_ref());
                }
                if messages.len() > 0 {
                    return Some(Inbox::Publish {
                        messages: messages.collect(),
                        delivered,
                    });
                }
                complete(delivered);
            }
            Inbox::Settled(batch) => {
                let mut batch = batch.into_iter();
                while self.work < WORK_PER_TURN_MAX
                    && let Some((token, settlement)) = batch.next()
                {
                    self.settled(token, settlement);
                }
                if batch.len() > 0 {
                    return Some(Inbox::Settled(batch.collect()));
                }
            }
            Inbox::Answer(answer) => self.answered(*answer),
            Inbox::Recheck => self.recheck(),
            Inbox::SinkReady => self.sink_ready(),
            Inbox::Look => {}
            Inbox::Task(task) => {
                task(self);
                // One in a turn: clients come in between.
                self.work = WORK_PER_TURN_MAX;
            }
            Inbox::Shutdown => self.begin_drain(),
        }
        None
    }

    fn publish(&mut self, message: &Message, delivered: Option<&Part>) {
        if message.expires_at().is_some_and(|at| at <= self.now) {
            count(delivered, Fate::Expired);
            return;
        }
        let mut routed = Routed {
            parts: message.parts(),
            shared: Some(message.clone()),
        };
        self.route(&mut routed, Origin::Nobody, delivered);
    }

    /// Fires the timers that are due.
    pub(crate) fn fire_timers(&mut self) {
        self.work = 0;
        while self.work < WORK_PER_TURN_MAX
            && let Some(timers) = self.timers.due(self.now)
        {
            let mut timers = timers.into_iter();
            while self.work < WORK_PER_TURN_MAX
                && let Some(timer) = timers.next()
            {
                self.fire(timer);
            }
            if timers.len() > 0 {
                self.timers.not_yet(self.now, timers);
            }
        }
    }

    fn fire(&mut self, timer: Timer) {
        let now = self.now;
        let may_read = self.may_read();
        match timer {
            Timer::Connect {
                connection: slot,
                generation,
            } => {
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                if connection.is_closing() {
                    return;
                }
                let timeout_ms = self.settings.limits.connect_timeout_ms;
                let is_late =
                    connection.session == OFFLINE && connection.connect_ends(timeout_ms) <= now;
                if is_late && !may_read {
                    // A client that we do not read from cannot be heard.
                    return self.timers.at(now.plus_ms(TIMER_TICK_MS), timer);
                }
                if is_late {
                    // As of a keep-alive below: its CONNECT may wait in the socket.
                    self.readable(slot);
                }
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return; // it went to its home
                };
                if connection.session == OFFLINE {
                    let waits = connection.is_listed() && connection.is_readable();
                    if is_late && waits && !connection.transport.is_open() {
                        // It waits for the next step of its handshake, not we for it.
                        self.timers.at(now.plus_ms(TIMER_TICK_MS), timer);
                    } else if is_late && !self.refuse_unanswered(slot) {
                        self.close(slot, Close::ConnectTimeout);
                    }
                } else if self.settings.connect_timer_goes_on(connection.keep_alive_s) {
                    self.fire(Timer::KeepAlive {
                        connection: slot,
                        generation,
                    });
                }
            }
            Timer::KeepAlive {
                connection: slot,
                generation,
            } => {
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                if connection.is_closing() {
                    return;
                }
                // A client that we do not read from cannot be heard.
                let is_read = may_read && !connection.waits() && self.room(slot) > 0;
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                if !is_read {
                    connection.has_heard(now);
                }
                if connection.keep_alive_ends() <= now {
                    // What it sent in time may wait in the socket, after a stall of ours, say.
                    self.readable(slot);
                }
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                let ends = connection.keep_alive_ends();
                if ends <= now {
                    self.close(slot, Close::KeepAlive);
                } else {
                    self.timers.at(ends.min(now.plus_ms(TIMER_LOOK_MS)), timer);
                }
            }
            Timer::Expiry {
                connection,
                generation,
            } => self.expiry_due(connection, generation),
            Timer::Recheck => self.recheck_due(),
            Timer::WriteStall {
                connection: slot,
                generation,
            } => {
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                let stall_ms = self.settings.limits.write_stall_ms;
                if connection.last_progress().plus_ms(stall_ms) <= now {
                    // After a stall of ours nobody has told yet that the socket takes bytes again.
                    self.flush_one(slot);
                }
                let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
                    return;
                };
                connection.set_stall_armed(false);
                if connection.unsent_bytes() == 0 {
                    return;
                }
                let ends = connection.last_progress().plus_ms(stall_ms);
                if ends <= now {
                    self.close(slot, Close::WriteStall);
                } else {
                    connection.set_stall_armed(true);
                    self.timers.at(ends, timer);
                }
            }
            Timer::Linger {
                connection: slot,
                generation,
            } => {
                let connection = self.connections.slab.get_mut_if(slot, generation);
                if connection.is_some_and(|connection| connection.is_closing()) {
                    self.drop_connection(slot);
                }
            }
            Timer::Session {
                session,
                generation,
            } => self.session_due(session, generation),
            Timer::Refused {
                connection: slot,
                generation,
            } => {
                if self.connections.slab.get_mut_if(slot, generation).is_some() {
                    self.unhold(slot);
                }
            }
            Timer::ReadAhead => self.read_ahead_due(),
            Timer::Wills => self.wills_timer(),
            Timer::Retained => {
                if self.retained_expire_at.is_some_and(|at| at <= now) {
                    self.retained_expire_at = None;
                    if let Some(next) = self.shared.router.retained.purge(now) {
                        self.expire_retained_at(next);
                    }
                }
            }
            Timer::Sys => {
                self.publish_sys();
                self.timers
                    .at(now.plus_s(self.settings.sys_interval_s.into()), Timer::Sys);
            }
        }
    }

    /// Writes outboxes that something was added to, each once: first those with answers. A write is a call of the kernel, so
    /// many of them are left for the next turn, which then does little else but read, and answer what needs no such work.
    pub(crate) fn flush(&mut self) {
        for _ in 0..FLUSH_WRITES_PER_TURN_MAX {
            let Some(slot) = self.connections.next_answered() else {
                break;
            };
            self.flush_one(slot);
        }
        for _ in 0..FLUSH_WRITES_PER_TURN_MAX {
            let Some(slot) = self.connections.next_delivered() else {
                break;
            };
            self.flush_one(slot);
        }
        self.is_behind = self.connections.end_flush();
    }

    pub(super) fn flush_one(&mut self, slot: u32) {
        if self.watch.is_some() {
            return self.flush_watched(slot);
        }
        self.flush_now(slot);
    }

    /// Writes what waits for a connection, which nobody watches or which is watched by whoever calls this.
    pub(super) fn flush_now(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        connection.set_dirty(false);
        let transport = &mut connection.transport;
        let (result, outbox_bytes) = match &mut connection.outbox {
            Some(outbox) => {
                let result = outbox.write_to(transport, &mut self.memory);
                self.counts.memory_outboxes =
                    self.counts.memory_outboxes.wrapping_add(outbox.more());
                self.counts.packets_sent += outbox.more_packets();
                (result, outbox.bytes())
            }
            None if transport.unsent() > 0 => (Ok(0), 0),
            None => return,
        };
        let (result, unsent) = match transport {
            Transport::Plain { .. } => (result, 0),
            Transport::Layered(_) => flush_layers(transport, result, &mut self.memory),
        };
        let empty = outbox_bytes + unsent == 0;
        let has_room = outbox_bytes as u64 <= self.settings.limits.outbox_bytes_max
            && unsent <= LAYER_UNSENT_BYTES_MAX;
        match result {
            Ok(written) => {
                self.counts.bytes_sent += written as u64;
                connection.has_progressed(self.now);
            }
            Err(ref error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return self.close(slot, Close::Lost),
        }
        let (session, closing) = (connection.session, connection.is_closing());
        if has_room && connection.owes_reading() {
            connection.set_owes_reading(false);
            self.connections.list(slot);
        }
        if !empty && !self.asks_for_room(slot) {
            return self.close(slot, Close::Lost);
        }
        if empty {
            if closing {
                self.finish(slot);
            }
            self.connections.recycle(slot);
            if session != OFFLINE
                && self.sessions.get(session).is_some_and(|session| {
                    let waits = |flow: &Flow| flow.outgoing.has_waiting();
                    session.flow.as_deref().is_some_and(waits) && session.has_window()
                })
            {
                self.connections.list(slot);
            }
        } else if let Some(connection) = self.connections.slab.get_mut(slot)
            && !closing
            && !connection.is_stall_armed()
        {
            connection.set_stall_armed(true);
            if result.is_err() {
                // It took nothing at all: the stall began when it last took something, at the latest now.
                connection.has_progressed(connection.last_progress().max(self.now));
            }
            let ends = self.now.plus_ms(self.settings.limits.write_stall_ms);
            let generation = self.connections.slab.generation(slot);
            self.timers.at(
                ends,
                Timer::WriteStall {
                    connection: slot,
                    generation,
                },
            );
        }
    }

    /// Has the kernel tell, from now on, when the socket has room again: at once, if it has some now. Whether it will.
    pub(super) fn asks_for_room(&mut self, slot: u32) -> bool {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return false;
        };
        if connection.is_stall_armed() {
            return true;
        }
        let (Some(source), Some(registry)) = (connection.transport.source(), &self.registry) else {
            return true;
        };
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        registry
            .reregister(source, mio::Token(slot as usize), interests)
            .inspect_err(|error| tracing::warn!(%error, "a full connection was closed"))
            .is_ok()
    }

    /// Whether entries of the inbox are left for the next turn.
    pub(crate) fn has_inbox(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Ends the turn: posts to the other workers, shows the counts, and says when the next turn is wanted.
    pub(crate) fn end(&mut self) -> Next {
        self.work = if self.is_behind { WORK_PER_TURN_MAX } else { 0 };
        for (mailbox, entries) in self.shared.mailboxes.iter().zip(&mut self.posts) {
            mailbox.send(entries);
        }
        if !self.followed.is_empty() {
            self.shared.tell_later(std::mem::take(&mut self.followed));
        }
        self.shared.counters[self.index].publish(&self.counts);
        if let Some(drain) = self.draining {
            // Not before what they led to is posted: nothing is on its way unseen.
            self.tell_handled();
            return self.drain(drain);
        }
        if self.shared.budget.counts() {
            self.shared.budget.judge(self.shared.counted_bytes());
        }
        let relieves = self.relieve();
        if relieves || self.is_behind || self.has_inbox() {
            return Next::Now;
        }
        if !self.connections.listed.is_empty() {
            return if self.may_read() {
                Next::Now
            } else {
                Next::At(self.now.plus_ms(1))
            };
        }
        let times = [self.timers.next(), self.relieves_at()];
        let next = times.into_iter().flatten().min();
        next.map_or(Next::Idle, Next::At)
    }
}

/// How many entries, from the first on, are handled in one turn.
fn fits_turn(inbox: &[Inbox]) -> usize {
    let mut bytes = 0;
    let mut fits = |entry: &Inbox| {
        let before = bytes;
        bytes += match entry {
            Inbox::Deliver { message, .. } | Inbox::DeliverHit { message, .. } => message.bytes(),
            Inbox::Publish { messages, .. } => {
                messages.iter().map(|(_, message)| message.bytes()).sum()
            }
            Inbox::Adopt(_)
            | Inbox::Settled(_)
            | Inbox::Answer(_)
            | Inbox::Recheck
            | Inbox::SinkReady
            | Inbox::Look
            | Inbox::Task(_)
            | Inbox::Shutdown => 0,
        };
        before < INBOX_BYTES_PER_TURN_MAX
    };
    inbox
        .iter()
        .take(INBOX_ENTRIES_PER_TURN_MAX)
        .take_while(|entry| fits(entry))
        .count()
}

/// Writes what the layers of a connection hold, after its outbox was written to them: what the socket took since this was last
/// done, and how many bytes are left.
#[cold]
fn flush_layers(
    transport: &mut Transport,
    written: io::Result<usize>,
    memory: &mut MemoryOutput,
) -> (io::Result<usize>, usize) {
    let flushed = written.and_then(|_| transport.flush(memory));
    let taken = transport.layered().map_or(0, Layered::take_sent);
    let result = match flushed {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock || taken == 0 => Err(error),
        _ => Ok(taken as usize),
    };
    (result, transport.unsent())
}

fn complete(delivered: Option<Part>) {
    if let Some(delivered) = delivered {
        delivered.complete();
    }
}
