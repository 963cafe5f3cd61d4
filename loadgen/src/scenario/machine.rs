//! What this machine has for a run: open files, ports, memory.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ports that Linux gives to connections when nobody says otherwise.
const PORTS_DEFAULT: (u16, u16) = (32_768, 60_999);

/// What a process of this machine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Open files of a process, by its hard limit.
    pub open_files: u64,
    /// Ports of one source address for connections.
    pub ports: u32,
    /// Memory that is free or can be freed, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// Reads it.
    ///
    /// # Errors
    /// There is no `/proc/meminfo`.
    pub fn read() -> io::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
        Ok(Self {
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            ports: ports(
                range
                    .ok()
                    .as_deref()
                    .and_then(port_range)
                    .unwrap_or(PORTS_DEFAULT),
                reserved.as_deref().unwrap_or(""),
            ),
            memory_bytes: available(&memory)
                .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?,
        })
    }
}

/// Raises this process's soft limit of open files to its hard limit, which is what it then returns.
///
/// # Errors
/// The system refuses it.
pub fn raise_open_files() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ends = text.split_whitespace().map(str::parse);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    (first <= last).then_some((first, last))
}

/// Ports of a range without the reserved ones, which are written as `8080,9148-9150`.
fn ports((first, last): (u16, u16), reserved: &str) -> u32 {
    let taken: u32 = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let from = from.trim().parse::<u16>().ok()?.max(first);
            let to = to.trim().parse::<u16>().ok()?.min(last);
            (from <= to).then(|| u32::from(to - from) + 1)
        })
        .sum();
    (u32::from(last - first) + 1).saturating_sub(taken)
}

/// `MemAvailable`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_without_reserved_ones() {
        for (range, reserved, wanted) in [
            ((32_768, 60_999), "\n", 28_232),
            ((32_768, 60_999), "40000,50000-50009\n", 28_221),
            ((32_768, 60_999), "1-32768,60999-65535", 28_230),
            ((1, 1), "", 1),
            ((1, 2), "1-2", 0),
        ] {
            assert_eq!(ports(range, reserved), wanted, "{range:?} {reserved}");
        }
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(port_range("5 4"), None);
    }

    #[test]
    fn memory_is_what_is_available() {
        assert_eq!(
            available("MemFree: 1 kB\nMemAvailable:   20 kB\n"),
            Some(20_480)
        );
        assert_eq!(available("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_something_and_its_files_can_be_raised() {
        let machine = Machine::read().unwrap();
        assert!(machine.open_files > 0 && machine.ports > 0 && machine.memory_bytes > 0);
        assert_eq!(raise_open_files().unwrap(), machine.open_files);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
