//! Millstream: millions of MQTT connections, one stream, many mills.
//!
//! One binary, thin: it parses the command line, puts the libraries together, runs them, drains them and says how it
//! ended. What the parts do is in their crates.

mod access;
mod address;
mod admin;
mod backends;
mod certificates;
mod cli;
mod commands;
mod config;
mod ctl;
mod data_dir;
mod demo;
mod exit;
mod files;
mod http;
mod log;
mod memory;
mod metrics;
mod node;
mod reload;
mod restart;
mod screen;
mod signals;
mod systemd;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

// A message is made by one worker and often freed by another thread. glibc's allocator takes a lock for that, which two busy
// workers fight over; jemalloc's threads keep what they free (docs/adr/0004). Its settings are in .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A wrong command line ends here with exit code 2, `--help` and `--version` with 0.
    let cli = Cli::parse();
    let ended = match cli.command {
        Command::Up(options) => commands::up::run(options),
        Command::Broker(options) => commands::broker::run(options),
        Command::Backend(backend) => commands::backend_process::run(backend),
        Command::Load(load) => commands::load::run(*load),
        Command::Replay(options) => commands::replay::run(*options),
        Command::Ctl(ctl) => commands::ctl::run(*ctl),
        Command::Dlq(options) => commands::dlq::run(options),
        Command::Groups(options) => commands::groups::run(options),
        Command::Topics(options) => commands::topics::run(options),
        Command::Passwd(options) => commands::passwd::run(options),
        Command::Config { command } => commands::config::run(command),
    };
    match ended {
        Ok(()) => ExitCode::from(exit::EXIT_OK),
        Err(failure) => {
            log::last_words(&failure);
            failure.code()
        }
    }
}
