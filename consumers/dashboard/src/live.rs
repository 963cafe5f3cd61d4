//! What the page shows: pure, from the totals at two moments to rates, percentiles and a history of bounded length.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::count::{Volume, latencies};
use crate::store::Totals;

/// Points of the history, one a second.
const HISTORY_POINTS_MAX: usize = 300;

/// Points over which the rates in figures are averaged, so that they can be read.
const RATE_POINTS: usize = 5;

/// Points over which the live percentiles are taken.
const LATENCY_POINTS: usize = 60;

/// What happened in about a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    /// When it ended, milliseconds since the Unix epoch.
    pub at: i64,
    pub messages_per_s: f64,
    pub bytes_per_s: f64,
    /// Messages per second by prefix; prefixes without any are left out.
    pub prefixes: BTreeMap<String, f64>,
    /// Latency in milliseconds; `None` without messages.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// Percentiles of the time from receipt by the broker to being counted, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub messages: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| {
            // Microseconds up to an hour are exact in a double.
            #[allow(clippy::cast_precision_loss)]
            (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        Self {
            messages: histogram.len(),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
        }
    }
}

/// A prefix with its total and its rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PrefixRow {
    pub prefix: String,
    pub messages: u64,
    pub bytes: u64,
    pub messages_per_s: f64,
}

/// The figures at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub messages: u64,
    pub bytes: u64,
    pub messages_per_s: f64,
    pub bytes_per_s: f64,
    pub prefixes: Vec<PrefixRow>,
    pub devices: u64,
    pub rooms: u64,
    pub latency_minute: Percentiles,
    pub latency_all: Percentiles,
}

/// The history, one list a line of the chart, all of the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct History<'a> {
    pub at: Vec<i64>,
    pub messages_per_s: Vec<f64>,
    pub prefixes: BTreeMap<&'a str, Vec<f64>>,
    pub p50_ms: Vec<Option<f64>>,
    pub p95_ms: Vec<Option<f64>>,
    pub p99_ms: Vec<Option<f64>>,
}

/// What is known, and what was in the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Live {
    totals: Option<Totals>,
    points: VecDeque<Point>,
    /// What each of the last points added to the latencies.
    added: VecDeque<Vec<(u64, u64)>>,
}

impl Live {
    /// Takes the totals `elapsed_s` seconds after the last ones. The first ones make no point: what was before is unknown.
    pub(crate) fn take(&mut self, totals: Totals, at: i64, elapsed_s: f64) {
        if let Some(before) = self.totals.replace(totals) {
            self.add_point(&before, at, elapsed_s);
        }
    }

    fn add_point(&mut self, before: &Totals, at: i64, elapsed_s: f64) {
        let Some(totals) = &self.totals else { return };
        // Somebody may have begun the store anew: less than before is nothing, not a huge number.
        let rate = |now: u64, before: u64| per_second(now.saturating_sub(before), elapsed_s);
        let added: Vec<(u64, u64)> = totals
            .latencies
            .iter()
            .map(|(micros, now)| {
                (
                    *micros,
                    now.saturating_sub(before.latencies.get(micros).copied().unwrap_or(0)),
                )
            })
            .filter(|(_, added)| *added > 0)
            .collect();
        let prefixes = totals
            .prefixes
            .iter()
            .map(|(prefix, now)| {
                let before = before.prefixes.get(prefix).copied().unwrap_or_default();
                (prefix.clone(), rate(now.messages, before.messages))
            })
            .filter(|(_, rate)| *rate > 0.0)
            .collect();
        let (now, before) = (totals.volume(), before.volume());
        let percentiles = Percentiles::of(&histogram(added.iter().copied()));
        push_bounded(&mut self.added, added, LATENCY_POINTS);
        let point = Point {
            at,
            messages_per_s: rate(now.messages, before.messages),
            bytes_per_s: rate(now.bytes, before.bytes),
            prefixes,
            p50_ms: percentiles.p50_ms,
            p95_ms: percentiles.p95_ms,
            p99_ms: percentiles.p99_ms,
        };
        push_bounded(&mut self.points, point, HISTORY_POINTS_MAX);
    }

    /// The last point.
    pub(crate) fn point(&self) -> Option<&Point> {
        self.points.back()
    }

    /// The figures now.
    pub(crate) fn figures(&self) -> Figures {
        let Some(totals) = &self.totals else {
            return Figures::default();
        };
        let Volume { messages, bytes } = totals.volume();
        let prefixes = totals
            .prefixes
            .iter()
            .map(|(prefix, volume)| PrefixRow {
                prefix: prefix.clone(),
                messages: volume.messages,
                bytes: volume.bytes,
                messages_per_s: self
                    .mean(|point| point.prefixes.get(prefix).copied().unwrap_or(0.0)),
            })
            .collect();
        Figures {
            messages,
            bytes,
            messages_per_s: self.mean(|point| point.messages_per_s),
            bytes_per_s: self.mean(|point| point.bytes_per_s),
            prefixes,
            devices: totals.devices,
            rooms: totals.rooms,
            latency_minute: Percentiles::of(&histogram(self.added.iter().flatten().copied())),
            latency_all: Percentiles::of(&histogram(
                totals.latencies.iter().map(|(micros, n)| (*micros, *n)),
            )),
        }
    }

    fn mean(&self, value: impl Fn(&Point) -> f64) -> f64 {
        let points = self.points.len().min(RATE_POINTS);
        if points == 0 {
            return 0.0;
        }
        // A handful of points.
        #[allow(clippy::cast_precision_loss)]
        let count = points as f64;
        self.points
            .iter()
            .rev()
            .take(points)
            .map(value)
            .sum::<f64>()
            / count
    }

    /// The history.
    pub(crate) fn history(&self) -> History<'_> {
        let names: BTreeSet<&str> = self
            .points
            .iter()
            .flat_map(|point| point.prefixes.keys())
            .map(String::as_str)
            .collect();
        let line = |name: &str| {
            let rate = |point: &Point| point.prefixes.get(name).copied().unwrap_or(0.0);
            self.points.iter().map(rate).collect()
        };
        History {
            at: self.points.iter().map(|point| point.at).collect(),
            messages_per_s: self
                .points
                .iter()
                .map(|point| point.messages_per_s)
                .collect(),
            prefixes: names.into_iter().map(|name| (name, line(name))).collect(),
            p50_ms: self.points.iter().map(|point| point.p50_ms).collect(),
            p95_ms: self.points.iter().map(|point| point.p95_ms).collect(),
            p99_ms: self.points.iter().map(|point| point.p99_ms).collect(),
        }
    }
}

fn histogram(counts: impl Iterator<Item = (u64, u64)>) -> Histogram<u64> {
    let mut histogram = latencies();
    for (micros, messages) in counts {
        histogram.saturating_record_n(micros, messages);
    }
    histogram
}

fn per_second(count: u64, elapsed_s: f64) -> f64 {
    if elapsed_s <= 0.0 {
        return 0.0;
    }
    // A rate for people; a double holds it well enough. Tenths are enough too, and keep the JSON short.
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / elapsed_s;
    (rate * 10.0).round() / 10.0
}

fn push_bounded<T>(ring: &mut VecDeque<T>, value: T, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(rooms: u64, devices: u64) -> Totals {
        let volume = |messages| Volume {
            messages,
            bytes: messages * 10,
        };
        Totals {
            prefixes: BTreeMap::from([
                ("devices/".to_owned(), volume(devices)),
                ("rooms/".to_owned(), volume(rooms)),
            ]),
            latencies: BTreeMap::from([(1_000, rooms), (50_000, devices)]),
            devices: 2,
            rooms: 1,
        }
    }

    #[test]
    fn rates_are_differences_and_the_first_look_makes_none() {
        let mut live = Live::default();
        live.take(totals(1_000, 5_000), 0, 1.0);
        assert_eq!(
            (
                live.point(),
                live.figures().messages,
                live.figures().messages_per_s
            ),
            (None, 6_000, 0.0)
        );
        live.take(totals(1_020, 5_000), 2_000, 2.0);
        let point = live.point().expect("a point");
        assert_eq!((point.messages_per_s, point.bytes_per_s), (10.0, 100.0));
        assert_eq!(
            point.prefixes,
            BTreeMap::from([("rooms/".to_owned(), 10.0)])
        );
        assert_eq!(
            point.p99_ms,
            Some(1.003),
            "only what came since the first look"
        );
        let figures = live.figures();
        assert_eq!(
            (
                figures.latency_minute.messages,
                figures.latency_all.messages
            ),
            (20, 6_020)
        );
        assert_eq!(figures.latency_all.p99_ms, Some(50.175));
        assert_eq!((figures.devices, figures.rooms), (2, 1));
    }

    #[test]
    fn figures_are_averaged_so_that_they_can_be_read() {
        let mut live = Live::default();
        for second in 0..8 {
            // Ten messages in one second, none in the next.
            live.take(totals(second / 2 * 10, 0), 0, 1.0);
        }
        assert_eq!(live.figures().messages_per_s, 4.0);
        assert_eq!(live.figures().prefixes[1].messages_per_s, 4.0);
    }

    #[test]
    fn the_history_is_bounded_and_its_lines_are_equally_long() {
        let mut live = Live::default();
        for second in 0..1_000 {
            let rooms = if second > 900 { second } else { 900 };
            live.take(
                totals(rooms, second),
                i64::try_from(second).unwrap_or(0),
                1.0,
            );
        }
        let history = live.history();
        assert_eq!(history.at.len(), HISTORY_POINTS_MAX);
        assert_eq!(history.at.last(), Some(&999));
        assert_eq!(
            history.prefixes.keys().copied().collect::<Vec<_>>(),
            ["devices/", "rooms/"]
        );
        assert!(
            history
                .prefixes
                .values()
                .all(|line| line.len() == HISTORY_POINTS_MAX)
        );
        assert_eq!(live.figures().latency_minute.messages, 60 * 2);
    }

    #[test]
    fn a_store_that_begins_anew_gives_no_huge_rates() {
        let mut live = Live::default();
        live.take(totals(1_000, 1_000), 0, 1.0);
        live.take(totals(5, 0), 1_000, 1.0);
        assert_eq!(live.point().map(|point| point.messages_per_s), Some(0.0));
    }

    #[test]
    fn without_messages_there_are_no_percentiles() {
        let mut live = Live::default();
        live.take(Totals::default(), 0, 1.0);
        live.take(Totals::default(), 1_000, 1.0);
        assert_eq!(live.figures().latency_minute, Percentiles::default());
        assert_eq!(live.point().and_then(|point| point.p50_ms), None);
    }
}
