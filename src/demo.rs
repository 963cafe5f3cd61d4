//! `up --demo`: a small fleet of real MQTT clients over loopback, and a ledger that follows every message of theirs.
//!
//! It is a demonstration that cannot flatter: the clients are an independent library's, each message has a number,
//! and `lost` counts what was acknowledged and did not arrive. It is no load generator.

mod client;
mod devices;
mod ledger;
mod operator;
mod rooms;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use ledger::Totals;
use ledger::{EFFECTS_MAX, Ledger};

/// Rooms that the demo may have.
const ROOMS_MAX: usize = 1_000;
/// Talkers that one room may have: each is an effect of a message, and the receipt is one more.
const TALKERS_PER_ROOM_MAX: u32 = EFFECTS_MAX - 1;
/// Devices that the demo may have.
const DEVICES_MAX: usize = 5_000;
/// Longest interval of the demo.
const INTERVAL_MS_MAX: u64 = 3_600_000;

settings::section! {
    /// The `[demo]` section: how big the fleet is.
    pub struct Config {
        /// Chat rooms of the demo fleet.
        pub rooms: usize = 4, [..=ROOMS_MAX, "rooms"];
        /// Users in each room; each one talks, and reads all others.
        pub talkers_per_room: u32 = 5, [1..=TALKERS_PER_ROOM_MAX, "users"];
        /// Time between two messages of one talker.
        pub message_interval_ms: u64 = 2_000, [1..=INTERVAL_MS_MAX, "milliseconds"];
        /// Devices of the demo fleet; each reports temperature and humidity.
        pub devices: usize = 20, [..=DEVICES_MAX, "devices"];
        /// Time between two measurements of one device.
        pub device_interval_ms: u64 = 1_000, [1..=INTERVAL_MS_MAX, "milliseconds"];
        /// Time between two commands that the demo's operator gives.
        pub command_interval_ms: u64 = 3_000, [1..=INTERVAL_MS_MAX, "milliseconds"];
        /// A message of the fleet counts as lost when it did not arrive everywhere this long after its acknowledgement.
        /// The clock stands still while Kafka is unreachable.
        pub lost_after_ms: u64 = 15_000, [1..=INTERVAL_MS_MAX, "milliseconds"];
    }
}

impl Config {
    fn message_interval(&self) -> Duration {
        Duration::from_millis(self.message_interval_ms)
    }

    fn device_interval(&self) -> Duration {
        Duration::from_millis(self.device_interval_ms)
    }

    fn command_interval(&self) -> Duration {
        Duration::from_millis(self.command_interval_ms)
    }
}

/// What the demo says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Status {
    /// Clients of the fleet.
    pub clients: usize,
    /// … of these, connected now.
    pub clients_connected: usize,
    /// Rooms.
    pub rooms: usize,
    /// Devices.
    pub devices: usize,
    /// Alerts that devices heard.
    pub alerts: u64,
    /// Milliseconds after its acknowledgement in which a message must have arrived everywhere.
    pub lost_after_ms: u64,
    /// The ledger's numbers.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The demo at work.
pub struct Demo {
    fleet: Arc<Fleet>,
    end: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What all clients of the fleet share.
struct Fleet {
    config: Config,
    mqtt: SocketAddr,
    /// Base of the IoT backend's HTTP API.
    iot: String,
    ledger: Ledger,
    /// Tells messages of this run from those of earlier ones, which a real Kafka still delivers receipts for.
    run: u64,
    clients: usize,
    online: Arc<AtomicUsize>,
    ready: AtomicUsize,
    quiet: AtomicBool,
    alerts: AtomicU64,
}

impl Fleet {
    /// A client has its subscriptions.
    fn ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether everybody listens, and nobody asked for silence.
    fn may_speak(&self) -> bool {
        self.ready.load(Ordering::Relaxed) >= self.clients && !self.quiet.load(Ordering::Relaxed)
    }

    fn alert(&self) {
        self.alerts.fetch_add(1, Ordering::Relaxed);
    }

    /// The identifier of message `number`.
    fn id(&self, number: u64) -> String {
        format!("demo-{:x}-{number}", self.run)
    }

    /// The number of a message of this run.
    fn number(&self, id: &str) -> Option<u64> {
        let (run, number) = id.strip_prefix("demo-")?.split_once('-')?;
        if u64::from_str_radix(run, 16).ok()? != self.run {
            return None;
        }
        number.parse().ok()
    }
}

/// Tells the fleet's tasks to end.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    async fn asked(&mut self) {
        // An error means that the demo was dropped: an end as well.
        let _ = self.0.wait_for(|end| *end).await;
    }
}

impl Demo {
    /// Starts the fleet against the MQTT listener at `mqtt` and the IoT backend's API below `iot` (a URL without a
    /// final slash). Must be called inside a tokio runtime.
    pub fn start(config: Config, mqtt: SocketAddr, iot: String) -> Self {
        let talkers = config.rooms * config.talkers_per_room as usize;
        let fleet = Arc::new(Fleet {
            ledger: Ledger::new(Duration::from_millis(config.lost_after_ms)),
            mqtt,
            iot,
            run: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_micros() as u64),
            clients: talkers + config.devices + 1,
            online: Arc::default(),
            ready: AtomicUsize::new(0),
            quiet: AtomicBool::new(false),
            alerts: AtomicU64::new(0),
            config,
        });
        let (end, ended) = watch::channel(false);
        let stop = Stop(ended);
        let mut tasks = JoinSet::new();
        let members = fleet.config.talkers_per_room;
        for room in 0..fleet.config.rooms {
            for place in 0..members {
                let index = room * members as usize + place as usize;
                let talker = rooms::Talker {
                    room,
                    place,
                    members,
                    index,
                };
                tasks.spawn(talker.live(fleet.clone(), stop.clone()));
            }
        }
        for index in 0..fleet.config.devices {
            tasks.spawn(devices::live(index, fleet.clone(), stop.clone()));
        }
        tasks.spawn(devices::watch(fleet.clone(), stop.clone()));
        tasks.spawn(operator::live(fleet.clone(), stop));
        Self { fleet, end, tasks }
    }

    /// Says whether Kafka is away: receipts and replies then wait for it and are not lost.
    pub fn kafka_is_away(&self, away: bool) {
        self.fleet.ledger.hold(away, Instant::now());
    }

    /// What the demo says of itself now.
    pub fn status(&self) -> Status {
        Status {
            clients: self.fleet.clients,
            clients_connected: self.fleet.online.load(Ordering::Relaxed),
            rooms: self.fleet.config.rooms,
            devices: self.fleet.config.devices,
            alerts: self.fleet.alerts.load(Ordering::Relaxed),
            lost_after_ms: self.fleet.config.lost_after_ms,
            totals: self.fleet.ledger.totals(Instant::now()),
        }
    }

    /// The fleet says nothing more; it goes on listening.
    pub fn be_quiet(&self) {
        self.fleet.quiet.store(true, Ordering::Relaxed);
    }

    /// Whether everything that was said has arrived (or counts as lost).
    pub fn is_settled(&self) -> bool {
        let totals = self.fleet.ledger.totals(Instant::now());
        totals.pending == 0 && totals.unacknowledged == 0
    }

    /// Disconnects the fleet and gives the last numbers.
    pub async fn end(mut self) -> Status {
        self.end.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.status()
    }
}

/// How long the fleet may take to disconnect.
const GOODBYE: Duration = Duration::from_secs(2);

/// A number for a name, stable within the process.
fn key(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use settings::Section as _;

    use super::*;

    fn fleet() -> Demo {
        let config = Config {
            rooms: 0,
            devices: 0,
            ..Config::default()
        };
        // Nobody listens at port 1 of loopback; the clients just try.
        Demo::start(
            config,
            "127.0.0.1:1".parse().unwrap(),
            "http://127.0.0.1:1".into(),
        )
    }

    #[tokio::test]
    async fn only_identifiers_of_this_run_have_a_number() {
        let demo = fleet();
        let fleet = &demo.fleet;
        assert_eq!(fleet.number(&fleet.id(17)), Some(17));
        for id in ["m-17", "demo-17", "demo-0-17", "demo-zz-17", ""] {
            assert_eq!(fleet.number(id), None, "{id}");
        }
        demo.end().await;
    }

    #[tokio::test]
    async fn nobody_speaks_before_all_listen() {
        let demo = fleet();
        assert!(!demo.fleet.may_speak());
        demo.fleet.ready();
        assert!(demo.fleet.may_speak());
        demo.be_quiet();
        assert!(!demo.fleet.may_speak());
        assert!(demo.is_settled());
        demo.end().await;
    }

    #[test]
    fn wrong_values_are_named() {
        Config::default().check_keys().unwrap();
        let config = Config {
            talkers_per_room: 32,
            ..Config::default()
        };
        let error = config.check_keys().unwrap_err().to_string();
        assert!(error.contains("talkers_per_room = 32"), "{error}");
    }
}
