//! How many QoS 1 messages a second a broker acknowledges, how late, and what became of each: for a broker that
//! acknowledges only what it has stored.
//!
//! Messages are due by an open-loop schedule and their latency counts from the time when they were due, so that a broker
//! that holds publishers back looks no better for it. Publishers take turns; each keeps to the broker's receive maximum
//! and to a window, and what is due beyond that waits in the tool.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use codec::{Qos, ReasonCode};
use serde::Serialize;

use super::{Cost, MeasureError, Meter, Target};
use crate::client::{ClientId, Notice};
use crate::fleet::Fleet;
use crate::latency::{Latencies, LatencySummary};
use crate::ledger::Ledger;
use crate::payload::Noise;
use crate::schedule::Schedule;
use crate::setup::{SILENCE_MAX, connect_all};

/// What is due is handed out at these intervals, so that a publisher writes once for all that it got.
const TICK: Duration = Duration::from_millis(1);
/// A publisher whose socket takes no more gets no more.
const WAITING_BYTES_MAX: usize = 262_144;

/// The measure's options.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct Persisted {
    /// Messages a second, all publishers together
    #[arg(long, default_value_t = 83_333)]
    pub rate: u64,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// How long the same load runs before that without being measured, in seconds
    #[arg(long, default_value_t = 10)]
    pub warm_up_seconds: u64,
    /// Publishers, each on a connection and a topic of its own
    #[arg(long, default_value_t = 20)]
    pub publishers: u32,
    /// Messages of one publisher that are not acknowledged yet; the broker's receive maximum may lower it
    #[arg(long, default_value_t = 1_000)]
    pub window: usize,
    /// Payload of each message, in bytes; it cannot be compressed
    #[arg(long, default_value_t = 200)]
    pub payload_bytes: usize,
    /// The topics are PREFIX/0, PREFIX/1, …
    #[arg(long, default_value = "load")]
    pub topic_prefix: String,
}

/// The measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PersistedReport {
    /// Acknowledgements while measuring, and what one message cost.
    pub message: Cost,
    /// The fewest acknowledgements in any one second of the measured time.
    pub per_second_min: u64,
    /// From the time when a message was due to its PUBACK.
    pub latency: LatencySummary,
    /// All messages, those of the warm-up included.
    pub ledger: Ledger,
    /// Whether the ledger adds up.
    pub ledger_balances: bool,
    /// Messages that were due and never sent, because their publisher was held back to the end or its connection ended.
    pub unsent: u64,
    /// Publishers whose connection ended.
    pub closed: u32,
}

impl Persisted {
    /// Runs the measure.
    ///
    /// # Errors
    /// The broker did not take all publishers.
    pub fn run(&self, target: &Target) -> Result<PersistedReport, MeasureError> {
        if self.publishers == 0 || self.window == 0 {
            return Err(MeasureError::Options(
                "--publishers and --window must be 1 or more".to_owned(),
            ));
        }
        if let Err(error) = topic::validate_name(&self.topic_prefix) {
            return Err(MeasureError::Options(format!("--topic-prefix: {error}")));
        }
        let mut fleet = Fleet::new()?;
        let names = (0..self.publishers).map(|n| format!("publisher-{n}"));
        let clients = connect_all(&mut fleet, &target.connect_options(), names)?;
        let publishers = clients.into_iter().map(|client| Publisher {
            client,
            topic: format!("{}/{}", self.topic_prefix, client.0),
            due: 0,
            sent: 0,
            window: self.window.min(usize::from(fleet.receive_maximum(client))),
            in_flight: VecDeque::new(),
            open: true,
        });
        let publishers = publishers.collect();
        let warm_up = Duration::from_secs(self.warm_up_seconds);
        let measured = Duration::from_secs(self.seconds);
        let run = Run {
            fleet,
            publishers,
            schedule: Schedule::new(self.rate, warm_up + measured),
            warm_up,
            end: warm_up + measured,
            start: Instant::now(),
            due: 0,
            payload: vec![0; self.payload_bytes],
            noise: Noise::new(1),
            latencies: Latencies::default(),
            per_second: vec![0; usize::try_from(self.seconds).unwrap_or_default()],
            ledger: Ledger::default(),
            behind: Vec::new(),
        };
        run.run_to_the_end(target)
    }
}

struct Publisher {
    client: ClientId,
    topic: String,
    /// How many of its messages are due, sent or not.
    due: u64,
    sent: u64,
    window: usize,
    /// Messages without an answer, by packet identifier and number in the schedule, in the order of sending.
    in_flight: VecDeque<(NonZeroU16, u64)>,
    open: bool,
}

impl Publisher {
    /// Takes the message that an acknowledgement is for. Answers come in order, so it is the first, but for a broker
    /// that breaks the rule.
    fn answered(&mut self, packet_id: NonZeroU16) -> Option<u64> {
        let at = self.in_flight.iter().position(|(id, _)| *id == packet_id)?;
        self.in_flight.remove(at).map(|(_, n)| n)
    }
}

struct Run {
    fleet: Fleet,
    publishers: Vec<Publisher>,
    schedule: Schedule,
    warm_up: Duration,
    end: Duration,
    start: Instant,
    /// How many messages of the schedule were handed out.
    due: u64,
    payload: Vec<u8>,
    noise: Noise,
    latencies: Latencies,
    /// Acknowledgements in each second of the measured time.
    per_second: Vec<u64>,
    ledger: Ledger,
    /// Publishers that could not send all that is due.
    behind: Vec<usize>,
}

impl Run {
    fn run_to_the_end(mut self, target: &Target) -> Result<PersistedReport, MeasureError> {
        let mut meter = None;
        let mut message = None;
        let mut notices = Vec::new();
        self.start = Instant::now();
        let mut progress = self.start;
        loop {
            let elapsed = self.start.elapsed();
            if meter.is_none() && message.is_none() && elapsed >= self.warm_up {
                meter = Some(Meter::start(target)?);
            }
            if elapsed >= self.end
                && let Some(meter) = meter.take()
            {
                message = Some(meter.stop(target, self.per_second.iter().sum())?);
            }
            let all_sent = self.due == self.schedule.total() && self.behind.is_empty();
            let waiting = self
                .publishers
                .iter()
                .any(|p| p.open && !p.in_flight.is_empty());
            let silent = progress.elapsed() > SILENCE_MAX;
            if message.is_some() && ((all_sent && !waiting) || silent) {
                break;
            }
            self.publish_due(elapsed)?;
            self.fleet.turn(self.until_next_tick(), &mut notices)?;
            let now = self.start.elapsed();
            for notice in notices.drain(..) {
                if matches!(notice, Notice::Acknowledged { .. }) {
                    progress = self.start + now;
                }
                self.on_notice(notice, now);
            }
        }
        let message = message.ok_or(MeasureError::Silent {
            doing: "publishing",
            seconds: SILENCE_MAX.as_secs(),
        })?;
        Ok(self.report(message))
    }

    fn until_next_tick(&self) -> Duration {
        let elapsed = self.start.elapsed().as_nanos();
        let tick = TICK.as_nanos();
        Duration::from_nanos(u64::try_from(tick - elapsed % tick).unwrap_or_default())
    }

    /// Hands out what is due and sends as much as the windows allow.
    fn publish_due(&mut self, elapsed: Duration) -> Result<(), MeasureError> {
        let whole_ticks = elapsed.as_nanos() / TICK.as_nanos();
        let tick = TICK * u32::try_from(whole_ticks).unwrap_or(u32::MAX);
        let due = self.schedule.due_by(tick);
        for at in std::mem::take(&mut self.behind) {
            self.send(at)?;
        }
        if self.due == due {
            return Ok(());
        }
        let count = self.publishers.len() as u64;
        // Publisher p has messages p, p + count, p + 2 × count, … of the schedule.
        for at in 0..self.publishers.len() {
            let publisher = &mut self.publishers[at];
            let was_behind = publisher.open && publisher.sent < publisher.due;
            publisher.due = (due + count - 1 - at as u64) / count;
            if !was_behind {
                self.send(at)?;
            }
        }
        self.due = due;
        Ok(())
    }

    fn send(&mut self, at: usize) -> Result<(), MeasureError> {
        let count = self.publishers.len() as u64;
        let publisher = &mut self.publishers[at];
        while publisher.open && publisher.sent < publisher.due {
            if publisher.in_flight.len() >= publisher.window
                || self.fleet.waiting_bytes(publisher.client) > WAITING_BYTES_MAX
            {
                self.behind.push(at);
                return Ok(());
            }
            let n = at as u64 + publisher.sent * count;
            self.noise.fill(n, &mut self.payload);
            let packet_id = self.fleet.publish(
                publisher.client,
                &publisher.topic,
                Qos::AtLeastOnce,
                &self.payload,
            )?;
            publisher.in_flight.extend(packet_id.map(|id| (id, n)));
            publisher.sent += 1;
            self.ledger.sent += 1;
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: Notice, now: Duration) {
        match notice {
            Notice::Acknowledged {
                client,
                packet_id,
                reason,
            } => {
                self.on_answer(client, packet_id, reason, now);
            }
            // What it had in flight stays there and is counted as unanswered.
            Notice::Closed { client, .. } => self.publishers[client.index()].open = false,
            _ => {}
        }
    }

    fn on_answer(&mut self, client: ClientId, id: NonZeroU16, reason: ReasonCode, now: Duration) {
        let Some(n) = self.publishers[client.index()].answered(id) else {
            self.ledger.unasked += 1;
            return;
        };
        self.ledger.answer(reason);
        let due_at = self.schedule.due_at(n);
        if due_at >= self.warm_up {
            self.latencies.record(now.saturating_sub(due_at));
        }
        if let Some(second) = now.checked_sub(self.warm_up)
            && let Some(count) = self.per_second.get_mut(second.as_secs() as usize)
        {
            *count += 1;
        }
    }

    fn report(mut self, message: Cost) -> PersistedReport {
        self.ledger.unanswered = self
            .publishers
            .iter()
            .map(|p| p.in_flight.len() as u64)
            .sum();
        PersistedReport {
            message,
            per_second_min: self.per_second.iter().copied().min().unwrap_or_default(),
            latency: self.latencies.summary(),
            ledger_balances: self.ledger.balances(),
            unsent: self.schedule.total() - self.ledger.sent,
            ledger: self.ledger,
            closed: self.publishers.iter().filter(|p| !p.open).count() as u32,
        }
    }
}
