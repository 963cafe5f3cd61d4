//! paho-mqtt in Python, with MQTT 3.1.1 and 5.0. Each scenario is a script that prints what it saw.

use crate::support::Server;
use crate::support::process::paho;

/// Runs a scenario against a broker of its own: what it printed.
fn run(scenario: &str, version: &str) -> Vec<String> {
    paho(&Server::start(), scenario, version).finish()
}

macro_rules! in_both_versions {
    ($($test:ident)+) => {
        mod v311 { $(#[test] fn $test() { super::$test("3.1.1"); })+ }
        mod v5 { $(#[test] fn $test() { super::$test("5"); })+ }
    };
}

in_both_versions! {
    every_qos_arrives_as_published
    retained_messages_meet_later_subscribers_until_they_are_cleared
    only_the_will_of_a_lost_client_is_published
    a_session_keeps_messages_for_its_return
    a_thousand_qos_2_messages_arrive_in_order_and_once
    large_payloads_cross_whole
    wildcards_match_by_level
    a_refused_subscription_is_reported_and_the_rest_goes_on
    a_shared_subscription_is_shared_out_and_taken_over
}

fn every_qos_arrives_as_published(version: &str) {
    assert_eq!(
        run("qos", version),
        [
            "a published 0 arrived 0 hello",
            "a published 1 arrived 1 hello",
            "a published 2 arrived 2 hello",
            "b published 0 arrived 0 hello",
            "b published 1 arrived 1 hello",
            "b published 2 arrived 1 hello",
        ]
    );
}

fn retained_messages_meet_later_subscribers_until_they_are_cleared(version: &str) {
    assert_eq!(run("retained", version), ["True on", "False now"]);
}

fn only_the_will_of_a_lost_client_is_published(version: &str) {
    let server = Server::start();
    assert_eq!(
        paho(&server, "will", version).finish(),
        ["wills/lost 2 gone"]
    );
    server.until("counted", |stats| stats.wills_published == 1);
}

fn a_session_keeps_messages_for_its_return(version: &str) {
    assert_eq!(
        run("session", version),
        ["present False", "present True", "in order True"]
    );
}

fn a_thousand_qos_2_messages_arrive_in_order_and_once(version: &str) {
    let server = Server::start();
    assert_eq!(
        paho(&server, "order", version).finish(),
        ["accepted {0}", "messages 1000", "in order True"]
    );
    server.until("counted once", |stats| {
        (stats.publishes_received_qos2, stats.deliveries) == (1_001, 1_001)
    });
}

fn large_payloads_cross_whole(version: &str) {
    assert_eq!(run("large", version), ["0 True", "1 True", "2 True"]);
}

fn wildcards_match_by_level(version: &str) {
    assert_eq!(
        run("wildcards", version),
        ["a/b", "/b/c", "a", "x/", "last/b"]
    );
}

fn a_refused_subscription_is_reported_and_the_rest_goes_on(version: &str) {
    let server = Server::with_denied("secret/#");
    // MQTT 5 has a code that says why: "not authorized".
    let refused = if version == "5" { "0x87" } else { "0x80" };
    let expected = [format!("['{refused}', '0x1']"), "open".to_owned()];
    assert_eq!(paho(&server, "refused", version).finish(), expected);
}

fn a_shared_subscription_is_shared_out_and_taken_over(version: &str) {
    assert_eq!(
        run("shared", version),
        ["shared out 10 10 True", "taken over True"]
    );
}

#[test]
fn every_property_of_a_publish_arrives() {
    assert_eq!(
        run("properties", "5"),
        [
            "PayloadFormatIndicator 1",
            "MessageExpiryInterval 1000000",
            "ContentType text/plain",
            "ResponseTopic answers/1",
            r"CorrelationData b'\x00\xff\x01'",
            "UserProperty [('colour', 'red'), ('colour', 'blue'), ('', 'ü')]",
            "SubscriptionIdentifier [42]",
        ]
    );
}

#[test]
fn a_request_gets_its_response() {
    assert_eq!(run("request", "5"), ["4 q1"]);
}

#[test]
fn topic_aliases_work_both_ways() {
    assert_eq!(
        run("aliases", "5"),
        [
            "allowed 16",
            "'long/topic' 1 first",
            "'' 1 second",
            "'' 1 third",
        ]
    );
}

#[test]
fn the_brokers_bounds_are_told() {
    let server = Server::with(|config| {
        config.limits.keep_alive_max_s = 30;
        config.limits.receive_maximum = 7;
        config.limits.packet_bytes_max = 5_000;
        config.limits.session_expiry_max_s = 99;
    });
    assert_eq!(
        paho(&server, "connack", "5").finish(),
        [
            "identifiers 2",
            "ServerKeepAlive 30",
            "ReceiveMaximum 7",
            "MaximumPacketSize 5000",
            "SessionExpiryInterval 99",
        ]
    );
}

#[test]
fn a_clients_receive_maximum_is_kept() {
    assert_eq!(run("receive_maximum", "5"), ["0 1 2 3 4 5 6 7 8 9 "]);
}
