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
//! Order holds: a key has one gate, a gate one producer and one queue. In the turn from near to far each gate holds back what
//! comes until the near producer has nothing of it under way, and no gate waits for another: one whose leader is sick may
//! take for ever. There is no way back but a restart, since far is merely dearer.
//!
//! Kafka refuses a batch as a whole. What comes back then waits at its gate, which is shut: nothing passes it any more.
//! From there each message that was refused among others goes alone, by a producer of its own and with nothing else of
//! its partition under way, so that a refusal is about it. What is too large to share a batch goes that way at once. When
//! nothing waits any more, the gate is open again.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;

use crate::partitions::Partitions;
use crate::producer::{Errand, Held, Message, Producer, Run};

/// librdkafka's `RD_KAFKA_IDEMP_MAX_INFLIGHT`, see above.
const UNDER_WAY_MAX: usize = 5;

/// How messages of a topic may go at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// Together.
    Sound,
    /// Each alone: Kafka refused some not long ago.
    Alone,
    /// Not at all: Kafka does not have the topic.
    Waits,
}

#[derive(Default)]
struct Gate {
    /// Nothing passes by, also near Kafka. Set and cleared while nobody passes, or by who brings something to the queue.
    shut: AtomicBool,
    /// Messages that its producer has and did not report on.
    under_way: AtomicUsize,
    /// While the lanes turn: it has, too. Set by who holds the queue.
    has_turned: AtomicBool,
    /// Its producer has had something stored. Kafka knows the order of a producer's requests only from then on: of several
    /// under way it would store the second though it refused the first.
    proven: AtomicBool,
    /// Messages that came, ever.
    came: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// What a producer gives back; more of it may come while it has some. It was before all that is here.
    coming: VecDeque<Held>,
    /// What is before what never went.
    back: VecDeque<Held>,
    held: VecDeque<Held>,
    /// One is under way alone, or judged.
    trial: bool,
}

impl Queue {
    fn front(&self) -> Option<&Held> {
        self.back.front().or_else(|| self.held.front())
    }

    fn pop(&mut self) -> Option<Held> {
        self.back.pop_front().or_else(|| self.held.pop_front())
    }

    fn is_idle(&self) -> bool {
        self.coming.is_empty() && self.front().is_none() && !self.trial
    }

    /// All has come back that will. With several requests under way, one that was behind a refused one may come last.
    fn came_back(&mut self) {
        let coming = self.coming.make_contiguous();
        coming.sort_by_key(|held| held.note.place);
        while let Some(held) = self.coming.pop_back() {
            self.back.push_front(held);
        }
    }
}

impl Gate {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// While the lanes turn: whether it has turned, or does now.
    fn turns(&self) -> bool {
        if self.has_turned.load(Ordering::SeqCst) {
            return true;
        }
        if self.under_way.load(Ordering::SeqCst) > 0 {
            return false;
        }
        self.proven.store(false, Ordering::SeqCst);
        self.has_turned.store(true, Ordering::SeqCst);
        true
    }

    /// Far from Kafka: whether more may be under way.
    fn has_room(&self) -> bool {
        let most = match self.proven.load(Ordering::SeqCst) {
            true => UNDER_WAY_MAX,
            false => 1,
        };
        self.under_way.load(Ordering::SeqCst) < most
    }
}

/// How far away Kafka is, as far as sending goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    Near,
    /// Each gate on its own: the near producer has something left of some.
    Turning,
    Far,
}

/// The producers of the moment.
pub(crate) type Producers = Arc<[Arc<Producer>]>;

struct State {
    producers: Producers,
    /// The near producer, while the lanes turn.
    left: Option<Arc<Producer>>,
    distance: Distance,
}

/// See the module.
pub(crate) struct Lanes {
    state: RwLock<State>,
    partitions: Arc<Partitions>,
    gates: Box<[Gate]>,
    /// The largest message of each topic that may share a batch.
    limits: Box<[AtomicU64]>,
    batch_bytes_max: AtomicU64,
    /// Gates that were shut by who brought something.
    called: Mutex<Vec<usize>>,
    /// Whether there are some.
    calls: AtomicBool,
}

/// Whether a failure says that there is no room now, and nothing of the message. A failed producer is about to be replaced.
fn is_no_room(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::Fatal)
}

impl Lanes {
    /// Lanes near Kafka, with one producer. `limits` is the largest message that each topic takes.
    pub(crate) fn new(
        producer: Producer,
        partitions: Arc<Partitions>,
        batch_bytes_max: u32,
        limits: &[u64],
    ) -> Self {
        let limit = |topic| limits.get(topic).copied().unwrap_or(u64::MAX);
        Self {
            state: RwLock::new(State {
                producers: [Arc::new(producer)].into(),
                left: None,
                distance: Distance::Near,
            }),
            gates: (0..partitions.count()).map(|_| Gate::default()).collect(),
            limits: (0..partitions.topics())
                .map(|topic| limit(topic).into())
                .collect(),
            partitions,
            batch_bytes_max: u64::from(batch_bytes_max).into(),
            called: Mutex::default(),
            calls: AtomicBool::new(false),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions of the routed topics.
    pub(crate) fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Takes a message: for a producer, or for later. An error is about room, or about a message whose publisher can be
    /// told.
    pub(crate) fn send(&self, mut message: Message<'_>) -> Result<(), RDKafkaErrorCode> {
        let state = self.read();
        let number = message.note.number as usize;
        let gate = &self.gates[number];
        message.note.place = gate.came.fetch_add(1, Ordering::Relaxed);
        let limit = &self.limits[message.note.topic as usize];
        let small = message.note.size <= limit.load(Ordering::Relaxed);
        if state.distance == Distance::Near && small && !gate.is_shut() {
            return self.pass(number, message, &state.producers[0]);
        }
        let mut queue = gate.queue();
        let free = small && !gate.is_shut() && queue.is_idle();
        let passes = match state.distance {
            Distance::Near => free,
            Distance::Turning => free && gate.turns() && gate.has_room(),
            Distance::Far => free && gate.has_room(),
        };
        if passes {
            drop(queue);
            return self.pass(
                number,
                message,
                &state.producers[number % state.producers.len()],
            );
        }
        queue.held.push_back(message.hold());
        if state.distance == Distance::Near || !small {
            gate.shut.store(true, Ordering::SeqCst);
            self.call(number);
        }
        Ok(())
    }

    fn pass(
        &self,
        number: usize,
        message: Message<'_>,
        producer: &Producer,
    ) -> Result<(), RDKafkaErrorCode> {
        let gate = &self.gates[number];
        let (topic, key, payload) = (message.topic, message.key, message.payload);
        // It may be reported on before this returns.
        gate.under_way.fetch_add(1, Ordering::SeqCst);
        let Err((code, note, headers)) = message.send(producer) else {
            return Ok(());
        };
        gate.under_way.fetch_sub(1, Ordering::SeqCst);
        let too_large = code == RDKafkaErrorCode::MessageSizeTooLarge;
        if is_no_room(code) || (too_large && !note.mute) {
            return Err(code);
        }
        let message = Message {
            topic,
            key,
            payload,
            headers,
            note,
        };
        let mut queue = gate.queue();
        queue.held.push_back(Held {
            alone: true,
            ..message.hold()
        });
        gate.shut.store(true, Ordering::SeqCst);
        self.call(number);
        Ok(())
    }

    fn call(&self, number: usize) {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        called.push(number);
        self.calls.store(true, Ordering::SeqCst);
    }

    /// The gates that were shut since the last call.
    pub(crate) fn called(&self) -> Vec<usize> {
        if !self.calls.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        let mut called = mem::take(&mut *called);
        called.sort_unstable();
        called.dedup();
        called
    }

    /// The producers of the moment.
    pub(crate) fn producers(&self) -> Producers {
        Arc::clone(&self.read().producers)
    }

    /// The near producer, while the lanes turn.
    pub(crate) fn left(&self) -> Option<Arc<Producer>> {
        self.read().left.clone()
    }

    pub(crate) fn distance(&self) -> Distance {
        self.read().distance
    }

    /// Puts another producer in the place of a failed one. When this returns, nobody sends to the old one any more, and
    /// the gates that lead to it are shut.
    pub(crate) fn replace(&self, at: usize, producer: Producer) {
        let mut state = self.write();
        let mut producers = state.producers.to_vec();
        producers[at] = Arc::new(producer);
        for gate in self.gates.iter().skip(at).step_by(producers.len()) {
            gate.shut.store(true, Ordering::SeqCst);
        }
        state.producers = producers.into();
    }

    /// All has come back of the producer that was replaced there; nothing has gone to the new one.
    pub(crate) fn replaced(&self, at: usize) {
        let producers = self.read().producers.len();
        for gate in self.gates.iter().skip(at).step_by(producers) {
            gate.proven.store(false, Ordering::SeqCst);
        }
    }

    /// How many far producers are wanted.
    pub(crate) fn far_producers(&self) -> usize {
        self.partitions.producers()
    }

    /// Turns to far producers. When this returns, nobody sends to the near one any more.
    pub(crate) fn turn(&self, producers: Vec<Producer>) {
        let mut state = self.write();
        state.left = state.producers.first().cloned();
        state.producers = producers.into_iter().map(Arc::new).collect();
        state.distance = Distance::Turning;
    }

    /// Ends the turn when the near producer has nothing left.
    pub(crate) fn end_turn(&self) {
        let mut state = self.write();
        let is_empty = |left: &Arc<Producer>| left.in_flight_count() == 0;
        if state.distance == Distance::Turning && state.left.as_ref().is_none_or(is_empty) {
            // Under the lock nobody sends: what was not turned has nothing under way.
            self.gates.iter().for_each(|gate| {
                gate.turns();
            });
            state.left = None;
            state.distance = Distance::Far;
        }
    }

    /// Lowers what a batch may be, and what of a topic may share one.
    pub(crate) fn lower(&self, topic: u32, bytes: u64) {
        self.limits[topic as usize].fetch_min(bytes, Ordering::Relaxed);
        self.batch_bytes_max.fetch_min(bytes, Ordering::Relaxed);
    }

    /// The largest batch, before compression.
    pub(crate) fn batch_bytes_max(&self) -> u64 {
        self.batch_bytes_max.load(Ordering::Relaxed)
    }

    /// Messages of one partition were stored that went with others. Returns whether the gate has to be moved on.
    pub(crate) fn landed(&self, run: &Run) -> bool {
        let gate = &self.gates[run.number as usize];
        gate.proven.store(true, Ordering::SeqCst);
        let messages = usize::try_from(run.messages).unwrap_or(usize::MAX);
        gate.under_way.fetch_sub(messages, Ordering::SeqCst);
        gate.is_shut() || self.distance() != Distance::Near
    }

    /// A message that went with others has come to another end.
    pub(crate) fn lost(&self, number: u32) {
        let gate = &self.gates[number as usize];
        gate.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// A message comes back that went with others.
    pub(crate) fn give_back(&self, held: Held) {
        let gate = &self.gates[held.note.number as usize];
        let mut queue = gate.queue();
        gate.shut.store(true, Ordering::SeqCst);
        gate.under_way.fetch_sub(1, Ordering::SeqCst);
        queue.coming.push_back(held);
    }

    /// Nothing of a topic goes with others before it went alone.
    pub(crate) fn shut(&self, topic: u32) {
        for number in self.partitions.of_topic(topic) {
            self.gates[number].shut.store(true, Ordering::SeqCst);
        }
    }

    /// What went alone has come to an end, or `again`: it is tried again later.
    pub(crate) fn tried(&self, number: u32, again: Option<Held>) {
        let mut queue = self.gates[number as usize].queue();
        queue.trial = false;
        if let Some(held) = again {
            queue.back.push_front(held);
        }
    }

    /// Lets through what may go. What is refused at once is added to `judged`, as a trial.
    pub(crate) fn advance(
        &self,
        number: usize,
        alone: &Producer,
        footing: Footing,
        judged: &mut Vec<(RDKafkaErrorCode, Held)>,
    ) {
        let state = self.read();
        let gate = &self.gates[number];
        let topic = self.partitions.name(number).0;
        let producer = &state.producers[number % state.producers.len()];
        let mut queue = gate.queue();
        if state.distance == Distance::Turning && !gate.turns() {
            return;
        }
        let mut batch = 0;
        while !queue.trial {
            if !queue.coming.is_empty() {
                if gate.under_way.load(Ordering::SeqCst) > 0 {
                    return;
                }
                queue.came_back();
            }
            let Some(front) = queue.front() else {
                if footing == Footing::Sound {
                    gate.shut.store(false, Ordering::SeqCst);
                }
                return;
            };
            if footing == Footing::Waits {
                return;
            }
            let size = front.note.size;
            let limit = self.limits[front.note.topic as usize].load(Ordering::Relaxed);
            let under_way = gate.under_way.load(Ordering::SeqCst);
            if front.alone || footing == Footing::Alone || size > limit {
                if under_way > 0 {
                    return;
                }
                let Some(mut held) = queue.pop() else { return };
                held.note.errand = Errand::Trial;
                queue.trial = true;
                match held.send(topic, alone) {
                    Ok(()) => {}
                    Err((code, held)) if is_no_room(code) => {
                        queue.trial = false;
                        return queue.back.push_front(held);
                    }
                    Err(refused) => judged.push(refused),
                }
                return;
            }
            if state.distance != Distance::Near {
                if batch > 0 && batch + size > self.batch_bytes_max() {
                    batch = 0;
                }
                if (batch == 0 || !gate.proven.load(Ordering::SeqCst)) && !gate.has_room() {
                    return;
                }
                batch += size;
            }
            let Some(mut held) = queue.pop() else { return };
            held.note.errand = Errand::Message;
            gate.under_way.fetch_add(1, Ordering::SeqCst);
            if let Err((code, mut held)) = held.send(topic, producer) {
                gate.under_way.fetch_sub(1, Ordering::SeqCst);
                held.alone = !is_no_room(code);
                let again = held.alone;
                queue.back.push_front(held);
                if !again {
                    return;
                }
            }
        }
    }

    /// The gates at which something may wait that nobody will come back to.
    pub(crate) fn to_look_at(&self) -> Vec<usize> {
        let far = self.distance() != Distance::Near;
        let gates = self.gates.iter().enumerate();
        gates
            .filter(|(_, gate)| gate.is_shut() || far)
            .map(|(number, _)| number)
            .collect()
    }
}
