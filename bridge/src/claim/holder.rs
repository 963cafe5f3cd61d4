//! Who holds a node's name: a process, described so that another one can tell whether it still lives.
//!
//! The description travels as the `client.id` of a member of a consumer group, so it is one line of text. A process that was
//! killed stays a member until Kafka's session timeout; on the same machine the next start need not wait for that,
//! because the description says which process it was.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock;

/// The first part of a description; other members of the group are none of ours.
const MARK: &str = "millstream-node";

/// A process (or a part of one) that holds a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// When it took the name, in milliseconds since 1970. Of two the earlier one holds it.
    pub(super) since_ms: u64,
    /// Its number within its process: tests and embedding programs run several nodes in one.
    part: u32,
    /// The process, as the kernel that it runs on knows it.
    pub(super) pid: u32,
    started: u64,
    /// That kernel's boot, and the namespace in which the process has its number.
    kernel: String,
    /// The host's name, for people.
    pub(super) host: String,
}

/// Whether a holder lives, as far as this process can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It is a process of this machine, and it runs.
    Alive,
    /// It was a process of this machine, and it has ended.
    Dead,
    /// It is on another machine: only Kafka can tell.
    Elsewhere,
}

impl Holder {
    /// A new holder in this process.
    pub(super) fn new(host: &str) -> Self {
        static PARTS: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        Self {
            since_ms: clock::now_ms(),
            part: PARTS.fetch_add(1, Ordering::Relaxed),
            pid,
            started: started(pid).unwrap_or_default(),
            kernel: kernel(),
            host: host.replace(['/', ' '], "-"),
        }
    }

    /// The description; [`Holder::parse`] reads it.
    pub(super) fn describe(&self) -> String {
        let Self {
            since_ms,
            part,
            pid,
            started,
            kernel,
            host,
        } = self;
        format!("{MARK}/{since_ms}/{part}/{pid}/{started}/{kernel}/{host}")
    }

    /// The holder that a description is of; `None` when it is something else.
    pub(super) fn parse(description: &str) -> Option<Self> {
        let mut parts = description.split('/');
        let holder = (parts.next()? == MARK).then(|| {
            Some(Self {
                since_ms: parts.next()?.parse().ok()?,
                part: parts.next()?.parse().ok()?,
                pid: parts.next()?.parse().ok()?,
                started: parts.next()?.parse().ok()?,
                kernel: parts.next()?.to_owned(),
                host: parts.next()?.to_owned(),
            })
        })?;
        holder.filter(|_| parts.next().is_none())
    }

    /// Whether it lives.
    pub(super) fn life(&self) -> Life {
        if self.kernel.is_empty() || self.kernel != kernel() {
            Life::Elsewhere
        } else if started(self.pid) == Some(self.started) {
            Life::Alive
        } else {
            Life::Dead
        }
    }

    /// Whether it took the name before `other`.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        (self.since_ms, self.describe()) < (other.since_ms, other.describe())
    }
}

/// When a process was started, in the kernel's ticks since its boot; `None` when there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in brackets, in which anything may stand.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// This boot of this kernel, and the namespace in which this process has its number.
fn kernel() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    match (boot.trim(), namespace.as_str()) {
        ("", _) | (_, "") => String::new(),
        (boot, namespace) => format!("{boot}.{namespace}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let holder = Holder::new("a host/x");
        assert_eq!(Holder::parse(&holder.describe()), Some(holder.clone()));
        assert_eq!(holder.host, "a-host-x");
        for other in [
            "",
            "rdkafka",
            "millstream-node",
            "millstream-node/1/2/3/4/5",
            "x/1/2/3/4/5/6",
        ] {
            assert_eq!(Holder::parse(other), None, "{other}");
        }
        assert_eq!(Holder::parse(&format!("{}/more", holder.describe())), None);
    }

    #[test]
    fn a_process_of_this_machine_is_known_to_live_or_not() {
        let me = Holder::new("x");
        assert_eq!(me.life(), Life::Alive);
        // The number is used again by another process.
        let earlier = Holder {
            started: me.started + 1,
            ..me.clone()
        };
        assert_eq!(earlier.life(), Life::Dead);
        let elsewhere = Holder {
            kernel: "other.1".to_owned(),
            ..me
        };
        assert_eq!(elsewhere.life(), Life::Elsewhere);
    }

    #[test]
    fn of_two_exactly_one_was_first() {
        let (first, second) = (Holder::new("x"), Holder::new("x"));
        let second = Holder {
            since_ms: first.since_ms,
            ..second
        };
        assert_ne!(first.is_before(&second), second.is_before(&first));
        assert!(!first.is_before(&first));
    }
}
