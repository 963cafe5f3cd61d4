//! What requests and answers of the operators' API look like. The server writes these types and `millstream ctl` reads
//! them; the OpenAPI document describes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// What was found. May be fewer than asked for, or nothing, although there are more.
    pub items: Vec<T>,
    /// Where the next page begins: to be given as `cursor`. Without it this was the last one.
    pub next: Option<String>,
}

/// A client's session.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Client {
    /// The client identifier.
    pub client_id: String,
    /// Who it is, where somebody knows it.
    pub user: Option<String>,
    /// Whether the client is connected.
    pub connected: bool,
    /// Where it is connected from.
    pub address: Option<String>,
    /// The protocol's version: 3.1, 3.1.1 or 5.0.
    pub version: String,
    /// Milliseconds since it connected or, while it is away, since it was last connected.
    pub since_ms: u64,
    /// Milliseconds since its last packet.
    pub heard_ms: Option<u64>,
    /// Milliseconds until its session ends, while it is away.
    pub ends_in_ms: Option<u64>,
    /// Seconds that the session outlives its connection.
    pub expiry_s: u32,
    /// Whether the last connection asked for a new session.
    pub clean_start: bool,
    /// Its keep-alive in seconds; 0 is none.
    pub keep_alive_s: Option<u16>,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages that wait for it, beyond those in flight.
    pub queue_messages: u64,
    /// Bytes of these.
    pub queue_bytes: u64,
    /// Messages of QoS 1 and 2 sent to it and not acknowledged.
    pub in_flight: u64,
    /// How many of these there may be.
    pub in_flight_max: u16,
    /// Bytes that wait for its socket.
    pub outbox_bytes: u64,
    /// Its publishes that are not answered yet.
    pub unanswered: u64,
    /// Whether its publishes wait: for room in Kafka, or for earlier ones.
    pub held: bool,
    /// The topic of its will.
    pub will: Option<String>,
    /// The largest packet that it takes.
    pub packet_bytes_max: Option<u32>,
}

/// How a client is to be disconnected.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Disconnect {
    /// The reason code that a 5.0 client is told, 128 or more; without it 0x98, an administrative action.
    pub reason: Option<u8>,
    /// Whether the session ends, too: subscriptions and what waits are gone.
    pub end_session: bool,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Disconnected {
    /// The client identifier.
    pub client_id: String,
    /// Whether it was connected.
    pub was_connected: bool,
    /// Whether its session has ended.
    pub session_ended: bool,
}

/// A subscription.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Subscription {
    /// Whose it is.
    pub client_id: String,
    /// The filter as it was given, `$share/…` included.
    pub filter: String,
    /// The largest QoS with which it gets messages.
    pub qos: u8,
    /// Whether its own messages are left out.
    pub no_local: bool,
    /// Whether messages say that they were published to be retained.
    pub retain_as_published: bool,
    /// The subscription identifier.
    pub identifier: Option<u32>,
}

/// Who would get a message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Receivers {
    /// The topic.
    pub topic: String,
    /// Sessions by subscriptions of their own; not all, where there are very many.
    pub sessions: Vec<Receiver>,
    /// How many subscriptions match.
    pub subscriptions_total: u64,
    /// Shared subscriptions: one member of each gets it.
    pub groups: Vec<Group>,
}

/// A session that would get a message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Receiver {
    /// The client identifier.
    pub client_id: String,
    /// Whether the client is connected; if not, the message waits for it, unless its QoS is 0.
    pub connected: bool,
    /// The largest QoS of its subscriptions that match.
    pub qos: u8,
    /// Filters of it that match.
    pub filters: Vec<String>,
}

/// A group that shares a subscription.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// The share name.
    pub name: String,
    /// Its members; not all, where there are very many.
    pub members: Vec<Receiver>,
    /// How many there are.
    pub members_total: u64,
}

/// A retained message without its payload.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Retained {
    /// The topic.
    pub topic: String,
    /// The QoS with which it was published.
    pub qos: u8,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Milliseconds until it expires, if ever.
    pub expires_in_ms: Option<u64>,
}

/// A retained message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RetainedMessage {
    /// The topic.
    pub topic: String,
    /// The QoS with which it was published.
    pub qos: u8,
    /// The payload, where it is text.
    pub text: Option<String>,
    /// The payload in base64, where it is not.
    pub base64: Option<String>,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Milliseconds until it expires, if ever.
    pub expires_in_ms: Option<u64>,
}

/// Who is to be banned: one of both.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BanRequest {
    /// A client identifier.
    pub client_id: Option<String>,
    /// An address or a network, such as 10.0.0.5 or 2001:db8::/64.
    pub address: Option<String>,
    /// For how many seconds; without it, an hour.
    pub seconds: Option<u64>,
    /// Why, for whoever reads the list.
    pub why: Option<String>,
}

/// All bans.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Bans {
    /// In order of who.
    pub bans: Vec<Ban>,
    /// How many clients this request has disconnected.
    pub disconnected: u64,
    /// How many bans there may be.
    pub bans_max: u64,
}

/// A ban.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ban {
    /// The client identifier, if it is one's.
    pub client_id: Option<String>,
    /// The address or network, if it is of one.
    pub address: Option<String>,
    /// Milliseconds since it was made.
    pub since_ms: u64,
    /// Milliseconds until it is over.
    pub ends_in_ms: u64,
    /// Why.
    pub why: String,
    /// Connects that it has refused.
    pub refused: u64,
}

/// Who lost what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Drops {
    /// The latest first.
    pub items: Vec<Lost>,
    /// What was forgotten for want of room, by reason. With the items, all of them, it adds up to the counters.
    pub forgotten: Vec<Forgotten>,
}

/// What one client lost for one reason on one topic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The client identifier; empty where nobody knows it. Very long ones are cut.
    pub client_id: String,
    /// The topic, or the filter of a subscription; empty where it is about none. Very long ones are cut.
    pub topic: String,
    /// Why, by the name of its counter.
    pub reason: String,
    /// How often.
    pub times: u64,
    /// Milliseconds since the first time.
    pub first_ms: u64,
    /// Milliseconds since the last time.
    pub last_ms: u64,
}

/// What was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// Why it was lost.
    pub reason: String,
    /// How often.
    pub times: u64,
}

/// The topics with most publishes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Topics {
    /// Those with most first.
    pub topics: Vec<TopicRate>,
    /// Seconds that were counted.
    pub seconds: f64,
    /// All publishes in that time.
    pub publishes: u64,
    /// How many publishes any of the counts may be too small by, because only so many topics are counted.
    pub missed_max: u64,
}

/// What was published on one topic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TopicRate {
    /// The topic.
    pub topic: String,
    /// Publishes.
    pub publishes: u64,
    /// Publishes a second.
    pub per_second: f64,
    /// Bytes of payloads.
    pub bytes: u64,
    /// Deliveries of them.
    pub deliveries: u64,
}

/// A line of a trace.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TraceLine {
    /// Milliseconds since the trace began.
    pub ms: u64,
    /// The client.
    pub client_id: String,
    /// What it is about: received (from the client), sent (to it), delivery, event, or end.
    pub kind: String,
    /// What happened.
    pub text: String,
}

/// Where a node listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Listeners {
    /// One for each address.
    pub listeners: Vec<Listener>,
}

/// An address on which a node listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// What it is called.
    pub name: String,
    /// The address.
    pub address: String,
    /// What is spoken there: tcp, tls, ws, wss or http.
    pub transport: String,
}

/// What is logged.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level, or TARGET=LEVEL separated by commas.
    pub filter: String,
}

/// What a reload has done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// What has changed and holds from now on.
    pub changed: Vec<String>,
    /// What has changed in the configuration and holds after a restart.
    pub needs_restart: Vec<String>,
}

/// The drain has begun.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Drained {
    /// What happens now, in words.
    pub says: String,
}
