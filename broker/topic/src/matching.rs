//! One filter against one topic name. For many filters at once, see [`FilterTree`](crate::FilterTree).

/// Whether `filter` has a `+` or `#` in it.
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// Whether the valid `filter` matches the valid topic name `topic`: byte for byte, without any
/// normalisation [MQTT-4.7.3-4].
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if hidden_from_wildcards(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            // Also when the topic ended one level before: `sport/#` matches `sport`.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether a filter that starts with a wildcard must not match `topic` [MQTT-4.7.2-1].
pub(crate) fn hidden_from_wildcards(topic: &str) -> bool {
    topic.starts_with('$')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::naive;

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(filter in naive::filter(), topic in naive::topic()) {
            prop_assert_eq!(matches(&filter, &topic), naive::matches(&filter, &topic));
        }

        #[test]
        fn without_wildcards_a_filter_matches_only_itself(
            filter in naive::topic(), topic in naive::topic(),
        ) {
            prop_assert!(!has_wildcard(&filter));
            prop_assert_eq!(matches(&filter, &topic), filter == topic);
        }
    }

    #[test]
    fn examples_of_the_specification() {
        for (filter, topic, expected) in [
            // 4.7.1.2 multi-level wildcard
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("#", "sport/tennis", true),
            ("#", "/", true),
            // 4.7.1.3 single-level wildcard
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/#", "sport", true),
            ("+/tennis/#", "sport/tennis", true),
            // 4.7.2 topics beginning with $
            ("#", "$SYS/broker", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("+", "$SYS", false),
            ("+/#", "$SYS", false),
            ("$SYS/#", "$SYS/broker", true),
            ("$SYS/#", "$SYS", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/#", "a/$SYS", true),
            ("a/+", "a/$SYS", true),
            // 4.7.3 semantics
            ("ACCOUNTS", "Accounts", false),
            ("Accounts payable", "Accounts payable", true),
            ("/finance", "finance", false),
            ("finance/", "finance", false),
            ("a//b", "a/b", false),
            ("a/+/b", "a//b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter:?} {topic:?}");
        }
    }

    #[test]
    fn wildcards_are_seen_anywhere() {
        assert!(has_wildcard("#") && has_wildcard("a/+/b") && has_wildcard("a/b/#"));
        assert!(!has_wildcard("a/b/c") && !has_wildcard("$SYS"));
    }
}
