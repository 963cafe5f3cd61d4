//! Keys at a URL: fetched again and again by a thread, so that nobody waits for a service that is slow or away. What was
//! fetched last holds until it is too old.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::keys::{self, Key};
use crate::chain::Question;
use crate::config::JwtConfig;
use crate::web::Web;

/// Between two fetches, however many tokens name keys that are not known.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// Questions that wait for keys.
const WAITING_MAX: usize = 1_024;

/// Hears of questions that may be looked at again, and whether the keys have changed.
type Fetched = Box<dyn Fn(Vec<Question>, bool) + Send + Sync>;

/// See the module.
pub(super) struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    web: Web,
    refresh: Duration,
    stale: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    keys: Arc<[Key]>,
    /// The text that they were read from.
    text: String,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    problem: Option<String>,
    /// Somebody wants them fetched as soon as may be.
    is_wanted: bool,
    waiting: Vec<Question>,
    is_over: bool,
}

impl Remote {
    /// Fetches in a thread, beginning now; `fetched` hears of each time.
    pub(super) fn start(config: &JwtConfig, fetched: Fetched) -> Result<Self, String> {
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let shared = Arc::new(Shared {
            web: Web::new(&config.jwks_url, timeout, &config.ca_file)?,
            url: config.jwks_url.clone(),
            refresh: Duration::from_secs(config.refresh_s.into()),
            stale: Duration::from_secs(config.stale_s.into()),
            state: Mutex::new(State {
                is_wanted: true,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("jwks".to_owned())
            .spawn(move || of_thread.run(&fetched))
            .map_err(|error| error.to_string())?;
        Ok(Self { shared })
    }

    /// The keys; none when there never were any, or those that there were are too old.
    pub(super) fn keys(&self) -> Option<Arc<[Key]>> {
        let state = self.shared.lock();
        let is_fresh = |fetched: Instant| fetched.elapsed() <= self.shared.stale;
        state
            .fetched
            .is_some_and(is_fresh)
            .then(|| Arc::clone(&state.keys))
    }

    /// Keeps a question until the keys have been fetched once more.
    ///
    /// # Errors
    /// Gives it back when they have been just now, or too many wait.
    pub(super) fn wait(&self, question: Question) -> Result<(), Question> {
        let mut state = self.shared.lock();
        let is_new = |tried: Instant| tried.elapsed() < PAUSE;
        if state.tried.is_some_and(is_new) && !state.is_wanted || state.waiting.len() >= WAITING_MAX
        {
            return Err(question);
        }
        state.waiting.push(question);
        state.is_wanted = true;
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Has them fetched as soon as may be.
    pub(super) fn fetch(&self) {
        self.shared.lock().is_wanted = true;
        self.shared.changed.notify_one();
    }

    /// Has them fetched now, as if none had been for long.
    #[cfg(test)]
    pub(super) fn forget_pause(&self) {
        let mut state = self.shared.lock();
        state.tried = None;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// As if they had been fetched so long ago.
    #[cfg(test)]
    pub(super) fn pretend_fetched_before(&self, ago: Duration) {
        let mut state = self.shared.lock();
        state.fetched = state.fetched.and_then(|fetched| fetched.checked_sub(ago));
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.shared.lock().problem.clone()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, fetched: &Fetched) {
        loop {
            let mut state = self.lock();
            loop {
                if state.is_over {
                    return;
                }
                let since = state.tried.map(|tried| tried.elapsed());
                let pause = if state.is_wanted { PAUSE } else { self.refresh };
                // The first is for those who wait from the start.
                let left = since.map_or(Duration::ZERO, |since| pause.saturating_sub(since));
                if left.is_zero() {
                    break;
                }
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
            let got = self.get();
            let mut state = self.lock();
            let changed = state.take(&self.url, got);
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            fetched(waiting, changed);
        }
    }

    fn get(&self) -> Result<(Vec<Key>, String), String> {
        let answer = self.web.get(&self.url)?;
        if answer.code != 200 {
            return Err(format!("it answers with {}", answer.code));
        }
        Ok((keys::of_json(&answer.body, false)?, answer.body))
    }
}

impl State {
    /// What a fetch brought. What is no set of keys changes nothing.
    fn take(&mut self, url: &str, got: Result<(Vec<Key>, String), String>) -> bool {
        let now = Instant::now();
        self.tried = Some(now);
        self.is_wanted = false;
        match got {
            Ok((keys, text)) => {
                let changed = self.text != text;
                if self.problem.take().is_some() || self.fetched.is_none() {
                    tracing::info!(
                        url,
                        keys = keys.len(),
                        "tokens are checked with the keys at a URL"
                    );
                } else if changed {
                    tracing::info!(url, keys = keys.len(), "the keys at a URL have changed");
                }
                self.keys = keys.into();
                self.text = text;
                self.fetched = Some(now);
                changed
            }
            Err(why) => {
                let problem = format!(
                    "the keys for tokens at {url} cannot be had: {why}; {}",
                    match self.fetched {
                        Some(_) => "those that were fetched before hold until they are too old",
                        None => "until they can, tokens that need them are refused",
                    }
                );
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.problem = Some(problem);
                false
            }
        }
    }
}
