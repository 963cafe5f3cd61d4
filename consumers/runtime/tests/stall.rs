//! A reader to which Kafka sends nothing although there is more, on librdkafka's own cluster in memory, which can be told to
//! fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::Registry;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use runtime::{Batch, Config, HandleError, Handler, Outcome, Tuning, start};
use testkit::until;

struct Counter(Arc<AtomicUsize>);

impl Handler for Counter {
    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        self.0
            .fetch_add(batches.iter().map(Batch::len).sum(), Ordering::Relaxed);
        Ok(Outcome::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_gets_nothing_although_there_is_more_is_rebuilt() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let config = Config {
        kafka: cluster.bootstrap_servers(),
        group: "g".to_owned(),
        topics: vec!["t".to_owned()],
        downlink_topic: "d".to_owned(),
        tuning: Tuning {
            stall_timeout_ms: 1_000,
            ..Tuning::default()
        },
    };
    let append = |records: usize| {
        let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> =
            ClientConfig::new()
                .set("bootstrap.servers", cluster.bootstrap_servers())
                .create()
                .unwrap();
        for _ in 0..records {
            producer
                .send(BaseRecord::<(), str>::to("t").payload("x"))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    append(10);
    let handled = Arc::new(AtomicUsize::new(0));
    let registry = Registry::new();
    let running = start(config, Counter(Arc::clone(&handled)), &registry)
        .await
        .unwrap();
    until("the first records are handled", || {
        handled.load(Ordering::Relaxed) == 10
    })
    .await;
    // Idle for longer than the stall timeout is no stall.
    let idle_until = Instant::now() + Duration::from_millis(3_000);
    until("some idle time passes", || Instant::now() > idle_until).await;
    assert_eq!(running.status().rebuilds, 0);

    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 10_000];
    cluster.request_errors(RDKafkaApiKey::Fetch, &errors);
    append(10);
    until("it is rebuilt", || running.status().rebuilds > 0).await;
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    until("it reads on", || handled.load(Ordering::Relaxed) == 20).await;
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    assert!(
        text.contains("millstream_consumer_records_total{group=\"g\",topic=\"t\"} 20"),
        "{text}"
    );
    assert!(
        !text.contains("millstream_consumer_rebuilds_total{group=\"g\"} 0"),
        "{text}"
    );
    running.shutdown().await.unwrap();
    assert_eq!(handled.load(Ordering::Relaxed), 20);
}
