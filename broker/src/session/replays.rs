//! Retained messages on their way to new subscriptions of a session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use codec::Qos;

use crate::message::Message;
use crate::retained::Position;
use crate::router::Options;

/// What is to be replayed to one subscription, and how far that is.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    pub(crate) filter: Arc<str>,
    pub(crate) position: Position,
    pub(crate) identifier: u32,
    pub(crate) options: Options,
    /// The last retained message that was there when the session subscribed. Later ones come live, and not again.
    pub(crate) subscribed: u64,
    /// The last that was there when the client last came back: QoS 0 does not wait for those who are away, so it did not
    /// come live before.
    pub(crate) missed: u64,
}

impl Replay {
    /// Whether a retained message of that number is still to be sent.
    pub(crate) fn wants(&self, message: &Message, sequence: u64) -> bool {
        sequence <= self.subscribed
            || sequence <= self.missed && message.qos().min(self.options.qos()) == Qos::AtMostOnce
    }
}

/// One for each filter at most; the last one that was added comes first. Finding a filter's is no search, so that a
/// client that subscribes to the same many again and again costs what it sends.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    by_age: BTreeMap<u64, Replay>,
    ages: HashMap<Arc<str>, u64, ahash::RandomState>,
}

impl Replays {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Adds one in place of the filter's earlier one, if there is.
    pub(crate) fn push(&mut self, replay: Replay) {
        self.remove(&replay.filter);
        let age = self.by_age.last_key_value().map_or(0, |(age, _)| age + 1);
        self.ages.insert(Arc::clone(&replay.filter), age);
        self.by_age.insert(age, replay);
    }

    pub(crate) fn pop(&mut self) -> Option<Replay> {
        let (_, replay) = self.by_age.pop_last()?;
        self.ages.remove(&replay.filter);
        if self.by_age.is_empty() {
            *self = Self::default(); // lets the memory go
        }
        Some(replay)
    }

    pub(crate) fn remove(&mut self, filter: &str) {
        if let Some(age) = self.ages.remove(filter) {
            self.by_age.remove(&age);
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replay> {
        self.by_age.values_mut()
    }
}
