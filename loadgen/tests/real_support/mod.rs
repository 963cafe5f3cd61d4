//! What the tests of real clients are written with: a swarm whose notices are waited for, and brokers of a few lines
//! that do as a test wants.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod mosquitto;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use codec::{Qos, Version};
use loadgen::real::{RealOptions, RealSwarm};
use loadgen::stamp::{STAMP_BYTES, Stamp};
use loadgen::swarm::{Client, Hello, Notice, Outgoing, Swarm};

/// How long something expected may take, on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A client with nothing special.
pub fn hello(client_id: &str, version: Version) -> Hello<'_> {
    Hello {
        client_id,
        version,
        clean_start: true,
        session_expiry_s: 0,
        keep_alive_s: 0,
        username: None,
        password: None,
    }
}

/// The payload of a run's message.
pub fn payload(number: u32) -> [u8; STAMP_BYTES] {
    let mut payload = [0; STAMP_BYTES];
    stamp(number).write(&mut payload);
    payload
}

/// The stamp in it.
pub fn stamp(number: u32) -> Stamp {
    Stamp {
        run: 77,
        stream: 1,
        lane: 2,
        number,
        due_ns: 3,
    }
}

/// A swarm, and what it told.
pub struct Clients {
    pub swarm: RealSwarm,
    pub notices: Vec<Notice>,
}

impl Clients {
    pub fn new(broker: SocketAddr, clients: u32) -> Self {
        Self::with(RealOptions::new(broker, clients))
    }

    pub fn with(options: RealOptions) -> Self {
        Self {
            swarm: RealSwarm::new(options).unwrap(),
            notices: Vec::new(),
        }
    }

    pub fn turn(&mut self) {
        self.swarm
            .turn(Duration::from_millis(5), &mut self.notices)
            .unwrap();
    }

    /// Takes turns until `done` says so of all that was told.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&[Notice]) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !done(&self.notices) {
            assert!(Instant::now() < until, "no {what}: {:?}", self.notices);
            self.turn();
        }
    }

    /// Takes turns until something was told that is like this.
    pub fn until_one(&mut self, what: &str, like: impl Fn(&Notice) -> bool) {
        self.until(what, |notices| notices.iter().any(&like));
    }

    /// Connects a client and waits for CONNACK: whether the session was present.
    pub fn connect(&mut self, client: u32, hello: &Hello<'_>) -> bool {
        self.swarm.connect(Client(client), hello).unwrap();
        let before = self.notices.len();
        let mut present = false;
        self.until("connection", |notices| {
            notices[before..].iter().any(|notice| match notice {
                Notice::Connected {
                    client: of,
                    session_present,
                } if of.0 == client => {
                    present = *session_present;
                    true
                }
                Notice::Closed { why, .. } => panic!("{why}"),
                _ => false,
            })
        });
        present
    }

    /// Connects a client that will not get far: why.
    pub fn connect_in_vain(&mut self, client: u32, hello: &Hello<'_>) -> String {
        self.swarm.connect(Client(client), hello).unwrap();
        self.closed()
    }

    /// Waits for the end of a connection: why.
    pub fn closed(&mut self) -> String {
        self.until_one("end", |notice| matches!(notice, Notice::Closed { .. }));
        let at = self
            .notices
            .iter()
            .position(|notice| matches!(notice, Notice::Closed { .. }));
        match self.notices.remove(at.unwrap()) {
            Notice::Closed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    pub fn publish(&mut self, client: u32, topic: &str, qos: Qos, number: u32) -> Option<u16> {
        let message = Outgoing {
            topic,
            qos,
            retain: false,
            payload: &payload(number),
        };
        self.swarm
            .publish(Client(client), &message)
            .unwrap()
            .map(Into::into)
    }

    /// The deliveries so far: the numbers of their stamps.
    pub fn delivered(&self) -> Vec<u32> {
        let stamps = self.notices.iter().filter_map(|notice| match notice {
            Notice::Delivered { stamp, .. } => Some(stamp.expect("a stamp").number),
            _ => None,
        });
        stamps.collect()
    }

    pub fn count(&self, like: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| like(notice)).count()
    }
}

pub fn is_unasked(notice: &Notice) -> bool {
    matches!(notice, Notice::Unasked { .. })
}

pub fn is_acknowledged(notice: &Notice) -> bool {
    matches!(notice, Notice::Acknowledged { .. })
}

pub fn is_subscribed(notice: &Notice) -> bool {
    matches!(notice, Notice::Subscribed { .. })
}

pub fn is_delivered(notice: &Notice) -> bool {
    matches!(notice, Notice::Delivered { .. })
}

/// One connection of a broker that is a test's.
pub struct Peer {
    pub stream: TcpStream,
    /// Which connection this is, from 0.
    pub number: usize,
}

/// CONNACK of 3.1.1 with success.
pub const CONN_ACK: &[u8] = &[0x20, 2, 0, 0];
/// CONNACK of 3.1.1 with success and a session.
pub const CONN_ACK_PRESENT: &[u8] = &[0x20, 2, 1, 0];

impl Peer {
    /// The next packet: its first byte and what follows the fixed header; `None` at the end of the connection.
    pub fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).ok()?;
        let first = byte[0];
        let (mut len, mut shift) = (0, 0);
        loop {
            self.stream.read_exact(&mut byte).ok()?;
            len |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).ok()?;
        Some((first, body))
    }

    /// The next packet, which must be of this type.
    pub fn expect(&mut self, kind: u8) -> Vec<u8> {
        match self.packet() {
            Some((first, body)) if first >> 4 == kind => body,
            other => panic!("no packet of type {kind}: {other:?}"),
        }
    }

    /// Takes CONNECT and accepts it.
    pub fn accept(&mut self) -> Vec<u8> {
        let connect = self.expect(1);
        self.send(CONN_ACK);
        connect
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a PUBLISH with the topic `t`; `first` says which QoS.
    pub fn send_publish(&mut self, first: u8, packet_id: u16, number: u32) {
        let mut packet = vec![first, 3 + 2 + STAMP_BYTES as u8, 0, 1, b't'];
        packet.extend_from_slice(&packet_id.to_be_bytes());
        packet.extend_from_slice(&payload(number));
        self.send(&packet);
    }

    /// Waits until the client ends the connection.
    pub fn until_end(&mut self) {
        while self.packet().is_some() {}
    }

    pub fn close(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// A broker that does as `serve` does with each connection, in a thread of its own. It ends with the test's process.
pub fn fake_broker(serve: impl Fn(Peer) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let peer = Peer {
                stream: stream.unwrap(),
                number,
            };
            let serve = serve.clone();
            std::thread::spawn(move || serve(peer));
        }
    });
    address
}
