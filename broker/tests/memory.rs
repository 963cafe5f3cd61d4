//! What a client costs in the broker's own memory, counted at the allocator: bytes asked for, and how many allocations
//! hold them (each costs the allocator up to 16 bytes more). The bounds are a little above what was seen, so that growth
//! is noticed; who lowers a figure lowers its bound. One test, because the allocator counts for the whole process.

#[path = "../benches/instructions/client.rs"]
#[expect(dead_code, reason = "the instruction counts need more of it")]
mod client;

use std::alloc::System;
use std::ops::Sub;

use client::Broker;
use codec::Qos;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A little less than a power of two, at which tables that double are nearly full.
const CLIENTS: u32 = 28_000;

/// A connection's place, without the kernel's share, before CONNECT, with the timer that waits for it: 84 seen, and 19 more
/// where mio checks how its sockets are used.
const CONNECTION_BYTES_MAX: f64 = if cfg!(debug_assertions) { 119.0 } else { 100.0 };
/// What CONNECT adds, the session with its client identifier of 14 bytes and a keep-alive timer: 123 seen.
const SESSION_BYTES_MAX: f64 = 140.0;
/// A subscription to a filter of 24 bytes without wildcards, which nobody else has: 79 seen.
const SUBSCRIPTION_BYTES_MAX: f64 = 95.0;
/// The second subscription of a client, to a filter of 24 bytes with a `+`, which nobody else has: 293 seen.
const WILD_SUBSCRIPTION_BYTES_MAX: f64 = 310.0;
/// A session with both subscriptions whose client is not connected, and the place that its connection had: 593 seen.
const OFFLINE_SESSION_BYTES_MAX: f64 = 640.0;
/// What is left of a client that left, its places for the next client: 232 seen.
const PLACES_BYTES_MAX: f64 = 260.0;
/// Allocations of an idle client with both subscriptions: 5.0 seen.
const ALLOCATIONS_MAX: f64 = 5.5;

/// What the program holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: f64,
    allocations: f64,
}

fn held() -> Held {
    let stats = ALLOCATOR.stats();
    Held {
        bytes: stats.bytes_allocated as f64 - stats.bytes_deallocated as f64,
        allocations: stats.allocations as f64 - stats.deallocations as f64,
    }
}

impl Sub for Held {
    type Output = Self;

    /// The difference for each client.
    fn sub(self, earlier: Self) -> Self {
        Self {
            bytes: (self.bytes - earlier.bytes) / f64::from(CLIENTS),
            allocations: (self.allocations - earlier.allocations) / f64::from(CLIENTS),
        }
    }
}

fn check(what: &str, each: Held, bytes_max: f64) {
    println!(
        "{what:<32} {:6.1} bytes, {:4.2} allocations",
        each.bytes, each.allocations
    );
    assert!(
        each.bytes <= bytes_max,
        "{what} takes {:.1} bytes, more than {bytes_max}",
        each.bytes
    );
}

/// Each client sends a packet of its own, and a turn follows every hundred.
fn each_sends(broker: &mut Broker, slots: &[u32], packet: impl Fn(u32) -> Vec<u8>) {
    for (peer, slot) in (0..).zip(slots) {
        broker.send(*slot, peer, &packet(peer));
        if peer % 100 == 0 {
            broker.turn();
        }
    }
    broker.turn();
}

fn each_connects(broker: &mut Broker, slots: &mut Vec<u32>) {
    slots.clear();
    slots.extend((0..CLIENTS).map(|peer| broker.open(peer)));
    broker.turn();
}

#[test]
fn what_a_client_costs() {
    let mut broker = Broker::new();
    // The test's own memory is there before and after.
    let mut slots = Vec::with_capacity(CLIENTS as usize);
    let before = held();
    each_connects(&mut broker, &mut slots);
    let opened = held();
    check("a connection", opened - before, CONNECTION_BYTES_MAX);

    let connect = |clean_start: bool| {
        move |peer: u32| client::connect(&format!("client-{peer:07}"), clean_start)
    };
    each_sends(&mut broker, &slots, connect(false));
    // The timers that waited for CONNECT have fired.
    broker.at_s(20);
    let connected = held();
    check("a session", connected - opened, SESSION_BYTES_MAX);

    let exact =
        |peer: u32| client::subscribe(&format!("users/{peer:07}/receipts/a"), Qos::AtLeastOnce);
    each_sends(&mut broker, &slots, exact);
    let subscribed = held();
    check(
        "a subscription",
        subscribed - connected,
        SUBSCRIPTION_BYTES_MAX,
    );

    let wild =
        |peer: u32| client::subscribe(&format!("users/{peer:07}/+/presence"), Qos::AtLeastOnce);
    each_sends(&mut broker, &slots, wild);
    let idle = held();
    check(
        "a wildcard subscription",
        idle - subscribed,
        WILD_SUBSCRIPTION_BYTES_MAX,
    );
    let all = idle - before;
    check("an idle client in all", all, f64::MAX);
    assert!(all.allocations <= ALLOCATIONS_MAX, "{all:?}");

    each_sends(&mut broker, &slots, |_| client::disconnect());
    let offline = held() - before;
    check("an offline session", offline, OFFLINE_SESSION_BYTES_MAX);

    // They come back with a clean start, which ends the old session, and go, which ends the new one. What is left must
    // not depend on how often they did.
    let mut left = Vec::new();
    for round in 1..=3 {
        each_connects(&mut broker, &mut slots);
        each_sends(&mut broker, &slots, connect(true));
        each_sends(&mut broker, &slots, exact);
        each_sends(&mut broker, &slots, wild);
        each_sends(&mut broker, &slots, |_| client::disconnect());
        // No timer is set for longer than ten minutes.
        broker.at_s(20 + round * 1_000);
        let each = held() - before;
        check("places of clients that left", each, PLACES_BYTES_MAX);
        left.push(each.bytes);
    }
    assert!(left[2] <= left[1] + 1.0, "{left:?}");
}
