//! Users that bring a signed token (JSON Web Token, RFC 7519): the link `jwt`.

mod algorithm;
mod keys;
mod remote;
mod token;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use argon2::password_hash::rand_core::{OsRng, RngCore as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::chain::{Accepted, Asked, Link, Question, Refusal, Said};
use crate::config::{JwtConfig, TokenIn};
use crate::node::StartError;
use crate::pool::Pool;
use crate::principal::Principal;
use crate::watch::Watch;
use keys::Key;
use remote::Remote;
use token::{Token, Wrong};

/// The link's name.
pub const NAME: &str = "jwt";

const TOO_LONG: &str = "its token is longer than broker.authentication.jwt.token_bytes_max";
const TOO_MANY: &str = "its address has too many attempts under way or failed";
const BUSY: &str = "too many tokens wait to be looked at: broker.authentication.jwt.queue_max";
const NO_KEYS: &str = "the keys for its token cannot be had";
const NO_KEY: &str = "no key that is known has signed its token";

/// Names that `broker.authentication.jwt.algorithms` may have.
pub(crate) fn algorithms() -> [&'static str; 12] {
    algorithm::Algorithm::NAMES
}

/// See the module.
pub struct JwtLink {
    inner: Arc<Inner>,
    pool: Arc<Pool>,
    remote: Option<Arc<Remote>>,
    watch: Mutex<Watch>,
}

struct Inner {
    config: JwtConfig,
    local: RwLock<Arc<[Key]>>,
    known: Mutex<HashMap<[u8; 32], Known>>,
    key: [u8; 32],
    problem: Mutex<Option<String>>,
}

/// A token that was right.
struct Known {
    principal: Arc<Principal>,
    /// When it ends, in seconds since 1970.
    until_s: Option<f64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

impl Inner {
    fn mac(&self, token: &str) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key);
        let mut mac = mac.expect("a key of any length will do");
        mac.update(token.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// What is known of a token that was right before, and has not ended.
    fn remembers(&self, token: &str, now_s: f64) -> Option<Accepted> {
        if self.config.cache_max == 0 {
            return None;
        }
        let mac = self.mac(token);
        let known = lock(&self.known);
        let Known { principal, until_s } = known.get(&mac)?;
        let lasts_ms = match until_s {
            Some(until) if *until <= now_s => return None,
            Some(until) => Some(((until - now_s) * 1_000.0) as u64),
            None => None,
        };
        Some(Accepted {
            principal: Some(Arc::clone(principal)),
            lasts_ms,
        })
    }

    fn remember(&self, token: &str, known: Known, now_s: f64) {
        let most = self.config.cache_max as usize;
        if most == 0 {
            return;
        }
        let mut all = lock(&self.known);
        if all.len() >= most {
            all.retain(|_, known| known.until_s.is_none_or(|until| until > now_s));
        }
        if all.len() >= most
            && let Some(some) = all.keys().next().copied()
        {
            all.remove(&some);
        }
        all.insert(self.mac(token), known);
    }

    /// Looks at a token with these keys.
    fn judge(&self, token: &str, keys: &[Arc<[Key]>], now_s: f64) -> Result<Accepted, Wrong> {
        let read = Token::read(token)?;
        let allowed = &self.config.algorithms;
        if !allowed.is_empty() && !allowed.iter().any(|name| read.is_signed_by(name)) {
            return Err(Wrong::Token("it is signed in a way that is not allowed"));
        }
        read.verify(keys.iter().flat_map(|keys| &**keys))?;
        let claims = read.claims()?;
        let lasts_ms = claims.hold(&self.config, now_s)?;
        let principal = Arc::new(claims.principal(&self.config)?);
        let known = Known {
            principal: Arc::clone(&principal),
            until_s: lasts_ms.map(|ms| now_s + ms as f64 / 1_000.0),
        };
        self.remember(token, known, now_s);
        Ok(Accepted {
            principal: Some(principal),
            lasts_ms,
        })
    }

    fn local(&self) -> Arc<[Key]> {
        Arc::clone(&self.local.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a question. `waits` says whether it may wait for keys that are fetched once more.
    fn answer(&self, question: Question, remote: Option<&Remote>, waits: bool) {
        let mut keys = vec![self.local()];
        keys.extend(remote.and_then(Remote::keys));
        let token = token_of(&self.config, &question);
        let said = match token.map(|token| self.judge(token, &keys, now_s())) {
            None => Said::Pass,
            Some(Ok(accepted)) => Said::Decided(Ok(accepted)),
            Some(Err(Wrong::Token(why))) => Said::refused(Refusal::BadCredentials, why),
            Some(Err(Wrong::UnknownKey)) => return of_unknown_key(question, remote, waits),
        };
        question.answer(said);
    }
}

/// No key that is known has made the token: one may have that has come since.
fn of_unknown_key(question: Question, remote: Option<&Remote>, waits: bool) {
    let is_away = remote.is_some_and(|remote| remote.keys().is_none());
    let question = match remote.filter(|_| waits) {
        None => question,
        Some(remote) => match remote.wait(question) {
            Ok(()) => return,
            Err(question) => question,
        },
    };
    question.answer(match is_away {
        true => Said::refused(Refusal::Unavailable, NO_KEYS),
        false => Said::refused(Refusal::BadCredentials, NO_KEY),
    });
}

/// The token of a question, where there is something that looks like one.
fn token_of<'a>(config: &JwtConfig, question: &'a Question) -> Option<&'a str> {
    let credentials = question.credentials();
    let text = match config.token {
        TokenIn::Password => std::str::from_utf8(credentials.password.as_ref()?.reveal()).ok()?,
        TokenIn::User => credentials.user.as_deref()?,
    };
    let is_long = text.len() > config.token_bytes_max as usize && text.starts_with("ey");
    (is_long || token::looks_like_one(text.as_bytes())).then_some(text)
}

impl JwtLink {
    /// Reads the keys and starts the threads.
    ///
    /// # Errors
    /// When the keys cannot be used, or the system gives no thread.
    pub fn start(config: &JwtConfig) -> Result<Self, StartError> {
        let watch = Watch::new(config.key_files.iter().map(PathBuf::from).collect());
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        let inner = Arc::new(Inner {
            local: RwLock::new(local_keys(config).map_err(StartError::Keys)?),
            config: config.clone(),
            known: Mutex::default(),
            key,
            problem: Mutex::default(),
        });
        let pool = Arc::new(Pool::start(
            "tokens",
            config.threads as usize,
            config.queue_max as usize,
        )?);
        let remote = match config.jwks_url.is_empty() {
            true => None,
            false => Some(start_remote(config, &inner, &pool).map_err(StartError::Keys)?),
        };
        Ok(Self {
            inner,
            pool,
            remote,
            watch: Mutex::new(watch),
        })
    }
}

fn start_remote(
    config: &JwtConfig,
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
) -> Result<Arc<Remote>, String> {
    // The thread has no hold of the one that ends it.
    let this: Arc<std::sync::OnceLock<std::sync::Weak<Remote>>> = Arc::default();
    let (of_thread, inner, pool) = (Arc::clone(&this), Arc::clone(inner), Arc::downgrade(pool));
    let fetched = move |waiting: Vec<Question>, changed: bool| {
        if changed {
            lock(&inner.known).clear();
        }
        let (Some(pool), Some(remote)) = (
            pool.upgrade(),
            of_thread.get().and_then(std::sync::Weak::upgrade),
        ) else {
            return;
        };
        for question in waiting {
            let (inner, remote) = (Arc::clone(&inner), Arc::clone(&remote));
            let job = move |question| inner.answer(question, Some(&remote), false);
            if let Err(question) = pool.run(question, job) {
                question.answer(Said::refused(Refusal::Busy, BUSY));
            }
        }
    };
    let remote = Arc::new(Remote::start(config, Box::new(fetched))?);
    let _ = this.set(Arc::downgrade(&remote));
    // What was fetched before this was set has met nobody who waits.
    Ok(remote)
}

fn local_keys(config: &JwtConfig) -> Result<Arc<[Key]>, String> {
    let mut all = Vec::new();
    if !config.secret.reveal().is_empty() {
        let key = keys::secret(config.secret.reveal().as_bytes());
        all.push(key.map_err(|error| format!("broker.authentication.jwt.secret: {error}"))?);
    }
    for path in &config.key_files {
        let wrong = |error: String| format!("the keys for tokens in {path}: {error}");
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        all.extend(keys::of_file(&text).map_err(wrong)?);
    }
    Ok(all.into())
}

impl Link for JwtLink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ask(&self, mut question: Question) -> Asked {
        let config = &self.inner.config;
        let Some(token) = token_of(config, &question) else {
            return Asked::Now(question, Said::Pass);
        };
        if token.len() > config.token_bytes_max as usize {
            return Asked::Now(question, Said::refused(Refusal::BadCredentials, TOO_LONG));
        }
        if let Some(accepted) = self.inner.remembers(token, now_s()) {
            return Asked::Now(question, Said::Decided(Ok(accepted)));
        }
        if !question.charge() {
            return Asked::Now(question, Said::refused(Refusal::TooManyAttempts, TOO_MANY));
        }
        let (inner, remote) = (Arc::clone(&self.inner), self.remote.clone());
        let job = move |question| inner.answer(question, remote.as_deref(), true);
        match self.pool.run(question, job) {
            Ok(()) => Asked::Later,
            Err(question) => Asked::Now(question, Said::refused(Refusal::Busy, BUSY)),
        }
    }

    fn look(&self, asked: bool) -> bool {
        if asked && let Some(remote) = &self.remote {
            remote.fetch();
        }
        if !lock(&self.watch).is_due(asked) {
            return false;
        }
        match local_keys(&self.inner.config) {
            Ok(keys) => {
                *self
                    .inner
                    .local
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = keys;
                lock(&self.inner.known).clear();
                *lock(&self.inner.problem) = None;
                true
            }
            Err(error) => {
                let problem = format!("{error}; the keys of before go on to hold");
                tracing::error!("{problem}");
                *lock(&self.inner.problem) = Some(problem);
                false
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        local_keys(&self.inner.config).map(drop).map_err(|error| {
            let what = format!("{error}; the keys of before go on to hold");
            *lock(&self.inner.problem) = Some(what.clone());
            what
        })
    }

    fn problem(&self) -> Option<String> {
        let of_remote = self.remote.as_ref().and_then(|remote| remote.problem());
        lock(&self.inner.problem).clone().or(of_remote)
    }
}

#[cfg(test)]
mod tests;
