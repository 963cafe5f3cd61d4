//! The thread that looks for topics that Kafka does not have any more, and makes them again where that is wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use crate::config::Config;
use crate::sink::KafkaSink;
use crate::topics;

/// Between two looks while a topic is missing.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to make a topic that could not be made.
const MAKE_PAUSE: Duration = Duration::from_secs(5);
/// What telling a producer of a topic may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The running thread.
pub(crate) struct Mender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mender {
    pub(crate) fn start(sink: Arc<KafkaSink>, config: Config) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let of_sink = Arc::clone(&sink);
        let thread = std::thread::Builder::new()
            .name("kafka-mend".to_owned())
            .spawn(move || mend(&of_sink, &config, &stopped))?;
        sink.troubles.set_mender(thread.thread().clone());
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Mender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that looks for topics panicked");
            }
        }
    }
}

fn mend(sink: &KafkaSink, config: &Config, stop: &AtomicBool) {
    let mut make_at = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let missing = sink.troubles.missing();
        if missing.is_empty() {
            std::thread::park();
            continue;
        }
        let make = config.create_topics && Instant::now() >= make_at;
        for topic in missing {
            match topics::look_for(config, &topic, make) {
                Ok(true) => {
                    // They would not ask by themselves for minutes.
                    for producer in sink.lanes.producers().iter() {
                        let known = producer.client().fetch_metadata(Some(&topic), TELL_TIMEOUT);
                        if let Err(error) = known {
                            tracing::debug!(%error, "a producer was not told of the topic");
                        }
                    }
                    sink.troubles.found(&topic);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(kafka_topic = &*topic, %error, "the topic is missing");
                    make_at = Instant::now() + MAKE_PAUSE;
                }
            }
        }
        std::thread::park_timeout(LOOK);
    }
}
