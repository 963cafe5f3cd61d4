//! Kafka goes away while clients publish, and comes back: nothing that was acknowledged is missing, publishers are held and
//! not cut, the rest of the broker goes on, and the status says so truly.

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bridge::{Ack, Deliver, Reachability, RouteConfig};
use broker::codec::{Packet, Properties, Qos, ReasonCode, Version};
use common::mqtt::{Client, Event};
use common::{Node, config, log, stored_in, wait_for};
use testkit::kafka::Kafka;

/// Publishes of one client that are not acknowledged.
const WINDOW: usize = 600;
/// What may wait for Kafka; less than all windows together.
const QUEUE_MESSAGES_MAX: u32 = 1_000;
const PUBLISHERS: u32 = 4;

/// A client that publishes 0, 1, 2, … as fast as it is acknowledged, until it is stopped and all is acknowledged.
struct Publisher {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    thread: JoinHandle<u32>,
}

impl Publisher {
    fn start(address: SocketAddr, number: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU32::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        // Both ways of flow control: receive maximum (5.0), and publishes that wait in the broker (3.1.1).
        let version = if number.is_multiple_of(2) {
            Version::V5
        } else {
            Version::V311
        };
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(address, version, &format!("publisher-{number}"));
            let topic = format!("out/{number}");
            let mut open: HashMap<u16, u32> = HashMap::new();
            let mut next = 0;
            let mut next_acknowledged = 0;
            loop {
                let stopping = stopped.load(Ordering::SeqCst);
                while !stopping && open.len() < WINDOW {
                    let payload = next.to_string();
                    let id = client.publish(
                        &topic,
                        Qos::AtLeastOnce,
                        payload.as_bytes(),
                        Properties::default(),
                    );
                    open.insert(id.unwrap(), next);
                    next += 1;
                }
                if open.is_empty() {
                    return next;
                }
                match client.next(Duration::from_millis(100)) {
                    None => {}
                    Some(Event::PubAck {
                        packet_id,
                        reason: ReasonCode::SUCCESS,
                    }) => {
                        // In the order in which they were published [MQTT-4.6.0-2].
                        assert_eq!(open.remove(&packet_id), Some(next_acknowledged));
                        next_acknowledged += 1;
                        counted.store(next_acknowledged, Ordering::SeqCst);
                    }
                    Some(other) => panic!("publisher {number}: {other:?}"),
                }
            }
        });
        Self {
            stop,
            acknowledged,
            thread,
        }
    }
}

fn acknowledged(publishers: &[Publisher]) -> u32 {
    publishers
        .iter()
        .map(|publisher| publisher.acknowledged.load(Ordering::SeqCst))
        .sum()
}

fn outage(end: impl Fn(&Kafka)) {
    let kafka = Kafka::start();
    let mut config = config(kafka.bootstrap());
    config.producer.queue_messages_max = QUEUE_MESSAGES_MAX;
    let node = Node::start(&config);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| Publisher::start(node.address, number))
        .collect();
    let mut talker = Client::connect(node.address, Version::V311, "talker");
    let mut listener = Client::connect(node.address, Version::V5, "listener");
    listener.subscribe("rooms/+/typing", Qos::AtLeastOnce);

    wait_for("messages are acknowledged", || {
        acknowledged(&publishers) >= 10_000
    });
    assert_eq!(node.status().kafka, Reachability::Reachable);
    end(&kafka);

    wait_for(
        "the bridge says that Kafka is away and how many messages wait",
        || {
            let status = node.status();
            let says = status.to_string();
            matches!(status.kafka, Reachability::Unreachable { .. })
                && status.waiting > 0
                && status.held > 0
                && says.starts_with("Kafka unreachable since ")
                && says.ends_with(&format!(", {} messages wait", status.waiting))
        },
    );
    let before = acknowledged(&publishers);
    // The rest of the broker goes on.
    for round in 0..20 {
        let payload = format!("typing {round}");
        talker.publish(
            "rooms/lobby/typing",
            Qos::AtLeastOnce,
            payload.as_bytes(),
            Properties::default(),
        );
        assert!(matches!(
            talker.next(common::DEADLINE),
            Some(Event::PubAck { .. })
        ));
        match listener.message() {
            Event::Message {
                payload: received, ..
            } => assert_eq!(received, payload.as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        acknowledged(&publishers),
        before,
        "an acknowledgement means stored"
    );
    assert!(node.status().waiting <= u64::from(QUEUE_MESSAGES_MAX));

    kafka.start_again();
    wait_for("the bridge says that Kafka is back", || {
        node.status().kafka == Reachability::Reachable
    });
    wait_for("publishers go on", || {
        acknowledged(&publishers) >= before + 10_000
    });
    for publisher in &publishers {
        publisher.stop.store(true, Ordering::SeqCst);
    }
    let published: Vec<u32> = publishers
        .into_iter()
        .map(|publisher| publisher.thread.join().unwrap())
        .collect();
    let total = u64::from(published.iter().sum::<u32>());
    let status = node.status();
    assert_eq!(
        (status.stored, status.accepted, status.waiting),
        (total, total, 0)
    );
    assert_eq!((status.refused.total(), status.dropped), (0, 0));
    assert_eq!(node.stop(), 0);

    // Every publisher's messages are in Kafka: all, once, and in order.
    let records = log::read_all(kafka.bootstrap(), stored_in(&config));
    let mut stored: HashMap<String, Vec<u32>> = HashMap::new();
    for record in &records {
        let envelope = record.envelope().unwrap();
        stored
            .entry(envelope.topic.to_owned())
            .or_default()
            .push(record.text().parse().unwrap());
    }
    for (number, count) in published.into_iter().enumerate() {
        let of_publisher = &stored[&format!("out/{number}")];
        assert!(
            of_publisher.iter().copied().eq(0..count),
            "publisher {number}: {count} published, stored {of_publisher:?}"
        );
    }
}

#[test]
fn kafka_is_stopped_and_started_again() {
    outage(Kafka::stop);
}

#[test]
fn kafka_is_killed_and_started_again() {
    outage(Kafka::kill);
}

#[test]
fn who_is_held_while_kafka_is_away_is_answered_and_its_end_is_seen() {
    const QUEUE: usize = 10;
    let kafka = Kafka::start();
    let mut config = config(kafka.bootstrap());
    config.producer.queue_messages_max = QUEUE as u32;
    // Which then may take all of it.
    config.partitions = 1;
    let node = Node::start(&config);
    let mut talker = Client::connect(node.address, Version::V311, "talker");
    kafka.kill();
    for (number, version) in [Version::V311, Version::V5].into_iter().enumerate() {
        let mut held = Client::connect(node.address, version, &format!("held-{number}"));
        held.subscribe("rooms/+/typing", Qos::AtLeastOnce);
        for n in 0..2 * QUEUE {
            held.publish(
                &format!("out/{number}"),
                Qos::AtLeastOnce,
                n.to_string().as_bytes(),
                Properties::default(),
            );
        }
        wait_for("it is held", || node.counters().publishers_held == 1);
        // More than may be in flight to it: its acknowledgements are read.
        for round in 0..200_u32 {
            let payload = round.to_string();
            talker.publish(
                "rooms/lobby/typing",
                Qos::AtLeastOnce,
                payload.as_bytes(),
                Properties::default(),
            );
            assert!(matches!(
                talker.next(common::DEADLINE),
                Some(Event::PubAck { .. })
            ));
            match held.message() {
                Event::Message {
                    payload: received, ..
                } => assert_eq!(received, payload.as_bytes()),
                other => panic!("{other:?}"),
            }
        }
        held.send(&Packet::PingReq);
        assert_eq!(held.next(common::DEADLINE), Some(Event::Other));
        drop(held);
        wait_for("its end is seen", || {
            let counters = node.counters();
            (counters.clients, counters.publishers_held) == (1, 0)
        });
    }
    // What had room waits for Kafka; the rest was dropped, and nobody was told otherwise.
    let counters = node.counters();
    assert_eq!(counters.sink_pending, QUEUE as u64);
    assert_eq!(counters.read_ahead_dropped, 3 * QUEUE as u64);
    kafka.start_again();
    wait_for("what waited is stored", || node.status().waiting == 0);
    assert_eq!(node.stop(), 0);
    let records = log::read_all(kafka.bootstrap(), stored_in(&config));
    let stored: Vec<_> = records.iter().map(log::Record::text).collect();
    let expected: Vec<_> = (0..QUEUE).map(|n| n.to_string()).collect();
    assert_eq!(stored, expected);
}

#[test]
fn an_idle_bridge_notices_that_kafka_is_away_and_that_it_is_back() {
    let kafka = Kafka::start();
    let mut config = config(kafka.bootstrap());
    config.downlink.enabled = false;
    let node = Node::start(&config);
    kafka.kill();
    wait_for("the bridge says that Kafka is away", || {
        node.status()
            .to_string()
            .starts_with("Kafka unreachable since ")
    });
    assert!(node.status().to_string().ends_with(", 0 messages wait"));
    kafka.start_again();
    wait_for("the bridge says that Kafka is back", || {
        node.status().to_string() == "Kafka reachable, 0 messages wait"
    });
}

#[test]
fn a_node_ends_while_kafka_is_away_and_says_what_was_not_confirmed() {
    let kafka = Kafka::start();
    let config = config(kafka.bootstrap());
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    kafka.kill();
    for _ in 0..5 {
        client.publish("a", Qos::AtLeastOnce, b"x", Properties::default());
    }
    wait_for("they wait", || node.status().waiting == 5);
    assert_eq!(node.stop_within(Duration::from_millis(200)), 5);
    while let Some(event) = client.next(Duration::from_millis(100)) {
        assert!(
            !matches!(
                event,
                Event::PubAck {
                    reason: ReasonCode::SUCCESS,
                    ..
                }
            ),
            "{event:?}"
        );
        if event == Event::Closed {
            break;
        }
    }
}

#[test]
fn routes_decide_who_waits_for_kafka() {
    let kafka = Kafka::start();
    let mut config = config(kafka.bootstrap());
    let topic = stored_in(&config).to_owned();
    let received = RouteConfig {
        ack: Ack::Received,
        ..RouteConfig::new("received", &topic)
    };
    let after = RouteConfig {
        deliver: Deliver::AfterPersisted,
        ..RouteConfig::new("after", &topic)
    };
    config.routes.splice(0..0, [received, after]);
    let node = Node::start(&config);
    let mut subscriber = Client::connect(node.address, Version::V5, "subscriber");
    subscriber.subscribe("#", Qos::AtLeastOnce);
    let mut publisher = Client::connect(node.address, Version::V5, "publisher");
    let mut publish = |topic: &str| {
        publisher
            .publish(topic, Qos::AtLeastOnce, b"x", Properties::default())
            .unwrap()
    };
    let topic_of = |event: Option<Event>| match event {
        Some(Event::Message { topic, .. }) => topic,
        other => panic!("not a message: {other:?}"),
    };

    kafka.kill();
    let after = publish("after");
    let now = publish("now");
    let received = publish("received");
    assert_eq!(topic_of(subscriber.next(common::DEADLINE)), "now");
    assert_eq!(topic_of(subscriber.next(common::DEADLINE)), "received");
    wait_for("all three wait for Kafka", || node.status().waiting == 3);
    // Acknowledgements leave in the order in which the publishes came [MQTT-4.6.0-2], so even the one that waits for
    // nothing waits for those before it.
    assert_eq!(publisher.next(Duration::from_millis(300)), None);
    assert_eq!(subscriber.next(Duration::from_millis(300)), None);

    kafka.start_again();
    for packet_id in [after, now, received] {
        let expected = Event::PubAck {
            packet_id,
            reason: ReasonCode::SUCCESS,
        };
        assert_eq!(publisher.next(common::DEADLINE), Some(expected));
    }
    assert_eq!(topic_of(subscriber.next(common::DEADLINE)), "after");
    wait_for("all three are stored", || node.status().stored == 3);

    // With nothing before it, it is acknowledged while Kafka is away.
    kafka.kill();
    let received = publisher
        .publish("received", Qos::AtLeastOnce, b"x", Properties::default())
        .unwrap();
    let expected = Event::PubAck {
        packet_id: received,
        reason: ReasonCode::SUCCESS,
    };
    assert_eq!(publisher.next(common::DEADLINE), Some(expected));
}
