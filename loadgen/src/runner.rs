//! Executes a plan on a swarm: connects, subscribes, publishes by schedule, follows every message, and stops.
//!
//! One runner has one share of the clients on one thread. It never sleeps but in [`Swarm::turn`], and all its times are the
//! swarm's, so that a plan over virtual time is the same plan.

mod connecting;
mod gate;
mod publishing;
mod thread_cpu;
mod tracks;

use std::time::Duration;

use codec::Qos;

use crate::clock::Nanos;
use crate::histogram::Histo;
use crate::outcome::{AudienceOutcome, Outcome, SecondOutcome};
use crate::payload::Body;
use crate::plan::{Plan, Relation, Share};
use crate::stamp::Stamp;
use crate::swarm::{Client, Leave, Notice, Swarm, SwarmError};

pub use gate::{Gate, Gates, Live, LocalGate, Step};

use connecting::Connecting;
use publishing::{Publishing, Window, sparse};
use tracks::{Arrival, Tracks};

/// Messages that are due and wait for their windows, over all publishers of a share; beyond that they are dropped by the
/// tool, counted, and the run has failed.
pub const WAITING_MAX: u64 = 20_000_000;

/// The longest wait for something to happen.
const TURN_MAX: Duration = Duration::from_millis(20);

/// Deliveries have ended when none came for so long, everybody has published, and nothing is known to be on its way.
const QUIET: Nanos = 1_000_000_000;

/// When everything is here, so long is waited for what comes once more.
const QUIET_AT_LAST: Nanos = 200_000_000;

/// How long an interrupted run waits for what is on its way.
const INTERRUPTED_DRAIN: Nanos = 2_000_000_000;

/// How often the live figures are told.
const LIVE_INTERVAL: Nanos = 200_000_000;

/// Pause between the last share's arrival and the beginning of the schedule, so that all shares hear of it before.
pub const READY_PAUSE: Nanos = 100_000_000;

const SECOND: Nanos = 1_000_000_000;

/// Runs a share of a plan to its end. Whatever goes wrong is in the outcome.
pub fn run<S: Swarm>(plan: &Plan, share: Share, swarm: &mut S, gate: &mut dyn Gate) -> Outcome {
    let mut runner = Runner::new(plan, share, swarm);
    let result = runner.run(swarm, gate);
    let now = swarm.now();
    let mut outcome = runner.finish(now, result);
    outcome.connects.handshakes = swarm.handshakes();
    outcome
}

/// Why a share ends before its plan.
enum End {
    /// Somebody said so.
    Stopped(String),
    /// It cannot go on.
    Failed(String),
}

impl From<SwarmError> for End {
    fn from(error: SwarmError) -> Self {
        Self::Failed(error.to_string())
    }
}

struct Runner<'a> {
    plan: &'a Plan,
    share: Share,
    connecting: Connecting,
    publishing: Publishing,
    /// By stream, and by audience of the stream.
    tracks: Vec<Vec<Tracks>>,
    window: Option<Window>,
    began: Nanos,
    notices: Vec<Notice>,
    /// Deliveries, each message of a lane and subscriber once.
    delivered: u64,
    /// Those of them to clients that read slowly, which nobody waits for.
    delivered_slowly: u64,
    /// Those of them that must come.
    delivered_checked: u64,
    delivered_at: Nanos,
    foreign: u64,
    foreign_measured: u64,
    misdelivered: u64,
    unasked: u64,
    closed: u64,
    seconds: Seconds,
    live_at: Nanos,
    churn: ChurnState,
    cpu_from: Option<u64>,
    cpu_to: Option<u64>,
}

#[derive(Default)]
struct ChurnState {
    left: u64,
    storms_done: usize,
    cursor: u32,
}

/// The second that is under way, and those that are over.
#[derive(Default)]
struct Seconds {
    done: Vec<SecondOutcome>,
    now: SecondOutcome,
    ack: Histo,
    delivery: Histo,
    cpu_before: u64,
}

impl Seconds {
    /// Closes all seconds before the one of `now`.
    fn roll(&mut self, began: Nanos, now: Nanos, connected: u64) {
        let current = usize::try_from(now.saturating_sub(began) / SECOND).unwrap_or(usize::MAX);
        while self.done.len() < current {
            let cpu = thread_cpu::micros().unwrap_or(0);
            self.now.connected = connected;
            self.now.ack = sparse(&self.ack);
            self.now.delivery = sparse(&self.delivery);
            self.now.cpu_us = cpu.saturating_sub(self.cpu_before);
            self.cpu_before = cpu;
            self.ack.clear();
            self.delivery.clear();
            self.done.push(std::mem::take(&mut self.now));
        }
    }
}

impl<'a> Runner<'a> {
    fn new<S: Swarm>(plan: &'a Plan, share: Share, swarm: &S) -> Self {
        let connecting = Connecting::new(plan, swarm, share.count);
        let publishing = Publishing::new(plan, &connecting);
        let tracks = plan
            .streams
            .iter()
            .map(|stream| {
                let audiences = stream.audiences.iter();
                audiences
                    .map(|audience| {
                        Tracks::new(stream, audience, plan.groups[audience.group].clients)
                    })
                    .collect()
            })
            .collect();
        Self {
            plan,
            share,
            connecting,
            publishing,
            tracks,
            window: None,
            began: swarm.now(),
            notices: Vec::new(),
            delivered: 0,
            delivered_slowly: 0,
            delivered_checked: 0,
            delivered_at: 0,
            foreign: 0,
            foreign_measured: 0,
            misdelivered: 0,
            unasked: 0,
            closed: 0,
            seconds: Seconds::default(),
            live_at: 0,
            churn: ChurnState::default(),
            cpu_from: None,
            cpu_to: None,
        }
    }

    fn run<S: Swarm>(&mut self, swarm: &mut S, gate: &mut dyn Gate) -> Result<(), End> {
        self.began = self.meet(swarm, gate, Step::Begin)?;
        self.seconds.cpu_before = thread_cpu::micros().unwrap_or(0);
        let result = self.go(swarm, gate);
        if let Err(End::Stopped(_)) = &result {
            // What is on its way may still arrive, so that little is called lost for being interrupted.
            let until = swarm.now() + INTERRUPTED_DRAIN;
            while swarm.now() < until && self.publishing.in_flight > 0 {
                self.turn_only(swarm, TURN_MAX)?;
            }
        }
        result
    }

    fn go<S: Swarm>(&mut self, swarm: &mut S, gate: &mut dyn Gate) -> Result<(), End> {
        self.connect_round(swarm, gate, false)?;
        self.meet(swarm, gate, Step::Connected)?;
        loop {
            let second = &mut self.seconds.now;
            if self.publishing.once(self.plan, swarm, second)? {
                break;
            }
            self.turn(swarm, gate, None)?;
        }
        self.meet(swarm, gate, Step::Preloaded)?;
        if self.plan.groups.iter().any(|group| group.late) {
            self.connect_round(swarm, gate, true)?;
        }
        let start = self.meet(swarm, gate, Step::Ready)? + READY_PAUSE;
        let from = start + nanos(self.plan.warm_up);
        let window = Window {
            start,
            from,
            to: from + nanos(self.plan.measured),
        };
        self.window = Some(window);
        self.publishing.begin(self.plan);
        self.publish(swarm, gate, window)?;
        self.drain(swarm, gate, window)
    }

    /// Waits for the other shares.
    fn meet<S: Swarm>(
        &mut self,
        swarm: &mut S,
        gate: &mut dyn Gate,
        step: Step,
    ) -> Result<Nanos, End> {
        gate.arrive(step, swarm.now());
        loop {
            if let Some(at) = gate.opens(step) {
                return Ok(at);
            }
            self.turn(swarm, gate, None)?;
        }
    }

    fn connect_round<S: Swarm>(
        &mut self,
        swarm: &mut S,
        gate: &mut dyn Gate,
        late: bool,
    ) -> Result<(), End> {
        self.connecting.begin_round(self.plan, late, swarm.now());
        loop {
            let now = swarm.now();
            self.connecting.go_on(self.plan, swarm, now)?;
            if self.connecting.is_done(now).map_err(End::Failed)? {
                return Ok(());
            }
            let due = self.connecting.next_due();
            self.turn(swarm, gate, due)?;
        }
    }

    fn publish<S: Swarm>(
        &mut self,
        swarm: &mut S,
        gate: &mut dyn Gate,
        window: Window,
    ) -> Result<(), End> {
        loop {
            let now = swarm.now();
            if self.cpu_from.is_none() && now >= window.from {
                self.cpu_from = thread_cpu::micros();
            }
            self.connecting.go_on(self.plan, swarm, now)?;
            self.churn(swarm, window);
            let second = &mut self.seconds.now;
            self.publishing.go_on(self.plan, swarm, window, second)?;
            if self.publishing.is_over(window, now) {
                self.cpu_to = thread_cpu::micros();
                return Ok(());
            }
            let due = [
                self.publishing.next_due(self.plan, window),
                self.connecting.next_due(),
                self.next_churn(window),
                Some(window.to).filter(|to| *to > now),
            ];
            self.turn(swarm, gate, due.into_iter().flatten().min())?;
        }
    }

    /// Waits for answers, then for deliveries.
    fn drain<S: Swarm>(
        &mut self,
        swarm: &mut S,
        gate: &mut dyn Gate,
        window: Window,
    ) -> Result<(), End> {
        let end = swarm.now() + nanos(self.plan.drain_max);
        loop {
            let now = swarm.now();
            let answered = self.publishing.in_flight == 0 && self.publishing.waiting == 0;
            if answered || now >= end {
                break;
            }
            self.connecting.go_on(self.plan, swarm, now)?;
            let second = &mut self.seconds.now;
            self.publishing.go_on(self.plan, swarm, window, second)?;
            self.turn(swarm, gate, self.connecting.next_due())?;
        }
        self.delivered_at = self.delivered_at.max(swarm.now());
        self.connecting.begin_waiting(swarm.now());
        // What is owed counts from here.
        gate.live(&self.live());
        gate.arrive(Step::Published, swarm.now());
        loop {
            let now = swarm.now();
            let published = gate.opens(Step::Published).is_some();
            let quiet = now.saturating_sub(self.delivered_at);
            let over = match self.quiet_enough(now, gate) {
                Some(enough) => quiet > enough,
                None => now >= end,
            };
            if (published && over) || now >= end + QUIET {
                return Ok(());
            }
            self.connecting.go_on(self.plan, swarm, now)?;
            self.turn(swarm, gate, self.connecting.next_due())?;
        }
    }

    /// After which time without a delivery no other one is to be expected; `None` when some are known to be on their way.
    fn quiet_enough(&mut self, now: Nanos, gate: &mut dyn Gate) -> Option<Nanos> {
        if self.share.count > 1 {
            // What is on its way to one share was sent by another.
            return gate.opens(Step::Delivered).map(|_| QUIET);
        }
        if self.delivered_checked < self.publishing.deliveries_owed {
            return None;
        }
        let awaited = self.delivered - self.delivered_slowly;
        let all_here = awaited >= self.publishing.deliveries_expected
            && self.connecting.is_done(now).unwrap_or(true);
        Some(if all_here { QUIET_AT_LAST } else { QUIET })
    }

    /// Lets the swarm do what there is, until `due` at the latest, and takes what happened.
    fn turn<S: Swarm>(
        &mut self,
        swarm: &mut S,
        gate: &mut dyn Gate,
        due: Option<Nanos>,
    ) -> Result<(), End> {
        let now = swarm.now();
        let wait = due.map_or(TURN_MAX, |due| {
            Duration::from_nanos(due.saturating_sub(now)).min(TURN_MAX)
        });
        self.turn_only(swarm, wait)?;
        if now.saturating_sub(self.live_at) >= LIVE_INTERVAL {
            self.live_at = now;
            gate.live(&self.live());
            if let Some(why) = gate.stopped() {
                return Err(End::Stopped(why));
            }
        }
        Ok(())
    }

    fn turn_only<S: Swarm>(&mut self, swarm: &mut S, wait: Duration) -> Result<(), End> {
        swarm
            .turn(wait, &mut self.notices)
            .map_err(SwarmError::from)?;
        self.take_notices(swarm)
    }

    fn live(&self) -> Live {
        Live {
            clients: self.connecting.outcome.clients,
            connected: self.connecting.connected_count,
            ready: self.connecting.ready_count,
            closed: self.closed,
            sent: self.publishing.sent,
            acknowledged: self.publishing.acknowledged,
            delivered: self.delivered,
            waiting: self.publishing.waiting,
            owed: self.publishing.deliveries_owed,
            settled: self.delivered_checked,
        }
    }

    fn take_notices<S: Swarm>(&mut self, swarm: &mut S) -> Result<(), End> {
        let now = swarm.now();
        self.seconds
            .roll(self.began, now, self.connecting.connected_count);
        let mut notices = std::mem::take(&mut self.notices);
        for notice in notices.drain(..) {
            self.take(swarm, notice, now)?;
        }
        self.notices = notices;
        Ok(())
    }

    fn take<S: Swarm>(&mut self, swarm: &mut S, notice: Notice, now: Nanos) -> Result<(), End> {
        let second = &mut self.seconds.now;
        match notice {
            Notice::Connected {
                client,
                session_present,
            } => {
                self.connecting
                    .connected(self.plan, swarm, client, session_present, now, second)?
            }
            Notice::Subscribed {
                client,
                granted,
                refused,
            } => {
                let answer = (granted, refused);
                self.connecting
                    .subscribed(self.plan, swarm, client, answer, now)?;
            }
            Notice::Delivered {
                client,
                qos,
                stamp,
                body,
                ..
            } => self.delivered(client, stamp, qos, body, now),
            Notice::Acknowledged {
                client,
                packet_id,
                reason,
            } => {
                let answer = (client, packet_id, reason);
                let micros = self.publishing.acknowledged(
                    self.plan,
                    swarm,
                    answer,
                    self.window,
                    now,
                    second,
                )?;
                if let Some(micros) = micros {
                    self.seconds.ack.record_micros(micros);
                }
            }
            Notice::Unasked { .. } => self.unasked += 1,
            Notice::Closed { client, why } => {
                self.closed += 1;
                self.publishing.closed(self.plan, client);
                self.connecting.closed(self.plan, client, why, now, second);
            }
        }
        Ok(())
    }

    fn delivered(
        &mut self,
        client: Client,
        stamp: Option<Stamp>,
        qos: Qos,
        body: Body,
        now: Nanos,
    ) {
        let Some(stamp) = stamp.filter(|stamp| stamp.run == self.plan.run) else {
            self.foreign(now);
            return;
        };
        let at = usize::from(stamp.stream);
        let (Some(stream), Some(tracks)) = (self.plan.streams.get(at), self.tracks.get_mut(at))
        else {
            self.foreign(now);
            return;
        };
        let group = self.plan.group_of(client);
        let subscriber = client.0 - self.plan.groups[group].first.0;
        let wanted = stream
            .audiences
            .iter()
            .zip(tracks)
            .find(|(audience, tracks)| {
                audience.group == group && tracks.wants(subscriber, stamp.lane)
            });
        let Some((audience, tracks)) = wanted.filter(|_| stamp.lane < stream.lanes) else {
            self.misdelivered += 1;
            return;
        };
        let arrival = tracks.arrived(subscriber, stamp.lane, stamp.number);
        let outcome = &mut tracks.outcome;
        outcome.deliveries += 1;
        // An answer is another message, with the payload and the QoS of whoever answers.
        let is_answer = matches!(audience.relation, Relation::Answers);
        outcome.qos_changed += u64::from(!is_answer && qos != audience.qos);
        outcome.damaged += u64::from(match body {
            _ if is_answer => false,
            Body::Unknown => false,
            Body::Intact(bytes) => bytes != stream.payload_bytes,
            Body::Damaged => true,
        });
        let slow = self.plan.groups[group].reads_slowly();
        if !slow {
            self.delivered_at = now;
        }
        match arrival {
            Arrival::Misdelivered => self.misdelivered += 1,
            Arrival::Duplicate => {}
            Arrival::New | Arrival::Late => {
                self.delivered += 1;
                self.delivered_slowly += u64::from(slow);
                self.delivered_checked += u64::from(audience.checked);
                self.seconds.now.delivered += 1;
                let micros = now.saturating_sub(stamp.due_ns) / 1_000;
                if !slow {
                    self.seconds.delivery.record_micros(micros);
                }
                if let Some(window) = self.window {
                    outcome.delivered_measured += u64::from(window.has(now));
                    if window.has(stamp.due_ns) {
                        outcome.latency.record_micros(micros);
                    }
                }
            }
        }
    }

    /// A message that is not of this run. Where nothing is published, what others publish is all that there is to see.
    fn foreign(&mut self, now: Nanos) {
        self.foreign += 1;
        self.foreign_measured += u64::from(self.window.is_some_and(|window| window.has(now)));
        if self.plan.streams.is_empty() {
            self.delivered += 1;
            self.seconds.now.delivered += 1;
        }
    }

    fn next_churn(&self, window: Window) -> Option<Nanos> {
        let churn = self.plan.churn.as_ref()?;
        let storm = churn.storms_at.get(self.churn.storms_done);
        let storm = storm.map(|at| window.from + nanos(*at));
        let rate = self.churn_per_second();
        let next = (rate > 0.0)
            .then(|| window.from + ((self.churn.left + 1) as f64 / rate * 1e9) as Nanos);
        [storm, next].into_iter().flatten().min()
    }

    fn churn_per_second(&self) -> f64 {
        let Some(churn) = &self.plan.churn else {
            return 0.0;
        };
        let part = self.connecting.outcome.clients as f64 / f64::from(self.plan.clients().max(1));
        churn.per_second * part
    }

    /// Lets clients leave that are to leave now; they come back at once.
    fn churn<S: Swarm>(&mut self, swarm: &mut S, window: Window) {
        let Some(churn) = &self.plan.churn else {
            return;
        };
        let now = swarm.now();
        let group = &self.plan.groups[churn.group];
        while now < window.to && self.next_churn(window).is_some_and(|due| due <= now) {
            let storm = churn
                .storms_at
                .get(self.churn.storms_done)
                .is_some_and(|at| window.from + nanos(*at) <= now);
            if storm {
                self.churn.storms_done += 1;
                for n in 0..group.clients {
                    self.leave(swarm, Client(group.first.0 + n), churn.abruptly, now);
                }
                continue;
            }
            self.churn.left += 1;
            for _ in 0..group.clients {
                let n = self.churn.cursor;
                self.churn.cursor = (n + 1) % group.clients;
                if self.leave(swarm, Client(group.first.0 + n), churn.abruptly, now) {
                    break;
                }
            }
        }
    }

    fn leave<S: Swarm>(
        &mut self,
        swarm: &mut S,
        client: Client,
        abruptly: bool,
        now: Nanos,
    ) -> bool {
        if !self.connecting.owns(client.0) || !self.connecting.is_ready(client) {
            return false;
        }
        let how = if abruptly {
            Leave::Abruptly
        } else {
            Leave::Politely
        };
        swarm.disconnect(client, how);
        self.publishing.closed(self.plan, client);
        self.connecting.left(client, now);
        true
    }

    fn finish(mut self, now: Nanos, result: Result<(), End>) -> Outcome {
        let connected = self.connecting.connected_count;
        self.seconds.roll(self.began, now + SECOND, connected);
        let whole = result.is_ok();
        let (aborted, interrupted) = match result {
            Ok(()) => (None, None),
            Err(End::Stopped(why)) => (None, Some(why)),
            Err(End::Failed(why)) => (Some(why), None),
        };
        let measured = self.window.map_or((now, now), |window| {
            (window.from.min(now), window.to.min(now))
        });
        let unasked = self.unasked + self.publishing.unasked;
        let dropped_by_tool = self.publishing.dropped;
        let audiences: Vec<Vec<AudienceOutcome>> = self
            .tracks
            .into_iter()
            .map(|tracks| tracks.into_iter().map(Tracks::finish).collect())
            .collect();
        let cpu_to = self.cpu_to.or_else(thread_cpu::micros);
        Outcome {
            share: self.share,
            aborted,
            interrupted,
            connects: self.connecting.finish(whole),
            streams: self.publishing.finish(self.plan),
            audiences,
            foreign: self.foreign,
            foreign_measured: self.foreign_measured,
            misdelivered: self.misdelivered,
            unasked,
            dropped_by_tool,
            began: self.began,
            measured,
            seconds: self.seconds.done,
            cpu_us_measured: self
                .cpu_from
                .zip(cpu_to)
                .map(|(from, to)| to.saturating_sub(from)),
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
