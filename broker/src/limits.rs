//! Every bound of the broker: its name, its default and its unit, in one place.
//!
//! A bound's name ends in its unit (`_bytes`, `_ms`, `_s`, `_messages`, …) and in `_max` where it is an upper
//! bound. [`Limits::validate`] asserts how the bounds relate; nothing else in the crate invents a number.

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// The bounds that an operator may change. Defaults suit a node with many mostly idle clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open network connections on this node; one more is closed at once.
    pub connections_max: u32,
    /// From the accepted connection to the end of its CONNECT packet.
    pub connect_timeout_ms: u64,
    /// A whole MQTT packet, fixed header included; announced to 5.0 clients.
    pub packet_bytes_max: u32,
    /// A client identifier.
    pub client_id_bytes_max: u32,
    /// Levels of a topic name or filter.
    pub topic_levels_max: u32,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// QoS 1 and 2 publishes of one client that are not acknowledged yet; announced to 5.0 clients.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages sent to one client and not acknowledged by it.
    pub inflight_messages_max: u16,
    /// Messages that wait for one client, connected or not, beyond those in flight.
    pub queue_messages_max: u32,
    /// Bytes (topic, payload, properties) that wait for one client beyond those in flight.
    pub queue_bytes_max: u64,
    /// Encoded bytes that wait in memory for one client's socket.
    pub outbox_bytes_max: u64,
    /// How long a client's socket may take nothing while bytes wait for it.
    pub write_stall_ms: u64,
    /// Topic aliases that a 5.0 client may set, and that we use towards it.
    pub topic_alias_maximum: u16,
    /// The longest time that a session outlives its connection.
    pub session_expiry_max_s: u32,
    /// Keep-alive that a 5.0 client is told to use when it asks for more (or for none); 0 leaves it alone.
    pub keep_alive_max_s: u16,
    /// Sessions held for clients that are not connected.
    pub offline_sessions_max: u32,
    /// Retained messages.
    pub retained_messages_max: u32,
    /// Bytes of retained messages (topic, payload, properties).
    pub retained_bytes_max: u64,
    /// Bytes handled for one client in one turn of a worker, so that the others get theirs.
    pub read_bytes_per_turn: u32,
    /// Connections accepted in one turn of a worker.
    pub accepts_per_turn: u32,
    /// Retained messages copied to one client in one turn of a worker.
    pub retained_per_turn: u32,
    /// Entries from other threads that may wait for a worker before those that write them stop reading sockets.
    pub inbox_entries_max: u32,
    /// Connections that the kernel may hold for `accept`.
    pub listen_backlog: u32,
    /// How long a shutdown waits for publishes to be stored and outboxes to empty.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000_000,
            connect_timeout_ms: 10_000,
            packet_bytes_max: 1_048_576,
            client_id_bytes_max: 1_024,
            topic_levels_max: 128,
            subscriptions_max: 10_000,
            receive_maximum: 1_024,
            inflight_messages_max: 64,
            queue_messages_max: 10_000,
            queue_bytes_max: 8 * 1_048_576,
            outbox_bytes_max: 2 * 1_048_576,
            write_stall_ms: 30_000,
            topic_alias_maximum: 16,
            session_expiry_max_s: 7 * 86_400,
            keep_alive_max_s: 0,
            offline_sessions_max: 10_000_000,
            retained_messages_max: 10_000_000,
            retained_bytes_max: 4 * 1_073_741_824,
            read_bytes_per_turn: 65_536,
            accepts_per_turn: 256,
            retained_per_turn: 256,
            inbox_entries_max: 65_536,
            listen_backlog: 4_096,
            drain_timeout_ms: 10_000,
        }
    }
}

/// Payloads from this size on are shared between receivers instead of copied into each outbox.
pub(crate) const SHARED_PAYLOAD_BYTES_MIN: usize = 4_096;
/// Slices handed to one `writev`.
pub(crate) const WRITE_SLICES_MAX: usize = 64;
/// Capacity of emptied outboxes that a worker keeps for reuse.
pub(crate) const SPARE_OUTBOX_BYTES_MAX: usize = 4 * 1_048_576;
/// Readiness events taken from the kernel in one turn.
pub(crate) const EVENTS_PER_TURN_MAX: usize = 1_024;
/// Entries of its inbox that a worker handles in one turn. Between two turns outboxes are flushed and acknowledgements
/// read: without a bound, a worker that was behind would overfill the queues of clients that keep up.
pub(crate) const INBOX_ENTRIES_PER_TURN_MAX: usize = 1_024;
/// Bytes of messages in these entries, each message counted once; one entry is always handled.
pub(crate) const INBOX_BYTES_PER_TURN_MAX: usize = 256 * 1_024;
/// Entries of connections that are gone, on the list of those that wait for the sink, before it is cleaned.
pub(crate) const HELD_LIST_SPARE: u64 = 1_024;
/// The longest that a timer is set for. One that is no longer wanted stays until then, so a client that comes and goes
/// leaves no more behind than it can in this time.
pub(crate) const TIMER_LOOK_MS: u64 = 600_000;
/// The worker's timer resolution.
pub(crate) const TIMER_TICK_MS: u64 = 100;
/// How long a closed connection may take to read our last packet before the socket is dropped.
pub(crate) const LINGER_MS: u64 = 2_000;
/// Bytes read and thrown away from a connection that is being closed.
pub(crate) const LINGER_BYTES_MAX: u32 = 1_048_576;
/// When a will could not be handed to the sink, the time until the next attempt.
pub(crate) const WILL_RETRY_MS: u64 = 1_000;
/// The largest number of workers: a session's worker is 6 bits of its number.
pub const WORKERS_MAX: usize = 64;
/// The largest number of sessions a worker holds: 26 bits of a session's number.
pub const SESSIONS_PER_WORKER_MAX: usize = 1 << 26;

impl Limits {
    /// Refuses values outside their range, and impossible relations between them.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_least = |key: &'static str, value: u64, least: u64| {
            if value < least {
                return Err(ConfigError::new(
                    format!("limits.{key}"),
                    value,
                    format!("at least {least}"),
                ));
            }
            Ok(())
        };
        at_least("connections_max", self.connections_max.into(), 1)?;
        at_least("connect_timeout_ms", self.connect_timeout_ms, 100)?;
        at_least("packet_bytes_max", self.packet_bytes_max.into(), 128)?;
        at_least("client_id_bytes_max", self.client_id_bytes_max.into(), 23)?;
        at_least("topic_levels_max", self.topic_levels_max.into(), 1)?;
        at_least("subscriptions_max", self.subscriptions_max.into(), 1)?;
        at_least("receive_maximum", self.receive_maximum.into(), 1)?;
        at_least(
            "inflight_messages_max",
            self.inflight_messages_max.into(),
            1,
        )?;
        at_least("queue_messages_max", self.queue_messages_max.into(), 1)?;
        at_least("queue_bytes_max", self.queue_bytes_max, 1)?;
        at_least("outbox_bytes_max", self.outbox_bytes_max, 1)?;
        at_least("write_stall_ms", self.write_stall_ms, 1_000)?;
        at_least(
            "read_bytes_per_turn",
            self.read_bytes_per_turn.into(),
            4_096,
        )?;
        at_least("accepts_per_turn", self.accepts_per_turn.into(), 1)?;
        at_least("retained_per_turn", self.retained_per_turn.into(), 1)?;
        at_least("inbox_entries_max", self.inbox_entries_max.into(), 64)?;
        at_least("listen_backlog", self.listen_backlog.into(), 1)?;
        let at_most = |key: &'static str, value: u64, most: u64| {
            if value > most {
                return Err(ConfigError::new(
                    format!("limits.{key}"),
                    value,
                    format!("at most {most}"),
                ));
            }
            Ok(())
        };
        at_most(
            "packet_bytes_max",
            self.packet_bytes_max.into(),
            268_435_460,
        )?;
        at_most(
            "client_id_bytes_max",
            self.client_id_bytes_max.into(),
            65_535,
        )?;
        at_most(
            "topic_levels_max",
            self.topic_levels_max.into(),
            topic::LEVELS_MAX as u64,
        )?;
        at_most("receive_maximum", self.receive_maximum.into(), 16_384)?;
        at_most(
            "inflight_messages_max",
            self.inflight_messages_max.into(),
            16_384,
        )?;
        // A packet that may be received must fit where it is sent from, or it could never be delivered.
        if self.outbox_bytes_max < u64::from(self.packet_bytes_max) {
            return Err(ConfigError::new(
                "limits.outbox_bytes_max",
                self.outbox_bytes_max,
                format!(
                    "at least limits.packet_bytes_max ({})",
                    self.packet_bytes_max
                ),
            ));
        }
        if self.queue_bytes_max < u64::from(self.packet_bytes_max) {
            return Err(ConfigError::new(
                "limits.queue_bytes_max",
                self.queue_bytes_max,
                format!(
                    "at least limits.packet_bytes_max ({})",
                    self.packet_bytes_max
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn an_outbox_smaller_than_a_packet_is_refused_by_name() {
        let limits = Limits {
            outbox_bytes_max: 1_000,
            ..Limits::default()
        };
        let error = limits.validate().unwrap_err().to_string();
        assert!(error.contains("limits.outbox_bytes_max"), "{error}");
        assert!(error.contains("limits.packet_bytes_max"), "{error}");
    }
}
