//! docs/ARCHITECTURE.md, as tests read it.

use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The document.
pub fn text() -> String {
    std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the document")
}

/// The part between the heading that is `heading` and the next one.
pub fn section(heading: &str) -> String {
    let text = text();
    let (_, rest) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no {heading:?}"));
    rest.split("\n#").next().unwrap_or_default().to_owned()
}

/// The rows of the first table in `text` whose head begins with `head`, cell by cell.
pub fn rows(text: &str, head: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table with the head {head:?}");
    rows
}

/// The rows of the document's first table whose head begins with `head`.
pub fn table(head: &str) -> Vec<Vec<String>> {
    rows(&text(), head)
}

/// What stands in backticks.
pub fn names(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// Every source file of this project, with its text.
pub fn sources() -> Vec<(PathBuf, String)> {
    fn below(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    below(&path, found);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    below(root(), &mut found);
    found
}
