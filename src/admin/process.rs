//! The process: where it listens, what it logs, its configuration read again, its end.

use std::sync::Arc;

use axum::extract::State;
use runtime::http::{ApiError, Json};

use super::Admin;
use super::model::{Drained, Listener, Listeners, Log, Reloaded};
use crate::{log, signals};

/// Where it listens.
pub async fn listeners(State(admin): State<Arc<Admin>>) -> Json<Listeners> {
    let listen = admin.node.listen();
    let one = |name: &str, transport: &str, address: std::net::SocketAddr| Listener {
        name: name.to_owned(),
        address: address.to_string(),
        transport: transport.to_owned(),
    };
    let mqtt = listen.mqtt.map(|address| one("mqtt", "tcp", address));
    let http = listen.http.map(|address| one("http", "http", address));
    Json(Listeners {
        listeners: mqtt.into_iter().chain(http).collect(),
    })
}

/// What it logs.
pub async fn log(State(_): State<Arc<Admin>>) -> Result<Json<Log>, ApiError> {
    let filter = log::filter().ok_or_else(no_control)?;
    Ok(Json(Log { filter }))
}

fn no_control() -> ApiError {
    ApiError::unavailable("the log of this process belongs to another program")
}

/// Changes what it logs.
pub async fn set_log(
    State(_): State<Arc<Admin>>,
    Json(wanted): Json<Log>,
) -> Result<Json<Log>, ApiError> {
    log::filter().ok_or_else(no_control)?;
    log::set_filter(&wanted.filter).map_err(|why| {
        let allowed = "error, warn, info, debug, trace, off, or TARGET=LEVEL separated by commas";
        ApiError::invalid("filter", why, allowed)
    })?;
    Ok(Json(wanted))
}

/// Reads the configuration again.
pub async fn reload(State(admin): State<Arc<Admin>>) -> Result<Json<Reloaded>, ApiError> {
    let reloader = Arc::clone(&admin.reloader);
    let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
    match reloaded {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(why)) => Err(ApiError::bad_request(format!("nothing was changed: {why}"))),
        Err(_) => Err(ApiError::unavailable("the reload ended badly; see the log")),
    }
}

/// Has the process drain.
pub async fn drain(State(admin): State<Arc<Admin>>) -> Json<Drained> {
    admin.node.drain();
    signals::ask_to_drain();
    let says = "draining: the process takes no new clients, stores and delivers what it has accepted, and ends";
    Json(Drained {
        says: says.to_owned(),
    })
}
