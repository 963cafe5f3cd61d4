//! PUBLISH from a client: checked, offered to the sink, routed, and acknowledged in order. And what the sink says of
//! it later.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU16;

use codec::{PropertiesBuf, Property, Publish, Qos, ReasonCode, Version};

use super::deliver::Origin;
use super::{Close, Step, Worker};
use crate::access::{By, How, RefusedPublish};
use crate::budget::Pressure;
use crate::losses::Loss;
use crate::message::{Message, MessageParts};
use crate::retained::NotKept;
use crate::router::SessionId;
use crate::session::{Begin, OFFLINE, Released, Routed, Session};
use crate::sink::{Deliver, Incoming, Settlement, Token, Verdict};
use crate::time::Time;

/// A token's bits: 6 of worker, 26 of session slot, 16 of the slot's generation, 16 of the publish's sequence.
///
/// No two publishes that wait for their settlement have the same, however long they wait. Those of one session differ in
/// their sequence: it counts the unanswered ones, which [`Limits`](crate::Limits) keep below 2^16, and each stays unanswered
/// until it is settled. Those of two sessions differ in their slot: that of a session that ended is not used again before all
/// its publishes are settled. The generation only tells whether the session is still there.
impl Token {
    fn new(session: SessionId, generation: u16, sequence: u16) -> Self {
        Self(u64::from(session.0) << 32 | u64::from(generation) << 16 | u64::from(sequence))
    }

    pub(crate) fn worker(self) -> usize {
        self.session().worker()
    }

    fn session(self) -> SessionId {
        SessionId((self.0 >> 32) as u32)
    }

    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    fn sequence(self) -> u16 {
        self.0 as u16
    }
}

/// Where a publish says what it is about.
enum TopicOf {
    /// In the packet.
    Said,
    /// In an earlier one, whose alias it has.
    Alias(Box<str>),
}

/// A publish that may be.
struct Arrived<'a> {
    slot: u32,
    session_slot: u32,
    generation: u16,
    topic: &'a str,
    publish: &'a Publish<'a>,
    /// It may be acknowledged at once, from a client with nothing else under way, and then needs no record.
    quick: bool,
    /// When it came, which is earlier than now where it had to wait: from then on its expiry counts.
    came: Time,
}

impl Arrived<'_> {
    /// Whether it is answered.
    fn is_tracked(&self) -> bool {
        self.publish.qos != Qos::AtMostOnce
    }

    /// Its properties with what is left of its expiry, where it had to wait [MQTT-3.3.2-6].
    fn aged_properties(&self, now: Time) -> Option<PropertiesBuf> {
        if now == self.came {
            return None;
        }
        let left_s = seconds_left(self.publish.properties.message_expiry()?, self.came, now);
        let mut aged = PropertiesBuf::new();
        for property in self.publish.properties {
            let property = match property {
                Property::MessageExpiryInterval(_) => Property::MessageExpiryInterval(left_s),
                other => other,
            };
            // They were valid as they came.
            aged.push(property).ok()?;
        }
        Some(aged)
    }
}

impl Worker {
    pub(super) fn on_publish(
        &mut self,
        slot: u32,
        session_slot: u32,
        publish: &Publish<'_>,
        came: Time,
    ) -> Step {
        if !publish.properties.is_empty()
            && publish
                .properties
                .subscription_identifiers()
                .next()
                .is_some()
        {
            // [MQTT-3.3.4-6]
            return self.protocol_error(slot, "a subscription identifier in a client's PUBLISH");
        }
        match self.topic_of(slot, publish) {
            Ok(TopicOf::Said) => {
                self.publish_from(slot, session_slot, publish.topic, publish, came)
            }
            Ok(TopicOf::Alias(topic)) => {
                self.publish_from(slot, session_slot, &topic, publish, came)
            }
            Err(step) => step,
        }
    }

    /// The topic that a publish is about, by its alias where it has no other name; sets the alias where it has both.
    fn topic_of(&mut self, slot: u32, publish: &Publish<'_>) -> Result<TopicOf, Step> {
        let Some(alias) = publish.properties.topic_alias() else {
            return Ok(TopicOf::Said);
        };
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return Err(Step::Closed);
        };
        // Aliases above what CONNACK allowed are a protocol error [MQTT-3.3.2-9].
        if alias > self.settings.limits.topic_alias_maximum || alias == 0 {
            return Err(self.close_step(
                slot,
                Close::Protocol(
                    ReasonCode::TOPIC_ALIAS_INVALID,
                    "a topic alias out of range",
                ),
            ));
        }
        let aliases = connection.aliases.get_or_insert_default();
        let at = usize::from(alias) - 1;
        if aliases.len() <= at {
            aliases.resize(at + 1, None);
        }
        if publish.topic.is_empty() {
            return match aliases[at].clone() {
                Some(known) => Ok(TopicOf::Alias(known)),
                None => Err(self.protocol_error(slot, "a topic alias that was not set")),
            };
        }
        if aliases[at].as_deref() != Some(publish.topic) {
            aliases[at] = Some(publish.topic.into());
        }
        Ok(TopicOf::Said)
    }

    /// A publish whose topic is known: checked, offered to the sink, routed, and answered when that is due.
    fn publish_from(
        &mut self,
        slot: u32,
        session_slot: u32,
        topic: &str,
        publish: &Publish<'_>,
        came: Time,
    ) -> Step {
        if self.watch.is_some() {
            self.saw_publish(session_slot, topic, publish);
        }
        let arrived = match self.arrive(slot, session_slot, topic, publish, came) {
            Ok(arrived) => arrived,
            Err(step) => return step,
        };
        let verdict = match self.offer(&arrived) {
            Ok(verdict) => verdict,
            Err(step) => return step,
        };
        self.count_publish(publish);
        let deferred = self.pass_on(&arrived, &verdict);
        if arrived.is_tracked() {
            let pending = matches!(verdict, Verdict::Pending { .. });
            let settled = (!pending).then_some(ReasonCode::SUCCESS);
            self.owe(&arrived, settled, deferred);
        }
        Step::Done
    }

    /// Whether a publish may be, and has not been before: noted as under way where it will be answered.
    fn arrive<'a>(
        &mut self,
        slot: u32,
        session_slot: u32,
        topic: &'a str,
        publish: &'a Publish<'a>,
        came: Time,
    ) -> Result<Arrived<'a>, Step> {
        let limits = &self.settings.limits;
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return Err(Step::Closed);
        };
        let version = session.version;
        let levels_max = limits.topic_levels_max as usize;
        // A topic has no more levels than bytes and one: most need no counting.
        if topic.len() >= levels_max
            && topic.bytes().filter(|byte| *byte == b'/').count() >= levels_max
        {
            return Err(self.close_step(
                slot,
                Close::Protocol(ReasonCode::TOPIC_NAME_INVALID, "a topic of too many levels"),
            ));
        }
        let receive_maximum = limits.receive_maximum;
        let tracked = publish.qos != Qos::AtMostOnce;
        if tracked && let Some(flow) = &session.flow {
            // A 5.0 client never gets here before its receive maximum stops it, but for what it left unanswered on
            // earlier connections.
            let full = receive_maximum.saturating_mul(if version == Version::V5 { 4 } else { 1 });
            if flow.incoming.is_full(full) {
                return Err(self.hold(slot));
            }
        }
        let how = How {
            qos: publish.qos,
            retain: publish.retain,
        };
        let allowed = self.settings.access.may_publish(session.who(), topic, how);
        let quick = publish.qos == Qos::AtLeastOnce && session.flow.is_none();
        if let (true, false, Some(packet_id)) = (tracked, quick, publish.packet_id) {
            let Some(outbox) = self.connections.outbox(slot) else {
                return Err(Step::Closed);
            };
            let incoming = &mut session.flow().incoming;
            match incoming.begin(packet_id, publish.qos, version, receive_maximum, outbox) {
                Begin::New => {}
                Begin::Duplicate => {
                    self.counts.publishes_duplicate += 1;
                    return Err(Step::Done);
                }
                Begin::OverReceiveMaximum => {
                    return Err(self.close_step(slot, Close::ReceiveMaximum));
                }
            }
        }
        if let Err(by) = allowed {
            let denials = &self.settings.denials;
            denials.note(by, session.client_id(), topic, self.now);
        }
        let arrived = Arrived {
            slot,
            session_slot,
            generation: self.sessions.generation(session_slot),
            topic,
            publish,
            quick,
            came,
        };
        if let Err(by) = allowed {
            return Err(self.deny_publish(&arrived, by));
        }
        // Told before it is stored or delivered, or not at all: 3.x has no word for it, QoS 0 no answer.
        if publish.retain
            && tracked
            && version == Version::V5
            && let Err(why) = self.could_retain(session_slot, topic, publish)
        {
            self.count_publish(publish);
            self.count_not_retained(why, session_slot, topic);
            let reason = ReasonCode::QUOTA_EXCEEDED;
            return Err(self.refuse_publish(&arrived, reason));
        }
        Ok(arrived)
    }

    /// Offers a publish to the sink. `Err` when that ends its way, for now (no room) or for good (refused).
    fn offer(&mut self, arrived: &Arrived<'_>) -> Result<Verdict, Step> {
        let Arrived {
            slot,
            session_slot,
            publish,
            quick,
            ..
        } = *arrived;
        let tracked = arrived.is_tracked();
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return Err(Step::Closed);
        };
        let token = if tracked {
            let sequence = session
                .flow
                .as_ref()
                .map_or(0, |flow| flow.incoming.next_sequence());
            let id = SessionId::new(self.index, session_slot);
            Token::new(id, arrived.generation, sequence)
        } else {
            Token::NONE
        };
        let aged = arrived.aged_properties(self.now);
        let incoming = Incoming {
            topic: arrived.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: aged
                .as_ref()
                .map_or(publish.properties, PropertiesBuf::as_properties),
            client_id: session.client_id(),
            principal: session.who().principal,
            version: session.version,
        };
        let verdict = self.sink.accept(&incoming, token);
        match &verdict {
            Verdict::NotStored => self.counts.sink_not_stored += 1,
            Verdict::Accepted => self.counts.sink_accepted += 1,
            Verdict::Pending { .. } if !tracked => self.counts.sink_accepted += 1,
            Verdict::Pending { .. } => {
                self.counts.sink_taken += 1;
                self.counts.sink_pending += 1;
            }
            Verdict::Busy if tracked => {
                self.counts.sink_busy += 1;
                if let (false, Some(packet_id)) = (quick, publish.packet_id) {
                    session.flow().incoming.abandon(packet_id, publish.qos);
                    session.tidy();
                }
                return Err(self.hold_for_sink(slot));
            }
            Verdict::Busy => {
                let client = session.owner.client_id();
                self.counts
                    .lose(Loss::SinkDroppedQos0, client, arrived.topic);
            }
            Verdict::Refused(refusal) => {
                let reason = refusal.reason();
                let client = session.owner.client_id();
                self.counts.lose(Loss::SinkRefused, client, arrived.topic);
                self.count_publish(publish);
                return Err(self.refuse_publish(arrived, reason));
            }
        }
        Ok(verdict)
    }

    /// Routes a publish; gives it back as a message where its delivery waits until it is stored.
    fn pass_on(&mut self, arrived: &Arrived<'_>, verdict: &Verdict) -> Option<Message> {
        let publish = arrived.publish;
        let mut forwardable = std::mem::take(&mut self.forwardable);
        forwardable.clear();
        let mut expires_at = None;
        if !publish.properties.is_empty() {
            codec::publish_forwardable(publish.properties, &mut forwardable);
            expires_at = publish
                .properties
                .message_expiry()
                .map(|s| arrived.came.plus_s(s.into()));
        }
        let parts = MessageParts {
            topic: arrived.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: &forwardable,
            expires_at,
            arrived_at: arrived.came,
        };
        let waits = matches!(
            verdict,
            Verdict::Pending {
                deliver: Deliver::AfterStored,
            }
        );
        let deferred = if waits && arrived.is_tracked() {
            Some(Message::new(&parts))
        } else {
            let mut routed = Routed {
                parts,
                shared: None,
            };
            let id = SessionId::new(self.index, arrived.session_slot);
            self.route(&mut routed, Origin::Client(id, arrived.generation), None);
            None
        };
        self.forwardable = forwardable;
        deferred
    }

    /// Whether there is room to retain a message. Its properties count here as they came: a few of them are not kept.
    fn could_retain(
        &self,
        session: u32,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Result<(), NotKept> {
        if publish.payload.is_empty() {
            return Ok(());
        }
        let content = topic.len() + publish.properties.as_bytes().len() + publish.payload.len();
        let bytes = Message::bytes_of(content);
        let retained = &self.shared.router.retained;
        let may_grow = self.relief.pressure() < Pressure::Queues;
        let client = |session: &Session| self.client_hash(session.owner.client_id()) as u32;
        let client = self.sessions.get(session).map(client);
        retained.has_room(topic, bytes, client, self.now, may_grow)
    }

    fn count_publish(&mut self, publish: &Publish<'_>) {
        self.counts.payload_bytes_received += publish.payload.len() as u64;
        *match publish.qos {
            Qos::AtMostOnce => &mut self.counts.publishes_received_qos0,
            Qos::AtLeastOnce => &mut self.counts.publishes_received_qos1,
            Qos::ExactlyOnce => &mut self.counts.publishes_received_qos2,
        } += 1;
    }

    /// Answers a publish that may not be. Told nothing but the end of its connection, a 3.x client would come back and send it
    /// again for ever, so it has its acknowledgement, unless the operator prefers otherwise.
    fn deny_publish(&mut self, arrived: &Arrived<'_>, by: By) -> Step {
        self.count_publish(arrived.publish);
        let lost = match by {
            By::Reserved => Loss::DeniedReservedTopic,
            By::Rule(_) | By::Default(_) => Loss::DeniedAccess,
        };
        let session = self.sessions.get(arrived.session_slot);
        let client = session.map_or("", |session| session.owner.client_id());
        self.counts.lose(lost, client, arrived.topic);
        let version = session.map(|session| session.version);
        let is_told = version == Some(Version::V5);
        let reason = match self.settings.access.refused_publish_3x {
            RefusedPublish::Drop if !is_told => ReasonCode::SUCCESS,
            _ => ReasonCode::NOT_AUTHORIZED,
        };
        self.refuse_publish(arrived, reason)
    }

    fn refuse_publish(&mut self, arrived: &Arrived<'_>, reason: ReasonCode) -> Step {
        if !arrived.is_tracked() {
            return Step::Done; // there is no answer to QoS 0
        }
        self.owe(arrived, Some(reason), None);
        match self.connections.slab.get(arrived.slot) {
            Some(connection) if !connection.is_closing() => Step::Done,
            _ => Step::Closed,
        }
    }

    /// Notes what a publisher is owed, and answers if it can be.
    fn owe(
        &mut self,
        arrived: &Arrived<'_>,
        settled: Option<ReasonCode>,
        deferred: Option<Message>,
    ) {
        let &Arrived {
            slot,
            session_slot,
            publish,
            quick,
            came,
            ..
        } = arrived;
        // Routing may have changed this session (it may subscribe to its own topic), so nothing is assumed.
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let nothing_owed = session
            .flow
            .as_ref()
            .is_none_or(|flow| flow.incoming.waiting() == 0);
        if quick && nothing_owed && settled == Some(ReasonCode::SUCCESS) {
            if let Some(outbox) = self.connections.outbox(slot) {
                outbox.push(&puback(packet_id));
                let waited_ms = self.now.since_ms(came);
                self.counts.acknowledgement_times.add(waited_ms);
            }
            return;
        }
        let incoming = &mut session.flow().incoming;
        if quick {
            incoming.record();
        }
        incoming.owe(packet_id, publish.qos, settled, came, deferred);
        if settled.is_some() {
            self.answer(session_slot);
        }
    }

    /// Answers a session's publishes as far as they are settled in order.
    fn answer(&mut self, session_slot: u32) {
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        let (connection, version) = (session.connection, session.version);
        let Some(flow) = &mut session.flow else {
            return;
        };
        let outbox = if connection == OFFLINE {
            None
        } else {
            self.connections.outbox(connection)
        };
        let Released { messages, close } = flow.incoming.answer_settled(
            outbox,
            version,
            self.now,
            &mut self.counts.acknowledgement_times,
        );
        session.tidy();
        let id = SessionId::new(self.index, session_slot);
        let generation = self.sessions.generation(session_slot);
        self.release(messages, Origin::Client(id, generation));
        if close {
            self.close(connection, Close::PublishRefused);
        }
    }

    /// The sink refused a publish that it had taken. Its topic is not kept until then.
    fn lose_settled(&mut self, token: Token) {
        let slot = token.session().slot();
        let is_it = self.sessions.generation(slot) == token.generation();
        let session = self.sessions.get(slot).filter(|_| is_it);
        let client = session.map_or("", |session| session.owner.client_id());
        self.counts.lose(Loss::SinkRefused, client, "");
    }

    /// The sink settled a publish.
    pub(super) fn settled(&mut self, token: Token, settlement: Settlement) {
        self.counts.sink_pending -= 1;
        let reason = match settlement {
            Settlement::Stored => {
                self.counts.sink_stored += 1;
                ReasonCode::SUCCESS
            }
            Settlement::SetAside => {
                self.lose_settled(token);
                ReasonCode::SUCCESS
            }
            Settlement::Refused(refusal) => {
                self.lose_settled(token);
                refusal.reason()
            }
        };
        let set_aside = settlement == Settlement::SetAside;
        let slot = token.session().slot();
        let Some(session) = self.sessions.get_mut_if(slot, token.generation()) else {
            return self.settled_departed(token, reason, set_aside);
        };
        let connection = session.connection;
        let Some(flow) = &mut session.flow else {
            return;
        };
        if set_aside {
            flow.incoming.withhold(token.sequence());
        }
        if flow.incoming.settle(token.sequence(), reason) {
            self.answer(slot);
            self.unhold_if_full(connection);
        }
    }

    /// A publish of a session that has ended is settled. It is delivered if that had to wait until it was stored. After the
    /// last one the session's slot may be used again.
    fn settled_departed(&mut self, token: Token, reason: ReasonCode, set_aside: bool) {
        let key = (token.session().slot(), token.generation());
        let Entry::Occupied(mut departed) = self.departed.entry(key) else {
            return;
        };
        let (incoming, client) = departed.get_mut();
        let client = *client;
        if set_aside {
            incoming.withhold(token.sequence());
        }
        if !incoming.settle(token.sequence(), reason) {
            return;
        }
        let Released { messages, .. } = incoming.answer_settled(
            None,
            Version::V5,
            self.now,
            &mut self.counts.acknowledgement_times,
        );
        if incoming.waiting() == 0 {
            departed.remove();
            self.sessions.give_back(token.session().slot());
            if self.departed.is_empty() {
                self.departed = HashMap::new(); // an outage may have made it large
            }
        }
        self.release(messages, Origin::Departed(client));
    }

    /// Delivers what was stored first.
    fn release(&mut self, messages: Vec<Message>, origin: Origin) {
        for message in messages {
            let mut routed = Routed {
                parts: message.parts(),
                shared: Some(message.clone()),
            };
            self.route(&mut routed, origin, None);
        }
    }
}

/// What is left now of an expiry that counts from `since`. As it is told to subscribers: a second that has begun counts, so
/// that only what has expired has none.
pub(super) fn seconds_left(expiry_s: u32, since: Time, now: Time) -> u32 {
    let left_ms = since.plus_s(expiry_s.into()).since_ms(now);
    u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(expiry_s)
}

fn puback(packet_id: NonZeroU16) -> [u8; 4] {
    let [high, low] = packet_id.get().to_be_bytes();
    [0x40, 2, high, low]
}
