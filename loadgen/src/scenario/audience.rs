//! Which subscriptions get which topics of which streams.

use topic::FilterTree;

use super::check::grouped;
use super::error::ScenarioError;
use super::limits::MATCHED_MAX;
use super::pattern::{Match, Pattern};
use crate::plan::{Audience, Churn, ConnectPlan, Group, Pace, Relation, Stream, Subscription};
use codec::{Qos, Version};

/// Finds the audiences of all streams.
///
/// # Errors
/// Finding them takes too much, a client would get a topic twice, or what has to arrive cannot be said.
pub(super) fn find(
    groups: &[Group],
    streams: &mut [Stream],
    churn: Option<&Churn>,
    connect: &ConnectPlan,
) -> Result<(), ScenarioError> {
    let topics: Vec<Pattern> = streams
        .iter()
        .map(|stream| Pattern::new(&stream.topic))
        .collect();
    for (group_index, group) in groups.iter().enumerate() {
        let away = churn.is_some_and(|churn| churn.group == group_index);
        let forgotten = away && !keeps_session(connect);
        for (index, subscription) in group.subscriptions.iter().enumerate() {
            let filter = Pattern::new(&subscription.filter);
            if let Some(name) = &subscription.answers {
                let key = || {
                    let filter = subscription.filter.text();
                    format!("group \"{}\": subscribe \"{filter}\": answers", group.name)
                };
                apart(&key, &filter, streams, &topics)?;
                let stream = answered(&key, name, group_index, groups, streams)?;
                let cut = churn.is_some_and(|churn| churn.abruptly && away);
                let lost = away && subscription.qos == Qos::AtMostOnce
                    || cut && stream.qos == Qos::AtMostOnce
                    || forgotten
                    || group.reads_slowly();
                stream.audiences.push(Audience {
                    group: group_index,
                    subscription: index,
                    qos: subscription.qos,
                    relation: Relation::Answers,
                    checked: !lost,
                });
                continue;
            }
            let mut tree = None;
            for (stream, topic) in streams.iter_mut().zip(&topics) {
                if misses_what_was_before(group, subscription, stream) {
                    continue;
                }
                let relation = match filter.of_topics(topic) {
                    Match::Never => continue,
                    Match::Always if subscription.share.is_some() => Relation::Shared,
                    Match::Always => Relation::All,
                    Match::SameNumber => Relation::Own,
                    Match::Sometimes => match matched(group, subscription, stream, &mut tree)? {
                        Some(relation) => relation,
                        None => continue,
                    },
                };
                check_retained(group, stream, forgotten)?;
                let qos = stream.qos.min(subscription.qos);
                // What the kernel still held of a broken connection was sent, as far as anybody knows.
                let cut = churn.is_some_and(|churn| churn.abruptly && churn.group == stream.group);
                let lost = qos == Qos::AtMostOnce && away
                    || stream.qos == Qos::AtMostOnce && cut
                    || forgotten
                    || group.reads_slowly();
                let audience = Audience {
                    group: group_index,
                    subscription: index,
                    qos,
                    relation,
                    checked: !lost,
                };
                check_overlap(group, stream, &audience)?;
                stream.audiences.push(audience);
            }
        }
        check_last_retained(group, group_index, streams, &topics)?;
    }
    Ok(())
}

/// Messages that come on a filter for answers would be taken for answers.
fn apart(
    key: &impl Fn() -> String,
    filter: &Pattern,
    streams: &[Stream],
    topics: &[Pattern],
) -> Result<(), ScenarioError> {
    let mut all = streams.iter().zip(topics);
    match all.find(|(_, topic)| filter.of_topics(topic) != Match::Never) {
        None => Ok(()),
        Some((stream, _)) => Err(ScenarioError::refused(
            key(),
            format!(
                "the filter matches topics of stream \"{}\" (\"{}\"); answers need topics that no stream publishes",
                stream.name,
                stream.topic.text()
            ),
        )),
    }
}

/// The stream that a subscription has the answers to.
fn answered<'a>(
    key: &impl Fn() -> String,
    name: &str,
    group: usize,
    groups: &[Group],
    streams: &'a mut [Stream],
) -> Result<&'a mut Stream, ScenarioError> {
    let Some(at) = streams.iter().position(|stream| stream.name == name) else {
        let names: Vec<String> = streams
            .iter()
            .map(|stream| format!("\"{}\"", stream.name))
            .collect();
        let known = match &names[..] {
            [] => "none at all".to_owned(),
            names => names.join(", "),
        };
        return Err(ScenarioError::value(
            key(),
            format!("\"{name}\""),
            format!("there is no such stream, but {known}"),
        ));
    };
    let stream = &mut streams[at];
    if stream.group != group {
        return Err(ScenarioError::value(
            key(),
            format!("\"{name}\""),
            format!(
                "group \"{}\" publishes that stream, and answers go to whoever published",
                groups[stream.group].name
            ),
        ));
    }
    let other = stream.audiences.iter().find(|other| other.group == group);
    if let Some(other) = other {
        let filter = groups[group].subscriptions[other.subscription]
            .filter
            .text();
        return Err(ScenarioError::value(
            key(),
            format!("\"{name}\""),
            format!(
                "the group gets that stream by \"{filter}\" already, and nobody could say which of the two a message came by"
            ),
        ));
    }
    Ok(stream)
}

/// Whether the broker keeps what a client missed while it was away.
fn keeps_session(connect: &ConnectPlan) -> bool {
    !connect.clean_start && (connect.version < Version::V5 || connect.session_expiry_s > 0)
}

/// Whether a stream is over when the group subscribes, and leaves nothing behind for this subscription.
fn misses_what_was_before(group: &Group, subscription: &Subscription, stream: &Stream) -> bool {
    let before = group.late && stream.pace == Pace::Once;
    // A share gets no retained messages [MQTT-4.8.2].
    before && (!stream.retain || subscription.share.is_some())
}

/// A client that comes back without a session subscribes again, and gets retained messages again.
fn check_retained(group: &Group, stream: &Stream, forgotten: bool) -> Result<(), ScenarioError> {
    if forgotten && stream.retain {
        return Err(ScenarioError::refused(
            "churn.group",
            format!(
                "group \"{}\" would get retained messages of stream \"{}\" again with each return; keep the sessions (clean_start = false), or do not retain",
                group.name, stream.name
            ),
        ));
    }
    Ok(())
}

/// A late group gets the last retained message of a topic: that has to be one and the same for everybody.
fn check_last_retained(
    group: &Group,
    index: usize,
    streams: &[Stream],
    topics: &[Pattern],
) -> Result<(), ScenarioError> {
    if !group.late {
        return Ok(());
    }
    let left: Vec<(&Stream, &Pattern)> = streams
        .iter()
        .zip(topics)
        .filter(|(stream, _)| {
            stream.pace == Pace::Once
                && stream
                    .audiences
                    .iter()
                    .any(|audience| audience.group == index)
        })
        .collect();
    for (at, (stream, topic)) in left.iter().enumerate() {
        if stream.lanes > stream.topics {
            return Err(ScenarioError::refused(
                format!("stream \"{}\": topics", stream.name),
                format!(
                    "several publishers share a topic, so nobody can say which retained message the late group \"{}\" gets; at least as many topics as publishers are needed",
                    group.name
                ),
            ));
        }
        if let Some((other, _)) = left[..at].iter().find(|(_, other)| topic.may_equal(other)) {
            return Err(ScenarioError::refused(
                format!("stream \"{}\": topic", stream.name),
                format!(
                    "stream \"{}\" may retain on the same topics, so nobody can say which message the late group \"{}\" gets",
                    other.name, group.name
                ),
            ));
        }
    }
    Ok(())
}

type Filters = FilterTree<Vec<u32>>;

/// Matches a subscription's filters with a stream's topics, one by one. `tree` keeps the filters for the next stream.
fn matched(
    group: &Group,
    subscription: &Subscription,
    stream: &Stream,
    tree: &mut Option<Filters>,
) -> Result<Option<Relation>, ScenarioError> {
    let same_for_all = !subscription.filter.has_n();
    let renders = if same_for_all { 1 } else { group.clients };
    let mut work = Work {
        group,
        subscription,
        stream,
        left: MATCHED_MAX,
    };
    work.take(u64::from(renders) * u64::from(subscription.count))?;
    work.take(u64::from(stream.topics))?;
    let tree = tree.get_or_insert_with(|| filters(subscription, renders));

    let mut lists = Vec::with_capacity(stream.topics as usize);
    let mut name = String::new();
    let (mut covered, mut empty) = (true, true);
    for number in 0..stream.topics {
        stream.topic.render(number, 0, &mut name);
        let mut clients = Vec::new();
        tree.for_each_match(&name, |matched| clients.extend_from_slice(matched));
        clients.sort_unstable();
        if let Some(twice) = clients.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(overlap(group, twice[0], &name, subscription, subscription));
        }
        if same_for_all && !clients.is_empty() {
            // The one that was rendered stands for all.
            work.take(u64::from(group.clients))?;
            clients = (0..group.clients).collect();
        } else {
            work.take(clients.len() as u64)?;
        }
        covered &= clients.len() as u64 == u64::from(group.clients);
        empty &= clients.is_empty();
        clients.shrink_to_fit();
        lists.push(clients);
    }
    if empty {
        return Ok(None);
    }
    match (&subscription.share, covered) {
        (Some(_), true) => Ok(Some(Relation::Shared)),
        (None, true) => Ok(Some(Relation::All)),
        (None, false) => Ok(Some(Relation::Listed(lists.into()))),
        (Some(share), false) => Err(ScenarioError::refused(
            format!("group \"{}\": share \"{share}\"", group.name),
            format!(
                "its filter \"{}\" matches some topics of stream \"{}\" and not the others; a share has to match all of them or none",
                subscription.filter.text(),
                stream.name
            ),
        )),
    }
}

/// The filters of the first clients of a group, each with the clients that have it.
fn filters(subscription: &Subscription, clients: u32) -> Filters {
    let mut tree = Filters::new();
    let mut text = String::new();
    for n in 0..clients {
        for i in 0..subscription.count {
            subscription.filter.render(n, i, &mut text);
            tree.get_or_insert(&text).push(n);
        }
    }
    tree
}

/// What matching may still take.
struct Work<'a> {
    group: &'a Group,
    subscription: &'a Subscription,
    stream: &'a Stream,
    left: u64,
}

impl Work<'_> {
    fn take(&mut self, work: u64) -> Result<(), ScenarioError> {
        self.left = self.left.checked_sub(work).ok_or_else(|| {
            ScenarioError::refused(
                format!(
                    "group \"{}\": subscribe \"{}\"",
                    self.group.name,
                    self.subscription.filter.text()
                ),
                format!(
                    "to say who gets which of the {} topics of stream \"{}\" takes more than {} filters, topics and receivers; fewer of them are possible, or a filter with {{n}} where the topic has {{n}}",
                    grouped(self.stream.topics),
                    self.stream.name,
                    grouped(MATCHED_MAX)
                ),
            )
        })?;
        Ok(())
    }
}

/// Refuses an audience whose clients get a topic by another subscription as well.
fn check_overlap(group: &Group, stream: &Stream, new: &Audience) -> Result<(), ScenarioError> {
    let others = stream.audiences.iter().filter(|old| old.group == new.group);
    for old in others {
        if matches!(old.relation, Relation::Answers) {
            let [answers, filter] =
                [old, new].map(|it| &group.subscriptions[it.subscription].filter);
            return Err(ScenarioError::refused(
                format!("group \"{}\": subscribe \"{}\"", group.name, filter.text()),
                format!(
                    "it gets stream \"{}\", whose answers the group gets by \"{}\", and nobody could say which of the two a message came by",
                    stream.name,
                    answers.text()
                ),
            ));
        }
        let Some((client, topic)) = common(&old.relation, &new.relation, group.clients) else {
            continue;
        };
        let mut name = String::new();
        stream.topic.render(topic, 0, &mut name);
        return Err(overlap(
            group,
            client,
            &name,
            &group.subscriptions[old.subscription],
            &group.subscriptions[new.subscription],
        ));
    }
    Ok(())
}

/// A client and a topic that are in both relations.
fn common(a: &Relation, b: &Relation, clients: u32) -> Option<(u32, u32)> {
    match (a, b) {
        (Relation::Listed(a), Relation::Listed(b)) => {
            (0..).zip(a.iter().zip(&b[..])).find_map(|(topic, (a, b))| {
                let both = a.iter().find(|client| b.binary_search(client).is_ok())?;
                Some((*both, topic))
            })
        }
        (Relation::Listed(list), Relation::Own) | (Relation::Own, Relation::Listed(list)) => (0
            ..clients.min(list.len() as u32))
            .find(|n| list[*n as usize].binary_search(n).is_ok())
            .map(|n| (n, n)),
        (Relation::Listed(list), _) | (_, Relation::Listed(list)) => (0..)
            .zip(&list[..])
            .find_map(|(topic, clients)| Some((*clients.first()?, topic))),
        // Each of them gives something to client 0, of topic 0.
        _ => Some((0, 0)),
    }
}

fn overlap(
    group: &Group,
    client: u32,
    topic: &str,
    one: &Subscription,
    other: &Subscription,
) -> ScenarioError {
    let mut client_id = String::new();
    group.client_id.render(client, 0, &mut client_id);
    ScenarioError::refused(
        format!(
            "group \"{}\": subscribe \"{}\"",
            group.name,
            other.filter.text()
        ),
        format!(
            "client \"{client_id}\" would get topic \"{topic}\" by two filters (the other is of \"{}\"), which brokers deliver once or twice; a client's filters must not overlap on a topic",
            one.filter.text()
        ),
    )
}
