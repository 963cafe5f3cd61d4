//! Another configuration while the workers run: it holds for what comes, and what is there is judged again.

use broker::{Config, Denied};
use codec::Version;

use crate::support::{NOTHING, Net, on_one_and_more_workers, options};

fn rules(config: &mut Config, rules: &str) {
    let text = format!("{{\"rules\":[{rules}]}}");
    config.access = serde_json::from_str(&text).expect("the test's rules");
}

fn deny(action: &str, filter: &str, client: &str) -> String {
    let name = format!("{action}-{}", client.replace('*', "all"));
    format!(
        r#"{{"effect":"deny","action":"{action}","filter":"{filter}","client":"{client}","name":"{name}"}}"#
    )
}

fn deny_connect(client: &str) -> String {
    format!(r#"{{"effect":"deny","action":"connect","client":"{client}"}}"#)
}

/// Takes over a configuration that differs from the default by `change`.
fn reconfigure(net: &Net, change: impl FnOnce(&mut Config)) {
    let mut new = Config::default();
    change(&mut new);
    let taken = net.handle().reconfigure(&mut Config::default(), &new);
    taken.expect("it is valid");
    net.run();
}

#[test]
fn new_bounds_hold_for_what_comes() {
    on_one_and_more_workers(|net| {
        let mut away = net.client("away").persistent().connect();
        away.subscribe("t", 1);
        away.disconnect();
        let mut publisher = net.join("p");
        for _ in 0..3 {
            publisher.publish("t", 1, "x");
        }
        reconfigure(net, |config| config.limits.queue_messages_max = 2);
        publisher.publish("t", 1, "x");
        let stats = net.stats();
        assert_eq!((stats.queued, stats.dropped_queue_full), (3, 1));
        // A larger read at once needs a larger buffer.
        reconfigure(net, |config| config.limits.read_bytes_per_turn = 200_000);
        let large = publisher.encode_publish(&crate::support::Pub::new("t", vec![b'x'; 300_000]));
        publisher.write(&large);
        assert_eq!(net.stats().publishes_received_qos0, 1);
    });
}

#[test]
fn a_value_that_is_not_allowed_changes_nothing() {
    let net = Net::new();
    let mut wrong = Config::default();
    rules(&mut wrong, &deny("publish", "#", "*"));
    wrong.limits.outbox_bytes_max = 1;
    let mut now = Config::default();
    assert!(net.handle().reconfigure(&mut now, &wrong).is_err());
    assert_eq!(now, Config::default());
    net.join("p").publish("t", 1, "x");
    assert_eq!(net.stats().publishes_denied(), 0);
}

#[test]
fn who_may_not_be_connected_any_more_is_told_and_kept_out() {
    on_one_and_more_workers(|net| {
        let mut bad = net.client("bad").persistent().connect();
        let mut old = net.client("bad-old").version(Version::V311).connect();
        let mut good = net.join("good");
        reconfigure(net, |config| rules(config, &deny_connect("bad*")));
        assert_eq!(bad.got(), ["DISCONNECT 0x87", "closed"]);
        assert_eq!(old.got(), ["closed"]);
        assert_eq!(good.got(), NOTHING);
        let mut again = net.client("bad").attempt();
        assert_eq!(again.got(), ["CONNACK 0x87", "closed"]);
    });
}

#[test]
fn subscriptions_that_may_not_be_end_and_others_are_judged_anew() {
    on_one_and_more_workers(|net| {
        let mut whole = net.client("whole").persistent().connect();
        whole.subscribe("secret/#", 1);
        whole.subscribe("open", 1);
        let mut shared = net.client("shared").persistent().connect();
        shared.subscribe("$share/g/secret/+", 1);
        let mut part = net.join("part");
        part.subscribe("#", 1);
        let mut publisher = net.join("p");
        reconfigure(net, |config| {
            rules(config, &deny("subscribe", "secret/#", "*"));
        });
        for client in [&mut whole, &mut shared] {
            assert_eq!(client.got(), ["DISCONNECT 0x87", "closed"]);
        }
        publisher.publish("secret/1", 1, "x");
        publisher.publish("open", 1, "x");
        assert_eq!(part.got(), ["PUBLISH open x q1 #1"]);
        assert_eq!(net.stats().deliveries_withheld, 1);
        assert_eq!(net.stats().subscriptions, 2);
        let mut whole = net.client("whole").resuming().connect();
        assert_eq!(whole.got(), ["PUBLISH open x q1 #1"]);
        // And back: what is left is not judged any more.
        part.puback(1);
        reconfigure(net, |_| ());
        publisher.publish("secret/1", 1, "y");
        assert_eq!(part.got(), ["PUBLISH secret/1 y q1 #1"]);
    });
}

#[test]
fn rules_that_stay_go_on_counting() {
    let net = Net::new();
    let mut publisher = net.join("p");
    let first = deny("publish", "a", "p");
    reconfigure(&net, |config| rules(config, &first));
    publisher.publish("a", 1, "x");
    let both = format!("{},{first}", deny("publish", "b", "q"));
    reconfigure(&net, |config| rules(config, &both));
    publisher.publish("a", 1, "x");
    let denied = net.handle().denied();
    let of = |rule: &str| {
        let found = denied.iter().find(|denied: &&Denied| denied.rule == rule);
        found.map(|denied| denied.times)
    };
    assert_eq!((of("publish-p"), of("publish-q")), (Some(2), Some(0)));
}

#[test]
fn judging_much_again_holds_up_nobody() {
    let net = Net::new();
    let mut many = net.join("many");
    let filters: Vec<String> = (0..5_000).map(|n| format!("m/{n}")).collect();
    for some in filters.chunks(1_000) {
        let some: Vec<_> = some.iter().map(|filter| (&**filter, options(0))).collect();
        many.subscribe_with(&some, &[]);
    }
    many.got();
    let mut other = net.join("o");
    let mut new = Config::default();
    rules(&mut new, &deny("subscribe", "m/#", "*"));
    let taken = net.handle().reconfigure(&mut Config::default(), &new);
    taken.expect("it is valid");
    let mut turns = 0;
    while net.handle().stats().subscriptions > 0 {
        other.push(&[0xc0, 0]);
        net.sim().turn([0]);
        assert_eq!(other.got(), ["PINGRESP"], "turn {turns}");
        turns += 1;
        assert!(turns < 100, "it goes on");
    }
    assert!(turns >= 5, "{turns} turns for 5,000 subscriptions");
    net.run();
    assert_eq!(many.got(), ["DISCONNECT 0x87", "closed"]);
}
