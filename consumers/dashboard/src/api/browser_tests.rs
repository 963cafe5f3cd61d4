//! The page in a real browser, with figures made for it: narrow screens, long lists, and a server that falls silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::count::Volume;
use crate::live::Live;
use crate::store::Totals;
use testkit::browser::Browser;

/// Prefixes of the figures: more than are shown at once.
const PREFIXES: u64 = 60;

/// A clock of its own for these tests: three of its beats are three seconds, and a busy machine still keeps up.
const TEST_BEAT: Duration = Duration::from_secs(1);

/// A word that no browser breaks by itself.
const LONG: &str = "a-name-without-any-place-where-a-line-could-be-broken-and-that-is-far-wider-than-any-telephone";

fn prefix(index: u64) -> String {
    format!("{LONG}/{index:02}/")
}

/// Totals `second` seconds after the beginning.
fn totals(second: u64) -> Totals {
    let volume = |index: u64| Volume {
        messages: second * (index + 1) * 1_234_567,
        bytes: second * (index + 1) * 123_456_789_012,
    };
    Totals {
        prefixes: (0..PREFIXES)
            .map(|index| (prefix(index), volume(index)))
            .collect(),
        latencies: BTreeMap::from([(1_500, second * 9), (2_000_000, second)]),
        devices: 123_456_789,
        rooms: 98_765_432,
    }
}

/// What the sampler would tell, with `at` as its time.
fn tick(live: &Live, at: i64) -> Arc<str> {
    let logs = json!({
        "as_of": at, "stored": 123_456_789_012_u64, "dead_letters": 12_345,
        "topics": (0..30).map(|n| json!({ "topic": format!("{LONG}.{n}"), "partitions": 6, "stored": 1_234_567_890_u64 * n, "dead_letters": n })).collect::<Vec<_>>(),
        "groups": (0..30).map(|n| json!({ "group": format!("{LONG}-{n}"), "lag": 1_234_567_890_u64 })).collect::<Vec<_>>(),
    });
    let tick = json!({
        "at": at, "figures": live.figures(), "point": live.point(), "active_window_s": 300, "logs": logs,
        "lag": 1_234_567_890_u64, "dead_letters_here": 0, "viewers": 1, "viewers_max": 64,
        "problems": [{ "kind": "consumer", "text": format!("It cannot go on: {LONG}{LONG}"), "since": at }],
    });
    Arc::from(tick.to_string())
}

struct Site {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// The dashboard as it is in `up`: below `/dashboard`, in a process that says at `/api/status` how many are connected.
async fn site(viewers_max: u32) -> Site {
    let mut live = Live::default();
    for second in 0..120_u32 {
        live.take(totals(second.into()), i64::from(second) * 1_000, 1.0);
    }
    let now = tick(&live, now_ms());
    let shared = Arc::new(Shared {
        live: Mutex::new(live),
        tick: watch::Sender::new(now),
        viewers: Arc::new(Semaphore::new(viewers_max as usize)),
        viewers_max,
    });
    let (stop, stopped) = watch::channel(false);
    let mut api = Api::new(Arc::clone(&shared), stopped);
    api.beat = TEST_BEAT;
    let status = json!({
        "broker": { "connections": 12_345 },
        "consumers": { "chat": {}, "dashboard": {}, "iot": {} },
        "listen": { "mqtt": "127.0.0.1:1883" },
    });
    let app = Router::new()
        .nest("/dashboard/", router(api))
        .route("/api/status", get(async || axum::Json(status)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let address = listener.local_addr().expect("has an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Site {
        address,
        shared,
        stop,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

async fn open(site: &Site, width: u32) -> Browser {
    let page = format!("http://{}/dashboard/", site.address);
    blocking(move || {
        let mut browser = Browser::start(width, 900);
        browser.open(&page);
        browser.until("document.getElementById('state').dataset.state !== 'connecting'");
        browser
    })
    .await
}

fn state(browser: &mut Browser, is: &str) {
    browser.until(&format!(
        "document.getElementById('state').dataset.state === '{is}'"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wider_than_a_telephone() {
    let site = site(4).await;
    let mut browser = open(&site, 1_280).await;
    let page = format!("http://{}/dashboard/", site.address);
    blocking(move || {
        browser.until("document.querySelector('#rate-chart .main-svg')");
        // Turned, or made narrower while it is open; and opened on a telephone.
        for (width, anew) in [(320, false), (360, false), (414, false), (320, true), (360, true), (414, true)] {
            let phone = json!({ "width": width, "height": 844, "deviceScaleFactor": 2, "mobile": true });
            browser.call("Emulation.setDeviceMetricsOverride", phone);
            if anew {
                browser.open(&page);
                browser.until("document.querySelectorAll('#latencies tr').length === 5");
            }
            browser.until(&format!("document.documentElement.clientWidth === {width}"));
            browser.until(
                "(() => { const charts = [...document.querySelectorAll('.chart')];
                  return charts.every((chart) => chart.querySelector('.main-svg').getBoundingClientRect().width <= chart.clientWidth + 0.5); })()",
            );
            for all in [true, false] {
                let folds = format!("document.querySelectorAll('.fold[aria-expanded={}]').forEach((fold) => fold.click())", !all);
                browser.value(&folds);
                // Of the whole page, and of each thing on it that does not scroll by itself.
                let wide = browser.value(
                    "(() => { const wide = document.documentElement.clientWidth;
                      return [...document.querySelectorAll('body *')]
                        .filter((one) => !one.closest('.scroll, svg, .chart') && one.getBoundingClientRect().right > wide + 0.5)
                        .map((one) => `${one.tagName} ${one.id} ${one.className} to ${one.getBoundingClientRect().right}`); })()",
                );
                assert_eq!(wide, json!([]), "at {width} pixels");
                let scrolls = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
                assert!(scrolls.as_i64() <= Some(0), "{scrolls} pixels too wide at {width}");
            }
            browser.screenshot(&picture(&format!("dashboard-{width}.png")));
        }
        assert_eq!(browser.complaints, Vec::<String>::new());
    })
    .await;
}

/// Where pictures go: the directory that the environment names, or the one for temporary files.
fn picture(name: &str) -> PathBuf {
    std::env::var_os("MILLSTREAM_SCREENSHOTS")
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_are_folded_and_the_process_is_shown_with_its_other_pages() {
    let site = site(4).await;
    let mut browser = open(&site, 1_280).await;
    blocking(move || {
        browser.until("document.querySelectorAll('#latencies tr').length === 5");
        let rows = |browser: &mut Browser, id: &str| {
            browser.value(&format!("document.querySelectorAll('#{id} tr').length"))
        };
        for id in ["prefixes", "topics", "groups"] {
            assert_eq!(rows(&mut browser, id), json!(8), "{id}");
        }
        assert_eq!(
            browser.value("document.querySelector('#prefixes th').textContent"),
            json!(format!("{}#", prefix(PREFIXES - 1))),
            "the busiest are what is shown"
        );
        let fold = "document.getElementById('prefixes-fold')";
        assert_eq!(
            browser.value(&format!("{fold}.textContent")),
            json!("Show all 60")
        );
        browser.value(&format!("{fold}.click()"));
        assert_eq!(rows(&mut browser, "prefixes"), json!(PREFIXES));
        assert_eq!(
            rows(&mut browser, "topics"),
            json!(8),
            "each list by itself"
        );
        browser.value(&format!("{fold}.click()"));
        assert_eq!(rows(&mut browser, "prefixes"), json!(8));

        browser.until("document.getElementById('connections').value === '12345'");
        assert_eq!(
            browser.value(
                "[...document.querySelectorAll('nav a')].map((link) => new URL(link.href).pathname)"
            ),
            json!([
                "/chat/",
                "/iot/",
                "/dashboard/api/snapshot",
                "/dashboard/api/events",
                "/dashboard/status",
                "/api/status",
                "/metrics",
                "/health/ready",
                "/dashboard/docs/CONSUMERS.md",
                "/dashboard/docs/TOPICS.md",
                "/dashboard/docs/ENVELOPE.md",
                "/dashboard/docs/CONFIGURATION.md",
                "/dashboard/docs/OPERATIONS.md"
            ])
        );
        assert_eq!(browser.complaints, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_live_only_while_something_comes() {
    let mut site = site(4).await;
    let network = Network::before(site.address).await;
    site.address = network.address;
    let mut browser = open(&site, 1_280).await;
    // No tick comes; the beats alone keep it live, and the page says that the figures are old.
    browser = blocking(move || {
        browser.until(
            "document.getElementById('problems').innerText.includes('The figures stand still')",
        );
        state(&mut browser, "live");
        browser
    })
    .await;
    let news = tick(&site.shared.live.lock().expect("no panic"), now_ms());
    site.shared.tick.send_replace(news);
    browser = blocking(move || {
        browser.until("!document.getElementById('problems').innerText.includes('stand still')");
        state(&mut browser, "live");
        browser
    })
    .await;
    // The network swallows everything, and no connection is closed: only the silence says so.
    network.swallows.send_replace(true);
    browser = blocking(move || {
        state(&mut browser, "stale");
        browser.until("document.getElementById('state-text').textContent.includes('reconnecting')");
        browser.until("document.getElementById('problems').innerText.includes('The connection to the dashboard is lost')");
        browser
    })
    .await;
    network.swallows.send_replace(false);
    browser = blocking(move || {
        state(&mut browser, "live");
        browser
    })
    .await;
    // The dashboard ends: the streams are closed, and no new one lives long.
    site.stop.send_replace(true);
    blocking(move || {
        browser.until("document.getElementById('state').dataset.state !== 'live'");
    })
    .await;
}

/// A network in between, which passes everything on, or swallows it and says nothing.
struct Network {
    address: SocketAddr,
    swallows: watch::Sender<bool>,
}

impl Network {
    async fn before(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (swallows, swallowing) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut swallowing = swallowing.clone();
                tokio::spawn(async move {
                    let mut client = client;
                    let mut server = tokio::net::TcpStream::connect(server)
                        .await
                        .expect("connects");
                    let swallowed = tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                        swallows = swallowing.wait_for(|swallows| *swallows) => swallows.is_ok(),
                    };
                    // What was swallowed once never comes again: the connection stays open, and dead.
                    if swallowed {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, swallows }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_viewer_too_many_is_not_called_live() {
    let site = site(1).await;
    let mut first = open(&site, 800).await;
    first = blocking(move || {
        state(&mut first, "live");
        first
    })
    .await;
    let mut second = open(&site, 800).await;
    blocking(move || {
        state(&mut second, "polling");
        second.until("document.getElementById('state-text').textContent.startsWith('as of ')");
        second.until("document.getElementById('problems').innerText.includes('As many viewers watch live as are allowed')");
        state(&mut first, "live");
    })
    .await;
}
