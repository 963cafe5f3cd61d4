//! How the process ends when it cannot go on: whose fault it was, in one sentence, and the exit code that says so.
//!
//! Not for errors while running: those are survived, counted and logged where they happen.

use std::fmt;
use std::process::ExitCode;

/// Clean end: the work is done, or SIGTERM or SIGINT was answered with a full drain.
pub const EXIT_OK: u8 = 0;
/// The process had started and then failed: a bug, or a machine that gave way.
pub const EXIT_FAILED: u8 = 1;
/// The process could not start, and the operator can change that: a port in use, a bad address, an unreachable
/// Kafka, a wrong configuration. Same code as a wrong command line.
pub const EXIT_CANNOT_START: u8 = 2;

/// It was ended before it had done what its answer is about: neither good nor bad can be said.
pub const EXIT_UNFINISHED: u8 = 3;

/// A thread that the broker cannot do without died: a bug, or a kernel that gave way. The process ended at once, without
/// a drain, so that it is started again; what was acknowledged is stored.
pub const EXIT_THREAD_DIED: u8 = 4;

/// What `ctl` was asked about is not there.
pub const EXIT_NOT_FOUND: u8 = 5;

/// Why the process ends, other than well.
#[derive(Debug)]
pub enum Failure {
    /// The operator can fix it; the sentence says what to do next.
    CannotStart(String),
    /// It ran and then failed.
    Failed(anyhow::Error),
    /// Somebody ended it before there was anything to say.
    Unfinished(String),
    /// A thread that the broker cannot do without has died.
    ThreadDied(broker::Death),
    /// What was asked about is not there.
    NotFound(String),
}

impl Failure {
    /// A start failure. `sentence` is one sentence for the operator, without a final newline.
    pub fn cannot_start(sentence: impl fmt::Display) -> Self {
        Self::CannotStart(sentence.to_string())
    }

    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::CannotStart(_) => EXIT_CANNOT_START,
            Self::Failed(_) => EXIT_FAILED,
            Self::Unfinished(_) => EXIT_UNFINISHED,
            Self::ThreadDied(_) => EXIT_THREAD_DIED,
            Self::NotFound(_) => EXIT_NOT_FOUND,
        })
    }
}

/// Ends the process because a thread has died. Its clients hang, and all others would in the end: nothing can be drained.
pub fn thread_died(death: &broker::Death) {
    crate::log::last_words(&Failure::ThreadDied(death.clone()));
    #[expect(
        clippy::disallowed_methods,
        reason = "a drain would wait for the thread that is gone; what was acknowledged is stored"
    )]
    std::process::exit(i32::from(EXIT_THREAD_DIED));
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotStart(sentence) | Self::Unfinished(sentence) | Self::NotFound(sentence) => {
                f.write_str(&one_line(sentence))
            }
            Self::Failed(error) => f.write_str(&one_line(&format!("{error:#}"))),
            Self::ThreadDied(death) => f.write_str(&one_line(&format!(
                "{death}; the process ends at once, to be started again"
            ))),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        if error.is_start() {
            Self::cannot_start(error)
        } else {
            Self::Failed(error.into())
        }
    }
}

impl From<settings::Error> for Failure {
    fn from(wrong: settings::Error) -> Self {
        Self::cannot_start(wrong)
    }
}

/// Operators grep for one line, so a library's error of several lines becomes one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_the_library_said() {
        let failure = Failure::cannot_start("first\n  second\n");
        assert_eq!(failure.to_string(), "first second");
    }
}
