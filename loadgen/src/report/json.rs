//! Reports as JSON files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::data::{FORMAT, Report};
use super::file::write_atomically;

/// The largest file that is read as a report: a day of seconds is about 40 MB.
pub const FILE_BYTES_MAX: u64 = 256 * 1_048_576;

/// A report cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The file cannot be read.
    #[error("cannot read the report {}: {why}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// By the system.
        why: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the report {}: {why}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// By the system.
        why: io::Error,
    },
    /// The file is larger than any report.
    #[error("{} has {bytes} bytes; a report has at most {FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is something else.
    #[error("{} is no report of millstream load: {why}", path.display())]
    NoReport {
        /// Which.
        path: PathBuf,
        /// Where it differs.
        why: serde_json::Error,
    },
    /// The file was written by another version of this tool.
    #[error("{} has the report format {format}; this version reads format {FORMAT} only: use the version that wrote it", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
}

/// What all formats have in common.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// Writes a report for programs and for [`read`]; a file of this name is replaced as a whole.
///
/// # Errors
/// The directory does not take the file.
pub fn write(report: &Report, path: &Path) -> Result<(), JsonError> {
    let error = |why| JsonError::Write {
        path: path.to_owned(),
        why,
    };
    let mut bytes = serde_json::to_vec_pretty(report).map_err(|why| error(why.into()))?;
    bytes.push(b'\n');
    write_atomically(path, &bytes).map_err(error)
}

/// Reads a report.
///
/// # Errors
/// There is no such file, it is no report, or one of another format.
pub fn read(path: &Path) -> Result<Report, JsonError> {
    let error = |why| JsonError::Read {
        path: path.to_owned(),
        why,
    };
    let no_report = |why| JsonError::NoReport {
        path: path.to_owned(),
        why,
    };
    let bytes = fs::metadata(path).map_err(error)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(JsonError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    let text = fs::read(path).map_err(error)?;
    let head: Head = serde_json::from_slice(&text).map_err(no_report)?;
    if head.format != u64::from(FORMAT) {
        return Err(JsonError::Format {
            path: path.to_owned(),
            format: head.format,
        });
    }
    serde_json::from_slice(&text).map_err(no_report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let report = sample::failed();
        write(&report, &path).unwrap();
        let again = read(&path).unwrap();
        // Histograms compare by what they write.
        assert_eq!(
            serde_json::to_value(&again).unwrap(),
            serde_json::to_value(&report).unwrap()
        );
        assert!(!again.passed());
    }

    #[test]
    fn what_is_no_report_of_this_format_is_refused_in_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        for (text, expected) in [
            (
                r#"{"format":2,"whatever":[]}"#,
                "run.json has the report format 2; this version reads format 1 only: use the version that wrote it",
            ),
            (
                r#"{"format":"new"}"#,
                "run.json is no report of millstream load: invalid type",
            ),
            (
                r#"{"format":1}"#,
                "run.json is no report of millstream load: missing field `name`",
            ),
            (
                r#"{"a":1}"#,
                "run.json is no report of millstream load: missing field `format`",
            ),
            (
                "<html>",
                "run.json is no report of millstream load: expected value",
            ),
            ("", "run.json is no report of millstream load: EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let absent = read(&directory.path().join("absent.json")).unwrap_err();
        assert!(
            absent.to_string().contains("absent.json: No such file"),
            "{absent}"
        );
    }
}
