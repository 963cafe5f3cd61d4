//! What is looked at only while somebody wants to know: traces, and the topics with most publishes. Everybody else pays one
//! look at whether there is such a thing.

use codec::{Packet, Publish, ReasonCode};

use super::{Close, Worker};
use crate::connection::Connection;
use crate::limits::TRACES_MAX;
use crate::outcome::Fate;
use crate::router::Receiver;
use crate::session::OFFLINE;
use crate::time::Time;
use crate::top_topics::{Counting, TopTopics};
use crate::trace::{Trace, TraceKind, describe, publish};

/// See the module.
#[derive(Default)]
pub(super) struct Watch {
    traces: Vec<Trace>,
    counting: Option<Counting>,
}

impl Worker {
    fn watch(&mut self) -> &mut Watch {
        self.watch.get_or_insert_default()
    }

    /// Ends what has had its time.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_watch(&mut self) {
        let now = self.now;
        let Some(watch) = &mut self.watch else {
            return;
        };
        watch
            .traces
            .retain(|trace| trace.until > now && !trace.is_over);
        watch.counting.take_if(|counting| counting.until() <= now);
        if watch.traces.is_empty() && watch.counting.is_none() {
            self.watch = None;
        }
    }

    /// Begins a trace: false when there are as many as may be.
    pub(crate) fn trace(&mut self, trace: Trace) -> bool {
        let traces = &mut self.watch().traces;
        let has_room = traces.len() < TRACES_MAX;
        if has_room {
            traces.push(trace);
        }
        has_room
    }

    /// Counts publishes by topic until that time; goes on, where somebody counts already.
    pub(crate) fn count_topics(&mut self, until: Time) {
        self.watch().counting = Some(Counting::new(until));
    }

    /// What was counted so far, after which nobody counts any more.
    pub(crate) fn counted_topics(&mut self, max: usize) -> TopTopics {
        let counting = self.watch.as_mut().and_then(|watch| watch.counting.take());
        counting.map_or_else(TopTopics::default, |counting| counting.told(max))
    }

    fn each_trace(&mut self, wanted: impl Fn(&Trace) -> bool, mut tell: impl FnMut(&mut Trace)) {
        let traces = self.watch.iter_mut().flat_map(|watch| &mut watch.traces);
        traces.filter(|trace| wanted(trace)).for_each(&mut tell);
    }

    /// The client identifier of a session, to be told.
    fn name_of(&self, session: u32) -> String {
        let session = self.sessions.get(session);
        session.map_or_else(String::new, |session| session.client_id().to_owned())
    }

    /// A packet came.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_packet(&mut self, slot: u32, session: u32, packet: &Packet<'_>) {
        let now = self.now;
        let name = match packet {
            Packet::Connect(connect) if session == OFFLINE => connect.client_id.to_owned(),
            _ => self.name_of(session),
        };
        self.each_trace(
            |trace| trace.is_of_client(&name),
            |trace| {
                if matches!(packet, Packet::Connect(_)) {
                    trace.connecting = Some(slot);
                }
                trace.tell(now, &name, TraceKind::Received, describe(packet));
            },
        );
    }

    /// A publish came, whose topic is known.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_publish(&mut self, session: u32, topic: &str, one: &Publish<'_>) {
        let (now, name) = (self.now, self.name_of(session));
        self.each_trace(
            |trace| trace.is_of_topic(topic),
            |trace| trace.tell(now, &name, TraceKind::Received, publish(one, topic)),
        );
    }

    /// A message is routed to so many.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_route(&mut self, topic: &str, bytes: usize, deliveries: usize) {
        let counting = self
            .watch
            .as_mut()
            .and_then(|watch| watch.counting.as_mut());
        if let Some(counting) = counting {
            counting.count(topic, bytes, deliveries);
        }
    }

    /// A delivery came to something.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_delivery(&mut self, receiver: &Receiver, topic: &str, fate: Fate) {
        let (now, slot) = (self.now, receiver.session.slot());
        let name = self.name_of(slot);
        let qos = u8::from(receiver.options.qos());
        self.each_trace(
            |trace| trace.is_of_topic(topic),
            |trace| {
                let text = format!("{} q{qos} {}", topic.escape_debug(), fate.in_words());
                trace.tell(now, &name, TraceKind::Delivery, text);
            },
        );
    }

    /// Writes what waits for a connection, and tells whoever traces its client.
    #[cold]
    #[inline(never)]
    pub(super) fn flush_watched(&mut self, slot: u32) {
        let waiting = self.will_write(slot);
        self.flush_now(slot);
        let Some(waiting) = waiting else {
            return;
        };
        // Where it is gone, nobody knows what was taken.
        let left = self
            .connections
            .slab
            .get(slot)
            .map(Connection::outbox_bytes);
        if let Some(left) = left {
            let taken = waiting.len().saturating_sub(left);
            self.has_written(slot, &waiting[..taken]);
        }
    }

    /// A connection is about to be written to: what waits for it, where that is traced.
    fn will_write(&mut self, slot: u32) -> Option<Vec<u8>> {
        let generation = self.connections.slab.generation(slot);
        let connection = self.connections.slab.get(slot)?;
        let session = self.sessions.get(connection.session)?;
        let watch = self.watch.as_mut()?;
        let outbox = connection.outbox.as_ref()?;
        let is_of = |trace: &&mut Trace| trace.is_of_client(session.owner.client_id());
        let mut is_traced = false;
        for trace in watch.traces.iter_mut().filter(is_of) {
            is_traced = true;
            // What is left of a packet that was written in part tells nothing.
            if trace.follows != Some((slot, generation)) && !connection.is_stall_armed() {
                trace.follows = Some((slot, generation));
                trace.written.clear();
            }
        }
        is_traced.then(|| outbox.unwritten())
    }

    /// It was: these bytes.
    fn has_written(&mut self, slot: u32, bytes: &[u8]) {
        let (now, generation) = (self.now, self.connections.slab.generation(slot));
        let Some(connection) = self.connections.slab.get(slot) else {
            return;
        };
        let (version, name) = (connection.version, self.name_of(connection.session));
        self.each_trace(
            |trace| trace.is_of_client(&name) && trace.follows == Some((slot, generation)),
            |trace| {
                trace.written.extend_from_slice(bytes);
                let written = std::mem::take(&mut trace.written);
                let mut at = 0;
                while let Ok(Some(frame)) =
                    codec::split_frame(&written[at..], codec::PACKET_BYTES_MAX)
                {
                    at += frame.len;
                    if let Ok(packet) = codec::decode(version, frame) {
                        trace.tell(now, &name, TraceKind::Sent, describe(&packet));
                    }
                }
                trace.written = written[at..].to_vec();
            },
        );
    }

    /// A CONNECT is refused.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_refusal(&mut self, slot: u32, reason: ReasonCode) {
        let now = self.now;
        self.each_trace(
            |trace| trace.connecting == Some(slot),
            |trace| {
                let text = format!("refused: {:#04x} {reason}", reason.0);
                let crate::trace::Traced::Client(name) = trace.of.clone() else {
                    return;
                };
                trace.connecting = None;
                trace.tell(now, &name, TraceKind::Event, text);
            },
        );
    }

    /// A client's connection is closed.
    #[cold]
    #[inline(never)]
    pub(super) fn saw_close(&mut self, session: u32, close: &Close) {
        let (now, name) = (self.now, self.name_of(session));
        self.each_trace(
            |trace| trace.is_of_client(&name),
            |trace| {
                let told = close.reason().map_or_else(String::new, |reason| {
                    format!("; a 5.0 client is told {:#04x} {reason}", reason.0)
                });
                let text = format!("closed: {close:?}{told}");
                trace.tell(now, &name, TraceKind::Event, text);
            },
        );
    }
}
