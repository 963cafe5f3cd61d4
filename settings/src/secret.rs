//! Values that are never printed: passwords, keys, tokens.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is printed instead of a secret.
pub const HIDDEN: &str = "***";
/// The largest file that a secret is read from, in bytes.
const FILE_BYTES_MAX: u64 = 65_536;

/// A secret from the configuration, given as it is, as `env:NAME` or as `file:PATH`. It is read once, with the
/// configuration. Printing it shows where it came from, or [`HIDDEN`]; only [`Secret::reveal`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    /// `env:NAME` or `file:PATH`, when it was given so.
    origin: Option<String>,
}

impl Secret {
    /// Reads what `given` stands for.
    ///
    /// # Errors
    /// In words, without the secret: the variable is not set, or the file cannot be read.
    pub fn read(given: &str) -> Result<Self, String> {
        let value = if let Some(name) = given.strip_prefix("env:") {
            std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => {
                    format!("the environment variable {name:?} is not set")
                }
                std::env::VarError::NotUnicode(_) => {
                    format!("the environment variable {name:?} is no UTF-8")
                }
            })?
        } else if let Some(path) = given.strip_prefix("file:") {
            read_file(path)
                .map_err(|error| format!("the file {path:?} cannot be read ({error})"))?
        } else {
            return Ok(Self {
                value: given.to_owned(),
                origin: None,
            });
        };
        Ok(Self {
            value,
            origin: Some(given.to_owned()),
        })
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// Where it came from, when it was not given as it is.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }
}

fn read_file(path: &str) -> std::io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        let message = format!("{bytes} bytes; at most {FILE_BYTES_MAX} are read");
        return Err(std::io::Error::other(message));
    }
    // Editors and `echo` end a file with a line end that is no part of the secret.
    let mut text = std::fs::read_to_string(path)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self {
            value: value.to_owned(),
            origin: None,
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.origin().unwrap_or(HIDDEN))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = String::deserialize(deserializer)?;
        Self::read(&given).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_in_any_way() {
        let secret = Secret::read("hunter2").unwrap();
        assert_eq!(secret.reveal(), "hunter2");
        let printed = format!(
            "{secret} {secret:?} {}",
            serde_json::to_string(&secret).unwrap()
        );
        assert_eq!(printed, "*** *** \"***\"");
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_a_file() {
        // Cargo sets this one for every test.
        let secret = Secret::read("env:CARGO_PKG_NAME").unwrap();
        assert_eq!(
            (secret.reveal(), secret.to_string().as_str()),
            ("settings", "env:CARGO_PKG_NAME")
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "two words\r\n").unwrap();
        let given = format!("file:{}", file.path().display());
        let secret = Secret::read(&given).unwrap();
        assert_eq!((secret.reveal(), secret.to_string()), ("two words", given));
    }

    #[test]
    fn a_secret_that_cannot_be_read_says_why() {
        let error = Secret::read("env:MILLSTREAM_NO_SUCH_VARIABLE").unwrap_err();
        assert!(
            error.contains("MILLSTREAM_NO_SUCH_VARIABLE") && error.contains("not set"),
            "{error}"
        );
        let error = Secret::read("file:/no/such/file").unwrap_err();
        assert!(error.contains("/no/such/file"), "{error}");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        let error = Secret::read(&format!("file:{}", file.path().display())).unwrap_err();
        assert!(error.contains("65537 bytes"), "{error}");
    }
}
