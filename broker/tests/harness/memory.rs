//! The node's memory against its bound: what is refused, dropped and cut as it comes closer, and that who is there is served.

use broker::Pressure;
use codec::Version;

use crate::support::{Client, NOTHING, Net, Pub, on_one_and_more_workers, options};

const MAX: u64 = 1_000_000_000;

/// A node that is told what is resident.
fn node(workers: usize) -> Net {
    Net::with(|config| {
        config.workers = workers;
        config.limits.memory_bytes_max = MAX;
    })
}

/// So much of its bound is used.
fn use_percent(net: &Net, percent: u64) {
    net.handle().resident(MAX / 100 * percent);
    net.run();
    // The workers tell each other first how large their queues are.
    net.advance_ms(100);
}

fn is_served(client: &mut Client) {
    client.ping();
    assert_eq!(client.got(), ["PINGRESP"]);
}

#[test]
fn from_80_percent_on_new_clients_are_refused_and_those_who_come_back_are_not() {
    for workers in [1, 3] {
        let net = node(workers);
        let mut there = net.join("there");
        let away = net.client("away").persistent();
        let mut client = away.connect();
        client.subscribe("t", 1);
        client.cut();
        there.publish("t", 1, "x");
        there.got();
        use_percent(&net, 79);
        net.join("before").disconnect();
        use_percent(&net, 80);
        assert_eq!(
            net.client("new").attempt().got(),
            ["CONNACK 0x97", "closed"]
        );
        let old = net.client("old").version(Version::V311);
        // Return code 3.
        assert_eq!(old.attempt().got(), ["CONNACK 0x88", "closed"]);
        assert_eq!(net.stats().clients_refused_memory, 2);
        assert_eq!(net.stats().closed_connect_refused, 2);
        // Who comes back takes away what waits.
        let mut client = away.connect();
        assert!(client.session_present);
        assert_eq!(client.got(), ["PUBLISH t x q1 #1"]);
        is_served(&mut there);
        let memory = net.handle().memory();
        assert_eq!(memory.pressure, Pressure::NewClients);
        use_percent(&net, 70);
        net.join("new");
        assert_eq!(net.handle().memory().pressure, Pressure::None);
    }
}

#[test]
fn from_90_percent_on_qos_0_is_dropped_for_clients_that_do_not_keep_up() {
    for workers in [1, 3] {
        let net = node(workers);
        let (mut slow, mut quick) = (net.join("slow"), net.join("quick"));
        for client in [&mut slow, &mut quick] {
            client.subscribe("t", 0);
            client.got();
        }
        let mut publisher = net.join("p");
        slow.block(true);
        publisher.publish("t", 0, "1");
        publisher.publish("t", 0, "2");
        assert_eq!(net.stats().dropped_memory, 0);
        use_percent(&net, 90);
        publisher.publish("t", 0, "3");
        let stats = net.stats();
        assert_eq!((stats.dropped_memory, stats.unaccounted()), (1, 0));
        use_percent(&net, 80);
        publisher.publish("t", 0, "4");
        let all = ["1", "2", "3", "4"].map(|payload| format!("PUBLISH t {payload}"));
        assert_eq!(quick.got(), all);
        slow.block(false);
        assert_eq!(slow.got(), [&*all[0], &*all[1], &*all[3]]);
        assert_eq!(net.stats().memory_outboxes, 0);
    }
}

#[test]
fn at_100_percent_the_largest_queues_are_cut_and_the_oldest_of_each_stay() {
    for workers in [1, 3] {
        let net = node(workers);
        let away = |n: usize| net.client(&format!("c{n}")).persistent();
        // Queues of 1, 2, 4, … messages.
        for n in 0..8 {
            let mut client = away(n).connect();
            client.subscribe(&format!("t/{n}"), 1);
            client.cut();
        }
        let mut publisher = net.join("p");
        for n in 0..8 {
            for number in 0..1 << n {
                let payload = format!("{number:03}{}", "x".repeat(1_000));
                publisher.publish(&format!("t/{n}"), 1, payload);
            }
        }
        publisher.got();
        let before = net.stats();
        assert_eq!(before.queued, 255);
        use_percent(&net, 99);
        assert_eq!(net.stats().queued, 255);
        use_percent(&net, 100);
        let after = net.stats();
        assert!(after.dropped_memory > 0, "{after:?}");
        assert_eq!(after.queued + after.dropped_memory, 255);
        assert_eq!(after.unaccounted(), 0);
        assert!(after.memory_queues < before.memory_queues);
        // What is over is much more than all queues hold, so all of them go; who is there is served.
        is_served(&mut publisher);
        publisher.publish("t/0", 1, "more");
        assert_eq!(publisher.got().len(), 1);
        assert_eq!(net.stats().dropped_memory, after.dropped_memory + 1);
        assert_eq!(net.stats().dropped_queue_full, 0);
        use_percent(&net, 50);
        publisher.publish("t/0", 1, "again");
        assert_eq!(away(0).connect().got(), ["PUBLISH t/0 again q1 #1"]);
    }
}

#[test]
fn what_is_counted_decides_where_nobody_tells_and_only_the_largest_queues_are_cut() {
    const BOUND: u64 = 2_000_000;
    for workers in [1, 3] {
        let net = Net::with(|config| {
            config.workers = workers;
            config.limits.memory_bytes_max = BOUND;
        });
        let mut publisher = net.join("p");
        let away = |id: &str| {
            let join = net.client(id).persistent();
            let mut client = join.connect();
            client.subscribe(&format!("{id}/#"), 1);
            client.cut();
            join
        };
        let small: Vec<_> = (0..10).map(|n| away(&format!("small/{n}"))).collect();
        let large = away("large");
        for n in 0..10 {
            publisher.publish(&format!("small/{n}"), 1, "kept");
        }
        for number in 0..10_000 {
            publisher.publish(&format!("large/{number:04}"), 1, "x".repeat(1_000));
            if number % 50 == 0 {
                net.advance_ms(100);
                assert_eq!(publisher.got().len(), if number == 0 { 11 } else { 50 });
            }
        }
        let stats = net.stats();
        assert!(stats.dropped_memory > 7_000, "{stats:?}");
        assert!(stats.budget_used_bytes <= BOUND * 11 / 10, "{stats:?}");
        assert_eq!(stats.unaccounted(), 0);
        for (n, join) in small.iter().enumerate() {
            assert_eq!(
                join.connect().got(),
                [format!("PUBLISH small/{n} kept q1 #1")]
            );
        }
        // The oldest of the large one, in order.
        let got = large.connect().got();
        assert!(got.len() >= 60, "{}", got.len());
        let numbers: Vec<_> = got.iter().map(|text| &text[14..18]).collect();
        assert_eq!(numbers[..2], ["0000", "0001"]);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn at_100_percent_nothing_more_is_retained_or_subscribed_to() {
    for workers in [1, 3] {
        let net = node(workers);
        let mut client = net.join("c");
        client.publish_with(&Pub::new("r/old", "value").qos(1, 1).retain());
        client.got();
        client.subscribe("old", 0);
        client.got();
        use_percent(&net, 100);
        let mut retain = |topic: &str, payload: &str| {
            client.publish_with(&Pub::new(topic, payload).qos(1, 1).retain());
            client.got()
        };
        assert_eq!(retain("r/new", "value"), ["PUBACK #1 0x97"]);
        assert_eq!(retain("r/old", "a larger value"), ["PUBACK #1 0x97"]);
        let taken = ["PUBACK #1"];
        assert!(retain("r/old", "other")[0].starts_with(taken[0]));
        assert_eq!(net.stats().retained_refused, 2);
        // Without an answer it is delivered and not retained.
        client.publish_with(&Pub::new("r/new", "value").retain());
        assert_eq!(net.stats().retained_refused, 3);
        client.subscribe_with(&[("new", options(0)), ("old", options(0))], &[]);
        assert_eq!(client.got(), ["SUBACK #1 [0x97, 0x00]"]);
        client.publish("old", 0, "x");
        assert_eq!(client.got(), ["PUBLISH old x"]);
        use_percent(&net, 10);
        client.subscribe("r/+", 0);
        assert_eq!(client.got(), ["PUBLISH r/old other retain"]);
    }
}

#[test]
fn what_parts_hold_is_counted_and_let_go_of() {
    on_one_and_more_workers(|net| {
        let join = net.client("a").persistent();
        let mut client = join.connect();
        client.subscribe("t", 2);
        client.got();
        let mut publisher = net.join("p");
        for (level, answers) in [(1, 0), (1, 1), (2, 2), (2, 3)] {
            publisher.publish("t", level, "x".repeat(1_000));
            assert!(net.stats().memory_queues > 1_000 * (answers + 1));
        }
        client.got();
        client.puback(1);
        client.pubrec(3);
        assert!((2_000..3_000).contains(&net.stats().memory_queues));
        client.cut();
        publisher.publish("t", 1, "y");
        let mut client = join.connect();
        client.got();
        client.puback(2);
        client.pubrec(4);
        client.pubcomp(3);
        client.pubcomp(4);
        client.puback(5);
        assert_eq!((net.stats().inflight, net.stats().memory_queues), (0, 0));
        publisher.publish("t", 1, "z");
        client.got();
        drop(net.client("a").connect());
        assert_eq!((net.stats().inflight, net.stats().memory_queues), (0, 0));
        assert_eq!(client.got(), ["DISCONNECT 0x8e", "closed"]);
        client.block(true);
        assert_eq!(client.got(), NOTHING);
    });
}
