//! `millstream config check` and `millstream config reference`: nothing is started.

use super::print;
use crate::cli::ConfigCommand;
use crate::config::{Config, reference};
use crate::exit::Failure;

/// Runs the command.
///
/// # Errors
/// A start failure for a wrong file.
pub fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => print(&Config::load(Some(&file))?.resolved()?),
        ConfigCommand::Reference => print(&reference::page()),
    }
}
