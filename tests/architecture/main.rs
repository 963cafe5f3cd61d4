//! docs/ARCHITECTURE.md tells the truth: the files, functions and tests that it names are there, every file has its place
//! in a table, and crates depend on each other as it says.

mod dependencies;
mod document;

use std::path::Path;

use document::{names, root, rows, section, sources, table, text};

/// Whether `text` has a function of this name.
fn has_function(text: &str, name: &str) -> bool {
    [format!("fn {name}("), format!("fn {name}<")]
        .iter()
        .any(|beginning| text.contains(beginning))
}

#[test]
fn each_path_that_is_named_exists() {
    let mut checked = 0;
    for name in names(&text()) {
        let path = name.contains('/')
            && !name.contains([' ', '<', '{', '$', '+', '*'])
            && (name.ends_with('/') || Path::new(&name).extension().is_some());
        // Of a table of one directory, or from the root.
        let directories = [
            "",
            "broker/src",
            "broker/identity/src",
            "bridge/src",
            "consumers/runtime/src",
            "loadgen/src",
            "src",
        ];
        if path && !name.starts_with('/') {
            checked += 1;
            let there = directories
                .iter()
                .any(|directory| root().join(directory).join(&name).exists());
            assert!(
                there,
                "docs/ARCHITECTURE.md names {name}, which is not there"
            );
        }
    }
    assert!(
        checked > 20,
        "{checked} paths: are they still written in backticks?"
    );
}

#[test]
fn each_function_on_a_messages_way_exists() {
    for row in table("| file | function |") {
        let file = names(&row[0]).remove(0);
        let text = std::fs::read_to_string(root().join(&file)).expect(&file);
        let functions = names(&row[1]);
        assert!(!functions.is_empty(), "{file}: which function?");
        for function in functions {
            assert!(
                has_function(&text, &function),
                "{file} has no fn {function}"
            );
        }
    }
}

#[test]
fn each_file_has_its_place_in_a_table() {
    let mut problems = Vec::new();
    for (heading, directory) in [
        ("### The binary (`src/`)", "src"),
        ("### The broker (`broker/src/`)", "broker/src"),
        ("### The bridge (`bridge/src/`)", "bridge/src"),
        (
            "### The runtime (`consumers/runtime/src/`)",
            "consumers/runtime/src",
        ),
        (
            "### Replay (`consumers/replay/src/`)",
            "consumers/replay/src",
        ),
        ("### The load generator (`loadgen/src/`)", "loadgen/src"),
    ] {
        let section = section(heading);
        let head = if section.contains("| file |") {
            "| file |"
        } else {
            "| path |"
        };
        let listed: Vec<String> = rows(&section, head)
            .iter()
            .flat_map(|row| names(&row[0]))
            .collect();
        let mut there = Vec::new();
        for entry in std::fs::read_dir(root().join(directory)).expect(directory) {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            there.push(if path.is_dir() {
                format!("{name}/")
            } else {
                name
            });
        }
        for name in &there {
            // `worker/` stands for `worker.rs`, too, and `poller.rs` for the tests below it.
            let stem = name.trim_end_matches('/').trim_end_matches(".rs");
            if !listed.contains(&format!("{stem}/")) && !listed.contains(&format!("{stem}.rs")) {
                problems.push(format!("{directory}/{name} has no line"));
            }
        }
        for name in &listed {
            if !root().join(directory).join(name).exists() {
                problems.push(format!("{directory}/{name} has a line and is not there"));
            }
        }
    }
    assert!(problems.is_empty(), "docs/ARCHITECTURE.md: {problems:#?}");
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let section = section("## Invariants");
    let sources = sources();
    let is_test = |name: &str| {
        sources.iter().any(|(_, text)| {
            text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
                let before: Vec<&str> = text[..at].lines().rev().take(4).collect();
                before.iter().any(|line| {
                    let line = line.trim_start();
                    line.starts_with("#[test") || line.starts_with("#[tokio::test")
                })
            })
        })
    };
    let mut invariants = 0;
    for (number, text) in (1..).map_while(|number: u32| {
        let (_, rest) = section.split_once(&format!("\n{number}. **"))?;
        let end = rest
            .find(&format!("\n{}. **", number + 1))
            .unwrap_or(rest.len());
        Some((number, rest[..end].to_owned()))
    }) {
        invariants = number;
        let (_, tests) = text
            .split_once("Tested by ")
            .unwrap_or_else(|| panic!("invariant {number} names no test"));
        let tests = names(tests);
        assert!(!tests.is_empty(), "invariant {number} names no test");
        for test in tests {
            assert!(
                is_test(&test),
                "invariant {number} names {test}, which is no test"
            );
        }
    }
    assert!(
        invariants >= 12,
        "{invariants} invariants: are they still numbered?"
    );
}

#[test]
fn a_session_knows_no_io_and_no_clock() {
    let mut looked_at = 0;
    for (path, text) in sources() {
        let path = path
            .strip_prefix(root())
            .expect("below")
            .to_string_lossy()
            .into_owned();
        if path == "broker/src/session.rs" || path.starts_with("broker/src/session/") {
            looked_at += 1;
            for outside in [
                "std::net",
                "std::io",
                "std::fs",
                "std::thread",
                "Instant",
                "SystemTime",
                "mio::",
            ] {
                assert!(!text.contains(outside), "{path} uses {outside}");
            }
        }
    }
    assert!(looked_at >= 3, "where are the sessions?");
}

#[test]
fn crates_share_fixtures_by_testkit_and_not_by_path() {
    for (path, text) in sources() {
        let package = |path: &Path| {
            path.ancestors()
                .skip(1)
                .find(|directory| directory.join("Cargo.toml").exists())
                .map(Path::to_owned)
        };
        for (at, _) in text.match_indices("#[path = \"") {
            let taken = text[at..].split('"').nth(1).unwrap_or_default();
            let Ok(taken) = path.with_file_name(taken).canonicalize() else {
                continue; // this test's own text
            };
            // cargo-fuzz wants a package of its own inside the one that it fuzzes.
            let fuzz = path.to_string_lossy().contains("/fuzz/");
            assert!(
                fuzz || package(&taken) == package(&path),
                "{} takes in {} of another crate: testkit is for that",
                path.display(),
                taken.display()
            );
        }
    }
}
