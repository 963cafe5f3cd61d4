//! The options of `millstream replay`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::Common;

/// `millstream replay`.
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("target").required(true)
        .args(["to_stdout", "to_file", "to_topic", "to_mqtt", "to_http", "dry_run", "group", "undo"])),
    after_help = "\
Examples:
  millstream replay chat.messages --kafka 127.0.0.1:9092 --from -15m --dry-run
      What the last quarter of an hour holds: counts, samples, size, and how long a replay would take.
  millstream replay iot.telemetry --from 2026-11-27T10:00:00Z --to 2026-11-27T11:00:00Z \\
      --filter 'devices/+/telemetry/temperature' --to-file hour.jsonl --resume hour.resume
      One hour of some topics into a file. After a kill the same command goes on.
  millstream replay chat.messages --from 0:1200 --from 1:900 --to-topic chat.repair --resume repair.resume
      Copies in another topic, from an offset of each partition; in transactions, so that none is there twice.
  millstream replay chat.messages --from -1h --speed 10 --to-mqtt --topic-prefix replay/ --confirm 100000
      To MQTT subscribers of replay/#, ten times faster than it was.
  millstream replay chat.messages --group chat --from -15m --execute
      The consumer group reads the last quarter of an hour again; millstream replay --undo FILE takes it back.

Exit codes: 0 the replay came to its end; 1 it failed or was stopped on the way (with --resume the same command goes on);
2 nothing was done: a wrong option, no Kafka, or a replay that needs --confirm."
)]
pub struct Replay {
    /// Kafka topics to read
    #[arg(
        required_unless_present = "undo",
        conflicts_with = "undo",
        value_name = "TOPIC"
    )]
    pub topics: Vec<String>,
    /// Bootstrap servers of Kafka, HOST:PORT, several separated by commas; default bridge.kafka of the configuration
    #[arg(long, value_name = "HOSTS")]
    pub kafka: Option<String>,

    /// Where to begin: earliest, latest, an offset, a time (RFC 3339), a time ago (-15m, -2h30m, -7d); PARTITION:WHERE for one
    /// partition, may be repeated; default earliest
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub from: Vec<String>,
    /// Where to end, not included; as --from; default latest, which is where each partition ends when the replay starts
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: Vec<String>,
    /// Only records of MQTT topics that match this filter; may be repeated, one match is enough
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Only records with this header; may be repeated, all must be there
    #[arg(long, value_name = "NAME=VALUE")]
    pub header: Vec<String>,
    /// Only what this client published
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Only records whose JSON payload, which is @, fulfils this condition (RFC 9535), for example "@.value > 30"; may be
    /// repeated, all must hold
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// At most this many records
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Write lines of JSON to standard output
    #[arg(long)]
    pub to_stdout: bool,
    /// Write lines of JSON to a new file
    #[arg(long, value_name = "PATH")]
    pub to_file: Option<PathBuf>,
    /// Append copies to this Kafka topic, which must exist
    #[arg(long, value_name = "NAME")]
    pub to_topic: Option<String>,
    /// Publish to MQTT clients, through the downlink topic
    #[arg(long)]
    pub to_mqtt: bool,
    /// Post each record as JSON to this address, one after another
    #[arg(long, value_name = "URL")]
    pub to_http: Option<String>,
    /// Write nothing; tell what would be written, and how long it would take
    #[arg(long)]
    pub dry_run: bool,

    /// Set the offsets of this consumer group to --from; shows the plan, and does it with --execute or when confirmed
    #[arg(long, value_name = "NAME", conflicts_with_all = BESIDE_A_GROUP)]
    pub group: Option<String>,
    /// Take back what --group did, by the file that it left; refused when the group has moved meanwhile
    #[arg(long, value_name = "FILE", conflicts_with_all = BESIDE_A_GROUP)]
    pub undo: Option<PathBuf>,
    /// With --group or --undo: do it without asking
    #[arg(long, conflicts_with_all = BUT_A_GROUP)]
    pub execute: bool,
    /// With --group: the new file with which --undo takes it back; default undo-GROUP-TIME.json
    #[arg(long, value_name = "FILE", conflicts_with_all = BUT_A_GROUP)]
    pub undo_file: Option<PathBuf>,

    /// With --to-mqtt: what stands before each topic
    #[arg(long, value_name = "TEXT", conflicts_with_all = BUT_MQTT, default_value = "")]
    pub topic_prefix: String,
    /// With --to-mqtt: the quality of service; default as recorded
    #[arg(long, value_name = "0|1|2", conflicts_with_all = BUT_MQTT, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: Option<u8>,
    /// With --to-mqtt: whether the messages are retained; default as recorded
    #[arg(long, value_name = "true|false", conflicts_with_all = BUT_MQTT)]
    pub retain: Option<bool>,

    /// At most this many records a second
    #[arg(long, value_name = "RECORDS", value_parser = positive)]
    pub rate: Option<f64>,
    /// In which order: each partition for itself, as its records come, or all of them by their times
    #[arg(long, value_name = "partition|time", default_value = "partition")]
    pub ordered_by: Order,
    /// This many times as fast as it was recorded; reads all partitions in the order of their times
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub speed: Option<f64>,
    /// Keep in FILE how far it came, and go on from there when it exists
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub resume: Option<PathBuf>,
    /// Confirm that up to this many records may be appended or published; without it no more than 10000 are
    #[arg(long, value_name = "COUNT")]
    pub confirm: Option<u64>,
    /// Options of every process.
    #[command(flatten)]
    pub common: Common,
}

/// Targets that are not MQTT. What belongs to one target is refused beside another: clap takes `requires` for met when what is
/// required conflicts with what is there.
const BUT_MQTT: [&str; 7] = [
    "to_http",
    "to_stdout",
    "to_file",
    "to_topic",
    "dry_run",
    "group",
    "undo",
];
/// Targets that are no consumer group.
const BUT_A_GROUP: [&str; 6] = [
    "to_http",
    "to_stdout",
    "to_file",
    "to_topic",
    "to_mqtt",
    "dry_run",
];
/// Options that mean nothing to a consumer group.
const BESIDE_A_GROUP: [&str; 11] = [
    "to",
    "filter",
    "header",
    "client_id",
    "conditions",
    "ordered_by",
    "limit",
    "rate",
    "speed",
    "resume",
    "confirm",
];

/// The order of a replay's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Each partition for itself.
    Partition,
    /// All partitions at once, the oldest record first.
    Time,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("allowed is a number above 0, for example 10 or 0.5".to_owned()),
    }
}
