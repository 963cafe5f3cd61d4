//! `millstream topics`: what a node of this configuration needs of Kafka, and what is there.

use std::fmt::Write as _;

use bridge::Inventory;

use super::{print, stoppable};
use crate::cli;
use crate::exit::Failure;

/// Runs the command.
///
/// # Errors
/// A start failure when Kafka does not answer; a failure when `check` finds something wrong.
pub fn run(options: cli::Topics) -> Result<(), Failure> {
    let (options, make, check) = match options.command {
        cli::TopicsCommand::List(options) => (options, false, false),
        cli::TopicsCommand::Check(options) => (options, false, true),
        cli::TopicsCommand::Create(options) => (options, true, false),
    };
    let common = options.kafka.common.clone();
    stoppable(&common, move |config, _| {
        let mut of_bridge = config.bridge.clone();
        if let Some(servers) = &options.kafka.kafka {
            of_bridge.kafka.clone_from(servers);
        }
        of_bridge
            .validate()
            .map_err(|error| Failure::from(error.below("bridge")))?;
        let inventory =
            Inventory::take(&of_bridge, make).map_err(|error| Failure::cannot_start(&error))?;
        if options.json {
            let text = serde_json::to_string_pretty(&inventory).map_err(anyhow::Error::from)?;
            print(&format!("{text}\n"))?;
        } else {
            print(&table(&inventory))?;
        }
        let faults = faults(&inventory);
        if check && !faults.is_empty() {
            return Err(Failure::Failed(anyhow::anyhow!(faults.join("; "))));
        }
        Ok(())
    })
}

fn table(inventory: &Inventory) -> String {
    let width = inventory.topics.iter().map(|topic| topic.name.len()).max();
    let width = width.unwrap_or(0).max("topic".len());
    let mut text = format!(
        "{:width$}  partitions  replicas  min in sync  kept          largest     holds\n",
        "topic"
    );
    for topic in &inventory.topics {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let kept = match topic.retention_ms {
            None => "-".to_owned(),
            Some(..0) => "for ever".to_owned(),
            Some(ms) => format!("{:.1} d", ms as f64 / 86_400_000.0),
        };
        let holds = topic.holds.join(", ");
        if topic.partitions == 0 {
            let _ = writeln!(text, "{:width$}  is missing: {holds}", topic.name);
            continue;
        }
        let _ = writeln!(
            text,
            "{:width$}  {:10}  {:8}  {:>11}  {kept:12}  {:10}  {holds}",
            topic.name,
            topic.partitions,
            topic.replicas,
            number(topic.min_insync.map(u64::from)),
            number(topic.max_message_bytes)
        );
    }
    for name in &inventory.made {
        let _ = writeln!(text, "made: {name}");
    }
    for weakness in &inventory.weaknesses {
        let _ = writeln!(text, "note: {weakness}");
    }
    text
}

/// What is wrong, each in one sentence.
fn faults(inventory: &Inventory) -> Vec<String> {
    let mut faults = Vec::new();
    let missing: Vec<&str> = inventory.missing().collect();
    if !missing.is_empty() {
        faults.push(format!(
            "Kafka has no {} (millstream topics create makes them)",
            missing.join(", ")
        ));
    }
    for topic in inventory.topics.iter().filter(|topic| topic.leaderless > 0) {
        faults.push(format!(
            "{} of {} partitions of {} have no leader: nothing is stored in them now",
            topic.leaderless, topic.partitions, topic.name
        ));
    }
    faults.extend(inventory.weaknesses.iter().cloned());
    faults
}
