//! Whether files have changed: looked at now and then, and taken over when they have come to rest.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        })
    }
}

/// Files that are read together.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    /// As they were last read, or could not be.
    read: Vec<Option<Stamp>>,
    /// As they were last seen.
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// These files, which are about to be read.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        Self {
            paths,
            read: stamps.clone(),
            seen: stamps,
        }
    }

    /// Whether they are to be read again: because somebody `asked` for it, or because they have changed and are as they were
    /// when they were last looked at.
    pub(crate) fn is_due(&mut self, asked: bool) -> bool {
        let stamps: Vec<_> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let rest = self.seen == stamps;
        self.seen.clone_from(&stamps);
        let is_due = asked || (rest && self.read != stamps);
        if is_due {
            self.read = stamps;
        }
        is_due
    }
}
