//! Every bound of the broker: its name, its default and its unit, in one place.
//!
//! A bound's name ends in its unit (`_bytes`, `_ms`, `_s`, `_messages`, …) and in `_max` where it is an upper
//! bound. [`Limits::validate`] asserts how the bounds relate; nothing else in the crate invents a number.

use std::time::Duration;

use settings::Section as _;

settings::section! {
    /// The bounds that an operator may change. Defaults suit a node with many mostly idle clients.
    #[derive(Eq)]
    pub struct Limits {
        /// Open connections on this node; one more is closed at once.
        pub connections_max: u32 = 10_000_000, [1.., "connections"];
        /// From the accepted connection to the end of its CONNECT.
        pub connect_timeout_ms: u64 = 10_000, [100.., "milliseconds"];
        /// A whole MQTT packet, fixed header included. Announced to 5.0 clients.
        pub packet_bytes_max: u32 = 1_048_576, [128..=268_435_460, "bytes"];
        /// A client identifier; a longer one is refused.
        pub client_id_bytes_max: u32 = 1_024, [23..=65_535, "bytes"];
        /// Levels of a topic name or filter.
        pub topic_levels_max: u32 = 128, [1..=topic::LEVELS_MAX as u32, "levels"];
        /// Subscriptions of one session; one more is refused with 0x97 (0x80 in 3.x).
        pub subscriptions_max: u32 = 10_000, [1.., "subscriptions"];
        /// Bytes of the filters of one session's subscriptions; what would exceed it is refused with 0x97 (0x80 in 3.x). A
        /// filter with wildcards is in memory twice.
        pub subscription_bytes_max: u64 = 1_048_576, [1.., "bytes"];
        /// Filters of one SUBSCRIBE or UNSUBSCRIBE. Those beyond it are refused: with 0x97 (0x80 in 3.x) in SUBACK, with 0x83
        /// in UNSUBACK; a 3.x client's UNSUBSCRIBE, which has no answer to say it in, closes the connection.
        pub filters_per_packet_max: u32 = 10_000, [1.., "filters"];
        /// Shared subscriptions of one session; one more is refused with 0x97 (0x80 in 3.x).
        pub shared_groups_per_session_max: u32 = 64, [1.., "shared subscriptions"];
        /// Groups that share one filter on this node, each of which gets every message that matches; one more is refused with
        /// 0x97 (0x80 in 3.x).
        pub shared_groups_per_filter_max: u32 = 256, [1.., "groups"];
        /// QoS 1 and 2 publishes of one client that are not acknowledged yet. Announced to 5.0 clients: one that sends
        /// more is disconnected with 0x93; of a 3.x client further publishes wait until some are.
        pub receive_maximum: u16 = 1_024, [1..=16_384, "messages"];
        /// QoS 1 and 2 messages sent to one client and not acknowledged; the client's receive maximum may lower it.
        pub inflight_messages_max: u16 = 64, [1..=16_384, "messages"];
        /// Messages that wait for one client, connected or not, beyond those in flight; one more is dropped and counted.
        pub queue_messages_max: u32 = 10_000, [1.., "messages"];
        /// Bytes (topic, payload, properties) that wait for one client beyond those in flight.
        pub queue_bytes_max: u64 = 8 * 1_048_576, [1.., "bytes, at least packet_bytes_max"];
        /// Encoded bytes that wait for one client's socket: beyond it QoS 0 is dropped and counted, QoS 1 and 2 wait in
        /// the queue.
        pub outbox_bytes_max: u64 = 2 * 1_048_576, [1.., "bytes, at least packet_bytes_max"];
        /// How long a client's socket may take nothing while bytes wait for it, before it is disconnected.
        pub write_stall_ms: u64 = 30_000, [1_000.., "milliseconds"];
        /// Topic aliases a 5.0 client may set, and that are used towards it.
        pub topic_alias_maximum: u16 = 16, [0..=65_535, "aliases"];
        /// The longest time a session outlives its connection; also for 3.x sessions that are not clean.
        pub session_expiry_max_s: u32 = 7 * 86_400, [0.., "seconds"];
        /// Keep-alive told to a 5.0 client that asks for more, or for none.
        pub keep_alive_max_s: u16 = 0, [0..=65_535, "seconds; 0 is no bound"];
        /// Sessions held on this node for clients that are not connected; beyond it a session ends with its connection.
        pub offline_sessions_max: u32 = 10_000_000, [0.., "sessions"];
        /// Retained messages on this node. Beyond it a 5.0 publish with QoS 1 or 2 that is to be retained is refused with
        /// 0x97; of any other the message is delivered and not retained, and counted.
        pub retained_messages_max: u32 = 10_000_000, [0.., "messages"];
        /// Bytes of retained messages (topic, payload and properties).
        pub retained_bytes_max: u64 = 4 * 1_073_741_824, [0.., "bytes"];
        /// Retained messages of this node that one client has set. What exceeds it is refused as beyond retained_messages_max. Who
        /// replaces a message has set it; one that is deleted or has expired counts no more.
        pub retained_messages_per_client_max: u32 = 1_000_000, [0.., "messages"];
        /// Bytes of these messages, likewise.
        pub retained_bytes_per_client_max: u64 = 512 * 1_048_576, [0.., "bytes"];
        /// Memory that the node may use. From 80 % of it on new clients are refused (0x97; 0x03 in 3.x), from 90 % on QoS 0 is
        /// dropped for clients that do not keep up, from 100 % on the largest queues are cut, and nothing is retained or
        /// subscribed to in addition (0x97; 0x80 in 3.x).
        pub memory_bytes_max: u64 = 0, [0.., "bytes; 0 is three quarters of the machine's or the control group's, or half of the address space that is allowed"];
        /// Bytes handled for one client before the others get their turn.
        pub read_bytes_per_turn: u32 = 65_536, [4_096.., "bytes"];
        /// Bytes of one client whose publishes have to wait (Kafka takes none now, or a 3.x client has sent more than
        /// receive_maximum): its publishes are read ahead and everything else is answered. Beyond it the client is not read
        /// from until they go on; only its end is still seen.
        pub read_ahead_bytes_max: u64 = 65_536, [0.., "bytes"];
        /// The same of all clients of this node together.
        pub read_ahead_node_bytes_max: u64 = 256 * 1_048_576, [0.., "bytes"];
        /// The longest that publishes of a 3.x client wait that is back after it was closed because one was refused (where
        /// refusals close): a second the first time, twice as long each further time. The rest that it sends is answered.
        pub refused_pause_ms_max: u64 = 60_000, [0.., "milliseconds; 0: they do not wait"];
        /// Bytes of wills whose sessions have ended and that Kafka had no room for: they are delivered, and stored when it has,
        /// unless their clients are back by then. Beyond it they are not stored, and counted.
        pub waiting_wills_bytes_max: u64 = 64 * 1_048_576, [0.., "bytes"];
        /// Connections accepted in one turn of a worker.
        pub accepts_per_turn: u32 = 256, [1.., "connections"];
        /// Retained messages copied to one client in one turn.
        pub retained_per_turn: u32 = 256, [1.., "messages"];
        /// Entries that may wait for a worker before the workers that write them stop reading sockets.
        pub inbox_entries_max: u32 = 65_536, [64.., "entries"];
        /// Bytes that these entries may hold, likewise: a message counts in each inbox that it waits in.
        pub inbox_bytes_max: u64 = 64 * 1_048_576, [65_536.., "bytes"];
        /// Connections the kernel holds until they are accepted (the kernel's own bound net.core.somaxconn applies too).
        pub listen_backlog: u32 = 4_096, [1.., "connections"];
        /// How long a shutdown takes at most: until publishes are stored, wills delivered, outboxes empty, and clients have
        /// hung up.
        pub drain_timeout_ms: u64 = 10_000, [0.., "milliseconds"];
    }
}

/// Payloads from this size on are shared between receivers instead of copied into each outbox.
pub(crate) const SHARED_PAYLOAD_BYTES_MIN: usize = 4_096;
/// Slices handed to one `writev`.
pub(crate) const WRITE_SLICES_MAX: usize = 64;
/// Bytes that go through the layers of a connection (TLS, WebSocket) at once, before its socket is asked to take them.
pub(crate) const LAYER_WRITE_BYTES_MAX: usize = 65_536;
/// Answers of a connection's layers that its socket has not taken (to pings, to changes of keys) before no more is read of it.
pub(crate) const LAYER_UNSENT_BYTES_MAX: usize = 2 * LAYER_WRITE_BYTES_MAX;
/// The beginning of a TLS record, or of a message of its handshake (up to 64 KiB), whose rest has not come.
pub(crate) const TLS_PARTIAL_BYTES_MAX: usize = 98_304;
/// Steps of handshakes that a worker makes in one turn, each of which may cost a signature: about a millisecond with an RSA
/// key. The others come in the next turns, behind what is due for clients that are connected.
pub(crate) const HANDSHAKES_PER_TURN_MAX: u32 = 16;
/// Capacity of emptied outboxes that a worker keeps for reuse.
pub(crate) const SPARE_OUTBOX_BYTES_MAX: usize = 4 * 1_048_576;
/// Readiness events taken from the kernel in one turn.
pub(crate) const EVENTS_PER_TURN_MAX: usize = 1_024;
/// Entries of its inbox that a worker handles in one turn. Between two turns outboxes are flushed and acknowledgements
/// read: without a bound, a worker that was behind would overfill the queues of clients that keep up.
pub(crate) const INBOX_ENTRIES_PER_TURN_MAX: usize = 1_024;
/// Bytes of messages in these entries, each message counted once; one entry is always handled.
pub(crate) const INBOX_BYTES_PER_TURN_MAX: usize = 256 * 1_024;
/// The work that a part of a worker's turn (reading, the inbox, timers) begins no more beyond: a delivery or a retained
/// message replayed is one. What is left over is gone on with in the next turn, behind those who waited. A burst of 100
/// to 1,000 receivers still fits, so that each of these gets it in one write.
pub(crate) const WORK_PER_TURN_MAX: u64 = 131_072;
/// Outboxes that are written in one turn with answers in them, and so many without: some 20 ms. More than
/// [`EVENTS_PER_TURN_MAX`], so that what is left over becomes less, whatever acknowledgements bring.
pub(crate) const FLUSH_WRITES_PER_TURN_MAX: usize = 2_048;
const _: () = assert!(FLUSH_WRITES_PER_TURN_MAX > EVENTS_PER_TURN_MAX);
/// Places that the list of outboxes to write keeps when it is empty.
pub(crate) const LINE_KEPT: usize = 65_536;
/// Work of a publish besides its deliveries.
pub(crate) const WORK_PUBLISH: u64 = 4;
/// Work of a filter that comes or goes.
pub(crate) const WORK_FILTER: u64 = 8;
/// Entries of connections that are gone, on the list of those that wait for the sink, before it is cleaned.
pub(crate) const HELD_LIST_SPARE: u64 = 1_024;
/// Bytes read behind a CONNECT while it is being looked at who sends it.
pub(crate) const BEHIND_CONNECT_BYTES_MAX: usize = 16 * 1_024;
/// How often a worker looks whether clients that are not read from, because of `read_ahead_node_bytes_max`, can be.
pub(crate) const READ_AHEAD_LOOK_MS: u64 = 1_000;
/// Bytes read at once of any client while the node has read ahead as much as it may: one that then turns out to have to
/// wait adds no more to it.
pub(crate) const READ_AHEAD_FULL_BYTES: usize = 4_096;
/// A connection that is not read from because of these bounds, and of which nothing comes, is probed by the kernel after
/// this time, in this interval, and given up after so many probes without an answer: 90 seconds in all.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(60);
/// See [`PROBE_AFTER`].
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`PROBE_AFTER`].
pub(crate) const PROBES_MAX: u32 = 3;
/// The longest that a timer is set for. One that is no longer wanted stays until then, so a client that comes and goes
/// leaves no more behind than it can in this time.
pub(crate) const TIMER_LOOK_MS: u64 = 600_000;
/// The worker's timer resolution.
pub(crate) const TIMER_TICK_MS: u64 = 100;
/// How long a closed connection may take to read our last packet before the socket is dropped. At a shutdown it is a
/// quarter of `drain_timeout_ms` at most, which is kept for it and for the wills that are published then.
pub(crate) const LINGER_MS: u64 = 2_000;
/// Bytes read and thrown away from a connection that is being closed; what comes then waits in the kernel.
pub(crate) const LINGER_BYTES_MAX: u32 = 1_048_576;
/// How often a worker that drains looks whether the next step is due.
pub(crate) const DRAIN_LOOK_MS: u64 = 5;
/// Clients that a worker tells in one turn that it shuts down.
pub(crate) const DRAIN_CLOSES_PER_TURN: u32 = 4_096;
/// When a will could not be handed to the sink, the time until the next attempt.
pub(crate) const WILL_RETRY_MS: u64 = 1_000;
/// Wills that are turned away before a worker asks no more: the sink may have room for others, but not often.
pub(crate) const WILLS_ASKED_MAX: usize = 64;
/// How long the publishes of a client wait at first that was closed for a refused one.
pub(crate) const REFUSED_PAUSE_MS_MIN: u64 = 1_000;
/// Clients of which a worker remembers that it closed them for a refused publish.
pub(crate) const REFUSED_CLIENTS_MAX: usize = 4_096;
/// Between two log lines about the same thing, where it may happen very often.
pub(crate) const LOG_PAUSE_MS: u64 = 1_000;
/// How long a worker lets connections wait after `accept` failed for want of files or memory.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 100;
/// The host (the thread that runs other threads' workers, too) gives these back when it was busy for more than so much of
/// a window, in thousandths.
pub(crate) const HOST_BUSY: u64 = 700;
/// How long the host looks before it judges how busy it is.
pub(crate) const HOST_WINDOW_MS: u64 = 20;
/// A thread lends its worker when it and the host together were busy for less than this, in thousandths: so far below
/// [`HOST_BUSY`] that a steady load does not move workers to and fro.
pub(crate) const THREAD_QUIET: u64 = 400;
/// How long a thread keeps its worker at least.
pub(crate) const WORKER_STAY_MS: u64 = 500;
/// Members of a shared subscription that hand a message on, having left, having no room or being denied it, before the one
/// that has it then keeps, drops or holds it back.
pub(crate) const SHARED_ASKED_MAX: u8 = 16;
/// Members of a shared subscription with the same room that are looked at for one to whom the access rules deny nothing.
pub(crate) const SHARED_SEARCHED_MAX: usize = 1_024;
/// Members among which the one with the fewest messages in flight is chosen; they begin with the next one each time.
pub(crate) const SHARED_COMPARED_MAX: usize = 64;
/// Places of a member on the ring of a sticky shared subscription: the more, the more even the shares, and the larger the
/// member.
pub(crate) const SHARED_STICKY_POINTS: u32 = 32;
/// Shares of `memory_bytes_max` from which on new clients are refused, QoS 0 is dropped, queues are cut; and how far below
/// each of these it ends.
pub(crate) const MEMORY_REFUSE_PERCENT: u64 = 80;
pub(crate) const MEMORY_SHED_PERCENT: u64 = 90;
pub(crate) const MEMORY_CUT_PERCENT: u64 = 100;
pub(crate) const MEMORY_EASE_PERCENT: u64 = 2;
/// After queues were cut, the time until that is judged: the allocator keeps what is free for a second.
pub(crate) const MEMORY_CUT_PAUSE_MS: u64 = 1_500;
/// How long a worker that knows how large its queues are waits for the others, before it cuts the node's largest.
pub(crate) const MEMORY_TELL_MS: u64 = 50;
/// What may wait for a client's socket while queues are cut.
pub(crate) const MEMORY_OUTBOX_BYTES: usize = 65_536;
/// Sessions and subscriptions that a worker looks at in one turn for an operator: well below a millisecond, also where each
/// of them misses the processor's caches.
pub const ADMIN_ENTRIES_PER_TURN_MAX: u32 = 1_024;
/// Entries of each worker's log of who lost what.
pub const LOSSES_PER_WORKER_MAX: usize = 1_024;
/// Bytes of a client identifier and of a topic in that log; longer ones are cut.
pub const LOSS_TEXT_BYTES_MAX: usize = 256;
/// Topics that a worker counts while somebody looks for those with most publishes.
pub const TOPICS_COUNTED_MAX: usize = 1_024;
/// Traces of one worker at a time.
pub const TRACES_MAX: usize = 16;
/// Bytes of a payload, and of any other text of a client, in a line of a trace.
pub const TRACE_PAYLOAD_BYTES_MAX: usize = 64;
/// See [`TRACE_PAYLOAD_BYTES_MAX`].
pub const TRACE_TEXT_BYTES_MAX: usize = 256;
/// Client identifiers and networks that may be banned at a time.
pub const BANS_MAX: usize = 4_096;
/// Sessions whose queues are looked at in one turn, to cut the largest.
pub(crate) const SESSIONS_LOOKED_AT_PER_TURN: u32 = 65_536;
/// The largest number of workers: a session's worker is 6 bits of its number.
pub const WORKERS_MAX: usize = 64;
/// The largest number of sessions a worker holds: 26 bits of a session's number.
pub const SESSIONS_PER_WORKER_MAX: usize = 1 << 26;

macro_rules! at_run_time {
    ($($name:ident,)+) => {
        impl Limits {
            /// Bounds that may change while the workers run. Others were told to clients, set timers, or made tables.
            pub const AT_RUN_TIME: &[&str] = &[$(stringify!($name)),+];

            /// Takes these over from others.
            pub(crate) fn take_over(&mut self, new: &Self) {
                $(self.$name = new.$name;)+
            }
        }
    };
}

at_run_time! {
    client_id_bytes_max,
    topic_levels_max,
    subscriptions_max,
    subscription_bytes_max,
    filters_per_packet_max,
    shared_groups_per_session_max,
    shared_groups_per_filter_max,
    inflight_messages_max,
    queue_messages_max,
    queue_bytes_max,
    outbox_bytes_max,
    write_stall_ms,
    session_expiry_max_s,
    keep_alive_max_s,
    offline_sessions_max,
    read_bytes_per_turn,
    read_ahead_bytes_max,
    read_ahead_node_bytes_max,
    waiting_wills_bytes_max,
    retained_per_turn,
    inbox_entries_max,
    inbox_bytes_max,
}

impl Limits {
    /// Refuses values outside their range, and impossible relations between them.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), settings::Error> {
        self.check_keys()?;
        // A packet that may be received must fit where it is sent from, or it could never be delivered.
        let packet = u64::from(self.packet_bytes_max);
        for (key, bytes) in [
            ("outbox_bytes_max", self.outbox_bytes_max),
            ("queue_bytes_max", self.queue_bytes_max),
        ] {
            if bytes < packet {
                let allowed = format!("at least packet_bytes_max ({packet})");
                return Err(settings::Error::new(key, bytes, allowed));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn an_outbox_smaller_than_a_packet_is_refused_by_name() {
        let limits = Limits {
            outbox_bytes_max: 1_000,
            ..Limits::default()
        };
        let error = limits.validate().unwrap_err().to_string();
        assert!(error.contains("outbox_bytes_max"), "{error}");
        assert!(error.contains("packet_bytes_max"), "{error}");
    }
}
