//! Whether Kafka answers: a small state machine, and the thread that feeds it.
//!
//! A confirmed message is proof that Kafka answers. Without one for a while, or when librdkafka reports trouble, the
//! thread asks Kafka for one topic's description, and the answer decides: so the state is also true while nobody
//! publishes, and true again soon after Kafka is back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use broker::Handle;

use crate::fault::Asker;
use crate::sink::KafkaSink;
use crate::status::Reachability;
use crate::suspicions::{Suspicion, Suspicions};
use crate::waits::{Silence, Silent};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without a proof for this long, Kafka is asked; and also with one, since the answer tells how far away it is.
const PROOF_AGE_MAX: Duration = Duration::from_secs(5);
/// The same while messages wait.
const PROOF_AGE_MAX_WAITING: Duration = Duration::from_secs(2);
/// Between two questions while Kafka does not answer, or while librdkafka reports trouble.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take when there was trouble with the connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take of a Kafka with which there was no trouble: it may be far away or busy.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// An answer that takes so long is worth telling.
const SLOW: Duration = Duration::from_secs(1);

/// A round trip from which on Kafka is far: with each partition's batch waiting for the others', every publisher would
/// feel it.
pub(crate) const FAR: Duration = Duration::from_millis(1);
/// The same while the node runs, when an answer also takes long because the machine or Kafka is busy: so many answers in a
/// row, each at least so late.
const FAR_FOR_SURE: (usize, Duration) = (2, Duration::from_millis(50));
const FAR_IN_THE_LONG_RUN: (usize, Duration) = (6, Duration::from_millis(5));

/// What is known about Kafka. Pure: the caller brings the time and does the asking.
#[derive(Debug)]
struct Watch {
    reachability: Reachability,
    proven_at: Instant,
    asked_at: Option<Instant>,
    began_at: Instant,
    stored: u64,
    suspicion: Option<Suspicion>,
    /// The last times that answers took.
    answers: VecDeque<Duration>,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            reachability: Reachability::Reachable,
            proven_at: now,
            asked_at: None,
            began_at: now,
            stored: 0,
            suspicion: None,
            answers: VecDeque::new(),
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
        let asked_at = self.asked_at.unwrap_or(self.began_at);
        let asked_long_ago = now.duration_since(asked_at) >= PROOF_AGE_MAX;
        let age_max = if waiting > 0 {
            PROOF_AGE_MAX_WAITING
        } else {
            PROOF_AGE_MAX
        };
        let due = asked_long_ago
            || matches!(self.reachability, Reachability::Unreachable { .. })
            || self.suspicion.is_some()
            || now.duration_since(self.proven_at) >= age_max;
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    /// How long the next answer may take.
    fn patience(&self) -> Duration {
        match (&self.reachability, &self.suspicion) {
            (Reachability::Reachable, Some(_)) => ANSWER_TIMEOUT,
            _ => LONG_ANSWER_TIMEOUT,
        }
    }

    /// Takes in how long the answer to a question took, or that there was none.
    fn answered(&mut self, now: Instant, clock: SystemTime, answer: Result<Duration, String>) {
        match answer {
            Ok(took) => {
                self.proven(now);
                self.reachability = if took >= SLOW {
                    Reachability::Slow { answer: took }
                } else {
                    Reachability::Reachable
                };
                self.answers.push_front(took);
                self.answers.truncate(FAR_IN_THE_LONG_RUN.0);
            }
            Err(cause) => {
                let since = match (&self.reachability, self.suspicion.take()) {
                    (Reachability::Unreachable { since, .. }, _) => *since,
                    (_, Some(suspicion)) => suspicion.since,
                    (_, None) => clock,
                };
                self.reachability = Reachability::Unreachable { since, cause };
            }
        }
    }

    /// Whether the answers say that Kafka is far away.
    fn is_far(&self) -> bool {
        [FAR_FOR_SURE, FAR_IN_THE_LONG_RUN]
            .iter()
            .any(|(count, least)| {
                self.answers.len() >= *count
                    && self.answers.iter().take(*count).all(|took| took >= least)
            })
    }

    /// Kafka has answered or confirmed something. How fast it is, only an answer tells.
    fn proven(&mut self, now: Instant) {
        self.proven_at = now;
        self.suspicion = None;
        if matches!(self.reachability, Reachability::Unreachable { .. }) {
            self.reachability = Reachability::Reachable;
        }
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
    /// Starts to watch.
    pub(crate) fn start(
        sink: Arc<KafkaSink>,
        suspicions: Arc<Suspicions>,
        asker: Asker,
        topic: Option<String>,
        handle: Handle,
        confirmation_wait: Duration,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let of_reports = Arc::clone(&suspicions);
        let thread = std::thread::Builder::new()
            .name("kafka-watch".to_owned())
            .spawn(move || {
                let topic = topic.as_deref();
                let silence = Silence::new(&sink.waits, confirmation_wait);
                handle.vital(|| watch(&of_thread, &sink, &suspicions, &asker, topic, silence));
            })?;
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

fn watch(
    shared: &Shared,
    sink: &KafkaSink,
    suspicions: &Suspicions,
    asker: &Asker,
    topic: Option<&str>,
    mut silence: Silence,
) {
    let mut watch = Watch::new(Instant::now());
    while !shared.stop.load(Ordering::SeqCst) {
        let stored = sink.counters.stored.load(Ordering::Relaxed);
        if watch.look(
            Instant::now(),
            stored,
            sink.counters.waiting(),
            suspicions.take(),
        ) {
            let patience = watch.patience();
            let asked = Instant::now();
            let answer = asker.ask(topic, patience);
            let answer = answer.map(|_| asked.elapsed());
            let confirmed = sink.counters.stored.load(Ordering::Relaxed) > stored;
            match answer {
                // What was confirmed meanwhile is an answer, too: one of several brokers may have nothing to say. It tells
                // nothing of how far Kafka is.
                Err(_) if confirmed => watch.proven(Instant::now()),
                answer => {
                    let answer =
                        answer.map_err(|fault| format!("{}: {}", fault.cause, fault.advice));
                    watch.answered(Instant::now(), SystemTime::now(), answer);
                }
            }
            if watch.is_far() {
                sink.is_far();
            }
        }
        publish(shared, &watch.reachability, sink);
        let silent = silence.look(&sink.waits, Instant::now());
        sink.troubles
            .set_silent(silent.iter().map(|silent| say(silent, sink)).collect());
        std::thread::park_timeout(LOOK);
    }
}

fn say(silent: &Silent, sink: &KafkaSink) -> String {
    let (topic, partition) = sink.lanes.partitions().name(silent.number);
    format!(
        "{topic}/{partition} has had no confirmation for {} s, {} wait",
        silent.lasting.as_secs(),
        silent.waiting
    )
}

/// Makes the state known, and says so in the log when it has changed.
fn publish(shared: &Shared, now: &Reachability, sink: &KafkaSink) {
    let mut before = shared.reachability();
    match (&*before, now) {
        (
            Reachability::Reachable | Reachability::Slow { .. },
            Reachability::Unreachable { cause, .. },
        ) => {
            tracing::error!(
                cause,
                waiting = sink.counters.waiting(),
                "Kafka is unreachable"
            );
        }
        (Reachability::Reachable, Reachability::Slow { answer }) => {
            tracing::warn!(?answer, "Kafka is slow");
        }
        (Reachability::Slow { .. }, Reachability::Reachable) => {
            tracing::warn!("Kafka is slow no more");
        }
        (Reachability::Unreachable { .. }, Reachability::Reachable | Reachability::Slow { .. }) => {
            // At the level of the line that it ends: who reads only errors must not believe that Kafka is still away.
            tracing::error!(
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
    fn a_busy_kafka_is_only_asked_how_far_away_it_is() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let asked: Vec<u64> = (1..=20)
            .filter(|second| watch.look(start + Duration::from_secs(*second), *second, 10, None))
            .collect();
        assert_eq!(asked, [5, 10, 15, 20]);
    }

    fn answers(watch: &mut Watch, millis: u64) {
        let answer = Ok(Duration::from_millis(millis));
        watch.answered(Instant::now(), at(1), answer);
    }

    #[test]
    fn a_late_answer_is_slow_until_one_comes_fast() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        answers(&mut watch, 3_100);
        let slow = Reachability::Slow {
            answer: Duration::from_millis(3_100),
        };
        assert_eq!(watch.reachability, slow);
        assert!(slow.answers());
        // What is confirmed says that it is there, and not that it is fast.
        watch.look(start, 1, 0, None);
        assert_eq!(watch.reachability, slow);
        answers(&mut watch, 20);
        assert_eq!(watch.reachability, Reachability::Reachable);
    }

    #[test]
    fn a_late_answer_is_waited_for_unless_there_was_trouble() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert_eq!(watch.patience(), LONG_ANSWER_TIMEOUT);
        watch.look(start, 0, 0, suspicion(10));
        assert_eq!(watch.patience(), ANSWER_TIMEOUT);
        // A Kafka that is known to be slow or away is given time to say that it is back.
        watch.answered(start, at(12), Err("no answer".into()));
        assert_eq!(watch.patience(), LONG_ANSWER_TIMEOUT);
    }

    #[test]
    fn one_late_answer_does_not_make_kafka_far() {
        let is_far = |answered: &[u64]| {
            let mut watch = Watch::new(Instant::now());
            answered
                .iter()
                .for_each(|millis| answers(&mut watch, *millis));
            watch.is_far()
        };
        assert!(!is_far(&[]));
        assert!(!is_far(&[3_000]));
        assert!(!is_far(&[3_000, 1, 3_000]));
        assert!(is_far(&[1, 50, 60]));
        assert!(!is_far(&[6, 6, 6, 6, 6]));
        assert!(is_far(&[6, 6, 6, 6, 6, 6]));
        assert!(!is_far(&[6, 6, 6, 1, 6, 6, 6]));
    }

    #[test]
    fn a_silent_kafka_is_asked_and_sooner_when_messages_wait() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(!watch.look(start + Duration::from_secs(4), 0, 0, None));
        assert!(watch.look(start + Duration::from_secs(5), 0, 0, None));
        watch.answered(start + Duration::from_secs(5), at(5), Ok(Duration::ZERO));
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
        watch.answered(start, at(10), Ok(Duration::ZERO));
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
