//! What is published: which lane is next and when it is due, what waits for its window, what is in flight, and the ledger.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU16;

use codec::{Qos, ReasonCode};

use crate::clock::Nanos;
use crate::histogram::Histo;
use crate::outcome::{Numbers, SecondOutcome, StreamOutcome};
use crate::payload::{self, Noise};
use crate::plan::{Audience, Pace, Pick, Plan, Relation, Stream};
use crate::runner::WAITING_MAX;
use crate::runner::connecting::Connecting;
use crate::stamp::Stamp;
use crate::swarm::{Client, Outgoing, Swarm, SwarmError};

/// Messages that one turn hands out at most, so that answers are read in between.
const MESSAGES_PER_TURN_MAX: u64 = 8_192;

/// Messages of QoS 0 that a publisher at its highest pace sends in one turn.
const QOS_0_PER_TURN_MAX: usize = 64;

/// Messages published once that may wait for their windows.
const ONCE_WAITING_MAX: u64 = 4_096;

/// The part of the run that messages are counted in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The schedule begins.
    pub(crate) start: Nanos,
    /// The measured time begins.
    pub(crate) from: Nanos,
    /// The schedule and the measured time end.
    pub(crate) to: Nanos,
}

impl Window {
    pub(crate) fn has(&self, at: Nanos) -> bool {
        (self.from..self.to).contains(&at)
    }
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    packet_id: NonZeroU16,
    stream: u16,
    lane: u32,
    number: u32,
    due: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    stream: u16,
    lane: u32,
    due: Nanos,
}

/// A publisher's messages on their way.
#[derive(Debug, Default)]
struct Flight {
    sent: VecDeque<InFlight>,
    held: VecDeque<Held>,
}

impl Flight {
    /// Whether the stream's window lets no more be in flight.
    fn is_full(&self, stream: &Stream) -> bool {
        stream.qos != Qos::AtMostOnce && self.sent.len() >= stream.window as usize
    }
}

/// A stream as far as this share publishes it.
#[derive(Debug)]
struct Source {
    /// This share's publishers, by their number in the group.
    publishers: Vec<u32>,
    /// All publishers of the group.
    group_clients: u32,
    /// Lanes of this share.
    lanes: u32,
    /// Messages a second of this share; 0 for another pace.
    per_second: f64,
    /// Messages that were handed out.
    handed_out: u64,
    /// The next number of each lane, by the lane's index in this share.
    numbers: Vec<u32>,
    /// Messages of a lane that were refused or never answered.
    failed: HashMap<u32, Numbers, ahash::RandomState>,
    /// Deliveries that each topic's messages lead to, for an early end.
    deliveries_each: Deliveries,
    /// The same of those that must come.
    checked_each: Deliveries,
    payload: Vec<u8>,
    outcome: StreamOutcome,
}

#[derive(Debug)]
struct Deliveries {
    always: u64,
    /// One more for topics below each of these.
    own: Vec<u32>,
    /// Subscribers of each topic.
    listed: Vec<Vec<u32>>,
}

impl Deliveries {
    fn of(plan: &Plan, stream: &Stream, which: impl Fn(&Audience) -> bool) -> Self {
        let mut all = Self {
            always: 0,
            own: Vec::new(),
            listed: Vec::new(),
        };
        for audience in stream.audiences.iter().filter(|it| which(it)) {
            let clients = plan.groups[audience.group].clients;
            match &audience.relation {
                Relation::Own => all.own.push(clients),
                Relation::All => all.always += u64::from(clients),
                Relation::Shared | Relation::Answers => all.always += 1,
                Relation::Listed(listed) => {
                    let counts = listed.iter().map(|who| who.len() as u32).collect();
                    all.listed.push(counts);
                }
            }
        }
        all
    }

    fn of_topic(&self, topic: u32) -> u64 {
        let own = self.own.iter().filter(|clients| topic < **clients).count() as u64;
        let listed: u64 = self
            .listed
            .iter()
            .map(|counts| counts.get(topic as usize).copied().map_or(0, u64::from))
            .sum();
        self.always + own + listed
    }
}

impl Source {
    fn new(plan: &Plan, at: usize, connecting: &Connecting) -> Self {
        let stream = &plan.streams[at];
        let group = &plan.groups[stream.group];
        let publishers: Vec<u32> = (0..group.clients)
            .filter(|n| connecting.owns(group.first.0 + n))
            .collect();
        let per_publisher = stream.lanes / group.clients.max(1);
        let lanes = publishers.len() as u32 * per_publisher;
        let part = f64::from(lanes) / f64::from(stream.lanes.max(1));
        let per_second = match stream.pace {
            Pace::PerSecond(rate) => rate * part,
            Pace::Highest | Pace::Once => 0.0,
        };
        Self {
            group_clients: group.clients,
            lanes,
            per_second,
            handed_out: 0,
            numbers: vec![0; lanes as usize],
            failed: HashMap::default(),
            deliveries_each: Deliveries::of(plan, stream, |audience| {
                !plan.groups[audience.group].reads_slowly()
            }),
            checked_each: Deliveries::of(plan, stream, |audience| audience.checked),
            payload: vec![0; stream.payload_bytes as usize],
            outcome: StreamOutcome::default(),
            publishers,
        }
    }

    /// The lane with this index in the share.
    fn lane(&self, index: u32) -> u32 {
        let own = self.publishers.len() as u32;
        self.publishers[(index % own) as usize] + index / own * self.group_clients
    }

    /// When the next message is due, by its number in the schedule.
    fn due_at(&self, n: u64, burst: u32, start: Nanos) -> Nanos {
        let first_of_burst = n - n % u64::from(burst.max(1));
        start + (first_of_burst as f64 / self.per_second * 1e9) as Nanos
    }

    /// Messages of the whole schedule.
    fn total(&self, window: Window) -> u64 {
        (self.per_second * (window.to - window.start) as f64 / 1e9).floor() as u64
    }

    fn next_index(&self, n: u64, burst: u32, pick: Pick) -> u32 {
        let burst = u64::from(burst.max(1));
        let index = match pick {
            Pick::InTurn => n / burst % u64::from(self.lanes),
            // The same lane for a whole burst: the choice is a function of the burst's number.
            Pick::Random => Noise::new(self.noise_seed() ^ (n / burst)).below(self.lanes.into()),
        };
        index as u32
    }

    fn noise_seed(&self) -> u64 {
        0x6A09_E667_F3BC_C908 ^ u64::from(self.lanes) << 20
    }
}

/// All that this share publishes.
#[derive(Debug)]
pub(crate) struct Publishing {
    sources: Vec<Source>,
    flights: HashMap<u32, Flight, ahash::RandomState>,
    /// Clients with messages that wait and that may have room again.
    pub(crate) waiting: u64,
    pub(crate) in_flight: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) dropped: u64,
    pub(crate) unasked: u64,
    /// Deliveries that what was sent must lead to, when nothing fails.
    pub(crate) deliveries_expected: u64,
    /// Deliveries that must come: without those of messages that were refused or not answered, and of subscribers that may
    /// miss some.
    pub(crate) deliveries_owed: u64,
    /// Publishers at their highest pace whose window has room.
    hungry: VecDeque<(u16, u32)>,
    /// Publishers with QoS 0 that wait for room; nothing tells when there is.
    blocked: VecDeque<u32>,
    topic: String,
}

impl Publishing {
    pub(crate) fn new(plan: &Plan, connecting: &Connecting) -> Self {
        Self {
            sources: (0..plan.streams.len())
                .map(|at| Source::new(plan, at, connecting))
                .collect(),
            flights: HashMap::default(),
            waiting: 0,
            in_flight: 0,
            sent: 0,
            acknowledged: 0,
            dropped: 0,
            unasked: 0,
            deliveries_expected: 0,
            deliveries_owed: 0,
            hungry: VecDeque::new(),
            blocked: VecDeque::new(),
            topic: String::new(),
        }
    }

    /// Publishes what is published once: whether all of it is answered.
    pub(crate) fn once<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        second: &mut SecondOutcome,
    ) -> Result<bool, SwarmError> {
        let now = swarm.now();
        let mut all = true;
        for at in 0..self.sources.len() {
            if plan.streams[at].pace != Pace::Once {
                continue;
            }
            let lanes = u64::from(self.sources[at].lanes);
            let mut handed_out = 0;
            while self.sources[at].handed_out < lanes
                && self.waiting < ONCE_WAITING_MAX
                && handed_out < MESSAGES_PER_TURN_MAX
            {
                let index = self.sources[at].handed_out as u32;
                let lane = self.sources[at].lane(index);
                self.sources[at].handed_out += 1;
                handed_out += 1;
                self.hand_out(plan, swarm, (at, lane, now), None, second)?;
            }
            all &= self.sources[at].handed_out == lanes;
        }
        Ok(all && self.in_flight == 0 && self.waiting == 0)
    }

    /// Begins streams with the highest pace.
    pub(crate) fn begin(&mut self, plan: &Plan) {
        for (at, source) in (0_u16..).zip(&self.sources) {
            if plan.streams[usize::from(at)].pace == Pace::Highest {
                let window = plan.streams[usize::from(at)].window;
                for index in 0..source.publishers.len() as u32 {
                    let times = if plan.streams[usize::from(at)].qos == Qos::AtMostOnce {
                        1
                    } else {
                        window
                    };
                    self.hungry
                        .extend(std::iter::repeat_n((at, index), times as usize));
                }
            }
        }
    }

    /// When the next message of a schedule is due.
    pub(crate) fn next_due(&self, plan: &Plan, window: Window) -> Option<Nanos> {
        if !self.hungry.is_empty() {
            return Some(0);
        }
        self.sources
            .iter()
            .zip(&plan.streams)
            .filter(|(source, _)| source.lanes > 0 && source.handed_out < source.total(window))
            .map(|(source, stream)| source.due_at(source.handed_out, stream.burst, window.start))
            .min()
    }

    /// Whether the schedules have ended.
    pub(crate) fn is_over(&self, window: Window, now: Nanos) -> bool {
        now >= window.to
            && self
                .sources
                .iter()
                .all(|source| source.handed_out >= source.total(window))
    }

    /// Hands out what is due.
    pub(crate) fn go_on<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        window: Window,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        let now = swarm.now();
        for _ in 0..self.blocked.len() {
            let Some(client) = self.blocked.pop_front() else {
                break;
            };
            self.release(plan, swarm, Client(client), Some(window), second)?;
        }
        for (at, stream) in plan.streams.iter().enumerate() {
            let total = self.sources[at].total(window);
            if self.sources[at].lanes == 0 {
                continue;
            }
            let mut handed_out = 0;
            while self.sources[at].handed_out < total && handed_out < MESSAGES_PER_TURN_MAX {
                let source = &mut self.sources[at];
                let n = source.handed_out;
                let due = source.due_at(n, stream.burst, window.start);
                if due > now {
                    break;
                }
                let index = source.next_index(n, stream.burst, stream.pick);
                let lane = source.lane(index);
                source.handed_out += 1;
                handed_out += 1;
                self.hand_out(plan, swarm, (at, lane, due), Some(window), second)?;
            }
        }
        self.feed_hungry(plan, swarm, window, second)
    }

    /// Streams at their highest pace: a message for every acknowledgement, or for all the room there is.
    fn feed_hungry<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        window: Window,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        for _ in 0..self.hungry.len() {
            let now = swarm.now();
            if now >= window.to {
                self.hungry.clear();
                break;
            }
            let Some((at, index)) = self.hungry.pop_front() else {
                break;
            };
            let stream = &plan.streams[usize::from(at)];
            let client = self.publisher(plan, usize::from(at), index);
            if stream.qos == Qos::AtMostOnce {
                let room = swarm.room(client).min(QOS_0_PER_TURN_MAX);
                for _ in 0..room {
                    self.feed(plan, swarm, (at, index, now), window, second)?;
                }
                self.hungry.push_back((at, index));
            } else if swarm.room(client) > 0 {
                self.feed(plan, swarm, (at, index, now), window, second)?;
            } else {
                self.hungry.push_back((at, index));
            }
        }
        Ok(())
    }

    fn publisher(&self, plan: &Plan, at: usize, index: u32) -> Client {
        let group = &plan.groups[plan.streams[at].group];
        Client(group.first.0 + self.sources[at].publishers[index as usize])
    }

    fn feed<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        (at, index, now): (u16, u32, Nanos),
        window: Window,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        let source = &mut self.sources[usize::from(at)];
        let own = source.publishers.len() as u32;
        let of_publisher = source.lanes / own;
        let turn = (source.handed_out % u64::from(of_publisher.max(1))) as u32;
        let lane = source.lane(index + turn * own);
        source.handed_out += 1;
        source.outcome.counts.due += 1;
        self.send(
            plan,
            swarm,
            (usize::from(at), lane, now),
            Some(window),
            second,
        )
    }

    /// A message is due: sends it, or lets it wait for its window.
    fn hand_out<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        (at, lane, due): (usize, u32, Nanos),
        window: Option<Window>,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        let stream = &plan.streams[at];
        let group = &plan.groups[stream.group];
        let client = Client(group.first.0 + stream.publisher(lane, group.clients));
        let source = &mut self.sources[at];
        source.outcome.counts.due += 1;
        if window.is_some_and(|window| window.has(due)) {
            let late = swarm.now().saturating_sub(due) / 1_000;
            source.outcome.counts.late.record_micros(late);
        }
        let flight = self.flights.entry(client.0).or_default();
        let full = flight.is_full(stream);
        if !flight.held.is_empty() || full || swarm.room(client) == 0 {
            if self.waiting >= WAITING_MAX {
                self.dropped += 1;
                return Ok(());
            }
            let stream = at as u16;
            flight.held.push_back(Held { stream, lane, due });
            self.waiting += 1;
            if flight.sent.is_empty() && flight.held.len() == 1 {
                self.blocked.push_back(client.0);
            }
            return Ok(());
        }
        self.send(plan, swarm, (at, lane, due), window, second)
    }

    fn send<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        (at, lane, due): (usize, u32, Nanos),
        window: Option<Window>,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        let stream = &plan.streams[at];
        let group = &plan.groups[stream.group];
        let publisher = stream.publisher(lane, group.clients);
        let client = Client(group.first.0 + publisher);
        let source = &mut self.sources[at];
        let index = source.index_of(lane);
        let number = source.numbers[index];
        let stamp = Stamp {
            run: plan.run,
            stream: at as u16,
            lane,
            number,
            due_ns: due,
        };
        source.numbers[index] += 1;
        let topic = stream.topic_of(lane);
        match &stream.text {
            None => payload::write(&stamp, &mut source.payload),
            Some(text) => {
                let bytes = stream.payload_bytes as usize;
                text.render(&stamp, topic, publisher, bytes, &mut source.payload);
            }
        }
        stream.topic.render(topic, 0, &mut self.topic);
        let message = Outgoing {
            topic: &self.topic,
            qos: stream.qos,
            retain: stream.retain,
            payload: &source.payload,
        };
        let packet_id = swarm.publish(client, &message)?;
        source.outcome.counts.sent += 1;
        self.sent += 1;
        second.sent += 1;
        self.deliveries_expected += source.deliveries_each.of_topic(topic);
        self.deliveries_owed += source.checked_each.of_topic(topic);
        if window.is_some_and(|window| window.has(swarm.now())) {
            source.outcome.counts.sent_measured += 1;
        }
        if let Some(packet_id) = packet_id {
            self.in_flight += 1;
            let flight = self.flights.entry(client.0).or_default();
            flight.sent.push_back(InFlight {
                packet_id,
                stream: at as u16,
                lane,
                number,
                due,
            });
        }
        Ok(())
    }

    /// An acknowledgement came. Returns the microseconds since the message was due.
    pub(crate) fn acknowledged<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        (client, packet_id, reason): (Client, NonZeroU16, ReasonCode),
        window: Option<Window>,
        now: Nanos,
        second: &mut SecondOutcome,
    ) -> Result<Option<u64>, SwarmError> {
        let found = self.flights.get_mut(&client.0).and_then(|flight| {
            let at = flight
                .sent
                .iter()
                .position(|sent| sent.packet_id == packet_id)?;
            flight.sent.remove(at)
        });
        let Some(sent) = found else {
            self.unasked += 1;
            return Ok(None);
        };
        self.in_flight -= 1;
        let at = usize::from(sent.stream);
        let source = &mut self.sources[at];
        let mut micros = None;
        // No matching subscribers is a success too (3.4.2.1).
        if reason.0 < 0x80 {
            let latency = now.saturating_sub(sent.due) / 1_000;
            micros = Some(latency);
            source.outcome.counts.acknowledged += 1;
            self.acknowledged += 1;
            second.acknowledged += 1;
            if window.is_some_and(|window| window.has(sent.due)) {
                source.outcome.counts.latency.record_micros(latency);
            }
            if window.is_some_and(|window| window.has(now)) {
                source.outcome.counts.acknowledged_measured += 1;
            }
        } else {
            *source
                .outcome
                .counts
                .refused
                .entry(reason.to_string())
                .or_default() += 1;
            self.deliveries_owed -= source.failed(&plan.streams[at], sent);
        }
        if plan.streams[at].pace == Pace::Highest {
            self.hungry
                .push_back((sent.stream, source.publisher_of(sent.lane)));
        }
        self.release(plan, swarm, client, window, second)?;
        Ok(micros)
    }

    /// Sends what waited for room.
    fn release<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        client: Client,
        window: Option<Window>,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        loop {
            let Some(flight) = self.flights.get_mut(&client.0) else {
                return Ok(());
            };
            let Some(held) = flight.held.front() else {
                return Ok(());
            };
            let stream = &plan.streams[usize::from(held.stream)];
            let full = flight.is_full(stream);
            if full || swarm.room(client) == 0 {
                if flight.sent.is_empty() {
                    // No answer will tell when there is room again.
                    self.blocked.push_back(client.0);
                }
                return Ok(());
            }
            let Some(held) = flight.held.pop_front() else {
                return Ok(());
            };
            self.waiting -= 1;
            let what = (usize::from(held.stream), held.lane, held.due);
            self.send(plan, swarm, what, window, second)?;
        }
    }

    /// A connection ended: nothing in flight will be answered.
    pub(crate) fn closed(&mut self, plan: &Plan, client: Client) {
        let Some(flight) = self.flights.get_mut(&client.0) else {
            return;
        };
        for sent in flight.sent.drain(..) {
            let at = usize::from(sent.stream);
            let source = &mut self.sources[at];
            source.outcome.counts.unanswered += 1;
            self.deliveries_owed -= source.failed(&plan.streams[at], sent);
            self.in_flight -= 1;
            if plan.streams[at].pace == Pace::Highest {
                self.hungry
                    .push_back((sent.stream, source.publisher_of(sent.lane)));
            }
        }
        if !flight.held.is_empty() {
            self.blocked.push_back(client.0);
        }
    }

    /// Everything, for merging. What is in flight will not be answered any more.
    pub(crate) fn finish(mut self, plan: &Plan) -> Vec<StreamOutcome> {
        let clients: Vec<u32> = self.flights.keys().copied().collect();
        for client in clients {
            self.closed(plan, Client(client));
        }
        self.sources.into_iter().map(Source::finish).collect()
    }
}

impl Source {
    /// The publisher of a lane, by its index in this share.
    fn publisher_of(&self, lane: u32) -> u32 {
        let publisher = lane % self.group_clients;
        if self.publishers.len() as u32 == self.group_clients {
            return publisher;
        }
        self.publishers.partition_point(|own| *own < publisher) as u32
    }

    /// The index of a lane in this share.
    fn index_of(&self, lane: u32) -> usize {
        let own = self.publishers.len() as u32;
        (self.publisher_of(lane) + lane / self.group_clients * own) as usize
    }

    /// A message was refused or will not be answered: how many deliveries are not owed for that.
    fn failed(&mut self, stream: &Stream, sent: InFlight) -> u64 {
        let numbers = self.failed.entry(sent.lane).or_default();
        numbers.insert(sent.number);
        self.checked_each.of_topic(stream.topic_of(sent.lane))
    }

    fn finish(self) -> StreamOutcome {
        let mut outcome = StreamOutcome {
            lanes: Vec::new(),
            ..self.outcome.clone()
        };
        for (index, sent) in (0_u32..).zip(&self.numbers) {
            if *sent > 0 {
                let lane = self.lane(index);
                let failed = self.failed.get(&lane).map_or(0, Numbers::len) as u32;
                outcome.lanes.push([lane, *sent, failed]);
            }
        }
        outcome.lanes.sort_unstable();
        outcome.failed = self.failed.into_iter().collect();
        outcome.failed.sort_unstable_by_key(|(lane, _)| *lane);
        outcome
    }
}

/// A histogram as pairs of value and count, much smaller for the few values of a second.
pub(crate) fn sparse(histo: &Histo) -> Vec<(u64, u64)> {
    histo.recorded().collect()
}
