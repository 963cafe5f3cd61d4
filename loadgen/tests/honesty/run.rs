//! A run through the proxy.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use broker::{Broker, Config, NoSink, Running};
use codec::Packet;
use loadgen::merge::merge;
use loadgen::plan::{Plan, Share};
use loadgen::real::{RealOptions, RealSwarm};
use loadgen::report::Report;
use loadgen::runner::{Gates, run};
use loadgen::scenario::Scenario;
use loadgen::stamp::Stamp;

use crate::proxy::{Act, Proxy, Seen};

/// The run's number in stamps.
pub const RUN: u32 = 7;

/// Publishers `p-0`… and subscribers `s-0`…, one stream `m` between them.
#[derive(Clone, Copy)]
pub struct Setup {
    pub publishers: u32,
    pub subscribers: u32,
    /// `h/{n}` for a topic of one's own, `h/#` for all.
    pub filter: &'static str,
    pub topics: u32,
    pub shared: bool,
    pub qos: u8,
    /// That of the subscription, where it is another one.
    pub subscribed_qos: Option<u8>,
    pub per_second: u32,
    pub seconds: f64,
    pub window: u32,
    /// The longest that the run waits when something does not come.
    pub drain_max_s: f64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            publishers: 4,
            subscribers: 4,
            filter: "h/{n}",
            topics: 4,
            shared: false,
            qos: 1,
            subscribed_qos: None,
            per_second: 800,
            seconds: 0.5,
            window: 100,
            drain_max_s: 1.0,
        }
    }
}

impl Setup {
    /// Messages of the whole run.
    pub fn messages(&self) -> u64 {
        (f64::from(self.per_second) * self.seconds) as u64
    }

    pub fn plan(&self) -> Plan {
        let mut text = format!(
            "name = \"honesty\"\n[connect]\nprotocol = \"5.0\"\n\
             [run]\nwarm_up_s = 0.0\nseconds = {}\ndrain_max_s = {}\n\
             [[group]]\nname = \"p\"\nclients = {}\n\
             [[group]]\nname = \"s\"\nclients = {}\n\
             [[group.subscribe]]\nfilter = \"{}\"\nqos = {}\n",
            self.seconds,
            self.drain_max_s,
            self.publishers,
            self.subscribers,
            self.filter,
            self.subscribed_qos.unwrap_or(self.qos)
        );
        if self.shared {
            text.push_str("share = \"workers\"\n");
        }
        write!(
            text,
            "[[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"h/{{n}}\"\ntopics = {}\nqos = {}\n\
             payload_bytes = 40\nper_second = {}\nwindow = {}\n",
            self.topics, self.qos, self.per_second, self.window
        )
        .unwrap();
        let scenario = Scenario::parse(&text, "honesty").unwrap();
        scenario.plan(RUN, 1).unwrap()
    }

    /// Runs it through a proxy with these faults, and compares the report with the proxy's book.
    pub fn run(&self, faults: impl FnMut(&Seen<'_>) -> Act + Send + 'static) -> (Report, Proxy) {
        let (broker, running) = broker();
        let proxy = Proxy::new(broker, faults);
        let plan = self.plan();
        let report = run_whole(&plan, RealOptions::new(proxy.address, plan.clients()));
        running.shutdown();
        proxy.book().check(&plan, &report);
        (report, proxy)
    }
}

/// Does this with each case, with all at the same time: runs wait more than they work.
pub fn each<T: Send>(cases: impl IntoIterator<Item = T>, with: impl Fn(T) + Sync) {
    let with = &with;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || with(case));
        }
    });
}

/// Our broker on a free port.
pub fn broker() -> (SocketAddr, Running) {
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        ..Config::default()
    };
    let broker = Broker::bind(config).unwrap();
    let address = broker.local_addr();
    (address, broker.start(Arc::new(NoSink)).unwrap())
}

/// A plan in one share.
pub fn run_whole(plan: &Plan, options: RealOptions) -> Report {
    let mut swarm = RealSwarm::new(options).unwrap();
    let gates = Gates::new(1);
    let outcome = run(plan, Share::WHOLE, &mut swarm, &mut gates.of(0));
    let mut report = Report::default();
    merge(plan, &[outcome], &[], false, &mut report);
    report
}

/// The stamp of a message on its way to a subscriber.
pub fn delivery(seen: &Seen<'_>) -> Option<Stamp> {
    let is_one = seen.to_client && matches!(seen.packet, Packet::Publish(_));
    seen.stamp.filter(|_| is_one)
}

/// The stamp and the packet identifier of a publish whose last answer is on its way to the publisher.
pub fn answer(seen: &Seen<'_>) -> Option<(Stamp, u16)> {
    match seen.packet {
        Packet::PubAck(ack) | Packet::PubComp(ack) if seen.to_client => {
            Some((seen.stamp?, ack.packet_id.get()))
        }
        _ => None,
    }
}

/// What a report says of the stream's deliveries when so many are this.
pub fn of_deliveries(count: u64, filter: &str, what: &str) -> String {
    format!("{count} deliveries of stream \"m\" to group \"s\" ({filter}) {what}")
}
