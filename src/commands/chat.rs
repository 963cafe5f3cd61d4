//! `millstream chat`: the chat backend as a process of its own.

use super::backend_process;
use crate::backends::Kind;
use crate::cli;
use crate::exit::Failure;

/// Runs the backend until it is told to end.
///
/// # Errors
/// See [`backend_process::run`].
pub fn run(options: cli::Backend) -> Result<(), Failure> {
    backend_process::run(Kind::Chat, options)
}
