//! Connections with layers between socket and MQTT, whatever the layers are: here ones of the tests' own. The real ones go the
//! same way.

use broker::transport::{Facts, Layer, LayerError, Sides};
use broker::{Config, Stats};
use codec::Version;

use crate::support::{Client, Ends, Far, NOTHING, Net, Pub, Way};

const HELLO: &[u8] = b"HI";
const WELCOME: &[u8] = b"YO";
const REFUSED: &[u8] = b"NO";
const PING: u8 = 0;
const END: u8 = 255;
const MASK: u8 = 0x5a;

/// Both ends of it: greetings, then frames of a length and so many disguised bytes. A frame without bytes is answered by one.
#[derive(Debug, Default)]
struct Frames {
    open: bool,
    ended: bool,
    partial: Vec<u8>,
    /// What its user wants to send before it is open.
    early: Vec<u8>,
}

impl Frames {
    fn frame(plain: &[u8], wire: &mut Vec<u8>) {
        for some in plain.chunks(usize::from(END - 1)) {
            wire.push(some.len() as u8);
            wire.extend(some.iter().map(|byte| byte ^ MASK));
        }
    }

    fn take(&mut self, wire: &[u8], hello: &[u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        self.partial.extend_from_slice(wire);
        let mut at = 0;
        if !self.open {
            if self.partial.len() < hello.len() {
                return Ok(());
            }
            if !self.partial.starts_with(hello) {
                sides.down.extend_from_slice(REFUSED);
                return Err(LayerError::Broken {
                    layer: "frames",
                    why: "no greeting".to_owned(),
                });
            }
            at = hello.len();
            self.open = true;
            if hello == HELLO {
                sides.down.extend_from_slice(WELCOME);
            }
            Self::frame(&std::mem::take(&mut self.early), sides.down);
        }
        while let Some(len) = self.partial.get(at).copied() {
            match len {
                PING => {
                    if hello == HELLO {
                        sides.down.push(PING);
                    }
                    at += 1;
                }
                END => {
                    self.ended = true;
                    at += 1;
                }
                len => {
                    let Some(frame) = self.partial.get(at + 1..at + 1 + usize::from(len)) else {
                        break;
                    };
                    sides.up.extend(frame.iter().map(|byte| byte ^ MASK));
                    at += 1 + usize::from(len);
                }
            }
        }
        self.partial = self.partial.split_off(at);
        Ok(())
    }
}

impl Layer for Frames {
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        self.take(wire, HELLO, sides)
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        Self::frame(plain, wire);
        Ok(())
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        wire.push(END);
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn is_ended(&self) -> bool {
        self.ended
    }
}

/// A header that is taken off; then it is spent.
#[derive(Debug, Default)]
struct Header {
    left: Option<u8>,
}

const HEADER: &[u8] = b"head:";

impl Layer for Header {
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        let left = self.left.get_or_insert(HEADER.len() as u8);
        let taken = wire.len().min(usize::from(*left));
        *left -= taken as u8;
        sides.up.extend_from_slice(&wire[taken..]);
        Ok(())
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.left == Some(0)
    }

    fn is_spent(&self) -> bool {
        self.is_open()
    }

    fn tell(&self, facts: &mut Facts) {
        facts.is_secure = true;
    }
}

/// The client's end: a header, then so many layers of frames.
struct Both {
    header: &'static [u8],
    frames: Vec<Frames>,
}

impl Far for Both {
    fn begin(&mut self) -> Vec<u8> {
        // Each layer greets inside those below it, which keep it until they are open.
        let mut below = Vec::new();
        for at in 0..self.frames.len() {
            let wire = self.seal_below(at, HELLO);
            below.extend(wire);
        }
        [self.header, &below].concat()
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.seal_below(self.frames.len(), plain)
    }

    fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Vec<u8> {
        let (mut bytes, mut answer) = (wire.to_vec(), Vec::new());
        for at in 0..self.frames.len() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let mut sides = Sides {
                up: &mut up,
                down: &mut down,
            };
            self.frames[at]
                .take(&bytes, WELCOME, &mut sides)
                .expect("the broker greets");
            answer.extend(self.seal_below(at, &down));
            bytes = up;
        }
        plain.extend(bytes);
        answer
    }
}

impl Both {
    /// Bytes of the layer at `at` (of MQTT, above all of them) as they go to the socket.
    fn seal_below(&mut self, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for layer in self.frames[..at].iter_mut().rev() {
            if bytes.is_empty() {
                break;
            }
            if layer.open {
                let mut wire = Vec::new();
                Frames::frame(&bytes, &mut wire);
                bytes = wire;
            } else {
                layer.early.append(&mut bytes);
            }
        }
        bytes
    }
}

fn ends(header: bool, frames: usize) -> Ends {
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    if header {
        layers.push(Box::new(Header::default()));
    }
    for _ in 0..frames {
        layers.push(Box::new(Frames::default()));
    }
    let far = Both {
        header: if header { HEADER } else { b"" },
        frames: (0..frames).map(|_| Frames::default()).collect(),
    };
    (layers, Box::new(far))
}

/// All the ways that there are, whole and in pieces.
fn every_way() -> impl Iterator<Item = Way> {
    [(false, 1), (true, 0), (true, 1), (false, 2), (true, 2)]
        .into_iter()
        .map(|(header, frames)| Way::new(move || ends(header, frames)))
        .chain(crate::websocket::ways())
        .flat_map(|way| [way.clone(), way.clone().in_pieces(1), way.in_pieces(7)])
}

fn frames() -> Way {
    Way::new(|| ends(false, 1))
}

fn is_at_rest(stats: &Stats) {
    assert_eq!(stats.unaccounted(), 0);
    assert_eq!(
        stats.connections_opened,
        stats.connections + stats.connections_closed
    );
}

#[test]
fn a_conversation_is_the_same_over_every_way_and_in_all_pieces() {
    for way in every_way() {
        for workers in [1, 3] {
            for version in Version::ALL {
                let net = Net::with(|config| config.workers = workers).over(&way);
                let mut listener = net.client("a").version(version).connect();
                listener.subscribe("t/#", 2);
                // Several clients, so that some move between workers.
                for id in ["b", "c", "d"] {
                    let mut client = net.client(id).version(version).connect();
                    client.publish("t/1", 0, "nought");
                    client.publish("t/2", 1, "one");
                    client.publish("t/3", 1, vec![b'x'; 1_000]);
                    assert_eq!(client.got(), ["PUBACK #1", "PUBACK #2"]);
                    assert_eq!(listener.got().len(), 3);
                    client.disconnect();
                    assert_eq!(client.got(), ["closed"]);
                }
                is_at_rest(&net.stats());
            }
        }
    }
}

#[test]
fn what_came_with_the_connect_through_layers_goes_along_to_the_home_worker() {
    for way in every_way() {
        let net = Net::with(|config| config.workers = 3).over(&way);
        for id in ["a", "b", "c", "d", "e", "f"] {
            let mut client = net.open_as(Version::V5);
            let mut bytes = net.client(id).bytes();
            bytes.extend(client.encode_publish(&Pub::new("t", "x").qos(1, 1)));
            bytes.extend([0xc0, 0, 0xc0]);
            client.write(&bytes);
            assert_eq!(client.got(), ["CONNACK 0x00", "PUBACK #1", "PINGRESP"]);
            client.write(&[0]);
            assert_eq!(client.got(), ["PINGRESP"]);
        }
        assert_eq!(net.stats().connections, 6);
    }
}

#[test]
fn more_than_is_read_in_a_turn_comes_out_of_layers_whole_and_in_order() {
    let change = |config: &mut Config| {
        config.workers = 3;
        config.limits.read_bytes_per_turn = 4_096;
    };
    let net = Net::with(change).over(&frames());
    let mut listener = net.join("listener");
    listener.subscribe("t", 0);
    let mut client = net.open_as(Version::V5);
    let mut bytes = net.client("talker").bytes();
    for number in 0..2_000 {
        bytes.extend(client.encode_publish(&Pub::new("t", format!("{number:05}"))));
    }
    client.write(&bytes);
    assert_eq!(client.got(), ["CONNACK 0x00"]);
    let expected: Vec<_> = (0..2_000)
        .map(|number| format!("PUBLISH t {number:05}"))
        .collect();
    let got = listener.got();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
}

#[test]
fn what_a_layer_answers_goes_out_while_nothing_else_is_to_be_written() {
    let net = Net::new().over(&frames());
    let mut client = net.join("a");
    client.push_wire(&[PING, PING]);
    assert_eq!(client.got_wire(), [PING, PING]);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn a_client_that_takes_no_answers_of_a_layer_is_not_read_from_and_then_given_up() {
    let net = Net::with(|config| config.limits.read_bytes_per_turn = 4_096).over(&frames());
    let mut client = net.join("a");
    client.block(true);
    for _ in 0..100 {
        client.push_wire(&[PING; 4_096]);
        net.run();
    }
    let unread = client.unread();
    assert!(unread > 200_000, "{unread} of 409,600 are not read");
    // It takes them after all.
    client.block(false);
    assert_eq!(client.unread(), 0);
    assert_eq!(client.got_wire().len(), 409_600);
    // It takes nothing for good.
    client.block(true);
    client.push_wire(&[PING]);
    net.advance_s(31);
    assert_eq!(client.got(), ["closed"]);
    assert_eq!(net.stats().closed_write_stall, 1);
}

#[test]
fn a_slow_reader_behind_a_layer_gets_all_in_order_and_little_is_held_for_it_below_the_outbox() {
    let net = Net::new().over(&frames());
    let mut listener = net.join("listener");
    listener.subscribe("t", 1);
    listener.block(true);
    let mut talker = net.join("talker");
    for number in 1..=8 {
        talker.publish("t", 1, vec![b'x'; 60_000 + number]);
    }
    assert_eq!(listener.got(), NOTHING);
    listener.block(false);
    let expected: Vec<_> = (1..=8)
        .map(|n| format!("PUBLISH t ({} bytes) q1 #{n}", 60_000 + n))
        .collect();
    assert_eq!(listener.got(), expected);
}

#[test]
fn whoever_does_not_greet_is_told_so_and_closed() {
    let net = Net::new().over(&frames());
    let mut client = Client::open_silent(&net, Version::V5);
    client.push_wire(b"HELLO");
    assert_eq!(client.got_wire(), [REFUSED, &[END]].concat());
    assert!(!client.is_open());
    let stats = net.stats();
    assert_eq!((stats.closed_layer, stats.connections), (1, 0));
}

#[test]
fn a_handshake_that_is_not_ended_is_closed_in_its_time() {
    for begins in [&b""[..], b"H", b"HI", b"HI\x05"] {
        let net = Net::with(|config| config.limits.connect_timeout_ms = 5_000).over(&frames());
        let mut client = Client::open_silent(&net, Version::V5);
        client.push_wire(begins);
        net.advance_ms(4_900);
        assert!(client.is_open(), "{begins:?}");
        net.advance_ms(200);
        assert!(!client.is_open(), "{begins:?}");
        assert_eq!(net.stats().closed_connect_timeout, 1, "{begins:?}");
    }
}

#[test]
fn handshakes_of_many_wait_for_their_turn_and_all_come_in() {
    let net = Net::with(|config| config.limits.connect_timeout_ms = 5_000).over(&frames());
    let mut inside = net.join("inside");
    let mut clients: Vec<_> = (0..500)
        .map(|_| Client::open_silent(&net, Version::V5))
        .collect();
    for client in &mut clients {
        client.push_wire(HELLO);
    }
    let ping = inside.encode(&codec::Packet::PingReq);
    inside.push(&ping);
    // One turn: some of the handshakes, and the ping of who is in.
    net.sim().turn([0]);
    assert_eq!(inside.unread(), 0);
    let waiting = clients.iter().filter(|client| client.unread() > 0).count();
    assert!((400..500).contains(&waiting), "{waiting}");
    net.run();
    for client in &mut clients {
        assert_eq!(client.got_wire(), WELCOME);
    }
    assert_eq!(inside.got(), ["PINGRESP"]);
}

#[test]
fn the_end_that_a_layer_says_counts_behind_what_came_before_it() {
    let net = Net::with(|config| config.limits.read_bytes_per_turn = 4_096).over(&frames());
    let mut listener = net.join("listener");
    listener.subscribe("t", 0);
    listener.subscribe("gone", 0);
    let mut client = net.client("a").will("gone", "x").connect();
    let mut bytes = Vec::new();
    for _ in 0..500 {
        bytes.extend(client.encode_publish(&Pub::new("t", "some payload of this test")));
    }
    let mut wire = client.far().seal(&bytes);
    wire.push(END);
    client.push_wire(&wire);
    net.run();
    let got = listener.got();
    assert_eq!(got.len(), 501);
    assert!(got[500].starts_with("PUBLISH gone"), "{}", got[500]);
    assert!(!client.is_open());
}

#[test]
fn a_connection_cut_at_any_byte_leaves_nothing_behind() {
    let connect = Net::new().client("a").bytes();
    let len = 2 + 1 + connect.len();
    for at in 0..=len {
        let net = Net::with(|config| config.workers = 3).over(&frames());
        let mut client = Client::open_silent(&net, Version::V5);
        let mut wire = HELLO.to_vec();
        Frames::frame(&connect, &mut wire);
        client.push_wire(&wire[..at]);
        net.run();
        client.cut();
        let stats = net.stats();
        assert_eq!((stats.connections, stats.sessions), (0, 0), "cut at {at}");
        is_at_rest(&stats);
    }
}

#[test]
fn a_goodbye_is_said_in_the_layer_too() {
    let net = Net::new().over(&frames());
    let mut client = net.join("a");
    client.got();
    let mut other = net.join("a");
    assert_eq!(other.got(), NOTHING);
    let wire = client.got_wire();
    assert_eq!(wire.last(), Some(&END), "{wire:?}");
    let mut plain = Vec::new();
    client.far().open(&wire, &mut plain);
    assert_eq!(plain, [0xe0, 2, 0x8e, 0], "DISCONNECT, taken over");
    // A client that has said goodbye itself hears it as well.
    let goodbye = other.far().seal(&[0xe0, 0]);
    other.push_wire(&goodbye);
    assert_eq!(other.got_wire(), [END]);
    assert!(!other.is_open());
}
