//! A blocking MQTT client that sends what it is told and returns every packet that comes: for tests that look at single
//! acknowledgements.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use broker::codec::{
    Ack, Connect, Packet, Properties, PropertiesBuf, Property, Publish, Qos, ReasonCode,
    SubscribeFilter, SubscriptionOptions, Version, decode, encode_subscribe, split_frame,
};

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: Qos,
        retain: bool,
        packet_id: Option<u16>,
        properties: Vec<u8>,
    },
    PubAck {
        packet_id: u16,
        reason: ReasonCode,
    },
    PubRec {
        packet_id: u16,
        reason: ReasonCode,
    },
    PubComp {
        packet_id: u16,
    },
    Disconnect {
        reason: ReasonCode,
    },
    /// The broker closed the connection.
    Closed,
    Other,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
    last_id: u16,
}

impl Client {
    /// Connects with a session that outlives the connection.
    pub fn connect(address: SocketAddr, version: Version, client_id: &str) -> Self {
        let mut properties = PropertiesBuf::default();
        if version == Version::V5 {
            properties
                .push(Property::SessionExpiryInterval(3_600))
                .unwrap();
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self {
            stream,
            version,
            received: Vec::new(),
            last_id: 0,
        };
        client.send(&Packet::Connect(Connect {
            version,
            clean_start: false,
            keep_alive: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: properties.as_properties(),
        }));
        let answer = client.next(super::DEADLINE);
        assert_eq!(answer, Some(Event::Other), "CONNACK");
        client
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        // A broker that closes has its reasons; the test sees it in what it receives.
        let _ = self.stream.write_all(bytes);
    }

    pub fn next_id(&mut self) -> NonZeroU16 {
        self.last_id = self.last_id % u16::MAX + 1;
        NonZeroU16::new(self.last_id).unwrap()
    }

    /// Publishes with QoS 0 or 1 and returns the packet identifier, if there is one.
    pub fn publish(
        &mut self,
        topic: &str,
        qos: Qos,
        payload: &[u8],
        properties: Properties<'_>,
    ) -> Option<u16> {
        let packet_id = (qos != Qos::AtMostOnce).then(|| self.next_id());
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id,
            properties,
            payload,
        }));
        packet_id.map(NonZeroU16::get)
    }

    /// Subscribes and waits for the broker's answer.
    pub fn subscribe(&mut self, filter: &str, qos: Qos) {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let mut bytes = Vec::new();
        let id = self.next_id();
        let filters = [SubscribeFilter { filter, options }].into_iter();
        encode_subscribe(&mut bytes, self.version, id, Properties::default(), filters).unwrap();
        self.write(&bytes);
        assert_eq!(self.next(super::DEADLINE), Some(Event::Other), "SUBACK");
    }

    /// The next packet, or `None` when none comes within `timeout`. A message is acknowledged at once.
    pub fn next(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 16_384];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Some(Event::Closed),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Some(Event::Closed),
            }
        }
    }

    /// The next message; anything else before it is a failure.
    pub fn message(&mut self) -> Event {
        match self.next(super::DEADLINE) {
            Some(event @ Event::Message { .. }) => event,
            other => panic!("not a message: {other:?}"),
        }
    }

    fn take(&mut self) -> Option<Event> {
        let (event, len) = {
            let frame = split_frame(&self.received, u32::MAX).unwrap()?;
            (event(&decode(self.version, frame).unwrap()), frame.len)
        };
        self.received.drain(..len);
        if let Event::Message {
            packet_id: Some(id),
            qos,
            ..
        } = &event
        {
            let ack = Ack {
                packet_id: NonZeroU16::new(*id).unwrap(),
                reason: ReasonCode::SUCCESS,
                properties: Properties::default(),
            };
            match qos {
                Qos::ExactlyOnce => self.send(&Packet::PubRec(ack)),
                _ => self.send(&Packet::PubAck(ack)),
            }
        }
        Some(event)
    }
}

fn event(packet: &Packet<'_>) -> Event {
    match packet {
        Packet::Publish(publish) => Event::Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id.map(NonZeroU16::get),
            properties: publish.properties.as_bytes().to_vec(),
        },
        Packet::PubAck(ack) => Event::PubAck {
            packet_id: ack.packet_id.get(),
            reason: ack.reason,
        },
        Packet::PubRec(ack) => Event::PubRec {
            packet_id: ack.packet_id.get(),
            reason: ack.reason,
        },
        Packet::PubComp(ack) => Event::PubComp {
            packet_id: ack.packet_id.get(),
        },
        Packet::Disconnect(disconnect) => Event::Disconnect {
            reason: disconnect.reason,
        },
        _ => Event::Other,
    }
}
