//! A report for a terminal: about one screen, the verdict first.

use super::data::Report;
use super::derived::Derived;
use super::table::{Style, Table};
use super::tables;
use super::units::{bytes, plain, seconds, utc};

/// Subscribers with trouble that each audience names; the page and the JSON name more.
const WORST_SHOWN: usize = 3;

/// How a run ended, in one line and a word for its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `passed`, `failed` or `limited`.
    pub kind: &'static str,
    /// The line.
    pub line: String,
    /// What the line has no room for.
    pub more: Vec<String>,
}

impl Verdict {
    /// Of a run: that the broker was lost comes before anything else, which follows from it; then that the tool was the limit,
    /// for then nothing else is about the broker.
    pub fn of(report: &Report) -> Self {
        let ended = report.interrupted.as_ref();
        let so_far = ended.map_or_else(String::new, |by| format!(" so far (interrupted by {by})"));
        let mut more = report.failures.clone();
        let (kind, line) = if let Some(lost) = &report.broker_lost {
            more.retain(|failure| failure != lost);
            ("failed", format!("{}. FAILED{so_far}", headline(lost)))
        } else if report.measured_nothing() && report.passed() {
            let by = ended.map_or("", String::as_str);
            let line = format!(
                "NOTHING WAS MEASURED: interrupted by {by} before there was anything to measure"
            );
            ("limited", line)
        } else {
            let limited = !report.tool_was_the_limit.is_empty();
            let outcome = match report.failures.first() {
                None => format!("PASSED{so_far}"),
                Some(_) if limited => format!("FAILED{so_far}"),
                Some(first) => {
                    more.remove(0);
                    format!("FAILED{so_far}: {first}")
                }
            };
            if limited {
                let reasons = report.tool_was_the_limit.join("; ");
                let line = format!("THE TOOL WAS THE LIMIT, not the broker: {reasons}. {outcome}");
                ("limited", line)
            } else if report.passed() {
                ("passed", outcome)
            } else {
                ("failed", outcome)
            }
        };
        for share in &report.lost_shares {
            more.push(format!("not in these figures: {share}"));
        }
        Self { kind, line, more }
    }
}

/// What comes before the colon in capitals.
fn headline(sentence: &str) -> String {
    match sentence.split_once(':') {
        Some((what, how)) => format!("{}:{how}", what.to_uppercase()),
        None => sentence.to_uppercase(),
    }
}

/// The summary. `color` is for terminals that show it.
#[must_use]
pub fn text(report: &Report, color: bool) -> String {
    let style = Style { color };
    let derived = Derived::of(report);
    let verdict = Verdict::of(report);
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let first = plain(&verdict.line);
    line(match verdict.kind {
        "passed" => style.good(&first),
        "failed" => style.bad(&first),
        _ => style.warn(&first),
    });
    for reason in &verdict.more {
        line(format!("  {}", plain(reason)));
    }
    line(plain(&heading(report, &derived)));
    line(plain(&machine(report)));
    for table in [
        tables::connects(report, &derived),
        tables::published(report, &derived),
        tables::delivered(report, &derived, WORST_SHOWN),
        tables::latencies(report),
        tables::costs(report, &derived),
    ] {
        if !empty(&table) {
            line(String::new());
            line(table.text(style).trim_end().to_owned());
        }
    }
    if !report.remarks.is_empty() {
        line(String::new());
    }
    for remark in &report.remarks {
        line(format!("Note: {}", plain(remark)));
    }
    text
}

fn empty(table: &Table) -> bool {
    table.rows.is_empty() && table.notes.is_empty()
}

/// What ran, against whom and when.
pub(super) fn heading(report: &Report, derived: &Derived) -> String {
    let over = match report.transport.as_str() {
        "" => String::new(),
        transport => format!(" over {transport}"),
    };
    format!(
        "{}: scenario {} on {}{over}, {}, measured for {}",
        report.name,
        report.scenario,
        report.target,
        utc(report.began_at_ms),
        seconds(derived.measured_s)
    )
}

/// On what it ran.
pub(super) fn machine(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "{}, {} of memory, {}; millstream load {}",
        machine.processor,
        bytes(machine.memory_bytes as f64),
        machine.system,
        report.tool_version
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::swarm::Handshakes;

    #[test]
    fn a_good_run_fits_on_a_screen_and_begins_with_the_verdict() {
        let text = text(&sample::passed(), false);
        println!("{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "PASSED");
        assert!(lines.len() <= 45, "{} lines", lines.len());
        for line in &lines[3..] {
            assert!(line.chars().count() <= 110, "{line}");
        }
        for expected in [
            "millstream: scenario pairs on 127.0.0.1:1883, 2026-02-28 09:05:00 UTC, measured for 20.0 s",
            "CONNECTS  clients   begun  accepted  closed       in      rate  filters  refused",
            "all        18,000  18,000    18,000       0  0.900 s  20,000/s    9,000        0",
            "messages     1  240,000  240,000  240,000          0             0  10,000/s",
            "server memory     512 B",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_is_between_the_sockets_and_mqtt_is_said_with_its_handshakes() {
        let mut report = sample::passed();
        assert!(!text(&report, false).contains("handshakes"));
        report.transport = "WebSocket over TLS".to_owned();
        report.connects.handshakes = Handshakes {
            full: 18_000,
            resumed: 1_234,
        };
        let text = text(&report, false);
        for expected in [
            "scenario pairs on 127.0.0.1:1883 over WebSocket over TLS, 2026",
            "TLS handshakes: 18,000 full, 1,234 resumed",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }

    #[test]
    fn what_shares_are_depends_on_where_the_broker_was() {
        let mut report = sample::passed();
        for (target, shares, expected) in [
            ("127.0.0.1:1883", 2, "cores by 2 processes\n"),
            ("127.0.0.1:1883", 1, "cores by 1 process\n"),
            ("simulated", 2, "cores by 2 threads, of broker and clients"),
            ("simulated", 1, "cores by 1 thread, of"),
        ] {
            report.target = target.to_owned();
            report.tool.shares = shares;
            let text = text(&report, false);
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
            let both = text.contains("CPU of both") && !text.contains("tool CPU");
            assert_eq!(both, target == "simulated", "{text}");
            assert_eq!(both, !text.contains("tool memory"), "{text}");
        }
    }

    #[test]
    fn the_first_line_says_what_matters_most() {
        let mut both = sample::failed();
        both.tool_was_the_limit = vec!["sends were late".to_owned()];
        let mut interrupted = sample::passed();
        interrupted.interrupted = Some("Ctrl-C".to_owned());
        let mut early = interrupted.clone();
        early.measured = (0.0, 0.0);
        let mut silent = interrupted.clone();
        for stream in &mut silent.streams {
            stream.counts.sent_measured = 0;
        }
        for audience in &mut silent.audiences {
            audience.delivered_measured = 0;
        }
        let nothing =
            "NOTHING WAS MEASURED: interrupted by Ctrl-C before there was anything to measure";
        let mut died = both.clone();
        let why = "the broker died: its process 7 (x) ended".to_owned();
        died.failures.insert(0, why.clone());
        died.broker_lost = Some(why);
        for (report, kind, expected) in [
            (early, "limited", nothing),
            (silent, "limited", nothing),
            (
                died,
                "failed",
                "THE BROKER DIED: its process 7 (x) ended. FAILED so far (interrupted by Ctrl-C)",
            ),
            (sample::passed(), "passed", "PASSED"),
            (
                interrupted,
                "passed",
                "PASSED so far (interrupted by Ctrl-C)",
            ),
            (
                sample::failed(),
                "failed",
                "FAILED so far (interrupted by Ctrl-C): 12 messages are missing, 0 are allowed",
            ),
            (
                sample::limited(),
                "limited",
                "THE TOOL WAS THE LIMIT, not the broker: its busiest process used 99% of a core. PASSED",
            ),
            (
                both,
                "limited",
                "THE TOOL WAS THE LIMIT, not the broker: sends were late. FAILED so far (interrupted by Ctrl-C)",
            ),
        ] {
            let verdict = Verdict::of(&report);
            assert_eq!((verdict.kind, verdict.line.as_str()), (kind, expected));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_subscribers_and_cannot_harm_the_terminal() {
        let text = text(&sample::failed(), true);
        println!("{text}");
        for expected in [
            "3 publishes were refused, 0 are allowed",
            "reader-17: 9 missing, 0 duplicate, 0 out of order",
            "closed or not connected: 4 × keep-alive \u{fffd}[2J timeout; 2 × connection refused",
            "of those that read slowly: 1 × connection reset",
            "reads 2.00 kB a second: nothing is called missing",
            ": 2 deliveries have other bytes than were published",
            ": 4 deliveries have another QoS",
            "was refused: 3 × quota exceeded",
            "1 messages came to clients that had not asked for them",
            "not in these figures: 127.0.0.1:7001 (it stopped answering)",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
        assert!(text.starts_with("\u{1b}[1;31mFAILED"));
        assert!(!text.contains("\u{1b}[2J"));
    }

    #[test]
    fn an_empty_report_is_shown_too() {
        let report = Report {
            streams: Vec::new(),
            audiences: Vec::new(),
            seconds: Vec::new(),
            server: None,
            measured: (0.0, 0.0),
            connects: Default::default(),
            tool: Default::default(),
            ..sample::passed()
        };
        let text = text(&report, false);
        assert!(text.contains("CONNECTS") && !text.contains("NaN"), "{text}");
    }
}
