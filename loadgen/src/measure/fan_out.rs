//! What one delivery costs the broker when a message of one publisher goes to many subscribers, QoS 0.
//!
//! Messages go in rounds: a burst is published at once, and the next only when all subscribers have all of it.

use std::time::{Duration, Instant};

use codec::Qos;
use serde::Serialize;

use super::{Cost, MeasureError, Meter, TURN, Target, WARM_UP};
use crate::client::{ClientId, Notice};
use crate::fleet::Fleet;
use crate::payload::Noise;
use crate::setup::{connect_all, subscribe_all};

const TOPIC: &str = "rooms/lobby/messages";
/// QoS 0 may be lost. After so long without a delivery the rest of a round is counted as lost.
const ROUND_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The measure's options.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct FanOut {
    /// Subscribers of the one topic
    #[arg(long, default_value_t = 500)]
    pub subscribers: u32,
    /// Messages published at once
    #[arg(long, default_value_t = 1)]
    pub burst: u32,
    /// Payload of each message, in bytes
    #[arg(long, default_value_t = 100)]
    pub payload_bytes: usize,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// The measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FanOutReport {
    /// Bursts published while measuring.
    pub rounds: u64,
    /// Deliveries that never came.
    pub lost: u64,
    /// What one delivery cost.
    pub delivery: Cost,
}

impl FanOut {
    /// Runs the measure.
    ///
    /// # Errors
    /// The broker did not take all clients, or ended a connection.
    pub fn run(&self, target: &Target) -> Result<FanOutReport, MeasureError> {
        let mut fleet = Fleet::new()?;
        let names = (0..self.subscribers).map(|n| format!("subscriber-{n}"));
        let subscribers = connect_all(&mut fleet, &target.connect_options(), names)?;
        let publisher = std::iter::once("publisher".to_owned());
        let publisher = connect_all(&mut fleet, &target.connect_options(), publisher)?[0];
        let filters = subscribers
            .iter()
            .map(|&s| (s, std::iter::once(TOPIC.to_owned())));
        subscribe_all(&mut fleet, filters, Qos::AtMostOnce)?;

        let mut rounds = Rounds {
            fleet,
            publisher,
            burst: self.burst,
            expected: u64::from(self.burst) * u64::from(self.subscribers),
            payload: vec![0; self.payload_bytes],
            noise: Noise::new(1),
            notices: Vec::new(),
            round: 0,
            lost: 0,
        };
        rounds.run_for(WARM_UP)?;
        rounds.lost = 0;
        let before = rounds.round;
        let meter = Meter::start(target)?;
        rounds.run_for(Duration::from_secs(self.seconds))?;
        let measured = rounds.round - before;
        let delivered = measured * rounds.expected - rounds.lost;
        let delivery = meter.stop(target, delivered)?;
        Ok(FanOutReport {
            rounds: measured,
            lost: rounds.lost,
            delivery,
        })
    }
}

struct Rounds {
    fleet: Fleet,
    publisher: ClientId,
    burst: u32,
    /// Deliveries of one round.
    expected: u64,
    payload: Vec<u8>,
    noise: Noise,
    notices: Vec<Notice>,
    /// Number of the round; every message of it carries the number as its stamp.
    round: u64,
    lost: u64,
}

impl Rounds {
    fn run_for(&mut self, duration: Duration) -> Result<(), MeasureError> {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            self.run_one()?;
        }
        Ok(())
    }

    fn run_one(&mut self) -> Result<(), MeasureError> {
        self.round += 1;
        for _ in 0..self.burst {
            self.noise.fill(self.round, &mut self.payload);
            self.fleet
                .publish(self.publisher, TOPIC, Qos::AtMostOnce, &self.payload)?;
        }
        let mut delivered = 0;
        let mut progress = Instant::now();
        while delivered < self.expected {
            self.fleet.turn(TURN, &mut self.notices)?;
            let before = delivered;
            for notice in self.notices.drain(..) {
                match notice {
                    // What comes late, of a round that was given up, counts for nothing.
                    Notice::Delivered { stamp, .. } if stamp == self.round => delivered += 1,
                    Notice::Closed { why, .. } => {
                        return Err(MeasureError::Closed {
                            doing: "publishing",
                            why,
                        });
                    }
                    _ => {}
                }
            }
            if delivered > before {
                progress = Instant::now();
            } else if progress.elapsed() > ROUND_SILENCE_MAX {
                self.lost += self.expected - delivered;
                break;
            }
        }
        Ok(())
    }
}
