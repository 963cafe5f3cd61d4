//! Connections of one worker: bytes, deadlines and transports. They decide nothing; what the bytes mean is the
//! worker's and the session's business.

use codec::Version;
use identity::Verdict;

use crate::limits::{LINE_KEPT, SPARE_OUTBOX_BYTES_MAX, TIMER_TICK_MS};
use crate::outbox::Outbox;
use crate::read_ahead::ReadAhead;
use crate::session::OFFLINE;
use crate::slab::Slab;
use crate::time::Time;
use crate::transport::Transport;

/// One connection. Ten million of them are idle: what only a busy one needs is boxed and let go.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    /// The slot of its session; [`OFFLINE`] until CONNECT was accepted.
    pub(crate) session: u32,
    /// The tick of the last whole packet; once closing, the bytes thrown away.
    heard: u32,
    /// The tick at which the socket last took something, and in the highest bit ([`ENDED`]) whether the other side has sent
    /// its last byte.
    progress: u32,
    pub(crate) keep_alive_s: u16,
    pub(crate) version: Version,
    flags: u8,
    /// What was read and not handled.
    unhandled: Option<Box<Unhandled>>,
    pub(crate) outbox: Option<Box<Outbox>>,
    /// Topics of the aliases that the client set, by alias.
    pub(crate) aliases: Option<Box<Vec<Option<Box<str>>>>>,
}

/// What was read of a connection and not handled.
#[derive(Debug, Default)]
struct Unhandled {
    /// The beginning of a packet, or what is left for the next turn.
    rest: Vec<u8>,
    ahead: Option<Box<ReadAhead>>,
    /// Of a connection whose CONNECT is the beginning of `rest`.
    question: Option<Question>,
}

/// Whether it is known who sends a CONNECT.
#[derive(Debug)]
pub(crate) enum Question {
    /// It is being looked at.
    Asked {
        /// Names the question.
        number: u64,
        /// Of the client identifier.
        hash: u64,
    },
    /// The CONNECT goes on with this.
    Answered {
        number: u64,
        hash: u64,
        verdict: Box<Verdict>,
    },
}

#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Connection>() <= 56);

/// See [`Connection::is_ended`]. It would be a ninth flag; ticks need 31 bits for years.
const ENDED: u32 = 1 << 31;

macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $bit:literal $get:ident $set:ident,)+) => {
        impl Connection {
            $($(#[doc = $doc])+
            pub(crate) fn $get(&self) -> bool { self.flags & (1 << $bit) != 0 }
            pub(crate) fn $set(&mut self, on: bool) {
                self.flags = self.flags & !(1 << $bit) | u8::from(on) << $bit;
            })+
        }
    };
}

flags! {
    /// The outbox is on the list of those to flush.
    0 is_dirty set_dirty,
    /// The socket had more to read when we last stopped.
    1 is_readable set_readable,
    /// Its publishes wait until the sink settles or takes one.
    2 is_held set_held,
    /// Our last packet is under way; whatever comes is thrown away.
    3 is_closing set_closing,
    /// A write-stall timer is running.
    4 is_stall_armed set_stall_armed,
    /// On the list of connections to look at again in the next turn.
    5 is_listed set_listed,
    /// Held because the sink had no room: only the sink's word lets it go on.
    6 waits_for_sink set_waits_for_sink,
    /// Not read from until it has read what we answered: the outbox is over its bound.
    7 owes_reading set_owes_reading,
}

pub(crate) fn tick(now: Time) -> u32 {
    (now.0 / TIMER_TICK_MS) as u32
}

impl Connection {
    pub(crate) fn new(transport: Transport, now: Time) -> Self {
        Self {
            transport,
            session: OFFLINE,
            heard: tick(now),
            progress: tick(now),
            keep_alive_s: 0,
            version: Version::V311,
            flags: 0,
            unhandled: None,
            outbox: None,
            aliases: None,
        }
    }

    /// Whether bytes of it were read and wait for its next turn.
    pub(crate) fn waits(&self) -> bool {
        self.is_listed() && self.has_rest()
    }

    /// Whether bytes that were read are not handled, besides publishes that were read ahead.
    pub(crate) fn has_rest(&self) -> bool {
        self.unhandled
            .as_ref()
            .is_some_and(|unhandled| !unhandled.rest.is_empty())
    }

    /// Takes these bytes, to handle them with what comes behind them.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        self.unhandled
            .as_mut()
            .map_or_else(Vec::new, |unhandled| std::mem::take(&mut unhandled.rest))
    }

    /// Keeps `rest`, of which nothing was kept before, for when more has come. Lets go of the memory when there is nothing
    /// to keep.
    pub(crate) fn keep_rest(&mut self, rest: Vec<u8>) {
        if !rest.is_empty() {
            self.unhandled.get_or_insert_default().rest = rest;
        } else if self
            .unhandled
            .as_ref()
            .is_some_and(|unhandled| unhandled.ahead.is_none() && unhandled.question.is_none())
        {
            self.unhandled = None;
        }
    }

    /// Whether nothing keeps it from being read: all that was read is handled, and what was answered goes out.
    pub(crate) fn is_free(&self) -> bool {
        self.unhandled.is_none() && !self.owes_reading()
    }

    /// Whether publishes wait for earlier ones: whatever more comes waits behind them.
    pub(crate) fn reads_ahead(&self) -> bool {
        self.ahead().is_some()
    }

    /// Publishes that were read ahead.
    pub(crate) fn ahead(&self) -> Option<&ReadAhead> {
        self.unhandled.as_ref()?.ahead.as_deref()
    }

    /// The same, to be changed; made where there are none.
    pub(crate) fn ahead_mut(&mut self) -> &mut ReadAhead {
        self.unhandled
            .get_or_insert_default()
            .ahead
            .get_or_insert_default()
    }

    /// Takes them.
    pub(crate) fn take_ahead(&mut self) -> Option<Box<ReadAhead>> {
        let unhandled = self.unhandled.as_mut()?;
        let ahead = unhandled.ahead.take();
        if unhandled.rest.is_empty() {
            self.unhandled = None;
        }
        ahead
    }

    /// Puts them back.
    pub(crate) fn put_ahead(&mut self, ahead: Box<ReadAhead>) {
        self.unhandled.get_or_insert_default().ahead = Some(ahead);
    }

    /// What was read and not handled, besides publishes that were read ahead.
    pub(crate) fn rest(&self) -> &[u8] {
        self.unhandled
            .as_ref()
            .map_or(&[], |unhandled| &unhandled.rest)
    }

    /// Whether it is being looked at who its client is: what it sends waits.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self.question(), Some(Question::Asked { .. }))
    }

    /// The question who its client is, where there is one.
    pub(crate) fn question(&self) -> Option<&Question> {
        self.unhandled.as_ref()?.question.as_ref()
    }

    /// Puts it.
    pub(crate) fn ask(&mut self, question: Question) {
        self.unhandled.get_or_insert_default().question = Some(question);
    }

    /// Takes it.
    pub(crate) fn take_question(&mut self) -> Option<Question> {
        self.unhandled.as_mut()?.question.take()
    }

    /// Bytes of all that was read and is not handled.
    pub(crate) fn unhandled_bytes(&self) -> usize {
        let ahead = self.ahead().map_or(0, ReadAhead::bytes);
        let rest = self
            .unhandled
            .as_ref()
            .map_or(0, |unhandled| unhandled.rest.len());
        ahead + rest
    }

    /// Bytes that wait for its socket, in the outbox or behind it.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outbox_bytes() + self.transport.unsent()
    }

    /// Bytes that wait in its outbox.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    pub(crate) fn has_heard(&mut self, now: Time) {
        self.heard = tick(now);
    }

    /// When its last whole packet came.
    pub(crate) fn last_heard(&self) -> Time {
        Time(u64::from(self.heard) * TIMER_TICK_MS)
    }

    /// When CONNECT is due, where there was none.
    pub(crate) fn connect_ends(&self, timeout_ms: u64) -> Time {
        Time(u64::from(self.heard) * TIMER_TICK_MS).plus_ms(timeout_ms)
    }

    /// When the client is given up if nothing more is heard [MQTT-3.1.2-22].
    pub(crate) fn keep_alive_ends(&self) -> Time {
        Time((u64::from(self.heard) + 1) * TIMER_TICK_MS)
            .plus_ms(u64::from(self.keep_alive_s) * 1_500)
    }

    pub(crate) fn has_progressed(&mut self, now: Time) {
        self.progress = tick(now) | self.progress & ENDED;
    }

    pub(crate) fn last_progress(&self) -> Time {
        Time(u64::from(self.progress & !ENDED) * TIMER_TICK_MS)
    }

    /// The other side has sent its last byte: the end may be right behind what a read yields, and nothing will tell.
    pub(crate) fn is_ended(&self) -> bool {
        self.progress & ENDED != 0
    }

    pub(crate) fn set_ended(&mut self) {
        self.progress |= ENDED;
    }

    /// Notes bytes thrown away while closing: how many by now.
    pub(crate) fn discard(&mut self, bytes: usize) -> u32 {
        self.heard = self
            .heard
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.heard
    }

    pub(crate) fn start_closing(&mut self) {
        self.set_closing(true);
        self.set_owes_reading(false);
        self.heard = 0;
    }
}

/// Connections that wait to be flushed: who came first goes first.
#[derive(Debug, Default)]
struct Line {
    slots: Vec<u32>,
    /// The next one's place.
    at: usize,
}

impl Line {
    fn push(&mut self, slot: u32) {
        self.slots.push(slot);
    }

    fn last(&self) -> Option<u32> {
        self.slots.last().copied()
    }

    fn is_empty(&self) -> bool {
        self.at == self.slots.len()
    }

    /// Takes the next one. It may have been flushed meanwhile.
    #[inline]
    fn next(&mut self) -> Option<u32> {
        let slot = self.slots.get(self.at).copied()?;
        self.at += 1;
        Some(slot)
    }

    /// Forgets those that were taken.
    fn tidy(&mut self) {
        if self.is_empty() {
            self.slots.clear();
            if self.slots.capacity() > LINE_KEPT && self.at < self.slots.capacity() / 8 {
                self.slots.shrink_to(self.at);
            }
            self.at = 0;
        } else if self.at > self.slots.len() / 2 {
            self.slots.drain(..self.at);
            self.at = 0;
        }
    }
}

/// The outbox of a connection, which may have to get one.
#[inline]
fn outbox_of<'a>(
    connection: &'a mut Connection,
    spare: &mut Vec<Box<Outbox>>,
    spare_bytes: &mut usize,
) -> &'a mut Outbox {
    connection.outbox.get_or_insert_with(|| match spare.pop() {
        Some(outbox) => {
            *spare_bytes -= outbox.capacity();
            outbox
        }
        None => Box::default(),
    })
}

/// The connections of a worker, and what their outboxes share.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) slab: Slab<Connection>,
    /// Those with an answer to flush.
    answered: Line,
    /// Those with something else to flush; who has been answered since may be in both.
    delivered: Line,
    /// Those to look at again in the next turn.
    pub(crate) listed: Vec<u32>,
    spare: Vec<Box<Outbox>>,
    spare_bytes: usize,
}

impl Connections {
    /// Has what a connection's layers answer written with this turn's flush: as [`Connections::outbox`].
    pub(crate) fn mark(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot)
            && (!connection.is_dirty() || self.answered.last() != Some(slot))
        {
            connection.set_dirty(true);
            self.answered.push(slot);
        }
    }

    /// Has a connection written to that takes bytes again: as [`Connections::outbox_behind`].
    pub(crate) fn mark_behind(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot)
            && !connection.is_dirty()
        {
            connection.set_dirty(true);
            self.delivered.push(slot);
        }
    }

    /// The connection's outbox, to append an answer to: it does not wait behind all that is delivered to others.
    pub(crate) fn outbox(&mut self, slot: u32) -> Option<&mut Outbox> {
        let connection = self.slab.get_mut(slot)?;
        if !connection.is_dirty() || self.answered.last() != Some(slot) {
            connection.set_dirty(true);
            self.answered.push(slot);
        }
        Some(outbox_of(
            connection,
            &mut self.spare,
            &mut self.spare_bytes,
        ))
    }

    /// The same, to append a delivery to.
    #[inline]
    pub(crate) fn outbox_behind(&mut self, slot: u32) -> Option<&mut Outbox> {
        let connection = self.slab.get_mut(slot)?;
        if !connection.is_dirty() {
            connection.set_dirty(true);
            self.delivered.push(slot);
        }
        Some(outbox_of(
            connection,
            &mut self.spare,
            &mut self.spare_bytes,
        ))
    }

    /// The next connection with an answer to flush.
    #[inline]
    pub(crate) fn next_answered(&mut self) -> Option<u32> {
        self.answered.next()
    }

    /// The next connection with something else to flush.
    #[inline]
    pub(crate) fn next_delivered(&mut self) -> Option<u32> {
        self.delivered.next()
    }

    /// Takes the outbox from a connection that needs it no more.
    pub(crate) fn recycle(&mut self, slot: u32) {
        let Some(outbox) = self
            .slab
            .get_mut(slot)
            .and_then(|connection| connection.outbox.take())
        else {
            return;
        };
        if outbox.is_empty() && self.spare_bytes + outbox.capacity() <= SPARE_OUTBOX_BYTES_MAX {
            self.spare_bytes += outbox.capacity();
            self.spare.push(outbox);
        }
    }

    /// The flush of a turn is over: whether it has left some over.
    pub(crate) fn end_flush(&mut self) -> bool {
        self.answered.tidy();
        self.delivered.tidy();
        self.has_dirty()
    }

    /// Whether some have something to flush.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.answered.is_empty() || !self.delivered.is_empty()
    }

    /// Looks at the connection again in the next turn.
    pub(crate) fn list(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot)
            && !connection.is_listed()
        {
            connection.set_listed(true);
            self.listed.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // mio's sockets are larger where it checks how they are used, and share no word with what else there is then.
        let checks = if cfg!(debug_assertions) { 16 } else { 0 };
        let size = size_of::<Connection>();
        assert!(size <= 56 + checks, "{size}");
    }
}
