//! The options of `millstream dlq`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Common;

/// `millstream dlq`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millstream dlq list --kafka 127.0.0.1:9092
      The topics of dead letters, with counts by kind of fault and who gave up.
  millstream dlq show chat.messages.dlq --reason NotJson --limit 5
      Five letters: why, where they came from, headers and payload.
  millstream dlq redrive chat.messages.dlq --reason NotApplicable
      Back into chat.messages, for the group that gave them up. None is put back twice.
  millstream dlq redrive chat.messages.dlq --id 0/17 --edit
      One letter, its payload mended in $EDITOR.
  millstream dlq purge chat.messages.dlq --before -7d --execute
      Deletes what is older than a week.

Exit codes: 0 done; 1 it failed or was stopped on the way (the same command does the rest); 2 nothing was done: a wrong option, or
no Kafka.")]
pub struct Dlq {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `millstream dlq`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count the letters of all topics whose names end in .dlq, or of these topics
    #[command(after_help = "Example:\n  millstream dlq list --kafka 127.0.0.1:9092")]
    List {
        /// Topics of dead letters
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Write JSON
        #[arg(long)]
        json: bool,
        /// Where Kafka is.
        #[command(flatten)]
        kafka: KafkaOptions,
    },
    /// Print letters: why, where they came from, headers, payload
    #[command(
        after_help = "Example:\n  millstream dlq show chat.messages.dlq --reason NotJson --limit 5"
    )]
    Show {
        /// Which letters.
        #[command(flatten)]
        letters: Letters,
        /// Write lines of JSON
        #[arg(long)]
        json: bool,
        /// How payloads are printed: text where they are UTF-8, else hex; or always hex
        #[arg(long)]
        hex: bool,
        /// Also the payload of the record that each is of, if Kafka still has it
        #[arg(long)]
        original: bool,
    },
    /// Put letters back into the topics that they came from, for the group that gave them up
    #[command(group(ArgGroup::new("which").required(true).multiple(true).args(["all", "reason", "id"])))]
    #[command(
        after_help = "Example:\n  millstream dlq redrive chat.messages.dlq --reason NotApplicable --dry-run"
    )]
    Redrive {
        /// All letters of the topic
        #[arg(long)]
        all: bool,
        /// Which letters.
        #[command(flatten)]
        letters: Letters,
        /// Into this topic instead of the one that each came from
        #[arg(long, value_name = "NAME")]
        to_topic: Option<String>,
        /// Mend the payload in $EDITOR before; for one --id
        #[arg(long, conflicts_with_all = ["payload", "all", "reason"])]
        edit: bool,
        /// Put the bytes of this file in place of the payload; for one --id
        #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "reason"])]
        payload: Option<PathBuf>,
        /// Also letters that were put back before
        #[arg(long)]
        again: bool,
        /// Write nothing; tell how many would be put back
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete letters up to a moment, for good; shows the plan, and does it with --execute
    #[command(
        after_help = "Example:\n  millstream dlq purge chat.messages.dlq --before -7d --execute"
    )]
    Purge {
        /// The topic of dead letters
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// All before this: latest, an offset, a time (RFC 3339), a time ago (-7d); PARTITION:WHERE for one partition
        #[arg(
            long,
            value_name = "WHERE",
            required = true,
            allow_hyphen_values = true
        )]
        before: Vec<String>,
        /// Do it
        #[arg(long)]
        execute: bool,
        /// Where Kafka is.
        #[command(flatten)]
        kafka: KafkaOptions,
    },
    /// Write letters to a new file, as lines of JSON
    #[command(
        after_help = "Example:\n  millstream dlq export chat.messages.dlq --to-file letters.jsonl"
    )]
    Export {
        /// Which letters.
        #[command(flatten)]
        letters: Letters,
        /// The file
        #[arg(long, value_name = "PATH")]
        to_file: PathBuf,
    },
}

/// Which letters.
#[derive(Args, Debug)]
pub struct Letters {
    /// The topic of dead letters
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Only with this kind of fault, as `dlq list` names it; may be repeated
    #[arg(long, value_name = "FAULT")]
    pub reason: Vec<String>,
    /// Only the letter at this place, PARTITION/OFFSET, as `dlq show` names it; may be repeated
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// At most this many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaOptions,
}

/// Where Kafka is.
#[derive(Args, Debug)]
pub struct KafkaOptions {
    /// Bootstrap servers of Kafka, HOST:PORT, several separated by commas; default bridge.kafka of the configuration
    #[arg(long, value_name = "HOSTS")]
    pub kafka: Option<String>,
    /// Options of every process.
    #[command(flatten)]
    pub common: Common,
}
