//! The pages in a real browser: every chart is drawn, nothing is asked of the network, no text runs.

use std::path::PathBuf;

use serde_json::json;

use super::compare::Comparison;
use super::{page, sample};
use testkit::browser::Browser;

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
    browser.until("document.querySelector('.chart path.line') !== null");
    let drawn = "[...document.querySelectorAll('.chart')].filter((c) => c.querySelector('svg .trace')).length";
    browser.until(&format!("{drawn} === {charts}"));
    let titles = browser.value("document.title + document.querySelectorAll('img').length");
    let title = titles.as_str().expect("a text");
    assert!(title.ends_with("millstream load0"), "{title}");
    // A table scrolls in its card; the page itself never does to the side.
    // Not `innerWidth`: a telephone's browser widens that to what is too wide.
    let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    let wide = browser.value(wide);
    assert!(
        wide.as_i64().expect("a number") <= 0,
        "{wide} pixels too wide"
    );
    browser.screenshot(&place.path.join(format!("{name}.png")));
    assert_eq!(browser.complaints, Vec::<String>::new());
    let asked: Vec<&String> = browser
        .requests
        .iter()
        .filter(|asked| **asked != url)
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
    for (width, report) in [
        (320, sample::failed()),
        (360, sample::passed()),
        (414, sample::limited()),
    ] {
        let small =
            json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": true });
        browser.call("Emulation.setDeviceMetricsOverride", small);
        let name = format!("small-{width}");
        look(&mut browser, &place, &name, &page::page(&report), 6);
    }
}

#[test]
fn a_chart_shows_what_is_under_the_pointer_and_hides_lines() {
    let place = place();
    let mut browser = Browser::start(1_280, 900);
    look(
        &mut browser,
        &place,
        "pointed",
        &page::page(&sample::passed()),
        6,
    );
    // Second 10 of the rates: what the report says of it is what is shown.
    let point = "(() => { const picture = document.querySelector('#chart-0 svg').getBoundingClientRect();
        const tick = [...document.querySelectorAll('#chart-0 text')].find((text) => text.textContent === '10').getBoundingClientRect();
        document.querySelector('#chart-0 svg').dispatchEvent(new PointerEvent('pointermove', { clientX: (tick.left + tick.right) / 2, clientY: picture.top + 50 }));
        return document.querySelector('#chart-0 .pointed').innerText; })()";
    let shown = browser.value(point);
    let shown = shown.as_str().expect("a text");
    let sent = sample::passed().seconds[9].sent;
    let sent = format!("sent: {},{:03} /s", sent / 1_000, sent % 1_000);
    assert!(shown.starts_with("10 s\n"), "{shown}");
    assert!(shown.contains(&sent), "no {sent} in {shown}");
    let traces = "document.querySelectorAll('#chart-0 .trace').length";
    let all = browser.value(traces).as_u64().expect("a number");
    browser.value("document.querySelector('#chart-0 .key').click()");
    assert_eq!(browser.value(traces), json!(all - 1));
    browser.value("document.querySelector('#chart-0 .key').click()");
    assert_eq!(browser.value(traces), json!(all));
}
