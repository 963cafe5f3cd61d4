//! What is told to whoever traces a client or a topic, and how much of it; and the topics with most publishes.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use broker::limits::TRACES_MAX;
use broker::{Time, TraceLine, TraceTo, Traced};
use codec::Property;

use crate::support::{NOTHING, Net, on_one_and_more_workers};

/// The lines of a trace.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<TraceLine>>>);

impl Lines {
    /// Begins a trace of so many lines, until that time: its lines, and whether it could begin.
    fn of(net: &Net, of: &Traced, until: u64, max: u32) -> (Self, Receiver<bool>) {
        let lines = Self::default();
        let (answer, answered) = mpsc::sync_channel(64);
        let of_trace = lines.clone();
        let to: TraceTo = Arc::new(move |line| {
            of_trace.0.lock().expect("no test panics there").push(line);
            true
        });
        let then = move |has_begun| answer.send(has_begun).expect("a test");
        net.handle().trace(of, Time(until), max, &to, then);
        net.run();
        (lines, answered)
    }

    /// What was told since it was last asked, as `CLIENT KIND TEXT`, without properties.
    fn got(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().expect("no test panics there"));
        let told = |line: TraceLine| {
            let text = line.text.split(" {").next().unwrap_or_default().to_owned();
            format!("{} {:?} {text}", line.client_id, line.kind)
        };
        lines.into_iter().map(told).collect()
    }
}

fn client(id: &str) -> Traced {
    Traced::Client(id.to_owned())
}

#[test]
fn all_packets_of_a_client_are_told_as_they_come_and_go() {
    on_one_and_more_workers(|net| {
        let (lines, begun) = Lines::of(net, &client("c"), 60_000, 100);
        assert!(begun.recv().expect("an answer"));
        let mut c = net.client("c").keep_alive_s(9).connect();
        c.subscribe("t", 1);
        assert_eq!(
            lines.got(),
            [
                "c Received CONNECT c V5 keep-alive 9 s clean",
                "c Sent CONNACK 0x00 Success",
                "c Received SUBSCRIBE #1 t q1",
                "c Sent SUBACK #1 0x01",
            ]
        );
        let mut publisher = net.join("p");
        publisher.publish("t", 1, "hello");
        publisher.publish("t", 0, "x".repeat(5_000));
        c.puback(1);
        c.publish("u", 1, "mine");
        let got = lines.got();
        assert_eq!(
            (&got[..1], &got[2..]),
            (
                &["c Sent PUBLISH t q1 #1 5 bytes \"hello\"".to_owned()][..],
                &[
                    "c Received PUBACK #1".to_owned(),
                    "c Received PUBLISH u q1 #1 4 bytes \"mine\"".to_owned(),
                    "c Sent PUBACK #1".to_owned(),
                ][..]
            )
        );
        assert!(
            got[1].starts_with("c Sent PUBLISH t q0 5000 bytes \"xxx"),
            "{}",
            got[1]
        );
        // Slow readers' packets are told when they are written, and whole.
        c.block(true);
        publisher.publish("t", 0, "later");
        assert_eq!(lines.got(), NOTHING);
        c.block(false);
        assert_eq!(lines.got(), ["c Sent PUBLISH t q0 5 bytes \"later\""]);
        let _again = net.join("c");
        let got = lines.got();
        assert!(
            got.contains(
                &"c Event closed: TakenOver; a 5.0 client is told 0x8e Session taken over"
                    .to_owned()
            ),
            "{got:?}"
        );
        assert!(got[0].starts_with("c Received CONNECT"), "{got:?}");
        // Others are not told of.
        publisher.publish("other", 1, "x");
        assert_eq!(lines.got(), NOTHING);
    });
}

#[test]
fn why_a_client_is_refused_is_told() {
    let net = Net::with(|config| config.limits.client_id_bytes_max = 23);
    let long = "c".repeat(24);
    let (lines, _) = Lines::of(&net, &client(&long), 60_000, 100);
    net.client(&long).attempt();
    let got = lines.got();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(
        got[1],
        format!("{long} Event refused: 0x85 Client Identifier not valid")
    );
}

#[test]
fn what_becomes_of_a_topics_messages_is_told() {
    on_one_and_more_workers(|net| {
        let mut here = net.join("here");
        here.subscribe("t/+", 1);
        net.client("away")
            .persistent()
            .connect()
            .subscribe("t/1", 1);
        net.client("away").persistent().connect().disconnect();
        let small = Property::MaximumPacketSize(20);
        net.client("small").with(small).connect().subscribe("#", 0);
        let (lines, _) = Lines::of(net, &Traced::Topic("t/#".to_owned()), 60_000, 100);
        let mut publisher = net.join("p");
        publisher.publish("t/1", 1, "x".repeat(30));
        publisher.publish("u", 1, "x");
        let mut got = lines.got();
        got.sort();
        let shown = "x".repeat(30);
        let received = format!("p Received PUBLISH t/1 q1 #1 30 bytes \"{shown}\"");
        let expected = [
            "away Delivery t/1 q1 queued",
            "here Delivery t/1 q1 sent",
            &received,
            "small Delivery t/1 q0 dropped: larger than the client takes",
        ];
        assert_eq!(got, expected);
    });
}

#[test]
fn a_trace_ends_by_its_lines_by_its_time_and_when_nobody_hears() {
    let net = Net::new();
    let (few, _) = Lines::of(&net, &client("c"), 60_000, 3);
    let (brief, _) = Lines::of(&net, &client("c"), 1_000, 100);
    let deaf: TraceTo = Arc::new(|_| false);
    net.handle()
        .trace(&client("c"), Time(60_000), 100, &deaf, |_| ());
    let mut c = net.join("c");
    c.ping();
    net.advance_s(2);
    c.ping();
    assert_eq!(few.got().len(), 3);
    assert_eq!(brief.got().len(), 4);
    // Their places are free again.
    for _ in 0..TRACES_MAX {
        let (_, begun) = Lines::of(&net, &client("d"), 60_000, 9);
        assert!(begun.recv().expect("an answer"));
    }
    let (_, begun) = Lines::of(&net, &client("d"), 60_000, 9);
    assert!(!begun.recv().expect("an answer"), "there is a bound");
}

#[test]
fn topics_are_counted_while_somebody_looks() {
    let net = Net::new();
    let mut reader = net.join("r");
    reader.subscribe("a", 0);
    let mut publisher = net.join("p");
    publisher.publish("a", 0, "before");
    let (answer, answered) = mpsc::sync_channel(4);
    net.handle()
        .count_topics(0, Time(60_000), Box::new(|()| ()));
    net.run();
    for _ in 0..3 {
        publisher.publish("a", 0, "12345");
    }
    publisher.publish("b", 1, "1");
    let told = || {
        let answer = answer.clone();
        let then = Box::new(move |told| answer.send(told).expect("a test"));
        net.handle().counted_topics(0, 9, then);
        net.run();
        answered.recv().expect("an answer")
    };
    let first = told();
    let counts: Vec<_> = first
        .topics
        .iter()
        .map(|one| (&*one.topic, one.publishes, one.bytes, one.deliveries))
        .collect();
    assert_eq!(counts, [("a", 3, 15, 3), ("b", 1, 1, 0)]);
    assert_eq!((first.publishes, first.missed_max), (4, 0));
    publisher.publish("a", 0, "after");
    assert_eq!(told().publishes, 0);
}
