//! A worker's sockets: where it looks for what is ready, how long it waits, and the connections that it accepts.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::doors::Door;
use crate::handle::Shared;
use crate::limits::{ACCEPT_PAUSE_MS, EVENTS_PER_TURN_MAX};
use crate::time::Time;
use crate::transport::{Handover, Transport};
use crate::worker::{Next, Worker};

const WAKER: Token = Token(usize::MAX);
/// The first listener has the token below; the others' are below that one.
const LISTENERS: usize = usize::MAX - 1;

/// The earlier of two times to wait, of which `None` is never over.
pub(super) fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// See the module.
pub(super) struct Driver {
    index: usize,
    shared: Arc<Shared>,
    pub(super) poll: Poll,
    pub(super) events: Events,
    /// When the worker wants its next turn.
    next: Next,
    /// Its listening sockets; none while it drains.
    doors: Vec<Door>,
    /// Which of them is the first to be accepted on, so that none keeps the others waiting.
    first_door: usize,
    /// Not before this: `accept` failed for want of files or memory.
    accept_from: Option<Instant>,
    accepts_per_turn: u32,
    worker: Worker,
    /// A test has the next poll fail.
    #[cfg(test)]
    pub(super) poll_fails: bool,
}

impl Driver {
    /// The driver of the worker that `worker` makes of a registry, with a poll of its own.
    pub(super) fn new(
        index: usize,
        mut doors: Vec<Door>,
        shared: &Arc<Shared>,
        accepts_per_turn: u32,
        worker: impl FnOnce(mio::Registry) -> Worker,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (at, door) in doors.iter_mut().enumerate() {
            let token = Token(LISTENERS - at);
            poll.registry()
                .register(door.source(), token, Interest::READABLE)?;
        }
        shared.mailboxes[index].set_waker(mio::Waker::new(poll.registry(), WAKER)?);
        let worker = worker(poll.registry().try_clone()?);
        Ok(Self {
            index,
            shared: Arc::clone(shared),
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN_MAX),
            next: Next::Now,
            doors,
            first_door: 0,
            accept_from: None,
            accepts_per_turn,
            worker,
            #[cfg(test)]
            poll_fails: false,
        })
    }

    /// What all workers of the node share.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Which of the node's workers it drives.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Waits for sockets.
    ///
    /// # Errors
    /// That cannot be done any more.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), String> {
        let polled = self.poll.poll(&mut self.events, timeout);
        #[cfg(test)]
        let polled = polled.and(match self.poll_fails {
            true => Err(io::Error::other("injected")),
            false => Ok(()),
        });
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(format!("the poll of worker {} failed: {error}", self.index))
            }
            _ => Ok(()),
        }
    }

    /// Whether there may be more events than `wait` could take.
    pub(super) fn events_are_full(&self) -> bool {
        self.events.iter().count() >= EVENTS_PER_TURN_MAX
    }

    /// One turn of the worker, with the events that `wait` found.
    pub(super) fn turn(&mut self, now: Instant) -> Next {
        self.worker.begin(self.time(now));
        if self.worker.is_draining() {
            self.doors.clear();
        }
        self.worker.go_on();
        let may_read = self.worker.may_read();
        for event in &self.events {
            match event.token() {
                WAKER => {}
                Token(slot) => {
                    let Ok(slot) = u32::try_from(slot) else {
                        // What is no listener's is a guest's: the host looks after it.
                        if let Some(door) = self.doors.get_mut(LISTENERS - slot) {
                            door.may_accept = true;
                        }
                        continue;
                    };
                    if event.is_writable() {
                        self.worker.writable(slot);
                    }
                    if event.is_read_closed() {
                        self.worker.ended(slot);
                    }
                    // An error or a hang-up shows itself by reading, too.
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        if may_read || self.worker.is_closing(slot) {
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
        self.next = self.worker.end();
        self.next
    }

    /// A worker that is about to wait is woken by what comes into its inbox; what is there already does not let it wait.
    pub(super) fn sleeps(&self, timeout: Option<Duration>) -> Option<Duration> {
        if timeout == Some(Duration::ZERO) || self.next == Next::Ended {
            return timeout;
        }
        if self.shared.mailboxes[self.index].sleeps() {
            timeout
        } else {
            Some(Duration::ZERO)
        }
    }

    pub(super) fn wakes(&self) {
        self.shared.mailboxes[self.index].wakes();
    }

    /// Whether something came into the inbox that the worker has not taken.
    pub(super) fn is_notified(&self) -> bool {
        self.shared.mailboxes[self.index].is_notified()
    }

    /// Whether a turn is due at `now` although no socket is ready.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_notified() || self.timeout(now) == Some(Duration::ZERO)
    }

    fn time(&self, now: Instant) -> Time {
        let since = now.saturating_duration_since(self.shared.started);
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long to wait at `now`, if nothing happens.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let of_worker = match self.next {
            Next::Now => Some(Duration::ZERO),
            Next::Idle => None,
            Next::Ended => return None,
            Next::At(at) => Some(Duration::from_millis(at.since_ms(self.time(now)))),
        };
        let accepts = self.doors.iter().any(|door| door.may_accept);
        let pause = |from: Instant| from.saturating_duration_since(now);
        let of_listener = accepts.then(|| self.accept_from.map_or(Duration::ZERO, pause));
        earlier(of_worker, of_listener)
    }

    fn accept(&mut self) {
        if !self.doors.iter().any(|door| door.may_accept) {
            return;
        }
        if self.accept_from.is_some_and(|from| from > Instant::now()) {
            return;
        }
        self.accept_from = None;
        let count = self.doors.len();
        self.first_door = (self.first_door + 1) % count;
        let mut at = self.first_door;
        for _ in 0..self.accepts_per_turn {
            let Some(door) = (0..count)
                .map(|more| (at + more) % count)
                .find(|at| self.doors[*at].may_accept)
            else {
                return;
            };
            at = door;
            let door = &mut self.doors[at];
            match door.accept() {
                Ok(socket) => {
                    let listener = door.listener;
                    let port = self.shared.ports.get(usize::from(listener));
                    let layers = port.map_or_else(Vec::new, |port| port.layers(&socket));
                    self.worker.adopt(Handover {
                        transport: Transport::new(socket, listener, layers),
                        unread: Vec::new(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    door.may_accept = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(times) = self.worker.unaccepted() {
                        tracing::warn!(
                            %error,
                            times,
                            "connections cannot be accepted now; they wait in the kernel"
                        );
                    }
                    self.accept_from =
                        Some(Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MS));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::worker::Settings;
    use crate::{Broker, Config, Handle, NoSink};

    fn driver() -> Driver {
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            workers: 1,
            ..Config::default()
        };
        let broker = Broker::bind(config.clone()).unwrap();
        let Handle(shared) = broker.handle();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let worker = |registry| {
            let settings = Settings::new(&config, shared.denials());
            Worker::new(
                0,
                Arc::clone(&shared),
                settings,
                Arc::new(NoSink),
                Some(registry),
            )
        };
        Driver::new(0, vec![Door::of_tcp(listener)], &shared, 1, worker).unwrap()
    }

    /// Turns of the driver, at a time that stands still, until the client has so many bytes.
    fn read(driver: &mut Driver, client: &mut TcpStream, now: Instant, bytes: usize) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut got = Vec::new();
        while got.len() < bytes {
            assert!(Instant::now() < deadline, "{got:?} of {bytes} bytes");
            driver.wait(Some(Duration::from_millis(1))).unwrap();
            driver.turn(now);
            let mut some = [0; 64];
            if let Ok(n) = client.read(&mut some) {
                assert!(n > 0, "closed after {got:?}");
                got.extend_from_slice(&some[..n]);
            }
        }
        got
    }

    /// A client whose reads end soon, so that the driver can be turned meanwhile.
    fn connect(driver: &Driver) -> TcpStream {
        let address = driver.doors[0].local_addr();
        let client = TcpStream::connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        client
    }

    #[test]
    fn no_client_is_closed_for_silence_before_what_it_sent_was_read() {
        let mut driver = driver();
        let mut client = connect(&driver);
        let packet = b"\x10\x0d\0\x04MQTT\x04\x02\0\x05\0\x01c"; // keep-alive 5 s
        client.write_all(packet).unwrap();
        let began = Instant::now();
        read(&mut driver, &mut client, began, 4);
        client.write_all(&[0xc0, 0]).unwrap();
        // The machine stood still: the timers are due, and the socket was not looked at.
        driver.events.clear();
        let after = began + Duration::from_secs(60);
        driver.turn(after);
        assert_eq!(read(&mut driver, &mut client, after, 2), [0xd0, 0]);
        // Now it says nothing.
        driver.events.clear();
        driver.turn(after + Duration::from_secs(60));
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn no_client_is_closed_for_a_late_connect_before_what_it_sent_was_read() {
        let mut driver = driver();
        let mut client = connect(&driver);
        let began = Instant::now();
        let handle = Handle(driver.shared());
        while handle.stats().connections == 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "not accepted");
            driver.wait(Some(Duration::from_millis(1))).unwrap();
            driver.turn(began);
        }
        client
            .write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c")
            .unwrap();
        driver.events.clear();
        let after = began + Duration::from_secs(60);
        driver.turn(after);
        assert_eq!(read(&mut driver, &mut client, after, 4), [0x20, 2, 0, 0]);
    }

    #[test]
    fn connections_that_cannot_be_accepted_delay_nothing_else() {
        let mut driver = driver();
        let now = Instant::now();
        let pause = Duration::from_millis(ACCEPT_PAUSE_MS);
        driver.accept_from = Some(now + pause);
        driver.next = Next::Now; // a connection has more to read
        assert_eq!(driver.timeout(now), Some(Duration::ZERO));
        driver.next = Next::At(driver.time(now).plus_ms(7)); // a timer
        assert_eq!(driver.timeout(now), Some(Duration::from_millis(7)));
        driver.next = Next::Idle;
        assert_eq!(driver.timeout(now), Some(pause));
        driver.accept_from = Some(now - pause);
        assert_eq!(driver.timeout(now), Some(Duration::ZERO));
    }
}
