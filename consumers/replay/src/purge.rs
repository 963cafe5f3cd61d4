//! Records deleted up to a moment: for dead letters that are dealt with.

use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{admin_options, describe, wait};
use crate::moment::Bounds;
use crate::plan::{logs, resolve};
use crate::{Error, Kafka};

/// What would be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purge {
    topic: String,
    /// Partition, the oldest offset that is left, and the one before which all go.
    rows: Vec<(i32, i64, i64)>,
}

impl Purge {
    /// All of `topic` before `before`.
    ///
    /// # Errors
    /// An unknown topic or partition, or Kafka does not answer.
    pub fn plan(kafka: &Kafka, topic: &str, before: &Bounds) -> Result<Self, Error> {
        let consumer = kafka.consumer("millstream-dlq")?;
        let logs = logs(kafka, &consumer, &[topic.to_owned()], &[before])?;
        let ends = resolve(&consumer, &logs, before)?;
        let rows = logs.iter().zip(ends);
        let rows = rows.map(|(log, end)| (log.partition, log.start, end.clamp(log.start, log.end)));
        Ok(Self {
            topic: topic.to_owned(),
            rows: rows.filter(|(_, start, end)| start < end).collect(),
        })
    }

    /// Offsets that go.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        let rows = self.rows.iter();
        rows.map(|(_, start, end)| u64::try_from(end - start).unwrap_or(0))
            .sum()
    }

    /// The plan as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\npartition         from       before\n", self.topic);
        for (partition, start, end) in &self.rows {
            text += &format!("{partition:9} {start:12} {end:12}\n");
        }
        text
    }

    /// Deletes them for good.
    ///
    /// # Errors
    /// Kafka refuses.
    pub fn execute(&self, kafka: &Kafka) -> Result<(), Error> {
        let failed =
            |cause: String| Error::failed(format!("delete records of {}", self.topic), cause);
        let mut list = TopicPartitionList::new();
        for (partition, _, end) in &self.rows {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*end))
                .map_err(|error| failed(error.to_string()))?;
        }
        let deleted = wait(kafka.admin()?.delete_records(&list, &admin_options()))?
            .map_err(|error| failed(describe(&error)))?;
        for element in deleted.elements() {
            element.error().map_err(|error| failed(describe(&error)))?;
        }
        Ok(())
    }
}
