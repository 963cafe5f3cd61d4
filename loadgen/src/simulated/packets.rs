//! What the broker sends to clients: taken apart, answered, and told.

use std::collections::HashMap;
use std::num::NonZeroU16;

use codec::{Ack, ConnAck, Packet, Publish, Qos, ReasonCode, SubAck, Version};

use super::flight::Due;
use super::state::{Stage, State};
use super::swarm::SimulatedSwarm;
use crate::payload::Body;
use crate::stamp::Stamp;
use crate::swarm::{Client, Notice};

/// The largest packet that a client takes: all that the protocol can express.
const PACKET_BYTES_MAX: u32 = codec::PACKET_BYTES_MAX;

/// What a 5.0 broker allows in flight unless its CONNACK says otherwise (3.2.2.3.3), and a 3.x broker always.
const RECEIVE_MAXIMUM_DEFAULT: u16 = u16::MAX;

/// How much each client may have in flight. Brokers allow all clients the same, mostly.
#[derive(Debug, Default)]
pub(super) struct ReceiveMaximums {
    usual: Option<u16>,
    others: HashMap<u32, u16, ahash::RandomState>,
}

impl ReceiveMaximums {
    pub(super) fn of(&self, client: u32, version: Version) -> u16 {
        if version != Version::V5 {
            return RECEIVE_MAXIMUM_DEFAULT;
        }
        let usual = self.usual.unwrap_or(RECEIVE_MAXIMUM_DEFAULT);
        if self.others.is_empty() {
            return usual;
        }
        self.others.get(&client).copied().unwrap_or(usual)
    }

    fn set(&mut self, client: u32, maximum: u16) {
        if *self.usual.get_or_insert(maximum) != maximum {
            self.others.insert(client, maximum);
        } else if !self.others.is_empty() {
            self.others.remove(&client);
        }
    }
}

/// The four bytes of an acknowledgement with nothing to add.
fn ack(kind: u8, packet_id: NonZeroU16) -> [u8; 4] {
    let [high, low] = packet_id.get().to_be_bytes();
    [kind, 2, high, low]
}

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

impl SimulatedSwarm {
    /// Takes whole packets that the broker wrote to a client.
    pub(super) fn receive(&mut self, client: u32, mut bytes: &[u8], notices: &mut Vec<Notice>) {
        while !bytes.is_empty() {
            let state = self.clients.get(client);
            if state.stage() == Stage::Away {
                return; // it closed because of an earlier packet
            }
            let taken = match codec::split_frame(bytes, PACKET_BYTES_MAX) {
                Ok(Some(frame)) => {
                    bytes = &bytes[frame.len..];
                    codec::decode(state.version(), frame)
                        .map_err(|error| format!("the broker sent what cannot be read: {error}"))
                        .and_then(|packet| self.on_packet(client, state, &packet, notices))
                }
                // The whole outbox is written at once, so no packet comes in parts.
                Ok(None) => Err("the broker sent a part of a packet".to_owned()),
                Err(error) => Err(format!("the broker sent what is no packet: {error}")),
            };
            if let Err(why) = taken {
                self.close(client, why, notices);
                return;
            }
        }
    }

    fn on_packet(
        &mut self,
        number: u32,
        state: State,
        packet: &Packet<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        let client = Client(number);
        if let Packet::ConnAck(connack) = packet {
            return self.on_connack(number, state, connack, notices);
        }
        if !state.is_connected() {
            return Err("the broker sent something before CONNACK".to_owned());
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(number, state, publish, notices),
            Packet::PubAck(ack) => self.on_final(number, ack, Due::PubAck, notices),
            Packet::PubComp(ack) => self.on_final(number, ack, Due::PubComp, notices),
            Packet::PubRec(ack) if ack.reason.is_failure() => {
                self.on_final(number, ack, Due::PubRec, notices);
            }
            Packet::PubRec(ack) => self.on_pubrec(number, state, ack, notices),
            Packet::PubRel(ack) => self.on_pubrel(number, state, ack),
            Packet::SubAck(suback) => self.on_suback(number, suback, notices),
            Packet::PingResp => {
                let mut state = state;
                state.set_pinged(false);
                self.clients.set(number, state);
            }
            // Nobody unsubscribes here.
            Packet::UnsubAck(_) => notices.push(Notice::Unasked { client }),
            Packet::Disconnect(disconnect) => {
                return Err(format!("the broker disconnected: {}", disconnect.reason));
            }
            other => {
                return Err(format!(
                    "the broker sent a {}, which it must not",
                    other.packet_type().name()
                ));
            }
        }
        Ok(())
    }

    fn on_connack(
        &mut self,
        number: u32,
        mut state: State,
        connack: &ConnAck<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        if state.is_connected() {
            return Err("the broker sent a second CONNACK".to_owned());
        }
        let reason = connack.reason;
        if reason != ReasonCode::SUCCESS {
            return Err(format!("the broker refused the connection: {reason}"));
        }
        if state.version() == Version::V5 {
            let maximum = connack.properties.receive_maximum();
            self.receive_maximums
                .set(number, maximum.unwrap_or(RECEIVE_MAXIMUM_DEFAULT));
            if let Some(keep_alive_s) = connack.properties.server_keep_alive() {
                let class = self.class(keep_alive_s);
                state.set_class(class.map_err(|error| error.to_string())?);
            }
        }
        if !connack.session_present && !self.received.is_empty() {
            self.received.remove(&number);
        }
        state.set_stage(Stage::Connected);
        self.clients.set(number, state);
        notices.push(Notice::Connected {
            client: Client(number),
            session_present: connack.session_present,
        });
        Ok(())
    }

    fn on_publish(
        &mut self,
        number: u32,
        state: State,
        publish: &Publish<'_>,
        notices: &mut Vec<Notice>,
    ) {
        let mut is_new = true;
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(id)) => self.feed(number, state, &ack(PUBACK, id)),
            (Qos::ExactlyOnce, Some(id)) => {
                let received = self.received.entry(number).or_default();
                is_new = !received.contains(&id);
                if is_new {
                    received.push(id);
                }
                self.feed(number, state, &ack(PUBREC, id));
            }
            _ => {}
        }
        if is_new {
            let stamp = Stamp::read(publish.payload);
            notices.push(Notice::Delivered {
                client: Client(number),
                qos: publish.qos,
                retained: publish.retain,
                stamp,
                body: Body::of(stamp.as_ref(), publish.payload),
            });
        }
    }

    /// The last answer to a publish.
    fn on_final(&mut self, number: u32, ack: &Ack<'_>, due: Due, notices: &mut Vec<Notice>) {
        let client = Client(number);
        let packet_id = ack.packet_id;
        let notice = if self.flights.answer(number, packet_id, due, None) {
            Notice::Acknowledged {
                client,
                packet_id,
                reason: ack.reason,
            }
        } else {
            Notice::Unasked { client }
        };
        notices.push(notice);
    }

    fn on_pubrec(&mut self, number: u32, state: State, rec: &Ack<'_>, notices: &mut Vec<Notice>) {
        let id = rec.packet_id;
        let due = self
            .flights
            .answer(number, id, Due::PubRec, Some(Due::PubComp));
        if due {
            self.feed(number, state, &ack(PUBREL, id));
        } else {
            let client = Client(number);
            notices.push(Notice::Unasked { client });
        }
    }

    fn on_pubrel(&mut self, number: u32, state: State, rel: &Ack<'_>) {
        // One that is not known was answered on an earlier connection [MQTT-4.3.3-11].
        if let Some(received) = self.received.get_mut(&number) {
            received.retain(|id| *id != rel.packet_id);
            if received.is_empty() {
                self.received.remove(&number);
            }
        }
        self.feed(number, state, &ack(PUBCOMP, rel.packet_id));
    }

    fn on_suback(&mut self, number: u32, suback: &SubAck<'_>, notices: &mut Vec<Notice>) {
        let client = Client(number);
        if !self
            .flights
            .answer(number, suback.packet_id, Due::SubAck, None)
        {
            notices.push(Notice::Unasked { client });
            return;
        }
        let is_refused = |code: &&u8| ReasonCode(**code).is_failure();
        let refused = suback.reasons.iter().filter(is_refused).count();
        notices.push(Notice::Subscribed {
            client,
            granted: (suback.reasons.len() - refused) as u32,
            refused: refused as u32, // a packet holds no more
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker::Config;

    use super::*;
    use crate::simulated::{SimClock, build};
    use crate::swarm::{Hello, Swarm};

    const CLIENT: Client = Client(0);
    const UNASKED: Notice = Notice::Unasked { client: CLIENT };

    /// A client that is connected.
    fn connected() -> SimulatedSwarm {
        let config = Config::default();
        let swarms = build(&config, 1, 1, SimClock::Virtual).unwrap();
        let mut swarm = swarms.into_iter().next().unwrap();
        let hello = Hello {
            client_id: "a",
            version: Version::V5,
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 0,
            username: None,
            password: None,
        };
        swarm.connect(CLIENT, &hello).unwrap();
        let mut notices = Vec::new();
        swarm.turn(Duration::ZERO, &mut notices).unwrap();
        assert_eq!(notices.len(), 1);
        swarm
    }

    fn told(swarm: &mut SimulatedSwarm, bytes: &[u8]) -> Vec<Notice> {
        let mut notices = Vec::new();
        swarm.receive(CLIENT.0, bytes, &mut notices);
        notices
    }

    #[test]
    fn answers_that_nobody_asked_for_are_told() {
        let mut swarm = connected();
        for kind in [PUBACK, PUBREC, PUBCOMP] {
            assert_eq!(told(&mut swarm, &[kind, 2, 0, 9]), [UNASKED], "{kind:x}");
        }
        assert_eq!(told(&mut swarm, &[0x90, 4, 0, 9, 0, 0]), [UNASKED]);
        assert_eq!(told(&mut swarm, &[0xB0, 4, 0, 9, 0, 0]), [UNASKED]);
        // A PUBREL is answered whatever it is about, and a PINGRESP does no harm.
        assert_eq!(told(&mut swarm, &[PUBREL, 2, 0, 9]), []);
        assert_eq!(told(&mut swarm, &[0xD0, 0]), []);
        assert_eq!(swarm.room(CLIENT), 1_024);
    }

    #[test]
    fn a_message_of_qos_2_that_comes_again_is_told_once() {
        let mut swarm = connected();
        let publish = [0x34, 7, 0, 1, b't', 0, 5, 0, b'x'];
        assert_eq!(told(&mut swarm, &publish).len(), 1);
        let again = [0x3C, 7, 0, 1, b't', 0, 5, 0, b'x'];
        assert_eq!(told(&mut swarm, &again), []);
        assert_eq!(told(&mut swarm, &[PUBREL, 2, 0, 5]), []);
        assert_eq!(told(&mut swarm, &publish).len(), 1);
    }

    #[test]
    fn what_a_broker_must_not_send_ends_the_connection() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x20, 3, 0, 0, 0], "the broker sent a second CONNACK"),
            (&[0xC0, 0], "the broker sent a PINGREQ, which it must not"),
            (&[PUBACK, 2, 0], "the broker sent a part of a packet"),
            (&[0xE0, 1, 0x8B], "the broker disconnected: "),
            (&[0x00, 0], "the broker sent what is no packet: "),
            (&[PUBACK, 2, 0, 0], "the broker sent what cannot be read: "),
        ];
        for (bytes, begins) in cases {
            let mut swarm = connected();
            let mut bytes = bytes.to_vec();
            bytes.extend_from_slice(&[PUBACK, 2, 0, 9]); // nothing more is read
            if begins.ends_with("part of a packet") {
                bytes.truncate(3);
            }
            let notices = told(&mut swarm, &bytes);
            let [
                Notice::Closed {
                    client: CLIENT,
                    why,
                },
            ] = &notices[..]
            else {
                panic!("{begins}: {notices:?}");
            };
            assert!(why.starts_with(begins), "{why}");
            assert_eq!(swarm.room(CLIENT), 0);
        }
    }
}
