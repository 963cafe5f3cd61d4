//! Instructions of what the broker does most, counted by valgrind's callgrind: the same figure on every run, whatever
//! else the machine does, so that a loss of a few percent is seen on the day it comes.
//!
//! ```text
//! ./test.sh instructions          # compares with the baseline
//! ./test.sh instructions accept   # makes the figures the baseline
//! cargo bench -p broker --profile instructions --bench instructions -- run NAME  # one case, for a profiler
//! ```
//!
//! Instructions are not time: they say nothing of cache misses and of the kernel. Where a change trades one for the
//! other, measure time, and accept the new baseline with the reason in the commit.

mod baseline;
mod callgrind;
mod cases;
mod client;

use std::process::ExitCode;

use baseline::Baseline;

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/instructions/baseline.json"
);

/// How to make new figures the baseline.
const ACCEPT: &str = "cargo bench -p broker --profile instructions --bench instructions -- accept";

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let arguments = std::env::args().skip(1).filter(|one| one != "--bench");
    let arguments = arguments.collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    let result = match arguments[..] {
        [] => check(),
        ["accept"] => accept(),
        ["run", name] => cases::run(name),
        _ => Err("the arguments are none, `accept`, or `run NAME`".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), String> {
    let accepted = Baseline::read(PATH)?;
    let seen = callgrind::measure_all()?;
    if accepted.target != seen.target {
        println!(
            "nothing is compared: the baseline is for {}, this is {}",
            accepted.target, seen.target
        );
        return Ok(());
    }
    let comparison = accepted.compare(&seen);
    print!("{}", comparison.table);
    if accepted.rustc != seen.rustc {
        println!("baseline: {}; here: {}", accepted.rustc, seen.rustc);
    }
    comparison.verdict(ACCEPT).map(|advice| print!("{advice}"))
}

fn accept() -> Result<(), String> {
    let seen = callgrind::measure_all()?;
    if let Ok(old) = Baseline::read(PATH) {
        print!("{}", old.compare(&seen).table);
    }
    seen.write(PATH)?;
    println!("written: {PATH}; commit it with the reason");
    Ok(())
}
