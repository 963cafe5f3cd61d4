//! Bans: listed, made, lifted.

use std::sync::Arc;

use axum::extract::State;
use broker::admin::{ClientFilter, Cursor};
use broker::bans::{Banned, Network};
use broker::codec::ReasonCode;
use broker::limits::BANS_MAX;
use runtime::http::{ApiError, Json, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::ask;
use super::clients::network;
use super::model::{Ban, BanRequest, Bans};

/// How long a ban lasts, where nothing is said.
const SECONDS: u64 = 3_600;
/// How long it lasts at most: ten years.
const SECONDS_MAX: u64 = 10 * 365 * 86_400;
/// Characters of a reason.
const WHY_MAX: usize = 256;

/// Who is banned: one of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// A client identifier.
    client_id: Option<String>,
    /// An address or a network, as it was banned.
    address: Option<String>,
}

impl Who {
    fn banned(self) -> Result<Banned, ApiError> {
        match (self.client_id, self.address) {
            (Some(client), None) if !client.is_empty() => Ok(Banned::Client(client.into())),
            (None, Some(address)) => Ok(Banned::Network(network(&address)?)),
            _ => Err(ApiError::invalid(
                "client_id",
                "who is meant is not clear",
                "either client_id or address",
            )),
        }
    }
}

fn all(admin: &Admin, disconnected: u64) -> Json<Bans> {
    let now = admin.broker.now();
    let ban = |ban: broker::bans::Ban| {
        let (client_id, address) = match ban.who {
            Banned::Client(client) => (Some(client.into()), None),
            Banned::Network(network) => (None, Some(network.to_string())),
        };
        Ban {
            client_id,
            address,
            since_ms: now.since_ms(ban.since),
            ends_in_ms: ban.until.since_ms(now),
            why: ban.why,
            refused: ban.refused,
        }
    };
    let bans = admin.broker.bans().list(now);
    Json(Bans {
        bans: bans.into_iter().map(ban).collect(),
        disconnected,
        bans_max: BANS_MAX as u64,
    })
}

/// All bans.
pub async fn list(State(admin): State<Arc<Admin>>) -> Json<Bans> {
    all(&admin, 0)
}

/// Bans somebody.
pub async fn ban(
    State(admin): State<Arc<Admin>>,
    Json(request): Json<BanRequest>,
) -> Result<Json<Bans>, ApiError> {
    let seconds = request.seconds.unwrap_or(SECONDS);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        let said = format!("{seconds} is not allowed");
        let allowed = format!("1 to {SECONDS_MAX}");
        return Err(ApiError::invalid("seconds", said, allowed));
    }
    let why = request.why.unwrap_or_default();
    if why.chars().count() > WHY_MAX {
        let allowed = format!("up to {WHY_MAX} characters");
        return Err(ApiError::invalid("why", "it is too long", allowed));
    }
    let who = Who {
        client_id: request.client_id,
        address: request.address,
    }
    .banned()?;
    let now = admin.broker.now();
    let ban = broker::bans::Ban {
        who: who.clone(),
        since: now,
        until: now.plus_s(seconds),
        why,
        refused: 0,
    };
    if !admin.broker.bans().ban(now, ban) {
        return Err(ApiError::unavailable(format!(
            "{BANS_MAX} are banned, which is as many as may be: lift some"
        )));
    }
    let disconnected = match &who {
        Banned::Client(client) => disconnect(&admin, client).await?,
        Banned::Network(network) => disconnect_network(&admin, *network).await?,
    };
    tracing::info!(?who, seconds, disconnected, "banned by an operator");
    Ok(all(&admin, disconnected))
}

async fn disconnect(admin: &Admin, client: &str) -> Result<u64, ApiError> {
    let reason = ReasonCode::ADMINISTRATIVE_ACTION;
    let client = client.to_owned();
    let kicked = ask(|then| admin.broker.disconnect(client, reason, false, then)).await?;
    Ok(kicked.is_some_and(|kicked| kicked.was_connected).into())
}

async fn disconnect_network(admin: &Admin, network: Network) -> Result<u64, ApiError> {
    let of = Arc::new(ClientFilter {
        address: Some(network),
        ..ClientFilter::default()
    });
    let (mut disconnected, mut next) = (0, Some(Cursor::default()));
    while let Some(at) = next {
        let reason = ReasonCode::ADMINISTRATIVE_ACTION;
        let of = Arc::clone(&of);
        let part = ask(|then| admin.broker.disconnect_some(of, reason, at, then)).await?;
        disconnected += part.found.len() as u64;
        next = part.next;
    }
    Ok(disconnected)
}

/// Lifts a ban.
pub async fn lift(
    State(admin): State<Arc<Admin>>,
    Query(who): Query<Who>,
) -> Result<Json<Bans>, ApiError> {
    let who = who.banned()?;
    if !admin.broker.bans().lift(admin.broker.now(), &who) {
        return Err(ApiError::not_found("such a ban"));
    }
    tracing::info!(?who, "a ban was lifted by an operator");
    Ok(all(&admin, 0))
}
