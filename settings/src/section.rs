//! A section of the configuration, written once: fields, defaults, bounds and words in one place.

use std::fmt::Display;

use crate::{Error, Key};

/// What [`section!`](crate::section!) makes of a struct.
pub trait Section: Default {
    /// Its keys, those of the tables in it included, in the order in which they are written.
    #[must_use]
    fn keys() -> Vec<Key>;

    /// Checks each key by itself, those of the tables in it included.
    ///
    /// # Errors
    /// The first value that is not allowed.
    fn check_keys(&self) -> Result<(), Error>;

    /// What `key` may be set to; empty when there is no such key.
    #[must_use]
    fn allowed(key: &str) -> String {
        Self::keys()
            .into_iter()
            .find(|other| other.name == key)
            .map_or_else(String::new, |key| key.allowed.into_owned())
    }

    /// The error of a value that a check of the section's own refuses, with the words of its key.
    #[must_use]
    fn refused(key: &str, value: impl Display) -> Error {
        Error::new(key, value, Self::allowed(key))
    }
}

/// A section (or a table in one) of the configuration: a struct whose fields have a default and say what is allowed.
///
/// Each field has a comment, which is its line in the reference, then `name: Type = default, [allowed];` with one of
/// - `[1..=64, "threads"]`: a number in a range, with its unit;
/// - `[is KIND]`: a value of a [`Kind`](crate::Kind);
/// - `["words"]`, or `[words CONSTANT]`: what its type allows, or what the section checks itself, in words;
/// - `[section]`: a table, which is a section itself.
///
/// It makes the struct with serde's traits (unknown keys refused, defaults for what is left out), [`Default`] and
/// [`Section`].
#[macro_export]
macro_rules! section {
    (
        $(#[$outer:meta])*
        $vis:vis struct $Name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                $field_vis:vis $field:ident : $Type:ty = $default:expr, [$($allowed:tt)+];
            )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        $vis struct $Name {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                $field_vis $field: $Type,
            )*
        }

        impl ::std::default::Default for $Name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::Section for $Name {
            fn keys() -> ::std::vec::Vec<$crate::Key> {
                [$($crate::section!(@key $field, $Type, concat!($($doc),+), $($allowed)+)),*].concat()
            }

            fn check_keys(&self) -> ::std::result::Result<(), $crate::Error> {
                $($crate::section!(@check self, $field, $($allowed)+);)*
                ::std::result::Result::Ok(())
            }
        }
    };

    (@key $field:ident, $Type:ty, $doc:expr, section) => {
        <$Type as $crate::Section>::keys()
            .into_iter()
            .map(|key| key.below(stringify!($field)))
            .collect::<::std::vec::Vec<_>>()
    };
    (@key $field:ident, $Type:ty, $doc:expr, is $kind:expr) => {
        ::std::vec![$crate::Key::new(stringify!($field), $kind.words, $doc)]
    };
    (@key $field:ident, $Type:ty, $doc:expr, words $words:expr) => {
        ::std::vec![$crate::Key::new(stringify!($field), $words, $doc)]
    };
    (@key $field:ident, $Type:ty, $doc:expr, $words:literal) => {
        ::std::vec![$crate::Key::new(stringify!($field), $words, $doc)]
    };
    (@key $field:ident, $Type:ty, $doc:expr, $range:expr, $unit:literal) => {
        ::std::vec![$crate::Key::new(stringify!($field), $crate::words::<$Type>($range, $unit), $doc)]
    };

    (@check $self:ident, $field:ident, section) => {
        $crate::Section::check_keys(&$self.$field).map_err(|error| error.below(stringify!($field)))?;
    };
    (@check $self:ident, $field:ident, is $kind:expr) => {
        $crate::is_kind(stringify!($field), &$self.$field, $kind)?;
    };
    (@check $self:ident, $field:ident, words $words:expr) => {};
    (@check $self:ident, $field:ident, $words:literal) => {};
    (@check $self:ident, $field:ident, $range:expr, $unit:literal) => {
        $crate::in_range(stringify!($field), $self.$field, $range, $unit)?;
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const EVEN: Kind<u32> = Kind {
        words: "an even number",
        fits: |number| number % 2 == 0,
    };

    crate::section! {
        /// A table.
        struct Inner {
            /// How long
            /// it waits.
            wait_ms: u64 = 100, [10.., "milliseconds"];
        }
    }

    crate::section! {
        /// A section.
        struct Outer {
            /// Its threads.
            threads: usize = 0, [0..=64, "threads; 0 is one a core"];
            /// Its pair.
            pair: u32 = 2, [is EVEN];
            /// Its name.
            #[serde(rename = "name")]
            name: String = "x".to_owned(), ["text"];
            /// Its table.
            inner: Inner = Inner { wait_ms: 20 }, [section];
        }
    }

    #[test]
    fn keys_have_their_words_from_their_bounds_and_comments() {
        let keys: Vec<_> = Outer::keys()
            .into_iter()
            .map(|key| format!("{}|{}|{}", key.name, key.allowed, key.about))
            .collect();
        assert_eq!(
            keys,
            [
                "threads|0 to 64 threads; 0 is one a core|Its threads.",
                "pair|an even number|Its pair.",
                "name|text|Its name.",
                "inner.wait_ms|10 or more milliseconds|How long it waits.",
            ]
        );
    }

    #[test]
    fn a_value_that_is_not_allowed_is_named_with_what_is() {
        let refused = |change: fn(&mut Outer)| {
            let mut outer = Outer::default();
            outer.check_keys().unwrap();
            change(&mut outer);
            outer.check_keys().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|outer| outer.threads = 65),
            "threads = 65 is not allowed: allowed is 0 to 64 threads; 0 is one a core"
        );
        assert_eq!(
            refused(|outer| outer.pair = 3),
            "pair = 3 is not allowed: allowed is an even number"
        );
        assert_eq!(
            refused(|outer| outer.inner.wait_ms = 9),
            "inner.wait_ms = 9 is not allowed: allowed is 10 or more milliseconds"
        );
        assert_eq!(Outer::refused("name", "\"\"").allowed, "text");
        assert_eq!(Outer::allowed("nothing"), "");
    }

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_unknown_is_refused() {
        let outer: Outer = serde_json::from_str(r#"{"threads":3}"#).unwrap();
        assert_eq!(
            (outer.threads, outer.pair, outer.name.as_str()),
            (3, 2, "x")
        );
        assert_eq!(outer.inner.wait_ms, 20);
        assert!(serde_json::from_str::<Outer>(r#"{"thread":3}"#).is_err());
    }

    #[test]
    fn a_range_reads_as_a_person_would_say_it() {
        assert_eq!(
            crate::words(0u32.., "seconds; 0 is never"),
            "seconds; 0 is never"
        );
        assert_eq!(crate::words(..=5u32, "levels"), "0 to 5 levels");
        assert_eq!(crate::words(1u32.., "or so"), "1 or more or so");
        assert_eq!(crate::words(-1i32..=3, ""), "-1 to 3");
    }
}
