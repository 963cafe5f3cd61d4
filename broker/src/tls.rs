//! TLS by rustls: a listener's certificates and keys ([`Keys`]), and the layer that its connections have ([`TlsLayer`]).
//!
//! rustls does the protocol and the cryptography (by ring); nothing here decides anything about them but what is offered.

mod files;
mod layer;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use serde::Serialize;

use crate::listener::TlsConfig;
use crate::transport::Layer;
use files::{Loaded, Stamp};
use layer::TlsLayer;

/// How long before its end a certificate is a problem.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    /// The file that it is in.
    pub file: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires_at_s: i64,
}

impl CertificateStatus {
    /// Seconds until it expires; below 0 when it has.
    #[must_use]
    pub fn expires_in_s(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.expires_at_s - i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
    }

    /// What is wrong with its age, if something is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let left = self.expires_in_s();
        let days = left.abs() / 86_400;
        if left < 0 {
            Some(format!(
                "the certificate {} has expired {days} days ago: clients refuse it",
                self.file
            ))
        } else if left < i64::try_from(EXPIRY_WARNING.as_secs()).unwrap_or(i64::MAX) {
            Some(format!(
                "the certificate {} expires in {days} days",
                self.file
            ))
        } else {
            None
        }
    }
}

/// What a listener has of TLS: its files as they were when they were last right.
pub(crate) struct Keys {
    files: TlsConfig,
    protocols: &'static [&'static str],
    current: RwLock<Arc<ServerConfig>>,
    state: Mutex<State>,
}

struct State {
    certificates: Vec<CertificateStatus>,
    /// What the files were like when they were last looked at.
    stamp: Stamp,
    /// Why what they are now is not used.
    problem: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// A listener's files, read and not in use yet.
pub(crate) struct Fresh {
    loaded: Loaded,
    stamp: Stamp,
    pub(crate) has_changed: bool,
}

/// What became of a look at a listener's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// They are as they were.
    Same,
    /// They have changed and are used from now on.
    Changed,
    /// They have changed and cannot be used: what was is gone on with.
    Refused(String),
}

impl Keys {
    /// Reads the files. `protocols`: what is above TLS, by the names that these have in it (ALPN). Who asks for others only is
    /// refused, who asks for none is served.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(crate) fn load(
        files: &TlsConfig,
        protocols: &'static [&'static str],
    ) -> Result<Self, String> {
        let stamp = Stamp::of(files);
        let Loaded {
            config,
            certificates,
        } = files::load(files, protocols, None)?;
        Ok(Self {
            files: files.clone(),
            protocols,
            current: RwLock::new(Arc::new(config)),
            state: Mutex::new(State {
                certificates,
                stamp,
                problem: None,
            }),
        })
    }

    /// Reads the files again, and changes nothing: what they are now, and whether that is something else than before.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(crate) fn read(&self) -> Result<Fresh, String> {
        let stamp = Stamp::of(&self.files);
        let has_changed = self.state().stamp != stamp;
        let loaded = files::load(&self.files, self.protocols, Some(&self.current()))?;
        Ok(Fresh {
            loaded,
            stamp,
            has_changed,
        })
    }

    /// Uses from now on what was read.
    pub(crate) fn take(&self, fresh: Fresh) {
        let mut state = self.state();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(fresh.loaded.config);
        state.certificates = fresh.loaded.certificates;
        state.stamp = fresh.stamp;
        state.problem = None;
    }

    /// Uses the files as they are now, if they have changed: all of them, or none.
    pub(crate) fn look(&self) -> Reloaded {
        let stamp = Stamp::of(&self.files);
        if stamp == self.state().stamp {
            return Reloaded::Same;
        }
        match self.read() {
            Ok(fresh) => {
                self.take(fresh);
                Reloaded::Changed
            }
            Err(why) => {
                // Looked at again when they change again; a file that is being written does.
                let why = format!("{why}; the ones from before stay in use");
                let mut state = self.state();
                state.stamp = stamp;
                state.problem = Some(why.clone());
                Reloaded::Refused(why)
            }
        }
    }

    /// The layer of a new connection.
    pub(crate) fn layer(&self) -> Box<dyn Layer> {
        Box::new(TlsLayer::new(self.current()))
    }

    pub(crate) fn certificates(&self) -> Vec<CertificateStatus> {
        self.state().certificates.clone()
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
