//! Wills: published when their time has come, and offered to the sink, which may have no room. The will of a session that
//! lasts waits with it, and is delivered when it is stored, like any publish. A session that ends leaves its will behind: it
//! is delivered at once, and waits here to be stored until its client is back, which may not be overtaken by it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use codec::{Properties, Property, Version};
use identity::Principal;

use super::Worker;
use super::deliver::Origin;
use super::publish::seconds_left;
use crate::limits::{
    HELD_LIST_SPARE, WILL_RETRY_MS, WILLS_ASKED_MAX, WORK_PER_TURN_MAX, WORK_PUBLISH,
};
use crate::losses::Loss;
use crate::message::MessageParts;
use crate::router::SessionId;
use crate::session::{Routed, Will};
use crate::sink::{Incoming, Token, Verdict};
use crate::timers::Timer;

/// Whose a will is.
#[derive(Debug)]
struct Author {
    client_id: Box<str>,
    principal: Option<Arc<Principal>>,
    version: Version,
}

/// A will that was delivered and is to be stored.
#[derive(Debug)]
struct Waiting {
    will: Will,
    author: Author,
    /// Tells it from an earlier one of its client.
    number: u64,
}

/// Wills that wait to be stored, by client identifier.
#[derive(Debug, Default)]
pub(super) struct WaitingWills {
    by_client: HashMap<Box<str>, Waiting>,
    /// The order in which they are offered: whoever is turned away goes to the end. May name some that wait no more.
    turns: VecDeque<(u64, Box<str>)>,
    next_number: u64,
    /// The timer runs.
    is_armed: bool,
}

/// Bytes that a will takes while it waits.
fn bytes_of(client_id: &str, will: &Will) -> u64 {
    let content = will.topic.len() + will.payload.len() + will.properties.len();
    (size_of::<Waiting>() + 3 * client_id.len() + content) as u64
}

impl Worker {
    /// Publishes a will. If the sink has no room it waits with the session, or, when that ends, on its own.
    pub(super) fn publish_will(&mut self, slot: u32, mut will: Will, ends: bool) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let author = Author {
            client_id: session.client_id().into(),
            principal: session.owner.principal().cloned(),
            version: session.version,
        };
        let verdict = self.offer_will(&author, &mut will);
        if verdict == Verdict::Busy && !ends {
            let due = Some(self.now.plus_ms(WILL_RETRY_MS));
            if let Some(session) = self.sessions.get_mut(slot) {
                session.will = Some(Box::new(Will {
                    due,
                    delay_s: 0,
                    ..will
                }));
            }
            return;
        }
        if !matches!(verdict, Verdict::Refused(_)) {
            self.deliver_will(slot, &will);
        }
        if verdict == Verdict::Busy {
            self.keep_will(author, will);
        }
    }

    /// Offers a will to the sink, with what is left of its expiry, and counts the answer unless there is no room.
    fn offer_will(&mut self, author: &Author, will: &mut Will) -> Verdict {
        let mut properties = will.properties.to_vec();
        let offered = *will.offered.get_or_insert(self.now);
        if let Some(expiry_s) = will.message_expiry_s {
            let left_s = seconds_left(expiry_s, offered, self.now);
            Property::MessageExpiryInterval(left_s)
                .encode(&mut properties)
                .unwrap_or_default();
        }
        let incoming = Incoming {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: Properties::from_validated(&properties),
            client_id: &author.client_id,
            principal: author.principal.as_deref(),
            version: author.version,
        };
        let verdict = self.sink.accept(&incoming, Token::NONE);
        match verdict {
            Verdict::Busy => {}
            Verdict::NotStored => self.counts.sink_not_stored += 1,
            Verdict::Accepted | Verdict::Pending { .. } => self.counts.sink_accepted += 1,
            Verdict::Refused(_) => {
                self.counts
                    .lose(Loss::SinkRefused, &author.client_id, &will.topic)
            }
        }
        verdict
    }

    fn deliver_will(&mut self, session_slot: u32, will: &Will) {
        self.counts.wills_published += 1;
        let offered = will.offered.unwrap_or(self.now);
        let parts = MessageParts {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: &will.properties,
            expires_at: will.message_expiry_s.map(|s| offered.plus_s(s.into())),
            arrived_at: self.now,
        };
        let generation = self.sessions.generation(session_slot);
        let origin = Origin::Client(SessionId::new(self.index, session_slot), generation);
        let mut routed = Routed {
            parts,
            shared: None,
        };
        self.route(&mut routed, origin, None);
    }

    /// Keeps a will that was delivered, to be stored.
    fn keep_will(&mut self, author: Author, will: Will) {
        let client_id = author.client_id.clone();
        self.forgo_will(&client_id);
        let bytes = bytes_of(&client_id, &will);
        let waiting = self
            .shared
            .waiting_wills
            .fetch_add(bytes, Ordering::Relaxed)
            + bytes;
        if self.is_draining() || waiting > self.settings.limits.waiting_wills_bytes_max {
            self.shared
                .waiting_wills
                .fetch_sub(bytes, Ordering::Relaxed);
            self.counts
                .lose(Loss::WillNotStored, &client_id, &will.topic);
            return;
        }
        let wills = &mut self.waiting_wills;
        if wills.by_client.is_empty() {
            wills.turns.clear();
        } else if wills.turns.len() > 2 * wills.by_client.len() + HELD_LIST_SPARE as usize {
            let by_client = &wills.by_client;
            let waits = |(number, client_id): &(u64, Box<str>)| {
                by_client
                    .get(client_id)
                    .is_some_and(|waiting| waiting.number == *number)
            };
            wills.turns.retain(waits);
        }
        let number = wills.next_number;
        wills.next_number += 1;
        wills.turns.push_back((number, client_id.clone()));
        let waiting = Waiting {
            will,
            author,
            number,
        };
        wills.by_client.insert(client_id, waiting);
        self.counts.wills_waiting += 1;
        self.arm_wills();
    }

    /// Has the timer run while wills wait.
    fn arm_wills(&mut self) {
        let wills = &mut self.waiting_wills;
        if !wills.by_client.is_empty() && !wills.is_armed {
            wills.is_armed = true;
            let at = self.now.plus_ms(WILL_RETRY_MS);
            self.timers.at(at, Timer::Wills);
        }
    }

    /// Takes the will of a client out of those that wait.
    fn take_waiting_will(&mut self, client_id: &str) -> Option<Waiting> {
        let waiting = self.waiting_wills.by_client.remove(client_id)?;
        let bytes = bytes_of(client_id, &waiting.will);
        self.shared
            .waiting_wills
            .fetch_sub(bytes, Ordering::Relaxed);
        self.counts.wills_waiting -= 1;
        Some(waiting)
    }

    /// The client is back: what it publishes now may not be overtaken by its will, which has its last chance.
    pub(super) fn forgo_will(&mut self, client_id: &str) {
        if self.waiting_wills.by_client.is_empty() {
            return;
        }
        if let Some(mut waiting) = self.take_waiting_will(client_id)
            && self.offer_will(&waiting.author, &mut waiting.will) == Verdict::Busy
        {
            let topic = &waiting.will.topic;
            self.counts.lose(Loss::WillNotStored, client_id, topic);
        }
    }

    /// Offers wills that wait, until enough of them were turned away.
    pub(super) fn wills_due(&mut self) {
        let mut turned_away = 0;
        for _ in 0..self.waiting_wills.turns.len() {
            if turned_away == WILLS_ASKED_MAX || self.work >= WORK_PER_TURN_MAX {
                break;
            }
            let Some((number, client_id)) = self.waiting_wills.turns.pop_front() else {
                break;
            };
            let waits = |waiting: &Waiting| waiting.number == number;
            if !self
                .waiting_wills
                .by_client
                .get(&client_id)
                .is_some_and(waits)
            {
                continue;
            }
            let Some(mut waiting) = self.take_waiting_will(&client_id) else {
                continue;
            };
            self.work += WORK_PUBLISH;
            if self.offer_will(&waiting.author, &mut waiting.will) == Verdict::Busy {
                turned_away += 1;
                let bytes = bytes_of(&client_id, &waiting.will);
                self.shared
                    .waiting_wills
                    .fetch_add(bytes, Ordering::Relaxed);
                self.counts.wills_waiting += 1;
                self.waiting_wills
                    .turns
                    .push_back((number, client_id.clone()));
                self.waiting_wills.by_client.insert(client_id, waiting);
            }
        }
    }

    /// The timer of the wills that wait fires.
    pub(super) fn wills_timer(&mut self) {
        self.waiting_wills.is_armed = false;
        self.wills_due();
        self.arm_wills();
    }

    /// The worker ends: no will waits any longer.
    pub(super) fn forgo_wills(&mut self) {
        let clients: Vec<_> = self.waiting_wills.by_client.keys().cloned().collect();
        for client_id in clients {
            self.forgo_will(&client_id);
        }
    }
}
