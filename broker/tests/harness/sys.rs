//! `$SYS/broker/…`: the node's figures as retained messages.

use crate::support::{NOTHING, Net};

#[test]
fn figures_are_published_at_an_interval() {
    let net = Net::with(|config| {
        config.workers = 3;
        config.sys_interval_s = 10;
    });
    net.run();
    let mut client = net.join("s");
    client.subscribe("$SYS/broker/clients/connected", 0);
    assert_eq!(
        client.got(),
        ["PUBLISH $SYS/broker/clients/connected 0 retain"]
    );
    net.advance_s(10);
    assert_eq!(client.got(), ["PUBLISH $SYS/broker/clients/connected 1"]);
    net.advance_s(10);
    assert_eq!(client.got(), ["PUBLISH $SYS/broker/clients/connected 1"]);
}

#[test]
fn figures_are_true() {
    let net = Net::with(|config| config.sys_interval_s = 10);
    let mut client = net.client("s").persistent().connect();
    client.subscribe("t", 1);
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "x");
    publisher.publish("nobody/listens", 1, "x");
    client.puback(1);
    client.cut();
    net.advance_s(10);
    let mut reader = net.join("r");
    reader.subscribe("$SYS/broker/#", 0);
    let got = reader.got();
    for said in [
        "clients/connected 1",
        "clients/total 2",
        "clients/disconnected 1",
        "subscriptions/count 1",
        "publish/messages/received 2",
        "publish/messages/sent 1",
        "publish/messages/dropped 0",
        "uptime 10 seconds",
        "clients/active 1",
        "clients/inactive 1",
        "clients/maximum 1",
        "clients/expired 0",
        "shared_subscriptions/count 0",
        "retained messages/count 0",
        "messages/stored 0",
        "store/messages/count 0",
        "store/messages/bytes 0",
        // CONNECT, SUBSCRIBE and PUBACK of one; CONNECT and two publishes of the other.
        "messages/received 6",
        // CONNACK, SUBACK and PUBLISH to one; CONNACK and two PUBACKs to the other.
        "messages/sent 6",
        "publish/bytes/received 2",
        "publish/bytes/sent 1",
        "load/connections/1min 1.84",
        "load/publish/received/1min 1.84",
        "load/messages/sent/5min 1.18",
        "load/publish/dropped/15min 0.00",
        "load/sockets/15min 0.13",
    ] {
        let text = format!("PUBLISH $SYS/broker/{said} retain");
        assert!(got.contains(&text), "{text} is not in {got:#?}");
    }
    // The broker's own messages are no clients' publishes.
    assert_eq!(net.stats().publishes_unmatched, 1);
}

#[test]
fn sessions_that_expired_are_counted() {
    let net = Net::with(|config| config.sys_interval_s = 10);
    let brief = codec::Property::SessionExpiryInterval(30);
    net.client("brief").with(brief).resuming().connect().cut();
    net.client("gone").connect().disconnect();
    let mut reader = net.join("r");
    reader.subscribe("$SYS/broker/clients/expired", 0);
    net.advance_s(40);
    let got = reader.got();
    assert_eq!(
        got.last().map(String::as_str),
        Some("PUBLISH $SYS/broker/clients/expired 1")
    );
}

#[test]
fn a_wildcard_at_the_root_does_not_see_them() {
    let net = Net::with(|config| config.sys_interval_s = 1);
    net.run();
    let mut client = net.join("s");
    client.subscribe("#", 0);
    client.subscribe("+/broker/#", 0);
    net.advance_s(5);
    assert_eq!(client.got(), NOTHING);
}

#[test]
fn they_can_be_switched_off() {
    let net = Net::with(|config| config.sys_interval_s = 0);
    net.advance_s(100);
    let mut client = net.join("s");
    client.subscribe("$SYS/#", 0);
    assert_eq!(client.got(), NOTHING);
    assert_eq!(net.stats().retained_messages, 0);
}
