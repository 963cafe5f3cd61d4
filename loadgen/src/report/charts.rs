//! What the charts of a page show, as data: `page/charts.js` draws it as SVG and adds the colours.

use serde::Serialize;

use super::data::{Report, Second};
use super::derived::{Derived, kernel_bytes, memory_by_connections};
use super::tables::{acknowledgement_name, audience_name};
use super::units::{bytes_each, cut};
use crate::histogram::Histo;

/// Points of a line over time; of a longer run each point covers several seconds.
const POINTS_MAX: usize = 1_200;

/// Points of a percentile curve.
const CURVE_POINTS: usize = 120;

/// Curves of one chart: with more streams than this all of them are drawn as one.
const CURVES_MAX: usize = 6;

/// Characters of a name in a legend.
const NAME_CHARS_MAX: usize = 44;

/// The curve ends where one message of so many took longer: 99.999 %.
const ONE_OF_MAX: f64 = 100_000.0;

/// A chart.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    /// Its heading.
    pub title: String,
    /// What is below it.
    pub note: String,
    /// What goes to the right.
    pub x: Axis,
    /// What goes up.
    pub y: Axis,
    /// A second one, for lines that have `right`.
    pub right: Option<Axis>,
    /// Lines, points or bars.
    pub lines: Vec<Line>,
    /// Shaded from here to there: the measured time.
    pub shade: Option<(f64, f64)>,
}

/// How an axis is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Log,
    /// `1 / (1 - quantile)`, by powers of ten: 50, 90, 99, … %.
    Quantile,
    /// Names.
    Names,
}

/// An axis.
#[derive(Debug, Serialize)]
pub(super) struct Axis {
    /// What it says.
    pub title: String,
    /// How it is drawn.
    pub scale: Scale,
    /// `ms`, `B` and such, for what is shown beside the pointer.
    pub unit: &'static str,
}

/// A line of a chart.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// In the legend.
    pub name: String,
    /// `line`, `dots` or `bar`.
    pub kind: &'static str,
    /// Which colour, from 1.
    pub color: usize,
    /// Dashed.
    pub dash: bool,
    /// Belongs to the axis at the right.
    pub right: bool,
    /// Where.
    pub x: Vec<Place>,
    /// How much; nothing where nothing is known.
    pub y: Vec<Option<f64>>,
}

/// A place on the axis of `x`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Place {
    /// A number.
    At(f64),
    /// A name.
    Name(String),
}

impl Axis {
    pub fn new(title: &str, scale: Scale, unit: &'static str) -> Self {
        Self {
            title: title.to_owned(),
            scale,
            unit,
        }
    }
}

impl Line {
    pub fn new(name: &str, color: usize) -> Self {
        Self {
            name: cut(name, NAME_CHARS_MAX),
            kind: "line",
            color,
            dash: false,
            right: false,
            x: Vec::new(),
            y: Vec::new(),
        }
    }

    fn push(&mut self, x: f64, y: Option<f64>) {
        self.x.push(Place::At(x));
        self.y.push(y.filter(|y| y.is_finite()));
    }

    fn has_points(&self) -> bool {
        self.y.iter().any(|y| y.is_some_and(|y| y > 0.0))
    }
}

/// The charts of a report; none of those for which the run has no figures.
pub(super) fn charts(report: &Report, derived: &Derived) -> Vec<Chart> {
    let time = OverTime::of(report);
    let all = [
        time.rates(),
        time.latencies(),
        curves(report, derived),
        time.memory(),
        memory(report, derived),
        time.cpu(),
    ];
    let mut charts: Vec<Chart> = all.into();
    for chart in &mut charts {
        chart.lines.retain(Line::has_points);
    }
    charts.retain(|chart| !chart.lines.is_empty());
    charts
}

/// Lines over the seconds of a run.
struct OverTime<'a> {
    report: &'a Report,
    /// Seconds of one point.
    step: usize,
}

impl<'a> OverTime<'a> {
    fn of(report: &'a Report) -> Self {
        let step = report.seconds.len().div_ceil(POINTS_MAX).max(1);
        Self { report, step }
    }

    fn chart(&self, title: &str, y: Axis, lines: Vec<Line>) -> Chart {
        let (from, to) = self.report.measured;
        let note = match self.step {
            1 => String::new(),
            step => format!("Each point covers {step} seconds. "),
        };
        Chart {
            title: title.to_owned(),
            note,
            x: Axis::new("seconds from the first connect on", Scale::Linear, "s"),
            y,
            right: None,
            lines,
            shade: (to > from).then_some((from, to)),
        }
    }

    /// A line of a value for each run of seconds.
    fn line(&self, name: &str, color: usize, of: impl Fn(&[Second]) -> Option<f64>) -> Line {
        let mut line = Line::new(name, color);
        for (index, seconds) in self.report.seconds.chunks(self.step).enumerate() {
            let end = index * self.step + seconds.len();
            line.push(end as f64, of(seconds));
        }
        line
    }

    fn rate(&self, name: &str, color: usize, of: fn(&Second) -> u64) -> Line {
        self.line(name, color, |seconds| {
            let sum: u64 = seconds.iter().map(of).sum();
            Some(sum as f64 / seconds.len() as f64)
        })
    }

    /// The worst of the seconds; nothing where there was no message.
    fn worst(&self, name: &str, color: usize, dash: bool, of: impl Fn(&Second) -> u64) -> Line {
        let line = self.line(name, color, |seconds| {
            let worst = seconds.iter().map(&of).max().filter(|&us| us > 0)?;
            Some(worst as f64 / 1_000.0)
        });
        Line { dash, ..line }
    }

    fn rates(&self) -> Chart {
        let lines = vec![
            self.rate("sent", 1, |second| second.sent),
            self.rate("acknowledged", 3, |second| second.acknowledged),
            self.rate("delivered", 2, |second| second.delivered),
            self.rate("connections accepted", 4, |second| second.accepted),
            self.rate("connections closed", 6, |second| second.closed),
        ];
        self.chart("Rates", Axis::new("per second", Scale::Linear, "/s"), lines)
    }

    fn latencies(&self) -> Chart {
        let lines = vec![
            self.worst("acknowledged, max", 1, true, |second| second.ack_us[2]),
            self.worst("acknowledged, p99", 1, false, |second| second.ack_us[1]),
            self.worst("acknowledged, p50", 5, false, |second| second.ack_us[0]),
            self.worst("delivered, max", 6, true, |second| second.delivery_us[2]),
            self.worst("delivered, p99", 6, false, |second| second.delivery_us[1]),
            self.worst("delivered, p50", 2, false, |second| second.delivery_us[0]),
        ];
        let mut chart = self.chart(
            "Latency over time",
            Axis::new("milliseconds", Scale::Log, "ms"),
            lines,
        );
        if self.step > 1 {
            chart.note.push_str("It is the worst second of them. ");
        }
        chart
            .note
            .push_str("From the time when each message was due.");
        chart
    }

    fn memory(&self) -> Chart {
        let last = |seconds: &[Second]| seconds.last().and_then(|second| second.server);
        let mut lines = vec![self.line("connected clients", 1, |seconds| {
            seconds.last().map(|second| second.connected as f64)
        })];
        let of_server = [
            self.line("anonymous memory", 2, |seconds| {
                last(seconds).map(|sample| sample.anonymous_bytes as f64)
            }),
            self.line("kernel: sockets and slab", 8, |seconds| {
                last(seconds).map(|sample| kernel_bytes(sample) as f64)
            }),
        ];
        lines.extend(of_server.map(|line| Line {
            right: true,
            ..line
        }));
        let mut chart = self.chart(
            "Clients and the broker's memory",
            Axis::new("clients", Scale::Linear, ""),
            lines,
        );
        chart.right = Some(Axis::new("bytes", Scale::Linear, "B"));
        chart
            .note
            .push_str("The kernel's memory is that of the whole host.");
        chart
    }

    fn cpu(&self) -> Chart {
        let mut server = Line::new("broker", 2);
        let mut before = self.report.server.as_ref().map(|server| server.before);
        for (index, seconds) in self.report.seconds.chunks(self.step).enumerate() {
            let now = seconds.last().and_then(|second| second.server);
            let used = before.zip(now).map(|(before, now)| {
                now.cpu_us.saturating_sub(before.cpu_us) as f64 / 1e6 / seconds.len() as f64
            });
            server.push((index * self.step + seconds.len()) as f64, used);
            before = now;
        }
        let tool = self.line("this tool", 1, |seconds| {
            let us: u64 = seconds.iter().map(|second| second.tool_cpu_us).sum();
            Some(us as f64 / 1e6 / seconds.len() as f64)
        });
        let y = Axis::new("cores", Scale::Linear, "cores");
        self.chart("CPU", y, vec![server, tool])
    }
}

/// The percentile curves of a run.
fn curves(report: &Report, derived: &Derived) -> Chart {
    let mut lines = Vec::new();
    if report.streams.len() + report.audiences.len() <= CURVES_MAX {
        for stream in &report.streams {
            lines.push(curve(
                &acknowledgement_name(stream),
                lines.len() + 1,
                &stream.counts.latency,
            ));
        }
        for audience in &report.audiences {
            let name = if audience.answers {
                audience_name(audience)
            } else {
                format!("delivered: {}", audience_name(audience))
            };
            lines.push(curve(&name, lines.len() + 1, &audience.latency));
        }
    } else {
        lines.push(curve(
            "acknowledged, all streams",
            1,
            &derived.acknowledgements,
        ));
        lines.push(curve("delivered, all audiences", 2, &derived.deliveries));
    }
    curve_chart("Latency by percentile", lines)
}

/// A chart of percentile curves.
pub(super) fn curve_chart(title: &str, lines: Vec<Line>) -> Chart {
    Chart {
        title: title.to_owned(),
        note: "How long it took at most, for so many percent of the messages of the measured time."
            .to_owned(),
        x: Axis::new("percent of messages", Scale::Quantile, "%"),
        y: Axis::new("milliseconds", Scale::Log, "ms"),
        right: None,
        lines,
        shade: None,
    }
}

/// From the median as far as there are messages for: with a thousand of them the curve ends at 99.9 %.
pub(super) fn curve(name: &str, color: usize, histo: &Histo) -> Line {
    let mut line = Line::new(name, color);
    let end = (histo.count() as f64).min(ONE_OF_MAX);
    if end < 2.0 {
        return line;
    }
    for index in 0..=CURVE_POINTS {
        let x = 2.0 * (end / 2.0).powf(index as f64 / CURVE_POINTS as f64);
        line.push(x, Some(histo.quantile_ms(1.0 - 1.0 / x)));
    }
    line
}

/// Memory by connection count.
fn memory(report: &Report, derived: &Derived) -> Chart {
    let points = memory_by_connections(report);
    let mut measured = Line {
        kind: "dots",
        ..Line::new("measured", 2)
    };
    for (clients, bytes) in &points {
        measured.push(*clients, Some(*bytes));
    }
    let mut lines = vec![measured];
    let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let mut note = "The broker's anonymous memory while clients connected.".to_owned();
    // No line without clients: it would be drawn through a single place.
    if let Some(fit) = derived.memory_line.filter(|_| most > 0.0) {
        let each = bytes_each(fit.slope);
        let mut line = Line {
            dash: true,
            ..Line::new(&format!("{each} a client"), 1)
        };
        line.push(0.0, Some(fit.at_zero));
        line.push(most, Some(fit.at_zero + fit.slope * most));
        lines.push(line);
        note.push_str(&format!(" The slope of the line is {each} a client."));
    } else {
        lines.clear();
    }
    Chart {
        title: "Memory by connection count".to_owned(),
        note,
        x: Axis::new("connected clients", Scale::Linear, "clients"),
        y: Axis::new("bytes", Scale::Linear, "B"),
        right: None,
        lines,
        shade: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn titles(report: &Report) -> Vec<String> {
        let charts = charts(report, &Derived::of(report));
        charts.into_iter().map(|chart| chart.title).collect()
    }

    #[test]
    fn a_run_without_figures_has_no_charts_of_them() {
        let mut report = sample::passed();
        assert_eq!(titles(&report).len(), 6);
        report.server = None;
        for second in &mut report.seconds {
            second.server = None;
        }
        report.streams.clear();
        report.audiences.clear();
        assert_eq!(
            titles(&report),
            [
                "Rates",
                "Latency over time",
                "Clients and the broker's memory",
                "CPU"
            ]
        );
        report.seconds.clear();
        assert!(titles(&report).is_empty());
    }

    #[test]
    fn a_long_run_is_drawn_with_few_points_that_keep_sums_and_worst_seconds() {
        let mut report = sample::passed();
        let second = Second {
            sent: 10,
            ack_us: [1_000; 3],
            ..Second::default()
        };
        report.seconds = vec![second; POINTS_MAX * 3];
        report.seconds[4].ack_us[2] = 9_000;
        let time = OverTime::of(&report);
        let rates = time.rates();
        assert_eq!(rates.lines[0].y.len(), POINTS_MAX);
        assert_eq!(rates.lines[0].y[7], Some(10.0));
        assert!(rates.note.contains("covers 3 seconds"));
        let worst = &time.latencies().lines[0].y;
        assert_eq!(worst[..3], [Some(1.0), Some(9.0), Some(1.0)]);
    }

    #[test]
    fn a_curve_claims_no_more_than_its_messages_show() {
        let mut histo = Histo::default();
        assert!(curve("", 1, &histo).x.is_empty());
        for micros in 1..=1_000 {
            histo.record_micros(micros);
        }
        let line = curve("", 1, &histo);
        let ends = [line.x.first(), line.x.last()].map(|place| match place {
            Some(Place::At(x)) => x.round(),
            _ => 0.0,
        });
        assert_eq!(ends, [2.0, 1_000.0]);
        assert_eq!(line.y.first().copied().flatten(), Some(0.5));
    }
}
