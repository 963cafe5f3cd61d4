//! Scenarios: what a run does, written down in TOML, and the way from there to a [`Plan`].
//!
//! A scenario names groups of like clients with their subscriptions, and streams that groups publish. The built-in ones are
//! such files. Everything that can be refused is refused here, before anything connects.
//!
//! Retained messages and groups with `late = true`: streams with `once` publish before the warm-up, and a late group
//! connects when they have ended. Of a stream with `once` and `retain` it gets exactly one message of each topic, the last
//! one; of a stream with `once` and without `retain`, and as a member of a share, it gets nothing of what was published
//! before; of all other streams it gets what everybody gets.

mod audience;
mod builtin;
mod check;
mod error;
pub mod file;
pub mod limits;
pub mod machine;
pub mod overrides;
mod pattern;
mod planning;
pub mod preflight;
mod rendered;
mod scale;
mod streams;
mod summary;
#[cfg(test)]
mod table_tests;

use std::path::Path;

pub use builtin::builtin_names;
pub use error::ScenarioError;
pub use file::{Protocol, Scenario};
pub use machine::{Machine, raise_open_files};
pub use overrides::{Clients, Connecting, Overrides, Rate, SESSION_EXPIRY_DEFAULT_S};
pub use preflight::{PROCESSES_MAX, Preflight, PreflightError};

use crate::plan::{Plan, Secret};
use crate::text_payload::TextPayload;
use file::PAYLOAD_BYTES_DEFAULT;

/// What a printed scenario has in place of a password.
const HIDDEN: &str = "***";

impl Scenario {
    /// Reads a scenario from TOML; `origin` is what errors call it, for example the file's name. `{group}` in client
    /// identifiers is replaced by the group's name, and sizes of payloads are filled in; nothing else is checked.
    ///
    /// # Errors
    /// It is no TOML, or has unknown keys or wrong kinds of values.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|error| syntax(text, origin, &error))?;
        for group in &mut scenario.groups {
            let template = group.client_id.as_deref().unwrap_or("{group}-{n}");
            group.client_id = Some(with_group(template, &group.name));
        }
        for stream in &mut scenario.streams {
            let text = stream.payload.as_deref().map(TextPayload::parse);
            if text.is_none_or(|text| text.is_ok_and(|text| text.has_fill())) {
                stream.payload_bytes.get_or_insert(PAYLOAD_BYTES_DEFAULT);
            }
        }
        Ok(scenario)
    }

    /// Reads a scenario from a file.
    ///
    /// # Errors
    /// As [`Scenario::parse`], or the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|why| ScenarioError::Read {
            path: path.to_owned(),
            why,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A built-in scenario.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn builtin(name: &str) -> Result<Self, ScenarioError> {
        Self::parse(Self::builtin_toml(name)?, name)
    }

    /// The file of a built-in scenario, with its comments.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn builtin_toml(name: &str) -> Result<&'static str, ScenarioError> {
        builtin::toml(name).ok_or_else(|| ScenarioError::Unknown(name.to_owned()))
    }

    /// The scenario as it will run, with every default written out. The password is hidden.
    ///
    /// # Panics
    /// Never: every scenario is TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        if let Some(password) = &mut shown.connect.password {
            *password = Secret(HIDDEN.to_owned());
        }
        toml::to_string(&shown).expect("a scenario has only keys and kinds of values that TOML has")
    }

    /// Checks everything and works it out. `run` tells this run's messages from those of others, `seed` decides
    /// everything random.
    ///
    /// # Errors
    /// The first thing that is not allowed or not possible.
    pub fn plan(&self, run: u32, seed: u64) -> Result<Plan, ScenarioError> {
        planning::plan(self, run, seed)
    }
}

/// Puts a group's name in for `{group}`, so that it is text of the template whatever is in it.
fn with_group(template: &str, name: &str) -> String {
    let mut text = String::with_capacity(template.len() + name.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if let Some(after) = rest.strip_prefix("{group}") {
            text.push_str(&name.replace('{', "{{"));
            rest.len() - after.len()
        } else {
            let taken = if rest.starts_with("{{") { 2 } else { 1 };
            text.push_str(&rest[..taken]);
            taken
        };
        rest = &rest[taken..];
    }
    text.push_str(rest);
    text
}

/// An error of the TOML reader with the line's number and key, and without the line itself: it may hold a password.
fn syntax(text: &str, origin: &str, error: &toml::de::Error) -> ScenarioError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let content = text.lines().nth(line - 1).unwrap_or("");
    let key = content.split_once('=').map(|(key, _)| key.trim());
    let message = error.message().trim().replace('\n', "; ");
    let what = match key {
        _ if content.contains("password") => "password must be a text in quotes".to_owned(),
        Some(key) if !key.is_empty() && !message.contains(&format!("`{key}`")) => {
            format!("{key}: {message}")
        }
        _ => message,
    };
    ScenarioError::Syntax {
        origin: origin.to_owned(),
        line,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_is_text_in_its_client_identifiers() {
        for (template, name, wanted) in [
            ("{group}-{n}", "a", "a-{n}"),
            ("{group}-{n}", "a{n}", "a{{n}-{n}"),
            ("x{{group}{n}", "a", "x{{group}{n}"),
            ("{{{group}", "a", "{{a"),
            ("{n}", "a", "{n}"),
        ] {
            assert_eq!(with_group(template, name), wanted);
        }
    }

    #[test]
    fn what_is_no_scenario_is_refused_with_the_line_and_the_key() {
        let head = "name = \"x\"\n";
        for (rest, wanted) in [
            ("nmae = 1", "f, line 2: unknown field `nmae`"),
            ("[run]\nsecond = 1", "f, line 3: unknown field `second`"),
            (
                "[limits]\nmissing = 1",
                "f, line 3: unknown field `missing`",
            ),
            (
                "[connect]\nprotocol = \"3\"",
                "line 3: protocol: unknown variant `3`",
            ),
            (
                "[[group]]\nname = \"a\"\nclients = \"many\"",
                "line 4: clients: invalid type",
            ),
            ("[[group]]\nname = \"a\"", "missing field `clients`"),
            (
                "[[group]]\nname = \"a\"\nclients = 1\n[[group.subscribe]]\nfilter = \"a\"\nretain = true",
                "line 7: unknown field `retain`",
            ),
            ("[connect\n", "f, line 2: "),
        ] {
            let text = format!("{head}{rest}");
            let error = Scenario::parse(&text, "f").unwrap_err().to_string();
            assert!(error.contains(wanted), "{rest}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_password_is_in_no_output() {
        for rest in ["12345", "hunter2", "[\"hunter2\", 12345]", "\"hunter2"] {
            let text = format!("name = \"x\"\n[connect]\npassword = {rest}\n");
            let error = Scenario::parse(&text, "f").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("12345"),
                "{shown}"
            );
            assert!(shown.contains("password"), "{shown}");
        }
        let text = "name = \"x\"\n[connect]\nusername = \"u\"\npassword = \"hunter2\"\n";
        let scenario = Scenario::parse(text, "f").unwrap();
        let shown = format!("{scenario:?} {}", scenario.to_toml());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("password = \"***\""), "{shown}");
        assert_eq!(
            scenario.connect.password,
            Some(Secret("hunter2".to_owned()))
        );
    }
}
