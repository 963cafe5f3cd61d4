//! Several shards of one broker: each client is at home in one, and what it publishes reaches those of the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use codec::Qos;
use loadgen::simulated::{SimClock, build};
use loadgen::stamp::STAMP_BYTES;
use loadgen::swarm::{Client, Hello, Notice, Outgoing, Swarm};

use super::support::{Net, config, hello, name, stamp, topic};

const CLIENTS: u32 = 3_000;

#[test]
fn everybody_reaches_everybody_in_order() {
    for shards in [2, 3] {
        let mut net = Net::sharded(CLIENTS, shards);
        net.connect_all(CLIENTS, 2, |_| ());
        let mut notices = Vec::new();
        for number in 0..10 {
            for from in 0..CLIENTS {
                let to = (from * 7 + 1) % CLIENTS;
                net.publish(from, &topic(to), (from % 3) as u8, stamp(from, number));
            }
            notices.extend(net.run());
        }
        let mut next: HashMap<(u32, u32), u32> = HashMap::new();
        let mut acknowledged = 0;
        for notice in notices {
            match notice {
                Notice::Delivered {
                    client,
                    stamp: Some(stamp),
                    ..
                } => {
                    assert_eq!(client.0, (stamp.lane * 7 + 1) % CLIENTS);
                    let next = next.entry((stamp.lane, client.0)).or_default();
                    assert_eq!(stamp.number, *next);
                    *next += 1;
                }
                Notice::Acknowledged { .. } => acknowledged += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next.len(), CLIENTS as usize);
        assert!(next.values().all(|next| *next == 10));
        assert_eq!(acknowledged, CLIENTS / 3 * 2 * 10);
        let stats = net.stats();
        assert_eq!(stats.unaccounted(), 0);
        assert_eq!(stats.clients, u64::from(CLIENTS));
    }
}

#[test]
fn a_client_is_refused_by_a_shard_that_does_not_own_it() {
    let mut net = Net::sharded(2, 2);
    let id = name(0);
    let refusals = net
        .swarms
        .iter_mut()
        .map(|swarm| swarm.connect(Client(0), &hello(&id)).is_err());
    assert_eq!(refusals.filter(|refused| *refused).count(), 1);
}

/// One thread a shard; each client publishes to the next, and waits for all.
#[test]
fn threads_wake_each_other() {
    const MESSAGES: u32 = 200;
    let swarms = build(&config(), 2, 2, SimClock::Real).expect("it is valid");
    // One client in each shard.
    let ids: Vec<String> = swarms
        .iter()
        .enumerate()
        .map(|(client, swarm)| {
            (0..)
                .map(|number| format!("{client}-{number}"))
                .find(|id| swarm.owns(Client(client as u32), id))
                .expect("half of them are")
        })
        .collect();
    let ready = [AtomicBool::new(false), AtomicBool::new(false)];
    thread::scope(|scope| {
        for (number, mut swarm) in swarms.into_iter().enumerate() {
            let (ids, ready) = (&ids, &ready);
            scope.spawn(move || {
                let (me, other) = (number as u32, 1 - number);
                let hello = Hello {
                    keep_alive_s: 60,
                    ..hello(&ids[number])
                };
                let mut notices = Vec::new();
                swarm.connect(Client(me), &hello).unwrap();
                swarm.turn(Duration::ZERO, &mut notices).unwrap();
                let filter = topic(me);
                let filters = [(filter.as_str(), Qos::AtLeastOnce)];
                swarm.subscribe(Client(me), &filters).unwrap();
                swarm.turn(Duration::ZERO, &mut notices).unwrap();
                assert_eq!(notices.len(), 2);
                notices.clear();
                ready[number].store(true, Ordering::Release);
                while !ready[other].load(Ordering::Acquire) {
                    thread::yield_now();
                }
                let mut got = 0;
                let mut sent = 0;
                // Ping-pong: one is sent for each that came.
                while got < MESSAGES || sent < MESSAGES {
                    while sent <= got && sent < MESSAGES {
                        let mut payload = [0; STAMP_BYTES];
                        stamp(me, sent).write(&mut payload);
                        let message = Outgoing {
                            topic: &topic(1 - me),
                            qos: Qos::AtLeastOnce,
                            retain: false,
                            payload: &payload,
                        };
                        swarm.publish(Client(me), &message).unwrap();
                        sent += 1;
                    }
                    swarm.turn(Duration::from_secs(1), &mut notices).unwrap();
                    for notice in notices.drain(..) {
                        match notice {
                            Notice::Delivered {
                                stamp: Some(it), ..
                            } => {
                                assert_eq!((it.lane, it.number), (1 - me, got));
                                got += 1;
                            }
                            Notice::Acknowledged { .. } => {}
                            unexpected => panic!("{unexpected:?}"),
                        }
                    }
                }
            });
        }
    });
}
