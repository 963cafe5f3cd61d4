//! Shared subscriptions: `$share/{group}/{filter}` [MQTT-4.8.2].
//!
//! Only the text. Who is in a group and whose turn it is, the router knows.

use crate::TopicError;
use crate::validate::{TOPIC_BYTES_MAX, validate_filter};

/// What the filter of a shared subscription starts with [MQTT-4.8.2-1].
const SHARE_PREFIX: &str = "$share/";

/// The two parts of a shared subscription's filter, both borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// The specification's "ShareName": at least one character, without `/`, `+` and `#`.
    pub group: &'a str,
    /// The valid filter that decides which topics the group receives.
    pub filter: &'a str,
}

/// Checks the filter of a SUBSCRIBE or UNSUBSCRIBE and takes a `$share/{group}/` off.
///
/// `Ok(None)` means: not a shared subscription, and valid as an ordinary filter. So a caller that
/// came here need not ask [`validate_filter`] as well. `$share` alone and `$shared/…` are ordinary.
///
/// # Errors
///
/// The first rule that the group or the filter breaks.
pub fn split_share(filter: &str) -> Result<Option<Share<'_>>, TopicError> {
    let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else {
        return validate_filter(filter).map(|()| None);
    };
    // The bound is on what the packet carries, the prefix included [MQTT-4.7.3-3].
    if filter.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong {
            bytes: filter.len(),
        });
    }
    let (group, inner) = rest.split_once('/').unwrap_or((rest, ""));
    // [MQTT-4.8.2-1]
    if group.is_empty() {
        return Err(TopicError::ShareNameEmpty);
    }
    // [MQTT-4.8.2-2]
    if group.contains(['+', '#']) {
        return Err(TopicError::ShareNameWildcard);
    }
    if group.contains('\0') {
        return Err(TopicError::NullCharacter);
    }
    if inner.is_empty() {
        return Err(TopicError::ShareFilterMissing);
    }
    validate_filter(inner)?;
    Ok(Some(Share {
        group,
        filter: inner,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{LEVELS_MAX, naive};

    proptest! {
        #[test]
        fn any_text_is_split_or_refused_by_the_rules(text in naive::text()) {
            match (split_share(&text), text.strip_prefix("$share/")) {
                (outcome, None) => prop_assert_eq!(outcome, validate_filter(&text).map(|()| None)),
                (Ok(share), Some(rest)) => {
                    let share = share.expect("the prefix is there");
                    prop_assert_eq!(format!("{}/{}", share.group, share.filter), rest);
                    prop_assert!(!share.group.is_empty());
                    prop_assert!(!share.group.contains(['/', '+', '#', '\0']));
                    prop_assert_eq!(validate_filter(share.filter), Ok(()));
                }
                (Err(_), Some(rest)) => {
                    let good = rest.split_once('/').is_some_and(|(group, filter)| {
                        !group.is_empty()
                            && !group.contains(['+', '#', '\0'])
                            && validate_filter(filter).is_ok()
                    });
                    prop_assert!(!good);
                }
            }
        }
    }

    #[test]
    fn a_shared_filter_is_split_at_the_group() {
        for (text, group, filter) in [
            (
                "$share/consumer1/sport/tennis/+",
                "consumer1",
                "sport/tennis/+",
            ),
            ("$share/g/#", "g", "#"),
            ("$share/g//finance", "g", "/finance"),
            ("$share/g//", "g", "/"),
            ("$share/$g/$SYS/#", "$g", "$SYS/#"),
            ("$share/a b/c", "a b", "c"),
        ] {
            assert_eq!(
                split_share(text),
                Ok(Some(Share { group, filter })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn other_filters_are_not_shared_but_checked() {
        for text in [
            "a/b",
            "#",
            "$share",
            "$shared/g/a",
            "$SHARE/g/a",
            "/$share/g/a",
        ] {
            assert_eq!(split_share(text), Ok(None), "{text:?}");
        }
        assert_eq!(split_share("a/b#"), Err(TopicError::MisplacedHash));
        assert_eq!(split_share(""), Err(TopicError::Empty));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (text, error) in [
            ("$share/", TopicError::ShareNameEmpty),
            ("$share//a", TopicError::ShareNameEmpty),
            ("$share/g", TopicError::ShareFilterMissing),
            ("$share/g/", TopicError::ShareFilterMissing),
            ("$share/+/a", TopicError::ShareNameWildcard),
            ("$share/g#/a", TopicError::ShareNameWildcard),
            ("$share/#", TopicError::ShareNameWildcard),
            ("$share/g\0/a", TopicError::NullCharacter),
            ("$share/g/a/#/b", TopicError::MisplacedHash),
            ("$share/g/a+", TopicError::MisplacedPlus),
        ] {
            assert_eq!(split_share(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn bounds_hold_for_shared_filters_too() {
        let deepest = format!("$share/g/{}", vec!["+"; LEVELS_MAX].join("/"));
        assert!(split_share(&deepest).is_ok_and(|share| share.is_some()));
        assert_eq!(
            split_share(&format!("{deepest}/+")),
            Err(TopicError::TooManyLevels { levels: 129 })
        );
        let long = format!("$share/g/{}", "a".repeat(TOPIC_BYTES_MAX - 8));
        assert_eq!(
            split_share(&long),
            Err(TopicError::TooLong { bytes: 65_536 })
        );
        assert!(split_share(&long[..TOPIC_BYTES_MAX]).is_ok());
    }
}
