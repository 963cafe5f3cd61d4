//! `millstream broker`: one MQTT node, with the bridge in it when there is a Kafka.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::routing::get;

use super::broker_node::{Bound, http_address, listen_for_mqtt};
use super::{block_on, blocking, prepare};
use crate::admin::Admin;
use crate::config::Config;
use crate::exit::Failure;
use crate::files::Files;
use crate::http::{self, AdminGuard, Server};
use crate::memory::{self, Memory};
use crate::node::{Listen, Node};
use crate::reload::Reloader;
use crate::screen;
use crate::{access, address, certificates, cli, log, signals, systemd};

/// How often rates are sampled.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// What `/` answers: where to look.
const INDEX: &str = "\
millstream broker

/health        200 when this node can do its work
/api/status    everything it knows of itself, as JSON
/metrics       the same as numbers, for Prometheus
/api/admin/    what operators do; millstream ctl does it, /api/openapi.json describes it
";

/// Runs the node until it is told to end.
///
/// # Errors
/// A start failure: an address, or Kafka.
pub fn run(options: cli::Broker) -> Result<(), Failure> {
    let config = prepare(&options.common, "info")?;
    let mut config = settle(&options, config)?;
    let http = http_address(options.http.as_deref(), &config)?;
    let with_bridge = options.kafka.is_some();
    let load = move || {
        let config = Config::load(options.common.config.as_deref())?;
        settle(&options, config)
    };
    let reloader = Reloader::new(&config, load).with(log::Reload);
    let access = access::in_words(&config.broker.access);
    let files = Files::raise()?;
    let room = files.in_words(files.bound(&mut config.broker.limits));
    let memory = Memory::bound(&mut config.broker.limits).in_words();
    block_on(serve(
        config,
        room,
        memory,
        access,
        http,
        with_bridge,
        reloader,
    ))
}

/// What the command line says on top of the configuration.
fn settle(options: &cli::Broker, mut config: Config) -> Result<Config, Failure> {
    listen_for_mqtt(options.mqtt.as_deref(), &mut config)?;
    options.clients.tell(&mut config.broker.authentication);
    if let Some(kafka) = &options.kafka {
        kafka.clone_into(&mut config.bridge.kafka);
    }
    config.validate()?;
    Ok(config)
}

async fn serve(
    config: Config,
    room: String,
    memory: String,
    access: String,
    http: SocketAddr,
    with_bridge: bool,
    mut reloader: Reloader,
) -> Result<(), Failure> {
    let mut shutdown = signals::listen().context("cannot listen for signals")?;
    let listener = address::listen("--http", http)?;
    let bound = Bound::bind(&config)?;
    let kafka = with_bridge.then(|| config.bridge.kafka.clone());
    let broker = blocking(move || bound.start(with_bridge.then_some(&config.bridge))).await??;

    let listen = Listen {
        mqtt: Some(broker.mqtt()),
        http: listener.local_addr().ok(),
        kafka,
        kafka_in_memory: false,
    };
    let mut node = Node::new("broker", listen.clone()).with_broker(broker.handle().clone());
    if let Some(bridge) = broker.bridge() {
        node = node.with_bridge(move || bridge.status());
    }
    tokio::spawn(memory::watch(broker.handle().clone()));
    tokio::spawn(certificates::watch(broker.handle().clone()));
    let node = Arc::new(node);
    tokio::spawn(systemd::watchdog(node.clone(), broker.handle().clone()));
    let router = Router::new().route("/", get(|| std::future::ready(INDEX)));
    reloader.add(broker.reloadable());
    reloader.add(certificates::Reload(broker.handle().clone()));
    let reloader = Arc::new(reloader);
    signals::reload_on_hangup(Arc::clone(&reloader)).context("cannot listen for SIGHUP")?;
    let gate = AdminGuard::new(&config.http, http.ip());
    let operators = gate.in_words();
    let admin = Admin::new(broker.handle().clone(), node.clone(), reloader);
    let router = router
        .merge(http::operator_routes(node.clone()))
        .merge(http::admin_routes(admin, gate));
    let server = Server::start(listener, router, &config.http).context("cannot serve HTTP")?;
    println!(
        "millstream broker: MQTT {} for up to {room}, http://{}/, {}",
        broker.mqtt(),
        server.address(),
        listen
            .kafka
            .map_or_else(|| "without Kafka".into(), |kafka| format!("Kafka {kafka}"))
    );
    for listener in screen::listeners(&broker.handle().listeners()) {
        println!("millstream broker: {listener}");
    }
    println!("millstream broker: {memory}");
    println!("millstream broker: access: {access}");
    println!("millstream broker: ctl: {operators}");

    systemd::ready();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = signals::asked(&mut shutdown) => break,
            _ = ticks.tick() => node.tick(),
        }
    }
    node.drain();
    systemd::stopping();
    broker.shutdown().await;
    server.shutdown().await;
    Ok(())
}
