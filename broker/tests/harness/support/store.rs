//! A sink that answers what the test tells it to, and remembers what it was offered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Deliver, Incoming, Refusal, Settlement, Sink, Token, Verdict};

use super::Net;

pub const PENDING: Verdict = Verdict::Pending {
    deliver: Deliver::Now,
};
pub const PENDING_DELIVER_AFTER: Verdict = Verdict::Pending {
    deliver: Deliver::AfterStored,
};

#[derive(Debug)]
struct State {
    answer: Verdict,
    next: VecDeque<Verdict>,
    offered: Vec<String>,
    /// The expiry of each publish that was not turned away.
    expiries: Vec<Option<u32>>,
    /// Tokens of publishes taken pending, oldest first; `None` once settled.
    pending: Vec<Option<Token>>,
}

/// See the module.
#[derive(Debug)]
pub struct Store(Mutex<State>);

impl Store {
    /// A store that always gives the same answer.
    pub fn answering(answer: Verdict) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            answer,
            next: VecDeque::new(),
            offered: Vec::new(),
            expiries: Vec::new(),
            pending: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers these first.
    pub fn answer_next(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        self.state().next.extend(verdicts);
    }

    /// Answers this from now on.
    pub fn answer_always(&self, verdict: Verdict) {
        self.state().answer = verdict;
    }

    /// What it was offered since it was last asked, as `TOPIC PAYLOAD`.
    pub fn offered(&self) -> Vec<String> {
        std::mem::take(&mut self.state().offered)
    }

    /// The expiry, in seconds, of each publish that it has not turned away.
    pub fn expiries(&self) -> Vec<Option<u32>> {
        self.state().expiries.clone()
    }

    /// Settles pending publishes as stored, by the order in which they were taken (0 is the first ever).
    pub fn stored(&self, net: &Net, which: impl IntoIterator<Item = usize>) {
        self.settle(net, which, Settlement::Stored);
    }

    pub fn refused(&self, net: &Net, which: impl IntoIterator<Item = usize>, refusal: Refusal) {
        self.settle(net, which, Settlement::Refused(refusal));
    }

    fn settle(&self, net: &Net, which: impl IntoIterator<Item = usize>, settlement: Settlement) {
        let mut batch = Vec::new();
        for at in which {
            let token = self.state().pending[at].take();
            batch.push((token.expect("it was settled before"), settlement));
        }
        net.handle().settle(&mut batch);
        net.run();
    }
}

impl Sink for Store {
    fn accept(&self, publish: &Incoming<'_>, token: Token) -> Verdict {
        let mut state = self.state();
        let payload = String::from_utf8_lossy(publish.payload);
        state.offered.push(format!("{} {payload}", publish.topic));
        let verdict = state.next.pop_front().unwrap_or(state.answer);
        if verdict != Verdict::Busy {
            state.expiries.push(publish.properties.message_expiry());
        }
        if matches!(verdict, Verdict::Pending { .. }) && token != Token::NONE {
            state.pending.push(Some(token));
        }
        verdict
    }
}
