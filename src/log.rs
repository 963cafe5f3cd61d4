//! Logging: tracing to standard error, one line an event, filtered by `--log`, then `RUST_LOG`, then `[log] filter`.
//!
//! Standard output belongs to what a command prints for its reader, so the two never mix in a pipe. On a terminal the
//! live status line of `up` shares the screen with the log; [`Stderr`] clears it first.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use settings::Kind;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::exit::Failure;
use crate::reload::{Change, Reloadable};

settings::section! {
    /// The `[log]` section.
    pub struct Config {
        /// Which events are logged to standard error. `--log` and the environment variable `RUST_LOG` win over it. The
        /// choice of `up`, which shows on its screen how it is, is warn; that of all others is info.
        pub filter: String = String::new(), [is FILTER];
        /// How a line is written. `--log-format` wins over it.
        pub format: Format = Format::Text, ["\"text\" or \"json\""];
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const FILTER: Kind<String> = Kind {
    words: "error, warn, info, debug, trace, off, or TARGET=LEVEL separated by commas; empty for the command's choice",
    fits: |text| text.is_empty() || parse(text).is_ok(),
};

/// Whether a status line stands on the terminal at this moment, without a line end.
static STATUS_LINE: AtomicBool = AtomicBool::new(false);

/// Whether the log is written as JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The log's filter, while it is ours.
static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    /// What holds.
    text: Mutex<String>,
    /// What the command logs when nobody said anything.
    choice: String,
    /// It was said for this process: by an option, or in the environment.
    is_said: bool,
}

/// What is logged now; `None` where the log is not this process's own.
pub fn filter() -> Option<String> {
    let control = CONTROL.get()?;
    let text = control.text.lock().unwrap_or_else(PoisonError::into_inner);
    Some(text.clone())
}

/// Changes what is logged, until something else is said.
///
/// # Errors
/// In words, what is wrong with the filter.
pub fn set_filter(text: &str) -> Result<(), String> {
    let filter = parse(text)?;
    let Some(control) = CONTROL.get() else {
        return Ok(());
    };
    let mut holds = control.text.lock().unwrap_or_else(PoisonError::into_inner);
    tracing::info!(filter = text, before = *holds, "what is logged changes");
    (control.set)(filter)?;
    text.clone_into(&mut holds);
    Ok(())
}

/// The filter as a part of the configuration that can be read again.
pub struct Reload;

impl Reloadable for Reload {
    fn keys(&self) -> Vec<String> {
        // What an option or the environment says wins over the file.
        let is_said = CONTROL.get().is_none_or(|control| control.is_said);
        if is_said {
            vec![]
        } else {
            vec!["log.filter".to_owned()]
        }
    }

    fn prepare(&self, new: &crate::config::Config) -> Result<Change, String> {
        let control = CONTROL.get().filter(|control| !control.is_said);
        let wanted = control.map(|control| {
            let given = &new.log.filter;
            let text = if given.is_empty() {
                &control.choice
            } else {
                given
            };
            text.clone()
        });
        if let Some(text) = &wanted {
            parse(text)?;
        }
        let apply = move || {
            if let Some(text) = wanted.filter(|text| filter().as_ref() != Some(text))
                && let Err(why) = set_filter(&text)
            {
                tracing::error!(why, "what is logged could not be changed");
            }
        };
        Ok(Change {
            what: Vec::new(),
            apply: Box::new(apply),
        })
    }
}

/// Writes why the process ends, in the log's own form.
pub fn last_words(failure: &Failure) {
    if IS_JSON.load(Ordering::Relaxed) {
        tracing::error!("{failure}");
    } else {
        // Nobody may be reading any more (`2>&1 | head`).
        let _ = writeln!(io::stderr(), "millstream: {failure}");
    }
}

/// Says that a status line stands on the terminal, so the next log line clears it first.
pub fn status_line_is_drawn(drawn: bool) {
    STATUS_LINE.store(drawn, Ordering::Relaxed);
}

/// Starts logging. `option` is the value of `--log`, `format` that of `--log-format`, `choice` what the command logs when nobody said anything.
///
/// # Errors
/// A start failure when the filter is not understood.
pub fn start(
    option: Option<&str>,
    format: Option<Format>,
    config: &Config,
    choice: &str,
) -> Result<(), Failure> {
    let environment = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let (origin, text) = match (option, &environment) {
        (Some(option), _) => ("--log", option),
        (None, Some(environment)) => ("RUST_LOG", environment.as_str()),
        (None, None) if config.filter.is_empty() => ("the choice", choice),
        (None, None) => ("log.filter", config.filter.as_str()),
    };
    let filter = parse(text).map_err(|why| {
        Failure::cannot_start(format!(
            "{origin} {text:?} is not a log filter ({why}): write error, warn, info, debug, trace, or TARGET=LEVEL \
             separated by commas"
        ))
    })?;
    // A second start (a test, an embedding program) keeps the first subscriber.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr);
    let control = |set| Control {
        set,
        text: Mutex::new(text.to_owned()),
        choice: choice.to_owned(),
        is_said: matches!(origin, "--log" | "RUST_LOG"),
    };
    match format.unwrap_or(config.format) {
        Format::Text => {
            let subscriber = subscriber
                .with_ansi(io::stderr().is_terminal())
                .with_filter_reloading();
            let handle = subscriber.reload_handle();
            if subscriber.try_init().is_ok() {
                let set = move |filter| handle.reload(filter).map_err(|why| why.to_string());
                let _ = CONTROL.set(control(Box::new(set)));
            }
        }
        Format::Json => {
            let subscriber = subscriber.json().with_filter_reloading();
            let handle = subscriber.reload_handle();
            if subscriber.try_init().is_ok() {
                IS_JSON.store(true, Ordering::Relaxed);
                let set = move |filter| handle.reload(filter).map_err(|why| why.to_string());
                let _ = CONTROL.set(control(Box::new(set)));
            }
        }
    }
    Ok(())
}

/// A filter from its text; refuses levels and directives that the parser would silently take for a target's name.
pub fn parse(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',').map(str::trim) {
        let bare = !directive.contains(['=', '[', ':', '_']);
        let level = ["error", "warn", "info", "debug", "trace", "off"];
        if bare && !level.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(format!("{directive:?} is no level"));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| error.to_string())
}

/// Standard error that keeps off the status line.
#[derive(Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if STATUS_LINE.swap(false, Ordering::Relaxed) && stderr.is_terminal() {
            stderr.write_all(b"\r\x1b[2K")?;
        }
        stderr.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_mean_something_are_taken() {
        for text in [
            "info",
            "WARN",
            "info,bridge=debug",
            "broker::session=trace,warn",
            "off",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["inf", "verbose", "info,loud", "broker=loud"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
