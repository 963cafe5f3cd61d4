//! All that a node's listeners need to know clients by: the links, each once, the chains of them, and the thread that sees
//! when something has changed.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::attempts::Attempts;
use crate::chain::{Chain, Link};
use crate::config::Config;
use crate::{http, jwt, password};

/// Why nobody can be known.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The password file cannot be used.
    #[error("{0}")]
    File(password::FileError),
    /// Keys for tokens cannot be used.
    #[error("{0}")]
    Keys(String),
    /// A service elsewhere cannot be asked.
    #[error("{0}")]
    Service(String),
    /// A thread cannot be made.
    #[error("cannot start a thread that looks at credentials: {0}")]
    Thread(#[from] std::io::Error),
}

type OnChange = Box<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Identity {
    parts: Arc<Parts>,
    /// The looking thread ends when this is dropped.
    _ends: Option<SyncSender<()>>,
}

struct Parts {
    links: BTreeMap<&'static str, Arc<dyn Link>>,
    attempts: Arc<Attempts>,
    on_change: OnceLock<OnChange>,
    /// One look at a time.
    looks: Mutex<()>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let links: Vec<_> = self.parts.links.keys().collect();
        f.debug_struct("Identity")
            .field("links", &links)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes the links that `chains` name, each of which [`Config::check_chain`] has allowed.
    ///
    /// # Errors
    /// When a link cannot do its work.
    pub fn start<'a>(
        config: &Config,
        chains: impl IntoIterator<Item = &'a [String]>,
    ) -> Result<Self, StartError> {
        let mut links: BTreeMap<&'static str, Arc<dyn Link>> = BTreeMap::new();
        for name in chains.into_iter().flatten() {
            if links.contains_key(name.as_str()) {
                continue;
            }
            let link: Arc<dyn Link> = match name.as_str() {
                password::NAME => Arc::new(password::FileLink::start(&config.file)?),
                jwt::NAME => Arc::new(jwt::JwtLink::start(&config.jwt)?),
                http::NAME => Arc::new(http::HttpLink::start(&config.http)?),
                _ => continue,
            };
            links.insert(link.name(), link);
        }
        let parts = Arc::new(Parts {
            links,
            attempts: Arc::new(Attempts::new(
                config.attempts_burst,
                config.attempts_per_minute,
                config.attempts_addresses_max,
            )),
            on_change: OnceLock::new(),
            looks: Mutex::new(()),
        });
        let ends = match parts.links.is_empty() {
            true => None,
            false => Some(watch(&parts, config.look_interval_ms)?),
        };
        Ok(Self { parts, _ends: ends })
    }

    /// The chain of these links; none where there are none, and everybody may come.
    #[must_use]
    pub fn chain(&self, links: &[String], anonymous: bool) -> Option<Arc<Chain>> {
        let named = |name: &String| self.parts.links.get(&**name).map(Arc::clone);
        let links: Vec<_> = links.iter().filter_map(named).collect();
        let attempts = Arc::clone(&self.parts.attempts);
        (!links.is_empty()).then(|| Arc::new(Chain::new(links, anonymous, attempts)))
    }

    /// Has `tell` hear, on some thread, when it may have become another thing who is who. The first one that is given holds.
    pub fn on_change(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.parts.on_change.set(Box::new(tell));
    }

    /// Reads everything again now. What cannot be read stays what it was, and is among the problems.
    pub fn reload(&self) {
        self.parts.look(true);
    }

    /// Whether everything could be read as it is now. Changes nothing.
    ///
    /// # Errors
    /// In one sentence, why not.
    pub fn check(&self) -> Result<(), String> {
        self.parts.links.values().try_for_each(|link| link.check())
    }

    /// What is wrong, each in one sentence.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let links = self.parts.links.values();
        links.filter_map(|link| link.problem()).collect()
    }
}

impl Parts {
    fn look(&self, asked: bool) {
        let _one_at_a_time = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for link in self.links.values() {
            changed |= link.look(asked);
        }
        if let Some(tell) = self.on_change.get().filter(|_| changed) {
            tell();
        }
    }
}

/// A thread that looks in this interval, until the sender is gone.
fn watch(parts: &Arc<Parts>, interval_ms: u64) -> std::io::Result<SyncSender<()>> {
    let (ends, ended) = sync_channel(64);
    let interval = Duration::from_millis(interval_ms);
    let parts = Arc::downgrade(parts);
    std::thread::Builder::new()
        .name("identity".to_owned())
        .spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
                let Some(parts) = parts.upgrade() else { return };
                parts.look(false);
            }
        })?;
    Ok(ends)
}
