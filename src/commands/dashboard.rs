//! `millstream dashboard`: the dashboard backend as a process of its own.

use super::backend;
use crate::backend::Kind;
use crate::cli;
use crate::exit::Failure;

/// Runs the backend until it is told to end.
///
/// # Errors
/// See [`backend::run`].
pub fn run(options: cli::Backend) -> Result<(), Failure> {
    backend::run(Kind::Dashboard, options)
}
