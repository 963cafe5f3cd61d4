//! Answers: a program behind the broker answers each message to its publisher, as the chat backend does, and what it does
//! wrong is in the report with the right figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use broker::{
    Broker, Config, Handle, Incoming, Message, MessageParts, Running, Sink, Time, Token, Verdict,
};
use codec::Qos;
use loadgen::merge::merge;
use loadgen::plan::{Plan, Share};
use loadgen::real::{RealOptions, RealSwarm};
use loadgen::report::{Report, text};
use loadgen::runner::{Gates, run};
use loadgen::scenario::Scenario;
use loadgen::stamp::Stamp;
use serde_json::{Value, json};

/// What becomes of an answer.
enum Act {
    Once,
    Never,
    Twice,
    /// To this writer.
    To(&'static str),
    /// The identifier comes back with a character wrong.
    Garbled,
    After(Duration),
}

/// Answers what is published in rooms.
struct Answerer<F> {
    handle: Handle,
    what: F,
}

impl<F: Fn(&Stamp) -> Act + Send + Sync> Sink for Answerer<F> {
    fn accept(&self, publish: &Incoming<'_>, _: Token) -> Verdict {
        if publish.topic.starts_with("rooms/") {
            let message: Value = serde_json::from_slice(publish.payload).expect("JSON");
            let stamp = Stamp::read(publish.payload).expect("a stamp");
            let text = |key: &str| message[key].as_str().expect("text").to_owned();
            let (from, id) = (text("from"), text("id"));
            assert_eq!(publish.payload.len(), 150);
            match (self.what)(&stamp) {
                Act::Once => self.answer(&from, &id),
                Act::Never => {}
                Act::Twice => [(); 2].into_iter().for_each(|()| self.answer(&from, &id)),
                Act::To(other) => self.answer(other, &id),
                Act::Garbled => self.answer(&from, &id.replace("ms~", "ms-")),
                Act::After(pause) => {
                    let (handle, message) = (self.handle.clone(), receipt(&from, &id));
                    thread::spawn(move || {
                        thread::sleep(pause);
                        handle.publish(vec![message], None);
                    });
                }
            }
        }
        Verdict::NotStored
    }
}

impl<F> Answerer<F> {
    fn answer(&self, to: &str, id: &str) {
        self.handle.publish(vec![receipt(to, id)], None);
    }
}

fn receipt(to: &str, id: &str) -> Message {
    Message::new(&MessageParts {
        topic: &format!("users/{to}/receipts"),
        payload: json!({"room": "a room", "id": id, "seq": 1})
            .to_string()
            .as_bytes(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: &[],
        expires_at: None,
        arrived_at: Time(0),
    })
}

fn broker(what: impl Fn(&Stamp) -> Act + Send + Sync + 'static) -> (SocketAddr, Running) {
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        ..Config::default()
    };
    let broker = Broker::bind(config).unwrap();
    let (address, handle) = (broker.local_addr(), broker.handle());
    (
        address,
        broker.start(Arc::new(Answerer { handle, what })).unwrap(),
    )
}

/// Four writers in two rooms each, and a reader of all rooms: 200 messages, 25 of each writer and room.
fn plan(limits: &str, drain_max_s: f64) -> Plan {
    let text = format!(
        "name = \"answers\"\n[run]\nwarm_up_s = 0\nseconds = 0.5\ndrain_max_s = {drain_max_s:?}\n[limits]\n{limits}\n\
         [[group]]\nname = \"w\"\nclients = 4\n\
         [[group.subscribe]]\nfilter = \"users/w-{{n}}/receipts\"\nqos = 1\nanswers = \"chat\"\n\
         [[group]]\nname = \"r\"\nclients = 1\n[[group.subscribe]]\nfilter = \"rooms/#\"\nqos = 1\n\
         [[stream]]\nname = \"chat\"\ngroup = \"w\"\ntopic = \"rooms/{{n}}\"\ntopics = 8\nqos = 1\nper_second = 400\n\
         payload = '{{\"from\":\"w-{{publisher}}\",\"id\":\"{{stamp}}\",\"at\":{{\"room\":{{n}}}},\"text\":\"{{fill}}\"}}'\n\
         payload_bytes = 150\n"
    );
    Scenario::parse(&text, "answers")
        .unwrap()
        .plan(7, 1)
        .unwrap()
}

fn run_in(shares: u32, plan: &Plan, address: SocketAddr) -> Report {
    let gates = Gates::new(shares);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..shares)
            .map(|index| {
                let share = Share {
                    index,
                    count: shares,
                };
                let mut gate = gates.of(index);
                let options = RealOptions {
                    share,
                    ..RealOptions::new(address, plan.clients())
                };
                scope.spawn(move || {
                    let mut swarm = RealSwarm::new(options).unwrap();
                    run(plan, share, &mut swarm, &mut gate)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut report = Report::default();
    merge(plan, &outcomes, &[], false, &mut report);
    report
}

#[test]
fn each_message_is_answered_to_its_publisher() {
    let (address, running) = broker(|_| Act::Once);
    for shares in [1, 2] {
        let report = run_in(shares, &plan("", 10.0), address);
        assert_eq!(report.failures, [""; 0], "{shares}");
        let [answers, messages] = &report.audiences[..] else {
            panic!("{:?}", report.audiences);
        };
        assert!(answers.answers && !messages.answers);
        assert_eq!((answers.subscribers, messages.subscribers), (4, 1));
        for audience in [answers, messages] {
            assert_eq!((audience.expected, audience.delivered), (200, 200));
            assert_eq!(audience.latency.count(), 200);
        }
        assert_eq!((report.foreign, report.misdelivered), (0, 0));
        let text = text::text(&report, false);
        let name = "answers to chat → w (users/w-{n}/receipts)";
        assert_eq!(text.matches(name).count(), 2, "{text}");
    }
    running.shutdown();
}

#[test]
fn what_is_not_answered_or_answered_wrongly_is_told_with_its_figures() {
    let (address, running) = broker(|stamp| match stamp.number {
        3 => Act::Never,
        7 => Act::Twice,
        11 if stamp.lane % 4 == 2 => Act::To("w-1"),
        11 => Act::To("w-2"),
        15 => Act::Garbled,
        24 => Act::Never,
        _ => Act::Once,
    });
    let who = "answers to stream \"chat\" to group \"w\" (users/w-{n}/receipts)";
    let missing = format!("32 {who} are missing");
    let twice = format!("8 {who} came more than once");
    let wrong = "8 messages came to clients that had not asked for them".to_owned();
    for (shares, limits, wanted) in [
        (1, "", vec![&missing, &twice, &wrong]),
        (2, "", vec![&missing, &twice, &wrong]),
        (1, "duplicates_max = 8\nmissing_max = 32\n", vec![&wrong]),
    ] {
        let report = run_in(shares, &plan(limits, 0.5), address);
        assert_eq!(report.failures.iter().collect::<Vec<_>>(), wanted);
        let [answers, messages] = &report.audiences[..] else {
            panic!("{:?}", report.audiences);
        };
        assert_eq!((answers.expected, answers.delivered), (200, 168));
        assert_eq!(messages.delivered, 200);
        assert_eq!(answers.worst.len(), 4);
        assert_eq!(
            (answers.worst[0].missing, answers.worst[0].duplicates),
            (8, 2)
        );
        assert_eq!((report.foreign, report.misdelivered), (8, 8));
    }
    running.shutdown();
}

/// Longer than silence is taken for the end where nothing is owed.
#[test]
fn answers_that_take_long_are_waited_for_in_every_share() {
    const PAUSE: Duration = Duration::from_secs(5);
    let (address, running) = broker(|stamp| match stamp.number {
        24 => Act::After(PAUSE),
        _ => Act::Once,
    });
    let report = run_in(2, &plan("", 20.0), address);
    assert_eq!(report.failures, [""; 0]);
    let latency = &report.audiences[0].latency;
    assert_eq!(latency.count(), 200);
    assert!(
        latency.max_ms() >= PAUSE.as_secs_f64() * 1e3,
        "{}",
        latency.max_ms()
    );
    running.shutdown();
}
