//! All parts of a node's bridge together: start, status, stop.

use std::sync::Arc;
use std::time::Duration;

use broker::{Handle, Sink};
use rdkafka::error::KafkaError;

use crate::claim::Claim;
use crate::config::Config;
use crate::downlink::Downlink;
use crate::error::StartError;
use crate::fault::Asker;
use crate::kafka;
use crate::lanes::Lanes;
use crate::mender::Mender;
use crate::poller::Poller;
use crate::producer::new_producer;
use crate::routes::Routes;
use crate::sink::KafkaSink;
use crate::status::{Counters, DownlinkStatus, Status};
use crate::suspicions::Suspicions;
use crate::topics;
use crate::watch::{FAR, Watcher};

/// The running bridge of one broker node.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = broker::Broker::bind(broker::Config::default())?;
/// let mut bridge = bridge::Bridge::start(&bridge::Config::default(), broker.handle())?;
/// let running = broker.start(bridge.sink())?;
/// // … until the end: first what brings new work, then the clients, then what they wait for.
/// bridge.stop_downlink();
/// running.shutdown();
/// let unconfirmed = bridge.shutdown(std::time::Duration::from_secs(10));
/// # let _ = unconfirmed;
/// # Ok(())
/// # }
/// ```
pub struct Bridge {
    sink: Arc<KafkaSink>,
    poller: Poller,
    watcher: Watcher,
    _mender: Mender,
    downlink: Option<Downlink>,
    /// The node's name is this node's alone.
    claim: Option<Claim>,
    /// What the start found to weaken the promise.
    weaknesses: Arc<[String]>,
    /// The last that a stopped downlink said.
    downlink_was: DownlinkStatus,
}

impl Bridge {
    /// Checks the configuration, waits for Kafka, makes sure of the topics, and starts the threads. Blocks for up to
    /// twice `start_timeout_ms`.
    ///
    /// # Errors
    /// One sentence about what is wrong; nothing is left running.
    pub fn start(config: &Config, handle: Handle) -> Result<Self, StartError> {
        config.validate()?;
        let routes = Routes::compile(&config.routes)?;
        let prepared = topics::prepare(config)?;
        let topic = config.kafka_topics().first().copied();
        let claim = topic
            .filter(|_| !prepared.in_memory)
            .map(|topic| Claim::take(config, topic))
            .transpose()?;
        let client_error = |error: KafkaError| StartError::Client(error.to_string());
        let suspicions = Arc::new(Suspicions::default());
        let near = kafka::producer(config, prepared.batch_bytes_max);
        let producer = new_producer(&near, &suspicions).map_err(client_error)?;
        let partitions = Arc::new(prepared.partitions);
        let sink = Arc::new(KafkaSink::new(
            config,
            routes,
            Lanes::new(
                producer,
                partitions,
                prepared.batch_bytes_max,
                &prepared.limits,
            ),
            Arc::new(Counters::default()),
        ));
        if prepared.round_trip >= FAR {
            sink.is_far();
        }
        let poller = Poller::start(
            Arc::clone(&sink),
            config,
            prepared.batch_bytes_max,
            Arc::clone(&suspicions),
            handle.clone(),
        )?;
        let mender = Mender::start(Arc::clone(&sink), config.clone())?;
        let asker = Asker::new(kafka::client(config)).map_err(client_error)?;
        let topic = topic.map(str::to_owned);
        let watcher = Watcher::start(
            Arc::clone(&sink),
            Arc::clone(&suspicions),
            asker,
            topic,
            handle.clone(),
            Duration::from_secs(config.confirmation_wait_s),
        )?;
        let downlink = config
            .downlink
            .enabled
            .then(|| Downlink::start(config, handle, suspicions))
            .transpose()?;
        Ok(Self {
            sink,
            poller,
            watcher,
            _mender: mender,
            downlink,
            claim,
            weaknesses: prepared.weaknesses.into(),
            downlink_was: DownlinkStatus::default(),
        })
    }

    /// What the broker offers its publishes to.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.sink) as Arc<dyn Sink>
    }

    /// What it says of itself now.
    #[must_use]
    pub fn status(&self) -> Status {
        let downlink = self
            .downlink
            .as_ref()
            .map_or(self.downlink_was, Downlink::status);
        let of_claim = self.claim.iter().filter_map(Claim::problem);
        let of_downlink = self.downlink.iter().flat_map(Downlink::problems);
        let reachability = self.watcher.reachability();
        // Of a Kafka that is away as a whole it is said elsewhere.
        let partly = self.downlink.iter().filter(|_| reachability.answers());
        let cut_off = partly.filter_map(Downlink::cut_off);
        let problems = of_claim.chain(of_downlink).chain(cut_off);
        let problems = problems.chain(self.sink.problems()).collect();
        self.sink.counters.status(
            reachability,
            downlink,
            Arc::clone(&self.weaknesses),
            problems,
        )
    }

    /// Stops to publish what backends append, waits a while until sessions have what was handed over, and commits the
    /// position. To be called while the broker still runs, since it is the broker that says what has arrived.
    pub fn stop_downlink(&mut self) {
        if let Some(mut downlink) = self.downlink.take() {
            downlink.stop();
            self.downlink_was = downlink.status();
        }
    }

    /// Ends the bridge: waits up to `patience` for Kafka to confirm what waits. Returns how many messages it had not
    /// confirmed; none of them was acknowledged to its publisher, unless its route says `ack = "received"`. To be called
    /// after the broker has ended.
    pub fn shutdown(mut self, patience: Duration) -> u64 {
        self.stop_downlink();
        self.poller.stop(patience)
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge")
            .field("sink", &self.sink)
            .finish_non_exhaustive()
    }
}
