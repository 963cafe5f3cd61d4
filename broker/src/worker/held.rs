//! Publishers whose publishes have to wait: for room in the sink, or until some of what a 3.x client has published is
//! answered. Only their publishes wait. They are read ahead, in order and within bounds; everything else that the client sends
//! is answered meanwhile, and its end is seen at once.

use std::sync::atomic::Ordering;

use codec::{Packet, Qos, Version};

use super::{Close, Step, Worker};
use crate::connection::Connection;
use crate::handle::Shared;
use crate::limits::{
    HELD_LIST_SPARE, READ_AHEAD_FULL_BYTES, READ_AHEAD_LOOK_MS, WORK_PER_TURN_MAX, WORK_PUBLISH,
};
use crate::losses::Loss;
use crate::read_ahead::{ReadAhead, TIME_BYTES};
use crate::session::OFFLINE;
use crate::timers::Timer;

/// Bytes that the node may still read ahead.
fn bytes_left(shared: &Shared, bytes_max: u64) -> u64 {
    bytes_max.saturating_sub(shared.read_ahead.load(Ordering::Relaxed))
}

/// Forgets those who have left since, when they outnumber those who wait: clients that come and go while the sink is away
/// cost nothing.
fn forget_others(list: &mut Vec<u32>, waits: impl Fn(u32) -> bool) {
    list.sort_unstable();
    list.dedup();
    list.retain(|slot| waits(*slot));
}

impl Worker {
    /// How many bytes may be read of a connection now.
    #[inline]
    pub(super) fn room(&mut self, slot: u32) -> usize {
        let limits = &self.settings.limits;
        let of_node = bytes_left(&self.shared, limits.read_ahead_node_bytes_max);
        match self.connections.slab.get(slot) {
            Some(connection) if of_node > 0 && connection.is_free() => {
                limits.read_bytes_per_turn as usize
            }
            Some(_) => self.room_beside(slot, of_node),
            None => 0,
        }
    }

    /// The same of one that may have to wait, or while the node has only so much room.
    #[cold]
    fn room_beside(&mut self, slot: u32, of_node: u64) -> usize {
        let limits = &self.settings.limits;
        let most = limits.read_bytes_per_turn as usize;
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return 0;
        };
        if connection.owes_reading() {
            return 0;
        }
        if connection.is_asked() {
            return self.room_behind_connect(slot).min(most);
        }
        if !connection.reads_ahead() {
            return if of_node > 0 {
                most
            } else {
                most.min(READ_AHEAD_FULL_BYTES)
            };
        }
        // Of one that has sent its last byte the rest is read, to see how it ends; nothing more of it is kept.
        if connection.is_ended() {
            return most;
        }
        let of_client = limits.read_ahead_bytes_max;
        let kept = (connection.unhandled_bytes() + TIME_BYTES) as u64;
        let room = of_client.saturating_sub(kept);
        let waits_for_node = room > 0 && of_node == 0;
        let room = usize::try_from(room.min(of_node)).map_or(most, |room| room.min(most));
        if room == 0 && !connection.ahead_mut().is_probed {
            connection.ahead_mut().is_probed = true;
            connection.transport.socket().probe();
        }
        if waits_for_node {
            self.wait_for_node(slot);
        }
        room
    }

    /// Notes a connection that is to be read from when the node has read less ahead.
    fn wait_for_node(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut connection.ahead_mut().waits_for_node, true) {
            return;
        }
        if self.wait_for_node.is_empty() {
            let at = self.now.plus_ms(READ_AHEAD_LOOK_MS);
            self.timers.at(at, Timer::ReadAhead);
        }
        self.wait_for_node.push(slot);
    }

    /// Looks whether the node has read less ahead by now.
    pub(super) fn read_ahead_due(&mut self) {
        let bytes_max = self.settings.limits.read_ahead_node_bytes_max;
        if bytes_left(&self.shared, bytes_max) == 0 {
            if self.wait_for_node.len() as u64 > 2 * self.counts.publishers_held + HELD_LIST_SPARE {
                let connections = &self.connections.slab;
                forget_others(&mut self.wait_for_node, |slot| {
                    let ahead = connections.get(slot).and_then(Connection::ahead);
                    ahead.is_some_and(|ahead| ahead.waits_for_node)
                });
            }
            if !self.wait_for_node.is_empty() {
                let at = self.now.plus_ms(READ_AHEAD_LOOK_MS);
                self.timers.at(at, Timer::ReadAhead);
            }
            return;
        }
        for slot in std::mem::take(&mut self.wait_for_node) {
            // It may be another connection by now, which only is looked at once more than it needs.
            if let Some(connection) = self.connections.slab.get_mut(slot)
                && connection.reads_ahead()
            {
                connection.ahead_mut().waits_for_node = false;
                self.connections.list(slot);
            }
        }
    }

    /// Keeps a whole PUBLISH behind those that wait.
    pub(super) fn read_ahead(
        &mut self,
        slot: u32,
        session: u32,
        tracked: bool,
        packet: &[u8],
    ) -> Step {
        let receive_maximum = self.settings.limits.receive_maximum;
        let open = self
            .sessions
            .get(session)
            .filter(|session| session.version == Version::V5)
            .map(|session| session.flow.as_ref().map_or(0, |flow| flow.incoming.open()));
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return Step::Closed;
        };
        let waiting = connection.ahead().map_or(0, ReadAhead::tracked);
        // [MQTT-3.3.4-7]
        if tracked && open.is_some_and(|open| u32::from(open) + waiting >= receive_maximum.into()) {
            return self.close_step(slot, Close::ReceiveMaximum);
        }
        let limits = &self.settings.limits;
        let bytes_max = limits.read_ahead_bytes_max;
        let of_node = bytes_left(&self.shared, limits.read_ahead_node_bytes_max);
        if connection.reads_ahead()
            && connection.is_ended()
            && (connection.unhandled_bytes() as u64 >= bytes_max
                || of_node == 0
                || connection.ahead_mut().has_gap)
        {
            connection.ahead_mut().has_gap = true;
            let session = self.sessions.get(session);
            let client = session.map_or("", |session| session.owner.client_id());
            self.counts.lose(Loss::ReadAheadDropped, client, "");
            return Step::Done;
        }
        connection.ahead_mut().push(self.now, packet, tracked);
        self.counts.publishes_read_ahead += 1;
        self.count_ahead(slot);
        Step::Done
    }

    /// Handles publishes that were read ahead, as far as they need not wait any more.
    pub(super) fn go_on_ahead(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if connection.is_held() || connection.owes_reading() {
            return;
        }
        if connection.ahead().is_none_or(|ahead| ahead.has_gap) {
            return; // its connection ends: what is behind the gap would come too early
        }
        let (session, version) = (connection.session, connection.version);
        let Some(mut ahead) = connection.take_ahead() else {
            return;
        };
        while let Some((came, packets)) = ahead.first() {
            if self.work >= WORK_PER_TURN_MAX {
                self.connections.list(slot);
                break;
            }
            let outbox_bytes_max = self.settings.limits.outbox_bytes_max;
            if let Some(connection) = self.connections.slab.get_mut(slot)
                && connection.outbox_bytes() as u64 > outbox_bytes_max
            {
                connection.set_owes_reading(true);
                break;
            }
            let frame = codec::split_frame(packets, codec::PACKET_BYTES_MAX);
            let Ok(Some(frame)) = frame else { break };
            let len = frame.len;
            let Ok(Packet::Publish(publish)) = codec::decode(version, frame) else {
                break; // it was one when it came
            };
            let tracked = publish.qos != Qos::AtMostOnce;
            match self.on_publish(slot, session, &publish, came) {
                Step::Done => {
                    ahead.pop(len, tracked);
                    self.counts.publishes_read_ahead -= 1;
                }
                Step::Hold => {
                    // Many may be turned away in one wave, and each was asked for.
                    self.work += WORK_PUBLISH;
                    break;
                }
                Step::Move(_) | Step::Wait | Step::Closed => break,
            }
        }
        match self.connections.slab.get_mut(slot) {
            Some(connection) if !connection.is_closing() && ahead.publishes() > 0 => {
                connection.put_ahead(ahead);
                self.count_ahead(slot);
            }
            _ => self.drop_ahead(*ahead, session),
        }
    }

    /// Brings the node's sum up to date with what is kept of a connection.
    pub(super) fn count_ahead(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if connection.reads_ahead() {
            let bytes = connection.unhandled_bytes() as u64;
            let more = connection.ahead_mut().count(bytes);
            self.shared.read_ahead.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// The connection has ended, or nothing waits any more. What waits was not acknowledged: its publisher knows.
    pub(super) fn drop_ahead(&mut self, mut ahead: ReadAhead, session: u32) {
        self.counts.publishes_read_ahead -= ahead.publishes();
        let session = self.sessions.get(session);
        let client = session.map_or("", |session| session.owner.client_id());
        let publishes = ahead.publishes();
        self.counts
            .lose_many(Loss::ReadAheadDropped, client, "", publishes);
        self.shared
            .read_ahead
            .fetch_add(ahead.count(0), Ordering::Relaxed);
    }

    /// Has a publisher's publishes wait.
    pub(super) fn hold(&mut self, slot: u32) -> Step {
        if let Some(connection) = self.connections.slab.get_mut(slot)
            && !connection.is_held()
        {
            connection.set_held(true);
            self.counts.publishers_held += 1;
        }
        Step::Hold
    }

    /// Has a publisher's publishes wait until the sink says that it has room.
    pub(super) fn hold_for_sink(&mut self, slot: u32) -> Step {
        if self.held_by_sink.len() as u64 > 2 * self.counts.publishers_held + HELD_LIST_SPARE {
            let connections = &self.connections.slab;
            forget_others(&mut self.held_by_sink, |slot| {
                connections
                    .get(slot)
                    .is_some_and(Connection::waits_for_sink)
            });
        }
        self.held_by_sink.push(slot);
        let step = self.hold(slot);
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.set_waits_for_sink(true);
        }
        step
    }

    /// A publisher's publishes go on, unless they wait for a time.
    pub(super) fn unhold(&mut self, slot: u32) {
        let paused_until = |connection: &Connection| connection.ahead()?.paused_until;
        let paused_until = self.connections.slab.get(slot).and_then(paused_until);
        if paused_until.is_some_and(|until| until > self.now) {
            return;
        }
        let was_read = self.room(slot) > 0;
        if let Some(connection) = self.connections.slab.get_mut(slot)
            && connection.is_held()
        {
            connection.set_held(false);
            connection.set_waits_for_sink(false);
            if !was_read {
                connection.has_heard(self.now); // its silence was ours
            }
            self.counts.publishers_held -= 1;
            self.connections.list(slot);
        }
    }

    /// A connection ends: nothing of it waits any more.
    pub(super) fn release_held(&mut self, slot: u32, session: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        connection.take_rest();
        if connection.is_held() {
            connection.set_held(false);
            self.counts.publishers_held -= 1;
        }
        if let Some(ahead) = connection.take_ahead() {
            self.drop_ahead(*ahead, session);
        }
    }

    /// Some of a held publisher's messages are answered. One that the sink itself had no room for waits for its word.
    pub(super) fn unhold_if_full(&mut self, slot: u32) {
        let held = |connection: &Connection| connection.is_held() && !connection.waits_for_sink();
        if slot != OFFLINE && self.connections.slab.get(slot).is_some_and(held) {
            self.unhold(slot);
        }
    }

    /// The sink has room again.
    pub(super) fn sink_ready(&mut self) {
        self.wills_due();
        for slot in std::mem::take(&mut self.held_by_sink) {
            self.unhold(slot);
        }
    }
}
