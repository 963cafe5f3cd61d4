//! A run on several processes or machines. An *agent* has one share of the clients; the coordinator gives out the shares,
//! lets all take each step at the same moment, and merges what they found out.
//!
//! They talk in lines of JSON, over pipes with processes that the coordinator starts itself and over TCP with others. An
//! agent plans the run by itself from the same scenario and seed, so that a plan never travels.
//!
//! The protocol has no authentication: an agent belongs in a network in which everybody may load everything.

mod address;
mod agent;
mod coordinator;
mod protocol;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

pub use address::{AGENTS_MAX, AgentAddress, AgentAddresses};
pub use agent::{Office, serve, serve_pipe};
pub use coordinator::{Agent, Ended, attend};
pub use protocol::{AgentError, Start};

/// A machine that vanishes without a word is noticed after this time of silence, and what nobody takes is given up.
const VANISHED: Duration = Duration::from_secs(30);

/// Pause between two questions to a silent machine.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Sets a connection up so that the other side's death is noticed even when no packet tells of it.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let probes = (VANISHED.as_secs() / PROBE_INTERVAL.as_secs()) as u32;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(PROBE_INTERVAL)
        .with_interval(PROBE_INTERVAL)
        .with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    // Without it a write to a machine that is gone is repeated for a quarter of an hour.
    socket.set_tcp_user_timeout(Some(VANISHED))
}
