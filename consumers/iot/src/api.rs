//! The HTTP API. Every link in it is relative, so that it works wherever it is nested.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use runtime::http::{ApiError, Json, Parameters, Path, no_such_path};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::alert::Rule;
use crate::clock::now_ms;
use crate::metrics::Metrics;
use crate::payload::check_name;
use crate::store::{Cursor, NewCommand, Range, Status, Store};

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 65_536;

/// Entries on a page unless told otherwise.
const LIMIT_DEFAULT: u32 = 1_000;

/// Most entries on a page.
const LIMIT_MAX: u32 = 10_000;

/// Alerts and commands shown with a device.
const RECENT_MAX: u32 = 20;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub store: Store,
    pub metrics: Metrics,
    /// Tells the dispatcher that there is a command to send.
    pub posted: Arc<Notify>,
    pub configured_rules: Arc<BTreeMap<String, Rule>>,
    pub rules_max: u32,
    pub commands_pending_max: u32,
    pub command_expiry_s: u32,
}

/// The API's routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/api/devices", get(devices))
        .route("/api/devices/{device}", get(device))
        .route("/api/devices/{device}/metrics/{metric}", get(points))
        .route(
            "/api/devices/{device}/commands/{command}",
            post(post_command),
        )
        .route("/api/commands/{id}", get(command))
        .route("/api/alerts", get(alerts))
        .route("/api/rules", get(rules))
        .route("/api/rules/{metric}", put(put_rule).delete(delete_rule))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

async fn index() -> &'static str {
    "The iot backend. Times are milliseconds since 1970-01-01 UTC.\n\n\
     GET    api/devices?after=NAME&limit=N\n\
     GET    api/devices/DEVICE\n\
     GET    api/devices/DEVICE/metrics/METRIC?from=MS&to=MS&limit=N&before=CURSOR\n\
     POST   api/devices/DEVICE/commands/COMMAND     body: the arguments, any JSON\n\
     GET    api/commands/ID\n\
     GET    api/alerts?limit=N\n\
     GET    api/rules\n\
     PUT    api/rules/METRIC                        body: {\"above\":30,\"below\":5,\"hysteresis\":1}\n\
     DELETE api/rules/METRIC\n\
     GET    health, status, metrics\n"
}

fn limit(parameters: &Parameters) -> Result<u32, ApiError> {
    let limit = parameters.number("limit", 1..=i64::from(LIMIT_MAX))?;
    Ok(limit
        .and_then(|limit| u32::try_from(limit).ok())
        .unwrap_or(LIMIT_DEFAULT))
}

fn name(field: &str, name: &str) -> Result<(), ApiError> {
    check_name(field, name).map_err(|error| {
        let allowed = "1 to 256 bytes without `/`, `+`, `#` and control characters";
        ApiError::invalid(field, error.reason, allowed)
    })
}

/// The body as JSON; `None` when there is none. What its content type says is judged before it comes here.
fn body(bytes: Result<Bytes, BytesRejection>) -> Result<Option<Value>, ApiError> {
    let bytes = bytes.map_err(|error| {
        ApiError::invalid(
            "body",
            error.body_text(),
            format!("at most {BODY_BYTES_MAX} bytes"),
        )
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        ApiError::invalid("body", format!("the body is not JSON: {error}"), "JSON")
    })
}

async fn devices(State(api): State<Api>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    parameters.only(&["after", "limit"])?;
    let limit = limit(&parameters)?;
    let after = parameters.text("after").unwrap_or("");
    let devices = api.store.devices(after, limit).await?;
    // A full page may have another after it.
    let after = devices
        .last()
        .filter(|_| devices.len() == limit as usize)
        .map(|row| row.device.clone());
    Ok(Json(json!({ "devices": devices, "after": after })))
}

async fn device(
    State(api): State<Api>,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    name("device", &device)?;
    let metrics = api.store.metrics(&device).await?;
    let commands = api.store.commands(&device, RECENT_MAX).await?;
    if metrics.is_empty() && commands.is_empty() {
        return Err(ApiError::not_found(format_args!("the device {device}")));
    }
    let alerts = api.store.alerts(Some(&device), RECENT_MAX).await?;
    let last_seen_at = metrics.iter().map(|metric| metric.received_at).max();
    Ok(Json(json!({
        "device": device,
        "last_seen_at": last_seen_at,
        "metrics": metrics,
        "alerts": alerts,
        "commands": commands,
    })))
}

async fn points(
    State(api): State<Api>,
    Path((device, metric)): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    name("device", &device)?;
    name("metric", &metric)?;
    parameters.only(&["from", "to", "limit", "before"])?;
    let from_ms = parameters.number("from", 0..=i64::MAX)?.unwrap_or(0);
    let to_ms = parameters.number("to", 0..=i64::MAX)?.unwrap_or(i64::MAX);
    if from_ms > to_ms {
        let message = format!("from is {from_ms}, which is after to, {to_ms}");
        return Err(ApiError::invalid(
            "from",
            message,
            "at most what to is, in milliseconds since 1970",
        ));
    }
    let before = match parameters.text("before") {
        None => None,
        Some(text) => Some(text.parse::<Cursor>().map_err(|()| {
            ApiError::invalid(
                "before",
                format!("before is not allowed to be {text:?}"),
                "the field before of a page",
            )
        })?),
    };
    let range = Range {
        from_ms,
        to_ms,
        before,
        points_max: limit(&parameters)?,
    };
    let page = api
        .store
        .points(&device, &metric, range)
        .await?
        .ok_or_else(|| {
            ApiError::not_found(format_args!("the metric {metric} of the device {device}"))
        })?;
    Ok(Json(json!({
        "device": device,
        "metric": metric,
        "points": page.points,
        "before": page.before.map(|cursor| cursor.to_string()),
    })))
}

async fn post_command(
    State(api): State<Api>,
    Path((device, command)): Path<(String, String)>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    name("device", &device)?;
    name("command", &command)?;
    let args = body(bytes)?.unwrap_or(Value::Null).to_string();
    let created_ms = now_ms();
    let id = new_id(created_ms);
    let expires_ms = created_ms.saturating_add(i64::from(api.command_expiry_s) * 1_000);
    let new = NewCommand {
        id: &id,
        device: &device,
        command: &command,
        args: &args,
        created_ms,
        expires_ms,
    };
    let stored = api
        .store
        .post_command(&new, api.commands_pending_max)
        .await
        .map_err(|error| {
            tracing::warn!(%error, device, command, "a command could not be stored");
            ApiError::unavailable(
                "the command could not be stored and will not be sent; try again later",
            )
        })?;
    if !stored {
        return Err(ApiError::unavailable(format!(
            "{} commands wait for Kafka already; this one was not stored; try again later",
            api.commands_pending_max
        )));
    }
    api.metrics.commands.inc();
    api.posted.notify_one();
    // Relative to the path of this request, which ends in devices/DEVICE/commands/COMMAND.
    let location = format!("../../../commands/{id}");
    let answer = json!({
        "id": id,
        "device": device,
        "command": command,
        "status": Status::Pending,
        "expires_at": expires_ms,
    });
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(answer),
    )
        .into_response())
}

/// An id that no other command has: time, a count, and a random number for other processes.
fn new_id(now_ms: i64) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = std::hash::RandomState::new().hash_one(count);
    format!("c-{now_ms:x}-{random:016x}")
}

async fn command(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, ApiError> {
    if let Some(view) = api.store.command(&id).await? {
        return Ok(Json(view).into_response());
    }
    let stray = api.store.stray_reply(&id).await?;
    let (device, command, reply) =
        stray.ok_or_else(|| ApiError::not_found(format_args!("the command {id}")))?;
    let view = json!({
        "id": id,
        "device": device,
        "command": command,
        "status": "unknown",
        "reply": reply,
    });
    Ok(Json(view).into_response())
}

async fn alerts(State(api): State<Api>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    parameters.only(&["limit"])?;
    let alerts = api.store.alerts(None, limit(&parameters)?).await?;
    Ok(Json(json!({ "alerts": alerts })))
}

async fn rules(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "rules": api.store.rules().await? })))
}

async fn put_rule(
    State(api): State<Api>,
    Path(metric): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    name("metric", &metric)?;
    let rule = rule_of(body(bytes)?)?;
    if !api.store.put_rule(&metric, rule, api.rules_max).await? {
        let message = format!("there are {} rules already", api.rules_max);
        return Err(ApiError::invalid(
            "metric",
            message,
            "a metric that has a rule; or delete another rule first",
        ));
    }
    let mut answer = json!(rule);
    answer["metric"] = json!(metric);
    Ok(Json(answer))
}

/// Reads a rule by hand, so that the answer names the field that is wrong.
fn rule_of(body: Option<Value>) -> Result<Rule, ApiError> {
    const ALLOWED: &str =
        "{\"above\": number, \"below\": number, \"hysteresis\": number}, with above, below or both";
    let Some(Value::Object(fields)) = body else {
        return Err(ApiError::invalid(
            "body",
            "the body is not an object",
            ALLOWED,
        ));
    };
    let mut rule = Rule::default();
    for (field, value) in &fields {
        let number = match value {
            Value::Null => None,
            Value::Number(number) => number.as_f64(),
            _ => {
                return Err(ApiError::invalid(
                    field,
                    format!("{field} is not a number"),
                    "a number in the metric's unit",
                ));
            }
        };
        match field.as_str() {
            "above" => rule.above = number,
            "below" => rule.below = number,
            "hysteresis" => rule.hysteresis = number.unwrap_or(0.0),
            _ => {
                return Err(ApiError::invalid(
                    field,
                    format!("there is no field {field}"),
                    ALLOWED,
                ));
            }
        }
    }
    rule.validate()
        .map_err(|error| ApiError::invalid(error.key, error.to_string(), error.allowed))?;
    Ok(rule)
}

async fn delete_rule(
    State(api): State<Api>,
    Path(metric): Path<String>,
) -> Result<StatusCode, ApiError> {
    name("metric", &metric)?;
    if api
        .store
        .delete_rule(&metric, api.configured_rules.get(&metric))
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found(format_args!(
            "a rule for the metric {metric}"
        )))
    }
}

#[cfg(test)]
mod tests;
