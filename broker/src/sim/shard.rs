//! A worker with its connections in memory, for simulating clients by the million: nothing is kept for a connection but
//! what the worker itself keeps, and a turn costs what there is to do. Several shards share one broker as the driver's
//! workers do, each on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::handle::{Handle, Shared};
use crate::retained::{Bounds, Retained};
use crate::router::Router;
use crate::sink::Sink;
use crate::time::Time;
use crate::transport::{Handover, Memory, MemoryOutput, Transport};
use crate::worker::{Next, Settings, Worker};

/// How long a shard sleeps at most when it waits on another thread than it first did, where nobody can wake it.
const NAP_MAX: Duration = Duration::from_millis(1);

/// The other end's number in a write that nobody is to read any more.
const NOBODY: u32 = u32::MAX;

/// See the module.
pub struct Shard {
    index: usize,
    worker: Worker,
    shared: Arc<Shared>,
    now: Time,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("index", &self.index)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// The workers of a broker without listener, hashing by `seed`: [`Sim`](super::Sim) and [`Shard`]s are made of them.
pub(super) fn workers(
    config: &Config,
    sink: &Arc<dyn Sink>,
    seed: u64,
) -> Result<(Arc<Shared>, Vec<Worker>), settings::Error> {
    config.validate()?;
    let hasher =
        ahash::RandomState::with_seeds(seed, seed ^ 0x5bd1_e995, seed.rotate_left(17), !seed);
    let limits = &config.limits;
    let retained = Retained::new(Bounds::of(limits));
    let count = config.workers.max(1);
    let ports = crate::listener::ports(&config.all_listeners())
        .map_err(|why| settings::Error::new("listeners", "…", why))?;
    let shared = Shared::new(
        count,
        Router::new(
            hasher.clone(),
            config.shared_subscription_strategy,
            retained,
        ),
        hasher,
        &config.access,
        limits,
        ports,
    );
    let settings = Settings::new(config, shared.denials());
    let workers = (0..count).map(|index| {
        let (shared, settings) = (Arc::clone(&shared), Arc::clone(&settings));
        Worker::new(index, shared, settings, Arc::clone(sink), None)
    });
    let workers = workers.collect();
    Ok((shared, workers))
}

impl Shard {
    /// The shards of one broker: `config.workers` of them (one, where that is 0), with the given sink. `seed` decides
    /// what is random in a broker: hashes.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn all(
        config: &Config,
        sink: &Arc<dyn Sink>,
        seed: u64,
    ) -> Result<Vec<Self>, settings::Error> {
        let (shared, workers) = workers(config, sink, seed)?;
        let shard = |(index, worker)| Self {
            index,
            worker,
            shared: Arc::clone(&shared),
            now: Time(0),
        };
        Ok(workers.into_iter().enumerate().map(shard).collect())
    }

    /// Which of the broker's shards it is, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The way into the whole broker that other threads have.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Whether this shard is the home of that client's session. A client that connects elsewhere would be moved here,
    /// and whoever connected it would not hear of it any more: so it must not.
    #[must_use]
    pub fn is_home_of(&self, client_id: &str) -> bool {
        self.shared.home(client_id) == self.index
    }

    /// Tells the time, which must not go back. What happens from now on happens then.
    pub fn set_now(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.worker.begin(self.now);
    }

    /// Opens a connection whose other end is known by the number `peer`: the slot that is its place here. `None` when
    /// the broker closed it at once, for its bound of connections.
    pub fn open(&mut self, peer: u32) -> Option<u32> {
        let transport = Transport::from(Memory {
            peer,
            blocked: false,
        });
        let slot = self.worker.adopt(Handover {
            transport,
            unread: Vec::new(),
        });
        self.worker.memory().opened.clear(); // the caller has the slot already
        slot
    }

    /// The other end writes bytes. False when the broker does not read from it now: then they are to be offered again
    /// after a turn.
    #[must_use]
    pub fn feed(&mut self, slot: u32, peer: u32, bytes: &[u8]) -> bool {
        self.worker.feed(slot, peer, bytes)
    }

    /// The other end writes its last bytes, which are read also where others would have to wait.
    pub fn feed_anyway(&mut self, slot: u32, peer: u32, bytes: &[u8]) {
        self.worker.feed_anyway(slot, peer, bytes);
    }

    /// The other end takes no bytes any more, or takes them again.
    pub fn block(&mut self, slot: u32, peer: u32, blocked: bool) {
        self.worker.set_blocked(slot, peer, blocked);
    }

    /// The other end closes the connection. Nothing more comes of it: not what was written to it, nor that it closed.
    pub fn hang_up(&mut self, slot: u32, peer: u32) {
        self.worker.hang_up(slot, peer);
        let output = self.worker.memory();
        output.closed.retain(|closed| *closed != peer);
        for (of, _) in &mut output.writes {
            if *of == peer {
                *of = NOBODY;
            }
        }
    }

    /// One turn of the worker: inbox, timers, and everything flushed. What was written since the last turn is put in
    /// `output` (whose old contents are dropped and whose memory is used again); no client has the number 2^32 - 1,
    /// which stands for those that have hung up. Returns when the next turn is wanted: at once, at that time, or (`None`)
    /// when something comes in.
    pub fn turn(&mut self, output: &mut MemoryOutput) -> Option<Time> {
        self.worker.go_on();
        self.worker.take_inbox();
        self.worker.fire_timers();
        self.worker.flush();
        let next = self.worker.end();
        output.bytes.clear();
        output.writes.clear();
        output.opened.clear();
        output.closed.clear();
        output.dropped.clear();
        std::mem::swap(self.worker.memory(), output);
        match next {
            Next::Now => Some(self.now),
            Next::At(at) => Some(at),
            Next::Idle | Next::Ended => None,
        }
    }

    /// Whether something is left to do now: bytes to flush, or entries from other threads.
    #[must_use]
    pub fn is_busy(&mut self) -> bool {
        let output = self.worker.memory();
        !output.writes.is_empty()
            || !output.closed.is_empty()
            || self.worker.has_dirty()
            || self.worker.has_inbox()
            || self.shared.mailboxes[self.index].waiting() > 0
    }

    /// Sleeps until another thread has something for this shard, or `max` has passed; sometimes less.
    pub fn wait(&self, max: Duration) {
        let mailbox = &self.shared.mailboxes[self.index];
        if mailbox.waiting() > 0 {
            return;
        }
        if mailbox.wakes_this_thread() {
            std::thread::park_timeout(max);
        } else {
            std::thread::sleep(max.min(NAP_MAX));
        }
    }
}
