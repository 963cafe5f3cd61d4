//! SUBSCRIBE and UNSUBSCRIBE: each filter is judged by itself, and what is wrong with one harms no other.

use std::sync::Arc;

use codec::{
    Packet, Properties, Qos, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, UnsubAck, Unsubscribe, Version,
};

use super::{Close, Step, Worker};
use crate::budget::Pressure;
use crate::limits::WORK_FILTER;
use crate::losses::Loss;
use crate::retained::Position;
use crate::router::{Join, Options, Receiver, SessionId};
use crate::session::Replay;

/// An answer has no property that could be left out [MQTT-3.1.2-24].
const ANSWER_TOO_LARGE: Close = Close::Protocol(
    ReasonCode::PACKET_TOO_LARGE,
    "the answer to so many filters is larger than the client takes",
);
const TOO_MANY_FILTERS: Close = Close::Protocol(
    ReasonCode::QUOTA_EXCEEDED,
    "more filters in an UNSUBSCRIBE than limits.filters_per_packet_max",
);
const EMPTY_FILTER: &str = "an empty topic filter";

impl Worker {
    pub(super) fn on_subscribe(
        &mut self,
        slot: u32,
        session_slot: u32,
        subscribe: &Subscribe<'_>,
    ) -> Step {
        let identifier = subscribe
            .properties
            .subscription_identifiers()
            .next()
            .unwrap_or(0);
        let mut reasons = Vec::new();
        let filters_max = self.settings.limits.filters_per_packet_max as usize;
        for (at, one) in subscribe.filters.iter().enumerate() {
            if one.filter.is_empty() && self.is_3x(slot) {
                return self.protocol_error(slot, EMPTY_FILTER);
            }
            let subscribed = if at < filters_max {
                self.work += WORK_FILTER;
                self.subscribe_one(session_slot, one, identifier)
            } else {
                Err(ReasonCode::QUOTA_EXCEEDED)
            };
            let reason = match subscribed {
                Ok(qos) => ReasonCode(u8::from(qos)),
                Err(reason) => {
                    let session = self.sessions.get(session_slot);
                    let client = session.map_or("", |session| session.owner.client_id());
                    self.counts
                        .lose(Loss::SubscriptionRefused, client, one.filter);
                    tracing::debug!(filter = one.filter, %reason, "subscription refused");
                    reason
                }
            };
            reasons.push(reason.0);
        }
        if let (Some(session), Some(outbox)) = (
            self.sessions.get(session_slot),
            self.connections.outbox(slot),
        ) {
            let packet = Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                properties: Properties::EMPTY,
                reasons: &reasons,
            });
            let max = session.packet_bytes_max;
            if !crate::session::encode_within(outbox, session.version, &packet, max) {
                return self.close_step(slot, ANSWER_TOO_LARGE);
            }
        }
        self.pump(slot, session_slot);
        Step::Done
    }

    /// Whether a client has no reason code for a filter that is none [MQTT-4.7.3-1].
    fn is_3x(&self, slot: u32) -> bool {
        let connection = self.connections.slab.get(slot);
        connection.is_some_and(|connection| connection.version != Version::V5)
    }

    /// Subscribes to one filter: with which quality of service.
    fn subscribe_one(
        &mut self,
        session_slot: u32,
        one: SubscribeFilter<'_>,
        identifier: u32,
    ) -> Result<Qos, ReasonCode> {
        let share = topic::split_share(one.filter).map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
        let inner = match &share {
            Some(share) => share.filter,
            None => {
                topic::validate_filter(one.filter).map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
                one.filter
            }
        };
        let limits = &self.settings.limits;
        if inner.split('/').count() > limits.topic_levels_max as usize {
            return Err(ReasonCode::TOPIC_FILTER_INVALID);
        }
        let generation = self.sessions.generation(session_slot);
        let Some(session) = self.sessions.get_mut(session_slot) else {
            return Err(ReasonCode::UNSPECIFIED_ERROR);
        };
        let asked = one.options.qos;
        let granted = match self
            .settings
            .access
            .may_subscribe(session.who(), inner, asked)
        {
            Ok(granted) => granted,
            Err(by) => {
                let denials = &self.settings.denials;
                denials.note(by, session.client_id(), inner, self.now);
                return Err(ReasonCode::NOT_AUTHORIZED);
            }
        };
        let granted_options = SubscriptionOptions {
            qos: granted.qos,
            ..one.options
        };
        let subscriptions = &session.subscriptions;
        let existing = subscriptions.get(one.filter);
        let is_new = existing.is_none();
        let bytes = (subscriptions.bytes() + one.filter.len()) as u64;
        let groups_max = limits.shared_groups_per_session_max as usize;
        let is_over = subscriptions.len() >= limits.subscriptions_max as usize
            || bytes > limits.subscription_bytes_max
            || share.is_some() && subscriptions.shares_len() >= groups_max;
        if is_new && (is_over || self.relief.pressure() == Pressure::Queues) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        let filter = existing.map_or_else(|| Arc::from(one.filter), Arc::clone);
        let options = Options::new(granted_options, granted.scope);
        let receiver = Receiver {
            session: SessionId::new(self.index, session_slot),
            identifier,
            generation,
            options,
        };
        let router = &self.shared.router;
        match &share {
            Some(share) => {
                let join = Join {
                    receiver,
                    client_id: session.client_id(),
                    hasher: &self.shared.hasher,
                    has_room: !session.said_no_room(),
                };
                let groups_max = limits.shared_groups_per_filter_max as usize;
                let member = router
                    .join(share.group, share.filter, &join, groups_max)
                    .ok_or(ReasonCode::QUOTA_EXCEEDED)?;
                if is_new {
                    let filter = Arc::clone(&filter);
                    session.subscriptions.insert_share(filter, member);
                }
            }
            None => {
                router.subscribe(&filter, receiver);
                if is_new {
                    session.subscriptions.insert(Arc::clone(&filter));
                }
            }
        }
        let replays = match one.options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // A shared subscription gets no retained messages (section 4.8.2).
        if replays
            && share.is_none()
            // Asked for after the subscription is known to publishers: what is kept from now on comes live.
            && let Some(subscribed) = self.shared.router.retained.sequence_for(&filter)
        {
            let replay = Replay {
                subscribed,
                missed: subscribed,
                filter,
                position: Position::Start,
                identifier,
                options,
            };
            session.flow().outgoing.replays.push(replay);
        }
        Ok(granted.qos)
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        slot: u32,
        session_slot: u32,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Step {
        let id = SessionId::new(self.index, session_slot);
        let filters_max = self.settings.limits.filters_per_packet_max as usize;
        let mut reasons = Vec::new();
        for (at, filter) in unsubscribe.filters.iter().enumerate() {
            if at >= filters_max {
                if self.is_3x(slot) {
                    return self.close_step(slot, TOO_MANY_FILTERS);
                }
                reasons.push(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR.0);
                continue;
            }
            if filter.is_empty() && self.is_3x(slot) {
                return self.protocol_error(slot, EMPTY_FILTER);
            }
            self.work += WORK_FILTER;
            let Some(session) = self.sessions.get_mut(session_slot) else {
                return Step::Closed;
            };
            let existed = session.subscriptions.remove(filter);
            if existed {
                match topic::split_share(filter) {
                    Ok(Some(share)) => self.shared.router.leave(share.group, share.filter, id),
                    _ => self.shared.router.unsubscribe(filter, id),
                };
                if let Some(flow) = &mut session.flow {
                    flow.outgoing.replays.remove(filter);
                }
            }
            let valid = matches!(topic::split_share(filter), Ok(Some(_)))
                || topic::validate_filter(filter).is_ok();
            reasons.push(match (existed, valid) {
                (true, _) => ReasonCode::SUCCESS.0,
                (false, true) => ReasonCode::NO_SUBSCRIPTION_EXISTED.0,
                (false, false) => ReasonCode::TOPIC_FILTER_INVALID.0,
            });
        }
        if let (Some(session), Some(outbox)) = (
            self.sessions.get_mut(session_slot),
            self.connections.outbox(slot),
        ) {
            session.tidy();
            let packet = Packet::UnsubAck(UnsubAck {
                packet_id: unsubscribe.packet_id,
                properties: Properties::EMPTY,
                reasons: &reasons,
            });
            let max = session.packet_bytes_max;
            if !crate::session::encode_within(outbox, session.version, &packet, max) {
                return self.close_step(slot, ANSWER_TOO_LARGE);
            }
        }
        Step::Done
    }
}
