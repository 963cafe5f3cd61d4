//! Brokers that keep a run waiting for long: a swarm of the test's own, whose time goes by at once.

use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use codec::Qos;
use loadgen::clock::Nanos;
use loadgen::merge::merge;
use loadgen::plan::Share;
use loadgen::report::Report;
use loadgen::runner::{Gates, run};
use loadgen::swarm::{Client, Hello, Leave, Notice, Outgoing, Swarm, SwarmError};

use crate::run::Setup;

/// A run of some seconds that has not ended by then hangs.
const HANGS_AT: Nanos = 600_000_000_000;

/// What becomes of a client that subscribes.
#[derive(Clone, Copy)]
enum Subscribing {
    Granted,
    NotAnswered,
    HungUp,
}

struct Scripted {
    now: Nanos,
    subscribing: fn(Client) -> Subscribing,
    news: Vec<Notice>,
    connected: Vec<bool>,
}

impl Swarm for Scripted {
    fn now(&self) -> Nanos {
        self.now
    }

    fn owns(&self, _: Client, _: &str) -> bool {
        true
    }

    fn connect(&mut self, client: Client, _: &Hello<'_>) -> Result<(), SwarmError> {
        self.connected[client.index()] = true;
        self.news.push(Notice::Connected {
            client,
            session_present: false,
        });
        Ok(())
    }

    fn subscribe(&mut self, client: Client, filters: &[(&str, Qos)]) -> Result<(), SwarmError> {
        match (self.subscribing)(client) {
            Subscribing::Granted => self.news.push(Notice::Subscribed {
                client,
                granted: filters.len() as u32,
                refused: 0,
            }),
            Subscribing::NotAnswered => {}
            Subscribing::HungUp => {
                self.connected[client.index()] = false;
                let why = "closed by the broker".to_owned();
                self.news.push(Notice::Closed { client, why });
            }
        }
        Ok(())
    }

    fn read_slowly(&mut self, _: Client, _: u32) {}

    fn room(&self, client: Client) -> usize {
        usize::from(self.connected[client.index()])
    }

    fn publish(
        &mut self,
        _: Client,
        message: &Outgoing<'_>,
    ) -> Result<Option<NonZeroU16>, SwarmError> {
        assert_eq!(message.qos, Qos::AtMostOnce);
        Ok(None)
    }

    fn disconnect(&mut self, client: Client, _: Leave) {
        self.connected[client.index()] = false;
    }

    fn turn(&mut self, wait: Duration, notices: &mut Vec<Notice>) -> io::Result<()> {
        assert!(self.now < HANGS_AT, "the run does not end");
        self.now += 1_000;
        if self.news.is_empty() {
            self.now += wait.as_nanos() as Nanos;
        }
        notices.append(&mut self.news);
        Ok(())
    }
}

/// Publishers are clients 0 to 3, subscribers 4 to 7.
fn run_scripted(subscribing: fn(Client) -> Subscribing) -> Report {
    let setup = Setup {
        qos: 0,
        ..Setup::default()
    };
    let mut plan = setup.plan();
    // Only connecting is of interest.
    plan.limits.missing_max = u64::MAX;
    let mut swarm = Scripted {
        now: 1_000_000_000,
        subscribing,
        news: Vec::new(),
        connected: vec![false; plan.clients() as usize],
    };
    let gates = Gates::new(1);
    let outcome = run(&plan, Share::WHOLE, &mut swarm, &mut gates.of(0));
    let mut report = Report::default();
    merge(&plan, &[outcome], &[], true, &mut report);
    assert_eq!(report.streams[0].counts.sent, setup.messages());
    report
}

#[test]
fn subscriptions_that_are_never_answered_fail_the_run() {
    let report = run_scripted(|client| match client.0 {
        5 | 6 => Subscribing::NotAnswered,
        _ => Subscribing::Granted,
    });
    assert_eq!(report.connects.accepted, 8);
    assert_eq!(report.connects.granted, 2);
    let said = "2 clients never heard that they are subscribed".to_owned();
    assert_eq!(report.failures, [said]);
}

/// A broker that hangs up at every SUBSCRIBE, as some do for a filter that they do not like: its clients come back again
/// and again, and the run must not wait for them for ever.
#[test]
fn clients_that_come_and_go_for_ever_are_given_up() {
    for all in [false, true] {
        let report = if all {
            run_scripted(|_| Subscribing::HungUp)
        } else {
            run_scripted(|client| match client.0 {
                7 => Subscribing::HungUp,
                _ => Subscribing::Granted,
            })
        };
        let closed: u64 = report.connects.closed.values().sum();
        assert!(closed >= 30, "they came back once a second: {closed}");
        let ended = format!("{closed} connections were refused or ended by the broker");
        assert!(report.failures.contains(&ended), "{:?}", report.failures);
    }
}
