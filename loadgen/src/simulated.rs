//! Simulated clients: a whole broker and its clients in one process, joined by memory in place of sockets. Every byte
//! goes through the broker's codec, session, router and sink, and comes back through the codec; only the kernel is
//! missing. So ten million clients fit where the kernel's sockets would fill the machine.
//!
//! The broker has one worker a shard, and each [`SimulatedSwarm`] is one shard with the clients whose sessions live there:
//! one thread runs both ends of its connections. A client that is idle costs its swarm eight bytes; what a busy one needs
//! is kept only while it is busy.

mod flight;
mod packets;
mod pings;
mod state;
mod swarm;

use std::sync::Arc;

use broker::sim::Shard;
use broker::{Config, NoSink, Sink};

use crate::clock;
use state::Table;
pub use swarm::SimulatedSwarm;

/// Connections that each shard may have beyond its even part of all clients, which hashing does not quite give.
const CONNECTIONS_SPARE: u32 = 4_096;

/// Decides the hashes of a simulated broker, so that every run puts a client in the same place.
const SEED: u64 = 0x6d69_6c6c;

/// Shards at most: what a client's number of its shard holds.
pub const SHARDS_MAX: usize = state::SHARDS_MAX;

/// Clients at most: what a client's place in its shard can say, were they all in one.
pub const CLIENTS_MAX: u32 = state::NO_SLOT;

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimClock {
    /// That of [`crate::clock`]: to measure.
    Real,
    /// The swarm's own, which begins at 0 and goes on as soon as nothing is left to do: hours in seconds, the same every
    /// time. With one shard only: another one's messages might be under way while this one finds nothing to do.
    Virtual,
}

/// Why there is no simulated broker.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The broker's configuration is not valid.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// Virtual time belongs to one shard.
    #[error("shards = {0} is not allowed in virtual time: 1 is")]
    VirtualShards(usize),
    /// Too few or too many.
    #[error("shards = {0} is not allowed: 1 to {SHARDS_MAX} are")]
    Shards(usize),
    /// None, or too many.
    #[error("clients = {0} is not allowed: 1 to {CLIENTS_MAX} are")]
    Clients(u32),
}

/// A broker of `shards` workers that stores nothing, and the swarms of its clients, numbered from 0 below `clients`: one
/// swarm a shard, each to be run by one thread (in real time; any thread will do).
///
/// `config.workers` is not looked at, and `limits.connections_max` is raised so that every client finds room.
///
/// # Errors
/// When the configuration is not valid, or the number of shards or clients is not.
pub fn build(
    config: &Config,
    shards: usize,
    clients: u32,
    clock: SimClock,
) -> Result<Vec<SimulatedSwarm>, BuildError> {
    build_with(config, shards, clients, clock, Arc::new(NoSink))
}

/// The same with a sink, which may settle later by [`SimulatedSwarm::handle`].
///
/// # Errors
/// As [`build`].
pub fn build_with(
    config: &Config,
    shards: usize,
    clients: u32,
    clock: SimClock,
    sink: Arc<dyn Sink>,
) -> Result<Vec<SimulatedSwarm>, BuildError> {
    if shards == 0 || shards > SHARDS_MAX {
        return Err(BuildError::Shards(shards));
    }
    if clock == SimClock::Virtual && shards > 1 {
        return Err(BuildError::VirtualShards(shards));
    }
    if clients == 0 || clients > CLIENTS_MAX {
        return Err(BuildError::Clients(clients));
    }
    let mut config = config.clone();
    config.workers = shards;
    let spare = CONNECTIONS_SPARE.saturating_mul(shards as u32); // at most SHARDS_MAX
    let room = clients.saturating_add(clients / 8).saturating_add(spare);
    config.limits.connections_max = config.limits.connections_max.max(room);
    let table = Table::new(clients);
    let start = match clock {
        SimClock::Real => clock::now(),
        SimClock::Virtual => 0,
    };
    Ok(Shard::all(&config, &sink, SEED)?
        .into_iter()
        .map(|shard| SimulatedSwarm::new(shard, shards, table.clone(), clock, start))
        .collect())
}
