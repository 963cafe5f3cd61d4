//! A message on its way to its receivers: decoded once, one allocation, shared by reference.
//!
//! The allocation is one `Arc<[u8]>` of a fixed head and then topic, properties and payload, so that a clone is a
//! counter and not a copy. What is per receiver (packet identifier, subscription identifiers, the remaining expiry)
//! is not in it.

use std::sync::Arc;

use codec::{Properties, Qos};

use crate::outcome::Fate;
use crate::time::Time;

/// What a [`Message`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct MessageParts<'a> {
    /// The topic name: valid, no alias.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// The encoded MQTT 5 properties that a server forwards unaltered (`codec::publish_forwardable`).
    pub properties: &'a [u8],
    /// When it expires, if ever.
    pub expires_at: Option<Time>,
    /// When it came to this broker.
    pub arrived_at: Time,
}

/// Six bytes of milliseconds are 8,900 years.
const EXPIRES: usize = 0;
/// Four bytes of milliseconds are 49 days: for what is told apart by it, that is enough.
const ARRIVED: usize = 6;
const PROPERTIES_LEN: usize = 10;
const TOPIC_LEN: usize = 14;
const FLAGS: usize = 16;
const HEAD: usize = 17;
const NEVER: u64 = (1 << 48) - 1;
const RETAIN: u8 = 0b100;
/// Its number stands behind the payload.
const FOLLOWED: u8 = 0b1000;
const NUMBER: usize = size_of::<u64>();
/// What an [`Arc`] adds.
const COUNTERS: usize = 2 * size_of::<usize>();

/// A shared, immutable message. Two words; cloning it copies nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

impl Message {
    /// Builds a message. `scratch` is working memory that the caller reuses.
    ///
    /// # Panics
    /// If the topic is longer than 65,535 bytes or the properties than 4 GiB: neither leaves the codec.
    #[must_use]
    pub fn build(parts: &MessageParts<'_>, scratch: &mut Vec<u8>) -> Self {
        let topic_len = u16::try_from(parts.topic.len()).expect("the codec bounds topics");
        let properties_len =
            u32::try_from(parts.properties.len()).expect("the codec bounds properties");
        scratch.clear();
        scratch.reserve(HEAD + parts.topic.len() + parts.properties.len() + parts.payload.len());
        let expires_at = parts.expires_at.map_or(NEVER, |at| at.0.min(NEVER - 1));
        scratch.extend_from_slice(&expires_at.to_le_bytes()[..ARRIVED]);
        scratch.extend_from_slice(&(parts.arrived_at.0 as u32).to_le_bytes());
        scratch.extend_from_slice(&properties_len.to_le_bytes());
        scratch.extend_from_slice(&topic_len.to_le_bytes());
        scratch.push(u8::from(parts.qos) | if parts.retain { RETAIN } else { 0 });
        scratch.extend_from_slice(parts.topic.as_bytes());
        scratch.extend_from_slice(parts.properties);
        scratch.extend_from_slice(parts.payload);
        Self(Arc::from(&scratch[..]))
    }

    /// Builds a message with working memory of its own.
    ///
    /// # Panics
    /// As [`Message::build`].
    #[must_use]
    pub fn new(parts: &MessageParts<'_>) -> Self {
        Self::build(parts, &mut Vec::new())
    }

    /// The same under a number, by which [`crate::Handle::on_later`] tells what becomes of it where it has to wait.
    #[must_use]
    pub fn followed(&self, number: u64) -> Self {
        let payload_end = self.payload_end();
        let mut bytes = Vec::with_capacity(payload_end + NUMBER);
        bytes.extend_from_slice(&self.0[..payload_end]);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes[FLAGS] |= FOLLOWED;
        Self(Arc::from(bytes))
    }

    /// The number under which it is followed, if it is.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let (_, number) = self.0.split_last_chunk::<NUMBER>()?;
        self.is_followed().then(|| u64::from_le_bytes(*number))
    }

    fn is_followed(&self) -> bool {
        self.0[FLAGS] & FOLLOWED != 0
    }

    /// Takes down what has become of a delivery of it that had to wait, where somebody follows it.
    #[inline]
    pub(crate) fn note(&self, fate: Fate, followed: &mut Vec<(u64, Fate)>) {
        if self.is_followed() {
            followed.extend(self.number().map(|number| (number, fate)));
        }
    }

    fn head<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N]
            .try_into()
            .expect("the head is there from the start")
    }

    fn topic_end(&self) -> usize {
        HEAD + usize::from(u16::from_le_bytes(self.head(TOPIC_LEN)))
    }

    fn payload_start(&self) -> usize {
        self.topic_end() + u32::from_le_bytes(self.head(PROPERTIES_LEN)) as usize
    }

    fn payload_end(&self) -> usize {
        self.0.len() - if self.is_followed() { NUMBER } else { 0 }
    }

    /// The topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    /// The topic name's bytes.
    pub(crate) fn topic_bytes(&self) -> &[u8] {
        &self.0[HEAD..self.topic_end()]
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0[self.payload_start()..self.payload_end()]
    }

    /// The publisher's quality of service.
    #[must_use]
    pub fn qos(&self) -> Qos {
        Qos::try_from(self.0[FLAGS] & 0b11).unwrap_or(Qos::AtMostOnce)
    }

    /// Whether it was published to be retained.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.0[FLAGS] & RETAIN != 0
    }

    /// The encoded properties that are forwarded unaltered.
    #[must_use]
    pub fn properties_bytes(&self) -> &[u8] {
        &self.0[self.topic_end()..self.payload_start()]
    }

    /// The properties that are forwarded unaltered.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_validated(self.properties_bytes())
    }

    /// When it expires, if ever.
    #[must_use]
    pub fn expires_at(&self) -> Option<Time> {
        let mut at = [0; 8];
        at[..ARRIVED].copy_from_slice(&self.head::<ARRIVED>(EXPIRES));
        let at = u64::from_le_bytes(at);
        (at != NEVER).then_some(Time(at))
    }

    /// When it came to this broker, in milliseconds modulo 2^32; see [`MessageParts::waited_ms`].
    fn arrived_at(&self) -> Time {
        Time(u32::from_le_bytes(self.head(ARRIVED)).into())
    }

    /// Bytes that it holds in memory, its counters included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len() + COUNTERS
    }

    /// The same of a message that is not built yet, of a topic, properties and payload of so many bytes in all.
    pub(crate) fn bytes_of(content: usize) -> usize {
        HEAD + content + COUNTERS
    }

    /// What it is made of, to build another from.
    #[must_use]
    pub fn parts(&self) -> MessageParts<'_> {
        MessageParts {
            topic: self.topic(),
            payload: self.payload(),
            qos: self.qos(),
            retain: self.retain(),
            properties: self.properties_bytes(),
            expires_at: self.expires_at(),
            arrived_at: self.arrived_at(),
        }
    }
}

impl MessageParts<'_> {
    /// For how long it has been with this broker, in milliseconds; counts anew after 49 days.
    pub(crate) fn waited_ms(&self, now: Time) -> u64 {
        u64::from((now.0 as u32).wrapping_sub(self.arrived_at.0 as u32))
    }
}

impl std::fmt::Debug for Message {
    // Payloads are the users' own: they stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let parts = MessageParts {
            topic: "a/b",
            payload: b"payload",
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: &[1, 1],
            expires_at: Some(Time(77)),
            arrived_at: Time((1 << 32) + 5),
        };
        let message = Message::new(&parts);
        assert_eq!(message.topic(), "a/b");
        assert_eq!(message.payload(), b"payload");
        assert_eq!(message.qos(), Qos::ExactlyOnce);
        assert!(message.retain());
        assert_eq!(message.properties_bytes(), [1, 1]);
        assert_eq!(message.expires_at(), Some(Time(77)));
        assert_eq!(message.parts().waited_ms(Time((1 << 32) + 12)), 7);
        let empty = Message::new(&MessageParts {
            payload: b"",
            properties: b"",
            expires_at: None,
            arrived_at: Time(u64::from(u32::MAX)),
            ..parts
        });
        assert_eq!(empty.payload(), b"");
        assert_eq!(empty.expires_at(), None);
        assert_eq!(empty.parts().waited_ms(Time(1 << 32)), 1);
        assert_eq!(size_of::<Message>(), 16);
    }

    #[test]
    fn a_number_to_follow_it_by_changes_nothing_else() {
        let parts = MessageParts {
            topic: "a",
            payload: b"payload",
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: &[1, 1],
            expires_at: None,
            arrived_at: Time(3),
        };
        let plain = Message::new(&parts);
        let mut noted = Vec::new();
        plain.note(Fate::Sent, &mut noted);
        assert_eq!((plain.number(), noted.len()), (None, 0));
        let followed = plain.followed(7).followed(8);
        followed.note(Fate::Expired, &mut noted);
        assert_eq!(
            (followed.number(), noted),
            (Some(8), vec![(8, Fate::Expired)])
        );
        assert_eq!(
            (followed.payload(), followed.topic()),
            (&b"payload"[..], "a")
        );
        assert_eq!(followed.properties_bytes(), [1, 1]);
        assert_eq!(Message::new(&followed.parts()), plain);
    }
}
