//! Records posted to an HTTP endpoint: in order, again while it cannot take them, and no further when it refuses one.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;

use crate::support::{appended, replay, topic};

/// The values that were taken, and how often a record was posted.
type Seen = Arc<Mutex<(Vec<String>, usize)>>;

/// Takes every record at its second try, but for those with the value 7.
async fn take(State(seen): State<Seen>, body: String) -> StatusCode {
    let record: Value = serde_json::from_str(&body).expect("JSON");
    let value = record["value"].as_str().expect("text").to_owned();
    let mut seen = seen.lock().expect("no panic");
    seen.1 += 1;
    if value == "7" {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    if seen.1 % 2 == 1 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    seen.0.push(value);
    StatusCode::OK
}

#[test]
fn records_are_posted_until_they_are_taken_and_not_behind_one_that_is_refused() {
    let topic = topic("replay-http", 1);
    appended(&topic, 0..10);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let seen = Seen::default();
    let router = Router::new()
        .route("/records", post(take))
        .with_state(Arc::clone(&seen));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let url = format!("http://{}/records", listener.local_addr().expect("a port"));
    runtime.spawn(async move { axum::serve(listener, router).await });

    let ended = replay(&[&topic, "--to-http", &url, "--limit", "5"]);
    assert!(ended.status.success(), "{}", ended.err);
    assert_eq!(seen.lock().expect("no panic").0, ["0", "1", "2", "3", "4"]);
    assert_eq!(seen.lock().expect("no panic").1, 10);

    let ended = replay(&[&topic, "--to-http", &url, "--from", "6"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    let says = format!("post {topic}/0/7: the endpoint answers 422");
    assert!(ended.err.contains(&says), "{}", ended.err);
    assert_eq!(seen.lock().expect("no panic").0.last().expect("6"), "6");

    let ended = replay(&[&topic, "--to-http", "ftp://host/"]);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.err);
    assert!(ended.err.contains("--to-http"), "{}", ended.err);
}
