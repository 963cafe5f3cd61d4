//! PUBLISH from a client: how each QoS is answered, and what a repetition means.

use broker::{Action, Effect, RefusedPublish, Rule};
use codec::{Packet, ReasonCode, Version};

use crate::support::{NOTHING, Net, Pub, everywhere, options};

#[test]
fn qos_0_is_not_answered_and_arrives() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").version(version).connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish("t", 0, "x");
        assert_eq!(publisher.got(), NOTHING);
        assert_eq!(subscriber.got(), ["PUBLISH t x"]);
    });
}

#[test]
fn qos_1_is_answered_with_puback_and_arrives() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").version(version).connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish_with(&Pub::new("t", "x").qos(1, 700));
        assert_eq!(publisher.got(), ["PUBACK #700"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x q1 #1"]);
    });
}

#[test]
fn qos_2_takes_four_packets_and_arrives_with_the_first() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").version(version).connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish_with(&Pub::new("t", "x").qos(2, 700));
        assert_eq!(publisher.got(), ["PUBREC #700"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x q2 #1"]);
        publisher.pubrel(700);
        assert_eq!(publisher.got(), ["PUBCOMP #700"]);
        assert_eq!(subscriber.got(), NOTHING);
    });
}

#[test]
fn a_qos_2_publish_repeated_before_its_pubrel_is_answered_and_not_delivered_again() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").connect();
        subscriber.subscribe("t", 0);
        let mut publisher = net.client("p").version(version).connect();
        let publish = Pub::new("t", "x").qos(2, 7);
        publisher.publish_with(&publish);
        publisher.publish_with(&publish.clone().dup());
        assert_eq!(publisher.got(), ["PUBREC #7", "PUBREC #7"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x"]);
        // After PUBREL the identifier names a new message.
        publisher.pubrel(7);
        publisher.publish_with(&publish);
        assert_eq!(publisher.got(), ["PUBCOMP #7", "PUBREC #7"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x"]);
        assert_eq!(net.stats().publishes_duplicate, 1);
    });
}

#[test]
fn a_qos_2_exchange_goes_on_after_a_reconnect() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").connect();
        subscriber.subscribe("t", 0);
        let join = net.client("p").version(version).persistent();
        let mut publisher = join.connect();
        let publish = Pub::new("t", "x").qos(2, 7);
        publisher.publish_with(&publish);
        publisher.cut();
        let mut publisher = join.connect();
        publisher.publish_with(&publish.dup());
        assert_eq!(publisher.got(), ["PUBREC #7"]);
        publisher.cut();
        let mut publisher = join.connect();
        publisher.pubrel(7);
        assert_eq!(publisher.got(), ["PUBCOMP #7"]);
        assert_eq!(subscriber.got(), ["PUBLISH t x"]);
    });
}

#[test]
fn a_qos_1_publish_repeated_is_a_new_one() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").connect();
        subscriber.subscribe("t", 0);
        let mut publisher = net.client("p").version(version).connect();
        let publish = Pub::new("t", "x").qos(1, 7);
        publisher.publish_with(&publish);
        publisher.publish_with(&publish.dup());
        assert_eq!(publisher.got(), ["PUBACK #7", "PUBACK #7"]);
        // DUP is of the publisher's hop only [MQTT-3.3.1-3].
        assert_eq!(subscriber.got(), ["PUBLISH t x", "PUBLISH t x"]);
    });
}

#[test]
fn a_pubrel_of_an_unknown_identifier_is_answered() {
    everywhere(|net, version| {
        let mut client = net.client("p").version(version).connect();
        client.pubrel(9);
        let said = match version {
            Version::V5 => "PUBCOMP #9 0x92",
            _ => "PUBCOMP #9",
        };
        assert_eq!(client.got(), [said]);
    });
}

#[test]
fn a_denied_publish_closes_a_3x_client_where_the_operator_wants_it() {
    everywhere(|_, version| {
        let net = Net::with(|config| {
            config.access.refused_publish_3x = RefusedPublish::Close;
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Publish,
                filter: "secret/#".to_owned(),
                client: "*".to_owned(),
                ..Rule::default()
            }];
        });
        let mut subscriber = net.join("s");
        subscriber.subscribe("#", 2);
        for level in [1, 2] {
            let join = net.client(&format!("p{level}")).version(version);
            let mut publisher = join.connect();
            publisher.publish("secret/t", level, "x");
            let said: &[&str] = match (version, level) {
                (Version::V5, 1) => &["PUBACK #1 0x87"],
                (Version::V5, _) => &["PUBREC #1 0x87"],
                _ => &["closed"],
            };
            assert_eq!(publisher.got(), said);
        }
        // QoS 0 has no answer.
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish("secret/t", 0, "x");
        publisher.publish("open/t", 0, "y");
        assert_eq!(publisher.got(), NOTHING);
        assert_eq!(subscriber.got(), ["PUBLISH open/t y"]);
        assert_eq!(net.stats().publishes_denied(), 3);
    });
}

#[test]
fn a_publish_that_may_not_be_is_dropped_and_a_3x_client_lives_on() {
    everywhere(|_, version| {
        let net = Net::with(|config| {
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Publish,
                filter: "secret/#".to_owned(),
                client: "*".to_owned(),
                ..Rule::default()
            }];
        });
        let mut subscriber = net.join("s");
        subscriber.subscribe_with(&[("#", options(0)), ("$own/#", options(0))], &[]);
        assert_eq!(subscriber.got(), ["SUBACK #1 [0x00, 0x00]"]);
        let mut publisher = net.client("p").version(version).connect();
        for topic in ["secret/t", "$own/t"] {
            for level in [0, 1, 2] {
                publisher.publish(topic, level, "x");
            }
        }
        let said: [&str; 4] = match version {
            Version::V5 => [
                "PUBACK #1 0x87",
                "PUBREC #2 0x87",
                "PUBACK #3 0x87",
                "PUBREC #4 0x87",
            ],
            _ => ["PUBACK #1", "PUBREC #2", "PUBACK #3", "PUBREC #4"],
        };
        assert_eq!(publisher.got(), said);
        publisher.publish("open/t", 1, "y");
        assert_eq!(publisher.got(), ["PUBACK #5"]);
        assert_eq!(subscriber.got(), ["PUBLISH open/t y"]);
        let stats = net.stats();
        assert_eq!((stats.denied_access, stats.denied_reserved_topic), (3, 3));
        let denied = net.handle().denied();
        let times = |rule: &str| {
            denied
                .iter()
                .find(|denied| denied.rule == rule)
                .unwrap()
                .times
        };
        assert_eq!((times("rules[0]"), times("reserved-topic")), (3, 3));
    });
}

#[test]
fn clients_do_not_publish_to_the_brokers_own_topics() {
    let net = Net::new();
    let mut subscriber = net.join("s");
    subscriber.subscribe("$SYS/#", 0);
    let mut publisher = net.join("p");
    publisher.publish("$SYS/broker/uptime", 1, "x");
    assert_eq!(publisher.got(), ["PUBACK #1 0x87"]);
    assert_eq!(subscriber.got(), NOTHING);
}

#[test]
fn a_disconnect_ends_what_the_client_says() {
    let net = Net::new();
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 0);
    let mut publisher = net.join("p");
    let before = publisher.encode_publish(&Pub::new("t", "before"));
    let disconnect = publisher.encode(&Packet::Disconnect(codec::Disconnect {
        reason: ReasonCode::NORMAL_DISCONNECTION,
        properties: codec::Properties::EMPTY,
    }));
    let after = publisher.encode_publish(&Pub::new("t", "after"));
    publisher.write(&[before, disconnect, after].concat());
    assert_eq!(subscriber.got(), ["PUBLISH t before"]);
    assert_eq!(publisher.got(), ["closed"]);
}

#[test]
fn what_was_published_before_a_disconnect_is_acknowledged() {
    everywhere(|net, version| {
        let mut publisher = net.client("p").version(version).connect();
        let mut bytes = publisher.encode_publish(&Pub::new("t", "x").qos(1, 1));
        bytes.extend(publisher.encode_publish(&Pub::new("t", "x").qos(2, 2)));
        bytes.extend([0xe0, 0]);
        publisher.write(&bytes);
        assert_eq!(publisher.got(), ["PUBACK #1", "PUBREC #2", "closed"]);
    });
}

#[test]
fn the_order_of_a_publishers_messages_holds_across_workers() {
    let net = Net::with(|config| config.workers = 3);
    let mut subscribers: Vec<_> = (0..6).map(|at| net.join(&format!("s{at}"))).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("t/#", 1);
    }
    let mut publishers: Vec<_> = (0..6).map(|at| net.join(&format!("p{at}"))).collect();
    for round in 0..20 {
        for (at, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish(&format!("t/{at}"), round % 2, round.to_string());
        }
        // Turns in another order than the workers'.
        net.sim().turn([2, 0]);
    }
    for subscriber in &mut subscribers {
        for id in 1..=60 {
            subscriber.puback(id);
        }
        let got = subscriber.got();
        for at in 0..6 {
            let of_one = format!("PUBLISH t/{at} ");
            let payloads: Vec<u8> = got
                .iter()
                .filter_map(|text| text.strip_prefix(&of_one)?.split(' ').next()?.parse().ok())
                .collect();
            let expected: Vec<u8> = (0..20).collect();
            assert_eq!(payloads, expected);
        }
    }
}
