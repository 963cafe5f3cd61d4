//! Writes the table of raw packets as seeds for the fuzz target, one file
//! each, into the directory named on the command line.

#[path = "../tests/packets/mod.rs"]
mod packets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds DIRECTORY");
        return ExitCode::from(2);
    };
    match write_seeds(&directory) {
        Ok(written) => {
            println!("{written} seeds in {}", directory.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(directory: &std::path::Path) -> std::io::Result<usize> {
    fs::create_dir_all(directory)?;
    let cases = packets::cases();
    for case in &cases {
        let name = case
            .title()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        fs::write(directory.join(name), case.bytes)?;
    }
    Ok(cases.len())
}
