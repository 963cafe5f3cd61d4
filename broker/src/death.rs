//! Threads that a node cannot do without: when one of them ends before its time, somebody is told.
//!
//! What a dead worker owned is gone, and what others send it waits for ever: its clients hang, and in the end everybody's. So
//! the process that has the broker should end and be started again; this only makes sure that it hears of it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::handle::{Handle, Shared};

/// A thread that the node cannot do without has ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Its name.
    pub thread: String,
    /// What it died of.
    pub why: String,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the thread {} died: {}", self.thread, self.why)
    }
}

/// What is told of a death, on the thread that dies.
pub(crate) type OnDeath = Box<dyn Fn(&Death) + Send + Sync>;

impl Shared {
    /// Runs the life of such a thread. When it fails or panics that is told, and `None` comes back.
    pub(crate) fn vital<T>(&self, life: impl FnOnce() -> Result<T, String>) -> Option<T> {
        let why = match catch_unwind(AssertUnwindSafe(life)) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(why)) => why,
            Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
        };
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        let death = Death { thread, why };
        match self.on_death.get() {
            Some(tell) => tell(&death),
            None => tracing::error!("{death}"),
        }
        None
    }
}

impl Handle {
    /// Runs the life of a thread that the node cannot do without, such as that of a sink. When it panics, whoever asked for it
    /// ([`Broker::on_death`](crate::Broker::on_death)) is told, and `None` comes back.
    pub fn vital<T>(&self, life: impl FnOnce() -> T) -> Option<T> {
        self.0.vital(|| Ok(life()))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}
