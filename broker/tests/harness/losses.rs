//! Who lost what: the log of it says client, topic and reason, and adds up with the counters.

use std::collections::BTreeMap;
use std::sync::mpsc;

use broker::limits::LOSSES_PER_WORKER_MAX;
use broker::{Handle, Loss, LostPart, Refusal, Verdict};
use codec::Version;

use crate::support::{Net, Pub, Store, on_one_and_more_workers};

/// More answers than any test waits for at a time.
const WAITING: usize = 64;

/// What all workers have noted.
fn logs(handle: &Handle, run: impl FnOnce()) -> Vec<LostPart> {
    let (answer, answered) = mpsc::sync_channel(WAITING);
    for worker in 0..handle.workers() {
        let answer = answer.clone();
        let then = Box::new(move |part| answer.send(part).expect("it is waited for"));
        handle.losses(worker, usize::MAX, |_, _, _| true, then);
    }
    run();
    let parts: Vec<LostPart> = answered.try_iter().collect();
    assert_eq!(parts.len(), handle.workers(), "each worker answers");
    parts
}

/// How often anything was noted, by reason: what is in the logs, and what was forgotten.
pub fn noted(handle: &Handle, run: impl FnOnce()) -> BTreeMap<Loss, u64> {
    let mut sums: BTreeMap<Loss, u64> = Loss::ALL.iter().map(|loss| (*loss, 0)).collect();
    for part in logs(handle, run) {
        let found = part.found.iter().map(|lost| (lost.loss, lost.times));
        for (loss, times) in found.chain(part.forgotten) {
            *sums.entry(loss).or_default() += times;
        }
    }
    sums
}

fn adds_up(net: &Net) {
    let noted = noted(&net.handle(), || net.run());
    let stats = net.stats();
    for (loss, times) in noted {
        assert_eq!(times, loss.counted(&stats), "{loss:?}");
    }
}

/// What is noted, as `CLIENT TOPIC REASON TIMES`, in order.
fn told(net: &Net) -> Vec<String> {
    let parts = logs(&net.handle(), || net.run());
    let found = parts.into_iter().flat_map(|part| part.found);
    let mut told: Vec<String> = found
        .map(|lost| {
            let name = lost.loss.name();
            format!("{} {} {name} {}", lost.client_id, lost.topic, lost.times)
        })
        .collect();
    told.sort();
    told
}

#[test]
fn each_loss_is_noted_with_its_client_its_topic_and_why() {
    on_one_and_more_workers(|net| {
        let mut away = net.client("away").persistent().connect();
        away.subscribe("zero", 0);
        away.subscribe("one", 1);
        away.disconnect();
        let small = codec::Property::MaximumPacketSize(64);
        let mut small = net.client("small").with(small).connect();
        small.subscribe("one", 1);
        let mut publisher = net.join("p");
        publisher.publish("zero", 0, "x");
        publisher.publish("zero", 1, "x");
        publisher.publish("one", 1, "x".repeat(100));
        let brief = codec::Property::MessageExpiryInterval(1);
        publisher.publish_with(&Pub::new("one", "brief").qos(1, 9).with(brief));
        publisher.publish("$x", 1, "x");
        publisher.subscribe_with(&[("a/#/b", crate::support::options(0))], &[]);
        net.advance_s(5);
        let mut back = net.client("away").persistent().connect();
        back.got();
        net.client("away").connect();
        let mut broken = net.client("broken").version(Version::V5).connect();
        broken.write(&[0x00, 0x00]);
        assert_eq!(
            told(net),
            [
                "away one dropped_expired 1",
                "away one dropped_session_ended 1",
                "away zero dropped_offline 2",
                "broken  closed_malformed 1",
                "p $x denied_reserved_topic 1",
                "p a/#/b subscriptions_refused 1",
                "small one dropped_too_large 1",
            ]
        );
        adds_up(net);
    });
}

#[test]
fn what_the_sink_refuses_is_noted() {
    let store = Store::answering(Verdict::Refused(Refusal::TooLarge));
    let net = Net::with_sink(store.clone(), |_| ());
    let mut publisher = net.join("p");
    publisher.publish("t", 1, "x");
    store.answer_always(Verdict::Busy);
    publisher.publish("t", 0, "x");
    assert_eq!(
        told(&net),
        ["p t sink_dropped_qos0 1", "p t sink_refused 1"]
    );
    adds_up(&net);
}

#[test]
fn more_losers_than_the_log_holds_still_add_up() {
    let net = Net::new();
    let clients = LOSSES_PER_WORKER_MAX + 100;
    for n in 0..clients {
        let mut client = net.client(&format!("c{n}")).persistent().connect();
        client.subscribe("t", 0);
        client.disconnect();
    }
    let mut publisher = net.join("p");
    for _ in 0..3 {
        publisher.publish("t", 0, "x");
    }
    assert_eq!(net.stats().dropped_offline, 3 * clients as u64);
    assert_eq!(told(&net).len(), LOSSES_PER_WORKER_MAX);
    adds_up(&net);
}
