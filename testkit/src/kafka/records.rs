//! What tests ask of a Kafka: topics, records and offsets, as another program would, by librdkafka.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Kafka;
use crate::{PATIENCE, eventually, unique};

impl Kafka {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
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

    /// Makes a topic whose partitions have these replicas; the first leads.
    pub fn make_topic_on(&self, name: &str, partitions: &[&[i32]]) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("admin client");
        let count = i32::try_from(partitions.len()).expect("few");
        let topic = NewTopic::new(name, count, TopicReplication::Variable(partitions));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let results = runtime
            .block_on(admin.create_topics(&[topic], &AdminOptions::new()))
            .expect("create topic");
        assert_eq!(results, [Ok(name.to_owned())]);
        eventually("leaders of a new topic", || {
            let known = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
            let found = known.topics()[0].partitions();
            let led = found.iter().all(|partition| partition.leader() >= 0);
            (found.len() == partitions.len() && led).then_some(())
        });
    }

    /// Has Kafka make its topic of committed offsets.
    pub(super) fn make_topics_of_its_own(&self) {
        let topic = unique("any");
        self.make_topic_on(&topic, &[&[self.id()]]);
        self.set_committed("anybody", &topic, 0, 0);
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("admin client");
        let results = admin
            .delete_topics(&[name], &AdminOptions::new())
            .await
            .expect("delete topic");
        assert_eq!(results, [Ok(name.to_owned())]);
    }

    /// Deletes the records of a partition before `offset`, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("admin client");
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        let results = admin
            .delete_records(&before, &AdminOptions::new())
            .await
            .expect("delete records");
        for element in results.elements() {
            element.error().expect("records are deleted");
        }
    }

    /// Appends records and waits until Kafka has them.
    pub fn append(&self, topic: &str, records: impl IntoIterator<Item = Sent>) {
        let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = self
            .client()
            .set("acks", "all")
            // As the bridge does, so that records fall where its would.
            .set("partitioner", "murmur2_random")
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

/// The partition, of so many, of a record with this key.
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    envelope::partition(key.as_bytes(), partitions)
}

/// A record to append.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// The partition; without one, the key's.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub payload: Option<Vec<u8>>,
    /// Names and values, in order.
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

    /// The same, in this partition whatever its key is.
    pub fn in_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Read {
    /// Where it lies.
    pub partition: i32,
    /// Where it lies there.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub payload: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Read {
    /// The value of the first header of this name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The value as text.
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
