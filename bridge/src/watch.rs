//! Whether Kafka answers: a small state machine, and the thread that feeds it.
//!
//! A confirmed message is proof that Kafka answers. Without one for a while, or when librdkafka reports trouble, the
//! thread asks Kafka for one topic's description, and the answer decides: so the state is also true while nobody
//! publishes, and true again soon after Kafka is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::producer::Producer as _;

use crate::kafka;
use crate::sink::KafkaSink;
use crate::status::Reachability;
use crate::suspicions::{Suspicion, Suspicions};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without a proof for this long, Kafka is asked.
const PROOF_AGE_MAX: Duration = Duration::from_secs(5);
/// The same while messages wait.
const PROOF_AGE_MAX_WAITING: Duration = Duration::from_secs(2);
/// Between two questions while Kafka does not answer, or while librdkafka reports trouble.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known about Kafka. Pure: the caller brings the time and does the asking.
#[derive(Debug)]
struct Watch {
    reachability: Reachability,
    proven_at: Instant,
    asked_at: Option<Instant>,
    stored: u64,
    suspicion: Option<Suspicion>,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            reachability: Reachability::Reachable,
            proven_at: now,
            asked_at: None,
            stored: 0,
            suspicion: None,
        }
    }

    /// Takes in what happened since the last look. Returns whether Kafka is to be asked.
    fn look(
        &mut self,
        now: Instant,
        stored: u64,
        waiting: u64,
        suspicion: Option<Suspicion>,
    ) -> bool {
        if let Some(suspicion) = suspicion {
            // The first trouble tells since when.
            let since = self
                .suspicion
                .take()
                .map_or(suspicion.since, |first| first.since);
            self.suspicion = Some(Suspicion { since, ..suspicion });
        }
        if stored != self.stored {
            self.stored = stored;
            self.proven(now);
        }
        if self
            .asked_at
            .is_some_and(|at| now.duration_since(at) < ASK_PAUSE)
        {
            return false;
        }
        let age_max = if waiting > 0 {
            PROOF_AGE_MAX_WAITING
        } else {
            PROOF_AGE_MAX
        };
        let due = self.reachability != Reachability::Reachable
            || self.suspicion.is_some()
            || now.duration_since(self.proven_at) >= age_max;
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    /// Takes in the answer to a question, or that there was none.
    fn answered(&mut self, now: Instant, clock: SystemTime, answer: Result<(), String>) {
        match answer {
            Ok(()) => self.proven(now),
            Err(cause) => {
                let since = match (&self.reachability, self.suspicion.take()) {
                    (Reachability::Unreachable { since, .. }, _) => *since,
                    (Reachability::Reachable, Some(suspicion)) => suspicion.since,
                    (Reachability::Reachable, None) => clock,
                };
                self.reachability = Reachability::Unreachable { since, cause };
            }
        }
    }

    fn proven(&mut self, now: Instant) {
        self.proven_at = now;
        self.suspicion = None;
        self.reachability = Reachability::Reachable;
    }
}

#[derive(Debug, Default)]
struct Shared {
    reachability: Mutex<Reachability>,
    stop: AtomicBool,
}

impl Shared {
    fn reachability(&self) -> MutexGuard<'_, Reachability> {
        self.reachability
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running watch.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch. `topic` is one that Kafka has: it is what Kafka is asked about.
    pub(crate) fn start(
        sink: Arc<KafkaSink>,
        suspicions: Arc<Suspicions>,
        topic: Option<String>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let of_reports = Arc::clone(&suspicions);
        let thread = std::thread::Builder::new()
            .name("kafka-watch".to_owned())
            .spawn(move || watch(&of_thread, &sink, &suspicions, topic.as_deref()))?;
        of_reports.set_watch(thread.thread().clone());
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(crate) fn reachability(&self) -> Reachability {
        self.shared.reachability().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that watches Kafka panicked");
            }
        }
    }
}

fn watch(shared: &Shared, sink: &KafkaSink, suspicions: &Suspicions, topic: Option<&str>) {
    let mut watch = Watch::new(Instant::now());
    while !shared.stop.load(Ordering::SeqCst) {
        let stored = sink.counters.stored.load(Ordering::Relaxed);
        if watch.look(
            Instant::now(),
            stored,
            sink.counters.waiting(),
            suspicions.take(),
        ) {
            let answer = sink
                .producer()
                .client()
                .fetch_metadata(topic, ANSWER_TIMEOUT);
            let answer = answer.map(|_| ()).map_err(|error| kafka::describe(&error));
            watch.answered(Instant::now(), SystemTime::now(), answer);
        }
        publish(shared, &watch.reachability, sink);
        std::thread::park_timeout(LOOK);
    }
}

/// Makes the state known, and says so in the log when it has changed.
fn publish(shared: &Shared, now: &Reachability, sink: &KafkaSink) {
    let mut before = shared.reachability();
    match (&*before, now) {
        (Reachability::Reachable, Reachability::Unreachable { cause, .. }) => {
            tracing::error!(
                cause,
                waiting = sink.counters.waiting(),
                "Kafka is unreachable"
            );
        }
        (Reachability::Unreachable { .. }, Reachability::Reachable) => {
            tracing::info!(
                waiting = sink.counters.waiting(),
                "Kafka is reachable again"
            );
        }
        _ => {}
    }
    if *before != *now {
        before.clone_from(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        T0 + Duration::from_secs(seconds)
    }

    fn suspicion(seconds: u64) -> Option<Suspicion> {
        Some(Suspicion {
            since: at(seconds),
            cause: "connection refused".into(),
        })
    }

    fn unreachable(since: u64, cause: &str) -> Reachability {
        Reachability::Unreachable {
            since: at(since),
            cause: cause.into(),
        }
    }

    #[test]
    fn a_busy_kafka_is_never_asked() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        for second in 1..100 {
            assert!(!watch.look(start + Duration::from_secs(second), second, 10, None));
        }
    }

    #[test]
    fn a_silent_kafka_is_asked_and_sooner_when_messages_wait() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(!watch.look(start + Duration::from_secs(4), 0, 0, None));
        assert!(watch.look(start + Duration::from_secs(5), 0, 0, None));
        watch.answered(start + Duration::from_secs(5), at(5), Ok(()));
        assert_eq!(watch.reachability, Reachability::Reachable);
        assert!(!watch.look(start + Duration::from_secs(6), 0, 1, None));
        assert!(watch.look(start + Duration::from_secs(7), 0, 1, None));
    }

    #[test]
    fn the_first_trouble_tells_since_when() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.look(start, 0, 0, suspicion(10)));
        // The question takes its time; meanwhile there are more reports.
        watch.answered(
            start + Duration::from_secs(2),
            at(12),
            Err("no answer".into()),
        );
        assert_eq!(watch.reachability, unreachable(10, "no answer"));
        assert!(watch.look(start + Duration::from_secs(3), 0, 0, suspicion(13)));
        watch.answered(
            start + Duration::from_secs(5),
            at(15),
            Err("still no answer".into()),
        );
        assert_eq!(watch.reachability, unreachable(10, "still no answer"));
    }

    #[test]
    fn trouble_with_one_of_several_brokers_is_no_outage() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.look(start, 0, 0, suspicion(10)));
        watch.answered(start, at(10), Ok(()));
        assert_eq!(watch.reachability, Reachability::Reachable);
        assert!(
            !watch.look(start + Duration::from_secs(1), 0, 0, None),
            "the matter is settled"
        );
    }

    #[test]
    fn questions_are_not_asked_faster_than_once_a_second() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.look(start, 0, 0, suspicion(0)));
        watch.answered(start, at(0), Err("no answer".into()));
        assert!(!watch.look(start + Duration::from_millis(999), 0, 0, suspicion(1)));
        assert!(watch.look(start + Duration::from_secs(1), 0, 0, None));
    }

    #[test]
    fn a_confirmed_message_proves_it_back_and_the_next_outage_begins_anew() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.look(start, 0, 0, suspicion(10)));
        watch.answered(start, at(11), Err("no answer".into()));
        watch.look(start + Duration::from_secs(30), 1, 5, None);
        assert_eq!(watch.reachability, Reachability::Reachable);
        assert!(watch.look(start + Duration::from_secs(60), 1, 0, None));
        watch.answered(
            start + Duration::from_secs(62),
            at(72),
            Err("gone again".into()),
        );
        assert_eq!(watch.reachability, unreachable(72, "gone again"));
    }
}
