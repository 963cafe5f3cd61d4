//! What is wrong with single topics and partitions, by name: topics that Kafka does not have any more, topics of which it
//! refuses everything, partitions from which no confirmation comes. The threads that find it out share it here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

/// So many refusals one after the other are a problem of the topic, and not of the messages.
const REFUSING_AFTER: u64 = 10;
/// Without another refusal for so long, nobody knows whether it would still refuse.
const REFUSING_FOR: Duration = Duration::from_secs(300);
/// So long after a refusal nothing of the topic goes with others.
const DISTRUST: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Refusing {
    code: RDKafkaErrorCode,
    /// Since the last message that was stored.
    count: u64,
    since: Instant,
    last: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    missing: Mutex<BTreeMap<Box<str>, Instant>>,
    refusing: Mutex<BTreeMap<Box<str>, Refusing>>,
    silent: Mutex<Vec<String>>,
    mender: OnceLock<Thread>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Troubles {
    /// Who is woken when a topic is missing.
    pub(crate) fn set_mender(&self, thread: Thread) {
        // It is set once.
        let _ = self.mender.set(thread);
    }

    /// Kafka does not have this topic. Returns for how long that has been so.
    pub(crate) fn is_missing(&self, topic: &str, now: Instant) -> Duration {
        let mut missing = lock(&self.missing);
        if let Some(since) = missing.get(topic) {
            return now.duration_since(*since);
        }
        missing.insert(topic.into(), now);
        drop(missing);
        tracing::error!(kafka_topic = topic, "Kafka does not have the topic");
        if let Some(mender) = self.mender.get() {
            mender.unpark();
        }
        Duration::ZERO
    }

    /// For how long Kafka has not had this topic, if it has not.
    pub(crate) fn missing_for(&self, topic: &str, now: Instant) -> Option<Duration> {
        let missing = lock(&self.missing);
        missing.get(topic).map(|since| now.duration_since(*since))
    }

    /// The topics that are missing.
    pub(crate) fn missing(&self) -> Vec<Box<str>> {
        lock(&self.missing).keys().cloned().collect()
    }

    /// Kafka has it again.
    pub(crate) fn found(&self, topic: &str) {
        if lock(&self.missing).remove(topic).is_some() {
            tracing::error!(kafka_topic = topic, "Kafka has the topic again");
        }
    }

    /// Kafka refused a message that went alone.
    pub(crate) fn refused(&self, topic: &str, code: RDKafkaErrorCode, now: Instant) {
        let mut refusing = lock(&self.refusing);
        match refusing.get_mut(topic) {
            Some(refusing) => {
                refusing.code = code;
                refusing.count += 1;
                refusing.last = now;
            }
            None => {
                let first = Refusing {
                    code,
                    count: 1,
                    since: now,
                    last: now,
                };
                refusing.insert(topic.into(), first);
            }
        }
    }

    /// Kafka stored a message after all. Whether it is trusted again is a matter of time.
    pub(crate) fn stored(&self, topic: &str, now: Instant) {
        let mut refusing = lock(&self.refusing);
        if let Some(of_topic) = refusing.get_mut(topic) {
            of_topic.count = 0;
            of_topic.since = now;
        }
    }

    /// Whether what goes to this topic goes alone, because Kafka refused something of it for another reason than its size.
    pub(crate) fn is_distrusted(&self, topic: &str, now: Instant) -> bool {
        let mut refusing = lock(&self.refusing);
        let Some(of_topic) = refusing.get(topic) else {
            return false;
        };
        let quiet = now.duration_since(of_topic.last);
        if quiet >= REFUSING_FOR || (quiet >= DISTRUST && of_topic.count == 0) {
            refusing.remove(topic);
            return false;
        }
        quiet < DISTRUST && of_topic.code != RDKafkaErrorCode::MessageSizeTooLarge
    }

    /// These partitions have had no confirmation for long, each in one sentence.
    pub(crate) fn set_silent(&self, silent: Vec<String>) {
        *lock(&self.silent) = silent;
    }

    /// All of it, each in one sentence. `waiting` is asked how many messages wait for a topic.
    pub(crate) fn problems(&self, now: Instant, waiting: impl Fn(&str) -> u64) -> Vec<String> {
        let mut problems = Vec::new();
        for (topic, since) in &*lock(&self.missing) {
            problems.push(format!(
                "Kafka has had no topic {topic} for {} s, {} messages wait for it",
                now.duration_since(*since).as_secs(),
                waiting(topic)
            ));
        }
        for (topic, refusing) in &*lock(&self.refusing) {
            if refusing.count >= REFUSING_AFTER && now.duration_since(refusing.last) < REFUSING_FOR
            {
                problems.push(format!(
                    "Kafka has refused everything for {topic} since {} s ago, {} messages: {}",
                    now.duration_since(refusing.since).as_secs(),
                    refusing.count,
                    refusing.code
                ));
            }
        }
        problems.extend(lock(&self.silent).iter().cloned());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_topic_is_a_problem_until_it_is_found() {
        let troubles = Troubles::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(42);
        assert_eq!(troubles.is_missing("t", start), Duration::ZERO);
        assert_eq!(troubles.is_missing("t", later), Duration::from_secs(42));
        assert_eq!(troubles.missing_for("other", later), None);
        assert_eq!(
            troubles.problems(later, |_| 7),
            ["Kafka has had no topic t for 42 s, 7 messages wait for it"]
        );
        troubles.found("t");
        assert_eq!(troubles.problems(later, |_| 7), [""; 0]);
    }

    #[test]
    fn a_topic_that_refuses_everything_is_a_problem_and_single_messages_are_none() {
        let troubles = Troubles::default();
        let start = Instant::now();
        let code = RDKafkaErrorCode::TopicAuthorizationFailed;
        let problems = |now| troubles.problems(now, |_| 0).len();
        for _ in 1..REFUSING_AFTER {
            troubles.refused("t", code, start);
        }
        assert_eq!(problems(start), 0);
        troubles.refused("t", code, start);
        assert_eq!(problems(start), 1);
        assert!(troubles.is_distrusted("t", start));
        troubles.stored("t", start);
        assert_eq!(problems(start), 0);
        assert!(troubles.is_distrusted("t", start), "it may go on with that");
        assert!(!troubles.is_distrusted("t", start + DISTRUST));
        troubles.refused("t", RDKafkaErrorCode::MessageSizeTooLarge, start);
        assert!(
            !troubles.is_distrusted("t", start),
            "the size is the message's matter"
        );
    }
}
