//! Topics with numbered records, and the command.

use std::ops::Range;

use serde_json::Value;
use testkit::kafka::{Kafka, Sent};
use testkit::millstream::{self, Ended};
use testkit::{clients, eventually, unique};

/// Makes a topic.
pub fn topic(name: &str, partitions: i32) -> String {
    let name = unique(name);
    block_on(Kafka::shared().make_topic(&name, partitions, &[]));
    name
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Appends records to `topic`, each with its number as payload, to four rooms.
pub fn appended(topic: &str, numbers: Range<u64>) {
    let sent = numbers.map(|number| {
        Sent::mqtt(
            &format!("rooms/{}/messages", number % 4),
            number.to_string(),
        )
    });
    Kafka::shared().append(topic, sent);
}

/// Deletes the records of partition 0 before `offset`, as retention does.
pub fn delete_before(topic: &str, offset: i64) {
    block_on(Kafka::shared().delete_records(topic, 0, offset));
}

/// The whole command line of a replay on the shared Kafka.
pub fn arguments<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let kafka = Kafka::shared().bootstrap();
    [&["replay", "--kafka", kafka], options].concat()
}

/// Runs a replay to its end.
pub fn replay(options: &[&str]) -> Ended {
    millstream::run(&arguments(options))
}

/// The lines of JSON that it wrote.
pub fn lines(ended: &Ended) -> Vec<Value> {
    assert!(ended.status.success(), "{}", ended.err);
    ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The finished records of a topic in `kcat`'s format, as soon as there are `least`: Kafka answers the end of a transaction
/// before its marks are in all partitions, and until then they hide what comes after them.
pub fn committed(topic: &str, format: &str, least: usize) -> Vec<String> {
    eventually("all copies", || {
        let records = clients::kafka_records(Kafka::shared().bootstrap(), topic, format);
        (records.len() >= least).then_some(records)
    })
}
