//! What goes on beside the clients of a run: samples of the broker, the progress line, and the moments that a report
//! compares.

use std::thread;
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::clock::{self, Nanos};
use crate::process::Usage;
use crate::report::{Report, Server, ServerSample};
use crate::runner::{Gates, READY_PAUSE, Step};
use crate::server::{Counters, Sampler};

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(10);

const SECOND: Nanos = 1_000_000_000;

/// See the module.
pub(super) struct Watch {
    gates: Gates,
    sampler: Option<Sampler>,
    progress: Progress,
    warm_up: Nanos,
    measured: Nanos,
    samples: Vec<(Nanos, ServerSample)>,
    before: ServerSample,
    connected: Option<ServerSample>,
    from: Option<ServerSample>,
    to: Option<ServerSample>,
    counters_from: Counters,
    counters_to: Counters,
    tool_bytes: u64,
    /// The broker could be looked at once and cannot any more.
    gone: bool,
}

impl Watch {
    pub(super) fn new(
        gates: Gates,
        sampler: Option<Sampler>,
        quiet: bool,
        (warm_up, measured): (Duration, Duration),
    ) -> Self {
        let nanos = |time: Duration| Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX);
        Self {
            gates,
            sampler,
            progress: Progress::new(quiet, (warm_up + measured).as_secs_f64()),
            warm_up: nanos(warm_up),
            measured: nanos(measured),
            samples: Vec::new(),
            before: ServerSample::default(),
            connected: None,
            from: None,
            to: None,
            counters_from: Counters::default(),
            counters_to: Counters::default(),
            tool_bytes: 0,
            gone: false,
        }
    }

    /// The first sample, before anything connects.
    pub(super) fn before(&mut self) {
        self.before = self.sample().unwrap_or_default();
    }

    /// Watches until the shares have ended.
    pub(super) fn until(&mut self, ended: impl Fn() -> bool) {
        let mut next = Instant::now();
        while !ended() {
            thread::sleep(LOOK);
            let step = self.gates.last();
            self.progress.show(step, self.gates.live());
            self.moments();
            if Instant::now() >= next {
                next += Duration::from_nanos(SECOND);
                if let Some(sample) = self.sample() {
                    self.samples.push((clock::now(), sample));
                }
            }
        }
        self.progress.end();
    }

    /// Takes the samples that belong to a moment of the run.
    fn moments(&mut self) {
        if self.connected.is_none() && self.gates.opened(Step::Connected).is_some() {
            self.connected = self.sample();
        }
        let Some(ready) = self.gates.opened(Step::Ready) else {
            return;
        };
        let from = ready + READY_PAUSE + self.warm_up;
        let now = clock::now();
        if self.from.is_none() && now >= from {
            self.from = self.sample();
            self.counters_from = self.counters();
        }
        if self.to.is_none() && now >= from + self.measured {
            self.to = self.sample();
            self.counters_to = self.counters();
            self.tool_bytes = Usage::of_self().map_or(0, |usage| usage.anonymous_bytes);
        }
    }

    fn sample(&mut self) -> Option<ServerSample> {
        let sample = self.sampler.as_mut()?.sample();
        self.gone |= sample.is_none() && self.before != ServerSample::default();
        sample
    }

    fn counters(&mut self) -> Counters {
        let sampler = self.sampler.as_ref();
        sampler.map_or_else(Counters::default, Sampler::counters)
    }

    /// Writes down what was seen.
    pub(super) fn finish(mut self, report: &mut Report) {
        if self.to.is_none() {
            // It ended before its time.
            self.to = self.sample();
            self.counters_to = self.counters();
            self.tool_bytes = Usage::of_self().map_or(0, |usage| usage.anonymous_bytes);
        }
        report.tool.anonymous_bytes = self.tool_bytes;
        let Some(sampler) = &self.sampler else {
            return;
        };
        if self.gone {
            let text = "the broker's process could not be looked at to the end";
            report.remarks.push(text.to_owned());
        }
        let connected = self.connected.unwrap_or(self.before);
        let from = self.from.unwrap_or(connected);
        report.server = Some(Server {
            pid: sampler.pid(),
            name: sampler.name().to_owned(),
            before: self.before,
            connected,
            measured_from: from,
            measured_to: self.to.unwrap_or(from),
            counters: self.counters_to.since(&self.counters_from),
        });
        let Some(began) = self.gates.opened(Step::Begin) else {
            return;
        };
        for (at, sample) in self.samples {
            let second = usize::try_from(at.saturating_sub(began) / SECOND).unwrap_or(usize::MAX);
            if let Some(second) = report.seconds.get_mut(second) {
                second.server = Some(sample);
            }
        }
    }
}
