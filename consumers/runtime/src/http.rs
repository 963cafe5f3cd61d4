//! What the HTTP APIs of all backends have in common: one shape of error, extractors that answer in it, and the pages for
//! operators.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use axum::Router;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::status::{State, Status};

/// An answer that refuses a request: `{"error": {"message": …, "field": …, "allowed": …}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    field: Option<String>,
    allowed: Option<String>,
}

impl ApiError {
    /// 400: `field` has a value that is not allowed.
    #[must_use]
    pub fn invalid(
        field: impl Into<String>,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            field: Some(field.into()),
            allowed: Some(allowed.into()),
        }
    }

    /// 400: the request as a whole cannot be read.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, message)
    }

    /// 404: `what` does not exist.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::of(StatusCode::NOT_FOUND, format!("{what} does not exist"))
    }

    /// 503: it cannot be done now; the client may try again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            field: None,
            allowed: None,
        }
    }
}

impl From<sqlx::Error> for ApiError {
    /// A store that fails may work again; what exactly failed is for the log, not for clients.
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the store failed for a request");
        Self::unavailable("the store cannot answer now; try again later")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Detail,
        }
        #[derive(Serialize)]
        struct Detail {
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            allowed: Option<String>,
        }
        let detail = Detail {
            message: self.message,
            field: self.field,
            allowed: self.allowed,
        };
        (self.status, axum::Json(Body { error: detail })).into_response()
    }
}

/// [`axum::Json`] whose refusals are [`ApiError`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::of(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the request needs the header content-type: application/json",
            )),
            Err(JsonRejection::JsonDataError(error)) => {
                Err(ApiError::bad_request(error.body_text()))
            }
            Err(error) => Err(ApiError::of(error.status(), error.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// [`axum::extract::Query`] whose refusals are [`ApiError`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error: QueryRejection| ApiError::bad_request(error.body_text()))
    }
}

/// [`axum::extract::Path`] whose refusals are [`ApiError`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|error: PathRejection| ApiError::of(error.status(), error.body_text()))
    }
}

/// The parameters behind `?`, read by name. Refusals name the parameter and what it may be.
#[derive(Debug, Clone, Default)]
pub struct Parameters(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(parameters) = Query::from_request_parts(parts, state).await?;
        Ok(Self(parameters))
    }
}

impl Parameters {
    /// Refuses all parameters but those in `names`: one that is misspelt would be ignored otherwise.
    ///
    /// # Errors
    ///
    /// Names the one that does not exist.
    pub fn only(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let message = format!("there is no parameter {name}");
                Err(ApiError::invalid(name, message, names.join(", ")))
            }
        }
    }

    /// The text of a parameter.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The whole number of a parameter; `None` when it is not given.
    ///
    /// # Errors
    ///
    /// It is no number or none of those in `allowed`.
    pub fn number(
        &self,
        name: &str,
        allowed: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if allowed.contains(&number) => Ok(Some(number)),
            _ => {
                let message = format!("{name} is not allowed to be {text:?}");
                let (min, max) = allowed.into_inner();
                Err(ApiError::invalid(
                    name,
                    message,
                    format!("a whole number from {min} to {max}"),
                ))
            }
        }
    }
}

/// The pages for operators: `/health` (200 as long as the consumer lives, 503 when it has stopped by itself, with the
/// [`Status`] in both cases), `/status` (the same, always 200) and `/metrics` (Prometheus text).
pub fn operator_routes(
    status: impl Fn() -> Status + Clone + Send + Sync + 'static,
    registry: Registry,
) -> Router {
    let health = status.clone();
    Router::new()
        .route(
            "/health",
            get(move || {
                let status = health();
                // A consumer that waits for Kafka or retries is healthy: killing it would help nobody.
                let code = match status.state {
                    State::Failed | State::Stopped => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::OK,
                };
                async move { (code, axum::Json(status)) }
            }),
        )
        .route(
            "/status",
            get(move || std::future::ready(axum::Json(status()))),
        )
        .route(
            "/metrics",
            get(move || std::future::ready(metrics_page(&registry))),
        )
}

fn metrics_page(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The answer to a path that does not exist; for [`Router::fallback`].
pub async fn no_such_path(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found(format_args!("the path {}", uri.path()))
}
