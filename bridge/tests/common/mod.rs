//! What the tests of this crate share: a node (a real broker with the bridge in it), a real Kafka, a small MQTT client
//! that shows every packet, and readers and writers of Kafka topics.
#![allow(dead_code, reason = "each test takes from this what it needs")]

pub mod log;
pub mod mqtt;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bridge::{Bridge, Config, RouteConfig, StartError, Status};
use broker::{Broker, Running, Stats};
pub use testkit::unique;

/// How long a test waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; `what` says what was expected when it does not in time.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration with names of its own: everything but `rooms/+/typing` is stored in one topic.
pub fn config(kafka: &str) -> Config {
    let mut config = Config {
        kafka: kafka.to_owned(),
        node: unique("node"),
        routes: vec![
            RouteConfig::not_stored("rooms/+/typing"),
            RouteConfig::new("#", &unique("messages")),
        ],
        partitions: 3,
        start_timeout_ms: 20_000,
        ..Config::default()
    };
    config.downlink.topic = unique("downlink");
    config.downlink.dead_letter_topic = format!("{}.dlq", config.downlink.topic);
    config.downlink.reports_topic = format!("{}.reports", config.downlink.topic);
    config
}

/// The Kafka topic in which [`config`] stores.
pub fn stored_in(config: &Config) -> &str {
    &config.routes.last().expect("there are two routes").topic
}

/// A broker node on a port of its own.
pub struct Node {
    pub address: SocketAddr,
    bridge: Option<Bridge>,
    running: Option<Running>,
}

impl Node {
    pub fn start(config: &Config) -> Self {
        Self::try_start(config).expect("the node starts")
    }

    pub fn try_start(config: &Config) -> Result<Self, StartError> {
        let settings = broker::Config {
            listen: "127.0.0.1:0".to_owned(),
            workers: 2,
            sys_interval_s: 0,
            limits: broker::Limits {
                drain_timeout_ms: 2_000,
                ..broker::Limits::default()
            },
            ..broker::Config::default()
        };
        let broker = Broker::bind(settings).expect("the broker binds");
        let bridge = Bridge::start(config, broker.handle())?;
        let address = broker.local_addr();
        let running = broker.start(bridge.sink()).expect("the broker starts");
        Ok(Self {
            address,
            bridge: Some(bridge),
            running: Some(running),
        })
    }

    pub fn status(&self) -> Status {
        self.bridge.as_ref().expect("it runs").status()
    }

    /// The broker's counters.
    pub fn counters(&self) -> Stats {
        self.running.as_ref().expect("it runs").handle().stats()
    }

    /// Ends the node as SIGTERM would. Returns how many messages Kafka had not confirmed.
    pub fn stop(self) -> u64 {
        self.stop_within(DEADLINE)
    }

    /// The same, with less patience for Kafka.
    pub fn stop_within(mut self, patience: Duration) -> u64 {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> u64 {
        let Some(mut bridge) = self.bridge.take() else {
            return 0;
        };
        bridge.stop_downlink();
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
        bridge.shutdown(patience)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
