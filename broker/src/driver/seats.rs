//! Which thread runs which worker. Every worker has a thread of its own. While there is little to do, the threads lend
//! their workers to the first one, the host, which then waits for the sockets of all: one thread costs less than several
//! that wake each other for every message. A host that is busy gives the workers back. See docs/adr/0006.
//!
//! A worker is moved from thread to thread, never shared: whoever has it runs it, and nothing of it needs a lock.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::looks::{Driver, earlier};
use crate::handle::Shared;
use crate::limits::{HOST_BUSY, HOST_WINDOW_MS, THREAD_QUIET, WORKER_STAY_MS};
use crate::worker::Next;

/// Tokens of the guests in the host's poll: this and the guest's index.
const GUESTS: usize = usize::MAX - 1_000;

/// What the host said of itself counts for so long; then it has slept since.
const HOST_SAID_MS: u64 = 1_000;

const HOST_WINDOW: Duration = Duration::from_millis(HOST_WINDOW_MS);
const STAY: Duration = Duration::from_millis(WORKER_STAY_MS);

/// Where a worker is, as its own thread sees it.
enum Seat {
    /// Its thread runs it.
    Own,
    /// The host runs it, or is about to.
    Lent,
    /// Given back: its thread may go on with it.
    Back(Box<Driver>),
    /// It has ended.
    Ended,
}

/// What the threads share.
pub(super) struct Seats {
    of: Box<[(Mutex<Seat>, Condvar)]>,
    /// Workers on their way to the host; `None` once the host takes none any more.
    lent: Mutex<Option<Vec<Box<Driver>>>>,
    /// How busy the host was in its last window, in thousandths (10 bits), and when that was, in milliseconds.
    host: AtomicU64,
    started: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of its time a thread works.
struct Load {
    since: Instant,
    busy: Duration,
}

impl Load {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            busy: Duration::ZERO,
        }
    }

    /// Notes a turn. Once a window is over: how busy the thread was in it, in thousandths.
    fn worked(&mut self, from: Instant, to: Instant, window: Duration) -> Option<u64> {
        self.busy += to - from;
        let passed = to - self.since;
        if passed < window {
            return None;
        }
        let share = self.busy.as_micros() * 1_000 / passed.as_micros().max(1);
        *self = Self::new(to);
        Some(u64::try_from(share).unwrap_or(1_000).min(1_000))
    }
}

impl Seats {
    pub(super) fn new(workers: usize, started: Instant) -> Arc<Self> {
        Arc::new(Self {
            of: (0..workers)
                .map(|_| (Mutex::new(Seat::Own), Condvar::new()))
                .collect(),
            lent: Mutex::new(Some(Vec::new())),
            host: AtomicU64::new(0),
            started,
        })
    }

    /// The life of a thread that has the worker `driver` to begin with. If it dies, that is told, and no other thread waits
    /// for what it had.
    pub(super) fn live(&self, driver: Box<Driver>, shared: &Shared) {
        let is_host = driver.index() == 0;
        if shared.vital(|| self.run(driver)).is_none() && is_host {
            *locked(&self.lent) = None;
            for (seat, changed) in &self.of {
                let mut seat = locked(seat);
                if matches!(*seat, Seat::Lent) {
                    *seat = Seat::Ended;
                    changed.notify_one();
                }
            }
        }
    }

    fn run(&self, driver: Box<Driver>) -> Result<(), String> {
        if driver.index() == 0 {
            return Host::new(driver).run(self);
        }
        let index = driver.index();
        let mut mine = Some(driver);
        while let Some(driver) = mine {
            mine = match self.run_until_quiet(driver)? {
                Some(quiet) => self.lend(quiet).or_else(|| self.wait_for(index)),
                None => None,
            };
        }
        Ok(())
    }

    /// Runs one worker until it ends (`None`), or has so little to do that the host can have it.
    fn run_until_quiet(&self, mut driver: Box<Driver>) -> Result<Option<Box<Driver>>, String> {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        loop {
            let timeout = driver.sleeps(driver.timeout(now));
            driver.wait(timeout)?;
            driver.wakes();
            let woken = Instant::now();
            if driver.turn(woken) == Next::Ended {
                return Ok(None);
            }
            now = Instant::now();
            if let Some(busy) = load.worked(woken, now, STAY)
                && busy + self.host_busy(now) < THREAD_QUIET
            {
                return Ok(Some(driver));
            }
        }
    }

    /// Lends a worker to the host, or keeps it if the host is at its end.
    fn lend(&self, driver: Box<Driver>) -> Option<Box<Driver>> {
        let shared = driver.shared();
        let mut lent = locked(&self.lent);
        let Some(lent) = &mut *lent else {
            return Some(driver);
        };
        *locked(&self.of[driver.index()].0) = Seat::Lent;
        lent.push(driver);
        shared.mailboxes[0].wake();
        None
    }

    /// Waits until a worker that was lent is given back; `None` if it ended there.
    fn wait_for(&self, index: usize) -> Option<Box<Driver>> {
        let (seat, changed) = &self.of[index];
        let mut seat = locked(seat);
        loop {
            if matches!(*seat, Seat::Lent) {
                seat = changed.wait(seat).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            return match std::mem::replace(&mut *seat, Seat::Own) {
                Seat::Back(driver) => Some(driver),
                _ => None,
            };
        }
    }

    fn put(&self, index: usize, seat: Seat) {
        let (of, changed) = &self.of[index];
        *locked(of) = seat;
        changed.notify_one();
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(0)
    }

    fn host_was(&self, busy: u64, now: Instant) {
        self.host
            .store(self.ms(now) << 10 | busy, Ordering::Relaxed);
    }

    fn host_busy(&self, now: Instant) -> u64 {
        let said = self.host.load(Ordering::Relaxed);
        if self.ms(now).saturating_sub(said >> 10) > HOST_SAID_MS {
            return 0;
        }
        said & 1_023
    }
}

/// A worker that the host runs beside its own.
struct Guest {
    driver: Box<Driver>,
    /// Its poll may have something.
    ready: bool,
    /// It had something to do in this window.
    worked: bool,
}

/// The first thread: it runs its own worker and those that were lent to it.
struct Host {
    own: Box<Driver>,
    own_ended: bool,
    guests: Vec<Guest>,
}

impl Host {
    fn new(own: Box<Driver>) -> Self {
        Self {
            own,
            own_ended: false,
            guests: Vec::new(),
        }
    }

    fn run(mut self, seats: &Seats) -> Result<(), String> {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        while !self.is_done(seats) {
            self.take_guests(seats);
            let timeout = self.timeout(now);
            self.own.wait(timeout)?;
            let woken = Instant::now();
            self.wakes();
            self.turn(woken, seats)?;
            now = Instant::now();
            if let Some(busy) = load.worked(woken, now, HOST_WINDOW) {
                seats.host_was(busy, now);
                self.judge(busy, seats);
            }
        }
        Ok(())
    }

    /// Whether all that it runs has ended. Then it takes no guests any more.
    fn is_done(&self, seats: &Seats) -> bool {
        if !self.own_ended || !self.guests.is_empty() {
            return false;
        }
        let mut lent = locked(&seats.lent);
        if lent.as_ref().is_some_and(|lent| !lent.is_empty()) {
            return false;
        }
        *lent = None;
        true
    }

    fn take_guests(&mut self, seats: &Seats) {
        let Some(lent) = locked(&seats.lent).as_mut().map(std::mem::take) else {
            return;
        };
        for driver in lent {
            let fd = driver.poll.as_raw_fd();
            let token = Token(GUESTS + driver.index());
            let registry = self.own.poll.registry();
            if let Err(error) = registry.register(&mut SourceFd(&fd), token, Interest::READABLE) {
                tracing::warn!(%error, "a worker could not be lent");
                seats.put(driver.index(), Seat::Back(driver));
                continue;
            }
            self.guests.push(Guest {
                driver,
                ready: true,
                worked: false,
            });
        }
    }

    /// How long to wait; nobody's inbox is looked at meanwhile, so they wake from now on.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let mut least = self.own.timeout(now);
        for guest in &self.guests {
            let of_guest = match guest.ready {
                true => Some(Duration::ZERO),
                false => guest.driver.timeout(now),
            };
            least = earlier(least, of_guest);
        }
        let least = self.own.sleeps(least);
        let sleeps = |least, guest: &Guest| guest.driver.sleeps(least);
        self.guests.iter().fold(least, sleeps)
    }

    fn wakes(&self) {
        self.own.wakes();
        for guest in &self.guests {
            guest.driver.wakes();
        }
    }

    /// A turn of each worker that has something to do: its own, then the guests, then its own again if they have sent it
    /// something.
    fn turn(&mut self, now: Instant, seats: &Seats) -> Result<(), String> {
        let mut own_ready = false;
        for event in &self.own.events {
            match event.token().0.checked_sub(GUESTS) {
                Some(index) => {
                    let mut guests = self.guests.iter_mut();
                    if let Some(guest) = guests.find(|guest| guest.driver.index() == index) {
                        guest.ready = true;
                        continue;
                    }
                    own_ready = true;
                }
                None => own_ready = true,
            }
        }
        if own_ready || self.own.is_due(now) {
            self.own_turn(now);
        }
        let mut at = 0;
        while let Some(guest) = self.guests.get_mut(at) {
            if guest.turn(now)? {
                at += 1;
            } else {
                let guest = self.guests.swap_remove(at);
                seats.put(guest.driver.index(), Seat::Ended);
            }
        }
        if self.own.is_notified() {
            self.own.events.clear();
            self.own_turn(now);
        }
        Ok(())
    }

    fn own_turn(&mut self, now: Instant) {
        if !self.own_ended {
            self.own_ended = self.own.turn(now) == Next::Ended;
        }
    }

    /// Gives the guests back that had something to do, if there was too much to do.
    fn judge(&mut self, busy: u64, seats: &Seats) {
        let mut at = 0;
        while let Some(guest) = self.guests.get_mut(at) {
            if !std::mem::take(&mut guest.worked) || busy <= HOST_BUSY {
                at += 1;
                continue;
            }
            let Guest { driver, .. } = self.guests.swap_remove(at);
            let fd = driver.poll.as_raw_fd();
            if let Err(error) = self.own.poll.registry().deregister(&mut SourceFd(&fd)) {
                tracing::warn!(%error, "the poll of a worker that was lent stays registered");
            }
            seats.put(driver.index(), Seat::Back(driver));
        }
    }
}

impl Guest {
    /// A turn, if there is something to do. False when the worker has ended.
    fn turn(&mut self, now: Instant) -> Result<bool, String> {
        if !self.ready && !self.driver.is_due(now) {
            return Ok(true);
        }
        self.worked = true;
        if self.ready {
            self.driver.wait(Some(Duration::ZERO))?;
            // What did not fit is still there, and makes no new edge.
            self.ready = self.driver.events_are_full();
        } else {
            self.driver.events.clear();
        }
        Ok(self.driver.turn(now) != Next::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread::JoinHandle;

    use super::*;
    use crate::handle::Inbox;
    use crate::retained::{Bounds, Retained};
    use crate::{Broker, Config, NoSink, Sink};

    const WORKERS: usize = 3;
    const CLIENTS: usize = 24;
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Workers on threads of their own, and clients in a ring, each of which hears the one before it.
    struct Ring {
        broker: Broker,
        seats: Arc<Seats>,
        threads: Vec<JoinHandle<()>>,
        clients: Vec<TcpStream>,
        sent: u32,
    }

    fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        [&[first, body.len() as u8], &*body].concat()
    }

    impl Ring {
        fn start() -> Self {
            Self::with(Arc::new(NoSink))
        }

        fn with(sink: Arc<dyn Sink>) -> Self {
            let mut config = Config {
                listen: "127.0.0.1:0".to_owned(),
                workers: WORKERS,
                ..Config::default()
            };
            // One test has a worker end alone, and its clients stay.
            config.limits.drain_timeout_ms = 500;
            let mut broker = Broker::bind(config).unwrap();
            let seats = Seats::new(WORKERS, broker.shared.started);
            let listeners = std::mem::take(&mut broker.doors);
            let drivers =
                super::super::drivers(&broker.config, listeners, &broker.shared, &sink).unwrap();
            let run = |driver: Box<Driver>| {
                let seats = Arc::clone(&seats);
                let shared = Arc::clone(&broker.shared);
                let thread = std::thread::Builder::new().name(format!("mqtt-{}", driver.index()));
                thread.spawn(move || seats.live(driver, &shared)).unwrap()
            };
            let threads = drivers.into_iter().map(run).collect();
            let address = broker.local_addr();
            let clients = (0..CLIENTS).map(|n| {
                let mut client = TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let id = format!("ring-{n:02}");
                let connect = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0\0\x07", id.as_bytes()]);
                let filter = format!("t/{n:02}");
                let subscribe = packet(0x82, &[b"\0\x01\0\x04", filter.as_bytes(), b"\0"]);
                client.write_all(&[connect, subscribe].concat()).unwrap();
                let mut answers = [0; 9];
                client.read_exact(&mut answers).unwrap();
                assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
                client
            });
            let clients = clients.collect();
            Self {
                broker,
                seats,
                threads,
                clients,
                sent: 0,
            }
        }

        /// Every client sends so many messages to the next, which gets all of them in order.
        fn round(&mut self, messages: u32) {
            let numbers = self.sent..self.sent + messages;
            for (n, client) in self.clients.iter_mut().enumerate() {
                let topic = format!("\0\x04t/{:02}", (n + 1) % CLIENTS);
                let publish =
                    |number: u32| packet(0x30, &[topic.as_bytes(), &number.to_be_bytes()]);
                client
                    .write_all(&numbers.clone().flat_map(publish).collect::<Vec<_>>())
                    .unwrap();
            }
            for client in &mut self.clients {
                for number in numbers.clone() {
                    let mut publish = [0; 12];
                    client.read_exact(&mut publish).unwrap();
                    assert_eq!(publish[8..], number.to_be_bytes());
                }
            }
            self.sent = numbers.end;
        }

        fn lent(&self) -> usize {
            let is_lent = |(seat, _): &&(Mutex<Seat>, Condvar)| matches!(*locked(seat), Seat::Lent);
            self.seats.of.iter().filter(is_lent).count()
        }

        /// Sends rounds until so many workers are lent.
        fn until_lent(&mut self, lent: usize, messages: u32, pause: Duration) {
            let deadline = Instant::now() + PATIENCE;
            while self.lent() != lent {
                assert!(
                    Instant::now() < deadline,
                    "{} of {lent} are lent",
                    self.lent()
                );
                self.round(messages);
                std::thread::sleep(pause);
            }
        }

        fn is_quiet(&mut self) {
            self.until_lent(WORKERS - 1, 1, Duration::from_millis(20));
        }

        fn is_busy(&mut self) {
            self.until_lent(0, 2_000, Duration::ZERO);
        }

        fn shut_down(self) {
            drop(self.clients);
            for mailbox in &self.broker.shared.mailboxes {
                mailbox.send_one(Inbox::Shutdown);
            }
            let deadline = Instant::now() + PATIENCE;
            while self.threads.iter().any(|thread| !thread.is_finished()) {
                assert!(Instant::now() < deadline, "a thread does not end");
                std::thread::sleep(Duration::from_millis(1));
            }
            for thread in self.threads {
                thread.join().unwrap();
            }
        }
    }

    #[test]
    fn quiet_workers_are_lent_and_busy_ones_given_back_without_a_message_lost_or_out_of_order() {
        let mut ring = Ring::start();
        ring.is_quiet();
        ring.is_busy();
        ring.is_quiet();
        ring.round(100);
        ring.shut_down();
    }

    #[test]
    fn all_threads_end_whoever_has_the_workers() {
        Ring::start().shut_down();
        let mut ring = Ring::start();
        ring.is_busy();
        ring.shut_down();
    }

    /// A sink that panics at one topic.
    struct Trap;

    impl Sink for Trap {
        fn accept(&self, publish: &crate::Incoming<'_>, _: crate::Token) -> crate::Verdict {
            assert!(publish.topic != "trap", "a trap of this test");
            crate::Verdict::NotStored
        }
    }

    impl Ring {
        fn deaths(&self) -> std::sync::mpsc::Receiver<crate::Death> {
            let (tell, deaths) = std::sync::mpsc::sync_channel(WORKERS);
            let tell = move |death: &crate::Death| tell.send(death.clone()).unwrap();
            let is_first = self.broker.shared.on_death.set(Box::new(tell)).is_ok();
            assert!(is_first);
            deaths
        }

        /// The client of a worker's session publishes what the sink panics at.
        fn kill(&mut self, worker: usize) {
            let is_of = |n: &usize| self.broker.shared.home(&format!("ring-{n:02}")) == worker;
            let client = (0..CLIENTS)
                .find(is_of)
                .expect("some client is at home there");
            let publish = packet(0x30, &[b"\0\x04trap"]);
            self.clients[client].write_all(&publish).unwrap();
        }
    }

    #[test]
    fn a_worker_that_dies_is_told_of_whoever_runs_it() {
        for is_lent in [false, true] {
            for worker in 0..WORKERS {
                let mut ring = Ring::with(Arc::new(Trap));
                let deaths = ring.deaths();
                if is_lent {
                    ring.is_quiet();
                } else {
                    ring.is_busy();
                }
                ring.kill(worker);
                let death = deaths.recv_timeout(PATIENCE).expect("it is told of");
                assert_eq!(death.why, "it panicked: a trap of this test");
                if is_lent {
                    assert_eq!(death.thread, "mqtt-0");
                }
                // Nobody waits for what is gone.
                ring.shut_down();
                assert!(deaths.try_recv().is_err(), "once");
            }
        }
    }

    #[test]
    fn a_poll_that_fails_is_told_of_whoever_runs_the_worker() {
        for is_lent in [false, true] {
            let config = Config {
                listen: "127.0.0.1:0".to_owned(),
                workers: 2,
                ..Config::default()
            };
            let (tell, deaths) = std::sync::mpsc::sync_channel(WORKERS);
            let mut broker = Broker::bind(config)
                .unwrap()
                .on_death(move |death| tell.send(death.clone()).unwrap());
            let listeners = std::mem::take(&mut broker.doors);
            let sink: Arc<dyn Sink> = Arc::new(NoSink);
            let mut drivers =
                super::super::drivers(&broker.config, listeners, &broker.shared, &sink).unwrap();
            let seats = Seats::new(2, broker.shared.started);
            let mut driver = drivers.remove(1);
            driver.poll_fails = true;
            if is_lent {
                assert!(seats.lend(driver).is_none());
                seats.live(drivers.remove(0), &broker.shared);
                assert!(seats.wait_for(1).is_none(), "its thread does not wait");
            } else {
                seats.live(driver, &broker.shared);
            }
            let death = deaths.try_recv().expect("it is told of");
            assert_eq!(death.why, "the poll of worker 1 failed: injected");
        }
    }

    #[test]
    fn a_worker_is_not_lent_to_a_host_that_has_ended() {
        let mut ring = Ring::start();
        let shared = Arc::clone(&ring.broker.shared);
        shared.mailboxes[0].send_one(Inbox::Shutdown);
        ring.threads.remove(0).join().unwrap();
        let other = Shared::new(
            WORKERS,
            crate::router::Router::new(
                ahash::RandomState::new(),
                crate::ShareStrategy::RoundRobin,
                Retained::new(Bounds::of(&crate::Limits::default())),
            ),
            ahash::RandomState::new(),
            &crate::access::AccessConfig::default(),
            &crate::Limits::default(),
            Box::default(),
        );
        let sink: Arc<dyn Sink> = Arc::new(NoSink);
        let driver = super::super::drivers(&ring.broker.config, vec![Vec::new()], &other, &sink)
            .unwrap()
            .remove(0);
        assert!(ring.seats.lend(driver).is_some());
        ring.clients.clear();
        ring.shut_down();
    }
}
