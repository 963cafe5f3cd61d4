//! The tables of a report: the ledger, the times, and what it cost.

use std::collections::BTreeMap;

use super::data::{AudienceReport, Report, StreamReport};
use super::derived::{Derived, kernel_bytes};
use super::table::{Cell, Table};
use super::units::{
    bytes, bytes_each, count, counted, cut, figure, micros, rate, seconds, time_ms,
};
use crate::histogram::Histo;
use crate::swarm::Handshakes;

/// Reasons that a note names; the others are added up.
const REASONS_MAX: usize = 5;

/// Characters of a name from outside within a sentence.
const NAME_CHARS_MAX: usize = 60;

/// Connecting and subscribing.
pub(super) fn connects(report: &Report, derived: &Derived) -> Table {
    let connects = &report.connects;
    let head = [
        "CONNECTS", "clients", "begun", "accepted", "closed", "in", "rate", "filters", "refused",
    ];
    let mut table = Table::new("Connecting and subscribing", &head);
    let closed: u64 = connects.closed.values().sum();
    table.row(vec![
        "all".into(),
        count(connects.clients).into(),
        count(connects.begun).into(),
        Cell::marked(
            count(connects.accepted),
            connects.accepted < connects.clients,
        ),
        Cell::marked(count(closed), closed > report.checks.closed_max),
        seconds(connects.seconds).into(),
        shown(derived.connects_per_s, rate).into(),
        count(connects.granted).into(),
        Cell::marked(count(connects.refused), connects.refused > 0),
    ]);
    if closed > 0 {
        let reasons = reasons(&connects.closed);
        table.note(
            format!("closed or not connected: {reasons}"),
            closed > report.checks.closed_max,
        );
    }
    if !connects.closed_slow.is_empty() {
        let reasons = reasons(&connects.closed_slow);
        table.note(format!("of those that read slowly: {reasons}"), false);
    }
    let handshakes = connects.handshakes;
    if handshakes != Handshakes::default() {
        let (full, resumed) = (count(handshakes.full), count(handshakes.resumed));
        table.note(
            format!("TLS handshakes: {full} full, {resumed} resumed"),
            false,
        );
    }
    if connects.sessions_present > 0 {
        let sessions = count(connects.sessions_present);
        table.note(format!("{sessions} of them had a session"), false);
    }
    table
}

/// What was published.
pub(super) fn published(report: &Report, derived: &Derived) -> Table {
    let head = [
        "PUBLISHED",
        "QoS",
        "due",
        "sent",
        "= acked",
        "+ refused",
        "+ unanswered",
        "sent/s",
    ];
    let mut table = Table::new(
        "Published: sent = acknowledged + refused + unanswered",
        &head,
    );
    for stream in &report.streams {
        let refused: u64 = stream.counts.refused.values().sum();
        let refused_bad = refused > report.checks.refused_max;
        let answered = |number: u64| {
            if stream.qos == 0 {
                "–".to_owned()
            } else {
                count(number)
            }
        };
        table.row(vec![
            stream.name.as_str().into(),
            stream.qos.to_string().into(),
            count(stream.counts.due).into(),
            count(stream.counts.sent).into(),
            Cell::marked(answered(stream.counts.acknowledged), !stream.balances()),
            Cell::marked(answered(refused), refused_bad),
            Cell::marked(
                answered(stream.counts.unanswered),
                stream.counts.unanswered > report.checks.unanswered_max,
            ),
            per_s(stream.counts.sent_measured, derived).into(),
        ]);
        if refused > 0 {
            let reasons = reasons(&stream.counts.refused);
            let name = cut(&stream.name, NAME_CHARS_MAX);
            table.note(format!("{name} was refused: {reasons}"), refused_bad);
        }
        if !stream.balances() {
            let name = cut(&stream.name, NAME_CHARS_MAX);
            table.note(format!("{name} does not add up"), true);
        }
    }
    table
}

/// What arrived.
pub(super) fn delivered(report: &Report, derived: &Derived, worst_max: usize) -> Table {
    let head = [
        "DELIVERED",
        "to",
        "QoS",
        "expected",
        "delivered",
        "duplicate",
        "unordered",
        "missing",
        "received/s",
    ];
    let mut table = Table::new(
        "Delivered, each message of a subscriber counted once",
        &head,
    );
    let checks = &report.checks;
    for audience in &report.audiences {
        let expected = if audience.checked {
            count(audience.expected)
        } else {
            "–".to_owned()
        };
        table.row(vec![
            audience_name(audience).into(),
            count(audience.subscribers).into(),
            audience.qos.to_string().into(),
            expected.into(),
            count(audience.delivered).into(),
            Cell::marked(
                count(audience.duplicates),
                audience.duplicates > checks.duplicates_max,
            ),
            Cell::marked(
                count(audience.out_of_order),
                audience.out_of_order > checks.out_of_order_max,
            ),
            Cell::marked(
                count(audience.missing),
                audience.checked && audience.missing > checks.missing_max,
            ),
            per_s(audience.delivered_measured, derived).into(),
        ]);
        if let Some(bytes_per_second) = audience.read_bytes_per_second {
            let name = audience_name(audience);
            let each = bytes(f64::from(bytes_per_second));
            table.note(
                format!("{name} reads {each} a second: nothing is called missing"),
                false,
            );
        }
        if audience.unacknowledged > 0 {
            let extra = count(audience.unacknowledged);
            let name = audience_name(audience);
            table.note(
                format!("{name}: {extra} deliveries are of messages that were not acknowledged, which is allowed"),
                false,
            );
        }
        for (number, allowed, what) in [
            (
                audience.damaged,
                checks.damaged_max,
                "have other bytes than were published",
            ),
            (
                audience.qos_changed,
                checks.qos_changed_max,
                "have another QoS",
            ),
        ] {
            if number > 0 {
                let (name, number_shown) = (audience_name(audience), count(number));
                table.note(
                    format!("{name}: {number_shown} deliveries {what}"),
                    number > allowed,
                );
            }
        }
        for trouble in audience.worst.iter().take(worst_max) {
            table.note(
                format!(
                    "{}: {} missing, {} duplicate, {} out of order",
                    cut(&trouble.client_id, NAME_CHARS_MAX),
                    count(trouble.missing),
                    count(trouble.duplicates),
                    count(trouble.out_of_order)
                ),
                true,
            );
        }
        let more = audience.worst.len().saturating_sub(worst_max);
        if more > 0 {
            let more = counted(more as u64, "more subscriber", "more subscribers");
            table.note(format!("and {more}"), true);
        }
    }
    if report.foreign > 0 {
        let none = || Cell::from("–");
        table.row(vec![
            "of others, not of this run".into(),
            none(),
            none(),
            none(),
            count(report.foreign).into(),
            none(),
            none(),
            none(),
            per_s(report.foreign_measured, derived).into(),
        ]);
    }
    for (number, what, bad) in [
        (
            report.misdelivered,
            "messages came to clients that had not asked for them",
            true,
        ),
        (
            report.unasked,
            "answers came to packets that nobody had sent",
            true,
        ),
    ] {
        if number > 0 {
            table.note(format!("{} {what}", count(number)), bad);
        }
    }
    table
}

/// Times.
pub(super) fn latencies(report: &Report) -> Table {
    let head = ["LATENCY", "p50", "p90", "p99", "p99.9", "max", "of"];
    let mut table = Table::new("Latency, from the time when each was due", &head);
    let mut row = |name: String, histo: &Histo| {
        if histo.count() == 0 {
            return;
        }
        let mut cells: Vec<Cell> = vec![name.into()];
        for quantile in [0.5, 0.9, 0.99, 0.999] {
            cells.push(time_ms(histo.quantile_ms(quantile)).into());
        }
        cells.push(time_ms(histo.max_ms()).into());
        cells.push(count(histo.count()).into());
        table.row(cells);
    };
    row("connect".to_owned(), &report.connects.latency);
    row("subscribe".to_owned(), &report.connects.subscribe_latency);
    for stream in &report.streams {
        row(acknowledgement_name(stream), &stream.counts.latency);
    }
    for audience in &report.audiences {
        row(
            if audience.answers {
                audience_name(audience)
            } else {
                format!("delivery: {}", audience_name(audience))
            },
            &audience.latency,
        );
    }
    for stream in &report.streams {
        row(format!("tool late: {}", stream.name), &stream.counts.late);
    }
    table
}

/// What it cost the broker and this tool, as figures with a sentence each.
pub(super) fn costs(report: &Report, derived: &Derived) -> Table {
    let mut table = Table::new("What it cost", &["COST", "figure", "meaning"]);
    let mut row = |name: &str, figure: String, meaning: String| {
        table.row(vec![name.into(), figure.into(), meaning.into()]);
    };
    let mut server_row =
        |name: &str, value: Option<f64>, unit: fn(f64) -> String, meaning: &str| {
            if let Some(value) = value {
                row(name, unit(value), meaning.to_owned());
            }
        };
    let d = derived;
    server_row("server CPU", d.server_cores, figure, "cores, measured time");
    server_row(
        "  a message",
        d.cpu_us_per_message,
        micros,
        "of CPU, in or out",
    );
    server_row(
        "  a publish",
        d.cpu_us_per_sent,
        micros,
        "of CPU, deliveries included",
    );
    server_row(
        "  a delivery",
        d.cpu_us_per_delivery,
        micros,
        "of CPU, publishing included",
    );
    server_row(
        "  connects",
        d.connects_per_cpu_s,
        figure,
        "for a second of its CPU",
    );
    server_row("  switches", d.switches_per_s, rate, "of context");
    server_row(
        "server memory",
        d.user_bytes_per_client,
        bytes_each,
        "a client, anonymous",
    );
    server_row(
        "  by the slope",
        d.memory_line.map(|line| line.slope),
        bytes_each,
        "a client, anonymous",
    );
    server_row(
        "  kernel's",
        d.kernel_bytes_per_client,
        bytes_each,
        "a client, host: sockets + slab",
    );
    if let Some(server) = &report.server {
        let (user, kernel) = (
            server.measured_to.anonymous_bytes,
            kernel_bytes(server.measured_to),
        );
        row(
            "  in all",
            bytes(user as f64),
            format!("anonymous; kernel {}", bytes(kernel as f64)),
        );
    }
    if let Some(cores) = derived.tool_cores {
        let shares = u64::from(report.tool.shares);
        let (name, shares) = if report.is_simulated() {
            let threads = counted(shares, "thread", "threads");
            ("CPU of both", format!("{threads}, of broker and clients"))
        } else {
            ("tool CPU", counted(shares, "process", "processes"))
        };
        row(name, figure(cores), format!("cores by {shares}"));
        let busiest = Cell::marked(
            figure(report.tool.busiest),
            !report.tool_was_the_limit.is_empty(),
        );
        table.row(vec!["  its busiest".into(), busiest, "of a core".into()]);
    }
    // Simulated, it is the server's as well, and is there.
    if report.tool.anonymous_bytes > 0 && !report.is_simulated() {
        let memory = bytes(report.tool.anonymous_bytes as f64);
        table.row(vec![
            "tool memory".into(),
            memory.into(),
            "anonymous".into(),
        ]);
    }
    table
}

/// Counters of the broker.
pub(super) fn counters(report: &Report) -> Option<Table> {
    let server = report
        .server
        .as_ref()
        .filter(|server| !server.counters.is_empty())?;
    let mut table = Table::new(
        "Counters of the broker in the measured time",
        &["COUNTER", "change"],
    );
    for (name, change) in &server.counters {
        table.row(vec![name.as_str().into(), figure(*change).into()]);
    }
    Some(table)
}

/// What the report calls a stream's acknowledgements.
pub(super) fn acknowledgement_name(stream: &StreamReport) -> String {
    format!("acknowledged: {}", stream.name)
}

/// What the report calls an audience.
pub(super) fn audience_name(audience: &AudienceReport) -> String {
    let AudienceReport {
        stream,
        group,
        filter,
        answers,
        ..
    } = audience;
    let what = if *answers { "answers to " } else { "" };
    format!("{what}{stream} → {group} ({filter})")
}

fn per_s(number: u64, derived: &Derived) -> String {
    if derived.measured_s > 0.0 {
        rate(number as f64 / derived.measured_s)
    } else {
        "–".to_owned()
    }
}

/// A figure, or a dash where there is none.
pub(super) fn shown(value: Option<f64>, unit: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), unit)
}

/// The most frequent reasons first.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(why, count)| (std::cmp::Reverse(**count), why.as_str()));
    let mut texts: Vec<String> = sorted
        .iter()
        .take(REASONS_MAX)
        .map(|(why, number)| format!("{} × {}", count(**number), cut(why, NAME_CHARS_MAX)))
        .collect();
    let others: u64 = sorted
        .iter()
        .skip(REASONS_MAX)
        .map(|(_, count)| **count)
        .sum();
    if others > 0 {
        texts.push(format!("{} × other reasons", count(others)));
    }
    texts.join("; ")
}
