//! Messages that no client of this node sent: `Handle::publish`, and the word that every session has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker::{Delivered, Message, MessageParts, Time};

use crate::support::{Client, NOTHING, Net, Store, on_one_and_more_workers, options, qos};

fn message(topic: &str, payload: &str, level: u8) -> Message {
    Message::new(&MessageParts {
        topic,
        payload: payload.as_bytes(),
        qos: qos(level),
        retain: false,
        properties: &[],
        expires_at: None,
        arrived_at: Time(0),
    })
}

/// A guard, and whether it has run.
fn delivered() -> (Delivered, Arc<AtomicBool>) {
    let done = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&done);
    (
        Delivered::then(move |_| set.store(true, Ordering::Relaxed)),
        done,
    )
}

#[test]
fn messages_reach_their_subscribers_in_order_and_not_the_sink() {
    for workers in [1, 3] {
        let store = Store::answering(broker::Verdict::Accepted);
        let net = Net::with_sink(store.clone(), |config| config.workers = workers);
        let mut subscribers: Vec<Client> = (0..4).map(|at| net.join(&format!("s{at}"))).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("d/#", 2);
        }
        let messages = ["one", "two", "three"].map(|payload| message("d/1", payload, 1));
        net.handle().publish(messages.to_vec(), None);
        net.run();
        for subscriber in &mut subscribers {
            assert_eq!(
                subscriber.got(),
                [
                    "PUBLISH d/1 one q1 #1",
                    "PUBLISH d/1 two q1 #2",
                    "PUBLISH d/1 three q1 #3"
                ]
            );
        }
        assert!(store.offered().is_empty());
    }
}

/// The worker that routes the messages of a topic.
fn router_of(net: &Net, topic: &str) -> usize {
    net.handle()
        .publish(vec![message(topic, "nobody listens", 0)], None);
    let router = (0..net.handle().workers()).find(|worker| {
        net.sim().turn([*worker]);
        net.handle().stats().inbox_entries == 0
    });
    router.expect("some worker routes it")
}

#[test]
fn delivered_waits_for_every_worker() {
    let net = Net::with(|config| config.workers = 3);
    let router = router_of(&net, "d/1");
    let mut subscribers: Vec<Client> = (0..9).map(|at| net.join(&format!("s{at}"))).collect();
    for (at, subscriber) in subscribers.iter_mut().enumerate() {
        // Plain, shared, and with several identifiers: each goes a way of its own.
        subscriber.subscribe(&format!("$share/g{at}/d/1"), 1);
        for filter in ["d/+", "+/1"] {
            let identifier = [codec::Property::SubscriptionIdentifier(7)];
            subscriber.subscribe_with(&[(filter, options(1))], &identifier);
        }
        subscriber.got();
    }
    let (guard, done) = delivered();
    net.handle()
        .publish(vec![message("d/1", "x", 1)], Some(guard));
    let mut have = 0;
    for worker in [router, (router + 1) % 3, (router + 2) % 3] {
        assert!(!done.load(Ordering::Relaxed), "{have} of 18 are delivered");
        net.sim().turn([worker]);
        have += subscribers
            .iter_mut()
            .map(|subscriber| subscriber.got().len())
            .sum::<usize>();
    }
    assert!(done.load(Ordering::Relaxed));
    assert_eq!(have, 18);
}

#[test]
fn delivered_waits_for_a_shared_message_that_moves_on_to_another_member() {
    let net = Net::with(|config| config.workers = 3);
    let router = router_of(&net, "d/1");
    let mut leaving = Vec::new();
    for at in 0..12 {
        let mut member = net.join(&format!("m{at}"));
        if member.home() != router {
            member.subscribe("$share/g/d/1", 1);
            leaving.push(member);
        }
    }
    let mut stays = net.join("stays");
    stays.subscribe("$share/g/d/1", 1);
    let messages = leaving.len() + 1;
    let (guard, done) = delivered();
    net.handle()
        .publish(vec![message("d/1", "x", 1); messages], Some(guard));
    net.sim().turn([router]);
    leaving
        .iter_mut()
        .for_each(|member| net.sim().cut(member.peer()));
    let mut has = 0;
    while has < messages {
        assert!(
            !done.load(Ordering::Relaxed),
            "{has} of {messages} are delivered"
        );
        let moved = net.sim().turn([0, 1, 2]);
        has += stays.got().len();
        assert!(moved, "only {has} of {messages} came");
    }
    net.run();
    assert!(done.load(Ordering::Relaxed));
}

#[test]
fn delivered_comes_when_nobody_listens_too() {
    on_one_and_more_workers(|net| {
        let (guard, done) = delivered();
        net.handle().publish(
            vec![message("nobody/1", "x", 1), message("nobody/2", "x", 0)],
            Some(guard),
        );
        net.run();
        assert!(done.load(Ordering::Relaxed));
        let (guard, done) = delivered();
        net.handle().publish(Vec::new(), Some(guard));
        assert!(done.load(Ordering::Relaxed));
    });
}

#[test]
fn a_client_that_is_away_has_it_in_its_queue() {
    on_one_and_more_workers(|net| {
        let join = net.client("s").persistent();
        let mut client = join.connect();
        client.subscribe("d/1", 1);
        client.cut();
        let (guard, done) = delivered();
        net.handle()
            .publish(vec![message("d/1", "x", 1)], Some(guard));
        net.run();
        assert!(done.load(Ordering::Relaxed));
        assert_eq!(join.connect().got(), ["PUBLISH d/1 x q1 #1"]);
    });
}

#[test]
fn a_retained_one_is_retained_and_an_expired_one_is_not_sent() {
    on_one_and_more_workers(|net| {
        net.advance_s(100);
        let mut subscribed = net.join("a");
        subscribed.subscribe("d/#", 0);
        let parts = |topic, payload, expires_at| {
            let message = MessageParts {
                topic,
                payload,
                qos: qos(0),
                retain: true,
                properties: &[],
                expires_at,
                arrived_at: Time(0),
            };
            Message::new(&message)
        };
        let messages = vec![
            parts("d/late", b"x", Some(Time(99_000))),
            parts("d/soon", b"x", Some(Time(150_000))),
            parts("d/ever", b"x", None),
        ];
        net.handle().publish(messages, None);
        net.run();
        let mut got = subscribed.got();
        got.sort();
        assert_eq!(got, ["PUBLISH d/ever x", "PUBLISH d/soon x {expiry 50}"]);
        net.advance_s(60);
        let mut late = net.join("b");
        late.subscribe("d/#", 0);
        assert_eq!(late.got(), ["PUBLISH d/ever x retain"]);
        assert_eq!(subscribed.got(), NOTHING);
    });
}
