//! What an operator asks of the workers, and does to clients. Every question is a short task: how many entries it looks at,
//! and that clients are served in between, is pinned here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;

use broker::Time;
use broker::admin::{ClientFacts, ClientFilter, Cursor, Glob, Part, SubscriptionFilter, Then};
use broker::bans::{Ban, Banned};
use broker::limits::ADMIN_ENTRIES_PER_TURN_MAX;
use codec::{ReasonCode, Version};

use crate::support::{NOTHING, Net, on_one_and_more_workers};

/// More answers than any test waits for at a time.
const WAITING: usize = 64;

/// Asks, and lets the workers answer.
fn ask<T: Send + 'static>(net: &Net, question: impl FnOnce(Then<T>)) -> T {
    let (answer, answered) = mpsc::sync_channel(WAITING);
    question(Box::new(move |it| {
        answer.send(it).expect("it is waited for")
    }));
    net.run();
    answered.try_recv().expect("an answer")
}

fn clients(net: &Net, filter: ClientFilter, max: usize) -> Vec<Part<ClientFacts>> {
    let filter = Arc::new(filter);
    let (mut parts, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = next {
        let of = Arc::clone(&filter);
        let part = ask(net, |then| net.handle().clients(of, at, max, then));
        next = part.next;
        parts.push(part);
    }
    parts
}

fn names(parts: &[Part<ClientFacts>]) -> Vec<&str> {
    let all = parts.iter().flat_map(|part| &part.found);
    all.map(|facts| facts.client_id.as_str()).collect()
}

pub fn client(net: &Net, id: &str) -> Option<ClientFacts> {
    ask(net, |then| net.handle().client(id.to_owned(), then))
}

#[test]
fn a_walk_sees_each_session_once_and_no_step_looks_at_more_than_its_bound() {
    const CLIENTS: usize = 2_500;
    on_one_and_more_workers(|net| {
        let mut here: Vec<_> = (0..CLIENTS).map(|n| net.join(&format!("c{n}"))).collect();
        for max in [7, 100_000] {
            let parts = clients(net, ClientFilter::default(), max);
            let seen = names(&parts);
            assert_eq!(seen.len(), CLIENTS);
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), CLIENTS);
            for part in &parts {
                assert!(part.looked_at <= ADMIN_ENTRIES_PER_TURN_MAX && part.found.len() <= max);
            }
            let steps_min = CLIENTS.div_ceil(max.min(ADMIN_ENTRIES_PER_TURN_MAX as usize));
            assert!(parts.len() >= steps_min, "{} steps", parts.len());
        }
        // What finds nothing is as short.
        let nobody = ClientFilter {
            client_id: Some(Glob::new("x*")),
            ..ClientFilter::default()
        };
        let parts = clients(net, nobody, 10);
        assert!(names(&parts).is_empty());
        assert!(
            parts
                .iter()
                .all(|part| part.looked_at <= ADMIN_ENTRIES_PER_TURN_MAX)
        );
        here.clear();
    });
}

#[test]
fn a_worker_answers_one_question_in_a_turn_and_serves_clients_in_between() {
    let net = Net::new();
    let mut other = net.join("o");
    let (answer, answered) = mpsc::sync_channel(WAITING);
    for _ in 0..3 {
        let answer = answer.clone();
        let then = Box::new(move |_: Option<ClientFacts>| answer.send(()).expect("a test"));
        net.handle().client("o".to_owned(), then);
    }
    for turn in 1..=3 {
        other.push(&[0xc0, 0]);
        net.sim().turn([0]);
        assert_eq!(answered.try_iter().count(), 1, "turn {turn}");
        assert_eq!(other.got(), ["PINGRESP"], "turn {turn}");
    }
}

#[test]
fn a_session_is_shown_as_it_is() {
    on_one_and_more_workers(|net| {
        net.advance_s(5);
        let mut reader = net
            .client("r")
            .persistent()
            .keep_alive_s(60)
            .will("gone/r", "x")
            .connect();
        reader.subscribe("t", 1);
        let mut publisher = net.join("p");
        for n in 0..70 {
            publisher.publish("t", 1, format!("{n}"));
        }
        net.advance_s(20);
        let shown = client(net, "r").expect("it is there");
        assert!(shown.connected && !shown.clean_start);
        assert_eq!((shown.version, shown.keep_alive_s), (Version::V5, Some(60)));
        assert_eq!((shown.since_ms, shown.heard_ms), (20_000, Some(20_000)));
        assert_eq!((shown.in_flight, shown.window), (64, 64));
        assert_eq!((shown.queue_messages, shown.subscriptions), (6, 1));
        assert!(shown.queue_bytes > 0);
        assert_eq!((shown.expiry_s, shown.ends_in_ms), (3_600, None));
        assert_eq!(shown.will.as_deref(), Some("gone/r"));
        reader.disconnect();
        net.advance_s(600);
        let away = client(net, "r").expect("its session stays");
        assert!(!away.connected);
        assert_eq!((away.since_ms, away.ends_in_ms), (600_000, Some(3_000_000)));
        assert_eq!((away.heard_ms, away.keep_alive_s), (None, None));
        assert_eq!((away.in_flight, away.queue_messages), (64, 6));
        assert!(client(net, "nobody").is_none());
    });
}

#[test]
fn filters_narrow_the_list() {
    on_one_and_more_workers(|net| {
        let _old = net.client("a-old").version(Version::V31).connect();
        let _new = net.join("a-new");
        net.client("b-away").persistent().connect().disconnect();
        let found = |filter| {
            let parts = clients(net, filter, 10);
            names(&parts)
                .into_iter()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
        };
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let all = ClientFilter::default;
        let by_id = |id: &str| ClientFilter {
            client_id: Some(Glob::new(id)),
            ..all()
        };
        let connected = |is| ClientFilter {
            connected: Some(is),
            ..all()
        };
        let version = ClientFilter {
            version: Some(Version::V31),
            ..all()
        };
        assert_eq!(found(by_id("a-*")), of(&["a-old", "a-new"]));
        assert_eq!(found(by_id("b-away")), of(&["b-away"]));
        assert_eq!(found(by_id("c")), of(&[]));
        assert_eq!(found(connected(true)), of(&["a-old", "a-new"]));
        assert_eq!(found(connected(false)), of(&["b-away"]));
        assert_eq!(found(version), of(&["a-old"]));
    });
}

#[test]
fn an_operator_disconnects_a_client_and_ends_its_session() {
    on_one_and_more_workers(|net| {
        let kick = |end| {
            ask(net, |then| {
                let reason = ReasonCode::ADMINISTRATIVE_ACTION;
                net.handle().disconnect("c".to_owned(), reason, end, then);
            })
        };
        assert_eq!(kick(false), None);
        let mut watcher = net.join("w");
        watcher.subscribe("gone", 0);
        let mut c = net.client("c").persistent().will("gone", "c").connect();
        c.subscribe("t", 1);
        let kicked = kick(false).expect("it is there");
        assert!(kicked.was_connected && !kicked.session_ended);
        assert_eq!(c.got(), ["DISCONNECT 0x98", "closed"]);
        assert_eq!(watcher.got(), ["PUBLISH gone c"]);
        assert!(net.client("c").persistent().connect().session_present);
        // Away now; the session ends all the same.
        kick(false);
        let kicked = kick(true).expect("its session is there");
        assert!(!kicked.was_connected && kicked.session_ended);
        assert!(!net.client("c").persistent().connect().session_present);
        let kicked = kick(true).expect("it is there");
        assert!(kicked.was_connected && kicked.session_ended);
        assert_eq!(net.stats().closed_by_operator, 3);
        assert_eq!(net.stats().sessions, 1);
        assert_eq!(net.stats().subscriptions, 1);
    });
}

#[test]
fn who_is_banned_is_refused_until_the_ban_is_over() {
    let net = Net::new();
    let ban = Ban {
        who: Banned::Client("c".into()),
        since: Time(0),
        until: Time(60_000),
        why: String::new(),
        refused: 0,
    };
    assert!(net.handle().bans().ban(Time(0), ban));
    for (version, refused) in [
        (Version::V5, "CONNACK 0x8a"),
        (Version::V311, "CONNACK 0x87"),
    ] {
        let mut c = net.client("c").version(version).attempt();
        assert_eq!(c.got(), [refused, "closed"]);
    }
    net.join("d");
    assert_eq!(net.stats().clients_refused_banned, 2);
    net.advance_s(60);
    net.join("c");
}

#[test]
fn subscriptions_are_found_by_client_and_filter_however_many_a_session_has() {
    on_one_and_more_workers(|net| {
        let mut many = net.join("many");
        for n in 0..1_500 {
            many.subscribe(&format!("m/{n}"), 1);
        }
        let mut few = net.join("few");
        few.subscribe("a/+", 0);
        few.subscribe("$share/g/a/#", 2);
        let all = |filter: SubscriptionFilter, max| {
            let filter = Arc::new(filter);
            let (mut found, mut next) = (Vec::new(), Some(Cursor::default()));
            while let Some(at) = next {
                let of = Arc::clone(&filter);
                let part = ask(net, |then| net.handle().subscriptions(of, at, max, then));
                assert!(part.looked_at <= ADMIN_ENTRIES_PER_TURN_MAX && part.found.len() <= max);
                found.extend(part.found);
                next = part.next;
            }
            found
        };
        for max in [100, 10_000] {
            let found = all(SubscriptionFilter::default(), max);
            let texts: BTreeSet<_> = found.iter().map(|one| &one.filter).collect();
            assert_eq!((found.len(), texts.len()), (1_502, 1_502));
        }
        let of_few = |filter: &str| SubscriptionFilter {
            client_id: Some(Glob::new("few")),
            filter: Some(Glob::new(filter)),
        };
        let shared = all(of_few("$share/*"), 10);
        assert_eq!(
            (&*shared[0].filter, u8::from(shared[0].qos)),
            ("$share/g/a/#", 2)
        );
        assert_eq!(all(of_few("m/*"), 10), []);
        assert_eq!(all(of_few("*"), 10).len(), 2);
    });
}

#[test]
fn who_would_get_a_message_is_told_and_nobody_gets_one() {
    on_one_and_more_workers(|net| {
        let mut one = net.join("one");
        one.subscribe("a/b", 0);
        one.subscribe("a/+", 1);
        let mut away = net.client("away").persistent().connect();
        away.subscribe("#", 2);
        away.disconnect();
        let mut workers: Vec<_> = (0..3).map(|n| net.join(&format!("w{n}"))).collect();
        for worker in &mut workers {
            worker.subscribe("$share/g/a/#", 1);
        }
        let audience = net.handle().audience("a/b", 2);
        assert_eq!(audience.receivers_total, 3);
        assert_eq!(audience.receivers.len(), 2);
        assert_eq!(
            (&*audience.groups[0].name, audience.groups[0].members_total),
            ("g", 3)
        );
        let audience = net.handle().audience("a/b", 10);
        let mut named = BTreeSet::new();
        for reached in &audience.receivers {
            let (worker, sessions) = (reached.worker(), vec![*reached]);
            let topic = "a/b".to_owned();
            let names = ask(net, |then| {
                net.handle().names(worker, sessions, topic, then)
            });
            let mut filters = names[0].filters.clone();
            filters.sort();
            named.insert((
                names[0].client_id.clone(),
                names[0].connected,
                filters.join(" "),
            ));
        }
        let expected = [("away", false, "#"), ("one", true, "a/+ a/b")];
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|(id, is, by)| ((*id).to_owned(), *is, (*by).to_owned()))
            .collect();
        assert_eq!(named, expected);
        // Asking takes nobody's turn.
        let mut publisher = net.join("p");
        for n in 0..3 {
            assert_eq!(net.handle().audience("a/b", 10).receivers.len(), 3);
            publisher.publish("a/b", 0, format!("{n}"));
        }
        for worker in &mut workers {
            assert_eq!(worker.got().len(), 1);
        }
        assert!(net.handle().audience("nobody", 10).receivers.len() == 1);
        away.got();
        assert_eq!(one.got().len(), 3);
        assert_eq!(one.got(), NOTHING);
    });
}

/// A measurement, not a test: how long a worker is busy with one step of a walk over a million sessions. A turn of the
/// simulation is what a worker does in one go.
#[test]
#[ignore = "a measurement of minutes: cargo test --release -p broker --test harness -- --ignored --nocapture a_million"]
fn a_step_over_a_million_sessions_is_short() {
    const SESSIONS: usize = 1_000_000;
    let net = Net::new();
    for n in 0..SESSIONS {
        let client = net.client(&format!("client-{n:07}")).persistent();
        let mut client = client.connect();
        client.cut();
    }
    let filter = Arc::new(ClientFilter {
        client_id: Some(Glob::new("*-9999999*")),
        ..ClientFilter::default()
    });
    let (mut next, mut took) = (Some(Cursor::default()), Vec::new());
    while let Some(at) = next {
        let (answer, answered) = mpsc::sync_channel(1);
        let then = Box::new(move |part: Part<ClientFacts>| {
            answer.send(part.next).expect("it is waited for");
        });
        net.handle().clients(Arc::clone(&filter), at, 100, then);
        let began = std::time::Instant::now();
        net.sim().turn([0]);
        took.push(began.elapsed());
        next = answered.try_recv().expect("one turn answers it");
    }
    took.sort();
    let (steps, longest) = (took.len(), took[took.len() - 1]);
    let all: std::time::Duration = took.iter().sum();
    println!(
        "{steps} steps over {SESSIONS} sessions: {all:.1?} in all, median {:.1?}, longest {longest:.1?}",
        took[steps / 2]
    );
}
