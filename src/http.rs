//! The HTTP side of a process: where it listens, what every process answers, and how it ends.
//!
//! What the backends answer is theirs; this module only puts their routers in place.

mod guard;
mod serve;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use guard::AdminGuard;

use crate::admin::{self, Admin};
use crate::config::Http;
use crate::node::{Health, Node};

/// How long open requests may take to end at a shutdown. Live event streams never end by themselves.
const DRAIN: Duration = Duration::from_secs(1);

/// What every process answers: `/health/live`, `/health/ready` and `/api/status`.
pub fn common_routes(node: Arc<Node>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/api/status", get(status))
        .with_state(node)
}

/// What `up` and `broker` answer for operators: the common routes, `/health` and `/metrics`.
pub fn operator_routes(node: Arc<Node>) -> Router {
    let of_node = Router::new()
        .route("/health", get(live))
        .route("/metrics", get(metrics))
        .with_state(node.clone());
    common_routes(node).merge(of_node)
}

/// The operators' API behind its gate, and the document about it.
pub fn admin_routes(admin: Arc<Admin>, gate: AdminGuard) -> Router {
    admin::routes(admin)
        .layer(middleware::from_fn_with_state(gate, guard::check_admin))
        .merge(admin::document())
}

/// Whether it should go on living: a Kafka that is away is no reason to restart it.
async fn live(State(node): State<Arc<Node>>) -> Response {
    let health = node.health();
    answer(health.live, &health)
}

/// Whether it can do its work now.
async fn ready(State(node): State<Arc<Node>>) -> Response {
    let health = node.health();
    answer(health.ready, &health)
}

fn answer(well: bool, health: &Health) -> Response {
    let code = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, axum::Json(health)).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    match node.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(node): State<Arc<Node>>) -> Response {
    axum::Json(node.status()).into_response()
}

/// A running HTTP server.
pub struct Server {
    address: SocketAddr,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on a listener that is bound and non-blocking.
    ///
    /// # Errors
    /// When tokio does not take the listener.
    pub fn start(listener: TcpListener, router: Router, config: &Http) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let guard = guard::Guard::from(config);
        let router = router.layer(middleware::from_fn_with_state(guard, guard::check));
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(serve::serve(listener, router, config.into(), ended));
        Ok(Self { address, end, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection, lets open requests end, then closes what is left.
    pub async fn shutdown(mut self) {
        self.end.send_replace(true);
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
