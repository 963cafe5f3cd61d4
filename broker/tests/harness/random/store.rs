//! A sink in a bad mood: it settles late and out of order, is away at times, has little room, and refuses some.
//!
//! What it does with a message depends on the area of its topic, so that the order within a topic means something.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use broker::{Deliver, Incoming, Refusal, Settlement, Sink, Token, Verdict};

use super::dice::Dice;
use super::ledger::{Ledger, Number};

/// Publishes that it takes before it has settled some.
const PENDING_MAX: usize = 300;

#[derive(Debug)]
struct State {
    dice: Dice,
    tick: u64,
    away: bool,
    /// No more outages and refusals: the end is near.
    calm: bool,
    said_busy: bool,
    pending: Vec<(Token, Option<Number>, u64)>,
    refused: BTreeSet<Number>,
}

#[derive(Debug)]
pub struct Store(Mutex<State>);

impl Store {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            dice: Dice::new(seed),
            tick: 0,
            away: false,
            calm: false,
            said_busy: false,
            pending: Vec::new(),
            refused: BTreeSet::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn calm_down(&self) {
        let mut state = self.state();
        state.calm = true;
        state.away = false;
    }

    /// What is settled at this tick, in an order of its own; and whether those who were told "busy" may try again.
    pub fn tick(&self, tick: u64) -> (Vec<(Token, Settlement)>, bool) {
        let mut state = self.state();
        let state = &mut *state;
        state.tick = tick;
        if !state.calm && state.dice.chance(20) {
            state.away = !state.away;
        }
        let mut settled = Vec::new();
        if !state.away {
            let (dice, refused, calm) = (&mut state.dice, &mut state.refused, state.calm);
            state.pending.retain(|(token, number, due)| {
                if *due > tick && !calm {
                    return true;
                }
                let refuse = !calm && dice.chance(5);
                settled.push((
                    *token,
                    if refuse {
                        refused.extend(*number);
                        Settlement::Refused(Refusal::TooLarge)
                    } else {
                        Settlement::Stored
                    },
                ));
                false
            });
            state.dice.shuffle(&mut settled);
        }
        let ready = state.said_busy && !state.away && state.pending.len() < PENDING_MAX / 2;
        if ready {
            state.said_busy = false;
        }
        (settled, ready)
    }

    /// Messages refused since it was last asked.
    pub fn refused(&self) -> BTreeSet<Number> {
        std::mem::take(&mut self.state().refused)
    }
}

impl Sink for Store {
    fn accept(&self, publish: &Incoming<'_>, token: Token) -> Verdict {
        let mut state = self.state();
        let area = publish
            .topic
            .strip_prefix("r/")
            .and_then(|rest| rest.split('/').next());
        let area: u8 = area.and_then(|area| area.parse().ok()).unwrap_or(0);
        let deliver = match area % 4 {
            0 => return Verdict::NotStored,
            1 => return Verdict::Accepted,
            2 => Deliver::Now,
            _ => Deliver::AfterStored,
        };
        if state.away || state.pending.len() >= PENDING_MAX {
            state.said_busy = true;
            return Verdict::Busy;
        }
        let number = Ledger::number(publish.payload);
        if !state.calm && state.dice.chance(5) {
            state.refused.extend(number);
            return Verdict::Refused(Refusal::Quota);
        }
        if token != Token::NONE {
            let due = state.tick + state.dice.below(8) as u64;
            state.pending.push((token, number, due));
        }
        Verdict::Pending { deliver }
    }
}
