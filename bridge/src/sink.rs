//! The broker's side of the producer: takes a publish on a worker's thread and hands it to librdkafka.
//!
//! Everything here is on the way of every stored message. What a message costs is the lookup of its route, its headers
//! (librdkafka allocates one block each, which is why a header that says nothing is not written) and librdkafka's copy of
//! key and payload; beside these nothing is allocated and no lock is held by more than readers. What comes back from
//! Kafka is the business of the poll thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use broker::codec::{Property, Qos, Version};
use broker::{Incoming, Sink, Token, Verdict};
use envelope::Fields;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};

use crate::clock;
use crate::config::{Config, Refused3x};
use crate::kafka;
use crate::lanes::Lanes;
use crate::producer::{Errand, Message, Note};
use crate::routes::{Ack, Deliver, Routes, Store};
use crate::status::Counters;
use crate::troubles::Troubles;
use crate::waits::Waits;

/// The share of the queue that QoS 0 may fill, as a divisor: the rest is for messages that somebody is told about.
const QOS0_QUEUE_DIVISOR: u64 = 2;
/// Headers of a message without MQTT 5 properties. librdkafka makes room for more by itself.
const HEADERS_USUAL: usize = 6;
/// What a record and its batch have beside key, payload and headers, at most.
const RECORD_OVERHEAD_BYTES: u64 = 128;
/// What a header has beside its name and value, at most.
const HEADER_OVERHEAD_BYTES: usize = 8;

/// The [`Sink`] that appends publishes to Kafka.
pub struct KafkaSink {
    routes: Routes,
    node: Box<str>,
    messages_max: u64,
    bytes_max: u64,
    /// Whether what is refused becomes a dead letter when its publisher cannot be told.
    letters: bool,
    pub(crate) lanes: Lanes,
    pub(crate) waits: Waits,
    pub(crate) troubles: Troubles,
    /// Set when Kafka turns out to be far away.
    far: AtomicBool,
    pub(crate) counters: Arc<Counters>,
    /// Set here when librdkafka has no room, cleared by the poll thread when it has again. While it is set nothing is
    /// offered to librdkafka, so that those who wait get their turn in one wave.
    full: AtomicBool,
    /// Messages that waited when `full` was set.
    waiting_when_full: AtomicU64,
    /// Who sleeps when nothing waits.
    poll_thread: OnceLock<Thread>,
}

/// Working memory of one worker's thread.
#[derive(Default)]
struct Scratch {
    key: String,
    header: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl KafkaSink {
    pub(crate) fn new(
        config: &Config,
        routes: Routes,
        lanes: Lanes,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            routes,
            node: config.node_name().into(),
            messages_max: config.producer.queue_messages_max.into(),
            bytes_max: config.producer.queue_bytes_max,
            letters: config.refused_3x == Refused3x::DeadLetter,
            waits: Waits::new(
                lanes.partitions(),
                (
                    config.producer.queue_messages_max.into(),
                    config.producer.queue_bytes_max,
                ),
                config.producer.queue_topic_percent,
                config.producer.queue_partition_percent,
            ),
            troubles: Troubles::default(),
            lanes,
            far: AtomicBool::new(false),
            counters,
            full: AtomicBool::new(false),
            waiting_when_full: AtomicU64::new(0),
            poll_thread: OnceLock::new(),
        }
    }

    /// Kafka is far away: from now on there are several requests under way.
    pub(crate) fn is_far(&self) {
        if !self.far.swap(true, Ordering::SeqCst) {
            self.wake_poll_thread();
        }
    }

    pub(crate) fn wants_far(&self) -> bool {
        self.far.load(Ordering::Relaxed)
    }

    pub(crate) fn set_poll_thread(&self, thread: Thread) {
        // It is set once, before the first message.
        let _ = self.poll_thread.set(thread);
    }

    pub(crate) fn wake_poll_thread(&self) {
        if let Some(thread) = self.poll_thread.get() {
            thread.unpark();
        }
    }

    /// This node's name.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// What is wrong with single topics and partitions, each in one sentence.
    pub(crate) fn problems(&self) -> Vec<String> {
        let partitions = self.lanes.partitions();
        self.troubles.problems(Instant::now(), |topic| {
            let numbers = 0..u32::try_from(partitions.topics()).unwrap_or(u32::MAX);
            let mut of_topic = numbers.filter(|number| partitions.topic(*number) == topic);
            of_topic
                .next()
                .map_or(0, |number| self.waits.waiting(number))
        })
    }

    /// If somebody was turned away and there is room again: forgets it, and returns true once.
    pub(crate) fn take_room(&self) -> bool {
        let of_topic = self.waits.take_room();
        of_topic | self.take_room_of_all()
    }

    fn take_room_of_all(&self) -> bool {
        if !self.full.load(Ordering::Relaxed) {
            return false;
        }
        // A few places would be taken at once and everybody turned away again, so wait for an eighth.
        let then = self.waiting_when_full.load(Ordering::Relaxed);
        let room = self.counters.waiting() <= then.saturating_sub((then / 8).max(1));
        room && self.full.swap(false, Ordering::SeqCst)
    }

    /// Turns everybody away from now on: nobody polls the producer any more.
    pub(crate) fn close(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    fn no_room(&self, qos: Qos) -> Verdict {
        let counter = if qos == Qos::AtMostOnce {
            &self.counters.dropped
        } else {
            &self.counters.held
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Verdict::Busy
    }

    fn set_full(&self) {
        self.waiting_when_full
            .store(self.counters.waiting(), Ordering::Relaxed);
        self.full.store(true, Ordering::SeqCst);
        self.wake_poll_thread();
    }

    fn send(
        &self,
        publish: &Incoming<'_>,
        store: &Store,
        (key, topic, number): (&str, u32, u32),
        header: &mut String,
        token: Token,
    ) -> Result<(), RDKafkaErrorCode> {
        let now = clock::since_epoch();
        let (headers, headers_size) = headers(
            publish,
            &self.node,
            u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            header,
        );
        let bytes = (key.len() + publish.payload.len()) as u64;
        let note = Note {
            token,
            mute: self.letters && token != Token::NONE && publish.version != Version::V5,
            topic,
            number,
            place: 0,
            bytes,
            size: bytes + headers_size + RECORD_OVERHEAD_BYTES,
            taken_ms: clock::millis(now),
            errand: Errand::Message,
        };
        let run = note.run();
        self.waits.begin(&run);
        self.counters.count_bytes(bytes);
        let sent = self.lanes.send(Message {
            topic: &store.topic,
            key,
            payload: publish.payload,
            headers,
            note: Box::new(note),
        });
        if sent.is_err() {
            self.waits.cancel(&run);
            self.counters.uncount_bytes(bytes);
        }
        sent
    }

    /// Whether no more messages may wait. Of QoS 0 it is a share of the queue, since nobody is told about it.
    fn is_full(&self, qos: Qos) -> bool {
        let divisor = match qos {
            Qos::AtMostOnce => QOS0_QUEUE_DIVISOR,
            _ => 1,
        };
        self.counters.waiting() >= self.messages_max.div_ceil(divisor)
            || self.counters.waiting_bytes() >= self.bytes_max.div_ceil(divisor)
    }
}

impl Sink for KafkaSink {
    fn accept(&self, publish: &Incoming<'_>, token: Token) -> Verdict {
        let Some(route) = self.routes.find(publish.topic) else {
            return Verdict::NotStored;
        };
        let Some(store) = &route.store else {
            return Verdict::NotStored;
        };
        if self.full.load(Ordering::Relaxed) {
            return self.no_room(publish.qos);
        }
        if self.is_full(publish.qos) {
            if publish.qos != Qos::AtMostOnce {
                self.set_full();
            }
            return self.no_room(publish.qos);
        }
        let divisor = match publish.qos {
            Qos::AtMostOnce => QOS0_QUEUE_DIVISOR,
            _ => 1,
        };
        let token = if store.ack == Ack::Received {
            Token::NONE
        } else {
            token
        };
        let sent = SCRATCH.with_borrow_mut(|Scratch { key, header }| {
            let key = route.key(publish.topic, publish.client_id, key);
            let partitions = self.lanes.partitions();
            let (topic, number) = partitions.find(&store.topic, key.as_bytes());
            if self.waits.is_full(topic, number, divisor) {
                if publish.qos != Qos::AtMostOnce {
                    self.waits.set_full(topic, number);
                    self.wake_poll_thread();
                }
                return None;
            }
            let before = self.counters.accepted.fetch_add(1, Ordering::SeqCst);
            let sent = self.send(publish, store, (key, topic, number), header, token);
            Some((before, sent))
        });
        let Some((before, sent)) = sent else {
            return self.no_room(publish.qos);
        };
        match sent {
            Ok(()) => {
                // The first message after a rest: the poll thread may sleep. It looks at these two the other way round
                // before it does, so one of us sees the other.
                if before == self.counters.done.load(Ordering::SeqCst) {
                    self.wake_poll_thread();
                }
                match (store.ack, store.deliver) {
                    (Ack::Received, _) => Verdict::Accepted,
                    (Ack::Persisted, Deliver::Now) => Verdict::Pending {
                        deliver: broker::Deliver::Now,
                    },
                    (Ack::Persisted, Deliver::AfterPersisted) => Verdict::Pending {
                        deliver: broker::Deliver::AfterStored,
                    },
                }
            }
            // A failed producer is about to be replaced: that is no room either.
            Err(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::Fatal) => {
                self.counters.accepted.fetch_sub(1, Ordering::SeqCst);
                self.set_full();
                self.no_room(publish.qos)
            }
            Err(code) => {
                let refusal = kafka::refusal(code);
                tracing::debug!(topic = publish.topic, kafka_topic = &*store.topic, %code, "Kafka takes no such message");
                self.counters.count_refused(refusal, 1);
                self.counters.done.fetch_add(1, Ordering::SeqCst);
                Verdict::Refused(refusal)
            }
        }
    }
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink")
            .field("routes", &self.routes)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

fn headers(
    publish: &Incoming<'_>,
    node: &str,
    received_at_micros: u64,
    scratch: &mut String,
) -> (OwnedHeaders, u64) {
    let mut size = 0;
    let mut fields = Fields {
        topic: publish.topic,
        qos: u8::from(publish.qos),
        retain: publish.retain,
        client_id: Some(publish.client_id),
        user: publish.principal.map(|principal| &*principal.user),
        tenant: publish.principal.and_then(|it| it.tenant.as_deref()),
        node: Some(node),
        received_at_micros: Some(received_at_micros),
        ..Fields::default()
    };
    for property in publish.properties.iter() {
        match property {
            Property::PayloadFormatIndicator(format) => fields.payload_format = Some(format),
            Property::MessageExpiryInterval(seconds) => fields.message_expiry_s = Some(seconds),
            Property::ContentType(content_type) => fields.content_type = Some(content_type),
            Property::ResponseTopic(topic) => fields.response_topic = Some(topic),
            Property::CorrelationData(data) => fields.correlation_data = Some(data),
            // User properties follow below. A topic alias and subscription identifiers belong to one connection.
            _ => {}
        }
    }
    let mut headers = Some(OwnedHeaders::new_with_capacity(HEADERS_USUAL));
    fields.for_each_header(
        publish.properties.user_properties(),
        scratch,
        |key, value| {
            size += key.len() + value.len() + HEADER_OVERHEAD_BYTES;
            headers = headers.take().map(|headers| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        },
    );
    (headers.unwrap_or_default(), size as u64)
}

#[cfg(test)]
mod tests {
    use broker::codec::{Properties, PropertiesBuf};
    use broker::identity::Principal;
    use rdkafka::message::Headers as _;

    use super::*;

    fn headers_of(principal: Option<&Principal>, properties: Properties<'_>) -> Vec<String> {
        let publish = Incoming {
            topic: "a",
            payload: b"",
            qos: Qos::AtMostOnce,
            retain: false,
            properties,
            client_id: "c",
            principal,
            version: Version::V5,
        };
        let (headers, _) = headers(&publish, "n", 1, &mut String::new());
        let text = |header: Header<'_, &[u8]>| {
            let value = header.value.map(String::from_utf8_lossy);
            format!("{}={}", header.key, value.unwrap_or_default())
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn a_record_says_who_published_it_where_the_broker_knows() {
        let mut properties = PropertiesBuf::new();
        let claimed = Property::UserProperty("mqtt.user", "eve");
        properties.push(claimed).unwrap();
        let principal = Principal::with("ada", Some("acme"), Vec::new(), Vec::new());
        let headers = headers_of(Some(&principal), properties.as_properties());
        for header in [
            "mqtt.user=ada",
            "mqtt.tenant=acme",
            "mqtt.user.mqtt.user=eve",
        ] {
            assert!(
                headers.iter().any(|it| it == header),
                "{header}: {headers:?}"
            );
        }
        let headers = headers_of(None, properties.as_properties());
        let is_who = |it: &&String| it.starts_with("mqtt.user=") || it.starts_with("mqtt.tenant=");
        assert_eq!(headers.iter().find(is_who), None);
    }
}
