//! What a run did not keep to, and whose limit it found: the figures of a report compared with its limits.

use crate::plan::{Checks, Pace, Plan};
use crate::report::{AudienceReport, Connects, Report, StreamReport};

/// How late the tool may come to one message in a hundred before its figures are its own, in milliseconds.
const LATE_P99_MS_MAX: f64 = 20.0;

/// The part of a core that a share may use before it is the limit.
const BUSY_MAX: f64 = 0.95;

/// Of a run that measured for so long before it was interrupted, an audience that got nothing at all would get nothing: that
/// is more than what was on its way.
const SILENT_S: f64 = 1.0;

/// Says where the tool was the limit and not the broker. `dropped`: messages that the tool gave up.
pub(super) fn tool_limits(plan: &Plan, simulated: bool, dropped: u64, report: &mut Report) {
    let limits = &mut report.tool_was_the_limit;
    if dropped > 0 {
        limits.push(format!(
            "{dropped} messages were due and dropped: too many waited for their windows"
        ));
    }
    if !simulated && report.tool.busiest > BUSY_MAX {
        limits.push(format!(
            "a thread of the tool used {:.0}% of a core: use more --processes",
            report.tool.busiest * 100.0
        ));
    }
    for stream in &report.streams {
        let late = stream.counts.late.quantile_ms(0.99);
        if late > LATE_P99_MS_MAX {
            limits.push(format!(
                "one in a hundred messages of stream \"{}\" was sent {late:.1} ms late or more, by this tool or for want of a core",
                stream.name
            ));
        }
    }
    let mut paces = plan.streams.iter().map(|stream| stream.pace);
    if paces.any(|pace| pace == Pace::Highest) {
        report.remarks.push(
            "latencies at the highest pace count from sending: there is no schedule to be late for"
                .to_owned(),
        );
    }
}

/// Compares with the limits and says what is not kept.
pub(super) fn judge(plan: &Plan, report: &mut Report) {
    let mut judge = Judge {
        checks: &report.checks,
        interrupted: report.interrupted.is_some(),
        measured_s: report.measured.1 - report.measured.0,
        failures: Vec::new(),
    };
    for stream in &report.streams {
        judge.stream(stream);
    }
    for audience in &report.audiences {
        judge.audience(audience);
    }
    judge.connections(&report.connects);
    judge.strays(report);
    let failures = judge.failures;
    if let Some(lost) = everybody_lost(report) {
        // Whatever else is missing follows from it.
        report.failures.insert(0, lost.clone());
        report.broker_lost = Some(lost);
    }
    report.failures.extend(failures);
    report.failures.extend(report.lost_shares.iter().cloned());
    remarks(plan, report);
}

/// Collects what is over its limit.
struct Judge<'a> {
    checks: &'a Checks,
    /// What was on its way is nobody's loss then.
    interrupted: bool,
    measured_s: f64,
    failures: Vec<String>,
}

impl Judge<'_> {
    fn over(&mut self, count: u64, max: u64, what: impl FnOnce() -> String) {
        if count > max {
            let what = what();
            self.failures.push(match max {
                0 => format!("{count} {what}"),
                _ => format!("{count} {what}; allowed are {max}"),
            });
        }
    }

    /// What was published.
    fn stream(&mut self, stream: &StreamReport) {
        let (name, counts) = (&stream.name, &stream.counts);
        let unanswered_max = self.checks.unanswered_max;
        self.over(counts.refused_in_all(), self.checks.refused_max, || {
            format!("publishes of stream \"{name}\" were refused")
        });
        if !self.interrupted {
            self.over(counts.unanswered, unanswered_max, || {
                format!("publishes of stream \"{name}\" were never answered")
            });
            let unsent = counts.due.saturating_sub(counts.sent);
            self.over(unsent, unanswered_max, || {
                format!("messages of stream \"{name}\" were due and could not be sent")
            });
        }
        self.over(u64::from(!stream.balances()), 0, || {
            format!("ledger does not add up: stream \"{name}\" (an error of this tool)")
        });
    }

    /// What arrived.
    fn audience(&mut self, audience: &AudienceReport) {
        let what = if audience.answers {
            "answers to"
        } else {
            "deliveries of"
        };
        let who = format!(
            "{what} stream \"{}\" to group \"{}\" ({})",
            audience.stream, audience.group, audience.filter
        );
        let checks = self.checks;
        if !self.interrupted {
            self.over(audience.missing, checks.missing_max, || {
                format!("{who} are missing")
            });
        } else if self.measured_s >= SILENT_S && audience.checked && audience.delivered == 0 {
            self.over(audience.expected, checks.missing_max, || {
                format!("{who} were due, and not a single one had come")
            });
        }
        self.over(duplicates_of(audience), checks.duplicates_max, || {
            format!("{who} came more than once")
        });
        self.over(audience.out_of_order, checks.out_of_order_max, || {
            format!("{who} came behind a later one")
        });
        self.over(audience.damaged, checks.damaged_max, || {
            format!("{who} came with other bytes than were published")
        });
        self.over(audience.qos_changed, checks.qos_changed_max, || {
            format!(
                "{who} came with another QoS than {}, the smaller one of publish and subscription",
                audience.qos
            )
        });
    }

    fn connections(&mut self, connects: &Connects) {
        let closed = connects.closed.values().sum();
        self.over(closed, self.checks.closed_max, || {
            "connections were refused or ended by the broker".to_owned()
        });
        self.over(connects.refused, 0, || "filters were refused".to_owned());
        self.over(connects.unheard, 0, || {
            "clients never heard that they are subscribed".to_owned()
        });
    }

    /// What came to somebody who had not asked for it.
    fn strays(&mut self, report: &Report) {
        self.over(report.misdelivered, 0, || {
            "messages came to clients that had not asked for them".to_owned()
        });
        self.over(report.unasked, 0, || {
            "answers came to packets that nobody had sent".to_owned()
        });
    }
}

/// Who comes back gets what was not acknowledged again; who reads slowly never comes back.
fn duplicates_of(audience: &AudienceReport) -> u64 {
    let comes_back = !audience.checked && audience.read_bytes_per_second.is_none();
    if audience.qos == 1 && comes_back {
        0
    } else {
        audience.duplicates
    }
}

/// A sentence when all connections ended before the measured time did and nobody was accepted again: whoever listened is gone.
fn everybody_lost(report: &Report) -> Option<String> {
    let connects = &report.connects;
    let closed: u64 = connects.closed.values().sum();
    // The seconds that are over when clients begin to leave by themselves.
    let whole = report.measured.1.floor() as usize;
    let seconds = &report.seconds[..whole.min(report.seconds.len())];
    let last = seconds.iter().rposition(|second| second.connected > 0);
    let lost = last.map_or(0, |last| last + 1);
    let after = seconds.get(lost + 1..).filter(|after| !after.is_empty())?;
    let came_back = after.iter().any(|second| second.accepted > 0);
    (connects.accepted > 0 && closed > 0 && !came_back).then(|| {
        format!(
            "the broker was lost: every connection ended within {} s of the first connect, and none came back",
            lost + 1
        )
    })
}

fn remarks(plan: &Plan, report: &mut Report) {
    // Where nothing is published, what others publish is what the run is for.
    if report.foreign > 0 && !plan.streams.is_empty() {
        report.remarks.push(format!(
            "{} messages came that are not of this run: somebody else publishes, or an earlier run left them",
            report.foreign
        ));
    }
    if report.interrupted.is_some() {
        report.remarks.push(
            "ended before its time: what was on its way then is not called missing".to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Second;

    /// A report of a run whose connections end in so many seconds.
    fn report(seconds: &[(u64, u64)], closed: u64) -> Report {
        let mut report = Report {
            measured: (0.5, seconds.len() as f64 + 0.3),
            ..Report::default()
        };
        for (accepted, connected) in seconds {
            report.seconds.push(Second {
                accepted: *accepted,
                connected: *connected,
                ..Second::default()
            });
            report.connects.accepted += accepted;
        }
        report.connects.closed.insert("x".to_owned(), closed);
        // Clients leave behind the measured time.
        report.seconds.push(Second::default());
        report
    }

    #[test]
    fn the_broker_is_lost_when_nobody_comes_back_and_only_then() {
        let within = |seconds: &[(u64, u64)], closed| everybody_lost(&report(seconds, closed));
        let lost = within(&[(9, 9), (0, 9), (0, 0), (0, 0), (0, 0)], 9);
        assert!(lost.is_some_and(|text| text.contains("within 3 s of")));
        // In the second in which they were accepted.
        let lost = within(&[(9, 0), (0, 0)], 9);
        assert!(lost.is_some_and(|text| text.contains("within 1 s of")));
        for (seconds, closed) in [
            // Everybody was there to the end.
            (&[(9, 9), (0, 9)][..], 0),
            // One was.
            (&[(9, 9), (0, 1), (0, 1)], 8),
            // They came back, or were sent away again and again.
            (&[(9, 9), (0, 0), (9, 9)], 9),
            (&[(9, 0), (9, 0), (9, 0)], 27),
            // They left by themselves.
            (&[(9, 9), (0, 0), (0, 0)], 0),
            // Nobody was ever accepted: there may be no broker.
            (&[(0, 0), (0, 0), (0, 0)], 9),
            // The last second alone says little.
            (&[(9, 9), (0, 0)], 9),
        ] {
            assert_eq!(within(seconds, closed), None, "{seconds:?}");
        }
    }

    #[test]
    fn an_interrupted_run_in_which_nothing_came_at_all_has_not_passed() {
        let failures = |delivered, measured_s, checked| {
            let audience = AudienceReport {
                expected: 20,
                delivered,
                checked,
                missing: 20 - delivered,
                ..AudienceReport::default()
            };
            let mut judge = Judge {
                checks: &Checks::default(),
                interrupted: true,
                measured_s,
                failures: Vec::new(),
            };
            judge.audience(&audience);
            judge.failures
        };
        let silent = failures(0, 4.0, true);
        assert!(
            silent[0].ends_with("were due, and not a single one had come"),
            "{silent:?}"
        );
        // What was on its way is no loss; who was not to get all, or had no time to, neither.
        for (delivered, measured_s, checked) in [(1, 4.0, true), (0, 0.5, true), (0, 4.0, false)] {
            assert_eq!(failures(delivered, measured_s, checked), [""; 0]);
        }
    }
}
