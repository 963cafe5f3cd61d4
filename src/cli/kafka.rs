//! The options of `millstream groups` and `millstream topics`.

use clap::{Args, Subcommand};

use super::dlq::KafkaOptions;

/// `millstream groups`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millstream groups --kafka 127.0.0.1:9092
      All consumer groups: members, what waits for them, and since when.
  millstream groups chat iot --partitions
      These two, partition by partition.
  millstream groups --stuck 10
      Looks twice, 10 seconds apart: exit code 1 when something waits in a partition and its group did not move.

Offsets are put back with millstream replay --group.")]
pub struct Groups {
    /// Names of groups; all, where there is none
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Also each partition
    #[arg(long)]
    pub partitions: bool,
    /// Look again after so many seconds, and name the partitions in which nothing moved
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub stuck: Option<u64>,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaOptions,
}

/// `millstream topics`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millstream topics list --kafka 127.0.0.1:9092
      The topics that a node with this configuration needs: routes, partitions, replicas, retention.
  millstream topics check --config millstream.toml
      Exit code 1 when a topic is missing, a partition has no leader, or an acknowledged message could be lost.
  millstream topics create --kafka 10.0.0.5:9092
      Makes what is missing, as a node with bridge.create_topics would.")]
pub struct Topics {
    /// What to do.
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// The commands of `millstream topics`.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Print them
    #[command(after_help = "Example:\n  millstream topics list --kafka 127.0.0.1:9092")]
    List(TopicsOptions),
    /// Print them, and end with exit code 1 when something is wrong
    #[command(after_help = "Example:\n  millstream topics check --config millstream.toml")]
    Check(TopicsOptions),
    /// Make what is missing
    #[command(after_help = "Example:\n  millstream topics create --kafka 10.0.0.5:9092")]
    Create(TopicsOptions),
}

/// Options of all of them.
#[derive(Args, Debug)]
pub struct TopicsOptions {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaOptions,
}
