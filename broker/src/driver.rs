//! Threads and sockets: the part of the broker that is not deterministic. Each worker gets a thread and a poll of its
//! own; all of them accept from one listener.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, ConfigError};
use crate::handle::{Handle, Inbox, Shared};
use crate::limits::EVENTS_PER_TURN_MAX;
use crate::retained::Retained;
use crate::router::Router;
use crate::sink::Sink;
use crate::time::Time;
use crate::transport::{Handover, Transport};
use crate::worker::{Next, Settings, Worker};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// How long a worker lets connections wait after `accept` failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port cannot be listened on.
    #[error("cannot listen for MQTT on {address}: {}", listen_advice(.source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A thread or a poll cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

fn listen_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there already; stop it, or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need privileges".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A broker that has its port and does not serve it yet.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("workers", &self.mailboxes.len())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Checks the configuration and takes the port.
    ///
    /// # Errors
    /// When a value is not allowed or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let address = config.listen_addr()?;
        let listener = listen(address, config.limits.listen_backlog)
            .map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr()?;
        let hasher = ahash::RandomState::new();
        let limits = &config.limits;
        let retained = Retained::new(
            limits.retained_messages_max as usize,
            limits.retained_bytes_max,
        );
        let router = Router::new(hasher.clone(), retained);
        let shared = Shared::new(config.worker_count(), router, hasher);
        Ok(Self {
            config,
            listener,
            address,
            shared,
        })
    }

    /// The address that it listens on (the port that the system chose, where 0 was asked for).
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The way in from other threads; works before and after [`Broker::start`].
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// When the system gives no thread or poll.
    pub fn start(self, sink: Arc<dyn Sink>) -> Result<Running, StartError> {
        let settings = Settings::new(&self.config);
        let started = self.shared.started;
        let mut threads = Vec::new();
        for index in 0..self.shared.mailboxes.len() {
            let poll = Poll::new()?;
            let mut listener = mio::net::TcpListener::from_std(self.listener.try_clone()?);
            poll.registry()
                .register(&mut listener, LISTENER, Interest::READABLE)?;
            self.shared.mailboxes[index].set_waker(mio::Waker::new(poll.registry(), WAKER)?);
            let registry = poll.registry().try_clone()?;
            let (shared, settings, sink) = (
                Arc::clone(&self.shared),
                Arc::clone(&settings),
                Arc::clone(&sink),
            );
            let accepts_per_turn = settings.limits.accepts_per_turn;
            let worker = Worker::new(index, shared, settings, sink, Some(registry));
            let mut driver = Driver {
                poll,
                listener: Some(listener),
                accept_from: None,
                may_accept: true,
                accepts_per_turn,
                started,
                worker,
            };
            let thread = std::thread::Builder::new()
                .name(format!("mqtt-{index}"))
                .spawn(move || driver.run())?;
            threads.push(thread);
        }
        tracing::debug!(address = %self.address, workers = threads.len(), "MQTT listener started");
        Ok(Running {
            shared: self.shared,
            address: self.address,
            threads,
        })
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// The way in from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// The address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and reading, waits (up to `limits.drain_timeout_ms`) until the sink has settled what it took
    /// and the outboxes are empty, tells the clients, and ends. Blocks.
    pub fn shutdown(self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.send_one(Inbox::Shutdown);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

struct Driver {
    poll: Poll,
    listener: Option<mio::net::TcpListener>,
    /// Not before this: `accept` failed for want of files or memory.
    accept_from: Option<Instant>,
    /// The listener may have connections: its edge came, and it was not yet seen empty.
    may_accept: bool,
    accepts_per_turn: u32,
    started: Instant,
    worker: Worker,
}

impl Driver {
    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        let mut next = Next::Now;
        loop {
            let timeout = self.timeout(next);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a worker's poll failed; the worker ends");
                return;
            }
            self.worker.begin(self.now());
            if self.worker.is_draining() {
                self.listener = None;
            }
            self.worker.go_on();
            let may_read = self.worker.may_read();
            for event in &events {
                match event.token() {
                    LISTENER => self.may_accept = true,
                    WAKER => {}
                    Token(slot) => {
                        let slot = slot as u32;
                        if event.is_writable() {
                            self.worker.writable(slot);
                        }
                        // An error or a hang-up shows itself by reading, too.
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            if may_read {
                                self.worker.readable(slot);
                            } else {
                                self.worker.readable_later(slot);
                            }
                        }
                    }
                }
            }
            self.accept();
            self.worker.take_inbox();
            self.worker.fire_timers();
            self.worker.flush();
            next = self.worker.end();
            if next == Next::Ended {
                return;
            }
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn timeout(&self, next: Next) -> Option<Duration> {
        if self.may_accept && self.listener.is_some() {
            return Some(
                self.accept_from
                    .map_or(Duration::ZERO, |from| from.duration_since(Instant::now())),
            );
        }
        match next {
            Next::Now | Next::Ended => Some(Duration::ZERO),
            Next::Idle => None,
            // A millisecond more, because ours are rounded down.
            Next::At(at) => Some(Duration::from_millis(at.since_ms(self.now()) + 1)),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.may_accept) else {
            return;
        };
        if self.accept_from.is_some_and(|from| from > Instant::now()) {
            return;
        }
        self.accept_from = None;
        for _ in 0..self.accepts_per_turn {
            match listener.accept() {
                Ok((stream, _)) => {
                    // Frames leave in one write a turn: waiting for more to come would only add latency.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was gone before it was served");
                        continue;
                    }
                    self.worker.adopt(Handover {
                        transport: Transport::Tcp(stream),
                        unread: Vec::new(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.may_accept = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted now; they wait");
                    self.accept_from = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }
}
