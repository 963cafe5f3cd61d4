//! What the tests are written with: a broker ([`Net`]), clients in memory ([`Client`]), and a sink that says what it
//! is told to ([`Store`]).

mod client;
mod doorman;
mod far;
mod secure;
mod store;
mod text;

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use broker::identity::Chain;
use broker::sim::Sim;
use broker::{Config, Handle, NoSink, Sink, Stats};
use codec::Version;

pub use client::{Client, Join, Pub, options, qos};
pub use doorman::Doorman;
pub use far::{Ends, Far, Side, Way};
pub use secure::{Secure, trusting};
pub use store::{PENDING, PENDING_DELIVER_AFTER, Store};

/// What a client got, when it got nothing.
pub const NOTHING: [&str; 0] = [];

/// A broker and its network. Cloning it gives another hold of the same one.
#[derive(Debug, Clone)]
pub struct Net {
    sim: Rc<RefCell<Sim>>,
    way: Option<Way>,
}

impl Net {
    /// A broker of one worker that stores nothing.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// A broker with a changed configuration.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_sink(Arc::new(NoSink), change)
    }

    /// A broker with a sink and a changed configuration.
    pub fn with_sink(sink: Arc<dyn Sink>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            workers: 1,
            sys_interval_s: 0,
            ..Config::default()
        };
        change(&mut config);
        let sim = Sim::new(&config, sink, 1).expect("the test's configuration is valid");
        Self {
            sim: Rc::new(RefCell::new(sim)),
            way: None,
        }
    }

    /// The same broker, whose clients from now on connect that way.
    pub fn over(&self, way: &Way) -> Self {
        Self {
            sim: Rc::clone(&self.sim),
            way: Some(way.clone()),
        }
    }

    pub fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// A broker of one worker behind this chain, with a changed configuration.
    pub fn guarded(chain: Arc<Chain>, change: impl FnOnce(&mut Config)) -> Self {
        Self::guarded_with_sink(chain, Arc::new(NoSink), change)
    }

    /// The same with a sink.
    pub fn guarded_with_sink(
        chain: Arc<Chain>,
        sink: Arc<dyn Sink>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            workers: 1,
            sys_interval_s: 0,
            ..Config::default()
        };
        change(&mut config);
        let sim = Sim::guarded(&config, sink, 1, chain);
        let sim = sim.expect("the test's configuration is valid");
        Self {
            sim: Rc::new(RefCell::new(sim)),
            way: None,
        }
    }

    pub fn sim(&self) -> RefMut<'_, Sim> {
        self.sim.borrow_mut()
    }

    pub fn handle(&self) -> Handle {
        self.sim().handle()
    }

    pub fn stats(&self) -> Stats {
        self.run();
        self.sim().stats()
    }

    /// Lets the workers do all that there is to do at this time.
    pub fn run(&self) {
        self.sim().run();
    }

    pub fn advance_s(&self, seconds: u64) {
        self.advance_ms(seconds * 1_000);
    }

    pub fn advance_ms(&self, ms: u64) {
        self.sim().advance_ms(ms);
    }

    /// A client that is about to connect: MQTT 5.0, clean start, no keep-alive, until it is told otherwise.
    pub fn client(&self, id: &str) -> Join {
        Join::new(self, id)
    }

    /// A connected client.
    pub fn join(&self, id: &str) -> Client {
        self.client(id).connect()
    }

    /// A connection on which nothing was sent.
    pub fn open(&self) -> Client {
        self.open_as(Version::V311)
    }

    /// The same, of a client that will speak this version.
    pub fn open_as(&self, version: Version) -> Client {
        Client::open(self, version)
    }
}

/// Runs a test with each number of workers that makes a difference, and each version of the protocol.
pub fn everywhere(test: impl Fn(&Net, Version)) {
    for workers in [1, 3] {
        for version in Version::ALL {
            test(&Net::with(|config| config.workers = workers), version);
        }
    }
}

/// Runs a test on one worker, and on three.
pub fn on_one_and_more_workers(test: impl Fn(&Net)) {
    for workers in [1, 3] {
        test(&Net::with(|config| config.workers = workers));
    }
}
