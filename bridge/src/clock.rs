//! The time of day, as it stands in records and as it is compared with theirs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch; none for a clock that is set before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    millis(since_epoch())
}

/// Its whole milliseconds: they fit for the next hundred million years.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
