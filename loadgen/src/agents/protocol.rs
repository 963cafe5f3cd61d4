//! The lines that coordinator and agent exchange.
//!
//! The coordinator greets, and asks for the time as often as it likes; then it gives the share. From there on the agent
//! tells its steps and figures, and the outcome at the end; the coordinator opens steps, and may end the run.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::outcome::Outcome;
use crate::plan::{Plan, Secret, Share};
use crate::real::Way;
use crate::runner::{Live, Step};
use crate::scenario::Scenario;

/// Number of this protocol; both sides must have the same. The greeting and the refusal stay what they are, so that
/// others understand why they are refused.
pub(crate) const PROTOCOL: u32 = 5;

/// A greeting is no longer than this, in bytes: what is longer is somebody else.
pub(crate) const HELLO_BYTES_MAX: u64 = 1_024;

/// Any other line to an agent is no longer than this, in bytes: a scenario.
pub(crate) const TO_AGENT_BYTES_MAX: u64 = 4 << 20;

/// A line from an agent is no longer than this, in bytes: the outcome of a share with a million subscribers is below it.
pub(crate) const FROM_AGENT_BYTES_MAX: u64 = 1 << 30;

const _: () = assert!(HELLO_BYTES_MAX < TO_AGENT_BYTES_MAX);
const _: () = assert!(TO_AGENT_BYTES_MAX < FROM_AGENT_BYTES_MAX);

/// What an agent needs to know to run its share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
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
    /// How it is reached.
    pub way: Way,
    /// For an agent that the coordinator started itself: addresses to connect from. Others know their own.
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
        way: Way,
        source_addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            scenario_toml: scenario.to_toml(),
            password: scenario.connect.password.clone(),
            run: plan.run,
            seed: plan.seed,
            share,
            broker,
            way,
            source_addresses,
        }
    }
}

/// From the coordinator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToAgent {
    Hello { protocol: u32 },
    Clock {},
    Start(Box<Start>),
    Open { step: Step, at: Nanos },
    Stop { why: String },
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromAgent {
    Hello { protocol: u32 },
    Clock { at: Nanos },
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
    /// It said nothing for so many seconds.
    #[error("nothing was heard for {0} s")]
    Silent(u64),
    /// It was turned away, or turned us away.
    #[error("{0}")]
    Refused(String),
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

/// Reads a line of at most `bytes_max`.
pub(crate) fn receive<T: DeserializeOwned>(
    from: &mut impl BufRead,
    bytes_max: u64,
) -> Result<T, AgentError> {
    let mut line = Vec::new();
    io::Read::take(from, bytes_max).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        if line.len() as u64 == bytes_max {
            let text = format!("a line is longer than {bytes_max} bytes");
            return Err(AgentError::Protocol(text));
        }
        // Also in the middle of a line: its writer died.
        return Err(AgentError::Gone);
    }
    serde_json::from_slice(&line).map_err(|error| AgentError::Protocol(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<ToAgent, AgentError> {
        receive(&mut &*bytes, HELLO_BYTES_MAX)
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        let open = ToAgent::Open {
            step: Step::Ready,
            at: 7,
        };
        send(&mut bytes, &open).unwrap();
        let mut from = bytes.as_slice();
        let read: ToAgent = receive(&mut from, HELLO_BYTES_MAX).unwrap();
        assert!(matches!(
            read,
            ToAgent::Open {
                step: Step::Ready,
                at: 7
            }
        ));
        let error = receive::<ToAgent>(&mut from, HELLO_BYTES_MAX).unwrap_err();
        assert!(matches!(error, AgentError::Gone));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let error = read(b"GET / HTTP/1.1\r\n").unwrap_err();
        assert!(error.to_string().contains("not understood"), "{error}");
        let error = read(&[b'x'; HELLO_BYTES_MAX as usize + 1]).unwrap_err();
        assert!(error.to_string().contains("longer than 1024"), "{error}");
        let error = read(b"{\"hello\":{\"protocol\":2}").unwrap_err();
        assert!(matches!(error, AgentError::Gone), "{error}");
    }

    #[test]
    fn a_greeting_of_later_versions_is_understood() {
        let hello = read(b"{\"hello\":{\"protocol\":9,\"more\":true}}\n").unwrap();
        assert!(matches!(hello, ToAgent::Hello { protocol: 9 }));
    }
}
