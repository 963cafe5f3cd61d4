//! `$SYS/broker/…`: the node's basic figures as retained messages, as other brokers publish them.

use codec::Qos;

use super::Worker;
use super::deliver::Origin;
use crate::message::MessageParts;
use crate::session::Routed;
use crate::stats::Stats;

impl Worker {
    pub(super) fn publish_sys(&mut self) {
        let mut stats = Stats::default();
        for counters in &self.shared.counters {
            counters.add_to(&mut stats);
        }
        self.shared.router.add_to(&mut stats);
        let figures = [
            (
                "version",
                format!("millstream {}", env!("CARGO_PKG_VERSION")),
            ),
            ("uptime", format!("{} seconds", self.now.0 / 1_000)),
            ("clients/connected", stats.clients.to_string()),
            ("clients/total", stats.sessions.to_string()),
            (
                "clients/disconnected",
                stats.sessions.saturating_sub(stats.clients).to_string(),
            ),
            ("subscriptions/count", stats.subscriptions.to_string()),
            (
                "retained messages/count",
                stats.retained_messages.to_string(),
            ),
            ("messages/received", stats.packets_received.to_string()),
            (
                "publish/messages/received",
                stats.publishes_received().to_string(),
            ),
            (
                "publish/messages/sent",
                (stats.delivered_qos0 + stats.delivered_acknowledged).to_string(),
            ),
            (
                "publish/messages/dropped",
                stats.deliveries_dropped().to_string(),
            ),
            ("bytes/received", stats.bytes_received.to_string()),
            ("bytes/sent", stats.bytes_sent.to_string()),
        ];
        let unmatched = self.counts.publishes_unmatched;
        for (name, value) in figures {
            let topic = format!("$SYS/broker/{name}");
            let parts = MessageParts {
                topic: &topic,
                payload: value.as_bytes(),
                qos: Qos::AtMostOnce,
                retain: true,
                properties: &[],
                expires_at: None,
                arrived_at: self.now,
            };
            self.route(
                &mut Routed {
                    parts,
                    shared: None,
                },
                Origin::Nobody,
                None,
            );
        }
        self.counts.publishes_unmatched = unmatched; // these are no client's publishes
    }
}
