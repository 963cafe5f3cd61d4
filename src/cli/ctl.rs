//! The options of `millstream ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `millstream ctl`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 done; 1 the node answered that it failed; 2 nothing was asked: a wrong option, a node that cannot be reached, or
a token that is missing or wrong; 5 what was asked about is not there.

The node's address comes from --url, else from the environment variable MILLSTREAM_URL, else it is http://127.0.0.1:8080.
The token comes from --token-file, else from MILLSTREAM_TOKEN.")]
pub struct Ctl {
    /// Which node, and how to print.
    #[command(flatten)]
    pub to: To,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// Which node is asked, and how answers are printed.
#[derive(Args, Debug)]
pub struct To {
    /// The node's HTTP address, such as http://10.0.0.5:8080
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// A file with the token of http.admin_token
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON, as the node answered, instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// How much of a list is printed.
#[derive(Args, Debug)]
pub struct Pages {
    /// At most this many; the last line says where to go on
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Go on where an earlier list stopped
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// What `ctl` does.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// List clients and their sessions, connected or away
    #[command(after_help = "\
Examples:
  millstream ctl clients
  millstream ctl clients --id 'device-*' --connected
  millstream ctl clients --away --limit 1000 --json")]
    Clients {
        /// A client identifier, or a pattern: * stands for any text, ? for one character
        #[arg(long, value_name = "PATTERN")]
        id: Option<String>,
        /// A user as whom they are known, or a pattern
        #[arg(long, value_name = "PATTERN")]
        user: Option<String>,
        /// An address or a network, such as 10.0.0.0/8
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Only those that are connected
        #[arg(long, conflicts_with = "away")]
        connected: bool,
        /// Only those that are away, and whose sessions wait for them
        #[arg(long)]
        away: bool,
        /// Only those that speak this version
        #[arg(long, value_parser = ["3.1", "3.1.1", "5.0"])]
        mqtt_version: Option<String>,
        /// How much is printed.
        #[command(flatten)]
        pages: Pages,
    },
    /// Show one client's session
    #[command(after_help = "\
Example:
  millstream ctl client device-17")]
    Client {
        /// The client identifier
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Disconnect a client; its session stays, unless --end-session
    #[command(after_help = "\
Examples:
  millstream ctl disconnect device-17
  millstream ctl disconnect device-17 --reason 151 --end-session")]
    Disconnect {
        /// The client identifier
        #[arg(value_name = "ID")]
        id: String,
        /// The reason code that a 5.0 client is told; default 152, an administrative action
        #[arg(long, value_name = "CODE")]
        reason: Option<u8>,
        /// End its session, too: subscriptions and what waits are gone
        #[arg(long)]
        end_session: bool,
    },
    /// Ban a client identifier, an address or a network for a time, and disconnect whom it concerns
    #[command(after_help = "\
Examples:
  millstream ctl ban --id device-17 --seconds 600 --why 'floods devices/#'
  millstream ctl ban --address 2001:db8:7::/64")]
    Ban {
        /// Who.
        #[command(flatten)]
        who: BanWho,
        /// For how long; default an hour
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        /// Why, for whoever reads the list
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Lift a ban
    #[command(after_help = "\
Example:
  millstream ctl unban --id device-17")]
    Unban {
        /// Who.
        #[command(flatten)]
        who: BanWho,
    },
    /// List bans
    #[command(after_help = "\
Example:
  millstream ctl bans")]
    Bans,
    /// List subscriptions by client and filter
    #[command(after_help = "\
Examples:
  millstream ctl subscriptions --client 'device-*'
  millstream ctl subscriptions --filter '$share/workers/*'")]
    Subscriptions {
        /// A client identifier, or a pattern: * stands for any text, ? for one character
        #[arg(long, value_name = "PATTERN")]
        client: Option<String>,
        /// A topic filter as it was given, or a pattern; + and # stand for themselves
        #[arg(long, value_name = "PATTERN")]
        filter: Option<String>,
        /// How much is printed.
        #[command(flatten)]
        pages: Pages,
    },
    /// Say who would get a message on a topic
    #[command(after_help = "\
Example:
  millstream ctl who devices/17/state")]
    Who {
        /// The topic; nothing is published
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
    /// List, read and delete retained messages
    Retained {
        /// What to do.
        #[command(subcommand)]
        command: RetainedCommand,
    },
    /// Say who lost what: drops, refusals and kicks by client, topic and reason, the latest first
    #[command(after_help = "\
Examples:
  millstream ctl drops
  millstream ctl drops --client 'device-*' --reason 'dropped_*'

A reason is the name of its counter in /api/status.")]
    Drops {
        /// A client identifier, or a pattern: * stands for any text, ? for one character
        #[arg(long, value_name = "PATTERN")]
        client: Option<String>,
        /// A topic, or a pattern
        #[arg(long, value_name = "PATTERN")]
        topic: Option<String>,
        /// A reason, or a pattern
        #[arg(long, value_name = "PATTERN")]
        reason: Option<String>,
        /// At most this many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u64>,
    },
    /// Count publishes by topic for some seconds, and name the topics with most
    #[command(after_help = "\
Example:
  millstream ctl topics --seconds 10 --top 5")]
    Topics {
        /// How long to count
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        seconds: u64,
        /// How many topics to name
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        top: u64,
    },
    /// Show all packets of a client, or what happens to the messages of a topic, as they come
    #[command(after_help = "\
Examples:
  millstream ctl trace --client device-17 --seconds 60
  millstream ctl trace --topic 'devices/+/state' --lines 100 > trace.txt

Payloads are shortened, passwords are not shown. With --json each line is a JSON object.")]
    Trace {
        /// What.
        #[command(flatten)]
        of: TraceOf,
        /// For how long
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        seconds: u64,
        /// For how many lines at most
        #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
        lines: u32,
    },
    /// List the addresses on which the node listens
    #[command(after_help = "\
Example:
  millstream ctl listeners")]
    Listeners,
    /// Show what is logged, or change it until the next restart
    #[command(after_help = "\
Examples:
  millstream ctl log
  millstream ctl log info,broker=debug")]
    Log {
        /// A level, or TARGET=LEVEL separated by commas
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
    /// Have the node read its configuration again: all that can be changed at run time, or nothing
    #[command(after_help = "\
Example:
  millstream ctl reload")]
    Reload,
    /// Drain the node and end its process, as SIGTERM does
    #[command(after_help = "\
Example:
  millstream ctl drain")]
    Drain,
}

/// What is traced: one of both.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct TraceOf {
    /// A client identifier; the client need not be there yet
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// A topic filter, with + and #
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,
}

/// Who is banned: one of both.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct BanWho {
    /// A client identifier
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// An address or a network, such as 10.0.0.5 or 2001:db8::/64
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// `millstream ctl retained`.
#[derive(Debug, Subcommand)]
pub enum RetainedCommand {
    /// List retained messages
    #[command(after_help = "\
Examples:
  millstream ctl retained list
  millstream ctl retained list 'devices/+/state'")]
    List {
        /// A topic filter, with + and #
        #[arg(value_name = "FILTER", default_value = "#")]
        filter: String,
        /// How much is printed.
        #[command(flatten)]
        pages: Pages,
    },
    /// Write the payload of one to standard output, as it is
    #[command(after_help = "\
Example:
  millstream ctl retained read devices/17/state")]
    Read {
        /// The topic
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
    /// Delete some, as an empty retained publish does
    #[command(after_help = "\
Example:
  millstream ctl retained delete devices/17/state devices/18/state")]
    Delete {
        /// The topics
        #[arg(value_name = "TOPIC", required = true)]
        topics: Vec<String>,
    },
}
