//! A proxy of the tests between the tool and a broker: it reads every packet of both directions, does what a test wants
//! to some of them, and keeps a [`Book`] of what became of each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use codec::{Ack, Packet, Publish, PublishHead, Qos, ReasonCode, Version, encode_publish};
use loadgen::stamp::Stamp;

use crate::book::Book;

/// Bytes to be sent at a time, in the order of coming; `None` is the end.
type Later = (Instant, u64, Option<Vec<u8>>);

/// Packets that wait for one client.
const QUEUE_MAX: usize = 65_536;

/// Packet identifiers of the proxy's own messages begin here; the broker's stay below in runs this short.
const OWN_IDS_FROM: u16 = 40_000;

/// A packet on its way.
pub struct Seen<'a> {
    /// The client's identifier.
    pub client: &'a str,
    /// Its direction.
    pub to_client: bool,
    pub packet: &'a Packet<'a>,
    /// Of a PUBLISH, or of the publish that this answers.
    pub stamp: Option<Stamp>,
}

/// What is done to a packet.
pub enum Act {
    Pass,
    /// It vanishes; towards the broker it is answered where an answer is due.
    Drop,
    /// Twice with one packet identifier.
    Double,
    /// Twice, the second time with a new packet identifier.
    DoubleAsNew,
    /// It follows behind the next one of its lane.
    Hold,
    /// It goes so much later.
    Late(Duration),
    /// It goes to another client instead, with QoS 0.
    To(String),
    /// It goes, and once more to another client, with QoS 0.
    AlsoTo(String),
    /// This byte of the payload is wrong.
    Corrupt(usize),
    /// Its payload is this one.
    Payload(Vec<u8>),
    /// It comes with this QoS.
    Qos(Qos),
    /// Other bytes go in its place.
    Instead(Vec<u8>),
    /// It goes no further; this is the answer.
    Answer(Vec<u8>),
    /// It goes, and from now on nothing reaches any client for so long.
    Stall(Duration),
    /// It vanishes, and the client's connection ends when what waits for the client is written.
    Cut,
}

/// Decides what is done to each packet.
pub type Faults = Box<dyn FnMut(&Seen<'_>) -> Act + Send>;

/// An acknowledgement as bytes.
pub fn ack(kind: fn(Ack<'static>) -> Packet<'static>, id: u16, reason: ReasonCode) -> Vec<u8> {
    let mut ack = Ack::success(NonZeroU16::new(id).unwrap());
    ack.reason = reason;
    let mut bytes = Vec::new();
    kind(ack).encode(Version::V5, &mut bytes).unwrap();
    bytes
}

/// See the module. Its threads end with the connections, but for the one that takes them.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    broker: SocketAddr,
    faults: Mutex<Faults>,
    book: Mutex<Book>,
    routes: Mutex<HashMap<String, (u64, SyncSender<Item>)>>,
    stalled_until: Mutex<Instant>,
}

/// What waits for a client: when it goes; no bytes are the end of the connection.
type Item = (Instant, Option<Vec<u8>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panics in its faults says so itself.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Proxy {
    /// A proxy to `broker`.
    pub fn new(broker: SocketAddr, faults: impl FnMut(&Seen<'_>) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            broker,
            faults: Mutex::new(Box::new(faults)),
            book: Mutex::default(),
            routes: Mutex::default(),
            stalled_until: Mutex::new(Instant::now()),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, client) in (0_u64..).zip(listener.incoming()) {
                let shared = Arc::clone(&of_thread);
                let Ok(client) = client else { return };
                thread::spawn(move || serve(&shared, number, client));
            }
        });
        Self { address, shared }
    }

    /// What was seen so far.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }
}

/// One client's connection, seen from both sides.
struct Link {
    shared: Arc<Shared>,
    number: u64,
    who: OnceLock<(String, Version)>,
    to_client: SyncSender<Item>,
    to_broker: Mutex<TcpStream>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By stream and lane, what goes behind the next one.
    held: HashMap<(u16, u32), Vec<u8>>,
    /// Answers of the client that the broker must not see: type and packet identifier.
    swallow: HashSet<(u8, u16)>,
    /// QoS 2 messages of the broker that the proxy answers itself.
    taken: HashSet<u16>,
    /// Packet identifiers of the proxy's own messages.
    own: HashSet<u16>,
    /// The connection was cut: what still comes from the client is noted only.
    cut: bool,
}

fn serve(shared: &Arc<Shared>, number: u64, mut client: TcpStream) {
    let Ok(mut broker) = TcpStream::connect(shared.broker) else {
        return;
    };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let (to_client, items) = sync_channel(QUEUE_MAX);
    let link = Arc::new(Link {
        shared: Arc::clone(shared),
        number,
        who: OnceLock::new(),
        to_client,
        to_broker: Mutex::new(broker.try_clone().unwrap()),
        state: Mutex::default(),
    });
    let (socket, of_writer) = (client.try_clone().unwrap(), Arc::clone(&link));
    thread::spawn(move || write_to_client(&of_writer, &items, socket));
    let from_broker = Arc::clone(&link);
    thread::spawn(move || {
        read_packets(&mut broker, &from_broker, Link::down);
        from_broker.send(Instant::now(), None);
    });
    read_packets(&mut client, &link, Link::up);
    // The client has gone: the broker hears of it as it would have.
    let _ = lock(&link.to_broker).shutdown(Shutdown::Both);
    link.send(Instant::now(), None);
    if let Some((client, _)) = link.who.get() {
        let mut routes = lock(&shared.routes);
        if routes.get(client).is_some_and(|route| route.0 == number) {
            routes.remove(client);
        }
    }
}

fn read_packets(from: &mut TcpStream, link: &Link, take: fn(&Link, &[u8], &Packet<'_>)) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65_536]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..read]);
        let mut at = 0;
        while let Some(frame) = codec::split_frame(&bytes[at..], codec::PACKET_BYTES_MAX).unwrap() {
            let version = link.who.get().map_or(Version::V5, |who| who.1);
            let packet = codec::decode(version, frame).unwrap();
            take(link, &bytes[at..at + frame.len], &packet);
            at += frame.len;
        }
        bytes.drain(..at);
    }
}

fn write_to_client(link: &Link, items: &Receiver<Item>, mut socket: TcpStream) {
    let mut waiting: BinaryHeap<Reverse<Later>> = BinaryHeap::new();
    let mut count = 0;
    loop {
        while let Some(Reverse((at, ..))) = waiting.peek() {
            let stalled_until = *lock(&link.shared.stalled_until);
            if Instant::now() < stalled_until.max(*at) {
                break;
            }
            let Some(Reverse((_, _, Some(bytes)))) = waiting.pop() else {
                let _ = socket.shutdown(Shutdown::Write);
                return;
            };
            let (client, version) = link.who.get().unwrap();
            let frame = codec::split_frame(&bytes, codec::PACKET_BYTES_MAX)
                .unwrap()
                .unwrap();
            let packet = codec::decode(*version, frame).unwrap();
            lock(&link.shared.book).wrote(link.number, client, &packet);
            if socket.write_all(&bytes).is_err() {
                return;
            }
        }
        let wait = waiting
            .peek()
            .map_or(Duration::from_secs(60), |Reverse((at, ..))| {
                let until = (*lock(&link.shared.stalled_until)).max(*at);
                until.saturating_duration_since(Instant::now())
            });
        match items.recv_timeout(wait) {
            Ok((at, bytes)) => {
                count += 1;
                waiting.push(Reverse((at, count, bytes)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Link {
    /// Towards the client. One that has gone takes nothing.
    fn send(&self, at: Instant, bytes: Option<Vec<u8>>) {
        let _ = self.to_client.try_send((at, bytes));
    }

    /// Towards the broker. One that has gone takes nothing.
    fn forward(&self, bytes: &[u8]) {
        let _ = lock(&self.to_broker).write_all(bytes);
    }

    fn client(&self) -> &str {
        self.who.get().map_or("", |who| &who.0)
    }

    fn act(&self, to_client: bool, packet: &Packet<'_>) -> Act {
        let id = match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) if to_client => {
                Some(ack.packet_id.get())
            }
            _ => None,
        };
        let stamp = match packet {
            Packet::Publish(publish) => Stamp::read(publish.payload),
            _ => id.and_then(|id| lock(&self.shared.book).stamp_of(self.number, id)),
        };
        (lock(&self.shared.faults))(&Seen {
            client: self.client(),
            to_client,
            packet,
            stamp,
        })
    }

    fn cut(&self) {
        lock(&self.state).cut = true;
        self.send(Instant::now(), None);
        let _ = lock(&self.to_broker).shutdown(Shutdown::Both);
    }

    fn stall(&self, time: Duration) {
        *lock(&self.shared.stalled_until) = Instant::now() + time;
    }

    /// From the client.
    fn up(&self, bytes: &[u8], packet: &Packet<'_>) {
        if let Packet::Publish(publish) = packet {
            let stamp = Stamp::read(publish.payload).expect("the tool's messages have stamps");
            lock(&self.shared.book).published(self.number, publish, stamp);
        }
        if let Packet::Subscribe(subscribe) = packet {
            lock(&self.shared.book).subscribes(self.client(), subscribe);
        }
        if lock(&self.state).cut {
            return;
        }
        match packet {
            Packet::Connect(connect) => {
                let who = (connect.client_id.to_owned(), connect.version);
                let route = (self.number, self.to_client.clone());
                lock(&self.shared.routes).insert(who.0.clone(), route);
                self.who.set(who).unwrap();
                match self.act(false, packet) {
                    Act::Cut => self.cut(),
                    _ => self.forward(bytes),
                }
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
                self.answered(bytes, packet, ack.packet_id.get());
            }
            _ => match self.act(false, packet) {
                Act::Pass => self.forward(bytes),
                Act::Drop => {}
                Act::Answer(answer) => self.send(Instant::now(), Some(answer)),
                Act::Cut => self.cut(),
                Act::Stall(time) => {
                    self.stall(time);
                    self.forward(bytes);
                }
                _ => panic!("nothing to do with a packet to the broker"),
            },
        }
    }

    /// The client answers to a message.
    fn answered(&self, bytes: &[u8], packet: &Packet<'_>, id: u16) {
        let mut state = lock(&self.state);
        let own = state.own.contains(&id);
        if own && matches!(packet, Packet::PubRec(_)) {
            let release = ack(Packet::PubRel, id, ReasonCode::SUCCESS);
            self.send(Instant::now(), Some(release));
        } else if !own && !state.swallow.remove(&(bytes[0], id)) {
            drop(state);
            self.forward(bytes);
        }
    }

    /// From the broker.
    fn down(&self, bytes: &[u8], packet: &Packet<'_>) {
        if lock(&self.state).cut {
            return;
        }
        let now = Instant::now();
        if let Packet::PubRel(release) = packet
            && lock(&self.state).taken.remove(&release.packet_id.get())
        {
            let id = release.packet_id.get();
            self.forward(&ack(Packet::PubComp, id, ReasonCode::SUCCESS));
            return;
        }
        let act = self.act(true, packet);
        let whole = || Some(bytes.to_vec());
        match (act, packet) {
            (Act::Pass, Packet::Publish(publish)) => {
                self.send(now, whole());
                if let Some(stamp) = Stamp::read(publish.payload) {
                    let lane = (stamp.stream, stamp.lane);
                    if let Some(held) = lock(&self.state).held.remove(&lane) {
                        self.send(now, Some(held));
                    }
                }
            }
            (Act::Pass, _) => self.send(now, whole()),
            (Act::Drop, Packet::Publish(publish)) => self.take(publish),
            (Act::Drop, _) => {}
            (Act::Late(time), _) => self.send(now + time, whole()),
            (Act::Instead(other), _) => self.send(now, Some(other)),
            (Act::Cut, _) => self.cut(),
            (Act::Stall(time), _) => {
                self.stall(time);
                self.send(now, whole());
            }
            (act, Packet::Publish(publish)) => self.twist(bytes, publish, act),
            _ => panic!("nothing to do with a packet to the client"),
        }
    }

    /// Answers a message that the client will not get.
    fn take(&self, publish: &Publish<'_>) {
        let Some(id) = publish.packet_id.map(NonZeroU16::get) else {
            return;
        };
        if publish.qos == Qos::ExactlyOnce {
            lock(&self.state).taken.insert(id);
            self.forward(&ack(Packet::PubRec, id, ReasonCode::SUCCESS));
        } else {
            self.forward(&ack(Packet::PubAck, id, ReasonCode::SUCCESS));
        }
    }

    fn twist(&self, bytes: &[u8], publish: &Publish<'_>, act: Act) {
        let now = Instant::now();
        let mut bytes = bytes.to_vec();
        match act {
            Act::Double => {
                if let Some(id) = publish.packet_id {
                    let answer = match publish.qos {
                        Qos::ExactlyOnce => 0x50,
                        _ => 0x40,
                    };
                    lock(&self.state).swallow.insert((answer, id.get()));
                }
                self.send(now, Some(bytes.clone()));
                self.send(now, Some(bytes));
            }
            Act::DoubleAsNew => {
                let mut state = lock(&self.state);
                let id = OWN_IDS_FROM + state.own.len() as u16;
                state.own.insert(id);
                drop(state);
                self.send(now, Some(bytes));
                let again = self.encode(publish, publish.qos, NonZeroU16::new(id));
                self.send(now, Some(again));
            }
            Act::Hold => {
                let stamp = Stamp::read(publish.payload).unwrap();
                let lane = (stamp.stream, stamp.lane);
                let before = lock(&self.state).held.insert(lane, bytes);
                assert!(before.is_none(), "two in a row are held back");
            }
            Act::To(ref other) | Act::AlsoTo(ref other) => {
                let copy = self.encode(publish, Qos::AtMostOnce, None);
                let routes = lock(&self.shared.routes);
                routes[other].1.send((now, Some(copy))).unwrap();
                if matches!(act, Act::AlsoTo(_)) {
                    self.send(now, Some(bytes));
                } else {
                    self.take(publish);
                }
            }
            Act::Corrupt(at) => {
                let payload_at = bytes.len() - publish.payload.len();
                bytes[payload_at + at] ^= 0x01;
                self.send(now, Some(bytes));
            }
            Act::Payload(ref payload) => {
                let other = Publish {
                    payload,
                    ..*publish
                };
                let bytes = self.encode(&other, publish.qos, publish.packet_id);
                self.send(now, Some(bytes));
            }
            Act::Qos(Qos::AtMostOnce) => {
                self.take(publish);
                self.send(now, Some(self.encode(publish, Qos::AtMostOnce, None)));
            }
            Act::Qos(qos) => {
                let mut state = lock(&self.state);
                let id = OWN_IDS_FROM + state.own.len() as u16;
                state.own.insert(id);
                drop(state);
                self.take(publish);
                let bytes = self.encode(publish, qos, NonZeroU16::new(id));
                self.send(now, Some(bytes));
            }
            _ => panic!("nothing to do with a message"),
        }
    }

    fn encode(&self, publish: &Publish<'_>, qos: Qos, packet_id: Option<NonZeroU16>) -> Vec<u8> {
        let head = PublishHead {
            qos,
            topic: publish.topic,
            packet_id,
            ..PublishHead::default()
        };
        let version = self.who.get().unwrap().1;
        let mut bytes = Vec::new();
        encode_publish(&mut bytes, version, &head, publish.payload).unwrap();
        bytes
    }
}
