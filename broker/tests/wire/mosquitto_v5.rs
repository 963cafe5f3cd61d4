//! mosquitto's clients: what only MQTT 5.0 has, and `$SYS`.

use crate::support::Server;
use crate::support::process::{mosquitto_pub, mosquitto_pub_input, mosquitto_rr, mosquitto_sub};

const V5: &str = "mqttv5";

#[test]
fn every_property_of_a_publish_arrives() {
    let server = Server::start();
    let format = "%t|%C|%R|%D|%P|%F|%p";
    let subscriber = mosquitto_sub(&server, V5, &["-t", "a", "-F", format]);
    server.until_subscribed(1);
    let mut arguments = vec!["-t", "a", "-m", "hello"];
    for property in [
        ["content-type", "text/plain", ""],
        ["response-topic", "answers/1", ""],
        ["correlation-data", "question-7", ""],
        ["user-property", "colour", "red"],
        ["user-property", "colour", "blue"],
        ["payload-format-indicator", "1", ""],
    ] {
        arguments.extend(["-D", "publish"]);
        arguments.extend(property.iter().filter(|word| !word.is_empty()));
    }
    mosquitto_pub(&server, V5, &arguments);
    assert_eq!(
        subscriber.line(),
        "a|text/plain|answers/1|question-7|colour:red colour:blue|1|hello"
    );
}

#[test]
fn the_time_that_a_message_waited_is_taken_from_its_expiry() {
    let server = Server::start();
    let expiry = ["-D", "publish", "message-expiry-interval", "100"];
    mosquitto_pub(
        &server,
        V5,
        &[&["-t", "a", "-r", "-m", "x"], expiry.as_slice()].concat(),
    );
    // It waits as the retained message until more than a second has passed.
    server.until("retained", |stats| stats.retained_messages == 1);
    let left = crate::support::poll(
        || {
            let subscriber = mosquitto_sub(&server, V5, &["-t", "a", "-F", "%E", "-C", "1"]);
            let left: u32 = subscriber.finish()[0].parse().unwrap();
            assert!(left <= 100);
            Some(left).filter(|left| *left < 100)
        },
        || "the expiry does not shrink".to_owned(),
    );
    assert!(left > 0);
}

#[test]
fn the_subscription_identifier_comes_with_each_message() {
    let server = Server::start();
    let identifier = ["-D", "subscribe", "subscription-identifier", "268435455"];
    let subscriber = mosquitto_sub(
        &server,
        V5,
        &[&["-t", "a/+", "-F", "%S %p"], identifier.as_slice()].concat(),
    );
    server.until_subscribed(1);
    mosquitto_pub(&server, V5, &["-t", "a/b", "-m", "hello"]);
    assert_eq!(subscriber.line(), "268435455 hello");
}

#[test]
fn a_request_gets_its_response() {
    let server = Server::start();
    let server_side = mosquitto_sub(&server, V5, &["-t", "ask", "-F", "%R %D %p"]);
    server.until_subscribed(1);
    let ask = [
        "-t",
        "ask",
        "-e",
        "answers/me",
        "-m",
        "2+2",
        "-D",
        "publish",
        "correlation-data",
        "q1",
    ];
    let asking = mosquitto_rr(&server, V5, &ask);
    assert_eq!(server_side.line(), "answers/me q1 2+2");
    let answer = [
        "-t",
        "answers/me",
        "-m",
        "4",
        "-D",
        "publish",
        "correlation-data",
        "q1",
    ];
    mosquitto_pub(&server, V5, &answer);
    assert_eq!(asking.finish(), ["4"]);
}

#[test]
fn a_publisher_may_use_a_topic_alias() {
    let server = Server::start();
    let subscriber = mosquitto_sub(&server, "mqttv311", &["-v", "-t", "long/topic/name"]);
    server.until_subscribed(1);
    // The first line goes with the name and the alias, the others with the alias alone.
    let publish = [
        "-t",
        "long/topic/name",
        "-l",
        "-D",
        "publish",
        "topic-alias",
        "16",
    ];
    mosquitto_pub_input(&server, V5, &publish, b"1\n2\n3\n".to_vec());
    let expected = ["1", "2", "3"].map(|line| format!("long/topic/name {line}"));
    assert_eq!(subscriber.lines(3), expected);
}

#[test]
fn a_session_ends_when_its_expiry_is_zero() {
    let server = Server::start();
    let session = ["-c", "-i", "brief", "-t", "a", "-q", "1", "-E"];
    mosquitto_sub(&server, V5, &[session.as_slice(), &["-x", "0"]].concat()).finish();
    server.until("ended", |stats| {
        stats.closed_by_client == 1 && stats.sessions == 0
    });
    mosquitto_sub(&server, V5, &[session.as_slice(), &["-x", "60"]].concat()).finish();
    server.until("kept", |stats| {
        stats.closed_by_client == 2 && stats.sessions == 1
    });
}

#[test]
fn a_delayed_will_does_not_come_when_the_client_returns() {
    let server = Server::start();
    let heir = mosquitto_sub(&server, V5, &["-t", "wills", "-t", "wills/now"]);
    let start = |topic: &str| {
        let client = ["-c", "-x", "600", "-i", "mortal", "-t", "nothing"];
        let will = ["--will-topic", topic, "--will-payload", "gone"];
        let delay = [
            "-D",
            "will",
            "will-delay-interval",
            if topic == "wills" { "300" } else { "0" },
        ];
        mosquitto_sub(&server, V5, &[client.as_slice(), &will, &delay].concat())
    };
    let mortal = start("wills");
    server.until_subscribed(3);
    mortal.kill();
    server.until("lost", |stats| stats.closed_lost == 1);
    let mortal = start("wills/now");
    server.until("back", |stats| stats.clients == 2);
    mortal.kill();
    assert_eq!(heir.line(), "gone");
    server.until("counted", |stats| stats.wills_published == 1);
}

#[test]
fn a_client_keeps_the_keep_alive_that_the_server_tells_it() {
    let mut server = Server::with(|config| config.limits.keep_alive_max_s = 1);
    let subscriber = mosquitto_sub(&server, V5, &["-k", "600", "-t", "a"]);
    // CONNECT, SUBSCRIBE and two PINGREQs: without being told it would be cut before the second.
    server.until("two pings", |stats| stats.packets_received >= 4);
    mosquitto_pub(&server, V5, &["-t", "a", "-m", "still here"]);
    assert_eq!(subscriber.line(), "still here");
    let stats = server.stop();
    assert_eq!((stats.closed_keep_alive, stats.clients_connected), (0, 2));
}

#[test]
fn the_brokers_figures_are_published() {
    let server = Server::with(|config| config.sys_interval_s = 1);
    let subscriber = mosquitto_sub(&server, "mqttv311", &["-v", "-t", "$SYS/broker/#"]);
    for expected in [
        "$SYS/broker/version millstream",
        "$SYS/broker/clients/connected 1",
    ] {
        while !subscriber.line().starts_with(expected) {}
    }
}

#[test]
fn a_wildcard_at_the_root_does_not_see_the_brokers_figures() {
    let server = Server::with(|config| config.sys_interval_s = 1);
    let subscriber = mosquitto_sub(&server, "mqttv311", &["-v", "-t", "#", "-t", "+/broker/#"]);
    let figures = mosquitto_sub(&server, "mqttv311", &["-t", "$SYS/broker/uptime"]);
    server.until_subscribed(3);
    figures.line();
    figures.line(); // two rounds, so that one was whole
    mosquitto_pub(&server, "mqttv311", &["-t", "a/broker/b", "-m", "mine"]);
    assert_eq!(subscriber.line(), "a/broker/b mine");
}
