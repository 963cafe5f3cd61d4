//! Texts with numbers in them: client identifiers, topic names, filters.

use std::fmt::Write as _;

/// A template, parsed once. In it `{n}` and `{i}` stand for numbers, `{n%K}` for the rest and `{n/K}` for the whole part of
/// a division by the number K (1 or more), and the same with `i`; `{{` is a brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Number { of: Variable, by: Operation },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    N,
    I,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    None,
    Rest(u32),
    Whole(u32),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace that is not closed.
    #[error("\"{0}\": a {{ without its }}; write {{{{ for a brace")]
    Open(String),
    /// Something else than the variables in braces.
    #[error(
        "\"{text}\": {{{inside}}} is not known; allowed are {{n}}, {{i}}, {{n%K}}, {{n/K}}, {{i%K}}, {{i/K}} with K of 1 or more"
    )]
    Unknown {
        /// The template.
        text: String,
        /// What is in the braces.
        inside: String,
    },
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let Some(end) = rest.find('}') else {
                return Err(TemplateError::Open(text.to_owned()));
            };
            let inside = &rest[..end];
            rest = &rest[end + 1..];
            let number = number(inside).ok_or_else(|| TemplateError::Unknown {
                text: text.to_owned(),
                inside: inside.to_owned(),
            })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(number);
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// The text that was parsed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its pieces, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether `{n}` is in it.
    #[must_use]
    pub fn has_n(&self) -> bool {
        self.has(Variable::N)
    }

    /// Whether `{i}` is in it.
    #[must_use]
    pub fn has_i(&self) -> bool {
        self.has(Variable::I)
    }

    fn has(&self, variable: Variable) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Number { of, .. } if *of == variable))
    }

    /// Replaces what is in `into` by the text for these numbers.
    pub fn render(&self, n: u32, i: u32, into: &mut String) {
        into.clear();
        for part in &self.parts {
            match part {
                Part::Text(text) => into.push_str(text),
                Part::Number { of, by } => {
                    let value = match of {
                        Variable::N => n,
                        Variable::I => i,
                    };
                    let value = match by {
                        Operation::None => value,
                        Operation::Rest(k) => value % k,
                        Operation::Whole(k) => value / k,
                    };
                    // Writing to a string does not fail.
                    let _ = write!(into, "{value}");
                }
            }
        }
    }
}

fn number(inside: &str) -> Option<Part> {
    let of = match inside.as_bytes().first()? {
        b'n' => Variable::N,
        b'i' => Variable::I,
        _ => return None,
    };
    let rest = &inside[1..];
    let divisor = |text: &str| text.parse::<u32>().ok().filter(|k| *k > 0);
    let by = if rest.is_empty() {
        Operation::None
    } else if let Some(k) = rest.strip_prefix('%') {
        Operation::Rest(divisor(k)?)
    } else {
        Operation::Whole(divisor(rest.strip_prefix('/')?)?)
    };
    Some(Part::Number { of, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, n: u32, i: u32) -> String {
        let mut into = "old".to_owned();
        Template::parse(text).unwrap().render(n, i, &mut into);
        into
    }

    #[test]
    fn numbers_are_put_in() {
        assert_eq!(rendered("a/{n}/b{i}", 7, 3), "a/7/b3");
        assert_eq!(rendered("{n%10}-{n/10}", 123, 0), "3-12");
        assert_eq!(rendered("{{n}", 1, 1), "{n}");
        assert_eq!(rendered("", 1, 1), "");
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is_allowed() {
        for text in ["{x}", "{}", "{n%0}", "{n/}", "{n*2}", "{n%-1}"] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains("{n%K}"), "{error}");
        }
        let error = Template::parse("a{n").unwrap_err().to_string();
        assert!(error.contains("write {{"), "{error}");
    }
}
