//! The one clock of a process: nanoseconds since 1970 that never go back. Read once against the system's clock and then
//! counted by the monotonic one, so that processes of one machine agree within microseconds, and machines as well as
//! their system clocks do.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01 UTC, or of a swarm's virtual time.
pub type Nanos = u64;

static ZERO: LazyLock<(Instant, Nanos)> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    (Instant::now(), Nanos::try_from(nanos).unwrap_or(Nanos::MAX))
});

/// The time.
#[must_use]
pub fn now() -> Nanos {
    let (zero, at_zero) = *ZERO;
    at_zero.saturating_add(Nanos::try_from(zero.elapsed().as_nanos()).unwrap_or(Nanos::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_of_day_and_never_goes_back() {
        let of_system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let first = now();
        assert!(first.abs_diff(of_system.as_nanos() as u64) < 60_000_000_000);
        assert!(now() >= first);
    }
}
