//! The smallest program around the broker: it serves MQTT and stores nothing.
//!
//! ```text
//! cargo run --release -p broker --example serve 127.0.0.1:1883 [WORKERS]
//! ```
//!
//! It prints the address that it listens on, which port 0 leaves to the system, and serves until standard input ends.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use broker::{Broker, Config, NoSink};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    if let Some(listen) = arguments.next() {
        config.listen = listen;
    }
    if let Some(workers) = arguments.next() {
        let Ok(workers) = workers.parse() else {
            eprintln!("the number of workers is {workers:?}, and should be a number");
            return ExitCode::from(2);
        };
        config.workers = workers;
    }
    let served = Broker::bind(config).and_then(|broker| broker.start(Arc::new(NoSink)));
    match served {
        Ok(running) => {
            println!("{}", running.local_addr());
            // Whatever comes in is of no interest, only that it ends.
            let ended = std::io::stdin().read_to_end(&mut Vec::new());
            running.shutdown();
            if ended.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
