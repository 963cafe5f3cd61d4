//! A consumer group put back (or forward) to other offsets, with a file that undoes it.
//!
//! What it means is what `kafka-consumer-groups --reset-offsets` means: only a group without members is touched, an offset
//! outside the log becomes its nearest end, and a time younger than all records is the end.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::kafka::{ASK_TIMEOUT, Heard, describe};
use crate::moment::Bounds;
use crate::plan::{logs, resolve};
use crate::{Error, Kafka};

/// One partition of a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    topic: String,
    partition: i32,
    /// The committed offset before.
    current: Option<i64>,
    /// The one afterwards.
    new: i64,
}

/// Which offsets of a consumer group are set to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    group: String,
    rows: Vec<Row>,
    /// What the operator should know.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Reset {
    /// All partitions of `topics` set to where `to` is.
    ///
    /// # Errors
    /// A group with members, an unknown topic or partition, or Kafka does not answer.
    pub fn plan(kafka: &Kafka, group: &str, topics: &[String], to: &Bounds) -> Result<Self, Error> {
        if !(settings::kafka::GROUP.fits)(&group.to_owned()) {
            return Err(Error::option(
                "--group",
                group,
                settings::kafka::GROUP.words,
            ));
        }
        let consumer = kafka.consumer(group)?;
        let logs = logs(kafka, &consumer, topics, &[to])?;
        refuse_live(&consumer, group)?;
        let offsets = resolve(&consumer, &logs, to)?;
        let mut reset = Self {
            group: group.to_owned(),
            rows: Vec::new(),
            notes: Vec::new(),
        };
        for (log, asked) in logs.iter().zip(offsets) {
            let new = asked.clamp(log.start, log.end);
            if new != asked {
                reset.notes.push(format!(
                    "{}/{} holds offsets {} to {}: {new} instead of {asked}",
                    log.topic, log.partition, log.start, log.end
                ));
            }
            reset.rows.push(Row {
                topic: log.topic.clone(),
                partition: log.partition,
                current: None,
                new,
            });
        }
        reset
            .rows
            .sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let current = reset.committed(&consumer)?;
        for (row, current) in reset.rows.iter_mut().zip(current) {
            row.current = current;
        }
        Ok(reset)
    }

    /// The way back from the reset that left the file at `path`.
    ///
    /// # Errors
    /// No such file, a group with members, or one that has moved since.
    pub fn undo(kafka: &Kafka, path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::option(
                "--undo",
                path.display(),
                format!("a file that a reset wrote ({error})"),
            )
        })?;
        let done: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::option(
                "--undo",
                path.display(),
                format!("a file that a reset wrote ({error})"),
            )
        })?;
        let mut reset = Self {
            group: done.group,
            rows: Vec::new(),
            notes: Vec::new(),
        };
        for row in done.rows {
            match row.current {
                Some(before) => reset.rows.push(Row {
                    current: Some(row.new),
                    new: before,
                    ..row
                }),
                None => reset.notes.push(format!(
                    "{}/{} had no offset before; it keeps {}",
                    row.topic, row.partition, row.new
                )),
            }
        }
        let consumer = kafka.consumer(&reset.group)?;
        kafka.topics(&consumer)?;
        refuse_live(&consumer, &reset.group)?;
        reset.refuse_moved(&consumer)?;
        Ok(reset)
    }

    /// Whether there is nothing to set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The plan as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.topic.len()).max();
        let width = width.unwrap_or(0).max("topic".len());
        let mut text = format!(
            "group {}\n{:width$}  partition       current           new    difference\n",
            self.group, "topic"
        );
        for row in &self.rows {
            let (current, difference) = match row.current {
                Some(current) => (current.to_string(), format!("{:+}", row.new - current)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            text += &format!(
                "{:width$}  {:9}  {current:>12}  {:12}  {difference:>12}\n",
                row.topic, row.partition, row.new
            );
        }
        text
    }

    /// Sets the offsets. Before, what undoes it is written to the new file `undo`.
    ///
    /// # Errors
    /// The group has members now, has moved since the plan, or Kafka does not take the offsets.
    pub fn execute(&self, kafka: &Kafka, undo: Option<&Path>) -> Result<(), Error> {
        let consumer = kafka.consumer(&self.group)?;
        refuse_live(&consumer, &self.group)?;
        self.refuse_moved(&consumer)?;
        if let Some(path) = undo {
            self.keep(path)?;
        }
        let failed =
            |cause: String| Error::failed(format!("set the offsets of {}", self.group), cause);
        let mut list = TopicPartitionList::new();
        for row in &self.rows {
            list.add_partition_offset(&row.topic, row.partition, Offset::Offset(row.new))
                .map_err(|error| failed(error.to_string()))?;
        }
        consumer
            .commit(&list, CommitMode::Sync)
            .map_err(|error| failed(describe(&error)))?;
        // A commit may fail for some partitions alone, and does not tell.
        for (row, now) in self.rows.iter().zip(self.committed(&consumer)?) {
            if now != Some(row.new) {
                return Err(failed(format!(
                    "{}/{} is at {}",
                    row.topic,
                    row.partition,
                    now.map_or_else(|| "no offset".to_owned(), |now| now.to_string())
                )));
            }
        }
        Ok(())
    }

    fn keep(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File {
            doing: "write",
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// What the group has committed now, row by row.
    fn committed(&self, consumer: &BaseConsumer<Heard>) -> Result<Vec<Option<i64>>, Error> {
        let failed = |error| {
            Error::failed(
                format!("ask for the offsets of {}", self.group),
                describe(&error),
            )
        };
        let mut list = TopicPartitionList::new();
        for row in &self.rows {
            list.add_partition(&row.topic, row.partition);
        }
        let found = consumer
            .committed_offsets(list, ASK_TIMEOUT)
            .map_err(failed)?;
        self.rows
            .iter()
            .map(|row| {
                let Some(element) = found.find_partition(&row.topic, row.partition) else {
                    return Ok(None);
                };
                element.error().map_err(failed)?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            })
            .collect()
    }

    fn refuse_moved(&self, consumer: &BaseConsumer<Heard>) -> Result<(), Error> {
        for (row, now) in self.rows.iter().zip(self.committed(consumer)?) {
            if now != row.current {
                let text = |offset: Option<i64>| {
                    offset.map_or_else(|| "no offset".to_owned(), |offset| offset.to_string())
                };
                return Err(Error::Refused(format!(
                    "the group {} has moved meanwhile: {}/{} is at {}, not at {}",
                    self.group,
                    row.topic,
                    row.partition,
                    text(now),
                    text(row.current)
                )));
            }
        }
        Ok(())
    }
}

/// Kafka itself refuses offsets for a group with members, but does not say who they are.
fn refuse_live(consumer: &BaseConsumer<Heard>, group: &str) -> Result<(), Error> {
    let groups = consumer
        .fetch_group_list(Some(group), ASK_TIMEOUT)
        .map_err(|error| Error::failed(format!("ask for the group {group}"), describe(&error)))?;
    let live = groups.groups().iter().find(|found| {
        found.name() == group
            && (!found.members().is_empty() || !matches!(found.state(), "Empty" | "Dead" | ""))
    });
    let Some(live) = live else { return Ok(()) };
    let members: Vec<String> = live
        .members()
        .iter()
        .map(|member| format!("{} at {}", member.client_id(), member.client_host()))
        .collect();
    Err(Error::Refused(format!(
        "the group {group} is live ({}; members: {}): end its consumers first",
        live.state(),
        members.join(", ")
    )))
}
