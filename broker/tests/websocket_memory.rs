//! What WebSocket costs for an idle client in the broker's own memory, counted at the allocator beside a client without it. One
//! test, because the allocator counts for the whole process.

mod idle;

use std::sync::Arc;

use broker::sim::{Peer, Sim};
use broker::transport::{Layer, ProxyLayer, WebSocketLayer};
use broker::{Config, NoSink};
use idle::{held, hello};
use websocket::{Client, Greeting, Rules};

const CLIENTS: u32 = 500;
/// What WebSocket adds to an idle client: its layer, and what holds layers.
const WEBSOCKET_BYTES_MAX: f64 = 256.0;
/// The same with the header of a proxy, which is known as long as the client is there.
const PROXIED_BYTES_MAX: f64 = 448.0;

/// Sends in small pieces: the buffer that the simulation keeps for a client is as large as the largest of them.
fn send(sim: &mut Sim, peer: Peer, wire: &[u8]) {
    for piece in wire.chunks(32) {
        sim.send(peer, piece);
        sim.run();
    }
}

fn plain(sim: &mut Sim, number: u32) -> Peer {
    let peer = sim.connect();
    send(sim, peer, &hello(number));
    assert_eq!(sim.receive(peer).len(), 9);
    peer
}

fn framed(sim: &mut Sim, number: u32, rules: &Arc<Rules>, header: &[u8]) -> Peer {
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    if !header.is_empty() {
        layers.push(Box::new(ProxyLayer::new(true)));
    }
    layers.push(Box::new(WebSocketLayer::new(Arc::clone(rules))));
    let peer = sim.connect_over(layers);
    let mut client = Client::new(Greeting {
        host: "broker.example",
        path: "/mqtt",
        protocol: "mqtt",
        seed: u64::from(number),
    });
    let (mut wire, mut up) = (header.to_vec(), Vec::new());
    client.begin(&mut wire);
    client.send(&hello(number), &mut wire);
    for _ in 0..2 {
        send(sim, peer, &std::mem::take(&mut wire));
        client.receive(&mut sim.receive(peer), &mut up, &mut wire);
    }
    assert_eq!(up.len(), 9);
    peer
}

fn leave(sim: &mut Sim, peers: Vec<Peer>) {
    for peer in peers {
        sim.finish(peer);
    }
    sim.run();
    // No timer waits for longer.
    sim.advance_ms(1_000_000);
    sim.run();
}

#[test]
fn what_websocket_costs_an_idle_client() {
    let config = Config {
        workers: 1,
        sys_interval_s: 0,
        ..Config::default()
    };
    let mut sim = Sim::new(&config, Arc::new(NoSink), 1).expect("a valid configuration");
    let rules = Arc::new(Rules::default());
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883\r\n";
    let mut number = 0..;
    // Tables grow with those who come, and are not grown any more by those who come later.
    let mut crowd = Vec::new();
    for _ in 0..4 * CLIENTS + 100 {
        crowd.push(plain(&mut sim, number.next().expect("numbers")));
    }
    crowd.push(framed(
        &mut sim,
        number.next().expect("numbers"),
        &rules,
        header,
    ));
    leave(&mut sim, crowd);
    let mut each = |what: &str, open: &dyn Fn(&mut Sim, u32) -> Peer| {
        let mut peers = Vec::with_capacity(CLIENTS as usize);
        let before = held();
        for _ in 0..CLIENTS {
            peers.push(open(&mut sim, number.next().expect("numbers")));
        }
        let bytes = (held() - before) / f64::from(CLIENTS);
        println!("{what:<40} {bytes:8.1} bytes");
        leave(&mut sim, peers);
        bytes
    };
    let without = each("without WebSocket", &plain);
    let with = each("WebSocket", &|sim, number| framed(sim, number, &rules, b""));
    assert!(with - without <= WEBSOCKET_BYTES_MAX, "{}", with - without);
    let behind = each("WebSocket behind a proxy", &|sim, number| {
        framed(sim, number, &rules, header)
    });
    assert!(
        behind - without <= PROXIED_BYTES_MAX,
        "{}",
        behind - without
    );
}
