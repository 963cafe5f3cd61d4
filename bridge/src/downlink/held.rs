//! Messages that wait for a subscriber: those with an expiry and QoS 1 or 2 that came while nobody had subscribed to their
//! topic, because the node or the device has just been started again. Bounded in messages and bytes. Pure: no Kafka, no
//! clock, no threads.

use std::collections::{BTreeMap, VecDeque};

use broker::codec::Qos;
use broker::{Message, Time};

/// A record's partition and offset.
pub(super) type At = (i32, i64);

/// A message that waits, and where it lies in Kafka.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Message,
    pub(super) at: At,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Held {
    topics: BTreeMap<Box<str>, VecDeque<Waiting>>,
    messages: u64,
    bytes: u64,
    messages_max: u64,
    bytes_max: u64,
}

/// Whether a message may wait: somebody said until when it is of use, and what is retained waits in the broker.
pub(super) fn may_wait(message: &Message) -> bool {
    message.qos() != Qos::AtMostOnce && message.expires_at().is_some() && !message.retain()
}

impl Held {
    pub(super) fn new(messages_max: u32, bytes_max: u64) -> Self {
        Self {
            topics: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            messages_max: messages_max.into(),
            bytes_max,
        }
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> u64 {
        self.messages
    }

    /// Keeps a message behind the others of its topic; false when there is no room for it.
    pub(super) fn hold(&mut self, message: Message, at: At) -> bool {
        let bytes = message.bytes() as u64;
        if self.messages == self.messages_max || self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.messages += 1;
        self.bytes += bytes;
        let waiting = Waiting { message, at };
        if let Some(of_topic) = self.topics.get_mut(waiting.message.topic()) {
            of_topic.push_back(waiting);
        } else {
            self.topics
                .insert(waiting.message.topic().into(), VecDeque::from([waiting]));
        }
        true
    }

    /// Takes out what waits on `topic`, in its order.
    pub(super) fn take(&mut self, topic: &str) -> VecDeque<Waiting> {
        let of_topic = self.topics.remove(topic).unwrap_or_default();
        self.forget(&of_topic);
        of_topic
    }

    /// Takes out what waits on topics that have a subscriber now.
    pub(super) fn take_heard(&mut self, is_heard: impl Fn(&str) -> bool) -> Vec<Waiting> {
        let heard: Vec<Box<str>> = self
            .topics
            .keys()
            .filter(|topic| is_heard(topic))
            .cloned()
            .collect();
        heard.iter().flat_map(|topic| self.take(topic)).collect()
    }

    /// Takes out what nobody wants any more.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<Waiting> {
        let mut expired = Vec::new();
        let is_over = |waiting: &Waiting| waiting.message.expires_at().is_some_and(|at| at <= now);
        self.topics.retain(|_, of_topic| {
            if of_topic.iter().any(is_over) {
                let (over, left): (VecDeque<_>, _) = of_topic.drain(..).partition(is_over);
                *of_topic = left;
                expired.extend(over);
            }
            !of_topic.is_empty()
        });
        self.messages -= expired.len() as u64;
        self.bytes -= expired
            .iter()
            .map(|waiting| waiting.message.bytes() as u64)
            .sum::<u64>();
        expired
    }

    /// Lets go of everything: it will be read again.
    pub(super) fn clear(&mut self) {
        self.topics.clear();
        (self.messages, self.bytes) = (0, 0);
    }

    fn forget(&mut self, taken: &VecDeque<Waiting>) {
        self.messages -= taken.len() as u64;
        self.bytes -= taken
            .iter()
            .map(|waiting| waiting.message.bytes() as u64)
            .sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use broker::MessageParts;

    use super::*;

    fn message(topic: &str, qos: Qos, expires_at: Option<u64>, retain: bool) -> Message {
        Message::new(&MessageParts {
            topic,
            payload: b"x",
            qos,
            retain,
            properties: &[],
            expires_at: expires_at.map(Time),
            arrived_at: Time::default(),
        })
    }

    fn command(topic: &str, expires_at: u64) -> Message {
        message(topic, Qos::AtLeastOnce, Some(expires_at), false)
    }

    #[test]
    fn only_what_expires_is_not_retained_and_asks_for_an_acknowledgement_may_wait() {
        assert!(may_wait(&command("a", 5)));
        assert!(may_wait(&message("a", Qos::ExactlyOnce, Some(5), false)));
        assert!(!may_wait(&message("a", Qos::AtMostOnce, Some(5), false)));
        assert!(!may_wait(&message("a", Qos::AtLeastOnce, None, false)));
        assert!(!may_wait(&message("a", Qos::AtLeastOnce, Some(5), true)));
    }

    #[test]
    fn what_waits_goes_to_a_subscriber_in_its_order_or_expires() {
        let mut held = Held::new(10, 100_000);
        for (topic, expires_at, at) in [("a", 9, 1), ("b", 4, 2), ("a", 3, 3), ("a", 9, 4)] {
            assert!(held.hold(command(topic, expires_at), (0, at)));
        }
        let expired = |held: &mut Held, now| -> Vec<At> {
            let expired = held.take_expired(Time(now)).into_iter();
            expired.map(|waiting| waiting.at).collect()
        };
        assert_eq!(expired(&mut held, 3), [(0, 3)]);
        assert!(held.take_heard(|topic| topic == "c").is_empty());
        let heard = held.take_heard(|topic| topic == "a");
        assert!(heard.iter().map(|waiting| waiting.at).eq([(0, 1), (0, 4)]));
        assert_eq!(held.len(), 1);
        assert_eq!(expired(&mut held, 100), [(0, 2)]);
        assert_eq!((held.messages, held.bytes, held.topics.len()), (0, 0, 0));
    }

    #[test]
    fn what_waits_is_bounded_in_messages_and_in_bytes() {
        let one = command("a", 9).bytes() as u64;
        for (messages, bytes) in [(2, 100 * one), (100, 2 * one)] {
            let mut held = Held::new(messages, bytes);
            assert!(held.hold(command("a", 9), (0, 0)));
            assert!(held.hold(command("b", 9), (0, 1)));
            assert!(!held.hold(command("a", 9), (0, 2)));
            assert_eq!(held.take("a").len(), 1);
            assert!(held.hold(command("a", 9), (0, 2)), "there is room again");
        }
    }
}
