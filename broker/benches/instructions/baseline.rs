//! Figures that were accepted, and how new ones compare with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How much more, or less, than the baseline is worth a word.
pub const TOLERANCE_PERCENT: u64 = 5;

/// Instructions for each operation, and what they depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// `rustc --version`.
    pub rustc: String,
    /// Architecture, without features beyond its oldest processors.
    pub target: String,
    /// Instructions for one operation, by the operation's name.
    pub instructions: BTreeMap<String, u64>,
}

/// New figures beside accepted ones.
#[derive(Debug)]
pub struct Comparison {
    /// For people, one line an operation.
    pub table: String,
    worse: Vec<String>,
    better: Vec<String>,
    /// Operations that only one of the two has.
    unmatched: Vec<String>,
}

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// When the file is not there or is not a baseline.
    pub fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
    }

    /// Writes it, one figure a line, so that a change is easy to read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &str) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("{path}: {error}"))
    }

    /// Compares `seen` with what was accepted.
    #[must_use]
    pub fn compare(&self, seen: &Self) -> Comparison {
        let mut comparison = Comparison {
            table: format!(
                "{:<24} {:>12} {:>12} {:>9}\n",
                "instructions", "baseline", "now", "change"
            ),
            worse: Vec::new(),
            better: Vec::new(),
            unmatched: Vec::new(),
        };
        let names = self.instructions.keys().chain(seen.instructions.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let (accepted, now) = (self.instructions.get(name), seen.instructions.get(name));
            let figure = |figure: Option<&u64>| figure.map_or("-".to_owned(), u64::to_string);
            let change = match (accepted, now) {
                (Some(accepted), Some(now)) => {
                    let percent = (*now as f64 / (*accepted).max(1) as f64 - 1.0) * 100.0;
                    if now * 100 > accepted * (100 + TOLERANCE_PERCENT) {
                        comparison.worse.push(name.clone());
                    } else if now * 100 < accepted * (100 - TOLERANCE_PERCENT) {
                        comparison.better.push(name.clone());
                    }
                    format!("{percent:+.1} %")
                }
                _ => {
                    comparison.unmatched.push(name.clone());
                    "new/gone".to_owned()
                }
            };
            let (accepted, now) = (figure(accepted), figure(now));
            // Writing to a String cannot fail.
            let _ = writeln!(
                comparison.table,
                "{name:<24} {accepted:>12} {now:>12} {change:>9}"
            );
        }
        comparison
    }
}

impl Comparison {
    /// Whether the new figures may stand; with what is worth a word all the same.
    ///
    /// # Errors
    /// When an operation needs too many more instructions, or has no counterpart: what to do, naming the command
    /// `accept`.
    pub fn verdict(&self, accept: &str) -> Result<String, String> {
        if !self.worse.is_empty() {
            return Err(format!(
                "{} took more than {TOLERANCE_PERCENT} % more instructions than the baseline: make it cheaper or, if the change is worth \
                 that, accept the new figures with `{accept}` and commit them with the reason",
                self.worse.join(", ")
            ));
        }
        if !self.unmatched.is_empty() {
            return Err(format!(
                "{} is only in the baseline or only here: accept the new figures with `{accept}`",
                self.unmatched.join(", ")
            ));
        }
        if self.better.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(
            "{} took over {TOLERANCE_PERCENT} % fewer instructions than the baseline; to keep it so, accept the new figures with \
             `{accept}`\n",
            self.better.join(", ")
        ))
    }
}
