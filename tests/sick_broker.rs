//! One of three Kafka brokers is sick: it stands still, or nothing comes through to it. What the others have goes on, in the
//! bridge and in a backend, and what does not is said by name.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::far::Far;
use testkit::kafka::{Kafka, Sent, partition_of};
use testkit::millstream::{Millstream, configuration};
use testkit::publisher::Publisher;
use testkit::{eventually, unique};

/// Three brokers, of which the third can be cut off. They end with the process.
struct Cluster {
    far: Far,
    brokers: [Kafka; 3],
}

/// One test at a time: each makes a broker sick.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: LazyLock<Mutex<Cluster>> = LazyLock::new(|| {
        let far = Far::listen(Duration::ZERO);
        let brokers = Kafka::cluster_with_one_behind(&far);
        Mutex::new(Cluster { far, brokers })
    });
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    fn kafka(&self) -> &Kafka {
        &self.brokers[0]
    }

    /// A topic with one replica of each partition, led by these of the three.
    fn topic(&self, name: &str, led_by: &[usize]) -> String {
        let name = unique(name);
        self.named_topic(&name, led_by);
        name
    }

    fn named_topic(&self, name: &str, led_by: &[usize]) {
        let leaders: Vec<[i32; 1]> = led_by.iter().map(|at| [self.brokers[*at].id()]).collect();
        let leaders: Vec<&[i32]> = leaders.iter().map(|leader| &leader[..]).collect();
        self.kafka().make_topic_on(name, &leaders);
    }
}

fn problems(system: &Millstream) -> Vec<String> {
    let status = system.json("/api/status");
    let problems = status["problems"].as_array().expect("a list").iter();
    problems
        .map(|problem| problem.as_str().expect("text").to_owned())
        .collect()
}

fn bridge(system: &Millstream, count: &str) -> u64 {
    let status = system.json("/api/status");
    status["bridge"][count].as_u64().expect("a number")
}

/// An MQTT topic below `prefix` that falls into this partition of three.
fn mqtt_topic(prefix: &str, partition: i32, nth: usize) -> String {
    let mut topics = (0..).map(|number| format!("{prefix}/{number}"));
    let fits = |topic: &String| partition_of(topic, 3) == partition;
    topics
        .by_ref()
        .filter(fits)
        .nth(nth)
        .expect("there are many")
}

fn row(topic: &str, messages: usize) -> Vec<(String, String)> {
    (0..messages)
        .map(|number| (topic.to_owned(), number.to_string()))
        .collect()
}

const LISTEN: [&str; 4] = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// Publishes with QoS 0, as fast as it goes.
fn flood(system: &Millstream, topic: &str, messages: usize, bytes: usize) {
    let mqtt = system.mqtt();
    let (host, port) = (mqtt.ip().to_string(), mqtt.port().to_string());
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", &host, "-p", &port, "-q", "0", "-l", "-t", topic])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub can be run");
    let mut input = child.stdin.take().expect("a pipe");
    let line = "x".repeat(bytes);
    for _ in 0..messages {
        writeln!(input, "{line}").expect("mosquitto_pub reads");
    }
    drop(input);
    assert!(child.wait().expect("its own child").success());
}

#[test]
fn a_leader_that_stands_still_holds_up_its_own_partition_and_has_a_name() {
    const SICK_PUBLISHERS: usize = 4;
    /// Of each publisher.
    const MESSAGES: usize = 300;
    /// Half of it for each topic, a third of that for each of its three partitions, of which half for QoS 0.
    const QUEUE_BYTES: u64 = 6 << 20;
    let cluster = cluster();
    let kafka = cluster.kafka();
    // The sick one leads a partition of each of three topics.
    let topics = ["a", "b", "c"];
    let [a, b, c] = topics.map(|name| cluster.topic(name, &[0, 1, 2]));
    let data = tempfile::tempdir().expect("a directory");
    let routes = json!([
        {"filter": "a/#", "topic": a},
        {"filter": "b/#", "topic": b},
        {"filter": "c/#", "topic": c},
    ]);
    let routes = routes.to_string().replace("\":", "\" =");
    let config = configuration(
        &data,
        &format!(
            "bridge.routes = {routes}\n\
             bridge.node = \"{}\"\n\
             bridge.downlink.topic = \"{}\"\n\
             bridge.confirmation_wait_s = 2\n\
             bridge.producer.message_bytes_max = 100000\n\
             bridge.producer.queue_bytes_max = {QUEUE_BYTES}\n\
             bridge.producer.queue_messages_max = 1200\n",
            unique("node"),
            unique("downlink")
        ),
    );
    let servers = kafka.bootstrap();
    let system = Millstream::start(
        &[
            &["broker", "--kafka", servers, "--config", &config],
            &LISTEN[..],
        ]
        .concat(),
    );
    eventually("a node that is ready", || {
        (system.get("/health/ready").0 == 200).then_some(())
    });

    let start = |prefix: &str, partition, nth| {
        let topic = mqtt_topic(prefix, partition, nth);
        let id = format!("{prefix}-{partition}-{nth}");
        let publisher = Publisher::start(system.mqtt(), &id, row(&topic, MESSAGES));
        (topic, publisher)
    };
    let acknowledged = |publishers: &[(String, Publisher)]| -> usize {
        let each = publishers.iter();
        each.map(|(_, publisher)| publisher.acknowledged()).sum()
    };
    let finish = |publishers: Vec<(String, Publisher)>| -> Vec<String> {
        eventually("all is acknowledged", || {
            (acknowledged(&publishers) == publishers.len() * MESSAGES).then_some(())
        });
        let each = publishers.into_iter().map(|(topic, publisher)| {
            publisher.finish();
            topic
        });
        each.collect()
    };
    let mut mqtt_topics = Vec::new();
    let on = |partition, round| {
        let started = topics.map(|prefix| start(prefix, partition, round));
        Vec::from(started)
    };
    for partition in 0..3 {
        mqtt_topics.extend(finish(on(partition, SICK_PUBLISHERS)));
    }
    let third = &cluster.brokers[2];
    third.pause();
    let paused_at = Instant::now();

    // QoS 0 takes its share of the topic's bytes, and leaves the rest of them.
    flood(&system, &mqtt_topic("a", 2, 0), 60, 50_000);
    eventually("QoS 0 is dropped", || {
        (bridge(&system, "kafka_dropped") > 0).then_some(())
    });
    let waiting_bytes = bridge(&system, "kafka_waiting_bytes");
    assert!(
        waiting_bytes <= QUEUE_BYTES / 12 + 200_000,
        "{waiting_bytes} wait"
    );
    // More than its partitions may have waiting, and more than all may.
    let of_sick: Vec<_> = (0..SICK_PUBLISHERS).flat_map(|nth| on(2, nth)).collect();
    let named = format!("{b}/2 has had no confirmation for ");
    let problem = eventually("the partition is named", || {
        let problems = problems(&system);
        let found = problems.iter().find(|problem| problem.starts_with(&named));
        found.filter(|problem| problem.contains("wait")).cloned()
    });
    let numbers: Vec<u64> = problem[named.len()..]
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [seconds, waiting] = numbers[..] else {
        panic!("{problem}");
    };
    assert!(seconds >= 2 && waiting > 0, "{problem}");
    let (code, body) = system.get("/health/ready");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains(&named), "{body}");
    assert_eq!(system.get("/health/live").0, 200);
    eventually("its share of the queue is taken", || {
        (bridge(&system, "kafka_held") > 0).then_some(())
    });

    // The others go on, whatever the node asks or decides meanwhile.
    for round in SICK_PUBLISHERS + 1.. {
        for partition in 0..2 {
            mqtt_topics.extend(finish(on(partition, round)));
        }
        let away = |problem: &String| problem.contains("unreachable");
        assert!(
            !problems(&system).iter().any(away),
            "{:?}",
            problems(&system)
        );
        if paused_at.elapsed() > Duration::from_secs(12) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(acknowledged(&of_sick), 0);
    third.resume();
    mqtt_topics.extend(finish(of_sick));
    eventually("the node is ready again", || {
        (system.get("/health/ready").0 == 200).then_some(())
    });
    assert_eq!(problems(&system), [""; 0]);

    // All that was acknowledged is there, once and in order.
    let flooded = 60 - bridge(&system, "kafka_dropped") as usize;
    for (prefix, topic, others) in [("a", &a, flooded), ("b", &b, 0), ("c", &c, 0)] {
        let records = kafka.read_all(topic);
        let mqtt_topics = mqtt_topics.iter();
        let of_topic: Vec<_> = mqtt_topics
            .filter(|topic| topic.starts_with(prefix))
            .collect();
        assert_eq!(records.len(), of_topic.len() * MESSAGES + others);
        for mqtt_topic in of_topic {
            let of_publisher = records.iter().filter(|record| {
                record.key.as_deref() == Some(mqtt_topic.as_bytes())
                    && !record.text().starts_with('x')
            });
            let numbers =
                of_publisher.map(|record| record.text().parse::<usize>().expect("a number"));
            assert!(numbers.eq(0..MESSAGES), "{mqtt_topic}");
        }
    }
    assert_eq!(system.terminate().status.code(), Some(0));
}

#[test]
fn a_backend_that_is_cut_off_from_one_broker_says_from_which_partitions() {
    let cluster = cluster();
    let kafka = cluster.kafka();
    let topic = "chat.messages";
    cluster.named_topic(topic, &[0, 1, 2]);
    cluster.named_topic("chat.messages.dlq", &[0]);
    cluster.named_topic("mqtt.downlink", &[0, 1]);
    let data = tempfile::tempdir().expect("a directory");
    let database = format!("sqlite:{}", data.path().join("chat.db").display());
    let config = configuration(&data, "");
    let common = ["--http", "127.0.0.1:0", "--config", &config];
    let servers = kafka.bootstrap();
    let chat = Millstream::start(
        &[
            &["chat", "--kafka", servers, "--database", &database],
            &common[..],
        ]
        .concat(),
    );
    let append = |partition: i32, id: &str| {
        let payload = json!({"id": id, "from": "alice", "text": "hello"}).to_string();
        let sent = Sent::mqtt(&format!("rooms/r{partition}/messages"), payload);
        kafka.append(topic, [sent.in_partition(partition)]);
    };
    let consumer = || chat.json("/api/status")["consumers"]["chat"].clone();
    let records = || consumer()["records"].as_u64().expect("a number");
    let is_well = || {
        let known = |partition: &Value| partition["lag"] == 0;
        let partitions = consumer()["partitions"].as_array().cloned();
        let all = partitions.unwrap_or_default();
        (all.len() == 3 && all.iter().all(known) && chat.get("/health/ready").0 == 200)
            .then_some(())
    };
    // A node beside it, one partition of whose downlink the third broker has.
    let downlink = cluster.topic("downlink", &[0, 2]);
    let stored = cluster.topic("stored", &[0]);
    let node_config = format!(
        "bridge.routes = [{{ filter = \"#\", topic = \"{stored}\" }}]\n\
         bridge.node = \"{}\"\nbridge.downlink.topic = \"{downlink}\"\n",
        unique("node")
    );
    let node_data = tempfile::tempdir().expect("a directory");
    let node_config = configuration(&node_data, &node_config);
    let node = Millstream::start(
        &[
            &["broker", "--kafka", servers, "--config", &node_config],
            &LISTEN[..],
        ]
        .concat(),
    );
    (0..3).for_each(|partition| append(partition, "before"));
    eventually("all is read", || (records() == 3).then_some(()));
    eventually("it is well", is_well);
    assert_eq!(problems(&node), [""; 0]);

    cluster.far.cut();
    let cut_at = Instant::now();
    let says = eventually("it says what it cannot read", || {
        let problem = consumer()["problem"].as_str()?.to_owned();
        problem
            .contains("nothing can be read from")
            .then_some(problem)
    });
    assert!(says.contains("chat.messages/2:"), "{says}");
    assert!(
        cut_at.elapsed() < Duration::from_secs(12),
        "{:?}",
        cut_at.elapsed()
    );
    let (code, body) = chat.get("/health/ready");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("chat.messages/2"), "{body}");
    let says = eventually("the node says what it cannot read", || {
        problems(&node).into_iter().next()
    });
    assert!(
        says.contains(&format!("cannot read {downlink}/1:")),
        "{says}"
    );
    assert_eq!(node.get("/health/ready").0, 503);
    let lag = eventually("the lag of what cannot be read is not known", || {
        let partition = consumer()["partitions"][2].clone();
        partition["lag"].is_null().then_some(partition)
    });
    assert!(lag["lag_age_ms"].as_u64() >= Some(5_000), "{lag}");
    assert!(lag["unreachable_ms"].as_u64() >= Some(5_000), "{lag}");
    let series = |partition: u8| {
        let label = format!("partition=\"{partition}\"");
        let (_, text) = chat.get("/metrics");
        let mut lines = text.lines();
        lines.any(|line| {
            line.starts_with("millstream_consumer_lag_records{") && line.contains(&label)
        })
    };
    assert_eq!([series(0), series(1), series(2)], [true, true, false]);

    // What the others have is read.
    append(0, "meanwhile");
    append(1, "meanwhile");
    eventually("the others are read", || (records() == 5).then_some(()));
    let others = consumer()["partitions"].clone();
    assert!(
        others[0]["lag"].is_u64() && others[1]["lag"].is_u64(),
        "{others}"
    );

    cluster.far.mend();
    append(2, "after");
    eventually("it is read again", || (records() == 6).then_some(()));
    eventually("it is well again", is_well);
    assert_eq!(consumer()["problem"], Value::Null);
    assert!(series(2));
    eventually("the node is well again", || {
        problems(&node).is_empty().then_some(())
    });
    assert_eq!(node.terminate().status.code(), Some(0));
    assert_eq!(chat.terminate().status.code(), Some(0));
}
