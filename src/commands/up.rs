//! `millstream up`: broker, Kafka (in memory unless there is one), bridge and the three backends in one process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{MethodRouter, get};
use bridge::EmbeddedKafka;
use futures_util::future::join_all;
use runtime::http::ApiError;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::broker_node::{Bound, BrokerNode, http_address, listen_for_mqtt};
use super::{block_on, blocking, drain_backends, prepare};
use crate::admin::Admin;
use crate::backends::{ALL, Kind};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::demo::Demo;
use crate::exit::Failure;
use crate::files::Files;
use crate::http::{self, AdminGuard, Server};
use crate::memory::{self, Memory};
use crate::node::{Listen, Node};
use crate::reload::Reloader;
use crate::restart::keep_running;
use crate::screen::{self, Start, StatusLine};
use crate::signals::Shutdown;
use crate::{access, address, certificates, cli, log, signals, systemd};

/// How long the demo's last messages may take to arrive everywhere at a shutdown.
const DEMO_SETTLES: Duration = Duration::from_secs(5);
/// How often that is looked at.
const DEMO_LOOK: Duration = Duration::from_millis(50);
/// How long the bridge waits for the Kafka in memory, which leaves some of its questions without an answer.
const EMBEDDED_START_TIMEOUT_MS: u64 = 1_500;
/// How often rates are sampled.
const TICK: Duration = Duration::from_secs(1);
/// Thresholds that the demo's devices cross now and then, for a metric that has no rule of the operator's.
const DEMO_RULE: (&str, iot::Rule) = (
    "temperature",
    iot::Rule {
        above: Some(30.0),
        below: Some(14.0),
        hysteresis: 1.0,
    },
);

/// Runs everything until it is told to end.
///
/// # Errors
/// A start failure (an address, Kafka, the directory), or why a part stopped by itself.
pub fn run(options: cli::Up) -> Result<(), Failure> {
    let config = prepare(&options.common, "warn")?;
    let mut config = settle(&options, config)?;
    let http = http_address(options.http.as_deref(), &config)?;
    let data = options.data.clone();
    let data =
        data.or_else(|| (!config.up.data.is_empty()).then(|| PathBuf::from(&config.up.data)));
    let demo = options.demo;
    let load = move || {
        let config = Config::load(options.common.config.as_deref())?;
        settle(&options, config)
    };
    let reloader = Reloader::new(&config, load).with(log::Reload);
    let files = Files::raise()?;
    files.bound(&mut config.broker.limits);
    let memory = Memory::bound(&mut config.broker.limits);
    block_on(serve(config, files, memory, http, data, demo, reloader))
}

/// What the command line says on top of the configuration.
fn settle(options: &cli::Up, mut config: Config) -> Result<Config, Failure> {
    listen_for_mqtt(options.mqtt.as_deref(), &mut config)?;
    options.clients.tell(&mut config.broker.authentication);
    let of_section = options.kafka.is_none() && config.up.kafka == config.kafka.servers;
    if let Some(kafka) = &options.kafka {
        kafka.clone_into(&mut config.up.kafka);
    }
    // The section for all parts leaves each its own; the command line and `up.kafka` do not.
    if !config.up.kafka.is_empty() && !of_section {
        let kafka = config.up.kafka.clone();
        use_kafka(&mut config, &kafka);
    }
    let is_plain = |listener: &::broker::Listener| listener.transport == ::broker::Carrier::Tcp;
    if options.demo && !config.broker.all_listeners().iter().any(is_plain) {
        return Err(Failure::cannot_start(
            "the demo fleet speaks MQTT without TLS, and no listener does: add one with transport = \"tcp\" on 127.0.0.1",
        ));
    }
    if options.demo {
        let (metric, rule) = DEMO_RULE;
        config.iot.rules.entry(metric.to_owned()).or_insert(rule);
    }
    config.validate()?;
    Ok(config)
}

/// One Kafka for all parts.
fn use_kafka(config: &mut Config, kafka: &str) {
    kafka.clone_into(&mut config.bridge.kafka);
    for kind in ALL {
        kafka.clone_into(kind.settings(config).kafka);
    }
}

/// librdkafka's in-memory cluster lets the first member of a group wait three seconds for others, but not one that joins by
/// the newer protocol.
fn join_at_once(config: &mut Config) {
    for kind in ALL {
        let properties = &mut kind.settings(config).consumer.properties;
        properties.insert_default("group.protocol", "consumer");
    }
}

async fn serve(
    mut config: Config,
    files: Files,
    memory: Memory,
    http: SocketAddr,
    data: Option<PathBuf>,
    demo: bool,
    mut reloader: Reloader,
) -> Result<(), Failure> {
    let mut shutdown = signals::listen().context("cannot listen for signals")?;
    // First what is quickly refused: addresses and the directory.
    let listener = address::listen("--http", http)?;
    let bound = Bound::bind(&config)?;
    let in_memory = config.up.kafka.is_empty();
    let data = DataDir::open(data.as_deref(), in_memory)?;
    data.place(&mut config);

    let embedded = in_memory.then(|| embedded(&config)).transpose()?;
    if let Some(embedded) = &embedded {
        use_kafka(&mut config, embedded.bootstrap());
        join_at_once(&mut config);
        let timeout = &mut config.bridge.start_timeout_ms;
        *timeout = EMBEDDED_START_TIMEOUT_MS.min(*timeout);
    }
    let bridge = config.bridge.clone();
    let broker = blocking(move || bound.start(Some(&bridge))).await??;
    let listen = Listen {
        mqtt: Some(broker.mqtt()),
        http: listener.local_addr().ok(),
        kafka: Some(config.bridge.kafka.clone()),
        kafka_in_memory: in_memory,
    };
    let mut node = Node::new("up", listen)
        .with_broker(broker.handle().clone())
        .with_restarts();
    if let Some(bridge) = broker.bridge() {
        node = node.with_bridge(move || bridge.status());
    }
    tokio::spawn(memory::watch(broker.handle().clone()));
    tokio::spawn(certificates::watch(broker.handle().clone()));
    let node = Arc::new(node);
    tokio::spawn(systemd::watchdog(node.clone(), broker.handle().clone()));
    reloader.add(broker.reloadable());
    reloader.add(certificates::Reload(broker.handle().clone()));
    let reloader = Arc::new(reloader);
    signals::reload_on_hangup(Arc::clone(&reloader)).context("cannot listen for SIGHUP")?;
    let gate = AdminGuard::new(&config.http, http.ip());
    if gate.is_shut() {
        tracing::warn!("ctl, the operators' API: {}", gate.in_words());
    }
    let admin = Admin::new(broker.handle().clone(), node.clone(), reloader);
    let mut running = Running {
        node: node.clone(),
        broker,
        admin: http::admin_routes(admin, gate),
        server: None,
        keepers: JoinSet::new(),
    };
    let started = running.start(&config, listener, demo).await;
    if started.is_ok() {
        let connections = files.in_words(config.broker.limits.connections_max);
        let room = format!("{connections}, {}", memory.in_words());
        print_start(
            &running,
            &config,
            room,
            &data.in_words(in_memory),
            in_memory,
        );
    }
    if started.is_ok() {
        systemd::ready();
    }
    let ended = match started {
        Ok(()) => live(&node, &mut shutdown).await,
        Err(failure) => Err(failure),
    };
    running.drain().await;
    // What the parts still need at their end goes last.
    drop(embedded);
    drop(data);
    ended
}

/// The Kafka in memory, with every topic that the parts use: it cannot make topics on request.
fn embedded(config: &Config) -> Result<EmbeddedKafka, Failure> {
    let mut topics: BTreeSet<String> = ALL
        .iter()
        .flat_map(|kind| kind.kafka_topics(config))
        .collect();
    topics.extend(config.bridge.kafka_topics().into_iter().map(str::to_owned));
    EmbeddedKafka::start(topics.iter().map(String::as_str), config.bridge.partitions)
        .map_err(Failure::cannot_start)
}

/// Leads to the backend below `name`.
fn to(name: &'static str) -> MethodRouter {
    get(move || std::future::ready(Redirect::to(&format!("{name}/"))))
}

/// The HTTP API of whichever backend of this kind is there now.
fn served(kind: Kind, node: &Arc<Node>) -> Router {
    let node = Arc::clone(node);
    Router::new().fallback(move |request: Request| async move {
        match node.router(kind) {
            Some(router) => router.oneshot(request).await.into_response(),
            None => {
                let message = format!(
                    "the {} backend is started again; try again later",
                    kind.name()
                );
                ApiError::unavailable(message).into_response()
            }
        }
    })
}

/// The parts, in the order in which they are drained from the front.
struct Running {
    node: Arc<Node>,
    broker: BrokerNode,
    /// The operators' API.
    admin: Router,
    server: Option<Server>,
    /// What keeps the backends at work.
    keepers: JoinSet<()>,
}

impl Running {
    /// Starts what needs the broker and Kafka: backends, HTTP, demo.
    async fn start(
        &mut self,
        config: &Config,
        listener: std::net::TcpListener,
        demo: bool,
    ) -> Result<(), Failure> {
        let mut router = Router::new().route("/", to(Kind::Dashboard.name()));
        // Side by side: each waits for Kafka's answers. When one fails, the others are there to be drained.
        let mut failed = None;
        for backend in join_all(ALL.map(|kind| kind.start(config))).await {
            let backend = match backend {
                Ok(backend) => backend,
                Err(failure) => {
                    failed.get_or_insert(failure);
                    continue;
                }
            };
            self.node.add_backend(backend);
        }
        for kind in ALL {
            let name = kind.name();
            // With the slash, so that relative links of its pages lead below it.
            router = router
                .nest(&format!("/{name}/"), served(kind, &self.node))
                .route(&format!("/{name}"), to(name));
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        let shared = Arc::new(config.clone());
        for kind in ALL {
            let keeper = keep_running(kind, Arc::clone(&self.node), Arc::clone(&shared));
            self.keepers.spawn(keeper);
        }
        router = router
            .merge(http::operator_routes(self.node.clone()))
            .merge(std::mem::take(&mut self.admin));
        let server = Server::start(listener, router, &config.http).context("cannot serve HTTP")?;
        if demo {
            let iot = format!("http://{}/iot", reachable(server.address()));
            self.node.add_demo(Demo::start(
                config.demo.clone(),
                reachable(self.broker.mqtt()),
                iot,
            ));
        }
        self.server = Some(server);
        Ok(())
    }

    /// The drain: nobody new, then what was accepted is stored and delivered, then the backends finish.
    async fn drain(mut self) {
        self.node.drain();
        systemd::stopping();
        // Nothing is started any more.
        self.keepers.shutdown().await;
        if let Some(demo) = self.node.take_demo() {
            farewell(demo, self.node.kafka_is_away()).await;
        }
        self.broker.shutdown().await;
        drain_backends(self.node.take_backends()).await;
        if let Some(server) = self.server {
            server.shutdown().await;
        }
    }
}

/// An address to connect to for one that is listened on: the unspecified one means every address of this machine.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Runs until the end is asked for, or a part stops by itself.
async fn live(node: &Node, shutdown: &mut Shutdown) -> Result<(), Failure> {
    let mut line = StatusLine::new();
    let mut ticks = tokio::time::interval(TICK);
    let mut shows = tokio::time::interval(line.interval());
    let ended = loop {
        tokio::select! {
            () = signals::asked(shutdown) => break Ok(()),
            why = node.failed() => break Err(Failure::Failed(anyhow::anyhow!(why))),
            _ = ticks.tick() => node.tick(),
            _ = shows.tick() => line.show(node.numbers(), Instant::now()),
        }
    };
    line.finish();
    ended
}

fn print_start(running: &Running, config: &Config, room: String, data: &str, in_memory: bool) {
    let Some(server) = &running.server else {
        return;
    };
    let demo = running.node.with_demo(Demo::status).map(|demo| {
        format!(
            "{} clients in {} rooms and {} devices; each message is numbered and followed",
            demo.clients, demo.rooms, demo.devices
        )
    });
    let chat = config.chat.topics.first();
    let start = Start {
        mqtt: reachable(running.broker.mqtt()),
        listeners: screen::listeners(&running.broker.handle().listeners()),
        room,
        access: access::in_words(&config.broker.access),
        http: reachable(server.address()),
        kafka: &config.bridge.kafka,
        in_memory,
        data,
        demo,
        topic: chat.map_or("chat.messages", String::as_str),
    };
    print!("{start}");
}

/// The fleet falls silent, its last messages arrive, it leaves, and what it saw is told.
async fn farewell(demo: Demo, kafka_is_away: bool) {
    demo.be_quiet();
    // What waits for Kafka does not settle now.
    let patience = if kafka_is_away {
        Duration::ZERO
    } else {
        DEMO_SETTLES
    };
    let deadline = Instant::now() + patience;
    while !demo.is_settled() && Instant::now() < deadline {
        tokio::time::sleep(DEMO_LOOK).await;
    }
    let totals = demo.end().await.totals;
    println!(
        "demo: {} messages published, {} acknowledged, {} arrived everywhere, {} still under way, lost = {}, {} duplicates, {} out of order",
        totals.published,
        totals.acknowledged,
        totals.complete,
        totals.pending,
        totals.lost,
        totals.duplicates,
        totals.out_of_order
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_connects_to_what_is_listened_on() {
        for (listening, address) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), address);
        }
    }

    #[test]
    fn one_kafka_is_for_all_parts() {
        let mut config = Config::default();
        use_kafka(&mut config, "k:1");
        for kafka in [
            &config.bridge.kafka,
            &config.chat.kafka,
            &config.iot.kafka,
            &config.dashboard.kafka,
        ] {
            assert_eq!(kafka, "k:1");
        }
    }
}
