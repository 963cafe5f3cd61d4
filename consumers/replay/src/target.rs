//! Where a replay's records go.

use crate::line::Line;
use crate::run::Progress;
use crate::{Census, Copies, Error, Lines, Posts};

/// Takes records and makes them durable a batch at a time.
#[derive(Debug)]
pub enum Target {
    /// Lines of JSON.
    Lines(Lines),
    /// Copies in a Kafka topic.
    Copies(Box<Copies>),
    /// Requests to an HTTP endpoint.
    Posts(Posts),
    /// Nothing is written; it is counted what would be.
    Census(Census),
}

impl Target {
    /// Writes a record; `false` when it is none that can be written there.
    pub(crate) fn write(&mut self, record: &Line<'_>) -> Result<bool, Error> {
        match self {
            Self::Lines(lines) => lines.write(record).map(|()| true),
            Self::Copies(copies) => copies.write(record),
            Self::Posts(posts) => posts.write(record).map(|()| true),
            Self::Census(census) => {
                census.count(record);
                Ok(true)
            }
        }
    }

    /// Makes all that was written durable, and tells how far that is.
    pub(crate) fn finish_batch(&mut self, progress: &mut Progress) -> Result<(), Error> {
        match self {
            Self::Lines(lines) => {
                progress.file_bytes = lines.finish_batch()?;
                Ok(())
            }
            Self::Copies(copies) => copies.finish_batch(progress),
            Self::Posts(_) | Self::Census(_) => Ok(()),
        }
    }
}
