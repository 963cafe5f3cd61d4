//! What one session may ask of everybody by subscribing: each bound with its answer.

use broker::Config;
use codec::{Property, SubscriptionOptions, Version};

use crate::support::{Client, NOTHING, Net, options};

fn subscribe(client: &mut Client, filters: &[String]) -> Vec<String> {
    let filters: Vec<(&str, SubscriptionOptions)> = filters
        .iter()
        .map(|filter| (filter.as_str(), options(0)))
        .collect();
    client.subscribe_with(&filters, &[]);
    client.got()
}

fn names(prefix: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{prefix}{number}")).collect()
}

/// With each version, on one worker and on three: the test is told the reason of a refusal.
fn in_each_version(change: fn(&mut Config), test: impl Fn(&Net, Version, &str)) {
    for workers in [1, 3] {
        for version in Version::ALL {
            let net = Net::with(|config| {
                config.workers = workers;
                change(config);
            });
            let refused = if version == Version::V5 {
                "0x97"
            } else {
                "0x80"
            };
            test(&net, version, refused);
        }
    }
}

#[test]
fn a_packet_has_so_many_filters() {
    let change = |config: &mut Config| config.limits.filters_per_packet_max = 3;
    in_each_version(change, |net, version, refused| {
        let mut client = net.client("c").version(version).connect();
        let got = subscribe(&mut client, &names("a", 0..5));
        let codes = format!("SUBACK #1 [0x00, 0x00, 0x00, {refused}, {refused}]");
        assert_eq!(got, [codes]);
        let stats = net.stats();
        assert_eq!((stats.subscriptions, stats.subscriptions_refused), (3, 2));
        // The others by a packet of their own.
        assert_eq!(subscribe(&mut client, &names("a", 3..5)).len(), 1);
        assert_eq!(net.stats().subscriptions, 5);
        let filters = names("a", 0..5);
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        client.unsubscribe(&filters);
        if version == Version::V5 {
            let got = client.got();
            assert_eq!(got, ["UNSUBACK #1 [0x00, 0x00, 0x00, 0x83, 0x83]"]);
            assert_eq!(net.stats().subscriptions, 2);
        } else {
            assert_eq!(client.got(), ["closed"]);
        }
    });
}

#[test]
fn a_session_is_in_so_many_groups() {
    let change = |config: &mut Config| config.limits.shared_groups_per_session_max = 2;
    in_each_version(change, |net, version, refused| {
        let mut client = net.client("c").version(version).connect();
        let shares: Vec<String> = (0..3).map(|at| format!("$share/g{at}/#")).collect();
        let got = subscribe(&mut client, &shares);
        assert_eq!(got, [format!("SUBACK #1 [0x00, 0x00, {refused}]")]);
        // Plain ones, and those it has, are no more groups.
        let more = ["plain".to_owned(), shares[0].clone()];
        assert_eq!(subscribe(&mut client, &more), ["SUBACK #1 [0x00, 0x00]"]);
        client.unsubscribe(&[&shares[1]]);
        client.got();
        let got = subscribe(&mut client, &shares[2..]);
        assert_eq!(got, ["SUBACK #1 [0x00]"]);
        net.join("p").publish("t", 0, "x");
        assert_eq!(client.got(), ["PUBLISH t x", "PUBLISH t x"]);
    });
}

#[test]
fn a_filter_is_shared_by_so_many_groups() {
    let change = |config: &mut Config| config.limits.shared_groups_per_filter_max = 2;
    in_each_version(change, |net, version, refused| {
        let join = |at: u32| net.client(&format!("c{at}")).version(version).connect();
        let mut clients: Vec<Client> = (0..4).map(join).collect();
        let mut ask = |at: usize, filter: &str| subscribe(&mut clients[at], &[filter.into()]);
        assert_eq!(ask(0, "$share/a/t"), ["SUBACK #1 [0x00]"]);
        assert_eq!(ask(1, "$share/b/t"), ["SUBACK #1 [0x00]"]);
        assert_eq!(ask(2, "$share/c/t"), [format!("SUBACK #1 [{refused}]")]);
        assert_eq!(ask(2, "$share/a/t"), ["SUBACK #1 [0x00]"]);
        assert_eq!(ask(3, "$share/c/u"), ["SUBACK #1 [0x00]"]);
        assert_eq!(net.stats().subscriptions, 4);
        clients[1].cut();
        let mut ask = |at: usize, filter: &str| subscribe(&mut clients[at], &[filter.into()]);
        if version == Version::V5 {
            // That session ended with its connection, and its group with it.
            assert_eq!(ask(3, "$share/c/t"), ["SUBACK #1 [0x00]"]);
        }
    });
}

#[test]
fn a_sessions_filters_have_so_many_bytes() {
    let change = |config: &mut Config| config.limits.subscription_bytes_max = 100;
    in_each_version(change, |net, version, refused| {
        let mut client = net.client("c").version(version).connect();
        let long = |first: &str| format!("{first}/{}", "x".repeat(48));
        for (filter, reason) in [
            (long("a"), "0x00"),
            (long("+"), "0x00"),
            ("b".to_owned(), refused),
            ("$share/g/b".to_owned(), refused),
            (long("a"), "0x00"),
        ] {
            let got = subscribe(&mut client, std::slice::from_ref(&filter));
            assert_eq!(got, [format!("SUBACK #1 [{reason}]")], "{filter}");
        }
        // What is given back may be had again.
        client.unsubscribe(&[&long("+")]);
        client.got();
        let got = subscribe(&mut client, &["$share/g/b".into(), "c".into()]);
        assert_eq!(got, ["SUBACK #1 [0x00, 0x00]"]);
        client.unsubscribe(&["$share/g/b", "c", &long("a")]);
        client.got();
        let got = subscribe(&mut client, &[long("a"), long("b")]);
        assert_eq!(got, ["SUBACK #1 [0x00, 0x00]"]);
    });
}

#[test]
fn a_filter_that_is_repeated_is_replayed_once_and_by_its_last_options() {
    let net = Net::new();
    let mut publisher = net.join("p");
    for topic in ["a", "b"] {
        publisher.publish_with(&crate::support::Pub::new(topic, "x").retain());
    }
    let mut client = net.join("c");
    let filters: Vec<(&str, SubscriptionOptions)> = (0..1_000)
        .map(|at| (["a", "b"][at % 2], options(0)))
        .collect();
    client.subscribe_with(&filters, &[Property::SubscriptionIdentifier(7)]);
    let got = client.got();
    assert!(got[0].starts_with("SUBACK"));
    assert_eq!(
        got[1..],
        [
            "PUBLISH b x retain {subscription 7}",
            "PUBLISH a x retain {subscription 7}"
        ]
    );
    client.unsubscribe(&["a", "a"]);
    assert_eq!(client.got(), ["UNSUBACK #1 [0x00, 0x11]"]);
    assert_eq!(client.got(), NOTHING);
}
