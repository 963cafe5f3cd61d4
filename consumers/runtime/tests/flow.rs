//! The runtime on a real Apache Kafka: what is read, answered, condemned, retried and committed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use envelope::Downlink;
use prometheus::Registry;
use runtime::{
    Batch, Config, Consumer, HandleError, Handler, Outcome, Poison, Stage, StartError, State,
    Tuning, start,
};
use testkit::kafka::{Kafka, Sent};
use testkit::{unique, until};

/// What a handler was given and applied: partition, offset, payload.
type Seen = Arc<Mutex<Vec<(i32, i64, String)>>>;

/// Notes what it applies; a function decides what becomes of a call.
struct Recorder<F> {
    seen: Seen,
    decide: F,
}

impl<F> Handler for Recorder<F>
where
    F: FnMut(&[Batch]) -> Result<Outcome, HandleError> + Send + 'static,
{
    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        let outcome = (self.decide)(batches)?;
        let mut seen = self.seen.lock().unwrap();
        for record in batches.iter().flat_map(Batch::iter) {
            let text = String::from_utf8_lossy(record.payload()).into_owned();
            seen.push((record.partition(), record.offset(), text));
        }
        Ok(outcome)
    }
}

struct Test {
    kafka: &'static Kafka,
    config: Config,
    topic: String,
}

impl Test {
    /// A topic, its downlink topic, and a configuration to consume it that loses no time.
    async fn new(name: &str, partitions: i32) -> Self {
        let kafka = Kafka::shared();
        let topic = unique(name);
        let downlink_topic = unique("downlink");
        kafka.make_topic(&topic, partitions, &[]).await;
        kafka.make_topic(&downlink_topic, 1, &[]).await;
        let tuning = Tuning {
            batch_records_max: 50,
            commit_interval_ms: 50,
            retry_backoff_ms_min: 20,
            retry_backoff_ms_max: 200,
            produce_timeout_ms: 5_000,
            ..Tuning::default()
        };
        let config = Config {
            kafka: kafka.bootstrap().to_owned(),
            group: unique("group"),
            topics: vec![topic.clone()],
            downlink_topic,
            tuning,
        };
        Self {
            kafka,
            config,
            topic,
        }
    }

    async fn start(
        &self,
        decide: impl FnMut(&[Batch]) -> Result<Outcome, HandleError> + Send + 'static,
    ) -> (Consumer, Seen) {
        let seen = Seen::default();
        let handler = Recorder {
            seen: Arc::clone(&seen),
            decide,
        };
        let running = start(self.config.clone(), handler, &Registry::new())
            .await
            .expect("it starts");
        (running, seen)
    }

    fn append(&self, partition: i32, numbers: std::ops::Range<usize>) {
        let records =
            numbers.map(|number| Sent::mqtt("a/b", number.to_string()).in_partition(partition));
        self.kafka.append(&self.topic, records);
    }
}

fn count(seen: &Seen) -> usize {
    seen.lock().unwrap().len()
}

/// Every record from offset 0 on was applied exactly once and in order.
fn assert_each_once_in_order(seen: &Seen, partition: i32, records: usize) {
    let seen = seen.lock().unwrap();
    let offsets: Vec<_> = seen
        .iter()
        .filter(|(p, ..)| *p == partition)
        .map(|(_, offset, _)| *offset)
        .collect();
    let expected: Vec<_> = (0..i64::try_from(records).unwrap()).collect();
    assert_eq!(offsets, expected, "partition {partition}");
}

fn nothing(_: &[Batch]) -> Result<Outcome, HandleError> {
    Ok(Outcome::default())
}

/// A receipt for every record.
fn receipts(batches: &[Batch]) -> Result<Outcome, HandleError> {
    let receipt = |record: runtime::Record<'_>| {
        let envelope = record.envelope().expect("an envelope");
        Downlink::new(
            format!("{}/receipt", envelope.topic),
            record.offset().to_string(),
        )
        .qos(1)
    };
    let downlink = batches.iter().flat_map(Batch::iter).map(receipt).collect();
    Ok(Outcome {
        downlink,
        poison: Vec::new(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_handled_once_in_order_answered_and_committed() {
    let test = Test::new("flow", 3).await;
    for partition in 0..3 {
        test.append(partition, 0..200);
    }
    let (running, seen) = test.start(receipts).await;
    until("all records are handled", || count(&seen) == 600).await;
    until("the lag is known to be none", || {
        let status = running.status();
        status.partitions.len() == 3
            && status
                .partitions
                .iter()
                .all(|partition| partition.lag == Some(0))
    })
    .await;
    let status = running.status();
    assert_eq!((status.state, status.problem), (State::Running, None));
    assert_eq!(
        (status.records, status.downlinks, status.failures),
        (600, 600, 0)
    );
    running.shutdown().await.unwrap();
    assert_eq!(running.status().state, State::Stopped);

    for partition in 0..3 {
        assert_each_once_in_order(&seen, partition, 200);
        assert_eq!(
            test.kafka
                .committed(&test.config.group, &test.topic, partition),
            200
        );
    }
    let downlink = test.kafka.read_all(&test.config.downlink_topic);
    assert_eq!(downlink.len(), 600);
    assert_eq!(downlink[0].header("mqtt.topic"), Some("a/b/receipt"));
    assert_eq!(
        (downlink[0].header("mqtt.qos"), downlink[0].text()),
        (Some("1"), "0")
    );
    assert_eq!(downlink[0].key.as_deref(), Some(&b"a/b/receipt"[..]));

    // Started again, it goes on where it stopped.
    test.append(1, 200..210);
    let (running, seen) = test.start(nothing).await;
    until("the new records are handled", || count(&seen) == 10).await;
    running.shutdown().await.unwrap();
    assert_eq!(seen.lock().unwrap()[0], (1, 200, "200".to_owned()));
    assert_eq!(count(&seen), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_becomes_a_dead_letter_and_blocks_nothing() {
    let test = Test::new("poison", 1).await;
    test.append(0, 0..20);
    let mut bad = Sent::mqtt("a/b", "bad");
    bad.headers.push(("mqtt.user.k".to_owned(), b"v".to_vec()));
    test.kafka.append(&test.topic, [bad]);
    // A tombstone without a key is not even an envelope.
    test.kafka.append(&test.topic, [Sent::default()]);
    test.append(0, 22..40);
    let (running, seen) = test
        .start(|batches| {
            let mut outcome = Outcome::default();
            for record in batches.iter().flat_map(Batch::iter) {
                match record.envelope() {
                    Err(error) => {
                        let poison = Poison::new(
                            record,
                            Stage::HeaderConverter,
                            "NoEnvelope",
                            error.to_string(),
                        );
                        outcome.poison.push(poison);
                    }
                    Ok(_) if record.payload() == b"bad" => {
                        outcome.poison.push(Poison::new(
                            record,
                            Stage::ValueConverter,
                            "Bad",
                            "it says bad",
                        ));
                    }
                    Ok(_) => {}
                }
            }
            Ok(outcome)
        })
        .await;
    until("all records are handled", || count(&seen) == 40).await;
    until("both are counted", || running.status().dead_letters == 2).await;
    running.shutdown().await.unwrap();

    let letters = test.kafka.read_all(&format!("{}.dlq", test.topic));
    assert_eq!(letters.len(), 2);
    let letter = &letters[0];
    assert_eq!(
        (letter.key.as_deref(), letter.text()),
        (Some(&b"a/b"[..]), "bad")
    );
    for (name, value) in [
        ("mqtt.topic", "a/b"),
        ("mqtt.user.k", "v"),
        ("__connect.errors.topic", test.topic.as_str()),
        ("__connect.errors.partition", "0"),
        ("__connect.errors.offset", "20"),
        (
            "__connect.errors.connector.name",
            test.config.group.as_str(),
        ),
        ("__connect.errors.stage", "VALUE_CONVERTER"),
        ("__connect.errors.exception.class.name", "Bad"),
        ("__connect.errors.exception.message", "it says bad"),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    assert_eq!(
        (letters[1].key.as_deref(), letters[1].payload.as_deref()),
        (None, None)
    );
    let message = letters[1]
        .header("__connect.errors.exception.message")
        .unwrap();
    assert!(
        message.contains("neither the header mqtt.topic nor a key"),
        "{message}"
    );
    assert_eq!(test.kafka.committed(&test.config.group, &test.topic, 0), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_goes_without_its_payload() {
    let test = Test::new("large", 1).await;
    test.kafka
        .make_topic(
            &format!("{}.dlq", test.topic),
            1,
            &[("max.message.bytes", "2000")],
        )
        .await;
    // Random letters, so that compression does not make it fit.
    let payload: Vec<u8> = (0..4_000u32)
        .map(|n| b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)
        .collect();
    test.kafka.append(&test.topic, [Sent::mqtt("a/b", payload)]);
    let (running, _) = test
        .start(|batches| {
            let poison = |record| Poison::new(record, Stage::TaskPut, "Bad", "no good");
            let poison = batches.iter().flat_map(Batch::iter).map(poison).collect();
            Ok(Outcome {
                downlink: Vec::new(),
                poison,
            })
        })
        .await;
    until("it is a dead letter", || running.status().dead_letters == 1).await;
    running.shutdown().await.unwrap();
    let letters = test.kafka.read_all(&format!("{}.dlq", test.topic));
    assert_eq!((letters.len(), letters[0].payload.as_deref()), (1, None));
    let message = letters[0]
        .header("__connect.errors.exception.message")
        .unwrap();
    assert!(
        message.starts_with("no good (the payload is too large"),
        "{message}"
    );
    assert_eq!(letters[0].header("__connect.errors.offset"), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_is_no_text_is_poison_and_no_crash() {
    let test = Test::new("header", 1).await;
    // Only a client that checks nothing can write this.
    let mut kcat = std::process::Command::new("kcat");
    let name = unsafe_header();
    kcat.args([
        "-b",
        &test.config.kafka,
        "-t",
        &test.topic,
        "-P",
        "-k",
        "a/b",
        "-H",
    ])
    .arg(name);
    let mut child = kcat
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("kcat is installed");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
    assert!(child.wait().unwrap().success());
    let (running, seen) = test
        .start(|batches| {
            let mut outcome = Outcome::default();
            for record in batches.iter().flat_map(Batch::iter) {
                let error = record.envelope().expect_err("no envelope").to_string();
                outcome.poison.push(Poison::new(
                    record,
                    Stage::HeaderConverter,
                    "NoEnvelope",
                    error,
                ));
            }
            Ok(outcome)
        })
        .await;
    until("it is a dead letter", || running.status().dead_letters == 1).await;
    running.shutdown().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, 0, "x".to_owned())]);
    let letter = &test.kafka.read_all(&format!("{}.dlq", test.topic))[0];
    assert_eq!(
        letter.header("__connect.errors.exception.message"),
        Some("the name of a header is not UTF-8")
    );
}

fn unsafe_header() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"\xff\xfe=1".to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_pauses_its_partition_and_no_other() {
    let test = Test::new("transient", 3).await;
    for partition in 0..3 {
        test.append(partition, 0..100);
    }
    let broken = Arc::new(Mutex::new(true));
    let still_broken = Arc::clone(&broken);
    let (running, seen) = test
        .start(move |batches| {
            if *still_broken.lock().unwrap() && batches.iter().any(|batch| batch.partition() == 1) {
                return Err(HandleError::Transient("the disk is full".to_owned()));
            }
            Ok(Outcome::default())
        })
        .await;
    until("the others are handled", || count(&seen) == 200).await;
    until("the status tells", || {
        let status = running.status();
        status.state == State::Retrying
            && status
                .partitions
                .iter()
                .all(|partition| partition.lag.is_some())
    })
    .await;
    let status = running.status();
    let problem = status.problem.unwrap();
    assert!(
        problem.contains("/1 is paused and retried: the disk is full"),
        "{problem}"
    );
    let retry = status.partitions[1]
        .retry
        .as_ref()
        .expect("partition 1 retries");
    assert_eq!(retry.error, "the disk is full");
    assert_eq!(status.partitions[1].lag, Some(100));
    assert!(status.partitions[0].retry.is_none() && status.partitions[2].retry.is_none());

    // What comes meanwhile waits for one and is handled for the others.
    for partition in 0..3 {
        test.append(partition, 100..150);
    }
    until("the others go on", || count(&seen) == 300).await;
    until("it was tried several times", || {
        running.status().failures >= 4
    })
    .await;
    *broken.lock().unwrap() = false;
    until("all records are handled", || count(&seen) == 450).await;
    until("it runs again", || running.status().state == State::Running).await;
    running.shutdown().await.unwrap();
    for partition in 0..3 {
        assert_each_once_in_order(&seen, partition, 150);
        assert_eq!(
            test.kafka
                .committed(&test.config.group, &test.topic, partition),
            150
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_has_failed_and_is_made_again() {
    struct Hangs(u32);
    impl Handler for Hangs {
        async fn handle(&mut self, _: &[Batch]) -> Result<Outcome, HandleError> {
            self.0 += 1;
            if self.0 == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::default())
        }
    }
    let mut test = Test::new("hang", 1).await;
    test.config.tuning.handle_timeout_ms = 100;
    test.append(0, 0..10);
    let running = start(test.config.clone(), Hangs(0), &Registry::new())
        .await
        .unwrap();
    until("the second call went well", || {
        running.status().records == 10
    })
    .await;
    assert_eq!(running.status().failures, 1);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_failure_stops_the_consumer_and_commits_nothing_of_it() {
    let test = Test::new("fatal", 1).await;
    test.append(0, 0..10);
    let (running, seen) = test
        .start(|_| {
            Err(HandleError::Fatal(
                "the store is another version's".to_owned(),
            ))
        })
        .await;
    assert_eq!(
        running.ended().await,
        Err("the store is another version's".to_owned())
    );
    let status = running.status();
    assert_eq!(status.state, State::Failed);
    assert_eq!(
        status.problem.as_deref(),
        Some("the store is another version's")
    );
    assert_eq!(
        running.shutdown().await,
        Err("the store is another version's".to_owned())
    );
    assert_eq!(count(&seen), 0);
    assert_eq!(test.kafka.committed(&test.config.group, &test.topic, 0), -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_stops_the_consumer_and_says_so() {
    let test = Test::new("panic", 1).await;
    test.append(0, 0..1);
    let (running, _) = test.start(|_| panic!("out of cheese")).await;
    assert_eq!(
        running.ended().await,
        Err("the consumer panicked: out of cheese".to_owned())
    );
    assert_eq!(running.status().state, State::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_the_partitions_and_one_that_leaves_hands_over() {
    let test = Test::new("share", 4).await;
    for partition in 0..4 {
        test.append(partition, 0..50);
    }
    let (first, seen_by_first) = test.start(nothing).await;
    until("the first handles all", || count(&seen_by_first) == 200).await;
    let (second, seen_by_second) = test.start(nothing).await;
    until("they share", || {
        first.status().partitions.len() == 2 && second.status().partitions.len() == 2
    })
    .await;
    for partition in 0..4 {
        test.append(partition, 50..100);
    }
    until("both handle", || {
        count(&seen_by_first) + count(&seen_by_second) == 400
    })
    .await;
    assert!(
        count(&seen_by_second) == 100,
        "each partition goes to one of them"
    );

    // One leaves while records flow; the other takes over where it stopped.
    for partition in 0..4 {
        test.append(partition, 100..300);
    }
    first.shutdown().await.unwrap();
    until("the second has all", || {
        second.status().partitions.len() == 4
    })
    .await;
    until("nothing is missing", || {
        count(&seen_by_first) + count(&seen_by_second) >= 1_200
    })
    .await;
    second.shutdown().await.unwrap();

    let mut all = seen_by_first.lock().unwrap().clone();
    all.extend(seen_by_second.lock().unwrap().iter().cloned());
    all.sort();
    let expected: Vec<_> = (0..4)
        .flat_map(|partition| (0..300).map(move |offset| (partition, offset, offset.to_string())))
        .collect();
    assert_eq!(
        all, expected,
        "a graceful handover repeats nothing and skips nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_not_committed_come_again() {
    let test = Test::new("again", 1).await;
    test.append(0, 0..30);
    let (running, seen) = test.start(nothing).await;
    until("all records are handled", || count(&seen) == 30).await;
    running.shutdown().await.unwrap();
    test.kafka
        .set_committed(&test.config.group, &test.topic, 0, 10);
    let (running, seen) = test.start(receipts).await;
    until("the rest comes again", || running.status().downlinks == 20).await;
    running.shutdown().await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].1, 10);
    assert_eq!(test.kafka.count(&test.config.downlink_topic), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_do_not_exist_are_told_and_waited_for() {
    let mut test = Test::new("missing", 1).await;
    test.topic = unique("late");
    test.config.topics = vec![test.topic.clone()];
    test.config.downlink_topic = unique("late-downlink");
    let (running, seen) = test.start(receipts).await;
    until("the status names it", || {
        running
            .status()
            .problem
            .is_some_and(|problem| problem.contains(&test.topic))
    })
    .await;
    test.kafka.make_topic(&test.topic, 1, &[]).await;
    test.append(0, 0..10);
    until("answers cannot be stored", || {
        let status = running.status();
        status.state == State::Retrying
            && status
                .problem
                .is_some_and(|problem| problem.contains("answers"))
    })
    .await;
    assert_eq!(
        test.kafka.committed(&test.config.group, &test.topic, 0),
        -1,
        "not before the answers are stored"
    );
    test.kafka
        .make_topic(&test.config.downlink_topic, 1, &[])
        .await;
    until("all is answered", || running.status().downlinks == 10).await;
    running.shutdown().await.unwrap();
    assert!(count(&seen) >= 10);
    assert_eq!(test.kafka.committed(&test.config.group, &test.topic, 0), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_cannot_be_spoken_to_says_what_to_look_at() {
    let kafka = Kafka::start_secure();
    let (plain, tls, sasl) = (kafka.bootstrap().to_owned(), kafka.tls(), kafka.sasl());
    let ssl = [("security.protocol", "ssl")];
    let login = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "mill"),
        ("sasl.password", "stroam"),
    ];
    type Properties<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Properties<'_>, &str); 6] = [
        (
            "no-such-host.invalid:9092",
            &[],
            "nobody knows a host of this name",
        ),
        (
            &plain,
            &ssl,
            "TLS is spoken to a port that does not speak it",
        ),
        (&tls, &[], "if the port wants TLS"),
        (&tls, &ssl, "certificate is not trusted"),
        (&sasl, &login, "does not accept the SASL login"),
        ("127.0.0.1:1", &[], "is it running"),
    ];
    for (address, properties, says) in cases {
        let mut config = Config {
            kafka: address.to_owned(),
            group: "g".to_owned(),
            topics: vec!["t".to_owned()],
            downlink_topic: "d".to_owned(),
            tuning: Tuning {
                start_timeout_ms: 3_000,
                ..Tuning::default()
            },
        };
        for (name, value) in properties {
            config.tuning.properties.insert(name, value);
        }
        let handler = Recorder {
            seen: Seen::default(),
            decide: nothing,
        };
        let error = start(config, handler, &Registry::new())
            .await
            .expect_err("it cannot be spoken to")
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(!error.contains("stroam"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_not_there_is_one_sentence_at_the_start() {
    let config = Config {
        kafka: "127.0.0.1:1".to_owned(),
        group: "g".to_owned(),
        topics: vec!["t".to_owned()],
        downlink_topic: "d".to_owned(),
        tuning: Tuning {
            start_timeout_ms: 1_500,
            ..Tuning::default()
        },
    };
    let handler = Recorder {
        seen: Seen::default(),
        decide: nothing,
    };
    let error = start(config, handler, &Registry::new())
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, StartError::Unreachable { .. }));
    let sentence = error.to_string();
    assert!(
        sentence.starts_with("Kafka at 127.0.0.1:1 cannot be reached: "),
        "{sentence}"
    );
    assert!(sentence.contains("Connection refused"), "{sentence}");
    assert!(!sentence.contains('\n'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_goes_away_is_waited_for() {
    let kafka = Box::leak(Box::new(Kafka::start()));
    let mut test = Test::new("outage", 1).await;
    kafka.make_topic(&test.topic, 2, &[]).await;
    kafka.make_topic(&test.config.downlink_topic, 1, &[]).await;
    test.kafka = kafka;
    // After an outage Kafka waits for the member that it remembers for so long.
    test.config.tuning.session_timeout_ms = 6_000;
    kafka.bootstrap().clone_into(&mut test.config.kafka);
    test.append(0, 0..50);
    let (running, seen) = test.start(receipts).await;
    until("the first records are handled", || count(&seen) == 50).await;
    kafka.stop();
    until("the status tells", || {
        running.status().state == State::Unreachable
    })
    .await;
    let status = running.status();
    let problem = status.problem.unwrap();
    assert!(
        problem.starts_with(&format!("Kafka at {} cannot be reached", kafka.bootstrap())),
        "{problem}"
    );
    assert!(status.kafka_unreachable_since_ms.is_some());
    kafka.start_again();
    test.append(0, 50..100);
    until("it goes on", || {
        eprintln!("{:?}", running.status());
        running.status().records >= 100
    })
    .await;
    until("the status is good again", || {
        let status = running.status();
        status.state == State::Running && status.kafka_unreachable_since_ms.is_none()
    })
    .await;
    kafka.stop();
    until("it is away again", || {
        running.status().state == State::Unreachable
    })
    .await;
    // It ends although nobody can be told.
    tokio::time::timeout(Duration::from_secs(60), running.shutdown())
        .await
        .expect("it ends")
        .unwrap();
    let mut offsets: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, offset, _)| *offset)
        .collect();
    offsets.dedup();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}
