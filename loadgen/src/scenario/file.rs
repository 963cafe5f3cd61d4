//! The scenario file: its keys, their defaults, nothing checked. Numbers are read wide and checked by
//! [`Scenario::plan`](super::Scenario::plan), so that what is wrong with them is said with the key's name.

use serde::{Deserialize, Serialize};

use crate::plan::{Checks, Pick, Secret};

/// Size of payloads where the file names none, in bytes.
pub const PAYLOAD_BYTES_DEFAULT: i64 = 100;

/// A scenario as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A short name.
    pub name: String,
    /// What it is for, in one line.
    #[serde(default)]
    pub about: String,
    /// How clients connect.
    #[serde(default)]
    pub connect: Connect,
    /// How long it runs.
    #[serde(default)]
    pub run: Run,
    /// Groups of like clients.
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
    /// What is published.
    #[serde(default, rename = "stream")]
    pub streams: Vec<Stream>,
    /// Clients that go and come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// What the run must keep to.
    #[serde(default)]
    pub limits: Checks,
}

/// Protocol version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 3.1.1, which every broker speaks.
    #[default]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
}

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.1.1" => Ok(Self::V311),
            "5.0" | "5" => Ok(Self::V5),
            _ => Err(format!(
                "protocol is \"{text}\"; allowed are \"3.1.1\" and \"5.0\""
            )),
        }
    }
}

/// How clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// Protocol version.
    pub protocol: Protocol,
    /// Clean start (5.0) or clean session (3.1.1).
    pub clean_start: bool,
    /// How long the broker keeps a session after its connection, in seconds; 5.0 only.
    pub session_expiry_s: i64,
    /// Keep-alive in seconds; 0 is none.
    pub keep_alive_s: i64,
    /// Connections a second; without it all at once, as a storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Connections that are begun and not yet accepted.
    pub in_progress_max: i64,
    /// User name; `{n}` is the client's number in its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 60,
            per_second: None,
            // Fewer than mosquitto's listen backlog of 100, beyond which connects wait for a second.
            in_progress_max: 64,
            username: None,
            password: None,
        }
    }
}

/// How long the parts of a run take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Before anything counts as measured, in seconds.
    pub warm_up_s: f64,
    /// The measured time, in seconds.
    pub seconds: f64,
    /// How long to wait at the end for what is on its way, in seconds.
    pub drain_max_s: f64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            warm_up_s: 5.0,
            seconds: 30.0,
            drain_max_s: 10.0,
        }
    }
}

/// Like clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many clients.
    pub clients: i64,
    /// Keeps its number of clients when the scenario is scaled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fixed: bool,
    /// Client identifiers; without it the group's name, a hyphen and the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Connects and subscribes only when the streams with `once` have ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub late: bool,
    /// From when it is subscribed, each client takes no more bytes a second from its connection; with 0 nothing at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<i64>,
    /// What each client subscribes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<Subscribe>,
}

/// A subscription of each client of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The filter; `{n}` is the client's number in its group, `{i}` counts from 0 below `count`.
    pub filter: String,
    /// How many filters each client has of it.
    #[serde(default = "one")]
    pub count: i64,
    /// Name of the share, for a shared subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Requested QoS.
    #[serde(default)]
    pub qos: i64,
    /// The stream of this group each of whose messages is answered here once, with its stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
}

/// What a group publishes. One of `per_second`, `highest` and `once` says when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// The publishers' group.
    pub group: String,
    /// Topic names; `{n}` is the topic's number.
    pub topic: String,
    /// How many topics; without it as many as publishers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<i64>,
    /// As many topics as this group has clients, instead of `topics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics_of: Option<String>,
    /// QoS.
    #[serde(default)]
    pub qos: i64,
    /// Retain flag.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retain: bool,
    /// Size of a payload in bytes, the stamp included; without it [`PAYLOAD_BYTES_DEFAULT`]. A `payload` without `{fill}`
    /// has a size of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<i64>,
    /// Text that payloads are, with `{stamp}` in it; without it they are a binary stamp and noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Messages a second, all publishers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// As many as the windows let.
    #[serde(default, skip_serializing_if = "is_false")]
    pub highest: bool,
    /// One message for each pair of publisher and topic, before the warm-up begins.
    #[serde(default, skip_serializing_if = "is_false")]
    pub once: bool,
    /// Messages of one publisher and topic that are due at the same time.
    #[serde(default = "one")]
    pub burst: i64,
    /// Messages of one publisher that may be in flight with QoS 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// Which publisher and topic is next.
    #[serde(default = "in_turn")]
    pub pick: Pick,
}

/// Clients that go and come back. One of `per_second` and `storms_at_s` says when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// The group.
    pub group: String,
    /// Clients a second that leave and connect again at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Seconds after the warm-up at which the whole group leaves and connects again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storms_at_s: Vec<f64>,
    /// The connection breaks, without a goodbye.
    #[serde(default)]
    pub abruptly: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

fn one() -> i64 {
    1
}

fn in_turn() -> Pick {
    Pick::InTurn
}
