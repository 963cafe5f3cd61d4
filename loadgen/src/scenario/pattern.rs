//! What can be said of a template's texts without rendering them: whether a filter matches all topics of a stream, none,
//! or the one with its own number. It makes planning ten million clients as cheap as ten.

use crate::template::{Operation, Part, Template, Variable};

/// A template by its levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Vec<Level>,
}

type Level = Vec<Token>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    /// One or more decimal digits.
    Number(Variable, Operation),
}

/// How a filter's texts relate to a stream's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// No filter matches any topic.
    Never,
    /// Every filter matches every topic.
    Always,
    /// The filter with the number `n` matches the topic with the number `n`, and no other.
    SameNumber,
    /// It takes matching.
    Sometimes,
}

impl Pattern {
    pub(super) fn new(template: &Template) -> Self {
        let mut levels = vec![Level::new()];
        let mut push = |token: Token| {
            if token == Token::Char('/') {
                levels.push(Level::new());
            } else if let Some(level) = levels.last_mut() {
                level.push(token);
            }
        };
        for part in template.parts() {
            match part {
                Part::Text(text) => text.chars().map(Token::Char).for_each(&mut push),
                Part::Number { of, by } => push(Token::Number(*of, *by)),
            }
        }
        Self { levels }
    }

    /// Whether different numbers `n` give different texts for sure.
    pub(super) fn tells_apart(&self) -> bool {
        self.levels.iter().any(pins_n) || self.splits_n()
    }

    /// Whether one level has `{n/K}` as its only number and another one `{n%K}`.
    fn splits_n(&self) -> bool {
        let only_numbers = || self.levels.iter().filter_map(only_number);
        only_numbers().any(|by| {
            matches!(by, Operation::Whole(k) if only_numbers().any(|by| by == Operation::Rest(k)))
        })
    }

    /// Whether a text of this template may be one of the other's too, for any numbers.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        self.levels.len() == other.levels.len()
            && self
                .levels
                .iter()
                .zip(&other.levels)
                .all(|(a, b)| levels_may_equal(a, b))
    }

    /// How this filter relates to a stream's topics.
    pub(super) fn of_topics(&self, topic: &Self) -> Match {
        if self.levels.first().is_some_and(is_wildcard) && topic.is_hidden() {
            return Match::Never;
        }
        let mut always = true;
        let mut same = true;
        let mut pinned = false;
        for at in 0.. {
            match (self.levels.get(at), topic.levels.get(at)) {
                (Some(level), _) if is(level, '#') => break,
                (None, None) => break,
                (Some(level), Some(_)) if is(level, '+') => {}
                (Some(ours), Some(theirs)) => {
                    if !levels_may_equal(ours, theirs) {
                        return Match::Never;
                    }
                    let literal = ours.iter().all(|token| matches!(token, Token::Char(_)));
                    always &= literal && ours == theirs;
                    same &= ours == theirs && !has_i(ours);
                    pinned |= pins_n(ours);
                }
                _ => return Match::Never,
            }
        }
        if always {
            Match::Always
        } else if same && pinned {
            Match::SameNumber
        } else {
            Match::Sometimes
        }
    }

    /// Whether it begins with `$`, which filters that begin with a wildcard do not match.
    fn is_hidden(&self) -> bool {
        self.levels.first().and_then(|level| level.first()) == Some(&Token::Char('$'))
    }
}

fn is(level: &Level, wildcard: char) -> bool {
    level.as_slice() == [Token::Char(wildcard)]
}

fn is_wildcard(level: &Level) -> bool {
    is(level, '+') || is(level, '#')
}

fn has_i(level: &Level) -> bool {
    level
        .iter()
        .any(|token| matches!(token, Token::Number(Variable::I, _)))
}

/// What is done to `n` in a level that has no other number.
fn only_number(level: &Level) -> Option<Operation> {
    let mut numbers = level.iter().filter_map(|token| match token {
        Token::Number(of, by) => Some((*of, *by)),
        Token::Char(_) => None,
    });
    match (numbers.next(), numbers.next()) {
        (Some((Variable::N, by)), None) => Some(by),
        _ => None,
    }
}

/// Whether the level's text says what `n` is.
fn pins_n(level: &Level) -> bool {
    only_number(level) == Some(Operation::None)
}

/// Whether two levels have a text in common, with any digits for numbers: both are walked at once, and a number may go on
/// or end after each digit.
fn levels_may_equal(a: &Level, b: &Level) -> bool {
    let mut seen = vec![false; (a.len() + 1) * (b.len() + 1)];
    let mut reached = vec![(0, 0)];
    while let Some((i, j)) = reached.pop() {
        let place = &mut seen[i * (b.len() + 1) + j];
        if std::mem::replace(place, true) {
            continue;
        }
        match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (Some(Token::Char(x)), Some(Token::Char(y))) if x == y => reached.push((i + 1, j + 1)),
            (Some(Token::Char(x)), Some(Token::Number(..))) if x.is_ascii_digit() => {
                reached.extend([(i + 1, j), (i + 1, j + 1)]);
            }
            (Some(Token::Number(..)), Some(Token::Char(y))) if y.is_ascii_digit() => {
                reached.extend([(i, j + 1), (i + 1, j + 1)]);
            }
            (Some(Token::Number(..)), Some(Token::Number(..))) => {
                reached.extend([(i + 1, j), (i, j + 1), (i + 1, j + 1)]);
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(&Template::parse(text).unwrap())
    }

    #[test]
    fn a_filter_and_topics() {
        for (filter, topic, wanted) in [
            ("a/{n}", "a/{n}", Match::SameNumber),
            ("a/{n}/+", "a/{n}/x", Match::SameNumber),
            ("a/{n}/#", "a/{n}", Match::SameNumber),
            ("+/b{n}/#", "a{n%7}/b{n}/c/d", Match::SameNumber),
            ("a/+/{n%10}", "a/{n}/{n%10}", Match::Sometimes),
            ("a/{n%10}", "a/{n%10}", Match::Sometimes),
            ("a/{n}{n}", "a/{n}{n}", Match::Sometimes),
            ("a/{i}", "a/{n}", Match::Sometimes),
            ("a/{i}/{n}", "a/{i}/{n}", Match::Sometimes),
            ("a/7", "a/{n}", Match::Sometimes),
            ("a/7/#", "a/{n}", Match::Sometimes),
            ("a/x", "a/{n}", Match::Never),
            ("a/{n}", "b/{n}", Match::Never),
            ("a/{n}/x", "a/{n}", Match::Never),
            ("a/{n}", "a/{n}/x", Match::Never),
            ("a/+", "a", Match::Never),
            ("a-{n}", "ab-{n}", Match::Never),
            ("#", "a/{n}", Match::Always),
            ("a/#", "a", Match::Always),
            ("a/+/c", "a/{n}/c", Match::Always),
            ("+/+", "a/{n}", Match::Always),
            ("a/b", "a/b", Match::Always),
            ("#", "$a/{n}", Match::Never),
            ("$a/#", "$a/{n}", Match::Always),
        ] {
            assert_eq!(
                pattern(filter).of_topics(&pattern(topic)),
                wanted,
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn texts_in_common() {
        for (a, b, wanted) in [
            ("a-{n}", "a-{n}", true),
            ("a-{n}", "a-1", true),
            ("a-{n}", "a-1-{n}", false),
            ("a{n}", "a1{n}", true),
            ("{n}1", "1{n}", true),
            ("{n}", "", false),
            ("{n}", "x", false),
            ("{n}-{n}", "{n}", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(pattern(a).may_equal(&pattern(b)), wanted, "{a} {b}");
            assert_eq!(pattern(b).may_equal(&pattern(a)), wanted, "{b} {a}");
        }
    }

    #[test]
    fn numbers_that_tell_apart() {
        for (text, wanted) in [
            ("a-{n}", true),
            ("{n%10}/{n}", true),
            ("{n%10}/{n/10}", true),
            ("{n%10}/{n/20}", false),
            ("{n%10}{n}", false),
            ("a", false),
            ("{i}", false),
        ] {
            assert_eq!(pattern(text).tells_apart(), wanted, "{text}");
        }
    }
}
