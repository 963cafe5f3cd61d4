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
    ] {
        let text = format!("PUBLISH $SYS/broker/{said} retain");
        assert!(got.contains(&text), "{text} is not in {got:#?}");
    }
    // The broker's own messages are no clients' publishes.
    assert_eq!(net.stats().publishes_unmatched, 1);
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
