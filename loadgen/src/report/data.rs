//! What a run found out, as data: written as JSON, drawn as a page, compared with other runs. Counts are exact; times are
//! histograms that are kept whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::Histo;
use crate::plan::Checks;
use crate::swarm::Handshakes;

/// Number of this format; a reader refuses what it does not know.
pub const FORMAT: u32 = 1;

/// What [`Report::target`] is when broker and clients were in one process.
pub const SIMULATED: &str = "simulated";

/// A whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What to call this run beside others, for example the broker's name.
    pub name: String,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario as it ran, as TOML; secrets hidden.
    pub scenario_toml: String,
    /// The command line.
    pub command: Vec<String>,
    /// This tool's version.
    pub tool_version: String,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub began_at_ms: u64,
    /// Whom it loaded: an address, or [`SIMULATED`].
    pub target: String,
    /// What was between the clients' sockets and MQTT: `TLS`, `WebSocket`, …; empty where nothing was.
    #[serde(default)]
    pub transport: String,
    /// The machine.
    pub machine: Machine,
    /// Whether it was ended before its time, and by what.
    pub interrupted: Option<String>,
    /// How the broker was lost in the middle of the run, when it was: the first of the failures.
    #[serde(default)]
    pub broker_lost: Option<String>,
    /// Why figures say more of this tool than of the broker; empty when they do not.
    pub tool_was_the_limit: Vec<String>,
    /// What the run did not keep to; empty for a run that passed.
    pub failures: Vec<String>,
    /// What is worth knowing and no failure.
    pub remarks: Vec<String>,
    /// What the run had to keep to.
    pub checks: Checks,
    /// Connecting.
    pub connects: Connects,
    /// What was published, by stream.
    pub streams: Vec<StreamReport>,
    /// What arrived, by stream and subscription.
    pub audiences: Vec<AudienceReport>,
    /// Messages that arrived and are of no stream of this run: somebody else's, or of an earlier run.
    pub foreign: u64,
    /// Those of them that came in the measured time.
    #[serde(default)]
    pub foreign_measured: u64,
    /// Messages of this run that came to a client that had not asked for them.
    pub misdelivered: u64,
    /// Answers to packets that nobody had sent.
    pub unasked: u64,
    /// The run second by second, from the first connect on.
    pub seconds: Vec<Second>,
    /// When the measured time begins and ends, in seconds from the first connect on.
    pub measured: (f64, f64),
    /// The broker's process and host.
    pub server: Option<Server>,
    /// This tool.
    pub tool: Tool,
    /// Shares (processes, machines) that did not report to the end.
    pub lost_shares: Vec<String>,
}

impl Report {
    /// Whether the run kept to everything.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether it was ended before there was anything to say of the broker: before the measured time, or in one in which
    /// nothing of what is to be published was sent or came.
    #[must_use]
    pub fn measured_nothing(&self) -> bool {
        let (from, to) = self.measured;
        let mut streams = self.streams.iter().map(|stream| &stream.counts);
        let mut audiences = self.audiences.iter();
        let still = !self.streams.is_empty()
            && streams.all(|counts| counts.sent_measured == 0)
            && audiences.all(|audience| audience.delivered_measured == 0);
        self.interrupted.is_some() && (to <= from || still)
    }

    /// Whether broker and clients were in one process: shares are threads then, and what they used is the broker's as well.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.target == SIMULATED
    }
}

/// The machine of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processor and number of cores.
    pub processor: String,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// Kernel and distribution.
    pub system: String,
}

/// Connecting and subscribing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Connects {
    /// Clients of the plan.
    pub clients: u64,
    /// Connections that were begun, those of clients that came back included.
    pub begun: u64,
    /// Accepted ones.
    pub accepted: u64,
    /// Accepted ones for which the broker had a session.
    pub sessions_present: u64,
    /// Connections that the broker refused or ended, or that never came to be, by reason.
    pub closed: BTreeMap<String, u64>,
    /// The same of clients that read slowly, once they did: no failure.
    #[serde(default)]
    pub closed_slow: BTreeMap<String, u64>,
    /// From the first connect to the last acceptance of the first round, in seconds.
    pub seconds: f64,
    /// From the time when a connect was due to its CONNACK.
    pub latency: Histo,
    /// From SUBSCRIBE to SUBACK.
    pub subscribe_latency: Histo,
    /// Filters granted.
    pub granted: u64,
    /// Filters refused.
    pub refused: u64,
    /// Clients that asked for subscriptions and had no answer at the end.
    #[serde(default)]
    pub unheard: u64,
    /// TLS handshakes.
    #[serde(default)]
    pub handshakes: Handshakes,
}

/// What became of a stream's messages, and their times: of all of them in a report, of its own ones in a share's outcome.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamCounts {
    /// Messages that were due.
    pub due: u64,
    /// Messages that were handed to a connection; the others waited for their window to the end.
    pub sent: u64,
    /// Acknowledged ones (QoS 1 and 2).
    pub acknowledged: u64,
    /// Refused ones, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Sent and never answered, those whose connection ended included.
    pub unanswered: u64,
    /// Sent in the measured time.
    pub sent_measured: u64,
    /// Acknowledged in the measured time.
    pub acknowledged_measured: u64,
    /// From the time when a message was due to its acknowledgement, in the measured time.
    pub latency: Histo,
    /// From the time when a message was due to when this tool came to it, in the measured time: how late the tool was. What
    /// a message waited for its window is the broker's, and in `latency`.
    pub late: Histo,
}

impl StreamCounts {
    /// Adds those of another share.
    pub(crate) fn add(&mut self, part: &Self) {
        self.due += part.due;
        self.sent += part.sent;
        self.acknowledged += part.acknowledged;
        for (why, count) in &part.refused {
            *self.refused.entry(why.clone()).or_default() += count;
        }
        self.unanswered += part.unanswered;
        self.sent_measured += part.sent_measured;
        self.acknowledged_measured += part.acknowledged_measured;
        self.latency.merge(&part.latency);
        self.late.merge(&part.late);
    }

    /// Refused ones, for whatever reason.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// The ledger of a stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamReport {
    /// The stream.
    pub name: String,
    /// The group that publishes it.
    pub group: String,
    /// QoS.
    pub qos: u8,
    /// What became of its messages.
    #[serde(flatten)]
    pub counts: StreamCounts,
}

impl StreamReport {
    /// Whether every message that was sent has exactly one fate.
    #[must_use]
    pub fn balances(&self) -> bool {
        let counts = &self.counts;
        let fates = counts.acknowledged + counts.refused_in_all() + counts.unanswered;
        self.qos == 0 || counts.sent == fates
    }
}

/// What arrived at the subscribers of one subscription, of one stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AudienceReport {
    /// The stream.
    pub stream: String,
    /// The subscribers' group.
    pub group: String,
    /// The filter, as in the scenario.
    pub filter: String,
    /// Whether these are answers to the stream's messages, and not the messages themselves.
    #[serde(default)]
    pub answers: bool,
    /// QoS that the deliveries must have: the smaller one of the publish and of the subscription.
    pub qos: u8,
    /// Subscribers.
    pub subscribers: u64,
    /// Whether each message had to arrive.
    pub checked: bool,
    /// Bytes a second that each subscriber took at most, where that was bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<u32>,
    /// Deliveries that had to come: of messages that were acknowledged, or sent with QoS 0.
    pub expected: u64,
    /// Deliveries, each message of a lane and subscriber counted once.
    pub delivered: u64,
    /// Deliveries in the measured time.
    pub delivered_measured: u64,
    /// Further deliveries of the same message.
    pub duplicates: u64,
    /// Deliveries behind a later one of the same lane.
    pub out_of_order: u64,
    /// Deliveries with other bytes than were published.
    #[serde(default)]
    pub damaged: u64,
    /// Deliveries with another QoS than [`AudienceReport::qos`].
    #[serde(default)]
    pub qos_changed: u64,
    /// Expected ones that did not come.
    pub missing: u64,
    /// Deliveries of messages that were not acknowledged; allowed, and no one's loss.
    pub unacknowledged: u64,
    /// Subscribers that something is wrong with, the worst first; no more than [`WORST_MAX`].
    pub worst: Vec<Trouble>,
    /// From the time when a message was due to its delivery, in the measured time.
    pub latency: Histo,
}

/// How many subscribers a report names.
pub const WORST_MAX: usize = 20;

/// What is wrong with one subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its client identifier.
    pub client_id: String,
    /// Messages that did not arrive.
    pub missing: u64,
    /// Messages that arrived more than once.
    pub duplicates: u64,
    /// Messages that arrived behind a later one.
    pub out_of_order: u64,
}

/// One second of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Second {
    /// Clients that are connected at its end.
    pub connected: u64,
    /// CONNACKs.
    pub accepted: u64,
    /// Connections that ended without our doing.
    pub closed: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Of publishes acknowledged in this second: microseconds at the quantiles 0.5, 0.99 and 1.
    pub ack_us: [u64; 3],
    /// Of messages delivered in this second: microseconds at the quantiles 0.5, 0.99 and 1.
    pub delivery_us: [u64; 3],
    /// CPU time of this tool, in microseconds.
    pub tool_cpu_us: u64,
    /// The broker's side at its end.
    pub server: Option<ServerSample>,
}

/// A reading of the broker's process and of its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSample {
    /// CPU time so far, user and system, in microseconds.
    pub cpu_us: u64,
    /// Anonymous resident memory, in bytes.
    pub anonymous_bytes: u64,
    /// Context switches so far, voluntary and not.
    pub context_switches: u64,
    /// Memory of the host's sockets, by `/proc/net/sockstat`, in bytes.
    pub socket_bytes: u64,
    /// The host's slab memory, in bytes.
    pub slab_bytes: u64,
}

/// The broker's process and host over a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Server {
    /// Its process.
    pub pid: u32,
    /// Its name, by the kernel.
    pub name: String,
    /// Before the first connect.
    pub before: ServerSample,
    /// When everybody was connected and subscribed, before anything was published.
    pub connected: ServerSample,
    /// At the beginning of the measured time.
    pub measured_from: ServerSample,
    /// At its end.
    pub measured_to: ServerSample,
    /// Counters of its metrics address that changed in the measured time: name with labels, and by how much.
    pub counters: BTreeMap<String, f64>,
}

/// What this tool used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tool {
    /// Processes (or threads, of a simulation) that shared the clients.
    pub shares: u32,
    /// CPU time in the measured time, all together, in seconds.
    pub cpu_s_measured: f64,
    /// The largest part of a core that one share used in the measured time; 1 is all of it.
    pub busiest: f64,
    /// Anonymous resident memory at the end of the measured time, all together, in bytes.
    pub anonymous_bytes: u64,
}
