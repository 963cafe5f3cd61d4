//! The page's data over real HTTP on loopback, without Kafka.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use tokio::sync::Semaphore;

use super::*;
use crate::live::Live;

struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// Serves the API nested, as it is when all backends share one address.
async fn serve(viewers_max: u32) -> Server {
    serve_with_beat(viewers_max, BEAT).await
}

async fn serve_with_beat(viewers_max: u32, beat: Duration) -> Server {
    let shared = Arc::new(Shared {
        live: Mutex::new(Live::default()),
        tick: watch::Sender::new(Arc::from(r#"{"at":1}"#)),
        viewers: Arc::new(Semaphore::new(viewers_max as usize)),
        viewers_max,
    });
    let (stop, stopped) = watch::channel(false);
    let mut api = Api::new(Arc::clone(&shared), stopped);
    api.beat = beat;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let address = listener.local_addr().expect("has an address");
    tokio::spawn(async move {
        axum::serve(listener, Router::new().nest("/dashboard", router(api))).await
    });
    Server {
        address,
        shared,
        stop,
    }
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    reader: BufReader<TcpStream>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The next line that is not a chunk's length.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).expect("reads");
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The data of the next event of this name.
    fn event_named(&mut self, name: &str) -> Option<String> {
        let mut is_it = false;
        loop {
            let line = self.line()?;
            if let Some(event) = line.strip_prefix("event: ") {
                is_it = event == name;
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| is_it) {
                return Some(data.to_owned());
            }
        }
    }

    /// The data of the next tick.
    fn event(&mut self) -> Option<String> {
        self.event_named("tick")
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = self.line() {
            text.push_str(&line);
        }
        text
    }
}

/// Asks for a path below `/dashboard`; the answer's body is read by the caller.
async fn get(address: SocketAddr, path: &str, header: &str) -> Answer {
    let request = format!(
        "GET /dashboard{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n"
    );
    blocking(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("sets");
        stream.write_all(request.as_bytes()).expect("writes");
        let mut answer = Answer {
            status: 0,
            headers: Vec::new(),
            reader: BufReader::new(stream),
        };
        let first = answer.line().expect("a status line");
        answer.status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        while let Some(line) = answer.line().filter(|line| !line.is_empty()) {
            answer.headers.push(line);
        }
        answer
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test]
async fn the_page_carries_its_style_and_script_and_allows_no_others() {
    let server = serve(1).await;
    let mut answer = get(server.address, "", "").await;
    assert_eq!(answer.status, 200);
    let policy = answer
        .header("content-security-policy")
        .expect("a policy")
        .to_owned();
    let (_, nonce) = policy.split_once("'nonce-").expect("a nonce");
    let (nonce, _) = nonce.split_once('\'').expect("its end");
    let html = blocking(move || answer.text()).await;
    assert!(html.contains(&format!("<script type=\"module\" nonce=\"{nonce}\">")));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("EventSource"));
    assert!(!html.contains("{{"), "a place was left empty");
    assert!(
        !html.contains("http://")
            || html.matches("http://").count() == html.matches("http://www.w3.org/").count()
    );
    assert!(!html.contains("https://"), "the page asks nobody else");
    let other = get(server.address, "", "").await;
    assert_ne!(
        other.header("content-security-policy"),
        Some(policy.as_str()),
        "a nonce is used once"
    );
}

#[tokio::test]
async fn plotly_is_served_from_its_crate_and_kept_by_browsers() {
    let server = serve(1).await;
    let mut answer = get(server.address, "/plotly.js", "").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/javascript; charset=utf-8"))
    );
    let length: usize = answer
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .expect("a length");
    assert!(length > 1_000_000, "{length} bytes");
    let tag = answer.header("etag").expect("a tag").to_owned();
    let text = blocking(move || answer.text()).await;
    assert!(
        text.contains("plotly.js v")
            && !text.contains("</script>")
            && !text.contains("MathJax.loader")
    );
    let again = get(
        server.address,
        "/plotly.js",
        &format!("if-none-match: {tag}\r\n"),
    )
    .await;
    assert_eq!(again.status, 304);
}

#[tokio::test]
async fn a_snapshot_is_the_figures_now_and_the_history() {
    let server = serve(1).await;
    let mut answer = get(server.address, "/api/snapshot", "").await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, Some("no-store"))
    );
    let body: serde_json::Value =
        serde_json::from_str(&blocking(move || answer.text()).await).expect("JSON");
    assert_eq!(body["now"], serde_json::json!({ "at": 1 }));
    assert_eq!(body["history"]["at"], serde_json::json!([]));
}

#[tokio::test]
async fn viewers_get_what_is_new_until_the_end() {
    let server = serve(1).await;
    let mut viewer = get(server.address, "/api/events", "").await;
    assert_eq!(
        (viewer.status, viewer.header("content-type")),
        (200, Some("text/event-stream"))
    );
    let (mut viewer, event) = blocking(move || {
        let event = viewer.event();
        (viewer, event)
    })
    .await;
    assert_eq!(event.as_deref(), Some(r#"{"at":1}"#));
    server.shared.tick.send_replace(Arc::from(r#"{"at":2}"#));
    let (mut viewer, event) = blocking(move || {
        let event = viewer.event();
        (viewer, event)
    })
    .await;
    assert_eq!(event.as_deref(), Some(r#"{"at":2}"#));
    server.stop.send_replace(true);
    assert_eq!(
        blocking(move || viewer.event()).await,
        None,
        "the stream ends when the dashboard does"
    );
}

#[tokio::test]
async fn one_viewer_too_many_is_told_so_and_a_place_is_free_when_one_leaves() {
    let server = serve(1).await;
    let viewer = get(server.address, "/api/events", "").await;
    assert_eq!(viewer.status, 200);
    let mut refused = get(server.address, "/api/events", "").await;
    assert_eq!(refused.status, 503);
    let text = blocking(move || refused.text()).await;
    assert!(
        text.contains("1 viewers watch already, the most allowed"),
        "{text}"
    );
    drop(viewer);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while get(server.address, "/api/events", "").await.status != 200 {
        assert!(
            std::time::Instant::now() < deadline,
            "the place is not free"
        );
        // The server notices that somebody left when it has something to say.
        server.shared.tick.send_replace(Arc::from(r#"{"at":3}"#));
    }
}

#[tokio::test]
async fn a_path_that_does_not_exist_says_so() {
    let server = serve(1).await;
    let mut answer = get(server.address, "/api/nothing", "").await;
    assert_eq!(answer.status, 404);
    assert!(
        blocking(move || answer.text())
            .await
            .contains("does not exist")
    );
}

#[tokio::test]
async fn a_stream_without_news_says_that_it_is_there() {
    let server = serve_with_beat(1, Duration::from_millis(20)).await;
    let mut viewer = get(server.address, "/api/events", "").await;
    let beats = blocking(move || [viewer.event_named("beat"), viewer.event_named("beat")]).await;
    for beat in beats {
        let at: i64 = beat.expect("a beat").parse().expect("a time");
        assert!(now_ms() - at < 60_000, "{at}");
    }
}

#[tokio::test]
async fn what_the_page_refers_to_is_served_with_it() {
    let server = serve(1).await;
    let mut page = get(server.address, "", "").await;
    let html = blocking(move || page.text()).await;
    let names: Vec<&str> = html
        .split("href=\"docs/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(names.len(), DOCUMENTS.len(), "{names:?}");
    for name in names {
        let mut answer = get(server.address, &format!("/docs/{name}"), "").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/plain; charset=utf-8"))
        );
        let text = blocking(move || answer.text()).await;
        assert!(text.starts_with("# "), "{name}: {text:.40}");
    }
    assert_eq!(
        get(server.address, "/docs/..%2FCargo.toml", "")
            .await
            .status,
        404
    );
}
