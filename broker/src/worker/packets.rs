//! The packets of a connected client, but for PUBLISH and SUBSCRIBE: acknowledgements, pings, DISCONNECT.

use codec::{Disconnect, Packet, ReasonCode, Version};

use super::{Close, Step, Worker};

/// PINGRESP is always these two bytes.
const PINGRESP: [u8; 2] = [0xd0, 0];

const WRONG_ANSWER: &str =
    "an acknowledgement of another QoS than the message's, or one before its turn";

impl Worker {
    pub(super) fn on_packet(&mut self, slot: u32, session_slot: u32, packet: &Packet<'_>) -> Step {
        match packet {
            Packet::Publish(publish) => {
                return self.on_publish(slot, session_slot, publish, self.now);
            }
            Packet::PubAck(ack) => {
                if let Some(session) = self.sessions.get_mut(session_slot)
                    && !session.on_puback(*ack, &mut self.counts)
                {
                    return self.protocol_error(slot, WRONG_ANSWER);
                }
                self.pump(slot, session_slot);
            }
            Packet::PubRec(ack) => {
                if let (Some(session), Some(outbox)) = (
                    self.sessions.get_mut(session_slot),
                    self.connections.outbox(slot),
                ) && !session.on_pubrec(*ack, outbox, &mut self.counts)
                {
                    return self.protocol_error(slot, WRONG_ANSWER);
                }
                if ack.reason.is_failure() {
                    self.pump(slot, session_slot);
                }
            }
            Packet::PubRel(ack) => {
                if let (Some(session), Some(outbox)) = (
                    self.sessions.get_mut(session_slot),
                    self.connections.outbox(slot),
                ) {
                    let version = session.version;
                    session
                        .flow()
                        .incoming
                        .release(ack.packet_id, version, outbox);
                    session.tidy();
                }
            }
            Packet::PubComp(ack) => {
                if let Some(session) = self.sessions.get_mut(session_slot)
                    && !session.on_pubcomp(*ack, &mut self.counts)
                {
                    return self.protocol_error(slot, WRONG_ANSWER);
                }
                self.pump(slot, session_slot);
            }
            Packet::Subscribe(subscribe) => {
                return self.on_subscribe(slot, session_slot, subscribe);
            }
            Packet::Unsubscribe(unsubscribe) => {
                return self.on_unsubscribe(slot, session_slot, unsubscribe);
            }
            Packet::PingReq => {
                if let Some(outbox) = self.connections.outbox(slot) {
                    outbox.push(&PINGRESP);
                }
            }
            Packet::Disconnect(disconnect) => {
                return self.on_disconnect(slot, session_slot, disconnect);
            }
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => return self.protocol_error(slot, "a second CONNECT"),
            // No extended authentication was begun [MQTT-4.12.0-1].
            Packet::Auth(_) => {
                return self.protocol_error(slot, "AUTH without an authentication method");
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return self.protocol_error(slot, "a packet that only servers send");
            }
        }
        Step::Done
    }

    pub(super) fn protocol_error(&mut self, slot: u32, what: &'static str) -> Step {
        self.close_step(slot, Close::Protocol(ReasonCode::PROTOCOL_ERROR, what))
    }

    fn on_disconnect(&mut self, slot: u32, session_slot: u32, disconnect: &Disconnect<'_>) -> Step {
        if let Some(session) = self.sessions.get_mut(session_slot)
            && session.version == Version::V5
            && let Some(expiry_s) = disconnect.properties.session_expiry()
        {
            if session.expiry_s == 0 && expiry_s != 0 {
                // A session that was to end with its connection cannot be made to last [MQTT-3.14.2-2].
                return self
                    .protocol_error(slot, "a session expiry in DISCONNECT after none in CONNECT");
            }
            session.expiry_s = expiry_s;
        }
        let with_will = disconnect.reason != ReasonCode::NORMAL_DISCONNECTION;
        self.close_step(slot, Close::ByClient { with_will })
    }
}
