//! `$SYS/broker/…`: figures of this node as retained messages, with the names and units that mosquitto gives them, so that
//! what was made for its figures reads ours.

use codec::Qos;

use super::Worker;
use super::deliver::Origin;
use crate::message::MessageParts;
use crate::session::Routed;
use crate::stats::Stats;
use crate::time::Time;

/// Over how many minutes loads are averaged.
const MINUTES: [u32; 3] = [1, 5, 15];

/// What loads are told of: the name, and the count whose growth in a minute it is.
type Load = (&'static str, fn(&Stats) -> u64);

const LOADS: [Load; 9] = [
    ("messages/received", |stats| stats.packets_received),
    ("messages/sent", |stats| stats.packets_sent),
    ("publish/received", Stats::publishes_received),
    ("publish/sent", |stats| stats.publishes_sent),
    ("publish/dropped", Stats::deliveries_dropped),
    ("bytes/received", |stats| stats.bytes_received),
    ("bytes/sent", |stats| stats.bytes_sent),
    ("sockets", |stats| stats.connections_opened),
    ("connections", |stats| stats.clients_connected),
];

/// What has to be remembered from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Sys {
    /// When that was.
    at: Time,
    counts: [u64; LOADS.len()],
    loads: [[f64; MINUTES.len()]; LOADS.len()],
    clients_max: u64,
    memory_max: u64,
}

impl Sys {
    /// Averages that forget, as mosquitto computes them: what came since the last time counts as much as that time is of the
    /// minutes.
    fn update(&mut self, stats: &Stats, now: Time) {
        self.clients_max = self.clients_max.max(stats.clients);
        self.memory_max = self.memory_max.max(stats.budget_used_bytes);
        let minutes = now.since_ms(self.at) as f64 / 60_000.0;
        if minutes == 0.0 {
            return;
        }
        self.at = now;
        for (at, (_, count)) in LOADS.iter().enumerate() {
            let now = count(stats);
            let before = std::mem::replace(&mut self.counts[at], now);
            let a_minute = now.saturating_sub(before) as f64 / minutes;
            for (load, over) in self.loads[at].iter_mut().zip(MINUTES) {
                let keeps = (-minutes / f64::from(over)).exp();
                *load = a_minute + keeps * (*load - a_minute);
            }
        }
    }
}

impl Worker {
    pub(super) fn publish_sys(&mut self) {
        let stats = crate::handle::Handle(std::sync::Arc::clone(&self.shared)).stats();
        let mut sys = self.sys.take().unwrap_or_default();
        sys.update(&stats, self.now);
        let away = stats.sessions.saturating_sub(stats.clients);
        let stored = stats.queued + stats.inflight + stats.retained_messages;
        let version = format!("millstream {}", env!("CARGO_PKG_VERSION"));
        let uptime = format!("{} seconds", self.now.0 / 1_000);
        self.publish_figure("version", &version);
        self.publish_figure("uptime", &uptime);
        for (name, value) in [
            ("clients/connected", stats.clients),
            ("clients/active", stats.clients),
            ("clients/disconnected", away),
            ("clients/inactive", away),
            ("clients/total", stats.sessions),
            ("clients/maximum", sys.clients_max),
            ("clients/expired", stats.sessions_expired),
            ("subscriptions/count", stats.subscriptions),
            ("shared_subscriptions/count", stats.shared_subscriptions),
            ("retained messages/count", stats.retained_messages),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            (
                "store/messages/bytes",
                stats.memory_queues + stats.retained_bytes,
            ),
            ("messages/received", stats.packets_received),
            ("messages/sent", stats.packets_sent),
            ("publish/messages/received", stats.publishes_received()),
            ("publish/messages/sent", stats.publishes_sent),
            ("publish/messages/dropped", stats.deliveries_dropped()),
            ("publish/bytes/received", stats.payload_bytes_received),
            ("publish/bytes/sent", stats.payload_bytes_sent),
            ("bytes/received", stats.bytes_received),
            ("bytes/sent", stats.bytes_sent),
            ("heap/current", stats.budget_used_bytes),
            ("heap/maximum", sys.memory_max),
        ] {
            self.publish_figure(name, &value.to_string());
        }
        for ((name, _), loads) in LOADS.iter().zip(&sys.loads) {
            for (load, over) in loads.iter().zip(MINUTES) {
                self.publish_figure(&format!("load/{name}/{over}min"), &format!("{load:.2}"));
            }
        }
        self.sys = Some(sys);
    }

    fn publish_figure(&mut self, name: &str, value: &str) {
        // These are no client's publishes.
        let unmatched = self.counts.publishes_unmatched;
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
        let mut routed = Routed {
            parts,
            shared: None,
        };
        self.route(&mut routed, Origin::Nobody, None);
        self.counts.publishes_unmatched = unmatched;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_come_to_the_rate_of_a_minute_and_forget_it() {
        let mut sys = Sys::default();
        let mut stats = Stats::default();
        let mut now = Time(0);
        let mut pass = |sys: &mut Sys, stats: &mut Stats, minutes: u64, bytes: u64| {
            for _ in 0..minutes * 6 {
                now = now.plus_s(10);
                stats.bytes_sent += bytes;
                sys.update(stats, now);
            }
            sys.loads[6]
        };
        // 100 bytes in ten seconds are 600 in a minute.
        let [one, five, fifteen] = pass(&mut sys, &mut stats, 1, 100);
        assert!((379.0..380.0).contains(&one), "{one}: 1 - 1/e of 600");
        assert!(five < one && fifteen < five);
        let long = pass(&mut sys, &mut stats, 120, 100);
        assert!(
            long.iter().all(|load| (599.0..=600.0).contains(load)),
            "{long:?}"
        );
        let [one, five, fifteen] = pass(&mut sys, &mut stats, 5, 0);
        assert!(one < 5.0 && (220.0..222.0).contains(&five) && fifteen > 400.0);
        assert_eq!(sys.loads[0], [0.0; 3]);
    }
}
