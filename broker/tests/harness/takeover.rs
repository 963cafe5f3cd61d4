//! The same client again: its session, and what becomes of the connection that had it.

use codec::{Property, ReasonCode, Version};

use crate::support::{NOTHING, Net, everywhere};

#[test]
fn a_second_connection_takes_the_session_over() {
    everywhere(|net, version| {
        let mut first = net.client("a").version(version).persistent().connect();
        first.subscribe("t", 1);
        let mut second = net.client("a").version(version).persistent().connect();
        // 3.1 cannot say that a session is present.
        assert_eq!(second.session_present, version != Version::V31);
        let said: &[&str] = match version {
            Version::V5 => &["DISCONNECT 0x8e", "closed"],
            _ => &["closed"],
        };
        assert_eq!(first.got(), said);
        net.join("b").publish("t", 1, "x");
        assert_eq!(second.got(), ["PUBLISH t x q1 #1"]);
        let stats = net.stats();
        assert_eq!(
            (stats.closed_taken_over, stats.clients, stats.sessions),
            (1, 2, 2)
        );
    });
}

#[test]
fn what_was_in_flight_on_the_old_connection_is_sent_again_on_the_new_one() {
    everywhere(|net, version| {
        let mut first = net.client("a").version(version).persistent().connect();
        first.subscribe("t", 2);
        let mut publisher = net.join("b");
        publisher.publish("t", 1, "one");
        publisher.publish("t", 2, "two");
        assert_eq!(first.got(), ["PUBLISH t one q1 #1", "PUBLISH t two q2 #2"]);
        let mut second = net.client("a").version(version).persistent().connect();
        assert_eq!(
            second.got(),
            ["PUBLISH t one q1 #1 dup", "PUBLISH t two q2 #2 dup"]
        );
    });
}

#[test]
fn a_clean_start_ends_the_session_that_was_there() {
    everywhere(|net, version| {
        let mut first = net.client("a").version(version).persistent().connect();
        first.subscribe("t", 1);
        for attempt in 0..2 {
            if attempt == 1 {
                net.client("a")
                    .version(version)
                    .persistent()
                    .connect()
                    .cut();
            }
            let mut second = net.client("a").version(version).connect();
            assert!(!second.session_present);
            net.join("b").publish("t", 1, "x");
            assert_eq!(second.got(), NOTHING);
            assert_eq!(net.stats().subscriptions, 0);
            second.cut();
        }
    });
}

#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    everywhere(|net, version| {
        let mut first = net.client("a").version(version).connect();
        first.subscribe("t", 1);
        first.cut();
        assert_eq!((net.stats().sessions, net.stats().subscriptions), (0, 0));
        let second = net.client("a").version(version).persistent().connect();
        assert!(!second.session_present);
    });
}

#[test]
fn a_session_lives_as_long_as_its_expiry_says() {
    for workers in [1, 3] {
        let net = Net::with(|config| config.workers = workers);
        let join = net
            .client("a")
            .resuming()
            .with(Property::SessionExpiryInterval(60));
        join.connect().cut();
        net.advance_s(59);
        let mut second = join.connect();
        assert!(second.session_present);
        // The clock of the first absence means nothing any more.
        net.advance_s(10);
        second.cut();
        net.advance_s(59);
        assert_eq!(net.stats().sessions, 1);
        net.advance_s(2);
        assert_eq!(net.stats().sessions, 0);
        assert!(!join.connect().session_present);
    }
}

#[test]
fn the_longest_expiry_is_the_nodes_bound() {
    everywhere(|_, version| {
        let net = Net::with(|config| config.limits.session_expiry_max_s = 100);
        let join = net.client("a").version(version).persistent();
        join.connect().cut();
        net.advance_s(99);
        assert_eq!(net.stats().sessions, 1);
        net.advance_s(2);
        assert_eq!(net.stats().sessions, 0);
    });
}

#[test]
fn a_disconnect_may_change_the_expiry() {
    let net = Net::new();
    let mut client = net.client("a").persistent().connect();
    client.disconnect_with(
        ReasonCode::NORMAL_DISCONNECTION,
        &[Property::SessionExpiryInterval(0)],
    );
    assert_eq!(net.stats().sessions, 0);
    let mut client = net
        .client("a")
        .with(Property::SessionExpiryInterval(5))
        .connect();
    client.disconnect_with(
        ReasonCode::NORMAL_DISCONNECTION,
        &[Property::SessionExpiryInterval(50)],
    );
    net.advance_s(49);
    assert_eq!(net.stats().sessions, 1);
    net.advance_s(2);
    assert_eq!(net.stats().sessions, 0);
}

#[test]
fn a_disconnect_cannot_make_a_session_last_that_was_to_end() {
    let net = Net::new();
    let mut client = net.join("a");
    client.disconnect_with(
        ReasonCode::NORMAL_DISCONNECTION,
        &[Property::SessionExpiryInterval(5)],
    );
    assert_eq!(client.got(), ["DISCONNECT 0x82", "closed"]);
    let stats = net.stats();
    assert_eq!((stats.sessions, stats.closed_protocol_error), (0, 1));
}

#[test]
fn a_session_goes_on_in_another_version_of_the_protocol() {
    let net = Net::new();
    let mut old = net
        .client("a")
        .version(Version::V311)
        .persistent()
        .connect();
    old.subscribe("t", 1);
    old.cut();
    net.join("b").publish("t", 1, "x");
    let mut new = net.client("a").persistent().connect();
    assert!(new.session_present);
    assert_eq!(new.got(), ["PUBLISH t x q1 #1"]);
}
