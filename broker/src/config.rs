//! The broker's part of the configuration file: what it may say, checked once, and the text of its reference page.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::access::Rule;
use crate::limits::{Limits, WORKERS_MAX};

/// A value that the configuration may not have: the key, the value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value} is not allowed: {allowed}")]
pub struct ConfigError {
    /// The key below this crate's section.
    pub key: String,
    /// The value as it was given.
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

impl ConfigError {
    pub(crate) fn new(
        key: impl Into<String>,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }
}

/// How a broker node is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where MQTT clients of all versions connect.
    pub listen: String,
    /// Worker threads; 0 is one a core.
    pub workers: usize,
    /// The interval at which `$SYS/broker/…` is published; 0 is never.
    pub sys_interval_s: u32,
    /// Whether clients may connect with an empty client identifier.
    pub assign_client_ids: bool,
    /// The bounds.
    pub limits: Limits,
    /// Who may connect, publish and subscribe: the first rule that matches decides; what no rule matches is allowed.
    pub access: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:1883".to_owned(),
            workers: 0,
            sys_interval_s: 10,
            assign_client_ids: true,
            limits: Limits::default(),
            access: Vec::new(),
        }
    }
}

impl Config {
    /// Checks every value and how they relate.
    ///
    /// # Errors
    /// The first value that is not allowed, with its key and what is.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.listen_addr()?;
        if self.workers > WORKERS_MAX {
            return Err(ConfigError::new(
                "workers",
                self.workers,
                format!("0 (one a core) to {WORKERS_MAX}"),
            ));
        }
        self.limits.validate()?;
        for (at, rule) in self.access.iter().enumerate() {
            rule.validate(at)?;
        }
        Ok(())
    }

    /// The address to listen on.
    ///
    /// # Errors
    /// When it is not `ADDRESS:PORT` with a numeric address.
    pub fn listen_addr(&self) -> Result<SocketAddr, ConfigError> {
        self.listen.parse().map_err(|_| {
            ConfigError::new(
                "listen",
                format!("{:?}", self.listen),
                "a numeric address and a port, such as \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::]:1883\"",
            )
        })
    }

    /// The number of worker threads to start.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS_MAX)
    }
}

/// Every key: what is allowed and in which unit, and what it is. Defaults come from [`Config::default`].
pub const REFERENCE: &[(&str, &str, &str)] = &[
    (
        "listen",
        "ADDRESS:PORT, numeric",
        "Where MQTT clients (3.1, 3.1.1 and 5.0) connect.",
    ),
    (
        "workers",
        "0 to 64 threads; 0 is one a core",
        "Threads that own connections and sessions.",
    ),
    (
        "sys_interval_s",
        "seconds; 0 is never",
        "How often `$SYS/broker/…` is published.",
    ),
    (
        "assign_client_ids",
        "true or false",
        "Whether an empty client identifier gets one assigned, or is refused.",
    ),
    (
        "access",
        "list of rules",
        "Rules in order; the first match decides, no match allows. A rule has `effect` (\"allow\" or \"deny\"), `action` (\"connect\", \"publish\" or \"subscribe\"), `filter` (a topic filter; `%c` stands for the client identifier; not for connect) and `client` (a client identifier, or a prefix that ends in `*`; default `*`).",
    ),
    (
        "limits.connections_max",
        "1 or more connections",
        "Open connections on this node; one more is closed at once.",
    ),
    (
        "limits.connect_timeout_ms",
        "100 or more milliseconds",
        "From the accepted connection to the end of its CONNECT.",
    ),
    (
        "limits.packet_bytes_max",
        "128 to 268435460 bytes",
        "A whole MQTT packet. Announced to 5.0 clients.",
    ),
    (
        "limits.client_id_bytes_max",
        "23 to 65535 bytes",
        "A client identifier; a longer one is refused.",
    ),
    (
        "limits.topic_levels_max",
        "1 to 128 levels",
        "Levels of a topic name or filter.",
    ),
    (
        "limits.subscriptions_max",
        "1 or more subscriptions",
        "Subscriptions of one session; one more is refused with 0x97 (0x80 in 3.x).",
    ),
    (
        "limits.receive_maximum",
        "1 to 16384 messages",
        "QoS 1 and 2 publishes of one client that are not acknowledged yet. A 5.0 client that sends more is disconnected with 0x93; a 3.x client is not read from until some are.",
    ),
    (
        "limits.inflight_messages_max",
        "1 to 16384 messages",
        "QoS 1 and 2 messages sent to one client and not acknowledged; the client's receive maximum may lower it.",
    ),
    (
        "limits.queue_messages_max",
        "1 or more messages",
        "Messages that wait for one client beyond those in flight; one more is dropped and counted.",
    ),
    (
        "limits.queue_bytes_max",
        "bytes, at least packet_bytes_max",
        "Bytes that wait for one client beyond those in flight.",
    ),
    (
        "limits.outbox_bytes_max",
        "bytes, at least packet_bytes_max",
        "Encoded bytes that wait for one client's socket: beyond it QoS 0 is dropped and counted, QoS 1 and 2 wait in the queue.",
    ),
    (
        "limits.write_stall_ms",
        "1000 or more milliseconds",
        "How long a client's socket may take nothing while bytes wait for it, before it is disconnected.",
    ),
    (
        "limits.topic_alias_maximum",
        "0 to 65535 aliases",
        "Topic aliases a 5.0 client may set, and that are used towards it.",
    ),
    (
        "limits.session_expiry_max_s",
        "seconds",
        "The longest time a session outlives its connection; also for 3.x sessions that are not clean.",
    ),
    (
        "limits.keep_alive_max_s",
        "0 to 65535 seconds; 0 is no bound",
        "Keep-alive told to a 5.0 client that asks for more, or for none.",
    ),
    (
        "limits.offline_sessions_max",
        "sessions",
        "Sessions held on this node for clients that are not connected; beyond it a session ends with its connection.",
    ),
    (
        "limits.retained_messages_max",
        "messages",
        "Retained messages on this node; beyond it a message is delivered and not retained, and counted.",
    ),
    (
        "limits.retained_bytes_max",
        "bytes",
        "Bytes of retained messages (topic, payload and properties).",
    ),
    (
        "limits.read_bytes_per_turn",
        "4096 or more bytes",
        "Bytes handled for one client before the others get their turn.",
    ),
    (
        "limits.accepts_per_turn",
        "1 or more connections",
        "Connections accepted in one turn of a worker.",
    ),
    (
        "limits.retained_per_turn",
        "1 or more messages",
        "Retained messages copied to one client in one turn.",
    ),
    (
        "limits.inbox_entries_max",
        "64 or more entries",
        "Entries that may wait for a worker before the workers that write them stop reading sockets.",
    ),
    (
        "limits.listen_backlog",
        "1 or more connections",
        "Connections the kernel holds until they are accepted (the kernel's own bound net.core.somaxconn applies too).",
    ),
    (
        "limits.drain_timeout_ms",
        "milliseconds",
        "How long a shutdown waits for publishes to be stored and for outboxes to empty.",
    ),
];
