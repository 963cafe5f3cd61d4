//! A Kafka in this process, for trying things out: librdkafka's in-memory cluster on a real port of the loopback
//! interface, so that `kcat` and every other Kafka client can read it.
//!
//! It forgets everything when it is dropped, and of each partition it keeps only the newest 5 MB or 100,000 records. It
//! cannot create topics on request, so they are made at its start. Nothing that claims durability runs on it.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;

use crate::error::StartError;

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
            for topic in topics {
                cluster
                    .create_topic(topic, partitions, 1)
                    .map_err(|error| StartError::CreateTopic {
                        kafka: cluster.bootstrap_servers(),
                        topic: topic.clone(),
                        cause: error.to_string(),
                    })?;
            }
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
