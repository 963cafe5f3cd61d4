//! Records as lines of JSON, in a file or on standard output.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::line::Line;

const BUFFER_BYTES: usize = 256 << 10;

/// Writes lines.
pub struct Lines {
    out: Box<dyn Write + Send>,
    /// The file, to have it on disk when a batch is finished.
    file: Option<(File, PathBuf)>,
    bytes: u64,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Lines {
    /// To standard output, or whatever `out` is.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Box::new(BufWriter::with_capacity(BUFFER_BYTES, out)),
            file: None,
            bytes: 0,
        }
    }

    /// To a new file, or on from the first `bytes` of one that a replay wrote before: what it wrote after them belongs to a
    /// batch that was not finished.
    ///
    /// # Errors
    /// A file that is there and not a replay's, or one that cannot be written.
    pub fn file(path: &Path, bytes: Option<u64>) -> Result<Self, Error> {
        let failed = |source| Error::File {
            doing: "write",
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options.write(true);
        match bytes {
            // A kill may have come before the file was there.
            Some(_) => options.create(true).truncate(false),
            None => options.create_new(true),
        };
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::option(
                    "--to-file",
                    path.display(),
                    "a file that is not there yet (or the same --resume, to go on with it)",
                ));
            }
            opened => opened.map_err(failed)?,
        };
        let bytes = bytes.unwrap_or(0);
        let found = file.metadata().map_err(failed)?.len();
        if found < bytes {
            return Err(Error::option(
                "--to-file",
                path.display(),
                format!("the file of this replay: {bytes} bytes were written, it has {found}"),
            ));
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        let out = file.try_clone().map_err(failed)?;
        Ok(Self {
            file: Some((file, path.to_owned())),
            bytes,
            ..Self::to(out)
        })
    }

    fn failed(&self, source: io::Error) -> Error {
        match &self.file {
            Some((_, path)) => Error::File {
                doing: "write",
                path: path.clone(),
                source,
            },
            None if source.kind() == io::ErrorKind::BrokenPipe => Error::NobodyReads,
            None => Error::failed("write to standard output", source),
        }
    }

    /// Writes a record.
    ///
    /// # Errors
    /// The file or standard output cannot be written.
    pub fn write(&mut self, record: &Line<'_>) -> Result<(), Error> {
        let mut counted = Counted {
            out: &mut self.out,
            bytes: 0,
        };
        let written = serde_json::to_writer(&mut counted, record)
            .map_err(io::Error::from)
            .and_then(|()| counted.write_all(b"\n"));
        self.bytes += counted.bytes;
        written.map_err(|source| self.failed(source))
    }

    /// Has all of it on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<(), Error> {
        self.finish_batch().map(drop)
    }

    /// Returns how long the file is.
    pub(crate) fn finish_batch(&mut self) -> Result<u64, Error> {
        let synced = self.out.flush().and_then(|()| match &self.file {
            Some((file, _)) => file.sync_data(),
            None => Ok(()),
        });
        synced.map_err(|source| self.failed(source))?;
        Ok(self.bytes)
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let written = self.out.write(part)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_behind_its_last_finished_batch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let record = |offset| Line {
            topic: "t",
            offset,
            ..Line::default()
        };
        let mut lines = Lines::file(&path, None).unwrap();
        lines.write(&record(1)).unwrap();
        let finished = lines.finish_batch().unwrap();
        lines.write(&record(2)).unwrap();
        lines.finish_batch().unwrap();
        drop(lines);
        let error = Lines::file(&path, None).unwrap_err();
        assert!(error.to_string().contains("--to-file"), "{error}");
        assert!(Lines::file(&path, Some(9_999)).is_err());
        let mut lines = Lines::file(&path, Some(finished)).unwrap();
        lines.write(&record(3)).unwrap();
        let end = lines.finish_batch().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let offsets: Vec<i64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        assert_eq!((offsets, end), (vec![1, 3], text.len() as u64));
    }
}
