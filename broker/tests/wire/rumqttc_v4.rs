//! rumqttc with MQTT 3.1.1.

use rumqttc::{
    Client, ConnAck, Connection, Event, LastWill, MqttOptions, Packet, Publish, QoS,
    SubscribeReasonCode,
};

use crate::support::{DEADLINE, Server};

/// A client that works only while it waits for something.
struct Rumqttc {
    client: Client,
    connection: Connection,
    connack: ConnAck,
}

fn options(server: &Server, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", server.port);
    options.set_max_packet_size(1_048_576, 1_048_576);
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
        self.client.publish(topic, qos, retain, payload).unwrap();
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
    options.set_last_will(LastWill::new("wills", "gone", QoS::ExactlyOnce, false));
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
    session.set_clean_session(false);
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
fn a_refused_subscription_is_reported_and_the_rest_goes_on() {
    let server = Server::with_denied("secret/#");
    let mut client = Rumqttc::new(options(&server, "c"));
    let filters = ["secret/plan", "open"];
    let filters =
        filters.map(|path| rumqttc::SubscribeFilter::new(path.to_owned(), QoS::AtLeastOnce));
    client.client.subscribe_many(filters).unwrap();
    let Packet::SubAck(suback) = client.until(|packet| matches!(packet, Packet::SubAck(_))) else {
        unreachable!();
    };
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert_eq!(suback.return_codes, [SubscribeReasonCode::Failure, granted]);
    client.publish("secret/plan", QoS::AtLeastOnce, false, "secret");
    client.publish("open", QoS::AtLeastOnce, false, "open");
    assert_eq!(client.message().payload, "open");
}

#[test]
fn an_unsubscribed_filter_gets_nothing_more() {
    let server = Server::start();
    let mut client = Rumqttc::subscribed(options(&server, "c"), "a");
    client.client.subscribe("b", QoS::AtMostOnce).unwrap();
    client.client.unsubscribe("a").unwrap();
    client.until(|packet| matches!(packet, Packet::UnsubAck(_)));
    client.publish("a", QoS::AtMostOnce, false, "missed");
    client.publish("b", QoS::AtMostOnce, false, "seen");
    assert_eq!(client.message().payload, "seen");
}
