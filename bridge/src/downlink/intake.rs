//! What becomes of a record that was read: a message in a batch for the broker, one that is held for a subscriber, a case
//! for the dead letters, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Delivered, Handle, Message};
use envelope::report::Outcome;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::decode::{self, Decoded, Malformed};
use super::held::{At, Held, may_wait};
use super::ledger::{Ledger, Positions, Weight};
use super::mark::{Look, Resumption};
use super::outcome;
use super::reports::{Asked, Reports, Told};
use super::seen::Seen;
use super::wakes::{Arrived, Guard, Wakes};
use super::{Counters, count};
use crate::clock;
use crate::config::Config;
use crate::status::DownlinkOutcome;

/// Records on their way to the broker.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<Message>,
    positions: Positions,
    /// Records in it that were held.
    released: Vec<At>,
    /// What is to be reported of records in it that are no messages for the broker.
    told: Vec<Told>,
    pub(super) weight: Weight,
}

/// See the module.
pub(super) struct Intake {
    handle: Handle,
    wakes: Arc<Wakes>,
    counters: Arc<Counters>,
    /// For who writes the dead letters.
    seen: Arc<Seen>,
    held: Held,
    pub(super) reports: Reports,
    /// Partitions of which something is read again.
    resumed: BTreeMap<i32, Resumption>,
}

impl Batch {
    fn push(&mut self, message: Message) {
        self.weight.messages += 1;
        self.weight.bytes += message.bytes() as u64;
        self.messages.push(message);
    }

    fn is_empty(&self) -> bool {
        self.weight.records == 0 && self.released.is_empty()
    }
}

impl Intake {
    pub(super) fn new(
        config: &Config,
        handle: Handle,
        wakes: &Arc<Wakes>,
        counters: &Arc<Counters>,
        seen: &Arc<Seen>,
        resumed: BTreeMap<i32, Resumption>,
    ) -> Self {
        let bounds = &config.downlink;
        let later = Arc::clone(wakes);
        handle.on_later(move |told| later.tell_later(told));
        Self {
            held: Held::new(bounds.held_messages_max, bounds.held_bytes_max),
            reports: Reports::new(bounds.reports_waiting_max),
            resumed,
            seen: Arc::clone(seen),
            handle,
            wakes: Arc::clone(wakes),
            counters: Arc::clone(counters),
        }
    }

    /// Adds a record to the batch.
    pub(super) fn take(
        &mut self,
        batch: &mut Batch,
        record: &BorrowedMessage<'_>,
        ledger: &mut Ledger,
    ) {
        let at = (record.partition(), record.offset());
        let look = self.look(at, ledger);
        if look == Look::Done {
            return;
        }
        let now_ms = clock::now_ms();
        let headers = decode::headers(record.headers());
        let decoded = match &headers {
            Ok(headers) => {
                decode::decode(decode::record(record, headers), self.handle.now(), now_ms)
            }
            Err(_) => Err(Malformed::HeaderName),
        };
        let asks = headers
            .as_deref()
            .ok()
            .and_then(|headers| decode::asks(record.key(), headers));
        let asked = asks.map(|(correlation, topic)| Asked {
            topic: topic.into(),
            correlation: correlation.into(),
            at,
        });
        let told = |outcome| asked.clone().map(|asked| Told::of_none(asked, outcome));
        match decoded {
            Ok(Decoded::Message(message)) if look == Look::IfItExpires && !may_wait(&message) => {}
            Ok(Decoded::Message(message)) => {
                let message = match asked {
                    Some(asked) => {
                        message.followed(self.reports.follow(asked, message.expires_at()))
                    }
                    None => message,
                };
                self.admit(batch, message, at, look, ledger);
            }
            Ok(Decoded::Expired) => {
                if look != Look::IfItExpires {
                    self.counters.expired();
                    batch.told.extend(told(Outcome::Expired));
                }
                ledger.unhold(at);
            }
            // To a node that Kafka did not know it is the others' matter.
            Err(_) if look == Look::IfItExpires => {}
            Err(malformed) => {
                let (partition, offset) = at;
                tracing::warn!(
                    partition,
                    offset,
                    "a downlink record cannot be published: {malformed}"
                );
                self.seen.broken(partition, offset);
                count(&self.counters.malformed, 1);
                self.counters.outcomes.count(DownlinkOutcome::Malformed);
                batch.told.extend(told(Outcome::Malformed));
            }
        }
        batch.weight.records += 1;
        if look != Look::Again {
            batch.positions.insert(at.0, at.1 + 1);
        }
    }

    /// What a record is to this node; it lets go of held ones that Kafka has not any more.
    fn look(&mut self, (partition, offset): At, ledger: &mut Ledger) -> Look {
        let Some(resumption) = self.resumed.get_mut(&partition) else {
            return Look::New;
        };
        let (look, gone) = resumption.look(offset);
        for offset in gone {
            self.counters.expired();
            ledger.unhold((partition, offset));
        }
        if look == Look::New {
            self.resumed.remove(&partition);
        }
        look
    }

    /// A message goes into the batch, behind those that were held for its topic; or it is held.
    fn admit(
        &mut self,
        batch: &mut Batch,
        message: Message,
        at: At,
        look: Look,
        ledger: &mut Ledger,
    ) {
        let is_heard = self.handle.has_subscriber(message.topic());
        if is_heard {
            for waiting in self.held.take(message.topic()) {
                batch.released.push(waiting.at);
                batch.push(waiting.message);
            }
        } else if may_wait(&message) {
            let number = message.number();
            if self.held.hold(message, at) {
                ledger.hold(at);
                // Of what it held before a restart it has reported that.
                let number = number.filter(|_| look != Look::Again);
                batch
                    .told
                    .extend(number.and_then(|number| self.reports.waiting(number)));
            } else {
                self.counters.outcomes.count(DownlinkOutcome::NoRoom);
                ledger.unhold(at);
                let end = |number| self.reports.end(number, Outcome::NoRoom);
                batch.told.extend(number.and_then(end));
            }
            return;
        }
        if look == Look::Again {
            batch.released.push(at);
        }
        batch.push(message);
    }

    /// Looks whether what is held has a subscriber now, or has expired. Returns what goes to the broker.
    pub(super) fn look_at_held(&mut self, ledger: &mut Ledger) -> Batch {
        let mut batch = Batch::default();
        for waiting in self.held.take_expired(self.handle.now()) {
            self.counters.expired();
            let number = waiting.message.number();
            match number.and_then(|number| self.reports.end(number, Outcome::Expired)) {
                // Kafka has the report before the position tells that it is over.
                Some(told) => {
                    batch.told.push(told);
                    batch.released.push(waiting.at);
                }
                None => ledger.unhold(waiting.at),
            }
        }
        let handle = &self.handle;
        for waiting in self.held.take_heard(|topic| handle.has_subscriber(topic)) {
            batch.released.push(waiting.at);
            batch.push(waiting.message);
        }
        batch
    }

    /// What is to be reported of messages that expired in sessions.
    pub(super) fn take_expired_in_sessions(&mut self) -> Vec<Told> {
        self.reports.take_expired(self.handle.now())
    }

    /// Messages that wait for a subscriber.
    pub(super) fn held(&self) -> u64 {
        self.held.len()
    }

    /// Everything that is not done is read again.
    pub(super) fn rewind(&mut self, resumed: BTreeMap<i32, Resumption>) {
        self.held.clear();
        self.reports.rewind();
        self.resumed = resumed;
    }

    /// Hands a batch to the broker.
    pub(super) fn hand_over(&mut self, batch: Batch, ledger: &mut Ledger) {
        if batch.is_empty() {
            return;
        }
        self.seen.read_to(&batch.positions);
        count(&self.counters.published, batch.weight.messages);
        let number = ledger.open(batch.positions, batch.released, batch.weight);
        self.reports.keep(number, batch.told);
        let guard = Guard::new(&self.wakes, number);
        let retained: Vec<bool> = batch.messages.iter().map(Message::retain).collect();
        let numbers = (0..).zip(batch.messages.iter().map(Message::number));
        let numbers: Vec<(usize, u64)> = numbers
            .filter_map(|(at, number)| Some((at, number?)))
            .collect();
        self.handle.publish(
            batch.messages,
            Some(Delivered::then(move |outcomes| {
                let words = outcomes.iter().zip(retained);
                let words: Vec<_> = words
                    .map(|(outcome, retain)| outcome::of(outcome, retain))
                    .collect();
                let numbered = numbers
                    .into_iter()
                    .filter_map(|(at, number)| Some((number, *outcomes.get(at)?, *words.get(at)?)));
                guard.arrived(Arrived {
                    numbered: numbered.collect(),
                    outcomes: words,
                });
            })),
        );
    }
}
