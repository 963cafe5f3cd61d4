//! The HTTP API over real HTTP on loopback, nested as it is when all backends share one address, with messages in its store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::{Request, StatusCode};
use envelope::header;
use prometheus::Registry;
use runtime::http::ApiError;
use runtime::{Applied, Batch, Handler};
use serde_json::{Value, json};

use super::{Api, router};
use crate::Config;
use crate::change::{Change, Log};
use crate::handler::ChatHandler;
use crate::metrics::Metrics;
use crate::store::tests::{growth, store};
use crate::store::{Forgetter, Store};

struct Case {
    url: String,
    server: tokio::task::JoinHandle<()>,
    log: Arc<MemoryLog>,
    _dir: tempfile::TempDir,
}

/// A log that is handled as it is written.
struct MemoryLog(tokio::sync::Mutex<(ChatHandler, i64)>);

impl MemoryLog {
    /// Appends records and says whether they could be handled.
    async fn write(&self, topic: &str, kind: Option<&str>, payloads: &[Vec<u8>]) -> bool {
        let (handler, offset) = &mut *self.0.lock().await;
        let mut batch = Batch::new("chat.messages", 0);
        for payload in payloads {
            let kind = kind.map(|kind| (header::CHANGE, Some(kind.as_bytes())));
            batch.push(*offset, None, Some(topic.as_bytes()), Some(payload), kind);
            *offset += 1;
        }
        let outcome = handler.handle(&[batch]).await;
        outcome.is_ok_and(|outcome| {
            assert!(outcome.poison.is_empty(), "{:?}", outcome.poison);
            true
        })
    }
}

impl Log for MemoryLog {
    fn append<'a>(
        &'a self,
        topic: &'a str,
        change: &'a Change<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Applied, ApiError>> + Send + 'a>> {
        Box::pin(async move {
            let payload = change.payload().unwrap();
            let done = self.write(topic, Some(change.kind()), &[payload]).await;
            let (partition, offset) = (0, 4_711);
            Ok(if done {
                Applied::Now
            } else {
                Applied::Later { partition, offset }
            })
        })
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Case {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let handler = ChatHandler {
            store: store.clone(),
            topics: Config::default().mqtt_topics().unwrap(),
            text_bytes_max: 1_000,
            sender: crate::config::Sender::Principal,
            limits: config.limits(),
            growth: growth(&store),
            metrics: Metrics::new(&Registry::new()).unwrap(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/chat", listener.local_addr().unwrap());
        let log = Arc::new(MemoryLog(tokio::sync::Mutex::new((handler, 0))));
        let api = Api {
            store,
            log: log.clone(),
            messages: Config::default().mqtt_topics().unwrap().messages,
            limits: config.limits(),
        };
        let app = Router::new().nest("/chat", router(api));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            server,
            log,
            _dir: dir,
        }
    }

    async fn store(&self) -> Store {
        self.log.0.lock().await.0.store.clone()
    }

    async fn write(&self, room: &str, user: &str, messages: usize) {
        let first = self.log.0.lock().await.1;
        let payload = |number| json!({ "from": user, "text": format!("text-{number}") });
        let payloads: Vec<Vec<u8>> = (first..)
            .take(messages)
            .map(|number| payload(number).to_string().into_bytes())
            .collect();
        let topic = format!("rooms/{room}/messages");
        assert!(self.log.write(&topic, None, &payloads).await);
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(body.to_owned())
            .unwrap();
        tokio::task::spawn_blocking(move || {
            let agent = testkit::http::agent();
            let mut answer = agent.run(request).unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            (
                answer.status(),
                serde_json::from_str(&text).unwrap_or(Value::Null),
            )
        })
        .await
        .unwrap()
    }

    async fn get(&self, uri: &str) -> Value {
        let (status, value) = self.ask("GET", uri, "").await;
        assert_eq!(status, StatusCode::OK, "{uri}: {value}");
        value
    }
}

fn seqs(page: &Value) -> Vec<i64> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn history_is_read_page_by_page_both_ways() {
    let case = Case::new().await;
    case.write("lobby", "alice", 7).await;
    let last = case.get("/api/rooms/lobby/messages?limit=3").await;
    assert_eq!(
        (seqs(&last), &last["before"], &last["after"]),
        (vec![5, 6, 7], &json!(5), &Value::Null)
    );
    assert_eq!(last["last_seq"], 7);
    let entry = &last["messages"][0];
    assert_eq!(
        (&entry["from"], &entry["text"], &entry["id"]),
        (&json!("alice"), &json!("text-4"), &Value::Null)
    );
    assert!(entry["stored_at"].as_i64().unwrap() > 0);
    let middle = case.get("/api/rooms/lobby/messages?limit=3&before=5").await;
    assert_eq!(
        (seqs(&middle), &middle["before"], &middle["after"]),
        (vec![2, 3, 4], &json!(2), &json!(4))
    );
    let first = case.get("/api/rooms/lobby/messages?before=2").await;
    assert_eq!((seqs(&first), &first["before"]), (vec![1], &Value::Null));
    let after = case.get("/api/rooms/lobby/messages?after=4&limit=2").await;
    assert_eq!((seqs(&after), &after["after"]), (vec![5, 6], &json!(6)));
    let none = case.get("/api/rooms/lobby/messages?after=7").await;
    assert_eq!((seqs(&none), &none["after"]), (vec![], &Value::Null));
}

#[tokio::test]
async fn rooms_are_listed_by_name_page_by_page() {
    let case = Case::new().await;
    assert_eq!(
        case.get("/api/rooms").await,
        json!({ "rooms": [], "after": null })
    );
    for room in ["lobby", "attic", "cellar"] {
        case.write(room, "alice", 2).await;
    }
    let page = case.get("/api/rooms?limit=2").await;
    assert_eq!(
        (&page["rooms"][0]["room"], &page["rooms"][1]["room"]),
        (&json!("attic"), &json!("cellar"))
    );
    assert_eq!(
        (&page["rooms"][0]["last_seq"], &page["after"]),
        (&json!(2), &json!("cellar"))
    );
    let page = case.get("/api/rooms?limit=2&after=cellar").await;
    assert_eq!(
        (page["rooms"].as_array().unwrap().len(), &page["after"]),
        (1, &Value::Null)
    );
    let room = case.get("/api/rooms/lobby").await;
    assert_eq!(
        (&room["room"], &room["last_seq"], &room["members"]),
        (&json!("lobby"), &json!(2), &json!(1))
    );
}

#[tokio::test]
async fn unread_counts_follow_writing_joining_and_reading() {
    let case = Case::new().await;
    case.write("lobby", "alice", 3).await;
    let (status, joined) = case.ask("PUT", "/api/rooms/lobby/members/bob", "").await;
    let expected =
        json!({ "room": "lobby", "user": "bob", "read_seq": 3, "last_seq": 3, "unread": 0 });
    assert_eq!(
        (status, joined),
        (StatusCode::OK, expected),
        "what was written before counts as read"
    );
    case.write("lobby", "alice", 4).await;
    let unread = case.get("/api/users/bob/unread").await;
    assert_eq!(
        unread["rooms"],
        json!([{ "room": "lobby", "unread": 4, "read_seq": 3, "last_seq": 7 }])
    );
    assert_eq!(
        (&unread["unread"], &unread["rooms_unread"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(
        case.get("/api/users/alice/unread").await["unread"],
        0,
        "own messages are read"
    );

    let (_, read) = case
        .ask("POST", "/api/rooms/lobby/members/bob/read", r#"{"seq":5}"#)
        .await;
    assert_eq!((&read["read_seq"], &read["unread"]), (&json!(5), &json!(2)));
    let (_, read) = case
        .ask("POST", "/api/rooms/lobby/members/bob/read", r#"{"seq":1}"#)
        .await;
    assert_eq!(read["read_seq"], 5, "nothing becomes unread");
    // Joining again changes nothing; writing reads up to the own message.
    let (_, joined) = case.ask("PUT", "/api/rooms/lobby/members/bob", "").await;
    assert_eq!(joined["unread"], 2);
    case.write("lobby", "bob", 1).await;
    assert_eq!(case.get("/api/users/bob/unread").await["unread"], 0);
    assert_eq!(case.get("/api/users/alice/unread").await["unread"], 1);

    case.write("attic", "carol", 9).await;
    case.ask("PUT", "/api/rooms/attic/members/alice", "").await;
    case.write("attic", "carol", 5).await;
    let unread = case.get("/api/users/alice/unread?limit=1").await;
    assert_eq!(
        (&unread["unread"], &unread["rooms_unread"]),
        (&json!(6), &json!(2))
    );
    assert_eq!(
        (
            &unread["rooms"][0]["room"],
            unread["rooms"].as_array().unwrap().len()
        ),
        (&json!("attic"), 1)
    );

    let members = case.get("/api/rooms/lobby/members").await;
    assert_eq!(
        members["members"],
        json!([{ "user": "alice", "read_seq": 7, "unread": 1 }, { "user": "bob", "read_seq": 8, "unread": 0 }])
    );
    assert_eq!(
        case.ask("DELETE", "/api/rooms/lobby/members/bob", "")
            .await
            .0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        case.ask("DELETE", "/api/rooms/lobby/members/bob", "")
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(case.get("/api/users/bob/unread").await["rooms_unread"], 0);
}

#[tokio::test]
async fn a_room_may_be_joined_before_anybody_writes() {
    let case = Case::new().await;
    case.ask("PUT", "/api/rooms/quiet/members/bob", "").await;
    let room = case.get("/api/rooms/quiet").await;
    assert_eq!(
        (&room["last_seq"], &room["last_at"], &room["members"]),
        (&json!(0), &Value::Null, &json!(1))
    );
    assert_eq!(
        case.get("/api/rooms/quiet/messages").await["messages"],
        json!([])
    );
    case.write("quiet", "alice", 2).await;
    assert_eq!(case.get("/api/users/bob/unread").await["unread"], 2);
}

#[tokio::test]
async fn a_refusal_names_the_field_and_what_is_allowed() {
    let case = Case::new().await;
    case.write("lobby", "alice", 3).await;
    let long = format!("/api/rooms/{}/messages", "r".repeat(257));
    let cases = [
        (
            "GET",
            "/api/rooms/lobby/messages?limit=0",
            "",
            400,
            "limit",
            "a whole number from 1 to 1000",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?limit=1001",
            "",
            400,
            "limit",
            "from 1 to 1000",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?limit=many",
            "",
            400,
            "limit",
            "from 1 to 1000",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?before=0",
            "",
            400,
            "before",
            "a whole number from 1",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?before=1e9",
            "",
            400,
            "before",
            "a whole number from 1",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?before=99999999999999999999",
            "",
            400,
            "before",
            "a whole number",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?before=1&after=1",
            "",
            400,
            "after",
            "one of before and after",
        ),
        (
            "GET",
            "/api/rooms/lobby/messages?befor=1",
            "",
            400,
            "befor",
            "before, after, limit",
        ),
        ("GET", long.as_str(), "", 400, "room", "1 to 256 bytes"),
        ("GET", "/api/rooms/a%2Fb", "", 400, "room", "without `/`"),
        (
            "GET",
            "/api/users/%00/unread",
            "",
            400,
            "user",
            "without `/`",
        ),
        (
            "PUT",
            "/api/rooms/lobby/members/%23",
            "",
            400,
            "user",
            "without `/`",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            "",
            400,
            "body",
            "{\"seq\":42}",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            "seq=1",
            400,
            "body",
            "{\"seq\":42}",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            "[1]",
            400,
            "body",
            "{\"seq\":42}",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            "{}",
            400,
            "seq",
            "from 0 to the room's last_seq",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seq":"3"}"#,
            400,
            "seq",
            "a whole number",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seq":-1}"#,
            400,
            "seq",
            "a whole number",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seq":1.5}"#,
            400,
            "seq",
            "a whole number",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seq":1e30}"#,
            400,
            "seq",
            "a whole number",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seq":4}"#,
            400,
            "seq",
            "from 0 to 3",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/alice/read",
            r#"{"seqq":1}"#,
            400,
            "seqq",
            "seq",
        ),
    ];
    for (method, uri, body, code, field, allowed) in cases {
        let (status, answer) = case.ask(method, uri, body).await;
        let error = &answer["error"];
        assert_eq!(
            (status.as_u16(), error["field"].as_str()),
            (code, Some(field)),
            "{uri} {body}: {answer}"
        );
        assert!(
            error["allowed"].as_str().unwrap().contains(allowed),
            "{uri} {body}: {answer}"
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let missing = [
        (
            "GET",
            "/api/rooms/nowhere",
            "the room nowhere does not exist",
        ),
        (
            "GET",
            "/api/rooms/nowhere/messages",
            "the room nowhere does not exist",
        ),
        (
            "GET",
            "/api/rooms/nowhere/members",
            "the room nowhere does not exist",
        ),
        (
            "POST",
            "/api/rooms/lobby/members/bob/read",
            "the member bob of the room lobby does not exist",
        ),
        (
            "GET",
            "/api/nothing",
            "the path /api/nothing does not exist",
        ),
    ];
    for (method, uri, message) in missing {
        let (status, answer) = case.ask(method, uri, r#"{"seq":1}"#).await;
        assert_eq!(
            (status, answer["error"]["message"].as_str()),
            (StatusCode::NOT_FOUND, Some(message)),
            "{uri}"
        );
    }
    let (status, answer) = case
        .ask(
            "POST",
            "/api/rooms/lobby/members/alice/read",
            &"x".repeat(5_000),
        )
        .await;
    assert_eq!(
        (status.as_u16(), answer["error"]["field"].as_str()),
        (400, Some("body")),
        "{answer}"
    );
}

#[tokio::test]
async fn with_a_full_disk_a_change_waits_in_the_log_and_readers_go_on() {
    let case = Case::new().await;
    case.write("lobby", "alice", 3).await;
    let store = case.log.0.lock().await.0.store.clone();
    store.limit_pages(Some(1)).await;
    // Fill what is left of the pages that the file has.
    let mut refused = None;
    for user in 0..2_000 {
        let uri = format!("/api/rooms/lobby/members/{}{user}", "u".repeat(200));
        let (status, answer) = case.ask("PUT", &uri, "").await;
        if status != StatusCode::OK {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.expect("the limit has an effect");
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        answer,
        json!({ "applied": false, "partition": 0, "offset": 4_711 })
    );
    assert_eq!(
        seqs(&case.get("/api/rooms/lobby/messages").await),
        [1, 2, 3]
    );
}

#[tokio::test]
async fn who_has_no_place_is_told_which_limit_it_is() {
    let case = Case::with(Config {
        rooms_max: 1,
        room_members_max: 1,
        ..Config::default()
    })
    .await;
    case.write("lobby", "alice", 2).await;
    let (status, _) = case.ask("PUT", "/api/rooms/lobby/members/alice", "").await;
    assert_eq!(status, StatusCode::OK, "a member stays one");
    for (room, field, limit) in [
        ("lobby", "user", "room_members_max = 1"),
        ("other", "room", "rooms_max = 1"),
    ] {
        let path = format!("/api/rooms/{room}/members/bob");
        let (status, answer) = case.ask("PUT", &path, "").await;
        let error = &answer["error"];
        assert_eq!(
            (status, &error["field"]),
            (StatusCode::BAD_REQUEST, &json!(field))
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(limit), "{message}");
    }
}

#[tokio::test]
async fn the_first_page_is_the_one_with_the_oldest_message_that_is_left() {
    let case = Case::new().await;
    case.write("lobby", "alice", 5).await;
    let mut forgetter = Forgetter::new(case.store().await, 0, 3);
    runtime::Forget::forget(&mut forgetter).await.unwrap();
    let page = case.get("/api/rooms/lobby/messages?limit=2").await;
    assert_eq!((seqs(&page), &page["before"]), (vec![4, 5], &json!(4)));
    let page = case.get("/api/rooms/lobby/messages?before=4").await;
    assert_eq!((seqs(&page), &page["before"]), (vec![3], &Value::Null));
    assert_eq!(
        (&page["first_seq"], &page["last_seq"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(case.get("/api/rooms/lobby").await["first_seq"], 3);
}
