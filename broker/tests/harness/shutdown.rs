//! Shutting down: nothing new is read, what was taken is settled and told, clients are told too.

use broker::Verdict;
use codec::Version;

use crate::support::{NOTHING, Net, PENDING, Store};

#[test]
fn clients_are_told_and_sockets_are_closed() {
    for workers in [1, 3] {
        let net = Net::with(|config| config.workers = workers);
        let mut new: Vec<_> = (0..6).map(|at| net.join(&format!("n{at}"))).collect();
        let mut old = net.client("old").version(Version::V311).connect();
        assert!(net.sim().shut_down());
        for client in &mut new {
            assert_eq!(client.got(), ["DISCONNECT 0x8b", "closed"]);
        }
        assert_eq!(old.got(), ["closed"]);
        let stats = net.sim().stats();
        assert_eq!(
            (stats.closed_shutdown, stats.connections, stats.clients),
            (7, 0, 0)
        );
    }
}

#[test]
fn what_the_sink_settles_in_time_is_acknowledged() {
    let store = Store::answering(PENDING);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "before");
    net.sim().begin_shut_down();
    net.run();
    // Nothing is read any more, so nothing more is taken.
    publisher.publish("t", 1, "after");
    assert_eq!(store.offered(), ["t before"]);
    assert_eq!(publisher.got(), NOTHING);
    assert!(!net.sim().has_ended());
    store.stored(&net, [0]);
    assert_eq!(publisher.got(), ["PUBACK #1", "DISCONNECT 0x8b", "closed"]);
    assert!(net.sim().has_ended());
}

#[test]
fn what_the_sink_never_settles_is_not_waited_for_for_ever() {
    let net = Net::with_sink(Store::answering(PENDING), |config| {
        config.limits.drain_timeout_ms = 5_000;
    });
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "x");
    net.sim().begin_shut_down();
    net.advance_ms(4_900);
    assert!(!net.sim().has_ended());
    net.advance_ms(200);
    assert!(net.sim().has_ended());
    assert_eq!(publisher.got(), ["DISCONNECT 0x8b", "closed"]);
}

#[test]
fn a_publisher_that_is_held_does_not_keep_the_broker_up() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "x");
    net.sim().begin_shut_down();
    net.advance_ms(100);
    assert!(net.sim().has_ended());
    assert_eq!(publisher.got(), ["DISCONNECT 0x8b", "closed"]);
    assert_eq!(net.sim().stats().publishers_held, 0);
}

#[test]
fn nobody_is_let_in_any_more() {
    let net = Net::with_sink(Store::answering(PENDING), |_| ());
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "x");
    net.sim().begin_shut_down();
    net.run();
    let mut late = net.client("late").attempt();
    assert_eq!(late.got(), ["closed"]);
}
