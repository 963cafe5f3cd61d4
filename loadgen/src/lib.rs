//! Load on any MQTT broker, and what came of it: `millstream load`.
//!
//! A [`scenario`] becomes a [`plan`] of every client, topic and message. A [`runner`] executes a share of it on a
//! [`swarm`] of clients: [`real`] ones over TCP, or [`simulated`] ones on this broker's engine without sockets. The
//! shares' [`outcome`]s are [`merge`]d into a [`report`], with what the broker used meanwhile ([`server`]).
//!
//! The tool must cost less than what it measures: one thread a share, one buffer to read into, one write per client and
//! turn, by the same connection code as the broker's. It judges by the scenario's limits and by nothing else, and every
//! message has one fate in its ledger.

pub mod agents;
pub mod cli;
pub mod clock;
pub mod histogram;
pub mod merge;
pub mod outcome;
pub mod payload;
pub mod plan;
pub mod process;
pub mod real;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod server;
pub mod simulated;
mod slow_reader;
pub mod stamp;
pub mod swarm;
pub mod template;
pub mod text_payload;
