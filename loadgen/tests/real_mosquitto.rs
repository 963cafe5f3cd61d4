//! Real clients against mosquitto: a broker that is not ours.

mod real_support;

use std::time::{Duration, Instant};

use codec::{Qos, Version};
use loadgen::process::Usage;
use loadgen::swarm::{Client, Hello, Leave, Notice, Swarm};
use real_support::mosquitto::Mosquitto;
use real_support::{Clients, hello, is_acknowledged, is_delivered, is_subscribed, is_unasked};

#[test]
fn every_qos_goes_both_ways() {
    const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
    const MESSAGES: u32 = 600;
    let mosquitto = Mosquitto::start(|_| String::new());
    for version in [Version::V311, Version::V5] {
        let mut clients = Clients::new(mosquitto.address, 2);
        clients.connect(0, &hello("subscriber", version));
        clients.connect(1, &hello("publisher", version));
        let filters = [("q/0", QOS[0]), ("q/1", QOS[1]), ("q/2", QOS[2])];
        clients.swarm.subscribe(Client(0), &filters).unwrap();
        clients.until_one("SUBACK", is_subscribed);
        let mut sent = 0;
        while sent < MESSAGES {
            // mosquitto takes 20 at once, and says so in 5.0; in 3.1.1 it keeps the rest for later.
            let in_flight = sent as usize * 2 / 3 - clients.count(is_acknowledged);
            if clients.swarm.room(Client(1)) == 0 || in_flight >= 15 {
                clients.turn();
                continue;
            }
            let (topic, qos) = filters[sent as usize % 3];
            let packet_id = clients.publish(1, topic, qos, sent);
            assert_eq!(packet_id.is_some(), qos != Qos::AtMostOnce);
            sent += 1;
        }
        clients.until("everything", |notices| {
            let count = |like: fn(&Notice) -> bool| notices.iter().filter(|n| like(n)).count();
            count(is_delivered) == MESSAGES as usize
                && count(is_acknowledged) == MESSAGES as usize * 2 / 3
        });
        let mut delivered = clients.delivered();
        delivered.sort_unstable();
        assert!(delivered.into_iter().eq(0..MESSAGES));
        assert_eq!(clients.count(is_unasked), 0);
        clients.swarm.disconnect(Client(0), Leave::Politely);
        clients.swarm.disconnect(Client(1), Leave::Abruptly);
        let rest = clients.notices.len();
        clients.turn();
        assert_eq!(clients.notices.len(), rest);
    }
}

#[test]
fn keep_alive_holds_the_connection() {
    let mosquitto = Mosquitto::start(|_| String::new());
    let mut clients = Clients::new(mosquitto.address, 2);
    for client in 0..2 {
        let id = client.to_string();
        let hello = Hello {
            keep_alive_s: 1,
            ..hello(&id, Version::V311)
        };
        clients.connect(client, &hello);
    }
    // Long after mosquitto would have given up those that are silent.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        clients.turn();
    }
    assert_eq!(clients.notices.len(), 2, "{:?}", clients.notices);
}

/// What the tool costs: shown with `--nocapture`, and bounded loosely here, as the other tests share the process.
#[test]
fn an_idle_client_costs_this_process_little() {
    const WARM: u32 = 200;
    const CLIENTS: u32 = 900;
    let mosquitto = Mosquitto::start(|_| String::new());
    let mut clients = Clients::new(mosquitto.address, CLIENTS);
    clients
        .notices
        .resize(2 * CLIENTS as usize, Notice::Unasked { client: Client(0) });
    clients.notices.clear();
    let mut at_first = 0;
    for client in 0..CLIENTS {
        if client == WARM {
            at_first = Usage::of_self().unwrap().anonymous_bytes;
        }
        let id = client.to_string();
        clients.connect(client, &hello(&id, Version::V311));
        let filter = [("idle", Qos::AtMostOnce)];
        clients.swarm.subscribe(Client(client), &filter).unwrap();
        let told = 2 * (client as usize + 1);
        clients.until("subscription", |notices| notices.len() == told);
    }
    let at_last = Usage::of_self().unwrap().anonymous_bytes;
    let each = at_last.saturating_sub(at_first) / u64::from(CLIENTS - WARM);
    let counted = clients.swarm.client_bytes() / CLIENTS as usize;
    println!(
        "{each} bytes a client beyond its slot by the process; {counted} by what is allocated"
    );
    assert!(each < 4_096, "{each} bytes a client");
}
