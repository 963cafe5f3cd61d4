//! What simulated clients cost: connects them with one subscription each, lets them idle, then publishes to their topics
//! at a steady rate, and says what that took in memory and time. No more than that: the ledger, histograms and scenarios
//! are the load generator's.
//!
//! `simulated CLIENTS SHARDS KEEP_ALIVE_S IDLE_S MIXED_S MESSAGES_PER_S`

use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use broker::Config;
use codec::{Qos, Version};
use loadgen::process::Usage;
use loadgen::simulated::{self, SimClock, SimulatedSwarm};
use loadgen::stamp::Stamp;
use loadgen::swarm::{Client, Hello, Notice, Outgoing, Swarm};

/// Connections under way at once, a shard.
const IN_PROGRESS_MAX: usize = 1_000;
/// Messages published before the broker gets a turn.
const BATCH_MAX: u64 = 512;
const WAIT: Duration = Duration::from_millis(1);
const PAYLOAD_BYTES: usize = 200;

#[derive(Clone, Copy)]
struct Task {
    clients: u32,
    shards: u32,
    keep_alive_s: u16,
    idle: Duration,
    mixed: Duration,
    per_second: u32,
}

#[derive(Default)]
struct Done {
    connected: u64,
    subscribed: u64,
    sent: u64,
    acknowledged: u64,
    delivered: u64,
    other: u64,
    /// From due to delivered, in microseconds.
    latencies: Vec<u32>,
}

impl Done {
    fn count(&mut self, swarm: &mut SimulatedSwarm, notices: &mut Vec<Notice>) -> usize {
        let mut ready = 0;
        for notice in notices.drain(..) {
            match notice {
                Notice::Connected { client, .. } => {
                    self.connected += 1;
                    let filter = format!("inbox/{}", client.0);
                    swarm
                        .subscribe(client, &[(&filter, Qos::AtLeastOnce)])
                        .expect("the filter is valid");
                }
                Notice::Subscribed { granted: 1, .. } => {
                    self.subscribed += 1;
                    ready += 1;
                }
                Notice::Acknowledged { .. } => self.acknowledged += 1,
                Notice::Delivered {
                    stamp: Some(stamp), ..
                } => {
                    self.delivered += 1;
                    let us = swarm.now().saturating_sub(stamp.due_ns) / 1_000;
                    self.latencies.push(u32::try_from(us).unwrap_or(u32::MAX));
                }
                other => {
                    self.other += 1;
                    eprintln!("{other:?}");
                }
            }
        }
        ready
    }
}

fn connect_all(swarm: &mut SimulatedSwarm, task: Task, done: &mut Done) -> Vec<u32> {
    let mut notices = Vec::new();
    let mut under_way = 0;
    let mut mine = Vec::new();
    let mut client_id = String::new();
    for number in 0..task.clients {
        client_id.clear();
        std::fmt::write(&mut client_id, format_args!("c-{number}")).expect("a string takes it");
        if !swarm.owns(Client(number), &client_id) {
            continue;
        }
        if number % 16 == 0 {
            mine.push(number);
        }
        let hello = Hello {
            client_id: &client_id,
            version: Version::V311,
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: task.keep_alive_s,
            username: None,
            password: None,
        };
        swarm.connect(Client(number), &hello).expect("it is ours");
        under_way += 1;
        while under_way >= IN_PROGRESS_MAX {
            swarm.turn(WAIT, &mut notices).expect("a turn");
            under_way -= done.count(swarm, &mut notices);
        }
    }
    while under_way > 0 {
        swarm.turn(WAIT, &mut notices).expect("a turn");
        under_way -= done.count(swarm, &mut notices);
    }
    mine
}

fn rest(swarm: &mut SimulatedSwarm, time: Duration, done: &mut Done) {
    let mut notices = Vec::new();
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let wait = left.min(Duration::from_millis(100));
        swarm.turn(wait, &mut notices).expect("a turn");
        done.count(swarm, &mut notices);
    }
}

fn mixed(swarm: &mut SimulatedSwarm, task: Task, publishers: &[u32], done: &mut Done) {
    let start = swarm.now();
    let step = 1_000_000_000 * u64::from(task.shards) / u64::from(task.per_second);
    let messages = task.mixed.as_nanos() as u64 / step;
    let mut notices = Vec::new();
    let mut topic = String::new();
    let mut payload = vec![7; PAYLOAD_BYTES];
    let mut number = 0;
    while number < messages {
        let now = swarm.now();
        let batch = number + BATCH_MAX;
        while number < messages.min(batch) && start + number * step <= now {
            let stamp = Stamp {
                run: 1,
                stream: 0,
                lane: 0,
                number: number as u32,
                due_ns: start + number * step,
            };
            stamp.write(&mut payload);
            topic.clear();
            let to = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            let to = to % u64::from(task.clients);
            std::fmt::write(&mut topic, format_args!("inbox/{to}")).expect("a string takes it");
            let from = publishers[number as usize % publishers.len()];
            let message = Outgoing {
                topic: &topic,
                qos: Qos::AtLeastOnce,
                retain: false,
                payload: &payload,
            };
            swarm.publish(Client(from), &message).expect("it is valid");
            done.sent += 1;
            number += 1;
        }
        swarm.turn(WAIT, &mut notices).expect("a turn");
        done.count(swarm, &mut notices);
    }
}

fn run(mut swarm: SimulatedSwarm, task: Task, barrier: &Barrier) -> Done {
    let mut done = Done::default();
    let publishers = connect_all(&mut swarm, task, &mut done);
    barrier.wait();
    barrier.wait();
    rest(&mut swarm, task.idle, &mut done);
    barrier.wait();
    barrier.wait();
    mixed(&mut swarm, task, &publishers, &mut done);
    barrier.wait();
    // What is under way between the shards arrives.
    rest(&mut swarm, Duration::from_secs(2), &mut done);
    barrier.wait();
    done
}

fn main() -> ExitCode {
    let arguments: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let [clients, shards, keep_alive_s, idle_s, mixed_s, per_second] = arguments[..] else {
        eprintln!("simulated CLIENTS SHARDS KEEP_ALIVE_S IDLE_S MIXED_S MESSAGES_PER_S");
        return ExitCode::from(2);
    };
    let task = Task {
        clients,
        shards,
        keep_alive_s: keep_alive_s as u16,
        idle: Duration::from_secs(idle_s.into()),
        mixed: Duration::from_secs(mixed_s.into()),
        per_second: per_second.max(1),
    };
    let before = Usage::of_self().expect("/proc is there");
    let start = Instant::now();
    let swarms = simulated::build(&Config::default(), shards as usize, clients, SimClock::Real);
    let swarms = swarms.expect("the configuration is valid");
    let handle = swarms[0].handle();
    let barrier = Barrier::new(shards as usize + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = swarms
            .into_iter()
            .map(|swarm| scope.spawn(|| run(swarm, task, &barrier)))
            .collect();
        barrier.wait();
        let took = start.elapsed().as_secs_f64();
        let usage = Usage::of_self().expect("/proc is there");
        let bytes = (usage.anonymous_bytes - before.anonymous_bytes) as f64;
        let cpu = usage.cpu.as_secs_f64();
        println!(
            "connected: {took:.2} s, {:.0}/s, {:.2} µs of CPU each, {:.1} B each, {:.3} GB in all",
            f64::from(clients) / took,
            cpu * 1e6 / f64::from(clients),
            bytes / f64::from(clients),
            bytes / 1e9,
        );
        barrier.wait();
        barrier.wait();
        let after = Usage::of_self().expect("/proc is there");
        let bytes = (after.anonymous_bytes - before.anonymous_bytes) as f64;
        println!(
            "idle {idle_s} s: {:.2}% of a core, {:.1} B each",
            (after.cpu.as_secs_f64() - cpu) * 100.0 / f64::from(idle_s.max(1)),
            bytes / f64::from(clients),
        );
        barrier.wait();
        barrier.wait();
        let end = Usage::of_self().expect("/proc is there");
        barrier.wait();
        let mut all = Done::default();
        for thread in threads {
            let one = thread.join().expect("no panic");
            all.connected += one.connected;
            all.subscribed += one.subscribed;
            all.sent += one.sent;
            all.acknowledged += one.acknowledged;
            all.delivered += one.delivered;
            all.other += one.other;
            all.latencies.extend(one.latencies);
        }
        all.latencies.sort_unstable();
        let at = |share: f64| {
            let at = (all.latencies.len() as f64 * share) as usize;
            all.latencies.get(at).copied().unwrap_or(0)
        };
        println!(
            "mixed {mixed_s} s: sent {}, acknowledged {}, delivered {}, other {}; {:.2} µs of CPU a message, p50 {} µs, p99 {} µs, p99.9 {} µs, {:.1} B each",
            all.sent,
            all.acknowledged,
            all.delivered,
            all.other,
            (end.cpu.as_secs_f64() - after.cpu.as_secs_f64()) * 1e6 / all.sent.max(1) as f64,
            at(0.5),
            at(0.99),
            at(0.999),
            (end.anonymous_bytes - before.anonymous_bytes) as f64 / f64::from(clients),
        );
        println!("connected {}, subscribed {}", all.connected, all.subscribed);
    });
    println!("{:?}", handle.stats());
    ExitCode::SUCCESS
}
