//! Topic names with named levels, such as `devices/{device}/telemetry/{metric}`: read from a topic name and written as one.
//!
//! The names are fixed by the code, where they stand is configuration. This is no topic filter: it has no `+` and no `#`,
//! and every level that is a name stands for exactly one non-empty level.

/// A topic pattern with `N` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern<const N: usize> {
    text: String,
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    /// Which of the `N` names.
    Name(usize),
}

impl<const N: usize> Pattern<N> {
    /// Reads a pattern that has each of `names` exactly once, as a whole level in braces.
    ///
    /// # Errors
    ///
    /// A clause for the end of the sentence "the pattern …".
    pub fn new(text: &str, names: [&str; N]) -> Result<Self, String> {
        let mut seen = [false; N];
        let mut levels = Vec::new();
        for level in text.split('/') {
            if level.contains(['+', '#', '\0']) {
                return Err(format!(
                    "has a level `{level}`; `+`, `#` and U+0000 cannot stand in a topic name"
                ));
            }
            let Some(name) = level
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
            else {
                if level.contains(['{', '}']) {
                    return Err(format!(
                        "has a level `{level}`; a name in braces is a whole level"
                    ));
                }
                levels.push(Level::Literal(level.to_owned()));
                continue;
            };
            let Some(index) = names.iter().position(|known| *known == name) else {
                return Err(format!(
                    "names `{{{name}}}`; the names here are {}",
                    braced(&names)
                ));
            };
            if seen[index] {
                return Err(format!("names `{{{name}}}` twice"));
            }
            seen[index] = true;
            levels.push(Level::Name(index));
        }
        if let Some(missing) = seen.iter().position(|seen| !seen) {
            return Err(format!("does not name `{{{}}}`", names[missing]));
        }
        Ok(Self {
            text: text.to_owned(),
            levels,
        })
    }

    /// The pattern to which the key `key` of a section is set.
    ///
    /// # Errors
    ///
    /// Names the key, what is allowed, and what is wrong with this value.
    pub fn of_key<S: settings::Section>(
        key: &str,
        text: &str,
        names: [&str; N],
    ) -> Result<Self, settings::Error> {
        Self::new(text, names).map_err(|clause| {
            settings::Error::text(key, text, format!("{}; this one {clause}", S::allowed(key)))
        })
    }

    /// What stands in `topic` for each name, in the order in which [`Pattern::new`] was given them; `None` when the topic
    /// is another one.
    #[must_use]
    pub fn read<'t>(&self, topic: &'t str) -> Option<[&'t str; N]> {
        let mut values = [""; N];
        let mut found = topic.split('/');
        for level in &self.levels {
            let value = found.next()?;
            match level {
                Level::Literal(literal) if literal == value => {}
                Level::Name(index) if !value.is_empty() => values[*index] = value,
                _ => return None,
            }
        }
        found.next().is_none().then_some(values)
    }

    /// As [`Pattern::read`], of a topic that may have further levels after those of the pattern.
    #[must_use]
    pub fn read_beginning<'t>(&self, topic: &'t str) -> Option<[&'t str; N]> {
        let end = topic
            .match_indices('/')
            .nth(self.levels.len() - 1)
            .map_or(topic.len(), |(at, _)| at);
        self.read(&topic[..end])
    }

    /// The topic name with `values` in the places of the names.
    #[must_use]
    pub fn write(&self, values: [&str; N]) -> String {
        let mut topic = String::new();
        for (position, level) in self.levels.iter().enumerate() {
            if position > 0 {
                topic.push('/');
            }
            topic.push_str(match level {
                Level::Literal(literal) => literal,
                Level::Name(index) => values[*index],
            });
        }
        topic
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn braced(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{{{name}}}`"))
        .collect::<Vec<_>>()
        .join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry() -> Pattern<2> {
        Pattern::new("devices/{device}/telemetry/{metric}", ["device", "metric"])
            .expect("a good pattern")
    }

    #[test]
    fn reads_its_topics_and_no_others() {
        assert_eq!(
            telemetry().read("devices/d-1/telemetry/temperature"),
            Some(["d-1", "temperature"])
        );
        for other in [
            "",
            "devices",
            "devices/d-1/telemetry",
            "devices/d-1/telemetry/",
            "devices//telemetry/t",
            "devices/d-1/telemetry/t/x",
            "devices/d-1/alerts/t",
            "/devices/d-1/telemetry/t",
        ] {
            assert_eq!(telemetry().read(other), None, "{other}");
        }
    }

    #[test]
    fn reads_the_beginning_of_longer_topics() {
        let room = Pattern::new("rooms/{room}", ["room"]).expect("a good pattern");
        assert_eq!(room.read_beginning("rooms/lobby/messages"), Some(["lobby"]));
        assert_eq!(room.read_beginning("rooms/lobby"), Some(["lobby"]));
        for other in ["rooms", "rooms/", "rooms//messages", "room/lobby", ""] {
            assert_eq!(room.read_beginning(other), None, "{other}");
        }
    }

    #[test]
    fn the_order_of_the_names_is_the_code_s_and_not_the_text_s() {
        let pattern =
            Pattern::new("{metric}/of/{device}", ["device", "metric"]).expect("a good pattern");
        assert_eq!(
            pattern.read("temperature/of/d-1"),
            Some(["d-1", "temperature"])
        );
        assert_eq!(pattern.write(["d-1", "temperature"]), "temperature/of/d-1");
    }

    #[test]
    fn writes_what_it_reads() {
        let topic = telemetry().write(["d-1", "temperature"]);
        assert_eq!(topic, "devices/d-1/telemetry/temperature");
        assert_eq!(telemetry().read(&topic), Some(["d-1", "temperature"]));
    }

    #[test]
    fn a_wrong_pattern_says_what_is_wrong() {
        for (text, clause) in [
            ("devices/{device}/telemetry", "does not name `{metric}`"),
            (
                "devices/{device}/{device}/{metric}",
                "names `{device}` twice",
            ),
            (
                "devices/{dev}/{metric}",
                "names `{dev}`; the names here are `{device}` and `{metric}`",
            ),
            (
                "devices/x{device}/{metric}",
                "has a level `x{device}`; a name in braces is a whole level",
            ),
            (
                "devices/+/{device}/{metric}",
                "has a level `+`; `+`, `#` and U+0000 cannot stand in a topic name",
            ),
        ] {
            assert_eq!(
                Pattern::new(text, ["device", "metric"]),
                Err(clause.to_owned()),
                "{text}"
            );
        }
    }
}
