//! The error of a value that is not allowed.

use std::fmt::Display;

/// A value that the configuration may not have: the key, the value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value} is not allowed: allowed is {allowed}")]
pub struct Error {
    /// The key, with dots, below the section of the crate that reports it.
    pub key: String,
    /// The value as it was given; text in quotes.
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

impl Error {
    /// `key` is set to `value`, but may only be what `allowed` says.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Display, allowed: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// The same, for a key whose value is text.
    #[must_use]
    pub fn text(key: impl Into<String>, value: &str, allowed: impl Into<String>) -> Self {
        Self::new(key, format_args!("{value:?}"), allowed)
    }

    /// The same error, with its key below `table`.
    #[must_use]
    pub fn below(mut self, table: &str) -> Self {
        self.key = format!("{table}.{}", self.key);
        self
    }
}
