//! What the consumer's thread and its owner share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::status::Status;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    stopping: AtomicBool,
    status: Mutex<Status>,
}

impl Shared {
    pub(crate) fn new(status: Status) -> Self {
        Self {
            stopping: AtomicBool::new(false),
            status: Mutex::new(status),
        }
    }

    /// Asks the thread to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn with_status<T>(&self, f: impl FnOnce(&mut Status) -> T) -> T {
        f(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
