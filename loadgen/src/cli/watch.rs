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
    /// From when on the broker could not be looked at any more.
    gone: Option<Nanos>,
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
            gone: None,
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
        if sample.is_none() && self.before != ServerSample::default() {
            self.gone.get_or_insert_with(clock::now);
        }
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
        if let Some(gone) = self.gone {
            let began = self.gates.opened(Step::Begin).unwrap_or(gone);
            let after_s = gone.saturating_sub(began) as f64 / SECOND as f64;
            tell_gone(sampler, after_s, report);
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

/// That a process is gone is the first thing to know of a run; that it may not be looked at is none.
fn tell_gone(sampler: &Sampler, after_s: f64, report: &mut Report) {
    if sampler.is_alive() {
        let text = "the broker's process could not be looked at to the end";
        report.remarks.push(text.to_owned());
        return;
    }
    let died = format!(
        "the broker died: its process {} ({}) ended {after_s:.1} s after the first connect",
        sampler.pid(),
        sampler.name()
    );
    // It says more than that the connections are gone.
    if let Some(lost) = report.broker_lost.replace(died.clone()) {
        report.failures.retain(|failure| *failure != lost);
    }
    report.failures.insert(0, died);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::runner::Gate;

    /// An address whose only counter says what the cell does.
    fn metrics(counter: Arc<AtomicU64>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4_096]).unwrap();
                let text = format!(
                    "same_total 5\nmoved_total {}\n",
                    counter.load(Ordering::SeqCst)
                );
                let len = text.len();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}");
                write!(stream, "{head}\r\n\r\n{text}").unwrap();
            }
        });
        url
    }

    fn watch(url: &str, gates: &Gates, measured: Duration) -> Watch {
        let broker = "127.0.0.1:1".parse().unwrap();
        let sampler = Sampler::find(None, broker, Some(url)).unwrap();
        assert!(sampler.is_some());
        let mut watch = Watch::new(gates.clone(), sampler, true, (Duration::ZERO, measured));
        watch.before();
        watch
    }

    fn server(watch: Watch) -> Server {
        let mut report = Report::default();
        watch.finish(&mut report);
        assert_eq!(report.remarks, [""; 0], "no process was there to lose");
        assert!(report.tool.anonymous_bytes > 0);
        report.server.unwrap()
    }

    #[test]
    fn counters_without_a_process_count_from_the_beginning_of_the_measured_time_to_its_end() {
        let counter = Arc::new(AtomicU64::new(0));
        let (url, gates) = (metrics(Arc::clone(&counter)), Gates::new(1));
        let measured = Duration::from_secs(1);
        let mut watch = watch(&url, &gates, measured);
        let mut share = gates.of(0);
        let mut at = |step, value| {
            counter.store(value, Ordering::SeqCst);
            share.arrive(step, clock::now());
            watch.moments();
        };
        at(Step::Begin, 10);
        at(Step::Connected, 20);
        at(Step::Preloaded, 50);
        // The pause before the schedule is not measured yet.
        at(Step::Ready, 100);
        assert!(watch.connected.is_some() && watch.from.is_none());
        let from = gates.opened(Step::Ready).unwrap() + READY_PAUSE;
        let until = |time: Nanos| {
            thread::sleep(Duration::from_nanos(time.saturating_sub(clock::now())));
        };
        until(from);
        counter.store(1_000, Ordering::SeqCst);
        watch.moments();
        counter.store(3_000, Ordering::SeqCst);
        watch.moments();
        assert!(watch.to.is_none(), "the machine was away for {measured:?}");
        until(from + SECOND);
        counter.store(5_000, Ordering::SeqCst);
        watch.moments();
        // What comes behind the measured time is not in it.
        counter.store(9_000, Ordering::SeqCst);
        watch.moments();
        let server = server(watch);
        assert_eq!((server.pid, &server.name[..]), (0, ""));
        assert_eq!(server.measured_to, ServerSample::default());
        let moved = ("moved_total".to_owned(), 4_000.0);
        assert_eq!(server.counters.into_iter().collect::<Vec<_>>(), [moved]);
    }

    #[test]
    fn of_a_run_that_ends_early_the_counters_count_to_its_end() {
        let counter = Arc::new(AtomicU64::new(7));
        let (url, gates) = (metrics(Arc::clone(&counter)), Gates::new(1));
        let mut watch = watch(&url, &gates, Duration::from_secs(3_600));
        let mut share = gates.of(0);
        for step in [Step::Begin, Step::Connected, Step::Preloaded, Step::Ready] {
            share.arrive(step, clock::now());
        }
        thread::sleep(Duration::from_nanos(READY_PAUSE) + LOOK);
        watch.moments();
        counter.store(9, Ordering::SeqCst);
        let moved = ("moved_total".to_owned(), 2.0);
        assert_eq!(
            server(watch).counters.into_iter().collect::<Vec<_>>(),
            [moved]
        );
    }
}
