//! The way into running workers from other threads: mailboxes, and the [`Handle`] over all of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use crate::access::{AccessConfig, Denials, Denied};
use crate::bans::Bans;
use crate::budget::{Budget, Memory};
use crate::config::Config;
use crate::death::OnDeath;
use crate::gates::{Gate, Gates};
use crate::limits::Limits;
use crate::listener::{ListenerStatus, Port};
use crate::message::Message;
use crate::outcome::{Delivered, Fate, OnLater, Outcome, Part};
use crate::router::{Hit, Receiver, Router};
use crate::sink::{Settlement, Token};
use crate::stats::{Counters, Stats};
use crate::throttle::Throttle;
use crate::time::Time;
use crate::tls::{Fresh, Reloaded};
use crate::transport::Handover;
use crate::worker::{Answer, Drained, Settings, Worker};

/// Something that a worker is to do, or to say.
pub(crate) type Task = Box<dyn FnOnce(&mut crate::worker::Worker) + Send>;

/// What other threads put into a worker's inbox.
pub(crate) enum Inbox {
    /// A connection whose client's home is this worker, or one that was just accepted elsewhere.
    Adopt(Box<Handover>),
    /// A message for sessions here.
    Deliver {
        message: Message,
        receivers: Box<[Receiver]>,
        delivered: Option<Part>,
    },
    /// A message for one session here, with what does not fit a plain receiver.
    DeliverHit {
        message: Message,
        hit: Box<Hit>,
        delivered: Option<Part>,
    },
    /// Messages to route from here.
    Publish {
        /// Each with its number in the publish.
        messages: Vec<(u32, Message)>,
        delivered: Option<Part>,
    },
    /// Publishes that the sink has settled.
    Settled(Vec<(Token, Settlement)>),
    /// Who the client of a CONNECT is.
    Answer(Box<Answer>),
    /// Users may have changed: whether all may still be here is to be looked at.
    Recheck,
    /// The sink has room again.
    SinkReady,
    /// Nothing but a turn: what all workers look at has changed.
    Look,
    /// What an operator asks or wants done, short enough for a turn.
    Task(Task),
    /// Stop reading, drain, end.
    Shutdown,
}

impl Inbox {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Adopt(handover) => size_of::<Handover>() + handover.unread.len(),
                Self::Deliver {
                    message, receivers, ..
                } => message.bytes() + size_of_val(&**receivers),
                Self::DeliverHit { message, .. } => message.bytes() + size_of::<Hit>(),
                Self::Publish { messages, .. } => messages
                    .iter()
                    .map(|(_, message)| message.bytes() + size_of::<(u32, Message)>())
                    .sum(),
                Self::Settled(batch) => size_of_val(&**batch),
                Self::Answer(answer) => answer.bytes(),
                Self::Recheck | Self::SinkReady | Self::Look | Self::Task(_) | Self::Shutdown => 0,
            }
    }
}

/// What wakes a worker that waits.
pub(crate) enum Waker {
    /// It waits for sockets.
    Poll(mio::Waker),
    /// It is a shard, parked.
    Thread(std::thread::Thread),
}

impl Waker {
    fn wake(&self) {
        match self {
            Self::Poll(waker) => {
                if let Err(error) = waker.wake() {
                    tracing::error!(%error, "a worker could not be woken");
                }
            }
            Self::Thread(thread) => thread.unpark(),
        }
    }
}

/// A worker's inbox: many writers, one reader that takes all at once.
#[derive(Default)]
pub(crate) struct Mailbox {
    entries: Mutex<Vec<Inbox>>,
    /// Entries that were ever sent, and those that the worker has handled.
    sent: AtomicUsize,
    handled: AtomicUsize,
    /// Bytes of the entries that it has not handled: also of those that it has taken.
    waiting_bytes: AtomicUsize,
    /// The worker is gone, and handles none any more.
    is_left: AtomicBool,
    notified: AtomicBool,
    /// The worker looks into its inbox before it waits, so that it needs no waking.
    awake: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Mailbox {
    /// Appends `entries` (emptying it) and wakes the worker, once until it looks.
    pub(crate) fn send(&self, entries: &mut Vec<Inbox>) {
        if entries.is_empty() {
            return;
        }
        // Counted first: the worker may have handled them before this thread comes to the next line.
        let bytes = entries.iter().map(Inbox::bytes).sum();
        self.sent.fetch_add(entries.len(), Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(entries);
        if !self.notified.swap(true, Ordering::SeqCst)
            && !self.awake.load(Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    pub(crate) fn send_one(&self, entry: Inbox) {
        self.send(&mut vec![entry]);
    }

    /// Moves everything that was sent into `into`, which is empty. It waits, still, until it is [`Mailbox::handled`].
    pub(crate) fn take(&self, into: &mut Vec<Inbox>) {
        if !self.notified.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *queue, into);
    }

    /// The worker has handled so many entries, which held so many bytes.
    pub(crate) fn handled(&self, entries: usize, bytes: usize) {
        if entries > 0 {
            self.handled.fetch_add(entries, Ordering::Release);
        }
        if bytes > 0 {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// From now on entries wake the worker. False when there are some already.
    pub(crate) fn sleeps(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        !self.notified.load(Ordering::SeqCst)
    }

    /// The worker will look before it waits again.
    pub(crate) fn wakes(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Whether something came in since the inbox was last taken.
    pub(crate) fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Acquire)
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Entries that wait.
    pub(crate) fn waiting(&self) -> usize {
        // In this order: none is handled before it was sent.
        let handled = self.handled.load(Ordering::Acquire);
        self.sent.load(Ordering::Relaxed).wrapping_sub(handled)
    }

    /// The worker goes.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    /// Bytes of the entries that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waker(&self, waker: mio::Waker) {
        // What came before needs no waking: a worker's first turn takes its inbox.
        if self.waker.set(Waker::Poll(waker)).is_err() {
            tracing::error!("a worker was started twice");
        }
    }

    /// Whether an entry unparks the current thread: the first one that asks.
    pub(crate) fn wakes_this_thread(&self) -> bool {
        let current = std::thread::current();
        let id = current.id();
        let waker = self.waker.get_or_init(|| Waker::Thread(current));
        matches!(waker, Waker::Thread(thread) if thread.id() == id)
    }
}

/// What all workers of a node share.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) mailboxes: Box<[Mailbox]>,
    pub(crate) counters: Box<[Counters]>,
    pub(crate) hasher: ahash::RandomState,
    /// Where clients connect, by the place in the configuration.
    pub(crate) ports: Box<[Port]>,
    /// Connections open now, those on their way from one worker to another included. The bound is the node's: connections
    /// do not spread evenly over the workers.
    pub(crate) connections: AtomicU32,
    /// Sessions whose clients are not connected.
    offline_sessions: AtomicU32,
    /// The node's memory.
    pub(crate) budget: Budget,
    /// Connections over that bound, for the log.
    pub(crate) refused: Throttle,
    /// Messages that are not retained because their client has set as many as it may, for the log.
    pub(crate) over_share: Throttle,
    /// How far the workers are with their end.
    pub(crate) drained: Drained,
    /// Bytes of wills that wait to be stored.
    pub(crate) waiting_wills: AtomicU64,
    /// Bytes that were read of clients whose publishes wait.
    pub(crate) read_ahead: AtomicU64,
    /// Times that the system had no file or memory for a connection, for the log.
    pub(crate) unaccepted: Throttle,
    /// What the access rules refused.
    denials: RwLock<Arc<Denials>>,
    /// Who may not connect for a time.
    pub(crate) bans: Bans,
    /// Who looks at clients' credentials; nobody does until it is set, which is before the workers start.
    gates: OnceLock<Gates>,
    /// Clients that were not let in, for the log.
    pub(crate) strangers: Throttle,
    /// Whether the log has said that nobody checks passwords.
    pub(crate) password_was_said: AtomicBool,
    /// Who is told when a thread dies that the node cannot do without.
    pub(crate) on_death: OnceLock<OnDeath>,
    /// Who hears what becomes of followed messages that have to wait.
    on_later: OnceLock<OnLater>,
    /// Zero of the broker's clock.
    pub(crate) started: Instant,
}

impl Shared {
    pub(crate) fn new(
        workers: usize,
        router: Router,
        hasher: ahash::RandomState,
        access: &AccessConfig,
        limits: &Limits,
        ports: Box<[Port]>,
    ) -> Arc<Self> {
        Arc::new(Self {
            router,
            ports,
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            counters: (0..workers).map(|_| Counters::default()).collect(),
            hasher,
            connections: AtomicU32::new(0),
            offline_sessions: AtomicU32::new(0),
            read_ahead: AtomicU64::new(0),
            waiting_wills: AtomicU64::new(0),
            drained: Drained::default(),
            budget: Budget::new(limits.memory_bytes_max, workers),
            refused: Throttle::default(),
            over_share: Throttle::default(),
            unaccepted: Throttle::default(),
            denials: RwLock::new(Arc::new(Denials::new(access))),
            bans: Bans::default(),
            gates: OnceLock::new(),
            strangers: Throttle::default(),
            password_was_said: AtomicBool::new(false),
            on_death: OnceLock::new(),
            on_later: OnceLock::new(),
            started: Instant::now(),
        })
    }

    /// What the access rules refused, which is counted where the rules are.
    pub(crate) fn denials(&self) -> Arc<Denials> {
        let denials = self.denials.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&denials)
    }

    /// Has these gates look at clients from now on; the first ones that are given hold.
    pub(crate) fn set_gates(self: &Arc<Self>, gates: Gates) {
        if let Some(identity) = gates.identity() {
            let shared = Arc::downgrade(self);
            identity.on_change(move || {
                if let Some(shared) = shared.upgrade() {
                    shared.recheck();
                }
            });
        }
        let _ = self.gates.set(gates);
    }

    fn recheck(&self) {
        for mailbox in &self.mailboxes {
            mailbox.send_one(Inbox::Recheck);
        }
    }

    /// What the listener at this place knows its clients by.
    pub(crate) fn gate(&self, listener: usize) -> Option<&Gate> {
        self.gates.get()?.at(listener)
    }

    /// Counts a connection that was accepted on a listener; when there is no room for it: the bound that says so.
    pub(crate) fn admit(&self, listener: u16, connections_max: u32) -> Result<(), Bound<'_>> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Bound::Node(connections_max));
        }
        match self.ports.get(usize::from(listener)) {
            Some(port) if !port.admit() => {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                Err(Bound::Listener(port))
            }
            _ => Ok(()),
        }
    }

    /// A connection that was admitted is gone.
    pub(crate) fn let_go(&self, listener: u16) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(port) = self.ports.get(usize::from(listener)) {
            port.let_go();
        }
    }

    /// Counts a session whose client is away; false when there is no room for it.
    pub(crate) fn keep_offline(&self, offline_sessions_max: u32) -> bool {
        let more = |held| (held < offline_sessions_max).then(|| held + 1);
        let order = Ordering::Relaxed;
        self.offline_sessions
            .fetch_update(order, order, more)
            .is_ok()
    }

    /// A session that was counted as offline has ended, or its client is back.
    pub(crate) fn end_offline(&self) {
        self.offline_sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that all parts hold together, as far as it is counted.
    pub(crate) fn counted_bytes(&self) -> u64 {
        let of_workers: u64 = self.counters.iter().map(Counters::memory).sum();
        let inboxes: usize = self.mailboxes.iter().map(Mailbox::waiting_bytes).sum();
        let shared =
            [&self.read_ahead, &self.waiting_wills].map(|bytes| bytes.load(Ordering::Relaxed));
        of_workers + inboxes as u64 + self.router.retained.bytes() + shared.iter().sum::<u64>()
    }

    /// Whether nothing is on its way to any worker, and so never will be again once none of them publishes.
    ///
    /// An entry counts as handled after what it led to counts as sent. So if, at one moment, less were handled than sent,
    /// then what is counted as sent later is more than what was counted as handled before.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_left = |mailbox: &&Mailbox| mailbox.is_left.load(Ordering::Acquire);
        let there: Vec<&Mailbox> = self.mailboxes.iter().filter(|one| !is_left(one)).collect();
        let sum = |of: fn(&Mailbox) -> &AtomicUsize| {
            there.iter().fold(0_usize, |sum, mailbox| {
                sum.wrapping_add(of(mailbox).load(Ordering::Acquire))
            })
        };
        let handled = sum(|mailbox| &mailbox.handled);
        handled == sum(|mailbox| &mailbox.sent)
    }

    /// Tells what has become of followed messages that waited.
    pub(crate) fn tell_later(&self, followed: Vec<(u64, Fate)>) {
        if let Some(on_later) = self.on_later.get() {
            let one = |(number, fate)| (number, Outcome::of_one(fate));
            on_later(followed.into_iter().map(one).collect());
        }
    }

    /// The worker that owns what `name` names: a client's session, or the order of a topic.
    pub(crate) fn home(&self, name: &str) -> usize {
        (self.hasher.hash_one(name) >> 32) as usize % self.mailboxes.len()
    }
}

/// Certificates of all listeners, read and not in use yet.
pub struct NewCertificates {
    shared: Arc<Shared>,
    fresh: Vec<(usize, Fresh)>,
}

impl fmt::Debug for NewCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCertificates").finish_non_exhaustive()
    }
}

impl NewCertificates {
    /// The listeners whose files are others than before.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        let changed = self.fresh.iter().filter(|(_, fresh)| fresh.has_changed);
        changed
            .map(|(at, _)| self.shared.ports[*at].name.clone())
            .collect()
    }

    /// Uses them for new connections.
    pub fn apply(self) {
        for (at, fresh) in self.fresh {
            if let Some(keys) = &self.shared.ports[at].keys {
                keys.take(fresh);
            }
        }
    }
}

/// The bound that keeps a connection out.
pub(crate) enum Bound<'a> {
    Node(u32),
    Listener(&'a Port),
}

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(max) => write!(f, "limits.connections_max ({max}) are open"),
            Self::Listener(port) => write!(
                f,
                "connections_max of the listener {:?} ({}) are open",
                port.name,
                port.connections_max()
            ),
        }
    }
}

/// The way into a running broker from other threads. Cheap to clone.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("workers", &self.0.mailboxes.len())
            .finish()
    }
}

impl Handle {
    /// The number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// The broker's clock now: what a message's expiry is told in.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Ends publishes that the sink held pending, and empties `batch`. Each worker is woken once at most, so a sink
    /// gathers what one poll of its store confirmed and calls this once.
    pub fn settle(&self, batch: &mut Vec<(Token, Settlement)>) {
        if let [mailbox] = &*self.0.mailboxes {
            if !batch.is_empty() {
                mailbox.send_one(Inbox::Settled(std::mem::take(batch)));
            }
            return;
        }
        let mut by_worker: Vec<Vec<(Token, Settlement)>> = vec![Vec::new(); self.workers()];
        for (token, settlement) in batch.drain(..) {
            if let Some(of_worker) = by_worker.get_mut(token.worker()) {
                of_worker.push((token, settlement));
            }
        }
        for (mailbox, settled) in self.0.mailboxes.iter().zip(by_worker) {
            if !settled.is_empty() {
                mailbox.send_one(Inbox::Settled(settled));
            }
        }
    }

    /// Tells the workers that the sink, having answered [`crate::Verdict::Busy`], has room again.
    pub fn sink_ready(&self) {
        for mailbox in &self.0.mailboxes {
            mailbox.send_one(Inbox::SinkReady);
        }
    }

    /// Publishes messages that no client of this node sent. They are routed and retained, and not offered to the sink.
    /// Messages of one topic stay in order. `delivered` runs when every session that should have them has them, and hears
    /// what became of each.
    pub fn publish(&self, messages: Vec<Message>, delivered: Option<Delivered>) {
        let workers = self.workers();
        let delivered = delivered.map(|delivered| Part::all(messages.len(), delivered));
        let mut by_worker: Vec<Vec<(u32, Message)>> = vec![Vec::new(); workers];
        for (number, message) in (0..).zip(messages) {
            by_worker[self.0.home(message.topic())].push((number, message));
        }
        for (mailbox, messages) in self.0.mailboxes.iter().zip(by_worker) {
            if !messages.is_empty() {
                let delivered = delivered.as_ref().map(Part::fork);
                mailbox.send_one(Inbox::Publish {
                    messages,
                    delivered,
                });
            }
        }
        if let Some(delivered) = delivered {
            delivered.complete();
        }
    }

    /// Runs `told` when messages with a number ([`Message::followed`]) that had to wait in sessions are sent or lost there:
    /// each number comes once for each such session, with the outcome of that one delivery. It runs on a worker's thread: it
    /// should be short. The first call counts; others change nothing and return false.
    pub fn on_later(&self, told: impl Fn(Vec<(u64, Outcome)>) + Send + Sync + 'static) -> bool {
        self.0.on_later.set(Box::new(told)).is_ok()
    }

    /// Whether any session, connected or kept for its client, has a subscription that matches `topic`: whether a message
    /// that is published now goes to somebody.
    #[must_use]
    pub fn has_subscriber(&self, topic: &str) -> bool {
        self.0.router.has_subscriber(topic)
    }

    /// What each listener does.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.0.ports.iter().map(Port::status).collect()
    }

    /// Has listeners use their certificates as they are on disk now, where these have changed: new connections have them, who
    /// is connected stays. What became of it, by the listener's name. It reads files, so it is not for where nothing may wait.
    pub fn look_at_certificates(&self) -> Vec<(String, Reloaded)> {
        let look = |port: &Port| Some((port.name.clone(), port.keys.as_ref()?.look()));
        self.0.ports.iter().filter_map(look).collect()
    }

    /// Reads the certificates of all listeners again, and changes nothing yet.
    ///
    /// # Errors
    /// Which listener's cannot be used, and why.
    pub fn read_certificates(&self) -> Result<NewCertificates, String> {
        let mut fresh = Vec::new();
        for (port, at) in self.0.ports.iter().zip(0..) {
            if let Some(keys) = &port.keys {
                let read = keys.read();
                fresh.push((
                    at,
                    read.map_err(|why| format!("listener {:?}: {why}", port.name))?,
                ));
            }
        }
        Ok(NewCertificates {
            shared: Arc::clone(&self.0),
            fresh,
        })
    }

    /// What the access rules refused, by rule.
    #[must_use]
    pub fn denied(&self) -> Vec<Denied> {
        self.0.denials().counts()
    }

    /// Takes over what may change while the workers run: access rules, the bounds of
    /// [`Limits::AT_RUN_TIME`](crate::Limits::AT_RUN_TIME), whether client identifiers are assigned, and how the node drains. It holds for each
    /// worker from its next turn on. `now` is what the node runs with.
    ///
    /// # Errors
    /// When a value is not allowed; nothing is taken over then.
    pub fn reconfigure(&self, now: &mut Config, new: &Config) -> Result<(), settings::Error> {
        new.validate()?;
        now.limits.take_over(&new.limits);
        now.access = new.access.clone();
        now.assign_client_ids = new.assign_client_ids;
        now.drain = new.drain.clone();
        let mut denials = self
            .0
            .denials
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *denials = Arc::new(denials.followed_by(&now.access));
        let settings = Settings::new(now, Arc::clone(&denials));
        drop(denials);
        for mailbox in &self.0.mailboxes {
            let settings = Arc::clone(&settings);
            let task = Box::new(move |worker: &mut Worker| worker.reconfigure(settings));
            mailbox.send_one(Inbox::Task(task));
        }
        Ok(())
    }

    /// Tells how much memory the process has resident: what is done about that, and shown, goes by the last word. To be
    /// called several times a second, or never: then what the broker counts decides.
    pub fn resident(&self, bytes: u64) {
        if self.0.budget.resident(bytes) {
            for mailbox in &self.0.mailboxes {
                mailbox.send_one(Inbox::Look);
            }
        }
    }

    /// Has all workers look whether all who are in may still be: after a [principal](identity::Principal) was revoked.
    pub fn recheck(&self) {
        self.0.recheck();
    }

    /// Reads again what clients are known by: password files. What cannot be read stays what it was, and is among the
    /// [problems](Handle::problems).
    pub fn reload(&self) {
        if let Some(identity) = self.0.gates.get().and_then(Gates::identity) {
            identity.reload();
        }
    }

    /// Whether [`Handle::reload`] could read everything.
    ///
    /// # Errors
    /// In one sentence, why not.
    pub fn check_reload(&self) -> Result<(), String> {
        let identity = self.0.gates.get().and_then(Gates::identity);
        identity.map_or(Ok(()), identity::Identity::check)
    }

    /// What keeps the broker from knowing its clients as it should, each in one sentence.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let identity = self.0.gates.get().and_then(Gates::identity);
        identity.map_or_else(Vec::new, identity::Identity::problems)
    }

    /// How much memory is used, of how much.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.0.budget.memory()
    }

    /// The counters of all workers, added up.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for counters in &self.0.counters {
            counters.add_to(&mut stats);
        }
        self.0.router.add_to(&mut stats);
        stats.read_ahead_bytes = self.0.read_ahead.load(Ordering::Relaxed);
        stats.inbox_entries = self
            .0
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.waiting() as u64)
            .sum();
        let memory = self.memory();
        stats.budget_used_bytes = memory.used_bytes;
        stats.budget_bytes = memory.bytes_max;
        stats.waiting_will_bytes = self.0.waiting_wills.load(Ordering::Relaxed);
        stats.inbox_bytes = self
            .0
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.waiting_bytes() as u64)
            .sum();
        stats
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One worker sends the other an entry and waits for one; who misses a waking waits for ever.
    #[test]
    fn a_worker_that_goes_to_sleep_hears_of_every_entry() {
        const ROUNDS: u32 = 20_000;
        let mailboxes = Arc::new([Mailbox::default(), Mailbox::default()]);
        let play = |own: usize| {
            let mailboxes = Arc::clone(&mailboxes);
            let mut poll = mio::Poll::new().unwrap();
            mailboxes[own].set_waker(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
            std::thread::spawn(move || {
                let (mut events, mut inbox) = (mio::Events::with_capacity(8), Vec::new());
                for round in 0..ROUNDS {
                    mailboxes[1 - own].send_one(Inbox::SinkReady);
                    while inbox.is_empty() {
                        if mailboxes[own].sleeps() {
                            let patience = Some(Duration::from_secs(30));
                            poll.poll(&mut events, patience).unwrap();
                            assert!(!events.is_empty(), "round {round} was never heard of");
                        }
                        mailboxes[own].wakes();
                        mailboxes[own].take(&mut inbox);
                    }
                    inbox.drain(..1);
                }
            })
        };
        for player in [play(0), play(1)] {
            player.join().unwrap();
        }
    }
}
