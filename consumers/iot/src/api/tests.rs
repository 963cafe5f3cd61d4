//! The API over real HTTP on loopback, with the store behind it and no Kafka.

use super::*;
use crate::store::tests::store;

struct Server {
    url: String,
    api: Api,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves the API nested, as it is when all backends share one address.
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let configured = Rule {
            above: Some(90.0),
            ..Rule::default()
        };
        let api = Api {
            store: store(&dir).await,
            metrics: Metrics::new(&prometheus::Registry::new()).expect("registers"),
            posted: Arc::new(Notify::new()),
            configured_rules: Arc::new(BTreeMap::from([("humidity".to_owned(), configured)])),
            rules_max: 2,
            commands_pending_max: 3,
            command_expiry_s: 60,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let url = format!(
            "http://{}/iot",
            listener.local_addr().expect("has an address")
        );
        let app = Router::new().nest("/iot", router(api.clone()));
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("serves");
        });
        Self {
            url,
            api,
            task,
            _dir: dir,
        }
    }

    /// Status, body and the header `location`.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value, Option<String>) {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.url))
            .body(body.to_owned())
            .expect("a request");
        tokio::task::spawn_blocking(move || {
            let agent = testkit::http::agent();
            let mut response = agent.run(request).expect("answers");
            let location = response
                .headers()
                .get("location")
                .map(|value| value.to_str().expect("text").to_owned());
            let text = response.body_mut().read_to_string().expect("a body");
            let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
            (response.status().as_u16(), body, location)
        })
        .await
        .expect("no panic")
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body, _) = self.call("GET", path, "").await;
        (status, body)
    }
}

#[tokio::test]
async fn a_command_is_stored_before_it_is_accepted_and_can_be_followed() {
    let server = Server::start().await;
    let (status, accepted, location) = server
        .call(
            "POST",
            "api/devices/d-1/commands/reboot",
            r#"{"delay_s":5}"#,
        )
        .await;
    assert_eq!(
        (status, accepted["status"].as_str()),
        (202, Some("pending")),
        "{accepted}"
    );
    let id = accepted["id"].as_str().expect("an id");
    assert_eq!(location, Some(format!("../../../commands/{id}")));

    let (status, command) = server.get(&format!("api/commands/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!(command["args"], json!({ "delay_s": 5 }));
    assert_eq!(
        (command["device"].as_str(), command["reply"].is_null()),
        (Some("d-1"), true)
    );
    let (_, device) = server.get("api/devices/d-1").await;
    assert_eq!(device["commands"][0]["id"].as_str(), Some(id), "{device}");
}

#[tokio::test]
async fn a_command_without_arguments_has_null_and_more_than_may_wait_are_refused() {
    let server = Server::start().await;
    let (_, accepted, _) = server
        .call("POST", "api/devices/d-1/commands/ping", "")
        .await;
    let id = accepted["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        server.get(&format!("api/commands/{id}")).await.1["args"],
        Value::Null
    );
    for _ in 0..2 {
        assert_eq!(
            server
                .call("POST", "api/devices/d-1/commands/ping", "1")
                .await
                .0,
            202
        );
    }
    let (status, refused, _) = server
        .call("POST", "api/devices/d-1/commands/ping", "1")
        .await;
    assert_eq!(status, 503);
    let message = refused["error"]["message"].as_str().expect("a message");
    assert_eq!(
        message,
        "3 commands wait for Kafka already; this one was not stored; try again later"
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_stored_is_refused_with_a_clear_503() {
    let server = Server::start().await;
    server.api.store.limit_pages(Some(1)).await;
    let args = format!("\"{}\"", "x".repeat(60_000));
    let (status, body, _) = server
        .call("POST", "api/devices/d-1/commands/reboot", &args)
        .await;
    assert_eq!(status, 503, "{body}");
    let message = body["error"]["message"].as_str().expect("a message");
    assert_eq!(
        message,
        "the command could not be stored and will not be sent; try again later"
    );
    server.api.store.limit_pages(None).await;
    assert_eq!(
        server
            .call("POST", "api/devices/d-1/commands/reboot", &args)
            .await
            .0,
        202
    );
}

#[tokio::test]
async fn rules_are_put_shown_and_taken_back() {
    let server = Server::start().await;
    let (status, rule, _) = server
        .call("PUT", "api/rules/temperature", r#"{"above":30,"below":5}"#)
        .await;
    assert_eq!(
        (status, rule),
        (
            200,
            json!({"metric":"temperature","above":30.0,"below":5.0,"hysteresis":0.0})
        )
    );
    assert_eq!(
        server
            .call("PUT", "api/rules/humidity", r#"{"above":80}"#)
            .await
            .0,
        200
    );
    let (_, rules) = server.get("api/rules").await;
    assert_eq!(
        rules["rules"][0],
        json!({"metric":"humidity","above":80.0,"hysteresis":0.0,"from_config":false})
    );
    let (status, refused, _) = server
        .call("PUT", "api/rules/pressure", r#"{"above":1}"#)
        .await;
    assert_eq!(
        (status, refused["error"]["field"].as_str()),
        (400, Some("metric"))
    );

    assert_eq!(
        server.call("DELETE", "api/rules/temperature", "").await.0,
        204
    );
    assert_eq!(
        server.call("DELETE", "api/rules/temperature", "").await.0,
        404
    );
    assert_eq!(server.call("DELETE", "api/rules/humidity", "").await.0, 204);
    let (_, rules) = server.get("api/rules").await;
    assert_eq!(
        rules["rules"],
        json!([{"metric":"humidity","above":90.0,"hysteresis":0.0,"from_config":true}])
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named_with_what_is_allowed() {
    let server = Server::start().await;
    let long = format!("api/devices/{}", "d".repeat(257));
    let big = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX));
    for (method, path, body, status, field, allowed) in [
        (
            "GET",
            "api/devices?limit=0",
            "",
            400,
            "limit",
            "a whole number from 1 to 10000",
        ),
        (
            "GET",
            "api/devices?limit=1e3",
            "",
            400,
            "limit",
            "a whole number from 1 to 10000",
        ),
        ("GET", "api/devices?limt=3", "", 400, "limt", "after, limit"),
        (
            "GET",
            "api/devices/a%2Fb",
            "",
            400,
            "device",
            "1 to 256 bytes",
        ),
        ("GET", long.as_str(), "", 400, "device", "1 to 256 bytes"),
        (
            "GET",
            "api/devices/d/metrics/t?from=-1",
            "",
            400,
            "from",
            "a whole number from 0 to",
        ),
        (
            "GET",
            "api/devices/d/metrics/t?from=99999999999999999999",
            "",
            400,
            "from",
            "a whole number from 0 to",
        ),
        (
            "GET",
            "api/devices/d/metrics/t?from=2&to=1",
            "",
            400,
            "from",
            "at most what to is",
        ),
        (
            "GET",
            "api/devices/d/metrics/t?before=1.2",
            "",
            400,
            "before",
            "the field before of a page",
        ),
        (
            "POST",
            "api/devices/d/commands/%23",
            "1",
            400,
            "command",
            "1 to 256 bytes",
        ),
        ("POST", "api/devices/d/commands/c", "{", 400, "body", "JSON"),
        (
            "POST",
            "api/devices/d/commands/c",
            "1e999",
            400,
            "body",
            "JSON",
        ),
        (
            "POST",
            "api/devices/d/commands/c",
            big.as_str(),
            400,
            "body",
            "at most 65536 bytes",
        ),
        ("PUT", "api/rules/t", "[]", 400, "body", "above"),
        ("PUT", "api/rules/t", "", 400, "body", "above"),
        ("PUT", "api/rules/t", r#"{"over":1}"#, 400, "over", "above"),
        (
            "PUT",
            "api/rules/t",
            r#"{"above":"hot"}"#,
            400,
            "above",
            "a number in the metric's unit",
        ),
        (
            "PUT",
            "api/rules/t",
            r#"{"above":1,"below":2}"#,
            400,
            "below",
            "less than above",
        ),
        (
            "PUT",
            "api/rules/t",
            r#"{"above":1,"hysteresis":-1}"#,
            400,
            "hysteresis",
            "0 or more",
        ),
        (
            "PUT",
            "api/rules/t",
            r#"{"hysteresis":1}"#,
            400,
            "above",
            "at least one of above and below",
        ),
    ] {
        let (answered, body, _) = server.call(method, path, body).await;
        assert_eq!(answered, status, "{method} {path}: {body}");
        assert_eq!(
            body["error"]["field"].as_str(),
            Some(field),
            "{method} {path}: {body}"
        );
        let says = body["error"]["allowed"].as_str().unwrap_or_default();
        assert!(says.contains(allowed), "{method} {path}: {body}");
    }
    for path in [
        "api/devices/nobody",
        "api/devices/d/metrics/t",
        "api/commands/c-404",
        "api/nothing",
    ] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 404, "{path}");
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap_or_default()
                .ends_with("does not exist"),
            "{path}: {body}"
        );
    }
}
