//! The matcher to compare with: the specification's sentences, one recursive case each, without any
//! thought for speed and without a line in common with the code under test.

use proptest::prelude::*;

/// Whether `filter` matches `topic`, both valid.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    levels_match(&levels(filter), &levels(topic))
}

fn levels_match(filter: &[String], topic: &[String]) -> bool {
    match (filter, topic) {
        // "represents the parent and any number of child levels"
        ([hash], _) if hash == "#" => true,
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([plus, filter @ ..], [_, topic @ ..]) if plus == "+" => levels_match(filter, topic),
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            wanted == level && levels_match(filter, topic)
        }
    }
}

/// The levels of a text: one more than it has separators, each possibly empty.
fn levels(text: &str) -> Vec<String> {
    let mut levels = vec![String::new()];
    for character in text.chars() {
        match character {
            '/' => levels.push(String::new()),
            other => levels.last_mut().expect("never empty").push(other),
        }
    }
    levels
}

/// A level from a vocabulary so small that texts share beginnings, endings and whole levels; one
/// is a beginning of another, one begins with `$`, one is empty, one is longer than a node's label.
fn level() -> impl Strategy<Value = &'static str> {
    const LONG: &str = "a-level-that-is-longer-than-a-node-has-room-for-within";
    prop_oneof![
        4 => Just("a"),
        3 => Just("b"),
        2 => Just("ab"),
        2 => Just(""),
        1 => Just("$a"),
        1 => Just("é"),
        1 => Just(LONG),
    ]
}

/// Valid topic names.
pub(crate) fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..=5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("at least one character", |topic| !topic.is_empty())
}

/// Valid topic filters, most of them with wildcards.
pub(crate) fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..=5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("at least one character", |filter| !filter.is_empty())
}

/// Any text over the characters that rules are about, valid or not.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "a", "b", "+", "#", "/", "/", "$", "é", "\0", "$share/",
        ]),
        0..=10,
    )
    .prop_map(|parts| parts.concat())
}
