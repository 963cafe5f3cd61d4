//! The operators' way back in time: what lies in Kafka is read again and goes to another topic, to MQTT clients, to a file or
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
//! | `target`, `lines`, `copies`, `census` | where the records go |
//! | `resume` | the file with which a replay goes on |
//! | `reset` | a consumer group put to other offsets, and back |
//! | `kafka` | settings of librdkafka, and what its errors mean |

mod census;
mod copies;
mod error;
mod kafka;
mod line;
mod lines;
mod moment;
mod pace;
mod plan;
mod reset;
mod resume;
mod run;
mod selection;
mod source;
mod target;

pub use census::Census;
pub use copies::{Copies, Shape};
pub use error::Error;
pub use kafka::Kafka;
pub use line::Line;
pub use lines::Lines;
pub use moment::{Bounds, Moment, timestamp};
pub use pace::Pace;
pub use plan::{Plan, Span};
pub use reset::Reset;
pub use resume::{Resume, new_id};
pub use run::{Ended, Progress, Run, Watch};
pub use selection::Selection;
pub use target::Target;
