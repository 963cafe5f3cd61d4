//! What had to arrive, what did, and what each subscriber lacks: by lane, of all shares together.

use std::collections::HashMap;

use super::Lost;
use crate::outcome::{AudienceOutcome, Holes, Numbers, StreamOutcome};
use crate::plan::{Audience, Group, Plan, Relation, Stream};
use crate::report::{AudienceReport, StreamReport, Trouble, WORST_MAX};
use crate::swarm::Client;

/// What was published in a lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
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

pub(super) type Lanes = HashMap<u32, Lane, ahash::RandomState>;

/// The ledger of a stream; what each lane published goes into `lanes`.
pub(super) fn stream_report<'a>(
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
        report.counts.add(&part.counts);
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

/// What the shares say of an audience's subscribers; a subscriber's key is its number in the group.
#[derive(Default)]
struct Arrived<'a> {
    lacks: HashMap<u32, Lack, ahash::RandomState>,
    /// By subscriber and lane, different messages that came.
    received: HashMap<(u32, u32), u32, ahash::RandomState>,
    /// By subscriber and lane, what is missing before the last one that came.
    holes: HashMap<(u32, u32), &'a Holes, ahash::RandomState>,
}

/// What arrived at an audience of what the lanes published.
pub(super) fn audience_report(
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
    let mut arrived = gather(parts, &mut report);
    if matches!(audience.relation, Relation::Shared) {
        reckon_shared(parts, lanes, lost.is_empty(), &mut report);
    } else {
        for (lane, published) in lanes {
            for_each_subscriber(stream, audience, group.clients, *lane, |subscriber| {
                let client = Client(group.first.0 + subscriber);
                if !lost.iter().any(|lost| lost.share.owns(client)) {
                    reckon(subscriber, *lane, published, &mut arrived, &mut report);
                }
            });
        }
    }
    report.worst = worst(group, arrived.lacks);
    report
}

/// Adds up what the shares counted.
fn gather<'a>(parts: &[&'a AudienceOutcome], report: &mut AudienceReport) -> Arrived<'a> {
    let mut arrived = Arrived::default();
    for part in parts {
        report.delivered_measured += part.delivered_measured;
        report.damaged += part.damaged;
        report.qos_changed += part.qos_changed;
        report.latency.merge(&part.latency);
        for [subscriber, lane, count, duplicates, late] in &part.tracks {
            if *duplicates > 0 || *late > 0 {
                let lack = arrived.lacks.entry(*subscriber).or_default();
                lack.duplicates += u64::from(*duplicates);
                lack.out_of_order += u64::from(*late);
                report.duplicates += u64::from(*duplicates);
                report.out_of_order += u64::from(*late);
            }
            arrived.received.insert((*subscriber, *lane), *count);
        }
        let holes = part.holes.iter().map(|it| ((it.subscriber, it.lane), it));
        arrived.holes.extend(holes);
    }
    arrived
}

/// What one subscriber had to get of a lane, and what it got.
fn reckon(
    subscriber: u32,
    lane: u32,
    published: &Lane,
    arrived: &mut Arrived<'_>,
    report: &mut AudienceReport,
) {
    let failed = &published.failed[..];
    let came = arrived.received.get(&(subscriber, lane)).copied();
    let came = came.unwrap_or(0);
    // Without holes all numbers below the count have come.
    let excused = match arrived.holes.get(&(subscriber, lane)) {
        Some(holes) => holes.lacks(failed) as usize,
        None => failed.len() - failed.partition_point(|number| *number < came),
    };
    report.expected += published.must();
    report.delivered += u64::from(came);
    report.unacknowledged += (failed.len() - excused) as u64;
    let absent = u64::from(published.sent.saturating_sub(came));
    let missing = absent.saturating_sub(excused as u64);
    if missing > 0 && report.checked {
        report.missing += missing;
        arrived.lacks.entry(subscriber).or_default().missing += missing;
    }
}

/// The subscribers that lack most, the worst first.
fn worst(group: &Group, lacks: HashMap<u32, Lack, ahash::RandomState>) -> Vec<Trouble> {
    let mut worst: Vec<(u32, Lack)> = lacks.into_iter().collect();
    worst.sort_by_key(|(subscriber, lack)| {
        let size = lack.missing + lack.duplicates + lack.out_of_order;
        (std::cmp::Reverse(size), *subscriber)
    });
    worst.truncate(WORST_MAX);
    let named = worst.into_iter().map(|(subscriber, lack)| {
        let mut client_id = String::new();
        group.client_id.render(subscriber, 0, &mut client_id);
        Trouble {
            client_id,
            missing: lack.missing,
            duplicates: lack.duplicates,
            out_of_order: lack.out_of_order,
        }
    });
    named.collect()
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
