//! Why a text is not a topic name or not a topic filter. Always the sender's fault; retrying the
//! same text never helps.

use std::fmt;

use crate::validate::{LEVELS_MAX, TOPIC_BYTES_MAX};

/// Why a topic name or topic filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character at all [MQTT-4.7.3-1].
    Empty,
    /// It is longer than [`TOPIC_BYTES_MAX`] [MQTT-4.7.3-3].
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It has more than [`LEVELS_MAX`] levels (a bound of this implementation).
    TooManyLevels {
        /// Its number of levels.
        levels: usize,
    },
    /// It contains U+0000 [MQTT-4.7.3-2].
    NullCharacter,
    /// A topic name contains `+` or `#` [MQTT-4.7.0-1].
    WildcardInName,
    /// `+` does not occupy an entire level of the filter [MQTT-4.7.1-2].
    MisplacedPlus,
    /// `#` is not alone in the last level of the filter [MQTT-4.7.1-1].
    MisplacedHash,
    /// `$share//…`: the share name has no character [MQTT-4.8.2-1].
    ShareNameEmpty,
    /// The share name contains `+` or `#` [MQTT-4.8.2-2].
    ShareNameWildcard,
    /// Nothing follows the share name: `$share/group` or `$share/group/` [MQTT-4.8.2-2].
    ShareFilterMissing,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a topic needs at least one character"),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "the topic has {bytes} bytes, {TOPIC_BYTES_MAX} are allowed"
                )
            }
            Self::TooManyLevels { levels } => {
                write!(f, "the topic has {levels} levels, {LEVELS_MAX} are allowed")
            }
            Self::NullCharacter => f.write_str("the topic contains the null character U+0000"),
            Self::WildcardInName => f.write_str("a topic name must not contain '+' or '#'"),
            Self::MisplacedPlus => f.write_str("'+' must stand alone in its level of the filter"),
            Self::MisplacedHash => {
                f.write_str("'#' must stand alone in the last level of the filter")
            }
            Self::ShareNameEmpty => {
                f.write_str("the group of a shared subscription needs at least one character")
            }
            Self::ShareNameWildcard => {
                f.write_str("the group of a shared subscription must not contain '+' or '#'")
            }
            Self::ShareFilterMissing => {
                f.write_str("a shared subscription needs a filter: $share/{group}/{filter}")
            }
        }
    }
}

impl std::error::Error for TopicError {}
