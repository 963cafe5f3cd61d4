//! Connecting and subscribing: who is next, when it is due, and what is not accepted yet.

use std::collections::{HashMap, VecDeque};

use codec::Qos;

use crate::clock::Nanos;
use crate::outcome::SecondOutcome;
use crate::plan::Plan;
use crate::report::Connects;
use crate::swarm::{Client, Hello, Swarm, SwarmError};

/// Filters in one SUBSCRIBE: some brokers take no packet beyond 10 KiB by default.
const FILTERS_PER_PACKET_MAX: usize = 100;

/// A client that the broker sent away comes back after this time.
const RETRY_PAUSE: Nanos = 1_000_000_000;

/// When the first so many connects fail and none is accepted, the broker is not there.
const FAILURES_BEFORE_ANY_SUCCESS_MAX: u64 = 20;

/// When nothing was accepted or granted for so long that was not before, those who are missing are given up.
const SILENCE_MAX: Nanos = 30_000_000_000;

/// Connects that one turn begins at most, so that answers are read in between.
const BEGUN_PER_TURN_MAX: usize = 1_024;

/// Filters of a client that are still to be asked for.
#[derive(Debug)]
struct Subscribing {
    since: Nanos,
    subscription: usize,
    filter: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connecting {
    /// Clients of this share in the order of connecting, as ranges of the plan that are filtered by ownership.
    queue: VecDeque<std::ops::Range<u32>>,
    owned: Bits,
    /// Clients of this round in this share, and how many of them were begun.
    pub(crate) total: u64,
    issued: u64,
    began: Nanos,
    per_second: Option<f64>,
    in_progress_max: usize,
    /// From when each connect that is on its way was due.
    in_progress: HashMap<u32, Nanos, ahash::RandomState>,
    subscribing: HashMap<u32, Subscribing, ahash::RandomState>,
    retry: VecDeque<(Nanos, u32)>,
    /// Clients that come back at once, after they left by themselves.
    again: VecDeque<(Nanos, u32)>,
    connected: Bits,
    pub(crate) connected_count: u64,
    ready: Bits,
    pub(crate) ready_count: u64,
    /// Who was accepted, who was ready, and with whom the broker ended a connection, since the client left by itself: one
    /// that comes and goes for ever is no progress.
    met: Bits,
    served: Bits,
    troubled: Bits,
    moved_at: Nanos,
    last_why: String,
    texts: Texts,
    pub(crate) outcome: Connects,
}

/// Buffers that are used again and again.
#[derive(Debug, Default)]
struct Texts {
    id: String,
    username: String,
    filter: String,
    filters: Vec<String>,
}

/// A set of clients as bits.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u32) -> Self {
        Self(vec![0; len as usize / 64 + 1])
    }

    pub(crate) fn has(&self, at: u32) -> bool {
        self.0[at as usize / 64] >> (at % 64) & 1 == 1
    }

    /// Sets a bit: whether that changed it.
    fn set(&mut self, at: u32, on: bool) -> bool {
        let (word, bit) = (&mut self.0[at as usize / 64], 1 << (at % 64));
        let before = *word;
        *word = if on { before | bit } else { before & !bit };
        *word != before
    }
}

impl Connecting {
    /// Finds out which clients belong to the swarm.
    pub(crate) fn new<S: Swarm>(plan: &Plan, swarm: &S, shares: u32) -> Self {
        let clients: u32 = plan.groups.iter().map(|group| group.clients).sum();
        let mut owned = Bits::new(clients);
        let mut texts = Texts::default();
        let mut own = 0_u64;
        for group in &plan.groups {
            for n in 0..group.clients {
                let client = Client(group.first.0 + n);
                group.client_id.render(n, 0, &mut texts.id);
                if swarm.owns(client, &texts.id) {
                    owned.set(client.0, true);
                    own += 1;
                }
            }
        }
        let part = own as f64 / f64::from(clients.max(1));
        Self {
            queue: VecDeque::new(),
            owned,
            total: 0,
            issued: 0,
            began: 0,
            per_second: plan.connect.per_second.map(|rate| rate * part),
            in_progress_max: plan.connect.in_progress_max.div_ceil(shares.max(1)).max(1) as usize,
            in_progress: HashMap::default(),
            subscribing: HashMap::default(),
            retry: VecDeque::new(),
            again: VecDeque::new(),
            connected: Bits::new(clients),
            connected_count: 0,
            ready: Bits::new(clients),
            ready_count: 0,
            met: Bits::new(clients),
            served: Bits::new(clients),
            troubled: Bits::new(clients),
            moved_at: 0,
            last_why: String::new(),
            texts,
            outcome: Connects {
                clients: own,
                ..Connects::default()
            },
        }
    }

    /// Whether a client belongs to this share.
    pub(crate) fn owns(&self, client: u32) -> bool {
        self.owned.has(client)
    }

    pub(crate) fn is_ready(&self, client: Client) -> bool {
        self.ready.has(client.0)
    }

    /// Begins with the groups that are late, or with those that are not.
    pub(crate) fn begin_round(&mut self, plan: &Plan, late: bool, now: Nanos) {
        self.began = now;
        self.moved_at = now;
        self.issued = 0;
        self.total = 0;
        for group in plan.groups.iter().filter(|group| group.late == late) {
            let range = group.first.0..group.first.0 + group.clients;
            self.total += range
                .clone()
                .filter(|client| self.owned.has(*client))
                .count() as u64;
            self.queue.push_back(range);
        }
    }

    /// From now on those who are not here are waited for.
    pub(crate) fn begin_waiting(&mut self, now: Nanos) {
        self.moved_at = now;
    }

    /// Whether everybody of the rounds so far is connected and subscribed, or given up. `Err` says why nothing goes.
    pub(crate) fn is_done(&mut self, now: Nanos) -> Result<bool, String> {
        let nobody = self.outcome.accepted == 0;
        let failed: u64 = self.outcome.closed.values().sum();
        let all_failed = self.issued == self.total
            && self.in_progress.is_empty()
            && self.again.is_empty()
            && failed >= self.total;
        if nobody && failed > 0 && (failed >= FAILURES_BEFORE_ANY_SUCCESS_MAX || all_failed) {
            return Err(format!(
                "no client was accepted ({failed} tried): {}",
                self.last_why
            ));
        }
        if now.saturating_sub(self.moved_at) > SILENCE_MAX && !self.is_quiet() {
            if nobody {
                let why = if self.last_why.is_empty() {
                    "the broker does not answer"
                } else {
                    &self.last_why
                };
                return Err(format!(
                    "no client was accepted in {} s: {why}",
                    SILENCE_MAX / 1_000_000_000
                ));
            }
            return Ok(true);
        }
        Ok(self.is_quiet())
    }

    fn is_quiet(&self) -> bool {
        self.issued == self.total
            && self.in_progress.is_empty()
            && self.subscribing.is_empty()
            && self.retry.is_empty()
            && self.again.is_empty()
    }

    /// When the next connect is due; `None` when none is to come.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        if self.in_progress.len() >= self.in_progress_max {
            return None;
        }
        let first = (self.issued < self.total).then(|| self.due_at(self.issued));
        let again = self.again.front().map(|(at, _)| *at);
        let retry = self.retry.front().map(|(at, _)| *at);
        [first, again, retry].into_iter().flatten().min()
    }

    fn due_at(&self, n: u64) -> Nanos {
        let Some(per_second) = self.per_second.filter(|rate| *rate > 0.0) else {
            return self.began;
        };
        self.began + (n as f64 / per_second * 1e9) as Nanos
    }

    /// Begins what is due.
    pub(crate) fn go_on<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        now: Nanos,
    ) -> Result<(), SwarmError> {
        for _ in 0..BEGUN_PER_TURN_MAX {
            if self.next_due().is_none_or(|due| due > now) {
                break;
            }
            let due_of = |queue: &VecDeque<(Nanos, u32)>| queue.front().map_or(u64::MAX, |it| it.0);
            let (due, client) = if due_of(&self.again) <= now {
                self.again.pop_front().unwrap_or_default()
            } else if due_of(&self.retry) <= now {
                // Its time counts from now: how long the broker keeps clients away is in the counters.
                (now, self.retry.pop_front().unwrap_or_default().1)
            } else {
                let due = self.due_at(self.issued);
                let Some(client) = self.next_own() else {
                    self.issued = self.total;
                    break;
                };
                self.issued += 1;
                (due, client)
            };
            self.connect(plan, swarm, Client(client), due)?;
        }
        Ok(())
    }

    fn next_own(&mut self) -> Option<u32> {
        loop {
            let range = self.queue.front_mut()?;
            match range.find(|client| self.owned.has(*client)) {
                Some(client) => return Some(client),
                None => self.queue.pop_front(),
            };
        }
    }

    fn connect<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        client: Client,
        due: Nanos,
    ) -> Result<(), SwarmError> {
        let group = &plan.groups[plan.group_of(client)];
        let n = client.0 - group.first.0;
        group.client_id.render(n, 0, &mut self.texts.id);
        if let Some(username) = &plan.connect.username {
            username.render(n, 0, &mut self.texts.username);
        }
        let hello = Hello {
            client_id: &self.texts.id,
            version: plan.connect.version,
            clean_start: plan.connect.clean_start,
            session_expiry_s: plan.connect.session_expiry_s,
            keep_alive_s: plan.connect.keep_alive_s,
            username: plan
                .connect
                .username
                .as_ref()
                .map(|_| self.texts.username.as_str()),
            password: plan.connect.password.as_ref().map(|it| it.0.as_bytes()),
        };
        self.outcome.begun += 1;
        self.in_progress.insert(client.0, due);
        swarm.connect(client, &hello)
    }

    /// A CONNACK came.
    pub(crate) fn connected<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        client: Client,
        session_present: bool,
        now: Nanos,
        second: &mut SecondOutcome,
    ) -> Result<(), SwarmError> {
        if self.met.set(client.0, true) {
            self.moved_at = now;
        }
        self.outcome.accepted += 1;
        second.accepted += 1;
        self.outcome.sessions_present += u64::from(session_present);
        if let Some(due) = self.in_progress.remove(&client.0) {
            let micros = now.saturating_sub(due) / 1_000;
            self.outcome.latency.record_micros(micros);
        }
        self.connected_count += u64::from(self.connected.set(client.0, true));
        let group = &plan.groups[plan.group_of(client)];
        if group.subscriptions.is_empty() || session_present {
            self.set_ready(plan, swarm, client, now);
            return Ok(());
        }
        let subscribing = Subscribing {
            since: now,
            subscription: 0,
            filter: 0,
        };
        self.subscribing.insert(client.0, subscribing);
        self.subscribe_more(plan, swarm, client, now)
    }

    fn set_ready<S: Swarm>(&mut self, plan: &Plan, swarm: &mut S, client: Client, now: Nanos) {
        if let Some(bytes_per_second) = plan.groups[plan.group_of(client)].read_bytes_per_second {
            swarm.read_slowly(client, bytes_per_second);
        }
        self.ready_count += u64::from(self.ready.set(client.0, true));
        if self.served.set(client.0, true) {
            self.moved_at = now;
        }
        self.outcome.seconds = now.saturating_sub(self.began) as f64 / 1e9;
    }

    /// Asks for as many filters as a packet takes; a client that has asked for all is ready.
    fn subscribe_more<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        client: Client,
        now: Nanos,
    ) -> Result<(), SwarmError> {
        let group = &plan.groups[plan.group_of(client)];
        let n = client.0 - group.first.0;
        let Some(progress) = self.subscribing.get_mut(&client.0) else {
            return Ok(());
        };
        let mut qos: [Qos; FILTERS_PER_PACKET_MAX] = [Qos::AtMostOnce; FILTERS_PER_PACKET_MAX];
        let mut used = 0;
        while used < FILTERS_PER_PACKET_MAX {
            let Some(subscription) = group.subscriptions.get(progress.subscription) else {
                break;
            };
            if progress.filter >= subscription.count {
                progress.subscription += 1;
                progress.filter = 0;
                continue;
            }
            subscription
                .filter
                .render(n, progress.filter, &mut self.texts.filter);
            progress.filter += 1;
            if self.texts.filters.len() == used {
                self.texts.filters.push(String::new());
            }
            let text = &mut self.texts.filters[used];
            text.clear();
            if let Some(share) = &subscription.share {
                text.push_str("$share/");
                text.push_str(share);
                text.push('/');
            }
            text.push_str(&self.texts.filter);
            qos[used] = subscription.qos;
            used += 1;
        }
        if used == 0 {
            self.subscribing.remove(&client.0);
            self.set_ready(plan, swarm, client, now);
            return Ok(());
        }
        progress.since = now;
        let filters: Vec<(&str, Qos)> = self.texts.filters[..used]
            .iter()
            .map(String::as_str)
            .zip(qos)
            .collect();
        swarm.subscribe(client, &filters)
    }

    /// A SUBACK came.
    pub(crate) fn subscribed<S: Swarm>(
        &mut self,
        plan: &Plan,
        swarm: &mut S,
        client: Client,
        (granted, refused): (u32, u32),
        now: Nanos,
    ) -> Result<(), SwarmError> {
        if !self.troubled.has(client.0) {
            self.moved_at = now;
        }
        self.outcome.granted += u64::from(granted);
        self.outcome.refused += u64::from(refused);
        if let Some(progress) = self.subscribing.get(&client.0) {
            let micros = now.saturating_sub(progress.since) / 1_000;
            self.outcome.subscribe_latency.record_micros(micros);
        }
        self.subscribe_more(plan, swarm, client, now)
    }

    /// A connection ended without our doing; the client comes back after a while. One that reads slowly does not: that the
    /// broker ends it is its good right, and only counted.
    pub(crate) fn closed(
        &mut self,
        plan: &Plan,
        client: Client,
        why: String,
        now: Nanos,
        second: &mut SecondOutcome,
    ) {
        second.closed += 1;
        if self.is_ready(client) && plan.groups[plan.group_of(client)].reads_slowly() {
            *self.outcome.closed_slow.entry(why).or_default() += 1;
            self.forget(client);
            return;
        }
        self.last_why.clone_from(&why);
        *self.outcome.closed.entry(why).or_default() += 1;
        self.troubled.set(client.0, true);
        self.forget(client);
        self.retry.push_back((now + RETRY_PAUSE, client.0));
    }

    /// A client left by our doing and comes back at once.
    pub(crate) fn left(&mut self, client: Client, now: Nanos) {
        for bits in [&mut self.met, &mut self.served, &mut self.troubled] {
            bits.set(client.0, false);
        }
        self.moved_at = now;
        self.forget(client);
        self.again.push_back((now, client.0));
    }

    /// What is to be told at the end of a run that was not cut short.
    pub(crate) fn finish(mut self, whole: bool) -> Connects {
        if whole {
            self.outcome.unheard = self.subscribing.len() as u64;
        }
        self.outcome
    }

    fn forget(&mut self, client: Client) {
        self.in_progress.remove(&client.0);
        self.subscribing.remove(&client.0);
        self.connected_count -= u64::from(self.connected.set(client.0, false));
        self.ready_count -= u64::from(self.ready.set(client.0, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_tell_whether_they_changed() {
        let mut bits = Bits::new(130);
        assert!(bits.set(129, true) && !bits.set(129, true) && bits.has(129));
        assert!(!bits.has(128));
        assert!(bits.set(129, false) && !bits.has(129));
    }
}
