//! The broker's side of a run, read from `/proc` and from its metrics address. Linux only; of this machine only.

mod listening;
mod metrics;

use std::fs;
use std::net::SocketAddr;

use crate::process::{ProcessError, Usage};
use crate::report::{Machine, ServerSample};

pub use metrics::Counters;

/// `/proc/net/sockstat` counts pages of this size.
const PAGE_BYTES: u64 = 4_096;

/// Why the broker cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// No such process, or not ours.
    #[error("--pid: {0}")]
    Process(#[from] ProcessError),
    /// Something else than a number or "auto".
    #[error("--pid is \"{0}\"; it is the number of a process, or \"auto\"")]
    Pid(String),
    /// Nobody listens there.
    #[error(
        "--pid auto: no process of this machine that we may look at listens on {0}; give its number, or leave --pid out for a broker elsewhere"
    )]
    NotFound(SocketAddr),
    /// The metrics address does not answer with metrics.
    #[error("--metrics {url}: {why}")]
    Metrics {
        /// The address.
        url: String,
        /// What happened.
        why: String,
    },
}

/// Reads the broker's process and its host.
#[derive(Debug, Clone)]
pub struct Sampler {
    pid: Option<u32>,
    name: String,
    metrics: Option<String>,
}

impl Sampler {
    /// Looks at process `pid`: its number, or "auto" for the one that listens on `broker`. `None` when neither a process
    /// nor a metrics address is given.
    ///
    /// # Errors
    /// There is no such process, or no metrics at the address.
    pub fn find(
        pid: Option<&str>,
        broker: SocketAddr,
        metrics: Option<&str>,
    ) -> Result<Option<Self>, SamplerError> {
        let pid = match pid {
            None => None,
            Some("auto") => Some(listening::pid_of(broker).ok_or(SamplerError::NotFound(broker))?),
            Some(text) => Some(
                text.parse()
                    .map_err(|_| SamplerError::Pid(text.to_owned()))?,
            ),
        };
        if pid.is_none() && metrics.is_none() {
            return Ok(None);
        }
        Self::new(pid, metrics).map(Some)
    }

    /// Looks at this process: the broker is in it.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn of_self() -> Result<Self, SamplerError> {
        Self::new(Some(std::process::id()), None)
    }

    fn new(pid: Option<u32>, metrics: Option<&str>) -> Result<Self, SamplerError> {
        if let Some(pid) = pid {
            Usage::of(pid)?;
        }
        if let Some(url) = metrics {
            metrics::read(url).map_err(|why| SamplerError::Metrics {
                url: url.to_owned(),
                why,
            })?;
        }
        let name = pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .map_or_else(String::new, |name| name.trim().to_owned());
        Ok(Self {
            pid,
            name,
            metrics: metrics.map(str::to_owned),
        })
    }

    /// A remark when the process is not the one that listens on `broker`: what it uses then says something of the broker only
    /// if somebody knows better, as of one behind a proxy or with processes of its own for its work.
    #[must_use]
    pub fn stranger(&self, broker: SocketAddr) -> Option<String> {
        let pid = self.pid?;
        let listens = listening::pid_of(broker);
        (listens != Some(pid)).then(|| {
            let listener = listens.map_or_else(
                || "who does is not known".to_owned(),
                |other| format!("process {other} does"),
            );
            format!(
                "process {pid} ({}), whose CPU and memory these are, does not listen on {broker}; {listener}",
                self.name
            )
        })
    }

    /// The process; 0 when only metrics are looked at.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or(0)
    }

    /// The process's name, by the kernel.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process runs: one that has ended and that nobody has waited for does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let stat = self
            .pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stat.is_some_and(|stat| {
            // The name before it may itself have brackets.
            let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            !after_name.starts_with(['Z', 'X'])
        })
    }

    /// A reading; `None` when the process is gone.
    #[must_use]
    pub fn sample(&self) -> Option<ServerSample> {
        let usage = Usage::of(self.pid?).ok()?;
        Some(ServerSample {
            cpu_us: u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
            anonymous_bytes: usage.anonymous_bytes,
            context_switches: context_switches(self.pid?),
            socket_bytes: socket_bytes().unwrap_or(0),
            slab_bytes: crate::process::kernel_slab_bytes().unwrap_or(0),
        })
    }

    /// The counters at the metrics address; none without one, or when it does not answer.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let url = self.metrics.as_deref();
        url.and_then(|url| metrics::read(url).ok())
            .unwrap_or_default()
    }
}

/// Of all threads so far, voluntary and not.
fn context_switches(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .map(|status| switches_of(&status))
        .sum()
}

fn switches_of(status: &str) -> u64 {
    status
        .lines()
        .filter(|line| line.contains("ctxt_switches:"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Memory of all TCP sockets of the host.
fn socket_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    pages_of(&text).map(|pages| pages * PAGE_BYTES)
}

fn pages_of(sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    let mut words = tcp.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

/// This machine.
#[must_use]
pub fn machine() -> Machine {
    let field = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key))?.to_owned();
        let (_, value) = line.split_once([':', '='])?;
        Some(value.trim().trim_matches('"').to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal:")
        .and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned());
    Machine {
        processor: format!("{cores} × {model}"),
        memory_bytes: memory.unwrap_or(0) * 1_024,
        system: format!("{system}, Linux {}", kernel.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_understood() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches_of(status), 15);
        let sockstat =
            "sockets: used 5\nTCP: inuse 3 orphan 0 tw 0 alloc 4 mem 7\nUDP: inuse 0 mem 9\n";
        assert_eq!(pages_of(sockstat), Some(7));
        assert_eq!(pages_of("UDP: mem 9\n"), None);
    }

    #[test]
    fn this_process_is_sampled() {
        let sampler = Sampler::of_self().unwrap();
        let sample = sampler.sample().unwrap();
        assert!(sample.anonymous_bytes > 0 && sample.context_switches > 0);
        assert_eq!(sampler.pid(), std::process::id());
        assert!(!sampler.name().is_empty());
        assert!(machine().memory_bytes > 0);
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sampler = Sampler::find(Some("auto"), address, None).unwrap().unwrap();
        assert_eq!(sampler.pid(), std::process::id());
        assert_eq!(sampler.stranger(address), None);
        // The parent of a test is no broker.
        let parent = std::os::unix::process::parent_id().to_string();
        let other = Sampler::find(Some(&parent), address, None)
            .unwrap()
            .unwrap();
        let remark = other.stranger(address).unwrap();
        let wanted = [
            format!("process {parent} ("),
            format!(
                "does not listen on {address}; process {} does",
                std::process::id()
            ),
        ];
        assert!(wanted.iter().all(|part| remark.contains(part)), "{remark}");
        drop(listener);
        let error = Sampler::find(Some("auto"), address, None).unwrap_err();
        assert!(error.to_string().contains("--pid auto"), "{error}");
    }

    #[test]
    fn a_wrong_pid_is_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        for pid in ["me", "4294967290"] {
            let error = Sampler::find(Some(pid), address, None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("--pid"), "{error}");
        }
        assert!(Sampler::find(None, address, None).unwrap().is_none());
    }
}
