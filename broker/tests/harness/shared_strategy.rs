//! Which member of a shared subscription gets a message, by the configured strategy.

use std::collections::{BTreeMap, BTreeSet};

use broker::ShareStrategy;

use crate::support::{Client, Net, PENDING_DELIVER_AFTER, Pub, Store};

const FILTER: &str = "$share/g/t/#";

fn net(strategy: ShareStrategy, workers: usize) -> Net {
    Net::with(|config| {
        config.workers = workers;
        config.shared_subscription_strategy = strategy;
    })
}

fn members(net: &Net, count: usize) -> Vec<Client> {
    let mut members: Vec<Client> = (0..count).map(|at| net.join(&format!("m{at}"))).collect();
    for member in &mut members {
        member.subscribe(FILTER, 1);
    }
    members
}

/// Which member got each payload; each member acknowledges.
fn owners(members: &mut [Client]) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for (at, member) in members.iter_mut().enumerate() {
        for payload in member.work_off() {
            assert!(
                owners.insert(payload.clone(), at).is_none(),
                "{payload} twice"
            );
        }
    }
    owners
}

/// Who got the messages of each source, whose payloads are `SOURCE.NUMBER`: one member each, and not the same for all.
fn by_source(owners: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let mut by_source = BTreeMap::new();
    for (payload, owner) in owners {
        let (source, _) = payload.split_once('.').expect("SOURCE.NUMBER");
        let first = by_source.entry(source.to_owned()).or_insert(*owner);
        assert_eq!(first, owner, "{source} has one member");
    }
    let used: BTreeSet<usize> = by_source.values().copied().collect();
    assert!(used.len() > 1, "{used:?}");
    by_source
}

#[test]
fn sticky_by_topic_gives_a_topic_to_one_member_in_order() {
    for workers in [1, 3] {
        let net = net(ShareStrategy::StickyTopic, workers);
        let mut members = members(&net, 4);
        let mut publishers = [net.join("p"), net.join("q")];
        let publish = |publishers: &mut [Client], round: u32| {
            for topic in 0..20 {
                let publisher = &mut publishers[round as usize % 2];
                publisher.publish(&format!("t/{topic}"), 1, format!("{topic}.{round}"));
            }
        };
        (0..4).for_each(|round| publish(&mut publishers, round));
        let before = by_source(&owners(&mut members));
        assert_eq!(before.len(), 20);
        // Who leaves leaves only its own topics to the others.
        members[3].cut();
        members.truncate(3);
        (4..8).for_each(|round| publish(&mut publishers, round));
        let after = by_source(&owners(&mut members));
        assert_eq!(after.len(), 20);
        for (topic, owner) in after {
            assert!(before[&topic] == 3 || before[&topic] == owner, "{topic}");
        }
    }
}

#[test]
fn sticky_by_client_gives_a_publisher_to_one_member() {
    for workers in [1, 3] {
        let net = net(ShareStrategy::StickyClient, workers);
        let mut members = members(&net, 4);
        for client in 0..20 {
            let mut publisher = net.join(&format!("p{client}"));
            for number in 0..5 {
                publisher.publish(&format!("t/{number}"), 1, format!("{client}.{number}"));
            }
        }
        let owners = owners(&mut members);
        assert_eq!(owners.len(), 100);
        by_source(&owners);
    }
}

#[test]
fn sticky_by_client_holds_for_what_is_delivered_after_the_client_has_left() {
    for workers in [1, 3] {
        let store = Store::answering(PENDING_DELIVER_AFTER);
        let net = Net::with_sink(store.clone(), |config| {
            config.workers = workers;
            config.shared_subscription_strategy = ShareStrategy::StickyClient;
        });
        let mut members = members(&net, 4);
        for client in 0..10 {
            let mut publisher = net.join(&format!("p{client}"));
            for number in 0..3 {
                publisher.publish(&format!("t/{number}"), 1, format!("{client}.{number}"));
            }
            store.stored(&net, [client * 3]);
            publisher.disconnect();
            store.stored(&net, [client * 3 + 1, client * 3 + 2]);
        }
        let owners = owners(&mut members);
        assert_eq!(owners.len(), 30);
        by_source(&owners);
    }
}

#[test]
fn what_a_sticky_member_leaves_behind_goes_where_the_rest_goes() {
    for strategy in [ShareStrategy::StickyTopic, ShareStrategy::StickyClient] {
        for workers in [1, 3] {
            let net = net(strategy, workers);
            let mut members = members(&net, 4);
            let mut publishers: Vec<Client> =
                (0..20).map(|at| net.join(&format!("p{at}"))).collect();
            let mut publish = |numbers: std::ops::Range<u32>| {
                for (source, publisher) in publishers.iter_mut().enumerate() {
                    for number in numbers.clone() {
                        publisher.publish(&format!("t/{source}"), 1, format!("{source}.{number}"));
                    }
                }
            };
            publish(0..3);
            // All is in flight: one dies with its share, and its sources go on.
            members[0].cut();
            members.remove(0);
            publish(3..6);
            let mut sources: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
            for (at, member) in members.iter_mut().enumerate() {
                for payload in member.work_off() {
                    let (source, number) = payload.split_once('.').expect("SOURCE.NUMBER");
                    let (owner, numbers) =
                        sources.entry(source.to_owned()).or_insert((at, Vec::new()));
                    assert_eq!(*owner, at, "{source} has one member");
                    numbers.push(number.to_owned());
                }
            }
            assert_eq!(sources.len(), 20);
            for (source, (_, numbers)) in sources {
                assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"], "{source}");
            }
        }
    }
}

#[test]
fn what_is_published_in_the_turn_of_a_members_death_does_not_overtake_what_it_had() {
    let net = net(ShareStrategy::StickyTopic, 1);
    let mut members = members(&net, 4);
    let mut publisher = net.join("p");
    let mut publish = |numbers: std::ops::Range<u16>| {
        for (topic, number) in (0..20).flat_map(|topic| numbers.clone().map(move |n| (topic, n))) {
            let publish = Pub::new(&format!("t/{topic}"), format!("{topic}.{number}"));
            let bytes = publisher.encode_publish(&publish.qos(1, topic * 10 + number + 1));
            publisher.push(&bytes);
        }
    };
    publish(0..3);
    net.run();
    net.sim().cut(members[0].peer());
    publish(3..6);
    net.run();
    for member in &mut members[1..] {
        let mut next = BTreeMap::new();
        for payload in member.work_off() {
            let (topic, number) = payload.split_once('.').expect("TOPIC.NUMBER");
            let next = next.entry(topic.to_owned()).or_insert(0);
            assert_eq!(number.parse(), Ok(*next), "of topic {topic}");
            *next += 1;
        }
        assert!(next.values().all(|next| *next == 6), "{next:?}");
    }
}

#[test]
fn least_in_flight_spares_a_member_that_is_slow() {
    for workers in [1, 3] {
        let net = net(ShareStrategy::LeastInFlight, workers);
        let mut members = members(&net, 3);
        let mut publisher = net.join("p");
        let mut got = [0; 3];
        for number in 0..300 {
            publisher.publish("t/1", 1, number.to_string());
            for at in [1, 2] {
                got[at] += members[at].work_off().len();
            }
        }
        got[0] = members[0].got().len();
        assert_eq!(got[0], 1, "it has one to acknowledge, the others none");
        assert!(got[1] > 100 && got[2] > 100, "{got:?}");
    }
}
