//! Shared subscriptions: each message to one member, in turn, and to another when that one leaves with it.

use codec::{Property, Version};

use crate::support::{Client, NOTHING, Net, Pub, everywhere, on_one_and_more_workers};

const FILTER: &str = "$share/g/t/#";

fn members(net: &Net, count: usize, level: u8) -> Vec<Client> {
    let mut members: Vec<Client> = (0..count)
        .map(|at| net.client(&format!("m{at}")).persistent().connect())
        .collect();
    for member in &mut members {
        member.subscribe(FILTER, level);
    }
    members
}

fn publish(net: &Net, level: u8, count: usize) {
    let mut publisher = net.join("p");
    for at in 0..count {
        publisher.publish(&format!("t/{at}"), level, "x");
    }
}

#[test]
fn members_take_turns() {
    everywhere(|net, version| {
        let mut members: Vec<Client> = (0..3)
            .map(|at| net.client(&format!("m{at}")).version(version).connect())
            .collect();
        for member in &mut members {
            member.subscribe(FILTER, 1);
        }
        publish(net, 1, 30);
        for member in &mut members {
            assert_eq!(member.got().len(), 10);
        }
    });
}

#[test]
fn groups_and_plain_subscriptions_do_not_share_with_each_other() {
    on_one_and_more_workers(|net| {
        let filters = ["$share/g/t", "$share/h/t", "$share/g/+", "t"];
        let mut clients: Vec<Client> = (0..4).map(|at| net.join(&format!("c{at}"))).collect();
        for (client, filter) in clients.iter_mut().zip(filters) {
            client.subscribe(filter, 0);
        }
        net.join("p").publish("t", 0, "x");
        for client in &mut clients {
            assert_eq!(client.got(), ["PUBLISH t x"]);
        }
        let mut both = net.join("both");
        both.subscribe("$share/i/t", 0);
        both.subscribe("t", 0);
        net.join("p").publish("t", 0, "y");
        assert_eq!(both.got(), ["PUBLISH t y", "PUBLISH t y"]);
    });
}

#[test]
fn a_member_that_is_away_gets_nothing_while_another_is_there() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 3, 1);
        members[1].cut();
        publish(net, 1, 10);
        assert_eq!(members[0].got().len(), 5);
        assert_eq!(members[2].got().len(), 5);
        assert_eq!(net.client("m1").persistent().connect().got(), NOTHING);
    });
}

#[test]
fn while_no_member_is_there_messages_wait_and_are_not_lost() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 2, 1);
        members[0].cut();
        members[1].cut();
        publish(net, 1, 10);
        assert_eq!(net.stats().queued, 10);
        let got: usize = (0..2)
            .map(|at| {
                net.client(&format!("m{at}"))
                    .persistent()
                    .connect()
                    .got()
                    .len()
            })
            .sum();
        assert_eq!(got, 10);
    });
}

#[test]
fn unacknowledged_messages_of_a_member_that_leaves_go_to_another() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 2, 1);
        publish(net, 1, 4);
        members[0].puback(1);
        assert_eq!((members[0].got().len(), members[1].got().len()), (2, 2));
        members[0].cut();
        let got = members[1].got();
        assert_eq!(got.len(), 1);
        assert!(got[0].ends_with("q1 #3"), "{got:?}");
        for id in 1..=3 {
            members[1].puback(id);
        }
        let stats = net.stats();
        assert_eq!(
            (stats.delivered_acknowledged, stats.delivered_elsewhere),
            (4, 1)
        );
        assert_eq!(
            (stats.inflight, stats.queued, stats.unaccounted()),
            (0, 0, 0)
        );
        // Back again, it does not get what others have.
        assert_eq!(net.client("m0").persistent().connect().got(), NOTHING);
    });
}

#[test]
fn a_session_that_ends_gives_its_shared_messages_to_members_that_are_away_too() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 1, 1);
        members[0].cut();
        let mut clean = net.join("clean");
        clean.subscribe(FILTER, 1);
        publish(net, 1, 5);
        assert_eq!(clean.got().len(), 5);
        clean.disconnect();
        assert_eq!(net.client("m0").persistent().connect().got().len(), 5);
        assert_eq!(net.stats().unaccounted(), 0);
    });
}

#[test]
fn qos_2_in_flight_stays_with_its_member_so_that_it_is_not_doubled() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 2, 2);
        publish(net, 2, 2);
        assert_eq!((members[0].got().len(), members[1].got().len()), (1, 1));
        members[0].cut();
        assert_eq!(members[1].got(), NOTHING);
        let got = net.client("m0").persistent().connect().got();
        assert!(got.len() == 1 && got[0].ends_with("q2 #1 dup"), "{got:?}");
    });
}

#[test]
fn qos_2_that_waits_behind_the_window_goes_to_another_member() {
    for workers in [1, 3] {
        let net = Net::with(|config| {
            config.workers = workers;
            config.limits.inflight_messages_max = 1;
        });
        let mut members = members(&net, 2, 2);
        publish(&net, 2, 4);
        members[0].cut();
        members[1].got();
        let mut got = 1;
        for id in 1..=3 {
            members[1].pubrec(id);
            members[1].pubcomp(id);
            got += members[1]
                .got()
                .iter()
                .filter(|text| text.starts_with("PUBLISH"))
                .count();
        }
        // Its own two, and the one that waited for the member that left.
        assert_eq!(got, 3);
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn a_message_on_its_way_to_a_member_that_has_just_left_goes_to_another() {
    // The message is picked for a member at the publisher's worker, and arrives at the member's worker after the
    // member has left.
    for (persistent, level) in [
        (true, 0),
        (true, 1),
        (true, 2),
        (false, 0),
        (false, 1),
        (false, 2),
    ] {
        let net = Net::with(|config| config.workers = 3);
        let mut publisher = net.join("p");
        let of_publisher = publisher.home();
        let mut leaving = Vec::new();
        for at in 0..12 {
            let join = net.client(&format!("m{at}"));
            let mut member = if persistent {
                join.persistent().connect()
            } else {
                join.connect()
            };
            if member.home() != of_publisher {
                member.subscribe(FILTER, level);
                leaving.push(member);
            }
        }
        let mut stays = net.join("stays");
        stays.subscribe(FILTER, level);
        let messages = leaving.len() + 1;
        let bytes: Vec<u8> = (1..)
            .take(messages)
            .flat_map(|id| {
                let publish = Pub::new("t/x", "x");
                let publish = if level > 0 {
                    publish.qos(level, id)
                } else {
                    publish
                };
                publisher.encode_publish(&publish)
            })
            .collect();
        publisher.push(&bytes);
        net.sim().turn([of_publisher]);
        leaving
            .iter_mut()
            .for_each(|member| net.sim().cut(member.peer()));
        net.run();
        assert_eq!(
            stays.got().len(),
            messages,
            "persistent: {persistent}, QoS {level}"
        );
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn the_last_member_leaving_ends_the_group() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 2, 1);
        members[0].unsubscribe(&[FILTER]);
        publish(net, 1, 2);
        assert_eq!(members[0].got(), ["UNSUBACK #1 [0x00]"]);
        assert_eq!(members[1].got().len(), 2);
        members[1].unsubscribe(&[FILTER]);
        let stats = net.stats();
        assert_eq!(stats.subscriptions, 0);
        publish(net, 1, 1);
        assert_eq!(
            net.stats().publishes_unmatched,
            stats.publishes_unmatched + 1
        );
    });
}

#[test]
fn a_member_of_an_older_version_shares_too() {
    let net = Net::new();
    let mut old = net.client("old").version(Version::V311).connect();
    let mut new = net.join("new");
    old.subscribe(FILTER, 1);
    new.subscribe(FILTER, 1);
    publish(&net, 1, 2);
    assert_eq!((old.got().len(), new.got().len()), (1, 1));
}

#[test]
fn what_expired_with_a_member_is_not_given_to_another() {
    on_one_and_more_workers(|net| {
        let mut members = members(net, 2, 1);
        let mut publisher = net.join("p");
        for seconds in [10, 10, 60, 60] {
            let publish = Pub::new("t/1", "x").with(Property::MessageExpiryInterval(seconds));
            publisher.publish_with(&publish.qos(1, 1));
        }
        assert_eq!((members[0].got().len(), members[1].got().len()), (2, 2));
        net.advance_s(20);
        members[0].cut();
        assert_eq!(members[1].got(), ["PUBLISH t/1 x q1 #3 {expiry 40}"]);
        let stats = net.stats();
        assert_eq!((stats.dropped_expired, stats.unaccounted()), (1, 0));
    });
}
