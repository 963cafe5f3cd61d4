//! 3.x clients that were closed because a publish was refused, and come back with it: their publishes wait, longer each
//! time, and nobody else's do.

use broker::{Refusal, Verdict};
use codec::Version;

use crate::support::{Client, NOTHING, Net, PENDING, Pub, Store};

/// A client that publishes what will be refused, and asks whether somebody is there.
fn back(net: &Net, version: Version) -> Client {
    let mut client = net.client("p").version(version).connect();
    client.publish("t", 1, "bad");
    client.ping();
    assert_eq!(client.got(), ["PINGRESP"]);
    client
}

#[test]
fn the_publishes_of_a_client_that_was_refused_one_wait_longer_each_time() {
    for version in [Version::V31, Version::V311] {
        for workers in [1, 3] {
            let store = Store::answering(PENDING);
            let net = Net::with_sink(store.clone(), |config| config.workers = workers);
            for (nth, pause_s) in [0, 1, 2, 4].into_iter().enumerate() {
                let client = back(&net, version);
                if pause_s > 0 {
                    assert_eq!(net.stats().publishers_held, 1);
                    // Room in the sink is not what it waits for.
                    net.handle().sink_ready();
                    net.advance_ms(pause_s * 1_000 - 200);
                    assert_eq!(store.offered(), NOTHING, "{pause_s} s");
                    net.advance_ms(400);
                }
                assert_eq!(store.offered(), ["t bad"], "{pause_s} s");
                store.refused(&net, [nth], Refusal::TooLarge);
                assert!(!client.is_open());
            }
            let stats = net.stats();
            assert_eq!(
                (
                    stats.publishers_paused,
                    stats.closed_publish_refused,
                    stats.publishers_held
                ),
                (3, 4, 0)
            );
        }
    }
}

#[test]
fn what_waits_goes_on_in_order_and_others_do_not_wait() {
    let store = Store::answering(Verdict::Refused(Refusal::TooLarge));
    let net = Net::with_sink(store.clone(), |_| ());
    let mut subscriber = net.join("s");
    subscriber.subscribe("t", 0);
    let mut client = net.client("p").version(Version::V311).connect();
    client.publish("t", 1, "bad");
    assert!(!client.is_open());
    store.answer_always(Verdict::Accepted);

    let mut client = net.client("p").version(Version::V311).connect();
    client.publish_with(&Pub::new("t", "1").qos(1, 1));
    client.publish("t", 0, "2");
    client.publish_with(&Pub::new("t", "3").qos(1, 3));
    let mut other = net.client("q").version(Version::V311).connect();
    other.publish("t", 1, "other");
    assert_eq!(other.got(), ["PUBACK #1"]);
    assert_eq!(subscriber.got(), ["PUBLISH t other"]);
    net.advance_s(2);
    assert_eq!(client.got(), ["PUBACK #1", "PUBACK #3"]);
    let came = subscriber.got();
    assert_eq!(came, ["PUBLISH t 1", "PUBLISH t 2", "PUBLISH t 3"]);

    // Refused nothing for long, it is as any other; and one that leaves while it waits leaves nothing behind.
    store.answer_always(Verdict::Refused(Refusal::TooLarge));
    client.publish("t", 1, "bad");
    assert!(!client.is_open());
    let mut client = net.client("p").version(Version::V311).connect();
    client.publish("t", 1, "bad");
    client.cut();
    let stats = net.stats();
    assert_eq!(
        (
            stats.publishers_held,
            stats.publishes_read_ahead,
            stats.read_ahead_bytes
        ),
        (0, 0, 0)
    );
    net.advance_s(200);
    let before = store.offered().len();
    let mut client = net.client("p").version(Version::V311).connect();
    client.publish("t", 1, "bad");
    assert_eq!((before, store.offered()), (6, vec!["t bad".to_owned()]));
    assert!(!client.is_open());
}

#[test]
fn a_5_0_client_is_told_and_does_not_wait() {
    let store = Store::answering(Verdict::Refused(Refusal::TooLarge));
    let net = Net::with_sink(store.clone(), |_| ());
    let mut client = net.join("p");
    client.publish("t", 1, "bad");
    client.publish("t", 1, "bad");
    assert_eq!(store.offered().len(), 2);
    assert!(client.is_open());
    assert_eq!(net.stats().publishers_paused, 0);
}
