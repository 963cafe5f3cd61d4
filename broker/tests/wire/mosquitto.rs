//! mosquitto_pub and mosquitto_sub: what works in every version of the protocol.

use std::collections::BTreeSet;

use crate::support::Server;
use crate::support::process::{
    mosquitto_pub, mosquitto_pub_input, mosquitto_sub, mosquitto_sub_bytes,
};

macro_rules! in_every_version {
    ($($test:ident)+) => {
        mod v31 { $(#[test] fn $test() { super::$test("mqttv31"); })+ }
        mod v311 { $(#[test] fn $test() { super::$test("mqttv311"); })+ }
        mod v5 { $(#[test] fn $test() { super::$test("mqttv5"); })+ }
    };
}

in_every_version! {
    every_qos_arrives_as_published
    the_subscription_bounds_the_qos
    a_retained_message_meets_later_subscribers
    an_empty_retained_message_clears
    the_will_of_a_killed_client_is_published
    a_client_that_says_goodbye_leaves_no_will
    a_session_keeps_messages_for_its_return
    a_clean_session_keeps_nothing
    a_shared_subscription_is_shared_out
    a_large_payload_crosses_whole
    wildcards_match_by_level
    a_refused_subscription_is_reported_and_the_rest_goes_on
}

/// Lines "1" to `last`.
fn numbers(last: u32) -> Vec<String> {
    (1..=last).map(|number| number.to_string()).collect()
}

/// Publishes one message a line.
fn publish_lines(server: &Server, version: &str, topic: &str, qos: &str, lines: &[String]) {
    let input = (lines.join("\n") + "\n").into_bytes();
    mosquitto_pub_input(server, version, &["-t", topic, "-q", qos, "-l"], input);
}

fn every_qos_arrives_as_published(version: &str) {
    let server = Server::start();
    let subscriber = mosquitto_sub(
        &server,
        version,
        &["-t", "a/b", "-q", "2", "-F", "%q %t %p"],
    );
    server.until_subscribed(1);
    for qos in ["0", "1", "2"] {
        mosquitto_pub(&server, version, &["-t", "a/b", "-q", qos, "-m", "hello"]);
        assert_eq!(subscriber.line(), format!("{qos} a/b hello"));
    }
    server.until("acknowledged", |stats| {
        (stats.delivered_acknowledged, stats.inflight) == (2, 0)
    });
    server.until("counted", |stats| stats.publishes_received_qos2 == 1);
}

fn the_subscription_bounds_the_qos(version: &str) {
    for qos in ["0", "1"] {
        let server = Server::start();
        let subscriber = mosquitto_sub(&server, version, &["-t", "a", "-q", qos, "-F", "%q %p"]);
        server.until_subscribed(1);
        mosquitto_pub(&server, version, &["-t", "a", "-q", "2", "-m", "hello"]);
        assert_eq!(subscriber.line(), format!("{qos} hello"));
    }
}

fn a_retained_message_meets_later_subscribers(version: &str) {
    let server = Server::start();
    mosquitto_pub(
        &server,
        version,
        &["-t", "state/x", "-q", "1", "-r", "-m", "on"],
    );
    let subscriber = mosquitto_sub(
        &server,
        version,
        &["-t", "state/#", "-q", "1", "-F", "%r %q %p"],
    );
    assert_eq!(subscriber.line(), "1 1 on");
    // To those who were there it is a message like any other.
    mosquitto_pub(&server, version, &["-t", "state/x", "-r", "-m", "off"]);
    assert_eq!(subscriber.line(), "0 0 off");
}

fn an_empty_retained_message_clears(version: &str) {
    let server = Server::start();
    mosquitto_pub(&server, version, &["-t", "state/x", "-r", "-m", "on"]);
    server.until("retained", |stats| stats.retained_messages == 1);
    mosquitto_pub(&server, version, &["-t", "state/x", "-r", "-n"]);
    server.until("cleared", |stats| stats.retained_messages == 0);
    let subscriber = mosquitto_sub(&server, version, &["-t", "state/x", "-F", "%r %p"]);
    server.until_subscribed(1);
    mosquitto_pub(&server, version, &["-t", "state/x", "-m", "first"]);
    assert_eq!(subscriber.line(), "0 first");
}

/// Starts a client with a will.
fn mortal(server: &Server, version: &str) -> crate::support::process::Process {
    let client = ["-i", "mortal", "-t", "nothing"];
    let will = [
        "--will-topic",
        "wills",
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ];
    mosquitto_sub(server, version, &[client.as_slice(), &will].concat())
}

fn the_will_of_a_killed_client_is_published(version: &str) {
    let server = Server::start();
    let heir = mosquitto_sub(
        &server,
        version,
        &["-t", "wills", "-q", "1", "-F", "%q %t %p"],
    );
    let mortal = mortal(&server, version);
    server.until_subscribed(2);
    mortal.kill();
    assert_eq!(heir.line(), "1 wills gone");
    server.until("counted", |stats| stats.wills_published == 1);
}

fn a_client_that_says_goodbye_leaves_no_will(version: &str) {
    let mut server = Server::start();
    let client = ["-t", "nothing", "-E"]; // ends with a DISCONNECT once it is subscribed
    let will = ["--will-topic", "wills", "--will-payload", "gone"];
    mosquitto_sub(&server, version, &[client.as_slice(), &will].concat()).finish();
    server.until("gone", |stats| stats.closed_by_client == 1);
    assert_eq!(server.stop().wills_published, 0);
}

fn a_session_keeps_messages_for_its_return(version: &str) {
    let server = Server::start();
    let session = ["-c", "-i", "traveller", "-t", "post/#", "-q", "1"];
    mosquitto_sub(&server, version, &[session.as_slice(), &["-E"]].concat()).finish();
    server.until("away", |stats| stats.clients == 0 && stats.sessions == 1);
    publish_lines(&server, version, "post/1", "1", &numbers(100));
    let back = mosquitto_sub(
        &server,
        version,
        &[session.as_slice(), &["-C", "100"]].concat(),
    );
    assert_eq!(back.finish(), numbers(100));
    server.until("acknowledged", |stats| {
        (stats.delivered_acknowledged, stats.queued, stats.inflight) == (100, 0, 0)
    });
}

fn a_clean_session_keeps_nothing(version: &str) {
    let server = Server::start();
    let session = ["-i", "tourist", "-t", "post/#", "-q", "1"];
    mosquitto_sub(&server, version, &[session.as_slice(), &["-E"]].concat()).finish();
    server.until("away", |stats| stats.closed_by_client == 1);
    mosquitto_pub(
        &server,
        version,
        &["-t", "post/1", "-q", "1", "-m", "missed"],
    );
    let back = mosquitto_sub(&server, version, &session);
    server.until_subscribed(1);
    mosquitto_pub(&server, version, &["-t", "post/1", "-q", "1", "-m", "seen"]);
    assert_eq!(back.line(), "seen");
}

fn a_shared_subscription_is_shared_out(version: &str) {
    let server = Server::start();
    let join = ["-t", "$share/group/work/#", "-q", "1", "-C", "10"];
    let members = [
        mosquitto_sub(&server, version, &join),
        mosquitto_sub(&server, version, &join),
    ];
    server.until_subscribed(2);
    publish_lines(&server, version, "work/1", "1", &numbers(20));
    // Each ends by itself after its half.
    let [one, other] = members.map(|member| member.finish());
    let all: BTreeSet<_> = one.iter().chain(&other).cloned().collect();
    assert_eq!(all, numbers(20).into_iter().collect());
}

fn a_large_payload_crosses_whole(version: &str) {
    let server = Server::start();
    // Every byte value, and no period that a buffer's size would hide.
    let payload: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
    let publish = ["-t", "large", "-q", "1", "-s"];
    let got = mosquitto_sub_bytes(&server, version, &["-t", "large", "-q", "1"], || {
        server.until_subscribed(1);
        mosquitto_pub_input(&server, version, &publish, payload.clone());
    });
    assert!(got == payload, "{} bytes came, or others", got.len());
}

fn wildcards_match_by_level(version: &str) {
    let server = Server::start();
    let subscriber = mosquitto_sub(&server, version, &["-v", "-t", "+/b/#", "-t", "x/+"]);
    server.until_subscribed(2);
    for topic in ["a/b", "a/c", "/b/c/d", "b", "x/", "x/y/z", "$a/b", "x/last"] {
        mosquitto_pub(&server, version, &["-t", topic, "-m", "m"]);
    }
    assert_eq!(
        subscriber.lines(4),
        ["a/b m", "/b/c/d m", "x/ m", "x/last m"]
    );
}

fn a_refused_subscription_is_reported_and_the_rest_goes_on(version: &str) {
    let server = Server::with_denied("secret/#");
    let filters = ["-t", "secret/plan", "-t", "open", "-t", "#", "-q", "1"];
    let subscriber = mosquitto_sub(
        &server,
        version,
        &[&["-d", "-C", "1"], filters.as_slice()].concat(),
    );
    server.until("answered", |stats| {
        (stats.subscriptions_refused, stats.subscriptions) == (1, 2)
    });
    for topic in ["secret/plan", "open"] {
        mosquitto_pub(&server, version, &["-t", topic, "-q", "1", "-m", topic]);
    }
    let said = subscriber.finish();
    // MQTT 5 has a code that says why: "not authorized".
    let refused = if version == "mqttv5" { 0x87 } else { 0x80 };
    // A wider filter is granted, and what the rule denies is held back from it.
    let subscribed = format!("Subscribed (mid: 1): {refused}, 1, 1");
    assert!(said.contains(&subscribed), "{said:#?}");
    assert!(said.contains(&"open".to_owned()), "{said:#?}");
    assert!(!said.contains(&"secret/plan".to_owned()), "{said:#?}");
}
