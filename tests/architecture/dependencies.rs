//! Dependencies point one way: what `cargo metadata` says is compared with the tables of docs/ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::document::{names, table};

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
    let allowed: BTreeMap<String, Vec<String>> = table("| crate | may use |")
        .iter()
        .map(|row| (names(&row[0]).remove(0), names(&row[1])))
        .collect();
    let listed: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    assert_eq!(crates, listed, "left: the workspace, right: the table");
    for (name, allowed) in &allowed {
        let used: BTreeSet<&str> = dependencies[name]
            .iter()
            .map(String::as_str)
            .filter(|name| crates.contains(name))
            .collect();
        let forbidden: Vec<_> = used
            .iter()
            .filter(|other| !allowed.iter().any(|name| name == **other))
            .collect();
        assert!(forbidden.is_empty(), "{name} may not use {forbidden:?}");
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    let dependencies = dependencies();
    for row in table("| library | only in |") {
        let (library, allowed) = (names(&row[0]).remove(0), names(&row[1]));
        for (name, used) in &dependencies {
            assert!(
                !used.contains(&library) || allowed.contains(name),
                "{name} may not use {library}: only {allowed:?} may"
            );
        }
        for name in &allowed {
            assert!(
                dependencies[name].contains(&library),
                "{name} does not use {library}: the table is out of date"
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
