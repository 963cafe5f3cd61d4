//! From what was said on the command line to what is to be done: changes of the scenario, and where it runs.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::args::{RunArgs, Switch};
use super::naming;
use crate::agents::{AGENTS_MAX, AgentAddress};
use crate::plan::{Plan, Secret};
use crate::real::{self, Tls, Trust, Way};
use crate::scenario::overrides::{Clients, Connecting, Overrides, Rate};
use crate::scenario::preflight::{Preflight, PreflightError};
use crate::scenario::{ScenarioError, machine};
use crate::server::SamplerError;
use crate::simulated::{BuildError, SHARDS_MAX, SimClock};

/// Why a run cannot begin. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The scenario is not possible.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A value of the command line is not allowed.
    #[error("{0}")]
    Option(String),
    /// The machine is not enough.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// An agent cannot be reached, or cannot take part.
    #[error("{0}")]
    Agent(String),
    /// There is no simulated broker.
    #[error(transparent)]
    Simulated(#[from] BuildError),
    /// The broker's process cannot be looked at.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// Something of the system is missing.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        why: String,
    },
}

/// An error of the system at `what`.
pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LoadError {
    let what = what.into();
    move |error| LoadError::System {
        what,
        why: error.to_string(),
    }
}

/// Where the shares run.
#[derive(Debug)]
pub(super) enum Place {
    /// Clients over TCP, on a thread of this process.
    Thread {
        broker: SocketAddr,
        preflight: Preflight,
    },
    /// Clients over TCP, in processes that are started here.
    Processes {
        broker: SocketAddr,
        preflight: Preflight,
    },
    /// Clients over TCP, on other machines.
    Agents {
        broker: SocketAddr,
        agents: Vec<AgentAddress>,
    },
    /// Clients over memory, on threads of this process.
    Simulated { threads: u32, clock: SimClock },
}

impl Place {
    /// Finds out where the plan can run.
    pub(super) fn of(args: &RunArgs, plan: &Plan) -> Result<Self, LoadError> {
        if args.simulated {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = match (args.threads, args.virtual_time) {
                (None | Some(1), true) => 1,
                (Some(threads), true) => {
                    let text = format!("--threads is {threads}; with --virtual-time it is 1");
                    return Err(LoadError::Option(text));
                }
                (None, false) => cores.min(SHARDS_MAX) as u32,
                (Some(threads), false) => threads,
            };
            if threads == 0 || threads as usize > SHARDS_MAX {
                let text = format!("--threads is {threads}; allowed are 1 to {SHARDS_MAX}");
                return Err(LoadError::Option(text));
            }
            let clock = if args.virtual_time {
                SimClock::Virtual
            } else {
                SimClock::Real
            };
            return Ok(Self::Simulated { threads, clock });
        }
        let broker = resolve(&args.broker)?;
        let agents: Vec<AgentAddress> = args.agents.iter().flat_map(|it| it.0.clone()).collect();
        if agents.len() > AGENTS_MAX {
            let text = format!(
                "--agents: {} are given; allowed are up to {AGENTS_MAX}",
                agents.len()
            );
            return Err(LoadError::Option(text));
        }
        for (at, agent) in agents.iter().enumerate() {
            if agents[..at].contains(agent) {
                let text = format!("--agents: {agent} is given twice; an agent has one share");
                return Err(LoadError::Option(text));
            }
        }
        if !agents.is_empty() {
            return Ok(Self::Agents { broker, agents });
        }
        // A limit that cannot be raised is taken as it is.
        let _ = machine::raise_open_files();
        let machine = machine::Machine::read().map_err(system("the machine's limits"))?;
        let preflight = Preflight::of(
            plan,
            broker,
            args.processes,
            &args.source_addresses,
            &machine,
        )
        .map_err(|error| naming::preflight(error, args))?;
        args.source_addresses.iter().try_for_each(ours)?;
        Ok(match preflight.processes {
            1 => Self::Thread { broker, preflight },
            _ => Self::Processes { broker, preflight },
        })
    }

    /// How many shares the clients are split into.
    pub(super) fn shares(&self) -> u32 {
        match self {
            Self::Thread { .. } => 1,
            Self::Processes { preflight, .. } => preflight.processes,
            Self::Agents { agents, .. } => agents.len() as u32,
            Self::Simulated { threads, .. } => *threads,
        }
    }

    /// The broker's address, where there is one.
    pub(super) fn broker(&self) -> Option<SocketAddr> {
        match self {
            Self::Thread { broker, .. }
            | Self::Processes { broker, .. }
            | Self::Agents { broker, .. } => Some(*broker),
            Self::Simulated { .. } => None,
        }
    }

    pub(super) fn is_simulated(&self) -> bool {
        matches!(self, Self::Simulated { .. })
    }
}

/// An address can be connected from only where it is.
fn ours(address: &IpAddr) -> Result<(), LoadError> {
    let bound = UdpSocket::bind((*address, 0)).map(drop);
    bound.map_err(|error| {
        LoadError::Option(format!(
            "--source-addresses: {address} is not an address of this machine ({error})"
        ))
    })
}

fn resolve(text: &str) -> Result<SocketAddr, LoadError> {
    let wrong = |why: String| {
        LoadError::Option(format!(
            "--broker is \"{text}\": {why}; it is HOST:PORT, for example 127.0.0.1:1883"
        ))
    };
    let found: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .collect();
    answering(&found).ok_or_else(|| wrong("the name has no address".to_owned()))
}

/// How long each address of a name may take to take a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Of several addresses the first at which somebody listens: `localhost` is often ::1 first, and the broker at 127.0.0.1
/// alone. Where nobody does, the first, so that the run says why.
fn answering(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let (first, others) = addresses.split_first()?;
    let listens =
        |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
    // A single one is what was asked for.
    let answers = !others.is_empty();
    let found = answers.then(|| addresses.iter().find(listens)).flatten();
    Some(*found.unwrap_or(first))
}

/// What this system believes, on Debian and most others.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How the clients reach the broker. Its files are read here.
pub(super) fn way(args: &RunArgs) -> Result<Way, LoadError> {
    let read = |option: &str, path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(system(format!("{option} {}", path.display())))
    };
    let tls = match args.tls {
        false => None,
        true => Some(Tls {
            trust: match &args.ca {
                _ if args.tls_insecure => Trust::Everybody,
                Some(file) => Trust::Authorities(read("--ca", file)?),
                None => Trust::Authorities(read("without --ca:", Path::new(AUTHORITIES))?),
            },
            identity: match (&args.cert, &args.key) {
                (Some(cert), Some(key)) => {
                    Some((read("--cert", cert)?, Secret(read("--key", key)?)))
                }
                _ => None,
            },
            resume: args.tls_resume == Switch::On,
        }),
    };
    if args.ws && !(args.ws_path.starts_with('/') && args.ws_path.bytes().all(is_of_path)) {
        let path = &args.ws_path;
        let text = format!("--ws-path is \"{path}\"; it begins with / and has no spaces");
        return Err(LoadError::Option(text));
    }
    let (host, _) = args.broker.rsplit_once(':').unwrap_or((&args.broker, ""));
    let way = Way {
        host: host.trim_matches(['[', ']']).to_owned(),
        tls,
        websocket: args.ws.then(|| args.ws_path.clone()),
    };
    real::check(&way).map_err(|why| LoadError::Option(format!("--tls: {why}")))?;
    Ok(way)
}

/// What may stand in the first line of an HTTP request.
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// What the command line changes in the scenario.
pub(super) fn overrides(args: &RunArgs) -> Result<Overrides, LoadError> {
    let connecting = match args.connect_rate.as_deref() {
        None => None,
        Some("storm") => Some(Connecting::Storm),
        Some(text) => Some(Connecting::PerSecond(text.parse().map_err(|_| {
            LoadError::Option(format!(
                "--connect-rate is \"{text}\"; it is a number of connects a second, or \"storm\""
            ))
        })?)),
    };
    let protocol = match args.protocol.as_deref() {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|why: String| LoadError::Option(format!("--{why}")))?,
        ),
    };
    let password = match &args.password_file {
        None => None,
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(system(format!("--password-file {}", path.display())))?;
            Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    };
    let rate = match (args.rate, args.highest) {
        (Some(rate), _) => Some(Rate::PerSecond(rate)),
        (None, true) => Some(Rate::Highest),
        (None, false) => None,
    };
    Ok(Overrides {
        clients: args.clients.map(|clients| Clients::Total(clients.into())),
        rate,
        connecting,
        warm_up_s: args.warm_up,
        seconds: args.seconds,
        drain_max_s: args.drain,
        payload_bytes: args.payload_bytes.map(i64::from),
        qos: args.qos.map(i64::from),
        window: args.window.map(i64::from),
        burst: args.burst.map(i64::from),
        protocol,
        clean_start: args.durable.then_some(false),
        keep_alive_s: args.keep_alive.map(i64::from),
        topic_prefix: args.topic_prefix.clone(),
        username: args.username.clone(),
        password,
        ..Overrides::default()
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn of_several_addresses_the_one_at_which_somebody_listens_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = gone.local_addr().unwrap();
        drop(gone);
        assert_eq!(answering(&[nobody, there]), Some(there));
        assert_eq!(answering(&[there, nobody]), Some(there));
        assert_eq!(answering(&[nobody]), Some(nobody));
        assert_eq!(answering(&[nobody, nobody]), Some(nobody));
        assert_eq!(answering(&[]), None);
    }
}
