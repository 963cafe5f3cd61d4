//! What becomes of a record that was read: a message in a batch for the broker, a dead letter, or nothing.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use broker::{Delivered, Handle, Message};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::dead_letters::DeadLetters;
use super::decode::{self, Decoded, Header, Malformed};
use super::ledger::{Ledger, Positions, Weight};
use super::wakes::{Guard, Wakes};
use super::{Counters, count};
use crate::config::Config;

/// Records on their way to the broker.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<Message>,
    positions: Positions,
    pub(super) weight: Weight,
    /// Whether some of them became dead letters that are not confirmed.
    dead: bool,
}

/// See the module.
pub(super) struct Intake {
    config: Config,
    handle: Handle,
    wakes: Arc<Wakes>,
    counters: Arc<Counters>,
    dead_letters: Option<DeadLetters>,
}

impl Intake {
    pub(super) fn new(
        config: &Config,
        handle: Handle,
        wakes: &Arc<Wakes>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            config: config.clone(),
            handle,
            wakes: Arc::clone(wakes),
            counters: Arc::clone(counters),
            dead_letters: None,
        }
    }

    /// Adds a record to the batch. Returns false when the stop came before it could be dealt with: then the batch must not
    /// be handed over, and its records come again after the restart.
    pub(super) fn take(&mut self, batch: &mut Batch, record: &BorrowedMessage<'_>) -> bool {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let headers = decode::headers(record.headers());
        let decoded = match &headers {
            Ok(headers) => {
                decode::decode(decode::record(record, headers), self.handle.now(), now_ms)
            }
            Err(_) => Err(Malformed::HeaderName),
        };
        match decoded {
            Ok(Decoded::Message(message)) => {
                batch.weight.messages += 1;
                batch.weight.bytes += message.bytes() as u64;
                batch.messages.push(message);
            }
            Ok(Decoded::Expired) => count(&self.counters.expired, 1),
            Err(malformed) => {
                if !self.bury(record, &headers.unwrap_or_default(), &malformed) {
                    return false;
                }
                batch.dead = true;
            }
        }
        batch.weight.records += 1;
        batch
            .positions
            .insert(record.partition(), record.offset() + 1);
        true
    }

    /// Puts a record among the dead letters. Returns false when the stop came first.
    fn bury(
        &mut self,
        record: &BorrowedMessage<'_>,
        headers: &[Header<'_>],
        malformed: &Malformed,
    ) -> bool {
        count(&self.counters.malformed, 1);
        let (partition, offset) = (record.partition(), record.offset());
        tracing::warn!(
            partition,
            offset,
            "a downlink record cannot be published: {malformed}"
        );
        if self.dead_letters.is_none() {
            match DeadLetters::new(&self.config) {
                Ok(dead_letters) => self.dead_letters = Some(dead_letters),
                // The record itself stays where it is, and the line above tells where.
                Err(error) => tracing::error!(%error, "no producer for dead letters"),
            }
        }
        match &self.dead_letters {
            Some(dead_letters) => {
                dead_letters.send(record, headers, malformed, || self.wakes.stopping())
            }
            None => true,
        }
    }

    /// Hands a batch to the broker. Returns false when the stop came before its dead letters were confirmed.
    pub(super) fn hand_over(&self, batch: Batch, ledger: &mut Ledger) -> bool {
        if batch.weight.records == 0 {
            return true;
        }
        if batch.dead
            && let Some(dead_letters) = &self.dead_letters
        {
            match dead_letters.confirm(|| self.wakes.stopping()) {
                Some(confirmed) => count(&self.counters.dead_lettered, confirmed),
                None => return false,
            }
        }
        count(&self.counters.published, batch.weight.messages);
        let guard = Guard::new(&self.wakes, ledger.open(batch.positions, batch.weight));
        self.handle.publish(
            batch.messages,
            Some(Delivered::then(move || guard.arrived())),
        );
        true
    }
}
