//! Takes commands from the store to the downlink topic, in the order in which they were posted.
//!
//! A command is stored before it is sent, so it survives Kafka being away and this process being killed. It may be sent
//! twice when a process dies between sending it and noting so; its id is the same then, and devices know it by that.

use std::sync::Arc;
use std::time::Duration;

use envelope::Downlink;
use runtime::{AppendError, Appender};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::clock::now_ms;
use crate::config::Topics;
use crate::metrics::Metrics;
use crate::store::{Command, Dispatch, Store};

/// Commands sent at once.
const COMMANDS_MAX: u32 = 500;

/// How long commands that were taken to be sent are nobody else's, in milliseconds. Longer than Kafka may take to confirm.
const CLAIM_MS: i64 = 300_000;

/// How often to look for commands that another process stored or left behind, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// The pause after a failure, in milliseconds; it doubles up to the second.
const BACKOFF_MS: (u64, u64) = (100, 5_000);

/// Sends commands.
pub(crate) struct Dispatcher {
    pub store: Store,
    pub appender: Appender,
    pub topics: Topics,
    pub metrics: Metrics,
    pub posted: Arc<Notify>,
}

impl Dispatcher {
    /// Sends commands until `stop` changes.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut backoff_ms = BACKOFF_MS.0;
        loop {
            let pause = match self.turn().await {
                Ok(0) => Duration::from_millis(LOOK_MS),
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    self.appender.mend();
                    tracing::warn!(
                        error,
                        backoff_ms,
                        "commands could not be sent; they stay stored"
                    );
                    let pause = Duration::from_millis(backoff_ms);
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
                    // A command that is posted now shall not shorten the pause.
                    tokio::select! {
                        () = tokio::time::sleep(pause) => continue,
                        _ = stop.changed() => return,
                    }
                }
            };
            backoff_ms = BACKOFF_MS.0;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.posted.notified(), if !pause.is_zero() => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Sends what waits, up to a bound; returns how many commands that were.
    async fn turn(&self) -> Result<usize, String> {
        let now = now_ms();
        let commands = self
            .store
            .claim_commands(now, now + CLAIM_MS, COMMANDS_MAX)
            .await
            .map_err(|error| error.to_string())?;
        if let Ok(pending) = self.store.commands_pending().await {
            self.metrics.commands_pending.set(pending);
        }
        let count = commands.len();
        let mut settled = Vec::new();
        let mut released = Vec::new();
        let mut problem = None;
        // All are handed over before the first is waited for: they leave together, and in order.
        let pending: Vec<_> = commands
            .iter()
            .map(|command| {
                (
                    command.seq,
                    self.appender.append(&message(&self.topics, command, now)),
                )
            })
            .collect();
        for (seq, pending) in pending {
            let done = match pending {
                Ok(pending) => pending.confirmed().await,
                Err(error) => Err(error),
            };
            match done {
                Ok(_) => settled.push((seq, Dispatch::Sent)),
                Err(AppendError::Refused(reason)) => settled.push((seq, Dispatch::Failed(reason))),
                Err(AppendError::Later(reason)) => {
                    released.push(seq);
                    problem = Some(reason);
                }
            }
        }
        if !settled.is_empty() {
            self.store
                .settle_commands(settled.into_iter(), now_ms())
                .await
                .map_err(|error| error.to_string())?;
        }
        if !released.is_empty() {
            self.store
                .release_commands(released.into_iter())
                .await
                .map_err(|error| error.to_string())?;
        }
        problem.map_or(Ok(count), Err)
    }
}

/// The message to the device: response topic and correlation data for MQTT 5.0, the id in the payload for 3.1.1.
fn message(topics: &Topics, command: &Command, now_ms: i64) -> Downlink {
    // JSON text that this backend wrote.
    let args: Value = serde_json::from_str(&command.args).unwrap_or(Value::Null);
    let payload = json!({ "id": command.id, "args": args }).to_string();
    // Rounded up, so that a command is never without an expiry.
    let remaining_ms = u64::try_from(command.expires_ms - now_ms).unwrap_or(0);
    let remaining_s = remaining_ms.div_ceil(1_000).max(1);
    let message = Downlink::new(
        topics.commands.write([&command.device, &command.command]),
        payload,
    )
    .qos(1)
    .payload_format(1)
    .content_type("application/json")
    .response_topic(topics.replies.write([&command.device, &command.command]))
    .correlation_data(command.id.as_bytes())
    .message_expiry_s(u32::try_from(remaining_s).unwrap_or(u32::MAX));
    if topics.reports.is_empty() {
        message
    } else {
        message.report(&command.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_command_carries_its_id_for_every_version_of_mqtt() {
        let topics = Config::default().topics().expect("good defaults");
        let command = Command {
            seq: 1,
            id: "c-1".into(),
            device: "d-1".into(),
            command: "reboot".into(),
            args: r#"{"delay_s":5}"#.into(),
            expires_ms: 10_500,
        };
        let without = Topics {
            reports: String::new(),
            ..topics.clone()
        };
        assert_eq!(message(&without, &command, 9_000).report, None);
        let message = message(&topics, &command, 9_000);
        assert_eq!(message.report.as_deref(), Some("c-1"));
        assert_eq!(message.topic, "devices/d-1/commands/reboot");
        assert_eq!(
            message.response_topic.as_deref(),
            Some("devices/d-1/replies/reboot")
        );
        assert_eq!(message.correlation_data.as_deref(), Some(&b"c-1"[..]));
        assert_eq!(message.payload, br#"{"args":{"delay_s":5},"id":"c-1"}"#);
        assert_eq!((message.qos, message.message_expiry_s), (1, Some(2)));
    }
}
