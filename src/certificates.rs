//! Certificates of listeners, while the process runs: read again when their files change or a reload is asked for, and watched
//! for their end.

use std::time::{Duration, Instant};

use broker::{CertificateStatus, Handle, Reloaded};

use crate::config::Config;
use crate::reload::{Change, Reloadable};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often the log says that a certificate expires soon.
const REMIND: Duration = Duration::from_secs(86_400);

/// What a reload has to do with certificates.
pub struct Reload(pub Handle);

impl Reloadable for Reload {
    fn keys(&self) -> Vec<String> {
        Vec::new() // which files they are in takes a restart
    }

    fn prepare(&self, _: &Config) -> Result<Change, String> {
        let read = self.0.read_certificates()?;
        let changed = read.changed().into_iter();
        Ok(Change {
            what: changed
                .map(|listener| format!("the certificates of the listener {listener:?}"))
                .collect(),
            apply: Box::new(move || read.apply()),
        })
    }
}

/// Keeps a broker's certificates as they are on disk. Runs until the process ends.
pub async fn watch(handle: Handle) {
    let mut looks = tokio::time::interval(LOOK);
    let mut reminded: Option<Instant> = None;
    loop {
        looks.tick().await;
        let of = handle.clone();
        let looked = tokio::task::spawn_blocking(move || of.look_at_certificates()).await;
        for (listener, reloaded) in looked.unwrap_or_default() {
            match reloaded {
                Reloaded::Same => {}
                Reloaded::Changed => {
                    reminded = None;
                    tracing::info!(
                        listener,
                        "its certificates were read again; new connections have them"
                    );
                }
                Reloaded::Refused(why) => tracing::error!(listener, "{why}"),
            }
        }
        if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            reminded = Some(Instant::now());
            for listener in handle.listeners() {
                let of = listener.certificates.iter();
                for problem in of.filter_map(CertificateStatus::problem) {
                    tracing::warn!(listener = listener.name, "{problem}");
                }
            }
        }
    }
}
