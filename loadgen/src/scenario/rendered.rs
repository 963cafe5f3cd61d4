//! Topics and filters as they will be sent: all valid, and all topics different.

use std::collections::HashSet;

use topic::{split_share, validate_name};

use super::check::grouped;
use super::error::ScenarioError;
use super::limits::RENDERED_MAX;
use super::pattern::Pattern;
use crate::template::Template;

/// How many of more than [`RENDERED_MAX`] texts are looked at, beside the last one.
const SAMPLE: u64 = 1_000;

/// Checks the filters of a subscription.
pub(super) fn filters(
    key: &str,
    filter: &Template,
    share: Option<&str>,
    clients: u32,
    count: u32,
) -> Result<(), ScenarioError> {
    let clients = if filter.has_n() { clients } else { 1 };
    let mut text = String::new();
    let mut whole = String::new();
    for number in looked_at(u64::from(clients) * u64::from(count)) {
        let (n, i) = (number / u64::from(count), number % u64::from(count));
        filter.render(n as u32, i as u32, &mut text);
        let checked = match share {
            None => split_share(&text),
            Some(share) => {
                whole.clear();
                whole.extend(["$share/", share, "/", &text]);
                split_share(&whole)
            }
        };
        checked.map_err(|why| ScenarioError::value(key, format!("\"{text}\""), why.to_string()))?;
    }
    Ok(())
}

/// Checks the topics of a stream.
pub(super) fn topics(key: &str, topic: &Template, topics: u32) -> Result<(), ScenarioError> {
    let mut text = String::new();
    for n in looked_at(u64::from(topics)) {
        topic.render(n as u32, 0, &mut text);
        validate_name(&text)
            .map_err(|why| ScenarioError::value(key, format!("\"{text}\""), why.to_string()))?;
        if text.starts_with('$') {
            return Err(ScenarioError::value(
                key,
                format!("\"{text}\""),
                "topics that begin with $ are the broker's own",
            ));
        }
    }
    if topics <= 1 || Pattern::new(topic).tells_apart() {
        return Ok(());
    }
    let mut differ = u64::from(topics) <= RENDERED_MAX;
    if differ {
        let mut seen = HashSet::new();
        differ = (0..topics).all(|n| {
            topic.render(n, 0, &mut text);
            seen.insert(text.clone())
        });
    }
    if differ {
        return Ok(());
    }
    Err(ScenarioError::value(
        key,
        format!("\"{}\"", topic.text()),
        format!(
            "it does not give {} different topics; put {{n}} in",
            grouped(topics)
        ),
    ))
}

/// The numbers below `count` that are looked at, the last one included.
fn looked_at(count: u64) -> impl Iterator<Item = u64> {
    let step = if count <= RENDERED_MAX {
        1
    } else {
        count / SAMPLE
    };
    (0..count)
        .step_by(usize::try_from(step).unwrap_or(usize::MAX))
        .chain(count.checked_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn all_of_few_and_both_ends_of_many_are_looked_at() {
        assert_eq!(looked_at(3).collect::<Vec<_>>(), [0, 1, 2, 2]);
        let many: Vec<u64> = looked_at(u64::from(u32::MAX)).collect();
        assert!(many.len() < 1_100);
        assert_eq!(
            (many[0], many[many.len() - 1]),
            (0, u64::from(u32::MAX) - 1)
        );
    }

    #[test]
    fn topics_have_to_differ() {
        for (text, count, ok) in [
            ("a/{n}", 4_000_000_000, true),
            ("a/{n%10}", 10, true),
            ("a/{n%10}", 11, false),
            ("a/{n%10}{n/10}", 100, true),
            ("a/{n/3}/{n%3}", 2_000_000, true),
            ("a/{n%2000000}", 2_000_000, false),
            ("a", 2, false),
            ("a", 1, true),
        ] {
            assert_eq!(
                topics("k", &template(text), count).is_ok(),
                ok,
                "{text} {count}"
            );
        }
    }

    #[test]
    fn what_is_no_topic_and_no_filter_is_refused_as_it_would_be_sent() {
        for text in ["", "a/+/{n}", "a/#", "$a/{n}", "a\0{n}"] {
            assert!(topics("k", &template(text), 2).is_err(), "{text}");
        }
        for text in ["", "a+/{n}", "a/#/{n}", "{n}#"] {
            assert!(filters("k", &template(text), None, 2, 1).is_err(), "{text}");
        }
        let error = filters("k", &template("{n}+"), None, 2, 1).unwrap_err();
        assert!(error.to_string().starts_with("k is \"0+\"; "), "{error}");
        assert!(filters("k", &template("a/+/{n}/{i}/#"), None, 10, 10).is_ok());
        assert!(filters("k", &template("a/#"), Some("s"), 10, 1).is_ok());
        let long = "a".repeat(65_530);
        assert!(filters("k", &template(&long), None, 1, 1).is_ok());
        assert!(filters("k", &template(&long), Some("s"), 1, 1).is_err());
    }
}
