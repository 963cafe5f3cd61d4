//! Several runs side by side, with ratios to the first.

use std::io;
use std::path::Path;

use super::charts::{Axis, Chart, Line, Place, Scale, curve, curve_chart};
use super::data::Report;
use super::derived::Derived;
use super::file::write_atomically;
use super::page::{chart_places, list, remarks, verdict_box, whole};
use super::table::{Cell, Style, Table, escape};
use super::text::{Verdict, heading, machine};
use super::units::{bytes_each, count, cut, figure, micros, plain, rate, ratio, time_ms};
use crate::histogram::Histo;

/// Runs that are compared at once.
pub const RUNS_MAX: usize = 16;

/// Characters of a run's name in a heading.
const NAME_CHARS_MAX: usize = 24;

/// Why reports cannot be compared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} reports were given; from 2 to {RUNS_MAX} can be compared")]
pub struct CompareError(usize);

/// Runs to be compared; the first is what the others are measured by.
#[derive(Debug)]
pub struct Comparison<'a> {
    runs: Vec<Run<'a>>,
}

#[derive(Debug)]
struct Run<'a> {
    name: String,
    report: &'a Report,
    derived: Derived,
}

/// A figure of a run, and how it is shown.
struct Measure {
    name: &'static str,
    unit: fn(f64) -> String,
    of: fn(&Run<'_>) -> Option<f64>,
}

fn quantile_of(histo: &Histo, quantile: f64) -> Option<f64> {
    (histo.count() > 0).then(|| histo.quantile_ms(quantile))
}

fn sum(of: impl Iterator<Item = u64>) -> Option<f64> {
    Some(of.sum::<u64>() as f64)
}

fn whole_number(value: f64) -> String {
    count(value as u64)
}

const MEASURES: &[Measure] = &[
    Measure {
        name: "connects",
        unit: rate,
        of: |run| run.derived.connects_per_s,
    },
    Measure {
        name: "connects a CPU second",
        unit: figure,
        of: |run| run.derived.connects_per_cpu_s,
    },
    Measure {
        name: "connect p99",
        unit: time_ms,
        of: |run| quantile_of(&run.report.connects.latency, 0.99),
    },
    Measure {
        name: "user memory a client",
        unit: bytes_each,
        of: |run| run.derived.user_bytes_per_client,
    },
    Measure {
        name: "kernel memory a client",
        unit: bytes_each,
        of: |run| run.derived.kernel_bytes_per_client,
    },
    Measure {
        name: "sent",
        unit: rate,
        of: |run| run.derived.sent_per_s,
    },
    Measure {
        name: "acknowledged",
        unit: rate,
        of: |run| run.derived.acknowledged_per_s,
    },
    Measure {
        name: "delivered",
        unit: rate,
        of: |run| run.derived.delivered_per_s,
    },
    Measure {
        name: "broker's CPU a message",
        unit: micros,
        of: |run| run.derived.cpu_us_per_message,
    },
    Measure {
        name: "broker's cores",
        unit: figure,
        of: |run| run.derived.server_cores,
    },
    Measure {
        name: "context switches",
        unit: rate,
        of: |run| run.derived.switches_per_s,
    },
    Measure {
        name: "acknowledged p50",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.acknowledgements, 0.5),
    },
    Measure {
        name: "acknowledged p99",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.acknowledgements, 0.99),
    },
    Measure {
        name: "acknowledged p99.9",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.acknowledgements, 0.999),
    },
    Measure {
        name: "acknowledged max",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.acknowledgements, 1.0),
    },
    Measure {
        name: "delivered p50",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.deliveries, 0.5),
    },
    Measure {
        name: "delivered p99",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.deliveries, 0.99),
    },
    Measure {
        name: "delivered p99.9",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.deliveries, 0.999),
    },
    Measure {
        name: "delivered max",
        unit: time_ms,
        of: |run| quantile_of(&run.derived.deliveries, 1.0),
    },
    Measure {
        name: "missing",
        unit: whole_number,
        of: |run| sum(run.report.audiences.iter().map(|a| a.missing)),
    },
    Measure {
        name: "duplicates",
        unit: whole_number,
        of: |run| sum(run.report.audiences.iter().map(|a| a.duplicates)),
    },
    Measure {
        name: "out of order",
        unit: whole_number,
        of: |run| sum(run.report.audiences.iter().map(|a| a.out_of_order)),
    },
    Measure {
        name: "damaged",
        unit: whole_number,
        of: |run| sum(run.report.audiences.iter().map(|a| a.damaged)),
    },
    Measure {
        name: "with another QoS",
        unit: whole_number,
        of: |run| sum(run.report.audiences.iter().map(|a| a.qos_changed)),
    },
    Measure {
        name: "connections closed",
        unit: whole_number,
        of: |run| sum(run.report.connects.closed.values().copied()),
    },
    Measure {
        name: "tool's busiest, of a core",
        unit: figure,
        of: |run| Some(run.report.tool.busiest),
    },
];

impl<'a> Comparison<'a> {
    /// Of these runs.
    ///
    /// # Errors
    /// There are fewer than two or more than [`RUNS_MAX`].
    pub fn of(reports: &'a [Report]) -> Result<Self, CompareError> {
        if !(2..=RUNS_MAX).contains(&reports.len()) {
            return Err(CompareError(reports.len()));
        }
        let mut runs: Vec<Run<'a>> = Vec::new();
        for report in reports {
            let name = cut(&report.name, NAME_CHARS_MAX);
            let same = reports[..runs.len()]
                .iter()
                .filter(|before| cut(&before.name, NAME_CHARS_MAX) == name)
                .count();
            let name = if same > 0 {
                format!("{name} ({})", same + 1)
            } else {
                name
            };
            let derived = Derived::of(report);
            runs.push(Run {
                name,
                report,
                derived,
            });
        }
        Ok(Self { runs })
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self, color: bool) -> String {
        let style = Style { color };
        let mut text = String::new();
        for run in &self.runs {
            let verdict = Verdict::of(run.report);
            let line = plain(&format!("{}: {}", run.name, verdict.line));
            text.push_str(&match verdict.kind {
                "passed" => style.good(&line),
                "failed" => style.bad(&line),
                _ => style.warn(&line),
            });
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.table().text(style));
        for difference in self.differences() {
            text.push_str(&format!("Note: {}\n", plain(&difference)));
        }
        text
    }

    /// As one page that needs nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        let names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        let title = names.join(" · ");
        let mut body = format!("<header><h1>{}</h1>", escape(&title));
        body.push_str(&format!(
            "<p>{} runs side by side; ratios are to the first</p></header>",
            self.runs.len()
        ));
        for run in &self.runs {
            let mut verdict = Verdict::of(run.report);
            verdict.line = format!("{}: {}", run.name, verdict.line);
            body.push_str(&verdict_box(&verdict));
        }
        let charts = self.charts();
        body.push_str(&chart_places(&charts));
        body.push_str(&format!(
            "<div class=\"tables\">{}</div>",
            self.table().html()
        ));
        body.push_str(&remarks(&self.differences()));
        let sources: Vec<String> = self
            .runs
            .iter()
            .map(|run| {
                format!(
                    "{}; {}",
                    heading(run.report, &run.derived),
                    machine(run.report)
                )
            })
            .collect();
        let sources = list("plain", &sources);
        body.push_str(&format!(
            "<section class=\"card\"><h2>The runs</h2>{sources}</section>"
        ));
        whole(&format!("{title} · millstream load"), &body, &charts)
    }

    /// Writes the page; a file of this name is replaced as a whole.
    ///
    /// # Errors
    /// The directory does not take the file.
    pub fn write_page(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.page().as_bytes())
    }

    fn table(&self) -> Table {
        let mut table = Table::new("Figures, and ratios to the first run", &["FIGURE"]);
        for (index, run) in self.runs.iter().enumerate() {
            table.head.push(run.name.clone());
            if index > 0 {
                table.head.push("ratio".to_owned());
            }
        }
        for measure in MEASURES {
            let values: Vec<Option<f64>> = self.runs.iter().map(measure.of).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let first = values[0];
            let mut cells: Vec<Cell> = vec![measure.name.into()];
            for (index, value) in values.iter().enumerate() {
                cells.push(value.map_or("–".to_owned(), measure.unit).into());
                if index > 0 {
                    let both = first.zip(*value).filter(|(first, _)| *first > 0.0);
                    let part = both.map_or("–".to_owned(), |(first, value)| ratio(value / first));
                    cells.push(part.into());
                }
            }
            table.row(cells);
        }
        table
    }

    fn charts(&self) -> Vec<Chart> {
        let curves = |title: &str, of: fn(&Derived) -> &Histo| {
            let runs = self.runs.iter().enumerate();
            let lines = runs.map(|(index, run)| curve(&run.name, index + 1, of(&run.derived)));
            curve_chart(title, lines.filter(|line| !line.x.is_empty()).collect())
        };
        let mut charts = vec![
            curves("Acknowledgements by percentile", |derived| {
                &derived.acknowledgements
            }),
            curves("Deliveries by percentile", |derived| &derived.deliveries),
            self.bars("Messages delivered a second", "/s", |run| {
                run.derived.delivered_per_s
            }),
            self.bars("Connections accepted a second", "/s", |run| {
                run.derived.connects_per_s
            }),
            self.bars("Broker's CPU a message", "µs", |run| {
                run.derived.cpu_us_per_message
            }),
            self.bars("Broker's user memory a client", "bytes", |run| {
                run.derived.user_bytes_per_client
            }),
        ];
        charts.retain(|chart| !chart.lines.is_empty());
        charts
    }

    /// One bar a run; no lines where nobody knows the figure.
    fn bars(&self, title: &str, unit: &'static str, of: fn(&Run<'_>) -> Option<f64>) -> Chart {
        let mut bar = Line {
            kind: "bar",
            ..Line::new(title, 1)
        };
        for run in &self.runs {
            bar.x.push(Place::Name(run.name.clone()));
            bar.y.push(of(run).filter(|value| value.is_finite()));
        }
        let known = bar.y.iter().any(Option::is_some);
        Chart {
            title: title.to_owned(),
            note: String::new(),
            x: Axis::new("", Scale::Names, ""),
            y: Axis::new(unit, Scale::Linear, unit),
            right: None,
            lines: if known { vec![bar] } else { Vec::new() },
            shade: None,
        }
    }

    /// Why the runs may differ for other reasons than the broker.
    fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, of: &dyn Fn(&Report) -> String| {
            let first = of(self.runs[0].report);
            let other = self.runs.iter().skip(1).find(|run| of(run.report) != first);
            if let Some(other) = other {
                differences.push(format!(
                    "{what} differ: {} has {first:?}, {} has {:?}",
                    self.runs[0].name,
                    other.name,
                    of(other.report)
                ));
            }
        };
        compare("scenarios", &|report| report.scenario.clone());
        compare("machines", &|report| report.machine.processor.clone());
        compare("systems", &|report| report.machine.system.clone());
        compare("versions of the tool", &|report| {
            report.tool_version.clone()
        });
        let first = &self.runs[0];
        for run in &self.runs[1..] {
            let same_name = run.report.scenario == first.report.scenario;
            if same_name && run.report.scenario_toml != first.report.scenario_toml {
                differences.push(format!(
                    "{} ran the scenario with other settings than {}",
                    run.name, first.name
                ));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn runs_stand_side_by_side_with_ratios_to_the_first() {
        let mut other = sample::limited();
        other.machine.processor = "1 × other".to_owned();
        other.scenario_toml.push('#');
        let reports = [sample::passed(), other, sample::passed()];
        let text = Comparison::of(&reports).unwrap().text(false);
        println!("{text}");
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            row("FIGURE"),
            "millstream mosquitto ratio millstream (2) ratio"
        );
        assert_eq!(
            row("user memory a client"),
            "512 B 1,783 B 3.48× 512 B 1.00×"
        );
        assert_eq!(row("broker's cores"), "0.400 0.850 2.12× 0.400 1.00×");
        assert_eq!(row("missing"), "0 0 – 0 –");
        assert!(text.contains("mosquitto: THE TOOL WAS THE LIMIT"), "{text}");
        assert!(
            text.contains("machines differ: millstream has \"2 × AMD EPYC\""),
            "{text}"
        );
        assert!(
            text.contains("mosquitto ran the scenario with other settings"),
            "{text}"
        );
    }

    #[test]
    fn a_page_escapes_names_too() {
        let reports = [sample::failed(), sample::passed()];
        let html = Comparison::of(&reports).unwrap().page();
        assert!(!html.contains("<img"), "an element of a name");
        assert!(html.contains("&lt;img src=x"));
        assert!(html.contains("\\u003cimg src=x"));
    }

    #[test]
    fn one_run_or_very_many_are_refused() {
        let reports = vec![sample::passed(); RUNS_MAX + 1];
        for (count, expected) in [
            (
                0,
                Some("0 reports were given; from 2 to 16 can be compared"),
            ),
            (
                1,
                Some("1 reports were given; from 2 to 16 can be compared"),
            ),
            (2, None),
            (16, None),
            (
                17,
                Some("17 reports were given; from 2 to 16 can be compared"),
            ),
        ] {
            let error = Comparison::of(&reports[..count]).err();
            assert_eq!(error.map(|error| error.to_string()).as_deref(), expected);
        }
    }
}
