//! The lines that coordinator and agent exchange.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::outcome::Outcome;
use crate::plan::{Plan, Secret, Share};
use crate::runner::{Live, Step};
use crate::scenario::Scenario;

/// Number of this protocol; both sides must have the same.
pub(crate) const PROTOCOL: u32 = 1;

/// A line is no longer than this, in bytes: the outcome of a share with a million subscribers is below it.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// What an agent needs to know to run its share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// Number of the protocol.
    pub protocol: u32,
    /// The scenario as TOML, without its password.
    pub scenario_toml: String,
    /// The password.
    pub password: Option<Secret>,
    /// Number of the run.
    pub run: u32,
    /// Seed of the plan.
    pub seed: u64,
    /// The agent's share.
    pub share: Share,
    /// The broker.
    pub broker: SocketAddr,
    /// Addresses to connect from; none: the kernel chooses.
    pub source_addresses: Vec<IpAddr>,
}

impl Start {
    /// A share of a plan that was made from `scenario`.
    #[must_use]
    pub fn new(
        scenario: &Scenario,
        plan: &Plan,
        share: Share,
        broker: SocketAddr,
        source_addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            protocol: PROTOCOL,
            scenario_toml: scenario.to_toml(),
            password: scenario.connect.password.clone(),
            run: plan.run,
            seed: plan.seed,
            share,
            broker,
            source_addresses,
        }
    }
}

/// From the coordinator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToAgent {
    Start(Box<Start>),
    Open { step: Step, at: Nanos },
    Stop { why: String },
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromAgent {
    Arrived { step: Step, at: Nanos },
    Live(Live),
    Outcome(Box<Outcome>),
    Failed { why: String },
}

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The other side is gone.
    #[error("the connection ended")]
    Gone,
    /// It said something else than the protocol knows.
    #[error("not understood: {0}")]
    Protocol(String),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a line.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> Result<(), AgentError> {
    let mut line =
        serde_json::to_vec(message).map_err(|error| AgentError::Protocol(error.to_string()))?;
    line.push(b'\n');
    to.write_all(&line)?;
    Ok(to.flush()?)
}

/// Reads a line.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<T, AgentError> {
    let mut line = Vec::new();
    let mut limited = io::Read::take(from, LINE_BYTES_MAX);
    limited.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(AgentError::Gone);
    }
    serde_json::from_slice(&line).map_err(|error| AgentError::Protocol(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        let open = ToAgent::Open {
            step: Step::Ready,
            at: 7,
        };
        send(&mut bytes, &open).unwrap();
        let mut from = bytes.as_slice();
        let read: ToAgent = receive(&mut from).unwrap();
        assert!(matches!(
            read,
            ToAgent::Open {
                step: Step::Ready,
                at: 7
            }
        ));
        let error = receive::<ToAgent>(&mut from).unwrap_err();
        assert!(matches!(error, AgentError::Gone));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let error = receive::<ToAgent>(&mut &b"GET / HTTP/1.1\r\n"[..]).unwrap_err();
        assert!(error.to_string().contains("not understood"), "{error}");
    }
}
