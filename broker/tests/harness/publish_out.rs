//! Messages to a client: acknowledged, repeated when the client comes back, and never under an identifier in use.

use codec::{Packet, Property, ReasonCode, Version};

use crate::support::{Client, NOTHING, Net, everywhere};

#[test]
fn a_message_is_delivered_with_the_lower_qos_of_publish_and_subscription() {
    everywhere(|net, version| {
        for subscribed in [0, 1, 2] {
            for published in [0, 1, 2] {
                let mut subscriber = net.client("s").version(version).connect();
                subscriber.subscribe("t", subscribed);
                net.join("p").publish("t", published, "x");
                let said = match subscribed.min(published) {
                    0 => "PUBLISH t x".to_owned(),
                    level => format!("PUBLISH t x q{level} #1"),
                };
                assert_eq!(subscriber.got(), [said]);
                subscriber.disconnect();
            }
        }
    });
}

#[test]
fn qos_1_is_done_with_puback() {
    everywhere(|net, version| {
        let join = net.client("s").version(version).persistent();
        let mut subscriber = join.connect();
        subscriber.subscribe("t", 1);
        net.join("p").publish("t", 1, "x");
        assert_eq!(net.stats().inflight, 1);
        subscriber.puback(1);
        let stats = net.stats();
        assert_eq!((stats.inflight, stats.delivered_acknowledged), (0, 1));
        subscriber.cut();
        assert_eq!(join.connect().got(), NOTHING);
    });
}

#[test]
fn qos_2_is_done_with_pubcomp() {
    everywhere(|net, version| {
        let join = net.client("s").version(version).persistent();
        let mut subscriber = join.connect();
        subscriber.subscribe("t", 2);
        net.join("p").publish("t", 2, "x");
        assert_eq!(subscriber.got(), ["PUBLISH t x q2 #1"]);
        subscriber.pubrec(1);
        assert_eq!(subscriber.got(), ["PUBREL #1"]);
        assert_eq!(net.stats().inflight, 1);
        subscriber.pubcomp(1);
        let stats = net.stats();
        assert_eq!((stats.inflight, stats.delivered_acknowledged), (0, 1));
    });
}

#[test]
fn what_was_not_acknowledged_is_sent_again_where_it_stood() {
    everywhere(|net, version| {
        let join = net.client("s").version(version).persistent();
        let mut subscriber = join.connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.join("p");
        for (level, payload) in [(1, "a"), (2, "b"), (2, "c"), (1, "d")] {
            publisher.publish("t", level, payload);
        }
        subscriber.pubrec(2);
        subscriber.puback(4);
        subscriber.cut();
        let mut subscriber = join.connect();
        let again = [
            "PUBLISH t a q1 #1 dup",
            "PUBREL #2",
            "PUBLISH t c q2 #3 dup",
        ];
        assert_eq!(subscriber.got(), again);
        subscriber.puback(1);
        subscriber.pubcomp(2);
        subscriber.pubrec(3);
        subscriber.pubcomp(3);
        assert_eq!(subscriber.got(), ["PUBREL #3"]);
        let stats = net.stats();
        assert_eq!(
            (
                stats.inflight,
                stats.delivered_acknowledged,
                stats.unaccounted()
            ),
            (0, 4, 0)
        );
    });
}

#[test]
fn an_acknowledgement_of_an_unknown_identifier_changes_nothing() {
    everywhere(|net, version| {
        let mut subscriber = net.client("s").version(version).connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.join("p");
        publisher.publish("t", 1, "a");
        publisher.publish("t", 2, "b");
        subscriber.got();
        subscriber.puback(9);
        subscriber.pubcomp(9);
        assert_eq!(subscriber.got(), NOTHING);
        assert_eq!(net.stats().inflight, 2);
        subscriber.puback(1);
        subscriber.pubrec(2);
        subscriber.pubcomp(2);
        assert_eq!(net.stats().delivered_acknowledged, 2);
    });
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_ends_the_connection_and_loses_nothing() {
    type Answer = fn(&mut Client);
    let wrong: [(u8, &[Answer]); 6] = [
        (1, &[|client| client.pubrec(1)]),
        (1, &[|client| client.pubcomp(1)]),
        (2, &[|client| client.puback(1)]),
        (2, &[|client| client.pubcomp(1)]),
        (2, &[|client| client.pubrec(1), |client| client.puback(1)]),
        (
            1,
            &[|client| {
                client.ack_with(Packet::PubRec, 1, ReasonCode::UNSPECIFIED_ERROR);
            }],
        ),
    ];
    everywhere(|net, version| {
        for (level, answers) in wrong {
            let join = net.client("s").version(version).persistent();
            let mut subscriber = join.connect();
            subscriber.subscribe("t", 2);
            net.join("p").publish("t", level, "a");
            subscriber.got();
            let (last, first) = answers.split_last().expect("one at least");
            for answer in first {
                answer(&mut subscriber);
                subscriber.got();
            }
            last(&mut subscriber);
            let said: &[&str] = match version {
                Version::V5 => &["DISCONNECT 0x82", "closed"],
                _ => &["closed"],
            };
            assert_eq!(subscriber.got(), said, "{version:?}, QoS {level}");
            let mut subscriber = join.connect();
            let again = match (level, first) {
                (1, _) => "PUBLISH t a q1 #1 dup",
                (_, []) => "PUBLISH t a q2 #1 dup",
                _ => "PUBREL #1",
            };
            assert_eq!(subscriber.got(), [again]);
            net.client("s").version(version).connect(); // and the session is gone
        }
        assert_eq!(net.stats().unaccounted(), 0);
    });
}

#[test]
fn a_refusing_pubrec_is_never_answered() {
    let net = Net::new();
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 2);
    let refuse = |client: &mut Client, id| {
        client.ack_with(Packet::PubRec, id, ReasonCode::QUOTA_EXCEEDED);
    };
    refuse(&mut subscriber, 9); // unknown
    net.join("p").publish("t", 2, "a");
    net.join("p").publish("t", 2, "b");
    subscriber.got();
    refuse(&mut subscriber, 1);
    assert_eq!(subscriber.got(), NOTHING);
    subscriber.pubrec(2);
    assert_eq!(subscriber.got(), ["PUBREL #2"]);
    refuse(&mut subscriber, 2); // after it had the message
    assert_eq!(subscriber.got(), NOTHING);
    let stats = net.stats();
    assert_eq!(
        (stats.delivered_refused, stats.delivered_acknowledged),
        (1, 1)
    );
    assert_eq!((stats.inflight, stats.unaccounted()), (0, 0));
}

#[test]
fn a_pubrec_of_an_unknown_identifier_is_answered() {
    everywhere(|net, version| {
        let mut client = net.client("s").version(version).connect();
        client.pubrec(9);
        let said = match version {
            Version::V5 => "PUBREL #9 0x92",
            _ => "PUBREL #9",
        };
        assert_eq!(client.got(), [said]);
    });
}

#[test]
fn a_client_may_refuse_a_message_and_is_not_sent_it_again() {
    let net = Net::new();
    let join = net.client("s").persistent();
    let mut subscriber = join.connect();
    subscriber.subscribe("t", 2);
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "a");
    publisher.publish("t", 2, "b");
    subscriber.ack_with(Packet::PubAck, 1, ReasonCode::QUOTA_EXCEEDED);
    subscriber.ack_with(Packet::PubRec, 2, ReasonCode::UNSPECIFIED_ERROR);
    let stats = net.stats();
    assert_eq!(
        (stats.inflight, stats.delivered_refused, stats.unaccounted()),
        (0, 2, 0)
    );
    subscriber.cut();
    assert_eq!(join.connect().got(), NOTHING);
}

#[test]
fn no_more_is_in_flight_than_the_bound_and_the_rest_follows_in_order() {
    everywhere(|_, version| {
        let net = Net::with(|config| config.limits.inflight_messages_max = 2);
        let mut subscriber = net.client("s").version(version).connect();
        subscriber.subscribe("t", 2);
        let mut publisher = net.join("p");
        for payload in ["a", "b", "c", "d"] {
            publisher.publish("t", 2, payload);
        }
        assert_eq!(subscriber.got(), ["PUBLISH t a q2 #1", "PUBLISH t b q2 #2"]);
        subscriber.pubrec(1);
        assert_eq!(subscriber.got(), ["PUBREL #1"]);
        subscriber.pubcomp(1);
        assert_eq!(subscriber.got(), ["PUBLISH t c q2 #3"]);
        subscriber.pubrec(2);
        subscriber.pubcomp(2);
        assert_eq!(subscriber.got(), ["PUBREL #2", "PUBLISH t d q2 #4"]);
    });
}

#[test]
fn a_packet_identifier_in_flight_is_not_given_again() {
    const ROUNDS: u64 = 65_600;
    let net = Net::with(|config| config.limits.inflight_messages_max = 3);
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 1);
    let mut publisher = net.join("p");
    // Two messages are never acknowledged, while the identifiers go all the way round.
    let kept = [1, 40];
    let mut given = 0;
    for round in 0..ROUNDS {
        publisher.publish("t", 1, round.to_string());
        for text in subscriber.got() {
            let id = text.rsplit_once('#').map(|(_, id)| id.parse());
            let id: u16 = id.expect("it has an identifier").expect("it is a number");
            if kept.contains(&id) {
                given += 1;
            } else {
                subscriber.puback(id);
            }
        }
        publisher.got();
        assert!(given <= 2, "an identifier was given again in round {round}");
    }
    kept.iter().for_each(|id| subscriber.puback(*id));
    let stats = net.stats();
    assert_eq!((stats.inflight, stats.delivered_acknowledged), (0, ROUNDS));
}

#[test]
fn a_message_repeated_after_a_reconnect_keeps_within_a_smaller_receive_maximum() {
    let net = Net::new();
    let join = net.client("s").persistent();
    let mut subscriber = join.connect();
    subscriber.subscribe("t", 2);
    let mut publisher = net.join("p");
    for (level, payload) in [(1, "a"), (2, "b"), (1, "c"), (1, "d")] {
        publisher.publish("t", level, payload);
    }
    subscriber.pubrec(2);
    subscriber.cut();
    publisher.publish("t", 1, "e");
    let mut subscriber = net
        .client("s")
        .persistent()
        .with(Property::ReceiveMaximum(2))
        .connect();
    assert_eq!(subscriber.got(), ["PUBLISH t a q1 #1 dup", "PUBREL #2"]);
    subscriber.puback(1);
    assert_eq!(subscriber.got(), ["PUBLISH t c q1 #3 dup"]);
    subscriber.pubcomp(2);
    assert_eq!(subscriber.got(), ["PUBLISH t d q1 #4 dup"]);
    subscriber.puback(3);
    subscriber.puback(4);
    assert_eq!(subscriber.got(), ["PUBLISH t e q1 #5"]);
    subscriber.puback(5);
    let stats = net.stats();
    assert_eq!(
        (stats.inflight, stats.queued, stats.unaccounted()),
        (0, 0, 0)
    );
}

#[test]
fn what_is_repeated_after_a_reconnect_keeps_within_the_outboxs_bound() {
    let net = Net::with(|config| {
        config.limits.packet_bytes_max = 10_000;
        config.limits.outbox_bytes_max = 10_000;
    });
    let join = net.client("s").persistent();
    let mut subscriber = join.connect();
    subscriber.subscribe("t", 1);
    let mut publisher = net.join("p");
    for _ in 0..20 {
        publisher.publish("t", 1, [b'x'; 3_000]);
    }
    assert_eq!(subscriber.got().len(), 20);
    subscriber.cut();
    let mut subscriber = net.open();
    subscriber.block(true);
    subscriber.write(&join.bytes());
    let waiting = net.sim().unsent(subscriber.peer());
    assert!((9_000..=10_000).contains(&waiting), "{waiting} bytes wait");
    subscriber.block(false);
    assert_eq!(net.sim().receive(subscriber.peer()).len() / 3_000, 20);
    assert_eq!(net.stats().inflight, 20);
}

#[test]
fn a_message_that_grew_on_its_way_is_delivered_although_the_outbox_is_no_larger_than_a_packet() {
    let net = Net::with(|config| {
        config.limits.packet_bytes_max = 1_000;
        config.limits.outbox_bytes_max = 1_000;
    });
    let mut subscriber = net.join("s");
    subscriber.subscribe_with(
        &[("t", crate::support::options(1))],
        &[Property::SubscriptionIdentifier(200_000_000)],
    );
    assert_eq!(subscriber.got(), ["SUBACK #1 [0x01]"]);
    let mut publisher = net.client("p").version(Version::V311).connect();
    publisher.publish("t", 1, [b'x'; 992]);
    assert_eq!(publisher.got(), ["PUBACK #1"]);
    assert_eq!(
        subscriber.got(),
        ["PUBLISH t (992 bytes) q1 #1 {subscription 200000000}"]
    );
}
