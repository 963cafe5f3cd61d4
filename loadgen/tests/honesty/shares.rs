//! A run in two shares: the same figures as in one, and what is said when one of them is lost.

use std::thread;
use std::time::{Duration, Instant};

use loadgen::merge::{Lost, merge};
use loadgen::outcome::Outcome;
use loadgen::plan::{Plan, Share};
use loadgen::real::{RealOptions, RealSwarm};
use loadgen::report::Report;
use loadgen::runner::{Gates, run};

use crate::book::Figures;
use crate::proxy::{Act, Proxy, Seen};
use crate::run::{Setup, answer, broker, delivery, each, of_deliveries};

const SHARES: [Share; 2] = [Share { index: 0, count: 2 }, Share { index: 1, count: 2 }];

/// Runs these shares at the same time, each on a thread of its own; the gates wait for both.
fn run_shares(plan: &Plan, proxy: &Proxy, shares: &[Share]) -> Vec<Outcome> {
    let gates = Gates::new(2);
    let clients = plan.clients();
    for share in SHARES.iter().filter(|share| !shares.contains(share)) {
        drop(gates.of(share.index));
    }
    thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter()
            .map(|&share| {
                let mut gate = gates.of(share.index);
                let options = RealOptions {
                    share,
                    ..RealOptions::new(proxy.address, clients)
                };
                scope.spawn(move || {
                    let mut swarm = RealSwarm::new(options).unwrap();
                    run(plan, share, &mut swarm, &mut gate)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn faults(seen: &Seen<'_>) -> Act {
    if answer(seen).is_some_and(|(stamp, _)| stamp.number % 20 == 6) {
        return Act::Drop;
    }
    match delivery(seen).map(|stamp| stamp.number % 20 + stamp.lane % 2) {
        Some(1) => Act::Drop,
        Some(4) => Act::Double,
        Some(8) => Act::Hold,
        Some(12) => Act::To("p-0".to_owned()),
        _ => Act::Pass,
    }
}

#[test]
fn two_shares_find_what_one_finds() {
    let pairs = Setup::default();
    let many = Setup {
        filter: "h/#",
        subscribers: 3,
        ..pairs
    };
    each([pairs, many], |setup| {
        let (whole, _) = setup.run(faults);
        let (broker, running) = broker();
        let proxy = Proxy::new(broker, faults);
        let plan = setup.plan();
        let outcomes = run_shares(&plan, &proxy, &SHARES);
        running.shutdown();
        assert!(
            outcomes
                .iter()
                .all(|part| part.streams[0].counts.sent == 200)
        );
        let mut report = Report::default();
        merge(&plan, &outcomes, &[], false, &mut report);
        proxy.book().check(&plan, &report);
        assert_eq!(report.failures, whole.failures);
        let [ours, its] = [&report, &whole].map(|report| Figures::of(&report.audiences[0]));
        assert_eq!(ours, its);
        assert!(ours.missing > 0 && ours.duplicates > 0 && ours.out_of_order > 0);
        assert!(ours.unacknowledged > 0 && report.misdelivered > 0);
        assert_eq!(report.misdelivered, whole.misdelivered);
        assert_eq!(report.tool.shares, 2);
    });
}

/// Each lane's subscriber is in the other share than its publisher, so no share knows by itself what is still to come.
fn crossed() -> Setup {
    Setup {
        // Clients 0 to 2 publish, clients 3 to 5 subscribe.
        publishers: 3,
        subscribers: 3,
        topics: 3,
        per_second: 600,
        drain_max_s: 20.0,
        ..Setup::default()
    }
}

/// The run in two shares, and how long it took.
fn timed(plan: &Plan, faults: impl FnMut(&Seen<'_>) -> Act + Send + 'static) -> (Report, Duration) {
    let (broker, running) = broker();
    let proxy = Proxy::new(broker, faults);
    let began = Instant::now();
    let outcomes = run_shares(plan, &proxy, &SHARES);
    let took = began.elapsed();
    running.shutdown();
    let mut report = Report::default();
    merge(plan, &outcomes, &[], false, &mut report);
    proxy.book().check(plan, &report);
    (report, took)
}

#[test]
fn shares_wait_for_what_the_others_owe_them_and_no_longer() {
    let (report, took) = timed(&crossed().plan(), |_| Act::Pass);
    assert_eq!(report.failures, [""; 0]);
    // Half a second of publishing, and a second for what might come once more.
    assert!(took < Duration::from_millis(3_400), "{took:?}");
    // A silence that is longer than any of those that end a run in which nothing is owed.
    let (report, took) = timed(&crossed().plan(), |seen| match delivery(seen) {
        Some(stamp) if stamp.number == 99 => Act::Late(Duration::from_millis(4_500)),
        _ => Act::Pass,
    });
    assert_eq!(report.failures, [""; 0]);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn shares_give_up_what_never_comes_when_the_drain_is_over() {
    let setup = Setup {
        drain_max_s: 3.0,
        ..crossed()
    };
    let (report, took) = timed(&setup.plan(), |seen| match delivery(seen) {
        Some(stamp) if stamp.number == 50 => Act::Drop,
        _ => Act::Pass,
    });
    assert_eq!(report.failures, [of_deliveries(3, "h/{n}", "are missing")]);
    assert!((3.0..8.0).contains(&took.as_secs_f64()), "{took:?}");
}

/// Two members in different shares get the same message.
#[test]
fn a_message_to_members_in_two_shares_is_a_duplicate() {
    let setup = Setup {
        filter: "h/#",
        shared: true,
        ..Setup::default()
    };
    let (broker, running) = broker();
    let proxy = Proxy::new(broker, |seen| match delivery(seen).map(|it| it.number) {
        Some(number) if number % 10 == 2 => Act::Drop,
        Some(number) if number % 10 == 5 => match seen.client {
            "s-1" | "s-3" => Act::AlsoTo("s-0".to_owned()),
            _ => Act::AlsoTo("s-1".to_owned()),
        },
        _ => Act::Pass,
    });
    let plan = setup.plan();
    let outcomes = run_shares(&plan, &proxy, &SHARES);
    running.shutdown();
    let mut report = Report::default();
    merge(&plan, &outcomes, &[], false, &mut report);
    proxy.book().check(&plan, &report);
    let audience = &report.audiences[0];
    assert_eq!((audience.missing, audience.duplicates), (40, 40));
    assert_eq!((audience.expected, audience.delivered), (400, 360));
}

fn lost(share: Share) -> (Vec<Lost>, String) {
    let why = "it was ended by the system".to_owned();
    let said = format!("share {} of 2 did not report: {why}", share.index);
    (vec![Lost { share, why }], said)
}

/// Its figures are not known, so nobody is blamed for them.
#[test]
fn of_a_share_that_does_not_report_nothing_is_missing() {
    let pairs = Setup::default();
    let many = Setup {
        filter: "h/#",
        ..pairs
    };
    let shared = Setup {
        shared: true,
        ..many
    };
    each([pairs, many, shared], |setup| {
        let (broker, running) = broker();
        let proxy = Proxy::new(broker, |_| Act::Pass);
        let plan = setup.plan();
        let outcomes = run_shares(&plan, &proxy, &SHARES);
        running.shutdown();
        for (at, share) in [(0, SHARES[1]), (1, SHARES[0])] {
            let (lost, said) = lost(share);
            let mut report = Report::default();
            merge(&plan, &outcomes[at..=at], &lost, false, &mut report);
            assert_eq!(report.failures, [said]);
            assert_eq!(report.streams[0].counts.sent, 200);
            assert_eq!(report.audiences[0].missing, 0);
        }
    });
}

/// What is really missing is still told when another share is lost.
#[test]
fn a_lost_share_excuses_nothing_of_the_others() {
    let (broker, running) = broker();
    let proxy = Proxy::new(broker, |seen| match delivery(seen) {
        Some(stamp) if stamp.number % 10 == 2 => Act::Drop,
        _ => Act::Pass,
    });
    let plan = Setup::default().plan();
    let outcomes = run_shares(&plan, &proxy, &SHARES);
    running.shutdown();
    let (lost, _) = lost(SHARES[1]);
    let mut report = Report::default();
    merge(&plan, &outcomes[..1], &lost, false, &mut report);
    // Lanes 0 and 2, whose subscribers are in the first share as well.
    assert_eq!(report.audiences[0].missing, 20);
    assert_eq!(report.audiences[0].expected, 200);
}

/// A share that never came: the other one goes on without it.
#[test]
fn a_share_that_never_begins_holds_nobody_up() {
    let (broker, running) = broker();
    let proxy = Proxy::new(broker, |_| Act::Pass);
    let plan = Setup::default().plan();
    let outcomes = run_shares(&plan, &proxy, &SHARES[..1]);
    running.shutdown();
    let (lost, said) = lost(SHARES[1]);
    let mut report = Report::default();
    merge(&plan, &outcomes, &lost, false, &mut report);
    assert_eq!(report.failures, [said]);
    assert_eq!(report.audiences[0].delivered, 200);
}
