//! Commands for devices that are not there yet: they wait for a subscriber until they expire, across restarts of the node,
//! and each comes once.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bridge::Config;
use broker::codec::{Qos, Version};
use common::mqtt::{Client, Event};
use common::{DEADLINE, Node, config, log, unique, wait_for};
use envelope::Downlink;
use testkit::kafka::Kafka;

fn command(device: &str, number: u32, expiry_s: u32) -> Downlink {
    Downlink::new(format!("devices/{device}/commands"), number.to_string())
        .qos(1)
        .message_expiry_s(expiry_s)
}

/// A device, which subscribes to its commands.
fn device(node: &Node, name: &str) -> Client {
    let mut client = Client::connect(node.address, Version::V5, name);
    client.subscribe(&format!("devices/{name}/commands"), Qos::AtLeastOnce);
    client
}

fn next(client: &mut Client) -> String {
    match client.next(DEADLINE) {
        Some(Event::Message { payload, .. }) => String::from_utf8(payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn nothing_more(client: &mut Client) {
    assert_eq!(client.next(Duration::from_millis(500)), None);
}

fn outcomes(node: &Node) -> BTreeMap<&'static str, u64> {
    let outcome = |(name, _, count): (&'static str, &'static str, u64)| {
        Some((name.strip_prefix("downlink_outcomes_")?, count))
    };
    let each = node.status().each().into_iter();
    each.filter_map(outcome).filter(|(_, n)| *n > 0).collect()
}

fn holds(node: &Node, count: u64) {
    wait_for("they wait for a subscriber", || {
        node.status().downlink.held == count
    });
}

#[test]
fn a_command_sent_while_the_node_is_down_reaches_a_device_that_comes_back_after_it_once() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let topic = &config.downlink.topic;
    Node::start(&config).stop();
    log::append(
        kafka,
        topic,
        &[command("d1", 1, 300), command("d1", 2, 300)],
    );

    let node = Node::start(&config);
    holds(&node, 2);
    log::append(kafka, topic, &[command("d1", 3, 300)]);
    holds(&node, 3);
    let mut d1 = device(&node, "d1");
    for number in ["1", "2", "3"] {
        assert_eq!(next(&mut d1), number, "in their order");
    }
    log::append(kafka, topic, &[command("d1", 4, 300)]);
    assert_eq!(next(&mut d1), "4");
    nothing_more(&mut d1);
    assert_eq!(outcomes(&node), BTreeMap::from([("delivered", 4)]));
    assert_eq!(node.stop(), 0);

    let node = Node::start(&config);
    let mut d1 = device(&node, "d1");
    log::append(kafka, topic, &[command("d1", 5, 300)]);
    assert_eq!(next(&mut d1), "5", "and none that it has had");
    nothing_more(&mut d1);
}

#[test]
fn what_waits_is_there_after_a_restart_and_what_was_delivered_meanwhile_does_not_come_again() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    config.partitions = 1;
    let topic = &config.downlink.topic;
    let node = Node::start(&config);
    let mut d2 = device(&node, "d2");
    for number in 0..50 {
        let device = if number % 10 == 0 { "d1" } else { "d2" };
        log::append(kafka, topic, &[command(device, number, 300)]);
    }
    for number in (0..50).filter(|number| number % 10 != 0) {
        assert_eq!(next(&mut d2), number.to_string());
    }
    holds(&node, 5);
    wait_for("the position is past what waits", || {
        log::committed(kafka, &config.downlink_group(), topic) == 50
    });
    node.stop();

    let node = Node::start(&config);
    let mut d2 = device(&node, "d2");
    holds(&node, 5);
    let mut d1 = device(&node, "d1");
    for number in (0..50).step_by(10) {
        assert_eq!(next(&mut d1), number.to_string());
    }
    nothing_more(&mut d1);
    nothing_more(&mut d2);
    assert_eq!(outcomes(&node), BTreeMap::from([("delivered", 5)]));
}

#[test]
fn every_record_has_an_outcome() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    config.partitions = 1;
    config.downlink.held_messages_max = 2;
    let node = Node::start(&config);
    let mut d2 = device(&node, "d2");
    let mut no_topic = Downlink::new("a/b", "x");
    no_topic.topic = "a/#".to_owned();
    let records = [
        command("d2", 1, 300),
        command("d1", 2, 1),
        command("d1", 3, 300),
        command("d1", 4, 300),
        Downlink::new("devices/d1/commands", "5").qos(1),
        Downlink::new("devices/d1/state", "6").retain(true),
        no_topic,
    ];
    log::append(kafka, &config.downlink.topic, &records);
    assert_eq!(next(&mut d2), "1");
    let all = BTreeMap::from([
        ("delivered", 1),
        ("expired", 1),
        ("no_room", 1),
        ("no_session", 1),
        ("retained", 1),
        ("malformed", 1),
    ]);
    wait_for("all but what waits have come to something", || {
        outcomes(&node) == all
    });
    assert_eq!(node.status().downlink.held, 1);
    let mut d1 = device(&node, "d1");
    assert_eq!(next(&mut d1), "3", "what expired does not come");
    nothing_more(&mut d1);
}

#[test]
fn a_node_that_kafka_does_not_know_takes_up_what_is_still_of_use() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let topic = &config.downlink.topic;
    Node::start(&config).stop();
    log::append(
        kafka,
        topic,
        &[
            command("d1", 1, 300),
            command("d1", 2, 1),
            Downlink::new("devices/d1/commands", "3").qos(1),
        ],
    );
    std::thread::sleep(Duration::from_millis(1_100));
    let another = |lookback_s| {
        let mut another = config.clone();
        another.node = unique("another");
        another.downlink.new_node_lookback_s = lookback_s;
        another
    };
    let at_the_end: Config = another(0);
    for (config, expected) in [(another(300), vec!["1", "4"]), (at_the_end, vec!["4"])] {
        let node = Node::start(&config);
        if expected.len() > 1 {
            holds(&node, 1);
        }
        let mut d1 = device(&node, "d1");
        let mut came = Vec::new();
        if expected.len() > 1 {
            came.push(next(&mut d1));
        }
        log::append(kafka, topic, &[Downlink::new("devices/d1/commands", "4")]);
        came.push(next(&mut d1));
        assert_eq!(came, expected);
        nothing_more(&mut d1);
    }
}
