//! What a publish costs the broker when it goes to one of very many topics, each with one subscription: whether its cost
//! grows with subscriptions that do not match.
//!
//! A thousand subscribers hold the topics among them. One publisher picks topics at random, QoS 0, with a window of
//! messages under way.

use std::time::{Duration, Instant};

use codec::Qos;
use serde::Serialize;

use super::{Cost, MeasureError, Meter, TURN, Target, WARM_UP};
use crate::client::{ClientId, Notice};
use crate::fleet::Fleet;
use crate::payload::Noise;
use crate::setup::{check_silence, connect_all, subscribe_all};

/// The measure's options.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct Topics {
    /// Topics, each subscribed to by one subscriber
    #[arg(long, default_value_t = 10_000)]
    pub topics: u32,
    /// Subscribers that hold them, in equal parts
    #[arg(long, default_value_t = 1_000)]
    pub subscribers: u32,
    /// Messages published and not delivered yet
    #[arg(long, default_value_t = 32)]
    pub window: u64,
    /// Payload of each message, in bytes
    #[arg(long, default_value_t = 100)]
    pub payload_bytes: usize,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// The measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicsReport {
    /// What one publish with its one delivery cost.
    pub publish: Cost,
    /// The broker's own memory for each subscription, clients not counted.
    pub bytes_per_subscription: Option<f64>,
    /// Subscriptions a second while they were made.
    pub subscribes_per_second: f64,
}

fn topic(n: u32) -> String {
    format!("devices/{n:07}/telemetry/temperature")
}

impl Topics {
    /// Runs the measure.
    ///
    /// # Errors
    /// The broker did not take all clients and subscriptions, ended a connection, or lost a message.
    pub fn run(&self, target: &Target) -> Result<TopicsReport, MeasureError> {
        if self.subscribers == 0 || self.topics < self.subscribers {
            return Err(MeasureError::Options(
                "--subscribers must be 1 or more and --topics no fewer".to_owned(),
            ));
        }
        let mut fleet = Fleet::new()?;
        let options = target.connect_options();
        let names = (0..self.subscribers).map(|n| format!("subscriber-{n}"));
        let subscribers = connect_all(&mut fleet, &options, names)?;
        let publisher = std::iter::once("publisher".to_owned());
        let publisher = connect_all(&mut fleet, &options, publisher)?[0];

        let before = target.usage()?;
        let begin = Instant::now();
        // Subscriber s holds topics s, s + subscribers, s + 2 × subscribers, …
        let held = |s: ClientId| {
            (s.0..self.topics)
                .step_by(self.subscribers as usize)
                .map(topic)
        };
        subscribe_all(
            &mut fleet,
            subscribers.iter().map(|&s| (s, held(s))),
            Qos::AtMostOnce,
        )?;
        let subscribes_per_second = f64::from(self.topics) / begin.elapsed().as_secs_f64();
        let bytes = |(before, after): (crate::process::Usage, crate::process::Usage)| {
            let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
            grown as f64 / f64::from(self.topics)
        };
        let bytes_per_subscription = before.zip(target.usage()?).map(bytes);

        let mut run = Run {
            fleet,
            publisher,
            topics: (0..self.topics).map(topic).collect(),
            window: self.window.max(1),
            payload: vec![0; self.payload_bytes],
            noise: Noise::new(1),
            sent: 0,
            delivered: 0,
        };
        run.run_for(WARM_UP)?;
        let delivered = run.delivered;
        let meter = Meter::start(target)?;
        run.run_for(Duration::from_secs(self.seconds))?;
        let publish = meter.stop(target, run.delivered - delivered)?;
        Ok(TopicsReport {
            publish,
            bytes_per_subscription,
            subscribes_per_second,
        })
    }
}

struct Run {
    fleet: Fleet,
    publisher: ClientId,
    /// Formatted beforehand: the tool should not be what is measured.
    topics: Vec<String>,
    window: u64,
    payload: Vec<u8>,
    noise: Noise,
    sent: u64,
    delivered: u64,
}

impl Run {
    fn run_for(&mut self, duration: Duration) -> Result<(), MeasureError> {
        let begin = Instant::now();
        let mut progress = begin;
        let mut notices = Vec::new();
        while begin.elapsed() < duration {
            while self.sent - self.delivered < self.window {
                self.sent += 1;
                self.noise.fill(self.sent, &mut self.payload);
                let topic = &self.topics[self.noise.below(self.topics.len() as u64) as usize];
                self.fleet
                    .publish(self.publisher, topic, Qos::AtMostOnce, &self.payload)?;
            }
            self.fleet.turn(TURN, &mut notices)?;
            if !notices.is_empty() {
                progress = Instant::now();
            }
            for notice in notices.drain(..) {
                match notice {
                    Notice::Delivered { .. } => self.delivered += 1,
                    Notice::Closed { why, .. } => {
                        return Err(MeasureError::Closed {
                            doing: "publishing",
                            why,
                        });
                    }
                    _ => {}
                }
            }
            check_silence(progress, "waiting for deliveries")?;
        }
        Ok(())
    }
}
