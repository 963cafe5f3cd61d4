//! A few threads for what takes time, with a bounded queue. They run below the workers' priority: when there is more to do
//! than the machine can, clients that are in go first.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How much the threads step back: 0 is like everybody, 19 is last.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// See the module. Its threads end with it, after what they are at.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    queue_max: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_over: bool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `threads` threads of that name; up to `queue_max` jobs wait for them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str, threads: usize, queue_max: usize) -> std::io::Result<Self> {
        let pool = Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                queue_max,
            }),
        };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Has a thread do `job` with `what`.
    ///
    /// # Errors
    /// Gives `what` back when the queue is full.
    pub fn run<T: Send + 'static>(
        &self,
        what: T,
        job: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), T> {
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= self.shared.queue_max {
            return Err(what);
        }
        queue.jobs.push_back(Box::new(move || job(what)));
        drop(queue);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Jobs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.is_over = true;
        // Who waits for them hears that nobody looked.
        let left = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(left);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "a thread keeps the priority of all");
        }
        loop {
            let mut queue = self.lock();
            let job = loop {
                if queue.is_over {
                    return;
                }
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None => {
                        queue = self
                            .changed
                            .wait(queue)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(queue);
            // One that panics answers by being dropped, and takes no thread with it.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("looking at credentials panicked; the client was refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn the_queue_is_bounded_and_what_panics_takes_no_thread_with_it() {
        let pool = Pool::start("test", 1, 2).unwrap();
        let (started, has_started) = sync_channel(64);
        let (go_on, goes_on) = sync_channel::<()>(64);
        let (done, is_done) = sync_channel(64);
        let job = move |()| {
            started.send(()).unwrap();
            goes_on.recv().unwrap();
            panic!("a job of this test");
        };
        pool.run((), job).unwrap();
        has_started.recv().unwrap();
        for n in 0..2 {
            let done = done.clone();
            pool.run(n, move |n| done.send(n).unwrap()).unwrap();
        }
        assert_eq!(pool.run(7, drop), Err(7));
        assert_eq!(pool.waiting(), 2);
        go_on.send(()).unwrap();
        assert_eq!((is_done.recv(), is_done.recv()), (Ok(0), Ok(1)));
    }

    #[test]
    fn what_waits_when_the_pool_ends_is_dropped() {
        let pool = Pool::start("test", 1, 9).unwrap();
        let (started, has_started) = sync_channel(64);
        let (go_on, goes_on) = sync_channel::<()>(64);
        let first = move |()| {
            started.send(()).unwrap();
            let _ = goes_on.recv();
        };
        pool.run((), first).unwrap();
        has_started.recv().unwrap();
        let (kept, is_kept) = sync_channel::<()>(64);
        pool.run(kept, |kept| kept.send(()).unwrap()).unwrap();
        drop(pool);
        assert!(is_kept.recv().is_err(), "it ran after the pool's end");
        drop(go_on);
    }
}
