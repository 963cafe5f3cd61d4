//! A turn is bounded by its work: what one client asks for does not keep the others waiting, and nothing is lost or
//! changes its order by being carried over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker::{Delivered, Message, MessageParts, Time};

use crate::support::{Client, Net, Pub, qos};

const SUBSCRIBERS: usize = 300;
const MESSAGES: usize = 2_000;

/// Outboxes with deliveries that are written in one turn.
const WRITES_MAX: usize = 2_048;

fn subscribers(net: &Net) -> Vec<Client> {
    many_subscribers(net, SUBSCRIBERS)
}

fn many_subscribers(net: &Net, subscribers: usize) -> Vec<Client> {
    let subscriber = |n| {
        let mut client = net.join(&format!("s{n}"));
        client.subscribe("t", 0);
        client.got();
        client
    };
    (0..subscribers).map(subscriber).collect()
}

/// The messages that a client has, which must be those from `first` on, in order.
fn received(client: &mut Client, first: usize) -> usize {
    let got = client.got();
    for (n, text) in (first..).zip(&got) {
        assert_eq!(*text, format!("PUBLISH t {n:04}"));
    }
    got.len()
}

fn publishes() -> Vec<u8> {
    let publish = |n: usize| [&[0x30, 8, 0, 1, b't', 0][..], format!("{n:04}").as_bytes()].concat();
    (0..MESSAGES).flat_map(publish).collect()
}

#[test]
fn a_client_that_asks_for_much_work_delays_nobody_and_all_of_it_is_done_in_order() {
    let net = Net::new();
    let mut subscribers = subscribers(&net);
    let (mut publisher, mut other, mut listener) = (net.join("p"), net.join("o"), net.join("l"));
    listener.subscribe("u", 0);
    listener.got();
    publisher.push(&publishes());
    other.push(&[0xc0, 0]);
    net.sim().turn([0]);
    assert_eq!(other.got(), ["PINGRESP"]);
    let done = received(&mut subscribers[0], 0);
    assert!((1..MESSAGES / 2).contains(&done), "{done} in a turn");
    // Who comes now is not served behind all that is left.
    other.push(&[0x30, 5, 0, 1, b'u', 0, b'x']);
    for _ in 0..3 {
        net.sim().turn([0]);
    }
    assert_eq!(listener.got(), ["PUBLISH u x"]);
    assert!(done + received(&mut subscribers[0], done) < MESSAGES);
    net.run();
    for subscriber in &mut subscribers[1..] {
        assert_eq!(received(subscriber, 0), MESSAGES);
    }
}

#[test]
fn what_other_threads_publish_is_bounded_too_and_said_to_be_delivered_once_it_is() {
    let net = Net::new();
    let mut subscribers = subscribers(&net);
    let message = |n: usize| {
        Message::new(&MessageParts {
            topic: "t",
            payload: format!("{n:04}").as_bytes(),
            qos: qos(0),
            retain: false,
            properties: &[],
            expires_at: None,
            arrived_at: Time(0),
        })
    };
    let delivered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&delivered);
    let then = Delivered::then(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    net.handle()
        .publish((0..MESSAGES).map(message).collect(), Some(then));
    net.sim().turn([0]);
    let done = received(&mut subscribers[0], 0);
    assert!((1..MESSAGES / 2).contains(&done), "{done} in a turn");
    assert_eq!(delivered.load(Ordering::Relaxed), 0);
    net.run();
    assert_eq!(delivered.load(Ordering::Relaxed), 1);
    for subscriber in &mut subscribers[1..] {
        assert_eq!(received(subscriber, 0), MESSAGES);
    }
}

#[test]
fn an_inbox_is_bounded_in_bytes_those_that_its_worker_has_taken_included() {
    const INBOX: usize = 1_048_576;
    const PAYLOAD: usize = 60_000;
    const MESSAGES: usize = 200;
    let net = Net::with(|config| {
        config.workers = 2;
        config.limits.inbox_bytes_max = INBOX as u64;
    });
    let at = |worker| {
        let mut ids = (0..).map(|n| format!("c{n}"));
        let id = ids.find(|id| net.sim().home(id) == worker);
        net.join(&id.expect("there are enough names"))
    };
    let (mut publisher, mut subscriber) = (at(0), at(1));
    subscriber.subscribe("t", 0);
    subscriber.got();
    let publish = publisher.encode_publish(&Pub::new("t", vec![b'x'; PAYLOAD]));
    let (mut sent, mut got, mut held_max) = (0, 0, 0);
    for turn in 0..1_500 {
        if net.sim().unread(publisher.peer()) == 0 && sent < MESSAGES {
            publisher.push(&publish);
            sent += 1;
        }
        net.sim().turn([0]);
        let read = sent - usize::from(net.sim().unread(publisher.peer()) > 0);
        let held = (read - got) * PAYLOAD;
        held_max = held_max.max(held);
        assert!(held <= INBOX + PAYLOAD, "{held} bytes wait");
        assert!(net.sim().stats().inbox_bytes as usize >= held);
        // Now and then the other worker takes all that waits, and handles what fits a turn.
        if turn % 20 == 19 {
            net.sim().turn([1]);
            got += net.sim().receive(subscriber.peer()).len() / PAYLOAD;
        }
    }
    assert_eq!(sent, MESSAGES);
    assert!(held_max > INBOX / 2, "the bound was never met");
    net.run();
    assert_eq!((net.stats().inbox_bytes, net.stats().inbox_entries), (0, 0));
}

#[test]
fn a_turn_writes_to_a_bounded_number_of_sockets_and_answers_first() {
    let net = Net::new();
    let mut subscribers = many_subscribers(&net, 3 * WRITES_MAX);
    let (mut publisher, mut other) = (net.join("p"), net.join("o"));
    publisher.push(&[0x30, 5, 0, 1, b't', 0, b'1', 0x30, 5, 0, 1, b't', 0, b'2']);
    let mut waiting: Vec<usize> = (0..subscribers.len()).collect();
    let mut turns = 0;
    while !waiting.is_empty() {
        other.push(&[0xc0, 0]);
        let asks = waiting.last().copied().filter(|_| turns == 1);
        if let Some(asks) = asks {
            // What was delivered to it comes with the answer, before that and not again.
            subscribers[asks].push(&[0xc0, 0]);
        }
        if turns > 0 {
            // What is left of the last turn is done before new work is begun.
            publisher.push(&[0x30, 5, 0, 1, b't', 0, b'3']);
        }
        net.sim().turn([0]);
        assert_eq!(other.got(), ["PINGRESP"], "in turn {turns}");
        let before = waiting.len();
        waiting.retain(|n| {
            let got = subscribers[*n].got();
            let answered = ["PUBLISH t 1", "PUBLISH t 2", "PINGRESP"];
            let expected = &answered[..2 + usize::from(Some(*n) == asks)];
            assert!(got.is_empty() || got == expected, "{got:?} in turn {turns}");
            assert!(!got.is_empty() || Some(*n) != asks, "it is answered");
            got.is_empty()
        });
        let written = before - waiting.len() - asks.iter().count();
        assert!(written <= WRITES_MAX, "{written} in turn {turns}");
        turns += 1;
    }
    assert_eq!(turns, 3);
    net.run();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.got(), ["PUBLISH t 3"; 2]);
    }
}
