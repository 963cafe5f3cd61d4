//! Whose process listens, and on what machine.

use std::collections::BTreeSet;
use std::fs;

use crate::process::{KIB, kib_of};
use crate::report::Machine;

/// `st` of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Nobody was found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No socket of this machine listens there.
    #[error(
        "nobody listens on TCP port {port} of this machine: give the broker's --pid, or leave its side out"
    )]
    Nobody {
        /// The port.
        port: u16,
    },
    /// A socket listens, and its process belongs to somebody else.
    #[error(
        "the process that listens on TCP port {port} is not ours to look at: run as its user, or give its --pid"
    )]
    NotOurs {
        /// The port.
        port: u16,
    },
}

/// The processes that hold a socket which listens on a TCP port, ascending.
///
/// # Errors
/// There is none that this user may look at.
pub fn process_by_port(port: u16) -> Result<Vec<u32>, FindError> {
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(listeners(
            &fs::read_to_string(table).unwrap_or_default(),
            port,
        ));
    }
    if sockets.is_empty() {
        return Err(FindError::Nobody { port });
    }
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let mut pids: Vec<u32> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid, &sockets))
        .collect();
    pids.sort_unstable();
    if pids.is_empty() {
        return Err(FindError::NotOurs { port });
    }
    Ok(pids)
}

/// Inodes of the sockets that listen on a port, by `/proc/net/tcp` or `tcp6`.
fn listeners(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(local_port, 16).ok()? == port;
        (here && *fields.get(3)? == LISTEN).then_some(())?;
        fields.get(9)?.parse().ok()
    };
    table.lines().filter_map(inode).collect()
}

fn holds(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|name| {
            name.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        });
        inode.is_some_and(|inode: u64| sockets.contains(&inode))
    })
}

/// This machine, as far as it tells.
#[must_use]
pub fn machine() -> Machine {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = text("/proc/meminfo");
    Machine {
        processor: format!("{cores} × {}", processor(&text("/proc/cpuinfo"))),
        memory_bytes: kib_of("MemTotal:", &memory).unwrap_or(0) * KIB,
        system: system(
            &text("/proc/sys/kernel/osrelease"),
            &text("/etc/os-release"),
        ),
    }
}

/// By x86's name of it, or else by its kind.
fn processor(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
    };
    let named = ["model name", "Model", "Hardware"]
        .into_iter()
        .find_map(value);
    named.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn system(kernel: &str, release: &str) -> String {
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = kernel.trim();
    match name {
        Some(name) => format!("Linux {kernel}, {}", name.trim_matches('"')),
        None => format!("Linux {kernel}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:075B 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 00000000000000000000000000000000:075B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 333 1 0
   3: garbage
";

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        assert_eq!(listeners(TABLE, 1_883), [111, 333]);
        assert_eq!(listeners(TABLE, 1_884), []);
    }

    #[test]
    fn who_listens_is_found_by_its_port() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no such address.
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            assert!(process_by_port(port).unwrap().contains(&std::process::id()));
            drop(listener);
        }
        let error = process_by_port(0).unwrap_err();
        assert_eq!(error, FindError::Nobody { port: 0 });
    }

    #[test]
    fn a_machine_tells_what_it_is() {
        assert_eq!(
            processor("processor\t: 0\nmodel name\t: AMD EPYC\n"),
            "AMD EPYC"
        );
        assert_eq!(processor(""), std::env::consts::ARCH);
        let release = "ID=debian\nPRETTY_NAME=\"Debian 12\"\n";
        assert_eq!(system("6.1.0\n", release), "Linux 6.1.0, Debian 12");
        assert_eq!(system("6.1.0\n", ""), "Linux 6.1.0");
        let here = machine();
        assert!(
            here.memory_bytes > 0 && here.processor.contains('×'),
            "{here:?}"
        );
    }
}
