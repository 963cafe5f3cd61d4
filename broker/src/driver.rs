//! Threads and sockets: the part of the broker that is not deterministic. Each worker gets a thread, a poll and, for every
//! listener, a socket of its own; the kernel spreads new connections over the sockets.

mod doors;
mod looks;
mod seats;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::death::Death;
use crate::gates::Gates;
use crate::handle::{Handle, Inbox, Shared};
use crate::listener::{self, Place};
use crate::retained::{Bounds, Retained};
use crate::router::Router;
use crate::sink::Sink;
use crate::worker::{Settings, Worker};
use doors::Door;
use looks::Driver;
use seats::Seats;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// A listener's place cannot be had.
    #[error("cannot listen for MQTT on {address}: {}", listen_advice(.source))]
    Listen {
        /// The listener.
        name: String,
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Clients cannot be known as they should.
    #[error(transparent)]
    Identity(#[from] identity::StartError),
    /// A listener's certificates cannot be used.
    #[error("{0}")]
    Certificates(String),
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
    /// For each worker, one of every listener.
    doors: Vec<Vec<Door>>,
    places: Vec<Place>,
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
        let listeners = config.all_listeners();
        let ports = listener::ports(&listeners).map_err(StartError::Certificates)?;
        let (workers, backlog) = (config.worker_count(), config.limits.listen_backlog);
        let mut doors: Vec<Vec<Door>> = (0..workers).map(|_| Vec::new()).collect();
        let mut places = Vec::new();
        for ((listener, port), at) in listeners.iter().zip(&ports).zip(0..) {
            let place = listener.place()?;
            let opened = doors::open(at, &place, workers, backlog);
            let (opened, place) = opened.map_err(|source| StartError::Listen {
                name: listener.name.clone(),
                address: listener.address.clone(),
                source,
            })?;
            for (of_worker, door) in doors.iter_mut().zip(opened) {
                of_worker.push(door);
            }
            let _ = port.address.set(place.to_string());
            places.push(place);
        }
        let hasher = ahash::RandomState::new();
        let limits = &config.limits;
        let retained = Retained::new(Bounds::of(limits));
        let router = Router::new(
            hasher.clone(),
            config.shared_subscription_strategy,
            retained,
        );
        let shared = Shared::new(workers, router, hasher, &config.access, limits, ports);
        shared.set_gates(gates);
        Ok(Self {
            config,
            doors,
            places,
            shared,
        })
    }

    /// The address of its first listener without TLS, or else the first that has an address (the port that the system chose,
    /// where 0 was asked for); without any, the unspecified one.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        first_address(&self.shared, &self.places)
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
        let seats = Seats::new(self.doors.len(), self.shared.started);
        let mut threads = Vec::new();
        for driver in drivers(&self.config, self.doors, &self.shared, &sink)? {
            let (seats, shared) = (Arc::clone(&seats), Arc::clone(&self.shared));
            let thread = std::thread::Builder::new()
                .name(format!("mqtt-{}", driver.index()))
                .spawn(move || seats.live(driver, &shared))?;
            threads.push(thread);
        }
        for (port, place) in self.shared.ports.iter().zip(&self.places) {
            let workers = threads.len();
            tracing::debug!(listener = port.name, address = %place, workers, "MQTT listener started");
        }
        Ok(Running {
            shared: self.shared,
            places: self.places,
            threads,
        })
    }
}

fn first_address(shared: &Shared, places: &[Place]) -> SocketAddr {
    let of = |place: &Place| match place {
        Place::Net(address) => Some(*address),
        Place::Unix(_) => None,
    };
    let plain = shared.ports.iter().zip(places);
    let mut plain = plain.filter(|(port, _)| port.is_plain());
    plain
        .find_map(|(_, place)| of(place))
        .or_else(|| places.iter().find_map(of))
        .unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
}

/// A worker for each of these sets of listening sockets, ready to run.
fn drivers(
    config: &Config,
    doors: Vec<Vec<Door>>,
    shared: &Arc<Shared>,
    sink: &Arc<dyn Sink>,
) -> io::Result<Vec<Box<Driver>>> {
    let settings = Settings::new(config, shared.denials());
    let driver = |(index, doors)| {
        let worker = |registry| {
            let (shared, settings) = (Arc::clone(shared), Arc::clone(&settings));
            Worker::new(index, shared, settings, Arc::clone(sink), Some(registry))
        };
        let accepts_per_turn = config.limits.accepts_per_turn;
        Driver::new(index, doors, shared, accepts_per_turn, worker).map(Box::new)
    };
    doors.into_iter().enumerate().map(driver).collect()
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    places: Vec<Place>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// The way in from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// See [`Broker::local_addr`].
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        first_address(&self.shared, &self.places)
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
        for place in &self.places {
            doors::close(place);
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
        assert_eq!(first.doors.len(), 3);
        for door in first.doors.iter().flatten() {
            assert_eq!(door.local_addr(), first.local_addr());
        }
    }

    #[test]
    fn every_worker_accepts_and_connections_send_at_once() {
        let broker = Broker::bind(config(0)).unwrap();
        let clients = (0..200)
            .map(|_| std::net::TcpStream::connect(broker.local_addr()).unwrap())
            .collect::<Vec<_>>();
        let mut accepted = 0;
        for door in broker.doors.iter().flatten() {
            let before = accepted;
            while let Ok(connection) = door.accept() {
                let crate::transport::Socket::Tcp(connection) = connection else {
                    panic!("no TCP");
                };
                assert!(connection.nodelay().unwrap());
                accepted += 1;
            }
            assert!(accepted > before, "200 connections, and a worker got none");
        }
        assert_eq!(accepted, clients.len());
    }
}
