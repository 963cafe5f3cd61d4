//! The command line: what may be said, and a help text that teaches each command with an example.

mod ctl;
mod dlq;
mod kafka;
mod replay;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::log;

use crate::backends;

pub use ctl::{BanWho, Ctl, CtlCommand, Pages, RetainedCommand, To, TraceOf};
pub use dlq::{Command as DlqCommand, Dlq, KafkaOptions as DlqKafka, Letters as DlqLetters};
pub use kafka::{Groups, Topics, TopicsCommand};
pub use replay::{Order, Replay};

/// A real-time messaging backend: an MQTT broker in front of Kafka, with chat, IoT and dashboard backends behind it.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, after_help = EXAMPLE)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLE: &str = "\
Start here, nothing else needs to be installed:
  millstream up --demo

SIGTERM and SIGINT drain: what was accepted is stored and delivered before the process ends with exit code 0.
A start that fails says why in one sentence and ends with exit code 2.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: broker, bridge and the three backends, with an in-memory Kafka or a real one
    Up(Up),
    /// Run one MQTT broker node; with --kafka the bridge to Kafka is in it
    Broker(Broker),
    /// Run one backend
    #[command(flatten)]
    Backend(backends::Command),
    /// Load an MQTT broker, this one or any other: scenarios, latencies, memory, and a ledger of every message
    Load(Box<loadgen::cli::Load>),
    /// Read again what lies in Kafka: to a topic, to MQTT clients, to a file, to standard output
    Replay(Box<Replay>),
    /// Look at a running node and act on it: clients, subscriptions, retained messages, bans, log, reload, drain
    Ctl(Box<Ctl>),
    /// Dead letters: which there are and why, put them back, delete them
    Dlq(Dlq),
    /// Consumer groups of Kafka: members, what waits for them, and since when
    Groups(Groups),
    /// Topics of Kafka that a node needs: print, check, make them
    Topics(Topics),
    /// Add a user to a password file, change its password, or take it out
    Passwd(Passwd),
    /// Check a configuration file, or print the reference of all keys
    Config {
        /// What to do with the configuration.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Options of every process that runs.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Configuration file (TOML); the command line wins over it. `millstream config reference` prints its keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log to standard error, for example info or broker=debug,warn; wins over RUST_LOG; default info, of up warn
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How the log is written; default text
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<log::Format>,
}

/// `millstream up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  millstream up --demo
      Everything in one process with a small fleet of demo clients. The Kafka inside lives in memory and forgets
      everything at the end.
  millstream up --kafka 127.0.0.1:9092 --data ./data
      The same on a real Kafka, with databases under ./data: everything is there again after a restart.")]
pub struct Up {
    /// Run a small fleet of real MQTT clients (rooms with talkers, devices with sensors) and follow each message
    #[arg(long)]
    pub demo: bool,
    /// Bootstrap servers of a Kafka, HOST:PORT, several separated by commas; without it, one in memory
    #[arg(long, value_name = "HOSTS")]
    pub kafka: Option<String>,
    /// Directory of the backends' databases; default ./data with --kafka, a temporary one without
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where MQTT clients connect; default 127.0.0.1:1883
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<String>,
    /// Where the page, the APIs and the metrics are served; default 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Who may connect.
    #[command(flatten)]
    pub clients: Clients,
    /// Options of every process.
    #[command(flatten)]
    pub common: Common,
}

/// Who may connect: the short form of `[broker.authentication]`.
#[derive(Args, Clone, Debug)]
pub struct Clients {
    /// Let clients in that are in this password file; `millstream passwd FILE USER` makes it
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Let clients in that do not say who they are, also on addresses that other machines reach
    #[arg(long)]
    pub anonymous: bool,
}

impl Clients {
    /// Says it to the configuration, over which the command line wins.
    pub fn tell(&self, config: &mut broker::identity::Config) {
        if let Some(file) = &self.password_file {
            config.file.path = file.display().to_string();
            let name = broker::identity::password::NAME;
            if !config.chain.iter().any(|link| link == name) {
                config.chain.insert(0, name.to_owned());
            }
        }
        config.anonymous |= self.anonymous;
    }
}

/// `millstream broker`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  millstream broker
      A plain MQTT broker (3.1, 3.1.1 and 5.0) at 127.0.0.1:1883; try: mosquitto_sub -t '#' -v
  millstream broker --mqtt 0.0.0.0:1883 --password-file users --kafka 10.0.0.5:9092,10.0.0.6:9092
      A node for the users of that file, which acknowledges a QoS 1 or 2 publish only after Kafka has stored it.")]
pub struct Broker {
    /// Where MQTT clients connect; default 127.0.0.1:1883
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<String>,
    /// Bootstrap servers of the Kafka that publishes are stored in, HOST:PORT, several separated by commas
    #[arg(long, value_name = "HOSTS")]
    pub kafka: Option<String>,
    /// Where metrics, health and status are served; default 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Who may connect.
    #[command(flatten)]
    pub clients: Clients,
    /// Options of every process.
    #[command(flatten)]
    pub common: Common,
}

/// `millstream chat`, `iot` and `dashboard`.
#[derive(Args, Debug)]
pub struct Backend {
    /// Bootstrap servers of the Kafka to read from, HOST:PORT, several separated by commas
    #[arg(long, value_name = "HOSTS")]
    pub kafka: Option<String>,
    /// The backend's database, a file such as sqlite:chat.db; created when it does not exist, in a directory that does
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where the backend's HTTP API, metrics and health are served; default 127.0.0.1:8081, 8082 or 8083
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Name of the consumer group; processes with the same name share the work
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Options of every process.
    #[command(flatten)]
    pub common: Common,
}

/// `millstream passwd`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millstream passwd users ada
      Asks for the password twice, and adds the user ada to the file users or changes her password. A node that reads the
      file takes the change over within seconds, and at once when it gets SIGHUP.
  printf %s \"$SECRET\" | millstream passwd users pump-7 --tenant acme --group pumps
      The password comes from standard input; the user is one of the tenant acme and of the group pumps.
  millstream passwd users ada --delete
      Takes the user out.")]
pub struct Passwd {
    /// The password file; it is made when it is not there
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The user
    #[arg(value_name = "USER")]
    pub user: String,
    /// The password, which others on this machine can then see in the list of processes; without it, it is asked for, or read
    /// from standard input
    #[arg(short = 'b', long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Take the user out
    #[arg(short = 'D', long, conflicts_with_all = ["password", "tenant", "group"])]
    pub delete: bool,
    /// Whose user it is; without it, whose it was before
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// A group that it belongs to, as often as there are groups; without any, those of before
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,
}

/// `millstream config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file and print every value as it will be used (secrets hidden)
    #[command(after_help = "\
Example:
  millstream config check millstream.toml
      Prints the resolved values and ends with exit code 0, or says in one sentence which line and key is wrong,
      and what is allowed, with exit code 2.")]
    Check {
        /// The configuration file (TOML).
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the reference of all keys with defaults, units and allowed values, as Markdown
    #[command(after_help = "\
Example:
  millstream config reference > docs/CONFIGURATION.md")]
    Reference,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        fn check(path: &str, command: &clap::Command) {
            if command.get_name() == "help" {
                return;
            }
            if command.has_subcommands() {
                for command in command.get_subcommands() {
                    check(&format!("{path} {}", command.get_name()), command);
                }
            } else {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains("Example") && help.contains(path),
                    "the help of `{path}` has no example of its own: {help}"
                );
            }
        }
        check("millstream", &Cli::command());
    }
}
