//! Threads and sockets: the part of the broker that is not deterministic. Each worker gets a thread, a poll and a
//! listening socket of its own; the kernel spreads new connections over the sockets.

mod looks;
mod seats;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;
use crate::death::Death;
use crate::gates::Gates;
use crate::handle::{Handle, Inbox, Shared};
use crate::retained::{Bounds, Retained};
use crate::router::Router;
use crate::sink::Sink;
use crate::worker::{Settings, Worker};
use looks::Driver;
use seats::Seats;

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
    /// Clients cannot be known as they should.
    #[error(transparent)]
    Identity(#[from] identity::StartError),
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
        config.check_openness()?;
        let gates = Gates::start(&config)?;
        let address = config.listen_addr()?;
        let listeners = listen(address, config.worker_count(), config.limits.listen_backlog)
            .map_err(|source| StartError::Listen { address, source })?;
        let address = match listeners.first() {
            Some(listener) => listener.local_addr()?,
            None => address,
        };
        let hasher = ahash::RandomState::new();
        let limits = &config.limits;
        let retained = Retained::new(Bounds::of(limits));
        let router = Router::new(
            hasher.clone(),
            config.shared_subscription_strategy,
            retained,
        );
        let shared = Shared::new(
            config.worker_count(),
            router,
            hasher,
            &config.access,
            limits,
        );
        shared.set_gates(gates);
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

    /// Has `tell` hear of the death of a thread that the node cannot do without: a worker's, or one that runs under
    /// [`Handle::vital`]. It runs on the dying thread; the first one that is given holds.
    #[must_use]
    pub fn on_death(self, tell: impl Fn(&Death) + Send + Sync + 'static) -> Self {
        let _ = self.shared.on_death.set(Box::new(tell));
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// When the system gives no thread or poll.
    pub fn start(self, sink: Arc<dyn Sink>) -> Result<Running, StartError> {
        let seats = Seats::new(self.listeners.len(), self.shared.started);
        let mut threads = Vec::new();
        for driver in drivers(&self.config, self.listeners, &self.shared, &sink)? {
            let (seats, shared) = (Arc::clone(&seats), Arc::clone(&self.shared));
            let thread = std::thread::Builder::new()
                .name(format!("mqtt-{}", driver.index()))
                .spawn(move || seats.live(driver, &shared))?;
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

/// A worker for each of the listening sockets, ready to run.
fn drivers(
    config: &Config,
    listeners: Vec<TcpListener>,
    shared: &Arc<Shared>,
    sink: &Arc<dyn Sink>,
) -> io::Result<Vec<Box<Driver>>> {
    let settings = Settings::new(config, shared.denials());
    let driver = |(index, listener)| {
        let worker = |registry| {
            let (shared, settings) = (Arc::clone(shared), Arc::clone(&settings));
            Worker::new(index, shared, settings, Arc::clone(sink), Some(registry))
        };
        let accepts_per_turn = config.limits.accepts_per_turn;
        Driver::new(index, listener, shared, accepts_per_turn, worker).map(Box::new)
    };
    listeners.into_iter().enumerate().map(driver).collect()
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

    /// Stops accepting and reading, waits until the sink has settled what it took, publishes wills, waits until these are
    /// delivered and the outboxes empty, tells the clients, waits until they hang up, and ends; all of it within
    /// `limits.drain_timeout_ms`. Blocks.
    pub fn shutdown(self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.send_one(Inbox::Shutdown);
        }
        for thread in self.threads {
            // One that died has been told of.
            let _ = thread.join();
        }
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
