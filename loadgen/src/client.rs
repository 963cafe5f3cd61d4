//! One MQTT client as a state machine: packets from the broker in, answers and [`Notice`]s out. It does no I/O; the
//! [`Fleet`](crate::Fleet) moves its bytes.

use std::num::NonZeroU16;

use codec::{Ack, Packet, Publish, Qos, ReasonCode, Version};

/// What a 5.0 broker allows in flight unless its CONNACK says otherwise (3.2.2.3.3).
const RECEIVE_MAXIMUM_DEFAULT: u16 = 65_535;

/// A client of a fleet, by its number in the order of connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

impl ClientId {
    /// The number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker accepted the connection.
    Connected(ClientId),
    /// A SUBACK: how many of its filters were granted and how many refused.
    Subscribed {
        /// Who had asked.
        client: ClientId,
        /// Filters granted with any QoS.
        granted: u32,
        /// Filters refused.
        refused: u32,
    },
    /// A message came (and was acknowledged, where its QoS asks for that).
    Delivered {
        /// The receiver.
        client: ClientId,
        /// The first eight bytes of the payload as a big-endian number; 0 if it is shorter.
        stamp: u64,
    },
    /// A PUBACK.
    Acknowledged {
        /// The publisher.
        client: ClientId,
        /// Which publish, as [`Fleet::publish`](crate::Fleet::publish) returned it.
        packet_id: NonZeroU16,
        /// [`ReasonCode::SUCCESS`] always in 3.x.
        reason: ReasonCode,
    },
    /// The connection ended, or never came to be. Nothing more comes of this client.
    Closed {
        /// Whose connection.
        client: ClientId,
        /// Why, as far as it is known.
        why: String,
    },
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The socket is not connected yet.
    Connecting,
    /// CONNECT is on its way.
    Handshake,
    /// CONNACK was here.
    Ready,
    /// No connection any more.
    Closed,
}

/// The protocol state of one client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) version: Version,
    pub(crate) stage: Stage,
    /// How many QoS 1 publishes the broker takes before it acknowledges the first.
    pub(crate) receive_maximum: u16,
    last_packet_id: u16,
}

impl Client {
    pub(crate) fn new(id: ClientId, version: Version) -> Self {
        Self {
            id,
            version,
            stage: Stage::Connecting,
            receive_maximum: RECEIVE_MAXIMUM_DEFAULT,
            last_packet_id: 0,
        }
    }

    /// Packet identifiers go round. Brokers acknowledge in order [MQTT-4.6.0-2] and take fewer than 65,535 at once, so
    /// the next one is free.
    pub(crate) fn next_packet_id(&mut self) -> NonZeroU16 {
        self.last_packet_id = self.last_packet_id.wrapping_add(1);
        let id = NonZeroU16::new(self.last_packet_id).unwrap_or(NonZeroU16::MIN);
        self.last_packet_id = id.get();
        id
    }

    /// Takes a packet: appends the answer, if one is due, to `out` and what it means to `notices`.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(crate) fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        let client = self.id;
        match packet {
            Packet::ConnAck(ack) if self.stage == Stage::Handshake => {
                if ack.reason != ReasonCode::SUCCESS {
                    return Err(format!("the broker refused the connection: {}", ack.reason));
                }
                if let Some(maximum) = ack.properties.receive_maximum() {
                    self.receive_maximum = maximum;
                }
                self.stage = Stage::Ready;
                notices.push(Notice::Connected(client));
            }
            Packet::Publish(publish) => {
                self.acknowledge(publish, out)?;
                let stamp = publish
                    .payload
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_be_bytes(*bytes));
                notices.push(Notice::Delivered { client, stamp });
            }
            Packet::PubAck(ack) => notices.push(Notice::Acknowledged {
                client,
                packet_id: ack.packet_id,
                reason: ack.reason,
            }),
            Packet::SubAck(ack) => {
                let refused = ack.reasons.iter().filter(|&&code| code >= 0x80).count();
                notices.push(Notice::Subscribed {
                    client,
                    granted: (ack.reasons.len() - refused) as u32,
                    refused: refused as u32,
                });
            }
            Packet::PingResp | Packet::UnsubAck(_) => {}
            Packet::Disconnect(disconnect) => {
                return Err(format!("the broker disconnected: {}", disconnect.reason));
            }
            other => return Err(format!("an unexpected {}", other.packet_type().name())),
        }
        Ok(())
    }

    fn acknowledge(&self, publish: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match (publish.qos, publish.packet_id) {
            (Qos::AtMostOnce, _) | (_, None) => Ok(()),
            (Qos::AtLeastOnce, Some(packet_id)) => Packet::PubAck(Ack::success(packet_id))
                .encode(self.version, out)
                .map_err(|error| error.to_string()),
            (Qos::ExactlyOnce, _) => {
                Err("a delivery with QoS 2, which nobody asked for".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::{ConnAck, Properties, SubAck};

    fn ready() -> Client {
        let mut client = Client::new(ClientId(7), Version::V311);
        client.stage = Stage::Ready;
        client
    }

    fn publish(qos: Qos, packet_id: Option<NonZeroU16>, payload: &[u8]) -> Packet<'_> {
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: "t",
            packet_id,
            properties: Properties::EMPTY,
            payload,
        })
    }

    #[test]
    fn packet_identifiers_go_round_and_are_never_zero() {
        let mut client = ready();
        let first: Vec<u16> = (0..3).map(|_| client.next_packet_id().get()).collect();
        assert_eq!(first, [1, 2, 3]);
        client.last_packet_id = u16::MAX - 1;
        let around: Vec<u16> = (0..3).map(|_| client.next_packet_id().get()).collect();
        assert_eq!(around, [u16::MAX, 1, 2]);
    }

    #[test]
    fn a_delivery_of_qos_1_is_acknowledged_and_its_stamp_read() {
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let packet = publish(
            Qos::AtLeastOnce,
            NonZeroU16::new(9),
            &[0, 0, 0, 0, 0, 0, 1, 2, 3],
        );
        ready().on_packet(&packet, &mut out, &mut notices).unwrap();
        assert_eq!(out, [0x40, 2, 0, 9]);
        assert_eq!(
            notices,
            [Notice::Delivered {
                client: ClientId(7),
                stamp: 0x102
            }]
        );
    }

    #[test]
    fn a_delivery_of_qos_0_is_only_counted() {
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let packet = publish(Qos::AtMostOnce, None, b"short");
        ready().on_packet(&packet, &mut out, &mut notices).unwrap();
        assert!(out.is_empty());
        assert_eq!(
            notices,
            [Notice::Delivered {
                client: ClientId(7),
                stamp: 0
            }]
        );
    }

    #[test]
    fn refused_filters_are_told_from_granted_ones() {
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let packet = Packet::SubAck(SubAck {
            packet_id: NonZeroU16::MIN,
            properties: Properties::EMPTY,
            reasons: &[0, 1, 0x80],
        });
        ready().on_packet(&packet, &mut out, &mut notices).unwrap();
        assert_eq!(
            notices,
            [Notice::Subscribed {
                client: ClientId(7),
                granted: 2,
                refused: 1
            }]
        );
    }

    #[test]
    fn a_refused_connection_says_why() {
        let mut client = Client::new(ClientId(0), Version::V5);
        client.stage = Stage::Handshake;
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::NOT_AUTHORIZED,
            properties: Properties::EMPTY,
        });
        let why = client
            .on_packet(&packet, &mut Vec::new(), &mut Vec::new())
            .unwrap_err();
        assert!(why.contains("refused"), "{why}");
        assert_eq!(client.stage, Stage::Handshake);
    }
}
