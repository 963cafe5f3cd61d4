//! Sink and poll thread together, against librdkafka's in-memory Kafka, which can be told to fail. What only a real Kafka
//! can show (outages, restarts, sizes) is in the crate's `tests/`.

use std::collections::HashMap;
use std::sync::Mutex;

use broker::codec::{Properties, Qos, Version};
use broker::{Incoming, Refusal, Sink as _, Verdict};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::*;
use crate::config::Config;
use crate::lanes::Lanes;
use crate::partitions::Partitions;
use crate::routes::{Ack, Deliver, RouteConfig, Routes};

const TOPIC: &str = "mqtt.messages";
const DEADLINE: Duration = Duration::from_secs(30);
const PENDING: Verdict = Verdict::Pending {
    deliver: broker::Deliver::Now,
};

/// Remembers what it was told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<HeardInner>>);

#[derive(Default)]
struct HeardInner {
    /// Panics when it is next told something.
    is_trap: bool,
    died_of: Option<String>,
    settled: HashMap<u64, Settlement>,
    calls: usize,
    ready: usize,
}

impl Outlet for Heard {
    fn settle(&self, batch: &mut Vec<(Token, Settlement)>) {
        let mut heard = self.0.lock().unwrap();
        if heard.is_trap {
            drop(heard);
            panic!("a trap of this test");
        }
        heard.calls += 1;
        for (token, settlement) in batch.drain(..) {
            assert_eq!(
                heard.settled.insert(token.0, settlement),
                None,
                "a token is settled once"
            );
        }
    }

    fn sink_ready(&self) {
        self.0.lock().unwrap().ready += 1;
    }

    fn died(&self, panic: Box<dyn Any + Send>) {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        self.0.lock().unwrap().died_of = text;
    }
}

#[test]
fn a_poll_thread_that_panics_is_told_of() {
    let fixture = Fixture::start(|_| ());
    fixture.heard.0.lock().unwrap().is_trap = true;
    assert_eq!(fixture.publish(1), PENDING);
    fixture.wait("the panic", |heard, _| {
        heard.died_of.as_deref() == Some("a trap of this test")
    });
}

/// The key of a message that goes to this partition of two.
fn key_of(partition: i32) -> String {
    let mut keys = (0..).map(|number| format!("key/{number}"));
    let fits = |key: &String| envelope::partition(key.as_bytes(), 2) == partition;
    keys.find(fits).unwrap()
}

#[test]
fn a_leader_that_says_nothing_does_not_hold_up_the_turn_to_far_producers() {
    let kafka = Fixture::of_brokers(2, |_| ());
    let offer = |partition, token| {
        let key = key_of(partition);
        let verdict = kafka.offer(&key, Qos::AtLeastOnce, b"x", Token(token));
        assert_eq!(verdict, PENDING);
    };
    offer(0, 0);
    offer(1, 1);
    kafka.wait("both are stored", |heard, _| heard.settled.len() == 2);
    let forever = Duration::from_secs(3_600);
    kafka.cluster.broker_round_trip_time(2, forever).unwrap();
    offer(1, 2);
    kafka.sink.is_far();
    kafka.wait("the lanes turn", |_, _| {
        kafka.sink.lanes.distance() == Distance::Turning
    });
    for token in 10..60 {
        offer(0, token);
        offer(1, 1_000 + token);
    }
    kafka.wait("the other leader's are stored", |heard, _| {
        (10..60).all(|token| heard.settled.contains_key(&token))
    });
    assert_eq!(kafka.sink.lanes.distance(), Distance::Turning);
    assert_eq!(kafka.status().waiting, 51);
    kafka
        .cluster
        .broker_round_trip_time(2, Duration::ZERO)
        .unwrap();
}

struct Fixture {
    heard: Heard,
    sink: Arc<KafkaSink>,
    poller: Poller,
    config: Config,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Fixture {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::of_brokers(1, change)
    }

    /// With so many brokers, each of which leads one partition.
    fn of_brokers(brokers: i32, change: impl FnOnce(&mut Config)) -> Self {
        let cluster = MockCluster::new(brokers).unwrap();
        cluster.create_topic(TOPIC, brokers, 1).unwrap();
        for broker in 1..=brokers {
            cluster
                .partition_leader(TOPIC, broker - 1, Some(broker))
                .unwrap();
        }
        let mut config = Config {
            kafka: cluster.bootstrap_servers(),
            node: "n1".into(),
            routes: vec![RouteConfig::new("#", TOPIC)],
            ..Config::default()
        };
        change(&mut config);
        config.validate().unwrap();
        let batch_bytes_max = config.producer.batch_bytes_max;
        let suspicions = Arc::default();
        let near = kafka::producer(&config, batch_bytes_max);
        let producer = new_producer(&near, &suspicions).unwrap();
        let routes = Routes::compile(&config.routes).unwrap();
        let leaders = (1..=brokers).collect();
        let partitions = Partitions::new([(TOPIC, leaders)].into_iter());
        let lanes = Lanes::new(producer, Arc::new(partitions), batch_bytes_max, &[]);
        let sink = Arc::new(KafkaSink::new(&config, routes, lanes, Arc::default()));
        let heard = Heard::default();
        let poller = Poller::start(
            Arc::clone(&sink),
            &config,
            batch_bytes_max,
            suspicions,
            heard.clone(),
        )
        .unwrap();
        Self {
            heard,
            sink,
            poller,
            config,
            cluster,
        }
    }

    fn offer(&self, topic: &str, qos: Qos, payload: &[u8], token: Token) -> Verdict {
        let properties = Properties::default();
        let version = Version::V5;
        let publish = Incoming {
            topic,
            payload,
            qos,
            retain: false,
            properties,
            client_id: "c1",
            principal: None,
            version,
        };
        self.sink.accept(&publish, token)
    }

    fn publish(&self, token: u64) -> Verdict {
        self.offer("a/b", Qos::AtLeastOnce, b"payload", Token(token))
    }

    fn wait(&self, what: &str, condition: impl Fn(&HeardInner, &crate::Status) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if condition(&self.heard.0.lock().unwrap(), &status) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn status(&self) -> crate::Status {
        self.sink.counters.status(
            crate::Reachability::Reachable,
            crate::DownlinkStatus::default(),
            Arc::default(),
            Vec::new(),
        )
    }

    fn settlement(&self, token: u64) -> Option<Settlement> {
        self.heard.0.lock().unwrap().settled.get(&token).copied()
    }

    /// Keys of all records in the topic.
    fn keys(&self, count: usize) -> Vec<String> {
        let mut client = kafka::client(&self.config);
        client.set("group.id", "test");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut keys = Vec::new();
        while keys.len() < count && Instant::now() < deadline {
            if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                keys.push(String::from_utf8_lossy(message.unwrap().key().unwrap()).into_owned());
            }
        }
        keys
    }
}

#[test]
fn what_kafka_confirms_is_settled_as_stored() {
    let mut kafka = Fixture::start(|_| {});
    for token in 0..1_000 {
        assert_eq!(kafka.publish(token), PENDING);
    }
    kafka.wait("all are settled", |heard, _| heard.settled.len() == 1_000);
    assert!((0..1_000).all(|token| kafka.settlement(token) == Some(Settlement::Stored)));
    let status = kafka.status();
    assert_eq!(
        (status.accepted, status.stored, status.waiting),
        (1_000, 1_000, 0)
    );
    // One call a batch and not one a message: that is what makes an acknowledgement cheap.
    assert!(kafka.heard.0.lock().unwrap().calls < 500);
    assert_eq!(kafka.poller.stop(Duration::ZERO), 0);
}

#[test]
fn a_message_after_a_rest_is_settled_too() {
    let kafka = Fixture::start(|_| {});
    for token in 0..5 {
        kafka.publish(token);
        kafka.wait("it is settled", |heard, _| {
            heard.settled.len() as u64 == token + 1
        });
        // The poll thread goes to sleep when nothing waits; the next message wakes it.
        kafka.wait("nothing waits", |_, status| status.waiting == 0);
    }
}

#[test]
fn routes_decide_about_topic_key_acknowledgement_and_delivery() {
    let kafka = Fixture::start(|config| {
        config.routes = vec![
            RouteConfig::not_stored("no/#"),
            RouteConfig {
                ack: Ack::Received,
                ..RouteConfig::new("received", TOPIC)
            },
            RouteConfig {
                deliver: Deliver::AfterPersisted,
                key: "{1}-{client_id}".into(),
                ..RouteConfig::new("after/+", TOPIC)
            },
        ];
    });
    let offer = |topic: &str, token| kafka.offer(topic, Qos::AtLeastOnce, b"x", Token(token));
    assert_eq!(offer("no/where", 0), Verdict::NotStored);
    assert_eq!(offer("elsewhere", 1), Verdict::NotStored);
    assert_eq!(offer("received", 2), Verdict::Accepted);
    assert_eq!(
        offer("after/x", 3),
        Verdict::Pending {
            deliver: broker::Deliver::AfterStored
        }
    );
    kafka.wait("both are stored", |_, status| status.stored == 2);
    kafka.wait("the pending one is settled", |heard, _| {
        heard.settled.contains_key(&3)
    });
    assert_eq!(kafka.settlement(2), None, "nobody waits for it");
    assert_eq!(kafka.keys(2), ["received", "x-c1"]);
}

#[test]
fn the_share_of_qos_0_is_one_of_bytes_too() {
    let kafka = Fixture::start(|config| {
        config.producer.message_bytes_max = 40_960;
        config.producer.queue_bytes_max = 81_920;
    });
    kafka.cluster.broker_down(1).unwrap();
    let offer = |qos, token| kafka.offer("a", qos, &[0; 20_000], Token(token));
    assert_eq!(offer(Qos::AtMostOnce, 1), PENDING);
    assert_eq!(offer(Qos::AtMostOnce, 2), PENDING);
    // 40,002 bytes wait; half of the queue is 40,960.
    assert_eq!(
        kafka.offer("a", Qos::AtMostOnce, &[0; 1_000], Token(3)),
        PENDING
    );
    assert_eq!(
        kafka.offer("a", Qos::AtMostOnce, b"x", Token(4)),
        Verdict::Busy
    );
    assert_eq!(offer(Qos::AtLeastOnce, 5), PENDING);
    let status = kafka.status();
    assert_eq!((status.waiting_bytes, status.dropped), (61_004, 1));
    kafka.cluster.broker_up(1).unwrap();
    kafka.wait("all are stored", |_, status| status.stored == 4);
    assert_eq!(kafka.status().waiting_bytes, 0);
}

#[test]
fn a_message_too_large_for_the_producer_is_refused_at_once() {
    let kafka = Fixture::start(|config| config.producer.message_bytes_max = 10_000);
    let refused = kafka.offer("a", Qos::AtLeastOnce, &[0; 20_000], Token(1));
    assert_eq!(refused, Verdict::Refused(Refusal::TooLarge));
    let status = kafka.status();
    assert_eq!(
        (status.accepted, status.refused.too_large, status.waiting),
        (1, 1, 0)
    );
}

#[test]
fn what_kafka_refuses_for_good_is_settled_with_the_reason() {
    let reasons = [
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            Refusal::TooLarge,
            2,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
            Refusal::Quota,
            2,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD,
            Refusal::Other,
            1,
        ),
    ];
    let kafka = Fixture::start(|_| {});
    // Each is refused among others and then alone; after a refusal that is not about the size, the next go alone at once.
    for (token, (error, refusal, times)) in (0..).zip(reasons) {
        kafka
            .cluster
            .request_errors(RDKafkaApiKey::Produce, &vec![error; times]);
        assert_eq!(kafka.publish(token), PENDING);
        kafka.wait("it is settled", |heard, _| {
            heard.settled.contains_key(&token)
        });
        assert_eq!(kafka.settlement(token), Some(Settlement::Refused(refusal)));
    }
    kafka.publish(99);
    kafka.wait("the next one is stored", |heard, _| {
        heard.settled.get(&99) == Some(&Settlement::Stored)
    });
    // librdkafka remembers this one for the topic, and refuses the next ones by itself.
    let unauthorized = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    kafka
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[unauthorized]);
    kafka.publish(100);
    kafka.wait("it is settled", |heard, _| {
        heard.settled.get(&100) == Some(&Settlement::Refused(Refusal::NotAuthorized))
    });
    let refused = kafka.status().refused;
    assert_eq!(
        (
            refused.too_large,
            refused.not_authorized,
            refused.quota,
            refused.other
        ),
        (1, 1, 1, 1)
    );
}

#[test]
fn without_room_publishers_are_held_until_there_is_some_and_qos_0_gives_way_first() {
    let kafka = Fixture::start(|config| config.producer.queue_messages_max = 100);
    kafka.cluster.broker_down(1).unwrap();
    let qos0 = || kafka.offer("a/b", Qos::AtMostOnce, b"x", Token::NONE);
    for _ in 0..50 {
        assert_eq!(qos0(), PENDING);
    }
    assert_eq!(qos0(), Verdict::Busy, "QoS 0 fills half of the queue");
    for token in 0..50 {
        assert_eq!(kafka.publish(token), PENDING);
    }
    assert_eq!(kafka.publish(50), Verdict::Busy);
    assert_eq!(kafka.publish(51), Verdict::Busy);
    let status = kafka.status();
    assert_eq!((status.waiting, status.dropped, status.held), (100, 1, 2));
    assert_eq!(kafka.heard.0.lock().unwrap().ready, 0);

    kafka.cluster.broker_up(1).unwrap();
    kafka.wait("there is room again", |heard, _| heard.ready == 1);
    assert_eq!(kafka.publish(50), PENDING);
    kafka.wait("all are stored", |heard, status| {
        heard.settled.len() == 51 && status.stored == 101
    });
    assert_eq!(kafka.heard.0.lock().unwrap().ready, 1, "they are told once");
}

#[test]
fn a_failed_producer_is_replaced_and_what_it_left_is_refused_never_taken_for_stored() {
    let kafka = Fixture::start(|_| {});
    kafka.publish(0);
    kafka.wait("the first is stored", |heard, _| {
        heard.settled.contains_key(&0)
    });
    kafka.cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    kafka.publish(1);
    kafka.wait("the producer is replaced", |_, status| {
        status.producer_rebuilds == 1
    });
    kafka.wait("what it left is settled", |heard, _| {
        heard.settled.contains_key(&1)
    });
    assert_eq!(
        kafka.settlement(1),
        Some(Settlement::Refused(Refusal::Other))
    );
    assert_eq!(kafka.publish(2), PENDING);
    kafka.wait("the next one is stored", |heard, _| {
        heard.settled.get(&2) == Some(&Settlement::Stored)
    });
    let status = kafka.status();
    assert_eq!(
        (status.stored, status.refused.other, status.waiting),
        (2, 1, 0)
    );
}

#[test]
fn a_stop_waits_for_kafka_and_says_what_it_could_not_wait_for() {
    let mut kafka = Fixture::start(|_| {});
    kafka.publish(0);
    assert_eq!(kafka.poller.stop(DEADLINE), 0);
    assert_eq!(kafka.settlement(0), Some(Settlement::Stored));
    assert_eq!(kafka.publish(1), Verdict::Busy, "nobody polls any more");

    let mut kafka = Fixture::start(|_| {});
    kafka.cluster.broker_down(1).unwrap();
    kafka.publish(0);
    assert_eq!(kafka.poller.stop(Duration::from_millis(50)), 1);
    assert_eq!(kafka.settlement(0), None);
}
