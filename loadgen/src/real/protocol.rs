//! One client as a state machine: packets from the broker in, answers and [`Notice`]s out. It does no I/O and reads no
//! clock.

use std::num::NonZeroU16;

use codec::{Ack, ConnAck, DecodeError, Packet, Publish, Qos, ReasonCode, Version};

use super::packet_ids::{Awaited, IDS_IN_USE_MAX, PacketIds};
use crate::payload::Body;
use crate::stamp::Stamp;
use crate::swarm::{Client, Hello, Notice};

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection.
    Away,
    /// The socket is not connected yet.
    Connecting,
    /// CONNECT is on its way.
    Handshake,
    /// CONNACK was here.
    Ready,
}

/// The protocol's side of one client.
#[derive(Debug)]
pub(crate) struct State {
    /// Packet identifiers; only with a client that needs them.
    ids: Option<Box<PacketIds>>,
    /// The largest packet that the broker takes, in bytes.
    packet_bytes_max: u32,
    /// The packet identifier to give out next, less 1, while `ids` is `None`. It goes on over connections: a broker that
    /// kept the session may hold the last ones in use.
    next_id: u16,
    /// As agreed with the broker; 0 is none.
    pub(crate) keep_alive_s: u16,
    receive_maximum: u16,
    version: Version,
    pub(crate) stage: Stage,
    /// The broker went on with a session of an earlier connection.
    resumed: bool,
    /// A PINGREQ is not answered.
    pub(crate) awaits_pong: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ids: None,
            packet_bytes_max: codec::PACKET_BYTES_MAX,
            next_id: 0,
            keep_alive_s: 0,
            receive_maximum: u16::MAX,
            version: Version::V311,
            stage: Stage::Away,
            resumed: false,
            awaits_pong: false,
        }
    }
}

impl State {
    /// Begins a connection, for which [`Hello::encode`] made the first packet.
    pub(crate) fn begin(&mut self, hello: &Hello<'_>) {
        *self = Self {
            ids: self.ids.take(),
            next_id: self.next_id,
            keep_alive_s: hello.keep_alive_s,
            version: hello.version,
            stage: Stage::Connecting,
            ..Self::default()
        };
    }

    /// The connection has ended. What was in flight is forgotten, but not which QoS 2 messages came: the broker may
    /// repeat them in the next connection of the session.
    pub(crate) fn end(&mut self) {
        self.stage = Stage::Away;
        if let Some(ids) = &mut self.ids {
            ids.forget_sent();
        }
        self.let_go_of_ids();
    }

    /// Protocol version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The largest packet that the broker takes, in bytes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// QoS 1 and 2 messages that may be published now, by the broker's receive maximum.
    pub(crate) fn room(&self) -> usize {
        if self.stage != Stage::Ready {
            return 0;
        }
        let in_flight = self.ids.as_ref().map_or(0, |ids| ids.publishes());
        usize::from(
            self.receive_maximum
                .min(IDS_IN_USE_MAX)
                .saturating_sub(in_flight),
        )
    }

    /// User memory beyond the struct, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.ids.as_ref().map_or(0, |ids| ids.bytes())
    }

    /// A packet identifier for a packet that will be answered; `None` when there is none free.
    pub(crate) fn take_id(&mut self, awaited: Awaited) -> Option<NonZeroU16> {
        self.ids().take(awaited)
    }

    /// Takes back the identifier that was given last.
    pub(crate) fn untake_id(&mut self) {
        self.ids().untake();
    }

    fn ids(&mut self) -> &mut PacketIds {
        let next = self.next_id;
        self.ids
            .get_or_insert_with(|| Box::new(PacketIds::new(next)))
    }

    fn answer(&mut self, id: NonZeroU16, awaited: Awaited, next: Awaited) -> bool {
        match &mut self.ids {
            Some(ids) => ids.answer(id, awaited, next),
            None => false,
        }
    }

    fn let_go_of_ids(&mut self) {
        if let Some(ids) = self.ids.take_if(|ids| ids.is_empty()) {
            self.next_id = ids.next();
        }
    }

    /// Takes a packet: appends the answer, if one is due, to `out` and what it means to `notices`.
    ///
    /// # Errors
    /// Why the connection must end.
    #[inline]
    pub(crate) fn on_packet(
        &mut self,
        client: Client,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        if self.stage != Stage::Ready {
            return self.on_first_packet(client, packet, notices);
        }
        let asked_for = match packet {
            Packet::Publish(publish) => {
                self.on_publish(client, publish, out, notices)?;
                true
            }
            Packet::PubAck(ack) => self.ends(client, ack, Awaited::PubAck, notices),
            Packet::PubRec(ack) if ack.reason.is_failure() => {
                self.ends(client, ack, Awaited::PubRec, notices)
            }
            Packet::PubRec(ack) => {
                let known = self.answer(ack.packet_id, Awaited::PubRec, Awaited::PubComp);
                // A session that goes on may hold publishes that this client has forgotten: it lets the broker end them.
                if known || self.resumed {
                    self.put(Packet::PubRel(Ack::success(ack.packet_id)), out)?;
                }
                known || self.resumed
            }
            Packet::PubComp(ack) => {
                self.ends(client, ack, Awaited::PubComp, notices) || self.resumed
            }
            Packet::PubRel(ack) => {
                let known = self
                    .ids
                    .as_mut()
                    .is_some_and(|ids| ids.release(ack.packet_id));
                let mut answer = Ack::success(ack.packet_id);
                if !known && self.version.has_properties() {
                    answer.reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                }
                self.put(Packet::PubComp(answer), out)?;
                known || self.resumed
            }
            Packet::SubAck(ack) => {
                let known = self.answer(ack.packet_id, Awaited::SubAck, Awaited::Nothing);
                if known {
                    self.let_go_of_ids();
                    let codes = ack.reasons.iter().map(|&code| ReasonCode(code));
                    let refused = codes.filter(|code| code.is_failure()).count();
                    notices.push(Notice::Subscribed {
                        client,
                        granted: (ack.reasons.len() - refused) as u32,
                        refused: refused as u32,
                    });
                }
                known
            }
            Packet::PingResp => {
                self.awaits_pong = false;
                true
            }
            // This client never unsubscribes.
            Packet::UnsubAck(_) => false,
            Packet::Disconnect(disconnect) => {
                return Err(format!("disconnected by the broker: {}", disconnect.reason));
            }
            other => return Err(format!("an unexpected {}", other.packet_type().name())),
        };
        if !asked_for {
            notices.push(Notice::Unasked { client });
        }
        Ok(())
    }

    #[cold]
    fn on_first_packet(
        &mut self,
        client: Client,
        packet: &Packet<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        match packet {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS => {
                self.agree(ack);
                notices.push(Notice::Connected {
                    client,
                    session_present: ack.session_present,
                });
                Ok(())
            }
            Packet::ConnAck(ack) => Err(format!("refused by the broker: {}", ack.reason)),
            other => Err(format!(
                "an unexpected {} instead of CONNACK",
                other.packet_type().name()
            )),
        }
    }

    fn agree(&mut self, ack: &ConnAck<'_>) {
        self.stage = Stage::Ready;
        self.resumed = ack.session_present;
        if !ack.session_present {
            if let Some(ids) = &mut self.ids {
                ids.forget_received();
            }
            self.let_go_of_ids();
        }
        let properties = &ack.properties;
        // [MQTT-3.2.2-21]
        self.keep_alive_s = properties.server_keep_alive().unwrap_or(self.keep_alive_s);
        // [MQTT-3.3.4-7]
        self.receive_maximum = properties.receive_maximum().unwrap_or(u16::MAX);
        // [MQTT-3.2.2-15]
        self.packet_bytes_max = properties
            .maximum_packet_size()
            .unwrap_or(codec::PACKET_BYTES_MAX);
    }

    fn on_publish(
        &mut self,
        client: Client,
        publish: &Publish<'_>,
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), String> {
        // CONNECT allowed none [MQTT-3.1.2-26].
        if publish.topic.is_empty() || publish.properties.topic_alias().is_some() {
            return Err("the broker used a topic alias, which no client allowed".to_owned());
        }
        let mut is_new = true;
        if let Some(packet_id) = publish.packet_id {
            if publish.qos == Qos::ExactlyOnce {
                is_new = self.ids().receive(packet_id);
                self.put(Packet::PubRec(Ack::success(packet_id)), out)?;
            } else {
                self.put(Packet::PubAck(Ack::success(packet_id)), out)?;
            }
        }
        if is_new {
            let stamp = Stamp::read(publish.payload);
            notices.push(Notice::Delivered {
                client,
                qos: publish.qos,
                retained: publish.retain,
                stamp,
                body: Body::of(stamp.as_ref(), publish.payload),
            });
        }
        Ok(())
    }

    /// The last answer to a publish: whether it was asked for.
    fn ends(
        &mut self,
        client: Client,
        ack: &Ack<'_>,
        awaited: Awaited,
        notices: &mut Vec<Notice>,
    ) -> bool {
        let known = self.answer(ack.packet_id, awaited, Awaited::Nothing);
        if known {
            notices.push(Notice::Acknowledged {
                client,
                packet_id: ack.packet_id,
                reason: ack.reason,
            });
        }
        known
    }

    fn put(&self, packet: Packet<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        packet
            .encode(self.version, out)
            .map_err(|error| error.to_string())
    }
}

/// Why a connection with these bytes must end, in words that are the same for the same reason.
#[cold]
pub(crate) fn no_mqtt(error: &DecodeError) -> String {
    match error {
        DecodeError::TooLarge { max, .. } => {
            format!("the broker sent a packet of more than {max} bytes")
        }
        error => format!("the broker sent no MQTT: {error}"),
    }
}

/// Looks at the first bytes of a connection: what speaks another protocol says so here, and not after the bytes that a
/// packet of that size would have.
///
/// # Errors
/// Why the connection must end.
pub(crate) fn check_first_bytes(bytes: &[u8]) -> Result<(), String> {
    /// The first byte of each CONNACK.
    const CONN_ACK: u8 = 0x20;
    /// A TLS record: an alert, of any version.
    const TLS_ALERT: &[u8] = &[0x15, 0x03];
    let what = match bytes {
        [] | [CONN_ACK, ..] => return Ok(()),
        http if http.starts_with(b"HTTP") => "it speaks HTTP",
        tls if tls.starts_with(TLS_ALERT) => "it speaks TLS",
        _ => "its first packet is no CONNACK",
    };
    Err(format!("the broker sent no MQTT: {what}"))
}
