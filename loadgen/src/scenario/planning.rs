//! From the file to the plan: connecting, times, groups, churn. Streams and audiences have files of their own.

use std::collections::HashMap;
use std::time::Duration;

use codec::Version;

use super::HIDDEN;
use super::audience;
use super::check::{grouped, name, qos, rate, seconds, template, twice, whole};
use super::error::ScenarioError;
use super::file::{self, Protocol, Scenario};
use super::limits::{
    CLIENTS_MAX, FILTERS_PER_CLIENT_MAX, IN_PROGRESS_MAX, READ_BYTES_PER_SECOND_MAX, SECONDS_MIN,
    STORMS_MAX, TABLES_MAX,
};
use super::pattern::Pattern;
use super::rendered;
use super::streams;
use crate::plan::{Churn, ConnectPlan, Group, Plan, Subscription};
use crate::swarm::Client;
use crate::template::Template;

/// The longest client identifier and user name in bytes: what a field of a packet holds.
const FIELD_BYTES_MAX: usize = 65_535;

pub(super) fn plan(scenario: &Scenario, run: u32, seed: u64) -> Result<Plan, ScenarioError> {
    name("name", &scenario.name)?;
    let connect = connect(&scenario.connect)?;
    let warm_up = seconds("run.warm_up_s", scenario.run.warm_up_s, 0.0)?;
    let measured = seconds("run.seconds", scenario.run.seconds, SECONDS_MIN)?;
    let drain_max = seconds("run.drain_max_s", scenario.run.drain_max_s, 0.0)?;
    let groups = groups(&scenario.groups)?;
    let mut streams = streams::plan(&scenario.streams, &groups, warm_up + measured)?;
    let churn = scenario
        .churn
        .as_ref()
        .map(|churn| self::churn(churn, &groups, measured))
        .transpose()?;
    audience::find(&groups, &mut streams, churn.as_ref(), &connect)?;
    Ok(Plan {
        name: scenario.name.clone(),
        run,
        seed,
        connect,
        groups,
        streams,
        churn,
        warm_up,
        measured,
        drain_max,
        limits: scenario.limits.clone(),
    })
}

fn connect(file: &file::Connect) -> Result<ConnectPlan, ScenarioError> {
    let version = match file.protocol {
        Protocol::V311 => Version::V311,
        Protocol::V5 => Version::V5,
    };
    let expiry = whole(
        "connect.session_expiry_s",
        file.session_expiry_s,
        0,
        i64::from(u32::MAX),
    )?;
    if expiry > 0 && version == Version::V311 {
        return Err(ScenarioError::value(
            "connect.session_expiry_s",
            expiry,
            "only protocol \"5.0\" has it; with \"3.1.1\" clean_start = false keeps the session",
        ));
    }
    let username = file
        .username
        .as_deref()
        .map(|text| template("connect.username", text, false))
        .transpose()?;
    if file
        .username
        .as_ref()
        .is_some_and(|text| text.len() > FIELD_BYTES_MAX - 100)
    {
        return Err(ScenarioError::refused(
            "connect.username",
            "it is longer than a packet's field",
        ));
    }
    if let Some(password) = &file.password {
        // [MQTT-3.1.2-22]
        if username.is_none() && version == Version::V311 {
            return Err(ScenarioError::refused(
                "connect.password",
                "protocol \"3.1.1\" has no password without connect.username",
            ));
        }
        if password.0 == HIDDEN {
            return Err(ScenarioError::refused(
                "connect.password",
                format!("\"{HIDDEN}\" stands for one that was hidden; give the password itself"),
            ));
        }
        if password.0.len() > FIELD_BYTES_MAX {
            return Err(ScenarioError::refused(
                "connect.password",
                "it is longer than a packet's field, 65,535 bytes",
            ));
        }
    }
    Ok(ConnectPlan {
        version,
        clean_start: file.clean_start,
        session_expiry_s: expiry,
        keep_alive_s: whole("connect.keep_alive_s", file.keep_alive_s, 0, 65_535)
            .map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX))?,
        per_second: file
            .per_second
            .map(|value| rate("connect.per_second", value))
            .transpose()?,
        in_progress_max: whole(
            "connect.in_progress_max",
            file.in_progress_max,
            1,
            IN_PROGRESS_MAX,
        )?,
        username,
        password: file.password.clone(),
    })
}

fn groups(files: &[file::Group]) -> Result<Vec<Group>, ScenarioError> {
    if files.is_empty() || files.len() > TABLES_MAX {
        return Err(ScenarioError::refused(
            "group",
            format!(
                "a scenario has 1 to {} groups of clients, this one has {}",
                grouped(TABLES_MAX as u64),
                files.len()
            ),
        ));
    }
    if let Some(name) = twice(files.iter().map(|group| group.name.as_str())) {
        return Err(ScenarioError::refused(
            format!("group \"{name}\""),
            "two groups have this name",
        ));
    }
    let mut first = 0_u32;
    let mut groups = Vec::with_capacity(files.len());
    for file in files {
        let group = group(file, first)?;
        first = first.checked_add(group.clients).ok_or_else(|| {
            ScenarioError::value(
                format!("group \"{}\": clients", file.name),
                grouped(file.clients),
                format!("all groups together have at most {}", grouped(CLIENTS_MAX)),
            )
        })?;
        groups.push(group);
    }
    identifiers_differ(&groups)?;
    one_share_in_one_group(&groups)?;
    Ok(groups)
}

fn group(file: &file::Group, first: u32) -> Result<Group, ScenarioError> {
    name("group: name", &file.name)?;
    let key = |key: &str| format!("group \"{}\": {key}", file.name);
    let clients = whole(&key("clients"), file.clients, 1, CLIENTS_MAX)?;
    let client_id = file.client_id.as_deref().unwrap_or("{n}");
    let client_id = template(&key("client_id"), client_id, false)?;
    if clients > 1 && !Pattern::new(&client_id).tells_apart() {
        return Err(ScenarioError::value(
            key("client_id"),
            format!("\"{}\"", client_id.text()),
            "each client needs one of its own: put {n} in",
        ));
    }
    let mut text = String::new();
    client_id.render(clients - 1, 0, &mut text);
    if text.is_empty() || text.len() > FIELD_BYTES_MAX || text.contains('\0') {
        return Err(ScenarioError::refused(
            key("client_id"),
            "a client identifier has 1 to 65,535 bytes and no null character",
        ));
    }
    if file.subscribe.len() > TABLES_MAX {
        return Err(ScenarioError::value(
            key("subscribe"),
            format!("{} tables", file.subscribe.len()),
            format!("allowed are {}", grouped(TABLES_MAX as u64)),
        ));
    }
    Ok(Group {
        name: file.name.clone(),
        first: Client(first),
        clients,
        client_id,
        subscriptions: file
            .subscribe
            .iter()
            .map(|subscribe| subscription(subscribe, &file.name, clients))
            .collect::<Result<_, _>>()?,
        late: file.late,
        read_bytes_per_second: file
            .read_bytes_per_second
            .map(|value| {
                let key = key("read_bytes_per_second");
                whole(&key, value, 0, READ_BYTES_PER_SECOND_MAX)
            })
            .transpose()?,
    })
}

fn subscription(
    file: &file::Subscribe,
    group: &str,
    clients: u32,
) -> Result<Subscription, ScenarioError> {
    let key = |key: &str| format!("group \"{group}\": subscribe \"{}\": {key}", file.filter);
    let count = whole(&key("count"), file.count, 1, FILTERS_PER_CLIENT_MAX)?;
    let filter = template(&key("filter"), &file.filter, true)?;
    if count > 1 && !filter.has_i() {
        return Err(ScenarioError::value(
            key("count"),
            grouped(count),
            "its filters would all be the same: put {i} in, or leave count out",
        ));
    }
    if file.filter.starts_with("$share/") {
        return Err(ScenarioError::refused(
            key("filter"),
            "a share has a key of its own: share = \"NAME\"",
        ));
    }
    if let Some(share) = &file.share {
        topic::split_share(&format!("$share/{share}/a"))
            .ok()
            .flatten()
            .filter(|parts| parts.group == share)
            .ok_or_else(|| {
                ScenarioError::value(
                    key("share"),
                    format!("{share:?}"),
                    "a share's name has at least one character and no /, + or #",
                )
            })?;
        if filter.has_n() || filter.has_i() {
            return Err(ScenarioError::refused(
                key("filter"),
                "a shared filter is the same for all members: no {n} and no {i}",
            ));
        }
    }
    if file.answers.is_some() {
        one_answer(&key, file, &filter, clients)?;
    }
    rendered::filters(
        &key("filter"),
        &filter,
        file.share.as_deref(),
        clients,
        count,
    )?;
    Ok(Subscription {
        filter,
        count,
        share: file.share.clone(),
        qos: qos(&key("qos"), file.qos)?,
        answers: file.answers.clone(),
    })
}

/// Each answer has to come to the publisher, and only once.
fn one_answer(
    key: &impl Fn(&str) -> String,
    file: &file::Subscribe,
    filter: &Template,
    clients: u32,
) -> Result<(), ScenarioError> {
    if file.share.is_some() {
        return Err(ScenarioError::refused(
            key("share"),
            "answers go to whoever published; a share would hand them to any member, so leave share or answers out",
        ));
    }
    if file.count > 1 {
        return Err(ScenarioError::value(
            key("count"),
            grouped(file.count),
            "a subscription with answers has one filter; leave count out",
        ));
    }
    if clients > 1 && !Pattern::new(filter).tells_apart() {
        return Err(ScenarioError::value(
            key("filter"),
            format!("\"{}\"", filter.text()),
            "each publisher needs answers of its own: put {n} in",
        ));
    }
    Ok(())
}

/// No identifier may come from two groups: the broker would disconnect the one for the other.
fn identifiers_differ(groups: &[Group]) -> Result<(), ScenarioError> {
    let patterns: Vec<Pattern> = groups
        .iter()
        .map(|group| Pattern::new(&group.client_id))
        .collect();
    for (at, a) in patterns.iter().enumerate() {
        for (other, b) in patterns.iter().enumerate().skip(at + 1) {
            if a.may_equal(b) {
                return Err(ScenarioError::value(
                    format!("group \"{}\": client_id", groups[other].name),
                    format!("\"{}\"", groups[other].client_id.text()),
                    format!(
                        "clients of group \"{}\" may have the same with \"{}\"; they have to differ in more than numbers",
                        groups[at].name,
                        groups[at].client_id.text()
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A share with members in two groups would be counted as two.
fn one_share_in_one_group(groups: &[Group]) -> Result<(), ScenarioError> {
    let mut seen = HashMap::new();
    for group in groups {
        for subscription in &group.subscriptions {
            let Some(share) = subscription.share.as_deref() else {
                continue;
            };
            if let Some(other) = seen.insert((share, subscription.filter.text()), &group.name) {
                return Err(ScenarioError::refused(
                    format!("group \"{}\": share \"{share}\"", group.name),
                    format!(
                        "group \"{other}\" has the same share of \"{}\"; a share's members are one group, with one subscription",
                        subscription.filter.text()
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn churn(file: &file::Churn, groups: &[Group], measured: Duration) -> Result<Churn, ScenarioError> {
    let group = group_named("churn.group", &file.group, groups)?;
    if groups[group].reads_slowly() {
        return Err(ScenarioError::value(
            "churn.group",
            format!("\"{}\"", file.group),
            "clients with read_bytes_per_second do not come back",
        ));
    }
    let per_second = match (file.per_second, file.storms_at_s.is_empty()) {
        (Some(value), true) => rate("churn.per_second", value)?,
        (None, false) => 0.0,
        _ => {
            return Err(ScenarioError::refused(
                "churn",
                "it needs one of per_second and storms_at_s",
            ));
        }
    };
    if file.storms_at_s.len() > STORMS_MAX {
        return Err(ScenarioError::value(
            "churn.storms_at_s",
            format!("a list of {}", grouped(file.storms_at_s.len() as u64)),
            format!("allowed are {}", grouped(STORMS_MAX as u64)),
        ));
    }
    let mut storms_at: Vec<Duration> = Vec::with_capacity(file.storms_at_s.len());
    for value in &file.storms_at_s {
        let at = seconds("churn.storms_at_s", *value, 0.0)?;
        if at >= measured {
            return Err(ScenarioError::value(
                "churn.storms_at_s",
                value,
                format!(
                    "the measured time ends after {} seconds",
                    measured.as_secs_f64()
                ),
            ));
        }
        if storms_at.last().is_some_and(|last| *last >= at) {
            return Err(ScenarioError::value(
                "churn.storms_at_s",
                value,
                "each storm is later than the one before",
            ));
        }
        storms_at.push(at);
    }
    Ok(Churn {
        group,
        per_second,
        storms_at,
        abruptly: file.abruptly,
    })
}

/// The index of a group by its name.
pub(super) fn group_named(key: &str, name: &str, groups: &[Group]) -> Result<usize, ScenarioError> {
    let names = || groups.iter().map(|group| group.name.as_str());
    names().position(|known| known == name).ok_or_else(|| {
        let names: Vec<String> = names().map(|name| format!("\"{name}\"")).collect();
        ScenarioError::value(
            key,
            format!("\"{name}\""),
            format!("there is no such group, but {}", names.join(", ")),
        )
    })
}
