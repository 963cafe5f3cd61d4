//! Who changed what: a record in `mill.audit` before a command changes anything in Kafka, and one when it has ended.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::kafka::{ASK_TIMEOUT, describe, wait};
use crate::moment::timestamp;
use crate::{Error, Kafka};

/// Where it is written.
pub const TOPIC: &str = "mill.audit";
/// How long records are kept in the topic when it is made here: a year, in milliseconds.
const RETENTION_MS: &str = "31536000000";

/// Writes the records of one command.
#[derive(Debug)]
pub struct Audit {
    kafka: Kafka,
    id: String,
    who: String,
    command: String,
}

impl Audit {
    /// Writes that `who` begins `command`, of which `id` is known.
    ///
    /// # Errors
    /// Kafka does not take the record; the command must not begin then.
    pub fn begin(
        kafka: &Kafka,
        id: &str,
        who: &str,
        command: &str,
        now_ms: i64,
    ) -> Result<Self, Error> {
        kafka.make_topic(TOPIC, ("retention.ms", RETENTION_MS))?;
        let audit = Self {
            kafka: kafka.clone(),
            id: id.to_owned(),
            who: who.to_owned(),
            command: command.to_owned(),
        };
        audit.write("began", now_ms, Value::Null)?;
        Ok(audit)
    }

    /// Writes how it ended: `result` has counts, or the reason of a failure.
    ///
    /// # Errors
    /// Kafka does not take the record.
    pub fn end(&self, result: Value, now_ms: i64) -> Result<(), Error> {
        self.write("ended", now_ms, result)
    }

    fn write(&self, event: &str, now_ms: i64, result: Value) -> Result<(), Error> {
        let mut record = json!({
            "id": self.id,
            "event": event,
            "at": timestamp(now_ms),
            "who": self.who,
            "command": self.command,
        });
        if !result.is_null() {
            record["result"] = result;
        }
        let record = record.to_string();
        let failed = |cause: String| Error::failed(format!("write to {TOPIC}"), cause);
        let mut settings = self.kafka.settings();
        settings.set("acks", "all");
        let timeout = ASK_TIMEOUT.as_millis().to_string();
        settings.set("message.timeout.ms", timeout);
        let producer: FutureProducer = settings
            .create()
            .map_err(|error| failed(describe(&error)))?;
        let record = FutureRecord::to(TOPIC).key(&self.id).payload(&record);
        #[expect(clippy::disallowed_methods, reason = "one record of a command")]
        let sent = producer.send(record, Duration::ZERO);
        wait(sent)?
            .map(drop)
            .map_err(|(error, _)| failed(describe(&error)))
    }
}
