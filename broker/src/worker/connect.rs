//! CONNECT: who may, which session it is, and what both sides agree on.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;

use codec::{ConnAck, Connect, Packet, Properties, PropertiesBuf, Property, ReasonCode, Version};

use super::{Close, Step, Worker};
use crate::access::{How, Who};
use crate::budget::Pressure;
use crate::limits::TIMER_LOOK_MS;
use crate::losses::Loss;
use crate::session::{OFFLINE, Session, Will};
use crate::timers::Timer;

/// What an assigned client identifier begins with; 128 random bits follow.
const ASSIGNED_PREFIX: &str = "auto-";

/// A CONNACK of 5.0 without properties. No acknowledgement of ours is longer, nor is DISCONNECT.
const CONNACK_BYTES_MIN: u32 = 5;

impl Worker {
    pub(super) fn client_hash(&self, client_id: &str) -> u64 {
        self.shared.hasher.hash_one(client_id)
    }

    pub(super) fn on_connect(&mut self, slot: u32, connect: &Connect<'_>) -> Step {
        let version = connect.version;
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.version = version;
        }
        // A client that does not even take a refusal is told nothing [MQTT-3.1.2-24].
        let packet_bytes_max = connect.properties.maximum_packet_size();
        if packet_bytes_max.is_some_and(|max| max < CONNACK_BYTES_MIN) {
            return self.close_step(slot, Close::ConnectRefused);
        }
        if self.is_leaving {
            return self.refuse_leaving(slot, version);
        }
        let limits = &self.settings.limits;
        let assigned;
        let client_id = if connect.client_id.is_empty() {
            // An identifier of 3.1 has 1 to 23 characters.
            if version == Version::V31
                || !self.settings.assign_client_ids
                || (version != Version::V5 && !connect.clean_start)
            {
                // [MQTT-3.1.3-8] of 3.1.1: without an identifier there is no session to come back to.
                return self.refuse(slot, version, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
            }
            assigned = self.assign_client_id();
            assigned.as_str()
        } else {
            connect.client_id
        };
        if client_id.len() > limits.client_id_bytes_max as usize {
            return self.refuse(slot, version, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        }
        if connect.properties.auth_method().is_some() {
            return self.refuse(slot, version, ReasonCode::BAD_AUTHENTICATION_METHOD);
        }
        let home = self.shared.home(client_id);
        if home != self.index {
            return Step::Move(home);
        }
        let connection = self.connections.slab.get(slot);
        let address = || connection?.transport.peer_address().map(|from| from.ip());
        if self.shared.bans.refuses(client_id, address, self.now) {
            self.counts.lose(Loss::ClientRefusedBanned, client_id, "");
            return self.refuse(slot, version, ReasonCode::BANNED);
        }
        let identified = match self.identify(slot, connect) {
            Ok(identified) => identified,
            Err(step) => return step,
        };
        let who = Who {
            client_id,
            principal: identified.accepted.principal.as_deref(),
        };
        if let Err(by) = self.settings.access.may_connect(who) {
            self.settings.denials.note(by, client_id, "", self.now);
            return self.refuse(slot, version, ReasonCode::NOT_AUTHORIZED);
        }
        if let Some(will) = &connect.will {
            if topic::validate_name(will.topic).is_err() {
                return self.refuse(slot, version, ReasonCode::NOT_AUTHORIZED);
            }
            let how = How {
                qos: will.qos,
                retain: will.retain,
            };
            let access = &self.settings.access;
            if let Err(by) = access.may_publish(who, will.topic, how) {
                let denials = &self.settings.denials;
                denials.note(by, client_id, will.topic, self.now);
                return self.refuse(slot, version, ReasonCode::NOT_AUTHORIZED);
            }
        }
        if connect.password.is_some() && !identified.is_checked {
            self.counts.passwords_unchecked += 1;
            if !self.shared.password_was_said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    client = client_id,
                    "a client sent a password, and nobody checks it: this listener knows no users (broker.authentication); \
                     access rules go by the client identifier, which each client chooses itself (said once)"
                );
            }
        }
        let hash = self.client_hash(client_id);
        let sessions = &self.sessions;
        let existing = self
            .clients
            .find(hash, |at| {
                sessions
                    .get(*at)
                    .is_some_and(|session| session.client_id() == client_id)
            })
            .copied();
        let accepted = &identified.accepted;
        if let Some(session) = existing.and_then(|at| self.sessions.get(at))
            && !session.owner.admits(accepted)
        {
            self.counts.clients_refused_identity += 1;
            tracing::debug!(client = client_id, "its session is another user's");
            return self.refuse(slot, version, ReasonCode::NOT_AUTHORIZED);
        }
        if existing.is_none() && self.relief.pressure() >= Pressure::NewClients {
            self.counts.lose(Loss::ClientRefusedMemory, client_id, "");
            return self.refuse(slot, version, ReasonCode::QUOTA_EXCEEDED);
        }
        self.overtake(hash, &identified);
        let resumed = existing.and_then(|at| self.take_over(at, connect.clean_start));
        self.forgo_will(client_id);
        let (session_slot, session_present) = match resumed {
            Some(at) => (at, true),
            None => {
                let (at, _) = self.sessions.insert(Session::new(client_id, version));
                let (sessions, hasher) = (&self.sessions, &self.shared.hasher);
                self.clients.insert_unique(hash, at, |at| {
                    sessions
                        .get(*at)
                        .map_or(0, |session| hasher.hash_one(session.client_id()))
                });
                self.counts.sessions += 1;
                (at, false)
            }
        };
        if let Some(session) = self.sessions.get_mut(session_slot) {
            session.owner.identify(identified.accepted, self.now);
        }
        self.attach(slot, session_slot, connect, session_present);
        Step::Done
    }

    /// An identifier that nobody else has, and whose home is here.
    fn assign_client_id(&self) -> String {
        loop {
            let random = std::collections::hash_map::RandomState::new();
            let bits = u128::from(random.hash_one(0_u8)) << 64 | u128::from(random.hash_one(1_u8));
            let client_id = format!("{ASSIGNED_PREFIX}{bits:032x}");
            if self.shared.home(&client_id) == self.index {
                return client_id;
            }
        }
    }

    /// Ends the connection that a session has, if any [MQTT-3.1.4-3], and the session too where a clean start wants
    /// it [MQTT-3.1.2-4]: the session that is left.
    fn take_over(&mut self, at: u32, clean_start: bool) -> Option<u32> {
        if clean_start && let Some(session) = self.sessions.get_mut(at) {
            // The session ends with this connection, so its will is not delayed.
            session.expiry_s = 0;
        }
        let connection = self
            .sessions
            .get(at)
            .map_or(OFFLINE, |session| session.connection);
        if connection == OFFLINE {
            self.shared.end_offline();
        } else {
            self.close(connection, Close::TakenOver);
            self.sessions
                .get(at)
                .filter(|session| !session.is_online() && session.expiry_s > 0)?;
        }
        if clean_start {
            self.end_session(at);
            return None;
        }
        // The client is back before its will's delay was over [MQTT-3.1.3-9], unless it only waited for the sink.
        let will = self
            .sessions
            .get_mut(at)
            .and_then(|session| session.will.take());
        if let Some(will) = will.filter(|will| will.delay_s == 0) {
            self.publish_will(at, *will, true);
        }
        Some(at)
    }

    fn attach(
        &mut self,
        slot: u32,
        session_slot: u32,
        connect: &Connect<'_>,
        session_present: bool,
    ) {
        let now = self.now;
        let limits = &self.settings.limits;
        let properties = connect.properties;
        let version = connect.version;
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return;
        };
        let asked_expiry_s = match (version, connect.clean_start) {
            (Version::V5, _) => properties.session_expiry().unwrap_or(0),
            (_, true) => 0,
            (_, false) => u32::MAX,
        };
        session.version = version;
        session.clean_start = connect.clean_start;
        session.turns_at = now;
        session.connection = slot;
        session.expiry_s = asked_expiry_s.min(limits.session_expiry_max_s);
        session.packet_bytes_max = properties.maximum_packet_size().unwrap_or(u32::MAX);
        session.alias_maximum = properties.topic_alias_maximum().unwrap_or(0);
        session.window = properties
            .receive_maximum()
            .unwrap_or(u16::MAX)
            .min(limits.inflight_messages_max);
        session.will = connect.will.as_ref().map(|will| {
            let mut forwardable = Vec::new();
            codec::publish_forwardable(will.properties, &mut forwardable);
            Box::new(Will {
                topic: will.topic.into(),
                payload: will.payload.into(),
                properties: forwardable.into(),
                message_expiry_s: will.properties.message_expiry(),
                delay_s: will.properties.will_delay().unwrap_or(0),
                qos: will.qos,
                retain: will.retain,
                due: None,
                offered: None,
            })
        });
        let over = limits.keep_alive_max_s > 0
            && (connect.keep_alive == 0 || connect.keep_alive > limits.keep_alive_max_s);
        let server_keep_alive = (over && version == Version::V5).then_some(limits.keep_alive_max_s);
        let keep_alive_s = server_keep_alive.unwrap_or(connect.keep_alive);
        let mut answer = PropertiesBuf::new();
        if version == Version::V5 {
            let expiry = (session.expiry_s != asked_expiry_s).then_some(session.expiry_s);
            let assigned = connect.client_id.is_empty().then_some(session.client_id());
            let all = [
                expiry.map(Property::SessionExpiryInterval),
                (limits.receive_maximum < u16::MAX)
                    .then_some(Property::ReceiveMaximum(limits.receive_maximum)),
                Some(Property::MaximumPacketSize(limits.packet_bytes_max)),
                assigned.map(Property::AssignedClientIdentifier),
                (limits.topic_alias_maximum > 0)
                    .then_some(Property::TopicAliasMaximum(limits.topic_alias_maximum)),
                server_keep_alive.map(Property::ServerKeepAlive),
            ];
            for property in all.into_iter().flatten() {
                if let Err(error) = answer.push(property) {
                    tracing::error!(%error, "a CONNACK property could not be encoded");
                }
            }
        }
        let packet_bytes_max = session.packet_bytes_max;
        let generation = self.connections.slab.generation(slot);
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.session = session_slot;
            connection.transport.settle();
            connection.keep_alive_s = keep_alive_s;
            connection.has_heard(now);
            if keep_alive_s > 0 && !self.settings.connect_timer_goes_on(keep_alive_s) {
                self.timers.at(
                    connection.keep_alive_ends().min(now.plus_ms(TIMER_LOOK_MS)),
                    Timer::KeepAlive {
                        connection: slot,
                        generation,
                    },
                );
            }
        }
        let session = self.sessions.get(session_slot);
        if let Some(ends_at) = session.and_then(|session| session.owner.ends_at()) {
            self.arm_expiry(slot, ends_at);
        }
        self.counts.clients += 1;
        self.counts.clients_connected += 1;
        if let Some(outbox) = self.connections.outbox(slot) {
            let packet = Packet::ConnAck(ConnAck {
                session_present,
                reason: ReasonCode::SUCCESS,
                properties: answer.as_properties(),
            });
            if !crate::session::encode_within(outbox, version, &packet, packet_bytes_max) {
                if let Some(session) = self.sessions.get_mut(session_slot) {
                    session.will = None; // it was never accepted
                }
                return self.close(slot, Close::ConnectRefused);
            }
        }
        if version != Version::V5 && !self.refused.is_empty() {
            let client_id = self
                .sessions
                .get(session_slot)
                .map_or("", |session| session.owner.client_id());
            let client = self.client_hash(client_id);
            self.pause_refused(slot, client);
        }
        if session_present {
            self.tell_shares(session_slot);
            self.resume(slot, session_slot);
        }
    }

    pub(super) fn refuse(&mut self, slot: u32, version: Version, reason: ReasonCode) -> Step {
        if let Some(outbox) = self.connections.outbox(slot) {
            let answer = ConnAck {
                session_present: false,
                reason,
                properties: Properties::EMPTY,
            };
            crate::session::encode(outbox, version, &Packet::ConnAck(answer));
        }
        if self.watch.is_some() {
            self.saw_refusal(slot, reason);
        }
        tracing::debug!(%reason, "CONNECT refused");
        self.close_step(slot, Close::ConnectRefused)
    }

    /// Answers a protocol version that we do not speak, in words of the nearest one that we do [MQTT-3.1.2-2].
    pub(super) fn refuse_version(&mut self, slot: u32, version: u8) {
        let nearest = if version > Version::V5 as u8 {
            Version::V5
        } else {
            Version::V311
        };
        self.refuse(slot, nearest, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    }
}
