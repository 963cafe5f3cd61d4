//! rumqttc with MQTT 5.0.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, LastWill, Packet, Publish, PublishProperties, SubscribeProperties,
    SubscribeReasonCode,
};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};

use crate::support::{DEADLINE, Server};

/// A client that works only while it waits for something.
struct Rumqttc {
    client: Client,
    connection: Connection,
    connack: ConnAck,
}

fn options(server: &Server, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", server.port);
    options.set_max_packet_size(Some(1_048_576));
    options
}

impl Rumqttc {
    fn new(options: MqttOptions) -> Self {
        let (client, mut connection) = Client::new(options, 2_000);
        let event = connection.recv_timeout(DEADLINE).expect("in time");
        match event.expect("accepted") {
            Event::Incoming(Packet::ConnAck(connack)) => Self {
                client,
                connection,
                connack,
            },
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    fn subscribed(options: MqttOptions, filter: &str) -> Self {
        let mut client = Self::new(options);
        client.client.subscribe(filter, QoS::ExactlyOnce).unwrap();
        client.until(|packet| matches!(packet, Packet::SubAck(_)));
        client
    }

    /// The next packet of that kind.
    fn until(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            let event = self.connection.recv_timeout(DEADLINE).expect("in time");
            if let Event::Incoming(packet) = event.expect("still connected")
                && wanted(&packet)
            {
                return packet;
            }
        }
    }

    fn message(&mut self) -> Publish {
        match self.until(|packet| matches!(packet, Packet::Publish(_))) {
            Packet::Publish(publish) => publish,
            other => unreachable!("{other:?}"),
        }
    }

    fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: impl Into<Vec<u8>>) {
        let payload: Vec<u8> = payload.into();
        self.client.publish(topic, qos, retain, payload).unwrap();
    }

    fn publish_with(&mut self, topic: &str, payload: &'static str, properties: PublishProperties) {
        self.client
            .publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
            .unwrap();
    }
}

#[test]
fn every_qos_arrives_as_published() {
    let server = Server::start();
    let mut client = Rumqttc::subscribed(options(&server, "c"), "a");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        client.publish("a", qos, false, "hello");
        let message = client.message();
        assert_eq!((message.qos, &message.payload[..]), (qos, &b"hello"[..]));
    }
    // A last round trip, so that the QoS 2 exchange has ended.
    client.until(|packet| matches!(packet, Packet::PubRel(_)));
    client.publish("a", QoS::AtMostOnce, false, "");
    client.message();
    server.until("acknowledged", |stats| stats.delivered_acknowledged == 2);
}

#[test]
fn a_thousand_messages_arrive_in_order_in_every_qos() {
    let server = Server::start();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let topic = format!("numbers/{qos:?}");
        let mut client = Rumqttc::subscribed(options(&server, &topic), &topic);
        for number in 0..1_000 {
            client.publish(&topic, qos, false, number.to_string());
        }
        for number in 0..1_000 {
            assert_eq!(client.message().payload, number.to_string());
        }
    }
}

#[test]
fn a_retained_message_meets_later_subscribers() {
    let server = Server::start();
    let mut client = Rumqttc::new(options(&server, "c"));
    client.publish("state", QoS::AtLeastOnce, true, "on");
    client.until(|packet| matches!(packet, Packet::PubAck(_)));
    client.client.subscribe("state", QoS::AtLeastOnce).unwrap();
    let message = client.message();
    assert!(message.retain);
    assert_eq!(message.payload, "on");
}

#[test]
fn the_will_of_a_lost_client_is_published() {
    let server = Server::start();
    let mut heir = Rumqttc::subscribed(options(&server, "heir"), "wills");
    let mut options = options(&server, "mortal");
    options.set_last_will(LastWill::new(
        "wills",
        "gone",
        QoS::ExactlyOnce,
        false,
        None,
    ));
    drop(Rumqttc::new(options)); // closes its socket without a DISCONNECT
    let message = heir.message();
    assert_eq!(
        (message.qos, &message.payload[..]),
        (QoS::ExactlyOnce, &b"gone"[..])
    );
}

#[test]
fn a_session_keeps_messages_for_its_return() {
    let server = Server::start();
    let mut session = options(&server, "traveller");
    session.set_clean_start(false);
    session.set_session_expiry_interval(Some(600));
    let away = Rumqttc::subscribed(session.clone(), "post/#");
    assert!(!away.connack.session_present);
    drop(away);
    server.until("away", |stats| stats.closed_lost == 1);
    let mut sender = Rumqttc::new(options(&server, "sender"));
    for number in 0..100 {
        sender.publish("post/1", QoS::ExactlyOnce, false, number.to_string());
    }
    for _ in 0..100 {
        sender.until(|packet| matches!(packet, Packet::PubComp(_)));
    }
    let mut back = Rumqttc::new(session);
    assert!(back.connack.session_present);
    for number in 0..100 {
        assert_eq!(back.message().payload, number.to_string());
    }
}

#[test]
fn a_large_payload_crosses_whole() {
    let server = Server::start();
    let mut client = Rumqttc::subscribed(options(&server, "c"), "large");
    let payload: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
    client.publish("large", QoS::ExactlyOnce, false, payload.clone());
    assert!(client.message().payload == payload);
}

#[test]
fn every_property_of_a_publish_arrives() {
    let server = Server::start();
    let mut client = Rumqttc::new(options(&server, "c"));
    let identifier = SubscribeProperties {
        id: Some(77),
        user_properties: Vec::new(),
    };
    client
        .client
        .subscribe_with_properties("a", QoS::AtLeastOnce, identifier)
        .unwrap();
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(4_000_000_000),
        topic_alias: None,
        response_topic: Some("answers/1".to_owned()),
        correlation_data: Some(vec![0, 255, 1].into()),
        user_properties: [("a", "1"), ("a", "2"), ("", "ü")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        subscription_identifiers: Vec::new(),
        content_type: Some("application/octet-stream".to_owned()),
    };
    client.publish_with("a", "hello", sent.clone());
    let got = client.message().properties.expect("it has properties");
    let expected = PublishProperties {
        subscription_identifiers: vec![77],
        ..sent
    };
    assert_eq!(got, expected);
}

#[test]
fn an_alias_stands_for_its_topic() {
    let server = Server::start();
    let mut client = Rumqttc::subscribed(options(&server, "c"), "long/topic");
    for (topic, payload) in [("long/topic", "first"), ("", "second")] {
        let alias = PublishProperties {
            topic_alias: Some(1),
            ..PublishProperties::default()
        };
        client.publish_with(topic, payload, alias);
        let message = client.message();
        assert_eq!(
            (&message.topic[..], &message.payload[..]),
            (&b"long/topic"[..], payload.as_bytes())
        );
    }
}

#[test]
fn the_broker_uses_aliases_where_the_client_allows_them() {
    let server = Server::start();
    let mut options = options(&server, "c");
    options.set_topic_alias_max(Some(4));
    let mut client = Rumqttc::subscribed(options, "long/topic");
    // rumqttc shows publishes as they come: the name with the first one only.
    for (name, payload) in [("long/topic", "first"), ("", "second"), ("", "third")] {
        client.publish("long/topic", QoS::AtLeastOnce, false, payload);
        let message = client.message();
        assert_eq!(
            (&message.topic[..], &message.payload[..]),
            (name.as_bytes(), payload.as_bytes())
        );
        let properties = message.properties.expect("it has properties");
        assert_eq!(properties.topic_alias, Some(1));
    }
}

#[test]
fn an_identifier_is_assigned_where_there_is_none() {
    let server = Server::start();
    let assigned = ["", ""].map(|none| {
        let client = Rumqttc::new(options(&server, none));
        let properties = client.connack.properties.expect("it has properties");
        properties.assigned_client_identifier.expect("assigned")
    });
    assert_ne!(assigned[0], "");
    assert_ne!(assigned[0], assigned[1]);
}

#[test]
fn the_brokers_bounds_are_told() {
    let server = Server::with(|config| {
        config.limits.keep_alive_max_s = 30;
        config.limits.receive_maximum = 7;
        config.limits.packet_bytes_max = 5_000;
        config.limits.topic_alias_maximum = 3;
        config.limits.session_expiry_max_s = 99;
    });
    let mut options = options(&server, "c");
    options.set_session_expiry_interval(Some(100));
    let told = Rumqttc::new(options)
        .connack
        .properties
        .expect("it has properties");
    assert_eq!(told.server_keep_alive, Some(30));
    assert_eq!(told.receive_max, Some(7));
    assert_eq!(told.max_packet_size, Some(5_000));
    assert_eq!(told.topic_alias_max, Some(3));
    assert_eq!(told.session_expiry_interval, Some(99));
}

#[test]
fn a_refused_subscription_is_reported_and_the_rest_goes_on() {
    let server = Server::with_denied("secret/#");
    let mut client = Rumqttc::new(options(&server, "c"));
    let filters = ["secret/plan", "open"].map(|path| Filter::new(path, QoS::AtLeastOnce));
    client.client.subscribe_many(filters).unwrap();
    let Packet::SubAck(suback) = client.until(|packet| matches!(packet, Packet::SubAck(_))) else {
        unreachable!();
    };
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert_eq!(
        suback.return_codes,
        [SubscribeReasonCode::NotAuthorized, granted]
    );
    client.publish("secret/plan", QoS::AtLeastOnce, false, "secret");
    client.publish("open", QoS::AtLeastOnce, false, "open");
    assert_eq!(client.message().payload, "open");
}

#[test]
fn with_no_local_a_client_does_not_hear_itself() {
    let server = Server::start();
    let mut client = Rumqttc::new(options(&server, "c"));
    let mut filter = Filter::new("room", QoS::AtLeastOnce);
    filter.nolocal = true;
    client.client.subscribe_many([filter]).unwrap();
    client.until(|packet| matches!(packet, Packet::SubAck(_)));
    client.publish("room", QoS::AtLeastOnce, false, "mine");
    let mut other = Rumqttc::new(options(&server, "other"));
    client.until(|packet| matches!(packet, Packet::PubAck(_)));
    other.publish("room", QoS::AtLeastOnce, false, "another's");
    other.until(|packet| matches!(packet, Packet::PubAck(_)));
    assert_eq!(client.message().payload, "another's");
}
