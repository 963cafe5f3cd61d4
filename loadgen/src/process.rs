//! What a process of this machine used so far, read from `/proc`. Linux only.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use serde::Serialize;

/// `/proc/PID/stat` counts in these: USER_HZ, which Linux keeps at 100 on every architecture but Alpha.
const TICKS_PER_SECOND: u64 = 100;
/// What the kernel calls kB, in bytes.
pub(crate) const KIB: u64 = 1_024;

/// For `smaps_rollup`, which is exact, the kernel walks every page of the process and holds up its page faults meanwhile:
/// tens of milliseconds for gigabytes. A process with more than this is read from `status`, which may be off by some
/// hundred kilobytes.
const WALKED_BYTES_MAX: u64 = 512 * 1_048_576;

/// A reading of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// CPU time of all its threads, user and system: exact to the kernel's scheduler tick (some milliseconds) while threads
    /// run and to microseconds while they wait; where the kernel does not tell or threads have ended, to 10 ms.
    pub cpu: Duration,
    /// Memory that is its own: anonymous pages that are resident, in bytes. No files, no kernel memory.
    pub anonymous_bytes: u64,
}

/// The process cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {why} (does the process run, and is it yours?)")]
pub struct ProcessError {
    path: String,
    why: String,
}

impl Usage {
    /// Reads the process `pid`.
    ///
    /// # Errors
    /// There is no such process, or it is not ours to look at.
    pub fn of(pid: u32) -> Result<Self, ProcessError> {
        Self::read(&format!("/proc/{pid}"))
    }

    /// Reads this process.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn of_self() -> Result<Self, ProcessError> {
        Self::read("/proc/self")
    }

    fn read(dir: &str) -> Result<Self, ProcessError> {
        let cpu = read_parsed(&format!("{dir}/stat"), cpu_of_stat)?;
        let cpu = cpu.max(cpu_of_threads(dir).unwrap_or_default());
        let mut anonymous_bytes = read_parsed(&format!("{dir}/status"), |text| {
            kib_of("RssAnon:", text).map(|kib| kib * KIB)
        })?;
        if anonymous_bytes < WALKED_BYTES_MAX {
            anonymous_bytes = read_parsed(&format!("{dir}/smaps_rollup"), |text| {
                kib_of("Anonymous:", text).map(|kib| kib * KIB)
            })?;
        }
        Ok(Self {
            cpu,
            anonymous_bytes,
        })
    }
}

/// Kernel memory of the whole machine in slabs (sockets, their buffers, files), in bytes.
///
/// # Errors
/// There is no `/proc/meminfo`.
pub fn kernel_slab_bytes() -> Result<u64, ProcessError> {
    read_parsed("/proc/meminfo", |text| {
        kib_of("Slab:", text).map(|kib| kib * KIB)
    })
}

fn read_parsed<T>(path: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ProcessError> {
    let error = |why: &dyn Display| ProcessError {
        path: path.to_owned(),
        why: why.to_string(),
    };
    let text = fs::read_to_string(path).map_err(|why| error(&why))?;
    parse(&text).ok_or_else(|| error(&"its format is not known"))
}

/// CPU time of the threads that live: finer than `stat`, which is cut to ticks, and less once a thread has ended.
fn cpu_of_threads(dir: &str) -> Option<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("{dir}/task")).ok()? {
        // One that ends meanwhile is not there to be read.
        if let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) {
            nanos += nanos_of_schedstat(&text)?;
        }
    }
    Some(Duration::from_nanos(nanos))
}

/// Time on a processor, time waiting for one, and how often: the first is in nanoseconds.
fn nanos_of_schedstat(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time are fields 14 and 15; the second field, the name, may itself hold spaces and brackets.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(ticks_to_cpu(user + system))
}

/// CPU time that is given in ticks.
pub(crate) fn ticks_to_cpu(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1_000) / TICKS_PER_SECOND)
}

/// The number of kB behind a key of `/proc/meminfo`, `status` and such.
pub(crate) fn kib_of(key: &str, text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_confuse_the_fields() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn threads_are_added_up_in_nanoseconds() {
        assert_eq!(nanos_of_schedstat("590085 12345 7\n"), Some(590_085));
        assert_eq!(nanos_of_schedstat(""), None);
        assert_eq!(cpu_of_threads("/proc/4294967295"), None);
        let ticks = read_parsed("/proc/self/stat", cpu_of_stat).unwrap();
        assert!(Usage::of_self().unwrap().cpu >= ticks);
    }

    #[test]
    fn memory_is_found_by_its_key() {
        let text = "Rss:   10 kB\nAnonymous:         4 kB\n";
        assert_eq!(kib_of("Anonymous:", text), Some(4));
        assert_eq!(kib_of("Swap:", text), None);
    }

    #[test]
    fn this_process_has_memory_of_its_own() {
        let before = Usage::of_self().unwrap().anonymous_bytes;
        let kept = vec![1_u8; 8 * 1_048_576];
        let after = Usage::of_self().unwrap().anonymous_bytes;
        assert!(after >= before + 7 * 1_048_576, "{before} then {after}");
        assert_eq!(kept.len(), 8 * 1_048_576);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error_that_says_so() {
        let error = Usage::of(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}
