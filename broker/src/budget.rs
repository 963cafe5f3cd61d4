//! The node's memory against its bound, and what is done about it before there is none: first new clients are refused, then
//! QoS 0 is dropped where it would wait, then queues are cut, the largest first.
//!
//! What each part holds is counted by kind (the counts `memory_…`): that says where the memory is, and what to cut. It does
//! not decide where the process's resident memory is told ([`crate::Handle::resident`]), for two reasons. A message that
//! waits in a thousand queues is counted in each and held once; and sessions, filters, what the allocator keeps and what
//! others in the process hold is not counted at all, while the kernel ends a process for it. Where nobody tells, as in the
//! deterministic harness, the count decides.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::{
    MEMORY_CUT_PERCENT, MEMORY_EASE_PERCENT, MEMORY_REFUSE_PERCENT, MEMORY_SHED_PERCENT,
};

/// What is done because of how much memory is used. Each does what the ones before do, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// New clients are refused; who comes back to a session, and takes what waits there, is not.
    NewClients,
    /// QoS 0 is dropped for clients that do not keep up.
    Qos0,
    /// Queues are cut, and nothing is retained or subscribed to in addition.
    Queues,
}

impl Pressure {
    const ALL: [Self; 4] = [Self::None, Self::NewClients, Self::Qos0, Self::Queues];

    /// From which share of the bound it holds.
    fn percent(self) -> u64 {
        match self {
            Self::None => 0,
            Self::NewClients => MEMORY_REFUSE_PERCENT,
            Self::Qos0 => MEMORY_SHED_PERCENT,
            Self::Queues => MEMORY_CUT_PERCENT,
        }
    }

    /// What is to be done at a share of the bound, after what was done so far: it ends a little below where it begins, so
    /// that it does not come and go.
    fn at(percent: u64, before: Self) -> Self {
        let begins = |one: &Self| {
            let ease = if *one <= before {
                MEMORY_EASE_PERCENT
            } else {
                0
            };
            percent + ease >= one.percent()
        };
        let mut from_the_last = Self::ALL.into_iter().rev();
        from_the_last.find(begins).unwrap_or_default()
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "enough is free",
            Self::NewClients => "new clients are refused",
            Self::Qos0 => {
                "QoS 0 is being dropped for clients that do not keep up, new clients are refused"
            }
            Self::Queues => {
                "the largest queues are being cut, nothing more is retained or subscribed to, new clients are refused"
            }
        })
    }
}

/// How much memory is used, of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used_bytes: u64,
    /// `limits.memory_bytes_max`; 0 is no bound.
    pub bytes_max: u64,
    /// What is done about it.
    pub pressure: Pressure,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = percent(self.used_bytes, self.bytes_max);
        let mib = self.bytes_max as f64 / 1_048_576.0;
        let (size, unit) = if mib < 1_024.0 {
            (mib, "MiB")
        } else {
            (mib / 1_024.0, "GiB")
        };
        write!(
            f,
            "memory: {percent} % of {size:.1} {unit}: {}",
            self.pressure
        )
    }
}

fn percent(used: u64, max: u64) -> u64 {
    used.saturating_mul(100) / max.max(1)
}

/// Queues by size: of each power of two, how many there are and their bytes.
#[derive(Debug, Clone)]
pub(crate) struct Sizes([(u64, u64); 64]);

impl Default for Sizes {
    fn default() -> Self {
        Self([(0, 0); 64])
    }
}

impl Sizes {
    /// Adds a queue.
    pub(crate) fn add(&mut self, bytes: u64) {
        if let Some(power) = bytes.checked_ilog2() {
            let (queues, sum) = &mut self.0[power as usize];
            *queues += 1;
            *sum += bytes;
        }
    }

    fn add_all(&mut self, others: &Self) {
        for ((queues, sum), (more_queues, more)) in self.0.iter_mut().zip(&others.0) {
            *queues += more_queues;
            *sum += more;
        }
    }

    /// The largest size, a power of two or 0, for which cutting every queue down to it frees so many bytes.
    fn to_free(&self, bytes: u64) -> u64 {
        let (mut queues, mut sum) = (0, 0);
        for (power, (more_queues, more)) in self.0.iter().enumerate().rev() {
            queues += more_queues;
            sum += more;
            if sum - (queues << power) >= bytes && sum > queues << power {
                return 1 << power;
            }
        }
        0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: u64,
    used: AtomicU64,
    /// Somebody tells what is resident.
    is_told: AtomicBool,
    pressure: AtomicU8,
    /// What was logged last.
    said: AtomicU8,
    /// What each worker's queues are like, once it has looked: which are the largest is a question to the node.
    sizes: Mutex<Vec<Sizes>>,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, workers: usize) -> Self {
        Self {
            sizes: Mutex::new(vec![Sizes::default(); workers]),
            bytes_max,
            used: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            pressure: AtomicU8::new(Pressure::None as u8),
            said: AtomicU8::new(Pressure::None as u8),
        }
    }

    /// What is to be done now.
    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::ALL[usize::from(self.pressure.load(Ordering::Relaxed)) % Pressure::ALL.len()]
    }

    /// Whether what is counted decides.
    pub(crate) fn counts(&self) -> bool {
        self.bytes_max > 0 && !self.is_told.load(Ordering::Relaxed)
    }

    /// So much is resident: whether queues are to be cut from now on.
    pub(crate) fn resident(&self, bytes: u64) -> bool {
        self.is_told.store(true, Ordering::Relaxed);
        self.judge(bytes)
    }

    /// So much is used: what is to be done about that from now on. Whether queues are to be cut, and were not before.
    pub(crate) fn judge(&self, used: u64) -> bool {
        self.used.store(used, Ordering::Relaxed);
        if self.bytes_max == 0 {
            return false;
        }
        let before = self.pressure();
        let now = Pressure::at(percent(used, self.bytes_max), before);
        if now == before {
            return false;
        }
        self.pressure.store(now as u8, Ordering::Relaxed);
        let memory = self.memory();
        // Once for each step until there is enough again: it may go to and fro several times a second.
        if now == Pressure::None {
            self.said.store(now as u8, Ordering::Relaxed);
            tracing::info!("{memory}");
        } else if self.said.fetch_max(now as u8, Ordering::Relaxed) < now as u8 {
            tracing::warn!("{memory}");
        }
        now == Pressure::Queues
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory {
            used_bytes: self.used.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
            pressure: self.pressure(),
        }
    }

    /// A worker's queues are like this.
    pub(crate) fn tell_sizes(&self, worker: usize, sizes: Sizes) {
        let mut all = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.get_mut(worker) {
            *place = sizes;
        }
    }

    /// What every queue is to be cut down to, by what the workers have told.
    pub(crate) fn queue_bytes_max(&self) -> u64 {
        let to = self.bytes_max / 100 * (MEMORY_CUT_PERCENT - 2 * MEMORY_EASE_PERCENT);
        let excess = self.used.load(Ordering::Relaxed).saturating_sub(to);
        let mut sum = Sizes::default();
        for one in &*self.sizes.lock().unwrap_or_else(PoisonError::into_inner) {
            sum.add_all(one);
        }
        sum.to_free(excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_at_its_mark_and_ends_a_little_below() {
        let budget = Budget::new(1_000, 1);
        let mut seen = Vec::new();
        for used in [799, 800, 781, 779, 900, 1_000, 981, 979, 881, 879, 5_000, 0] {
            budget.judge(used);
            seen.push(budget.pressure());
        }
        use Pressure::{NewClients, None, Qos0, Queues};
        assert_eq!(
            seen,
            [
                None, NewClients, NewClients, None, Qos0, Queues, Queues, Qos0, Qos0, NewClients,
                Queues, None
            ]
        );
        let unbounded = Budget::new(0, 1);
        unbounded.judge(u64::MAX);
        assert_eq!(unbounded.pressure(), None);
    }

    #[test]
    fn what_is_resident_decides_once_it_is_told() {
        let budget = Budget::new(1_000, 1);
        assert!(budget.counts());
        budget.resident(920);
        assert!(!budget.counts());
        assert_eq!(
            Memory {
                bytes_max: 4 << 30,
                used_bytes: (4 << 30) / 100 * 93,
                ..budget.memory()
            }
            .to_string(),
            "memory: 92 % of 4.0 GiB: QoS 0 is being dropped for clients that do not keep up, new clients are refused"
        );
    }

    #[test]
    fn the_largest_queues_are_cut_and_no_others() {
        let mut sizes = Sizes::default();
        for _ in 0..1_000 {
            sizes.add(100);
        }
        sizes.add(1 << 20);
        sizes.add(3 << 20);
        assert_eq!(sizes.to_free(1), 1 << 21);
        assert_eq!(sizes.to_free(3 << 20), 1 << 19);
        // Small ones only when the large ones are not enough.
        assert_eq!(sizes.to_free((4 << 20) - 100), 64);
        assert_eq!(sizes.to_free(5 << 20), 0);
        assert_eq!(Sizes::default().to_free(1), 0);
    }
}
