//! The outcomes of all shares as one report: sums, merged histograms, and the reckoning of what had to arrive.

mod judge;
mod ledger;

use crate::histogram::Histo;
use crate::outcome::{AudienceOutcome, Outcome};
use crate::plan::{Plan, Share};
use crate::report::{Connects, Report, Second, Tool};

use judge::{judge, tool_limits};
use ledger::{Lanes, audience_report, stream_report};

/// A share that did not report.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Which.
    pub share: Share,
    /// Why.
    pub why: String,
}

/// Fills the parts of a report that come from the shares. Machine, server and the like are the caller's.
///
/// `lost`: shares that did not report; nothing is expected of their clients, and the run has failed for it. `simulated`: the
/// broker runs in the shares' own threads, so their CPU says nothing of the tool.
pub fn merge(
    plan: &Plan,
    outcomes: &[Outcome],
    lost: &[Lost],
    simulated: bool,
    report: &mut Report,
) {
    report.checks = plan.limits.clone();
    report.connects = Connects {
        clients: plan.clients().into(),
        ..Connects::default()
    };
    report.tool = Tool {
        shares: outcomes.len() as u32,
        ..report.tool.clone()
    };
    let began = outcomes.iter().map(|it| it.began).min().unwrap_or(0);
    let seconds_since = |at: u64| at.saturating_sub(began) as f64 / 1e9;
    let from = outcomes.iter().map(|it| it.measured.0).min().unwrap_or(0);
    // Shares that measured nothing say when they ended, each at its own time: no time has passed between these.
    let whole = outcomes.iter().map(|it| it.measured);
    let measured = whole.filter(|(from, to)| to > from);
    let to = measured.map(|(_, to)| to).max().unwrap_or(from);
    report.measured = (seconds_since(from), seconds_since(to));
    let measured_s = seconds_since(to) - seconds_since(from);

    // What a share is, for people.
    let part = if simulated { "thread" } else { "share" };
    let (mut dropped, mut busiest, mut cpu_us) = (0, 0_f64, 0);
    for outcome in outcomes {
        add_connects(&mut report.connects, &outcome.connects);
        report.foreign += outcome.foreign;
        report.foreign_measured += outcome.foreign_measured;
        report.misdelivered += outcome.misdelivered;
        report.unasked += outcome.unasked;
        dropped += outcome.dropped_by_tool;
        let cpu = outcome.cpu_us_measured.unwrap_or(0);
        cpu_us += cpu;
        if measured_s > 0.0 {
            busiest = busiest.max(cpu as f64 / 1e6 / measured_s);
        }
        if let Some(why) = &outcome.aborted {
            report.failures.push(match outcomes.len() {
                1 => why.clone(),
                _ => format!("{part} {}: {why}", outcome.share.index),
            });
        }
        if let Some(why) = &outcome.interrupted {
            report.interrupted = Some(why.clone());
        }
    }
    report.tool.cpu_s_measured = cpu_us as f64 / 1e6;
    report.tool.busiest = busiest;
    report.seconds = seconds(outcomes);

    for (at, stream) in plan.streams.iter().enumerate() {
        let mut lanes = Lanes::default();
        let of_stream = outcomes
            .iter()
            .filter_map(|outcome| outcome.streams.get(at));
        report
            .streams
            .push(stream_report(plan, stream, of_stream, &mut lanes));
        for (which, audience) in stream.audiences.iter().enumerate() {
            let parts: Vec<&AudienceOutcome> = outcomes
                .iter()
                .filter_map(|outcome| outcome.audiences.get(at)?.get(which))
                .collect();
            let entry = audience_report(plan, stream, audience, &parts, &lanes, lost);
            report.audiences.push(entry);
        }
    }
    for Lost { share, why } in lost {
        report.lost_shares.push(format!(
            "{part} {} of {} did not report: {why}",
            share.index, share.count
        ));
    }
    tool_limits(plan, simulated, dropped, report);
    judge(plan, report);
}

fn add_connects(sum: &mut Connects, part: &Connects) {
    sum.handshakes.full += part.handshakes.full;
    sum.handshakes.resumed += part.handshakes.resumed;
    sum.begun += part.begun;
    sum.accepted += part.accepted;
    sum.sessions_present += part.sessions_present;
    for (why, count) in &part.closed {
        *sum.closed.entry(why.clone()).or_default() += count;
    }
    for (why, count) in &part.closed_slow {
        *sum.closed_slow.entry(why.clone()).or_default() += count;
    }
    sum.seconds = sum.seconds.max(part.seconds);
    sum.latency.merge(&part.latency);
    sum.subscribe_latency.merge(&part.subscribe_latency);
    sum.granted += part.granted;
    sum.refused += part.refused;
    sum.unheard += part.unheard;
}

fn seconds(outcomes: &[Outcome]) -> Vec<Second> {
    let count = outcomes
        .iter()
        .map(|it| it.seconds.len())
        .max()
        .unwrap_or(0);
    let (mut ack, mut delivery) = (Histo::default(), Histo::default());
    (0..count)
        .map(|at| {
            let mut second = Second::default();
            ack.clear();
            delivery.clear();
            for part in outcomes
                .iter()
                .filter_map(|outcome| outcome.seconds.get(at))
            {
                second.connected += part.connected;
                second.accepted += part.accepted;
                second.closed += part.closed;
                second.sent += part.sent;
                second.acknowledged += part.acknowledged;
                second.delivered += part.delivered;
                second.tool_cpu_us += part.cpu_us;
                for (micros, times) in &part.ack {
                    ack.record_micros_times(*micros, *times);
                }
                for (micros, times) in &part.delivery {
                    delivery.record_micros_times(*micros, *times);
                }
            }
            second.ack_us = [0.5, 0.99, 1.0].map(|quantile| ack.quantile_micros(quantile));
            second.delivery_us =
                [0.5, 0.99, 1.0].map(|quantile| delivery.quantile_micros(quantile));
            second
        })
        .collect()
}
