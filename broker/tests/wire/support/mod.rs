//! What the tests are written with: a broker on a port of its own ([`Server`]), programs ([`process`]), and a client
//! that sees that the others go on ([`Bystander`]).

pub mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Action, Broker, Config, Effect, Handle, NoSink, Rule, Running, Sink, Stats};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};

/// How long something expected may take, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often something that cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `done` gives something.
///
/// # Panics
/// When it has not within [`DEADLINE`]; `otherwise` says what there is instead.
pub fn poll<T>(mut done: impl FnMut() -> Option<T>, otherwise: impl FnOnce() -> String) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        if Instant::now() > until {
            panic!("{}", otherwise());
        }
        std::thread::sleep(LOOK);
    }
}

/// A broker that stores nothing, on a port that the system chose. It ends with the test, which then has lost nothing.
#[derive(Debug)]
pub struct Server {
    running: Option<Running>,
    handle: Handle,
    pub port: u16,
}

impl Server {
    pub fn start() -> Self {
        Self::with(|_| ())
    }

    /// A broker with a changed configuration.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_sink(Arc::new(NoSink), change)
    }

    /// A broker with a sink and a changed configuration.
    pub fn with_sink(sink: Arc<dyn Sink>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: "127.0.0.1:0".to_owned(),
            workers: 2,
            sys_interval_s: 0,
            ..Config::default()
        };
        // Some tests leave clients behind that never read.
        config.limits.drain_timeout_ms = 200;
        change(&mut config);
        let broker = Broker::bind(config).expect("the system has a port");
        let running = broker.start(sink).expect("workers start");
        Self {
            handle: running.handle(),
            port: running.local_addr().port(),
            running: Some(running),
        }
    }

    /// A broker that lets nobody subscribe to `filter`.
    pub fn with_denied(filter: &str) -> Self {
        Self::with(|config| {
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Subscribe,
                filter: filter.to_owned(),
                client: "*".to_owned(),
                ..Rule::default()
            }];
        })
    }

    /// Waits until the counters are as `wanted` wants them. A worker shows its counters one by one, at the end of its
    /// turn: ask for all that should hold at once.
    pub fn until(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        poll(
            || Some(self.handle.stats()).filter(&wanted),
            || format!("still not {what}: {:#?}", self.handle.stats()),
        );
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// What each listener does.
    pub fn listeners(&self) -> Vec<broker::ListenerStatus> {
        self.handle.listeners()
    }

    /// Waits until so many subscriptions are in force.
    pub fn until_subscribed(&self, subscriptions: u64) {
        self.until(&format!("{subscriptions} subscriptions"), |stats| {
            stats.subscriptions == subscriptions
        });
    }

    /// Tells the workers that the sink has room again.
    pub fn sink_ready(&self) {
        self.handle.sink_ready();
    }

    /// The way in that other threads have.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the broker now: its last counters.
    pub fn stop(&mut self) -> Stats {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
        self.handle.stats()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stats = self.stop();
        if !std::thread::panicking() {
            assert_eq!(stats.unaccounted(), 0, "{stats:#?}");
        }
    }
}

/// A client that others' bad behaviour must not reach: it publishes to itself.
pub struct Bystander {
    client: Client,
    connection: Connection,
    rounds: u32,
}

impl Bystander {
    pub fn new(server: &Server) -> Self {
        let options = MqttOptions::new("bystander", "127.0.0.1", server.port);
        let (client, connection) = Client::new(options, 10);
        client.subscribe("bystander", QoS::AtLeastOnce).unwrap();
        let mut bystander = Self {
            client,
            connection,
            rounds: 0,
        };
        bystander.goes_on();
        bystander
    }

    /// Publishes once more and gets it.
    ///
    /// # Panics
    /// When the connection was lost meanwhile, or nothing comes.
    pub fn goes_on(&mut self) {
        self.rounds += 1;
        let sent = self.rounds.to_string();
        self.client
            .publish("bystander", QoS::AtLeastOnce, false, sent.as_str())
            .unwrap();
        loop {
            let event = self.connection.recv_timeout(DEADLINE);
            match event.expect("in time").expect("connected") {
                Event::Incoming(Packet::Publish(publish)) => {
                    assert_eq!(publish.payload, sent);
                    return;
                }
                Event::Incoming(Packet::ConnAck(_)) => {
                    assert_eq!(self.rounds, 1, "connected again")
                }
                _ => {}
            }
        }
    }
}
