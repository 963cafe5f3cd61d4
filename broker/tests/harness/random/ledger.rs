//! What was published, and what each session must have got of it in the end.

use std::collections::{BTreeMap, HashMap};

/// A message's number: its payload begins with it, and a publisher's later messages have larger ones.
pub type Number = u32;

/// Some messages are too large to be copied for each receiver, and for some receivers.
pub fn is_large(number: Number) -> bool {
    number.is_multiple_of(37)
}

/// The area of a topic, and the topic in it: `r/AREA/PLACE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic {
    pub area: u8,
    pub place: u8,
}

impl Topic {
    pub fn name(self) -> String {
        format!("r/{}/{}", self.area, self.place)
    }
}

/// A filter of the kinds that sessions use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    One(Topic),
    Area(u8),
    Place(u8),
    All,
}

impl Filter {
    pub fn text(self) -> String {
        match self {
            Self::One(topic) => topic.name(),
            Self::Area(area) => format!("r/{area}/+"),
            Self::Place(place) => format!("r/+/{place}"),
            Self::All => "r/#".to_owned(),
        }
    }

    pub fn matches(self, topic: Topic) -> bool {
        match self {
            Self::One(one) => one == topic,
            Self::Area(area) => area == topic.area,
            Self::Place(place) => place == topic.place,
            Self::All => true,
        }
    }
}

/// A subscription that was granted and is kept.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    pub filter: Filter,
    pub qos: u8,
    pub since_tick: u64,
}

/// One message, as its publisher knows it.
#[derive(Debug, Clone)]
pub struct Published {
    pub publisher: usize,
    /// Which of the publisher's sessions it belongs to: order holds within one.
    pub epoch: u32,
    pub topic: Topic,
    pub qos: u8,
    pub sent_tick: u64,
    pub acknowledged: bool,
    /// The sink refused it at least once, so that a repetition may come out of order.
    pub refused: bool,
}

/// What one receiver (a session, or a shared subscription's group) got.
#[derive(Debug, Default)]
pub struct Received {
    /// Times that a message came, and times that it came with QoS 2.
    times: HashMap<Number, (u32, u32)>,
    /// The last message by publisher, epoch, topic and QoS of the publish.
    last: HashMap<(usize, u32, Topic, u8), Number>,
}

impl Received {
    /// Notes a message; panics if it is doubled with QoS 2, or (`ordered`) comes out of its publisher's order.
    /// Order is told by what came first: a publisher that repeats messages repeats them in order, but to a session
    /// that has just subscribed the repetition of an old one may be the first that it sees.
    pub fn note(&mut self, ledger: &Ledger, number: Number, qos: u8, ordered: bool, who: &str) {
        let message = &ledger.messages[number as usize];
        let times = self.times.entry(number).or_default();
        times.0 += 1;
        times.1 += u32::from(qos == 2);
        assert!(
            times.1 <= 1 || message.refused,
            "{who} got message {number} twice with QoS 2: {message:?}"
        );
        if times.0 > 1 || !ordered || message.refused || ledger.lossy {
            return;
        }
        let key = (message.publisher, message.epoch, message.topic, message.qos);
        if let Some(last) = self.last.insert(key, number) {
            assert!(
                last < number,
                "{who} got message {number} after {last}: {message:?}"
            );
        }
    }

    /// The acknowledged messages that these subscriptions should have brought and did not, of those that `counts`.
    pub fn missing(
        &self,
        ledger: &Ledger,
        granted: &[Granted],
        counts: impl Fn(Number, &Published) -> bool,
    ) -> Vec<Number> {
        let mut missing = Vec::new();
        let since_tick = granted
            .iter()
            .map(|one| one.since_tick)
            .min()
            .unwrap_or(u64::MAX);
        let from = ledger
            .messages
            .partition_point(|message| message.sent_tick <= since_tick);
        for (number, message) in (from as Number..).zip(&ledger.messages[from..]) {
            let due = message.qos > 0
                && message.acknowledged
                && counts(number, message)
                && granted.iter().any(|one| {
                    one.qos > 0
                        && one.since_tick < message.sent_tick
                        && one.filter.matches(message.topic)
                });
            if due && !self.times.contains_key(&number) {
                missing.push(number);
            }
        }
        missing
    }
}

/// All that was published.
#[derive(Debug, Default)]
pub struct Ledger {
    pub messages: Vec<Published>,
    /// Queues are short here, so that the repetition of a message may be the first that a session has room for.
    pub lossy: bool,
    /// Shared subscriptions by group name.
    pub groups: BTreeMap<&'static str, Received>,
}

impl Ledger {
    pub fn publish(&mut self, message: Published) -> Number {
        self.messages.push(message);
        self.messages.len() as Number - 1
    }

    /// The number that a payload begins with; `None` for messages that are not in the ledger.
    pub fn number(payload: &[u8]) -> Option<Number> {
        let end = payload.iter().position(|byte| !byte.is_ascii_digit());
        let digits = &payload[..end.unwrap_or(payload.len())];
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// A group member got a message.
    pub fn note_shared(&mut self, group: &'static str, number: Number, qos: u8) {
        let mut received = self.groups.remove(group).unwrap_or_default();
        received.note(self, number, qos, false, group);
        self.groups.insert(group, received);
    }
}
