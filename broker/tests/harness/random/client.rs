//! A client that keeps to the specification while its connection is cut under it: it repeats what was not
//! acknowledged, remembers what it must, and panics if the broker does not keep to it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU16;

use broker::sim::{Peer, Sim};
use codec::{
    Ack, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, Qos,
    ReasonCode, RetainHandling, SubscribeFilter, SubscriptionOptions, Version, Will,
};

use super::dice::Dice;
use super::ledger::{self, Filter, Granted, Ledger, Number, Published, Received, Topic};

/// A session of this expiry is there when its client returns, in any run.
pub const LONG_EXPIRY_S: u32 = 86_400;

/// What a client is told to be.
#[derive(Debug, Clone)]
pub struct Character {
    pub version: Version,
    pub persistent: bool,
    /// The session outlives its connection by this only, so that it is sometimes gone; 5.0.
    pub expiry_s: u32,
    /// Messages that it takes unacknowledged; told to the broker in 5.0.
    pub receive_maximum: u16,
    pub alias_maximum: u16,
    pub packet_bytes_max: u32,
    /// The shared subscription of which it is a member, and nothing else.
    pub group: Option<(&'static str, Filter)>,
    pub has_will: bool,
}

/// What a client acts on.
pub struct Surroundings<'a> {
    pub sim: &'a mut Sim,
    pub ledger: &'a mut Ledger,
    pub dice: &'a mut Dice,
    pub tick: u64,
    pub topics: &'a [Topic],
}

#[derive(Debug)]
struct Subscription {
    filter: Filter,
    qos: u8,
    /// The packet identifier under which it was asked for on this connection.
    asked: Option<u16>,
    since_tick: Option<u64>,
}

/// A publish whose exchange has not ended.
#[derive(Debug)]
struct Unacknowledged {
    id: u16,
    number: Number,
    qos: u8,
    /// PUBREC came: only the identifier matters now.
    released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Acknowledge(u16),
    Receive(u16),
    Complete(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Away,
    Connecting,
    Online,
}

#[derive(Debug)]
pub struct Client {
    pub name: String,
    index: usize,
    pub character: Character,
    pub state: State,
    peer: Option<Peer>,
    /// A connection that it left open when it made another one; the broker closes it once it knows.
    left_open: Option<Peer>,
    pub blocked: bool,
    incoming: Vec<u8>,
    /// Bytes that are still to be written: packets leave in pieces.
    outgoing: Vec<u8>,
    /// Topics of the broker's aliases, on this connection.
    aliases: HashMap<u16, String>,
    /// Identifiers of the broker's messages that are not acknowledged on this connection.
    open: BTreeSet<u16>,
    replies: VecDeque<Reply>,
    /// The broker's receive maximum.
    quota: usize,

    // What lives as long as the session.
    epoch: u32,
    /// The session outlives its connection.
    lasts: bool,
    /// A CONNACK came in this epoch, so the broker has a session for it.
    has_session: bool,
    /// A clean start was asked for and not confirmed.
    wants_clean: bool,
    last_id: u16,
    unacknowledged: VecDeque<Unacknowledged>,
    unreleased: BTreeSet<u16>,
    subscriptions: Vec<Subscription>,
    /// SUBSCRIBE and UNSUBSCRIBE packets whose answer the ledger has no use for.
    requests: BTreeSet<u16>,
    pub received: Received,
    trace: bool,
}

fn nonzero(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("identifiers begin with 1")
}

impl Client {
    pub fn new(index: usize, character: Character) -> Self {
        let name = format!("client-{index}");
        let trace = std::env::var("MILLSTREAM_TRACE").is_ok_and(|traced| traced == name);
        Self {
            name,
            index,
            character,
            state: State::Away,
            peer: None,
            left_open: None,
            blocked: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            aliases: HashMap::new(),
            open: BTreeSet::new(),
            replies: VecDeque::new(),
            quota: 0,
            epoch: 0,
            lasts: true,
            has_session: false,
            wants_clean: false,
            last_id: 0,
            unacknowledged: VecDeque::new(),
            unreleased: BTreeSet::new(),
            subscriptions: Vec::new(),
            requests: BTreeSet::new(),
            received: Received::default(),
            trace,
        }
    }

    /// Nothing is under way that it knows of.
    pub fn is_at_rest(&self) -> bool {
        match self.state {
            State::Away => !self.character.persistent,
            State::Connecting => false,
            State::Online => {
                self.unacknowledged.is_empty()
                    && self.requests.is_empty()
                    && self.replies.is_empty()
                    && self.outgoing.is_empty()
                    && self
                        .subscriptions
                        .iter()
                        .all(|one| one.since_tick.is_some())
            }
        }
    }

    pub fn granted(&self) -> Vec<Granted> {
        let granted = |one: &Subscription| {
            Some(Granted {
                filter: one.filter,
                qos: one.qos,
                since_tick: one.since_tick?,
            })
        };
        self.subscriptions.iter().filter_map(granted).collect()
    }

    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    fn send(&mut self, packet: &Packet<'_>) {
        if self.trace {
            println!("{} > {packet:?}", self.name);
        }
        let version = self.character.version;
        packet
            .encode(version, &mut self.outgoing)
            .expect("the client's packets are valid");
    }

    /// Writes what it has to say: all, or only the first bytes of it.
    pub fn write(&mut self, around: &mut Surroundings<'_>) {
        let Some(peer) = self.peer else { return };
        let len = self.outgoing.len();
        let now = if around.dice.chance(100) {
            around.dice.below(len + 1)
        } else {
            len
        };
        around.sim.send(peer, &self.outgoing[..now]);
        self.outgoing.drain(..now);
    }

    fn new_session(&mut self) {
        self.epoch += 1;
        self.has_session = false;
        self.unacknowledged.clear();
        self.unreleased.clear();
        self.received = Received::default();
        for one in &mut self.subscriptions {
            one.since_tick = None;
        }
    }

    fn new_connection(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        self.aliases.clear();
        self.open.clear();
        self.replies.clear();
        self.requests.clear();
        self.blocked = false;
        for one in &mut self.subscriptions {
            one.asked = None;
        }
    }

    /// Connects, also while another connection of its own is open: that one is forgotten, and closed by the broker.
    pub fn connect(&mut self, around: &mut Surroundings<'_>) {
        self.close_left_open(around);
        self.left_open = self.peer;
        self.gone();
        self.peer = Some(around.sim.connect());
        self.state = State::Connecting;
        let Character {
            version,
            persistent,
            ..
        } = self.character;
        let changes_mind = self.character.group.is_none() && around.dice.chance(20);
        self.wants_clean |= !persistent || changes_mind;
        if self.wants_clean {
            self.new_session();
        }
        // A clean session of 3.x ends with its connection.
        self.lasts = if version == Version::V5 {
            persistent
        } else {
            !self.wants_clean
        };
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            let character = &self.character;
            let mut list = vec![
                Property::ReceiveMaximum(character.receive_maximum),
                Property::TopicAliasMaximum(character.alias_maximum),
                Property::MaximumPacketSize(character.packet_bytes_max),
            ];
            if persistent {
                list.push(Property::SessionExpiryInterval(character.expiry_s));
            }
            for property in list {
                properties.push(property).expect("it is valid");
            }
        }
        let will = self.character.has_will.then_some(Will {
            topic: "w/gone",
            payload: b"-",
            qos: Qos::AtLeastOnce,
            retain: around.dice.chance(500),
            properties: Properties::EMPTY,
        });
        let name = self.name.clone();
        self.send(&Packet::Connect(Connect {
            version,
            clean_start: self.wants_clean,
            keep_alive: 0,
            client_id: &name,
            will,
            username: None,
            password: None,
            properties: properties.as_properties(),
        }));
    }

    /// The connection that it left open breaks, if the broker has not closed it.
    pub fn close_left_open(&mut self, around: &mut Surroundings<'_>) {
        if let Some(peer) = self.left_open.take() {
            around.sim.cut(peer);
        }
    }

    /// The connection breaks, wherever it stands.
    pub fn cut(&mut self, around: &mut Surroundings<'_>) {
        if let Some(peer) = self.peer.take() {
            if self.trace {
                println!("{} cut", self.name);
            }
            around.sim.cut(peer);
        }
        self.gone();
    }

    fn gone(&mut self) {
        // The session may have ended before this connection began another one: it can no longer tell which it has.
        let unsure = self.state == State::Connecting && self.character.expiry_s < LONG_EXPIRY_S;
        self.wants_clean |= unsure;
        self.peer = None;
        self.state = State::Away;
        if !self.lasts {
            self.new_session();
        }
        self.new_connection();
    }

    /// Says DISCONNECT; the broker closes.
    pub fn disconnect(&mut self) {
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::NORMAL_DISCONNECTION,
            properties: Properties::EMPTY,
        }));
    }

    pub fn block(&mut self, blocked: bool, around: &mut Surroundings<'_>) {
        if let Some(peer) = self.peer {
            around.sim.block(peer, blocked);
            self.blocked = blocked;
        }
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % 60_000 + 1;
            let id = self.last_id;
            let taken = self.unacknowledged.iter().any(|one| one.id == id)
                || self.requests.contains(&id)
                || self.subscriptions.iter().any(|one| one.asked == Some(id));
            if !taken {
                return id;
            }
        }
    }

    /// Publishes a message, if the broker's receive maximum lets it.
    pub fn publish(&mut self, around: &mut Surroundings<'_>) {
        let qos = around.dice.below(3) as u8;
        if self.state != State::Online || qos > 0 && self.unacknowledged.len() >= self.quota {
            return;
        }
        let topic = *around.dice.pick(around.topics);
        let number = around.ledger.publish(Published {
            publisher: self.index,
            epoch: self.epoch,
            topic,
            qos,
            sent_tick: around.tick,
            acknowledged: false,
            refused: false,
        });
        let id = if qos > 0 { self.free_id() } else { 0 };
        if qos > 0 {
            let released = false;
            self.unacknowledged.push_back(Unacknowledged {
                id,
                number,
                qos,
                released,
            });
        }
        self.send_publish(topic, number, qos, id, false);
    }

    fn send_publish(&mut self, topic: Topic, number: Number, qos: u8, id: u16, dup: bool) {
        let mut payload = number.to_string().into_bytes();
        let padding = if ledger::is_large(number) {
            5_000
        } else {
            number as usize % 90
        };
        payload.resize(payload.len() + padding, b' ');
        let name = topic.name();
        self.send(&Packet::Publish(Publish {
            dup,
            qos: Qos::try_from(qos).expect("0, 1 or 2"),
            retain: false,
            topic: &name,
            packet_id: NonZeroU16::new(id),
            properties: Properties::EMPTY,
            payload: &payload,
        }));
    }

    /// Publishes something that is retained, or no longer; it is not in the ledger.
    pub fn publish_retained(&mut self, around: &mut Surroundings<'_>) {
        if self.state != State::Online {
            return;
        }
        let topic = format!("k/{}", around.dice.below(50));
        let payload: &[u8] = if around.dice.chance(300) { b"" } else { b"-" };
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: true,
            topic: &topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload,
        }));
    }

    /// Asks for one more subscription.
    pub fn subscribe(&mut self, filter: Filter, qos: u8) {
        if self.subscriptions.iter().all(|one| one.filter != filter) {
            let subscription = Subscription {
                filter,
                qos,
                asked: None,
                since_tick: None,
            };
            self.subscriptions.push(subscription);
        }
        self.ask();
    }

    /// Asks for the subscriptions that it does not have yet.
    fn ask(&mut self) {
        if self.state != State::Online {
            return;
        }
        for at in 0..self.subscriptions.len() {
            let one = &self.subscriptions[at];
            if one.since_tick.is_some() || one.asked.is_some() {
                continue;
            }
            let text = match self.character.group {
                Some((group, _)) => format!("$share/{group}/{}", one.filter.text()),
                None => one.filter.text(),
            };
            let qos = Qos::try_from(one.qos).expect("0, 1 or 2");
            let id = self.free_id();
            self.subscriptions[at].asked = Some(id);
            let options = SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            };
            let filters = [SubscribeFilter {
                filter: &text,
                options,
            }];
            codec::encode_subscribe(
                &mut self.outgoing,
                self.character.version,
                nonzero(id),
                Properties::EMPTY,
                filters.into_iter(),
            )
            .expect("it is valid");
        }
    }

    /// Subscribes to what is retained; it is not in the ledger.
    pub fn subscribe_retained(&mut self, qos: u8) {
        if self.state == State::Online {
            let id = self.free_id();
            self.requests.insert(id);
            let options = SubscriptionOptions {
                qos: Qos::try_from(qos).expect("0, 1 or 2"),
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            };
            let filters = [SubscribeFilter {
                filter: "k/#",
                options,
            }];
            let version = self.character.version;
            let (id, none) = (nonzero(id), Properties::EMPTY);
            codec::encode_subscribe(&mut self.outgoing, version, id, none, filters.into_iter())
                .expect("it is valid");
        }
    }

    /// Gives up a subscription.
    pub fn unsubscribe(&mut self, dice: &mut Dice) {
        if self.state != State::Online || self.subscriptions.is_empty() {
            return;
        }
        let at = dice.below(self.subscriptions.len());
        if self.subscriptions[at].since_tick.is_none() {
            return; // its SUBACK is still to come
        }
        let text = self.subscriptions.swap_remove(at).filter.text();
        let id = self.free_id();
        self.requests.insert(id);
        let version = self.character.version;
        let (id, none) = (nonzero(id), Properties::EMPTY);
        codec::encode_unsubscribe(&mut self.outgoing, version, id, none, [&*text].into_iter())
            .expect("it is valid");
    }

    /// Acknowledges some of what it owes, oldest first.
    pub fn reply(&mut self, count: usize) {
        let count = count.min(self.replies.len());
        let now: Vec<Reply> = self.replies.drain(..count).collect();
        for reply in now {
            match reply {
                Reply::Acknowledge(id) => {
                    self.open.remove(&id);
                    self.send(&Packet::PubAck(Ack::success(nonzero(id))));
                }
                Reply::Receive(id) => self.send(&Packet::PubRec(Ack::success(nonzero(id)))),
                Reply::Complete(id) => {
                    self.open.remove(&id);
                    self.send(&Packet::PubComp(Ack::success(nonzero(id))));
                }
            }
        }
    }

    /// Reads what has come, and notices if the broker has closed.
    pub fn read(&mut self, around: &mut Surroundings<'_>) {
        let Some(peer) = self.peer else { return };
        let bytes = around.sim.receive(peer);
        let closed = !around.sim.is_open(peer);
        if !bytes.is_empty() {
            self.incoming.extend_from_slice(&bytes);
            let incoming = std::mem::take(&mut self.incoming);
            let mut at = 0;
            while let Some(frame) = codec::split_frame(&incoming[at..], codec::PACKET_BYTES_MAX)
                .expect("the broker's packets are well-formed")
            {
                assert!(
                    frame.len <= self.character.packet_bytes_max as usize,
                    "{}: a packet of {} bytes",
                    self.name,
                    frame.len
                );
                at += frame.len;
                let packet = codec::decode(self.character.version, frame)
                    .expect("the broker's packets are well-formed");
                if self.trace {
                    println!("{} < {} {packet:?}", self.name, around.tick);
                }
                self.handle(&packet, around);
            }
            self.incoming = incoming[at..].to_vec();
        }
        if closed {
            if self.trace {
                println!("{} closed by the broker", self.name);
            }
            self.gone();
        }
    }

    fn handle(&mut self, packet: &Packet<'_>, around: &mut Surroundings<'_>) {
        match packet {
            Packet::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::SUCCESS, "{}", self.name);
                self.quota =
                    usize::from(connack.properties.receive_maximum().unwrap_or(16)).min(16);
                self.on_connack(connack.session_present, around);
            }
            Packet::Publish(publish) => self.on_publish(publish, around.ledger),
            Packet::PubAck(ack) => self.on_answer(1, ack, around.ledger),
            Packet::PubRec(ack) => self.on_answer(2, ack, around.ledger),
            Packet::PubRel(ack) => {
                let id = ack.packet_id.get();
                self.unreleased.remove(&id);
                self.open.insert(id);
                self.replies.push_back(Reply::Complete(id));
            }
            Packet::PubComp(ack) => {
                let id = ack.packet_id.get();
                let is_it = |one: &Unacknowledged| one.id == id && one.released;
                let at = self.unacknowledged.iter().position(is_it);
                let at = at.unwrap_or_else(|| panic!("{}: PUBCOMP #{id} of nothing", self.name));
                self.unacknowledged.remove(at);
            }
            Packet::SubAck(suback) => {
                let id = suback.packet_id.get();
                if self.requests.remove(&id) {
                    return;
                }
                let asked = |one: &&mut Subscription| one.asked == Some(id);
                let one = self
                    .subscriptions
                    .iter_mut()
                    .find(asked)
                    .expect("it was asked for");
                assert_eq!(suback.reasons, [one.qos], "{}", self.name);
                one.since_tick = Some(around.tick);
                one.asked = None;
            }
            Packet::UnsubAck(unsuback) => {
                let known = self.requests.remove(&unsuback.packet_id.get());
                assert!(known, "{}: an UNSUBACK of nothing", self.name);
            }
            Packet::Disconnect(disconnect) => {
                let usual = [
                    ReasonCode::SESSION_TAKEN_OVER,
                    ReasonCode::SERVER_SHUTTING_DOWN,
                ];
                assert!(
                    usual.contains(&disconnect.reason),
                    "{}: {disconnect:?}",
                    self.name
                );
            }
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn on_connack(&mut self, present: bool, around: &mut Surroundings<'_>) {
        let Character {
            version,
            persistent,
            expiry_s,
            ..
        } = self.character;
        // 3.1 cannot say it; this client then believes what it knows.
        let present = if version == Version::V31 {
            self.has_session && !self.wants_clean
        } else {
            present
        };
        if self.wants_clean {
            assert!(!present, "{}: a session after a clean start", self.name);
        } else if !present {
            let must = self.has_session && persistent && expiry_s >= LONG_EXPIRY_S;
            assert!(!must, "{}: its session is lost", self.name);
            self.new_session();
        }
        self.wants_clean = false;
        self.has_session = true;
        self.state = State::Online;
        // [MQTT-4.4.0-1]
        for at in 0..self.unacknowledged.len() {
            let Unacknowledged {
                id,
                number,
                qos,
                released,
            } = self.unacknowledged[at];
            if released {
                self.send(&Packet::PubRel(Ack::success(nonzero(id))));
            } else {
                let topic = around.ledger.messages[number as usize].topic;
                self.send_publish(topic, number, qos, id, true);
            }
        }
        self.ask();
    }

    fn on_publish(&mut self, publish: &Publish<'_>, ledger: &mut Ledger) {
        let qos = u8::from(publish.qos);
        if let Some(alias) = publish.properties.topic_alias() {
            assert!(
                (1..=self.character.alias_maximum).contains(&alias),
                "{}",
                self.name
            );
            if publish.topic.is_empty() {
                assert!(
                    self.aliases.contains_key(&alias),
                    "{}: an unknown alias",
                    self.name
                );
            } else {
                self.aliases.insert(alias, publish.topic.to_owned());
            }
        }
        let mut repeated = false;
        if let Some(id) = publish.packet_id {
            let id = id.get();
            assert!(self.open.insert(id), "{}: #{id} is in use", self.name);
            let max = usize::from(self.character.receive_maximum);
            assert!(
                self.open.len() <= max,
                "{}: over its receive maximum of {max}",
                self.name
            );
            if qos == 1 {
                self.replies.push_back(Reply::Acknowledge(id));
            } else {
                repeated = !self.unreleased.insert(id);
                assert!(
                    !repeated || publish.dup,
                    "{}: #{id} names another message",
                    self.name
                );
                self.replies.push_back(Reply::Receive(id));
            }
        }
        let Some(number) = Ledger::number(publish.payload).filter(|_| !repeated) else {
            return;
        };
        match self.character.group {
            Some((group, _)) => ledger.note_shared(group, number, qos),
            None => {
                let message = &ledger.messages[number as usize];
                // Of a message that came with QoS 0 the first copy may be lost, and a repetition seen.
                let ordered = self.subscriptions.iter().any(|one| {
                    one.since_tick
                        .is_some_and(|since| since < message.sent_tick)
                        && one.filter.matches(message.topic)
                        && (one.qos > 0 || message.qos == 0)
                });
                self.received.note(ledger, number, qos, ordered, &self.name);
            }
        }
    }

    /// PUBACK or PUBREC: they come in the order of the publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    fn on_answer(&mut self, qos: u8, ack: &Ack<'_>, ledger: &mut Ledger) {
        let id = ack.packet_id.get();
        let waits = |one: &Unacknowledged| one.qos == qos && !one.released;
        let at = self.unacknowledged.iter().position(waits);
        let at = at.unwrap_or_else(|| panic!("{}: an answer to nothing: {ack:?}", self.name));
        let one = &mut self.unacknowledged[at];
        assert_eq!(
            one.id, id,
            "{}: QoS {qos} is answered out of order",
            self.name
        );
        let message = &mut ledger.messages[one.number as usize];
        if ack.reason.is_failure() {
            assert!(message.refused, "{}: refused by nobody", self.name);
            self.unacknowledged.remove(at);
            return;
        }
        message.acknowledged = true;
        if qos == 1 {
            self.unacknowledged.remove(at);
        } else {
            one.released = true;
            self.send(&Packet::PubRel(Ack::success(nonzero(id))));
        }
    }
}
