//! What a message costs the broker on its way from one client to one other, QoS 1 on both legs.
//!
//! Every pair has one message under way: the next goes when the publisher has its acknowledgement and the subscriber the
//! message. So nothing is batched on a connection, as with people who chat in twos.

use std::time::{Duration, Instant};

use codec::Qos;
use serde::Serialize;

use super::{Cost, MeasureError, Meter, TURN, Target, WARM_UP};
use crate::client::{ClientId, Notice};
use crate::fleet::Fleet;
use crate::latency::{Latencies, LatencySummary};
use crate::payload::Noise;
use crate::setup::{check_silence, connect_all, subscribe_all};

/// The measure's options.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct Pairs {
    /// Pairs of one publisher and one subscriber
    #[arg(long, default_value_t = 300)]
    pub pairs: u32,
    /// Payload of each message, in bytes (at least 8)
    #[arg(long, default_value_t = 100)]
    pub payload_bytes: usize,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// The measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairsReport {
    /// What one message cost.
    pub message: Cost,
    /// From the publish to both the acknowledgement and the delivery, with all pairs busy.
    pub round_trip: LatencySummary,
}

/// One pair and its message under way.
struct Pair {
    publisher: ClientId,
    topic: String,
    /// Number of the message under way.
    message: u64,
    sent_at: Instant,
    acknowledged: bool,
    delivered: bool,
}

impl Pairs {
    /// Runs the measure.
    ///
    /// # Errors
    /// The broker did not take all clients, ended a connection, or lost a message.
    pub fn run(&self, target: &Target) -> Result<PairsReport, MeasureError> {
        if self.payload_bytes < size_of::<u64>() {
            return Err(MeasureError::Options(
                "--payload-bytes must be 8 or more".to_owned(),
            ));
        }
        let mut fleet = Fleet::new()?;
        let options = target.connect_options();
        let names = (0..self.pairs).map(|n| format!("subscriber-{n}"));
        let subscribers = connect_all(&mut fleet, &options, names)?;
        let names = (0..self.pairs).map(|n| format!("publisher-{n}"));
        let publishers = connect_all(&mut fleet, &options, names)?;
        let topic = |n: u32| format!("rooms/{n}/messages");
        let filters = subscribers
            .iter()
            .map(|&s| (s, std::iter::once(topic(s.0))));
        subscribe_all(&mut fleet, filters, Qos::AtLeastOnce)?;

        let now = Instant::now();
        let pairs = (0..self.pairs).zip(publishers).map(|(n, publisher)| Pair {
            publisher,
            topic: topic(n),
            message: 0,
            sent_at: now,
            acknowledged: true,
            delivered: true,
        });
        let mut run = Run {
            fleet,
            pairs: pairs.collect(),
            payload: vec![0; self.payload_bytes],
            noise: Noise::new(1),
            latencies: Latencies::default(),
            done: 0,
        };
        for n in 0..run.pairs.len() {
            run.publish_next(n)?;
        }
        run.run_for(WARM_UP)?;
        (run.done, run.latencies) = (0, Latencies::default());
        let meter = Meter::start(target)?;
        run.run_for(Duration::from_secs(self.seconds))?;
        let message = meter.stop(target, run.done)?;
        Ok(PairsReport {
            message,
            round_trip: run.latencies.summary(),
        })
    }
}

struct Run {
    fleet: Fleet,
    /// Client n is the subscriber of pair n; client pairs + n is its publisher.
    pairs: Vec<Pair>,
    payload: Vec<u8>,
    noise: Noise,
    latencies: Latencies,
    done: u64,
}

impl Run {
    fn publish_next(&mut self, n: usize) -> Result<(), MeasureError> {
        let pair = &mut self.pairs[n];
        pair.message += 1;
        (pair.acknowledged, pair.delivered) = (false, false);
        pair.sent_at = Instant::now();
        self.noise.fill(pair.message, &mut self.payload);
        self.fleet
            .publish(pair.publisher, &pair.topic, Qos::AtLeastOnce, &self.payload)?;
        Ok(())
    }

    fn run_for(&mut self, duration: Duration) -> Result<(), MeasureError> {
        let begin = Instant::now();
        let mut progress = begin;
        let mut notices = Vec::new();
        while begin.elapsed() < duration {
            self.fleet.turn(TURN, &mut notices)?;
            if !notices.is_empty() {
                progress = Instant::now();
            }
            for notice in notices.drain(..) {
                self.on_notice(notice)?;
            }
            check_silence(progress, "waiting for acknowledgements and deliveries")?;
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: Notice) -> Result<(), MeasureError> {
        let n = match notice {
            // A repeated delivery (QoS 1 allows it) carries the number of an earlier message.
            Notice::Delivered { client, stamp } if stamp == self.pairs[client.index()].message => {
                self.pairs[client.index()].delivered = true;
                client.index()
            }
            Notice::Acknowledged { client, .. } => {
                let n = client.index() - self.pairs.len();
                self.pairs[n].acknowledged = true;
                n
            }
            Notice::Closed { why, .. } => {
                return Err(MeasureError::Closed {
                    doing: "publishing",
                    why,
                });
            }
            _ => return Ok(()),
        };
        let pair = &self.pairs[n];
        if pair.acknowledged && pair.delivered {
            self.latencies.record(pair.sent_at.elapsed());
            self.done += 1;
            self.publish_next(n)?;
        }
        Ok(())
    }
}
