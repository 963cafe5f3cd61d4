//! Clients: found, shown, disconnected.

use std::sync::Arc;

use axum::extract::State;
use broker::admin::{ClientFacts, ClientFilter, Glob};
use broker::codec::{ReasonCode, Version};
use runtime::http::{ApiError, Json, Path, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::{ask, cursor, cursor_text, walk};
use super::model::{Client, Disconnect, Disconnected, Page};

/// Items of a page, where nothing is said.
pub const PAGE: usize = 100;
/// Items of a page at most.
pub const PAGE_MAX: usize = 1_000;

/// Which clients are asked for: those for which everything holds that is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A client identifier, or a pattern: `*` stands for any text, `?` for one character.
    id: Option<String>,
    /// A user as whom they are known, or a pattern.
    user: Option<String>,
    /// An address or a network, such as 10.0.0.5 or 2001:db8::/64.
    address: Option<String>,
    /// Whether they are connected.
    connected: Option<bool>,
    /// The protocol's version: 3.1, 3.1.1 or 5.0.
    version: Option<String>,
    /// Items of a page, 1 to 1,000; without it 100.
    limit: Option<usize>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
}

/// The bound on a page's items.
pub fn page_items(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit {
        None => Ok(PAGE),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::invalid(
            "limit",
            format!("{limit} is not allowed"),
            format!("1 to {PAGE_MAX}"),
        )),
    }
}

/// A network from its text.
pub fn network(text: &str) -> Result<broker::bans::Network, ApiError> {
    text.parse().map_err(|why: String| {
        ApiError::invalid(
            "address",
            why,
            "an address or a network, such as 10.0.0.5 or 2001:db8::/64",
        )
    })
}

const VERSIONS: [(&str, Version); 3] = [
    ("3.1", Version::V31),
    ("3.1.1", Version::V311),
    ("5.0", Version::V5),
];

fn version(text: &str) -> Result<Version, ApiError> {
    let known = VERSIONS.iter().find(|(name, _)| *name == text);
    known.map(|(_, version)| *version).ok_or_else(|| {
        ApiError::invalid("version", format!("{text:?} is none"), "3.1, 3.1.1 or 5.0")
    })
}

fn version_text(version: Version) -> String {
    let known = VERSIONS.iter().find(|(_, known)| *known == version);
    known.map_or_else(String::new, |(name, _)| (*name).to_owned())
}

fn client(facts: ClientFacts) -> Client {
    Client {
        client_id: facts.client_id,
        user: facts.user,
        connected: facts.connected,
        address: facts.address.map(|address| address.to_string()),
        version: version_text(facts.version),
        since_ms: facts.since_ms,
        heard_ms: facts.heard_ms,
        ends_in_ms: facts.ends_in_ms,
        expiry_s: facts.expiry_s,
        clean_start: facts.clean_start,
        keep_alive_s: facts.keep_alive_s,
        subscriptions: facts.subscriptions as u64,
        queue_messages: facts.queue_messages as u64,
        queue_bytes: facts.queue_bytes,
        in_flight: facts.in_flight as u64,
        in_flight_max: facts.window,
        outbox_bytes: facts.outbox_bytes as u64,
        unanswered: facts.unanswered as u64,
        held: facts.held,
        will: facts.will,
        packet_bytes_max: facts.packet_bytes_max,
    }
}

/// A page of clients.
pub async fn list(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Client>>, ApiError> {
    let of = Arc::new(ClientFilter {
        client_id: filter.id.map(Glob::new),
        user: filter.user.map(Glob::new),
        address: filter.address.as_deref().map(network).transpose()?,
        connected: filter.connected,
        version: filter.version.as_deref().map(version).transpose()?,
    });
    let from = cursor(filter.cursor.as_deref())?;
    let step = |at, max, then| admin.broker.clients(Arc::clone(&of), at, max, then);
    let (found, next) = walk(from, page_items(filter.limit)?, step).await?;
    Ok(Json(Page {
        items: found.into_iter().map(client).collect(),
        next: next.map(cursor_text),
    }))
}

/// One client.
pub async fn show(
    State(admin): State<Arc<Admin>>,
    Path(client_id): Path<String>,
) -> Result<Json<Client>, ApiError> {
    let of = Arc::new(client_id);
    let found = ask(|then| admin.broker.client(of.to_string(), then)).await?;
    let facts = found.ok_or_else(|| no_such(&of))?;
    Ok(Json(client(facts)))
}

fn no_such(client_id: &str) -> ApiError {
    ApiError::not_found(format_args!("a session of the client {client_id:?}"))
}

/// Disconnects a client.
pub async fn disconnect(
    State(admin): State<Arc<Admin>>,
    Path(client_id): Path<String>,
    Json(how): Json<Disconnect>,
) -> Result<Json<Disconnected>, ApiError> {
    let reason = reason(how.reason)?;
    let of = client_id.clone();
    let kicked = ask(|then| {
        admin.broker.disconnect(of, reason, how.end_session, then);
    })
    .await?;
    let kicked = kicked.ok_or_else(|| no_such(&client_id))?;
    tracing::info!(client = client_id, %reason, session_ended = kicked.session_ended, "disconnected by an operator");
    Ok(Json(Disconnected {
        client_id,
        was_connected: kicked.was_connected,
        session_ended: kicked.session_ended,
    }))
}

/// A reason code that a server may disconnect with.
fn reason(code: Option<u8>) -> Result<ReasonCode, ApiError> {
    let reason = code.map_or(ReasonCode::ADMINISTRATIVE_ACTION, ReasonCode);
    if reason.is_failure() && reason.in_disconnect() {
        return Ok(reason);
    }
    Err(ApiError::invalid(
        "reason",
        format!("{} is not allowed", reason.0),
        "a reason code of DISCONNECT from 128 on, such as 152",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_of_disconnect() {
        assert_eq!(reason(None).unwrap().0, 0x98);
        assert_eq!(reason(Some(0x97)).unwrap().0, 0x97);
        for wrong in [0, 4, 0x8a, 0xff] {
            assert!(reason(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
