//! The line that says how a run is getting on.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::counted;
use crate::runner::{Live, Step};

/// How often the line is drawn anew at most.
const REDRAW: Duration = Duration::from_millis(200);

/// A line at the bottom of the terminal; nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    drawn_at: Instant,
    before: Live,
    measured_s: f64,
    ready_at: Option<Instant>,
}

impl Progress {
    /// `planned_s` is how long the schedule takes, warm-up included.
    pub(crate) fn new(quiet: bool, planned_s: f64) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            began: now,
            drawn_at: now,
            before: Live::default(),
            measured_s: planned_s,
            ready_at: None,
        }
    }

    /// Draws the line.
    pub(crate) fn show(&mut self, step: Option<Step>, live: Live) {
        let now = Instant::now();
        if step >= Some(Step::Ready) {
            self.ready_at.get_or_insert(now);
        }
        let since = now.duration_since(self.drawn_at);
        if since < REDRAW {
            return;
        }
        self.bar.set_message(self.text(step, live, since));
        self.bar.tick();
        self.drawn_at = now;
        self.before = live;
    }

    fn text(&self, step: Option<Step>, live: Live, since: Duration) -> String {
        let per_second = |now: u64, before: u64| {
            (now.saturating_sub(before)) as f64 / since.as_secs_f64().max(0.001)
        };
        let elapsed = self.began.elapsed().as_secs_f64();
        let phase = match step {
            None => format!("{elapsed:.0} s: starting"),
            Some(Step::Begin) => format!("{elapsed:.0} s: connecting"),
            Some(Step::Connected) => format!("{elapsed:.0} s: publishing what is retained"),
            Some(Step::Preloaded) => format!("{elapsed:.0} s: connecting late groups"),
            Some(Step::Ready) => {
                let done = self.ready_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
                format!("{done:.0} of {:.0} s", self.measured_s)
            }
            Some(Step::Published | Step::Delivered) => "waiting for the last deliveries".to_owned(),
        };
        format!(
            "{phase} · {} of {} · {:.0} sent/s, {:.0} acknowledged/s, {:.0} delivered/s · {} waiting · {} closed",
            live.ready,
            counted(live.clients, "client", "clients"),
            per_second(live.sent, self.before.sent),
            per_second(live.acknowledged, self.before.acknowledged),
            per_second(live.delivered, self.before.delivered),
            live.waiting,
            live.closed,
        )
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
