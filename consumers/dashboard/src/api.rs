//! The page and its data. The page finds its data by the address that it was loaded from, so it works wherever it is nested.

use std::convert::Infallible;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use runtime::http::{ApiError, no_such_path};
use tokio::sync::watch;
use tokio_stream::wrappers::{IntervalStream, WatchStream};

use crate::clock::now_ms;
use crate::sampler::Shared;

/// A viewer whose connection breaks comes back after this time.
const RETRY: Duration = Duration::from_secs(2);

/// A stream says this often that it is there, news or not: a page that hears nothing for longer knows that it shows the past,
/// and nobody in between closes a stream for its silence.
const BEAT: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub shared: Arc<Shared>,
    /// Streams end when it changes.
    pub stop: watch::Receiver<bool>,
    /// How often a stream says that it is there; [`Api::new`] has what is usual.
    pub beat: Duration,
}

impl Api {
    pub(crate) fn new(shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        Self {
            shared,
            stop,
            beat: BEAT,
        }
    }
}

/// The routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/plotly.js", get(plotly))
        .route("/api/snapshot", get(snapshot))
        .route("/api/events", get(events))
        .route("/docs/{name}", get(document))
        .fallback(no_such_path)
        .with_state(api)
}

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/style.css");
const FORMAT: &str = include_str!("../page/format.js");
const CHARTS: &str = include_str!("../page/charts.js");
const STREAM: &str = include_str!("../page/stream.js");
const SCRIPT: &str = include_str!("../page/app.js");

/// The page with its style and script inside. The nonce lets them run, and nothing that somebody else might smuggle in.
async fn page(State(api): State<Api>) -> Response {
    let nonce = format!("{:016x}", std::hash::RandomState::new().hash_one(0));
    let script = format!("{FORMAT}{CHARTS}{STREAM}{SCRIPT}");
    let html = PAGE
        .replace("{{style}}", STYLE)
        .replace("{{nonce}}", &nonce)
        .replace("{{beat_ms}}", &api.beat.as_millis().to_string())
        .replace("{{script}}", &script);
    let policy = format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data: blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, html).into_response()
}

/// Plotly's script as its crate ships it, and a tag that changes with it.
struct Script {
    text: Bytes,
    tag: String,
}

/// Made when it is first asked for: it takes 4.5 MB.
static PLOTLY: LazyLock<Script> = LazyLock::new(|| {
    // The crate gives script elements to be put into a page: Plotly's, then one for formulas that this page has none of.
    let elements = plotly::Plot::offline_js_sources();
    let text = first_script(&elements).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a: the same in every process, so that a browser's copy outlives a restart.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Script {
        text: Bytes::copy_from_slice(text.as_bytes()),
        tag: format!("\"{hash:016x}\""),
    }
});

/// What stands in the first script element.
fn first_script(html: &str) -> Option<&str> {
    let (_, rest) = html.split_once("<script")?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once("</script>").map(|(script, _)| script)
}

async fn plotly(headers: HeaderMap) -> Response {
    let script = &*PLOTLY;
    if script.text.is_empty() {
        return ApiError::not_found("Plotly's script").into_response();
    }
    let cache = [
        (header::ETAG, script.tag.as_str()),
        (header::CACHE_CONTROL, "public, max-age=86400"),
    ];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == script.tag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (cache, kind, script.text.clone()).into_response()
}

/// The figures now and the last minutes: what a viewer needs before the first event.
async fn snapshot(State(api): State<Api>) -> Result<Response, ApiError> {
    let now = api.shared.tick.borrow().clone();
    let history = {
        let live = api
            .shared
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&live.history())
    };
    let history = history.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, format!("{{\"now\":{now},\"history\":{history}}}")).into_response())
}

/// What the page refers to, as it was when this program was built.
const DOCUMENTS: &[(&str, &str)] = &[
    ("CONSUMERS.md", include_str!("../../../docs/CONSUMERS.md")),
    ("TOPICS.md", include_str!("../../../docs/TOPICS.md")),
    ("ENVELOPE.md", include_str!("../../../docs/ENVELOPE.md")),
    (
        "CONFIGURATION.md",
        include_str!("../../../docs/CONFIGURATION.md"),
    ),
    ("OPERATIONS.md", include_str!("../../../docs/OPERATIONS.md")),
];

async fn document(Path(name): Path<String>) -> Response {
    let Some((_, text)) = DOCUMENTS.iter().find(|(known, _)| *known == name) else {
        return ApiError::not_found(format!("the document {name}")).into_response();
    };
    // As plain text: some browsers save what is called Markdown instead of showing it.
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, *text).into_response()
}

/// The figures whenever they change, as server-sent events named `tick`, and between them a `beat`.
async fn events(State(api): State<Api>) -> Result<Response, ApiError> {
    let viewer = Arc::clone(&api.shared.viewers)
        .try_acquire_owned()
        .map_err(|_| {
            let max = api.shared.viewers_max;
            ApiError::unavailable(format!(
                "{max} viewers watch already, the most allowed; api/snapshot answers still"
            ))
        })?;
    let mut stop = api.stop;
    let ticks = WatchStream::new(api.shared.tick.subscribe()).map(move |tick| {
        // Held as long as the stream lives.
        let _ = &viewer;
        Event::default().event("tick").data(&*tick)
    });
    // Of its own accord, not when there was no tick: a tick that cannot be made is no reason to look dead.
    let first_beat = tokio::time::Instant::now() + api.beat;
    let beats = IntervalStream::new(tokio::time::interval_at(first_beat, api.beat))
        .map(|_| Event::default().event("beat").data(now_ms().to_string()));
    let events = stream::once(std::future::ready(
        Event::default().retry(RETRY).comment("millstream"),
    ))
    .chain(stream::select(ticks, beats))
    .map(Ok::<_, Infallible>)
    .take_until(Box::pin(async move {
        // An error means that the dashboard is gone: the same.
        let _ = stop.changed().await;
    }));
    let mut response = Sse::new(events).into_response();
    // A proxy that collects before it passes on would make live updates late.
    response.headers_mut().insert(
        "x-accel-buffering",
        axum::http::HeaderValue::from_static("no"),
    );
    Ok(response)
}

#[cfg(test)]
mod browser_tests;
#[cfg(test)]
mod tests;
