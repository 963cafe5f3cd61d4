//! `millstream config check` and `millstream config reference`: nothing is started.

use std::io::Write;

use anyhow::Context;

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

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    match written {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to standard output")?),
    }
}
