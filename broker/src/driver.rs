//! Threads and sockets: the part of the broker that is not deterministic. Each worker gets a thread, a poll and a
//! listening socket of its own; the kernel spreads new connections over the sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;
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
    Config(#[from] settings::Error),
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
    /// One a worker, all on one port.
    listeners: Vec<TcpListener>,
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
        let listeners = listen(address, config.worker_count(), config.limits.listen_backlog)
            .map_err(|source| StartError::Listen { address, source })?;
        let address = match listeners.first() {
            Some(listener) => listener.local_addr()?,
            None => address,
        };
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
            listeners,
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
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let poll = Poll::new()?;
            let mut listener = mio::net::TcpListener::from_std(listener);
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

/// `count` listening sockets on one port. The first takes the port for itself, so that a port in use is an error also
/// where whoever uses it would share; only then is it shared, with the others.
fn listen(address: SocketAddr, count: usize, backlog: u32) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for nth in 0..count {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Frames leave in one write a turn: waiting for more to come would only add latency. Connections inherit it.
        socket.set_tcp_nodelay(true)?;
        if nth > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        if nth == 0 {
            socket.set_reuse_port(true)?;
            let bound = socket.local_addr()?.as_socket();
            address = bound.unwrap_or(address); // the port that the system chose
        }
        sockets.push(socket);
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
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
                        if event.is_read_closed() {
                            self.worker.ended(slot);
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

    /// How long to wait for readiness: until the worker's own deadline, and not longer than until connections that wait
    /// may be accepted.
    fn timeout(&self, next: Next) -> Option<Duration> {
        let accept = (self.may_accept && self.listener.is_some()).then(|| {
            self.accept_from.map_or(Duration::ZERO, |from| {
                from.saturating_duration_since(Instant::now())
            })
        });
        let own = match next {
            Next::Now | Next::Ended => Some(Duration::ZERO),
            Next::Idle => None,
            // A millisecond more, because ours are rounded down.
            Next::At(at) => Some(Duration::from_millis(at.since_ms(self.now()) + 1)),
        };
        earlier(accept, own)
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
                    let times = self.worker.unaccepted();
                    if let Some(times) = times {
                        tracing::warn!(
                            %error,
                            times,
                            "connections cannot be accepted now; they wait in the kernel"
                        );
                    }
                    self.accept_from = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }
}

/// The earlier of two ends of waiting; `None` is never.
fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: u16) -> Config {
        Config {
            listen: format!("127.0.0.1:{port}"),
            workers: 3,
            ..Config::default()
        }
    }

    #[test]
    fn a_port_that_another_broker_serves_is_refused() {
        let first = Broker::bind(config(0)).unwrap();
        let error = Broker::bind(config(first.local_addr().port())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("another program listens there already"),
            "{error}"
        );
        assert_eq!(first.listeners.len(), 3);
        for listener in &first.listeners {
            assert_eq!(listener.local_addr().unwrap(), first.local_addr());
        }
    }

    #[test]
    fn a_pause_of_accepting_does_not_put_off_the_workers_own_deadlines() {
        let [soon, late] = [5, 100].map(Duration::from_millis);
        assert_eq!(earlier(Some(late), Some(soon)), Some(soon));
        assert_eq!(earlier(Some(soon), Some(late)), Some(soon));
        assert_eq!(earlier(None, Some(soon)), Some(soon));
        assert_eq!(earlier(Some(late), None), Some(late));
        assert_eq!(earlier(None, None), None);
    }

    #[test]
    fn every_worker_accepts_and_connections_send_at_once() {
        let broker = Broker::bind(config(0)).unwrap();
        let clients = (0..200)
            .map(|_| std::net::TcpStream::connect(broker.local_addr()).unwrap())
            .collect::<Vec<_>>();
        let mut accepted = 0;
        for listener in &broker.listeners {
            let before = accepted;
            while let Ok((connection, _)) = listener.accept() {
                assert!(connection.nodelay().unwrap());
                accepted += 1;
            }
            assert!(accepted > before, "200 connections, and a worker got none");
        }
        assert_eq!(accepted, clients.len());
    }
}
