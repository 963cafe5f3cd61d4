//! The command line of the load generator: what may be said, and what is done about it.

mod args;
mod execute;
mod naming;
mod options;
mod progress;
mod watch;

pub use args::{AgentArgs, Load, LoadCommand, ReportArgs, RunArgs, RunFile};
pub use execute::Execution;
pub use options::LoadError;
