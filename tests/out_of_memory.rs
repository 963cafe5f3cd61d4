//! A node whose address space is bounded, and clients that want to fill it: it refuses, drops and cuts, and goes on serving
//! those who are there; it does not end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::millstream::Millstream;

const PAYLOAD: usize = 60_000;

/// A CONNECT of MQTT 3.1.1; a session of one that is not clean stays.
fn connect(id: &str, clean: bool) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4];
    packet.extend(b"MQTT\x04");
    packet.extend([u8::from(clean) << 1, 0, 0, 0, id.len() as u8]);
    packet.extend(id.as_bytes());
    packet
}

fn remaining(mut len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = u8::from(len >= 128) << 7;
        bytes.push((len % 128) as u8 | more);
        len /= 128;
        if len == 0 {
            return bytes;
        }
    }
}

fn publish(topic: &str, qos: u8, retain: bool) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.as_bytes());
    if qos > 0 {
        body.extend([0, 1]);
    }
    body.resize(body.len() + PAYLOAD, b'x');
    let mut packet = vec![0x30 | qos << 1 | u8::from(retain)];
    packet.extend(remaining(body.len()));
    packet.extend(body);
    packet
}

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
    packet.extend(filter.as_bytes());
    packet.push(qos);
    packet
}

struct Client(TcpStream);

impl Client {
    /// `None` when the node refuses.
    fn join(node: &Millstream, id: &str, clean: bool) -> Option<Self> {
        let mut stream = TcpStream::connect(node.mqtt()).expect("the node listens");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("a socket");
        stream.set_write_timeout(patience).expect("a socket");
        stream.write_all(&connect(id, clean)).expect("it is read");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        match answer {
            [0x20, 2, _, 0] => Some(Self(stream)),
            [0x20, 2, _, 3] => None,
            other => panic!("{other:x?}"),
        }
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.0
            .write_all(&subscribe(filter, qos))
            .expect("it is read");
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [0x90, 3, 0, 1, qos]);
    }

    fn publish(&mut self, packet: &[u8], qos: u8) {
        self.0.write_all(packet).expect("it is read");
        if qos > 0 {
            let mut answer = [0; 4];
            self.0.read_exact(&mut answer).expect("an acknowledgement");
            assert_eq!(answer, [0x40, 2, 0, 1]);
        }
    }

    fn ping(&mut self) -> Duration {
        let began = Instant::now();
        self.0.write_all(&[0xc0, 0]).expect("it is read");
        let mut answer = [0; 2];
        self.0.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [0xd0, 0]);
        began.elapsed()
    }
}

/// The sum of a metric's samples whose label, if it has one, contains `label`.
fn metric(node: &Millstream, name: &str, label: &str) -> f64 {
    let (code, text) = node.get("/metrics");
    assert_eq!(code, 200, "{text}");
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
    });
    lines
        .filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn clients_that_want_more_memory_than_there_is_get_none_and_the_others_are_served() {
    const QUEUES: usize = 40;
    let node = Millstream::start_limited(
        "--as=1073741824",
        &["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"],
    );
    let said = "512 MiB of memory (50 % of the address space's 1.0 GiB)";
    assert!(node.out().contains(said), "{}", node.out());
    let mut other = Client::join(&node, "other", true).expect("there is room");
    let mut publisher = Client::join(&node, "publisher", true).expect("there is room");
    // Sessions that let messages wait.
    for n in 0..QUEUES {
        let mut client = Client::join(&node, &format!("q{n}"), false).expect("there is room");
        client.subscribe(&format!("q/{n}"), 1);
    }
    // Clients that read nothing.
    let slow: Vec<_> = (0..20)
        .map(|n| {
            let mut client = Client::join(&node, &format!("s{n}"), true).expect("there is room");
            client.subscribe("s/#", 0);
            client
        })
        .collect();
    // More than three times what there is: queues first, then what is read by nobody, and retained messages.
    for n in 0..20_000 {
        publisher.publish(&publish(&format!("q/{}", n % QUEUES), 1, false), 1);
        if n % 100 == 0 {
            assert!(other.ping() < Duration::from_secs(5));
        }
    }
    for n in 0..12_000 {
        publisher.publish(&publish(&format!("r/{n}"), 0, true), 0);
        publisher.publish(&publish(&format!("s/{n}"), 0, false), 0);
        if n % 100 == 0 {
            assert!(other.ping() < Duration::from_secs(5));
        }
    }
    drop(slow);
    let refused = Client::join(&node, "late", true).is_none();
    assert!(refused, "a new client was let in");
    let (code, text) = node.get("/health/ready");
    assert_eq!(code, 503, "{text}");
    assert!(text.contains("memory: "), "{text}");
    assert_eq!(node.get("/health/live").0, 200);
    let total =
        |name: &str, label: &str| metric(&node, &format!("millstream_broker_{name}"), label);
    assert!(total("clients_refused_memory_total", "") >= 1.0);
    assert!(total("retained_refused_total", "") > 100.0);
    assert!(total("deliveries_dropped_total", "\"memory\"") > 100.0);
    assert!(total("budget_used_bytes", "") < 800e6);
    assert!(total("memory_bytes", "\"retained\"") > 100e6);
    // Who comes back gets what is left for it.
    let mut back = Client::join(&node, "q0", false).expect("it has a session");
    back.0.write_all(&[0xc0, 0]).expect("it is read");
    let mut first = [0; 1];
    back.0.read_exact(&mut first).expect("an answer");
    assert!(first[0] >> 4 == 3 || first == [0xd0], "{first:x?}");
    other.ping();
}
