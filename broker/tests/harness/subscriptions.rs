//! SUBSCRIBE and UNSUBSCRIBE: options, identifiers, and what is refused without harm to the rest.

use broker::{Action, Effect, Rule};
use codec::{Property, RetainHandling, SubscriptionOptions, Version};

use crate::support::{NOTHING, Net, Pub, everywhere, on_one_and_more_workers, options};

#[test]
fn filters_match_as_the_specification_says() {
    on_one_and_more_workers(|net| {
        let mut publisher = net.join("p");
        for (filter, matching, other) in [
            ("a/b", vec!["a/b"], vec!["a", "a/b/c", "/a/b", "A/b"]),
            ("a/+", vec!["a/b", "a/"], vec!["a", "a/b/c"]),
            ("a/#", vec!["a", "a/b", "a/b/c", "a/"], vec!["ab", "b"]),
            ("+/b", vec!["a/b", "/b"], vec!["$a/b", "b"]),
            ("#", vec!["a", "/", "a/b/c"], vec![]),
        ] {
            let mut subscriber = net.join("s");
            subscriber.subscribe(filter, 0);
            for topic in matching {
                publisher.publish(topic, 0, "x");
                assert_eq!(subscriber.got(), [format!("PUBLISH {topic} x")], "{filter}");
            }
            for topic in other {
                publisher.publish(topic, 0, "x");
                assert_eq!(subscriber.got(), NOTHING, "{filter} {topic}");
            }
        }
    });
}

#[test]
fn each_filter_is_granted_or_refused_by_itself() {
    everywhere(|_, version| {
        let net = Net::with(|config| {
            config.limits.subscriptions_max = 2;
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Subscribe,
                filter: "secret/#".to_owned(),
                client: "*".to_owned(),
                ..Rule::default()
            }];
        });
        let mut client = net.client("a").version(version).connect();
        let filters = ["ok/0", "a/#/b", "secret/x", "ok/1", "one/too/many", "ok/0"];
        client.subscribe_with(&filters.map(|filter| (filter, options(1))), &[]);
        let said = match version {
            Version::V5 => "SUBACK #1 [0x01, 0x8f, 0x87, 0x01, 0x97, 0x01]",
            _ => "SUBACK #1 [0x01, 0x80, 0x80, 0x01, 0x80, 0x01]",
        };
        assert_eq!(client.got(), [said]);
        let mut publisher = net.join("p");
        for topic in ["ok/0", "ok/1", "secret/x", "one/too/many"] {
            publisher.publish(topic, 0, "x");
        }
        assert_eq!(client.got(), ["PUBLISH ok/0 x", "PUBLISH ok/1 x"]);
        let stats = net.stats();
        assert_eq!((stats.subscriptions, stats.subscriptions_refused), (2, 3));
    });
}

#[test]
fn rules_may_name_the_client() {
    let net = Net::with(|config| {
        let rule = |effect, action, filter: &str| Rule {
            effect,
            action,
            filter: filter.to_owned(),
            client: "*".to_owned(),
            ..Rule::default()
        };
        config.access.default = Some(Effect::Allow);
        config.access.rules = vec![
            rule(Effect::Allow, Action::Subscribe, "users/%c/#"),
            rule(Effect::Deny, Action::Subscribe, "users/#"),
            rule(Effect::Allow, Action::Publish, "users/%c/out"),
            rule(Effect::Deny, Action::Publish, "users/#"),
        ];
    });
    let mut ann = net.join("ann");
    let filters = [
        "users/ann/in",
        "users/bob/in",
        "users/+/in",
        "#",
        "$share/g/users/bob/in",
        "rooms/1",
    ];
    ann.subscribe_with(&filters.map(|filter| (filter, options(0))), &[]);
    assert_eq!(
        ann.got(),
        ["SUBACK #1 [0x00, 0x87, 0x87, 0x00, 0x87, 0x00]"]
    );
    ann.publish("users/ann/out", 1, "x");
    ann.publish("users/bob/out", 1, "x");
    assert_eq!(
        ann.got(),
        ["PUBLISH users/ann/out x", "PUBACK #1", "PUBACK #2 0x87"]
    );
}

#[test]
fn a_client_named_like_a_wildcard_gains_nothing_by_its_name() {
    let net = Net::with(|config| {
        let rule = |effect, filter: &str| Rule {
            effect,
            action: Action::Subscribe,
            filter: filter.to_owned(),
            client: "*".to_owned(),
            ..Rule::default()
        };
        config.access.rules = vec![
            rule(Effect::Allow, "users/%c/#"),
            rule(Effect::Deny, "users/#"),
        ];
    });
    for id in ["+", "#", "bob/x"] {
        let mut client = net.join(id);
        let filters = ["users/bob/in", "users/+/in", "users/#", "users/bob/x/in"];
        client.subscribe_with(&filters.map(|filter| (filter, options(0))), &[]);
        assert_eq!(client.got(), ["SUBACK #1 [0x87, 0x87, 0x87, 0x87]"]);
    }
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    on_one_and_more_workers(|net| {
        let mut client = net.join("a");
        let no_local = SubscriptionOptions {
            no_local: true,
            ..options(1)
        };
        client.subscribe_with(&[("t/#", no_local)], &[]);
        client.got();
        client.publish("t/1", 1, "own");
        net.join("b").publish("t/1", 1, "other");
        assert_eq!(client.got(), ["PUBACK #1", "PUBLISH t/1 other q1 #1"]);
        // Another subscription that wants them gets them, with its own options.
        client.subscribe("t/1", 0);
        client.publish("t/1", 1, "own");
        assert_eq!(client.got(), ["PUBLISH t/1 own", "PUBACK #2"]);
    });
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let net = Net::new();
    for (retain_as_published, said) in [(false, "PUBLISH t x"), (true, "PUBLISH t x retain")] {
        let mut client = net.join("s");
        let with = SubscriptionOptions {
            retain_as_published,
            ..options(0)
        };
        client.subscribe_with(&[("t", with)], &[]);
        client.got();
        net.join("p").publish_with(&Pub::new("t", "x").retain());
        assert_eq!(client.got(), [said]);
        net.join("p").publish_with(&Pub::new("t", "").retain());
    }
}

#[test]
fn retain_handling_says_when_retained_messages_come() {
    let net = Net::new();
    net.join("p").publish_with(&Pub::new("t", "x").retain());
    let retained = "PUBLISH t x retain";
    for (retain_handling, first, second) in [
        (
            RetainHandling::SendAtSubscribe,
            Some(retained),
            Some(retained),
        ),
        (RetainHandling::SendIfNew, Some(retained), None),
        (RetainHandling::DoNotSend, None, None),
    ] {
        let mut client = net.join("s");
        for expected in [first, second] {
            let with = SubscriptionOptions {
                retain_handling,
                ..options(0)
            };
            client.subscribe_with(&[("t", with)], &[]);
            let said: Vec<&str> = std::iter::once("SUBACK #1 [0x00]")
                .chain(expected)
                .collect();
            assert_eq!(client.got(), said);
        }
    }
}

#[test]
fn subscribing_again_replaces_the_options() {
    on_one_and_more_workers(|net| {
        for filter in ["t", "t/#", "$share/g/t"] {
            let mut client = net.join("s");
            client.subscribe(filter, 2);
            client.subscribe(filter, 0);
            net.join("p").publish("t", 2, "x");
            assert_eq!(client.got(), ["PUBLISH t x"]);
            assert_eq!(net.stats().subscriptions, 1);
            client.disconnect();
        }
    });
}

#[test]
fn a_message_carries_the_identifiers_of_all_subscriptions_that_match() {
    on_one_and_more_workers(|net| {
        let mut client = net.join("s");
        for (filter, level, id) in [
            ("a/b", 0, 1),
            ("a/+", 1, 20),
            ("#", 0, 300),
            ("other", 2, 4),
        ] {
            client.subscribe_with(
                &[(filter, options(level))],
                &[Property::SubscriptionIdentifier(id)],
            );
        }
        client.subscribe("+/b", 0);
        client.got();
        let mut publisher = net.join("p");
        publisher.publish("a/b", 1, "x");
        // Once, with the largest QoS [MQTT-3.3.4-2] and every identifier [MQTT-3.3.4-4].
        let got = client.got();
        assert_eq!(got.len(), 1);
        let (head, rest) = got[0].split_once(" {").expect("it has properties");
        assert_eq!(head, "PUBLISH a/b x q1 #1");
        let mut identifiers: Vec<&str> = rest.trim_end_matches('}').split(", ").collect();
        identifiers.sort_unstable();
        assert_eq!(
            identifiers,
            ["subscription 1", "subscription 20", "subscription 300"]
        );
        publisher.publish("other", 2, "y");
        let mut got = client.got();
        let said = got.pop().expect("it came");
        assert!(said.starts_with("PUBLISH other y q2 #2 {"), "{said}");
        publisher.publish("x/b", 0, "z");
        assert_eq!(client.got(), ["PUBLISH x/b z {subscription 300}"]);
    });
}

#[test]
fn identifiers_come_with_what_waited_too() {
    let net = Net::new();
    let join = net.client("s").persistent();
    let mut client = join.connect();
    for (filter, id) in [("a/b", 7), ("a/+", 8)] {
        client.subscribe_with(
            &[(filter, options(1))],
            &[Property::SubscriptionIdentifier(id)],
        );
    }
    client.cut();
    net.join("p").publish("a/b", 1, "x");
    let got = join.connect().got();
    let either = ["7, subscription 8", "8, subscription 7"]
        .map(|ids| vec![format!("PUBLISH a/b x q1 #1 {{subscription {ids}}}")]);
    assert!(either.contains(&got), "{got:?}");
}

#[test]
fn unsubscribing_ends_a_subscription_and_only_that() {
    everywhere(|net, version| {
        let mut client = net.client("s").version(version).connect();
        for filter in ["a", "b", "c/#", "d/+"] {
            client.subscribe(filter, 0);
        }
        client.unsubscribe(&["a", "c/#", "never", "bad/#/filter"]);
        let said = match version {
            Version::V5 => "UNSUBACK #1 [0x00, 0x00, 0x11, 0x8f]",
            _ => "UNSUBACK #1 []",
        };
        assert_eq!(client.got(), [said]);
        let mut publisher = net.join("p");
        for topic in ["a", "b", "c/1", "d/1"] {
            publisher.publish(topic, 0, "x");
        }
        assert_eq!(client.got(), ["PUBLISH b x", "PUBLISH d/1 x"]);
        assert_eq!(net.stats().subscriptions, 2);
    });
}

#[test]
fn what_was_queued_before_unsubscribing_still_comes() {
    let net = Net::with(|config| config.limits.inflight_messages_max = 1);
    let mut client = net.join("s");
    client.subscribe("t", 1);
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "a");
    publisher.publish("t", 1, "b");
    client.unsubscribe(&["t"]);
    publisher.publish("t", 1, "c");
    assert_eq!(client.got(), ["PUBLISH t a q1 #1", "UNSUBACK #1 [0x00]"]);
    client.puback(1);
    assert_eq!(client.got(), ["PUBLISH t b q1 #2"]);
}

#[test]
fn subscriptions_survive_with_the_session() {
    everywhere(|net, version| {
        let join = net.client("s").version(version).persistent();
        let mut client = join.connect();
        client.subscribe("a/+", 1);
        client.subscribe("b", 0);
        client.cut();
        let mut client = join.connect();
        let mut publisher = net.join("p");
        publisher.publish("a/1", 1, "x");
        publisher.publish("b", 0, "y");
        assert_eq!(client.got(), ["PUBLISH a/1 x q1 #1", "PUBLISH b y"]);
    });
}

#[test]
fn request_and_response_cross_the_broker_unaltered() {
    on_one_and_more_workers(|net| {
        let mut service = net.join("service");
        service.subscribe("requests", 1);
        net.join("client").publish_with(
            &Pub::new("requests", "ask")
                .qos(1, 1)
                .with(Property::UserProperty("b", "2"))
                .with(Property::ResponseTopic("answers/client"))
                .with(Property::CorrelationData(b"c-1"))
                .with(Property::PayloadFormatIndicator(1))
                .with(Property::ContentType("text/plain"))
                .with(Property::UserProperty("a", "1"))
                .with(Property::UserProperty("a", "1")),
        );
        assert_eq!(
            service.got(),
            [
                "PUBLISH requests ask q1 #1 {b=2, response answers/client, correlation c-1, format 1, \
              type text/plain, a=1, a=1}"
            ]
        );
        // A client of an older version gets the message without them.
        let mut old = net.client("old").version(Version::V311).connect();
        old.subscribe("requests", 0);
        net.join("client").publish_with(
            &Pub::new("requests", "ask").with(Property::ResponseTopic("answers/client")),
        );
        assert_eq!(old.got(), ["PUBLISH requests ask"]);
    });
}
