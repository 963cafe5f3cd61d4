//! Retained messages: listed, read, forgotten.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::admin::RetainedFacts;
use broker::codec::Qos;
use broker::{Delivered, Message, MessageParts};
use runtime::http::{ApiError, Json, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::ask;
use super::clients::page_items;
use super::model::{Page, Retained, RetainedMessage};

/// Steps of a walk over retained messages that one request takes: each looks at some thousand of them.
const STEPS_MAX: usize = 256;

/// Which retained messages are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A topic filter, with `+` and `#` as in MQTT; without it `#`, which is all but those of the broker's own (`$SYS/#`).
    filter: Option<String>,
    /// Items of a page, 1 to 1,000; without it 100.
    limit: Option<usize>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
}

/// A topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The topic.
    topic: String,
}

/// Refuses what is no topic name.
pub fn check_topic(topic: &str) -> Result<(), ApiError> {
    topic::validate_name(topic)
        .map_err(|why| ApiError::invalid("topic", why.to_string(), "a topic name, without + and #"))
}

/// A page of retained messages.
pub async fn list(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Retained>>, ApiError> {
    let max = page_items(filter.limit)?;
    let of = filter.filter.unwrap_or_else(|| "#".to_owned());
    topic::validate_filter(&of)
        .map_err(|why| ApiError::invalid("filter", why.to_string(), "a topic filter"))?;
    let mut page = Page {
        items: Vec::new(),
        next: filter.cursor,
    };
    for _ in 0..STEPS_MAX {
        let room = max - page.items.len();
        let part = admin.broker.retained(&of, page.next.as_deref(), room);
        page.items.extend(part.found.iter().map(retained));
        page.next = part.next;
        if page.next.is_none() || page.items.len() >= max {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(Json(page))
}

fn retained(facts: &RetainedFacts) -> Retained {
    Retained {
        topic: facts.message.topic().to_owned(),
        qos: facts.message.qos().into(),
        payload_bytes: facts.message.payload().len() as u64,
        expires_in_ms: facts.expires_in_ms,
    }
}

/// One of them, with its payload.
pub async fn read(
    State(admin): State<Arc<Admin>>,
    Query(Topic { topic }): Query<Topic>,
) -> Result<Json<RetainedMessage>, ApiError> {
    Ok(Json(message(&admin, &topic)?))
}

fn message(admin: &Admin, topic: &str) -> Result<RetainedMessage, ApiError> {
    check_topic(topic)?;
    let part = admin.broker.retained(topic, None, 1);
    let [facts] = &part.found[..] else {
        return Err(ApiError::not_found(format_args!(
            "a retained message of the topic {topic:?}"
        )));
    };
    let payload = facts.message.payload();
    let text = std::str::from_utf8(payload).ok().map(str::to_owned);
    Ok(RetainedMessage {
        topic: topic.to_owned(),
        qos: facts.message.qos().into(),
        base64: text.is_none().then(|| STANDARD.encode(payload)),
        text,
        payload_bytes: payload.len() as u64,
        expires_in_ms: facts.expires_in_ms,
    })
}

/// Forgets one of them: what it was.
pub async fn delete(
    State(admin): State<Arc<Admin>>,
    Query(Topic { topic }): Query<Topic>,
) -> Result<Json<RetainedMessage>, ApiError> {
    let was = message(&admin, &topic)?;
    if topic.starts_with('$') {
        return Err(ApiError::invalid(
            "topic",
            format!("{topic:?} is the broker's own"),
            "a topic that does not begin with $",
        ));
    }
    // As a client does it, in the order of the topic's publishes.
    let empty = Message::new(&MessageParts {
        topic: &topic,
        payload: &[],
        qos: Qos::AtMostOnce,
        retain: true,
        properties: &[],
        expires_at: None,
        arrived_at: admin.broker.now(),
    });
    ask(|then| {
        let delivered = Delivered::then(move |_| then(()));
        admin.broker.publish(vec![empty], Some(delivered));
    })
    .await?;
    tracing::info!(topic, "a retained message was deleted by an operator");
    Ok(Json(was))
}
