//! A Kafka in this process, for trying things out: librdkafka's in-memory cluster on a real port of the loopback
//! interface, so that `kcat` and every other Kafka client can read it.
//!
//! It forgets everything when it is dropped, and of each partition it keeps only the newest 5 MB or 100,000 records. It
//! cannot create topics on request, so they are made at its start. Nothing that claims durability runs on it.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::StartError;

/// Between two nudges of the cluster's thread while it makes topics.
const NUDGE: Duration = Duration::from_millis(2);

/// A running in-memory Kafka. It ends when this value is dropped.
#[derive(Debug)]
pub struct EmbeddedKafka {
    bootstrap: String,
    /// The thread ends when nobody can send to it any more.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedKafka {
    /// Starts one broker that has `topics`, each with `partitions` partitions. Any other topic appears, with four
    /// partitions, when a client first asks for it by name.
    ///
    /// # Errors
    /// When no port can be opened, or a topic's name is none.
    pub fn start<'t>(
        topics: impl IntoIterator<Item = &'t str>,
        partitions: i32,
    ) -> Result<Self, StartError> {
        let topics: Vec<String> = topics.into_iter().map(str::to_owned).collect();
        let (stop, stopped) = mpsc::sync_channel(1);
        let (ready, started) = mpsc::sync_channel(1);
        // The library's handle stays on the thread that made it.
        let thread = std::thread::Builder::new()
            .name("embedded-kafka".to_owned())
            .spawn(move || hold(&topics, partitions, &ready, &stopped))?;
        let bootstrap = started.recv().unwrap_or_else(|_| {
            Err(StartError::Client(
                "the embedded Kafka ended at its start".to_owned(),
            ))
        })?;
        Ok(Self {
            bootstrap,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its address, `host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

impl Drop for EmbeddedKafka {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the embedded Kafka panicked");
        }
    }
}

/// Makes the topics.
///
/// The cluster's thread looks at what it is asked before it takes in what woke it. A question that comes between the two is
/// slept on for a second, unless something comes over the port, so something does.
fn create(
    cluster: &MockCluster<'_, DefaultProducerContext>,
    topics: &[String],
    partitions: i32,
) -> Result<(), StartError> {
    let address = cluster.bootstrap_servers();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(TcpStream::connect(&address));
                std::thread::sleep(NUDGE);
            }
        });
        let created = topics.iter().try_for_each(|topic| {
            cluster
                .create_topic(topic, partitions, 1)
                .map_err(|error| StartError::CreateTopic {
                    kafka: address.clone(),
                    topic: topic.clone(),
                    cause: error.to_string(),
                })
        });
        done.store(true, Ordering::Relaxed);
        created
    })
}

/// Runs the cluster until its owner lets go of the sender.
fn hold(
    topics: &[String],
    partitions: i32,
    ready: &SyncSender<Result<String, StartError>>,
    stopped: &Receiver<()>,
) {
    let cluster = MockCluster::new(1)
        .map_err(|error| StartError::Client(error.to_string()))
        .and_then(|cluster| {
            create(&cluster, topics, partitions)?;
            Ok(cluster)
        });
    // Nobody listens any more only when the owner has given up, and then there is nothing to hold.
    match cluster {
        Ok(cluster) => {
            if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
                let _ = stopped.recv();
            }
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn topics_are_made_without_waiting_for_the_cluster_to_wake_up_by_itself() {
        let topics: Vec<String> = (0..200).map(|n| format!("t{n}")).collect();
        let began = Instant::now();
        let kafka = EmbeddedKafka::start(topics.iter().map(String::as_str), 3).unwrap();
        let took = began.elapsed();
        drop(kafka);
        // One in three or so was slept on for a second.
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
