//! The directory in which `up` keeps the databases of its parts.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::backends::{ALL, Kind};
use crate::config::Config;
use crate::exit::Failure;

/// The directory of the databases when there is a real Kafka and nothing else was said.
const DATA: &str = "data";
/// The directory below it for a Kafka in memory.
const IN_MEMORY: &str = "in-memory";
/// Held by the process that uses a directory.
const LOCK: &str = "millstream.lock";

/// The directory of the databases, held for this process alone.
pub struct DataDir {
    path: PathBuf,
    temporary: Option<TempDir>,
    /// Let go when the process ends, however it ends.
    _lock: Option<File>,
}

impl DataDir {
    /// Makes the directory and takes it for this process. `asked` is what the operator said.
    ///
    /// # Errors
    /// A start failure: it cannot be made or written to, or another process has it.
    pub fn open(asked: Option<&Path>, in_memory: bool) -> Result<Self, Failure> {
        let asked = match (asked, in_memory) {
            (None, true) => {
                let temporary = tempfile::Builder::new()
                    .prefix("millstream-")
                    .tempdir()
                    .map_err(|error| {
                        Failure::cannot_start(format!(
                            "cannot make a temporary directory ({error}): give one with --data DIR"
                        ))
                    })?;
                return Ok(Self {
                    path: temporary.path().to_owned(),
                    temporary: Some(temporary),
                    _lock: None,
                });
            }
            (Some(asked), true) => asked.join(IN_MEMORY),
            (Some(asked), false) => asked.to_owned(),
            (None, false) => PathBuf::from(DATA),
        };
        let failed = |error: std::io::Error| {
            Failure::cannot_start(format!(
                "cannot use the directory {} ({error}): choose another one with --data DIR",
                asked.display()
            ))
        };
        std::fs::create_dir_all(&asked).map_err(failed)?;
        let lock = File::create(asked.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::cannot_start(format!(
                "the directory {} is in use by another millstream: end that one, or choose another directory with --data DIR",
                asked.display()
            )),
            TryLockError::Error(error) => failed(error),
        })?;
        let data = Self {
            path: asked.clone(),
            temporary: None,
            _lock: Some(lock),
        };
        if in_memory {
            data.forget().map_err(failed)?;
        }
        Ok(data)
    }

    /// Points every backend's database into the directory.
    pub fn place(&self, config: &mut Config) {
        for kind in ALL {
            // The path is part of a URL, in which these two have a meaning.
            let path = self.file(kind).display().to_string();
            let path = path.replace('%', "%25").replace('?', "%3F");
            *kind.settings(config).database = format!("sqlite:{path}");
        }
    }

    /// In words, for the start's output.
    pub fn in_words(&self, in_memory: bool) -> String {
        let path = self.path.display();
        match (&self.temporary, in_memory) {
            (Some(_), _) => "temporary, deleted at the end".into(),
            (None, true) => {
                format!("{path}  (begun anew at each start, as the Kafka in memory is)")
            }
            (None, false) => path.to_string(),
        }
    }

    fn file(&self, kind: Kind) -> PathBuf {
        self.path.join(format!("{}.db", kind.name()))
    }

    /// Deletes the databases of an earlier Kafka in memory.
    fn forget(&self) -> std::io::Result<()> {
        for kind in ALL {
            for suffix in ["", "-wal", "-shm"] {
                let mut file = self.file(kind).into_os_string();
                file.push(suffix);
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(Some(dir.path()), false).unwrap();
        let message = DataDir::open(Some(dir.path()), false)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("in use by another millstream"),
            "{message}"
        );
        drop(first);
        DataDir::open(Some(dir.path()), false).unwrap();
    }

    #[test]
    fn databases_live_as_long_as_the_log_that_they_are_made_from() {
        let dir = tempfile::tempdir().unwrap();
        for (in_memory, path) in [
            (true, dir.path().join("in-memory/chat.db")),
            (false, dir.path().join("chat.db")),
        ] {
            let data = DataDir::open(Some(dir.path()), in_memory).unwrap();
            let mut config = Config::default();
            data.place(&mut config);
            assert_eq!(config.chat.database, format!("sqlite:{}", path.display()));
            std::fs::write(&path, "x").unwrap();
            drop(data);
            DataDir::open(Some(dir.path()), in_memory).unwrap();
            assert_eq!(path.exists(), !in_memory);
        }
    }

    #[test]
    fn without_a_wish_and_a_kafka_nothing_stays() {
        let data = DataDir::open(None, true).unwrap();
        let path = data.path.clone();
        assert!(path.is_dir());
        drop(data);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_said_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = DataDir::open(Some(file.path()), false)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("--data DIR"), "{message}");
    }
}
