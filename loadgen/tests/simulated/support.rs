//! A simulated broker with one or more swarms, turned by the test.

use std::sync::Arc;
use std::time::Duration;

use broker::{Config, NoSink, Sink, Stats};
use codec::{Qos, Version};
use loadgen::payload;
use loadgen::simulated::{SimClock, SimulatedSwarm, build_with};
use loadgen::stamp::{STAMP_BYTES, Stamp};
use loadgen::swarm::{Client, Hello, Notice, Outgoing, Swarm};

/// Size of the messages that [`Net::publish`] sends.
pub const PAYLOAD_BYTES: usize = STAMP_BYTES + 8;

/// Turns without any notice after which nothing is under way any more.
const QUIET_TURNS: usize = 20;

pub fn config() -> Config {
    Config {
        sys_interval_s: 0,
        ..Config::default()
    }
}

/// What connecting asks for: 5.0, clean start, nothing more.
pub fn hello(client_id: &str) -> Hello<'_> {
    Hello {
        client_id,
        version: Version::V5,
        clean_start: true,
        session_expiry_s: 0,
        keep_alive_s: 0,
        username: None,
        password: None,
    }
}

pub fn stamp(lane: u32, number: u32) -> Stamp {
    Stamp {
        run: 1,
        stream: 2,
        lane,
        number,
        due_ns: 0,
    }
}

/// The swarms of a broker.
pub struct Net {
    pub swarms: Vec<SimulatedSwarm>,
}

impl Net {
    /// One shard in virtual time.
    pub fn of(clients: u32, config: &Config) -> Self {
        Self::with_sink(clients, config, Arc::new(NoSink))
    }

    pub fn with_sink(clients: u32, config: &Config, sink: Arc<dyn Sink>) -> Self {
        let swarms = build_with(config, 1, clients, SimClock::Virtual, sink);
        let swarms = swarms.expect("the test's configuration is valid");
        Self { swarms }
    }

    /// More than one shard, so in real time.
    pub fn sharded(clients: u32, shards: usize) -> Self {
        let swarms = build_with(&config(), shards, clients, SimClock::Real, Arc::new(NoSink));
        let swarms = swarms.expect("the test's configuration is valid");
        Self { swarms }
    }

    /// The swarm that owns `client` under the name of [`name`].
    pub fn owner(&mut self, client: u32) -> &mut SimulatedSwarm {
        let id = name(client);
        let mut owners = self
            .swarms
            .iter_mut()
            .filter(|swarm| swarm.owns(Client(client), &id));
        let owner = owners.next().expect("somebody owns it");
        assert!(owners.next().is_none(), "two own it");
        owner
    }

    pub fn connect(&mut self, client: u32, change: impl FnOnce(&mut Hello<'_>)) {
        let id = name(client);
        let mut hello = hello(&id);
        change(&mut hello);
        let owner = self.owner(client);
        owner.connect(Client(client), &hello).expect("it is ours");
    }

    pub fn subscribe(&mut self, client: u32, filter: &str, level: u8) {
        let qos = Qos::try_from(level).expect("0, 1 or 2");
        let owner = self.owner(client);
        let result = owner.subscribe(Client(client), &[(filter, qos)]);
        result.expect("the filter is valid");
    }

    /// Publishes a stamped message: its packet identifier, or 0.
    pub fn publish(&mut self, client: u32, topic: &str, level: u8, stamp: Stamp) -> u16 {
        let mut payload = [0; PAYLOAD_BYTES];
        payload::write(&stamp, &mut payload);
        let message = Outgoing {
            topic,
            qos: Qos::try_from(level).expect("0, 1 or 2"),
            retain: false,
            payload: &payload,
        };
        let published = self.owner(client).publish(Client(client), &message);
        published
            .expect("the message is valid")
            .map_or(0, |id| id.get())
    }

    /// Turns all swarms until nothing happens any more, without letting (virtual) time pass.
    pub fn run(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut quiet = 0;
        while quiet < QUIET_TURNS {
            let before = notices.len();
            for swarm in &mut self.swarms {
                swarm
                    .turn(Duration::ZERO, &mut notices)
                    .expect("the swarm goes on");
            }
            quiet = if notices.len() == before {
                quiet + 1
            } else {
                0
            };
        }
        notices
    }

    /// Lets virtual time pass.
    pub fn pass(&mut self, time: Duration) -> Vec<Notice> {
        let swarm = &mut self.swarms[0];
        let until = swarm.now() + time.as_nanos() as u64;
        let mut notices = Vec::new();
        while swarm.now() < until {
            let left = Duration::from_nanos(until - swarm.now());
            swarm.turn(left, &mut notices).expect("the swarm goes on");
        }
        notices
    }

    /// Connects clients and subscribes each to a topic of its own.
    pub fn connect_all(&mut self, clients: u32, level: u8, change: impl Fn(&mut Hello<'_>)) {
        for client in 0..clients {
            self.connect(client, &change);
        }
        let connected = self.run();
        assert_eq!(connected.len(), clients as usize);
        for client in 0..clients {
            self.subscribe(client, &topic(client), level);
        }
        let subscribed = self.run();
        assert_eq!(subscribed.len(), clients as usize);
        let is_granted = |notice: &Notice| matches!(notice, Notice::Subscribed { granted: 1, .. });
        assert!(subscribed.iter().all(is_granted));
    }

    pub fn stats(&self) -> Stats {
        self.swarms[0].handle().stats()
    }
}

/// The identifier of a client.
pub fn name(client: u32) -> String {
    format!("client-{client}")
}

/// The topic of a client's own.
pub fn topic(client: u32) -> String {
    format!("to/{client}")
}
