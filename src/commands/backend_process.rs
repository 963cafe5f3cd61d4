//! `millstream chat`, `iot`, `dashboard`: a backend as a process of its own.

use std::sync::Arc;

use runtime::http::operator_routes;

use super::{block_on, drain_backends, prepare};
use crate::backends::Command;
use crate::exit::Failure;
use crate::files::Files;
use crate::http::{self, Server};
use crate::node::{Listen, Node};
use crate::{address, metrics, signals};

/// Runs a backend until it is told to end, or its consumer stops by itself.
///
/// # Errors
/// A start failure (address, Kafka, database), or why the consumer stopped.
pub fn run(command: Command) -> Result<(), Failure> {
    let (kind, options) = command.into_parts();
    let mut config = prepare(&options.common, "info")?;
    let settings = kind.settings(&mut config);
    for (setting, option) in [
        (settings.kafka, options.kafka),
        (settings.group, options.group),
        (settings.database, options.database),
    ] {
        if let Some(option) = option {
            *setting = option;
        }
    }
    config.validate()?;
    Files::raise()?;
    let http = match &options.http {
        Some(text) => address::resolve("--http", text)?,
        None => address::resolve(&format!("http.{}", kind.name()), kind.http(&config))?,
    };
    block_on(async move {
        let mut shutdown = signals::listen().map_err(anyhow::Error::from)?;
        let listener = address::listen("--http", http)?;
        let backend = kind.start(&config).await?;
        let bounds = config.http.clone();
        let settings = kind.settings(&mut config);
        let listen = Listen {
            http: listener.local_addr().ok(),
            kafka: Some(settings.kafka.clone()),
            ..Listen::default()
        };
        let node = Arc::new(Node::new(kind.name(), listen));
        let (router, registry) = (backend.running.router(), backend.running.registry().clone());
        metrics::process(&registry).map_err(anyhow::Error::from)?;
        node.add_backend(backend);
        let of_consumer = node.clone();
        let operators = operator_routes(move || of_consumer.consumer(), registry);
        let router = http::common_routes(node.clone())
            .merge(operators)
            .fallback_service(router);
        let server = Server::start(listener, router, &bounds).map_err(anyhow::Error::from)?;
        println!(
            "millstream {}: http://{}/, Kafka {}, group {}, database {}",
            kind.name(),
            server.address(),
            settings.kafka,
            settings.group,
            settings.database
        );

        let ended = tokio::select! {
            () = signals::asked(&mut shutdown) => Ok(()),
            why = node.failed() => Err(Failure::Failed(anyhow::anyhow!(why))),
        };
        node.drain();
        drain_backends(node.take_backends()).await;
        server.shutdown().await;
        ended
    })
}
