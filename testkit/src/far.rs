//! A network that takes its time: a proxy that delivers each byte later by half a round trip, both ways. Nothing waits for
//! anything else, so what is under way is bounded by those who talk alone, as on a long line. It can be cut: then
//! connections stand, and nothing comes through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// See the module. Its threads end with the connections, but for the one that takes them.
pub struct Far {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: OnceLock<SocketAddr>,
    one_way_micros: AtomicU64,
    is_cut: Mutex<bool>,
    mended: Condvar,
}

impl Shared {
    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way_micros.load(Ordering::Relaxed))
    }

    fn is_cut(&self) -> MutexGuard<'_, bool> {
        self.is_cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_cut(&self) {
        let waited = self.mended.wait_while(self.is_cut(), |is_cut| *is_cut);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Far {
    /// Listens on a free port of the loopback interface. Connections fail until [`Far::leads_to`] says where to.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn listen(round_trip: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared::default());
        let far = Self {
            address,
            shared: Arc::clone(&shared),
        };
        far.set_round_trip(round_trip);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Some(target)) = (near, shared.target.get()) else {
                    continue;
                };
                if let Ok(far) = TcpStream::connect(target) {
                    connect(&shared, near, far);
                }
            }
        });
        far
    }

    /// Where the other end is; said once.
    pub fn leads_to(&self, target: SocketAddr) {
        let _ = self.shared.target.set(target);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How much time a question and its answer take on the way together, from now on.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let one_way = u64::try_from(round_trip.as_micros() / 2).expect("a sensible time");
        self.shared.one_way_micros.store(one_way, Ordering::Relaxed);
    }

    /// From now on nothing comes through. What was sent meanwhile comes when it is mended, as where packets are sent again.
    pub fn cut(&self) {
        *self.shared.is_cut() = true;
    }

    /// Ends that.
    pub fn mend(&self) {
        *self.shared.is_cut() = false;
        self.shared.mended.notify_all();
    }
}

fn connect(shared: &Arc<Shared>, near: TcpStream, far: TcpStream) {
    for socket in [&near, &far] {
        // One that is gone already is found out by the first read.
        let _ = socket.set_nodelay(true);
    }
    let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    one_way(shared, near, far);
    one_way(shared, far_again, near_again);
}

/// Pieces of one direction that are on the way at most: far more than those who talk have under way.
const ON_THE_WAY_MAX: usize = 65_536;

/// What is to be written when; no bytes are the end.
type Item = (Instant, Vec<u8>);

fn one_way(shared: &Arc<Shared>, from: TcpStream, to: TcpStream) {
    let (sender, items) = sync_channel(ON_THE_WAY_MAX);
    let shared = Arc::clone(shared);
    let of_reader = Arc::clone(&shared);
    thread::spawn(move || read(&of_reader, from, &sender));
    thread::spawn(move || write(&shared, &items, to));
}

fn read(shared: &Shared, mut from: TcpStream, items: &SyncSender<Item>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let due = Instant::now() + shared.one_way();
        if items.send((due, buffer[..read].to_vec())).is_err() || read == 0 {
            return;
        }
    }
}

fn write(shared: &Shared, items: &Receiver<Item>, mut to: TcpStream) {
    while let Ok((due, bytes)) = items.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        shared.wait_while_cut();
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_through_while_it_is_cut_and_all_of_it_later() {
        let sink = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = Far::listen(Duration::ZERO);
        far.leads_to(sink.local_addr().unwrap());
        let mut client = TcpStream::connect(far.address()).unwrap();
        let (mut end, _) = sink.accept().unwrap();
        far.cut();
        client.write_all(b"held").unwrap();
        let mut came = [0; 4];
        let patience = Duration::from_millis(200);
        end.set_read_timeout(Some(patience)).unwrap();
        assert!(end.read(&mut came).is_err());
        far.mend();
        end.set_read_timeout(None).unwrap();
        end.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"held");
    }

    #[test]
    fn bytes_come_later_and_do_not_wait_for_each_other() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = Far::listen(Duration::from_millis(200));
        far.leads_to(echo.local_addr().unwrap());
        thread::spawn(move || {
            let (mut socket, _) = echo.accept().unwrap();
            let mut byte = [0];
            while let Ok(1) = socket.read(&mut byte) {
                socket.write_all(&byte).unwrap();
            }
        });
        let mut client = TcpStream::connect(far.address()).unwrap();
        client.set_nodelay(true).unwrap();
        let begin = Instant::now();
        for byte in 0..20 {
            client.write_all(&[byte]).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        let mut answers = [0; 20];
        client.read_exact(&mut answers).unwrap();
        let took = begin.elapsed();
        assert!(answers.iter().copied().eq(0..20), "{answers:?}");
        assert!(took >= Duration::from_millis(390), "{took:?}");
        assert!(took < Duration::from_secs(2), "serialised: {took:?}");
    }
}
