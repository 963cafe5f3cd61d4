//! What goes to a client: messages in flight until they are acknowledged, and messages that wait for room, in order
//! and within bounds.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU16;

use codec::{Ack, Packet, Properties, PublishHead, Qos, ReasonCode, Version};

use super::incoming::encode;
use super::{Replays, Session};
use crate::limits::SHARED_PAYLOAD_BYTES_MIN;
use crate::losses::Loss;
use crate::message::{Message, MessageParts};
use crate::outbox::Outbox;
use crate::outcome::Fate;
use crate::router::{Receiver, Share};
use crate::stats::Local;
use crate::time::Time;

/// A message for one session, with what is particular to that session.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Message,
    pub(crate) more_identifiers: Box<[u32]>,
    /// The session's part of the shared subscription that it is for, if it is.
    pub(crate) share: Option<Share>,
    /// A subscription identifier; 0 is none.
    pub(crate) identifier: u32,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
}

impl Delivery {
    /// Bytes that it holds; the message counts as if nobody else had it.
    fn held(&self) -> u64 {
        (self.message.bytes() + size_of::<InFlight>()) as u64
    }
}

/// Sent and not acknowledged. Without a delivery it is released: PUBREL was sent, PUBCOMP is due.
#[derive(Debug)]
struct InFlight {
    delivery: Option<Delivery>,
    packet_id: NonZeroU16,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    in_flight: VecDeque<InFlight>,
    queue: VecDeque<Delivery>,
    queue_bytes: u64,
    /// The bytes of the shared message that there was no room for; 0 while shared subscriptions may count on this session.
    no_room_for: u64,
    pub(crate) replays: Replays,
    aliases: HashMap<Box<str>, u16, ahash::RandomState>,
    last_packet_id: u16,
    /// How many identifiers after the last are known to be free.
    free_packet_ids: u16,
    /// How many of the last in flight are yet to be sent again on this connection.
    unsent: u16,
}

impl Outgoing {
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.queue.is_empty()
            && self.replays.is_empty()
            && self.aliases.is_empty()
            && self.no_room_for == 0
    }

    /// Whether something waits: messages, or retained messages to walk through.
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_messages_waiting() || !self.replays.is_empty()
    }

    /// Whether messages wait, which go before any that comes now.
    pub(crate) fn has_messages_waiting(&self) -> bool {
        self.unsent > 0 || !self.queue.is_empty()
    }

    /// Deliveries that were sent on this connection and are not acknowledged.
    fn sent(&self) -> usize {
        self.in_flight.len() - usize::from(self.unsent)
    }

    /// Takes one out of flight.
    fn end(&mut self, at: usize, counts: &mut Local) {
        if at >= self.sent() {
            self.unsent -= 1;
        }
        if let Some(delivery) = self.in_flight.remove(at).and_then(|one| one.delivery) {
            counts.memory_queues -= delivery.held();
        }
    }

    /// Messages that wait, beyond those in flight.
    pub(crate) fn queue_messages(&self) -> usize {
        self.queue.len()
    }

    /// Messages that were sent, on this connection or an earlier one, and are not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of messages that wait, beyond those in flight.
    pub(crate) fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// Drops the newest of what waits, until it is no more than so many bytes.
    pub(crate) fn cut(
        &mut self,
        client_id: &str,
        bytes_max: u64,
        counts: &mut Local,
        followed: &mut Vec<(u64, Fate)>,
    ) {
        while self.queue_bytes > bytes_max
            && let Some(delivery) = self.queue.pop_back()
        {
            self.queue_bytes -= delivery.message.bytes() as u64;
            counts.memory_queues -= delivery.held();
            counts.queued -= 1;
            counts.lose(Loss::Memory, client_id, delivery.message.topic());
            delivery.message.note(Fate::Memory, followed);
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        } else {
            self.queue.shrink_to(2 * self.queue.len());
        }
    }

    /// The next identifier that is not in use.
    fn next_packet_id(&mut self) -> NonZeroU16 {
        loop {
            let next = self.last_packet_id.wrapping_add(1);
            self.last_packet_id = next;
            if self.free_packet_ids == 0 {
                // Identifiers are given in order, so all up to the next one in flight are free: the search is rare.
                let distances = self
                    .in_flight
                    .iter()
                    .map(|one| one.packet_id.get().wrapping_sub(next));
                self.free_packet_ids = distances.min().unwrap_or(u16::MAX);
                if self.free_packet_ids == 0 {
                    continue; // it is that one
                }
            }
            self.free_packet_ids -= 1;
            if let Some(id) = NonZeroU16::new(next) {
                return id;
            }
        }
    }

    fn find(&self, packet_id: NonZeroU16) -> Option<usize> {
        // Clients acknowledge in order, mostly.
        if self.in_flight.front()?.packet_id == packet_id {
            return Some(0);
        }
        self.in_flight
            .iter()
            .position(|one| one.packet_id == packet_id)
    }

    fn queue_push(
        &mut self,
        client_id: &str,
        delivery: Delivery,
        queue: QueueMax,
        counts: &mut Local,
    ) -> Fate {
        let bytes = delivery.message.bytes() as u64;
        if !self.queue_has_room(bytes, queue) {
            let topic = delivery.message.topic();
            if queue.is_cut {
                counts.lose(Loss::Memory, client_id, topic);
                return Fate::Memory;
            }
            counts.lose(Loss::QueueFull, client_id, topic);
            return Fate::QueueFull;
        }
        self.queue_bytes += bytes;
        counts.memory_queues += delivery.held();
        counts.queued += 1;
        self.queue.push_back(delivery);
        Fate::Queued
    }

    fn queue_pop(&mut self, counts: &mut Local) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes -= delivery.message.bytes() as u64;
        counts.memory_queues -= delivery.held();
        counts.queued -= 1;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }

    /// Whether a message of that many bytes finds a place in the queue.
    fn queue_has_room(&self, bytes: u64, queue: QueueMax) -> bool {
        self.queue.len() < queue.messages && self.queue_bytes + bytes <= queue.bytes
    }

    /// Shared subscriptions have been told that there is no room, for a message of that many bytes.
    pub(crate) fn has_no_room_for(&mut self, bytes: u64) {
        self.no_room_for = bytes.max(1);
    }

    /// Takes out deliveries of shared subscriptions that `elsewhere` finds another member for, in their order. QoS 2 in
    /// flight stays: the client may have it already [MQTT-4.8.2-4] [MQTT-4.8.2-5].
    pub(crate) fn take_shared(
        &mut self,
        elsewhere: impl Fn(&Delivery, &Share) -> Option<(Receiver, Share)>,
        counts: &mut Local,
    ) -> Vec<(Message, (Receiver, Share))> {
        let mut taken = Vec::new();
        let other = |delivery: &Delivery| elsewhere(delivery, delivery.share.as_ref()?);
        self.in_flight.retain(|one| {
            let delivery = one.delivery.as_ref();
            let Some(delivery) = delivery.filter(|delivery| delivery.qos == Qos::AtLeastOnce)
            else {
                return true;
            };
            let Some(to) = other(delivery) else {
                return true;
            };
            taken.push((delivery.message.clone(), to));
            counts.inflight -= 1;
            counts.memory_queues -= delivery.held();
            false
        });
        let mut bytes = 0;
        self.queue.retain(|delivery| {
            let Some(to) = other(delivery) else {
                return true;
            };
            bytes += delivery.message.bytes() as u64;
            taken.push((delivery.message.clone(), to));
            counts.queued -= 1;
            counts.memory_queues -= delivery.held();
            false
        });
        self.queue_bytes -= bytes;
        counts.delivered_elsewhere += taken.len() as u64;
        taken
    }

    /// The connection is gone: what was agreed on it is too.
    pub(crate) fn disconnected(&mut self) {
        self.aliases = HashMap::default();
        self.unsent = 0;
    }

    /// The client is back: what was in flight waits to be sent again [MQTT-4.4.0-1].
    pub(crate) fn resumed(&mut self) {
        self.unsent = self.in_flight.len() as u16; // bounded by the window
    }

    /// The session ends: what is left is lost to this client.
    pub(crate) fn drop_all(
        &mut self,
        client_id: &str,
        counts: &mut Local,
        followed: &mut Vec<(u64, Fate)>,
    ) {
        for delivery in &self.queue {
            delivery.message.note(Fate::SessionEnded, followed);
        }
        let in_flight = self
            .in_flight
            .iter()
            .filter_map(|one| one.delivery.as_ref());
        counts.memory_queues -= in_flight
            .chain(&self.queue)
            .map(Delivery::held)
            .sum::<u64>();
        counts.inflight -= self.in_flight.len() as u64;
        counts.queued -= self.queue.len() as u64;
        let lost = self.in_flight.iter().map(|one| one.delivery.as_ref());
        for delivery in lost.chain(self.queue.iter().map(Some)) {
            // Of one that is released only the identifier was left.
            let topic = delivery.map_or("", |delivery| delivery.message.topic());
            counts.lose(Loss::SessionEnded, client_id, topic);
        }
    }
}

/// The bounds of a session's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueMax {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
    /// They are lower than they were set to, for want of memory.
    pub(crate) is_cut: bool,
}

/// What sending needs: where to, when, and the bounds.
pub(crate) struct Sending<'a> {
    pub(crate) now: Time,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) outbox_bytes_max: usize,
    /// Topic aliases that we use at most.
    pub(crate) alias_maximum: u16,
    pub(crate) frames: &'a mut Frames,
    pub(crate) counts: &'a mut Local,
    /// What became of followed messages that waited.
    pub(crate) followed: &'a mut Vec<(u64, Fate)>,
}

impl Sending<'_> {
    /// How long the message was on its way through the broker. What was retained before is not on its way.
    #[inline]
    fn count_time(&mut self, routed: &Routed<'_>, retained: bool) {
        if !retained {
            let ms = routed.parts.waited_ms(self.now);
            self.counts.delivery_times.add(ms);
        }
    }
}

/// One frame, encoded once and used for every receiver that needs the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    key: Option<Key>,
    bytes: Vec<u8>,
    packet_id_at: usize,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Key {
    properties: bool,
    qos: Qos,
    retain: bool,
    identifier: u32,
}

impl Frames {
    /// The next message is another one.
    pub(crate) fn reset(&mut self) {
        self.key = None;
    }
}

/// A message that is being routed: borrowed from the read buffer, and made into a shared [`Message`] only if a
/// receiver needs one.
pub(crate) struct Routed<'a> {
    pub(crate) parts: MessageParts<'a>,
    pub(crate) shared: Option<Message>,
}

impl Routed<'_> {
    pub(crate) fn message(&mut self) -> Message {
        self.shared
            .get_or_insert_with(|| Message::new(&self.parts))
            .clone()
    }
}

/// How sending one message ended.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Yes,
    NoRoom,
    TooLarge,
}

impl Session {
    /// How many more QoS 1 and 2 messages may be sent.
    pub(crate) fn window_left(&self) -> usize {
        let sent = self.flow.as_ref().map_or(0, |flow| flow.outgoing.sent());
        usize::from(self.window).saturating_sub(sent)
    }

    /// Whether a QoS 1 or 2 message of that many bytes can be sent or can wait.
    pub(crate) fn has_room(&self, bytes: u64, queue: QueueMax) -> bool {
        let Some(flow) = &self.flow else {
            return true;
        };
        let outgoing = &flow.outgoing;
        self.is_online() && !outgoing.has_messages_waiting() && self.has_window()
            || outgoing.queue_has_room(bytes, queue)
    }

    /// Whether shared subscriptions were told that this session has no room.
    pub(crate) fn said_no_room(&self) -> bool {
        self.flow
            .as_ref()
            .is_some_and(|flow| flow.outgoing.no_room_for > 0)
    }

    /// Whether there is room again for what there was none for.
    pub(crate) fn found_room(&mut self, queue: QueueMax) -> bool {
        let bytes = self
            .flow
            .as_ref()
            .map_or(0, |flow| flow.outgoing.no_room_for);
        let found = bytes > 0 && self.has_room(bytes, queue);
        if let (true, Some(flow)) = (found, &mut self.flow) {
            flow.outgoing.no_room_for = 0;
        }
        found
    }

    /// Whether another QoS 1 or 2 message may be sent.
    pub(crate) fn has_window(&self) -> bool {
        self.window_left() > 0
    }

    /// Sends a QoS 0 message now or never.
    pub(crate) fn deliver_at_most_once(
        &mut self,
        routed: &mut Routed<'_>,
        retain: bool,
        identifiers: (u32, &[u32]),
        sending: &mut Sending<'_>,
    ) -> Fate {
        match self.send(routed, Qos::AtMostOnce, retain, None, identifiers, sending) {
            Sent::Yes => {
                sending.counts.delivered_qos0 += 1;
                sending.count_time(routed, retain);
                Fate::Sent
            }
            Sent::NoRoom => {
                let topic = routed.parts.topic;
                sending
                    .counts
                    .lose(Loss::OutboxFull, self.owner.client_id(), topic);
                Fate::OutboxFull
            }
            Sent::TooLarge => {
                let topic = routed.parts.topic;
                sending
                    .counts
                    .lose(Loss::TooLarge, self.owner.client_id(), topic);
                Fate::TooLarge
            }
        }
    }

    /// Sends a QoS 1 or 2 message now, or queues it. `sending` is `None` while the client is away.
    pub(crate) fn deliver(
        &mut self,
        routed: &mut Routed<'_>,
        delivery: impl FnOnce(Message) -> Delivery,
        queue: QueueMax,
        sending: Result<&mut Sending<'_>, &mut Local>,
    ) -> Fate {
        let window = usize::from(self.window);
        let flow = self.flow.get_or_insert_default();
        let delivery = delivery(routed.message());
        match sending {
            Ok(sending)
                if !flow.outgoing.has_messages_waiting() && flow.outgoing.sent() < window =>
            {
                match self.send_tracked(routed, delivery, sending) {
                    Ok(fate) => fate,
                    Err(delivery) => {
                        let flow = self.flow.get_or_insert_default();
                        let outgoing = &mut flow.outgoing;
                        outgoing.queue_push(self.owner.client_id(), delivery, queue, sending.counts)
                    }
                }
            }
            Ok(sending) => {
                let outgoing = &mut flow.outgoing;
                outgoing.queue_push(self.owner.client_id(), delivery, queue, sending.counts)
            }
            Err(counts) => {
                let outgoing = &mut flow.outgoing;
                outgoing.queue_push(self.owner.client_id(), delivery, queue, counts)
            }
        }
    }

    /// Sends what waits, as far as the window and the outbox let it.
    pub(crate) fn pump(&mut self, sending: &mut Sending<'_>) {
        if !self.resend(sending) {
            return;
        }
        loop {
            let window = usize::from(self.window);
            let Some(flow) = &mut self.flow else { return };
            if flow.outgoing.sent() >= window {
                return;
            }
            let Some(delivery) = flow.outgoing.queue_pop(sending.counts) else {
                return;
            };
            if delivery
                .message
                .expires_at()
                .is_some_and(|at| at <= sending.now)
            {
                let (client, topic) = (self.owner.client_id(), delivery.message.topic());
                sending.counts.lose(Loss::Expired, client, topic); // [MQTT-3.3.2-5]
                delivery.message.note(Fate::Expired, sending.followed);
                continue;
            }
            sending.frames.reset();
            let message = delivery.message.clone();
            let mut routed = Routed {
                parts: message.parts(),
                shared: Some(message.clone()),
            };
            match self.send_tracked(&mut routed, delivery, sending) {
                Ok(fate) => message.note(fate, sending.followed),
                Err(delivery) => {
                    sending.counts.queued += 1;
                    let outgoing = &mut self.flow().outgoing;
                    outgoing.queue_bytes += delivery.message.bytes() as u64;
                    sending.counts.memory_queues += delivery.held();
                    outgoing.queue.push_front(delivery);
                    return;
                }
            }
        }
    }

    fn send_tracked(
        &mut self,
        routed: &mut Routed<'_>,
        delivery: Delivery,
        sending: &mut Sending<'_>,
    ) -> Result<Fate, Delivery> {
        let packet_id = self.flow().outgoing.next_packet_id();
        let identifiers = (delivery.identifier, &delivery.more_identifiers[..]);
        match self.send(
            routed,
            delivery.qos,
            delivery.retain,
            Some((packet_id, false)),
            identifiers,
            sending,
        ) {
            Sent::Yes => {
                sending.counts.inflight += 1;
                sending.count_time(routed, delivery.retain);
                sending.counts.memory_queues += delivery.held();
                let in_flight = InFlight {
                    delivery: Some(delivery),
                    packet_id,
                };
                self.flow().outgoing.in_flight.push_back(in_flight);
                Ok(Fate::Sent)
            }
            Sent::TooLarge => {
                let topic = routed.parts.topic;
                sending
                    .counts
                    .lose(Loss::TooLarge, self.owner.client_id(), topic); // [MQTT-3.1.2-25]
                Ok(Fate::TooLarge)
            }
            Sent::NoRoom => Err(delivery),
        }
    }

    /// Sends again what was in flight when the last connection went [MQTT-4.4.0-1], in its order, and as far as the
    /// window of this connection and the outbox let it: whether that was all.
    fn resend(&mut self, sending: &mut Sending<'_>) -> bool {
        loop {
            let window = usize::from(self.window);
            let Some(flow) = &mut self.flow else {
                return true;
            };
            let outgoing = &mut flow.outgoing;
            let at = outgoing.sent();
            let Some(one) = outgoing.in_flight.get(at) else {
                return true;
            };
            if at >= window {
                return false;
            }
            let packet_id = one.packet_id;
            let Some(delivery) = one.delivery.clone() else {
                outgoing.unsent -= 1;
                self.pubrel(packet_id, ReasonCode::SUCCESS, sending.outbox);
                continue;
            };
            sending.frames.reset();
            let mut routed = Routed {
                parts: delivery.message.parts(),
                shared: Some(delivery.message.clone()),
            };
            let sent = self.send(
                &mut routed,
                delivery.qos,
                delivery.retain,
                Some((packet_id, true)),
                (delivery.identifier, &delivery.more_identifiers),
                sending,
            );
            let outgoing = &mut self.flow().outgoing;
            match sent {
                Sent::Yes => outgoing.unsent -= 1,
                Sent::NoRoom => return false,
                Sent::TooLarge => {
                    // The client came back with a smaller maximum packet size.
                    outgoing.end(at, sending.counts);
                    sending.counts.inflight -= 1;
                    let (client, topic) = (self.owner.client_id(), delivery.message.topic());
                    sending.counts.lose(Loss::TooLarge, client, topic);
                }
            }
        }
    }

    /// Appends one PUBLISH to the outbox, or says why not.
    fn send(
        &mut self,
        routed: &mut Routed<'_>,
        qos: Qos,
        retain: bool,
        packet_id: Option<(NonZeroU16, bool)>,
        (identifier, more_identifiers): (u32, &[u32]),
        sending: &mut Sending<'_>,
    ) -> Sent {
        let properties = self.version == Version::V5;
        let dup = packet_id.is_some_and(|(_, dup)| dup);
        let key = Key {
            properties,
            qos,
            retain,
            identifier,
        };
        let alias = if self.alias_maximum > 0 {
            self.alias(routed.parts.topic, sending)
        } else {
            Alias::None
        };
        let reusable = more_identifiers.is_empty() && !dup && matches!(alias, Alias::None);
        let frames = &mut *sending.frames;
        if !reusable || frames.key != Some(key) {
            let all: Vec<u32>;
            let identifiers = match (identifier, more_identifiers) {
                (0, _) => &[][..],
                (_, []) => std::slice::from_ref(&identifier),
                (first, more) => {
                    all = std::iter::once(first).chain(more.iter().copied()).collect();
                    &all[..] // [MQTT-3.3.4-4]
                }
            };
            let (topic, topic_alias) = match alias {
                Alias::None => (routed.parts.topic, None),
                Alias::New(alias) => (routed.parts.topic, Some(alias)),
                Alias::Known(alias) => ("", Some(alias)),
            };
            let remaining_s = |at: Time| at.since_ms(sending.now).div_ceil(1_000).max(1);
            let head = PublishHead {
                dup,
                qos,
                retain,
                topic,
                packet_id: packet_id.map(|(id, _)| id),
                forwardable: routed.parts.properties,
                message_expiry: routed
                    .parts
                    .expires_at
                    .map(|at| remaining_s(at).min(u32::MAX.into()) as u32),
                subscription_ids: identifiers,
                topic_alias,
            };
            frames.bytes.clear();
            frames.key = reusable.then_some(key);
            let payload = routed.parts.payload;
            let encoded = if payload.len() < SHARED_PAYLOAD_BYTES_MIN {
                codec::encode_publish(&mut frames.bytes, self.version, &head, payload)
            } else {
                codec::encode_publish_head(&mut frames.bytes, self.version, &head, payload.len())
            };
            match encoded {
                Ok(at) => frames.packet_id_at = at,
                Err(_) => {
                    // Too long with our own properties on top: as good as too large for the client.
                    frames.reset();
                    return Sent::TooLarge;
                }
            }
        }
        let payload_len = routed.parts.payload.len();
        let shared = payload_len >= SHARED_PAYLOAD_BYTES_MIN;
        let len = frames.bytes.len() + if shared { payload_len } else { 0 };
        if len > self.packet_bytes_max as usize {
            return Sent::TooLarge;
        }
        // An empty outbox takes anything: what grew on its way here beyond the bound could never leave otherwise.
        let waiting = sending.outbox.bytes();
        if waiting > 0 && waiting + len > sending.outbox_bytes_max {
            return Sent::NoRoom;
        }
        let at = sending.outbox.push(&frames.bytes);
        if let Some((packet_id, _)) = packet_id {
            sending
                .outbox
                .patch(at + frames.packet_id_at, packet_id.get());
        }
        if let Alias::New(alias) = alias {
            self.flow()
                .outgoing
                .aliases
                .insert(routed.parts.topic.into(), alias);
        }
        if shared {
            sending.outbox.push_payload(routed.message());
        }
        sending.counts.publishes_sent += 1;
        sending.counts.payload_bytes_sent += payload_len as u64;
        Sent::Yes
    }

    /// The first topics sent on a connection get its aliases, for as long as it lasts.
    fn alias(&mut self, topic: &str, sending: &Sending<'_>) -> Alias {
        let maximum = self.alias_maximum.min(sending.alias_maximum);
        if maximum == 0 {
            return Alias::None;
        }
        let aliases = &self.flow().outgoing.aliases;
        if let Some(alias) = aliases.get(topic) {
            return Alias::Known(*alias);
        }
        if aliases.len() < usize::from(maximum) {
            return Alias::New(aliases.len() as u16 + 1);
        }
        Alias::None
    }

    /// The client says PUBACK: false if that is no answer to what it got. To what is not known (any more) it means
    /// nothing.
    #[must_use]
    pub(crate) fn on_puback(&mut self, ack: Ack<'_>, counts: &mut Local) -> bool {
        let Some(flow) = &mut self.flow else {
            return true;
        };
        let Some(at) = flow.outgoing.find(ack.packet_id) else {
            return true;
        };
        let is_qos1 = |one: &InFlight| {
            one.delivery
                .as_ref()
                .is_some_and(|d| d.qos == Qos::AtLeastOnce)
        };
        let fits = is_qos1(&flow.outgoing.in_flight[at]);
        if fits {
            flow.outgoing.end(at, counts);
            ended(ack.reason, counts);
        }
        fits
    }

    /// The client says PUBREC: false if that is no answer to what it got.
    #[must_use]
    pub(crate) fn on_pubrec(
        &mut self,
        ack: Ack<'_>,
        outbox: &mut Outbox,
        counts: &mut Local,
    ) -> bool {
        let found = self
            .flow
            .as_ref()
            .and_then(|flow| flow.outgoing.find(ack.packet_id));
        let refused = ack.reason.is_failure();
        let (Some(at), Some(flow)) = (found, &mut self.flow) else {
            // With a reason of 0x80 or more the exchange is over for the client [MQTT-4.3.3-4].
            if !refused {
                let reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                self.pubrel(ack.packet_id, reason, outbox);
            }
            return true;
        };
        let one = &mut flow.outgoing.in_flight[at];
        match &one.delivery {
            Some(delivery) if delivery.qos != Qos::ExactlyOnce => return false,
            Some(_) if refused => {
                flow.outgoing.end(at, counts);
                ended(ack.reason, counts);
                return true;
            }
            // It has said before that it has the message.
            None if refused => {
                flow.outgoing.end(at, counts);
                ended(ReasonCode::SUCCESS, counts);
                return true;
            }
            // From here on only the identifier matters [MQTT-4.3.3-5].
            _ => {
                if let Some(delivery) = one.delivery.take() {
                    counts.memory_queues -= delivery.held();
                }
            }
        }
        self.pubrel(ack.packet_id, ReasonCode::SUCCESS, outbox);
        true
    }

    /// The client says PUBCOMP: false if that is no answer to what it got.
    #[must_use]
    pub(crate) fn on_pubcomp(&mut self, ack: Ack<'_>, counts: &mut Local) -> bool {
        let Some(flow) = &mut self.flow else {
            return true;
        };
        let Some(at) = flow.outgoing.find(ack.packet_id) else {
            return true;
        };
        let fits = flow.outgoing.in_flight[at].delivery.is_none();
        if fits {
            flow.outgoing.end(at, counts);
            ended(ReasonCode::SUCCESS, counts);
        }
        fits
    }

    fn pubrel(&self, packet_id: NonZeroU16, reason: ReasonCode, outbox: &mut Outbox) {
        let reason = if self.version == Version::V5 {
            reason
        } else {
            ReasonCode::SUCCESS
        };
        let ack = Ack {
            packet_id,
            reason,
            properties: Properties::EMPTY,
        };
        encode(outbox, self.version, &Packet::PubRel(ack));
    }
}

#[derive(Clone, Copy)]
enum Alias {
    None,
    New(u16),
    Known(u16),
}

fn ended(reason: ReasonCode, counts: &mut Local) {
    counts.inflight -= 1;
    if reason.is_failure() {
        counts.delivered_refused += 1;
    } else {
        counts.delivered_acknowledged += 1;
    }
}
