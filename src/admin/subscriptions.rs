//! Subscriptions: by client and filter, and by topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use broker::admin::{Glob, Name, Reached, SubscriptionFacts, SubscriptionFilter};
use broker::limits::ADMIN_ENTRIES_PER_TURN_MAX;
use runtime::http::{ApiError, Json, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::{ask, cursor, cursor_text, walk};
use super::clients::page_items;
use super::model::{Group, Page, Receiver, Receivers, Subscription};

/// Sessions, and members of a group, that are named of those that would get a message.
const NAMED_MAX: usize = 1_000;

const _: () = assert!(NAMED_MAX <= ADMIN_ENTRIES_PER_TURN_MAX as usize);

/// Which subscriptions are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A client identifier, or a pattern: `*` stands for any text, `?` for one character.
    client: Option<String>,
    /// A topic filter as it was given, or a pattern: `*` stands for any text, `?` for one character; `+` and `#` for
    /// themselves.
    filter: Option<String>,
    /// Items of a page, 1 to 1,000; without it 100.
    limit: Option<usize>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
}

/// A topic to which nothing is published.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The topic.
    topic: String,
}

/// A page of subscriptions.
pub async fn list(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Subscription>>, ApiError> {
    let of = Arc::new(SubscriptionFilter {
        client_id: filter.client.map(Glob::new),
        filter: filter.filter.map(Glob::new),
    });
    let from = cursor(filter.cursor.as_deref())?;
    let step = |at, max, then| admin.broker.subscriptions(Arc::clone(&of), at, max, then);
    let (found, next) = walk(from, page_items(filter.limit)?, step).await?;
    let subscription = |facts: SubscriptionFacts| Subscription {
        client_id: facts.client_id,
        filter: facts.filter,
        qos: facts.qos.into(),
        no_local: facts.no_local,
        retain_as_published: facts.retain_as_published,
        identifier: facts.identifier,
    };
    Ok(Json(Page {
        items: found.into_iter().map(subscription).collect(),
        next: next.map(cursor_text),
    }))
}

/// Who would get a message.
pub async fn receivers(
    State(admin): State<Arc<Admin>>,
    Query(Topic { topic }): Query<Topic>,
) -> Result<Json<Receivers>, ApiError> {
    super::retained::check_topic(&topic)?;
    let audience = admin.broker.audience(&topic, NAMED_MAX);
    let mut groups = Vec::new();
    for group in audience.groups {
        let members = named(&admin, group.members, &topic).await?;
        groups.push(Group {
            name: group.name,
            members,
            members_total: group.members_total as u64,
        });
    }
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Receivers {
        sessions: named(&admin, audience.receivers, &topic).await?,
        subscriptions_total: audience.receivers_total as u64,
        groups,
        topic,
    }))
}

/// Who these are: each once, in order.
async fn named(
    admin: &Admin,
    reached: Vec<Reached>,
    topic: &str,
) -> Result<Vec<Receiver>, ApiError> {
    let mut by_worker: BTreeMap<usize, Vec<Reached>> = BTreeMap::new();
    for one in reached {
        by_worker.entry(one.worker()).or_default().push(one);
    }
    let mut receivers: BTreeMap<String, Receiver> = BTreeMap::new();
    for (worker, reached) in by_worker {
        let (sessions, topic) = (reached.clone(), topic.to_owned());
        let names = ask(|then| admin.broker.names(worker, sessions, topic, then)).await?;
        for (name, reached) in names.into_iter().zip(reached) {
            let Name {
                client_id,
                connected,
                filters,
            } = name;
            if client_id.is_empty() {
                continue; // its session has ended meanwhile
            }
            let receiver = receivers
                .entry(client_id)
                .or_insert_with_key(|client_id| Receiver {
                    client_id: client_id.clone(),
                    connected,
                    qos: 0,
                    filters,
                });
            receiver.qos = receiver.qos.max(reached.qos.into());
        }
    }
    Ok(receivers.into_values().collect())
}
