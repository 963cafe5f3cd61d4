//! The pages in a real browser: every chart is drawn, nothing is asked of the network, no text runs.

use std::path::PathBuf;

use serde_json::json;

use super::browser::Browser;
use super::compare::Comparison;
use super::{page, sample};

/// Where pages and pictures go: the directory that the environment names, or one that is removed.
struct Place {
    path: PathBuf,
    _temporary: tempfile::TempDir,
}

fn place() -> Place {
    let temporary = tempfile::tempdir().expect("a directory");
    let named = std::env::var_os("MILLSTREAM_SCREENSHOTS").map(PathBuf::from);
    Place {
        path: named.unwrap_or_else(|| temporary.path().to_owned()),
        _temporary: temporary,
    }
}

/// Opens a page from a file, waits for its charts, and takes its picture.
fn look(browser: &mut Browser, place: &Place, name: &str, html: &str, charts: usize) {
    let file = place.path.join(format!("{name}.html"));
    std::fs::write(&file, html).expect("can be written");
    browser.requests.clear();
    let url = format!("file://{}", file.display());
    browser.open(&url);
    browser.until("document.readyState === 'complete'");
    browser.until("document.querySelector('.chart path.js-line') !== null");
    let drawn = "[...document.querySelectorAll('.chart')].filter((c) => c.querySelector('svg .trace')).length";
    browser.until(&format!("{drawn} === {charts}"));
    let titles = browser.value("document.title + document.querySelectorAll('img').length");
    let title = titles.as_str().expect("a text");
    assert!(title.ends_with("millstream load0"), "{title}");
    // A table scrolls in its card; the page itself never does to the side.
    let wide = browser.value("document.documentElement.scrollWidth - window.innerWidth");
    assert!(
        wide.as_i64().expect("a number") <= 0,
        "{wide} pixels too wide"
    );
    browser.screenshot(&place.path.join(format!("{name}.png")));
    assert_eq!(browser.complaints, Vec::<String>::new());
    // Plotly makes its own pictures as data; nothing else than the page may be asked for.
    let asked: Vec<&String> = browser
        .requests
        .iter()
        .filter(|asked| {
            **asked != url && !asked.starts_with("data:") && !asked.starts_with("blob:")
        })
        .collect();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn the_pages_are_drawn_in_light_and_dark_and_on_a_small_screen() {
    let place = place();
    let mut browser = Browser::start(1_280, 900);
    look(
        &mut browser,
        &place,
        "passed",
        &page::page(&sample::passed()),
        6,
    );
    let runs = [sample::passed(), sample::limited(), sample::failed()];
    let comparison = Comparison::of(&runs).expect("three runs").page();
    look(&mut browser, &place, "compared", &comparison, 6);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.call("Emulation.setEmulatedMedia", dark);
    look(
        &mut browser,
        &place,
        "failed-dark",
        &page::page(&sample::failed()),
        6,
    );
    let small = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", small);
    look(
        &mut browser,
        &place,
        "limited-small",
        &page::page(&sample::limited()),
        6,
    );
}
