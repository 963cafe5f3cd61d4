//! Real clients against this project's broker: every version and QoS, many clients, sessions, and what a client costs.

mod real_support;

use std::net::SocketAddr;
use std::sync::Arc;

use broker::{Action, Broker, Config, Effect, NoSink, Rule, Running};
use codec::{Qos, ReasonCode, Version};
use loadgen::payload::Body;
use loadgen::plan::Share;
use loadgen::real::RealOptions;
use loadgen::swarm::{Client, Hello, Leave, Notice, Outgoing, Swarm};
use real_support::{
    Clients, hello, is_acknowledged, is_delivered, is_subscribed, is_unasked, payload, stamp,
};

/// A broker on a free port, for as long as the test.
struct Under {
    address: SocketAddr,
    running: Option<Running>,
}

impl Under {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: "127.0.0.1:0".to_owned(),
            workers: 1,
            ..Config::default()
        };
        config.limits.drain_timeout_ms = 200;
        change(&mut config);
        let broker = Broker::bind(config).unwrap();
        Self {
            address: broker.local_addr(),
            running: Some(broker.start(Arc::new(NoSink)).unwrap()),
        }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}

const ALL_QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[test]
fn every_qos_goes_both_ways_in_every_version() {
    let under = Under::new(|_| ());
    for version in Version::ALL {
        let mut clients = Clients::new(under.address, 2);
        clients.connect(0, &hello("subscriber", version));
        clients.connect(1, &hello("publisher", version));
        let filters = [
            ("q/0", ALL_QOS[0]),
            ("q/1", ALL_QOS[1]),
            ("q/2", ALL_QOS[2]),
        ];
        clients.swarm.subscribe(Client(0), &filters).unwrap();
        clients.until_one("SUBACK", is_subscribed);
        for (number, (topic, qos)) in (0..300).zip(filters.into_iter().cycle()) {
            let packet_id = clients.publish(1, topic, qos, number);
            assert_eq!(packet_id.is_some(), qos != Qos::AtMostOnce);
            if number % 10 == 0 {
                clients.turn();
            }
        }
        clients.until("everything", |notices| {
            let count = |like: fn(&Notice) -> bool| notices.iter().filter(|n| like(n)).count();
            count(is_delivered) == 300 && count(is_acknowledged) == 200
        });
        for (level, wanted) in ALL_QOS.into_iter().enumerate() {
            let numbers: Vec<u32> = clients
                .notices
                .iter()
                .filter_map(|notice| match notice {
                    Notice::Delivered {
                        qos: of,
                        stamp: Some(stamp),
                        retained: false,
                        body: Body::Intact(24),
                        client: Client(0),
                    } if *of == wanted => Some(stamp.number),
                    _ => None,
                })
                .collect();
            let sent: Vec<u32> = (0..300).filter(|n| *n as usize % 3 == level).collect();
            assert_eq!(numbers, sent, "{wanted:?} in order");
        }
        assert_eq!(clients.count(is_unasked), 0);
        for client in [0, 1] {
            clients.swarm.disconnect(Client(client), Leave::Politely);
        }
    }
}

#[test]
fn filters_are_granted_and_refused_one_by_one() {
    let under = Under::new(|config| {
        config.access.rules = vec![Rule {
            effect: Effect::Deny,
            action: Action::Subscribe,
            filter: "secret/#".to_owned(),
            client: "*".to_owned(),
            ..Rule::default()
        }];
    });
    let mut clients = Clients::new(under.address, 1);
    clients.connect(0, &hello("c", Version::V5));
    let names: Vec<String> = (0..1_000)
        .map(|n| format!("{}/{n}", if n % 10 == 0 { "secret" } else { "open" }))
        .collect();
    let filters: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Qos::AtMostOnce))
        .collect();
    clients.swarm.subscribe(Client(0), &filters).unwrap();
    clients.until_one("SUBACK", is_subscribed);
    assert!(clients.notices.contains(&Notice::Subscribed {
        client: Client(0),
        granted: 900,
        refused: 100
    }));
    assert!(clients.swarm.subscribe(Client(0), &[]).is_err());
    clients.publish(0, "open/7", Qos::AtMostOnce, 7);
    clients.until_one("its own message", is_delivered);
    let bad = Outgoing {
        topic: "open/#",
        qos: Qos::AtMostOnce,
        retain: false,
        payload: &payload(0),
    };
    assert!(clients.swarm.publish(Client(0), &bad).is_err());
}

#[test]
fn a_retained_message_is_told_as_such_and_a_strange_one_has_no_stamp() {
    let under = Under::new(|_| ());
    let mut clients = Clients::new(under.address, 1);
    clients.connect(0, &hello("c", Version::V311));
    for (topic, payload) in [("r/1", &payload(5)[..]), ("r/2", b"of somebody else")] {
        let message = Outgoing {
            topic,
            qos: Qos::AtLeastOnce,
            retain: true,
            payload,
        };
        clients.swarm.publish(Client(0), &message).unwrap();
    }
    clients.until("answers", |notices| {
        notices.iter().filter(|n| is_acknowledged(n)).count() == 2
    });
    let filters = [("r/1", Qos::AtLeastOnce), ("r/2", Qos::AtMostOnce)];
    clients.swarm.subscribe(Client(0), &filters).unwrap();
    clients.until("both", |notices| {
        notices.iter().filter(|n| is_delivered(n)).count() == 2
    });
    let stamps = [
        (Qos::AtLeastOnce, Some(stamp(5)), Body::Intact(24)),
        (Qos::AtMostOnce, None, Body::Unknown),
    ];
    for (qos, stamp, body) in stamps {
        let delivered = Notice::Delivered {
            client: Client(0),
            qos,
            retained: true,
            stamp,
            body,
        };
        assert!(
            clients.notices.contains(&delivered),
            "{:?}",
            clients.notices
        );
    }
}

#[test]
fn a_session_is_there_again_and_brings_what_was_missed() {
    let under = Under::new(|_| ());
    for version in [Version::V311, Version::V5] {
        let mut clients = Clients::new(under.address, 2);
        let durable = Hello {
            clean_start: false,
            session_expiry_s: 60,
            ..hello("durable", version)
        };
        clients.connect(1, &hello("publisher", version));
        assert!(!clients.connect(0, &durable));
        let filter = [("s", Qos::ExactlyOnce)];
        clients.swarm.subscribe(Client(0), &filter).unwrap();
        clients.until_one("SUBACK", is_subscribed);
        clients.swarm.disconnect(Client(0), Leave::Abruptly);
        clients.publish(1, "s", Qos::ExactlyOnce, 9);
        clients.until_one("answer", is_acknowledged);
        assert!(clients.connect(0, &durable));
        clients.until_one("what was missed", is_delivered);
        assert_eq!(clients.delivered(), [9]);
        assert_eq!(clients.count(is_unasked), 0);
        // Away with the session, for the next version.
        let clean = hello("durable", version);
        assert!(!clients.connect(0, &clean));
    }
}

#[test]
fn what_was_published_before_a_goodbye_arrives() {
    const ROUNDS: u32 = 20;
    const EACH: u32 = 40;
    let under = Under::new(|_| ());
    let mut clients = Clients::new(under.address, 2);
    clients.connect(0, &hello("subscriber", Version::V5));
    let filter = [("far/+", Qos::AtMostOnce)];
    clients.swarm.subscribe(Client(0), &filter).unwrap();
    clients.until_one("SUBACK", is_subscribed);
    // More than a socket takes at once, so that the goodbye has to wait.
    let mut large = vec![0; 100_000];
    for round in 0..ROUNDS {
        clients.connect(1, &hello("publisher", Version::V311));
        for number in 0..EACH {
            stamp(round * EACH + number).write(&mut large);
            let message = Outgoing {
                topic: "far/away",
                qos: Qos::AtMostOnce,
                retain: false,
                payload: &large,
            };
            clients.swarm.publish(Client(1), &message).unwrap();
        }
        clients.swarm.disconnect(Client(1), Leave::Politely);
        let arrived = ((round + 1) * EACH) as usize;
        clients.until("the messages of the round", |notices| {
            notices.iter().filter(|n| is_delivered(n)).count() == arrived
        });
    }
    assert!(clients.delivered().into_iter().eq(0..ROUNDS * EACH));
    assert_eq!(clients.count(|n| matches!(n, Notice::Closed { .. })), 0);
}

#[test]
fn clients_come_and_go_at_any_moment() {
    const CLIENTS: u32 = 20;
    let under = Under::new(|_| ());
    let mut clients = Clients::new(under.address, CLIENTS);
    for round in 0..60 {
        for client in 0..CLIENTS {
            let id = client.to_string();
            let version = Version::ALL[(round + client as usize) % 3];
            // Whatever it was just doing: connecting, waiting for CONNACK, or connected.
            match (round + 7 * client as usize) % 4 {
                0 => clients.swarm.disconnect(Client(client), Leave::Politely),
                1 => clients.swarm.disconnect(Client(client), Leave::Abruptly),
                _ => {}
            }
            clients
                .swarm
                .connect(Client(client), &hello(&id, version))
                .unwrap();
        }
        for _ in 0..round % 4 {
            clients.turn();
        }
    }
    // The last connection of each stays.
    clients.notices.clear();
    for client in 0..CLIENTS {
        let id = format!("last-{client}");
        clients.connect(client, &hello(&id, Version::V5));
        let filter = [("t", Qos::AtMostOnce)];
        clients.swarm.subscribe(Client(client), &filter).unwrap();
    }
    clients.until("subscriptions", |notices| {
        notices.iter().filter(|n| is_subscribed(n)).count() == CLIENTS as usize
    });
    clients.publish(3, "t", Qos::AtLeastOnce, 1).unwrap();
    clients.until("deliveries", |notices| {
        notices.iter().filter(|n| is_delivered(n)).count() == CLIENTS as usize
    });
    assert_eq!(clients.count(is_unasked), 0);
}

#[test]
fn a_client_that_is_taken_over_is_told() {
    let under = Under::new(|_| ());
    let mut clients = Clients::new(under.address, 2);
    clients.connect(0, &hello("same", Version::V5));
    clients
        .swarm
        .connect(Client(1), &hello("same", Version::V5))
        .unwrap();
    assert_eq!(
        clients.closed(),
        "disconnected by the broker: Session taken over"
    );
}

#[test]
fn shares_of_a_plan_work_side_by_side() {
    const CLIENTS: u32 = 50;
    let under = Under::new(|_| ());
    let mut shares: Vec<Clients> = (0..3)
        .map(|index| {
            Clients::with(RealOptions {
                share: Share { index, count: 3 },
                ..RealOptions::new(under.address, CLIENTS)
            })
        })
        .collect();
    for (share, owned) in shares.iter_mut().zip([17, 17, 16]) {
        for client in (0..CLIENTS + 3).map(Client) {
            let id = client.0.to_string();
            if share.swarm.owns(client, &id) {
                let hello = hello(&id, Version::V5);
                share.swarm.connect(client, &hello).unwrap();
            }
        }
        share.until("connections", |notices| notices.len() == owned);
        for notice in &share.notices {
            assert!(matches!(notice, Notice::Connected { .. }), "{notice:?}");
        }
    }
}

#[test]
fn an_idle_client_costs_a_slot_and_nothing_else() {
    const CLIENTS: u32 = 300;
    let under = Under::new(|_| ());
    let mut clients = Clients::new(under.address, CLIENTS);
    for client in 0..CLIENTS {
        let id = format!("idle-{client}");
        let hello = Hello {
            keep_alive_s: 300,
            ..hello(&id, Version::V5)
        };
        clients.swarm.connect(Client(client), &hello).unwrap();
    }
    let mut at = 0;
    clients.until("connections", |notices| {
        at = notices.len();
        at == CLIENTS as usize
    });
    for client in (0..CLIENTS).map(Client) {
        let filter = [("idle/+", Qos::AtLeastOnce)];
        clients.swarm.subscribe(client, &filter).unwrap();
    }
    clients.until("subscriptions", |notices| {
        notices.iter().filter(|n| is_subscribed(n)).count() == CLIENTS as usize
    });
    let each = clients.swarm.client_bytes() / CLIENTS as usize;
    // Debug builds add 16 bytes to a transport.
    assert!(each <= 88, "{each} bytes a client");
    println!("{each} bytes a client");
    let before = clients.swarm.shared_bytes();
    assert_eq!(clients.publish(0, "idle/1", Qos::AtLeastOnce, 1), Some(2));
    clients.until("deliveries", |notices| {
        notices.iter().filter(|n| is_delivered(n)).count() == CLIENTS as usize
    });
    let acknowledged = Notice::Acknowledged {
        client: Client(0),
        packet_id: std::num::NonZeroU16::new(2).unwrap(),
        reason: ReasonCode::SUCCESS,
    };
    clients.until_one("PUBACK", |notice| *notice == acknowledged);
    let after = clients.swarm.client_bytes() / CLIENTS as usize;
    assert!(after <= each + 1, "{after} bytes a client, and not {each}");
    assert!(clients.swarm.shared_bytes() - before < 65_536);
}
