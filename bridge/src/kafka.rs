//! How this crate talks to librdkafka: client settings, its log lines, what its error codes mean for a publisher, and
//! waiting for an answer of its admin client on a plain thread.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use broker::Refusal;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{Config, MESSAGE_BYTES_CEILING};
use crate::downlink::STATISTICS_MS;
use crate::letters::LETTER_ROOM_BYTES;

/// After this time without an answer a request to Kafka counts as lost, and the connection with it.
const SOCKET_TIMEOUT_MS: u32 = 30_000;
/// The longest pause between two attempts to connect: what a Kafka that is back waits for us at most.
const RECONNECT_BACKOFF_MS_MAX: u32 = 1_000;
/// Memory for downlink records that were fetched and not looked at.
const PREFETCH_KIB_MAX: u32 = 16_384;

/// Produce requests to one Kafka broker that are not answered. Kafka works on one request of a connection at a time, and
/// librdkafka (2.12) sends an idempotent partition's next batch only when the one before is answered. More than one
/// request would save the time on the wire, but while a partition waits for its answer with its next batch ready,
/// librdkafka's thread polls without a pause: measured on two cores with a Kafka that was slow for want of CPU, it took
/// half a core from it, and the latency grew from tens of milliseconds to seconds. With one, the thread sleeps.
const REQUESTS_IN_FLIGHT_MAX: &str = "1";
/// The same far from Kafka, where nothing is given to librdkafka that it would have to poll for: as many as keep the order.
const FAR_REQUESTS_IN_FLIGHT_MAX: &str = "5";

/// What every client of this node has in common.
pub(crate) fn client(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka)
        .set("client.id", format!("millstream-{}", config.node_name()))
        .set("socket.keepalive.enable", "true")
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .set(
            "reconnect.backoff.max.ms",
            RECONNECT_BACKOFF_MS_MAX.to_string(),
        );
    for (name, value) in config.properties.reveal() {
        client.set(name, value);
    }
    client
}

/// The producer. `batch_bytes_max` is the configured bound, or less where a topic allows less.
pub(crate) fn producer(config: &Config, batch_bytes_max: u32) -> ClientConfig {
    let producer = &config.producer;
    let mut client = client(config);
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // When Kafka refuses a batch, nothing more is sent before that is sorted out: what comes behind would be stored
        // before those of the batch that are sent again.
        .set("enable.gapless.guarantee", "true")
        .set("max.in.flight", REQUESTS_IN_FLIGHT_MAX)
        // A message waits for Kafka however long that takes: giving up would lose what a publisher still waits for.
        .set("message.timeout.ms", "0")
        .set("linger.ms", producer.linger_ms.to_string())
        .set("compression.type", producer.compression.name())
        .set("batch.size", batch_bytes_max.to_string())
        .set("message.max.bytes", producer.message_bytes_max.to_string())
        .set(
            "queue.buffering.max.messages",
            producer.queue_messages_max.to_string(),
        )
        .set(
            "queue.buffering.max.kbytes",
            (producer.queue_bytes_max / 1_024).to_string(),
        )
        // What Java's default partitioner does with a key, see `envelope::partition`.
        .set("partitioner", "murmur2_random");
    client
}

/// One of the producers of a node far from Kafka, see [`crate::lanes`].
pub(crate) fn far_producer(config: &Config, batch_bytes_max: u32) -> ClientConfig {
    let mut client = producer(config, batch_bytes_max);
    client.set("max.in.flight", FAR_REQUESTS_IN_FLIGHT_MAX);
    client
}

/// The producer of what goes alone: each message is a request of its own, and a refusal is about it.
pub(crate) fn alone_producer(config: &Config) -> ClientConfig {
    let mut client = producer(config, config.producer.batch_bytes_max);
    client
        .set("enable.gapless.guarantee", "false")
        .set("batch.num.messages", "1")
        .set("linger.ms", "0")
        // It is asked elsewhere whether a topic is there.
        .set("topic.metadata.propagation.max.ms", "1000");
    client
}

/// The producer of dead letters.
pub(crate) fn letter_producer(config: &Config) -> ClientConfig {
    let largest = config.producer.message_bytes_max;
    let largest = largest
        .saturating_add(LETTER_ROOM_BYTES)
        .min(MESSAGE_BYTES_CEILING);
    let mut client = alone_producer(config);
    client.set("message.max.bytes", largest.to_string()).set(
        "queue.buffering.max.kbytes",
        (config.producer.queue_bytes_max / 1_024 + u64::from(LETTER_ROOM_BYTES))
            .min(2_147_483_647)
            .to_string(),
    );
    client
}

/// The consumer of the downlink topic.
pub(crate) fn downlink_consumer(config: &Config) -> ClientConfig {
    let mut client = client(config);
    client
        .set("group.id", config.downlink_group())
        // librdkafka commits in the background, but only positions that it was given. (A commit that is asked for is no
        // way: the binding tells nothing of how it ended, or else it waits for that without end.)
        .set("enable.auto.commit", "true")
        .set(
            "auto.commit.interval.ms",
            config.downlink.commit_interval_ms.to_string(),
        )
        .set("enable.auto.offset.store", "false")
        // Only for a position that Kafka does not have any more: go on with the oldest record that is left.
        .set("auto.offset.reset", "earliest")
        .set("statistics.interval.ms", STATISTICS_MS.to_string())
        .set("queued.max.messages.kbytes", PREFETCH_KIB_MAX.to_string());
    client
}

/// The consumer by which nodes agree who writes the dead letters of which partition of the downlink. It reads nothing.
pub(crate) fn letters_member(config: &Config, group: &str) -> ClientConfig {
    let mut client = client(config);
    client
        .set("group.id", group)
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    client
}

/// The consumer of records of the downlink that are looked at once more.
pub(crate) fn letters_reader(config: &Config, group: &str) -> ClientConfig {
    let mut client = client(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // What Kafka does not have any more needs no letter.
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", PREFETCH_KIB_MAX.to_string());
    client
}

/// The producer of reports of what became of downlink records. As that of dead letters: one that comes twice does no harm.
pub(crate) fn report_producer(config: &Config) -> ClientConfig {
    let mut client = producer(config, config.producer.batch_bytes_max);
    client
        .set("enable.idempotence", "false")
        .set("enable.gapless.guarantee", "false");
    client
}

/// Whether a message failed because Kafka does not have its topic or partition, as far as it was told.
pub(crate) fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition
    )
}

/// Whether a message failed because its producer did, and nothing is known of what Kafka thinks of it.
pub(crate) fn is_purged(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::Fatal)
}

/// Whether a message failed with the order of its producer's requests: it may be stored or not, and only its publisher can
/// decide to send it again.
pub(crate) fn is_doubtful(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
    )
}

/// Whether it is too large, alone or with its batch.
pub(crate) fn is_too_large(code: RDKafkaErrorCode) -> bool {
    refusal(code) == Refusal::TooLarge
}

/// What a publisher is told about a message that Kafka will never take.
pub(crate) fn refusal(code: RDKafkaErrorCode) -> Refusal {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Refusal::TooLarge
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Refusal::NotAuthorized,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic => Refusal::UnknownTopic,
        Code::PolicyViolation | Code::ThrottlingQuotaExceeded => Refusal::Quota,
        _ => Refusal::Other,
    }
}

/// Writes a line of librdkafka's into our log. What it says about connections it says again and again while Kafka is
/// away, so none of it is louder than our own line about that.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", "{facility}: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", "{facility}: {message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", "{facility}: {message}");
        }
    }
}

/// The error in words, without the name of the library's type around it.
pub(crate) fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread for an answer of the admin client, which has a thread of its own and gives up by itself.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_setting_is_one_that_librdkafka_knows() {
        let config = Config::default();
        for client in [
            producer(&config, 1_000_000),
            downlink_consumer(&config),
            letters_member(&config, "g"),
            letters_reader(&config, "g"),
            report_producer(&config),
            alone_producer(&config),
            letter_producer(&config),
        ] {
            client.create_native_config().unwrap();
        }
    }

    #[test]
    fn the_promises_cannot_be_configured_away() {
        let mut config = Config::default();
        config.properties.insert("socket.timeout.ms", "1234");
        let producer = producer(&config, 5_000);
        assert_eq!(producer.get("socket.timeout.ms"), Some("1234"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("message.timeout.ms"), Some("0"));
        assert_eq!(producer.get("batch.size"), Some("5000"));
        assert_eq!(
            downlink_consumer(&config).get("enable.auto.offset.store"),
            Some("false")
        );
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        assert_eq!(
            refusal(RDKafkaErrorCode::MessageSizeTooLarge),
            Refusal::TooLarge
        );
        assert_eq!(
            refusal(RDKafkaErrorCode::TopicAuthorizationFailed),
            Refusal::NotAuthorized
        );
        assert_eq!(
            refusal(RDKafkaErrorCode::UnknownTopicOrPartition),
            Refusal::UnknownTopic
        );
        assert_eq!(refusal(RDKafkaErrorCode::PurgeInflight), Refusal::Other);
    }

    #[test]
    fn waiting_ends_when_another_thread_answers() {
        struct Later(Arc<std::sync::atomic::AtomicBool>);
        impl Future for Later {
            type Output = u8;
            fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u8> {
                if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    return Poll::Ready(7);
                }
                let waker = context.waker().clone();
                std::thread::spawn(move || waker.wake());
                Poll::Pending
            }
        }
        assert_eq!(wait(Later(Arc::default())), 7);
    }
}
