//! What a client publishes with QoS 1 and 2: which packet identifiers are taken, and the acknowledgements that it is
//! owed, in the order in which its publishes came [MQTT-4.6.0-2], also when the sink settles them out of order.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use codec::{Ack, Packet, Properties, Qos, ReasonCode, Version};

use super::Deferred;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::times::Times;

/// Where a publish stands in the row of those not yet answered. Wraps around.
pub(crate) type Sequence = u16;

/// The answer to a new QoS 1 or 2 publish's packet identifier.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Route it.
    New,
    /// It was routed before: do not route it again. The answer is on its way or was appended.
    Duplicate,
    /// More are unanswered than the receive maximum allows [MQTT-3.3.4-7].
    OverReceiveMaximum,
}

/// What answering released.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Messages whose delivery waited until they were stored, in order.
    pub(crate) messages: Vec<Message>,
    /// A 3.x client's publish was refused: it can only be told by closing the connection.
    pub(crate) close: bool,
}

#[derive(Debug)]
struct Owed {
    packet_id: u16,
    qos: Qos,
    /// The client connected again since: it repeats the publish, so this one is not answered.
    orphan: bool,
    /// A repetition of a QoS 2 publish on a later connection: it stands where that connection's answer is due, and is
    /// settled with the first one.
    repeats: bool,
    settled: Option<ReasonCode>,
    /// When it came, in milliseconds modulo 2^32.
    since_ms: u32,
    deferred: Deferred,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    packet_id: u16,
    /// The PUBREC was not due yet.
    storing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    owed: VecDeque<Owed>,
    /// The sequence of the first of `owed`.
    first: Sequence,
    /// QoS 2 identifiers between PUBLISH and PUBREL, sorted.
    taken: Vec<Taken>,
    /// Publishes of this connection whose exchange has not ended.
    open: u16,
}

impl Incoming {
    pub(crate) fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.taken.is_empty()
    }

    /// Publishes that wait for the sink.
    pub(crate) fn waiting(&self) -> usize {
        self.owed.len()
    }

    /// Publishes of this connection whose exchange has not ended.
    pub(crate) fn open(&self) -> u16 {
        self.open
    }

    /// Whether a 3.x client has published as much as it may before something is stored.
    pub(crate) fn is_full(&self, receive_maximum: u16) -> bool {
        self.owed.len() >= usize::from(receive_maximum)
    }

    /// A QoS 1 or 2 publish came. 3.x clients know no receive maximum, so only 5.0 clients are held to it here.
    pub(crate) fn begin(
        &mut self,
        packet_id: NonZeroU16,
        qos: Qos,
        version: Version,
        receive_maximum: u16,
        outbox: &mut Outbox,
    ) -> Begin {
        let id = packet_id.get();
        let place = match qos {
            Qos::ExactlyOnce => self
                .taken
                .binary_search_by_key(&id, |taken| taken.packet_id),
            _ => Err(0),
        };
        if let Ok(at) = place {
            let storing = self.taken[at].storing;
            let due =
                |owed: &Owed| owed.packet_id == id && owed.qos == Qos::ExactlyOnce && !owed.orphan;
            if !storing && self.owed.is_empty() {
                answer(outbox, version, Qos::ExactlyOnce, id, ReasonCode::SUCCESS);
            } else if !self.owed.iter().any(due) {
                // PUBRECs leave in the order in which the publishes came on this connection [MQTT-4.6.0-3].
                self.open = self.open.saturating_add(u16::from(storing));
                self.owed.push_back(Owed {
                    packet_id: id,
                    qos,
                    orphan: false,
                    repeats: true,
                    settled: (!storing).then_some(ReasonCode::SUCCESS),
                    since_ms: 0,
                    deferred: None,
                });
            }
            return Begin::Duplicate;
        }
        if version == Version::V5 && self.open >= receive_maximum {
            return Begin::OverReceiveMaximum;
        }
        self.open = self.open.saturating_add(1);
        if let (Qos::ExactlyOnce, Err(at)) = (qos, place) {
            self.taken.insert(
                at,
                Taken {
                    packet_id: id,
                    storing: true,
                },
            );
        }
        Begin::New
    }

    /// Notes a QoS 1 publish that [`Incoming::begin`] was not asked about.
    pub(crate) fn record(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// Takes back what [`Incoming::begin`] noted, for a publish that will be offered again.
    pub(crate) fn abandon(&mut self, packet_id: NonZeroU16, qos: Qos) {
        self.open = self.open.saturating_sub(1);
        if qos == Qos::ExactlyOnce {
            self.forget(packet_id.get());
        }
    }

    fn forget(&mut self, id: u16) {
        if let Ok(at) = self
            .taken
            .binary_search_by_key(&id, |taken| taken.packet_id)
        {
            self.taken.remove(at);
        }
    }

    /// The sequence that the next [`Incoming::owe`] gets.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.first.wrapping_add(self.owed.len() as u16)
    }

    /// Notes that an answer is owed, known already (`settled`) or not.
    pub(crate) fn owe(
        &mut self,
        packet_id: NonZeroU16,
        qos: Qos,
        settled: Option<ReasonCode>,
        now: Time,
        deferred: Deferred,
    ) {
        self.owed.push_back(Owed {
            packet_id: packet_id.get(),
            qos,
            orphan: false,
            repeats: false,
            settled,
            since_ms: now.0 as u32,
            deferred,
        });
    }

    /// The publish of that sequence is not delivered, though its publisher may be told that it was taken.
    pub(crate) fn withhold(&mut self, sequence: Sequence) {
        let at = usize::from(sequence.wrapping_sub(self.first));
        if let Some(owed) = self.owed.get_mut(at)
            && owed.settled.is_none()
        {
            owed.deferred = None;
        }
    }

    /// The sink settled the publish of that sequence: whether something can be answered now. Nothing happens when it
    /// is not one that waits.
    pub(crate) fn settle(&mut self, sequence: Sequence, reason: ReasonCode) -> bool {
        let at = usize::from(sequence.wrapping_sub(self.first));
        if let Some(owed) = self.owed.get_mut(at)
            && owed.settled.is_none()
        {
            owed.settled = Some(reason);
            return at == 0;
        }
        false
    }

    /// Answers whatever can be answered in order, and counts how long that took. `outbox` is `None` while the client is away.
    pub(crate) fn answer_settled(
        &mut self,
        mut outbox: Option<&mut Outbox>,
        version: Version,
        now: Time,
        times: &mut Times,
    ) -> Released {
        let mut released = Released::default();
        while let Some(Owed {
            settled: Some(reason),
            ..
        }) = self.owed.front()
        {
            let reason = *reason;
            let Some(owed) = self.owed.pop_front() else {
                break;
            };
            self.first = self.first.wrapping_add(1);
            let stored = !reason.is_failure();
            if stored {
                released.messages.extend(owed.deferred);
            }
            if owed.qos == Qos::ExactlyOnce && !owed.repeats {
                self.settle_exchange(owed.packet_id, owed.orphan, reason);
            }
            if owed.orphan {
                continue;
            }
            if owed.qos == Qos::AtLeastOnce || !stored {
                self.open = self.open.saturating_sub(1);
            }
            let Some(to) = outbox.as_deref_mut() else {
                continue;
            };
            if !stored && version != Version::V5 {
                // Nothing is said after that, but what is settled behind it must not stay.
                released.close = true;
                outbox = None;
                continue;
            }
            if !owed.repeats {
                times.add((now.0 as u32).wrapping_sub(owed.since_ms).into());
            }
            answer(to, version, owed.qos, owed.packet_id, reason);
        }
        released
    }

    /// A QoS 2 publish is settled: so are its repetitions, which only one of an earlier connection can have.
    fn settle_exchange(&mut self, id: u16, orphan: bool, reason: ReasonCode) {
        if let Ok(at) = self
            .taken
            .binary_search_by_key(&id, |taken| taken.packet_id)
        {
            if reason.is_failure() {
                self.taken.remove(at);
            } else {
                self.taken[at].storing = false;
            }
        }
        if orphan {
            let repetitions = |owed: &&mut Owed| owed.repeats && owed.packet_id == id;
            for owed in self.owed.iter_mut().filter(repetitions) {
                owed.settled.get_or_insert(reason);
            }
        }
    }

    /// The client says PUBREL: ends the exchange and answers.
    pub(crate) fn release(&mut self, packet_id: NonZeroU16, version: Version, outbox: &mut Outbox) {
        let id = packet_id.get();
        let found = self
            .taken
            .binary_search_by_key(&id, |taken| taken.packet_id);
        let reason = match found {
            Ok(at) if !self.taken[at].storing => {
                self.taken.remove(at);
                self.open = self.open.saturating_sub(1);
                ReasonCode::SUCCESS
            }
            // [MQTT-4.3.3-11]: a PUBREL is always answered; 3.x has no word for "unknown".
            _ => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        let reason = if version == Version::V5 {
            reason
        } else {
            ReasonCode::SUCCESS
        };
        let ack = Ack {
            packet_id,
            reason,
            properties: Properties::EMPTY,
        };
        encode(outbox, version, &Packet::PubComp(ack));
    }

    /// The session ends: only what is to be delivered when it is stored is still of interest, and when all is settled.
    pub(crate) fn departs(&mut self) {
        self.disconnected();
        self.taken = Vec::new();
        self.owed.shrink_to_fit();
    }

    /// The connection is gone. The client will repeat what was not answered.
    pub(crate) fn disconnected(&mut self) {
        self.open = 0;
        for owed in &mut self.owed {
            owed.orphan = true;
        }
    }
}

fn answer(outbox: &mut Outbox, version: Version, qos: Qos, packet_id: u16, reason: ReasonCode) {
    let Some(packet_id) = NonZeroU16::new(packet_id) else {
        return;
    };
    // The two bytes that nearly every acknowledgement consists of, without going through the encoder's cases.
    if reason == ReasonCode::SUCCESS {
        let kind = if qos == Qos::AtLeastOnce { 0x40 } else { 0x50 };
        let [high, low] = packet_id.get().to_be_bytes();
        outbox.push(&[kind, 2, high, low]);
        return;
    }
    let ack = Ack {
        packet_id,
        reason,
        properties: Properties::EMPTY,
    };
    let packet = if qos == Qos::AtLeastOnce {
        Packet::PubAck(ack)
    } else {
        Packet::PubRec(ack)
    };
    encode(outbox, version, &packet);
}

/// Appends a packet of our own making; those always fit.
pub(crate) fn encode(outbox: &mut Outbox, version: Version, packet: &Packet<'_>) {
    if let Err(error) = outbox.encode(|out| packet.encode(version, out)) {
        tracing::error!(%error, "a packet of our own could not be encoded");
    }
}

/// The same of one that may be too large for the client: false if it is.
#[must_use]
pub(crate) fn encode_within(
    outbox: &mut Outbox,
    version: Version,
    packet: &Packet<'_>,
    packet_bytes_max: u32,
) -> bool {
    if packet_bytes_max == u32::MAX {
        encode(outbox, version, packet);
        return true;
    }
    let mut bytes = Vec::new();
    let encoded = packet.encode(version, &mut bytes);
    let fits = encoded.is_ok() && bytes.len() <= packet_bytes_max as usize;
    if fits {
        outbox.push(&bytes);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    fn begin(incoming: &mut Incoming, packet_id: u16, qos: Qos) -> Begin {
        incoming.begin(id(packet_id), qos, Version::V5, 10, &mut Outbox::default())
    }

    fn owe(incoming: &mut Incoming, packet_id: u16, qos: Qos, settled: Option<ReasonCode>) {
        incoming.owe(id(packet_id), qos, settled, Time(0), None);
    }

    fn answer_settled(incoming: &mut Incoming, outbox: &mut Outbox, version: Version) -> Released {
        incoming.answer_settled(Some(outbox), version, Time(0), &mut Times::default())
    }

    fn bytes(outbox: &mut Outbox) -> Vec<u8> {
        let mut memory = crate::transport::MemoryOutput::default();
        let mut transport = crate::transport::Transport::from(crate::transport::Memory::default());
        outbox.write_to(&mut transport, &mut memory).unwrap();
        memory.bytes
    }

    #[test]
    fn answers_leave_in_order_when_settled_out_of_order() {
        let mut incoming = Incoming::default();
        let mut outbox = Outbox::default();
        for packet_id in [7, 3, 9] {
            assert_eq!(
                begin(&mut incoming, packet_id, Qos::AtLeastOnce),
                Begin::New
            );
            owe(&mut incoming, packet_id, Qos::AtLeastOnce, None);
        }
        incoming.settle(2, ReasonCode::SUCCESS);
        incoming.settle(1, ReasonCode::SUCCESS);
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert!(outbox.is_empty());
        incoming.settle(0, ReasonCode::SUCCESS);
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert_eq!(
            bytes(&mut outbox),
            [0x40, 2, 0, 7, 0x40, 2, 0, 3, 0x40, 2, 0, 9]
        );
        assert!(incoming.is_idle());
    }

    #[test]
    fn a_qos_2_publish_repeated_after_a_reconnect_is_answered_once_and_not_routed_again() {
        let mut incoming = Incoming::default();
        let mut outbox = Outbox::default();
        assert_eq!(begin(&mut incoming, 5, Qos::ExactlyOnce), Begin::New);
        owe(&mut incoming, 5, Qos::ExactlyOnce, None);
        incoming.disconnected();
        assert_eq!(begin(&mut incoming, 5, Qos::ExactlyOnce), Begin::Duplicate);
        incoming.settle(0, ReasonCode::SUCCESS);
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert_eq!(bytes(&mut outbox), [0x50, 2, 0, 5]);
        incoming.release(id(5), Version::V5, &mut outbox);
        assert_eq!(bytes(&mut outbox), [0x70, 2, 0, 5]);
        assert!(incoming.is_idle());
    }

    #[test]
    fn a_qos_1_publish_settled_after_the_connection_is_gone_is_not_answered_on_the_next() {
        let mut incoming = Incoming::default();
        let mut outbox = Outbox::default();
        begin(&mut incoming, 5, Qos::AtLeastOnce);
        owe(&mut incoming, 5, Qos::AtLeastOnce, None);
        incoming.disconnected();
        begin(&mut incoming, 5, Qos::AtLeastOnce);
        owe(&mut incoming, 5, Qos::AtLeastOnce, None);
        incoming.settle(0, ReasonCode::SUCCESS);
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert!(outbox.is_empty());
        incoming.settle(1, ReasonCode::SUCCESS);
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert_eq!(bytes(&mut outbox), [0x40, 2, 0, 5]);
    }

    #[test]
    fn a_refused_publish_frees_its_identifier_and_closes_a_3x_client() {
        let mut incoming = Incoming::default();
        let mut outbox = Outbox::default();
        begin(&mut incoming, 5, Qos::ExactlyOnce);
        owe(
            &mut incoming,
            5,
            Qos::ExactlyOnce,
            Some(ReasonCode::QUOTA_EXCEEDED),
        );
        let released = answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert!(!released.close);
        assert_eq!(bytes(&mut outbox), [0x50, 3, 0, 5, 0x97]);
        assert!(incoming.is_idle());
        assert_eq!(begin(&mut incoming, 5, Qos::ExactlyOnce), Begin::New);
        owe(
            &mut incoming,
            5,
            Qos::ExactlyOnce,
            Some(ReasonCode::QUOTA_EXCEEDED),
        );
        assert!(answer_settled(&mut incoming, &mut outbox, Version::V311).close);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_receive_maximum_counts_exchanges_that_have_not_ended() {
        let mut incoming = Incoming::default();
        for packet_id in 1..=10 {
            assert_eq!(
                begin(&mut incoming, packet_id, Qos::ExactlyOnce),
                Begin::New
            );
            owe(
                &mut incoming,
                packet_id,
                Qos::ExactlyOnce,
                Some(ReasonCode::SUCCESS),
            );
        }
        let mut outbox = Outbox::default();
        answer_settled(&mut incoming, &mut outbox, Version::V5);
        assert_eq!(
            begin(&mut incoming, 11, Qos::ExactlyOnce),
            Begin::OverReceiveMaximum
        );
        incoming.release(id(1), Version::V5, &mut outbox);
        assert_eq!(begin(&mut incoming, 11, Qos::ExactlyOnce), Begin::New);
    }

    #[test]
    fn an_answers_time_is_counted_from_its_publish() {
        let mut incoming = Incoming::default();
        let mut outbox = Outbox::default();
        let mut times = Times::default();
        let from = u64::from(u32::MAX) - 2;
        for (packet_id, came_at) in [(1, from), (2, from + 10)] {
            begin(&mut incoming, packet_id, Qos::AtLeastOnce);
            incoming.owe(id(packet_id), Qos::AtLeastOnce, None, Time(came_at), None);
        }
        incoming.settle(1, ReasonCode::SUCCESS);
        incoming.settle(0, ReasonCode::SUCCESS);
        let now = Time(from + 30);
        incoming.answer_settled(Some(&mut outbox), Version::V5, now, &mut times);
        assert_eq!((times.count(), times.sum_ms()), (2, 30 + 20));
        // Nobody is there to be answered: no time either.
        begin(&mut incoming, 3, Qos::AtLeastOnce);
        incoming.owe(id(3), Qos::AtLeastOnce, None, now, None);
        incoming.disconnected();
        incoming.settle(2, ReasonCode::SUCCESS);
        incoming.answer_settled(None, Version::V5, now, &mut times);
        assert_eq!(times.count(), 2);
    }
}
