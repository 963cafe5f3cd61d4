//! Memory: how much the node may use where nobody said, and how much it does.
//!
//! The bound is a share of what the machine has, or of what the control group or the address space of this process allows: the
//! rest is for the kernel's buffers and, of an address space, for stacks and what the allocator keeps reserved. What is used
//! is what is resident and anonymous: pages of files can be dropped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use broker::Limits;

/// How often the system is asked what is resident.
const LOOK: Duration = Duration::from_millis(100);

/// How much memory there may be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes_max: u64,
    of: String,
}

impl Memory {
    /// Sets the bound on the broker's memory where the configuration sets none.
    pub fn bound(limits: &mut Limits) -> Self {
        let mut memory = Self {
            bytes_max: limits.memory_bytes_max,
            of: "broker.limits.memory_bytes_max".to_owned(),
        };
        if memory.bytes_max == 0 {
            memory = Self::smallest(&allowed());
            limits.memory_bytes_max = memory.bytes_max;
        }
        memory
    }

    /// The smallest of these shares: bytes, percent, and of what.
    fn smallest(allowed: &[(u64, u64, &str)]) -> Self {
        let shares = allowed
            .iter()
            .map(|(bytes, percent, what)| (bytes / 100 * percent, *bytes, *percent, *what));
        shares.min().map_or_else(
            || Self {
                bytes_max: 0,
                of: "the system does not say how much there is".to_owned(),
            },
            |(share, bytes, percent, what)| Self {
                bytes_max: share,
                of: format!("{percent} % of the {what}'s {}", size(bytes)),
            },
        )
    }

    /// How much there may be and why, for the start's output.
    pub fn in_words(&self) -> String {
        if self.bytes_max == 0 {
            return format!("memory without bound ({})", self.of);
        }
        format!("{} of memory ({})", size(self.bytes_max), self.of)
    }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    if mib < 1_024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1_024.0)
    }
}

/// What the machine, the control group and the system's limits allow.
fn allowed() -> Vec<(u64, u64, &'static str)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut allowed = Vec::new();
    if let Some(kib) = kib_of("MemTotal:", &read("/proc/meminfo")) {
        allowed.push((kib * 1_024, 75, "machine"));
    }
    if let Some(bytes) = of_groups(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) {
        allowed.push((bytes, 75, "control group"));
    }
    if let Some(bytes) = address_space(&read("/proc/self/limits")) {
        allowed.push((bytes, 50, "address space"));
    }
    allowed
}

/// The number of kB behind a key.
fn kib_of(key: &str, text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The smallest bound of the control group that `groups` (`/proc/self/cgroup`) names, and of those above it.
fn of_groups(groups: &str, root: &Path) -> Option<u64> {
    let bounds = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = base.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|at| at.starts_with(&base));
        let bytes = |at: &Path| fs::read_to_string(at.join(file)).ok()?.trim().parse().ok();
        above.filter_map(bytes).min()
    });
    bounds.min()
}

/// The soft limit of the address space in `/proc/self/limits`, if it has one.
fn address_space(limits: &str) -> Option<u64> {
    let key = "Max address space";
    let line = limits.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Tells the broker how much memory is resident, for as long as this runs.
pub async fn watch(broker: broker::Handle) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let Some(kib) = kib_of("RssAnon:", &status) else {
            return; // what the broker counts decides
        };
        broker.resident(kib * 1_024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_smallest_share_holds_and_is_named() {
        let mut allowed = vec![(24 * GIB, 75, "machine")];
        let machine = Memory::smallest(&allowed);
        assert_eq!(
            machine.in_words(),
            "18.0 GiB of memory (75 % of the machine's 24.0 GiB)"
        );
        allowed.push((GIB, 50, "address space"));
        allowed.push((4 * GIB, 75, "control group"));
        assert_eq!(
            Memory::smallest(&allowed).in_words(),
            "512 MiB of memory (50 % of the address space's 1.0 GiB)"
        );
        assert_eq!(Memory::smallest(&[]).bytes_max, 0);
    }

    #[test]
    fn a_bound_that_is_set_stays() {
        let mut limits = Limits {
            memory_bytes_max: GIB,
            ..Limits::default()
        };
        let words = Memory::bound(&mut limits).in_words();
        assert_eq!(limits.memory_bytes_max, GIB);
        assert_eq!(words, "1.0 GiB of memory (broker.limits.memory_bytes_max)");
    }

    #[test]
    fn the_smallest_bound_of_the_groups_above_holds() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(root.path().join("a/memory.max"), "5000\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(of_groups("0::/a/b\n", root.path()), Some(5_000));
        fs::write(group.join("memory.max"), "4000\n").unwrap();
        assert_eq!(of_groups("0::/a/b\n", root.path()), Some(4_000));
        assert_eq!(of_groups("0::/c\n", root.path()), None);
        let old = root.path().join("memory/x");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "3000\n").unwrap();
        let groups = "5:cpu:/x\n4:memory,hugetlb:/x\n";
        assert_eq!(of_groups(groups, root.path()), Some(3_000));
    }

    #[test]
    fn an_address_space_without_limit_is_no_bound() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space   unlimited  unlimited  bytes\n";
        assert_eq!(address_space(limits), None);
        let limited = limits.replacen("unlimited", "1073741824", 1);
        assert_eq!(address_space(&limited), Some(GIB));
    }
}
