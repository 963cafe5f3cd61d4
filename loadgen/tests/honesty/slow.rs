//! Clients that read slowly: nothing of theirs is called missing, nothing of the others may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Config, NoSink};
use loadgen::merge::merge;
use loadgen::plan::{Plan, Share};
use loadgen::real::RealOptions;
use loadgen::report::Report;
use loadgen::runner::{Gates, run};
use loadgen::scenario::Scenario;
use loadgen::simulated::{SimClock, build_with};

use crate::proxy::{Act, Proxy, Seen};
use crate::run::{RUN, broker, delivery, run_whole};

/// Three readers and a slow one get all messages of one publisher: 100 a second.
fn plan(seconds: u32, qos: u8, payload_bytes: u32, bytes_per_second: u32) -> Plan {
    let text = format!(
        "name = \"slow\"\n[connect]\nprotocol = \"5.0\"\nkeep_alive_s = 1\n\
         [run]\nwarm_up_s = 0.0\nseconds = {seconds}\ndrain_max_s = 10.0\n\
         [[group]]\nname = \"quick\"\nclients = 3\n\
         [[group.subscribe]]\nfilter = \"s\"\nqos = {qos}\n\
         [[group]]\nname = \"slow\"\nclients = 1\nread_bytes_per_second = {bytes_per_second}\n\
         [[group.subscribe]]\nfilter = \"s\"\nqos = {qos}\n\
         [[group]]\nname = \"p\"\nclients = 1\n\
         [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"s\"\nqos = {qos}\n\
         payload_bytes = {payload_bytes}\nper_second = 100\n"
    );
    let scenario = Scenario::parse(&text, "slow").unwrap();
    scenario.plan(RUN, 1).unwrap()
}

/// The run and how long it took.
fn real(plan: &Plan) -> (Report, Duration) {
    let (broker, running) = broker();
    let began = Instant::now();
    let report = run_whole(plan, RealOptions::new(broker, plan.clients()));
    running.shutdown();
    (report, began.elapsed())
}

fn proxied(plan: &Plan, faults: impl FnMut(&Seen<'_>) -> Act + Send + 'static) -> Report {
    let (broker, running) = broker();
    let proxy = Proxy::new(broker, faults);
    let report = run_whole(plan, RealOptions::new(proxy.address, plan.clients()));
    running.shutdown();
    report
}

/// The run, and QoS 0 messages that the broker dropped.
fn simulated(plan: &Plan, clock: SimClock) -> (Report, u64) {
    let config = Config {
        sys_interval_s: 0,
        ..Config::default()
    };
    let swarms = build_with(&config, 1, plan.clients(), clock, Arc::new(NoSink));
    let mut swarm = swarms.unwrap().pop().unwrap();
    let gates = Gates::new(1);
    let outcome = run(plan, Share::WHOLE, &mut swarm, &mut gates.of(0));
    let mut report = Report::default();
    merge(plan, &[outcome], &[], true, &mut report);
    (report, swarm.handle().stats().deliveries_dropped())
}

/// The others got everything, and nobody is blamed for the slow one. Returns how much that one got.
fn others_have_all(report: &Report, messages: u64) -> u64 {
    assert_eq!(report.failures, [""; 0]);
    let [quick, slow] = &report.audiences[..] else {
        panic!("{:?}", report.audiences);
    };
    assert_eq!(
        (quick.expected, quick.delivered),
        (3 * messages, 3 * messages)
    );
    assert!(quick.checked && !slow.checked);
    assert_eq!((slow.expected, slow.missing), (messages, 0));
    assert_eq!(report.connects.begun, 5);
    slow.delivered
}

/// For longer than its keep-alive, with more than the kernel takes in its place.
#[test]
fn one_that_reads_nothing_gets_nothing_and_hurts_nobody() {
    for qos in 0..=1 {
        let plan = plan(3, qos, 40_000, 0);
        let (report, took) = real(&plan);
        assert_eq!(others_have_all(&report, 300), 0);
        assert_eq!(report.connects.closed_slow, BTreeMap::new());
        assert!(took < Duration::from_secs(10), "nobody waits for it");
        let (report, dropped) = simulated(&plan, SimClock::Virtual);
        assert_eq!(others_have_all(&report, 300), 0);
        // 12 MB were for it, and the broker holds 2 MiB.
        assert_eq!(dropped > 200, qos == 0, "{dropped}");
    }
}

#[test]
fn one_that_reads_slowly_gets_as_much_as_its_rate_and_in_order() {
    // A delivery of 1,000 bytes of payload has 6 more.
    let most = |seconds: f64| (20_000.0 * seconds / 1_006.0) as u64;
    let plan = plan(3, 0, 1_000, 20_000);
    let (report, took) = real(&plan);
    let got = others_have_all(&report, 300);
    assert!((55..=most(took.as_secs_f64())).contains(&got), "{got}");
    assert!(report.audiences[1].latency.quantile_ms(0.9) > 1_000.0);
    let (report, dropped) = simulated(&plan, SimClock::Virtual);
    let got = others_have_all(&report, 300);
    // What the broker had for it by then it wrote at once.
    assert!((55..=most(4.0) + 300).contains(&got), "{got}");
    assert_eq!(dropped, 0);
    assert_eq!(report.audiences[1].out_of_order, 0);
}

#[test]
fn that_the_broker_ends_its_connection_is_told_and_no_failure() {
    let report = proxied(&plan(1, 1, 100, 0), |seen| match delivery(seen) {
        Some(stamp) if seen.client == "slow-0" && stamp.number == 5 => Act::Cut,
        _ => Act::Pass,
    });
    assert_eq!(others_have_all(&report, 100), 0);
    let closed = BTreeMap::from([("closed by the broker".to_owned(), 1)]);
    assert_eq!(report.connects.closed_slow, closed);
    assert_eq!(report.connects.closed, BTreeMap::new());
}

/// Before it is subscribed it is a client like any other.
#[test]
fn that_its_connection_ends_before_it_reads_slowly_is_a_failure() {
    let mut cut = false;
    let report = proxied(&plan(1, 0, 100, 0), move |seen| match seen.packet {
        codec::Packet::Subscribe(_) if seen.client == "slow-0" && !cut => {
            cut = true;
            Act::Cut
        }
        _ => Act::Pass,
    });
    let ended = "1 connections were refused or ended by the broker";
    assert_eq!(report.failures, [ended]);
    assert_eq!(report.connects.begun, 6);
    assert_eq!(report.connects.closed_slow, BTreeMap::new());
}

#[test]
fn what_it_gets_twice_or_damaged_counts_as_that_of_others() {
    let report = proxied(&plan(1, 1, 100, 1_000_000), |seen| match delivery(seen) {
        Some(stamp) if seen.client == "slow-0" => match stamp.number % 10 {
            3 => Act::Double,
            5 => Act::Hold,
            7 => Act::Corrupt(50),
            _ => Act::Pass,
        },
        _ => Act::Pass,
    });
    let of =
        |what: &str| format!("10 deliveries of stream \"m\" to group \"slow\" (s) came {what}");
    assert_eq!(
        report.failures,
        [
            of("more than once"),
            of("behind a later one"),
            of("with other bytes than were published"),
        ]
    );
}
