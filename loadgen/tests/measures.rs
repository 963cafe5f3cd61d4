//! Every measure, small, on a broker in this process: the counts must add up. What the figures are is not tested.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use broker::{Broker, Config, Incoming, NoSink, Refusal, Running, Sink, Token, Verdict};
use codec::{ReasonCode, Version};
use loadgen::measure::{FanOut, Idle, MeasureError, Pairs, Persisted, Target, Topics};

struct Under {
    target: Target,
    running: Option<Running>,
}

/// A broker on a free port.
fn broker(version: Version, sink: Arc<dyn Sink>) -> Under {
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        workers: 2,
        ..Config::default()
    };
    let broker = Broker::bind(config).unwrap();
    let target = Target {
        broker: broker.local_addr(),
        pid: Some(std::process::id()),
        version,
    };
    let running = Some(broker.start(sink).unwrap());
    Under { target, running }
}

impl Drop for Under {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}

#[test]
fn idle_connects_and_subscribes_every_client() {
    let under = broker(Version::V5, Arc::new(NoSink));
    let report = Idle { clients: 300 }.run(&under.target).unwrap();
    assert_eq!(report.clients, 300);
    assert!(report.connects_per_second > 0.0 && report.subscribes_per_second > 0.0);
    assert!(report.anonymous_bytes_after > 0);
}

#[test]
fn idle_needs_a_process_to_look_at() {
    let under = broker(Version::V311, Arc::new(NoSink));
    let target = Target {
        pid: None,
        ..under.target.clone()
    };
    let error = Idle { clients: 1 }.run(&target).unwrap_err();
    assert!(matches!(error, MeasureError::NoProcess), "{error}");
}

#[test]
fn fan_out_counts_whole_bursts_to_all_subscribers() {
    let under = broker(Version::V311, Arc::new(NoSink));
    for burst in [1, 10] {
        let measure = FanOut {
            subscribers: 20,
            burst,
            payload_bytes: 100,
            seconds: 1,
        };
        let report = measure.run(&under.target).unwrap();
        assert!(report.rounds > 0);
        assert_eq!(report.lost, 0);
        assert_eq!(report.delivery.count, report.rounds * u64::from(burst) * 20);
    }
}

#[test]
fn pairs_count_messages_that_arrived_and_were_acknowledged() {
    let under = broker(Version::V31, Arc::new(NoSink));
    let measure = Pairs {
        pairs: 10,
        payload_bytes: 8,
        seconds: 1,
    };
    let report = measure.run(&under.target).unwrap();
    assert!(report.message.count >= 10);
    assert_eq!(report.message.count, report.round_trip.count);
}

#[test]
fn pairs_refuse_a_payload_without_room_for_the_stamp() {
    let under = broker(Version::V5, Arc::new(NoSink));
    let measure = Pairs {
        pairs: 1,
        payload_bytes: 7,
        seconds: 1,
    };
    let error = measure.run(&under.target).unwrap_err().to_string();
    assert!(error.contains("--payload-bytes"), "{error}");
}

#[test]
fn topics_are_shared_out_among_subscribers_and_each_is_reached() {
    let under = broker(Version::V5, Arc::new(NoSink));
    let measure = Topics {
        // Not a multiple of the subscribers: some hold one more.
        topics: 1_003,
        subscribers: 10,
        window: 16,
        payload_bytes: 0,
        seconds: 1,
    };
    let report = measure.run(&under.target).unwrap();
    assert!(report.publish.count > 1_003);
    assert!(report.publish.broker_cpu_us.is_some());
}

fn persisted(rate: u64) -> Persisted {
    Persisted {
        rate,
        seconds: 1,
        warm_up_seconds: 1,
        publishers: 3,
        window: 5,
        payload_bytes: 20,
        topic_prefix: "load/test".to_owned(),
    }
}

#[test]
fn persisted_sends_the_whole_schedule_and_its_ledger_balances() {
    let under = broker(Version::V311, Arc::new(NoSink));
    let report = persisted(1_000).run(&under.target).unwrap();
    assert_eq!(report.ledger.sent, 2_000);
    assert_eq!(report.ledger.acknowledged, 2_000);
    assert_eq!((report.unsent, report.closed), (0, 0));
    assert!(report.ledger_balances);
    assert_eq!(report.latency.count, 1_000);
}

/// Refuses every fourth message by the stamp in its payload.
struct Picky;

impl Sink for Picky {
    fn accept(&self, publish: &Incoming<'_>, _: Token) -> Verdict {
        let stamp = u64::from_be_bytes(*publish.payload.first_chunk().unwrap());
        if stamp.is_multiple_of(4) {
            Verdict::Refused(Refusal::NotAuthorized)
        } else {
            Verdict::Accepted
        }
    }
}

#[test]
fn refused_messages_are_counted_by_reason() {
    let under = broker(Version::V5, Arc::new(Picky));
    let report = persisted(1_000).run(&under.target).unwrap();
    let reason = ReasonCode::NOT_AUTHORIZED.to_string();
    assert_eq!(report.ledger.refused.get(&reason), Some(&500));
    assert_eq!(report.ledger.acknowledged, 1_500);
    assert!(report.ledger_balances);
}

#[test]
fn publishers_that_are_cut_leave_their_messages_unanswered_and_unsent() {
    // A 3.x client cannot be told of a refusal, so the broker ends its connection.
    let under = broker(Version::V311, Arc::new(Picky));
    let report = persisted(1_000).run(&under.target).unwrap();
    assert_eq!(report.closed, 3);
    assert!(report.ledger.unanswered >= 3, "{:?}", report.ledger);
    assert_eq!(report.unsent, 2_000 - report.ledger.sent);
    assert!(report.ledger_balances);
}

#[test]
fn a_broker_that_does_not_listen_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let target = Target {
        broker,
        pid: None,
        version: Version::V5,
    };
    let error = persisted(1).run(&target).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
