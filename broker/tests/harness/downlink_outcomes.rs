//! What `Handle::publish` tells of each message: to how many sessions it came, and how.

use std::sync::{Arc, Mutex};

use broker::{Action, Config, Delivered, Effect, Message, MessageParts, Outcome, Rule, Time};
use codec::Property;

use crate::support::{Net, qos};

const OUTBOX: usize = 4_000;

fn message(topic: &str, level: u8, bytes: usize, expires_at: Option<Time>) -> Message {
    Message::new(&MessageParts {
        topic,
        payload: &vec![b'x'; bytes],
        qos: qos(level),
        retain: false,
        properties: &[],
        expires_at,
        arrived_at: Time(0),
    })
}

fn small(topic: &str, level: u8) -> Message {
    message(topic, level, 1, None)
}

/// Publishes `messages` at once, and returns the outcome of each.
fn outcomes(net: &Net, messages: Vec<Message>) -> Vec<Outcome> {
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let then = Delivered::then(move |outcomes| *tell.lock().unwrap() = Some(outcomes));
    net.handle().publish(messages, Some(then));
    net.run();
    told.lock().unwrap().take().expect("all is delivered")
}

/// Runs a test on one worker, and on three, with small bounds and a rule.
fn with_bounds(test: impl Fn(&Net)) {
    for workers in [1, 3] {
        test(&Net::with(|config: &mut Config| {
            config.workers = workers;
            config.limits.queue_messages_max = 2;
            config.limits.outbox_bytes_max = OUTBOX as u64;
            config.limits.packet_bytes_max = OUTBOX as u32;
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Subscribe,
                filter: "d/secret".to_owned(),
                client: "guest*".to_owned(),
                ..Rule::default()
            }];
        }));
    }
}

#[test]
fn each_message_has_an_outcome_of_its_own_in_their_order() {
    with_bounds(|net| {
        net.advance_s(100);
        // Sessions of several workers for each topic, so that what they count is put together.
        let mut here = Vec::new();
        for at in 0..6 {
            let mut client = net.join(&format!("here{at}"));
            client.subscribe("d/all", (at % 3) as u8);
            here.push(client);
        }
        let mut away = net.client("away").persistent().connect();
        away.subscribe("d/away", 1);
        away.subscribe("d/all", 1);
        away.cut();
        let mut guest = net.join("guest");
        guest.subscribe("+/secret", 1);
        let mut narrow = net
            .client("narrow")
            .with(Property::MaximumPacketSize(100))
            .connect();
        narrow.subscribe("d/large", 1);
        let mut member = net.join("member");
        member.subscribe("$share/g/d/shared", 1);
        let none = Outcome::default();
        let of = |change: fn(&mut Outcome)| {
            let mut outcome = none;
            change(&mut outcome);
            outcome
        };
        let told = outcomes(
            net,
            vec![
                small("d/nobody", 1),
                small("d/all", 2),
                small("d/secret", 1),
                message("d/large", 1, 500, None),
                small("d/shared", 1),
                message("d/all", 1, 1, Some(Time(99_000))),
                small("d/away", 0),
                small("d/away", 1),
                small("d/away", 1),
            ],
        );
        assert_eq!(
            told,
            [
                none,
                of(|o| (o.delivered, o.queued) = (6, 1)),
                of(|o| o.withheld = 1),
                of(|o| o.too_large = 1),
                of(|o| o.delivered = 1),
                of(|o| o.expired = 1),
                of(|o| o.offline = 1),
                of(|o| o.queued = 1),
                of(|o| o.queue_full = 1),
            ]
        );
        assert!(told[0].had_no_session());
        assert!(told[1..].iter().all(|outcome| !outcome.had_no_session()));
        assert_eq!(net.stats().unaccounted(), 0);
    });
}

#[test]
fn who_does_not_read_has_as_much_as_its_outbox_and_then_its_queue_holds() {
    with_bounds(|net| {
        let mut slow = net.join("slow");
        slow.subscribe("d/fast", 0);
        slow.subscribe("d/sure", 1);
        slow.got();
        slow.block(true);
        let large = |topic, level| message(topic, level, OUTBOX / 2, None);
        let fast = outcomes(net, vec![large("d/fast", 0); 20]);
        assert!(fast[0].delivered == 1 && fast[0].outbox_full == 0);
        assert!(fast[19].delivered == 0 && fast[19].outbox_full == 1);
        let sure = outcomes(net, vec![large("d/sure", 1); 3]);
        let counts: Vec<_> = sure
            .iter()
            .map(|outcome| (outcome.delivered, outcome.queued, outcome.queue_full))
            .collect();
        assert_eq!(counts, [(0, 1, 0), (0, 1, 0), (0, 0, 1)]);
    });
}

#[test]
fn a_session_that_ends_on_the_way_is_none() {
    let net = Net::with(|config| config.workers = 3);
    let mut clients: Vec<_> = (0..9).map(|at| net.join(&format!("c{at}"))).collect();
    for client in &mut clients {
        client.subscribe("d/1", 1);
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let then = Delivered::then(move |outcomes| *tell.lock().unwrap() = outcomes);
    let homes: Vec<_> = clients.iter_mut().map(|client| client.home()).collect();
    net.handle().publish(vec![small("d/1", 1)], Some(then));
    // Only the worker that routes takes its turn, and then the clients of the others go.
    let router = (0..3)
        .find(|worker| {
            net.sim().turn([*worker]);
            clients.iter_mut().any(|client| !client.got().is_empty())
        })
        .expect("one routes");
    assert!(told.lock().unwrap().is_empty());
    for client in &clients {
        net.sim().cut(client.peer());
    }
    net.run();
    let routers = homes.iter().filter(|home| **home == router).count() as u32;
    assert!((1..9).contains(&routers), "sessions of several workers");
    let told = told.lock().unwrap();
    let [outcome] = told[..] else {
        panic!("one message: {told:?}")
    };
    assert_eq!(outcome.delivered, routers);
    assert_eq!(outcome.delivered + outcome.session_ended, 9);
}

#[test]
fn what_becomes_of_a_numbered_message_that_waits_is_told_once_for_each_session() {
    with_bounds(|net| {
        let later = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&later);
        assert!(
            net.handle()
                .on_later(move |told| tell.lock().unwrap().extend(told))
        );
        assert!(!net.handle().on_later(|_| ()), "the first one is told");
        let told = || std::mem::take(&mut *later.lock().unwrap());
        let of = |change: fn(&mut Outcome)| {
            let mut outcome = Outcome::default();
            change(&mut outcome);
            outcome
        };
        let delivered = of(|o| o.delivered = 1);
        let here = net.join("here");
        let joins = ["back", "gone"].map(|name| net.client(name).persistent());
        for join in &joins {
            let mut client = join.connect();
            client.subscribe("d/away", 1);
            client.cut();
        }
        let [back, gone] = joins;
        let at_s = |s: u64| Some(Time(s * 1_000));
        let waits = outcomes(
            net,
            vec![
                message("d/away", 1, 1, at_s(1_000)).followed(7),
                message("d/away", 1, 1, at_s(10)).followed(8),
            ],
        );
        assert_eq!(waits, [of(|o| o.queued = 2); 2]);
        assert_eq!(told(), [], "they wait");
        net.advance_s(20);
        let mut back = back.connect();
        assert_eq!(back.got().len(), 1);
        assert_eq!(told(), [(7, delivered), (8, of(|o| o.expired = 1))]);
        // Another client of that name wants nothing of what was before.
        drop(net.client("gone").connect());
        let ended = of(|o| o.session_ended = 1);
        assert_eq!(told(), [(7, ended), (8, ended)]);

        let sent = outcomes(net, vec![small("d/away", 1).followed(9)]);
        assert_eq!((sent, told()), (vec![delivered], vec![]), "it did not wait");
        drop((here, gone));
    });
}

#[test]
fn a_numbered_message_that_waits_for_a_member_is_told_by_the_member_that_gets_it() {
    let net = Net::with(|config| config.workers = 3);
    let later = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&later);
    net.handle()
        .on_later(move |told| tell.lock().unwrap().extend(told));
    let away = net.client("away").persistent();
    let mut client = away.connect();
    client.subscribe("$share/g/d/1", 1);
    client.cut();
    let waits = outcomes(&net, vec![small("d/1", 1).followed(7)]);
    assert_eq!(waits[0].queued, 1);
    let mut other = net.join("other");
    other.subscribe("$share/g/d/1", 1);
    // The first member's session ends: what it had waiting goes to the other one.
    drop(net.client("away").connect());
    net.run();
    assert_eq!(
        other
            .got()
            .iter()
            .filter(|got| got.contains("PUBLISH d/1"))
            .count(),
        1
    );
    let told = later.lock().unwrap();
    let [(7, outcome)] = told[..] else {
        panic!("told once: {told:?}")
    };
    assert_eq!(outcome.delivered, 1);
}
