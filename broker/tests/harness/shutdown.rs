//! Shutting down: nothing new is read, what was taken is settled and told, wills are delivered, clients are told and have
//! their time to read it.

use broker::Verdict;
use codec::{Property, Version};

use crate::support::{Client, Join, NOTHING, Net, PENDING, PENDING_DELIVER_AFTER, Store};

/// The name of a client whose home is that worker.
fn named(net: &Net, what: &str, worker: usize) -> String {
    let mut names = (0..).map(|n| format!("{what}-{n}"));
    let is_home = |name: &String| net.sim().home(name) == worker;
    names.find(is_home).expect("there are enough names")
}

/// A subscriber of `wills` at that worker.
fn watcher(net: &Net, worker: usize) -> Client {
    let mut watcher = net.join(&named(net, "watcher", worker));
    watcher.subscribe("wills", 0);
    watcher
}

fn with_will(net: &Net, worker: usize) -> Join {
    let name = named(net, "mortal", worker);
    net.client(&name).will("wills", &worker.to_string())
}

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
    // A part of the time is kept for telling the clients.
    net.advance_ms(3_700);
    assert!(!net.sim().has_ended());
    assert_eq!(publisher.got(), NOTHING);
    net.advance_ms(100);
    assert!(net.sim().has_ended());
    assert_eq!(publisher.got(), ["DISCONNECT 0x8b", "closed"]);
}

#[test]
fn what_was_said_last_is_not_lost_to_bytes_that_nobody_reads_any_more() {
    for version in Version::ALL {
        let store = Store::answering(PENDING);
        let net = Net::with_sink(store.clone(), |_| ());
        let mut publisher = net.client("p").version(version).connect();
        publisher.publish("t", 1, "before");
        net.sim().begin_shut_down();
        net.run();
        for at in 0..50 {
            publisher.publish("t", 1, at.to_string().repeat(10_000));
        }
        store.stored(&net, [0]);
        let last = match version {
            Version::V5 => &["PUBACK #1", "DISCONNECT 0x8b", "closed"][..],
            _ => &["PUBACK #1", "closed"],
        };
        assert_eq!(publisher.got(), last, "{version:?}");
        assert_eq!(store.offered(), ["t before"]);
        assert!(net.sim().has_ended());
    }
}

#[test]
fn who_reads_nothing_keeps_the_broker_up_no_longer_than_its_bound() {
    let net = Net::with(|config| {
        config.workers = 3;
        config.limits.drain_timeout_ms = 4_000;
    });
    let mut watchers: Vec<_> = (0..3).map(|worker| watcher(&net, worker)).collect();
    let _mortal = with_will(&net, 0).connect();
    watchers[1].block(true);
    let begun = net.sim().now();
    assert!(net.sim().shut_down());
    let took_ms = net.sim().now().since_ms(begun);
    assert!((3_500..=4_000).contains(&took_ms), "{took_ms}");
    for at in [0, 2] {
        let last = ["PUBLISH wills 0", "DISCONNECT 0x8b", "closed"];
        assert_eq!(watchers[at].got(), last);
    }
    assert_eq!(watchers[1].got(), ["closed"]);
}

#[test]
fn wills_reach_the_clients_of_all_workers_before_these_are_told() {
    for workers in [1, 3] {
        let net = Net::with(|config| config.workers = workers);
        let mut watchers: Vec<_> = (0..workers).map(|at| watcher(&net, at)).collect();
        let mut mortals: Vec<_> = (0..workers)
            .map(|at| with_will(&net, at).connect())
            .collect();
        // The will of a client that has left waits for its delay; its session ends now, too.
        let delay = [Property::WillDelayInterval(600)];
        let left = net.client("left").persistent();
        left.will_with("wills", "late", 1, false, &delay)
            .connect()
            .cut();
        net.sim().begin_shut_down();
        net.run();
        assert!(net.sim().has_ended(), "it waits for nobody");
        for watcher in &mut watchers {
            let mut got = watcher.got();
            assert_eq!(
                got.split_off(workers + 1),
                ["DISCONNECT 0x8b", "closed"],
                "{got:?}"
            );
            got.sort();
            let mut wills: Vec<_> = (0..workers)
                .map(|at| format!("PUBLISH wills {at}"))
                .collect();
            wills.push("PUBLISH wills late".to_owned());
            assert_eq!(got, wills);
        }
        for mortal in &mut mortals {
            assert_eq!(mortal.got(), ["DISCONNECT 0x8b", "closed"]);
        }
        let stats = net.sim().stats();
        let wills = workers as u64 + 1;
        assert_eq!((stats.wills_published, stats.unaccounted()), (wills, 0));
    }
}

#[test]
fn a_will_does_not_overtake_what_its_client_published() {
    let store = Store::answering(PENDING_DELIVER_AFTER);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut watcher = watcher(&net, 0);
    let mut mortal = with_will(&net, 0).connect();
    mortal.publish("wills", 1, "alive");
    net.sim().begin_shut_down();
    net.run();
    assert_eq!(watcher.got(), NOTHING);
    store.stored(&net, [0]);
    assert_eq!(
        watcher.got(),
        [
            "PUBLISH wills alive",
            "PUBLISH wills 0",
            "DISCONNECT 0x8b",
            "closed"
        ]
    );
    assert_eq!(store.offered(), ["wills alive", "wills 0"]);
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
