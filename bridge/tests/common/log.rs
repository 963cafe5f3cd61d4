//! Reading and writing Kafka topics as another program would, without this project's code but for the envelope.

use std::time::Duration;

use envelope::{Downlink, Envelope, EnvelopeError};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::DEADLINE;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_slice())));
        Envelope::parse(
            self.key.as_deref(),
            self.payload.as_deref().unwrap_or_default(),
            headers,
        )
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let value = self
            .headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.clone())?;
        Some(String::from_utf8(value).unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.payload.clone().unwrap_or_default()).unwrap()
    }
}

fn consumer(kafka: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false");
    config.create().unwrap()
}

pub fn partitions(kafka: &str, topic: &str) -> usize {
    let metadata = consumer(kafka).fetch_metadata(None, DEADLINE).unwrap();
    metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic)
        .map(|found| found.partitions().len())
        .sum()
}

pub fn admin(kafka: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka);
    config.create().unwrap()
}

/// A minimal executor: the admin client answers from a thread of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Waker};
    let mut future = std::pin::pin!(future);
    loop {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Changes a topic's only setting.
pub fn set(kafka: &str, topic: &str, key: &str, value: &str) {
    let changed = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let altered = block_on(admin(kafka).alter_configs([&changed], &AdminOptions::new())).unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

/// Deletes a topic, and waits until it is gone.
pub fn delete(kafka: &str, topic: &str) {
    let deleted = block_on(admin(kafka).delete_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    super::wait_for("the topic is gone", || partitions(kafka, topic) == 0);
}

/// Replicas of a topic's first partition.
pub fn replicas(kafka: &str, topic: &str) -> usize {
    let metadata = consumer(kafka)
        .fetch_metadata(Some(topic), DEADLINE)
        .unwrap();
    metadata.topics()[0].partitions()[0].replicas().len()
}

/// Creates a topic as anybody might, and waits until it has leaders.
pub fn create(kafka: &str, topic: &str, partitions: i32, replicas: i32) {
    let admin = admin(kafka);
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    let created = block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    super::wait_for("the new topic has leaders", || {
        let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap();
        let found = metadata.topics()[0].partitions();
        !found.is_empty() && found.iter().all(|partition| partition.leader() >= 0)
    });
}

/// Everything that is in a topic now, in the order of each partition.
pub fn read_all(kafka: &str, topic: &str) -> Vec<Record> {
    let consumer = consumer(kafka);
    let mut assigned = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in 0..i32::try_from(partitions(kafka, topic)).unwrap() {
        let (begin, end) = consumer
            .fetch_watermarks(topic, partition, DEADLINE)
            .unwrap();
        if begin < end {
            assigned
                .add_partition_offset(topic, partition, Offset::Offset(begin))
                .unwrap();
            ends.push((partition, end));
        }
    }
    consumer.assign(&assigned).unwrap();
    let mut records = Vec::new();
    while !ends.is_empty() {
        let message = consumer
            .poll(DEADLINE)
            .expect("a record comes")
            .expect("it can be read");
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_vec(),
                    )
                })
                .collect()
        });
        records.push(Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
        });
        ends.retain(|(partition, end)| {
            *partition != message.partition() || message.offset() + 1 < *end
        });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// How many records of a topic a group has behind it, all partitions together.
pub fn committed(kafka: &str, group: &str, topic: &str) -> i64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions(kafka, topic)).unwrap() {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, DEADLINE).unwrap();
    let offsets = committed
        .elements()
        .into_iter()
        .map(|element| match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        });
    offsets.sum()
}

fn producer(kafka: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    config.create().unwrap()
}

/// Appends messages as a backend would, and waits until Kafka has them.
pub fn append(kafka: &str, topic: &str, messages: &[Downlink]) {
    let records: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut headers = Vec::new();
            message.for_each_header(|name, value| headers.push((name.to_owned(), value.to_vec())));
            (
                Some(message.key().to_vec()),
                Some(message.payload.clone()),
                headers,
            )
        })
        .collect();
    append_raw(kafka, topic, &records);
}

/// Key, value and headers.
pub type Raw = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

/// Appends records as they are, and waits until Kafka has them.
pub fn append_raw(kafka: &str, topic: &str, records: &[Raw]) {
    let producer = producer(kafka);
    for (key, payload, headers) in records {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut record: BaseRecord<'_, Vec<u8>, Vec<u8>> = BaseRecord::to(topic).headers(all);
        record.key = key.as_ref();
        record.payload = payload.as_ref();
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(DEADLINE).unwrap();
}
