//! Thousands of clients from a seed, whose connections are cut anywhere, some of which read slowly or not at all, on
//! workers whose turns come in any order, with a sink that settles late, out of order, or not now. Checked is what
//! the broker promises:
//!
//! - no QoS 1 or 2 message that was acknowledged to its publisher is lost to a session that was subscribed all the
//!   time, nor to a shared subscription; with QoS 2 none is doubled;
//! - the order of a publisher's messages of one topic and QoS holds, and so does that of acknowledgements;
//! - receive maximum, queue and outbox bounds are never passed;
//! - the counters add up.
//!
//! `MILLSTREAM_SEED` runs one seed, `MILLSTREAM_SEEDS` that many from there on; `MILLSTREAM_TRACE` names a client
//! whose packets are printed.

mod client;
mod dice;
mod ledger;
mod store;

use std::sync::Arc;

use broker::sim::Sim;
use broker::{Config, ShareStrategy, Stats};
use codec::Version;

use client::{Character, Client, LONG_EXPIRY_S, State, Surroundings};
use dice::Dice;
use ledger::{Filter, Granted, Ledger, Number, Published, Topic};
use store::Store;

const AREAS: u8 = 12;
const PLACES: u8 = 20;
/// The shared subscriptions: all members of the first keep their sessions, some of the second lose theirs.
const STEADY: (&str, Filter) = ("steady", Filter::Area(2));
const MIXED: (&str, Filter) = ("mixed", Filter::Area(3));
const STRATEGIES: [ShareStrategy; 4] = [
    ShareStrategy::RoundRobin,
    ShareStrategy::StickyClient,
    ShareStrategy::StickyTopic,
    ShareStrategy::LeastInFlight,
];
const SMALL_PACKET_BYTES_MAX: u32 = 1_000;
/// Ticks within which everything comes to rest once nobody does anything new.
const CALM_TICKS_MAX: u64 = 20_000;

/// How large a run is.
#[derive(Debug, Clone, Copy)]
struct Size {
    clients: usize,
    ticks: u64,
}

struct World {
    tick: u64,
    size: Size,
    config: Config,
    sim: Sim,
    store: Arc<Store>,
    dice: Dice,
    ledger: Ledger,
    topics: Vec<Topic>,
    clients: Vec<Client>,
}

impl World {
    fn new(seed: u64, size: Size) -> Self {
        let mut dice = Dice::new(seed);
        let mut config = Config {
            workers: 1 + dice.below(4),
            sys_interval_s: 1,
            shared_subscription_strategy: *dice.pick(&STRATEGIES),
            ..Config::default()
        };
        let limits = &mut config.limits;
        limits.packet_bytes_max = 8_000;
        limits.outbox_bytes_max = 8_000 + dice.below(20_000) as u64;
        limits.inflight_messages_max = 1 + dice.below(20) as u16;
        limits.receive_maximum = 2 + dice.below(20) as u16;
        let lossy = dice.chance(250);
        limits.queue_messages_max = if lossy { 20 } else { 1_000_000 };
        limits.queue_bytes_max = 1_000_000_000;
        limits.write_stall_ms = 2_000;
        limits.topic_alias_maximum = dice.below(5) as u16;
        limits.retained_per_turn = 1 + dice.below(20) as u32;
        limits.inbox_entries_max = 64;
        limits.read_bytes_per_turn = 4_096;
        // Often a client's next packet, or the next client's, is one too many.
        limits.read_ahead_bytes_max = 1_000 * dice.below(10) as u64;
        limits.read_ahead_node_bytes_max = 20_000;
        let store = Arc::new(Store::new(dice.roll()));
        let sim = Sim::new(&config, store.clone(), seed).expect("the configuration is valid");
        let clients = (0..size.clients)
            .map(|index| Client::new(index, character(index, &config, &mut dice)))
            .collect();
        let topics = (0..AREAS)
            .flat_map(|area| (0..PLACES).map(move |place| Topic { area, place }))
            .collect();
        Self {
            tick: 0,
            size,
            config,
            sim,
            store,
            dice,
            ledger: Ledger {
                lossy,
                ..Ledger::default()
            },
            topics,
            clients,
        }
    }

    fn run(&mut self) -> Stats {
        while self.tick < self.size.ticks {
            for _ in 0..self.clients.len().div_ceil(12) {
                let at = self.dice.below(self.clients.len());
                self.with(at, act);
            }
            self.step();
        }
        self.store.calm_down();
        let until = self.tick + CALM_TICKS_MAX;
        while !self.is_at_rest() {
            assert!(
                self.tick < until,
                "it does not come to rest: {:#?}",
                self.unrest()
            );
            for at in 0..self.clients.len() {
                self.with(at, calm);
            }
            self.step();
        }
        self.check_delivered();
        self.check_counters();
        self.sim.stats()
    }

    fn with(&mut self, at: usize, act: impl Fn(&mut Client, &mut Surroundings<'_>)) {
        let mut around = Surroundings {
            sim: &mut self.sim,
            ledger: &mut self.ledger,
            dice: &mut self.dice,
            tick: self.tick,
            topics: &self.topics,
        };
        act(&mut self.clients[at], &mut around);
    }

    /// What the clients say is written, the sink speaks, some workers have turns, and the clients read.
    fn step(&mut self) {
        self.tick += 1;
        let (mut settled, ready) = self.store.tick(self.tick);
        self.sim.handle().settle(&mut settled);
        if ready {
            self.sim.handle().sink_ready();
        }
        for at in 0..self.clients.len() {
            self.with(at, Client::write);
        }
        for _ in 0..1 + self.dice.below(3) {
            let mut order: Vec<usize> = (0..self.config.workers).collect();
            self.dice.shuffle(&mut order);
            order.truncate(1 + self.dice.below(self.config.workers));
            self.sim.turn(order);
        }
        self.sim.pass_ms(self.dice.below(60) as u64);
        for number in self.store.refused() {
            self.ledger.messages[number as usize].refused = true;
        }
        for at in 0..self.clients.len() {
            self.with(at, |client, around| {
                client.read(around);
                if around.dice.chance(700) {
                    client.reply(around.dice.below(10));
                }
            });
        }
        self.check_bounds();
    }

    fn check_bounds(&self) {
        let limits = &self.config.limits;
        // One packet goes into an outbox whatever its size, and one packet's answers may come on top.
        let outbox_bytes_max = limits.outbox_bytes_max as usize + 1_000;
        for client in &self.clients {
            let unsent = client.peer().map_or(0, |peer| self.sim.unsent(peer));
            assert!(
                unsent <= outbox_bytes_max,
                "{} has {unsent} bytes in its outbox",
                client.name
            );
        }
        let stats = self.sim.stats();
        assert!(stats.inflight <= stats.sessions * u64::from(limits.inflight_messages_max));
        // What was in flight to a member of a shared subscription may come back to its queue.
        let queue_max = limits.queue_messages_max + u32::from(limits.inflight_messages_max);
        assert!(stats.queued <= stats.sessions * u64::from(queue_max));
    }

    fn is_at_rest(&self) -> bool {
        let stats = self.sim.stats();
        stats.inflight == 0
            && stats.queued == 0
            && stats.sink_pending == 0
            && (stats.publishers_held, stats.publishes_read_ahead) == (0, 0)
            && (stats.read_ahead_bytes, stats.wills_waiting) == (0, 0)
            && stats.inbox_entries == 0
            && self.clients.iter().all(Client::is_at_rest)
    }

    fn unrest(&self) -> (Stats, Vec<&Client>) {
        let restless = self.clients.iter().filter(|client| !client.is_at_rest());
        (self.sim.stats(), restless.take(3).collect())
    }

    fn check_delivered(&mut self) {
        let mut missing = 0;
        for client in &self.clients {
            if client.character.group.is_some() {
                continue;
            }
            let small = client.character.packet_bytes_max == SMALL_PACKET_BYTES_MAX;
            let fits = |number: Number, _: &Published| !small || !ledger::is_large(number);
            let of_client = client
                .received
                .missing(&self.ledger, &client.granted(), fits);
            missing += of_client.len();
            self.may_miss(&client.name, &of_client);
        }
        for (group, of_any_qos) in [(STEADY, true), (MIXED, false)] {
            let members = self.clients.iter().filter(|client| {
                client.character.group == Some(group) && client.character.persistent
            });
            let since_tick = members
                .flat_map(Client::granted)
                .map(|one| one.since_tick)
                .min();
            let Some(since_tick) = since_tick else {
                continue;
            };
            let granted = Granted {
                filter: group.1,
                qos: 2,
                since_tick,
            };
            // With QoS 2 a message in flight ends with its member's session [MQTT-4.8.2-5].
            let counts = |_, message: &Published| of_any_qos || message.qos == 1;
            let received = self.ledger.groups.remove(group.0).unwrap_or_default();
            let of_group = received.missing(&self.ledger, &[granted], counts);
            missing += of_group.len();
            self.may_miss(group.0, &of_group);
        }
        let dropped = self.sim.stats().dropped_queue_full as usize;
        assert!(
            missing <= dropped,
            "{missing} messages are missing, {dropped} were dropped"
        );
    }

    fn may_miss(&self, who: &str, missing: &[Number]) {
        if let (0, Some(number)) = (self.sim.stats().dropped_queue_full, missing.first()) {
            let message = &self.ledger.messages[*number as usize];
            let count = missing.len();
            panic!("{who} misses {count} messages, the first of them {number}: {message:?}");
        }
    }

    fn check_counters(&mut self) {
        // Connections that are being closed get their time.
        self.sim.advance_ms(3_000);
        let stats = self.sim.stats();
        assert_eq!(stats.unaccounted(), 0, "{stats:#?}");
        let offered = stats.publishes_received() + stats.wills_published - stats.wills_not_stored;
        let answered = stats.sink_not_stored
            + stats.sink_accepted
            + stats.sink_stored
            + stats.sink_refused
            + stats.sink_dropped_qos0
            + stats.publishes_denied();
        assert_eq!(offered, answered, "{stats:#?}");
        assert_eq!(
            stats.connections_opened - stats.connections_closed,
            stats.connections
        );
        let closed: u64 = stats
            .each()
            .iter()
            .filter(|(name, ..)| name.starts_with("closed_"))
            .map(|(_, _, count)| count)
            .sum();
        assert_eq!(stats.connections_closed, closed, "{stats:#?}");
        assert_eq!(stats.connections, stats.clients);
        let online = self
            .clients
            .iter()
            .filter(|client| client.state == State::Online)
            .count();
        assert_eq!(stats.clients, online as u64);
        let noted = crate::losses::noted(&self.sim.handle(), || self.sim.run());
        for (loss, times) in noted {
            assert_eq!(times, loss.counted(&stats), "{loss:?}");
        }
    }
}

/// What a client is: versions, habits and bounds of all kinds.
fn character(index: usize, config: &Config, dice: &mut Dice) -> Character {
    let version = *dice.pick(&[
        Version::V31,
        Version::V311,
        Version::V311,
        Version::V5,
        Version::V5,
    ]);
    let is_new = version == Version::V5;
    let group = match index % 50 {
        0 => Some(STEADY),
        1 | 2 => Some(MIXED),
        _ => None,
    };
    let persistent = group == Some(STEADY) || dice.chance(600);
    let inflight_max = config.limits.inflight_messages_max;
    let small = is_new && group.is_none() && dice.chance(100);
    Character {
        version,
        persistent,
        expiry_s: if group.is_none() && dice.chance(150) {
            1
        } else {
            LONG_EXPIRY_S
        },
        receive_maximum: if is_new {
            1 + dice.below(20) as u16
        } else {
            inflight_max
        },
        alias_maximum: if is_new { dice.below(10) as u16 } else { 0 },
        packet_bytes_max: if small {
            SMALL_PACKET_BYTES_MAX
        } else {
            100_000
        },
        group,
        has_will: dice.chance(100),
    }
}

/// One client does something, whatever comes to its mind.
fn act(client: &mut Client, around: &mut Surroundings<'_>) {
    let dice = &mut *around.dice;
    match (client.state, dice.below(1_000)) {
        (State::Away, 0..500) => {
            client.connect(around);
            first_subscriptions(client, around.dice);
        }
        (State::Away, _) => {}
        (State::Connecting, 0..50) => client.cut(around),
        (State::Connecting, _) => {}
        (State::Online, what) => match what {
            0..40 => client.cut(around),
            40..50 => client.connect(around),
            50..70 => client.disconnect(),
            70..100 => client.block(!client.blocked, around),
            100..130 if client.character.group.is_none() => {
                let filter = any_filter(dice);
                client.subscribe(filter, dice.below(3) as u8);
            }
            130..150 if client.character.group.is_none() => client.unsubscribe(dice),
            150..160 => client.publish_retained(around),
            160..162 => client.subscribe_retained(dice.below(3) as u8),
            162..400 => {
                for _ in 0..1 + around.dice.below(4) {
                    client.publish(around);
                }
            }
            _ => {}
        },
    }
}

fn first_subscriptions(client: &mut Client, dice: &mut Dice) {
    if let Some((_, filter)) = client.character.group {
        client.subscribe(filter, 2);
    } else if client.granted().is_empty() {
        for _ in 0..dice.below(3) {
            let filter = any_filter(dice);
            client.subscribe(filter, dice.below(3) as u8);
        }
    }
}

fn any_filter(dice: &mut Dice) -> Filter {
    let topic = Topic {
        area: dice.below(AREAS.into()) as u8,
        place: dice.below(PLACES.into()) as u8,
    };
    match dice.below(1_000) {
        0..2 => Filter::All,
        2..20 => Filter::Area(topic.area),
        20..60 => Filter::Place(topic.place),
        _ => Filter::One(topic),
    }
}

/// Nothing new is begun: each client only ends what it has begun.
fn calm(client: &mut Client, around: &mut Surroundings<'_>) {
    if client.blocked {
        client.block(false, around);
    }
    client.reply(usize::MAX);
    client.close_left_open(around);
    if client.state == State::Away && client.character.persistent {
        client.connect(around);
    }
}

fn run(seed: u64, size: Size) -> Stats {
    println!("MILLSTREAM_SEED={seed} cargo test -p broker --test harness random -- --nocapture");
    let mut world = World::new(seed, size);
    let stats = world.run();
    println!(
        "{} workers, {} publishes, {} deliveries, {} given elsewhere, {} dropped, {} connects",
        world.config.workers,
        stats.publishes_received(),
        stats.deliveries,
        stats.delivered_elsewhere,
        stats.deliveries_dropped(),
        stats.clients_connected,
    );
    stats
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("it is a number"))
}

const LARGE: Size = Size {
    clients: 2_000,
    ticks: 200,
};
const SMALL: Size = Size {
    clients: 60,
    ticks: 1_500,
};

#[test]
fn promises_hold_for_thousands_of_clients() {
    let first = from_environment("MILLSTREAM_SEED");
    let count = from_environment("MILLSTREAM_SEEDS").unwrap_or(if first.is_some() { 1 } else { 2 });
    for seed in (first.unwrap_or(1)..).take(count as usize) {
        run(seed, LARGE);
    }
}

#[test]
fn promises_hold_for_a_few_clients_over_a_long_time() {
    let first = from_environment("MILLSTREAM_SEED");
    let count =
        from_environment("MILLSTREAM_SEEDS").unwrap_or(if first.is_some() { 1 } else { 20 });
    for seed in (first.unwrap_or(1_000)..).take(count as usize) {
        run(seed, SMALL);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let size = Size {
        clients: 100,
        ticks: 200,
    };
    assert_eq!(run(7, size), run(7, size));
}
