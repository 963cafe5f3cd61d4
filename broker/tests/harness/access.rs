//! Access rules and what is received: a deny rule holds back what it denies, from each delivery, and nothing else.

use broker::{Action, Config, Effect, Rule};

use crate::support::{NOTHING, Net, Pub, options};

fn rule(effect: Effect, action: Action, filter: &str, client: &str) -> Rule {
    Rule {
        effect,
        action,
        filter: filter.to_owned(),
        client: client.to_owned(),
        ..Rule::default()
    }
}

/// Runs a test on one worker, and on three, with `a/b` denied to clients whose name begins with `guest`.
fn where_guests_are_denied(test: impl Fn(&Net)) {
    for workers in [1, 3] {
        test(&Net::with(|config: &mut Config| {
            config.workers = workers;
            let deny = rule(Effect::Deny, Action::Subscribe, "a/b", "guest*");
            config.access.rules = vec![deny];
        }));
    }
}

fn publish(net: &Net, topics: &[&str], level: u8) {
    let mut publisher = net.join("p");
    for topic in topics {
        publisher.publish(topic, level, "x");
    }
    publisher.disconnect();
}

#[test]
fn a_wider_subscription_gets_all_but_what_is_denied() {
    where_guests_are_denied(|net| {
        let mut guest = net.join("guest");
        let filters = ["#", "+/b", "a/b", "$share/g/#"];
        guest.subscribe_with(&filters.map(|filter| (filter, options(0))), &[]);
        assert_eq!(guest.got(), ["SUBACK #1 [0x00, 0x00, 0x87, 0x00]"]);
        guest.unsubscribe(&["$share/g/#"]);
        guest.got();
        let mut member = net.join("member");
        member.subscribe("#", 0);
        member.got();
        publish(net, &["a/a", "a/b", "c/b"], 0);
        assert_eq!(guest.got(), ["PUBLISH a/a x", "PUBLISH c/b x"]);
        assert_eq!(
            member.got(),
            ["PUBLISH a/a x", "PUBLISH a/b x", "PUBLISH c/b x"]
        );
        let stats = net.stats();
        assert_eq!((stats.deliveries_withheld, stats.unaccounted()), (1, 0));
    });
}

#[test]
fn what_waits_for_a_client_that_is_away_has_nothing_that_is_denied() {
    where_guests_are_denied(|net| {
        let away = net.client("guest").persistent();
        let mut guest = away.connect();
        guest.subscribe("#", 1);
        guest.got();
        guest.cut();
        publish(net, &["a/a", "a/b", "c/b"], 1);
        assert_eq!(net.stats().queued, 2);
        let mut guest = away.resuming().connect();
        assert_eq!(guest.got(), ["PUBLISH a/a x q1 #1", "PUBLISH c/b x q1 #2"]);
        assert_eq!(net.stats().deliveries_withheld, 1);
    });
}

#[test]
fn retained_messages_come_without_what_is_denied() {
    where_guests_are_denied(|net| {
        let mut publisher = net.join("p");
        for topic in ["a/a", "a/b", "a/c"] {
            publisher.publish_with(&Pub::new(topic, "x").retain());
        }
        for (client, wanted) in [
            ("guest", &["a/a", "a/c"][..]),
            ("member", &["a/a", "a/b", "a/c"]),
        ] {
            let mut client = net.join(client);
            client.subscribe("a/+", 0);
            let mut got = client.got();
            got.sort_unstable();
            let wanted: Vec<_> = wanted
                .iter()
                .map(|topic| format!("PUBLISH {topic} x retain"))
                .collect();
            assert_eq!(got, wanted);
        }
    });
}

#[test]
fn a_shared_message_goes_to_a_member_that_may_have_it() {
    where_guests_are_denied(|net| {
        let mut guests: Vec<_> = (0..3).map(|n| net.join(&format!("guest{n}"))).collect();
        for guest in &mut guests {
            guest.subscribe("$share/g/#", 1);
            guest.got();
        }
        // Nobody may have it.
        publish(net, &["a/b"], 1);
        let stats = net.stats();
        assert_eq!((stats.deliveries_withheld, stats.deliveries), (1, 0));
        let mut member = net.join("member");
        member.subscribe("$share/g/#", 1);
        member.got();
        publish(net, &["a/b"; 8], 1);
        assert_eq!(member.got().len(), 8);
        for guest in &mut guests {
            assert_eq!(guest.got(), NOTHING);
        }
        assert_eq!(net.stats().unaccounted(), 0);
    });
}

#[test]
fn a_shared_message_waits_for_the_only_member_that_may_have_it() {
    where_guests_are_denied(|net| {
        let mut guest = net.join("guest");
        guest.subscribe("$share/g/#", 1);
        guest.got();
        let away = net.client("member").persistent();
        let mut member = away.connect();
        member.subscribe("$share/g/#", 1);
        member.got();
        member.cut();
        publish(net, &["a/b"], 1);
        assert_eq!(guest.got(), NOTHING);
        let mut member = away.resuming().connect();
        assert_eq!(member.got(), ["PUBLISH a/b x q1 #1"]);
    });
}

#[test]
fn members_that_are_denied_different_things_share_what_is_left() {
    for workers in [1, 3] {
        let net = Net::with(|config: &mut Config| {
            config.workers = workers;
            config.access.rules = vec![
                rule(Effect::Deny, Action::Subscribe, "a/b", "guest"),
                rule(Effect::Deny, Action::Subscribe, "c/d", "member"),
            ];
        });
        let mut clients = ["guest", "member"].map(|id| net.join(id));
        for client in &mut clients {
            client.subscribe("$share/g/#", 0);
            client.got();
        }
        publish(&net, &["a/b", "a/b", "c/d", "c/d"], 0);
        let [guest, member] = &mut clients;
        assert_eq!(guest.got(), ["PUBLISH c/d x", "PUBLISH c/d x"]);
        assert_eq!(member.got(), ["PUBLISH a/b x", "PUBLISH a/b x"]);
    }
}

#[test]
fn a_list_of_what_is_allowed_is_all_that_is() {
    let net = Net::with(|config: &mut Config| {
        config.access.rules = vec![
            rule(Effect::Allow, Action::Publish, "devices/%c/#", "*"),
            rule(Effect::Allow, Action::Subscribe, "devices/%c/#", "*"),
        ];
    });
    let mut device = net.join("d1");
    let filters = ["devices/d1/#", "devices/d2/#", "#", "rooms/1"];
    device.subscribe_with(&filters.map(|filter| (filter, options(0))), &[]);
    assert_eq!(device.got(), ["SUBACK #1 [0x00, 0x87, 0x87, 0x87]"]);
    device.publish("devices/d1/up", 1, "x");
    device.publish("devices/d2/up", 1, "x");
    device.publish("rooms/1", 1, "x");
    assert_eq!(
        device.got(),
        [
            "PUBLISH devices/d1/up x",
            "PUBACK #1",
            "PUBACK #2 0x87",
            "PUBACK #3 0x87"
        ]
    );
    let denied = net.handle().denied();
    let by_default: Vec<_> = denied
        .iter()
        .filter(|denied| denied.times > 0)
        .map(|denied| (denied.rule.as_str(), denied.action, denied.times))
        .collect();
    assert_eq!(
        by_default,
        [
            ("default", Action::Publish, 2),
            ("default", Action::Subscribe, 3)
        ]
    );
}

#[test]
fn a_password_that_nobody_checks_is_counted() {
    let net = Net::new();
    // CONNECT of 3.1.1 with user name and password.
    let mut client = net.open();
    client.write(b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x00\x00\x01a\x00\x01u\x00\x01p");
    assert_eq!(net.stats().passwords_unchecked, 1);
    net.join("b");
    assert_eq!(net.stats().passwords_unchecked, 1);
}
