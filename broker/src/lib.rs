//! The MQTT tier: connections, sessions and routing, for MQTT 3.1, 3.1.1 and 5.0 on one listener.
//!
//! [`Broker::bind`] takes the port, [`Broker::start`] starts one thread a core (*workers*), each of which owns its
//! connections and sessions outright; [`Handle`] is the way in from other threads. What is published is offered to a
//! [`Sink`], which may hold an acknowledgement back until the message is stored. Nothing here knows Kafka.

#![expect(
    clippy::box_collection,
    clippy::vec_box,
    reason = "one word in ten million idle connections and sessions, instead of three"
)]

mod access;
pub mod admin;
pub mod bans;
mod budget;
mod config;
mod connection;
mod death;
mod driver;
mod gates;
mod handle;
pub mod limits;
mod listener;
mod losses;
mod message;
pub mod outbox;
mod outcome;
mod read_ahead;
mod retained;
mod router;
mod session;
pub mod sim;
mod sink;
mod slab;
mod stats;
mod throttle;
mod time;
mod timers;
mod times;
mod tls;
mod top_topics;
mod trace;
pub mod transport;
mod worker;

pub use access::{AccessConfig, Action, Denied, Effect, RefusedPublish, Rule};
pub use budget::{Memory, Pressure};
pub use codec;
pub use config::{Config, Drain};
pub use death::Death;
pub use driver::{Broker, Running, StartError};
pub use handle::{Handle, NewCertificates};
pub use identity;
pub use limits::Limits;
pub use listener::{
    Carrier, CertificateFiles, ClientCertificate, Listener, ListenerStatus, SHORT_FORM, TlsConfig,
};
pub use losses::{Loss, Lost, LostPart};
pub use message::{Message, MessageParts};
pub use outcome::{Delivered, Outcome};
pub use router::ShareStrategy;
pub use sink::{Deliver, Incoming, NoSink, Refusal, Settlement, Sink, Token, Verdict};
pub use stats::Stats;
pub use time::Time;
pub use times::{TIMES_UP_TO_MS, Times};
pub use tls::{CertificateStatus, EXPIRY_WARNING, Reloaded};
pub use top_topics::{TopTopics, TopicCount};
pub use trace::{TraceKind, TraceLine, TraceTo, Traced};
