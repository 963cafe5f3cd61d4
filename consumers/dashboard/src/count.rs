//! What a batch of records adds up to: pure, from records to sums.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use runtime::{Batch, Pattern, Poison, Stage};

/// The longest latency that is told apart, in microseconds: an hour. Longer ones count as this.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// Significant decimal digits of a latency: 1 in 100.
const LATENCY_DIGITS: u8 = 2;

/// The longest name of a device or room that is counted as active, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The longest prefix that is counted by itself, in bytes.
const PREFIX_BYTES_MAX: usize = 128;

/// The prefix under which messages are counted whose own is too long, or one too many.
pub(crate) const OTHER: &str = "(other)";

/// A histogram of latencies in microseconds, with the bounds that all of them have.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, LATENCY_DIGITS)
        .expect("the bounds are constants that a test has checked")
}

/// What can be active. The numbers are what the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Device = 1,
    Room = 2,
}

impl Kind {
    pub(crate) fn code(self) -> i64 {
        self as i64
    }
}

/// Messages and the bytes of their payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub messages: u64,
    pub bytes: u64,
}

/// What some records add up to.
#[derive(Debug, Default)]
pub(crate) struct Counts<'a> {
    /// By prefix, as [`prefix`] writes it.
    pub prefixes: HashMap<&'a str, Volume>,
    /// Messages by latency: the least value that the histogram does not tell apart, in microseconds.
    pub latencies: HashMap<u64, u64>,
    /// When each device or room was last heard of, milliseconds since the Unix epoch.
    pub active: HashMap<(Kind, &'a str), i64>,
}

/// How to count.
pub(crate) struct Counter {
    pub devices: Pattern<1>,
    pub rooms: Pattern<1>,
    pub prefix_levels: usize,
    /// Never recorded into: it knows which latencies are told apart.
    pub scale: Histogram<u64>,
}

impl Counter {
    /// Counts the records of `batch` whose offset `is_new`, at the time `now_micros`; `poison` gets those that cannot be
    /// counted, new or not.
    pub(crate) fn count<'a>(
        &self,
        batch: &'a Batch,
        is_new: impl Fn(i64) -> bool,
        now_micros: u64,
        poison: &mut Vec<Poison>,
    ) -> Counts<'a> {
        let now_ms = millis(now_micros);
        let mut counts = Counts::default();
        for record in batch.iter() {
            let envelope = match record.envelope() {
                Ok(envelope) => envelope,
                Err(error) => {
                    poison.push(Poison::new(
                        record,
                        Stage::HeaderConverter,
                        "MalformedRecord",
                        error.to_string(),
                    ));
                    continue;
                }
            };
            if !is_new(record.offset()) {
                continue;
            }
            let volume = counts
                .prefixes
                .entry(prefix(envelope.topic, self.prefix_levels))
                .or_default();
            volume.messages += 1;
            volume.bytes += envelope.payload.len() as u64;
            if let Some(received) = envelope.received_at_micros {
                // Clocks of two machines differ: what seems to come from the future took no time.
                let micros = now_micros
                    .saturating_sub(received)
                    .clamp(1, LATENCY_MICROS_MAX);
                *counts
                    .latencies
                    .entry(self.scale.lowest_equivalent(micros))
                    .or_default() += 1;
            }
            let seen_ms = envelope
                .received_at_micros
                .map(millis)
                .or(record.timestamp_ms())
                .unwrap_or(now_ms);
            let device = self
                .devices
                .read_beginning(envelope.topic)
                .map(|[device]| (Kind::Device, device));
            let room = self
                .rooms
                .read_beginning(envelope.topic)
                .map(|[room]| (Kind::Room, room));
            for who in [device, room]
                .into_iter()
                .flatten()
                .filter(|(_, name)| name.len() <= NAME_BYTES_MAX)
            {
                let seen = counts.active.entry(who).or_insert(0);
                // Nobody is active in the future.
                *seen = seen_ms.min(now_ms).max(*seen);
            }
        }
        counts
    }
}

fn millis(micros: u64) -> i64 {
    i64::try_from(micros / 1_000).unwrap_or(i64::MAX)
}

/// The first `levels` levels of a topic, with a `/` at the end when there are more.
fn prefix(topic: &str, levels: usize) -> &str {
    let end = topic
        .match_indices('/')
        .nth(levels - 1)
        .map_or(topic.len(), |(at, _)| at + 1);
    if end > PREFIX_BYTES_MAX {
        OTHER
    } else {
        &topic[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_766_000_000_000_000;

    fn counter() -> Counter {
        Counter {
            devices: Pattern::new("devices/{device}", ["device"]).expect("a good pattern"),
            rooms: Pattern::new("rooms/{room}", ["room"]).expect("a good pattern"),
            prefix_levels: 1,
            scale: latencies(),
        }
    }

    fn batch(records: &[(&str, &str, Option<&str>)]) -> Batch {
        let mut batch = Batch::new("mqtt.messages", 0);
        for (offset, (topic, payload, received)) in (0..).zip(records) {
            let header = received.map(|received| ("mqtt.received-at", Some(received.as_bytes())));
            batch.push(
                offset,
                Some(5),
                Some(topic.as_bytes()),
                Some(payload.as_bytes()),
                header,
            );
        }
        batch
    }

    #[test]
    fn messages_are_counted_by_the_first_levels_of_their_topic() {
        let batch = batch(&[
            ("devices/d-1/telemetry/t", "21.5", None),
            ("rooms/lobby/messages", "hello", None),
            ("devices/d-2/telemetry/t", "1", None),
            ("lonely", "", None),
            ("/empty/first", "x", None),
        ]);
        let counts = counter().count(&batch, |_| true, NOW, &mut Vec::new());
        let volume = |messages, bytes| Volume { messages, bytes };
        assert_eq!(
            counts.prefixes,
            HashMap::from([
                ("devices/", volume(2, 5)),
                ("rooms/", volume(1, 5)),
                ("lonely", volume(1, 0)),
                ("/", volume(1, 1)),
            ])
        );
    }

    #[test]
    fn a_prefix_has_as_many_levels_as_configured_and_a_bound() {
        assert_eq!(prefix("a/b/c", 1), "a/");
        assert_eq!(prefix("a/b/c", 2), "a/b/");
        assert_eq!(prefix("a/b/c", 3), "a/b/c");
        assert_eq!(prefix("a/b/c", 8), "a/b/c");
        assert_eq!(prefix(&"x".repeat(PREFIX_BYTES_MAX + 1), 1), OTHER);
    }

    #[test]
    fn devices_and_rooms_are_active_when_they_were_last_heard_of() {
        let received = (NOW - 7_000_000).to_string();
        let later = (NOW + 7_000_000).to_string();
        let batch = batch(&[
            ("devices/d-1/telemetry/t", "1", Some(&received)),
            ("devices/d-1/replies/r", "1", None),
            ("rooms/lobby/messages", "1", Some(&later)),
            ("devices", "1", None),
        ]);
        let counts = counter().count(&batch, |_| true, NOW, &mut Vec::new());
        let now_ms = millis(NOW);
        assert_eq!(
            counts.active,
            HashMap::from([
                ((Kind::Device, "d-1"), now_ms - 7_000),
                ((Kind::Room, "lobby"), now_ms)
            ])
        );
    }

    #[test]
    fn latency_is_from_receipt_to_now_within_the_histogram() {
        let ago = |micros: u64| (NOW - micros).to_string();
        let (quick, slow, ahead) = (
            ago(1_234),
            ago(LATENCY_MICROS_MAX * 2),
            (NOW + 5).to_string(),
        );
        let batch = batch(&[
            ("a", "", Some(&quick)),
            ("a", "", Some(&slow)),
            ("a", "", Some(&ahead)),
            ("a", "", None),
        ]);
        let counter = counter();
        let counts = counter.count(&batch, |_| true, NOW, &mut Vec::new());
        let mut found: Vec<_> = counts.latencies.into_iter().collect();
        found.sort_unstable();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], (1, 1));
        assert!(found[1].0 <= 1_234 && 1_234 - found[1].0 <= 12, "{found:?}");
        assert_eq!(
            found[2].0,
            counter.scale.lowest_equivalent(LATENCY_MICROS_MAX)
        );
    }

    #[test]
    fn records_seen_before_count_nothing_but_poison_stays_poison() {
        let mut batch = batch(&[("a", "", None), ("a/#", "", None), ("a", "", Some("soon"))]);
        batch.push(3, None, None, Some(b"x"), []);
        let mut poison = Vec::new();
        let counts = counter().count(&batch, |_| false, NOW, &mut poison);
        assert!(
            counts.prefixes.is_empty() && counts.latencies.is_empty() && counts.active.is_empty()
        );
        let reasons: Vec<_> = poison
            .iter()
            .map(|poison| (poison.offset(), poison.reason()))
            .collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(
            reasons[0].1.starts_with("key is no topic name"),
            "{reasons:?}"
        );
        assert_eq!(
            reasons[1],
            (
                2,
                "mqtt.received-at must be microseconds since 1970 in decimal digits"
            )
        );
        assert!(
            reasons[2]
                .1
                .contains("neither the header mqtt.topic nor a key"),
            "{reasons:?}"
        );
    }

    #[test]
    fn payloads_are_counted_and_not_read() {
        let huge = "9".repeat(400);
        let batch = batch(&[
            ("devices/d/telemetry/t", "not JSON", None),
            ("devices/d/telemetry/t", &huge, None),
        ]);
        let mut poison = Vec::new();
        let counts = counter().count(&batch, |_| true, NOW, &mut poison);
        assert_eq!(
            counts.prefixes["devices/"],
            Volume {
                messages: 2,
                bytes: 408
            }
        );
        assert!(poison.is_empty());
    }
}
