//! Where the shares of a run wait for each other: nobody publishes before everybody has subscribed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// A point that all shares reach before any goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Ready to connect.
    Begin,
    /// Connected and subscribed.
    Connected,
    /// What is published once is published.
    Preloaded,
    /// Late groups are connected and subscribed: the schedule begins.
    Ready,
    /// All that was published is answered, or will not be.
    Published,
    /// All deliveries that are owed have come, those of all shares added up. No share arrives here: whoever adds up finds
    /// out, and all hear of it.
    Delivered,
}

/// Number of steps.
const STEPS: usize = 6;

impl Step {
    fn index(self) -> usize {
        match self {
            Self::Begin => 0,
            Self::Connected => 1,
            Self::Preloaded => 2,
            Self::Ready => 3,
            Self::Published => 4,
            Self::Delivered => 5,
        }
    }

    /// What it is waited for, for people.
    #[must_use]
    pub fn doing(self) -> &'static str {
        match self {
            Self::Begin => "starting",
            Self::Connected => "connecting",
            Self::Preloaded => "publishing what is retained",
            Self::Ready => "connecting late groups",
            Self::Published => "publishing",
            Self::Delivered => "waiting for deliveries",
        }
    }
}

/// How a share is getting on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Clients of the share.
    pub clients: u64,
    /// Clients that are connected.
    pub connected: u64,
    /// Clients that are connected and subscribed.
    pub ready: u64,
    /// Connections that the broker ended or refused so far.
    pub closed: u64,
    /// Messages sent so far.
    pub sent: u64,
    /// Messages acknowledged so far.
    pub acknowledged: u64,
    /// Messages delivered so far.
    pub delivered: u64,
    /// Messages that are due and wait for their window.
    pub waiting: u64,
    /// Deliveries that must come, to clients of any share, of what this share has published. It is told before the share
    /// arrives at [`Step::Published`], so that no share is done before all of this is known.
    pub owed: u64,
    /// Deliveries that had to come and came to clients of this share, of what any share has published.
    pub settled: u64,
}

impl Live {
    /// Adds another share's.
    pub fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        self.connected += other.connected;
        self.ready += other.ready;
        self.closed += other.closed;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.waiting += other.waiting;
        self.owed += other.owed;
        self.settled += other.settled;
    }
}

/// A share's side of the steps. None of it waits: a share goes on serving its clients.
pub trait Gate {
    /// The share has reached the step; `now` is its swarm's time. Calling it again does nothing.
    fn arrive(&mut self, step: Step, now: Nanos);

    /// The time at which all go on, once all have arrived.
    fn opens(&mut self, step: Step) -> Option<Nanos>;

    /// Why to end now, if somebody said so.
    fn stopped(&mut self) -> Option<String>;

    /// How the share is getting on.
    fn live(&mut self, live: &Live);
}

#[derive(Debug, Default)]
struct State {
    arrived: [u32; STEPS],
    latest: [Nanos; STEPS],
    stop: Option<String>,
    live: Vec<Live>,
}

impl State {
    fn sum(&self) -> Live {
        let mut sum = Live::default();
        for live in &self.live {
            sum.add(live);
        }
        sum
    }
}

/// The steps of shares in one process.
#[derive(Debug, Clone)]
pub struct Gates {
    shares: u32,
    state: Arc<Mutex<State>>,
}

impl Gates {
    /// Steps for so many shares.
    #[must_use]
    pub fn new(shares: u32) -> Self {
        let state = State {
            live: vec![Live::default(); shares as usize],
            ..State::default()
        };
        Self {
            shares,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The side of one share, from 0.
    #[must_use]
    pub fn of(&self, share: u32) -> LocalGate {
        LocalGate {
            gates: self.clone(),
            share,
            arrived: [false; STEPS],
        }
    }

    /// When all go on from this step.
    #[must_use]
    pub fn opened(&self, step: Step) -> Option<Nanos> {
        let state = self.lock();
        if step == Step::Delivered {
            let all = state.sum();
            return (state.arrived[Step::Published.index()] >= self.shares
                && all.settled >= all.owed)
                .then(|| state.latest[Step::Published.index()]);
        }
        (state.arrived[step.index()] >= self.shares).then(|| state.latest[step.index()])
    }

    /// The last step that all have reached.
    #[must_use]
    pub fn last(&self) -> Option<Step> {
        [
            Step::Delivered,
            Step::Published,
            Step::Ready,
            Step::Preloaded,
            Step::Connected,
            Step::Begin,
        ]
        .into_iter()
        .find(|step| self.opened(*step).is_some())
    }

    /// Tells all shares to end.
    pub fn stop(&self, why: &str) {
        self.lock().stop.get_or_insert_with(|| why.to_owned());
    }

    /// Why all shares are to end, if they are.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.lock().stop.clone()
    }

    /// How all shares together are getting on.
    #[must_use]
    pub fn live(&self) -> Live {
        self.lock().sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One share's side of [`Gates`]. A share that ends early holds nobody up. (Once all are told to end nobody waits any more,
/// and no step is reached by those who have ended.)
#[derive(Debug)]
pub struct LocalGate {
    gates: Gates,
    share: u32,
    arrived: [bool; STEPS],
}

impl LocalGate {
    /// Tells all shares to end.
    pub fn stop(&self, why: &str) {
        self.gates.stop(why);
    }
}

impl Gate for LocalGate {
    fn arrive(&mut self, step: Step, now: Nanos) {
        let at = step.index();
        if !std::mem::replace(&mut self.arrived[at], true) {
            let mut state = self.gates.lock();
            state.arrived[at] += 1;
            state.latest[at] = state.latest[at].max(now);
        }
    }

    fn opens(&mut self, step: Step) -> Option<Nanos> {
        self.gates.opened(step)
    }

    fn stopped(&mut self) -> Option<String> {
        self.gates.lock().stop.clone()
    }

    fn live(&mut self, live: &Live) {
        self.gates.lock().live[self.share as usize] = *live;
    }
}

impl Drop for LocalGate {
    fn drop(&mut self) {
        if self.gates.stopped().is_some() {
            return;
        }
        for step in [
            Step::Begin,
            Step::Connected,
            Step::Preloaded,
            Step::Ready,
            Step::Published,
        ] {
            self.arrive(step, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_go_on_when_the_last_has_arrived() {
        let gates = Gates::new(2);
        let (mut one, mut other) = (gates.of(0), gates.of(1));
        one.arrive(Step::Connected, 5);
        one.arrive(Step::Connected, 9);
        assert_eq!(one.opens(Step::Connected), None);
        other.arrive(Step::Connected, 7);
        assert_eq!(one.opens(Step::Connected), Some(7));
        assert_eq!(gates.last(), Some(Step::Connected));
    }

    #[test]
    fn deliveries_have_ended_when_the_sum_of_all_shares_is_what_they_owe() {
        let gates = Gates::new(2);
        let (mut one, mut other) = (gates.of(0), gates.of(1));
        let live = |owed, settled| Live {
            owed,
            settled,
            ..Live::default()
        };
        one.live(&live(10, 3));
        one.arrive(Step::Published, 5);
        other.live(&live(2, 9));
        assert_eq!(one.opens(Step::Delivered), None, "one is publishing");
        other.live(&live(4, 10));
        other.arrive(Step::Published, 7);
        assert_eq!(one.opens(Step::Delivered), None, "13 of 14");
        one.live(&live(10, 4));
        assert_eq!(other.opens(Step::Delivered), Some(7));
    }

    #[test]
    fn a_share_that_ends_holds_nobody_up() {
        let gates = Gates::new(2);
        let mut one = gates.of(0);
        one.arrive(Step::Published, 3);
        drop(gates.of(1));
        assert_eq!(one.opens(Step::Published), Some(3));
    }

    #[test]
    fn after_the_end_for_all_no_step_is_reached_by_those_who_left() {
        let gates = Gates::new(2);
        let mut one = gates.of(0);
        one.arrive(Step::Begin, 3);
        let other = gates.of(1);
        other.stop("no machine");
        drop(other);
        assert_eq!(one.opens(Step::Begin), None);
        assert_eq!(one.stopped().as_deref(), Some("no machine"));
    }
}
