//! From a routed message to the outboxes of its receivers, here and at the other workers; and to a session's client
//! what has waited for it.

use codec::Qos;

use super::Worker;
use crate::budget::Pressure;
use crate::handle::Inbox;
use crate::limits::{SHARED_ASKED_MAX, TIMER_LOOK_MS, TIMER_TICK_MS, WORK_PUBLISH};
use crate::losses::Loss;
use crate::message::Message;
use crate::outcome::{Fate, Part};
use crate::retained::{NotKept, Position};
use crate::router::{Among, Hit, Query, Receiver, SessionId, Share, ShareStrategy};
use crate::session::{Delivery, OFFLINE, QueueMax, Routed, Sending};
use crate::time::Time;
use crate::timers::Timer;

/// Borrows what sending to a connection needs, and nothing more of the worker.
macro_rules! sending {
    ($worker:ident, $slot:expr) => {
        $worker
            .connections
            .outbox_behind($slot)
            .map(|outbox| Sending {
                now: $worker.now,
                outbox,
                outbox_bytes_max: $worker.relief.outbox_bytes_max,
                alias_maximum: $worker.settings.limits.topic_alias_maximum,
                frames: &mut $worker.frames,
                counts: &mut $worker.counts,
                followed: &mut $worker.followed,
            })
    };
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// A session of this worker, of that generation.
    Client(SessionId, u16),
    /// A session of this worker that has ended; the hash of its client identifier.
    Departed(u32),
    /// No client of this node.
    Nobody,
}

impl Worker {
    /// Routes one message: retains it if it asks for that, and hands it to every session that should have it, or to
    /// that session's worker.
    pub(super) fn route(
        &mut self,
        routed: &mut Routed<'_>,
        origin: Origin,
        delivered: Option<&Part>,
    ) {
        // Retained first: who subscribes meanwhile gets it by one way or the other, never by none.
        if routed.parts.retain {
            self.retain(routed, origin);
        }
        let mut found = std::mem::take(&mut self.found);
        let query = Query {
            topic: routed.parts.topic,
            qos: routed.parts.qos,
            origin: match origin {
                Origin::Client(session, generation) => Some((session, generation)),
                Origin::Departed(_) | Origin::Nobody => None,
            },
            share_key: self.share_key(routed.parts.topic, origin),
        };
        self.shared.router.lookup(&query, &mut found);
        let deliveries = found.receivers.len() + found.hits.len();
        self.work += WORK_PUBLISH + deliveries as u64;
        if self.watch.is_some() {
            self.saw_route(routed.parts.topic, routed.parts.payload.len(), deliveries);
        }
        if found.receivers.is_empty() && found.hits.is_empty() {
            self.counts.publishes_unmatched += 1;
        }
        self.frames.reset();
        let queue = self.queue_max();
        let mut elsewhere = false;
        for receiver in &found.receivers {
            let worker = receiver.session.worker();
            if worker == self.index {
                let fate = self.deliver(routed, receiver, &[], None, queue);
                count(delivered, fate);
                if self.watch.is_some() {
                    self.saw_delivery(receiver, routed.parts.topic, fate);
                }
            } else {
                self.remote[worker].push(*receiver);
                elsewhere = true;
            }
        }
        if elsewhere {
            for worker in 0..self.remote.len() {
                if self.remote[worker].is_empty() {
                    continue;
                }
                let entry = Inbox::Deliver {
                    message: routed.message(),
                    receivers: self.remote[worker].as_slice().into(),
                    delivered: delivered.map(Part::fork),
                };
                self.remote[worker].clear();
                self.posts[worker].push(entry);
            }
        }
        for hit in found.hits.drain(..) {
            if hit.receiver.session.worker() == self.index {
                self.deliver_hit(routed, hit, delivered);
            } else {
                self.send_hit(routed.message(), hit, delivered);
            }
        }
        self.found = found;
    }

    /// What sticky shared subscriptions go by: the publisher, or the topic, also where nobody here published it.
    fn share_key(&self, topic: &str, origin: Origin) -> u32 {
        let hash = |text: &str| self.shared.hasher.hash_one(text) as u32;
        match (self.shared.router.strategy, origin) {
            (ShareStrategy::RoundRobin | ShareStrategy::LeastInFlight, _) => 0,
            (ShareStrategy::StickyClient, Origin::Departed(key)) => key,
            (ShareStrategy::StickyClient, Origin::Client(session, _)) => self
                .sessions
                .get(session.slot())
                .map_or(0, |session| hash(session.client_id())),
            (ShareStrategy::StickyClient, Origin::Nobody) | (ShareStrategy::StickyTopic, _) => {
                hash(topic)
            }
        }
    }

    fn retain(&mut self, routed: &mut Routed<'_>, origin: Origin) {
        let of_session = |id: SessionId| self.sessions.get(id.slot());
        let client = match origin {
            Origin::Client(id, _) => {
                of_session(id).map(|session| self.client_hash(session.owner.client_id()) as u32)
            }
            Origin::Departed(client) => Some(client),
            Origin::Nobody => None,
        };
        let retained = &self.shared.router.retained;
        let may_grow = self.relief.pressure() < Pressure::Queues;
        if let Err(why) = retained.set(routed.message(), client, self.now, may_grow) {
            let session = match origin {
                Origin::Client(id, _) => id.slot(),
                Origin::Departed(_) | Origin::Nobody => OFFLINE,
            };
            self.count_not_retained(why, session, routed.parts.topic);
        } else if let Some(at) = routed.parts.expires_at {
            self.expire_retained_at(at);
        }
    }

    /// Counts a message of a session that is not retained, and says so in the log where one client has no more room.
    pub(super) fn count_not_retained(&mut self, why: NotKept, session: u32, topic: &str) {
        let session = self.sessions.get(session);
        let client = session.map_or("", |session| session.owner.client_id());
        let loss = match why {
            NotKept::Full => Loss::RetainedRefused,
            NotKept::OverShare => Loss::RetainedRefusedClient,
        };
        self.counts.lose(loss, client, topic);
        if why == NotKept::OverShare
            && let Some(refused) = self.shared.over_share.count(self.now)
        {
            tracing::warn!(
                client,
                topic,
                refused,
                "messages were not retained: their client has set as many as limits.retained_messages_per_client_max and \
                 retained_bytes_per_client_max allow"
            );
        }
    }

    /// Looks for retained messages that have expired at that time, or when a timer is. One timer is enough for all.
    pub(super) fn expire_retained_at(&mut self, at: Time) {
        // The next tick at the earliest: what is left of many is for another turn.
        let at = at
            .max(self.now.plus_ms(TIMER_TICK_MS))
            .min(self.now.plus_ms(TIMER_LOOK_MS));
        if self.retained_expire_at.is_none_or(|earlier| at < earlier) {
            self.retained_expire_at = Some(at);
            self.timers.at(at, Timer::Retained);
        }
    }

    /// Sends a delivery that is no plain one to its worker.
    pub(super) fn send_hit(&mut self, message: Message, hit: Hit, delivered: Option<&Part>) {
        let worker = hit.receiver.session.worker();
        let delivered = delivered.map(Part::fork);
        self.posts[worker].push(Inbox::DeliverHit {
            message,
            hit: Box::new(hit),
            delivered,
        });
    }

    /// A message from another worker for sessions here.
    pub(super) fn deliver_all(
        &mut self,
        message: &Message,
        receivers: &[Receiver],
        delivered: Option<&Part>,
    ) {
        self.work += WORK_PUBLISH + receivers.len() as u64;
        self.frames.reset();
        let mut routed = Routed {
            parts: message.parts(),
            shared: Some(message.clone()),
        };
        let queue = self.queue_max();
        for receiver in receivers {
            let fate = self.deliver(&mut routed, receiver, &[], None, queue);
            count(delivered, fate);
            if self.watch.is_some() {
                self.saw_delivery(receiver, routed.parts.topic, fate);
            }
        }
    }

    /// A delivery of a shared subscription, or with several identifiers, for a session here. A member that has left, may not
    /// have it or has no room for it hands it on.
    pub(super) fn deliver_hit(
        &mut self,
        routed: &mut Routed<'_>,
        mut hit: Hit,
        delivered: Option<&Part>,
    ) {
        while self.is_here(&hit.receiver) {
            let Some((receiver, share)) = self.other_member(routed, &mut hit) else {
                let Hit {
                    receiver,
                    more_identifiers,
                    share,
                    giver,
                    ..
                } = hit;
                let is_shared = share.is_some();
                let mut queue = self.queue_max();
                if giver == Some(receiver.session) {
                    // What was in flight to it finds its place again, whatever came meanwhile.
                    queue.messages += usize::from(self.settings.limits.inflight_messages_max);
                    queue.bytes = u64::MAX;
                }
                let fate = self.deliver(routed, &receiver, &more_identifiers, share, queue);
                count(delivered, fate);
                if self.watch.is_some() {
                    self.saw_delivery(&receiver, routed.parts.topic, fate);
                }
                // What another member had waiting is told where it ends.
                if delivered.is_none()
                    && fate != Fate::Queued
                    && let Some(message) = &routed.shared
                {
                    message.note(fate, &mut self.followed);
                }
                if is_shared {
                    self.look_for_room(&receiver);
                }
                return;
            };
            (hit.receiver, hit.share) = (receiver, Some(share));
            hit.passed_on += 1;
            self.work += 1;
        }
        self.send_hit(routed.message(), hit, delivered);
    }

    /// Who gets a shared message in place of a member here, if that is not to have it and another one is.
    fn other_member(
        &mut self,
        routed: &mut Routed<'_>,
        hit: &mut Hit,
    ) -> Option<(Receiver, Share)> {
        let share = hit.share.as_ref()?;
        let (id, slot) = (hit.receiver.session, hit.receiver.session.slot());
        if hit.passed_on >= SHARED_ASKED_MAX {
            return share.back_to(hit.giver.filter(|giver| *giver != id)?);
        }
        let qos = routed.parts.qos.min(hit.receiver.options.qos());
        let other = |among| share.other(routed.parts.qos, among, id);
        if !self.may_receive(&hit.receiver, routed.parts.topic) {
            hit.was_denied = true;
            return other(Among::Undenied).or_else(|| other(Among::All));
        }
        let queue = self.queue_max();
        let Some(session) = self.sessions.get_mut_if(slot, hit.receiver.generation) else {
            return other(Among::All);
        };
        // Whoever is connected may be the one that may not have it.
        if !session.is_online()
            && !hit.was_denied
            && let Some(connected) = other(Among::Connected)
        {
            return Some(connected);
        }
        if qos == Qos::AtMostOnce {
            return None;
        }
        let bytes = routed.message().bytes() as u64;
        if session.has_room(bytes, queue) || hit.giver == Some(id) {
            return None;
        }
        self.tell_no_room(slot, bytes);
        share
            .other(routed.parts.qos, Among::WithRoom, id)
            .or_else(|| share.back_to(hit.giver?))
    }

    /// Has the next messages go to others as soon as a member is full.
    fn look_for_room(&mut self, receiver: &Receiver) {
        let (slot, queue) = (receiver.session.slot(), self.queue_max());
        if let Some(session) = self.sessions.get_mut_if(slot, receiver.generation)
            && receiver.options.qos() > Qos::AtMostOnce
            && !session.said_no_room()
            && !session.has_room(0, queue)
        {
            self.tell_no_room(slot, 0);
        }
    }

    /// Tells a session's shared subscriptions that it has no room for a message of that many bytes.
    fn tell_no_room(&mut self, slot: u32, bytes: u64) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.flow().outgoing.has_no_room_for(bytes);
            self.tell_shares(slot);
        }
    }

    fn is_here(&self, receiver: &Receiver) -> bool {
        receiver.session.worker() == self.index
    }

    /// Whether the access rules let a session of this worker have a message on `topic`: no question where they deny nothing of
    /// its filter.
    fn may_receive(&self, receiver: &Receiver, topic: &str) -> bool {
        if !receiver.options.in_part() {
            return true;
        }
        let session = self
            .sessions
            .get(receiver.session.slot())
            .filter(|_| self.sessions.generation(receiver.session.slot()) == receiver.generation);
        session.is_none_or(|session| self.settings.access.may_receive(session.who(), topic))
    }

    /// Counts a delivery that a session here does not get.
    fn lose(&mut self, receiver: &Receiver, loss: Loss, topic: &str) {
        let slot = receiver.session.slot();
        let is_it = self.sessions.generation(slot) == receiver.generation;
        let session = self.sessions.get(slot).filter(|_| is_it);
        let client = session.map_or("", |session| session.owner.client_id());
        self.counts.lose(loss, client, topic);
    }

    fn deliver(
        &mut self,
        routed: &mut Routed<'_>,
        receiver: &Receiver,
        more_identifiers: &[u32],
        share: Option<Share>,
        queue: QueueMax,
    ) -> Fate {
        let topic = routed.parts.topic;
        if !self.may_receive(receiver, topic) {
            self.lose(receiver, Loss::Withheld, topic);
            return Fate::Withheld;
        }
        self.counts.deliveries += 1;
        // While it waited to be stored, for its worker or in the hands of another member [MQTT-3.3.2-5].
        if routed.parts.expires_at.is_some_and(|at| at < self.now) {
            self.lose(receiver, Loss::Expired, topic);
            return Fate::Expired;
        }
        let Some(session) = self
            .sessions
            .get_mut_if(receiver.session.slot(), receiver.generation)
        else {
            self.counts.lose(Loss::SessionEnded, "", topic);
            return Fate::SessionEnded;
        };
        let qos = routed.parts.qos.min(receiver.options.qos()); // [MQTT-3.8.4-8]
        let retain = routed.parts.retain && receiver.options.retain_as_published(); // [MQTT-3.3.1-12]
        let online = session.is_online();
        if qos == Qos::AtMostOnce {
            if self.relief.sheds(&self.connections, session.connection) {
                self.counts
                    .lose(Loss::Memory, session.owner.client_id(), topic);
                return Fate::Memory;
            }
            let Some(mut sending) = sending!(self, session.connection).filter(|_| online) else {
                self.counts
                    .lose(Loss::Offline, session.owner.client_id(), topic);
                return Fate::Offline;
            };
            let identifiers = (receiver.identifier, more_identifiers);
            return session.deliver_at_most_once(routed, retain, identifiers, &mut sending);
        }
        let delivery = |message| Delivery {
            message,
            more_identifiers: more_identifiers.into(),
            share,
            identifier: receiver.identifier,
            qos,
            retain,
        };
        match sending!(self, session.connection).filter(|_| online) {
            Some(mut sending) => session.deliver(routed, delivery, queue, Ok(&mut sending)),
            None => session.deliver(routed, delivery, queue, Err(&mut self.counts)),
        }
    }

    /// Sends a session's client what waits for it, as far as there is room.
    pub(super) fn pump(&mut self, slot: u32, session_slot: u32) {
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        if session.flow.is_none() || session.connection != slot {
            return;
        }
        if session
            .flow
            .as_ref()
            .is_some_and(|flow| flow.outgoing.has_waiting())
            && let Some(mut sending) = sending!(self, slot)
        {
            session.pump(&mut sending);
            self.pump_retained(slot, session_slot);
        }
        if let Some(session) = self.sessions.get_mut(session_slot) {
            if session.said_no_room() {
                return self.tell_room(session_slot);
            }
            session.tidy();
        }
    }

    /// Sends the next retained messages to a new subscription: a bounded number in one turn, and only while there is
    /// room, so that a million of them cost no more memory than a few.
    fn pump_retained(&mut self, slot: u32, session_slot: u32) {
        let outbox_bytes_max = self.relief.outbox_bytes_max;
        let queue = self.queue_max();
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        let window_left = session.window_left();
        let Some(flow) = session
            .flow
            .as_mut()
            .filter(|flow| window_left > 0 && !flow.outgoing.has_messages_waiting())
        else {
            return; // the acknowledgement, or the emptied outbox, brings us back
        };
        let Some(mut replay) = flow.outgoing.replays.pop() else {
            return;
        };
        let mut messages = Vec::new();
        let mut max = self.settings.limits.retained_per_turn as usize;
        if replay.options.qos() > Qos::AtMostOnce {
            max = max.min(window_left); // an acknowledgement makes room for one, not for a turn's worth
        }
        let retained = &self.shared.router.retained;
        let end = retained.walk(
            &replay.filter,
            &replay.position,
            self.now,
            max,
            |message, sequence| replay.wants(message, sequence),
            &mut messages,
        );
        self.work += messages.len() as u64;
        let mut sent = None;
        for message in &messages {
            let Some(mut sending) = sending!(self, slot) else {
                return;
            };
            let waiting = sending.outbox.bytes();
            let no_room = waiting > 0 && waiting + message.bytes() + 64 > outbox_bytes_max;
            let window_full = !session.has_window();
            if no_room || window_full {
                break;
            }
            if replay.options.in_part()
                && !self
                    .settings
                    .access
                    .may_receive(session.who(), message.topic())
            {
                let (client, topic) = (session.owner.client_id(), message.topic());
                sending.counts.lose(Loss::Withheld, client, topic);
                sent = Some(message.topic().into());
                continue;
            }
            sending.counts.deliveries += 1;
            sending.frames.reset();
            let mut routed = Routed {
                parts: message.parts(),
                shared: Some(message.clone()),
            };
            let qos = message.qos().min(replay.options.qos());
            if qos == Qos::AtMostOnce {
                // [MQTT-3.3.1-8]: retained messages sent on subscribing say so.
                session.deliver_at_most_once(
                    &mut routed,
                    true,
                    (replay.identifier, &[]),
                    &mut sending,
                );
            } else {
                let delivery = |message| Delivery {
                    message,
                    more_identifiers: Box::default(),
                    share: None,
                    identifier: replay.identifier,
                    qos,
                    retain: true,
                };
                session.deliver(&mut routed, delivery, queue, Ok(&mut sending));
            }
            sent = Some(message.topic().into());
        }
        let all = sent.as_deref() == messages.last().map(Message::topic);
        replay.position = match sent {
            _ if all => end,
            Some(topic) => Position::After(topic),
            None => replay.position,
        };
        if replay.position != Position::End {
            // Otherwise the acknowledgement, or the emptied outbox, brings us back.
            if all {
                self.connections.list(slot);
            }
            session.flow().outgoing.replays.push(replay);
        } else if session
            .flow
            .as_ref()
            .is_some_and(|flow| !flow.outgoing.replays.is_empty())
        {
            self.connections.list(slot);
        }
    }

    /// A client came back to its session: what was in flight is sent again, then what waited.
    pub(super) fn resume(&mut self, slot: u32, session_slot: u32) {
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        if let Some(flow) = &mut session.flow {
            flow.outgoing.resumed();
            if !flow.outgoing.replays.is_empty() {
                let sequence = self.shared.router.retained.sequence();
                for replay in flow.outgoing.replays.iter_mut() {
                    replay.missed = sequence;
                }
            }
            self.pump(slot, session_slot);
        }
    }
}

/// Counts what a delivery has come to, where somebody asks.
pub(super) fn count(delivered: Option<&Part>, fate: Fate) {
    if let Some(part) = delivered {
        part.count(fate);
    }
}
