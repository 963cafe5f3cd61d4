//! A node's name belongs to one node: two of one name would share a position in the downlink topic, and each would lose
//! what the other one read.
//!
//! The claim is membership in a consumer group of the name's own, `millstream-node-NAME`, so it ends with the node, however
//! that ends, and needs no topic and no clock in common. A start that finds a living member is refused. Two that start in
//! the same moment both join; each then sees the other, and says so as long as that lasts.

mod holder;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holder::{Holder, Life};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;

use crate::config::Config;
use crate::error::StartError;
use crate::kafka;

/// Kafka forgets a member that was silent for so long: the least that Kafka allows by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a start waits for Kafka to forget a member of which nobody here can say whether it lives.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks while a start waits.
const RETRY: Duration = Duration::from_millis(250);
/// Between two looks at who else has the name.
const LOOK: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one poll waits; also how long the end may take.
const POLL: Duration = Duration::from_millis(200);

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka, while holding the node's name");
    }
}

impl ConsumerContext for Quiet {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Membership is all that is wanted: nothing is fetched.
        if let Rebalance::Assign(partitions) = rebalance {
            let _ = consumer.pause(partitions);
        }
    }
}

/// A name that this node holds until the claim is dropped.
pub(crate) struct Claim {
    name: Arc<str>,
    /// Another node of this name.
    rival: Arc<Mutex<Option<Holder>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Claim {
    /// Takes this node's name, or refuses the start. `topic` is any topic that is there: a member has to subscribe to one.
    pub(crate) fn take(config: &Config, topic: &str) -> Result<Self, StartError> {
        let name: Arc<str> = config.node_name().into();
        let group = format!("millstream-node-{name}");
        let me = Holder::new(&crate::config::host_name());
        let mut client = kafka::client(config);
        client
            .set("client.id", me.describe())
            .set("group.id", &group)
            .set(
                "session.timeout.ms",
                SESSION_TIMEOUT.as_millis().to_string(),
            )
            .set("heartbeat.interval.ms", "1000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest");
        let client_error = |error: KafkaError| StartError::Client(error.to_string());
        let consumer =
            BaseConsumer::from_config_and_context(&client, Quiet).map_err(client_error)?;
        wait_until_free(&consumer, &group, &me).map_err(|holder| StartError::NameTaken {
            kafka: config.kafka.clone(),
            name: name.to_string(),
            holder: in_words(&holder),
        })?;
        consumer.subscribe(&[topic]).map_err(client_error)?;
        let rival = Arc::new(Mutex::new(None));
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("bridge-claim".to_owned())
            .spawn({
                let (name, rival, end) = (Arc::clone(&name), Arc::clone(&rival), Arc::clone(&end));
                move || hold(&consumer, &group, &name, &me, &rival, &end)
            })?;
        Ok(Self {
            name,
            rival,
            end,
            thread: Some(thread),
        })
    }

    /// That another node has this name, in a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some(
                "nobody sees any more whether another node has this node's name (a thread panicked): start the node again"
                    .to_owned(),
            );
        }
        let rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner);
        rival.as_ref().map(|rival| problem(&self.name, rival))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn problem(name: &str, rival: &Holder) -> String {
    format!(
        "another node is called {name:?} too ({}): both read one position of the downlink, and each misses what the other \
         one read; give one of them another bridge.node and start it again",
        in_words(rival)
    )
}

fn in_words(holder: &Holder) -> String {
    let place = match holder.life() {
        Life::Elsewhere => format!("on {}", holder.host),
        Life::Alive | Life::Dead => "on this machine".to_owned(),
    };
    format!("process {} {place}", holder.pid)
}

/// Waits until nobody alive holds the name; gives back who does when that takes too long or is certain.
fn wait_until_free(consumer: &BaseConsumer<Quiet>, group: &str, me: &Holder) -> Result<(), Holder> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        let Some(other) = others(consumer, group, me).into_iter().next() else {
            return Ok(());
        };
        if other.life() == Life::Alive || Instant::now() >= deadline {
            return Err(other);
        }
        if !said {
            tracing::info!(
                holder = in_words(&other),
                "a node of this name was here and did not say goodbye: waiting for Kafka to notice that it has ended"
            );
            said = true;
        }
        std::thread::sleep(RETRY);
    }
}

/// Other holders of the name that may live, the earliest first. A Kafka that does not tell has none: a start should not
/// fail for want of this right.
fn others(consumer: &BaseConsumer<Quiet>, group: &str, me: &Holder) -> Vec<Holder> {
    let groups = match consumer.fetch_group_list(Some(group), ANSWER_TIMEOUT) {
        Ok(groups) => groups,
        Err(error) => {
            tracing::debug!(
                error = kafka::describe(&error),
                "Kafka does not tell who else has this node's name"
            );
            return Vec::new();
        }
    };
    let mut others: Vec<Holder> = groups
        .groups()
        .iter()
        .flat_map(|group| group.members())
        .filter_map(|member| Holder::parse(member.client_id()))
        .filter(|holder| holder != me && holder.life() != Life::Dead)
        .collect();
    others.sort_by_key(|holder| holder.since_ms);
    others
}

/// Stays in the group until the end, and looks around now and then.
fn hold(
    consumer: &BaseConsumer<Quiet>,
    group: &str,
    name: &str,
    me: &Holder,
    rival: &Mutex<Option<Holder>>,
    end: &AtomicBool,
) {
    let mut looked = Instant::now();
    while !end.load(Ordering::Relaxed) {
        // Nothing is read: this serves the group's protocol.
        drop(consumer.poll(POLL));
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        let found = others(consumer, group, me).into_iter().next();
        let mut rival = rival.lock().unwrap_or_else(PoisonError::into_inner);
        if *rival == found {
            continue;
        }
        match &found {
            Some(other) => {
                let first = if me.is_before(other) {
                    "this one"
                } else {
                    "the other one"
                };
                tracing::error!("{}; {first} was first", problem(name, other));
            }
            None => tracing::error!("the other node called {name:?} has ended"),
        }
        *rival = found;
    }
}
