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
    connected: Option<Moment>,
    from: Option<Moment>,
    to: Option<Moment>,
    /// The broker could be looked at once and cannot any more.
    gone: bool,
}

/// What is read once, at a moment of the run: also where there is no process to look at, or none any more.
#[derive(Default)]
struct Moment {
    sample: Option<ServerSample>,
    counters: Counters,
    /// Memory of this tool.
    tool_bytes: u64,
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
            self.connected = Some(Moment {
                sample: self.sample(),
                ..Moment::default()
            });
        }
        let Some(ready) = self.gates.opened(Step::Ready) else {
            return;
        };
        let from = ready + READY_PAUSE + self.warm_up;
        let now = clock::now();
        if self.from.is_none() && now >= from {
            self.from = Some(self.moment());
        }
        if self.to.is_none() && now >= from + self.measured {
            self.to = Some(self.moment());
        }
    }

    fn moment(&mut self) -> Moment {
        let sample = self.sample();
        let sampler = self.sampler.as_ref();
        Moment {
            sample,
            counters: sampler.map_or_else(Counters::default, Sampler::counters),
            tool_bytes: Usage::of_self().map_or(0, |usage| usage.anonymous_bytes),
        }
    }

    fn sample(&mut self) -> Option<ServerSample> {
        let sample = self.sampler.as_mut()?.sample();
        self.gone |= sample.is_none() && self.before != ServerSample::default();
        sample
    }

    /// Writes down what was seen.
    pub(super) fn finish(mut self, report: &mut Report) {
        let to = match self.to.take() {
            Some(to) => to,
            // It ended before its time.
            None => self.moment(),
        };
        report.tool.anonymous_bytes = to.tool_bytes;
        let Some(sampler) = &self.sampler else {
            return;
        };
        if self.gone {
            let text = "the broker's process could not be looked at to the end";
            report.remarks.push(text.to_owned());
        }
        let connected = self.connected.unwrap_or_default().sample;
        let connected = connected.unwrap_or(self.before);
        let measured_from = self.from.unwrap_or_default();
        let from = measured_from.sample.unwrap_or(connected);
        report.server = Some(Server {
            pid: sampler.pid(),
            name: sampler.name().to_owned(),
            before: self.before,
            connected,
            measured_from: from,
            measured_to: to.sample.unwrap_or(from),
            counters: to.counters.since(&measured_from.counters),
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
