//! The commands of README.md and docs/*.md do what they say: each fenced `sh` block is run as it stands, in the order of its
//! document, against a node of the real binary.
//!
//! Only addresses are other ones (free ports), servers end when they have started, and loads are small: see `bin/`. A block
//! that cannot be run is marked in its document: `<!-- not run: the reason -->` in the line before it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use testkit::clients::publish_lines;
use testkit::eventually;
use testkit::kafka::Kafka;
use testkit::millstream::{Millstream, binary};

/// So many blocks may be marked as not run; each has a reason.
const NOT_RUN_MAX: usize = 6;
/// What the line before a block says that is not run.
const NOT_RUN: &str = "<!-- not run: ";
/// Longer than any block takes; what hangs is ended.
const BLOCK_SECONDS_MAX: u32 = 120;

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fenced `sh` block.
struct Block {
    document: String,
    line: usize,
    text: String,
    /// Why it is not run.
    not_run: Option<String>,
}

fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> = std::fs::read_dir(checkout().join("docs"))
        .expect("docs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.push(checkout().join("README.md"));
    documents.sort();
    documents
}

fn blocks(document: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(document).expect("a document");
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        assert!(
            !["```bash", "```shell", "```console"].contains(line),
            "{}:{}: commands are in blocks of `sh`, so that they are run",
            document.display(),
            at + 1
        );
        if *line != "```sh" {
            continue;
        }
        let before = at.checked_sub(1).map_or("", |before| lines[before]);
        let body = lines[at + 1..].iter().take_while(|line| **line != "```");
        blocks.push(Block {
            document: document
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            line: at + 1,
            text: body.map(|line| format!("{line}\n")).collect(),
            not_run: before
                .strip_prefix(NOT_RUN)
                .map(|reason| reason.trim_end_matches("-->").trim().to_owned()),
        });
    }
    blocks
}

/// What the commands meet: a node with everything in it, what clients sent there, and a real Kafka.
struct World {
    node: Millstream,
    embedded_kafka: String,
    kafka: &'static Kafka,
}

impl World {
    fn start() -> Self {
        let node = Millstream::start(&["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let embedded_kafka = eventually("the address of the Kafka in memory", || {
            let out = node.out();
            let line = out
                .lines()
                .find_map(|line| line.trim().strip_prefix("Kafka "))?;
            line.split_whitespace().next().map(str::to_owned)
        });
        // The room and the device that the documents' examples are about.
        let lines: Vec<String> = (1..=50)
            .map(|n| format!(r#"{{"id":"w-{n}","from":"carol","text":"hello"}}"#))
            .collect();
        publish_lines(node.mqtt(), "rooms/lobby/messages", &lines.join("\n"));
        publish_lines(node.mqtt(), "devices/d-17/telemetry/temperature", "21.5");
        eventually("the room's messages in the chat backend's store", || {
            let room = node.try_json("/chat/api/rooms/lobby").ok()?;
            (room["last_seq"].as_u64()? >= 50).then_some(())
        });
        eventually("the device in the IoT backend's store", || {
            (node.get("/iot/api/devices/d-17").0 == 200).then_some(())
        });
        Self {
            node,
            embedded_kafka,
            kafka: Kafka::shared(),
        }
    }

    /// Runs `block` in `directory`.
    fn run(&self, block: &Block, directory: &Path) -> Result<(), String> {
        // What stores durably, or needs Kafka's own tools, does so in a real Kafka.
        let real = block.text.contains("--kafka") || block.text.contains("kafka.sh");
        let kafka = if real {
            self.kafka.bootstrap()
        } else {
            &self.embedded_kafka
        };
        let http = self.node.http.trim_start_matches("http://");
        let mqtt = self.node.mqtt().to_string();
        let commands = block
            .text
            .replace("cargo run --release --", "millstream")
            .replace("127.0.0.1:9092", kafka)
            .replace("127.0.0.1:8080", http)
            .replace("127.0.0.1:1883", &mqtt)
            .replace("10.0.0.9:1883", &mqtt)
            .replace("10.0.0.8:1883", &mqtt);
        let subscriber = if block.text.contains("mosquitto_sub") {
            directory
                .join(format!("subscriber-{}", block.line))
                .display()
                .to_string()
        } else {
            String::new()
        };
        // What was put into the background belongs to the block.
        let script = format!(
            "set -euo pipefail\n{commands}\nfor job in $(jobs -p); do wait \"$job\"; done\n"
        );
        let log = directory.join("log");
        let file = std::fs::File::create(&log).expect("a file");
        let bin = checkout().join("tests/documents/bin");
        let path = std::env::var("PATH").expect("a path");
        // In a process group of its own, which `timeout` ends with it.
        let status = Command::new("timeout")
            .args([
                "--kill-after=5",
                &BLOCK_SECONDS_MAX.to_string(),
                "bash",
                "-c",
                &script,
            ])
            .current_dir(directory)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("REAL_MILLSTREAM", binary())
            .env("MQTT", &mqtt)
            .env("SUBSCRIBER", subscriber)
            .env("CHECKOUT", checkout())
            .env("KAFKA_DIR", self.kafka.directory())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .status()
            .expect("timeout and bash can be run");
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read(&log).expect("the log");
        Err(format!(
            "{}:{}: {status}\n{commands}{}",
            block.document,
            block.line,
            String::from_utf8_lossy(&log)
        ))
    }
}

#[test]
fn the_commands_of_the_documents_work() {
    let world = World::start();
    let mut failures = Vec::new();
    let mut ran = 0;
    for document in documents() {
        // Files that one block writes are there for the next one of its document.
        let directory = tempfile::tempdir().expect("a directory");
        let scripts = directory.path().join("scripts");
        std::fs::create_dir(&scripts).expect("a directory");
        std::fs::copy(
            checkout().join("tests/documents/kafka.sh"),
            scripts.join("kafka.sh"),
        )
        .expect("a copy");
        for block in blocks(&document)
            .iter()
            .filter(|block| block.not_run.is_none())
        {
            let began = Instant::now();
            if let Err(failure) = world.run(block, directory.path()) {
                failures.push(failure);
            }
            ran += 1;
            println!("{}:{}: {:.1?}", block.document, block.line, began.elapsed());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(ran >= 15, "only {ran} blocks");
}

#[test]
fn few_blocks_are_not_run_and_each_says_why() {
    let all: Vec<Block> = documents()
        .iter()
        .flat_map(|document| blocks(document))
        .collect();
    let not_run: Vec<String> = all
        .iter()
        .filter_map(|block| {
            let reason = block.not_run.as_ref()?;
            assert!(reason.len() > 10, "{}:{}: why?", block.document, block.line);
            Some(format!("{}:{}: {reason}", block.document, block.line))
        })
        .collect();
    assert!(not_run.len() <= NOT_RUN_MAX, "{not_run:#?}");
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("a document");
        let marks = text.matches(NOT_RUN).count();
        let marked = blocks(&document)
            .iter()
            .filter(|block| block.not_run.is_some())
            .count();
        assert_eq!(
            marks,
            marked,
            "{}: a mark is not before its block",
            document.display()
        );
    }
}
