//! What keeps the store from growing without end, without Kafka.

use runtime::Batch;

use super::tests::{Case, MS, R, T, batch, reasons};
use super::*;
use crate::store::{Before, Dispatch};

const ALL: Before = Before {
    ms: i64::MAX,
    silent_ms: i64::MAX,
};
const NONE: Before = Before {
    ms: i64::MIN,
    silent_ms: i64::MIN,
};

fn telemetry(device: &str, metric: &str) -> String {
    format!("devices/{device}/telemetry/{metric}")
}

impl Case {
    async fn limited(change: impl FnOnce(&mut Limits)) -> Self {
        let mut case = Self::new().await;
        change(&mut case.handler.limits);
        case
    }

    async fn devices(&self) -> Vec<String> {
        let devices = self.handler.store.devices("", 100).await.expect("reads");
        devices.into_iter().map(|row| row.device).collect()
    }

    async fn handled(&mut self, batch: &Batch) -> Outcome {
        self.handle(std::slice::from_ref(batch)).await
    }

    /// All rounds together.
    async fn forget_all(&self, before: Before) -> u64 {
        let mut all = 0;
        loop {
            match self.forget_silent(before).await {
                0 => return all,
                rows => all += rows,
            }
        }
    }
}

#[tokio::test]
async fn of_a_series_the_latest_readings_are_kept_and_each_has_its_own_bound() {
    let mut case = Case::limited(|limits| limits.series_points_max = 3).await;
    let other = telemetry("d-2", "humidity");
    let records = [
        (T, "1"),
        (T, "2"),
        (&other, "9"),
        (T, "3"),
        (T, "4"),
        (T, "5"),
    ];
    let first = batch(0, &records);
    case.handled(&first).await;
    assert_eq!(case.forget_all(NONE).await, 2);
    assert_eq!(case.values("d-1", "temperature").await, [3.0, 4.0, 5.0]);
    assert_eq!(case.values("d-2", "humidity").await, [9.0]);
    // Records that come again do not come back.
    case.handled(&first).await;
    assert_eq!(case.values("d-1", "temperature").await, [3.0, 4.0, 5.0]);
    case.handled(&batch(6, &[(T, "6")])).await;
    assert_eq!(case.forget_all(NONE).await, 1);
    assert_eq!(case.values("d-1", "temperature").await, [4.0, 5.0, 6.0]);
    // What age takes is not counted twice.
    assert_eq!(case.forget(MS + 5).await, 2);
    case.handled(&batch(7, &[(T, "7")])).await;
    assert_eq!(case.forget_all(NONE).await, 0);
    assert_eq!(case.values("d-1", "temperature").await, [5.0, 6.0, 7.0]);
}

#[tokio::test]
async fn alerts_and_commands_that_are_over_are_kept_up_to_a_bound_and_what_is_under_way_stays() {
    let mut case = Case::limited(|limits| (limits.alerts_max, limits.commands_max) = (2, 1)).await;
    let values: Vec<(&str, &str)> = [(T, "31"), (T, "20")].repeat(4);
    case.handled(&batch(0, &values)).await;
    let alerts = case.handler.store.alerts(None, 100).await.expect("reads");
    assert_eq!(alerts.len(), 4);
    for id in ["c-1", "c-2", "c-3"] {
        case.post(id).await;
    }
    let claimed = case.handler.store.claim_commands(MS, MS + 500, 2).await;
    let sent = claimed.expect("claims").into_iter();
    let sent = sent.map(|command| (command.seq, Dispatch::Sent));
    case.handler
        .store
        .settle_commands(sent, MS)
        .await
        .expect("settles");
    let replies = [
        (R, r#"{"id":"c-2","ok":true}"#),
        (R, r#"{"id":"other-1","ok":true}"#),
        (R, r#"{"id":"other-2","ok":true}"#),
    ];
    case.handled(&batch(8, &replies)).await;
    assert_eq!(case.forget_all(NONE).await, 2 + 1 + 1);
    let kept = case.handler.store.alerts(None, 100).await.expect("reads");
    assert_eq!(kept, alerts[..2], "the latest");
    for (id, is_there) in [("c-1", true), ("c-2", false), ("c-3", true)] {
        let command = case.handler.store.command(id).await.expect("reads");
        assert_eq!(command.is_some(), is_there, "{id}");
    }
    let stray = case
        .handler
        .store
        .stray_reply("other-1")
        .await
        .expect("reads");
    assert_eq!(stray, None);
}

#[tokio::test]
async fn a_device_too_many_is_a_dead_letter_that_names_the_limit_again_and_again() {
    let mut case = Case::limited(|limits| limits.devices_max = 2).await;
    let topics = ["d-1", "d-2", "d-3", "d-1"].map(|device| telemetry(device, "t"));
    let more = telemetry("d-2", "u");
    let mut records: Vec<(&str, &str)> = topics.iter().map(|topic| (topic.as_str(), "1")).collect();
    records.push((&more, "1"));
    let first = batch(0, &records);
    for _ in 0..2 {
        let outcome = case.handled(&first).await;
        let expected = [(
            2,
            "LimitReached",
            "the device would be one too many: devices_max = 2",
        )];
        assert_eq!(reasons(&outcome), expected);
    }
    assert_eq!(case.devices().await, ["d-1", "d-2"]);
}

#[tokio::test]
async fn a_device_that_is_silent_makes_place_for_another_and_its_old_records_do_no_harm() {
    let mut case = Case::limited(|limits| limits.devices_max = 1).await;
    let old = batch(0, &[(T, "31")]);
    case.handled(&old).await;
    assert_eq!(case.forget(i64::MAX).await, 2, "the reading and its alert");
    assert_eq!(case.forget_all(NONE).await, 0);
    assert_eq!(case.devices().await, ["d-1"], "its last value stays");
    assert_eq!(case.forget_all(ALL).await, 1);
    assert_eq!(case.devices().await, [] as [&str; 0]);
    // As of long ago, for the clock that counts.
    case.handler.limits.silent_days = 1;
    let again = case.handled(&old).await;
    assert!(
        again.poison.is_empty() && again.downlink.is_empty(),
        "{again:?}"
    );
    assert_eq!(case.devices().await, [] as [&str; 0]);
    let topic = telemetry("d-2", "t");
    let outcome = case.handled(&batch(1, &[(&topic, "1")])).await;
    assert!(outcome.poison.is_empty(), "{outcome:?}");
    assert_eq!(case.devices().await, ["d-2"]);
}
