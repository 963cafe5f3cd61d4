//! A real Apache Kafka for tests, and what tests ask of it. Also used by the backends' tests.
//!
//! Each test program starts one server and gives it a new directory; it ends with the program. Tests do not share topics
//! or groups: [`unique`] makes names.

#![allow(dead_code)] // Not every test program needs all of it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A Kafka server of this program's own.
pub struct Kafka {
    dir: PathBuf,
    pub address: String,
}

impl Kafka {
    /// The server that the tests of a program share. Nobody stops it.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Kafka::start("shared"))
    }

    /// A server for one test, which may stop it.
    pub fn start(name: &str) -> Kafka {
        let dir =
            std::env::temp_dir().join(format!("millstream-test-{}-{name}", std::process::id()));
        let mut kafka = Kafka {
            dir,
            address: String::new(),
        };
        kafka.address = kafka.script(&[
            "start",
            "--port",
            "auto",
            "--while",
            &std::process::id().to_string(),
        ]);
        kafka
    }

    /// Ends the server; what it stored stays.
    pub fn stop(&self) {
        self.script(&["stop"]);
    }

    /// Starts it again on the same port.
    pub fn start_again(&self) {
        assert_eq!(self.script(&["start"]), self.address);
    }

    fn script(&self, arguments: &[&str]) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("scripts/kafka.sh"))
            .find(|path| path.exists())
            .expect("scripts/kafka.sh is above the crate");
        let output = Command::new(script)
            .arg(arguments[0])
            .arg("--dir")
            .arg(&self.dir)
            .args(&arguments[1..])
            .output()
            .expect("kafka.sh runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kafka.sh {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Makes a topic, with settings such as `("max.message.bytes", "1000")`.
    pub async fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("admin client");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = admin
            .create_topics(&[topic], &AdminOptions::new())
            .await
            .expect("create topic");
        assert_eq!(results, [Ok(name.to_owned())]);
    }

    pub async fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("admin client");
        let results = admin
            .delete_topics(&[name], &AdminOptions::new())
            .await
            .expect("delete topic");
        assert_eq!(results, [Ok(name.to_owned())]);
    }

    /// Appends records and waits until Kafka has them.
    pub fn append(&self, topic: &str, records: impl IntoIterator<Item = Sent>) {
        let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = self
            .client()
            .set("acks", "all")
            .set("linger.ms", "5")
            .create()
            .expect("producer");
        for sent in records {
            let mut headers = OwnedHeaders::new();
            for (name, value) in &sent.headers {
                headers = headers.insert(Header {
                    key: name,
                    value: Some(value),
                });
            }
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
            record.partition = sent.partition;
            record.key = sent.key.as_deref();
            record.payload = sent.payload.as_deref();
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("enqueue");
        }
        producer.flush(PATIENCE).expect("flush");
    }

    /// All records that are in a topic now, partition by partition.
    pub fn read_all(&self, topic: &str) -> Vec<Read> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", unique("reader"))
            .create()
            .expect("consumer");
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("metadata");
        let mut list = TopicPartitionList::new();
        let mut wanted = 0;
        for partition in metadata.topics()[0].partitions() {
            let (start, end) = consumer
                .fetch_watermarks(topic, partition.id(), PATIENCE)
                .expect("watermarks");
            wanted += end - start;
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)
                .expect("offset");
        }
        consumer.assign(&list).expect("assign");
        let mut read = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while i64::try_from(read.len()).unwrap() < wanted {
            assert!(
                Instant::now() < deadline,
                "{} of {wanted} records of {topic}",
                read.len()
            );
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                read.push(Read::from(&message.expect("record")));
            }
        }
        read.sort_by_key(|record| (record.partition, record.offset));
        read
    }

    /// How many records a topic has.
    pub fn count(&self, topic: &str) -> i64 {
        let consumer: BaseConsumer = self.client().create().expect("consumer");
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("metadata");
        metadata.topics()[0]
            .partitions()
            .iter()
            .map(|partition| {
                let (start, end) = consumer
                    .fetch_watermarks(topic, partition.id(), PATIENCE)
                    .expect("watermarks");
                end - start
            })
            .sum()
    }

    /// The committed offset of a group, or -1.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> i64 {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .create()
            .expect("consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = consumer
            .committed_offsets(list, PATIENCE)
            .expect("committed");
        match committed.elements()[0].offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        }
    }

    /// Sets the committed offset of a group without members, as operators do to replay.
    pub fn set_committed(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .create()
            .expect("consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("offset");
        consumer.commit(&list, CommitMode::Sync).expect("commit");
    }
}

/// A record to append.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Sent {
    /// As the bridge writes a message.
    pub fn mqtt(topic: &str, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        let mut sent = Self {
            key: Some(topic.as_bytes().to_vec()),
            ..Self::default()
        };
        let envelope = envelope::Envelope {
            topic,
            qos: 1,
            payload: &payload,
            ..Default::default()
        };
        envelope
            .for_each_header(|name, value| sent.headers.push((name.to_owned(), value.to_vec())));
        sent.payload = Some(payload);
        sent
    }

    pub fn in_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Read {
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value).ok()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(self.payload.as_deref().unwrap_or_default()).expect("UTF-8")
    }
}

impl<M: Message> From<&M> for Read {
    fn from(message: &M) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_vec(),
                    )
                })
                .collect(),
        }
    }
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Waits until `condition` holds; panics with `what` when it does not for [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
