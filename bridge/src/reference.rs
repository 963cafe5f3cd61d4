//! The text of the bridge's page in the configuration reference.

/// Every key: what is allowed and in which unit, and what it is. Defaults come from [`Config::default`](crate::Config).
pub const REFERENCE: &[(&str, &str, &str)] = &[
    (
        "kafka",
        "HOST:PORT[,HOST:PORT…]",
        "Kafka's addresses to begin with; the others are learned from there.",
    ),
    (
        "node",
        "text, at most 64 bytes; empty is the host's name",
        "This node's name, unlike any other node's: it stands in every record, and the position in the downlink topic is kept under it.",
    ),
    (
        "routes",
        "list of routes",
        "What is stored where; the first route whose filter matches decides, and what none matches is not stored. A route has `filter` (a topic filter), `store` (true or false; default true), `topic` (the Kafka topic), `key` (the record's key: text in which `{topic}`, `{client_id}` and `{1}`, `{2}`, … for what the filter's wildcards stand for are replaced; default `{topic}`), `ack` (`\"persisted\"`: acknowledged when Kafka has confirmed it, the default; `\"received\"`: at once) and `deliver` (`\"now\"`: subscribers do not wait for Kafka, the default; `\"after-persisted\"`). Routes given here replace the default ones.",
    ),
    (
        "create_topics",
        "true or false",
        "Whether topics that Kafka does not have are created at the start, or the start fails.",
    ),
    (
        "partitions",
        "1 to 10000 partitions",
        "Partitions of a topic that is created.",
    ),
    (
        "replication",
        "0 to 100 replicas; 0 is the cluster's default",
        "Replicas of a topic that is created.",
    ),
    (
        "start_timeout_ms",
        "100 to 600000 milliseconds",
        "How long the start waits for Kafka before it fails. A Kafka that goes away later is waited for without end.",
    ),
    (
        "producer.linger_ms",
        "0 to 10000 milliseconds",
        "How long a message may wait for others to share a request with.",
    ),
    (
        "producer.compression",
        "\"none\", \"lz4\" or \"zstd\"",
        "How record batches are compressed.",
    ),
    (
        "producer.batch_bytes_max",
        "1024 to 1000000000 bytes",
        "The largest batch before compression. A topic with a smaller `max.message.bytes` lowers it, so that no small message is refused for the size of its batch.",
    ),
    (
        "producer.message_bytes_max",
        "1024 to 1000000000 bytes",
        "The largest message that is offered to Kafka; below it the topic's `max.message.bytes` decides. A larger one is refused (0x97 for 5.0, a closed connection for 3.x).",
    ),
    (
        "producer.queue_messages_max",
        "1 to 10000000 messages",
        "Messages that may wait for Kafka's confirmation: beyond it publishers of QoS 1 and 2 are held, and QoS 0 is dropped and counted, which may fill half of it.",
    ),
    (
        "producer.queue_bytes_max",
        "bytes, at least producer.message_bytes_max",
        "Payload bytes that may wait for Kafka's confirmation. Beside them a waiting message takes about 1 KB.",
    ),
    (
        "downlink.enabled",
        "true or false",
        "Whether this node publishes what backends append to the downlink topic.",
    ),
    (
        "downlink.topic",
        "a Kafka topic",
        "The topic to which backends append.",
    ),
    (
        "downlink.dead_letter_topic",
        "a Kafka topic",
        "Where records of the downlink topic go that cannot be published.",
    ),
    (
        "downlink.group",
        "text; empty is millstream-downlink-NODE",
        "The consumer group under which this node's position is kept. A node without a position begins at the end.",
    ),
    (
        "downlink.outstanding_messages_max",
        "1 to 10000000 messages",
        "Messages handed to the broker that have not reached all their sessions yet; beyond it nothing is read.",
    ),
    (
        "downlink.outstanding_bytes_max",
        "1048576 or more bytes",
        "Bytes of the messages that have not reached all their sessions yet; beyond it nothing is read.",
    ),
    (
        "downlink.commit_interval_ms",
        "10 to 60000 milliseconds",
        "How often the position is committed: what a killed node may publish again.",
    ),
    (
        "properties",
        "table of librdkafka settings",
        "Further settings of librdkafka for every connection to Kafka, for example `\"security.protocol\" = \"ssl\"`. Those on which the bridge's promises rest are refused.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn the_reference_has_every_key_and_no_other() {
        let value = serde_json::to_value(Config::default()).unwrap();
        let mut keys = Vec::new();
        for (key, value) in value.as_object().unwrap() {
            match value.as_object() {
                Some(section) if key != "properties" => {
                    keys.extend(section.keys().map(|inner| format!("{key}.{inner}")));
                }
                _ => keys.push(key.clone()),
            }
        }
        let mut documented: Vec<_> = REFERENCE
            .iter()
            .map(|(key, ..)| (*key).to_owned())
            .collect();
        keys.sort();
        documented.sort();
        assert_eq!(keys, documented);
    }
}
