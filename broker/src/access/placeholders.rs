//! What stands in a rule's filter for what is known of a client: `%c` its identifier, `%u` its user, `%t` its tenant,
//! `${claim.NAME}` a claim.

use std::borrow::Cow;

use super::judge::Who;

/// What placeholders begin with that have a name.
const CLAIM: &str = "${claim.";
/// All of them, for people.
pub(super) const WORDS: &str =
    "%c (the client identifier), %u (the user), %t (the tenant) and ${claim.NAME}";

/// A filter with its placeholders filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Filled(Cow<'a, str>),
    /// Something of it is not known of the client.
    Missing,
    /// A value has levels or wildcards in it; this is what stands before the level with its placeholder.
    Unsafe(&'a str),
}

/// The placeholder at the beginning of `text`: its length, and what it stands for; nothing where there is none.
fn at<'w>(text: &str, who: Who<'w>) -> Option<(usize, Option<&'w str>)> {
    if let Some(rest) = text.strip_prefix(CLAIM) {
        let end = rest.find('}')?;
        let claim = who
            .principal
            .and_then(|principal| principal.claim(&rest[..end]));
        return Some((CLAIM.len() + end + 1, claim));
    }
    let value = match text.as_bytes().get(..2)? {
        b"%c" => Some(who.client_id),
        b"%u" => who.principal.map(|principal| &*principal.user),
        b"%t" => who
            .principal
            .and_then(|principal| principal.tenant.as_deref()),
        _ => return None,
    };
    Some((2, value))
}

/// Whether a text has a placeholder.
pub(super) fn are_in(text: &str) -> bool {
    ["%c", "%u", "%t", CLAIM].iter().any(|it| text.contains(it))
}

/// Fills in what is known of a client.
pub(super) fn fill<'a>(filter: &'a str, who: Who<'_>) -> Value<'a> {
    if !are_in(filter) {
        return Value::Filled(filter.into());
    }
    let mut filled = String::with_capacity(filter.len() + 32);
    let mut from = 0;
    let mut is_unsafe = None;
    while let Some(offset) = filter[from..].find(['%', '$']) {
        let here = from + offset;
        filled.push_str(&filter[from..here]);
        match at(&filter[here..], who) {
            None => {
                filled.push_str(&filter[here..=here]);
                from = here + 1;
            }
            Some((_, None)) => return Value::Missing,
            Some((length, Some(value))) => {
                if value.contains(['+', '#', '/', '\0']) && is_unsafe.is_none() {
                    let level = filter[..here].rfind('/').map_or(0, |slash| slash + 1);
                    is_unsafe = Some(&filter[..level]);
                }
                filled.push_str(value);
                from = here + length;
            }
        }
    }
    filled.push_str(&filter[from..]);
    match is_unsafe {
        Some(before) => Value::Unsafe(before_placeholders(before)),
        None => Value::Filled(filled.into()),
    }
}

/// The levels of `before` that have no placeholder in them: what is filled in there is not known here.
fn before_placeholders(before: &str) -> &str {
    if !are_in(before) {
        return before;
    }
    let first = ["%c", "%u", "%t", CLAIM]
        .iter()
        .filter_map(|it| before.find(it))
        .min()
        .unwrap_or(0);
    &before[..before[..first].rfind('/').map_or(0, |slash| slash + 1)]
}

/// The filter with something harmless in every place: what it has to be valid with.
pub(super) fn example(filter: &str) -> String {
    let mut example = filter
        .replace("%c", "x")
        .replace("%u", "x")
        .replace("%t", "x");
    while let Some(start) = example.find(CLAIM)
        && let Some(end) = example[start..].find('}')
    {
        example.replace_range(start..=start + end, "x");
    }
    example
}

/// What looks like a placeholder and is none of these: taken literally, a rule with it would match nothing, or nobody.
pub(super) fn unknown<'a>(text: &'a str, known: &[&str]) -> Option<&'a str> {
    let of_percent = text.match_indices('%').find_map(|(at, _)| {
        let end = at + 1 + text[at + 1..].chars().next()?.len_utf8();
        let found = &text[at..end];
        let is_letter = found.ends_with(|c: char| c.is_ascii_alphabetic());
        (is_letter && !known.contains(&found)).then_some(found)
    });
    let of_braces = || {
        text.match_indices("${").find_map(|(at, _)| {
            let rest = &text[at..];
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            let name = rest[..end]
                .strip_prefix(CLAIM)
                .and_then(|name| name.strip_suffix('}'));
            let is_claim =
                name.is_some_and(|name| !name.is_empty() && !name.contains(['+', '#', '/']));
            (!is_claim || !known.contains(&CLAIM)).then_some(&rest[..end])
        })
    };
    of_percent.or_else(of_braces)
}

/// What a filter may have.
pub(super) const KNOWN: [&str; 4] = ["%c", "%u", "%t", CLAIM];
