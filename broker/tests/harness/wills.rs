//! Wills: published when a client goes without a word, after their delay, and not when it comes back in time.

use broker::{Action, Effect, Rule, Verdict};
use codec::{Property, ReasonCode, Version};

use crate::support::{Client, NOTHING, Net, Store, everywhere};

fn witness(net: &Net) -> Client {
    let mut witness = net.join("witness");
    witness.subscribe("will/#", 1);
    witness
}

#[test]
fn a_client_that_goes_without_a_word_leaves_its_will() {
    everywhere(|net, version| {
        let mut witness = witness(net);
        let join = net.client("a").version(version).will("will/a", "gone");
        join.connect().cut();
        assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #1"]);
        assert_eq!(net.stats().wills_published, 1);
    });
}

#[test]
fn every_end_but_a_normal_disconnect_publishes_the_will() {
    let net = Net::new();
    let mut witness = witness(&net);
    let mut id = 0;
    let mut expect = |witness: &mut Client, published: bool| {
        let got = witness.got();
        id += u16::from(published);
        let said = [format!("PUBLISH will/a gone q1 #{id}")];
        assert_eq!(got, if published { &said[..] } else { &[] });
    };
    let join = net.client("a").will("will/a", "gone").keep_alive_s(10);
    join.connect().disconnect();
    expect(&mut witness, false);
    join.connect()
        .disconnect_with(ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, &[]);
    expect(&mut witness, true);
    join.connect().write(&[0xf0, 0, 0]);
    expect(&mut witness, true);
    join.connect();
    net.advance_s(20);
    expect(&mut witness, true);
    let mut taken_over = join.connect();
    join.connect().disconnect();
    assert_eq!(taken_over.got(), ["DISCONNECT 0x8e", "closed"]);
    expect(&mut witness, true);
}

#[test]
fn a_will_is_retained_and_has_properties() {
    let net = Net::new();
    let properties = [
        Property::MessageExpiryInterval(60),
        Property::ContentType("text"),
        Property::UserProperty("k", "v"),
    ];
    net.client("a")
        .will_with("will/a", "gone", 0, true, &properties)
        .connect()
        .cut();
    net.advance_s(10);
    let mut late = net.join("late");
    late.subscribe("will/a", 0);
    assert_eq!(
        late.got(),
        ["PUBLISH will/a gone retain {type text, k=v, expiry 50}"]
    );
}

#[test]
fn a_delayed_will_waits() {
    let net = Net::with(|config| config.workers = 3);
    let mut witness = witness(&net);
    let delay = [Property::WillDelayInterval(30)];
    net.client("a")
        .persistent()
        .will_with("will/a", "gone", 1, false, &delay)
        .connect()
        .cut();
    net.advance_s(29);
    assert_eq!(witness.got(), NOTHING);
    net.advance_s(2);
    assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #1"]);
    net.advance_s(10_000);
    assert_eq!(witness.got(), NOTHING);
}

#[test]
fn a_client_that_returns_in_time_takes_its_will_back() {
    let net = Net::new();
    let mut witness = witness(&net);
    let delay = [Property::WillDelayInterval(30)];
    let join = net
        .client("a")
        .persistent()
        .will_with("will/a", "gone", 1, false, &delay);
    join.connect().cut();
    net.advance_s(29);
    // So does a takeover, which ends one connection and begins another.
    let taken_over = join.connect();
    join.connect().disconnect();
    assert!(!taken_over.is_open());
    net.advance_s(10_000);
    assert_eq!(witness.got(), NOTHING);
}

#[test]
fn a_will_comes_with_the_sessions_end_at_the_latest() {
    let net = Net::new();
    let mut witness = witness(&net);
    let delay = [Property::WillDelayInterval(1_000)];
    let will = |id: &str| net.client(id).will_with("will/a", "gone", 1, false, &delay);
    will("a")
        .resuming()
        .with(Property::SessionExpiryInterval(10))
        .connect()
        .cut();
    net.advance_s(11);
    assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #1"]);
    // No session outlives this connection, so there is nothing to wait for.
    will("b").connect().cut();
    assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #2"]);
    // A clean start ends the old session [MQTT-3.1.2-4].
    will("c").persistent().connect().cut();
    assert_eq!(witness.got(), NOTHING);
    net.join("c");
    assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #3"]);
}

#[test]
fn a_will_that_may_not_be_published_is_refused_with_the_connect() {
    everywhere(|_, version| {
        let net = Net::with(|config| {
            config.access.rules = vec![Rule {
                effect: Effect::Deny,
                action: Action::Publish,
                filter: "secret/#".to_owned(),
                client: "*".to_owned(),
                ..Rule::default()
            }];
        });
        for topic in ["secret/x", "$SYS/x"] {
            let mut client = net.client("a").version(version).will(topic, "x").attempt();
            assert_eq!(client.got(), ["CONNACK 0x87", "closed"]);
        }
    });
}

#[test]
fn a_will_is_offered_to_the_sink() {
    let store = Store::answering(Verdict::Accepted);
    let net = Net::with_sink(store.clone(), |_| ());
    net.client("a").will("will/a", "gone").connect().cut();
    assert_eq!(store.offered(), ["will/a gone"]);
}

#[test]
fn a_will_that_the_sink_has_no_room_for_is_offered_again() {
    let store = Store::answering(Verdict::Accepted);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut witness = witness(&net);
    store.answer_always(Verdict::Busy);
    net.client("a")
        .persistent()
        .will("will/a", "gone")
        .connect()
        .cut();
    net.advance_s(60);
    assert_eq!(witness.got(), NOTHING);
    store.answer_always(Verdict::Accepted);
    net.advance_s(2);
    assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #1"]);
    assert_eq!(net.stats().wills_published, 1);
}

#[test]
fn the_time_that_a_will_waits_for_the_sink_is_taken_off_its_expiry() {
    let store = Store::answering(Verdict::Accepted);
    let net = Net::with_sink(store.clone(), |_| ());
    let mut witness = witness(&net);
    store.answer_always(Verdict::Busy);
    for expiry_s in [50, 10] {
        let expiry = [Property::MessageExpiryInterval(expiry_s)];
        net.client(&format!("c{expiry_s}"))
            .persistent()
            .will_with(&format!("will/{expiry_s}"), "gone", 1, false, &expiry)
            .connect()
            .cut();
    }
    net.advance_s(29);
    store.answer_always(Verdict::Accepted);
    // It is offered again every second.
    net.advance_s(1);
    assert_eq!(witness.got(), ["PUBLISH will/50 gone q1 #1 {expiry 20}"]);
    assert_eq!(store.expiries(), [Some(20), Some(0)]);
    let stats = net.stats();
    assert_eq!((stats.wills_published, stats.dropped_expired), (2, 1));
}

#[test]
fn the_will_of_a_session_that_ended_is_delivered_at_once_and_stored_when_there_is_room() {
    for workers in [1, 3] {
        let store = Store::answering(Verdict::Busy);
        let net = Net::with_sink(store.clone(), |config| config.workers = workers);
        let mut witness = witness(&net);
        for n in 0..200 {
            let expiry = [Property::MessageExpiryInterval(100)];
            let join = net.client(&format!("c{n}"));
            join.will_with(&format!("will/{n}"), "gone", 1, false, &expiry)
                .connect()
                .cut();
            let said = format!("PUBLISH will/{n} gone q1 #1 {{expiry 100}}");
            assert_eq!(witness.got(), [said]);
            witness.puback(1);
        }
        net.advance_s(40);
        assert_eq!(net.stats().wills_waiting, 200);
        store.offered();
        // There is room for some, then for all, and the word of it is not needed.
        store.answer_next([Verdict::Accepted; 20]);
        net.advance_s(1);
        assert_eq!(net.stats().wills_waiting, 180);
        store.answer_always(Verdict::Accepted);
        net.advance_s(1);
        let stats = net.stats();
        assert_eq!((stats.wills_waiting, stats.sink_accepted), (0, 200));
        assert_eq!((stats.wills_published, stats.wills_not_stored), (200, 0));
        // The time is taken off.
        let expiries = store.expiries();
        assert_eq!(expiries.len(), 200);
        assert!(
            expiries
                .iter()
                .all(|expiry| (55..=60).contains(&expiry.unwrap()))
        );
        assert_eq!(witness.got(), NOTHING);
    }
}

#[test]
fn what_a_client_publishes_when_it_is_back_is_not_overtaken_by_its_will() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |_| ());
    let join = || net.client("a").will("state", "gone");
    join().connect().cut();
    join().connect().cut();
    assert_eq!(net.stats().wills_waiting, 1);
    store.offered();
    store.answer_next([Verdict::Busy]);
    store.answer_always(Verdict::Accepted);
    let mut back = net.join("a");
    back.publish("state", 1, "here");
    net.advance_s(60);
    assert_eq!(store.offered(), ["state gone", "state here"]);
    let stats = net.stats();
    assert_eq!((stats.wills_waiting, stats.wills_not_stored), (0, 2));
}

#[test]
fn wills_that_wait_are_bounded_and_end_with_the_node() {
    let store = Store::answering(Verdict::Busy);
    let net = Net::with_sink(store.clone(), |config| {
        config.limits.waiting_wills_bytes_max = 10_000;
        config.workers = 3;
    });
    for n in 0..20 {
        net.client(&format!("c{n}"))
            .will("will/a", &"x".repeat(1_000))
            .connect()
            .cut();
    }
    let stats = net.stats();
    assert!((5..10).contains(&stats.wills_waiting), "{stats:?}");
    assert_eq!(stats.wills_waiting + stats.wills_not_stored, 20);
    assert!(net.sim().shut_down());
    let stats = net.sim().stats();
    assert_eq!((stats.wills_waiting, stats.wills_not_stored), (0, 20));
}

#[test]
fn a_will_that_cannot_wait_for_the_sink_is_delivered_all_the_same_and_counted() {
    // The session ends with its connection, or the client is back: nothing is left that could wait.
    for persistent in [false, true] {
        let store = Store::answering(Verdict::Accepted);
        let net = Net::with_sink(store.clone(), |_| ());
        let mut witness = witness(&net);
        store.answer_always(Verdict::Busy);
        let join = net
            .client("a")
            .version(Version::V311)
            .will("will/a", "gone");
        let join = if persistent { join.persistent() } else { join };
        join.connect().cut();
        net.client("a")
            .version(Version::V311)
            .persistent()
            .connect();
        assert_eq!(witness.got(), ["PUBLISH will/a gone q1 #1"]);
        net.advance_s(60);
        assert_eq!(witness.got(), NOTHING);
        let stats = net.stats();
        assert_eq!((stats.wills_published, stats.wills_not_stored), (1, 1));
    }
}
