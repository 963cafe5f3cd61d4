//! The HTTP API. Every link in it is relative, so that it works wherever it is nested.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use runtime::http::{ApiError, Json, Parameters, Path, no_such_path};
use runtime::{Applied, Pattern};
use serde_json::{Value, json};

use crate::change::{Change, Log, What};
use crate::message::{NAME_ALLOWED, check_name};
use crate::store::{Direction, LimitReached, Limits, Membership, Store};

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 4_096;

/// Entries on a page unless told otherwise.
const LIMIT_DEFAULT: i64 = 50;

/// Most entries on a page.
const LIMIT_MAX: i64 = 1_000;

/// What the API works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub store: Store,
    pub log: Arc<dyn Log>,
    /// The MQTT topic of a room's messages: the key of all that happens in the room.
    pub messages: Pattern<1>,
    pub limits: Limits,
}

impl FromRef<Api> for Store {
    fn from_ref(api: &Api) -> Self {
        api.store.clone()
    }
}

impl Api {
    async fn change(&self, room: &str, user: &str, what: What) -> Result<Applied, ApiError> {
        let user = Cow::Borrowed(user);
        let topic = self.messages.write([room]);
        self.log.append(&topic, &Change { user, what }).await
    }
}

/// The API's routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/api/rooms", get(rooms))
        .route("/api/rooms/{room}", get(room))
        .route("/api/rooms/{room}/messages", get(messages))
        .route("/api/rooms/{room}/members", get(members))
        .route("/api/rooms/{room}/members/{user}", put(join).delete(leave))
        .route("/api/rooms/{room}/members/{user}/read", post(read))
        .route("/api/users/{user}/unread", get(unread))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

async fn index() -> &'static str {
    "The chat backend. Times are milliseconds since 1970-01-01 UTC.\n\n\
     GET    api/rooms?after=NAME&limit=N\n\
     GET    api/rooms/ROOM\n\
     GET    api/rooms/ROOM/messages?before=SEQ&limit=N     or after=SEQ; oldest first\n\
     GET    api/rooms/ROOM/members?after=NAME&limit=N\n\
     PUT    api/rooms/ROOM/members/USER                    join\n\
     DELETE api/rooms/ROOM/members/USER                    leave\n\
     POST   api/rooms/ROOM/members/USER/read               body: {\"seq\":42}\n\
     GET    api/users/USER/unread?limit=N\n\n\
     For operators: health, status, metrics\n"
}

fn name(field: &str, name: &str) -> Result<(), ApiError> {
    check_name(field, name).map_err(|reason| ApiError::invalid(field, reason, NAME_ALLOWED))
}

fn limit(parameters: &Parameters) -> Result<i64, ApiError> {
    Ok(parameters
        .number("limit", 1..=LIMIT_MAX)?
        .unwrap_or(LIMIT_DEFAULT))
}

/// Whether a page is full, so that another may follow it.
fn is_full<T>(page: &[T], limit: i64) -> bool {
    i64::try_from(page.len()).is_ok_and(|length| length >= limit)
}

fn no_room(room: &str) -> ApiError {
    ApiError::not_found(format_args!("the room {room}"))
}

async fn rooms(
    State(store): State<Store>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    parameters.only(&["after", "limit"])?;
    let limit = limit(&parameters)?;
    let rooms = store
        .rooms(parameters.text("after").unwrap_or(""), limit)
        .await?;
    let after = rooms
        .last()
        .filter(|_| is_full(&rooms, limit))
        .map(|room| room.room.clone());
    Ok(Json(json!({ "rooms": rooms, "after": after })))
}

async fn room(
    State(store): State<Store>,
    Path(room): Path<String>,
) -> Result<Json<Value>, ApiError> {
    name("room", &room)?;
    let (found, members) = store.room(&room).await?.ok_or_else(|| no_room(&room))?;
    Ok(Json(json!({
        "room": found.room,
        "first_seq": found.first_seq,
        "last_seq": found.last_seq,
        "last_at": found.last_at,
        "members": members,
    })))
}

async fn messages(
    State(store): State<Store>,
    Path(room): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    name("room", &room)?;
    parameters.only(&["before", "after", "limit"])?;
    let limit = limit(&parameters)?;
    let before = parameters.number("before", 1..=i64::MAX)?;
    let after = parameters.number("after", 0..=i64::MAX)?;
    let direction = match (before, after) {
        (Some(_), Some(_)) => {
            let message = "before and after are both given";
            return Err(ApiError::invalid(
                "after",
                message,
                "one of before and after",
            ));
        }
        (_, Some(seq)) => Direction::After(seq),
        (before, None) => Direction::Before(before.unwrap_or(i64::MAX)),
    };
    let ((first_seq, last_seq), page) = store
        .history(&room, direction, limit)
        .await?
        .ok_or_else(|| no_room(&room))?;
    // Sequence numbers are dense, so the ends of a page tell whether there is more.
    let before = page
        .first()
        .map(|entry| entry.seq)
        .filter(|seq| *seq > first_seq);
    let after = page
        .last()
        .map(|entry| entry.seq)
        .filter(|seq| *seq < last_seq);
    Ok(Json(json!({
        "room": room,
        "first_seq": first_seq,
        "last_seq": last_seq,
        "messages": page,
        "before": before,
        "after": after,
    })))
}

async fn members(
    State(store): State<Store>,
    Path(room): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    name("room", &room)?;
    parameters.only(&["after", "limit"])?;
    let limit = limit(&parameters)?;
    let members = store
        .members(&room, parameters.text("after").unwrap_or(""), limit)
        .await?;
    if members.is_empty() && store.room(&room).await?.is_none() {
        return Err(no_room(&room));
    }
    let after = members
        .last()
        .filter(|_| is_full(&members, limit))
        .map(|member| member.user.clone());
    Ok(Json(
        json!({ "room": room, "members": members, "after": after }),
    ))
}

fn membership(room: &str, user: &str, membership: Membership) -> Response {
    let Membership {
        read_seq,
        last_seq,
        unread,
    } = membership;
    Json(json!({
        "room": room,
        "user": user,
        "read_seq": read_seq,
        "last_seq": last_seq,
        "unread": unread,
    }))
    .into_response()
}

/// The answer to a change that Kafka has and the store has not yet.
fn later(partition: i32, offset: i64) -> Response {
    let body = Json(json!({ "applied": false, "partition": partition, "offset": offset }));
    (StatusCode::ACCEPTED, body).into_response()
}

async fn join(
    State(api): State<Api>,
    Path((room, user)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    name("room", &room)?;
    name("user", &user)?;
    if let Some(is_member) = api.store.membership(&room, &user).await? {
        return Ok(membership(&room, &user, is_member));
    }
    if let Some(limit) = api.store.is_full(&room, api.limits).await? {
        return Err(full(&room, limit, api.limits));
    }
    if let Applied::Later { partition, offset } = api.change(&room, &user, What::Join).await? {
        return Ok(later(partition, offset));
    }
    let joined = api.store.membership(&room, &user).await?;
    if joined.is_none()
        && let Some(limit) = api.store.is_full(&room, api.limits).await?
    {
        // Others were faster.
        return Err(full(&room, limit, api.limits));
    }
    // Nobody else may have made the member leave in between, or the answer is that.
    let joined = joined.ok_or_else(|| no_member(&room, &user))?;
    Ok(membership(&room, &user, joined))
}

/// The answer to a user for whom there is no room.
fn full(room: &str, limit: LimitReached, limits: Limits) -> ApiError {
    match limit {
        LimitReached::Rooms => ApiError::invalid(
            "room",
            format!(
                "{room} would be one room too many: rooms_max = {}",
                limits.rooms_max
            ),
            "a room that exists",
        ),
        LimitReached::Members => ApiError::invalid(
            "user",
            format!(
                "the room {room} is full: room_members_max = {}",
                limits.room_members_max
            ),
            "a member of the room",
        ),
    }
}

async fn leave(
    State(api): State<Api>,
    Path((room, user)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    name("room", &room)?;
    name("user", &user)?;
    if api.store.membership(&room, &user).await?.is_none() {
        return Err(no_member(&room, &user));
    }
    Ok(match api.change(&room, &user, What::Leave).await? {
        Applied::Now => StatusCode::NO_CONTENT.into_response(),
        Applied::Later { partition, offset } => later(partition, offset),
    })
}

fn no_member(room: &str, user: &str) -> ApiError {
    ApiError::not_found(format_args!("the member {user} of the room {room}"))
}

async fn read(
    State(api): State<Api>,
    Path((room, user)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    name("room", &room)?;
    name("user", &user)?;
    let seq = seq(body)?;
    let before = api.store.membership(&room, &user).await?;
    let before = before.ok_or_else(|| no_member(&room, &user))?;
    let last_seq = before.last_seq;
    if seq > last_seq {
        let message = format!("seq: {seq}, but the room's last message is {last_seq}");
        return Err(ApiError::invalid(
            "seq",
            message,
            format!("a whole number from 0 to {last_seq}"),
        ));
    }
    if seq <= before.read_seq {
        return Ok(membership(&room, &user, before));
    }
    if let Applied::Later { partition, offset } = api.change(&room, &user, What::Read(seq)).await? {
        return Ok(later(partition, offset));
    }
    let after = api.store.membership(&room, &user).await?;
    let after = after.ok_or_else(|| no_member(&room, &user))?;
    Ok(membership(&room, &user, after))
}

/// The sequence number in a body. What its content type says is judged before it comes here.
fn seq(body: Result<Bytes, BytesRejection>) -> Result<i64, ApiError> {
    const ALLOWED: &str = "a whole number from 0 to the room's last_seq";
    const EXAMPLE: &str = "an object such as {\"seq\":42}";
    let body = body.map_err(|error| {
        ApiError::invalid(
            "body",
            error.body_text(),
            format!("at most {BODY_BYTES_MAX} bytes"),
        )
    })?;
    let value: Value = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid("body", format!("the body is not JSON: {error}"), EXAMPLE)
    })?;
    let Some(fields) = value.as_object() else {
        return Err(ApiError::invalid("body", "the body is no object", EXAMPLE));
    };
    if let Some(unknown) = fields.keys().find(|key| *key != "seq") {
        return Err(ApiError::invalid(
            unknown,
            format!("there is no field {unknown}"),
            "seq",
        ));
    }
    let Some(seq) = fields.get("seq") else {
        return Err(ApiError::invalid("seq", "seq: missing", ALLOWED));
    };
    seq.as_i64().filter(|seq| *seq >= 0).ok_or_else(|| {
        ApiError::invalid("seq", format!("seq: is not allowed to be {seq}"), ALLOWED)
    })
}

async fn unread(
    State(store): State<Store>,
    Path(user): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    name("user", &user)?;
    parameters.only(&["limit"])?;
    let (unread, rooms_unread, rooms) = store.unread(&user, limit(&parameters)?).await?;
    Ok(Json(
        json!({ "user": user, "unread": unread, "rooms_unread": rooms_unread, "rooms": rooms }),
    ))
}

#[cfg(test)]
mod tests;
