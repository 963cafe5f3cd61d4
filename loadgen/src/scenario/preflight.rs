//! Whether this machine can do a plan with real clients, and with how many processes and source addresses; or what stops
//! it, and what would be possible. Asked before anything connects.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::check::grouped;
use super::machine::Machine;
use crate::plan::{Plan, Relation, Share};
use crate::report::counted;

/// Open files of a process that are not for clients: one of so many, for libraries, logs, reports and luck.
const FILES_SPARE_PART: u64 = 10;
/// No process needs more of them than so many.
const FILES_SPARE_MAX: u64 = 2_000;
/// Of the ports of an address, so many of a hundred are used: the last ones take the kernel long to find, and those of
/// closed connections rest for a while.
const PORTS_USED_PERCENT: u64 = 80;
/// Processes of one machine.
pub const PROCESSES_MAX: u32 = 1_024;
/// Source addresses that are taken of 127.0.0.0/8.
const LOOPBACK_MAX: u64 = 65_536;
/// What a client costs this tool, in bytes of user memory. Of 10,000 idle ones 86 each were measured, of 10,000 in pairs
/// with one message of QoS 1 a second 350; the rest is for bursts.
const CLIENT_BYTES: u64 = 500;
/// What the kernel takes for one end of a connection, in bytes.
const SOCKET_BYTES: u64 = 3_300;
/// What a process costs without clients, in bytes.
const PROCESS_BYTES: u64 = 20_000_000;
/// What is remembered of one subscriber and lane, in bytes: in a table, and where each subscriber has its own.
const TRACK_BYTES: u64 = 32;
const OWN_TRACK_BYTES: u64 = 8;
/// What a listed receiver takes, and a list.
const RECEIVER_BYTES: u64 = 4;
const LIST_BYTES: u64 = 40;
/// Of the memory that is available, so many of a hundred may be needed.
const MEMORY_USED_PERCENT: u64 = 90;

/// How a plan is run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// Clients of the plan.
    pub clients: u32,
    /// Processes that share them.
    pub processes: u32,
    /// Clients of the largest process.
    pub clients_per_process: u32,
    /// Addresses to connect from, in turn; empty where the system chooses.
    pub source_addresses: Vec<IpAddr>,
    /// Memory that the run is likely to take here, in bytes: of this tool, and of the kernel for its sockets. For a target
    /// on a loopback address the kernel's share for the broker's ends is in it, the broker itself is not.
    pub memory_bytes: u64,
}

/// What stops a plan, with what would be possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// Too few open files.
    #[error(
        "{possible} clients per process because of {files} open files; {clients} clients need {needed} processes, and {given} {are} allowed",
        possible = grouped(*.possible), files = grouped(*.files), clients = grouped(*.clients),
        needed = grouped(*.needed), given = grouped(*.given), are = if *.given == 1 { "is" } else { "are" }
    )]
    Files {
        /// Clients of one process.
        possible: u64,
        /// Open files of one process.
        files: u64,
        /// Clients of the plan.
        clients: u32,
        /// Processes that would do.
        needed: u64,
        /// Processes there may be.
        given: u32,
    },
    /// A process cannot have even one client.
    #[error(
        "no client is possible because of {0} open files per process; raise the limit (ulimit -Hn)"
    )]
    NoFiles(u64),
    /// Too few ports.
    #[error(
        "{possible} clients are possible from {addresses} source {word}, with {ports} ports each; {clients} clients need {needed} source addresses",
        possible = grouped(*.possible), addresses = grouped(*.addresses), ports = grouped(*.ports),
        clients = grouped(*.clients), needed = grouped(*.needed),
        word = if *.addresses == 1 { "address" } else { "addresses" }
    )]
    Ports {
        /// Clients that are possible.
        possible: u64,
        /// Source addresses.
        addresses: u64,
        /// Ports of an address that are used.
        ports: u64,
        /// Clients of the plan.
        clients: u32,
        /// Source addresses that would do.
        needed: u64,
    },
    /// The port range is empty.
    #[error(
        "no client is possible: net.ipv4.ip_local_port_range leaves no port that is not reserved"
    )]
    NoPorts,
    /// Too little memory.
    #[error(
        "{clients} clients need about {needed} MB of memory here and {available} MB are available; about {possible} clients are possible",
        clients = grouped(*.clients), needed = grouped(.needed / 1_000_000),
        available = grouped(.available / 1_000_000), possible = grouped(*.possible)
    )]
    Memory {
        /// Clients of the plan.
        clients: u32,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// Clients that are possible.
        possible: u64,
    },
    /// A number of processes that cannot be.
    #[error("processes is {given}; allowed are 1 to {max}", given = grouped(*.0), max = grouped(PROCESSES_MAX))]
    Processes(u32),
    /// A source address of the other kind.
    #[error("source address {source_address} cannot reach {target}: one is IPv4, the other IPv6")]
    Family {
        /// The source address.
        source_address: IpAddr,
        /// The target.
        target: IpAddr,
    },
    /// A source address twice.
    #[error("source address {0} is given twice; each has its ports once")]
    Twice(IpAddr),
}

impl Preflight {
    /// Works out how to run a plan against `target`. `processes` is how many there shall be (without it as many as it
    /// takes), `source_addresses` where to connect from (without any, addresses of 127.0.0.0/8 for a target there, else
    /// what the system chooses).
    ///
    /// # Errors
    /// What stops it first: files, ports, memory.
    pub fn of(
        plan: &Plan,
        target: SocketAddr,
        processes: Option<u32>,
        source_addresses: &[IpAddr],
        machine: &Machine,
    ) -> Result<Self, PreflightError> {
        Self::of_clients(
            plan,
            plan.clients(),
            target,
            processes,
            source_addresses,
            machine,
        )
    }

    /// The same for one share of a plan, in one process of a machine that has nothing to do with the other shares.
    ///
    /// # Errors
    /// What stops it first: files, ports, memory.
    pub fn of_share(
        plan: &Plan,
        share: Share,
        target: SocketAddr,
        source_addresses: &[IpAddr],
        machine: &Machine,
    ) -> Result<Self, PreflightError> {
        let clients = plan.clients().div_ceil(share.count.max(1));
        Self::of_clients(plan, clients, target, Some(1), source_addresses, machine)
    }

    fn of_clients(
        plan: &Plan,
        clients: u32,
        target: SocketAddr,
        processes: Option<u32>,
        source_addresses: &[IpAddr],
        machine: &Machine,
    ) -> Result<Self, PreflightError> {
        let processes = processes_for(clients, processes, machine.open_files)?;
        let source_addresses =
            addresses_for(clients, target.ip(), source_addresses, machine.ports)?;
        let memory_bytes = memory_for(plan, clients, processes, target.ip().is_loopback());
        let available = machine.memory_bytes / 100 * MEMORY_USED_PERCENT;
        if memory_bytes > available {
            let share = u128::from(clients) * u128::from(available) / u128::from(memory_bytes);
            return Err(PreflightError::Memory {
                clients,
                needed: memory_bytes,
                available,
                possible: rounded_down(u64::try_from(share).unwrap_or(u64::MAX)),
            });
        }
        Ok(Self {
            clients,
            processes,
            clients_per_process: clients.div_ceil(processes),
            source_addresses,
            memory_bytes,
        })
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in {}",
            counted(self.clients.into(), "client", "clients"),
            counted(self.processes.into(), "process", "processes")
        )?;
        let addresses = self.source_addresses.len();
        if addresses > 0 {
            let addresses = counted(addresses as u64, "source address", "source addresses");
            write!(f, " from {addresses}")?;
        }
        let megabytes = self.memory_bytes.div_ceil(1_000_000);
        write!(f, ", about {} MB of memory", grouped(megabytes))
    }
}

fn processes_for(clients: u32, given: Option<u32>, files: u64) -> Result<u32, PreflightError> {
    let possible = files - (files / FILES_SPARE_PART).min(FILES_SPARE_MAX);
    if possible <= FILES_SPARE_PART {
        return Err(PreflightError::NoFiles(files));
    }
    let needed = u64::from(clients).div_ceil(possible).max(1);
    let allowed = match given {
        Some(given) if given == 0 || given > PROCESSES_MAX => {
            return Err(PreflightError::Processes(given));
        }
        Some(given) => given,
        None => PROCESSES_MAX,
    };
    match u32::try_from(needed) {
        Ok(needed) if needed <= allowed => Ok(given.unwrap_or(needed)),
        _ => Err(PreflightError::Files {
            possible,
            files,
            clients,
            needed,
            given: allowed,
        }),
    }
}

fn addresses_for(
    clients: u32,
    target: IpAddr,
    given: &[IpAddr],
    ports: u32,
) -> Result<Vec<IpAddr>, PreflightError> {
    for (at, address) in given.iter().enumerate() {
        if address.is_ipv4() != target.is_ipv4() {
            return Err(PreflightError::Family {
                source_address: *address,
                target,
            });
        }
        if given[..at].contains(address) {
            return Err(PreflightError::Twice(*address));
        }
    }
    if ports == 0 {
        return Err(PreflightError::NoPorts);
    }
    let ports = (u64::from(ports) * PORTS_USED_PERCENT).div_ceil(100);
    let needed = u64::from(clients).div_ceil(ports).max(1);
    let of_loopback = given.is_empty() && target.is_ipv4() && target.is_loopback();
    let addresses = match given.len() as u64 {
        0 if of_loopback => LOOPBACK_MAX,
        0 => 1,
        given => given,
    };
    if needed > addresses {
        return Err(PreflightError::Ports {
            possible: addresses * ports,
            addresses,
            ports,
            clients,
            needed,
        });
    }
    if of_loopback && needed > 1 {
        let first = u32::from(Ipv4Addr::LOCALHOST);
        // Not more than LOOPBACK_MAX of 16 million.
        let addresses = (first..).take(needed as usize);
        return Ok(addresses.map(|bits| Ipv4Addr::from(bits).into()).collect());
    }
    Ok(given.to_vec())
}

/// Bytes that `clients` of a plan are likely to take.
fn memory_for(plan: &Plan, clients: u32, processes: u32, both_ends: bool) -> u64 {
    let ends = if both_ends { 2 } else { 1 };
    let part = |bytes: u64| {
        let bytes = u128::from(bytes) * u128::from(clients) / u128::from(plan.clients().max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let sockets = u64::from(clients).saturating_mul(CLIENT_BYTES + ends * SOCKET_BYTES);
    let each_process = PROCESS_BYTES.saturating_add(listed_bytes(plan));
    sockets
        .saturating_add(each_process.saturating_mul(u64::from(processes)))
        .saturating_add(part(tracks_bytes(plan)))
}

/// Lists of receivers, which every process has.
fn listed_bytes(plan: &Plan) -> u64 {
    let audiences = plan.streams.iter().flat_map(|stream| &stream.audiences);
    audiences
        .map(|audience| match &audience.relation {
            Relation::Listed(lists) => {
                let receivers: usize = lists.iter().map(Vec::len).sum();
                receivers as u64 * RECEIVER_BYTES + lists.len() as u64 * LIST_BYTES
            }
            Relation::Own | Relation::All | Relation::Shared | Relation::Answers => 0,
        })
        .sum()
}

/// What is remembered of subscribers and the lanes that they get, over all processes.
fn tracks_bytes(plan: &Plan) -> u64 {
    let mut bytes = 0_u64;
    for stream in &plan.streams {
        let lanes = u64::from(stream.lanes);
        let lanes_of_topic = lanes / u64::from(stream.topics.max(1));
        for audience in &stream.audiences {
            let subscribers = u64::from(plan.groups[audience.group].clients);
            let of_audience = match &audience.relation {
                Relation::Own => subscribers
                    .saturating_mul(lanes_of_topic)
                    .saturating_mul(OWN_TRACK_BYTES),
                Relation::Answers => lanes.saturating_mul(OWN_TRACK_BYTES),
                Relation::All => subscribers
                    .saturating_mul(lanes)
                    .saturating_mul(TRACK_BYTES),
                Relation::Listed(lists) => {
                    let receivers: usize = lists.iter().map(Vec::len).sum();
                    (receivers as u64)
                        .saturating_mul(lanes_of_topic)
                        .saturating_mul(TRACK_BYTES)
                }
                // Whoever gets one lane's message now gets others of it later.
                Relation::Shared => subscribers
                    .saturating_mul(lanes)
                    .saturating_mul(TRACK_BYTES),
            };
            bytes = bytes.saturating_add(of_audience);
        }
    }
    bytes
}

/// To two digits: an estimate is not more exact.
fn rounded_down(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Clients, Overrides, Scenario};

    const SMALL: Machine = Machine {
        open_files: 20_000,
        ports: 28_232,
        memory_bytes: 24_000_000_000,
    };

    fn plan(name: &str, clients: i64) -> Plan {
        let mut scenario = Scenario::builtin(name).unwrap();
        let changes = Overrides {
            clients: Some(Clients::Total(clients)),
            ..Overrides::default()
        };
        scenario.apply(&changes).unwrap();
        scenario.plan(1, 1).unwrap()
    }

    fn preflight(
        clients: i64,
        target: &str,
        processes: Option<u32>,
        sources: &[&str],
        machine: &Machine,
    ) -> Result<Preflight, String> {
        let target = format!("{target}:1883").parse().unwrap();
        let sources: Vec<IpAddr> = sources.iter().map(|text| text.parse().unwrap()).collect();
        Preflight::of(&plan("idle", clients), target, processes, &sources, machine)
            .map_err(|why| why.to_string())
    }

    #[test]
    fn processes_and_addresses_are_as_many_as_it_takes() {
        for (clients, target, given, processes, addresses) in [
            (1, "127.0.0.1", None, 1, 0),
            (18_000, "127.0.0.1", None, 1, 0),
            (18_001, "127.0.0.1", None, 2, 0),
            (18_000, "127.0.0.1", Some(3), 3, 0),
            (60_000, "127.0.0.1", None, 4, 3),
            (60_000, "127.8.0.1", Some(5), 5, 3),
            (20_000, "10.0.0.1", None, 2, 0),
            (20_000, "[::1]", None, 2, 0),
        ] {
            let found = preflight(clients, target, given, &[], &SMALL).unwrap();
            assert_eq!(found.processes, processes, "{clients} {target}");
            assert_eq!(
                found.source_addresses.len(),
                addresses,
                "{clients} {target}"
            );
            assert!(found.clients_per_process <= 18_000);
        }
        let found = preflight(60_000, "127.0.0.1", None, &[], &SMALL).unwrap();
        let text: Vec<String> = found
            .source_addresses
            .iter()
            .map(IpAddr::to_string)
            .collect();
        assert_eq!(text, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert!(
            found
                .to_string()
                .starts_with("60,000 clients in 4 processes from 3 source addresses, about "),
            "{found}"
        );
        let given = ["10.0.0.2", "10.0.0.3"];
        let found = preflight(40_000, "10.0.0.1", None, &given, &SMALL).unwrap();
        assert_eq!(found.source_addresses.len(), 2);
    }

    #[test]
    fn a_share_needs_what_its_own_clients_need() {
        let plan = plan("idle", 60_000);
        let target = "10.0.0.1:1883".parse().unwrap();
        let of = |count| {
            let share = Share { index: 0, count };
            Preflight::of_share(&plan, share, target, &[], &SMALL)
        };
        let quarter = of(4).unwrap();
        assert_eq!((quarter.clients, quarter.processes), (15_000, 1));
        assert!(quarter.memory_bytes < 15_000 * 8_000, "{quarter}");
        let error = of(3).unwrap_err().to_string();
        assert!(error.contains("20,000 clients need 2 processes"), "{error}");
    }

    #[test]
    fn what_stops_it_is_said_with_what_would_be_possible() {
        let none: &[&str] = &[];
        let with = |change: fn(&mut Machine)| {
            let mut machine = SMALL;
            change(&mut machine);
            machine
        };
        for (clients, target, processes, sources, machine, wanted) in [
            (
                60_000,
                "127.0.0.1",
                Some(1),
                none,
                SMALL,
                "18,000 clients per process because of 20,000 open files; 60,000 clients need 4 processes, and 1 is allowed",
            ),
            (
                60_000,
                "127.0.0.1",
                Some(3),
                none,
                SMALL,
                "need 4 processes, and 3 are allowed",
            ),
            (
                1,
                "127.0.0.1",
                Some(0),
                none,
                SMALL,
                "processes is 0; allowed are 1 to 1,024",
            ),
            (
                1,
                "127.0.0.1",
                Some(2_000),
                none,
                SMALL,
                "processes is 2,000;",
            ),
            (
                100_000_000,
                "127.0.0.1",
                None,
                none,
                SMALL,
                "100,000,000 clients need 5,556 processes, and 1,024 are allowed",
            ),
            (
                1,
                "127.0.0.1",
                None,
                none,
                with(|machine| machine.open_files = 3),
                "no client is possible because of 3 open files",
            ),
            (
                60_000,
                "10.0.0.1",
                None,
                none,
                SMALL,
                "22,586 clients are possible from 1 source address, with 22,586 ports each; 60,000 clients need 3 source addresses",
            ),
            (
                60_000,
                "10.0.0.1",
                None,
                &["10.0.0.2", "10.0.0.3"],
                SMALL,
                "45,172 clients are possible from 2 source addresses",
            ),
            (
                60_000,
                "127.0.0.1",
                None,
                &["127.0.0.9"],
                SMALL,
                "from 1 source address",
            ),
            (
                60_000,
                "[::1]",
                None,
                none,
                SMALL,
                "22,586 clients are possible",
            ),
            (
                1,
                "127.0.0.1",
                None,
                none,
                with(|machine| machine.ports = 0),
                "ip_local_port_range",
            ),
            (
                1,
                "127.0.0.1",
                None,
                &["::1"],
                SMALL,
                "source address ::1 cannot reach 127.0.0.1",
            ),
            (
                1,
                "127.0.0.1",
                None,
                &["127.0.0.2", "127.0.0.2"],
                SMALL,
                "127.0.0.2 is given twice",
            ),
            (
                10_000_000,
                "127.0.0.1",
                None,
                none,
                SMALL,
                "10,000,000 clients need about 82,120 MB of memory here and 21,600 MB are available; about 2,600,000 clients are possible",
            ),
        ] {
            let error = preflight(clients, target, processes, sources, &machine).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_every_subscriber_gets_of_every_lane_is_memory_too() {
        let target = "127.0.0.1:1883".parse().unwrap();
        let of = |name, clients| Preflight::of(&plan(name, clients), target, None, &[], &SMALL);
        let fan_in = of("fan-in", 1_001).unwrap();
        let idle = of("idle", 1_001).unwrap();
        assert_eq!(fan_in.memory_bytes - idle.memory_bytes, 1_000 * TRACK_BYTES);
        // 10 publishers of 100,000 topics, each to all of these readers.
        let error = of("retained", 10_010).unwrap_err().to_string();
        assert!(
            error.contains("10,010 clients need about 32,091 MB"),
            "{error}"
        );
    }

    #[test]
    fn estimates_have_two_digits() {
        for (number, wanted) in [(0, 0), (7, 7), (99, 99), (129, 120), (2_479_338, 2_400_000)] {
            assert_eq!(rounded_down(number), wanted);
        }
    }
}
