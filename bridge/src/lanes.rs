//! By which producer a message goes to Kafka, and when.
//!
//! Near, there is one producer with one request under way for each Kafka broker, and every message goes to it at once. On
//! a long line that would be one partition's batch a round trip: the latency would grow with the number of partitions. So
//! far from Kafka there are several producers, each for some partitions, with more requests under way.
//!
//! There, one more thing is needed. librdkafka (2.12) counts an idempotent partition's *messages* under way where Kafka
//! counts requests: with [`UNDER_WAY_MAX`] of them it sends no more until one is answered, and while a batch is ready all
//! that time, its thread polls without a pause. So a gate for each partition holds what librdkafka could not send, and
//! lets it through as one batch when the answers have come.
//!
//! Order holds: a key has one gate, a gate one producer and one queue. The turn from near to far holds everything back
//! until the near producer has nothing under way; there is no way back but a restart, since far is merely dearer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use broker::Token;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::partitions::Partitions;
use crate::producer::{Producer, opaque};

/// librdkafka's `RD_KAFKA_IDEMP_MAX_INFLIGHT`, see above.
const UNDER_WAY_MAX: usize = 5;
/// A message on its way.
pub(crate) struct Message<'m> {
    pub(crate) topic: &'m str,
    pub(crate) key: &'m str,
    pub(crate) payload: &'m [u8],
    pub(crate) headers: OwnedHeaders,
    /// In milliseconds since the Unix epoch.
    pub(crate) timestamp: i64,
    pub(crate) token: Token,
}

impl Message<'_> {
    fn send(self, producer: &Producer) -> Result<(), (RDKafkaErrorCode, Option<OwnedHeaders>)> {
        let record = BaseRecord::with_opaque_to(self.topic, opaque(self.token))
            .key(self.key)
            .payload(self.payload)
            .timestamp(self.timestamp)
            .headers(self.headers);
        producer.send(record).map_err(|(error, record)| {
            let code = match error {
                KafkaError::MessageProduction(code) => code,
                _ => RDKafkaErrorCode::Fail,
            };
            (code, record.headers)
        })
    }
}

/// A message that waits at its gate.
struct Held {
    topic: Box<str>,
    key: Box<str>,
    payload: Box<[u8]>,
    headers: OwnedHeaders,
    timestamp: i64,
    token: Token,
}

#[derive(Default)]
struct Gate {
    /// Messages that its producer has and did not report on.
    under_way: usize,
    held: VecDeque<Held>,
}

/// How far away Kafka is, as far as sending goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    Near,
    /// The near producer is emptied, and what comes is held.
    Turning,
    Far,
}

/// The producers of the moment.
pub(crate) type Producers = Arc<[Arc<Producer>]>;

struct State {
    producers: Producers,
    distance: Distance,
}

/// See the module.
pub(crate) struct Lanes {
    state: RwLock<State>,
    partitions: Arc<Partitions>,
    gates: Box<[Mutex<Gate>]>,
    batch_bytes_max: usize,
}

/// What is refused while it is let through: whose it was, why, and its size.
pub(crate) type Refusals = Vec<(Token, RDKafkaErrorCode, u64)>;

impl Lanes {
    /// Lanes near Kafka, with one producer.
    pub(crate) fn new(
        producer: Producer,
        partitions: Arc<Partitions>,
        batch_bytes_max: u32,
    ) -> Self {
        let gates = (0..partitions.count().max(1))
            .map(|_| Mutex::default())
            .collect();
        Self {
            state: RwLock::new(State {
                producers: [Arc::new(producer)].into(),
                distance: Distance::Near,
            }),
            partitions,
            gates,
            batch_bytes_max: batch_bytes_max as usize,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, number: usize) -> MutexGuard<'_, Gate> {
        self.gates[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message: for a producer, or for later.
    pub(crate) fn send(&self, message: Message<'_>) -> Result<(), RDKafkaErrorCode> {
        let state = self.read();
        if state.distance == Distance::Near {
            let sent = message.send(&state.producers[0]);
            return sent.map_err(|(code, _)| code);
        }
        let number = self
            .partitions
            .number(message.topic, message.key.as_bytes());
        let mut gate = self.gate(number);
        if state.distance == Distance::Far && gate.held.is_empty() && gate.under_way < UNDER_WAY_MAX
        {
            message
                .send(&state.producers[number % state.producers.len()])
                .map_err(|(code, _)| code)?;
            gate.under_way += 1;
            return Ok(());
        }
        gate.held.push_back(Held {
            topic: message.topic.into(),
            key: message.key.into(),
            payload: message.payload.into(),
            headers: message.headers,
            timestamp: message.timestamp,
            token: message.token,
        });
        Ok(())
    }

    /// The producers of the moment.
    pub(crate) fn producers(&self) -> Producers {
        Arc::clone(&self.read().producers)
    }

    pub(crate) fn distance(&self) -> Distance {
        self.read().distance
    }

    /// Puts another producer in the place of a failed one. When this returns, nobody sends to the old one any more.
    pub(crate) fn replace(&self, at: usize, producer: Producer) {
        let mut state = self.write();
        let mut producers = state.producers.to_vec();
        producers[at] = Arc::new(producer);
        state.producers = producers.into();
    }

    /// From now on everything that comes is held.
    pub(crate) fn begin_turn(&self) {
        self.write().distance = Distance::Turning;
    }

    /// Whether the near producer is empty.
    pub(crate) fn may_turn(&self) -> bool {
        let state = self.read();
        state.distance == Distance::Turning
            && state
                .producers
                .iter()
                .all(|producer| producer.in_flight_count() == 0)
    }

    /// How many far producers are wanted.
    pub(crate) fn far_producers(&self) -> usize {
        self.partitions.producers()
    }

    /// Whom a far producer tells of which partition a message was.
    pub(crate) fn partitions(&self) -> Arc<Partitions> {
        Arc::clone(&self.partitions)
    }

    /// Goes on with far producers, to which each message's gate is known.
    pub(crate) fn turn(&self, producers: Vec<Producer>, refused: &mut Refusals) {
        {
            let mut state = self.write();
            state.producers = producers.into_iter().map(Arc::new).collect();
            state.distance = Distance::Far;
        }
        self.let_through(0..self.gates.len(), refused);
    }

    /// Producers have reported on a message of each of these partitions.
    pub(crate) fn landed(&self, numbers: &mut Vec<usize>, refused: &mut Refusals) {
        for number in numbers.iter() {
            let mut gate = self.gate(*number);
            gate.under_way = gate.under_way.saturating_sub(1);
        }
        numbers.sort_unstable();
        numbers.dedup();
        self.let_through(numbers.drain(..), refused);
    }

    fn let_through(&self, numbers: impl Iterator<Item = usize>, refused: &mut Refusals) {
        let state = self.read();
        for number in numbers {
            let producer = &state.producers[number % state.producers.len()];
            let mut gate = self.gate(number);
            while gate.under_way < UNDER_WAY_MAX && !gate.held.is_empty() {
                if !gate.let_batch_through(producer, self.batch_bytes_max, refused) {
                    break;
                }
            }
        }
    }

    /// Lets through what a producer had no room for. Every gate with something held and nothing under way is one that
    /// nobody will come back to.
    pub(crate) fn look_for_stuck(&self, refused: &mut Refusals) {
        if self.distance() == Distance::Far {
            self.let_through(0..self.gates.len(), refused);
        }
    }
}

impl Gate {
    /// Hands the producer one batch. Returns false when it has no room.
    fn let_batch_through(
        &mut self,
        producer: &Producer,
        bytes_max: usize,
        refused: &mut Refusals,
    ) -> bool {
        let mut bytes = 0;
        while let Some(held) = self.held.pop_front() {
            let size = held.key.len() + held.payload.len();
            if bytes > 0 && bytes + size > bytes_max {
                self.held.push_front(held);
                return true;
            }
            bytes += size;
            let message = Message {
                topic: &held.topic,
                key: &held.key,
                payload: &held.payload,
                headers: held.headers,
                timestamp: held.timestamp,
                token: held.token,
            };
            match message.send(producer) {
                Ok(()) => self.under_way += 1,
                // A failed producer is about to be replaced.
                Err((RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::Fatal, headers)) => {
                    let headers = headers.unwrap_or_default();
                    self.held.push_front(Held { headers, ..held });
                    return false;
                }
                Err((code, _)) => refused.push((held.token, code, size as u64)),
            }
        }
        true
    }
}
