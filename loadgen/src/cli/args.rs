//! What may be said on the command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::agents::AgentAddresses;
use crate::scenario::Scenario;

/// `millstream load`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millstream load pairs --broker 127.0.0.1:1883 --pid auto
      Pairs of a publisher and a subscriber on any MQTT broker: latencies, rates, the broker's
      CPU and memory, and a ledger of every message.
  millstream load mixed --simulated --clients 1000000
      A million clients in this process, on Millstream's own engine without sockets.
  millstream load show chat > my.toml; millstream load run my.toml --html report.html
      A scenario of your own.

Exit codes:
  0  the run kept to its limits, also when Ctrl-C ended it early
  1  it did not: something is missing, refused, out of order, the broker died …
  2  it could not begin
  3  it was ended before anything was measured
Ctrl-C gives the report so far; a second one ends at once.")]
pub struct Load {
    /// What to do.
    #[command(subcommand)]
    pub command: LoadCommand,
}

/// What a command's help says below its options: what it does when no option changes it, taken from the scenario itself, and
/// an example.
fn after(scenario: &str, example: &str) -> String {
    // A test asks for the help of all of them.
    let as_it_comes = Scenario::builtin(scenario).map_or_else(|_| String::new(), |it| it.summary());
    format!("Without options:\n{as_it_comes}\n{example}")
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum LoadCommand {
    /// Connect clients at a steady rate
    #[command(
        after_help = after("connect", "Example:\n  millstream load connect --clients 10000 --connect-rate 2000 --pid auto"))]
    Connect(RunArgs),
    /// Connect all clients at once
    #[command(after_help = after("connect-storm", "Example:\n  millstream load connect-storm --clients 18000 --pid auto"))]
    ConnectStorm(RunArgs),
    /// Cut all connections at once; everybody comes back at the same time
    #[command(after_help = after("reconnect-storm", "Example:\n  millstream load reconnect-storm --clients 5000 --pid auto"))]
    ReconnectStorm(RunArgs),
    /// Clients with a subscription that do nothing: what they cost in memory
    #[command(after_help = after("idle", "Example:\n  millstream load idle --clients 18000 --pid auto"))]
    Idle(RunArgs),
    /// One publisher, many subscribers
    #[command(
        after_help = after("fan-out", "Example:\n  millstream load fan-out --clients 1000 --burst 100 --pid auto"))]
    FanOut(RunArgs),
    /// Fan-out with one subscriber that reads nothing
    #[command(
        after_help = after("slow-reader", "Example:\n  millstream load slow-reader --pid auto --json stuck.json\n  The same without it: millstream load fan-out --payload-bytes 4000 --warm-up 20"))]
    SlowReader(RunArgs),
    /// Many publishers, one subscriber
    #[command(after_help = after("fan-in", "Example:\n  millstream load fan-in --clients 1000 --rate 20000"))]
    FanIn(RunArgs),
    /// Pairs of a publisher and a subscriber
    #[command(after_help = after("pairs", "Example:\n  millstream load pairs --qos 1 --rate 10000 --pid auto"))]
    Pairs(RunArgs),
    /// Many filters with + and #
    #[command(after_help = after("wildcard", "Example:\n  millstream load wildcard --pid auto"))]
    Wildcard(RunArgs),
    /// Shared subscriptions: each message to one member
    #[command(after_help = after("shared", "Example:\n  millstream load shared --rate 5000"))]
    Shared(RunArgs),
    /// Many retained messages, then a subscriber to all of them
    #[command(after_help = after("retained", "Example:\n  millstream load retained --pid auto"))]
    Retained(RunArgs),
    /// Chat: rooms, talkers, receipts
    #[command(after_help = after("chat", "Example:\n  millstream load chat --clients 2000 --rate 2000"))]
    Chat(RunArgs),
    /// IoT: devices with telemetry, operators with commands
    #[command(after_help = after("iot", "Example:\n  millstream load iot --clients 5000 --rate 5000"))]
    Iot(RunArgs),
    /// What millions of users do: most idle, some talk
    #[command(
        after_help = after("mixed", "Example:\n  millstream load mixed --simulated --clients 1000000 --rate 83333"))]
    Mixed(RunArgs),
    /// Chat with receipts and telemetry, end to end through Kafka and the backends
    #[command(after_help = after("backends", "\
Example:
  millstream up --kafka 127.0.0.1:9092 --mqtt 127.0.0.1:1883
  millstream load backends --broker 127.0.0.1:1883 --rate 5000
      `millstream up` is the broker, and Kafka's bridge and the backends that have to be behind
      it. Without them every receipt is missing."))]
    Backends(RunArgs),
    /// A thousand publishers with QoS 1: for a broker that acknowledges what it has stored
    #[command(
        after_help = after("persisted", "Example:\n  millstream load persisted --rate 83333 --seconds 60 --pid auto"))]
    Persisted(RunArgs),
    /// Run a scenario of your own
    #[command(
        after_help = "Example:\n  millstream load run my.toml --agents 10.0.0.5:7401,10.0.0.6:7401 --broker 10.0.0.9:1883"
    )]
    Run(RunFile),
    /// Print a built-in scenario as TOML, to run as it is or to change
    #[command(after_help = "Example:\n  millstream load show fan-out > my.toml")]
    Show {
        /// The scenario's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List the built-in scenarios
    #[command(after_help = "Example:\n  millstream load list")]
    List,
    /// Put the reports of several runs side by side, with ratios to the first
    #[command(
        after_help = "Example:\n  millstream load report mosquitto.json millstream.json --html both.html"
    )]
    Report(ReportArgs),
    /// Run shares of other machines' runs: an agent
    #[command(after_help = "\
Example:
  millstream load agent --listen 10.0.0.5:7401
      One run at a time; a second coordinator is refused and told so. One agent uses one core:
      start as many as there are cores. Whoever can reach the address can let this machine load
      any broker: use it in a network of your own.")]
    Agent(AgentArgs),
}

/// A scenario file, and how to run it.
#[derive(Args, Debug)]
pub struct RunFile {
    /// The scenario (TOML); `millstream load show NAME` prints one to begin with
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to run it.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How to run a scenario. What is not said is as in the scenario.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The broker, HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    pub broker: String,
    /// Load Millstream's own engine in this process instead, over memory: no sockets, millions of clients
    #[arg(long, conflicts_with_all = ["broker", "agents", "processes", "pid", "metrics", "tls", "ws"])]
    pub simulated: bool,
    /// With --simulated: time that passes as fast as there is nothing to do, for hours of keep-alive in seconds
    #[arg(long, requires = "simulated")]
    pub virtual_time: bool,
    /// With --simulated: threads, each with a worker of the broker and its clients; default one a core
    #[arg(long, requires = "simulated", value_name = "N")]
    pub threads: Option<u32>,
    /// Clients in all; the groups keep their proportions
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub clients: Option<u32>,
    /// Messages a second in all; the streams keep their proportions
    #[arg(long, allow_negative_numbers = true, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// As many messages as the windows let, instead of a rate: how fast the broker is
    #[arg(long, conflicts_with = "rate")]
    pub highest: bool,
    /// Connects a second; "storm" for all at once, which is the default of a built-in scenario with --simulated
    #[arg(long, allow_negative_numbers = true, value_name = "PER_SECOND")]
    pub connect_rate: Option<String>,
    /// Measured time
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Time under the same load before that
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub warm_up: Option<f64>,
    /// Longest wait at the end for what is on its way
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub drain: Option<f64>,
    /// Size of a payload, 24 or more
    #[arg(long, allow_negative_numbers = true, value_name = "BYTES")]
    pub payload_bytes: Option<u32>,
    /// QoS of publishes and subscriptions
    #[arg(long, allow_negative_numbers = true, value_name = "0|1|2")]
    pub qos: Option<u8>,
    /// MQTT version
    #[arg(long, value_name = "3.1.1|5.0")]
    pub protocol: Option<String>,
    /// Keep-alive; 0 for none
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub keep_alive: Option<u16>,
    /// Sessions that outlive their connections
    #[arg(long)]
    pub durable: bool,
    /// Messages of one publisher in flight
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub window: Option<u32>,
    /// Messages that are due at the same time
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub burst: Option<u32>,
    /// Put before every topic and filter
    #[arg(long, value_name = "PREFIX/")]
    pub topic_prefix: Option<String>,
    /// User name; a template, as client identifiers are in a scenario file
    #[arg(long, value_name = "TEMPLATE")]
    pub username: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// Connect by TLS; HOST of --broker is the name that the broker's certificate has to have
    #[arg(long)]
    pub tls: bool,
    /// Authorities whose certificates are believed, as PEM; default: those that this system believes
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca: Option<PathBuf>,
    /// A certificate that the clients show, as PEM with its chain; all of them the same
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    pub cert: Option<PathBuf>,
    /// Its key, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Believe any certificate, whoever made it and whatever name it has
    #[arg(long, requires = "tls", conflicts_with = "ca")]
    pub tls_insecure: bool,
    /// Whether clients that come back go on with an earlier TLS session, if the broker lets them
    #[arg(long, value_name = "on|off", default_value = "on", requires = "tls")]
    pub tls_resume: Switch,
    /// Connect by WebSocket; with --tls over TLS
    #[arg(long)]
    pub ws: bool,
    /// The path to ask for
    #[arg(long, value_name = "PATH", default_value = "/mqtt", requires = "ws")]
    pub ws_path: String,
    /// Processes of this tool to share the clients; default: as many as the limit of open files needs
    #[arg(long, value_name = "N")]
    pub processes: Option<u32>,
    /// Agents to share the clients, instead of processes here; NAME-{0..99}:PORT are a hundred
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        conflicts_with_all = ["processes", "source_addresses"]
    )]
    pub agents: Vec<AgentAddresses>,
    /// How long agents may take to come up, and their names to be known
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        requires = "agents"
    )]
    pub agents_wait: u32,
    /// Addresses to connect from, separated by commas; default: as many of 127.0.0.0/8 as are needed for a broker on this
    /// machine. An agent is told its own when it is started
    #[arg(long, value_name = "IP,…", value_delimiter = ',')]
    pub source_addresses: Vec<IpAddr>,
    /// The broker's process on this machine, for its CPU and memory; "auto" finds it by its port
    #[arg(long, value_name = "PID|auto")]
    pub pid: Option<String>,
    /// Where the broker serves Prometheus metrics, for its counters
    #[arg(long, value_name = "URL")]
    pub metrics: Option<String>,
    /// What to call this run beside others; default: the scenario's name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write the report with its histograms here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report here, as a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Decides everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// No progress line
    #[arg(long)]
    pub quiet: bool,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Reports to compare.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Reports that `--json` wrote; one is shown, several are compared
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
    /// Write the comparison here, as a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// An agent.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Where coordinators connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401")]
    pub listen: SocketAddr,
    /// Addresses of this machine that its clients connect from, separated by commas; default: the system's choice
    #[arg(long, value_name = "IP,…", value_delimiter = ',')]
    pub source_addresses: Vec<IpAddr>,
    /// End after one run, for a job of a cluster
    #[arg(long)]
    pub once: bool,
    /// Talk over standard input and output instead, for one run
    #[arg(long, hide = true)]
    pub pipe: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::plan::{Pace, Plan};
    use crate::scenario::builtin_names;

    #[derive(Debug, clap::Parser)]
    struct Tool {
        #[command(flatten)]
        load: Load,
    }

    /// A number as the help has it: digits only.
    fn has(help: &str, number: f64, what: &str) -> bool {
        help.replace(',', "").contains(&format!("{number} {what}"))
    }

    fn plan(name: &str) -> Plan {
        let scenario = Scenario::builtin(name).expect("built in");
        scenario.plan(1, 1).expect("can be planned")
    }

    #[test]
    fn the_help_of_each_scenario_says_what_it_does_without_options() {
        let mut tool = Tool::command();
        for (name, _) in builtin_names() {
            let command = tool.find_subcommand_mut(name).expect("a command");
            let help = command.render_long_help().to_string();
            let plan = plan(name);
            assert!(
                has(&help, plan.clients().into(), "client"),
                "{name}: {help}"
            );
            let measured = plan.measured.as_secs_f64();
            assert!(has(&help, measured, "s measured"), "{name}: {help}");
            let warm_up = plan.warm_up.as_secs_f64();
            assert!(has(&help, warm_up, "s to warm up"), "{name}: {help}");
            if let Some(rate) = plan.connect.per_second {
                assert!(has(&help, rate, "connects a second"), "{name}: {help}");
            }
            for stream in &plan.streams {
                if let Pace::PerSecond(rate) = stream.pace {
                    assert!(has(&help, rate, "messages a second"), "{name}: {help}");
                }
                let qos = format!("stream {}: ", stream.name);
                let line = help.lines().find(|line| line.trim().starts_with(&qos));
                let qos = format!("QoS {}", stream.qos as u8);
                assert!(
                    line.is_some_and(|line| line.contains(&qos)),
                    "{name}: {help}"
                );
            }
            assert!(help.contains("\nExample"), "{name}: {help}");
        }
    }

    /// Numbers that the one-line descriptions mention are those of the scenarios.
    #[test]
    fn what_the_list_of_commands_promises_is_so() {
        let about = |name: &str| {
            let tool = Tool::command();
            let command = tool.find_subcommand(name).expect("a command");
            command.get_about().expect("a line").to_string()
        };
        assert!(about("persisted").contains("A thousand publishers with QoS 1"));
        let persisted = plan("persisted");
        assert_eq!(persisted.clients(), 1_000);
        assert_eq!(persisted.streams[0].qos as u8, 1);
        assert!(about("fan-out").contains("One publisher"));
        let publishers = plan("fan-out").streams[0].group;
        assert_eq!(plan("fan-out").groups[publishers].clients, 1);
        assert!(about("fan-in").contains("one subscriber"));
        let of_fan_in = &plan("fan-in").streams[0].audiences[0];
        assert_eq!(plan("fan-in").groups[of_fan_in.group].clients, 1);
    }
}
