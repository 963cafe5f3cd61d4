//! A scenario worked out: every client, topic and message of a run by number. Nothing in here is rendered yet, so a plan
//! for ten million clients is as small as one for ten.
//!
//! Clients are numbered over all groups, group after group. A stream's messages go through *lanes*: a lane is one
//! publisher and one topic, so that order and loss can be judged by counting. Lane `l` of a stream is published by client
//! `l % publishers` of its group to topic `l % topics`.

use std::sync::Arc;
use std::time::Duration;

use codec::{Qos, Version};
use serde::{Deserialize, Serialize};

use crate::swarm::Client;
use crate::template::Template;
use crate::text_payload::TextPayload;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenario's name.
    pub name: String,
    /// Tells this run's messages from those of others.
    pub run: u32,
    /// Decides everything random.
    pub seed: u64,
    /// How clients connect.
    pub connect: ConnectPlan,
    /// Groups of like clients.
    pub groups: Vec<Group>,
    /// What is published.
    pub streams: Vec<Stream>,
    /// Clients that go and come back.
    pub churn: Option<Churn>,
    /// Runs before anything counts as measured (the ledger counts it).
    pub warm_up: Duration,
    /// The measured time.
    pub measured: Duration,
    /// How long to wait at the end for what is on its way.
    pub drain_max: Duration,
    /// What the run must keep to, or it has failed.
    pub limits: Checks,
}

impl Plan {
    /// Clients of all groups.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.groups.iter().map(|group| group.clients).sum()
    }

    /// The index of a client's group.
    #[must_use]
    pub fn group_of(&self, client: Client) -> usize {
        let after = self.groups.partition_point(|group| group.first <= client);
        after.saturating_sub(1)
    }
}

/// How clients connect.
#[derive(Debug, Clone)]
pub struct ConnectPlan {
    /// Protocol version.
    pub version: Version,
    /// Clean start.
    pub clean_start: bool,
    /// Session expiry of 5.0, in seconds.
    pub session_expiry_s: u32,
    /// Keep-alive in seconds; 0 is none.
    pub keep_alive_s: u16,
    /// Connections a second, all shares together; `None` is a storm: all that `in_progress_max` lets.
    pub per_second: Option<f64>,
    /// Connections that are begun and not accepted, over all shares.
    pub in_progress_max: u32,
    /// User name.
    pub username: Option<Template>,
    /// Password.
    pub password: Option<Secret>,
}

/// A password; its text is in no output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Like clients.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The first client.
    pub first: Client,
    /// How many.
    pub clients: u32,
    /// Client identifiers; `{n}` is the number in the group.
    pub client_id: Template,
    /// What each subscribes to.
    pub subscriptions: Vec<Subscription>,
    /// Whether it connects and subscribes only after the streams that publish [`Pace::Once`] have ended: for retained
    /// messages.
    pub late: bool,
    /// From when it is subscribed, each client takes no more from its connection; with 0 nothing.
    pub read_bytes_per_second: Option<u32>,
}

impl Group {
    /// Whether its clients may be so far behind that nothing of theirs can be called missing.
    #[must_use]
    pub fn reads_slowly(&self) -> bool {
        self.read_bytes_per_second.is_some()
    }
}

/// A subscription of each client of a group.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The filter without a share name; `{n}` is the client's number in the group, `{i}` counts from 0 below `count`.
    pub filter: Template,
    /// How many filters.
    pub count: u32,
    /// Name of the share, for a shared subscription.
    pub share: Option<String>,
    /// Requested QoS.
    pub qos: Qos,
    /// The stream whose messages are answered here, by its name.
    pub answers: Option<String>,
}

/// What is published by a group.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// The publishers' group.
    pub group: usize,
    /// Topic names; `{n}` is the topic's number.
    pub topic: Template,
    /// Different topics.
    pub topics: u32,
    /// Publisher-topic pairs: the larger of publishers and topics, and a multiple of the smaller.
    pub lanes: u32,
    /// QoS.
    pub qos: Qos,
    /// Retain flag.
    pub retain: bool,
    /// Size of a payload, stamp included; of text without a fill the largest.
    pub payload_bytes: u32,
    /// What payloads are, in place of a binary stamp and noise.
    pub text: Option<TextPayload>,
    /// When.
    pub pace: Pace,
    /// Messages of one lane that are due at the same time.
    pub burst: u32,
    /// Messages of one publisher that may be in flight with QoS 1 and 2; the broker may lower it.
    pub window: u32,
    /// Which lane is next.
    pub pick: Pick,
    /// Whose subscriptions get it.
    pub audiences: Vec<Audience>,
}

impl Stream {
    /// The publisher of a lane, by its number in the group.
    #[must_use]
    pub fn publisher(&self, lane: u32, publishers: u32) -> u32 {
        lane % publishers.max(1)
    }

    /// The number of a lane's topic.
    #[must_use]
    pub fn topic_of(&self, lane: u32) -> u32 {
        lane % self.topics.max(1)
    }
}

/// When messages are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second, all publishers together, from the first second of the warm-up on.
    PerSecond(f64),
    /// As many as the windows let: how fast the broker is.
    Highest,
    /// One for each lane, as fast as the windows let, before the warm-up begins.
    Once,
}

/// The order of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// One after the other.
    InTurn,
    /// Any.
    Random,
}

/// A subscription that gets a stream's messages.
#[derive(Debug, Clone)]
pub struct Audience {
    /// The group.
    pub group: usize,
    /// Its subscription.
    pub subscription: usize,
    /// QoS of the deliveries.
    pub qos: Qos,
    /// Who gets what.
    pub relation: Relation,
    /// Whether each message must arrive: not where clients leave and come back without a session, or read slowly.
    pub checked: bool,
}

/// Which clients of a group get which topics of a stream.
#[derive(Debug, Clone)]
pub enum Relation {
    /// Client `n` gets topic `n`, where there is one.
    Own,
    /// All clients get all topics.
    All,
    /// For each topic the clients, by their number in the group, ascending: one list for all shares of this process.
    Listed(Arc<[Vec<u32>]>),
    /// One member of the share gets each message.
    Shared,
    /// Whoever publishes gets an answer to each message, from a program that is no client of this tool. The audience's
    /// group is the stream's, and the QoS is the subscription's.
    Answers,
}

/// Clients that go and come back.
#[derive(Debug, Clone)]
pub struct Churn {
    /// The group.
    pub group: usize,
    /// Clients a second that leave and connect again at once, all shares together.
    pub per_second: f64,
    /// Leave all at once at these times after the warm-up instead.
    pub storms_at: Vec<Duration>,
    /// Whether the connection breaks, or the client says goodbye.
    pub abruptly: bool,
}

/// What a run must keep to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checks {
    /// Messages that did not arrive.
    pub missing_max: u64,
    /// Messages that arrived twice.
    pub duplicates_max: u64,
    /// Messages that arrived behind a later one of their lane.
    pub out_of_order_max: u64,
    /// Messages that arrived with other bytes than were published.
    pub damaged_max: u64,
    /// Messages that arrived with another QoS than that of the publish and the subscription ask for.
    pub qos_changed_max: u64,
    /// Publishes that were refused.
    pub refused_max: u64,
    /// Publishes that were never answered.
    pub unanswered_max: u64,
    /// Connections that the broker refused or ended.
    pub closed_max: u64,
}

/// A part of a plan that one process or thread runs: every client belongs to one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether a client belongs to it.
    #[must_use]
    pub fn owns(self, client: Client) -> bool {
        client.0 % self.count == self.index
    }
}
