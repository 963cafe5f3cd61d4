//! Retained messages: the last one of each topic, in topic order, so that a wildcard subscription is answered by
//! walking on from where it stopped, a bounded number at a time.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use crate::message::Message;
use crate::time::Time;

/// Messages looked at in one step of a walk, so that a filter that matches little holds nobody up.
const EXAMINED_PER_STEP_MAX: usize = 4_096;

/// A retained message, ordered by its topic: by bytes, which order as the text does and need no look at whether they are
/// text.
struct ByTopic(Message);

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic_bytes() == other.0.topic_bytes()
    }
}

impl Eq for ByTopic {}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.topic_bytes().cmp(other.0.topic_bytes())
    }
}

#[derive(Default)]
struct Inner {
    by_topic: BTreeSet<ByTopic>,
    bytes: u64,
}

/// The retained messages of a node.
pub(crate) struct Retained {
    inner: RwLock<Inner>,
    messages_max: usize,
    bytes_max: u64,
}

/// Where a walk over the retained messages of a filter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    Start,
    After(Box<str>),
    End,
}

impl Retained {
    pub(crate) fn new(messages_max: usize, bytes_max: u64) -> Self {
        Self {
            inner: RwLock::default(),
            messages_max,
            bytes_max,
        }
    }

    /// Messages and bytes held.
    pub(crate) fn size(&self) -> (u64, u64) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        (inner.by_topic.len() as u64, inner.bytes)
    }

    /// Keeps `message` as its topic's last, or forgets the topic when the payload is empty [MQTT-3.3.1-6].
    /// False: it was not kept because a bound is reached.
    pub(crate) fn set(&self, message: Message) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(ByTopic(old)) = inner.by_topic.take(message.topic_bytes()) {
            inner.bytes -= old.bytes() as u64;
        }
        if message.payload().is_empty() {
            return true;
        }
        let bytes = message.bytes() as u64;
        if inner.by_topic.len() >= self.messages_max || inner.bytes + bytes > self.bytes_max {
            return false;
        }
        inner.bytes += bytes;
        inner.by_topic.insert(ByTopic(message));
        true
    }

    /// Appends up to `max` messages that match `filter`, from `position` on: the position behind them.
    pub(crate) fn walk(
        &self,
        filter: &str,
        position: &Position,
        now: Time,
        max: usize,
        out: &mut Vec<Message>,
    ) -> Position {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = |message: &Message| message.expires_at().is_none_or(|at| at > now);
        let push = |topic: &str, out: &mut Vec<Message>| {
            if let Some(ByTopic(message)) = inner.by_topic.get(topic.as_bytes())
                && fresh(message)
            {
                out.push(message.clone());
            }
        };
        if !topic::has_wildcard(filter) {
            if *position == Position::Start {
                push(filter, out);
            }
            return Position::End;
        }
        let prefix = &filter[..filter.find(['+', '#']).unwrap_or(filter.len())];
        let from = match position {
            Position::Start => {
                // "a/#" matches "a" too [MQTT-4.7.1-2], which stands outside of the range below.
                if let Some(parent) = filter.strip_suffix("/#")
                    && !topic::has_wildcard(parent)
                {
                    push(parent, out);
                }
                Bound::Included(prefix.as_bytes())
            }
            Position::After(topic) => Bound::Excluded(topic.as_bytes()),
            Position::End => return Position::End,
        };
        let before = out.len();
        let mut last: Option<&Message> = None;
        for (examined, ByTopic(message)) in inner
            .by_topic
            .range::<[u8], _>((from, Bound::Unbounded))
            .enumerate()
        {
            if !message.topic_bytes().starts_with(prefix.as_bytes()) {
                return Position::End;
            }
            if out.len() - before >= max || examined >= EXAMINED_PER_STEP_MAX {
                return match (last, position) {
                    (Some(last), _) => Position::After(last.topic().into()),
                    (None, position) => position.clone(),
                };
            }
            last = Some(message);
            if fresh(message) && topic::matches(filter, message.topic()) {
                out.push(message.clone());
            }
        }
        Position::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageParts;
    use codec::Qos;

    fn message(topic: &str, payload: &[u8], expires_at: Option<Time>) -> Message {
        Message::new(&MessageParts {
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at,
        })
    }

    fn all(retained: &Retained, filter: &str, step: usize) -> Vec<String> {
        let mut position = Position::Start;
        let mut topics = Vec::new();
        while position != Position::End {
            let mut out = Vec::new();
            position = retained.walk(filter, &position, Time(10), step, &mut out);
            assert!(out.len() <= step + 1); // the parent of "a/#" comes on top
            topics.extend(out.iter().map(|m| m.topic().to_owned()));
        }
        topics
    }

    #[test]
    fn a_walk_finds_what_matches_whatever_its_step() {
        let retained = Retained::new(100, 100_000);
        let topics = [
            "a", "a/b", "a/b/c", "a-b", "ab", "b/c", "$SYS/x", "/a", "a/",
        ];
        for topic in topics {
            assert!(retained.set(message(topic, b"1", None)));
        }
        for filter in ["#", "a/#", "a/+", "+/+", "a", "+", "$SYS/#", "x/#", "a/+/c"] {
            let mut expected: Vec<String> = topics
                .iter()
                .filter(|t| topic::matches(filter, t))
                .map(|t| (*t).to_owned())
                .collect();
            expected.sort();
            for step in [1, 2, 100] {
                let mut found = all(&retained, filter, step);
                found.sort();
                assert_eq!(found, expected, "{filter} in steps of {step}");
            }
        }
    }

    #[test]
    fn an_empty_payload_forgets_and_an_expired_message_is_not_found() {
        let retained = Retained::new(100, 100_000);
        retained.set(message("t", b"1", None));
        retained.set(message("u", b"1", Some(Time(5))));
        assert_eq!(all(&retained, "#", 10), ["t"]);
        retained.set(message("t", b"", None));
        assert!(all(&retained, "#", 10).is_empty());
        assert_eq!(retained.size().0, 1);
    }

    #[test]
    fn bounds_hold_and_replacing_is_not_growing() {
        let retained = Retained::new(1, 100_000);
        assert!(retained.set(message("t", b"1", None)));
        assert!(retained.set(message("t", b"2", None)));
        assert!(!retained.set(message("u", b"1", None)));
        assert_eq!(retained.size().0, 1);
    }
}
