//! Every built-in scenario that a broker alone can serve, small, over TCP on our own broker: each run must pass, and its
//! ledger add up.

use std::net::SocketAddr;
use std::sync::Arc;

use broker::{Broker, Config, NoSink, Running};
use loadgen::merge::merge;
use loadgen::plan::Share;
use loadgen::real::{RealOptions, RealSwarm};
use loadgen::report::Report;
use loadgen::runner::{Gates, run};
use loadgen::scenario::Scenario;

/// It waits for answers of the backends behind Kafka, which a broker alone does not give; it runs with them in the tests of
/// the `millstream` binary.
const BEHIND_KAFKA: &str = "backends";

fn broker() -> (SocketAddr, Running) {
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        ..Config::default()
    };
    let broker = Broker::bind(config).unwrap();
    let address = broker.local_addr();
    (address, broker.start(Arc::new(NoSink)).unwrap())
}

/// Makes a scenario small enough for a test.
fn small(name: &str) -> Scenario {
    let mut scenario = Scenario::builtin(name).unwrap();
    for group in scenario.groups.iter_mut().filter(|group| !group.fixed) {
        group.clients = (group.clients / 50).max(2);
    }
    for stream in &mut scenario.streams {
        stream.per_second = stream.per_second.map(|_| 400.0);
    }
    for storm in scenario
        .churn
        .iter_mut()
        .flat_map(|churn| &mut churn.storms_at_s)
    {
        *storm /= 20.0;
    }
    scenario.run.warm_up_s = 0.2;
    scenario.run.seconds = 1.0;
    scenario
}

fn run_on(address: SocketAddr, scenario: &Scenario) -> Report {
    let plan = scenario.plan(7, 1).unwrap();
    let options = RealOptions::new(address, plan.clients());
    let mut swarm = RealSwarm::new(options).unwrap();
    let gates = Gates::new(1);
    let outcome = run(&plan, Share::WHOLE, &mut swarm, &mut gates.of(0));
    let mut report = Report::default();
    merge(&plan, &[outcome], &[], false, &mut report);
    report
}

#[test]
fn every_built_in_scenario_passes_on_our_broker() {
    let (address, running) = broker();
    assert!(Scenario::builtin(BEHIND_KAFKA).is_ok());
    for (name, _) in loadgen::scenario::builtin_names() {
        if *name == BEHIND_KAFKA {
            continue;
        }
        let scenario = small(name);
        let report = run_on(address, &scenario);
        assert_eq!(report.failures, Vec::<String>::new(), "{name}");
        assert!(
            report.connects.accepted >= report.connects.clients,
            "{name}"
        );
        for stream in &report.streams {
            assert!(
                stream.balances() && stream.counts.sent > 0,
                "{name}: {stream:?}"
            );
            assert_eq!(stream.counts.due, stream.counts.sent, "{name}");
        }
        for audience in &report.audiences {
            assert_eq!(audience.missing, 0, "{name}");
            assert!(
                !audience.checked || audience.delivered == audience.expected,
                "{name}: {audience:?}"
            );
        }
    }
    running.shutdown();
}
