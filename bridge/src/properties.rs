//! Which properties of librdkafka an operator may set.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use settings::kafka::Properties;

/// Settings of librdkafka on which the bridge's promises rest: they are not for the configuration.
const OWN_PROPERTIES: &[&str] = &[
    "acks",
    "request.required.acks",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "group.id",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "retries",
    "transactional.id",
];

/// Refuses a property that the bridge sets itself, and one that librdkafka does not know or take.
///
/// # Errors
/// Names the first such property.
pub fn check(properties: &Properties) -> Result<(), settings::Error> {
    properties.check(OWN_PROPERTIES, takes)
}

/// Whether librdkafka knows a property and takes this value, else why not.
fn takes(name: &str, value: &str) -> Result<(), String> {
    let created = ClientConfig::new().set(name, value).create_native_config();
    created.map(drop).map_err(|error| match error {
        KafkaError::ClientConfig(_, why, ..) => why,
        other => other.to_string(),
    })
}
