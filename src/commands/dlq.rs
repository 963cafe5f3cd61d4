//! `millstream dlq …`: the command line of dead letters. What it does is in the crate `replay`; here are what is printed, the
//! editor, and signals.

use std::fmt::Write as _;
use std::fs;
use std::process::Command as Program;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use replay::letters::{self, Letter, Summary, Wanted};
use replay::{Bounds, Error, Kafka, Line, Lines, Moment, Purge, Redrive, fetch, new_id, timestamp};
use serde::Serialize;
use serde_json::json;

use super::{audited, now_ms, print, stoppable};
use crate::cli::{Dlq, DlqCommand, DlqKafka, DlqLetters};
use crate::config::Config;
use crate::ctl::is_obeyed;
use crate::exit::Failure;

/// Letters that are put back without being confirmed by a `--limit`.
const UNCONFIRMED_MAX: u64 = 10_000;
/// Bytes of a payload that are printed.
const SHOWN_BYTES_MAX: usize = 4_096;

/// Runs the command.
///
/// # Errors
/// A start failure when nothing was done; a failure when it did not come to its end.
pub fn run(options: Dlq) -> Result<(), Failure> {
    let at = match &options.command {
        DlqCommand::List { kafka, .. } | DlqCommand::Purge { kafka, .. } => kafka,
        DlqCommand::Show { letters, .. }
        | DlqCommand::Redrive { letters, .. }
        | DlqCommand::Export { letters, .. } => &letters.kafka,
    };
    let common = at.common.clone();
    stoppable(&common, move |config, stop| {
        obey(&options.command, config, stop)
    })
}

fn obey(command: &DlqCommand, config: &Config, stop: &AtomicBool) -> Result<(), Failure> {
    match command {
        DlqCommand::List {
            topics,
            json,
            kafka,
        } => list(&connect(kafka, config)?, topics, *json, stop),
        DlqCommand::Show {
            letters,
            json,
            hex,
            original,
        } => {
            let show = Show {
                json: *json,
                hex: *hex,
                original: *original,
            };
            show.run(&connect(&letters.kafka, config)?, letters, stop)
        }
        DlqCommand::Export { letters, to_file } => {
            let kafka = connect(&letters.kafka, config)?;
            let mut lines = Lines::file(to_file, None)?;
            let mut written = 0u64;
            each(&kafka, letters, stop, |record, _| {
                lines.write(record)?;
                written += 1;
                Ok(())
            })?;
            lines.finish()?;
            eprintln!("{written} letters written to {}", to_file.display());
            Ok(())
        }
        DlqCommand::Purge {
            topic,
            before,
            execute,
            kafka,
        } => {
            let kafka = connect(kafka, config)?;
            let before = Bounds::parse("--before", before, Moment::Earliest, now_ms())?;
            let purge = Purge::plan(&kafka, topic, &before)?;
            print(&purge.table())?;
            match (purge.offsets(), execute) {
                (0, _) => eprintln!("there is nothing to delete"),
                (_, false) => eprintln!("nothing was deleted; --execute does it"),
                (offsets, true) => {
                    let work = || Ok(purge.execute(&kafka)?);
                    audited(&kafka, &new_id(), work, |()| json!({ "deleted": offsets }))?;
                    eprintln!("{offsets} offsets deleted");
                }
            }
            Ok(())
        }
        DlqCommand::Redrive {
            letters,
            to_topic,
            edit,
            payload,
            again,
            dry_run,
            all: _,
        } => {
            let kafka = connect(&letters.kafka, config)?;
            let mut redrive = Redrive {
                topic: letters.topic.clone(),
                wanted: wanted(letters)?,
                to: to_topic.clone(),
                payload: None,
                again: *again,
                limit: letters.limit,
            };
            if (*edit || payload.is_some()) && redrive.wanted.ids.len() != 1 {
                let allowed = "one --id: the payload of one letter is mended";
                return Err(Error::option("--edit or --payload", "", allowed).into());
            }
            if let Some(path) = payload {
                let read = fs::read(path).map_err(|source| Error::File {
                    doing: "read",
                    path: path.clone(),
                    source,
                });
                redrive.payload = Some(read?);
            }
            let would = redrive.count(&kafka, stop)?;
            if *dry_run {
                let text = format!(
                    "{} letters would be put back; {} were before\n",
                    would.written, would.before
                );
                return print(&text);
            }
            if would.written > UNCONFIRMED_MAX && letters.limit.is_none() {
                return Err(Failure::cannot_start(format!(
                    "{} letters would be put back: look with --dry-run, then confirm with --limit {}",
                    would.written, would.written
                )));
            }
            if *edit && would.written > 0 {
                redrive.payload = Some(edited(&kafka, letters, stop)?);
            }
            let id = new_id();
            let work = || Ok(redrive.run(&kafka, &id, stop)?);
            let told = |done: &replay::Redriven| json!({ "written": done.written });
            let done = audited(&kafka, &id, work, told)?;
            eprintln!(
                "redrive {id}: {} letters put back, {} were before, {} cannot be: their payload is gone",
                done.written, done.before, done.lost
            );
            Ok(())
        }
    }
}

/// Kafka, as the command line or the configuration says where it is.
pub(super) fn connect(options: &DlqKafka, config: &Config) -> Result<Kafka, Error> {
    let servers = options.kafka.as_deref().unwrap_or(&config.bridge.kafka);
    Kafka::new(servers, config.bridge.properties.clone())
}

fn wanted(options: &DlqLetters) -> Result<Wanted, Error> {
    Ok(Wanted {
        classes: options.reason.clone(),
        ids: options
            .id
            .iter()
            .map(|text| letters::id(text))
            .collect::<Result<_, _>>()?,
    })
}

/// Calls `f` with each letter that is meant.
fn each(
    kafka: &Kafka,
    options: &DlqLetters,
    stop: &AtomicBool,
    mut f: impl FnMut(&Line<'_>, &Letter<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let wanted = wanted(options)?;
    let mut left = options.limit.unwrap_or(u64::MAX);
    letters::each(kafka, &options.topic, stop, |record| {
        if let Some(letter) = Letter::of(record)
            && wanted.takes(record, &letter)
        {
            f(record, &letter)?;
            left -= 1;
        }
        Ok(left > 0)
    })
}

fn list(kafka: &Kafka, topics: &[String], json: bool, stop: &AtomicBool) -> Result<(), Failure> {
    let topics = match topics {
        [] => letters::topics(kafka)?,
        named => named.to_vec(),
    };
    let mut summaries = Vec::new();
    for topic in &topics {
        summaries.push(Summary::of(kafka, topic, stop)?);
    }
    if json {
        let text = serde_json::to_string_pretty(&summaries).map_err(anyhow::Error::from)?;
        return print(&format!("{text}\n"));
    }
    if summaries.is_empty() {
        return print("no topic of dead letters (a name that ends in .dlq)\n");
    }
    let mut text = String::new();
    for summary in &summaries {
        let time = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), timestamp);
        let _ = writeln!(
            text,
            "{}: {} letters, {} put back, oldest {}, youngest {}",
            summary.topic,
            summary.letters,
            summary.redriven,
            time(summary.oldest_ms),
            time(summary.youngest_ms)
        );
        if summary.others > 0 {
            let _ = writeln!(text, "  {} records are no dead letters", summary.others);
        }
        for (fault, count) in &summary.by_fault {
            let _ = writeln!(text, "  {count:10}  {}", printable(fault));
        }
    }
    print(&text)
}

struct Show {
    json: bool,
    hex: bool,
    original: bool,
}

/// A letter as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    redriven: bool,
    letter: &'a Letter<'a>,
    record: &'a Line<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<String>,
}

impl Show {
    fn run(&self, kafka: &Kafka, options: &DlqLetters, stop: &AtomicBool) -> Result<(), Failure> {
        let redriven = letters::redriven(kafka, &options.topic, stop)?;
        let mut shown = 0u64;
        let result = each(kafka, options, stop, |record, letter| {
            shown += 1;
            let redriven = redriven.contains(&(record.partition, record.offset));
            let original = match self.original {
                true => Some(self.original(kafka, letter)?),
                false => None,
            };
            let text = match self.json {
                true => {
                    let shown = Shown {
                        id: format!("{}/{}", record.partition, record.offset),
                        redriven,
                        letter,
                        record,
                        original,
                    };
                    let line = serde_json::to_string(&shown)
                        .map_err(|error| Error::failed("write JSON", error))?;
                    format!("{line}\n")
                }
                false => self.text(record, letter, redriven, original),
            };
            print(&text).map_err(|_| Error::NobodyReads)
        });
        match result {
            Err(Error::NobodyReads) => Ok(()),
            result => {
                result?;
                if shown == 0 && !self.json {
                    eprintln!("no such letters in {}", options.topic);
                }
                Ok(())
            }
        }
    }

    fn original(&self, kafka: &Kafka, letter: &Letter<'_>) -> Result<String, Error> {
        Ok(match fetch(kafka, letter)? {
            Some(value) => self.payload(value.as_deref()),
            None if letter.offset.is_none() => "Kafka never had it".to_owned(),
            None => "gone".to_owned(),
        })
    }

    fn text(
        &self,
        record: &Line<'_>,
        letter: &Letter<'_>,
        redriven: bool,
        original: Option<String>,
    ) -> String {
        let mut text = format!(
            "{}/{}  {}  {}",
            record.partition,
            record.offset,
            record
                .timestamp_ms
                .map_or_else(|| "-".to_owned(), timestamp),
            printable(letter.class)
        );
        if letter.attempts > 0 {
            let _ = write!(text, "  put back {} times before", letter.attempts);
        }
        if redriven {
            text += "  was put back";
        }
        let offset = letter
            .offset
            .map_or_else(|| "not in Kafka".to_owned(), |offset| offset.to_string());
        let _ = writeln!(
            text,
            "\n  of       {}/{} at {offset}",
            printable(letter.topic),
            letter.partition
        );
        let _ = writeln!(
            text,
            "  by       {} at {}",
            printable(letter.group),
            printable(letter.stage)
        );
        let _ = writeln!(text, "  why      {}", printable(letter.message));
        if let Some(key) = record.key {
            let _ = writeln!(text, "  key      {}", self.payload(Some(key)));
        }
        let own = record.headers.iter();
        for (name, value) in own.filter(|(name, _)| !name.starts_with("__connect.errors.")) {
            let _ = writeln!(
                text,
                "  header   {}={}",
                printable(name),
                self.payload(*value)
            );
        }
        let note = match letter.truncated {
            true => " (cut: too large for a letter)",
            false => "",
        };
        let _ = writeln!(text, "  payload{note}  {}", self.payload(record.value));
        if let Some(original) = original {
            let _ = writeln!(text, "  original {original}");
        }
        text
    }

    /// Bytes for a terminal: nothing in them is obeyed.
    fn payload(&self, bytes: Option<&[u8]>) -> String {
        let Some(bytes) = bytes else {
            return "null".to_owned();
        };
        let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
        let mut text = match std::str::from_utf8(shown) {
            Ok(text) if !self.hex => printable(text),
            _ => {
                let mut hex = String::from("0x");
                for byte in shown {
                    let _ = write!(hex, "{byte:02x}");
                }
                hex
            }
        };
        if shown.len() < bytes.len() {
            let _ = write!(text, " … ({} bytes)", bytes.len());
        }
        text
    }
}

/// The text without characters that a terminal obeys.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// The payload of the one letter that is meant, as the operator's editor left it.
fn edited(kafka: &Kafka, options: &DlqLetters, stop: &AtomicBool) -> Result<Vec<u8>, Failure> {
    let mut payload = None;
    each(kafka, options, stop, |record, letter| {
        payload = match letter.truncated {
            true => fetch(kafka, letter)?.flatten(),
            false => Some(record.value.unwrap_or_default().to_vec()),
        };
        Ok(())
    })?;
    let before = payload.ok_or_else(|| {
        Failure::cannot_start("the payload of this letter is gone; give one with --payload FILE")
    })?;
    let editor = std::env::var("VISUAL")
        .or_else(|_| std::env::var("EDITOR"))
        .map_err(|_| {
            Failure::cannot_start("--edit needs an editor: set EDITOR, or use --payload FILE")
        })?;
    let file = tempfile::NamedTempFile::new().context("cannot make a file for the editor")?;
    fs::write(file.path(), &before).context("cannot write the file for the editor")?;
    // As others do: EDITOR may have arguments of its own.
    let ended = Program::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot start {editor}"))?;
    if !ended.success() {
        return Err(Failure::cannot_start(format!(
            "the editor ended with {ended}; nothing was put back"
        )));
    }
    let after = fs::read(file.path()).context("cannot read what the editor wrote")?;
    if after == before {
        return Err(Failure::cannot_start(
            "the payload was not changed; nothing was put back (without --edit it is put back as it is)",
        ));
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_letter_is_obeyed_by_a_terminal() {
        let show = Show {
            json: false,
            hex: false,
            original: false,
        };
        assert_eq!(show.payload(Some(b"a\x1b[2Jb\n")), "a\\u{1b}[2Jb\\n");
        assert_eq!(show.payload(Some(&[0xff, 0x00])), "0xff00");
        assert_eq!(show.payload(None), "null");
        let long = "x".repeat(SHOWN_BYTES_MAX + 1);
        assert!(
            show.payload(Some(long.as_bytes()))
                .ends_with("… (4097 bytes)")
        );
    }
}
