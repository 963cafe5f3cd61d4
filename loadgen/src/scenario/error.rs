//! Why a scenario is refused.

use std::fmt::Display;
use std::path::PathBuf;

use super::builtin_names;

/// Why a scenario cannot run; each is one sentence for whoever wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{path}: {why}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// The file is no TOML, or has keys or kinds of values that a scenario has not.
    #[error("{origin}, line {line}: {what}")]
    Syntax {
        /// The file's name.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// No built-in scenario has this name.
    #[error("there is no scenario \"{0}\"; there are {known}", known = names())]
    Unknown(String),
    /// A value is not allowed.
    #[error("{key} is {value}; {allowed}")]
    Value {
        /// The key, with the table that it is in.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed or possible.
        allowed: String,
    },
    /// Values that do not go together.
    #[error("{key}: {why}")]
    Refused {
        /// The key, or the table.
        key: String,
        /// Why, and what would be possible.
        why: String,
    },
}

impl ScenarioError {
    pub(super) fn value(
        key: impl Into<String>,
        value: impl Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Value {
            key: key.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    pub(super) fn refused(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused {
            key: key.into(),
            why: why.into(),
        }
    }
}

fn names() -> String {
    let names: Vec<&str> = builtin_names().iter().map(|(name, _)| *name).collect();
    names.join(", ")
}
