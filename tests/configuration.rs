//! The configuration's page and what `config check` prints.

use std::path::Path;

use testkit::millstream::run;

#[test]
fn the_page_is_what_the_binary_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let reference = run(&["config", "reference"]);
    assert_eq!(reference.status.code(), Some(0), "{}", reference.err);
    // The whole page in a failure would hide the line that matters.
    for (number, (ours, theirs)) in page.lines().zip(reference.out.lines()).enumerate() {
        let line = number + 1;
        assert_eq!(
            ours, theirs,
            "line {line}: run `cargo run -- config reference > docs/CONFIGURATION.md`"
        );
    }
    assert!(
        page == reference.out,
        "run `cargo run -- config reference > docs/CONFIGURATION.md`"
    );
}

#[test]
fn what_check_prints_is_a_file_that_means_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (given, printed) = (
        dir.path().join("given.toml"),
        dir.path().join("printed.toml"),
    );
    std::fs::write(
        &given,
        "[broker]\nworkers = 3\n\n[bridge.properties]\n\"sasl.password\" = \"hunter2\"\n",
    )
    .expect("a file");
    let first = run(&["config", "check", given.to_str().expect("UTF-8")]);
    assert_eq!(first.status.code(), Some(0), "{}", first.err);
    assert!(first.out.contains("workers = 3"), "{}", first.out);
    assert!(
        first.out.contains("packet_bytes_max = "),
        "defaults are shown too: {}",
        first.out
    );
    assert!(!first.out.contains("hunter2"), "secrets are not");
    std::fs::write(&printed, &first.out).expect("a file");
    let second = run(&["config", "check", printed.to_str().expect("UTF-8")]);
    assert_eq!(second.status.code(), Some(0), "{}", second.err);
    assert_eq!(second.out, first.out);
}

#[test]
fn help_teaches_each_command_with_an_example() {
    for command in [
        &["up"][..],
        &["broker"],
        &["chat"],
        &["iot"],
        &["dashboard"],
        &["config", "check"],
        &["config", "reference"],
    ] {
        let help = run(&[command, &["--help"]].concat());
        assert_eq!(help.status.code(), Some(0), "{command:?}");
        let example = format!("  millstream {}", command[0]);
        assert!(
            help.out.contains("Example")
                && (help.out.contains(&example) || help.out.contains("  millstream chat")),
            "{}",
            help.out
        );
    }
}
