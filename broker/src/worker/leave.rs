//! A node that is about to end sends its clients elsewhere, some at a time, so that they do not come to other nodes all at
//! once; who connects meanwhile is told the same. What is left then, clients that wait for an answer above all, is drained.

use codec::{ConnAck, Disconnect, Packet, PropertiesBuf, Property, ReasonCode, Version};

use super::{Close, Step, Worker};
use crate::admin::Part;
use crate::session::Session;

impl Worker {
    /// From now on takes no new clients, and sends up to `max` away, of those from `slot` on that have nothing under way:
    /// of a bounded number that is looked at.
    pub(crate) fn leave_some(&mut self, slot: u32, max: usize) -> Part<()> {
        self.is_leaving = true;
        let mut part = Part::default();
        let mut at = slot;
        while at < self.sessions.slots() && part.has_room(max) {
            part.looked_at += 1;
            let is_answered = |session: &&Session| {
                let flow = session.flow.as_ref();
                flow.is_none_or(|flow| flow.incoming.waiting() == 0)
            };
            let session = self.sessions.get(at).filter(is_answered);
            let connection = session.map(|session| session.connection);
            let waits = |slot: &u32| {
                let connection = self.connections.slab.get(*slot);
                connection.is_some_and(|connection| connection.outbox_bytes() == 0)
            };
            if let Some(connection) = connection.filter(waits) {
                self.close(connection, Close::Shutdown);
                part.found.push(());
            }
            at += 1;
        }
        part.next = self.next(at, 0);
        part
    }

    /// What a 5.0 client is told when the node ends: to go elsewhere, where somebody said so.
    fn leaving_reason(&self) -> Option<ReasonCode> {
        let drain = &self.settings.drain;
        let elsewhere = match drain.moved {
            true => ReasonCode::SERVER_MOVED,
            false => ReasonCode::USE_ANOTHER_SERVER,
        };
        (!drain.server_reference.is_empty()).then_some(elsewhere)
    }

    fn reference(&self) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        let reference = Property::ServerReference(&self.settings.drain.server_reference);
        if let Err(error) = properties.push(reference) {
            tracing::error!(%error, "the server reference could not be encoded");
        }
        properties
    }

    /// Tells a 5.0 client why its connection ends.
    pub(super) fn tell_end(&mut self, slot: u32, session: u32, close: &Close) -> bool {
        let Some(mut reason) = close.reason() else {
            return false;
        };
        let mut properties = PropertiesBuf::new();
        if matches!(close, Close::Shutdown)
            && let Some(elsewhere) = self.leaving_reason()
        {
            reason = elsewhere;
            properties = self.reference();
        }
        let session = self.sessions.get(session);
        let packet_bytes_max = session.map_or(u32::MAX, |session| session.packet_bytes_max);
        let Some(outbox) = self.connections.outbox(slot) else {
            return false;
        };
        let packet = |properties| Packet::Disconnect(Disconnect { reason, properties });
        let whole = packet(properties.as_properties());
        // A property that makes it too large for the client is left out [MQTT-3.14.2-4].
        if !crate::session::encode_within(outbox, Version::V5, &whole, packet_bytes_max) {
            crate::session::encode(outbox, Version::V5, &packet(codec::Properties::EMPTY));
        }
        true
    }

    /// Refuses a client that connects while the node leaves.
    pub(super) fn refuse_leaving(&mut self, slot: u32, version: Version) -> Step {
        let elsewhere = self.leaving_reason().filter(|_| version == Version::V5);
        let Some(reason) = elsewhere else {
            return self.refuse(slot, version, ReasonCode::SERVER_UNAVAILABLE);
        };
        let properties = self.reference();
        if let Some(outbox) = self.connections.outbox(slot) {
            let answer = ConnAck {
                session_present: false,
                reason,
                properties: properties.as_properties(),
            };
            crate::session::encode(outbox, version, &Packet::ConnAck(answer));
        }
        tracing::debug!(%reason, "CONNECT refused");
        self.close_step(slot, Close::ConnectRefused)
    }
}
