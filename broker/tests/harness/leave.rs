//! A node that ends sends its clients elsewhere, some at a time, and tells them where.

use std::sync::mpsc;

use broker::admin::{Cursor, Part};
use codec::{Property, Version};

use crate::support::{NOTHING, Net, PENDING, Store, on_one_and_more_workers};

fn elsewhere(workers: usize, moved: bool) -> Net {
    Net::with(|config| {
        config.workers = workers;
        config.drain.server_reference = "other:1883".to_owned();
        config.drain.moved = moved;
    })
}

fn leave(net: &Net, from: Cursor, max: usize) -> Part<()> {
    let (answer, answered) = mpsc::sync_channel(1);
    let then = Box::new(move |part| answer.send(part).expect("a test"));
    net.handle().leave(from, max, then);
    net.run();
    answered.recv().expect("an answer")
}

#[test]
fn clients_are_sent_elsewhere_as_many_as_are_asked_for() {
    for (workers, moved, code) in [(1, false, "0x9c"), (3, true, "0x9d")] {
        let net = elsewhere(workers, moved);
        let mut clients: Vec<_> = (0..9).map(|n| net.join(&format!("c{n}"))).collect();
        let mut next = Some(Cursor::default());
        let mut sent = 0;
        while let Some(at) = next {
            let part = leave(&net, at, 2);
            assert!(part.found.len() <= 2);
            sent += part.found.len();
            let closed = clients.iter().filter(|client| !client.is_open()).count();
            assert_eq!(closed, sent, "no more than were asked for");
            next = part.next;
        }
        assert_eq!(sent, 9);
        let told = format!("DISCONNECT {code} {{ServerReference(\"other:1883\")}}");
        for client in &mut clients {
            assert_eq!(client.got(), [told.clone(), "closed".to_owned()]);
        }
        // Who comes now is told the same.
        let mut late = net.client("late").attempt();
        assert_eq!(
            late.got(),
            [
                format!("CONNACK {code} {{ServerReference(\"other:1883\")}}"),
                "closed".to_owned()
            ]
        );
        let mut old = net.client("old").version(Version::V311).attempt();
        assert_eq!(old.got(), ["CONNACK 0x88", "closed"]);
        assert_eq!(net.stats().closed_shutdown, 9);
    }
}

#[test]
fn who_waits_for_an_answer_is_drained_and_told_then() {
    let store = Store::answering(PENDING);
    let net = Net::with_sink(store.clone(), |config| {
        config.drain.server_reference = "other:1883".to_owned();
    });
    let mut waits = net.join("waits");
    waits.publish("t", 1, "x");
    let mut idle = net.join("idle");
    leave(&net, Cursor::default(), 10);
    assert_eq!(waits.got(), NOTHING);
    assert!(!idle.is_open());
    idle.got();
    net.sim().begin_shut_down();
    store.stored(&net, [0]);
    net.sim().shut_down();
    assert_eq!(
        waits.got(),
        [
            "PUBACK #1",
            "DISCONNECT 0x9c {ServerReference(\"other:1883\")}",
            "closed"
        ]
    );
}

#[test]
fn a_reference_that_is_too_long_for_a_client_is_left_out() {
    let net = Net::with(|config| {
        config.drain.server_reference = format!("{}:1883", "x".repeat(60));
    });
    let small = Property::MaximumPacketSize(40);
    let mut client = net.client("c").with(small).connect();
    net.sim().shut_down();
    assert_eq!(client.got(), ["DISCONNECT 0x9c", "closed"]);
}

#[test]
fn without_a_reference_the_end_is_told_as_such() {
    on_one_and_more_workers(|net| {
        let mut client = net.join("c");
        leave(net, Cursor::default(), 1);
        for worker in 1..net.handle().workers() {
            let worker = u32::try_from(worker).expect("few");
            let from = Cursor {
                worker,
                ..Cursor::default()
            };
            leave(net, from, 1);
        }
        assert_eq!(client.got(), ["DISCONNECT 0x8b", "closed"]);
        let mut late = net.client("late").attempt();
        assert_eq!(late.got(), ["CONNACK 0x88", "closed"]);
    });
}
