//! Traces: lines as they come.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use broker::limits::WORKERS_MAX;
use broker::{TraceKind, TraceTo, Traced};
use futures_util::stream;
use runtime::http::{ApiError, Query};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Admin;
use super::model::TraceLine;

/// How long is traced, where nothing is said.
const SECONDS: u64 = 60;
/// How long is traced at most.
const SECONDS_MAX: u64 = 3_600;
/// Lines, where nothing is said.
const LINES: u32 = 10_000;
/// Lines at most.
const LINES_MAX: u32 = 1_000_000;
/// Lines that wait for whoever reads them; more are missed, and how many is told.
const LINES_WAITING_MAX: usize = 4_096;
/// How long a worker may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is traced: a client or a topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A client identifier; the client need not be there yet.
    client: Option<String>,
    /// A topic filter, with `+` and `#`.
    topic: Option<String>,
    /// For how many seconds, 1 to 3,600; without it 60.
    seconds: Option<u64>,
    /// For how many lines at most, 1 to 1,000,000; without it 10,000.
    lines: Option<u32>,
}

/// The lines of a trace that wait to be sent.
struct Lines {
    waiting: mpsc::Receiver<TraceLine>,
    missed: Arc<AtomicU64>,
    began: Instant,
    until: Instant,
    /// Lines that are still to come.
    left: u64,
    is_over: bool,
}

fn json(line: &TraceLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

impl Lines {
    /// The next piece of the answer.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let missed = self.missed.load(Ordering::Relaxed);
        if self.left > missed
            && let Ok(Some(line)) = timeout_at(self.until, self.waiting.recv()).await
        {
            self.left -= 1;
            return Some(json(&line));
        }
        self.is_over = true;
        let missed = self.missed.load(Ordering::Relaxed);
        Some(json(&TraceLine {
            ms: self.ms(),
            client_id: String::new(),
            kind: "end".to_owned(),
            text: match missed {
                0 => "the trace has ended".to_owned(),
                missed => format!(
                    "the trace has ended; {missed} lines were missed: they came faster than they were read"
                ),
            },
        }))
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Begins a trace, and sends its lines until it ends or nobody reads.
pub async fn trace(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Response, ApiError> {
    let of = match (filter.client, filter.topic) {
        (Some(client), None) => Traced::Client(client),
        (None, Some(topic)) => {
            topic::validate_filter(&topic)
                .map_err(|why| ApiError::invalid("topic", why.to_string(), "a topic filter"))?;
            Traced::Topic(topic)
        }
        _ => {
            let said = "what is to be traced is not clear";
            return Err(ApiError::invalid("client", said, "either client or topic"));
        }
    };
    let seconds = filter.seconds.unwrap_or(SECONDS);
    let lines = filter.lines.unwrap_or(LINES);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        let allowed = format!("1 to {SECONDS_MAX}");
        return Err(ApiError::invalid(
            "seconds",
            format!("{seconds} is not allowed"),
            allowed,
        ));
    }
    if !(1..=LINES_MAX).contains(&lines) {
        let allowed = format!("1 to {LINES_MAX}");
        return Err(ApiError::invalid(
            "lines",
            format!("{lines} is not allowed"),
            allowed,
        ));
    }
    let (send, waiting) = mpsc::channel(LINES_WAITING_MAX);
    let missed = Arc::new(AtomicU64::new(0));
    let start = admin.broker.now();
    let of_worker = Arc::clone(&missed);
    let to: TraceTo = Arc::new(move |line| {
        let line = TraceLine {
            ms: line.at.since_ms(start),
            client_id: line.client_id,
            kind: kind(line.kind).to_owned(),
            text: line.text,
        };
        match send.try_send(line) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                of_worker.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    });
    let (begun, mut beginning) = mpsc::channel(WORKERS_MAX);
    let then = move |has_begun| {
        // Whoever asked may be gone by then.
        let _ = begun.try_send(has_begun);
    };
    admin
        .broker
        .trace(&of, start.plus_s(seconds), lines, &to, then);
    // Workers have it from here on: what they let go of ends it.
    drop(to);
    let patience = Instant::now() + PATIENCE;
    while let Ok(Some(has_begun)) = timeout_at(patience, beginning.recv()).await {
        if !has_begun {
            return Err(ApiError::unavailable(format!(
                "{} traces are under way, which is as many as may be",
                broker::limits::TRACES_MAX
            )));
        }
    }
    tracing::info!(?of, seconds, lines, "traced by an operator");
    let began = Instant::now();
    let pieces = Lines {
        waiting,
        missed,
        began,
        until: began + Duration::from_secs(seconds),
        left: lines.into(),
        is_over: false,
    };
    let body = stream::unfold(pieces, |mut lines| async move {
        let piece = lines.next().await?;
        Some((Ok::<_, Infallible>(piece), lines))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(body)).into_response())
}

fn kind(kind: TraceKind) -> &'static str {
    match kind {
        TraceKind::Received => "received",
        TraceKind::Sent => "sent",
        TraceKind::Delivery => "delivery",
        TraceKind::Event => "event",
    }
}
