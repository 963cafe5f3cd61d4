//! `mqtt-measure`: the measures of this crate on the command line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = loadgen::command::Arguments::parse();
    match arguments.run() {
        Ok((record, sentence)) => {
            println!("{record}");
            eprintln!("{sentence}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mqtt-measure: {error}");
            ExitCode::from(2)
        }
    }
}
