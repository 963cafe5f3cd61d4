//! The figures that people compare, worked out of a report's counts. What cannot be known is `None`, never 0.

use crate::histogram::Histo;

use super::data::{Report, ServerSample};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Derived {
    /// Length of the measured time in seconds.
    pub measured_s: f64,
    /// Connections accepted in the first round, a second.
    pub connects_per_s: Option<f64>,
    /// Connections that the broker accepts (and subscriptions that it grants with them) for a second of its CPU time.
    pub connects_per_cpu_s: Option<f64>,
    /// Messages sent a second of the measured time.
    pub sent_per_s: Option<f64>,
    /// Messages acknowledged a second of the measured time.
    pub acknowledged_per_s: Option<f64>,
    /// Messages delivered a second of the measured time.
    pub delivered_per_s: Option<f64>,
    /// Messages of nobody in this run that came, a second of the measured time: all there is where only others publish.
    pub foreign_per_s: Option<f64>,
    /// Acknowledgements of all streams.
    pub acknowledgements: Histo,
    /// Deliveries of all audiences but those that read slowly: what they wait for is their own doing.
    pub deliveries: Histo,
    /// Cores that the broker kept busy in the measured time: 1 is one core all the time.
    pub server_cores: Option<f64>,
    /// The broker's CPU time for a message in or out, in microseconds.
    pub cpu_us_per_message: Option<f64>,
    /// The broker's CPU time for a message in, with all its deliveries, in microseconds.
    pub cpu_us_per_sent: Option<f64>,
    /// The broker's CPU time for a delivery, with the publishing, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// The broker's context switches a second of the measured time.
    pub switches_per_s: Option<f64>,
    /// What connecting everybody added to the broker's anonymous memory, in bytes a client.
    pub user_bytes_per_client: Option<f64>,
    /// What it added to the host's kernel memory (socket buffers and slabs), in bytes a client. Both ends of a connection
    /// count when this tool runs on the same host.
    pub kernel_bytes_per_client: Option<f64>,
    /// The line through memory by connection count while clients connected.
    pub memory_line: Option<Line>,
    /// Cores that this tool kept busy in the measured time, all shares together.
    pub tool_cores: Option<f64>,
}

/// A straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// How much is added for each.
    pub slope: f64,
    /// Where it begins.
    pub at_zero: f64,
}

impl Derived {
    /// Works them out.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let measured_s = (report.measured.1 - report.measured.0).max(0.0);
        let per_s = |count: u64| {
            (count > 0)
                .then(|| over(count as f64, measured_s))
                .flatten()
        };
        let streams = &report.streams;
        let sent: u64 = streams
            .iter()
            .map(|stream| stream.counts.sent_measured)
            .sum();
        let acknowledged = streams
            .iter()
            .map(|stream| stream.counts.acknowledged_measured)
            .sum();
        let delivered: u64 = report
            .audiences
            .iter()
            .map(|audience| audience.delivered_measured)
            .sum();
        let clients = first_round(report);
        let quick = report
            .audiences
            .iter()
            .filter(|audience| audience.read_bytes_per_second.is_none());
        let mut derived = Self {
            measured_s,
            connects_per_s: over(clients as f64, report.connects.seconds),
            sent_per_s: per_s(sent),
            acknowledged_per_s: per_s(acknowledged),
            delivered_per_s: per_s(delivered),
            foreign_per_s: per_s(report.foreign_measured),
            acknowledgements: merged(streams.iter().map(|stream| &stream.counts.latency)),
            deliveries: merged(quick.map(|audience| &audience.latency)),
            memory_line: line(&memory_by_connections(report)),
            tool_cores: over(report.tool.cpu_s_measured, measured_s),
            ..Self::default()
        };
        let Some(server) = &report.server else {
            return derived;
        };
        let cpu_us = change(server.measured_from, server.measured_to, |s| s.cpu_us);
        let each = |count: u64| over(cpu_us, count as f64);
        derived.server_cores = over(cpu_us / 1e6, measured_s);
        derived.cpu_us_per_message = each(sent + delivered);
        derived.cpu_us_per_sent = each(sent);
        derived.cpu_us_per_delivery = each(delivered);
        let switches = |s: ServerSample| s.context_switches;
        derived.switches_per_s = over(
            change(server.measured_from, server.measured_to, switches),
            measured_s,
        );
        let connecting_s = change(server.before, server.connected, |s| s.cpu_us) / 1e6;
        derived.connects_per_cpu_s = over(clients as f64, connecting_s);
        let added = |of: fn(ServerSample) -> u64| {
            over(change(server.before, server.connected, of), clients as f64)
        };
        derived.user_bytes_per_client = added(|s| s.anonymous_bytes);
        derived.kernel_bytes_per_client = added(kernel_bytes);
        derived
    }
}

/// Socket buffers and slabs together.
pub(super) fn kernel_bytes(sample: ServerSample) -> u64 {
    sample.socket_bytes.saturating_add(sample.slab_bytes)
}

/// How many clients were there when everybody was connected.
fn first_round(report: &Report) -> u64 {
    report.connects.accepted.min(report.connects.clients)
}

/// A quotient, where there is one.
fn over(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn change(from: ServerSample, to: ServerSample, of: impl Fn(ServerSample) -> u64) -> f64 {
    of(to) as f64 - of(from) as f64
}

fn merged<'a>(histos: impl Iterator<Item = &'a Histo>) -> Histo {
    let mut all = Histo::default();
    for histo in histos {
        all.merge(histo);
    }
    all
}

/// Connected clients and the broker's anonymous memory, while the number of clients grew.
pub(super) fn memory_by_connections(report: &Report) -> Vec<(f64, f64)> {
    let most = report.seconds.iter().map(|second| second.connected).max();
    let full = report
        .seconds
        .iter()
        .position(|second| Some(second.connected) == most);
    let before = report
        .server
        .iter()
        .map(|server| (0.0, server.before.anonymous_bytes as f64));
    let growing = report.seconds.iter().take(full.map_or(0, |full| full + 1));
    let points = growing.filter_map(|second| {
        let sample = second.server?;
        Some((second.connected as f64, sample.anonymous_bytes as f64))
    });
    before.chain(points).collect()
}

/// The line of least squares; `None` for fewer than two different places.
fn line(points: &[(f64, f64)]) -> Option<Line> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut both, mut spread) = (0.0, 0.0);
    for (x, y) in points {
        both += (x - mean_x) * (y - mean_y);
        spread += (x - mean_x).powi(2);
    }
    let slope = over(both, spread)?;
    Some(Line {
        slope,
        at_zero: mean_y - slope * mean_x,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn figures_follow_from_the_counts() {
        let derived = Derived::of(&sample::passed());
        let close = |value: Option<f64>, expected: f64| {
            let value = value.expect("known");
            assert!(
                (value - expected).abs() <= expected.abs() / 1e9,
                "{value} for {expected}"
            );
        };
        close(Some(derived.measured_s), 20.0);
        close(derived.connects_per_s, 18_000.0 / 0.9);
        close(derived.sent_per_s, 10_000.0);
        close(derived.delivered_per_s, 10_000.0);
        close(derived.server_cores, 0.4);
        close(derived.cpu_us_per_message, 20.0);
        close(derived.cpu_us_per_sent, 40.0);
        close(derived.user_bytes_per_client, 512.0);
        close(derived.kernel_bytes_per_client, 3_000.0);
        close(derived.connects_per_cpu_s, 18_000.0 / 0.6);
        assert_eq!(derived.acknowledgements.count(), 200_000);
    }

    #[test]
    fn what_cannot_be_known_is_not_zero() {
        let mut report = sample::passed();
        report.server = None;
        report.measured = (5.0, 5.0);
        report.connects.seconds = 0.0;
        for second in &mut report.seconds {
            second.server = None;
        }
        let derived = Derived::of(&report);
        assert_eq!(derived.sent_per_s, None);
        assert_eq!(derived.connects_per_s, None);
        assert_eq!(derived.cpu_us_per_message, None);
        assert_eq!(derived.user_bytes_per_client, None);
        assert_eq!(derived.memory_line, None);
        assert_eq!(derived.tool_cores, None);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        for (points, expected) in [
            (vec![], None),
            (vec![(1.0, 5.0)], None),
            (vec![(1.0, 5.0), (1.0, 7.0)], None),
            (
                vec![(0.0, 10.0), (2.0, 14.0), (4.0, 18.0)],
                Some(Line {
                    slope: 2.0,
                    at_zero: 10.0,
                }),
            ),
        ] {
            assert_eq!(line(&points), expected);
        }
    }
}
