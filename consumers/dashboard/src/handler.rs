//! Counts each batch in one transaction.

use runtime::{Batch, Growth, HandleError, Handler, Outcome};

use crate::clock::now_micros;
use crate::count::Counter;
use crate::store::{Noted, Store};

/// The dashboard's [`Handler`].
pub(crate) struct Count {
    pub store: Store,
    pub counter: Counter,
    pub prefixes_max: u32,
    pub active_max: u32,
    pub growth: Growth,
    pub noted: Noted,
}

impl Handler for Count {
    fn store(&self) -> Option<runtime::store::Store> {
        Some(self.store.file().clone())
    }

    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        let bounds = (self.prefixes_max, self.active_max);
        let (poison, too_many) = self
            .store
            .apply(
                batches,
                &self.counter,
                bounds,
                &mut self.noted,
                now_micros(),
            )
            .await?;
        self.growth
            .refused("active_max", self.active_max.into(), too_many);
        Ok(Outcome {
            downlink: Vec::new(),
            poison,
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::config::Config;
    use crate::count::{OTHER, latencies};
    use crate::store::{TABLES, Totals};

    struct Case {
        count: Count,
        _dir: tempfile::TempDir,
    }

    async fn case(prefixes_max: u32) -> Case {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("dashboard.db").display());
        let config = Config::default();
        let store = Store::open(&url).await.expect("opens");
        let count = Count {
            counter: Counter {
                devices: config.device_pattern().expect("a good default"),
                rooms: config.room_pattern().expect("a good default"),
                prefix_levels: 1,
                scale: latencies(),
            },
            prefixes_max,
            active_max: 100,
            growth: Growth::new(store.file(), "g", TABLES, &[], &Registry::new())
                .expect("registers"),
            store,
            noted: Noted::default(),
        };
        Case { count, _dir: dir }
    }

    fn batch(topic: &str, first_offset: i64, topics: &[&str]) -> Batch {
        let mut batch = Batch::new(topic, 0);
        let received = now_micros().to_string();
        for (offset, mqtt_topic) in (first_offset..).zip(topics) {
            let headers = [("mqtt.received-at", Some(received.as_bytes()))];
            batch.push(
                offset,
                Some(1),
                Some(mqtt_topic.as_bytes()),
                Some(b"12345"),
                headers,
            );
        }
        batch
    }

    impl Case {
        async fn totals(&self) -> Totals {
            self.count.store.totals(0).await.expect("reads")
        }

        /// Prefix and messages.
        async fn counted(&self) -> Vec<(String, u64)> {
            self.totals()
                .await
                .prefixes
                .into_iter()
                .map(|(prefix, volume)| (prefix, volume.messages))
                .collect()
        }
    }

    #[tokio::test]
    async fn everything_is_counted_once_however_often_it_comes() {
        let mut case = case(10).await;
        let first = batch(
            "iot.telemetry",
            0,
            &[
                "devices/d-1/telemetry/t",
                "devices/d-2/telemetry/t",
                "rooms/lobby/messages",
            ],
        );
        let again = batch(
            "iot.telemetry",
            1,
            &[
                "devices/d-2/telemetry/t",
                "rooms/lobby/messages",
                "devices/d-3/telemetry/t",
            ],
        );
        let other = batch("chat.messages", 0, &["rooms/den/messages"]);
        case.count.handle(&[first, other]).await.expect("counts");
        case.count
            .handle(std::slice::from_ref(&again))
            .await
            .expect("counts");
        case.count.handle(&[again]).await.expect("counts");
        let totals = case.totals().await;
        assert_eq!((totals.volume().messages, totals.volume().bytes), (5, 25));
        assert_eq!(
            case.counted().await,
            [("devices/".to_owned(), 3), ("rooms/".to_owned(), 2)]
        );
        assert_eq!((totals.devices, totals.rooms), (3, 2));
        assert_eq!(totals.latencies.values().sum::<u64>(), 5);
    }

    #[tokio::test]
    async fn prefixes_are_bounded_and_nothing_is_uncounted() {
        let mut case = case(2).await;
        case.count
            .handle(&[batch("mqtt.messages", 0, &["a/x", "b/x"])])
            .await
            .expect("counts");
        case.count
            .handle(&[batch("mqtt.messages", 2, &["c/x", "a/x", "d/x"])])
            .await
            .expect("counts");
        assert_eq!(
            case.counted().await,
            [
                (OTHER.to_owned(), 2),
                ("a/".to_owned(), 2),
                ("b/".to_owned(), 1)
            ]
        );
    }

    #[tokio::test]
    async fn who_was_not_heard_of_is_no_longer_active_and_is_forgotten() {
        let mut case = case(10).await;
        case.count
            .handle(&[batch("iot.telemetry", 0, &["devices/d-1/telemetry/t"])])
            .await
            .expect("counts");
        let later = i64::MAX;
        assert_eq!(
            case.count.store.totals(later).await.expect("reads").devices,
            0
        );
        assert_eq!(case.count.store.forget(later).await.expect("forgets"), 1);
        assert_eq!(case.totals().await.devices, 0);
        assert_eq!(case.totals().await.volume().messages, 1);
    }

    #[tokio::test]
    async fn so_many_are_active_and_no_more_and_all_is_counted() {
        let mut case = case(10).await;
        case.count.active_max = 2;
        let topics = ["devices/a/t", "rooms/b/messages", "devices/c/t"];
        let first = [batch("mqtt.messages", 0, &topics[..1])];
        case.count.handle(&first).await.expect("counts");
        let all = [batch("mqtt.messages", 1, &topics)];
        case.count.handle(&all).await.expect("counts");
        let totals = case.totals().await;
        assert_eq!(totals.devices + totals.rooms, 2);
        assert_eq!(totals.volume().messages, 4);
        // Who is not heard of any more makes a place.
        let store = &case.count.store;
        assert_eq!(store.forget(i64::MAX).await.expect("forgets"), 2);
        case.count.noted = Noted::default();
        let more = [batch("mqtt.messages", 4, &topics[2..])];
        case.count.handle(&more).await.expect("counts");
        assert_eq!(case.totals().await.devices, 1);
    }

    #[tokio::test]
    async fn who_is_heard_of_again_stays_active() {
        let mut case = case(10).await;
        let begin_ms = i64::try_from(now_micros() / 1_000).expect("fits") - 60_000;
        for (offset, after_ms) in [(0, 0), (1, 500), (2, 1_500), (3, 1_600), (4, 30_000)] {
            let received = ((begin_ms + after_ms) * 1_000).to_string();
            let mut one = Batch::new("iot.telemetry", 0);
            let headers = [("mqtt.received-at", Some(received.as_bytes()))];
            one.push(
                offset,
                Some(1),
                Some(b"devices/d-1/telemetry/t"),
                None,
                headers,
            );
            case.count.handle(&[one]).await.expect("counts");
            // A note may be a second old, not more.
            let store = &case.count.store;
            let active =
                |since_ms| async move { store.totals(since_ms).await.expect("reads").devices };
            assert_eq!(
                active(begin_ms + after_ms - 1_000).await,
                1,
                "after {after_ms} ms"
            );
            assert_eq!(
                active(begin_ms + after_ms + 1).await,
                0,
                "after {after_ms} ms"
            );
        }
    }

    #[tokio::test]
    async fn a_record_without_a_topic_is_poison_each_time_and_the_rest_is_counted() {
        let mut case = case(10).await;
        let mut bad = batch("mqtt.messages", 0, &["a", "b"]);
        bad.push(2, Some(1), None, Some(b"x"), []);
        let bad = [bad];
        for _ in 0..2 {
            let outcome = case.count.handle(&bad).await.expect("counts");
            assert_eq!(
                outcome
                    .poison
                    .iter()
                    .map(runtime::Poison::offset)
                    .collect::<Vec<_>>(),
                [2]
            );
        }
        assert_eq!(case.totals().await.volume().messages, 2);
    }

    #[tokio::test]
    async fn totals_outlive_the_process() {
        let mut case = case(10).await;
        case.count
            .handle(&[batch("mqtt.messages", 0, &["a", "b"])])
            .await
            .expect("counts");
        let before = case.totals().await;
        case.count.store.file().close().await;
        let url = format!("sqlite:{}", case._dir.path().join("dashboard.db").display());
        let store = Store::open(&url).await.expect("opens");
        assert_eq!(store.totals(0).await.expect("reads"), before);
    }
}
