//! Where in the file a problem is: line and key, so that the message leads there.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The message for an error of the TOML reader, beginning with its place.
pub fn explain(text: &str, error: &toml::de::Error) -> String {
    let place = error
        .span()
        .map_or_else(String::new, |span| line(text, span.start));
    // Without this the text is no TOML at all, and there are no keys to name.
    let Ok(table) = DeTable::parse(text) else {
        return format!("{place}: this is not TOML: {}", one_line(error.message()));
    };
    let found = error
        .span()
        .and_then(|span| deepest(table.get_ref(), &span, text, &mut Vec::new()));
    let message = one_line(error.message());
    let Some(found) = found else {
        return format!("{place}: {message}");
    };
    if message.starts_with("unknown field") {
        let (section, key) = found.key.rsplit_once('.').unwrap_or(("", &found.key));
        let allowed = message
            .split_once("expected ")
            .map_or("none", |(_, allowed)| allowed);
        let allowed = allowed.trim_start_matches("one of ").replace('`', "");
        return if section.is_empty() {
            format!("{place}: [{key}] is no section: allowed is {allowed}")
        } else {
            format!(
                "{place}: {} is no key: allowed in [{section}] is {allowed}",
                found.key
            )
        };
    }
    let allowed = found
        .key
        .split_once('.')
        .map_or_else(String::new, |(section, key)| super::allowed(section, key));
    if allowed.is_empty() {
        return format!("{place}: {}: {message}", found.key);
    }
    format!(
        "{place}: {} = {} is not allowed: allowed is {allowed} ({message})",
        found.key, found.value
    )
}

/// The place of `key` (with dots, `[n]` for an element) in the file, or of the nearest key above it that is there.
pub fn place_of_key(text: &str, key: &str) -> String {
    let Ok(table) = DeTable::parse(text) else {
        return String::new();
    };
    let mut at = None;
    let mut value: Option<&DeValue<'_>> = None;
    let mut rest = key;
    while !rest.is_empty() {
        let inside = match value {
            None => Some(table.get_ref()),
            Some(value) => value.as_table(),
        };
        let Some(step) = inside.and_then(|table| step(table, rest)) else {
            break;
        };
        rest = step.rest;
        at = Some(step.at);
        let mut next = step.value;
        for index in step
            .indices
            .split(['[', ']'])
            .filter_map(|index| index.parse::<usize>().ok())
        {
            if let Some(element) = next.get_ref().as_array().and_then(|array| array.get(index)) {
                at = Some(element.span().start);
                next = element;
            }
        }
        value = Some(next.get_ref());
    }
    at.map_or_else(String::new, |at| line(text, at))
}

/// One table deeper on the way to a key.
struct Step<'t, 'k> {
    /// Where the entry's name stands in the file.
    at: usize,
    value: &'t Spanned<DeValue<'t>>,
    /// What follows the name in brackets.
    indices: &'k str,
    /// The key below this entry.
    rest: &'k str,
}

/// The entry of `table` to which the beginning of `key` leads, the indices behind it, and the rest of `key`. Names with dots
/// in them (those of librdkafka's properties) are found, too: the longest one wins.
fn step<'t, 'k>(table: &'t DeTable<'t>, key: &'k str) -> Option<Step<'t, 'k>> {
    let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    ends.rev().find_map(|end| {
        let part = &key[..end];
        let (name, indices) = part.split_at(part.find('[').unwrap_or(end));
        if !(indices.is_empty() || indices.ends_with(']')) {
            return None;
        }
        let (name, value) = table.iter().find(|(other, _)| other.get_ref() == name)?;
        Some(Step {
            at: name.span().start,
            value,
            indices,
            rest: key[end..].trim_start_matches('.'),
        })
    })
}

struct Found {
    key: String,
    value: String,
}

/// The innermost key whose name or value holds `span`.
fn deepest<'t>(
    table: &'t DeTable<'_>,
    span: &Range<usize>,
    text: &str,
    path: &mut Vec<&'t str>,
) -> Option<Found> {
    for (name, value) in table {
        path.push(name.get_ref());
        let found = |path: &[&str]| {
            Some(Found {
                key: path.join("."),
                value: shown(path, text.get(value.span()).unwrap_or_default()),
            })
        };
        // A table's own span covers only its header, so children are asked first.
        if let Some(inner) = inside(value.get_ref(), span, text, path) {
            return Some(inner);
        }
        if contains(&name.span(), span) || contains(&value.span(), span) {
            return found(path);
        }
        path.pop();
    }
    None
}

fn inside<'t>(
    value: &'t DeValue<'_>,
    span: &Range<usize>,
    text: &str,
    path: &mut Vec<&'t str>,
) -> Option<Found> {
    match value {
        DeValue::Table(table) => deepest(table, span, text, path),
        DeValue::Array(array) => array
            .iter()
            .find_map(|value| inside(value.get_ref(), span, text, path)),
        _ => None,
    }
}

/// A value as it stands in the file, unless it may be secret.
fn shown(path: &[&str], value: &str) -> String {
    if path.contains(&"properties") && !value.contains("env:") && !value.contains("file:") {
        return settings::HIDDEN.to_owned();
    }
    one_line(value)
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn line(text: &str, at: usize) -> String {
    let before = text.as_bytes().iter().take(at);
    format!(
        ", line {}",
        1 + before.filter(|byte| **byte == b'\n').count()
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[a]\nx = 1\n\n[a.b]\ny = 2\n\n[[c]]\nz = 3\n\n[[c]]\nz = 4\n";

    #[test]
    fn keys_are_found_in_tables_and_lists() {
        assert_eq!(place_of_key(TEXT, "a.x"), ", line 2");
        assert_eq!(place_of_key(TEXT, "a.b.y"), ", line 5");
        assert_eq!(place_of_key(TEXT, "c[1].z"), ", line 11");
    }

    #[test]
    fn a_key_that_is_not_there_leads_to_its_section() {
        assert_eq!(place_of_key(TEXT, "a.b.other"), ", line 4");
        assert_eq!(place_of_key(TEXT, "nothing"), "");
    }
}
