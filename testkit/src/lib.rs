//! Fixtures of this project's tests. Only a dev-dependency: no product code uses it, and it uses no product code but the
//! record contract (`envelope`), so that what a test sees of the product is what a stranger sees.
//!
//! Nothing here sleeps to hope: what must come is waited for, up to a deadline, and a wait in vain says for what.

pub mod again;
pub mod browser;
pub mod clients;
pub mod far;
pub mod http;
pub mod kafka;
pub mod millstream;
pub mod publisher;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that is no matter of performance. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A name that no other test uses, so that tests can share a Kafka.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Now, in milliseconds since the Unix epoch.
///
/// # Panics
/// When the clock stands before 1970.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("before the year 500 million")
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it finds nothing within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        std::thread::sleep(LOOK);
    }
}

/// The same in a tokio runtime: waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`]; `what` says what was waited for.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
