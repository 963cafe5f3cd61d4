//! What the specification allows as a topic name and as a topic filter.

use crate::TopicError;

/// Longest topic name or topic filter, in bytes of UTF-8 [MQTT-4.7.3-3].
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Most levels of a topic name or topic filter. The specification sets no bound; without one, a
/// filter of a single packet could be a path of 65,536 levels.
pub const LEVELS_MAX: usize = 128;

/// Checks a topic name, as a PUBLISH carries it.
///
/// # Errors
///
/// The first rule that `topic` breaks, in the order of the fields of [`TopicError`].
pub fn validate_name(topic: &str) -> Result<(), TopicError> {
    let census = validate_text(topic)?;
    // [MQTT-4.7.0-1]
    if census.wildcards {
        return Err(TopicError::WildcardInName);
    }
    Ok(())
}

/// Checks a topic filter, as a SUBSCRIBE carries it after a `$share/{group}/` was taken off.
///
/// `$share/…` itself passes as a filter with ordinary levels; [`split_share`](crate::split_share)
/// knows its rules.
///
/// # Errors
///
/// The first rule that `filter` breaks, level by level.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    if !validate_text(filter)?.wildcards {
        return Ok(());
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        for wildcard in level.bytes() {
            match wildcard {
                // [MQTT-4.7.1-2]
                b'+' if level.len() > 1 => return Err(TopicError::MisplacedPlus),
                // [MQTT-4.7.1-1]
                b'#' if level.len() > 1 || levels.peek().is_some() => {
                    return Err(TopicError::MisplacedHash);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The rules that names and filters share.
fn validate_text(text: &str) -> Result<Census, TopicError> {
    // [MQTT-4.7.3-1]
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // [MQTT-4.7.3-3]
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    let census = Census::of(text.as_bytes());
    // [MQTT-4.7.3-2]
    if census.nulls {
        return Err(TopicError::NullCharacter);
    }
    if census.separators >= LEVELS_MAX {
        return Err(TopicError::TooManyLevels {
            levels: census.separators + 1,
        });
    }
    Ok(census)
}

/// What the rules want to know of a text. Every PUBLISH is asked, so it is
/// one pass without a branch per byte.
struct Census {
    separators: usize,
    nulls: bool,
    wildcards: bool,
}

impl Census {
    fn of(text: &[u8]) -> Census {
        let (mut separators, mut nulls, mut wildcards) = (0, 0, 0);
        // At most 255 bytes at a time, so that all counters are bytes: the
        // compiler then looks at 16 bytes at once.
        for part in text.chunks(255) {
            let mut in_part = 0_u8;
            for &byte in part {
                in_part += u8::from(byte == b'/');
                nulls |= u8::from(byte == 0);
                wildcards |= u8::from(byte == b'+') | u8::from(byte == b'#');
            }
            separators += usize::from(in_part);
        }
        Census {
            separators,
            nulls: nulls != 0,
            wildcards: wildcards != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::naive;

    /// The rules of 4.7 once more, one sentence each.
    fn is_filter(text: &str) -> bool {
        let levels = text.split('/').collect::<Vec<_>>();
        let plus_alone = levels.iter().all(|l| !l.contains('+') || *l == "+");
        let hash_alone = levels.iter().all(|l| !l.contains('#') || *l == "#");
        let hash_last = !levels[..levels.len() - 1].contains(&"#");
        !text.is_empty() && !text.contains('\0') && plus_alone && hash_alone && hash_last
    }

    proptest! {
        #[test]
        fn any_text_is_judged_by_the_rules(text in naive::text()) {
            prop_assert_eq!(validate_filter(&text).is_ok(), is_filter(&text));
            let is_name = is_filter(&text) && !text.contains(['+', '#']);
            prop_assert_eq!(validate_name(&text).is_ok(), is_name);
        }

        #[test]
        fn what_other_tests_take_for_valid_is_valid(
            filter in naive::filter(), topic in naive::topic(),
        ) {
            prop_assert_eq!(validate_filter(&filter), Ok(()));
            prop_assert_eq!(validate_name(&topic), Ok(()));
        }
    }

    #[test]
    fn names_of_the_specification_are_valid() {
        for name in [
            "sport/tennis/player1",
            "/",
            "//",
            "/finance",
            "finance/",
            "ACCOUNTS",
            "Accounts payable",
            "$SYS/broker/uptime",
            "$share/group/filter",
            "日本/東京",
            "\u{feff}",
            "a\u{1}b",
        ] {
            assert_eq!(validate_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        for (name, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::NullCharacter),
            ("+", TopicError::WildcardInName),
            ("a/+/b", TopicError::WildcardInName),
            ("a/b#", TopicError::WildcardInName),
            ("#", TopicError::WildcardInName),
        ] {
            assert_eq!(validate_name(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn filters_of_the_specification_are_valid() {
        for filter in [
            "sport/tennis/player1/#",
            "#",
            "sport/tennis/#",
            "+",
            "+/tennis/#",
            "sport/+/player1",
            "/+",
            "+/+",
            "+/",
            "/#",
            "//#",
            "$SYS/#",
            "$SYS/monitor/+",
        ] {
            assert_eq!(validate_filter(filter), Ok(()), "{filter:?}");
        }
    }

    #[test]
    fn filters_that_break_a_rule_are_refused() {
        for (filter, error) in [
            ("", TopicError::Empty),
            ("a/\0/+", TopicError::NullCharacter),
            ("sport/tennis#", TopicError::MisplacedHash),
            ("sport/tennis/#/ranking", TopicError::MisplacedHash),
            ("#/a", TopicError::MisplacedHash),
            ("#/", TopicError::MisplacedHash),
            ("##", TopicError::MisplacedHash),
            ("a/#b", TopicError::MisplacedHash),
            ("sport+", TopicError::MisplacedPlus),
            ("+sport", TopicError::MisplacedPlus),
            ("a/++/b", TopicError::MisplacedPlus),
            ("+#", TopicError::MisplacedPlus),
            ("a/#+", TopicError::MisplacedHash),
        ] {
            assert_eq!(validate_filter(filter), Err(error), "{filter:?}");
        }
    }

    #[test]
    fn length_is_bounded_in_bytes() {
        let longest = "a".repeat(TOPIC_BYTES_MAX);
        assert_eq!(validate_name(&longest), Ok(()));
        assert_eq!(validate_filter(&longest), Ok(()));
        // Two bytes a character: half as many characters are too long already.
        let too_long = "ä".repeat(TOPIC_BYTES_MAX / 2 + 1);
        let error = Err(TopicError::TooLong { bytes: 65_536 });
        assert_eq!(validate_name(&too_long), error);
        assert_eq!(validate_filter(&too_long), error);
    }

    #[test]
    fn levels_are_bounded() {
        let most = vec!["a"; LEVELS_MAX].join("/");
        assert_eq!(validate_name(&most), Ok(()));
        assert_eq!(validate_filter(&most), Ok(()));
        let too_many = format!("{most}/");
        let error = Err(TopicError::TooManyLevels {
            levels: LEVELS_MAX + 1,
        });
        assert_eq!(validate_name(&too_many), error);
        assert_eq!(validate_filter(&too_many), error);
        assert_eq!(
            validate_filter(&format!("{most}/#")),
            error,
            "a wildcard is a level too"
        );
    }

    #[test]
    fn an_error_reads_as_a_sentence_with_the_figures() {
        let too_long = TopicError::TooLong { bytes: 70_000 };
        assert_eq!(
            too_long.to_string(),
            "the topic has 70000 bytes, 65535 are allowed"
        );
        let too_deep = TopicError::TooManyLevels { levels: 200 };
        assert_eq!(
            too_deep.to_string(),
            "the topic has 200 levels, 128 are allowed"
        );
    }
}
