//! The operators' way back in time: what lies in Kafka is read again and goes to another topic, to MQTT clients, to an HTTP endpoint, to a file or
//! to standard output, and consumer groups are put back.
//!
//! A replay has a [`Plan`] (which offsets of which partitions), a [`Selection`] (which records of those), a [`Target`], and a
//! [`Pace`]. It reads in bounded memory, finishes in batches, and goes on after a kill where it stopped ([`Resume`]). Nothing
//! here prints or asks: that is the command line's.
//!
//! | module | what it does |
//! |---|---|
//! | `moment`, `plan` | from where to where: offsets and times resolved, and what retention took |
//! | `selection` | which records |
//! | `source` | reads spans of partitions to their ends |
//! | `run` | the loop: read, select, pace, write, finish a batch |
//! | `target`, `lines`, `copies`, `posts`, `census` | where the records go |
//! | `audit` | who changed what |
//! | `resume` | the file with which a replay goes on |
//! | `letters`, `redrive`, `purge` | dead letters: which there are, put back, deleted |
//! | `transactions` | a producer whose batches are there as a whole or not at all |
//! | `groups` | consumer groups as they stand: members, lag, what is stuck |
//! | `reset` | a consumer group put to other offsets, and back |
//! | `kafka` | settings of librdkafka, and what its errors mean |

pub mod audit;
mod census;
mod copies;
mod error;
pub mod groups;
mod kafka;
pub mod letters;
mod line;
mod lines;
mod moment;
mod pace;
mod plan;
mod posts;
mod purge;
mod redrive;
mod reset;
mod resume;
mod run;
mod selection;
mod source;
mod target;
mod transactions;

pub use census::Census;
pub use copies::{Copies, Shape};
pub use error::Error;
pub use kafka::Kafka;
pub use line::Line;
pub use lines::Lines;
pub use moment::{Bounds, Moment, timestamp};
pub use pace::Pace;
pub use plan::{Plan, Span};
pub use posts::Posts;
pub use purge::Purge;
pub use redrive::{Redrive, Redriven, fetch};
pub use reset::Reset;
pub use resume::{Resume, new_id};
pub use run::{Ended, Progress, Run, Watch};
pub use selection::Selection;
pub use target::Target;
