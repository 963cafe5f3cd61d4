//! The file with which a replay goes on after it was stopped or killed, and which only one process uses at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::plan::Span;
use crate::run::Progress;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    id: String,
    /// What was asked for: a file goes on with that, and with nothing else.
    request: String,
    spans: Vec<Span>,
    progress: Progress,
    done: bool,
}

/// What is known of a replay that can go on.
#[derive(Debug)]
pub struct Resume {
    path: PathBuf,
    saved: Saved,
    /// Held for the time of the run; the file itself is replaced with every batch.
    _lock: File,
}

/// An identifier that no other replay has.
#[must_use]
pub fn new_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    format!("{micros:x}-{:x}", std::process::id())
}

impl Resume {
    /// Takes the file at `path`. With one that is there the replay `request` goes on; else `plan` says what is to be read, and
    /// the file is made.
    ///
    /// # Errors
    /// Another process uses it, it is of another request, or it is none.
    pub fn open(
        path: &Path,
        request: &str,
        plan: impl FnOnce() -> Result<Vec<Span>, Error>,
    ) -> Result<Self, Error> {
        let file = |doing| {
            move |source| Error::File {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(with_suffix(path, ".lock"))
            .map_err(file("open the lock beside"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::option(
                    "--resume",
                    path.display(),
                    "a file that no other replay is using",
                ));
            }
            Err(TryLockError::Error(source)) => return Err(file("lock")(source)),
        }
        let saved = match fs::read(path) {
            Ok(bytes) => {
                let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| {
                    Error::option(
                        "--resume",
                        path.display(),
                        format!("a file that a replay wrote, or none yet ({error})"),
                    )
                })?;
                if saved.request != request {
                    return Err(Error::option(
                        "--resume",
                        path.display(),
                        format!("the file of this replay; it is of: {}", saved.request),
                    ));
                }
                saved
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let spans = plan()?;
                let saved = Saved {
                    id: new_id(),
                    request: request.to_owned(),
                    progress: Progress::of(&spans),
                    spans,
                    done: false,
                };
                write(path, &saved).map_err(file("write"))?;
                saved
            }
            Err(error) => return Err(file("read")(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            saved,
            _lock: lock,
        })
    }

    /// The replay's identifier.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.saved.id
    }

    /// What is read.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.saved.spans
    }

    /// How far it came.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.saved.progress
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.saved.done
    }

    pub(crate) fn save(&mut self, progress: &Progress, done: bool) -> Result<(), Error> {
        self.saved.progress.clone_from(progress);
        self.saved.done = done;
        write(&self.path, &self.saved).map_err(|source| Error::File {
            doing: "write",
            path: self.path.clone(),
            source,
        })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Replaces the file as a whole: after a kill or a power cut it is the old one or the new one.
fn write(path: &Path, saved: &Saved) -> std::io::Result<()> {
    let new = with_suffix(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans() -> Vec<Span> {
        vec![Span {
            topic: "t".into(),
            partition: 0,
            first: 3,
            end: 9,
        }]
    }

    #[test]
    fn what_was_saved_is_found_again_and_not_planned_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut first = Resume::open(&path, "a", || Ok(spans())).unwrap();
        let id = first.id().to_owned();
        let mut progress = first.progress().clone();
        assert_eq!(progress.positions, [3]);
        progress.positions[0] = 7;
        first.save(&progress, false).unwrap();
        drop(first);
        let again = Resume::open(&path, "a", || unreachable!("planned before")).unwrap();
        assert_eq!(
            (again.id(), again.progress(), again.is_done()),
            (&*id, &progress, false)
        );
    }

    #[test]
    fn a_file_of_another_replay_or_in_use_or_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let refused = |request| {
            let error = Resume::open(&path, request, || Ok(spans())).unwrap_err();
            assert!(error.is_start(), "{error}");
            error.to_string()
        };
        let held = Resume::open(&path, "a", || Ok(spans())).unwrap();
        assert!(refused("a").contains("no other replay"));
        drop(held);
        assert!(refused("b").contains("it is of: a"));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(refused("a").contains("a replay wrote"));
    }
}
