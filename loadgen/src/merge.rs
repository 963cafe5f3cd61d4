//! The outcomes of all shares as one report: sums, merged histograms, and the reckoning of what had to arrive.

use std::collections::HashMap;

use crate::histogram::Histo;
use crate::outcome::{AudienceOutcome, Holes, Numbers, Outcome, StreamOutcome};
use crate::plan::{Audience, Checks, Plan, Relation, Share, Stream};
use crate::report::{
    AudienceReport, Connects, Report, Second, StreamReport, Tool, Trouble, WORST_MAX,
};
use crate::swarm::Client;

/// A share that did not report.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Which.
    pub share: Share,
    /// Why.
    pub why: String,
}

/// What was published in a lane.
#[derive(Debug, Default)]
struct Lane {
    sent: u32,
    /// Messages that were refused or not answered, ascending: they may come, and need not.
    failed: Vec<u32>,
}

impl Lane {
    /// Messages that must come.
    fn must(&self) -> u64 {
        u64::from(self.sent).saturating_sub(self.failed.len() as u64)
    }
}

type Lanes = HashMap<u32, Lane, ahash::RandomState>;

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
    let to = outcomes.iter().map(|it| it.measured.1).max().unwrap_or(0);
    report.measured = (seconds_since(from), seconds_since(to));
    let measured_s = seconds_since(to) - seconds_since(from);

    // What a share is, for people.
    let part = if simulated { "thread" } else { "share" };
    let (mut dropped, mut busiest, mut cpu_us) = (0, 0_f64, 0);
    for outcome in outcomes {
        add_connects(&mut report.connects, &outcome.connects);
        report.foreign += outcome.foreign;
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
    judge(report);
}

fn add_connects(sum: &mut Connects, part: &Connects) {
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

fn stream_report<'a>(
    plan: &Plan,
    stream: &Stream,
    parts: impl Iterator<Item = &'a StreamOutcome>,
    lanes: &mut Lanes,
) -> StreamReport {
    let mut report = StreamReport {
        name: stream.name.clone(),
        group: plan.groups[stream.group].name.clone(),
        qos: stream.qos as u8,
        ..StreamReport::default()
    };
    for part in parts {
        report.due += part.due;
        report.sent += part.sent;
        report.acknowledged += part.acknowledged;
        for (why, count) in &part.refused {
            *report.refused.entry(why.clone()).or_default() += count;
        }
        report.unanswered += part.unanswered;
        report.sent_measured += part.sent_measured;
        report.acknowledged_measured += part.acknowledged_measured;
        report.latency.merge(&part.latency);
        report.late.merge(&part.late);
        // A lane has one publisher, and so is of one share.
        for [lane, sent, _] in &part.lanes {
            lanes.entry(*lane).or_default().sent = *sent;
        }
        for (lane, failed) in &part.failed {
            lanes.entry(*lane).or_default().failed = failed.iter().collect();
        }
    }
    report
}

/// What one subscriber lacks.
#[derive(Default)]
struct Lack {
    missing: u64,
    duplicates: u64,
    out_of_order: u64,
}

fn audience_report(
    plan: &Plan,
    stream: &Stream,
    audience: &Audience,
    parts: &[&AudienceOutcome],
    lanes: &Lanes,
    lost: &[Lost],
) -> AudienceReport {
    let group = &plan.groups[audience.group];
    let mut report = AudienceReport {
        stream: stream.name.clone(),
        group: group.name.clone(),
        filter: group.subscriptions[audience.subscription]
            .filter
            .text()
            .to_owned(),
        answers: matches!(audience.relation, Relation::Answers),
        qos: audience.qos as u8,
        subscribers: group.clients.into(),
        checked: audience.checked,
        read_bytes_per_second: group.read_bytes_per_second,
        ..AudienceReport::default()
    };
    let mut lacks: HashMap<u32, Lack, ahash::RandomState> = HashMap::default();
    let mut received: HashMap<(u32, u32), u32, ahash::RandomState> = HashMap::default();
    let mut holes: HashMap<(u32, u32), &Holes, ahash::RandomState> = HashMap::default();
    for part in parts {
        report.delivered_measured += part.delivered_measured;
        report.damaged += part.damaged;
        report.qos_changed += part.qos_changed;
        report.latency.merge(&part.latency);
        for [subscriber, lane, count, duplicates, late] in &part.tracks {
            if *duplicates > 0 || *late > 0 {
                let lack = lacks.entry(*subscriber).or_default();
                lack.duplicates += u64::from(*duplicates);
                lack.out_of_order += u64::from(*late);
                report.duplicates += u64::from(*duplicates);
                report.out_of_order += u64::from(*late);
            }
            received.insert((*subscriber, *lane), *count);
        }
        holes.extend(part.holes.iter().map(|it| ((it.subscriber, it.lane), it)));
    }
    if matches!(audience.relation, Relation::Shared) {
        reckon_shared(parts, lanes, lost.is_empty(), &mut report);
    } else {
        for (lane, published) in lanes {
            let failed = &published.failed[..];
            for_each_subscriber(stream, audience, group.clients, *lane, |subscriber| {
                let client = Client(group.first.0 + subscriber);
                if lost.iter().any(|lost| lost.share.owns(client)) {
                    return;
                }
                let came = received.get(&(subscriber, *lane)).copied().unwrap_or(0);
                // Without holes all numbers below the count have come.
                let excused = match holes.get(&(subscriber, *lane)) {
                    Some(holes) => holes.lacks(failed) as usize,
                    None => failed.len() - failed.partition_point(|number| *number < came),
                };
                report.expected += published.must();
                report.delivered += u64::from(came);
                report.unacknowledged += (failed.len() - excused) as u64;
                let absent = u64::from(published.sent.saturating_sub(came));
                let missing = absent.saturating_sub(excused as u64);
                if missing > 0 && audience.checked {
                    report.missing += missing;
                    lacks.entry(subscriber).or_default().missing += missing;
                }
            });
        }
    }
    let mut worst: Vec<(u32, Lack)> = lacks.into_iter().collect();
    worst.sort_by_key(|(subscriber, lack)| {
        let size = lack.missing + lack.duplicates + lack.out_of_order;
        (std::cmp::Reverse(size), *subscriber)
    });
    worst.truncate(WORST_MAX);
    report.worst = worst
        .into_iter()
        .map(|(subscriber, lack)| {
            let mut client_id = String::new();
            group.client_id.render(subscriber, 0, &mut client_id);
            Trouble {
                client_id,
                missing: lack.missing,
                duplicates: lack.duplicates,
                out_of_order: lack.out_of_order,
            }
        })
        .collect();
    report
}

fn for_each_subscriber(
    stream: &Stream,
    audience: &Audience,
    clients: u32,
    lane: u32,
    mut f: impl FnMut(u32),
) {
    let topic = stream.topic_of(lane);
    match &audience.relation {
        Relation::Own if topic < clients => f(topic),
        Relation::Own | Relation::Shared => {}
        Relation::All => (0..clients).for_each(f),
        Relation::Answers => f(stream.publisher(lane, clients)),
        Relation::Listed(listed) => {
            if let Some(who) = listed.get(topic as usize) {
                who.iter().copied().for_each(f);
            }
        }
    }
}

/// Of a share each message must come to one member: what no member got is missing, what two got is a duplicate.
/// `complete`: all members reported.
fn reckon_shared(
    parts: &[&AudienceOutcome],
    lanes: &Lanes,
    complete: bool,
    report: &mut AudienceReport,
) {
    let mut all: HashMap<u32, Numbers, ahash::RandomState> = HashMap::default();
    for part in parts {
        for (lane, numbers) in &part.numbers {
            report.duplicates += all.entry(*lane).or_default().merge(numbers);
        }
    }
    for (lane, published) in lanes {
        let came = all.entry(*lane).or_default();
        let failed = published.failed.iter();
        let unacknowledged = failed.filter(|number| came.has(**number)).count() as u64;
        let (must, came) = (published.must(), came.len());
        report.expected += must;
        report.delivered += came;
        report.unacknowledged += unacknowledged;
        if report.checked && complete {
            report.missing += must.saturating_sub(came - unacknowledged);
        }
    }
}

/// How late the tool may come to one message in a hundred before its figures are its own, in milliseconds.
const LATE_P99_MS_MAX: f64 = 20.0;

/// The part of a core that a share may use before it is the limit.
const BUSY_MAX: f64 = 0.95;

fn tool_limits(plan: &Plan, simulated: bool, dropped: u64, report: &mut Report) {
    if dropped > 0 {
        let text =
            format!("{dropped} messages were due and dropped: too many waited for their windows");
        report.tool_was_the_limit.push(text);
    }
    if !simulated && report.tool.busiest > BUSY_MAX {
        report.tool_was_the_limit.push(format!(
            "a thread of the tool used {:.0}% of a core: use more --processes",
            report.tool.busiest * 100.0
        ));
    }
    for stream in &report.streams {
        let late = stream.late.quantile_ms(0.99);
        if late > LATE_P99_MS_MAX {
            report.tool_was_the_limit.push(format!(
                "one in a hundred messages of stream \"{}\" was sent {late:.1} ms late or more, by this tool or for want of a core",
                stream.name
            ));
        }
    }
    if plan
        .streams
        .iter()
        .any(|stream| stream.pace == crate::plan::Pace::Highest)
    {
        let text =
            "latencies at the highest pace count from sending: there is no schedule to be late for";
        report.remarks.push(text.to_owned());
    }
}

/// Compares with the limits and says what is not kept.
fn judge(report: &mut Report) {
    let Checks {
        missing_max,
        duplicates_max,
        out_of_order_max,
        damaged_max,
        qos_changed_max,
        refused_max,
        unanswered_max,
        closed_max,
    } = report.checks.clone();
    let mut failures = Vec::new();
    let mut over = |count: u64, max: u64, what: String| {
        if count > max {
            failures.push(match max {
                0 => format!("{count} {what}"),
                _ => format!("{count} {what}; allowed are {max}"),
            });
        }
    };
    let interrupted = report.interrupted.is_some();
    for stream in &report.streams {
        let name = &stream.name;
        let refused = stream.refused.values().sum();
        over(
            refused,
            refused_max,
            format!("publishes of stream \"{name}\" were refused"),
        );
        if !interrupted {
            let unanswered = stream.unanswered;
            over(
                unanswered,
                unanswered_max,
                format!("publishes of stream \"{name}\" were never answered"),
            );
            let unsent = stream.due.saturating_sub(stream.sent);
            over(
                unsent,
                unanswered_max,
                format!("messages of stream \"{name}\" were due and could not be sent"),
            );
        }
        if !stream.balances() {
            over(
                1,
                0,
                format!("ledger does not add up: stream \"{name}\" (an error of this tool)"),
            );
        }
    }
    for audience in &report.audiences {
        let what = if audience.answers {
            "answers to"
        } else {
            "deliveries of"
        };
        let who = format!(
            "{what} stream \"{}\" to group \"{}\" ({})",
            audience.stream, audience.group, audience.filter
        );
        if !interrupted {
            over(audience.missing, missing_max, format!("{who} are missing"));
        }
        // Who comes back gets what was not acknowledged again; who reads slowly never comes back.
        let comes_back = !audience.checked && audience.read_bytes_per_second.is_none();
        let duplicates = if audience.qos == 1 && comes_back {
            0
        } else {
            audience.duplicates
        };
        over(
            duplicates,
            duplicates_max,
            format!("{who} came more than once"),
        );
        over(
            audience.out_of_order,
            out_of_order_max,
            format!("{who} came behind a later one"),
        );
        over(
            audience.damaged,
            damaged_max,
            format!("{who} came with other bytes than were published"),
        );
        over(
            audience.qos_changed,
            qos_changed_max,
            format!(
                "{who} came with another QoS than {}, the smaller one of publish and subscription",
                audience.qos
            ),
        );
    }
    let closed = report.connects.closed.values().sum();
    over(
        closed,
        closed_max,
        "connections were refused or ended by the broker".to_owned(),
    );
    over(
        report.connects.refused,
        0,
        "filters were refused".to_owned(),
    );
    over(
        report.connects.unheard,
        0,
        "clients never heard that they are subscribed".to_owned(),
    );
    over(
        report.misdelivered,
        0,
        "messages came to clients that had not asked for them".to_owned(),
    );
    over(
        report.unasked,
        0,
        "answers came to packets that nobody had sent".to_owned(),
    );
    report.failures.extend(failures);
    report.failures.extend(report.lost_shares.iter().cloned());
    if report.foreign > 0 {
        let text = format!(
            "{} messages came that are not of this run: somebody else publishes, or an earlier run left them",
            report.foreign
        );
        report.remarks.push(text);
    }
    if interrupted {
        let text =
            "ended before its time: what was on its way then is not called missing".to_owned();
        report.remarks.push(text);
    }
}
