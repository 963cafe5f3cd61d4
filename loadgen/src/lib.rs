//! Load on an MQTT broker, and what it costs the broker: clients over TCP, open-loop schedules, histograms, ledgers.
//!
//! The pieces are a [`Fleet`] of clients on one thread, readings of the broker's [`process`], and the [`measure`]s put
//! together from them. They work with any broker that speaks MQTT, so that one tool compares several. The fleet must
//! cost less than what it measures: one thread, one buffer to read into, one write per client and turn, by the same
//! connection code as the broker's.
//!
//! This crate judges nothing: it reports what it counted, and a [`Ledger`] that adds up or says so.

pub mod agents;
pub mod cli;
mod client;
pub mod clock;
#[doc(hidden)]
pub mod command;
mod fleet;
pub mod histogram;
mod latency;
mod ledger;
pub mod measure;
pub mod merge;
pub mod outcome;
mod payload;
pub mod plan;
pub mod process;
pub mod real;
pub mod report;
pub mod runner;
pub mod scenario;
mod schedule;
pub mod server;
mod setup;
pub mod simulated;
pub mod stamp;
pub mod swarm;
pub mod template;

pub use client::{ClientId, Notice};
pub use fleet::{ConnectOptions, Fleet};
pub use latency::{Latencies, LatencySummary};
pub use ledger::Ledger;
pub use payload::Noise;
pub use schedule::Schedule;
