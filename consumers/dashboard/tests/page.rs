//! The page in a real browser, on a real Kafka: numbers change when messages come, and what is wrong is said.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use dashboard::Config;
use serde_json::json;
use testkit::browser::Browser;
use testkit::kafka::{Kafka, Sent};

/// A message as the bridge stores it, received `ago_ms` ago.
fn message(topic: &str, payload: &str, ago_ms: u64) -> Sent {
    let mut sent = Sent::mqtt(topic, payload);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_micros();
    let received = u64::try_from(now).expect("before the year 500000") - ago_ms * 1_000;
    sent.headers.push((
        "mqtt.received-at".to_owned(),
        received.to_string().into_bytes(),
    ));
    sent
}

/// Messages of a small fleet: ten a round.
fn round(number: u64) -> Vec<(&'static str, Sent)> {
    let telemetry = (0..7).map(|device| {
        let topic = format!("devices/d-{device}/telemetry/temperature");
        (
            "iot.telemetry",
            message(&topic, r#"{"value":21.5}"#, 2 + number % 9),
        )
    });
    let chat = (0..2).map(|room| {
        let topic = format!("rooms/room-{room}/messages");
        (
            "chat.messages",
            message(
                &topic,
                r#"{"from":"alice","text":"hello"}"#,
                5 + number % 40,
            ),
        )
    });
    let other = [("mqtt.messages", message("<b>plants/greenhouse", "wet", 1))];
    telemetry.chain(chat).chain(other).collect()
}

async fn append(kafka: &'static Kafka, messages: Vec<(&'static str, Sent)>) {
    blocking(move || {
        for topic in ["iot.telemetry", "chat.messages", "mqtt.messages"] {
            kafka.append(
                topic,
                messages
                    .iter()
                    .filter(|(name, _)| *name == topic)
                    .map(|(_, sent)| sent.clone()),
            );
        }
    })
    .await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// Where pictures go: the directory that the environment names, or cargo's for tests.
fn picture(name: &str) -> PathBuf {
    std::env::var_os("MILLSTREAM_SCREENSHOTS")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
        .join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_change_and_troubles_are_said() {
    let kafka: &'static Kafka = Box::leak(Box::new(blocking(Kafka::start).await));
    for (topic, partitions) in [
        ("chat.messages", 2),
        ("iot.telemetry", 3),
        ("iot.replies", 1),
        ("mqtt.messages", 2),
        ("mqtt.downlink", 1),
    ] {
        kafka.make_topic(topic, partitions, &[]).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config {
        kafka: kafka.bootstrap().to_owned(),
        database: format!("sqlite:{}", dir.path().join("dashboard.db").display()),
        ..Config::default()
    };
    config.consumer.produce_timeout_ms = 5_000;
    let running = dashboard::start(config).await.expect("starts");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let site = format!("http://{}/", listener.local_addr().expect("has an address"));
    // The page asks its process how many are connected; this one has no broker.
    let status = axum::routing::get(async || axum::Json(json!({})));
    let app = Router::new()
        .nest("/dashboard", running.router())
        .route("/api/status", status);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        tokio::select! {
            _ = axum::serve(listener, app) => {}
            _ = ended => {}
        }
    });

    // Without the slash at the end, where relative links would go astray.
    let page = format!("{site}dashboard");
    let mut browser = blocking(move || {
        let mut browser = Browser::start(1280, 1240);
        browser.open(&page);
        browser.until("document.getElementById('state').dataset.state === 'live'");
        browser.until("document.getElementById('messages').value === '0'");
        browser.until("document.querySelector('#rate-chart .main-svg')");
        browser
    })
    .await;

    for number in 0..5 {
        append(kafka, round(number)).await;
    }
    browser = blocking(move || {
        browser.until("document.getElementById('messages').value === '50'");
        browser.until("document.getElementById('devices').value === '7'");
        browser.until("document.getElementById('rooms').value === '2'");
        browser.until("document.getElementById('stored').value === '50'");
        browser.until("Number(document.getElementById('p99').value) > 0");
        browser
    })
    .await;
    assert_eq!(
        browser.value("[...document.querySelectorAll('#prefixes tr')].map((row) => row.cells[0].textContent + ' ' + row.cells[2].textContent)"),
        json!(["devices/# 35", "rooms/# 10", "<b>plants/# 5"]),
        "a topic is text, whatever is in it"
    );

    // A record that nobody can handle is a dead letter, and the page says how many there are.
    let poison = Sent {
        payload: Some(b"x".to_vec()),
        ..Sent::default()
    };
    blocking(move || kafka.append("mqtt.messages", [poison])).await;
    browser = blocking(move || {
        browser.until("document.getElementById('dead-letters').value === '1'");
        browser.until("document.getElementById('stored').value === '51'");
        browser
    })
    .await;

    // Some seconds of traffic, so that the charts show what they are for.
    let mut number = 5;
    let mut rounds = 5;
    while browser.value("Number(document.getElementById('messages').value) < 300") == json!(true) {
        for _ in 0..1 + number % 4 {
            append(kafka, round(number)).await;
            rounds += 1;
        }
        number += 1;
    }
    browser = blocking(move || {
        browser.until("document.querySelectorAll('#rate-chart .scatterlayer .trace').length === 3");
        browser
            .until("document.querySelectorAll('#latency-chart .scatterlayer .trace').length === 3");
        browser.screenshot(&picture("dashboard-light.png"));
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        browser.call("Emulation.setEmulatedMedia", dark);
        browser.until("getComputedStyle(document.body).backgroundColor === 'rgb(15, 20, 26)'");
        browser.screenshot(&picture("dashboard-dark.png"));
        let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
        browser.call("Emulation.setDeviceMetricsOverride", phone);
        browser.until("document.documentElement.scrollWidth <= 390");
        browser.screenshot(&picture("dashboard-phone.png"));
        browser
    })
    .await;
    assert_eq!(browser.complaints, Vec::<String>::new());
    let strangers: Vec<_> = browser
        .requests
        .iter()
        .filter(|url| !url.starts_with(&site) && !url.starts_with("data:"))
        .collect();
    assert_eq!(strangers, Vec::<&String>::new(), "the page works offline");

    // Kafka goes away and comes back: the page says both, and counting goes on. Ten messages are a round.
    browser = blocking(move || {
        browser.until(&format!(
            "Number(document.getElementById('messages').value) === {}",
            rounds * 10
        ));
        browser
    })
    .await;
    blocking(|| kafka.stop()).await;
    browser = blocking(move || {
        browser.until(
            "document.getElementById('problems').innerText.includes('Kafka cannot be reached')",
        );
        browser.screenshot(&picture("dashboard-kafka-away.png"));
        kafka.start_again();
        browser.until("document.getElementById('problems').innerText === ''");
        browser
    })
    .await;
    append(kafka, round(0)).await;
    browser = blocking(move || {
        browser.until(&format!(
            "Number(document.getElementById('messages').value) === {}",
            (rounds + 1) * 10
        ));
        browser
    })
    .await;

    // The dashboard itself ends: the page says that what it shows is old.
    end.send(()).expect("the server runs");
    server.await.expect("no panic");
    running.shutdown().await;
    blocking(move || {
        browser.until("document.getElementById('state').dataset.state === 'stale'");
        browser.until("document.getElementById('problems').innerText.includes('The connection to the dashboard is lost')");
    })
    .await;
}
