//! What becomes of messages that no client of this node sent: counted by the workers, per message, and told when each
//! session that should have them has them.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What one delivery to one session has come to when its worker has dealt with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    Queued,
    Expired,
    Withheld,
    Offline,
    QueueFull,
    OutboxFull,
    Memory,
    TooLarge,
    SessionEnded,
}

impl Fate {
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Queued => "queued",
            Self::Expired => "dropped: expired",
            Self::Withheld => "withheld: the access rules deny it",
            Self::Offline => "dropped: the client is away, and it is QoS 0",
            Self::QueueFull => "dropped: the queue is full",
            Self::OutboxFull => "dropped: the client reads too slowly",
            Self::Memory => "dropped: the node has no memory to spare",
            Self::TooLarge => "dropped: larger than the client takes",
            Self::SessionEnded => "dropped: the session has ended",
        }
    }
}

/// How many there are.
const FATES: usize = Fate::SessionEnded as usize + 1;

/// What became of a message: to how many sessions it came, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Sessions to whose clients it was sent.
    pub delivered: u32,
    /// Sessions in which it waits: their clients are away, or have as much in flight as they may.
    pub queued: u32,
    /// Deliveries for which it came too late; one when it expired before it was routed.
    pub expired: u32,
    /// Sessions that may not have it by the access rules.
    pub withheld: u32,
    /// Sessions whose clients are away and for which it is QoS 0.
    pub offline: u32,
    /// Sessions whose queue was full.
    pub queue_full: u32,
    /// Sessions whose clients did not read fast enough for a message of QoS 0.
    pub outbox_full: u32,
    /// Sessions for which the node had no memory to spare.
    pub memory: u32,
    /// Sessions whose clients take no packet of that size.
    pub too_large: u32,
    /// Sessions that ended on its way to them.
    pub session_ended: u32,
}

impl Outcome {
    /// Whether there was no session for it: nobody had subscribed, or who had was gone when it came.
    #[must_use]
    pub fn had_no_session(&self) -> bool {
        let ended = self.session_ended;
        *self
            == Self {
                session_ended: ended,
                ..Self::default()
            }
    }
}

impl Outcome {
    /// That of a single delivery.
    pub(crate) fn of_one(fate: Fate) -> Self {
        let mut outcome = Self::default();
        *match fate {
            Fate::Sent => &mut outcome.delivered,
            Fate::Queued => &mut outcome.queued,
            Fate::Expired => &mut outcome.expired,
            Fate::Withheld => &mut outcome.withheld,
            Fate::Offline => &mut outcome.offline,
            Fate::QueueFull => &mut outcome.queue_full,
            Fate::OutboxFull => &mut outcome.outbox_full,
            Fate::Memory => &mut outcome.memory,
            Fate::TooLarge => &mut outcome.too_large,
            Fate::SessionEnded => &mut outcome.session_ended,
        } = 1;
        outcome
    }
}

/// Who hears what becomes of followed messages that have to wait.
pub(crate) type OnLater = Box<dyn Fn(Vec<(u64, Outcome)>) + Send + Sync>;

type Then = Box<dyn FnOnce(Vec<Outcome>) + Send>;

/// Runs a function when every session that should have the messages of one [`crate::Handle::publish`] has them. It is
/// dropped without being run when the broker lets go of one of them.
pub struct Delivered(Then);

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered").finish_non_exhaustive()
    }
}

impl Delivered {
    /// Runs `then` once all is delivered, on the thread that delivers the last of it: it should be short. It gets the
    /// outcome of each message, in the order in which they were given.
    pub fn then(then: impl FnOnce(Vec<Outcome>) + Send + 'static) -> Self {
        Self(Box::new(then))
    }
}

struct Pending {
    open: AtomicUsize,
    counts: Box<[[AtomicU32; FATES]]>,
    then: Mutex<Option<Then>>,
}

/// A part of a publish that is under way. Dropping one without completing it means that it never arrived: then the
/// function never runs.
pub(crate) struct Part {
    pending: Arc<Pending>,
    /// Which message it is about.
    pub(crate) message: u32,
}

impl Part {
    /// All of a publish of that many messages.
    pub(crate) fn all(messages: usize, delivered: Delivered) -> Self {
        let pending = Pending {
            open: AtomicUsize::new(1),
            counts: (0..messages).map(|_| Default::default()).collect(),
            then: Mutex::new(Some(delivered.0)),
        };
        Self {
            pending: Arc::new(pending),
            message: 0,
        }
    }

    /// Another part, about the same message.
    pub(crate) fn fork(&self) -> Self {
        self.pending.open.fetch_add(1, Ordering::Relaxed);
        Self {
            pending: Arc::clone(&self.pending),
            message: self.message,
        }
    }

    /// Counts a delivery of its message.
    pub(crate) fn count(&self, fate: Fate) {
        if let Some(counts) = self.pending.counts.get(self.message as usize) {
            counts[fate as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn complete(self) {
        // What the others counted is seen by whoever completes the last part.
        if self.pending.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(then) = self
                .pending
                .then
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        {
            then(self.pending.counts.iter().map(outcome).collect());
        }
    }
}

fn outcome(counts: &[AtomicU32; FATES]) -> Outcome {
    let of = |fate: Fate| counts[fate as usize].load(Ordering::Relaxed);
    Outcome {
        delivered: of(Fate::Sent),
        queued: of(Fate::Queued),
        expired: of(Fate::Expired),
        withheld: of(Fate::Withheld),
        offline: of(Fate::Offline),
        queue_full: of(Fate::QueueFull),
        outbox_full: of(Fate::OutboxFull),
        memory: of(Fate::Memory),
        too_large: of(Fate::TooLarge),
        session_ended: of(Fate::SessionEnded),
    }
}
