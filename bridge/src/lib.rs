//! MQTT to Kafka and back, in the process of a broker node.
//!
//! [`Bridge`] is the broker's [`Sink`](broker::Sink): every publish that a route stores is appended to Kafka before its
//! publisher is told that it was accepted. And it reads the downlink topic, to which backends append what the broker
//! shall publish. How a message looks in Kafka is the business of the `envelope` crate; this one moves it.
//!
//! | module | what it does |
//! |---|---|
//! | `routes` | which publish goes to which Kafka topic, under which key |
//! | `lanes` | by which producer a message goes, and when |
//! | `partitions` | which partition a key belongs to |
//! | `sink` | takes a publish on a broker's thread |
//! | `producer` | librdkafka's producer, and what it says of each message |
//! | `poller` | hears what Kafka confirmed and tells the broker, once a batch |
//! | `suspicions` | trouble that librdkafka reports |
//! | `watch` | whether Kafka answers |
//! | `downlink` | Kafka to MQTT |
//! | `topics` | what the start asks of Kafka |
//! | `fault` | what is wrong with a connection to Kafka, and what to look at |
//! | `embedded` | a Kafka in this process |

mod bridge;
mod claim;
mod clock;
mod config;
mod downlink;
mod embedded;
mod error;
mod fault;
mod inventory;
mod kafka;
mod lanes;
mod letters;
mod mender;
mod partitions;
mod poller;
mod producer;
mod properties;
mod routes;
mod sink;
mod status;
mod suspicions;
mod topics;
mod troubles;
mod waits;
mod watch;

pub use bridge::Bridge;
pub use config::{Compression, Config, DownlinkConfig, ProducerConfig, Refused3x};
pub use embedded::EmbeddedKafka;
pub use error::StartError;
pub use inventory::{Inventory, NeededTopic};
pub use properties::check as check_properties;
pub use routes::{Ack, Deliver, RouteConfig, default_routes};
pub use status::{
    DownlinkOutcome, DownlinkOutcomes, DownlinkStatus, Reachability, Refused, Status,
};
