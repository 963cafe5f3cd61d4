//! A run on several processes or machines. An *agent* has one share of the clients; the coordinator gives out the shares,
//! lets all take each step at the same moment, and merges what they found out.
//!
//! They talk in lines of JSON, over pipes with processes that the coordinator starts itself and over TCP with others. An
//! agent plans the run by itself from the same scenario and seed, so that a plan never travels.
//!
//! The protocol has no authentication: an agent belongs in a network in which everybody may load everything.

mod agent;
mod coordinator;
mod protocol;

pub use agent::{serve, serve_pipe};
pub use coordinator::{Agent, Ended, attend};
pub use protocol::{AgentError, Start};
