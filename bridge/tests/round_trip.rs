//! A message with every MQTT 5 property: MQTT → Kafka → MQTT, unchanged. The clients are rumqttc's, so that what goes onto
//! the wire and comes off it is not judged by our own codec.

mod common;

use std::time::{Duration, Instant};

use common::{DEADLINE, Node, config, log, stored_in, unique, wait_for};
use envelope::Downlink;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use testkit::kafka::Kafka;

fn connect(node: &Node, client_id: &str) -> (Client, Connection) {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(30));
    Client::new(options, 10)
}

/// Works the connection until `wanted` finds what it looks for in an incoming packet.
fn until<T>(
    connection: &mut Connection,
    what: &str,
    mut wanted: impl FnMut(Packet) -> Option<T>,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        match connection.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(Event::Incoming(packet))) => {
                if let Some(found) = wanted(packet) {
                    return found;
                }
            }
            Ok(Err(error)) => panic!("{what}: {error}"),
            Ok(Ok(Event::Outgoing(_))) | Err(_) => {}
        }
    }
    panic!("{what}: it did not come");
}

fn publish_of(packet: Packet) -> Option<Publish> {
    match packet {
        Packet::Publish(publish) => Some(publish),
        _ => None,
    }
}

fn properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(3_600),
        topic_alias: None,
        response_topic: Some("devices/d1/replies/reboot".into()),
        correlation_data: Some(vec![0, 255, 7].into()),
        user_properties: [
            ("b", "1"),
            ("traceparent", "00-0af7-b7ad-01"),
            ("a", ""),
            ("b", "2"),
            ("", "no name"),
            ("ü", "ß"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        subscription_identifiers: Vec::new(),
        content_type: Some("application/json".into()),
    }
}

#[test]
fn every_property_survives_the_way_through_kafka() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let sent = properties();

    let publisher_id = unique("publisher");
    let (publisher, mut connection) = connect(&node, &publisher_id);
    publisher
        .publish_with_properties(
            "devices/d1/commands/reboot",
            QoS::ExactlyOnce,
            true,
            "{}",
            sent.clone(),
        )
        .unwrap();
    until(&mut connection, "PUBCOMP", |packet| {
        matches!(packet, Packet::PubComp(_)).then_some(())
    });

    let records = log::read_all(kafka, stored_in(&config));
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    let envelope = record.envelope().unwrap();
    assert_eq!(
        record.key.as_deref(),
        Some(b"devices/d1/commands/reboot".as_slice())
    );
    assert_eq!(envelope.topic, "devices/d1/commands/reboot");
    assert_eq!(
        (envelope.qos, envelope.retain, envelope.payload),
        (2, true, b"{}".as_slice())
    );
    assert_eq!(envelope.client_id, Some(publisher_id.as_str()));
    assert_eq!(envelope.node, Some(config.node.as_str()));
    assert!(
        envelope
            .received_at_micros
            .is_some_and(|micros| micros > 1_700_000_000_000_000)
    );
    assert_eq!(
        record.header("traceparent").as_deref(),
        Some("00-0af7-b7ad-01"),
        "under its own name"
    );
    // The same key goes to the same partition as Java's clients would send it to.
    let partitions = i32::try_from(log::partitions(kafka, stored_in(&config))).unwrap();
    assert_eq!(
        record.partition,
        envelope::partition(b"devices/d1/commands/reboot", partitions)
    );

    // What came out of Kafka goes back by the downlink, under another topic.
    let mut downlink = Downlink::new("copy/of/it", envelope.payload)
        .qos(envelope.qos)
        .retain(envelope.retain);
    downlink.payload_format = envelope.payload_format;
    downlink.message_expiry_s = envelope.message_expiry_s;
    downlink.content_type = envelope.content_type.map(str::to_owned);
    downlink.response_topic = envelope.response_topic.map(str::to_owned);
    downlink.correlation_data = envelope.correlation_data.map(<[u8]>::to_vec);
    downlink.user_properties = envelope
        .user_properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();

    let (subscriber, mut connection) = connect(&node, &unique("subscriber"));
    subscriber.subscribe("copy/#", QoS::ExactlyOnce).unwrap();
    until(&mut connection, "SUBACK", |packet| {
        matches!(packet, Packet::SubAck(_)).then_some(())
    });
    log::append(kafka, &config.downlink.topic, &[downlink]);
    let received = until(&mut connection, "the copy", publish_of);
    assert_eq!(received.topic, "copy/of/it");
    assert_eq!(
        (received.qos, received.payload.as_ref()),
        (QoS::ExactlyOnce, b"{}".as_slice())
    );
    let mut got = received.properties.expect("it has properties");
    // The time under way is taken off [MQTT-3.3.2-6].
    let expiry = got
        .message_expiry_interval
        .take()
        .expect("it has an expiry");
    assert!((3_000..=3_600).contains(&expiry), "{expiry}");
    assert_eq!(
        got,
        PublishProperties {
            message_expiry_interval: None,
            ..sent
        }
    );

    // It is retained, too.
    let (late, mut connection) = connect(&node, &unique("late"));
    late.subscribe("copy/of/it", QoS::AtLeastOnce).unwrap();
    let retained = until(&mut connection, "the retained copy", publish_of);
    assert!(retained.retain);
    wait_for("what the downlink publishes is not stored again", || {
        node.status().downlink.delivered == 1
    });
    assert_eq!(node.status().accepted, 1);
}
