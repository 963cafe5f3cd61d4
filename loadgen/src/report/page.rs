//! A report as one HTML page that needs nothing else: no server, no network.

use std::io;
use std::path::Path;

use super::charts::{Chart, charts};
use super::data::Report;
use super::derived::Derived;
use super::file::write_atomically;
use super::table::escape;
use super::tables;
use super::text::{Verdict, heading, machine};
use super::units::{bytes_each, micros, rate, time_ms};

/// The page of a run.
#[must_use]
pub fn page(report: &Report) -> String {
    let derived = Derived::of(report);
    let charts = charts(report, &derived);
    let mut body = format!(
        "<header><h1>{}</h1><p>{}</p><p>{}</p></header>",
        escape(&format!("{} · {}", report.name, report.scenario)),
        escape(&heading(report, &derived)),
        escape(&machine(report))
    );
    body.push_str(&verdict_box(&Verdict::of(report)));
    body.push_str(&tiles(&derived));
    body.push_str(&chart_places(&charts));
    body.push_str("<div class=\"tables\">");
    for table in [
        tables::connects(report, &derived),
        tables::published(report, &derived),
        tables::delivered(report, &derived, usize::MAX),
        tables::latencies(report),
        tables::costs(report, &derived),
    ] {
        if !table.rows.is_empty() || !table.notes.is_empty() {
            body.push_str(&table.html());
        }
    }
    if let Some(counters) = tables::counters(report) {
        body.push_str(&counters.html());
    }
    body.push_str("</div>");
    body.push_str(&remarks(&report.remarks));
    body.push_str(&details("Command", &report.command.join(" ")));
    body.push_str(&details("Scenario as it ran", &report.scenario_toml));
    let title = format!("{} · {} · millstream load", report.name, report.scenario);
    whole(&title, &body, &charts)
}

/// Writes the page of a run; a file of this name is replaced as a whole.
///
/// # Errors
/// The directory does not take the file.
pub fn write(report: &Report, path: &Path) -> io::Result<()> {
    write_atomically(path, page(report).as_bytes())
}

/// What the run comes down to, in colour.
pub(super) fn verdict_box(verdict: &Verdict) -> String {
    let mut html = format!(
        "<div class=\"verdict {}\" role=\"status\"><p>{}</p>",
        verdict.kind,
        escape(&verdict.line)
    );
    html.push_str(&list("", &verdict.more));
    html.push_str("</div>");
    html
}

/// A list of sentences; nothing for none.
pub(super) fn list(class: &str, sentences: &[String]) -> String {
    if sentences.is_empty() {
        return String::new();
    }
    let items: String = sentences
        .iter()
        .map(|sentence| format!("<li>{}</li>", escape(sentence)))
        .collect();
    format!("<ul class=\"{class}\">{items}</ul>")
}

/// Remarks as a card; nothing for none.
pub(super) fn remarks(remarks: &[String]) -> String {
    if remarks.is_empty() {
        return String::new();
    }
    let list = list("plain", remarks);
    format!("<section class=\"card\" style=\"margin-bottom:12px\"><h2>Remarks</h2>{list}</section>")
}

fn details(name: &str, text: &str) -> String {
    format!(
        "<details class=\"card\" open><summary>{}</summary><pre>{}</pre></details>",
        escape(name),
        escape(text)
    )
}

fn tiles(derived: &Derived) -> String {
    let p99 = |histo: &crate::histogram::Histo| {
        (histo.count() > 0).then(|| time_ms(histo.quantile_ms(0.99)))
    };
    let mut html = String::from("<div class=\"tiles\">");
    for (name, figure) in [
        ("Connected", derived.connects_per_s.map(rate)),
        ("Sent", derived.sent_per_s.map(rate)),
        ("Delivered", derived.delivered_per_s.map(rate)),
        ("Of others", derived.foreign_per_s.map(rate)),
        ("Acknowledged, p99", p99(&derived.acknowledgements)),
        ("Delivered, p99", p99(&derived.deliveries)),
        ("CPU a message", derived.cpu_us_per_message.map(micros)),
        (
            "Memory a client",
            derived.user_bytes_per_client.map(bytes_each),
        ),
    ] {
        if let Some(figure) = figure {
            html.push_str(&format!(
                "<div class=\"tile\"><h2>{}</h2><p>{}</p></div>",
                escape(name),
                escape(&figure)
            ));
        }
    }
    html.push_str("</div>");
    html
}

/// Where the script draws.
pub(super) fn chart_places(charts: &[Chart]) -> String {
    let mut html = String::from("<div class=\"charts\">");
    for (index, chart) in charts.iter().enumerate() {
        html.push_str(&format!(
            "<section class=\"card\"><h2>{}</h2><div class=\"chart\" id=\"chart-{index}\"></div>",
            escape(&chart.title)
        ));
        let shade = chart
            .shade
            .map(|_| "The shaded part is the measured time. ");
        let note = format!("{}{}", shade.unwrap_or_default(), chart.note);
        if !note.is_empty() {
            html.push_str(&format!(
                "<p class=\"note\">{}</p>",
                escape(note.trim_end())
            ));
        }
        html.push_str("</section>");
    }
    html.push_str("</div>");
    html
}

/// The page around `body`. Text that comes from outside must be escaped in `body`; in `charts` it is text for the script.
pub(super) fn whole(title: &str, body: &str, charts: &[Chart]) -> String {
    // `<` could end the element that holds the data, so JSON's other way to write it is used.
    let data = serde_json::to_string(charts).unwrap_or_else(|_| "[]".to_owned());
    let data = data.replace('<', "\\u003c");
    let parts = [
        ("{{title}}", escape(title)),
        ("{{style}}", include_str!("page/style.css").to_owned()),
        ("{{body}}", body.to_owned()),
        ("{{charts}}", data),
        ("{{script}}", include_str!("page/charts.js").to_owned()),
    ];
    fill(include_str!("page/page.html"), &parts)
}

/// Puts the parts into the template in one pass: what a part says is never looked at again.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    for (mark, part) in parts {
        // The parts are in the order of the template.
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn text_from_outside_stays_text() {
        let html = page(&sample::failed());
        assert!(!html.contains("<script>document"), "an element of a name");
        assert!(!html.contains("<img"), "an element of a name");
        assert!(!html.contains("<b>4"), "an element of a client identifier");
        assert!(html.contains("reader-&lt;b&gt;4&lt;/b&gt;"));
        assert!(html.contains("&lt;/pre&gt;&lt;script&gt;"));
        assert!(html.contains("\\u003c/script>\\u003cscript>"));
        assert_eq!(html.matches("<script").count(), 2);
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let html = page(&sample::passed());
        for loader in ["https://", "src=", "url(", "@import", "<link", "fetch("] {
            assert!(!html.contains(loader), "{loader}");
        }
        let names = html.matches("http://www.w3.org/").count();
        assert_eq!(html.matches("http://").count(), names, "the name of SVG");
    }

    #[test]
    fn a_page_is_small_enough_to_be_kept_by_the_hundred() {
        let size = page(&sample::failed()).len();
        assert!(size < 100_000, "{size} bytes");
    }

    #[test]
    fn the_verdict_is_the_first_thing_below_the_heading() {
        for (report, expected) in [
            (
                sample::passed(),
                "<div class=\"verdict passed\" role=\"status\"><p>PASSED</p></div>",
            ),
            (
                sample::limited(),
                "<div class=\"verdict limited\" role=\"status\"><p>THE TOOL WAS THE LIMIT",
            ),
            (
                sample::failed(),
                "<div class=\"verdict failed\" role=\"status\"><p>FAILED",
            ),
        ] {
            assert!(page(&report).contains(&format!("</header>{expected}")));
        }
    }

    #[test]
    fn a_part_that_looks_like_a_mark_is_left_alone() {
        let parts = [("{{a}}", "{{b}}".to_owned()), ("{{b}}", "x".to_owned())];
        assert_eq!(fill("<{{a}}|{{b}}>", &parts), "<{{b}}|x>");
    }
}
