//! What the broker counts. Each worker counts in plain integers of its own and publishes them once a turn, so counting
//! costs an addition; [`Stats`] is their sum. Every message is counted once by where it ended, and the sums add up:
//! [`Stats::unaccounted`] is 0 whenever the workers are at rest.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::losses::Losses;
use crate::times::{SharedTimes, Times};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One worker's own counts.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Local {
            $(pub(crate) $name: u64,)+
            pub(crate) acknowledgement_times: Times,
            pub(crate) delivery_times: Times,
            pub(crate) losses: Losses,
        }

        /// One worker's counts as others see them: as of the end of its last turn.
        #[derive(Debug, Default)]
        #[repr(align(128))] // two workers never write to one cache line
        pub(crate) struct Counters {
            $($name: AtomicU64,)+
            acknowledgement_times: SharedTimes,
            delivery_times: SharedTimes,
        }

        impl Counters {
            pub(crate) fn publish(&self, local: &Local) {
                $(self.$name.store(local.$name, Ordering::Relaxed);)+
                self.acknowledgement_times.publish(&local.acknowledgement_times);
                self.delivery_times.publish(&local.delivery_times);
            }

            /// Bytes that this worker's parts hold.
            pub(crate) fn memory(&self) -> u64 {
                let mut sum = 0_u64;
                $(if stringify!($name).starts_with("memory_") {
                    sum = sum.wrapping_add(self.$name.load(Ordering::Relaxed));
                })+
                sum
            }

            pub(crate) fn add_to(&self, stats: &mut Stats) {
                $(stats.$name = stats.$name.wrapping_add(self.$name.load(Ordering::Relaxed));)+
                self.acknowledgement_times.add_to(&mut stats.acknowledgement_times);
                self.delivery_times.add_to(&mut stats.delivery_times);
            }
        }

        /// The counts of a node.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Subscriptions now (one per session and filter).
            pub subscriptions: u64,
            /// Those of them that are shared.
            pub shared_subscriptions: u64,
            /// Retained messages now.
            pub retained_messages: u64,
            /// Bytes of retained messages now.
            pub retained_bytes: u64,
            /// Entries that wait in the workers' inboxes now.
            pub inbox_entries: u64,
            /// Bytes that these entries hold.
            pub inbox_bytes: u64,
            /// Bytes that were read and wait now, because their client's publishes do.
            pub read_ahead_bytes: u64,
            /// From a publish of QoS 1 or 2 to its PUBACK or PUBREC.
            pub acknowledgement_times: Times,
            /// From a publish to a receiver's outbox, what waited for a client that was away included.
            pub delivery_times: Times,
            /// Memory that is used: what the process has resident, where that is told, else the sum of what is counted.
            pub budget_used_bytes: u64,
            /// The bound on it; 0 is none.
            pub budget_bytes: u64,
            /// Bytes of wills that wait to be stored.
            pub waiting_will_bytes: u64,
        }

        impl Stats {
            /// Every counter's name, what it counts, and its value.
            #[must_use]
            pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![
                    $((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)+
                    ("subscriptions", "Subscriptions now (one per session and filter).", self.subscriptions),
                    ("shared_subscriptions", "Shared subscriptions now (one per session, group and filter).", self.shared_subscriptions),
                    ("retained_messages", "Retained messages now.", self.retained_messages),
                    ("retained_bytes", "Bytes of retained messages now.", self.retained_bytes),
                    ("inbox_entries", "Entries that wait in the workers' inboxes now.", self.inbox_entries),
                    ("read_ahead_bytes", "Bytes that were read and wait now, because their client's publishes do.", self.read_ahead_bytes),
                    ("memory_inboxes", "Bytes that entries in the workers' inboxes hold now.", self.inbox_bytes),
                    ("memory_retained", "Bytes of retained messages now.", self.retained_bytes),
                    ("budget_used_bytes", "Memory used now: what is resident, where the system tells, else what is counted.", self.budget_used_bytes),
                    ("budget_bytes", "Memory that may be used now; 0 is without bound.", self.budget_bytes),
                    ("memory_read_ahead", "Bytes that were read ahead of publishes that wait now.", self.read_ahead_bytes),
                    ("memory_wills", "Bytes of wills that wait to be stored now.", self.waiting_will_bytes),
                ]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_opened,
    /// Times that a connection could not be accepted for want of files or memory; it waits in the kernel.
    connections_unaccepted,
    /// Connections closed, for any reason.
    connections_closed,
    /// Connections now (accepted, closed ones that still read our last packet included).
    connections,
    /// Clients connected now (a CONNECT was accepted).
    clients,
    /// Clients whose CONNECT was accepted.
    clients_connected,
    /// Sessions now, connected or not.
    sessions,
    /// Bytes received.
    bytes_received,
    /// Bytes written to sockets.
    bytes_sent,
    /// Packets received.
    packets_received,
    /// Packets written to clients' outboxes.
    packets_sent,
    /// Publishes written to clients' outboxes, those that are sent again included.
    publishes_sent,
    /// Bytes of payloads of publishes received.
    payload_bytes_received,
    /// Bytes of payloads of publishes written to clients' outboxes.
    payload_bytes_sent,
    /// Sessions that ended because their clients were away for too long.
    sessions_expired,
    /// Publishes received with QoS 0.
    publishes_received_qos0,
    /// Publishes received with QoS 1.
    publishes_received_qos1,
    /// Publishes received with QoS 2.
    publishes_received_qos2,
    /// QoS 2 publishes received again with a packet identifier that was already taken: answered, not routed again.
    publishes_duplicate,
    /// Publishes refused by the access rules.
    denied_access,
    /// Publishes refused: to a topic of the broker's own (`$…`).
    denied_reserved_topic,
    /// Clients whose credentials are being looked at now.
    clients_asked,
    /// Clients refused: their user name, password, token or certificate is not right.
    clients_refused_credentials,
    /// Clients refused: they do not say who they are, or may not connect as who they are.
    clients_refused_identity,
    /// Clients refused: their address has too many attempts under way or failed.
    clients_refused_attempts,
    /// Clients refused: too many credentials wait to be looked at.
    clients_refused_busy,
    /// Clients refused: whoever would know them did not answer.
    clients_refused_unavailable,
    /// Clients that sent a password, which nobody checks.
    passwords_unchecked,
    /// Deliveries held back from a subscription because the access rules deny their topic.
    deliveries_withheld,
    /// Publishes that matched no subscription.
    publishes_unmatched,
    /// Publishes that the sink did not want.
    sink_not_stored,
    /// Publishes that the sink took without a later settlement.
    sink_accepted,
    /// Publishes that the sink took pending.
    sink_taken,
    /// Pending publishes that were settled as stored.
    sink_stored,
    /// Publishes that the sink refused for good, at once or later.
    sink_refused,
    /// Times that a publisher was held because the sink had no room.
    sink_busy,
    /// QoS 0 publishes dropped because the sink had no room.
    sink_dropped_qos0,
    /// Publishes that wait now for the sink to settle them.
    sink_pending,
    /// Clients whose publishes wait now until the sink settles or takes one.
    publishers_held,
    /// Times that a client's publishes had to wait because it had been closed for a refused one.
    publishers_paused,
    /// Publishes that were read and wait now, because their client's publishes do.
    publishes_read_ahead,
    /// Publishes that were read and waited when their client's connection ended: dropped, and none was acknowledged.
    read_ahead_dropped,
    /// Deliveries: a message matched a session (retained messages sent on subscribing included).
    deliveries,
    /// Deliveries with QoS 0 handed to the socket's outbox.
    delivered_qos0,
    /// Deliveries with QoS 1 or 2 that the client acknowledged.
    delivered_acknowledged,
    /// Deliveries that the client refused with a reason code of 0x80 or more.
    delivered_refused,
    /// Deliveries of shared subscriptions given to another member, where they count again.
    delivered_elsewhere,
    /// Deliveries in flight now: sent and not acknowledged.
    inflight,
    /// Deliveries that wait in sessions' queues now.
    queued,
    /// QoS 0 deliveries dropped: the client is not connected.
    dropped_offline,
    /// QoS 0 deliveries dropped: the client reads too slowly.
    dropped_outbox_full,
    /// QoS 1 and 2 deliveries dropped: the session's queue is full.
    dropped_queue_full,
    /// Deliveries dropped: the node's memory is at its bound.
    dropped_memory,
    /// Deliveries dropped: the message expired first.
    dropped_expired,
    /// Deliveries dropped: larger than the client accepts.
    dropped_too_large,
    /// Deliveries dropped: the session ended.
    dropped_session_ended,
    /// Messages not retained: the bound on retained messages is reached.
    retained_refused,
    /// Messages not retained: their client has set as many as it may.
    retained_refused_client,
    /// Clients refused: the node's memory is at its bound.
    clients_refused_memory,
    /// Clients refused: they, or where they come from, are banned.
    clients_refused_banned,
    /// Bytes of messages in sessions' queues and in flight now; a message counts in each.
    memory_queues,
    /// Bytes that wait for sockets now.
    memory_outboxes,
    /// Wills published.
    wills_published,
    /// Wills that were published and wait now for room in the sink: their sessions have ended.
    wills_waiting,
    /// Wills that were published and not stored: the sink had no room until their client was back, or too many waited.
    wills_not_stored,
    /// Connections closed: not MQTT (the first packet is no CONNECT, or one of another protocol).
    closed_not_mqtt,
    /// Connections closed: no whole CONNECT in time.
    closed_connect_timeout,
    /// Connections closed: a malformed packet.
    closed_malformed,
    /// Connections closed: a packet against the protocol.
    closed_protocol_error,
    /// Connections closed: a packet larger than allowed.
    closed_too_large,
    /// Connections closed: more publishes unacknowledged than the receive maximum allows.
    closed_receive_maximum,
    /// Connections closed: nothing heard within one and a half keep-alive times.
    closed_keep_alive,
    /// Connections closed: the client took nothing for too long.
    closed_write_stall,
    /// Connections closed: the same client connected again.
    closed_taken_over,
    /// Connections closed: an operator disconnected the client.
    closed_by_operator,
    /// Connections closed: the sink or the access rules refused a 3.x client's publish, which has no other answer.
    closed_publish_refused,
    /// Connections closed: CONNECT refused.
    closed_connect_refused,
    /// Connections closed: what came is not what the listener's TLS or WebSocket has to be, or may not come in.
    closed_layer,
    /// Connections closed: over the bound on connections or sessions.
    closed_limit,
    /// Connections closed: the client said DISCONNECT.
    closed_by_client,
    /// Connections closed: the client went away without DISCONNECT.
    closed_lost,
    /// Connections closed: their users have changed, or are none any more.
    closed_not_authorized,
    /// Connections closed: what their clients were let in by has ended.
    closed_expired,
    /// Connections closed: the broker shuts down.
    closed_shutdown,
    /// Subscriptions refused (access rules, bad filters, bounds).
    subscriptions_refused,
}

impl Stats {
    /// Publishes received, of any QoS.
    #[must_use]
    pub fn publishes_received(&self) -> u64 {
        self.publishes_received_qos0 + self.publishes_received_qos1 + self.publishes_received_qos2
    }

    /// Publishes refused by the access rules, or because their topic is the broker's own.
    #[must_use]
    pub fn publishes_denied(&self) -> u64 {
        self.denied_access + self.denied_reserved_topic
    }

    /// Deliveries dropped, for any reason.
    #[must_use]
    pub fn deliveries_dropped(&self) -> u64 {
        self.dropped_offline
            + self.dropped_outbox_full
            + self.dropped_queue_full
            + self.dropped_memory
            + self.dropped_expired
            + self.dropped_too_large
            + self.dropped_session_ended
    }

    /// Deliveries that ended nowhere: 0, or something was lost. (While workers run, a snapshot may be off by what is
    /// under way.)
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let ended = self.delivered_qos0
            + self.delivered_acknowledged
            + self.delivered_refused
            + self.delivered_elsewhere
            + self.deliveries_dropped();
        self.deliveries as i64 - (ended + self.inflight + self.queued) as i64
    }
}
