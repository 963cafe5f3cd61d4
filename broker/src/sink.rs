//! The seam to whatever stores publishes (in this project: the Kafka bridge). The broker offers each publish once,
//! and holds the acknowledgement until the sink settles the publish's token. The broker knows nothing of what the
//! sink does with it.

use codec::{Properties, Qos, ReasonCode, Version};
use identity::Principal;

/// Names one publish that waits for its acknowledgement: a plain integer, so that a sink can pass it through any
/// library as an opaque number. Its bits are the broker's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

impl Token {
    /// The token of a publish that nobody waits for (QoS 0, wills, the broker's own messages): never settled.
    pub const NONE: Self = Self(u64::MAX);
}

/// A publish as it was received. It borrows from the worker's read buffer: a sink copies what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The topic name, aliases resolved.
    pub topic: &'a str,
    /// The payload, untouched.
    pub payload: &'a [u8],
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Whether it is to be retained.
    pub retain: bool,
    /// The MQTT 5 properties as received (a topic alias may be among them: it means nothing here), but that a message expiry
    /// is what is left of it, 0 where it is over. Empty for 3.x.
    pub properties: Properties<'a>,
    /// The publisher's client identifier.
    pub client_id: &'a str,
    /// Who the publisher is, where somebody has looked.
    pub principal: Option<&'a Principal>,
    /// The publisher's protocol version.
    pub version: Version,
}

/// When subscribers get a message that the sink has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// At once, without waiting for the sink.
    Now,
    /// When the sink has settled it as stored; never, when it is refused.
    AfterStored,
}

/// The sink's answer to one offered publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not for this sink: acknowledge and deliver.
    NotStored,
    /// Taken, and no settlement will come: acknowledge and deliver at once.
    Accepted,
    /// Taken; the token is settled exactly once later, and the acknowledgement waits for that.
    Pending {
        /// When subscribers get it.
        deliver: Deliver,
    },
    /// No room now. QoS 1 and 2: the publisher is held and the same publish is offered again after
    /// [`crate::Handle::sink_ready`]. QoS 0: dropped and counted.
    Busy,
    /// Refused for good.
    Refused(Refusal),
}

/// How a pending publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is stored: the publisher may be told.
    Stored,
    /// It is kept elsewhere than where it belongs: the publisher may be told, and it is not delivered as stored.
    SetAside,
    /// It is refused for good: the publisher is told so.
    Refused(Refusal),
}

/// Why a sink refuses a publish for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Larger than the store allows.
    TooLarge,
    /// The store does not let us write there.
    NotAuthorized,
    /// The store has no place of that name.
    UnknownTopic,
    /// Over a quota.
    Quota,
    /// Anything else.
    Other,
}

impl Refusal {
    /// The MQTT 5 reason code that tells the publisher. PUBACK and PUBREC have no "packet too large", so a message
    /// that is too large for the store is over its quota there.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::TooLarge | Self::Quota => ReasonCode::QUOTA_EXCEEDED,
            Self::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            Self::UnknownTopic => ReasonCode::TOPIC_NAME_INVALID,
            Self::Other => ReasonCode::UNSPECIFIED_ERROR,
        }
    }
}

/// Hears every publish that a client of this node makes.
pub trait Sink: Send + Sync {
    /// Takes, refuses or passes over one publish. Called on a worker's thread: it must not block, and it allocates no
    /// more than it must. `token` is [`Token::NONE`] where nobody waits.
    fn accept(&self, publish: &Incoming<'_>, token: Token) -> Verdict;
}

/// The sink of a plain broker: stores nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl Sink for NoSink {
    fn accept(&self, _: &Incoming<'_>, _: Token) -> Verdict {
        Verdict::NotStored
    }
}
