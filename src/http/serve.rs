//! How HTTP is served: a bounded number of connections, each of which has to say what it wants in time.
//!
//! A node must be able to say how it is while somebody holds connections open or sends a byte now and then, so there is a
//! bound on connections, on the time for a request's head, and on the time for a whole request that brings a body. An
//! answer may take as long as it likes: live event streams never end by themselves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Http;

/// How long the server waits after an `accept` that failed, for want of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long one that is refused may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections over the bound that are told why at the same time; more are closed without a word.
const REFUSALS_MAX: usize = 16;
/// Between two log lines about connections that were refused.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    connections_max: usize,
    head_timeout: Duration,
    body_timeout: Duration,
}

impl From<&Http> for Bounds {
    fn from(config: &Http) -> Self {
        Self {
            connections_max: config.connections_max as usize,
            head_timeout: Duration::from_millis(config.head_timeout_ms),
            body_timeout: Duration::from_millis(config.body_timeout_ms),
        }
    }
}

/// Serves `router` until `ended` says true; open requests are then ended, and what is left after that is closed when this
/// future is dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    mut ended: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::from_fn_with_state(bounds, in_time));
    let room = Arc::new(Semaphore::new(bounds.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let graceful = GracefulShutdown::new();
    let mut refused = Refused::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.wait_for(|end| *end) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "HTTP connections cannot be accepted now; they wait in the kernel");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            refused.one(from, bounds.connections_max);
            if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(refuse(stream, permit));
            }
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Who breaks a connection off, or takes too long, is not our fault.
            if let Err(error) = connection.await {
                tracing::debug!(%from, %error, "an HTTP connection ended badly");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A request that brings a body has to bring it in time.
async fn in_time(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let brings_none = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if brings_none {
        return next.run(request).await;
    }
    match tokio::time::timeout(bounds.body_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let close = [(header::CONNECTION, "close")];
            let text = format!(
                "the request was not whole, or not done, within {} ms\n",
                bounds.body_timeout.as_millis()
            );
            (StatusCode::REQUEST_TIMEOUT, close, text).into_response()
        }
    }
}

/// Tells one over the bound why it is not served.
async fn refuse(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let busy = hyper::service::service_fn(|_| async {
        let mut response = Response::new(Body::from(
            "too many connections: http.connections_max are open\n",
        ));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, Infallible>(response)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), busy);
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, connection).await;
}

/// Connections over the bound, for the log: one line a second at most.
#[derive(Default)]
struct Refused {
    since_line: u64,
    line_at: Option<Instant>,
}

impl Refused {
    fn one(&mut self, from: SocketAddr, connections_max: usize) {
        self.since_line += 1;
        if self.line_at.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
            self.line_at = Some(Instant::now());
            tracing::warn!(
                refused = self.since_line,
                %from,
                connections_max,
                "HTTP connections were refused: http.connections_max are open"
            );
            self.since_line = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn started(
        bounds: Bounds,
    ) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "well" }))
            .route("/put", post(|body: String| async move { body }));
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(serve(listener, router, bounds, ended));
        (address, end, task)
    }

    fn bounds() -> Bounds {
        Bounds {
            connections_max: 2,
            head_timeout: Duration::from_millis(200),
            body_timeout: Duration::from_millis(200),
        }
    }

    /// Everything that comes until the other end closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .expect("the server closes it")
            .ok();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_does_not_say_what_it_wants_is_closed_and_makes_room() {
        let (address, _end, _task) = started(bounds()).await;
        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
            slow.push(stream);
        }
        let mut over = TcpStream::connect(address).await.unwrap();
        over.write_all(GET).await.unwrap();
        let answer = rest(&mut over).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("http.connections_max"),
            "{answer}"
        );
        for mut stream in slow {
            rest(&mut stream).await;
        }
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(GET).await.unwrap();
        assert!(rest(&mut next).await.ends_with("well"));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (address, _end, _task) = started(bounds()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST /put HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhal")
            .await
            .unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 408") && answer.contains("200 ms"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn the_end_waits_for_open_requests_and_takes_no_new_ones() {
        let (address, end, task) = started(bounds()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut head = [0; 12];
        idle.read_exact(&mut head).await.unwrap();
        end.send_replace(true);
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
