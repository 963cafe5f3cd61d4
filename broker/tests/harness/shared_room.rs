//! Shared subscriptions whose members are full, away or gone: messages go to whoever has room, and nothing is dropped
//! while somebody has.

use std::collections::BTreeSet;

use crate::support::{Client, NOTHING, Net};

const FILTER: &str = "$share/g/t/#";

fn net(workers: usize, inflight: u16, queue: u32) -> Net {
    Net::with(|config| {
        config.workers = workers;
        config.limits.inflight_messages_max = inflight;
        config.limits.queue_messages_max = queue;
    })
}

fn members(net: &Net, count: usize) -> Vec<Client> {
    let mut members: Vec<Client> = (0..count)
        .map(|at| net.client(&format!("m{at}")).persistent().connect())
        .collect();
    for member in &mut members {
        member.subscribe(FILTER, 1);
    }
    members
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Sorted by number.
fn sorted(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().collect();
    texts.sort_by_key(|text| text.parse::<u32>().expect("payloads are numbers"));
    texts
}

#[test]
fn a_member_that_never_acknowledges_loses_nothing_of_the_others() {
    for workers in [1, 3] {
        let net = net(workers, 8, 10);
        let mut members = members(&net, 4);
        let mut publisher = net.join("p");
        let mut got = Vec::new();
        for number in numbers(0..1_000) {
            publisher.publish("t/1", 1, number);
            for member in &mut members[1..] {
                got.extend(member.work_off());
            }
        }
        assert_eq!(publisher.got().len(), 1_000, "all are acknowledged");
        let stats = net.stats();
        assert_eq!((stats.dropped_queue_full, stats.unaccounted()), (0, 0));
        assert_eq!(
            (stats.inflight, stats.queued),
            (8, 10),
            "it keeps its share"
        );
        assert_eq!(got.len(), 1_000 - 18);
        // When it goes the others have that, too, in its order.
        members[0].cut();
        let rest: Vec<Vec<String>> = members[1..].iter_mut().map(Client::work_off).collect();
        for of_member in &rest {
            assert_eq!(*of_member, sorted(of_member.clone()));
        }
        got.extend(rest.into_iter().flatten());
        assert_eq!(sorted(got), numbers(0..1_000));
        assert_eq!(net.stats().deliveries_dropped(), 0);
    }
}

#[test]
fn a_burst_of_one_turn_leaves_a_full_member_aside_too() {
    for workers in [1, 3] {
        let net = net(workers, 1, 10);
        let mut members = members(&net, 4);
        // One of them has something else to do.
        members[0].subscribe("own", 1);
        let mut publisher = net.join("p");
        for _ in 0..11 {
            publisher.publish("own", 1, "x");
        }
        publisher.got();
        let bytes: Vec<u8> = (0..33)
            .flat_map(|number| {
                let publish = crate::support::Pub::new("t/1", number.to_string());
                publisher.encode_publish(&publish.qos(1, number + 1))
            })
            .collect();
        publisher.write(&bytes);
        let stats = net.stats();
        assert_eq!((stats.inflight, stats.queued), (4, 40));
        assert_eq!(stats.deliveries_dropped(), 0);
        // Nobody has room: what is one too many is dropped and counted.
        publisher.publish("t/1", 1, "x");
        assert_eq!(net.stats().dropped_queue_full, 1);
        // With room for one there is room for one.
        members[2].puback(1);
        publisher.publish("t/1", 1, "33");
        publisher.publish("t/1", 1, "x");
        assert_eq!(net.stats().dropped_queue_full, 2);
        let got = members[1..].iter_mut().flat_map(Client::work_off);
        assert_eq!(sorted(got.collect::<Vec<_>>()), numbers(0..34));
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn while_all_are_away_the_backlog_lies_where_there_is_room() {
    for workers in [1, 3] {
        let net = net(workers, 64, 10);
        let mut members = members(&net, 4);
        members[0].subscribe("own", 1);
        members.iter_mut().for_each(Client::cut);
        let mut publisher = net.join("p");
        for _ in 0..10 {
            publisher.publish("own", 1, "x");
        }
        for number in numbers(0..30) {
            publisher.publish("t/1", 1, number);
        }
        let stats = net.stats();
        assert_eq!((stats.queued, stats.deliveries_dropped()), (40, 0));
        publisher.publish("t/1", 1, "x");
        assert_eq!(net.stats().dropped_queue_full, 1);
        // Each comes back to what lay with it, and leaves again.
        let mut all = Vec::new();
        for at in 1..4 {
            let mut member = net.client(&format!("m{at}")).persistent().connect();
            let got = member.work_off();
            assert_eq!(got.len(), 10);
            assert_eq!(got, sorted(got.clone()));
            all.extend(got);
            member.cut();
        }
        assert_eq!(sorted(all), numbers(0..30));
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn members_that_leave_one_by_one_do_not_pile_it_all_on_the_last() {
    for workers in [1, 3] {
        let net = net(workers, 5, 10);
        let mut members = members(&net, 4);
        let mut publisher = net.join("p");
        for number in numbers(0..60) {
            publisher.publish("t/1", 1, number);
        }
        members.iter_mut().for_each(Client::cut);
        let stats = net.stats();
        assert_eq!(stats.inflight + stats.queued, 60);
        assert_eq!(stats.deliveries_dropped(), 0);
        let mut all = BTreeSet::new();
        for at in 0..4 {
            let mut member = net.client(&format!("m{at}")).persistent().connect();
            all.extend(member.work_off());
        }
        assert_eq!(sorted(all), numbers(0..60));
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn a_member_that_dies_hands_its_messages_over_in_order_and_once() {
    for (workers, ends) in [(1, false), (1, true), (3, false), (3, true)] {
        let net = net(workers, 4, 100);
        let mut dying = if ends {
            net.join("dying")
        } else {
            net.client("dying").persistent().connect()
        };
        dying.subscribe(FILTER, 1);
        let mut other = net.join("other");
        other.subscribe(FILTER, 1);
        let mut publisher = net.join("p");
        let mut got = Vec::new();
        for number in numbers(0..40) {
            publisher.publish("t/1", 1, number);
            got.extend(other.work_off());
        }
        assert_eq!(dying.got().len(), 4, "in flight; 16 wait behind them");
        dying.puback(2);
        assert_eq!(dying.got().len(), 1);
        dying.cut();
        let handed_over = other.work_off();
        assert_eq!(handed_over.len(), 19);
        assert_eq!(handed_over, sorted(handed_over.clone()));
        got.extend(handed_over);
        got = sorted(got);
        let double = got.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!((got.len(), double), (39, None));
        if !ends {
            let mut back = net.client("dying").persistent().connect();
            assert_eq!(back.got(), NOTHING);
        }
        let stats = net.stats();
        assert_eq!((stats.delivered_elsewhere, stats.unaccounted()), (19, 0));
    }
}

#[test]
fn qos_0_goes_to_whoever_is_connected_full_or_not() {
    let net = net(1, 1, 1);
    let mut members = members(&net, 2);
    let mut publisher = net.join("p");
    for number in numbers(0..4) {
        publisher.publish("t/1", 1, number);
    }
    members[1].cut();
    assert_eq!(members[0].got().len(), 1);
    for _ in 0..3 {
        publisher.publish("t/1", 0, "now");
    }
    assert_eq!(members[0].got(), ["PUBLISH t/1 now"; 3]);
    assert_eq!(net.stats().deliveries_dropped(), 0);
}
