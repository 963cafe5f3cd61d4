//! The configuration read again while the process runs. What can change at run time is a [`Reloadable`]; a reload asks all of
//! them whether they can take the new values over, and has them do so only when all can: all or nothing. What changed and
//! none of them knows needs a restart, and is said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::admin::model::Reloaded;
use crate::config::Config;
use crate::exit::Failure;
use crate::systemd;

/// New values that one part can take over.
pub struct Change {
    /// What is different besides the values of keys, such as a file with another content. Empty: nothing.
    pub what: Vec<String>,
    /// Takes them over. It cannot fail: whatever can was done before.
    pub apply: Box<dyn FnOnce() + Send>,
}

/// A part that takes new values over while the process runs.
pub trait Reloadable: Send + Sync {
    /// The keys that it looks after: a key, or a table with all that is in it (`broker.access`).
    fn keys(&self) -> Vec<String>;

    /// Reads and checks everything that it will need, files included, and changes nothing.
    ///
    /// # Errors
    /// In one sentence, why it cannot.
    fn prepare(&self, new: &Config) -> Result<Change, String>;
}

/// Every key with its value, as it is printed.
type Values = BTreeMap<String, String>;

/// See the module.
pub struct Reloader {
    load: Box<dyn Fn() -> Result<Config, Failure> + Send + Sync>,
    /// What this process runs with. Locked for as long as a reload takes: there is one at a time.
    running: Mutex<Values>,
    parts: Vec<Box<dyn Reloadable>>,
}

impl Reloader {
    /// A process that runs with `config`, which `load` reads again: the file with what the command line says on top.
    pub fn new(
        config: &Config,
        load: impl Fn() -> Result<Config, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            load: Box::new(load),
            running: Mutex::new(values(config)),
            parts: Vec::new(),
        }
    }

    /// Adds a part that takes new values over.
    #[must_use]
    pub fn with(mut self, part: impl Reloadable + 'static) -> Self {
        self.add(part);
        self
    }

    /// The same, of one that is made later.
    pub fn add(&mut self, part: impl Reloadable + 'static) {
        self.parts.push(Box::new(part));
    }

    /// Reads the configuration again, and takes over what can be: what has changed.
    ///
    /// # Errors
    /// In one sentence, why nothing was changed.
    pub fn reload(&self) -> Result<Reloaded, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        systemd::reloading();
        let reloaded = self.try_reload(&mut running);
        systemd::ready();
        match &reloaded {
            Ok(done) => tracing::info!(
                changed = done.changed.join("; "),
                needs_restart = done.needs_restart.join("; "),
                "the configuration was read again"
            ),
            Err(why) => tracing::error!(
                why,
                "the configuration was read again, and nothing was changed"
            ),
        }
        reloaded
    }

    fn try_reload(&self, running: &mut Values) -> Result<Reloaded, String> {
        let config = (self.load)().map_err(|failure| failure.to_string())?;
        let mut changes = Vec::new();
        for part in &self.parts {
            changes.push(part.prepare(&config)?);
        }
        let new = values(&config);
        let mut reloaded = Reloaded {
            changed: Vec::new(),
            needs_restart: Vec::new(),
        };
        for (key, change) in differences(running, &new) {
            if self.takes_over(&key) {
                reloaded.changed.push(change);
                match new.get(&key) {
                    Some(value) => running.insert(key, value.clone()),
                    None => running.remove(&key),
                };
            } else {
                reloaded.needs_restart.push(change);
            }
        }
        for change in changes {
            (change.apply)();
            reloaded.changed.extend(change.what);
        }
        Ok(reloaded)
    }

    fn takes_over(&self, key: &str) -> bool {
        let is_of = |table: String| {
            key.strip_prefix(&*table)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut keys = self.parts.iter().flat_map(|part| part.keys());
        keys.any(is_of)
    }
}

/// Keys whose values differ, each with a sentence.
fn differences(old: &Values, new: &Values) -> Vec<(String, String)> {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |key: &&String| {
        let (before, after) = (old.get(*key), new.get(*key));
        let said = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
        let change = format!("{key}: {} instead of {}", said(after), said(before));
        (before != after).then(|| ((*key).clone(), change))
    };
    keys.iter().filter_map(differs).collect()
}

/// Every key of a configuration with its value; secrets as they are printed.
fn values(config: &Config) -> Values {
    let mut values = Values::new();
    match toml::Table::try_from(config) {
        Ok(table) => flatten("", &toml::Value::Table(table), &mut values),
        Err(error) => tracing::error!(%error, "the configuration cannot be compared"),
    }
    values
}

fn flatten(key: &str, value: &toml::Value, into: &mut Values) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let below = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&below, value, into);
            }
        }
        // A list of tables is one value: which entry changed means little when one comes or goes.
        other => {
            into.insert(key.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Part {
        keys: Vec<&'static str>,
        refuses: bool,
        applied: Arc<AtomicU32>,
    }

    impl Reloadable for Part {
        fn keys(&self) -> Vec<String> {
            self.keys.iter().map(|key| (*key).to_owned()).collect()
        }

        fn prepare(&self, _: &Config) -> Result<Change, String> {
            if self.refuses {
                return Err("a file is only half there".into());
            }
            let applied = Arc::clone(&self.applied);
            Ok(Change {
                what: Vec::new(),
                apply: Box::new(move || {
                    applied.fetch_add(1, Ordering::Relaxed);
                }),
            })
        }
    }

    fn changed() -> Result<Config, Failure> {
        let mut config = Config::default();
        config.broker.limits.queue_messages_max = 7;
        config.broker.workers = 3;
        config.log.filter = "debug".into();
        Ok(config)
    }

    fn part(keys: &[&'static str], refuses: bool, applied: &Arc<AtomicU32>) -> Part {
        Part {
            keys: keys.to_vec(),
            refuses,
            applied: Arc::clone(applied),
        }
    }

    #[test]
    fn what_can_change_does_and_what_cannot_is_named_each_time() {
        let applied = Arc::default();
        let reloader = Reloader::new(&Config::default(), changed)
            .with(part(&["broker.limits"], false, &applied))
            .with(part(&["log.filter"], false, &applied));
        let reloaded = reloader.reload().unwrap();
        assert_eq!(
            reloaded.changed,
            [
                "broker.limits.queue_messages_max: 7 instead of 10000",
                "log.filter: \"debug\" instead of \"\""
            ]
        );
        assert_eq!(reloaded.needs_restart, ["broker.workers: 3 instead of 0"]);
        assert_eq!(applied.load(Ordering::Relaxed), 2);
        let again = reloader.reload().unwrap();
        assert!(again.changed.is_empty(), "{again:?}");
        assert_eq!(again.needs_restart, reloaded.needs_restart);
    }

    #[test]
    fn where_one_part_cannot_nothing_is_changed() {
        let applied = Arc::default();
        let reloader = Reloader::new(&Config::default(), changed)
            .with(part(&["broker.limits"], false, &applied))
            .with(part(&["log.filter"], true, &applied));
        assert_eq!(reloader.reload().unwrap_err(), "a file is only half there");
        assert_eq!(applied.load(Ordering::Relaxed), 0);
        let wrong = || Err(Failure::cannot_start("x.toml, line 3: no"));
        let reloader = Reloader::new(&Config::default(), wrong).with(part(
            &["broker.limits"],
            false,
            &applied,
        ));
        assert_eq!(reloader.reload().unwrap_err(), "x.toml, line 3: no");
    }
}
