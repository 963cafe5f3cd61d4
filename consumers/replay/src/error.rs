//! What can go wrong, and whose matter it is.

use std::fmt::Display;
use std::path::PathBuf;

/// Why nothing was done, or why something stopped half-way. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of an option is not allowed. Nothing was done.
    #[error("{option} {value:?} is not allowed: allowed is {allowed}")]
    Option {
        /// The option, with its dashes.
        option: &'static str,
        /// As it was given.
        value: String,
        /// What would be.
        allowed: String,
    },
    /// No answer from Kafka. Nothing was done.
    #[error("Kafka at {servers} cannot be reached: {cause}")]
    Unreachable {
        /// The bootstrap servers.
        servers: String,
        /// What librdkafka says.
        cause: String,
    },
    /// It would be wrong to do it. Nothing was done.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Kafka or the target failed on the way.
    #[error("cannot {doing}: {cause}")]
    Failed {
        /// What was tried.
        doing: String,
        /// Why it failed.
        cause: String,
    },
    /// The reader of standard output has seen enough.
    #[error("the reader of standard output is gone")]
    NobodyReads,
}

impl Error {
    /// `option` was given `value`, but may only be what `allowed` says.
    pub fn option(option: &'static str, value: impl Display, allowed: impl Into<String>) -> Self {
        Self::Option {
            option,
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// `doing` failed, for `cause`.
    pub fn failed(doing: impl Into<String>, cause: impl Display) -> Self {
        Self::Failed {
            doing: doing.into(),
            cause: cause.to_string(),
        }
    }

    /// Whether nothing was done yet, and the operator can change what stands in the way.
    #[must_use]
    pub fn is_start(&self) -> bool {
        match self {
            Self::Option { .. } | Self::Unreachable { .. } | Self::Refused(_) => true,
            Self::File { .. } | Self::Failed { .. } | Self::NobodyReads => false,
        }
    }
}
