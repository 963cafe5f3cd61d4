//! A broker node inside a process: the MQTT tier, and the bridge when there is a Kafka. `up` and `broker` run one each.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::broker::{Broker, Handle, NoSink, Running, Sink};
use anyhow::Context;
use bridge::Bridge;

use super::leave::leave;
use super::{KAFKA_AWAY_DRAIN, blocking, within};
use crate::config::Config;
use crate::exit::{self, Failure};
use crate::reload::{Change, Reloadable};
use crate::{access, address};

/// What a step of the drain may take beyond its own bound, before it is left behind.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Puts into the configuration what the command line says of where MQTT clients connect.
///
/// # Errors
/// A start failure for what is no address, or is said in two ways.
pub fn listen_for_mqtt(option: Option<&str>, config: &mut Config) -> Result<(), Failure> {
    if !config.broker.listeners.is_empty() && option.is_some() {
        return Err(Failure::cannot_start(
            "--mqtt is the short form of one listener, and the configuration has [[broker.listeners]]: say there where \
             clients connect",
        ));
    }
    let address = match option {
        Some(text) => address::resolve("--mqtt", text)?,
        None => address::resolve("broker.listen", &config.broker.listen)?,
    };
    config.broker.listen = address.to_string();
    Ok(())
}

/// Where HTTP is served: the option, else the configuration.
///
/// # Errors
/// A start failure for what is no address.
pub fn http_address(option: Option<&str>, config: &Config) -> Result<SocketAddr, Failure> {
    match option {
        Some(text) => address::resolve("--http", text),
        None => address::resolve("http.broker", &config.http.broker),
    }
}

/// Access rules, bounds, and the files that clients are known by, which can change while the broker runs.
struct Reload {
    handle: Handle,
    /// What it runs with.
    running: Mutex<::broker::Config>,
}

impl Reload {
    fn drain(&self) -> ::broker::Drain {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.drain.clone()
    }
}

impl Reloadable for Arc<Reload> {
    fn keys(&self) -> Vec<String> {
        let limits = ::broker::Limits::AT_RUN_TIME.iter();
        let mut keys: Vec<String> = limits.map(|name| format!("broker.limits.{name}")).collect();
        let more = ["broker.access", "broker.assign_client_ids", "broker.drain"];
        keys.extend(more.map(str::to_owned));
        keys
    }

    fn prepare(&self, new: &Config) -> Result<Change, String> {
        self.handle.check_reload()?;
        // It was checked as a whole when it was read.
        let (this, new) = (Arc::clone(self), new.broker.clone());
        let apply = move || {
            let mut running = this.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = this.handle.reconfigure(&mut running, &new) {
                tracing::error!(%error, "the broker's configuration was not taken over");
            }
            this.handle.reload();
        };
        Ok(Change {
            what: Vec::new(),
            apply: Box::new(apply),
        })
    }
}

/// Bound, and not at work yet.
pub struct Bound {
    broker: Broker,
    config: ::broker::Config,
    mqtt: SocketAddr,
    drain: Duration,
}

/// At work.
pub struct BrokerNode {
    running: Running,
    reload: Arc<Reload>,
    bridge: Option<SharedBridge>,
    handle: Handle,
    mqtt: SocketAddr,
    drain: Duration,
}

/// The bridge, for whoever asks for its status and for the one who ends it.
#[derive(Clone)]
pub struct SharedBridge(Arc<Shared>);

struct Shared {
    /// Locked for as long as the end of the bridge takes; nobody waits for it to ask for a status.
    bridge: Mutex<Option<Bridge>>,
    last: Mutex<bridge::Status>,
}

impl SharedBridge {
    fn new(bridge: Bridge) -> Self {
        let last = Mutex::new(bridge.status());
        let bridge = Mutex::new(Some(bridge));
        Self(Arc::new(Shared { bridge, last }))
    }

    /// What it says of itself: now, or last before its end.
    pub fn status(&self) -> bridge::Status {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(bridge) = self.0.bridge.try_lock()
            && let Some(bridge) = &*bridge
        {
            *last = bridge.status();
        }
        last.clone()
    }

    fn is_kafka_away(&self) -> bool {
        !self.status().kafka.answers()
    }

    /// See [`Bridge::stop_downlink`].
    fn stop_downlink(&self) {
        let mut bridge = self.0.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bridge) = &mut *bridge {
            bridge.stop_downlink();
        }
    }

    /// See [`Bridge::shutdown`]. `None` when the end of its downlink still has it.
    fn shutdown(&self, patience: Duration) -> Option<u64> {
        let bridge = self.0.bridge.try_lock().ok()?.take()?;
        let mut last = bridge.status();
        let unconfirmed = bridge.shutdown(patience);
        last.waiting = unconfirmed;
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Some(unconfirmed)
    }
}

impl Bound {
    /// Takes the MQTT address of `config`.
    ///
    /// # Errors
    /// A start failure when it cannot be had.
    pub fn bind(config: &Config) -> Result<Self, Failure> {
        let broker = Broker::bind(config.broker.clone()).map_err(|error| match &error {
            ::broker::StartError::Listen {
                name,
                address,
                source,
            } if name == ::broker::SHORT_FORM => match address.parse() {
                Ok(at) => address::cannot_listen("--mqtt", at, source),
                Err(_) => Failure::cannot_start(error),
            },
            ::broker::StartError::Config(error) => {
                Failure::cannot_start(error.clone().below("broker"))
            }
            _ => Failure::cannot_start(error),
        })?;
        let broker = broker.on_death(exit::thread_died);
        let mqtt = broker.local_addr();
        for warning in access::warnings(&config.broker) {
            tracing::warn!("{warning}");
        }
        let drain = Duration::from_millis(config.broker.limits.drain_timeout_ms);
        Ok(Self {
            broker,
            config: config.broker.clone(),
            mqtt,
            drain,
        })
    }

    /// Starts the workers, and before them the bridge: `config` is its part when publishes are to be stored.
    ///
    /// # Errors
    /// A start failure when Kafka cannot be used.
    pub fn start(self, config: Option<&bridge::Config>) -> Result<BrokerNode, Failure> {
        let handle = self.broker.handle();
        let (bridge, sink): (_, Arc<dyn Sink>) = match config {
            None => (None, Arc::new(NoSink)),
            Some(config) => {
                let bridge =
                    Bridge::start(config, handle.clone()).map_err(Failure::cannot_start)?;
                let sink = bridge.sink();
                (Some(SharedBridge::new(bridge)), sink)
            }
        };
        let running = self
            .broker
            .start(sink)
            .context("cannot start the broker's workers")?;
        let reload = Arc::new(Reload {
            handle: handle.clone(),
            running: Mutex::new(self.config),
        });
        Ok(BrokerNode {
            running,
            reload,
            bridge,
            handle,
            mqtt: self.mqtt,
            drain: self.drain,
        })
    }
}

impl BrokerNode {
    /// Where MQTT clients connect.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// What can change while the broker runs.
    pub fn reloadable(&self) -> impl Reloadable + use<> {
        Arc::clone(&self.reload)
    }

    /// The way into the broker.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The bridge, when there is one.
    pub fn bridge(&self) -> Option<SharedBridge> {
        self.bridge.clone()
    }

    /// First what brings new work, then the clients, then what they wait for. Takes no new clients, waits until
    /// accepted publishes are stored and outboxes are empty, then flushes and ends the bridge. Each step has
    /// `broker.limits.drain_timeout_ms`, and a little for itself.
    pub async fn shutdown(self) {
        // As a reload may have changed it.
        leave(&self.handle, &self.reload.drain()).await;
        let limit = self.drain + DRAIN_MARGIN;
        if let Some(bridge) = self.bridge.clone() {
            let limit = if bridge.is_kafka_away() {
                KAFKA_AWAY_DRAIN
            } else {
                limit
            };
            let step = blocking(move || bridge.stop_downlink());
            within(limit, "the downlink to stop", step).await;
        }
        let running = self.running;
        within(
            limit,
            "the broker to drain",
            blocking(move || running.shutdown()),
        )
        .await;
        let Some(bridge) = self.bridge else {
            return;
        };
        // Without a Kafka there is nothing to wait for: what it did not confirm was not acknowledged.
        let reachable = bridge.status().kafka.answers();
        let patience = if reachable {
            self.drain
        } else {
            Duration::ZERO
        };
        let step = blocking(move || bridge.shutdown(patience));
        let unconfirmed = within(limit, "the bridge to flush", step).await;
        if let Some(Ok(Some(unconfirmed @ 1..))) = unconfirmed {
            tracing::warn!(
                unconfirmed,
                "Kafka did not confirm all messages in time; their publishers were told nothing and will send again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;

    use ::broker::{Incoming, Token, Verdict};

    use super::*;

    const CHILD: &str = "commands::broker_node::tests::a_node_whose_sink_panics";

    struct Trap;

    impl Sink for Trap {
        fn accept(&self, _: &Incoming<'_>, _: Token) -> Verdict {
            panic!("a trap of this test");
        }
    }

    /// The process of the test below: a node as it is in the binary, but for the sink.
    #[test]
    #[ignore = "it ends its process: run by a_dead_worker_ends_the_process_with_a_line_and_its_exit_code"]
    fn a_node_whose_sink_panics() {
        let mut config = Config::default();
        config.broker.listen = "127.0.0.1:0".to_owned();
        config.broker.workers = 3;
        let bound = Bound::bind(&config).expect("an address");
        let _running = bound.broker.start(Arc::new(Trap)).expect("workers");
        let mut client = TcpStream::connect(bound.mqtt).expect("a connection");
        let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c";
        let publish = b"\x30\x04\0\x01tx";
        client
            .write_all(&[&connect[..], publish].concat())
            .expect("written");
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers);
        // Its connections end before the process does.
        std::thread::sleep(Duration::from_secs(60));
        panic!("the process goes on without its worker");
    }

    #[test]
    fn a_dead_worker_ends_the_process_with_a_line_and_its_exit_code() {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .output()
            .expect("the same test, once more");
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(
            child.status.code(),
            Some(i32::from(exit::EXIT_THREAD_DIED)),
            "{said}"
        );
        let line = said.lines().find(|line| line.starts_with("millstream: "));
        let line = line.expect("a line says why");
        assert!(line.starts_with("millstream: the thread mqtt-"), "{line}");
        assert!(
            line.contains("died: it panicked: a trap of this test;"),
            "{line}"
        );
    }
}
