//! How fast a consumer reads what waits for it, and how much CPU a record costs.
//!
//! ```sh
//! scripts/kafka.sh start
//! cargo run --release -p chat --example catch_up -- 127.0.0.1:9092 1000000
//! ```
//!
//! Appends that many messages of about 200 bytes to a topic of its own, then reads them twice: with a handler that does
//! nothing (what the runtime costs), and with the chat backend on a new SQLite file (what chat costs, receipts included).

use std::error::Error;
use std::time::{Duration, Instant};

use prometheus::Registry;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use runtime::{Batch, HandleError, Handler, Outcome, Status, Tuning};

const PARTITIONS: i32 = 12;
const ROOMS: usize = 1_000;
const USERS: usize = 10_000;

struct Nothing;

impl Handler for Nothing {
    async fn handle(&mut self, _: &[Batch]) -> Result<Outcome, HandleError> {
        Ok(Outcome::default())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(kafka), Some(records)) = (arguments.next(), arguments.next()) else {
        return Err("usage: catch_up KAFKA RECORDS".into());
    };
    let records: usize = records.parse()?;
    let topic = format!("catch-up-{}", std::process::id());
    let downlink = format!("{topic}-downlink");
    prepare(&kafka, [&topic, &downlink]).await?;
    append(&kafka, &topic, records)?;

    let config = runtime::Config {
        kafka: kafka.clone(),
        group: format!("{topic}-nothing"),
        topics: vec![topic.clone()],
        downlink_topic: downlink.clone(),
        tuning: Tuning::default(),
    };
    let running = runtime::start(config, Nothing, &Registry::new()).await?;
    measure("runtime alone", records, || running.status()).await?;
    running.shutdown().await?;

    let dir = tempfile::tempdir()?;
    let config = chat::Config {
        kafka,
        group: format!("{topic}-chat"),
        database: format!("sqlite:{}", dir.path().join("chat.db").display()),
        topics: vec![topic],
        downlink_topic: downlink,
        ..chat::Config::default()
    };
    let running = chat::start(config).await?;
    measure("chat", records, || running.status()).await?;
    running.shutdown().await;
    Ok(())
}

async fn prepare(kafka: &str, topics: [&String; 2]) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()?;
    let topics = topics.map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)));
    for result in admin.create_topics(&topics, &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| format!("{topic}: {code}"))?;
    }
    Ok(())
}

fn append(kafka: &str, topic: &str, records: usize) -> Result<(), Box<dyn Error>> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .create()?;
    let text = "x".repeat(120);
    for number in 0..records {
        let mqtt_topic = format!("rooms/room-{}/messages", number % ROOMS);
        let from = format!("user-{}", number % USERS);
        let payload = format!(r#"{{"id":"m-{number}","from":"{from}","text":"{text}"}}"#);
        let envelope = envelope::Envelope {
            topic: &mqtt_topic,
            qos: 1,
            client_id: Some(&from),
            node: Some("node-1"),
            received_at_micros: Some(1_766_000_000_000_000),
            payload: payload.as_bytes(),
            ..Default::default()
        };
        loop {
            let mut headers = Some(OwnedHeaders::new_with_capacity(8));
            envelope.for_each_header(|key, value| {
                headers = headers.take().map(|headers| {
                    headers.insert(Header {
                        key,
                        value: Some(value),
                    })
                });
            });
            let record = BaseRecord::to(topic)
                .key(&mqtt_topic)
                .payload(&payload)
                .headers(headers.unwrap_or_default());
            match producer.send(record) {
                Ok(()) => break,
                Err((error, _))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

async fn measure(
    what: &str,
    records: usize,
    status: impl Fn() -> Status,
) -> Result<(), Box<dyn Error>> {
    // Joining the group is not what is measured.
    while status().records == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (first, began, cpu) = (status().records, Instant::now(), cpu_seconds()?);
    while status().records < records as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    #[allow(clippy::cast_precision_loss)]
    let measured = (records as u64 - first) as f64;
    println!(
        "{what}: {measured} records in {seconds:.1} s: {:.0} records/s, {:.2} µs of CPU a record",
        measured / seconds,
        cpu * 1e6 / measured
    );
    Ok(())
}

/// User and system time of this process, from /proc/self/stat.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the name in parentheses; user and system time are the 12th and 13th after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}
