//! Users that change under those who are in, and what goes by users.

use std::sync::{Arc, Mutex};

use broker::identity::{Accepted, Principal, Said};
use broker::{AccessConfig, Incoming, Sink, Token, Verdict};
use codec::Version;

use crate::support::{Doorman, Net, options};

fn rules(text: &str) -> AccessConfig {
    serde_json::from_str(&format!("{{\"rules\":[{text}]}}")).unwrap()
}

/// What a client is told whose connection ends for what it may not.
fn expelled(version: Version) -> Vec<&'static str> {
    match version {
        Version::V5 => vec!["DISCONNECT 0x87", "closed"],
        _ => vec!["closed"],
    }
}

fn everywhere(test: impl Fn(&Net, &Arc<Doorman>, Version)) {
    for workers in [1, 3] {
        for version in Version::ALL {
            let doorman = Doorman::new();
            let net = Net::guarded(doorman.chain(true), |config| config.workers = workers);
            test(&net, &doorman, version);
        }
    }
}

#[test]
fn a_user_that_is_none_any_more_is_disconnected() {
    everywhere(|net, doorman, version| {
        let principal = Arc::new(Principal::new("ada"));
        let is_ada = || Said::Decided(Ok(Accepted::from(Arc::clone(&principal))));
        let join = |id: &str| {
            net.client(id)
                .version(version)
                .user("ada", "x")
                .persistent()
                .attempt()
        };
        let mut one = join("one");
        let mut two = join("two");
        doorman.answer("ada", is_ada());
        doorman.answer("ada", is_ada());
        net.run();
        assert_eq!(
            (one.got(), two.got()),
            (vec!["CONNACK 0x00".into()], vec!["CONNACK 0x00".into()])
        );
        two.cut();
        let mut bob = net
            .client("bob")
            .version(version)
            .user("at once bob", "x")
            .connect();
        let mut late = join("late");
        principal.revoke();
        net.handle().recheck();
        net.advance_s(1);
        assert_eq!(one.got(), expelled(version));
        bob.ping();
        assert_eq!(bob.got(), ["PINGRESP"]);
        assert_eq!(net.stats().sessions, 1);
        // Who was looked at before and comes after is not let in.
        doorman.answer("ada", is_ada());
        net.run();
        assert_eq!(late.got(), ["CONNACK 0x86", "closed"]);
    });
}

/// Says who each publish is from.
#[derive(Default)]
struct Names(Mutex<Vec<String>>);

impl Sink for Names {
    fn accept(&self, publish: &Incoming<'_>, _: Token) -> Verdict {
        let user = publish
            .principal
            .map_or("nobody", |principal| &principal.user);
        let said = format!("{} {}", publish.topic, user);
        self.0.lock().unwrap().push(said);
        Verdict::NotStored
    }
}

#[test]
fn the_sink_hears_who_published_wills_included() {
    let doorman = Doorman::new();
    let names = Arc::new(Names::default());
    let sink = Arc::clone(&names) as Arc<dyn Sink>;
    let net = Net::guarded_with_sink(doorman.chain(true), sink, |_| ());
    let mut ada = net
        .client("a")
        .user("at once ada", "x")
        .will("will", "gone")
        .connect();
    ada.publish("t", 1, "x");
    net.join("b").publish("u", 0, "x");
    ada.cut();
    let said = names.0.lock().unwrap().clone();
    assert_eq!(said, ["t at once ada", "u nobody", "will at once ada"]);
}

#[test]
fn rules_that_go_by_the_user_hold_for_publishing_subscribing_and_wills() {
    let doorman = Doorman::new();
    let net = Net::guarded(doorman.chain(true), |config| {
        config.access = rules(
            r#"{"effect":"allow","action":"publish","filter":"users/%u/#","qos_max":1},
               {"effect":"allow","action":"subscribe","filter":"users/%u/#","qos_max":1}"#,
        );
    });
    let ada = || net.client("a").user("at once ada", "x");
    let mut client = ada().connect();
    client.subscribe_with(
        &[
            ("users/at once ada/#", options(2)),
            ("users/bob/#", options(0)),
        ],
        &[],
    );
    assert_eq!(client.got(), ["SUBACK #1 [0x01, 0x87]"]);
    client.publish("users/at once ada/x", 1, "x");
    client.publish("users/bob/x", 1, "x");
    assert_eq!(
        client.got(),
        [
            "PUBLISH users/at once ada/x x q1 #1",
            "PUBACK #1",
            "PUBACK #2 0x87"
        ]
    );
    client.publish("users/at once ada/x", 2, "x");
    assert_eq!(client.got(), ["PUBREC #3 0x87"]);
    let will = |topic: &str, qos: u8| ada().will_with(topic, "x", qos, false, &[]).attempt().got();
    assert_eq!(will("users/at once ada/w", 1), ["CONNACK 0x00"]);
    assert_eq!(will("users/at once ada/w", 2), ["CONNACK 0x87", "closed"]);
    assert_eq!(will("users/bob/w", 1), ["CONNACK 0x87", "closed"]);
    // Whom nobody knows has nothing of his own.
    let mut nobody = net.join("n");
    nobody.subscribe_with(&[("users/at once ada/#", options(0))], &[]);
    assert_eq!(nobody.got(), ["SUBACK #1 [0x87]"]);
}
