//! A broker of one worker in memory, and the packets that its clients send.

use std::num::NonZeroU16;
use std::sync::Arc;

use broker::sim::Shard;
use broker::transport::MemoryOutput;
use broker::{Config, NoSink, Time};
use codec::{
    Connect, Packet, Properties, Publish, Qos, SubscribeFilter, SubscriptionOptions, Version,
    encode_subscribe, encode_unsubscribe,
};

/// Decides every hash.
const SEED: u64 = 1;

/// See the module.
pub struct Broker {
    shard: Shard,
    output: MemoryOutput,
}

impl Broker {
    pub fn new() -> Self {
        let config = Config {
            workers: 1,
            sys_interval_s: 0,
            ..Config::default()
        };
        let sink: Arc<dyn broker::Sink> = Arc::new(NoSink);
        let shards = Shard::all(&config, &sink, SEED).expect("the configuration is valid");
        Self {
            shard: shards.into_iter().next().expect("one worker"),
            output: MemoryOutput::default(),
        }
    }

    /// Opens a connection: its place.
    pub fn open(&mut self, peer: u32) -> u32 {
        self.shard.open(peer).expect("below the bound")
    }

    /// The client writes bytes.
    pub fn send(&mut self, slot: u32, peer: u32, bytes: &[u8]) {
        assert!(self.shard.feed(slot, peer, bytes), "not read from");
    }

    /// One turn: what was written in it, in bytes and in writes.
    pub fn turn(&mut self) -> (usize, usize) {
        let _ = self.shard.turn(&mut self.output);
        (self.output.bytes.len(), self.output.writes.len())
    }

    /// Lets time pass: so many seconds since the beginning.
    #[allow(dead_code, reason = "the memory test needs it, the counts do not")]
    pub fn at_s(&mut self, seconds: u64) {
        self.shard.set_now(Time(seconds * 1_000));
        self.turn();
    }

    /// What was written in the last turn.
    pub fn written(&self) -> &[u8] {
        &self.output.bytes
    }

    /// A client that is connected and has these subscriptions: its place.
    pub fn join(&mut self, peer: u32, filters: &[String], qos: Qos) -> u32 {
        let slot = self.open(peer);
        self.send(slot, peer, &connect(&format!("client-{peer:07}"), true));
        for filter in filters {
            self.send(slot, peer, &subscribe(filter, qos));
        }
        self.turn();
        slot
    }
}

fn encode(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet
        .encode(Version::V311, &mut bytes)
        .expect("a valid packet");
    bytes
}

/// The CONNECT of a client of 3.1.1 with a keep-alive.
pub fn connect(client_id: &str, clean_start: bool) -> Vec<u8> {
    encode(&Packet::Connect(Connect {
        version: Version::V311,
        clean_start,
        keep_alive: 300,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    }))
}

/// A SUBSCRIBE with one filter.
pub fn subscribe(filter: &str, qos: Qos) -> Vec<u8> {
    subscribe_to(&[filter.to_owned()], qos)
}

/// A SUBSCRIBE with these filters.
pub fn subscribe_to(filters: &[String], qos: Qos) -> Vec<u8> {
    let mut bytes = Vec::new();
    let filters = filters.iter().map(|filter| SubscribeFilter {
        filter,
        options: SubscriptionOptions::with_qos(qos),
    });
    let id = NonZeroU16::MIN;
    encode_subscribe(&mut bytes, Version::V311, id, Properties::EMPTY, filters)
        .expect("a valid packet");
    bytes
}

/// An UNSUBSCRIBE with one filter.
pub fn unsubscribe(filter: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (id, none) = (NonZeroU16::MIN, Properties::EMPTY);
    let filters = std::iter::once(filter);
    encode_unsubscribe(&mut bytes, Version::V311, id, none, filters).expect("a valid packet");
    bytes
}

/// A PUBLISH with a payload of 100 bytes.
pub fn publish(topic: &str, qos: Qos) -> Vec<u8> {
    encode(&Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != Qos::AtMostOnce).then_some(NonZeroU16::MIN),
        properties: Properties::EMPTY,
        payload: &[b'x'; 100],
    }))
}

/// A DISCONNECT.
pub fn disconnect() -> Vec<u8> {
    vec![0xE0, 0]
}
