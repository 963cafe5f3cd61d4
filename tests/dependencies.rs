//! Dependencies point one way: what `cargo metadata` says is compared with the list of docs/ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which crate of this workspace may use which others. A new edge needs a reason in docs/ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("settings", &[]),
    ("topic", &[]),
    ("codec", &["topic"]),
    ("broker", &["codec", "settings", "topic"]),
    ("envelope", &["topic"]),
    ("bridge", &["broker", "envelope", "settings", "topic"]),
    ("runtime", &["envelope", "settings"]),
    ("chat", &["envelope", "runtime", "settings"]),
    ("iot", &["envelope", "runtime", "settings"]),
    ("dashboard", &["envelope", "runtime", "settings"]),
    ("loadgen", &["broker", "codec", "settings", "topic"]),
    ("testkit", &["envelope"]),
    (
        "millstream",
        &[
            "bridge",
            "broker",
            "chat",
            "codec",
            "dashboard",
            "envelope",
            "iot",
            "loadgen",
            "runtime",
            "settings",
            "topic",
        ],
    ),
];

/// Libraries that only these crates may use: the broker never speaks Kafka, a backend never speaks MQTT.
const OUTSIDE: &[(&str, &[&str])] = &[
    (
        "rdkafka",
        &[
            "bridge",
            "runtime",
            "chat",
            "iot",
            "dashboard",
            "loadgen",
            "millstream",
            "testkit",
        ],
    ),
    ("rumqttc", &["bridge", "millstream", "testkit"]),
    ("sqlx", &["runtime", "chat", "iot", "dashboard"]),
    (
        "axum",
        &["runtime", "chat", "iot", "dashboard", "millstream"],
    ),
    ("mio", &["broker", "loadgen"]),
];

/// Normal dependencies of each crate of the workspace, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = |package: &Value| {
        package["dependencies"]
            .as_array()
            .expect("a list")
            .iter()
            // Tests and build scripts may use anything: they are not shipped.
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|package| {
            (
                package["name"].as_str().expect("a name").to_owned(),
                names(package),
            )
        })
        .collect()
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let dependencies = dependencies();
    let crates: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(crates, listed, "left: the workspace, right: the list");
    for (name, allowed) in ALLOWED {
        let used: BTreeSet<&str> = dependencies[*name]
            .iter()
            .map(String::as_str)
            .filter(|name| crates.contains(name))
            .collect();
        let forbidden: Vec<_> = used
            .iter()
            .filter(|other| !allowed.contains(other))
            .collect();
        assert!(forbidden.is_empty(), "{name} may not use {forbidden:?}");
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    let dependencies = dependencies();
    for (library, allowed) in OUTSIDE {
        for (name, used) in &dependencies {
            assert!(
                !used.contains(*library) || allowed.contains(&name.as_str()),
                "{name} may not use {library}: only {allowed:?} may"
            );
        }
    }
    for (name, used) in &dependencies {
        assert!(
            !used.contains("testkit"),
            "{name} may use testkit in its tests only"
        );
    }
    assert!(
        dependencies["topic"].is_empty(),
        "topic uses nothing: {:?}",
        dependencies["topic"]
    );
}
