//! A client in memory: it sends what the test says, and answers nothing by itself.

use std::num::NonZeroU16;

use broker::sim::Peer;
use codec::{
    Ack, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, Qos,
    ReasonCode, RetainHandling, SubscribeFilter, SubscriptionOptions, Version, Will,
};

use super::{Far, Net, Side, text};

/// The QoS of that number.
pub fn qos(level: u8) -> Qos {
    Qos::try_from(level).expect("0, 1 or 2")
}

/// Subscription options that ask for nothing but a QoS.
pub fn options(level: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(level),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    }
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("packet identifiers begin with 1")
}

fn properties(list: &[Property<'_>]) -> PropertiesBuf {
    let mut buffer = PropertiesBuf::new();
    for property in list {
        buffer
            .push(*property)
            .expect("the test's property is valid");
    }
    buffer
}

/// A CONNECT being put together.
#[derive(Debug)]
pub struct Join {
    net: Net,
    id: String,
    version: Version,
    clean_start: bool,
    keep_alive_s: u16,
    will: Option<(String, String, Qos, bool, PropertiesBuf)>,
    user: Option<(String, String)>,
    properties: PropertiesBuf,
}

impl Join {
    pub(super) fn new(net: &Net, id: &str) -> Self {
        Self {
            net: net.clone(),
            id: id.to_owned(),
            version: Version::V5,
            clean_start: true,
            keep_alive_s: 0,
            will: None,
            user: None,
            properties: PropertiesBuf::new(),
        }
    }

    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Goes on with the session that exists, and leaves one behind for an hour.
    pub fn persistent(self) -> Self {
        let join = self.resuming();
        match join.version {
            Version::V5 => join.with(Property::SessionExpiryInterval(3_600)),
            _ => join,
        }
    }

    /// Goes on with the session that exists.
    pub fn resuming(mut self) -> Self {
        self.clean_start = false;
        self
    }

    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.user = Some((user.to_owned(), password.to_owned()));
        self
    }

    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    pub fn with(mut self, property: Property<'_>) -> Self {
        if self.version == Version::V5 {
            self.properties
                .push(property)
                .expect("the test's property is valid");
        }
        self
    }

    pub fn will(self, topic: &str, payload: &str) -> Self {
        self.will_with(topic, payload, 1, false, &[])
    }

    pub fn will_with(
        mut self,
        topic: &str,
        payload: &str,
        level: u8,
        retain: bool,
        list: &[Property<'_>],
    ) -> Self {
        let parts = (
            topic.to_owned(),
            payload.to_owned(),
            qos(level),
            retain,
            properties(list),
        );
        self.will = Some(parts);
        self
    }

    /// The CONNECT's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let will = self
            .will
            .as_ref()
            .map(|(topic, payload, qos, retain, properties)| Will {
                topic,
                payload: payload.as_bytes(),
                qos: *qos,
                retain: *retain,
                properties: properties.as_properties(),
            });
        let packet = Packet::Connect(Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive_s,
            client_id: &self.id,
            will,
            username: self.user.as_ref().map(|(user, _)| &**user),
            password: self.user.as_ref().map(|(_, password)| password.as_bytes()),
            properties: self.properties.as_properties(),
        });
        let mut bytes = Vec::new();
        packet
            .encode(self.version, &mut bytes)
            .expect("the test's CONNECT is valid");
        bytes
    }

    /// Sends CONNECT, whatever the answer will be.
    pub fn attempt(&self) -> Client {
        let mut client = Client::open(&self.net, self.version);
        client.write(&self.bytes());
        client
    }

    /// Connects, which must be accepted.
    pub fn connect(&self) -> Client {
        let mut client = self.attempt();
        client.accepted();
        client
    }
}

/// A PUBLISH being put together.
#[derive(Debug, Clone)]
pub struct Pub {
    topic: String,
    payload: Vec<u8>,
    qos: Qos,
    id: Option<NonZeroU16>,
    dup: bool,
    retain: bool,
    properties: PropertiesBuf,
}

impl Pub {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos: Qos::AtMostOnce,
            id: None,
            dup: false,
            retain: false,
            properties: PropertiesBuf::new(),
        }
    }

    /// With QoS 1 or 2, and its packet identifier.
    pub fn qos(mut self, level: u8, packet_id: u16) -> Self {
        self.qos = qos(level);
        self.id = Some(id(packet_id));
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn with(mut self, property: Property<'_>) -> Self {
        self.properties
            .push(property)
            .expect("the test's property is valid");
        self
    }
}

/// One end of a connection.
pub struct Client {
    net: Net,
    peer: Peer,
    /// Its end of the layers between.
    far: Option<Box<dyn Far>>,
    version: Version,
    /// Bytes that came and were not looked at.
    received: Vec<u8>,
    /// Whether the test was told that the broker closed the connection.
    told_closed: bool,
    last_id: u16,
    pub session_present: bool,
    /// The properties of the CONNACK.
    pub connack: PropertiesBuf,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn open(net: &Net, version: Version) -> Self {
        let mut client = Self::open_silent(net, version);
        if let Some(far) = &mut client.far {
            let begins = far.begin();
            client.push_wire(&begins);
            client.net.run();
            client.collect();
        }
        client
    }

    /// One that does not begin with what its layers say first.
    pub fn open_silent(net: &Net, version: Version) -> Self {
        let ends = net.way().map(super::Way::ends);
        let (side, far) = ends.map_or((Side::Listener(0), None), |(side, far)| (side, Some(far)));
        let peer = match side {
            Side::Layers(layers) => net.sim().connect_over(layers),
            Side::Listener(listener) => net.sim().connect_to(listener),
        };
        Self {
            net: net.clone(),
            peer,
            far,
            version,
            received: Vec::new(),
            told_closed: false,
            last_id: 0,
            session_present: false,
            connack: PropertiesBuf::new(),
        }
    }

    fn accepted(&mut self) {
        self.collect();
        let (connack, len) = self.peek().expect("no CONNACK came");
        let Packet::ConnAck(connack) = connack else {
            panic!("the first packet is {connack:?}");
        };
        assert_eq!(connack.reason, ReasonCode::SUCCESS);
        let (present, mut properties) = (connack.session_present, PropertiesBuf::new());
        properties.extend(connack.properties);
        self.received.drain(..len);
        self.session_present = present;
        self.connack = properties;
    }

    /// Writes bytes and lets the broker run.
    pub fn write(&mut self, bytes: &[u8]) {
        self.push(bytes);
        self.net.run();
        if self.far.is_some() {
            self.collect(); // its layers may have to answer
        }
    }

    /// Writes bytes that the broker sees when it next runs.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.far {
            Some(far) => {
                let wire = far.seal(bytes);
                self.push_wire(&wire);
            }
            None => self.push_wire(bytes),
        }
    }

    /// Writes bytes below all layers, as they are.
    pub fn push_wire(&mut self, wire: &[u8]) {
        let piece = self.net.way().map_or(usize::MAX, |way| way.piece);
        if wire.len() <= piece {
            self.net.sim().send(self.peer, wire);
            return;
        }
        for some in wire.chunks(piece) {
            self.net.sim().send(self.peer, some);
            self.net.run();
        }
    }

    /// The bytes of the broker that came, below all layers.
    pub fn got_wire(&mut self) -> Vec<u8> {
        self.net.run();
        self.net.sim().receive(self.peer)
    }

    /// Its end of the layers.
    pub fn far(&mut self) -> &mut dyn Far {
        self.far.as_deref_mut().expect("it has layers")
    }

    pub fn encode(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet
            .encode(self.version, &mut bytes)
            .expect("the test's packet is valid");
        bytes
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let bytes = self.encode(packet);
        self.write(&bytes);
    }

    /// The bytes of a PUBLISH.
    pub fn encode_publish(&self, publish: &Pub) -> Vec<u8> {
        self.encode(&Packet::Publish(Publish {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: &publish.topic,
            packet_id: publish.id,
            properties: publish.properties.as_properties(),
            payload: &publish.payload,
        }))
    }

    /// Publishes, with everything as the test says.
    pub fn publish_with(&mut self, publish: &Pub) {
        let bytes = self.encode_publish(publish);
        self.write(&bytes);
    }

    /// Publishes with the client's next packet identifier.
    pub fn publish(&mut self, topic: &str, level: u8, payload: impl AsRef<[u8]>) {
        let mut publish = Pub::new(topic, payload);
        if level > 0 {
            self.last_id = self.last_id % u16::MAX + 1;
            publish = publish.qos(level, self.last_id);
        }
        self.publish_with(&publish);
    }

    /// Subscribes, and the broker must grant it.
    pub fn subscribe(&mut self, filter: &str, level: u8) {
        self.subscribe_with(&[(filter, options(level))], &[]);
        let granted = format!("SUBACK #1 [{level:#04x}]");
        self.collect();
        assert_eq!(self.next_text().as_deref(), Some(&*granted), "{filter}");
    }

    /// Sends a SUBSCRIBE with packet identifier 1.
    pub fn subscribe_with(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
        list: &[Property<'_>],
    ) {
        let properties = properties(list);
        let filters = filters.iter().map(|(filter, options)| SubscribeFilter {
            filter,
            options: *options,
        });
        let mut bytes = Vec::new();
        codec::encode_subscribe(
            &mut bytes,
            self.version,
            id(1),
            properties.as_properties(),
            filters,
        )
        .expect("the test's SUBSCRIBE is valid");
        self.write(&bytes);
    }

    /// Sends an UNSUBSCRIBE with packet identifier 1.
    pub fn unsubscribe(&mut self, filters: &[&str]) {
        let mut bytes = Vec::new();
        let filters = filters.iter().copied();
        codec::encode_unsubscribe(&mut bytes, self.version, id(1), Properties::EMPTY, filters)
            .expect("the test's UNSUBSCRIBE is valid");
        self.write(&bytes);
    }

    pub fn puback(&mut self, packet_id: u16) {
        self.send(&Packet::PubAck(Ack::success(id(packet_id))));
    }

    /// Takes the QoS 1 messages that came, acknowledges them, and goes on while that brings more: their payloads.
    pub fn work_off(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let publishes = self.got();
            if publishes.is_empty() {
                return all;
            }
            for publish in publishes {
                let words: Vec<&str> = publish.split(' ').collect();
                let ["PUBLISH", _, payload, "q1", packet_id, ..] = words[..] else {
                    panic!("no QoS 1 message: {publish}");
                };
                all.push(payload.to_owned());
                let packet_id = packet_id.trim_start_matches('#').parse();
                self.puback(packet_id.expect("a packet identifier"));
            }
        }
    }

    pub fn pubrec(&mut self, packet_id: u16) {
        self.send(&Packet::PubRec(Ack::success(id(packet_id))));
    }

    pub fn pubrel(&mut self, packet_id: u16) {
        self.send(&Packet::PubRel(Ack::success(id(packet_id))));
    }

    pub fn pubcomp(&mut self, packet_id: u16) {
        self.send(&Packet::PubComp(Ack::success(id(packet_id))));
    }

    /// Acknowledges with a reason code.
    pub fn ack_with(
        &mut self,
        kind: fn(Ack<'static>) -> Packet<'static>,
        packet_id: u16,
        reason: ReasonCode,
    ) {
        self.send(&kind(Ack {
            packet_id: id(packet_id),
            reason,
            properties: Properties::EMPTY,
        }));
    }

    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
    }

    pub fn disconnect(&mut self) {
        self.disconnect_with(ReasonCode::NORMAL_DISCONNECTION, &[]);
    }

    pub fn disconnect_with(&mut self, reason: ReasonCode, list: &[Property<'_>]) {
        let properties = properties(list);
        self.send(&Packet::Disconnect(Disconnect {
            reason,
            properties: properties.as_properties(),
        }));
    }

    /// The connection breaks.
    pub fn cut(&mut self) {
        self.net.sim().cut(self.peer);
        self.told_closed = true;
        self.net.run();
    }

    /// The client closes its end, behind what it has written.
    pub fn finish(&mut self) {
        self.net.sim().finish(self.peer);
        self.net.run();
    }

    /// The client reads nothing any more, or reads again.
    pub fn block(&mut self, blocked: bool) {
        self.net.sim().block(self.peer, blocked);
        self.net.run();
    }

    /// Bytes that the broker has not read from this client.
    pub fn unread(&self) -> usize {
        self.net.sim().unread(self.peer)
    }

    /// The broker's name for this connection.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The worker that owns the client's session.
    pub fn home(&mut self) -> usize {
        let ping = self.encode(&Packet::PingReq);
        self.push(&ping);
        let home = (0..self.net.handle().workers()).find(|worker| {
            self.net.sim().turn([*worker]);
            self.unread() == 0
        });
        assert_eq!(self.got(), ["PINGRESP"]);
        home.expect("some worker reads it")
    }

    pub fn is_open(&self) -> bool {
        self.net.sim().is_open(self.peer)
    }

    fn collect(&mut self) {
        loop {
            let bytes = self.net.sim().receive(self.peer);
            let Some(far) = &mut self.far else {
                self.received.extend_from_slice(&bytes);
                return;
            };
            if bytes.is_empty() {
                return;
            }
            let answer = far.open(&bytes, &mut self.received);
            self.push_wire(&answer);
            self.net.run();
        }
    }

    fn peek(&self) -> Option<(Packet<'_>, usize)> {
        read(&self.received, self.version)
    }

    fn next_text(&mut self) -> Option<String> {
        let (packet, len) = self.peek()?;
        let text = text::text(&packet);
        self.received.drain(..len);
        Some(text)
    }

    /// The packets that came since it was last asked, and `closed` once if the broker closed the connection.
    pub fn got(&mut self) -> Vec<String> {
        self.collect();
        let received = std::mem::take(&mut self.received);
        let (mut texts, mut at) = (Vec::new(), 0);
        while let Some((packet, len)) = read(&received[at..], self.version) {
            texts.push(text::text(&packet));
            at += len;
        }
        self.received = received[at..].to_vec();
        if !self.is_open() && !self.told_closed {
            assert!(
                self.received.is_empty(),
                "closed within a packet: {:02x?}",
                self.received
            );
            self.told_closed = true;
            texts.push("closed".to_owned());
        }
        texts
    }
}

fn read(bytes: &[u8], version: Version) -> Option<(Packet<'_>, usize)> {
    let frame = codec::split_frame(bytes, codec::PACKET_BYTES_MAX)
        .expect("what the broker sends is well-formed")?;
    let packet = codec::decode(version, frame).expect("what the broker sends is well-formed");
    Some((packet, frame.len))
}
