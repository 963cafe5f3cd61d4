//! Trouble that librdkafka's clients report, on its way to who looks into it.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::SystemTime;

/// Trouble that librdkafka reported, until the watch has looked into it.
#[derive(Debug, Default)]
pub(crate) struct Suspicions {
    last: Mutex<Option<Suspicion>>,
    watch: OnceLock<Thread>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// When the first report came.
    pub(crate) since: SystemTime,
    /// What the last one said.
    pub(crate) cause: String,
}

impl Suspicions {
    /// Something is wrong with the connection to Kafka. The first report since the last look counts for the time, the last
    /// one for the cause.
    pub(crate) fn report(&self, cause: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let since = last
            .as_ref()
            .map_or_else(SystemTime::now, |suspicion| suspicion.since);
        *last = Some(Suspicion { since, cause });
        drop(last);
        if let Some(watch) = self.watch.get() {
            watch.unpark();
        }
    }

    /// Whom each report wakes.
    pub(crate) fn set_watch(&self, watch: Thread) {
        // It is set once.
        let _ = self.watch.set(watch);
    }

    /// What was reported since the last call.
    pub(crate) fn take(&self) -> Option<Suspicion> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
