//! `millstream groups`: consumer groups as they stand.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use replay::groups::{Group, stuck};

use super::dlq::connect;
use super::{now_ms, print, stoppable};
use crate::cli;
use crate::exit::Failure;

/// How soon a wait notices that it was told to end.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// A start failure when Kafka does not answer, a failure when a partition is stuck.
pub fn run(options: cli::Groups) -> Result<(), Failure> {
    let common = options.kafka.common.clone();
    stoppable(&common, move |config, stop| {
        let kafka = connect(&options.kafka, config)?;
        let groups = Group::all(&kafka, &options.groups)?;
        let Some(seconds) = options.stuck else {
            return show(&options, &groups);
        };
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Unfinished(
                    "ended before the second look".to_owned(),
                ));
            }
            std::thread::sleep(LOOK);
        }
        let later = Group::all(&kafka, &options.groups)?;
        show(&options, &later)?;
        let stuck = stuck(&groups, &later);
        if stuck.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = stuck
            .iter()
            .map(|(group, row)| {
                format!(
                    "{group} at {}/{} ({} wait)",
                    row.topic,
                    row.partition,
                    row.lag()
                )
            })
            .collect();
        Err(Failure::Failed(anyhow::anyhow!(
            "did not move in {seconds} s: {}",
            names.join(", ")
        )))
    })
}

fn show(options: &cli::Groups, groups: &[Group]) -> Result<(), Failure> {
    if options.json {
        let text = serde_json::to_string_pretty(groups).map_err(anyhow::Error::from)?;
        return print(&format!("{text}\n"));
    }
    let width = groups.iter().map(|group| group.name.len()).max();
    let width = width.unwrap_or(0).max("group".len());
    let mut text = format!(
        "{:width$}  state                members  partitions         lag  oldest waits\n",
        "group"
    );
    for group in groups {
        let _ = writeln!(
            text,
            "{:width$}  {:20} {:7}  {:10}  {:10}  {}",
            group.name,
            group.state,
            group.members.len(),
            group.partitions.len(),
            group.lag(),
            age(group.since_ms())
        );
        if !options.partitions {
            continue;
        }
        for (client, host) in &group.members {
            let _ = writeln!(text, "  member {client} at {host}");
        }
        for row in &group.partitions {
            let lost = match row.lost {
                0 => String::new(),
                lost => format!(", {lost} were deleted unread"),
            };
            let _ = writeln!(
                text,
                "  {}/{}  at {} of {}, {} wait{lost}, oldest {}",
                row.topic,
                row.partition,
                row.committed,
                row.end,
                row.lag(),
                age(row.since_ms)
            );
        }
    }
    print(&text)
}

fn age(since_ms: Option<i64>) -> String {
    let Some(since) = since_ms else {
        return "-".to_owned();
    };
    let seconds = (now_ms() - since).max(0) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
