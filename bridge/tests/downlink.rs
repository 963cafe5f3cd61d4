//! Kafka to MQTT: what is appended to the downlink topic reaches subscribers, a restart neither skips nor begins anew, and
//! what is no message becomes a dead letter.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bridge::{Bridge, DownlinkOutcome};
use broker::Broker;
use broker::codec::{Qos, Version};
use common::mqtt::{Client, Event};
use common::{DEADLINE, Node, config, log, unique, wait_for};
use envelope::Downlink;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use testkit::kafka::Kafka;

fn numbers(range: std::ops::Range<u32>) -> Vec<Downlink> {
    // Several topics, so that several partitions and both workers have their part.
    range
        .map(|number| Downlink::new(format!("news/{}", number % 7), number.to_string()).qos(1))
        .collect()
}

/// Receives until `count` different numbers have come, and returns all that came.
fn receive(client: &mut Client, count: usize) -> Vec<u32> {
    let mut received = Vec::new();
    let mut different = BTreeSet::new();
    while different.len() < count {
        match client.next(DEADLINE) {
            Some(Event::Message { payload, topic, .. }) => {
                let number: u32 = String::from_utf8(payload).unwrap().parse().unwrap();
                assert_eq!(topic, format!("news/{}", number % 7));
                received.push(number);
                different.insert(number);
            }
            other => panic!("{count} expected, {} came, then {other:?}", different.len()),
        }
    }
    received
}

fn quiet(client: &mut Client) {
    assert_eq!(
        client.next(Duration::from_millis(500)),
        None,
        "nothing more comes"
    );
}

#[test]
fn a_new_node_begins_at_the_end_and_a_restarted_one_where_it_stopped() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let topic = &config.downlink.topic;
    // The first node makes the topic; the second has never been there.
    Node::start(&config).stop();
    log::append(kafka, topic, &numbers(0..50));
    let config = bridge::Config {
        node: unique("another"),
        ..config.clone()
    };

    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.subscribe("news/#", Qos::AtLeastOnce);
    log::append(kafka, topic, &numbers(50..1_000));
    let first: BTreeSet<u32> = receive(&mut client, 950).into_iter().collect();
    assert!(first.into_iter().eq(50..1_000));
    quiet(&mut client);
    assert_eq!(node.stop(), 0);

    // Without the node; and in a topic in which it has read everything.
    log::append(kafka, topic, &numbers(1_000..1_500));
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.subscribe("news/#", Qos::AtLeastOnce);
    wait_for("it reads what it missed, and nothing before", || {
        node.status().downlink.published >= 500
    });
    log::append(kafka, topic, &numbers(1_500..1_600));
    wait_for("it goes on", || node.status().downlink.delivered >= 600);
    let status = node.status().downlink;
    assert_eq!(
        (status.published, status.malformed, status.rewinds),
        (600, 0, 0)
    );
    node.stop();
}

#[test]
fn a_node_that_read_nothing_yet_skips_nothing_when_it_restarts() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    Node::start(&config).stop();
    log::append(kafka, &config.downlink.topic, &numbers(0..10));
    let node = Node::start(&config);
    wait_for("it reads what was appended meanwhile", || {
        node.status().downlink.delivered == 10
    });
}

#[test]
fn a_node_that_is_killed_has_its_position_in_kafka() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let topic = &config.downlink.topic;
    let killed = Node::start(&config);
    log::append(kafka, topic, &numbers(0..300));
    wait_for("the position is committed while it runs", || {
        log::committed(kafka, &config.downlink_group(), topic) == 300
    });
    // For Kafka, a node that is killed is one of which nothing more is heard. This one lives on, so its name is taken; the
    // next one goes on under the same group.
    let mut next = config.clone();
    next.downlink.group = config.downlink_group();
    next.node = unique("next");
    let node = Node::start(&next);
    log::append(kafka, topic, &numbers(300..310));
    wait_for("the next one goes on", || {
        node.status().downlink.delivered >= 10
    });
    assert_eq!(node.status().downlink.published, 10);
    drop(killed);
}

#[test]
fn no_position_is_committed_before_sessions_have_the_messages() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    // A broker whose workers do not run: it takes what it is handed, and nothing arrives.
    let stuck = Broker::bind(broker::Config {
        listen: "127.0.0.1:0".into(),
        ..broker::Config::default()
    })
    .unwrap();
    let bridge = Bridge::start(&config, stuck.handle()).unwrap();
    log::append(kafka, &config.downlink.topic, &numbers(0..100));
    wait_for("all are handed over", || {
        bridge.status().downlink.published == 100
    });
    assert_eq!(bridge.status().downlink.delivered, 0);
    bridge.shutdown(Duration::ZERO);
    drop(stuck);
    let node = Node::start(&config);
    wait_for("they come again", || {
        node.status().downlink.delivered >= 100
    });
    assert_eq!(node.status().downlink.published, 100);
}

#[test]
fn a_node_ends_while_kafka_is_away_and_has_not_taken_its_position() {
    let kafka = Kafka::start();
    let mut config = config(kafka.bootstrap());
    config.downlink.commit_interval_ms = 60_000;
    let node = Node::start(&config);
    log::append(kafka.bootstrap(), &config.downlink.topic, &numbers(0..10));
    wait_for("all have arrived", || {
        node.status().downlink.delivered == 10
    });
    kafka.kill();
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        node.stop_within(Duration::ZERO);
        let _ = done.send(());
    });
    assert_eq!(ended.recv_timeout(DEADLINE), Ok(()), "the node ends");
}

#[test]
fn messages_of_one_topic_keep_their_order() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V311, "c1");
    client.subscribe("news/3", Qos::AtLeastOnce);
    log::append(kafka, &config.downlink.topic, &numbers(0..7_000));
    let received = receive(&mut client, 1_000);
    assert!(
        received
            .into_iter()
            .eq((0..7_000).filter(|number| number % 7 == 3))
    );
}

#[test]
fn more_than_may_be_outstanding_comes_through() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    config.downlink.outstanding_messages_max = 10;
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.subscribe("news/#", Qos::AtLeastOnce);
    log::append(kafka, &config.downlink.topic, &numbers(0..500));
    assert_eq!(receive(&mut client, 500).len(), 500);
}

#[test]
fn what_is_no_message_becomes_a_dead_letter_and_the_rest_goes_on() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let topic = &config.downlink.topic;
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.subscribe("#", Qos::AtLeastOnce);
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let some = |text: &str| Some(text.as_bytes().to_vec());
    log::append_raw(
        kafka,
        topic,
        &[
            (None, some("no topic"), vec![]),
            (
                some("a/+"),
                some("a wildcard"),
                vec![header("mine", "1"), header("mine", "2")],
            ),
            (
                some("a"),
                some("a number"),
                vec![header("mqtt.qos", "three")],
            ),
            (some("$SYS/x"), some("reserved"), vec![]),
            (
                some("a"),
                some("expired"),
                vec![header("mqtt.message-expiry", "0")],
            ),
            (some("good"), some("fine"), vec![]),
        ],
    );
    match client.message() {
        Event::Message {
            topic,
            payload,
            qos,
            ..
        } => {
            assert_eq!(
                (topic.as_str(), payload.as_slice(), qos),
                ("good", b"fine".as_slice(), Qos::AtMostOnce)
            );
        }
        other => panic!("{other:?}"),
    }
    wait_for("the others are counted", || {
        let status = node.status().downlink;
        (
            status.malformed,
            status.dead_lettered,
            status.expired,
            status.delivered,
        ) == (4, 4, 1, 1)
    });
    let mut letters = log::read_all(kafka, &config.downlink.dead_letter_topic);
    letters.sort_by_key(log::Record::text);
    let texts: Vec<_> = letters.iter().map(log::Record::text).collect();
    assert_eq!(texts, ["a number", "a wildcard", "no topic", "reserved"]);
    for letter in &letters {
        assert_eq!(
            letter.header("__connect.errors.topic").as_deref(),
            Some(topic.as_str())
        );
        assert_eq!(
            letter.header("__connect.errors.connector.name"),
            Some(config.downlink_group())
        );
        assert!(
            letter
                .header("__connect.errors.offset")
                .unwrap()
                .parse::<i64>()
                .is_ok()
        );
    }
    let wildcard = &letters[1];
    assert_eq!(wildcard.key.as_deref(), Some(b"a/+".as_slice()));
    assert_eq!(
        wildcard.headers[..2],
        [header("mine", "1"), header("mine", "2")]
    );
    let reason = wildcard
        .header("__connect.errors.exception.message")
        .unwrap();
    assert!(reason.contains("key is no topic name"), "{reason}");
    quiet(&mut client);
    node.stop();
    // They are behind us.
    let node = Node::start(&config);
    log::append(kafka, topic, &[Downlink::new("good", "again")]);
    wait_for("it goes on behind them", || {
        node.status().downlink.delivered >= 1
    });
    assert_eq!(node.status().downlink.delivered, 1);
    assert_eq!(node.status().downlink.malformed, 0);
}

#[test]
fn of_several_nodes_one_writes_the_dead_letter_and_another_goes_on_where_it_ended() {
    let kafka = Kafka::shared().bootstrap();
    let first = config(kafka);
    let second = bridge::Config {
        node: unique("second"),
        ..first.clone()
    };
    let append = |numbers: std::ops::Range<u32>| {
        let broken: Vec<log::Raw> = numbers
            .map(|number| {
                let key = format!("no/topic/+/{number}");
                (
                    Some(key.into_bytes()),
                    Some(number.to_string().into_bytes()),
                    vec![],
                )
            })
            .collect();
        log::append_raw(kafka, &first.downlink.topic, &broken);
    };
    let letters = || log::read_all(kafka, &first.downlink.dead_letter_topic);
    let written = |node: &Node| node.status().downlink.dead_lettered;

    let (one, other) = (Node::start(&first), Node::start(&second));
    append(0..30);
    for node in [&one, &other] {
        wait_for("each node sees all", || {
            node.status().downlink.malformed == 30
        });
    }
    wait_for("each has a letter", || {
        written(&one) + written(&other) >= 30
    });

    // Whatever was the matter of the one is the other's.
    one.stop();
    let before = written(&other);
    append(30..60);
    wait_for("the other writes them", || written(&other) >= before + 30);
    other.stop();

    // While nobody is there; and the first node reads for itself what the second has written letters of.
    append(60..70);
    let node = Node::start(&first);
    wait_for("it reads on", || node.status().downlink.malformed == 40);
    wait_for("it writes what is left", || written(&node) >= 10);
    node.stop();
    let mut texts: Vec<u32> = letters()
        .iter()
        .map(|letter| letter.text().parse().unwrap())
        .collect();
    texts.sort_unstable();
    assert!(texts.iter().copied().eq(0..70), "{texts:?}");
}

#[test]
fn a_broken_record_too_large_for_its_dead_letter_is_cut() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let dlq = &config.downlink.dead_letter_topic;
    let modest = NewTopic::new(dlq, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "3000");
    let created =
        log::block_on(log::admin(kafka).create_topics([&modest], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let node = Node::start(&config);
    // Bytes that no compression makes smaller.
    let mut state = 7_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(5_000)
    .collect();
    let small = (Some(b"a/+".to_vec()), Some(b"small".to_vec()), vec![]);
    let large = (Some(b"a/+".to_vec()), Some(noise.clone()), vec![]);
    log::append_raw(kafka, &config.downlink.topic, &[small, large]);
    wait_for("both have a letter", || {
        node.status().downlink.dead_lettered == 2
    });
    let letters = log::read_all(kafka, dlq);
    let payloads: Vec<_> = letters.iter().map(|letter| &letter.payload).collect();
    assert_eq!(
        payloads,
        [&Some(b"small".to_vec()), &Some(noise[..512].to_vec())]
    );
    let message = letters[1].header("__connect.errors.exception.message");
    let message = message.unwrap_or_default();
    assert!(message.contains("payload of 5000 bytes"), "{message}");
}

#[test]
fn each_record_has_one_outcome() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let mut client = Client::connect(node.address, Version::V5, "c1");
    client.subscribe("here/#", Qos::AtLeastOnce);
    let mut records: Vec<_> = (0..700)
        .map(|number| Downlink::new(format!("here/{}", number % 7), "x").qos(1))
        .collect();
    records.extend((0..600).map(|number| Downlink::new(format!("nobody/{}", number % 7), "x")));
    records.push(Downlink::new("here/1", "late").message_expiry_s(0));
    records.push(Downlink::new("a/+", "no topic"));
    log::append(kafka, &config.downlink.topic, &records);
    let outcomes = || {
        let outcomes = node.status().downlink.outcomes;
        DownlinkOutcome::ALL.map(|outcome| (outcome, outcomes.of(outcome)))
    };
    wait_for("all have an outcome", || {
        outcomes().iter().map(|(_, times)| times).sum::<u64>() >= 1_302
    });
    let mut came = outcomes().to_vec();
    came.retain(|(_, times)| *times > 0);
    // As much as the client may have in flight was sent, and the rest waits.
    let [sent, waits, rest @ ..] = &came[..] else {
        panic!("{came:?}")
    };
    assert_eq!(
        (sent.0, waits.0, sent.1 + waits.1),
        (DownlinkOutcome::Delivered, DownlinkOutcome::Queued, 700),
        "{came:?}"
    );
    assert_eq!(
        rest,
        [
            (DownlinkOutcome::NoSession, 600),
            (DownlinkOutcome::Expired, 1),
            (DownlinkOutcome::Malformed, 1)
        ]
    );
}
