//! What the proxy saw, told apart message by message, and the figures that follow from it. It shares no code with the
//! tool's ledger: sets of messages here, counters there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU16;

use codec::{Ack, Packet, Publish, Qos, Subscribe};
use loadgen::clock;
use loadgen::plan::{Audience, Plan, Relation};
use loadgen::report::{AudienceReport, Report};
use loadgen::stamp::Stamp;

/// A message: stream, lane, number.
pub type Key = (u16, u32, u32);

/// The stamp without its time.
pub fn key(stamp: &Stamp) -> Key {
    (stamp.stream, stamp.lane, stamp.number)
}

/// A message that was written to a client.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub key: Key,
    damaged: bool,
    /// It came with another QoS than it should.
    qos_changed: bool,
}

/// See the module. A connection is a number; what is written to a client is noted just before it is written.
#[derive(Debug, Default)]
pub struct Book {
    /// By connection and packet identifier.
    pending: HashMap<(u64, u16), Stamp>,
    /// QoS 2 messages that a client has got and that were not released.
    open: HashSet<(u64, u16)>,
    pub sent: BTreeSet<Key>,
    pub acked: BTreeSet<Key>,
    /// By stream and reason.
    pub refused: BTreeMap<(u16, String), u64>,
    pub unasked: u64,
    pub foreign: u64,
    pub accepted: u64,
    pub granted: u64,
    pub filters_refused: u64,
    /// By client, in the order of writing.
    pub delivered: BTreeMap<String, Vec<Delivery>>,
    /// What was published, byte for byte, and its QoS.
    published: HashMap<Key, (Vec<u8>, Qos)>,
    /// The QoS that each client asked for.
    asked_for: HashMap<String, Qos>,
    /// From due to written to the client, in microseconds; of every delivery.
    pub waits_us: Vec<u64>,
}

/// The figures of an audience.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub expected: u64,
    pub delivered: u64,
    pub missing: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub unacknowledged: u64,
    pub damaged: u64,
    pub qos_changed: u64,
    /// By client identifier: missing, duplicates, out of order. Of a share only what the members got is told.
    pub worst: BTreeMap<String, [u64; 3]>,
}

impl Figures {
    /// What the report says.
    pub fn of(report: &AudienceReport) -> Self {
        let worst = report.worst.iter().map(|trouble| {
            let figures = [trouble.missing, trouble.duplicates, trouble.out_of_order];
            (trouble.client_id.clone(), figures)
        });
        Self {
            expected: report.expected,
            delivered: report.delivered,
            missing: report.missing,
            duplicates: report.duplicates,
            out_of_order: report.out_of_order,
            unacknowledged: report.unacknowledged,
            damaged: report.damaged,
            qos_changed: report.qos_changed,
            worst: worst.collect(),
        }
    }
}

impl Book {
    /// A client published.
    pub fn published(&mut self, connection: u64, publish: &Publish<'_>, stamp: Stamp) {
        let packet_id = publish.packet_id.map(NonZeroU16::get);
        let what = (publish.payload.to_vec(), publish.qos);
        self.published.insert(key(&stamp), what);
        assert!(
            self.sent.insert(key(&stamp)),
            "the tool sent {stamp:?} twice"
        );
        if let Some(packet_id) = packet_id {
            self.pending.insert((connection, packet_id), stamp);
        }
    }

    /// A client subscribes, with one QoS for all.
    pub fn subscribes(&mut self, client: &str, subscribe: &Subscribe<'_>) {
        for filter in subscribe.filters.iter() {
            self.asked_for.insert(client.to_owned(), filter.options.qos);
        }
    }

    /// The publish that an answer is for.
    pub fn stamp_of(&self, connection: u64, packet_id: u16) -> Option<Stamp> {
        self.pending.get(&(connection, packet_id)).copied()
    }

    /// A packet goes to a client.
    pub fn wrote(&mut self, connection: u64, client: &str, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(_) => self.accepted += 1,
            Packet::SubAck(ack) => {
                let refused = ack.reasons.iter().filter(|code| **code >= 0x80).count();
                self.filters_refused += refused as u64;
                self.granted += (ack.reasons.len() - refused) as u64;
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.ended(connection, ack),
            Packet::PubRec(ack) if ack.reason.is_failure() => self.ended(connection, ack),
            Packet::PubRel(ack) => {
                self.open.remove(&(connection, ack.packet_id.get()));
            }
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish
                    .packet_id
                    .filter(|_| publish.qos == Qos::ExactlyOnce)
                    && !self.open.insert((connection, packet_id.get()))
                {
                    return;
                }
                let Some(stamp) = Stamp::read(publish.payload) else {
                    self.foreign += 1;
                    return;
                };
                self.waits_us
                    .push(clock::now().saturating_sub(stamp.due_ns) / 1_000);
                let (payload, qos) = &self.published[&key(&stamp)];
                let asked_for = self.asked_for.get(client).copied().unwrap_or(*qos);
                let delivery = Delivery {
                    key: key(&stamp),
                    damaged: payload[..] != *publish.payload,
                    qos_changed: publish.qos != asked_for.min(*qos),
                };
                let to = self.delivered.entry(client.to_owned()).or_default();
                to.push(delivery);
            }
            _ => {}
        }
    }

    fn ended(&mut self, connection: u64, ack: &Ack<'_>) {
        match self.pending.remove(&(connection, ack.packet_id.get())) {
            None => self.unasked += 1,
            Some(stamp) if ack.reason.is_failure() => {
                let why = (stamp.stream, ack.reason.to_string());
                *self.refused.entry(why).or_default() += 1;
            }
            Some(stamp) => {
                self.acked.insert(key(&stamp));
            }
        }
    }

    /// What must be in a report of the whole run.
    ///
    /// # Panics
    /// Something else is in it.
    pub fn check(&self, plan: &Plan, report: &Report) {
        let said = (&report.failures, &report.connects.closed);
        let mut sums = [0; 2];
        assert_eq!(
            plan.streams.len(),
            1,
            "of one stream the seconds tell the sum"
        );
        let mut misdelivered = 0;
        for (at, stream) in (0_u16..).zip(&plan.streams) {
            let ours = &report.streams[usize::from(at)];
            let of_stream = |keys: &BTreeSet<Key>| keys.iter().filter(|key| key.0 == at).count();
            let (sent, acked) = (of_stream(&self.sent) as u64, of_stream(&self.acked) as u64);
            let refused: BTreeMap<String, u64> = self
                .refused
                .iter()
                .filter(|((of, _), _)| *of == at)
                .map(|((_, why), count)| (why.clone(), *count))
                .collect();
            let unanswered = match stream.qos {
                Qos::AtMostOnce => 0,
                _ => sent - acked - refused.values().sum::<u64>(),
            };
            assert_eq!(ours.counts.sent, sent, "sent: {said:?}");
            assert_eq!(ours.counts.acknowledged, acked, "acknowledged: {said:?}");
            assert_eq!(ours.counts.refused, refused, "{said:?}");
            assert_eq!(ours.counts.unanswered, unanswered, "unanswered: {said:?}");
            assert!(ours.balances());
            sums[0] += sent;
            sums[1] += acked;
            let must = match stream.qos {
                Qos::AtMostOnce => &self.sent,
                _ => &self.acked,
            };
            let [audience] = &stream.audiences[..] else {
                panic!("the tests have one audience for each stream");
            };
            let (figures, strays) = self.figures(plan, at, audience, must);
            misdelivered += strays;
            let ours = &report.audiences[usize::from(at)];
            let mut told = Figures::of(ours);
            if matches!(audience.relation, Relation::Shared) {
                // Which member of two has got a message too often is for the tool to choose.
                told.worst.clear();
                if figures.duplicates > 0 {
                    // And so is which of them is behind another.
                    told.out_of_order = figures.out_of_order;
                }
            }
            assert_eq!(told, figures, "{said:?}");
            let seconds = report.seconds.iter().map(|second| second.delivered);
            for count in [ours.latency.count(), seconds.sum()] {
                // One that came to two shares of the tool is timed in both.
                let most = match audience.relation {
                    Relation::Shared => figures.delivered + figures.duplicates,
                    _ => figures.delivered,
                };
                let range = figures.delivered..=most;
                assert!(range.contains(&count), "{count} in {range:?}: {said:?}");
            }
        }
        assert_eq!(report.misdelivered, misdelivered, "misdelivered: {said:?}");
        assert_eq!(report.foreign, self.foreign, "foreign: {said:?}");
        assert_eq!(report.unasked, self.unasked, "unasked: {said:?}");
        assert_eq!(report.connects.accepted, self.accepted, "{said:?}");
        assert_eq!(report.connects.granted, self.granted, "{said:?}");
        assert_eq!(report.connects.refused, self.filters_refused, "{said:?}");
        let seconds = report.seconds.iter().fold([0; 2], |sum, second| {
            [sum[0] + second.sent, sum[1] + second.acknowledged]
        });
        assert_eq!(seconds, sums, "the seconds add up to something else");
    }

    /// The figures of an audience, and the messages of the stream that came to somebody else.
    fn figures(
        &self,
        plan: &Plan,
        at: u16,
        audience: &Audience,
        must: &BTreeSet<Key>,
    ) -> (Figures, u64) {
        let group = &plan.groups[audience.group];
        let topics = plan.streams[usize::from(at)].topics;
        let must: BTreeSet<Key> = must.iter().filter(|key| key.0 == at).copied().collect();
        let wants = |n: u32, lane: u32| match &audience.relation {
            Relation::Own => lane % topics == n,
            Relation::Answers => lane % group.clients == n,
            Relation::All | Relation::Shared => true,
            Relation::Listed(listed) => listed[(lane % topics) as usize].contains(&n),
        };
        let (mut figures, mut strays) = (Figures::default(), 0);
        for (client, keys) in &self.delivered {
            if !client.starts_with(&format!("{}-", group.name)) {
                strays += keys.iter().filter(|it| it.key.0 == at).count() as u64;
            }
        }
        let shared = matches!(audience.relation, Relation::Shared);
        let mut of_share = BTreeSet::new();
        for n in 0..group.clients {
            let client = format!("{}-{n}", group.name);
            let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::<u32, u32>::new());
            let mut trouble = [0; 3];
            for delivery in self.delivered.get(&client).into_iter().flatten() {
                let key = &delivery.key;
                if key.0 != at {
                    continue;
                }
                if !wants(n, key.1) {
                    strays += 1;
                    continue;
                }
                figures.damaged += u64::from(delivery.damaged);
                figures.qos_changed += u64::from(delivery.qos_changed);
                let last = last.entry(key.1).or_insert(key.2);
                // Shared: whether another member has got it is reckoned below, as its time is another's.
                if !seen.insert(*key) {
                    trouble[1] += 1;
                } else if key.2 < *last {
                    trouble[2] += 1;
                }
                *last = key.2.max(*last);
            }
            figures.duplicates += trouble[1];
            figures.out_of_order += trouble[2];
            if shared {
                let before = of_share.len();
                of_share.extend(seen.iter().copied());
                let twice = seen.len() - (of_share.len() - before);
                figures.duplicates += twice as u64;
            } else {
                let mine = || must.iter().filter(|key| wants(n, key.1));
                trouble[0] = mine().filter(|key| !seen.contains(*key)).count() as u64;
                figures.expected += mine().count() as u64;
                figures.delivered += seen.len() as u64;
                figures.unacknowledged += seen.difference(&must).count() as u64;
                figures.missing += trouble[0];
            }
            if trouble != [0; 3] {
                figures.worst.insert(client, trouble);
            }
        }
        if shared {
            figures.expected = must.len() as u64;
            figures.delivered = of_share.len() as u64;
            figures.missing = must.difference(&of_share).count() as u64;
            figures.unacknowledged = of_share.difference(&must).count() as u64;
            figures.worst.clear();
        }
        (figures, strays)
    }
}
