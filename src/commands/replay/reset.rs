//! `millstream replay … --group NAME` and `--undo FILE`: the plan shown, a confirmation, and the file that undoes it.

use std::io::{BufRead, IsTerminal, stderr, stdin};
use std::path::PathBuf;

use replay::{Bounds, Kafka, Reset, new_id};
use serde_json::json;

use super::super::audited;
use super::print;
use crate::cli;
use crate::exit::Failure;

/// Sets the offsets of a group, if it is told to.
pub fn run(options: &cli::Replay, kafka: &Kafka, to: &Bounds, now_ms: i64) -> Result<(), Failure> {
    let (reset, undo) = match (&options.group, &options.undo) {
        (Some(group), _) => {
            let reset = Reset::plan(kafka, group, &options.topics, to)?;
            let file = options.undo_file.clone().unwrap_or_else(|| {
                PathBuf::from(format!("undo-{}-{now_ms}.json", file_name(group)))
            });
            (reset, Some(file))
        }
        (None, Some(file)) => (Reset::undo(kafka, file)?, None),
        (None, None) => return Ok(()),
    };
    for note in &reset.notes {
        eprintln!("note: {note}");
    }
    print(&reset.table())?;
    if reset.is_empty() {
        return Err(Failure::cannot_start("there is nothing to set"));
    }
    if !options.execute && !asked()? {
        eprintln!("nothing was changed; --execute does it");
        return Ok(());
    }
    let work = || Ok(reset.execute(kafka, undo.as_deref())?);
    audited(kafka, &new_id(), work, |()| json!({ "set": reset.table() }))?;
    match undo {
        Some(file) => eprintln!(
            "done; millstream replay --undo {} takes it back",
            file.display()
        ),
        None => eprintln!("done"),
    }
    Ok(())
}

/// Asks on a terminal; elsewhere there is nobody to ask.
fn asked() -> Result<bool, Failure> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("set these offsets? yes/no: ");
    let mut answer = String::new();
    stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(anyhow::Error::from)?;
    Ok(answer.trim() == "yes")
}

fn file_name(group: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    group.chars().map(plain).collect()
}
