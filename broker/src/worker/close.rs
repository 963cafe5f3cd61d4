//! How connections and sessions end: each way has a name, a counter and, in 5.0, a reason code.

use codec::{DecodeError, ReasonCode, Version};

use super::Worker;
use crate::connection::{Connection, tick};
use crate::limits::{LINGER_MS, TIMER_LOOK_MS, WORK_FILTER};
use crate::losses::Loss;
use crate::router::{Among, Hit, SessionId, Share};
use crate::session::{Delivery, OFFLINE, Routed, Will};
use crate::timers::Timer;
use crate::transport::{LayerError, Stray, Transport, http_answer};

/// Why a connection is closed.
#[derive(Debug)]
pub(crate) enum Close {
    /// The socket ended or failed.
    Lost,
    /// The client said DISCONNECT.
    ByClient {
        with_will: bool,
    },
    /// The first byte is not that of a CONNECT.
    NotMqtt(u8),
    ConnectTimeout,
    /// A packet that cannot be read, or that is against the protocol.
    Decode(DecodeError),
    /// A packet against the protocol in the state of things.
    Protocol(ReasonCode, &'static str),
    ReceiveMaximum,
    KeepAlive,
    WriteStall,
    TakenOver,
    /// An operator wants it.
    ByOperator(ReasonCode),
    /// A 3.x client's publish was refused.
    PublishRefused,
    /// CONNECT was answered with a refusal, which is in the outbox.
    ConnectRefused,
    /// What the client was let in by has ended.
    Expired,
    /// Its user is none any more, or another.
    NotAuthorized,
    Shutdown,
    /// A layer below MQTT takes no more of it.
    Layer(LayerError),
}

impl Close {
    /// The reason code that a 5.0 client is told in a DISCONNECT.
    pub(super) fn reason(&self) -> Option<ReasonCode> {
        Some(match self {
            Self::Lost
            | Self::ByClient { .. }
            | Self::NotMqtt(_)
            | Self::ConnectTimeout
            | Self::WriteStall
            | Self::PublishRefused
            | Self::ConnectRefused
            | Self::Layer(_) => return None,
            Self::Decode(error) => error.reason(),
            Self::Protocol(reason, _) | Self::ByOperator(reason) => *reason,
            Self::ReceiveMaximum => ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
            Self::KeepAlive => ReasonCode::KEEP_ALIVE_TIMEOUT,
            Self::TakenOver => ReasonCode::SESSION_TAKEN_OVER,
            Self::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            Self::Expired => ReasonCode::MAXIMUM_CONNECT_TIME,
            Self::Shutdown => ReasonCode::SERVER_SHUTTING_DOWN,
        })
    }

    /// Whether the will is published [MQTT-3.1.2-8] [MQTT-3.1.2-10].
    fn publishes_will(&self) -> bool {
        !matches!(self, Self::ByClient { with_will: false })
    }
}

impl Worker {
    fn count_close(&mut self, session: u32, close: &Close) {
        let lost = match close {
            Close::Decode(DecodeError::NotMqtt) => None,
            Close::Decode(DecodeError::TooLarge { .. }) => Some(Loss::ClosedTooLarge),
            Close::Decode(error) if error.reason() == ReasonCode::MALFORMED_PACKET => {
                Some(Loss::ClosedMalformed)
            }
            Close::Decode(_) | Close::Protocol(..) => Some(Loss::ClosedProtocolError),
            Close::ReceiveMaximum => Some(Loss::ClosedReceiveMaximum),
            Close::WriteStall => Some(Loss::ClosedWriteStall),
            Close::PublishRefused => Some(Loss::ClosedPublishRefused),
            Close::ByOperator(_) => Some(Loss::ClosedByOperator),
            _ => None,
        };
        if let Some(lost) = lost {
            let session = self.sessions.get(session);
            let client = session.map_or("", |session| session.owner.client_id());
            return self.counts.lose(lost, client, "");
        }
        let counts = &mut self.counts;
        *match close {
            Close::Lost => &mut counts.closed_lost,
            Close::ByClient { .. } => &mut counts.closed_by_client,
            Close::NotMqtt(_) | Close::Decode(DecodeError::NotMqtt) => &mut counts.closed_not_mqtt,
            Close::ConnectTimeout => &mut counts.closed_connect_timeout,
            Close::KeepAlive => &mut counts.closed_keep_alive,
            Close::TakenOver => &mut counts.closed_taken_over,
            Close::ConnectRefused => &mut counts.closed_connect_refused,
            Close::NotAuthorized => &mut counts.closed_not_authorized,
            Close::Expired => &mut counts.closed_expired,
            Close::Shutdown => &mut counts.closed_shutdown,
            Close::Layer(LayerError::Stray(_)) => &mut counts.closed_not_mqtt,
            Close::Layer(LayerError::Broken { .. }) => &mut counts.closed_layer,
            // Those above, with whom it concerns.
            Close::Decode(_)
            | Close::Protocol(..)
            | Close::ReceiveMaximum
            | Close::WriteStall
            | Close::PublishRefused
            | Close::ByOperator(_) => return,
        } += 1;
    }

    /// Closes a connection: the session is told, the client too if its version has words for it, and the socket is
    /// dropped when the client has read them or had its time to.
    pub(super) fn close(&mut self, slot: u32, close: Close) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if connection.is_closing() {
            if matches!(close, Close::Lost) {
                self.drop_connection(slot);
            }
            return;
        }
        let (session, version) = (connection.session, connection.version);
        connection.start_closing();
        connection.session = OFFLINE;
        let listener = connection.transport.listener();
        self.end_question(slot);
        self.release_held(slot, session);
        if self.watch.is_some() {
            self.saw_close(session, &close);
        }
        self.count_close(session, &close);
        let stray = match &close {
            Close::NotMqtt(byte) => Stray::of(*byte),
            Close::Layer(LayerError::Stray(stray)) => Some(*stray),
            _ => None,
        };
        if let Some(stray) = stray {
            self.log_stray(listener, stray);
        }
        self.log_close(session, &close);
        if matches!(close, Close::PublishRefused) {
            self.note_refused(session);
        }
        let mut says_something = matches!(close, Close::ConnectRefused | Close::PublishRefused);
        if matches!(close, Close::NotMqtt(_))
            && stray == Some(Stray::Http)
            && let Some(outbox) = self.connections.outbox(slot)
        {
            outbox.push(&http_answer(
                "This port speaks MQTT, not HTTP. Connect an MQTT client (3.1, 3.1.1 or 5.0) to it.",
            ));
            says_something = true;
        }
        if session != OFFLINE {
            if version == Version::V5 {
                says_something |= self.tell_end(slot, session, &close);
            }
            self.detach(session, &close);
        }
        // What this turn has answered already still goes out: a PUBACK before a DISCONNECT in the same segment, say.
        let may_listen = !matches!(close, Close::Lost | Close::WriteStall | Close::KeepAlive);
        if matches!(close, Close::Layer(_)) {
            says_something = self
                .connections
                .slab
                .get(slot)
                .is_some_and(|connection| connection.transport.unsent() > 0);
        }
        let has_bytes = |connection: &Connection| {
            connection.outbox.is_some() || connection.transport.unsent() > 0
        };
        let was_flushed = (says_something || may_listen)
            && self.connections.slab.get(slot).is_some_and(has_bytes);
        if was_flushed {
            self.flush_one(slot);
        }
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        // Closing a socket that has unread bytes resets it, and takes what we wrote last with it: the rest is read and
        // thrown away until the client hangs up. Who was told nothing loses nothing, nor who had said all.
        let lingers = says_something
            || may_listen
                && session != OFFLINE
                && match close {
                    Close::ByClient { .. } => connection.is_readable() && !connection.is_ended(),
                    _ => true,
                };
        if !lingers {
            if may_listen && matches!(connection.transport, Transport::Layered(_)) {
                // As much of a goodbye as goes out at once.
                connection.transport.finish(&mut self.memory);
            }
            self.drop_connection(slot);
            return;
        }
        let is_readable = connection.is_readable();
        if !was_flushed {
            self.finish(slot);
        }
        if is_readable {
            self.connections.list(slot);
        }
        let timer = Timer::Linger {
            connection: slot,
            generation: self.connections.slab.generation(slot),
        };
        self.timers.at(self.now.plus_ms(LINGER_MS), timer);
    }

    /// Another protocol than a listener's came: one clear line for each of them, and never again.
    fn log_stray(&self, listener: u16, stray: Stray) {
        let Some(port) = self.shared.ports.get(usize::from(listener)) else {
            return;
        };
        if port.is_first(stray) {
            let listener = &port.name;
            let what = match stray {
                Stray::Mqtt => "MQTT as it is",
                Stray::Tls => "TLS",
                Stray::Http => "HTTP",
            };
            tracing::warn!(
                listener,
                "a client speaks {what} to a listener that is for {}: it was closed, as all others will be (said once)",
                port.words()
            );
        }
    }

    fn log_close(&self, session: u32, close: &Close) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let client = self
            .sessions
            .get(session)
            .map_or("", |session| session.client_id());
        match close {
            Close::NotMqtt(byte) => {
                tracing::debug!(byte, "not MQTT: the first packet is no CONNECT; closed")
            }
            Close::Decode(error) => tracing::debug!(client, %error, "closed"),
            Close::Layer(error) => tracing::debug!(client, %error, "closed"),
            Close::Protocol(reason, what) => tracing::debug!(client, %reason, what, "closed"),
            other => tracing::debug!(client, why = ?other, "closed"),
        }
    }

    /// Forgets a connection; its socket closes.
    pub(super) fn drop_connection(&mut self, slot: u32) {
        if let Some(outbox) = self
            .connections
            .slab
            .get(slot)
            .and_then(|c| c.outbox.as_ref())
        {
            let counted = outbox.counted();
            self.counts.memory_outboxes = self.counts.memory_outboxes.wrapping_sub(counted);
        }
        self.connections.recycle(slot);
        let Some(connection) = self.connections.slab.remove(slot) else {
            return;
        };
        self.shared.let_go(connection.transport.listener());
        self.counts.connections -= 1;
        self.counts.connections_closed += 1;
        if let Some(memory) = connection.transport.memory() {
            self.memory.drops(memory.peer);
        }
    }

    /// A session's connection is gone: its will, its shared subscriptions and its expiry are seen to.
    fn detach(&mut self, slot: u32, close: &Close) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.connection = OFFLINE;
        self.counts.clients -= 1;
        if let Some(flow) = &mut session.flow {
            flow.incoming.disconnected();
            flow.outgoing.disconnected();
        }
        session.tidy();
        let will = session.will.take().filter(|_| close.publishes_will());
        let expiry_s = session
            .expiry_s
            .min(self.settings.limits.session_expiry_max_s);
        session.turns_at = self.now.plus_s(u64::from(expiry_s));
        // A client that is back already is never away: nothing is counted.
        let is_back = matches!(close, Close::TakenOver);
        let offline_sessions_max = self.settings.limits.offline_sessions_max;
        let ends = expiry_s == 0 || !is_back && !self.shared.keep_offline(offline_sessions_max);
        if let Some(mut will) = will {
            // The will waits for its delay or the session's end, whichever comes first [MQTT-3.1.3-9].
            if will.delay_s == 0 || ends {
                self.publish_will(slot, *will, ends);
            } else {
                let due = self.now.plus_s(u64::from(will.delay_s.min(expiry_s)));
                will.due = Some(due);
                session.will = Some(will);
            }
        }
        if ends {
            self.end_session(slot);
            return;
        }
        self.arm_session(slot);
        self.tell_shares(slot);
        self.give_shared_away(slot, false);
    }

    /// Looks at a session without connection when its will or its end is due. A timer that is under way already, for
    /// this or an earlier absence, is enough if it fires in time: it sets the next one.
    fn arm_session(&mut self, slot: u32) {
        let generation = self.sessions.generation(slot);
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let will_due = session.will.as_ref().and_then(|will| will.due);
        let due = will_due
            .map_or(session.turns_at, |due| due.min(session.turns_at))
            .min(self.now.plus_ms(TIMER_LOOK_MS));
        let tick = crate::timers::tick(due) as u32; // enough for 13 years
        if session.timer_tick == 0 || tick < session.timer_tick {
            session.timer_tick = tick;
            let timer = Timer::Session {
                session: slot,
                generation,
            };
            self.timers.at(due, timer);
        }
    }

    /// Ends a session that is not connected: nothing of it is left.
    pub(super) fn end_session(&mut self, slot: u32) {
        let id = SessionId::new(self.index, slot);
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let will = session.will.take();
        let subscriptions = std::mem::take(&mut session.subscriptions);
        let shares = subscriptions.shares_len() > 0;
        for filter in subscriptions.iter() {
            self.work += WORK_FILTER;
            match topic::split_share(filter) {
                Ok(Some(share)) => self.shared.router.leave(share.group, share.filter, id),
                _ => self.shared.router.unsubscribe(filter, id),
            };
        }
        if shares {
            self.give_shared_away(slot, true);
        }
        if let Some(will) = will {
            self.publish_will(slot, *will, true); // due with the session's end [MQTT-3.1.2-8]
        }
        let generation = self.sessions.generation(slot);
        let Some(mut session) = self.sessions.retire(slot) else {
            return;
        };
        let hash = self.client_hash(session.client_id());
        let mut is_awaited = false;
        if let Some(flow) = &mut session.flow {
            flow.outgoing.drop_all(
                session.owner.client_id(),
                &mut self.counts,
                &mut self.followed,
            );
            is_awaited = flow.incoming.waiting() > 0;
            if is_awaited {
                let mut incoming = std::mem::take(&mut flow.incoming);
                incoming.departs();
                self.departed
                    .insert((slot, generation), (incoming, hash as u32));
            }
        }
        if !is_awaited {
            self.sessions.give_back(slot);
        }
        self.counts.sessions -= 1;
        if let Ok(entry) = self.clients.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    /// Tells the session's shared subscriptions what it can take now.
    pub(super) fn tell_shares(&self, slot: u32) {
        let id = SessionId::new(self.index, slot);
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let (is_online, has_room) = (session.is_online(), !session.said_no_room());
        for member in session.subscriptions.shares() {
            member.set(id, is_online, has_room);
        }
    }

    /// Tells the session's shared subscriptions when it has room again after it had none.
    pub(super) fn tell_room(&mut self, slot: u32) {
        let queue = self.queue_max();
        if let Some(session) = self.sessions.get_mut(slot)
            && session.found_room(queue)
        {
            session.tidy();
            self.tell_shares(slot);
        }
    }

    /// Gives a member's unacknowledged messages of shared subscriptions to other members, in their order: to connected
    /// ones with room, or to any when the session ends.
    fn give_shared_away(&mut self, slot: u32, ends: bool) {
        if self.is_draining() {
            return; // the others end as well
        }
        let id = SessionId::new(self.index, slot);
        let Some(flow) = self
            .sessions
            .get_mut(slot)
            .and_then(|session| session.flow.as_mut())
        else {
            return;
        };
        let among = if ends { Among::All } else { Among::Connected };
        let elsewhere = |delivery: &Delivery, share: &Share| share.other(delivery.qos, among, id);
        let taken = flow.outgoing.take_shared(elsewhere, &mut self.counts);
        for (message, to) in taken {
            let mut hit = Hit::shared(to);
            hit.giver = (!ends).then_some(id);
            // At once, where they go to a member here: what is published next must not overtake them.
            let mut routed = Routed {
                parts: message.parts(),
                shared: Some(message.clone()),
            };
            self.frames.reset();
            self.deliver_hit(&mut routed, hit, None);
        }
        self.frames.reset();
        self.tell_room(slot);
    }

    /// A timer of a session fires.
    pub(super) fn session_due(&mut self, slot: u32, generation: u16) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut_if(slot, generation) else {
            return;
        };
        let is_the_last = session.timer_tick > 0 && session.timer_tick <= tick(now);
        if !is_the_last {
            return; // an earlier one took its place
        }
        session.timer_tick = 0;
        if session.is_online() {
            return;
        }
        let is_due = |will: &mut Box<Will>| will.due.is_some_and(|due| due <= now);
        let ends = session.turns_at <= now;
        if let Some(will) = session.will.take_if(is_due) {
            self.publish_will(slot, *will, ends);
        }
        if ends {
            self.counts.sessions_expired += 1;
            self.shared.end_offline();
            self.end_session(slot);
        } else {
            self.arm_session(slot);
        }
    }
}
