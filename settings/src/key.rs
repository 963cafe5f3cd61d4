//! What one key may be set to: a range with a unit, a kind of value, or words alone. The words of a range are derived.

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::ops::{Bound, RangeBounds};

use crate::Error;

/// One key of a section, as the reference shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name below the section, with dots.
    pub name: Cow<'static, str>,
    /// What is allowed, with the unit.
    pub allowed: Cow<'static, str>,
    /// What it is.
    pub about: Cow<'static, str>,
}

impl Key {
    /// A key from its documentation comment, whose lines begin with a space.
    #[must_use]
    pub fn new(name: &'static str, allowed: impl Into<Cow<'static, str>>, comment: &str) -> Self {
        Self {
            name: name.into(),
            allowed: allowed.into(),
            about: comment.trim().to_owned().into(),
        }
    }

    /// The same key, below `table`.
    #[must_use]
    pub fn below(mut self, table: &str) -> Self {
        self.name = format!("{table}.{}", self.name).into();
        self
    }
}

/// A kind of value that several keys have, such as an address: how it is recognised, and its words.
#[derive(Debug, Clone, Copy)]
pub struct Kind<T: ?Sized + 'static> {
    /// What is allowed.
    pub words: &'static str,
    /// Whether a value is of this kind.
    pub fits: fn(&T) -> bool,
}

/// Checks that a value is of a kind.
///
/// # Errors
/// Names `key` and the kind's words.
pub fn is_kind<T: Debug + ?Sized>(key: &str, value: &T, kind: Kind<T>) -> Result<(), Error> {
    if (kind.fits)(value) {
        return Ok(());
    }
    Err(Error::new(key, format_args!("{value:?}"), kind.words))
}

/// Checks that a number is in its range.
///
/// # Errors
/// Names `key` and the range in words.
pub fn in_range<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: impl RangeBounds<T>,
    unit: &str,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::new(key, value, words(range, unit)))
}

/// A range in words: `0 to 64 threads`, `1 or more connections`, `seconds` where every number is in it.
#[must_use]
pub fn words<T: Display>(range: impl RangeBounds<T>, unit: &str) -> String {
    let least = match range.start_bound() {
        Bound::Included(least) => least.to_string(),
        Bound::Excluded(below) => format!("more than {below}"),
        Bound::Unbounded => "0".to_owned(),
    };
    let words = match range.end_bound() {
        Bound::Included(most) => format!("{least} to {most}"),
        Bound::Excluded(above) => format!("{least} to below {above}"),
        Bound::Unbounded if least == "0" => String::new(),
        Bound::Unbounded => format!("{least} or more"),
    };
    format!("{words} {unit}").trim().to_owned()
}
