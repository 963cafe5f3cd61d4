//! What can be measured of a broker, each measure in a file of its own: set up, run, report.
//!
//! A measure wants a broker that was started for it alone: figures are differences between two readings of the
//! broker's process, and whatever else it does in between is counted too.

mod fan_out;
mod idle;
mod pairs;
mod persisted;
mod topics;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use codec::{EncodeError, Version};
use serde::Serialize;

pub use fan_out::{FanOut, FanOutReport};
pub use idle::{Idle, IdleReport};
pub use pairs::{Pairs, PairsReport};
pub use persisted::{Persisted, PersistedReport};
pub use topics::{Topics, TopicsReport};

use crate::fleet::ConnectOptions;
use crate::process::{ProcessError, Usage};

/// Waiting for something to happen, in a measure that has nothing else to do.
const TURN: Duration = Duration::from_millis(100);
/// What runs before the reading that a measure starts with: first allocations, caches, the scheduler's idea of us.
const WARM_UP: Duration = Duration::from_millis(500);

/// A fleet does not ping, so this is longer than any measure. Not 0, for none at all: rumqttd refuses that.
const KEEP_ALIVE_S: u16 = 36_000;

/// The broker to measure.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens.
    pub broker: SocketAddr,
    /// Its process, if it runs on this machine. Without it nothing is said of its CPU and memory.
    pub pid: Option<u32>,
    /// The protocol version that all clients speak.
    pub version: Version,
}

impl Target {
    fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            broker: self.broker,
            version: self.version,
            keep_alive_s: KEEP_ALIVE_S,
        }
    }

    fn usage(&self) -> Result<Option<Usage>, ProcessError> {
        self.pid.map(Usage::of).transpose()
    }
}

/// Why a measure gave no figures.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The broker ended a connection that the measure needs.
    #[error("while {doing}: {why}")]
    Closed {
        /// What the measure was at.
        doing: &'static str,
        /// What is known of the reason.
        why: String,
    },
    /// The broker refused subscriptions that the measure needs.
    #[error("the broker refused {0} subscriptions of one packet")]
    SubscriptionsRefused(u32),
    /// The broker did nothing any more.
    #[error("while {doing}: nothing came from the broker for {seconds} s")]
    Silent {
        /// What the measure was at.
        doing: &'static str,
        /// How long it waited.
        seconds: u64,
    },
    /// The measure needs to look at the broker's process.
    #[error("this measure needs the broker's process: --pid")]
    NoProcess,
    /// The options make no sense together.
    #[error("{0}")]
    Options(String),
    /// A packet of the measure's own cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The broker's process cannot be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The machine lacks something: sockets, files, ports.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// CPU time between two readings, and for each of the things that happened between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// How many things happened.
    pub count: u64,
    /// How long it took on the clock.
    pub seconds: f64,
    /// Things a second.
    pub per_second: f64,
    /// The broker's CPU time for one thing; exact to 10 ms in all.
    pub broker_cpu_us: Option<f64>,
    /// This tool's CPU time for one thing, to see that it was not the limit.
    pub tool_cpu_us: f64,
}

/// The first of two readings.
#[derive(Debug)]
struct Meter {
    started: Instant,
    broker: Option<Usage>,
    tool: Usage,
}

impl Meter {
    fn start(target: &Target) -> Result<Self, ProcessError> {
        Ok(Self {
            broker: target.usage()?,
            tool: Usage::of_self()?,
            started: Instant::now(),
        })
    }

    /// Takes the second reading, after `count` things.
    fn stop(self, target: &Target, count: u64) -> Result<Cost, ProcessError> {
        let seconds = self.started.elapsed().as_secs_f64();
        let (broker, tool) = (target.usage()?, Usage::of_self()?);
        let each = |before: Usage, after: Usage| {
            let used = after.cpu.saturating_sub(before.cpu);
            used.as_secs_f64() * 1e6 / count.max(1) as f64
        };
        Ok(Cost {
            count,
            seconds,
            per_second: count as f64 / seconds,
            broker_cpu_us: self
                .broker
                .zip(broker)
                .map(|(before, after)| each(before, after)),
            tool_cpu_us: each(self.tool, tool),
        })
    }
}
