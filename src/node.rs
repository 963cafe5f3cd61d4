//! What a process knows of itself: which parts it runs, whether they are well, and the numbers of all of them.
//!
//! The parts count; this module only asks them. It owns the parts that have to be drained, so that there is one place
//! that says what still runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use bridge::Reachability;
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::backends::{ALL, Backend, Kind};
use crate::demo::{self, Demo};
use crate::metrics;
use crate::screen::Numbers;

/// Rates are measured over at least this time.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// How often it is looked at whether a part has stopped by itself.
const FAILURE_CHECK: Duration = Duration::from_millis(500);

/// Where a process listens and what it talks to; shown in its status.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listen {
    /// Where MQTT clients connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<SocketAddr>,
    /// Where HTTP is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Kafka's bootstrap servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Whether that Kafka lives in this process and forgets at its end.
    pub kafka_in_memory: bool,
}

/// Whether the process should be restarted, and whether it should get work.
#[derive(Debug, Serialize)]
pub struct Health {
    /// `false`: it will not get better by itself.
    pub live: bool,
    /// `false`: it cannot do its work now.
    pub ready: bool,
    /// In words, what is wrong.
    pub problems: Vec<String>,
}

/// What the bridge says of itself now.
type BridgeStatus = Box<dyn Fn() -> bridge::Status + Send + Sync>;

/// See the module.
pub struct Node {
    command: &'static str,
    started: Instant,
    started_at: SystemTime,
    listen: Listen,
    draining: AtomicBool,
    broker: Option<broker::Handle>,
    bridge: Option<BridgeStatus>,
    backends: Mutex<Vec<Backend>>,
    /// Backends that are started again later, and why.
    waiting: Mutex<BTreeMap<&'static str, String>>,
    /// Whether backends that stop by themselves are started again.
    restarts: bool,
    /// How often each was.
    restarted: Mutex<BTreeMap<&'static str, u64>>,
    demo: Mutex<Option<Demo>>,
    rates: Mutex<Rates>,
}

/// Two samples of the broker's sums, at least [`RATE_WINDOW`] apart once there are two.
#[derive(Default)]
struct Rates {
    older: Option<Sample>,
    newer: Option<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Node {
    /// A process that runs `command`, without parts.
    pub fn new(command: &'static str, listen: Listen) -> Self {
        Self {
            command,
            started: Instant::now(),
            started_at: SystemTime::now(),
            listen,
            draining: AtomicBool::new(false),
            broker: None,
            bridge: None,
            backends: Mutex::default(),
            waiting: Mutex::default(),
            restarts: false,
            restarted: Mutex::default(),
            demo: Mutex::default(),
            rates: Mutex::default(),
        }
    }

    /// Adds the broker.
    #[must_use]
    pub fn with_broker(mut self, broker: broker::Handle) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Adds the bridge, by what it says of itself.
    #[must_use]
    pub fn with_bridge(
        mut self,
        status: impl Fn() -> bridge::Status + Send + Sync + 'static,
    ) -> Self {
        self.bridge = Some(Box::new(status));
        self
    }

    /// Backends that stop by themselves are started again: that is no reason to end the process.
    #[must_use]
    pub fn with_restarts(mut self) -> Self {
        self.restarts = true;
        for kind in ALL {
            lock(&self.restarted).insert(kind.name(), 0);
        }
        self
    }

    /// Adds a backend.
    pub fn add_backend(&self, backend: Backend) {
        lock(&self.waiting).remove(backend.kind.name());
        lock(&self.backends).push(backend);
    }

    /// Takes a backend out that stopped by itself, and says why it did.
    pub fn take_failed(&self, kind: Kind) -> Option<(Backend, String)> {
        let mut backends = lock(&self.backends);
        let index = backends.iter().position(|backend| {
            backend.kind == kind && backend.running.status().state == runtime::State::Failed
        })?;
        let backend = backends.remove(index);
        let reason = backend.running.status().problem.unwrap_or_default();
        Some((backend, reason))
    }

    /// A backend is not there and will be started again.
    pub fn backend_waits(&self, kind: Kind, why: String) {
        *lock(&self.restarted).entry(kind.name()).or_default() += 1;
        lock(&self.waiting).insert(kind.name(), why);
    }

    /// The HTTP API of a backend, while it is there.
    pub fn router(&self, kind: Kind) -> Option<Router> {
        let backends = lock(&self.backends);
        let backend = backends.iter().find(|backend| backend.kind == kind)?;
        Some(backend.running.router())
    }

    /// Adds the demo.
    pub fn add_demo(&self, demo: Demo) {
        *lock(&self.demo) = Some(demo);
    }

    /// What the consumer of a backend's own process does.
    pub fn consumer(&self) -> runtime::Status {
        let backends = lock(&self.backends);
        backends
            .first()
            .map_or_else(drained, |backend| backend.running.status())
    }

    /// Takes the backends out, to be drained.
    pub fn take_backends(&self) -> Vec<Backend> {
        std::mem::take(&mut *lock(&self.backends))
    }

    /// Takes the demo out, to be ended.
    pub fn take_demo(&self) -> Option<Demo> {
        lock(&self.demo).take()
    }

    /// Does something with the demo, when there is one.
    pub fn with_demo<T>(&self, what: impl FnOnce(&Demo) -> T) -> Option<T> {
        lock(&self.demo).as_ref().map(what)
    }

    /// Where it listens and what it talks to.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// From now on the process says that it drains, and gets no more work.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it drains.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the bridge cannot reach Kafka.
    pub fn kafka_is_away(&self) -> bool {
        let status = self.bridge.as_ref().map(|bridge| bridge());
        status.is_some_and(|status| !status.kafka.answers())
    }

    /// Takes a sample for the rates, and tells the demo whether Kafka is away. To be called about once a second.
    pub fn tick(&self) {
        let away = self.kafka_is_away();
        self.with_demo(|demo| demo.kafka_is_away(away));
        let Some(broker) = &self.broker else {
            return;
        };
        let stats = broker.stats();
        let sample = Sample {
            at: Instant::now(),
            received: stats.publishes_received(),
            sent: stats.deliveries,
        };
        let mut rates = lock(&self.rates);
        let due = rates
            .newer
            .is_none_or(|newer| sample.at.duration_since(newer.at) >= RATE_WINDOW);
        if due {
            rates.older = rates.newer.replace(sample);
        }
    }

    /// Whether it is well.
    pub fn health(&self) -> Health {
        let mut problems = Vec::new();
        // What is gone does not come back by waiting: it is said, and no reason to take the work away.
        let mut gaps = Vec::new();
        let mut live = true;
        if let Some(status) = self.bridge.as_ref().map(|bridge| bridge()) {
            if !status.kafka.answers() {
                problems.push(status.to_string());
            }
            problems.extend(status.problems);
        }
        if let Some(memory) = self.broker.as_ref().map(broker::Handle::memory)
            && memory.pressure > broker::Pressure::None
        {
            problems.push(memory.to_string());
        }
        gaps.extend(self.broker.iter().flat_map(broker::Handle::problems));
        // Who is connected stays connected, whatever the files on disk are like now.
        for listener in self.broker.iter().flat_map(broker::Handle::listeners) {
            let says = |why| format!("listener {:?}: {why}", listener.name);
            gaps.extend(listener.problem.map(says));
        }
        for backend in &*lock(&self.backends) {
            let (name, status) = (backend.kind.name(), backend.running.status());
            // A consumer that waits for Kafka or retries goes on by itself; one that stopped does not.
            live &= self.restarts || status.state != runtime::State::Failed;
            problems.extend(problem(name, &status));
            gaps.extend(status.gaps.iter().map(|gap| format!("{name}: {gap}")));
        }
        let waiting = lock(&self.waiting);
        problems.extend(waiting.iter().map(|(name, why)| format!("{name}: {why}")));
        let draining = self.draining.load(Ordering::Relaxed);
        let ready = live && problems.is_empty() && !draining;
        problems.append(&mut gaps);
        Health {
            live,
            ready,
            problems,
        }
    }

    /// What is no problem now, and would make one worse.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = self
            .bridge
            .as_ref()
            .map_or_else(Vec::new, |bridge| bridge().weaknesses.to_vec());
        let listeners = self.broker.as_ref().map(broker::Handle::listeners);
        let certificates = listeners.iter().flatten().flat_map(|of| &of.certificates);
        warnings.extend(certificates.filter_map(broker::CertificateStatus::problem));
        warnings
    }

    /// Everything it knows of itself.
    pub fn status(&self) -> Value {
        let Health {
            live,
            ready,
            problems,
        } = self.health();
        let state = match (self.draining.load(Ordering::Relaxed), live, ready) {
            (true, ..) => "draining",
            (_, false, _) => "failed",
            (_, _, false) => "degraded",
            _ => "running",
        };
        let mut status = json!({
            "command": self.command,
            "version": env!("CARGO_PKG_VERSION"),
            "state": state,
            "problems": problems,
            "warnings": self.warnings(),
            "started_at": ms(self.started_at),
            "uptime_s": self.started.elapsed().as_secs(),
            "listen": self.listen,
        });
        if let Some(broker) = &self.broker {
            let stats = broker.stats();
            let mut counts = counts(stats.each());
            counts.insert(
                "publishes_received".into(),
                stats.publishes_received().into(),
            );
            counts.insert("publishes_denied".into(), stats.publishes_denied().into());
            counts.insert(
                "deliveries_dropped".into(),
                stats.deliveries_dropped().into(),
            );
            status["broker"] = counts.into();
            status["listeners"] = json!(broker.listeners());
            let (received, sent) = self.rates();
            status["rates"] = json!({"in_per_s": received, "out_per_s": sent});
        }
        if let Some(bridge) = &self.bridge {
            let bridge = bridge();
            let mut counts = counts(bridge.each());
            counts.insert("says".into(), bridge.to_string().into());
            status["bridge"] = counts.into();
        }
        let backends = lock(&self.backends);
        if !backends.is_empty() {
            let consumers: Map<String, Value> = backends
                .iter()
                .map(|backend| {
                    (
                        backend.kind.name().to_owned(),
                        json!(backend.running.status()),
                    )
                })
                .collect();
            status["consumers"] = consumers.into();
        }
        drop(backends);
        if let Some(demo) = self.with_demo(Demo::status) {
            status["demo"] = json!(demo);
        }
        status
    }

    /// The numbers of the status line.
    pub fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::default();
        if let Some(broker) = &self.broker {
            let stats = broker.stats();
            numbers.clients = stats.clients;
            numbers.received = stats.publishes_received();
            numbers.sent = stats.deliveries;
            numbers.dropped = stats.deliveries_dropped();
        }
        if let Some(bridge) = &self.bridge {
            let status = bridge();
            numbers.stored = status.stored;
            if let Reachability::Unreachable { since, .. } = status.kafka {
                let away = SystemTime::now().duration_since(since).unwrap_or_default();
                numbers.kafka_away = Some((away, status.waiting));
            }
        }
        numbers.lag = lock(&self.backends)
            .iter()
            .map(|backend| backend.running.status().lag)
            .sum();
        numbers.lost = self.with_demo(|demo| demo.status().totals.lost);
        numbers
    }

    /// All metrics as Prometheus text.
    ///
    /// # Errors
    /// When two metrics have one name, which would be a bug.
    pub fn metrics(&self) -> prometheus::Result<String> {
        let registry = Registry::new();
        metrics::build(&registry)?;
        metrics::process(&registry)?;
        if let Some(broker) = &self.broker {
            metrics::broker(&registry, &broker.stats(), &broker.denied())?;
            metrics::listeners(&registry, &broker.listeners())?;
        }
        if let Some(bridge) = &self.bridge {
            metrics::bridge(&registry, &bridge())?;
        }
        if let Some(demo::Status { totals, .. }) = self.with_demo(Demo::status) {
            metrics::demo(&registry, &totals)?;
        }
        if self.restarts {
            metrics::restarts(&registry, &lock(&self.restarted))?;
        }
        let mut families = registry.gather();
        for backend in &*lock(&self.backends) {
            merge(&mut families, backend.running.registry().gather());
        }
        TextEncoder::new().encode_to_string(&families)
    }

    /// Waits until a part has stopped by itself, and gives the reason. Safe to cancel.
    pub async fn failed(&self) -> String {
        loop {
            let Health { live, problems, .. } = self.health();
            if !live {
                return problems.join("; ");
            }
            tokio::time::sleep(FAILURE_CHECK).await;
        }
    }

    fn rates(&self) -> (f64, f64) {
        let rates = lock(&self.rates);
        let (Some(older), Some(newer)) = (rates.older, rates.newer) else {
            return (0.0, 0.0);
        };
        let seconds = newer.at.duration_since(older.at).as_secs_f64();
        let rate = |before: u64, now: u64| {
            (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0
        };
        (
            rate(older.received, newer.received),
            rate(older.sent, newer.sent),
        )
    }
}

/// What keeps a backend from its work.
fn problem(name: &str, status: &runtime::Status) -> Option<String> {
    let joining = "has no partitions yet: it joins its consumer group";
    let waits = (status.state == runtime::State::Joining).then_some(joining);
    let problem = status.problem.as_deref().or(waits)?;
    Some(format!("{name}: {problem}"))
}

/// The status of a consumer that was taken out to be drained.
fn drained() -> runtime::Status {
    runtime::Status {
        state: runtime::State::Stopped,
        ..runtime::Status::default()
    }
}

fn counts(each: Vec<(&'static str, &'static str, u64)>) -> Map<String, Value> {
    each.into_iter()
        .map(|(name, _, value)| (name.to_owned(), value.into()))
        .collect()
}

/// A metric that several backends have is one family with all their samples: Prometheus refuses a name twice.
fn merge(families: &mut Vec<MetricFamily>, more: Vec<MetricFamily>) {
    for mut family in more {
        match families
            .iter_mut()
            .find(|other| other.name() == family.name())
        {
            Some(other) => other.mut_metric().extend(family.take_metric()),
            None => families.push(family),
        }
    }
}

fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Holders only read numbers and move values; a panic of one leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts};

    use super::*;

    #[test]
    fn one_metric_of_two_registries_is_one_family() {
        let registry = |group: &str| {
            let registry = Registry::new();
            let options = Opts::new("records_total", "Records.");
            let counter = IntCounterVec::new(options, &["group"]).unwrap();
            counter.with_label_values(&[group]).inc();
            registry.register(Box::new(counter)).unwrap();
            registry.gather()
        };
        let mut families = registry("chat");
        merge(&mut families, registry("iot"));
        let text = TextEncoder::new().encode_to_string(&families).unwrap();
        assert_eq!(text.matches("# TYPE records_total").count(), 1, "{text}");
        assert!(
            text.contains("\"chat\"") && text.contains("\"iot\""),
            "{text}"
        );
    }

    #[test]
    fn an_unreachable_kafka_is_a_problem_in_words_and_no_reason_to_restart() {
        let away = bridge::Status {
            kafka: Reachability::Unreachable {
                since: SystemTime::now(),
                cause: "no answer".into(),
            },
            waiting: 17,
            ..bridge::Status::default()
        };
        let node = Node::new("broker", Listen::default()).with_bridge(move || away.clone());
        let status = node.status();
        assert_eq!(status["state"], "degraded");
        let problem = status["problems"][0].as_str().unwrap();
        assert!(
            problem.starts_with("Kafka unreachable since") && problem.ends_with("17 messages wait"),
            "{problem}"
        );
        assert!(node.health().live && !node.health().ready);
        assert_eq!(node.numbers().kafka_away.unwrap().1, 17);
    }

    #[test]
    fn a_backend_without_partitions_is_a_problem_until_others_have_all() {
        let status = |state, problem: Option<&str>| runtime::Status {
            state,
            problem: problem.map(str::to_owned),
            ..runtime::Status::default()
        };
        let said = |state, why| problem("chat", &status(state, why));
        use runtime::State::{Joining, Running, Standby};
        assert_eq!(
            said(Joining, None).as_deref(),
            Some("chat: has no partitions yet: it joins its consumer group")
        );
        assert_eq!(said(Joining, Some("waits")).as_deref(), Some("chat: waits"));
        assert_eq!(said(Running, None), None);
        assert_eq!(said(Standby, None), None);
    }

    #[test]
    fn a_process_without_parts_is_well() {
        let node = Node::new("broker", Listen::default());
        assert_eq!(node.status()["state"], "running");
        node.drain();
        assert_eq!(node.status()["state"], "draining");
        assert!(!node.health().ready && node.health().live);
    }
}
